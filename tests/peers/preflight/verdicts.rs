//! The states of integrations.

use super::{API_KEY, KINDS, every_kind, integration, states, template, with_providers};
use crate::support::check;
use serde_json::json;
use std::fs;

#[test]
fn every_kind_of_client_gets_the_right_state() {
    let (world, mut providers) = every_kind();
    let (mut right, mut wrong_registered, mut failures) = (0, 0, Vec::new());
    for mode in ["connect", "offline", "auto"] {
        let (exit, report) = world.report(&["--mode", mode]);
        assert_eq!((exit, &report["verdict"]), (Some(1), &json!("fail")), "{report:#}");
        assert_eq!(report["switch"]["switched"], false);
        let states = states(&report);
        for (key, state, _) in KINDS {
            right += usize::from(states[key] == state);
            wrong_registered += usize::from(states[key] == "registered" && state != "registered");
            if states[key] != state {
                failures.push(format!(
                    "{mode}: {key} is {}: {:#}",
                    states[key],
                    check(&report, &format!("integration.{key}"))
                ));
            }
        }
        let left_behind = report["switch"]["left_behind"].as_array().unwrap();
        assert_eq!(left_behind.is_empty(), mode == "offline", "{left_behind:?}");
    }
    println!(
        "kinds with the right state: {right} of {}; wrong \"registered\" states: {wrong_registered}",
        KINDS.len() * 3
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // No client gets the same probe more than five times in a run.
    let kinds = &mut providers[0].0;
    kinds.send(&json!({ "requests": true }));
    let sent = kinds.receive()["requests"].clone();
    for (probe, times) in sent.as_object().unwrap() {
        assert!(times.as_u64().unwrap() <= 5 * 3, "{probe}: {times}");
    }
}

#[test]
fn after_the_switch_the_same_command_confirms() {
    let (mut world, _providers) = every_kind();
    let callback = world.callback.clone();
    world.save(&json!({ "callback": callback }));
    let (exit, report) = world.report(&[]);
    assert_eq!(exit, Some(1), "{report:#}");
    assert_eq!(report["switch"]["switched"], true);
    assert_eq!(check(&report, "nango.current")["summary"], "Nango already sends this callback");
    let states = states(&report);
    for (key, _, state) in KINDS {
        assert_eq!(states[key], state, "{:#}", check(&report, &format!("integration.{key}")));
    }
    let (exit, report) = world.report(&["--only", "both,only-new,authlib-both"]);
    assert_eq!((exit, &report["verdict"]), (Some(0), &json!("pass")), "{report:#}");
    // Settings may contain integrations of another environment.
    world.save(&json!({ "integrations": [integration("both", "first")] }));
    let (exit, report) = world.report(&[]);
    assert_eq!(exit, Some(0), "{report:#}");
    let hint = check(&report, "nango.environment")["hint"].as_str().unwrap();
    assert!(hint.contains("has settings for unvalidated"), "{hint}");
}

#[test]
fn only_unknown_states_can_be_acknowledged() {
    let (world, _providers) = every_kind();
    let only = "both,after-login,only-old";
    let (exit, report) = world.report(&["--only", "both,after-login"]);
    assert_eq!((exit, &report["verdict"]), (Some(2), &json!("unconfirmed")));
    let (exit, report) = world.report(&["--only", "both,after-login", "--ack", "after-login"]);
    assert_eq!((exit, &report["verdict"]), (Some(0), &json!("pass")), "{report:#}");
    assert_eq!(states(&report)["after-login"], "acknowledged");
    // A rejected callback cannot be acknowledged.
    let (exit, report) = world.report(&["--only", only, "--ack", "after-login,only-old"]);
    assert_eq!((exit, states(&report)["only-old"].as_str()), (Some(1), "not_registered"));
    // A typing error confirms nothing.
    let output = world.preflight(&["--ack", "after-logn"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--ack: this environment has no integration `after-logn`"), "{text}");
}

#[test]
fn untestable_integrations_are_unknown() {
    let (mut world, [(_kinds, first), _authlib]) = with_providers();
    let old = world.old();
    let mut oauth1 = template(&format!("{first}/oauth1"));
    oauth1["auth_mode"] = json!("OAUTH1");
    let templated = first.replace("provider.localhost", "${connectionConfig.subdomain}.localhost");
    let mut renamed = template(&format!("{first}/auth"));
    renamed["redirect_parameter"] = json!("redirectUri");
    world.save(&json!({
        "callback": old,
        "keys": { API_KEY: "all" },
        "templates": {
            "trello": oauth1,
            "apollo": template(&format!("{first}/#/oauth/authorize")),
            "zendesk": template(&format!("{templated}/auth")),
            "stripe-api-key": { "auth_mode": "API_KEY" },
            "github-app": { "auth_mode": "APP", "authorization_url": "https://github.com/apps" },
            "walmart": renamed,
        },
        "integrations": [
            integration("trello", "trello"),
            integration("apollo", "apollo"),
            integration("both", "zendesk"),
            integration("only-old", "zendesk"),
            integration("key", "stripe-api-key"),
            integration("app", "github-app"),
            integration("renamed", "walmart"),
        ],
        "connections": (0..2500).map(|number| json!({
            "connection_id": format!("c{number}"),
            "provider_config_key": if number % 2 == 0 { "both" } else { "only-old" },
            "connection_config": { "subdomain": "provider" },
        })).collect::<Vec<_>>(),
    }));
    let (exit, report) = world.report(&[]);
    assert_eq!(exit, Some(2), "{report:#}");
    let expected = [
        ("trello", "untestable"),
        ("apollo", "untestable"),
        ("both", "no_url"),
        ("only-old", "no_url"),
        ("key", "no_callback"),
        ("app", "untestable"),
        // The provider requires `redirect_uri`, and returns an error without it.
        ("renamed", "client_rejected"),
    ];
    let found = states(&report);
    for (key, state) in expected {
        let check = check(&report, &format!("integration.{key}"));
        assert_eq!(found[key], state, "{check:#}");
        assert_ne!(check["status"], "pass", "{check:#}");
    }

    // With the missing value, configured and copied.
    let path = world.edge.dir().join("config.toml");
    let settings = fs::read_to_string(&path).unwrap();
    let more = "
        [preflight.integration.both]
        params = { subdomain = 'provider' }
        [preflight.integration.only-old]
        like_connection = 'c1'
    ";
    fs::write(path, settings + more).unwrap();
    for mode in ["connect", "offline"] {
        let (_, report) = world.report(&["--mode", mode, "--only", "both,only-old"]);
        let found = states(&report);
        assert_eq!(found["both"], "registered", "{report:#}");
        assert_eq!(found["only-old"], "not_registered", "{report:#}");
    }
    let (_, report) = world.report(&["--mode", "offline", "--only", "app"]);
    let detail = check(&report, "integration.app")["detail"].as_str().unwrap();
    assert!(detail.contains("/app-auth/connect"), "{detail}");
}

/// And no unknown one passes.
#[test]
fn an_unexpected_response_affects_only_one_integration() {
    let (mut world, [(_kinds, first), _authlib]) = with_providers();
    let old = world.old();
    let mut invalid_params = template(&format!("{first}/auth"));
    invalid_params["authorization_params"] = json!(["x"]);
    let mut nameless = integration("nameless", "");
    nameless.as_object_mut().unwrap().remove("provider");
    world.save(&json!({
        "callback": old,
        "keys": { API_KEY: "all" },
        "templates": {
            "first": template(&format!("{first}/auth")),
            "no-mode": { "auth_mode": null },
            "new-mode": { "auth_mode": "OAUTH3" },
            "invalid-params": invalid_params,
        },
        "integrations": [
            integration("both", "first"),
            integration("no-mode", "no-mode"),
            integration("new-mode", "new-mode"),
            integration("only-new", "invalid-params"),
            nameless,
        ],
        "bad_gateways": 1,
    }));
    let (exit, report) = world.report(&[]);
    assert_eq!(exit, Some(2), "{report:#}");
    let found = states(&report);
    for (key, state) in [
        ("both", "registered"),
        ("no-mode", "no_url"),
        ("new-mode", "no_url"),
        ("only-new", "registered"),
        ("nameless", "no_url"),
    ] {
        assert_eq!(found[key], state, "{:#}", check(&report, &format!("integration.{key}")));
    }
}

/// Not templates, which contain an assumed callback.
#[test]
fn only_flows_determine_the_current_callback() {
    let (mut world, _providers) = every_kind();
    let callback = world.callback.clone();
    world.save(&json!({ "callback": callback, "failing": ["only-new", "authlib-both"] }));
    let (exit, report) = world.report(&["--only", "both,only-new,authlib-both"]);
    assert_eq!(exit, Some(0), "{report:#}");
    assert_eq!(report["switch"]["switched"], true);
    assert_eq!(check(&report, "nango.current")["summary"], "Nango already sends this callback");
    let text = report.to_string();
    assert!(
        !text.contains("flows of this integration send") && !text.contains("override"),
        "{report:#}"
    );
}
