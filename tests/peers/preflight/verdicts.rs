//! What is said of each integration.

use super::{API_KEY, KINDS, every_kind, integration, states, template, with_providers};
use crate::support::check;
use serde_json::json;
use std::fs;

#[test]
fn every_kind_of_client_is_judged_right() {
    let (world, mut providers) = every_kind();
    let (mut right, mut wrong_registered, mut told) = (0, 0, Vec::new());
    for mode in ["connect", "offline", "auto"] {
        let (exit, report) = world.report(&["--mode", mode]);
        assert_eq!((exit, &report["verdict"]), (Some(1), &json!("fail")), "{report:#}");
        assert_eq!(report["switch"]["switched"], false);
        let states = states(&report);
        for (key, state, _) in KINDS {
            right += usize::from(states[key] == state);
            wrong_registered += usize::from(states[key] == "registered" && state != "registered");
            if states[key] != state {
                told.push(format!(
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
        "kinds judged right: {right} of {}; wrong \"registered\" verdicts: {wrong_registered}",
        KINDS.len() * 3
    );
    assert!(told.is_empty(), "{}", told.join("\n"));
    // Manners: no client is asked the same thing more than twice in a run.
    let kinds = &mut providers[0].0;
    kinds.send(&json!({ "requests": true }));
    let asked = kinds.receive()["requests"].clone();
    for (question, times) in asked.as_object().unwrap() {
        assert!(times.as_u64().unwrap() <= 2 * 3, "{question}: {times}");
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
    assert_eq!(check(&report, "nango.current")["summary"], "Nango sends this callback already");
    let states = states(&report);
    for (key, _, state) in KINDS {
        assert_eq!(states[key], state, "{:#}", check(&report, &format!("integration.{key}")));
    }
    let (exit, report) = world.report(&["--only", "both,only-new,authlib-both"]);
    assert_eq!((exit, &report["verdict"]), (Some(0), &json!("pass")), "{report:#}");
    // Settings may name integrations of another environment.
    world.save(&json!({ "integrations": [integration("both", "first")] }));
    let (exit, report) = world.report(&[]);
    assert_eq!(exit, Some(0), "{report:#}");
    let hint = check(&report, "nango.environment")["hint"].as_str().unwrap();
    assert!(hint.contains("the settings name unvalidated"), "{hint}");
}

#[test]
fn what_is_unknown_is_confirmed_by_hand_or_not_at_all() {
    let (world, _providers) = every_kind();
    let only = "both,after-login,only-old";
    let (exit, report) = world.report(&["--only", "both,after-login"]);
    assert_eq!((exit, &report["verdict"]), (Some(2), &json!("unconfirmed")));
    let (exit, report) = world.report(&["--only", "both,after-login", "--ack", "after-login"]);
    assert_eq!((exit, &report["verdict"]), (Some(0), &json!("pass")), "{report:#}");
    assert_eq!(states(&report)["after-login"], "acknowledged");
    // What the provider denies cannot be confirmed away.
    let (exit, report) = world.report(&["--only", only, "--ack", "after-login,only-old"]);
    assert_eq!((exit, states(&report)["only-old"].as_str()), (Some(1), "not_registered"));
    // A slip of the keyboard confirms nothing.
    let output = world.preflight(&["--ack", "after-logn"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--ack names `after-logn`"), "{text}");
}

#[test]
fn what_cannot_be_asked_is_said_to_be_unknown() {
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
        // The provider calls it `redirect_uri`, and refuses to go on without.
        ("renamed", "client_rejected"),
    ];
    let found = states(&report);
    for (key, state) in expected {
        let check = check(&report, &format!("integration.{key}"));
        assert_eq!(found[key], state, "{check:#}");
        assert_ne!(check["status"], "pass", "{check:#}");
    }

    // With what is missing, by hand and by copy.
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

/// An odd answer about one integration is told at that one, and no unknown passes.
#[test]
fn one_odd_answer_costs_one_integration() {
    let (mut world, [(_kinds, first), _authlib]) = with_providers();
    let old = world.old();
    let mut odd_params = template(&format!("{first}/auth"));
    odd_params["authorization_params"] = json!(["x"]);
    let mut nameless = integration("nameless", "");
    nameless.as_object_mut().unwrap().remove("provider");
    world.save(&json!({
        "callback": old,
        "keys": { API_KEY: "all" },
        "templates": {
            "first": template(&format!("{first}/auth")),
            "no-mode": { "auth_mode": null },
            "new-mode": { "auth_mode": "OAUTH3" },
            "odd-params": odd_params,
        },
        "integrations": [
            integration("both", "first"),
            integration("no-mode", "no-mode"),
            integration("new-mode", "new-mode"),
            integration("only-new", "odd-params"),
            nameless,
        ],
        "stumbles": 1,
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

/// What templates take for granted does not outvote what a flow shows.
#[test]
fn only_flows_say_which_callback_nango_sends() {
    let (mut world, _providers) = every_kind();
    let callback = world.callback.clone();
    world.save(&json!({ "callback": callback, "refused": ["only-new", "authlib-both"] }));
    let (exit, report) = world.report(&["--only", "both,only-new,authlib-both"]);
    assert_eq!(exit, Some(0), "{report:#}");
    assert_eq!(report["switch"]["switched"], true);
    assert_eq!(check(&report, "nango.current")["summary"], "Nango sends this callback already");
    let told = report.to_string();
    assert!(!told.contains("unlike elsewhere") && !told.contains("override"), "{report:#}");
}
