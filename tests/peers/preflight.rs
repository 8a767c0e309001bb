//! The preflight against programs of others: apps of every kind at two OAuth servers, and a stand-in
//! for Nango that the real SDKs are content with.

use crate::peer::{Peer, script};
use crate::support::command;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Output, Stdio};
use std::time::Instant;

/// What must never be seen. Each is planted where a secret of its kind stands.
const API_KEY: &str = "canary-api-key-5e1f";
const HMAC_KEY: &str = "canary-hmac-key-77c0";
const CLIENT_SECRET: &str = "canary-client-secret-90ab";

impl World {
    /// How often Nango was asked what.
    fn requests(&mut self) -> BTreeMap<String, u64> {
        self.nango.tell(&json!({ "requests": true }));
        loop {
            let said = self.nango.hear();
            if let Some(requests) = said.get("requests") {
                return serde_json::from_value(requests.clone()).unwrap();
            }
        }
    }

    fn preflight(&self, arguments: &[&str]) -> Output {
        self.preflight_with(arguments, &[("NANGO_SECRET_KEY", API_KEY)])
    }

    fn preflight_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        self.command(arguments, variables).output().unwrap()
    }

    fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> std::process::Command {
        let mut command = command(self.edge.dir());
        command.args(["preflight", "--callback", &self.callback, "--ca", "ca.pem"]);
        if !arguments.contains(&"--pause") {
            command.args(["--pause", "1ms"]);
        }
        command.args(arguments);
        let own = [self.nango_origin.as_str(), self.callback.as_str()];
        for url in own.into_iter().chain(self.hosts.iter().map(String::as_str)) {
            let url = url::Url::parse(url).unwrap();
            let place = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
            command.args(["--resolve", &format!("{place}:127.0.0.1")]);
        }
        command.envs(variables.iter().copied());
        command
    }

    fn report(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let output = self.preflight(&[arguments, &["--json"]].concat());
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code(), report)
    }
}

/// Key → state, of every integration in a report.
fn states(report: &Value) -> BTreeMap<String, String> {
    let checks = report["checks"].as_array().unwrap();
    let states = checks.iter().filter_map(|check| {
        let key = check["id"].as_str().unwrap().strip_prefix("integration.")?;
        Some((key.to_owned(), check["state"].as_str().unwrap().to_owned()))
    });
    states.collect()
}

fn check<'r>(report: &'r Value, id: &str) -> &'r Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id}: {report:#}"))
}

fn template(url: &str) -> Value {
    json!({ "auth_mode": "OAUTH2", "authorization_url": url, "token_url": "http://unused.localhost/" })
}

fn integration(key: &str, provider: &str) -> Value {
    json!({
        "unique_key": key,
        "provider": provider,
        "client_id": key,
        "client_secret": CLIENT_SECRET,
        "scopes": "openid",
    })
}

/// An OpenID provider, and a second server by another hand.
fn providers(world: &mut World) -> [(Peer, String); 2] {
    let (old, callback) = (world.old(), world.callback.clone());
    let mut kinds = Peer::node("kinds.mjs", &[&old, &callback]);
    let first = format!("http://provider.localhost:{}", kinds.hear()["port"]);
    let mut authlib =
        Peer::program("/usr/bin/python3", &[&script("authlib_server.py"), &old, &callback]);
    let second = format!("http://authlib.localhost:{}", authlib.hear()["port"]);
    world.hosts.extend([first.clone(), second.clone()]);
    [(kinds, first), (authlib, second)]
}

/// Client kind → the state that is right before the switch, and after it.
const KINDS: [(&str, &str, &str); 13] = [
    ("both", "registered", "registered"),
    ("only-old", "not_registered", "not_registered"),
    ("only-new", "registered", "registered"),
    ("neither", "not_registered", "not_registered"),
    ("after-login", "undecidable", "undecidable"),
    ("unvalidated", "unenforced", "unenforced"),
    ("prefix", "prefix_match", "prefix_match"),
    ("disabled", "client_rejected", "client_rejected"),
    ("authlib-both", "registered", "registered"),
    ("authlib-only-old", "not_registered", "not_registered"),
    ("authlib-only-new", "registered", "registered"),
    ("authlib-neither", "not_registered", "not_registered"),
    ("authlib-disabled", "client_rejected", "client_rejected"),
];

fn every_kind(world: &mut World, providers: &[(Peer, String); 2]) {
    let [(_, first), (_, second)] = providers;
    let integrations: Vec<_> = KINDS
        .iter()
        .map(|(key, ..)| {
            integration(key, if key.starts_with("authlib") { "second" } else { "first" })
        })
        .collect();
    let old = world.old();
    world.save(&json!({
        "callback": old,
        "keys": { API_KEY: "all" },
        "templates": {
            "first": template(&format!("{first}/auth")),
            "second": template(&format!("{second}/authorize")),
        },
        "integrations": integrations,
    }));
    let path = world.edge.dir().join("config.toml");
    let settings = fs::read_to_string(&path).unwrap();
    // Only a provider that redirects without a login shows that it validates nothing.
    let settings = format!("{settings}\n[preflight.integration.unvalidated]\nprompt_none = true\n");
    fs::write(path, settings).unwrap();
}

#[test]
fn every_kind_of_client_is_judged_right() {
    let mut world = World::new();
    let mut providers = providers(&mut world);
    every_kind(&mut world, &providers);
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
    kinds.tell(&json!({ "requests": true }));
    let asked = kinds.hear()["requests"].clone();
    for (question, times) in asked.as_object().unwrap() {
        assert!(times.as_u64().unwrap() <= 2 * 3, "{question}: {times}");
    }
}

#[test]
fn after_the_switch_the_same_command_confirms() {
    let mut world = World::new();
    let providers = providers(&mut world);
    every_kind(&mut world, &providers);
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
    let mut world = World::new();
    let providers = providers(&mut world);
    every_kind(&mut world, &providers);
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
    let mut world = World::new();
    let providers = providers(&mut world);
    let [(_, first), _] = &providers;
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

#[test]
fn a_refusal_of_nango_is_told_in_clear_words() {
    let mut world = World::new();
    let providers = providers(&mut world);
    every_kind(&mut world, &providers);
    let told = |world: &World, arguments: &[&str], key: &str| {
        let output = world.preflight_with(arguments, &[("NANGO_SECRET_KEY", key)]);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text + &String::from_utf8(output.stderr).unwrap())
    };
    let only = ["--only", "both"];
    let (exit, text) = told(&world, &only, "another-key");
    assert_eq!(exit, Some(3));
    assert!(text.contains("does not accept the API key"), "{text}");

    let list = "environment:integrations:list";
    let sessions = "environment:connect_sessions:write";
    world.save(&json!({ "keys": {
        "no-list": [sessions],
        "no-session": [list],
        "enough": [list, sessions],
        "no-credentials": [list, "environment:integrations:read"],
    } }));
    let (exit, text) = told(&world, &only, "no-list");
    assert_eq!(exit, Some(3));
    assert!(text.contains(&format!("lacks the scope `{list}`")), "{text}");
    let (exit, text) = told(&world, &["--only", "both", "--mode", "connect"], "no-session");
    assert_eq!(exit, Some(3));
    assert!(text.contains(&format!("lacks the scope `{sessions}`")), "{text}");
    // The scope that is missing is left out of the answer without a word, or named.
    for (key, expected) in [("enough", 3), ("no-credentials", 2)] {
        let (exit, text) = told(&world, &["--only", "both", "--mode", "offline"], key);
        assert_eq!(exit, Some(expected), "{text}");
        assert!(text.contains("environment:integrations:read"), "{text}");
    }
    let (exit, text) = told(&world, &only, "enough");
    assert_eq!(exit, Some(0), "{text}");

    world.save(&json!({ "throttled": 2 }));
    let began = Instant::now();
    let (exit, text) = told(&world, &only, "enough");
    assert_eq!(exit, Some(0), "{text}");
    assert!(began.elapsed().as_secs() >= 2, "it did not wait as it was told");

    world.save(&json!({ "capped": true }));
    let (exit, text) = told(&world, &["--only", "both", "--mode", "connect"], "enough");
    assert_eq!(exit, Some(3));
    assert!(text.contains("`resource_capped`") && text.contains("--mode offline"), "{text}");

    world.save(&json!({ "broken": true }));
    let (exit, text) = told(&world, &only, "enough");
    assert_eq!(exit, Some(3));
    assert!(text.contains("is not Nango's API"), "{text}");
}

/// An odd answer about one integration is told at that one, and no unknown passes.
#[test]
fn one_odd_answer_costs_one_integration() {
    let mut world = World::new();
    let providers = providers(&mut world);
    let [(_, first), _] = &providers;
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
    let mut world = World::new();
    let providers = providers(&mut world);
    every_kind(&mut world, &providers);
    let callback = world.callback.clone();
    world.save(&json!({ "callback": callback, "refused": ["only-new", "authlib-both"] }));
    let (exit, report) = world.report(&["--only", "both,only-new,authlib-both"]);
    assert_eq!(exit, Some(0), "{report:#}");
    assert_eq!(report["switch"]["switched"], true);
    assert_eq!(check(&report, "nango.current")["summary"], "Nango sends this callback already");
    let told = report.to_string();
    assert!(!told.contains("unlike elsewhere") && !told.contains("override"), "{report:#}");
}

#[test]
fn flows_are_started_with_a_public_key_and_a_signature() {
    let mut world = World::new();
    let providers = providers(&mut world);
    every_kind(&mut world, &providers);
    world.save(&json!({ "public_key": "a-public-key", "hmac_key": HMAC_KEY }));
    let run = |world: &World, hmac_key: &str| {
        let arguments =
            ["--only", "both", "--mode", "connect", "--public-key", "a-public-key", "--json"];
        let variables = [("NANGO_SECRET_KEY", API_KEY), ("NANGO_HMAC_KEY", hmac_key)];
        let output = world.preflight_with(&arguments, &variables);
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (exit, report) = run(&world, HMAC_KEY);
    assert_eq!(exit, Some(0), "{report:#}");
    assert_eq!(states(&report)["both"], "registered");
    for key in ["another", ""] {
        let (exit, report) = run(&world, key);
        assert_eq!((exit, states(&report)["both"].as_str()), (Some(2), "no_url"), "{report:#}");
        let hint = check(&report, "integration.both")["hint"].as_str().unwrap();
        assert!(hint.contains("NANGO_HMAC_KEY"), "{hint}");
    }
}

#[test]
fn no_secret_is_told_anywhere() {
    let mut world = World::new();
    let providers = providers(&mut world);
    every_kind(&mut world, &providers);
    world.save(&json!({ "public_key": "a-public-key", "hmac_key": HMAC_KEY }));
    let mut said = String::new();
    for format in ["--json", "--junit", "--markdown", ""] {
        for more in [&["--public-key", "a-public-key"][..], &[], &["--dry-run"]] {
            let mut arguments = more.to_vec();
            arguments.extend([format].iter().filter(|it| !it.is_empty()));
            let variables = [("NANGO_SECRET_KEY", API_KEY), ("NANGO_HMAC_KEY", HMAC_KEY)];
            let output = world.preflight_with(&arguments, &variables);
            said += &String::from_utf8(output.stdout).unwrap();
            said += &String::from_utf8(output.stderr).unwrap();
        }
    }
    assert!(
        said.contains("not_registered") && said.contains("<testsuite") && said.contains("| √ |")
    );
    for secret in [API_KEY, HMAC_KEY, CLIENT_SECRET, "canary", "nango_connect_session", "state="] {
        assert!(!said.contains(secret), "{secret} is told");
    }
    // No session's or flow's id either. Tokens are long runs of hex digits, states are UUIDs.
    let is_hex = |run: &str| run.bytes().all(|byte| byte.is_ascii_hexdigit());
    let runs = said.split(|it: char| !it.is_ascii_alphanumeric() && it != '-');
    let ids: Vec<_> = runs
        .filter(|run| {
            let parts: Vec<_> = run.split('-').collect();
            parts.iter().any(|part| part.len() >= 32 && is_hex(part))
                || parts.windows(5).any(|parts| {
                    let fit = parts.iter().zip([8, 4, 4, 4, 12]);
                    fit.into_iter().all(|(part, length)| part.len() == length && is_hex(part))
                })
        })
        .collect();
    assert!(ids.is_empty(), "{ids:?}");

    // And no key is taken from an argument.
    for option in ["--key", "--secret-key", "--api-key", "--hmac-key"] {
        let output = world.preflight(&[option, API_KEY]);
        assert_eq!(output.status.code(), Some(64), "{option}");
    }
}

#[test]
fn three_hundred_integrations_over_forty_hosts_take_bounded_time() {
    let mut world = World::new();
    let (old, callback) = (world.old(), world.callback.clone());
    let mut kinds = Peer::node("kinds.mjs", &[&old, &callback, "280"]);
    let port = kinds.hear()["port"].clone();
    let mut templates = serde_json::Map::new();
    for host in 0..40 {
        let origin = format!("http://p{host}.localhost:{port}");
        templates.insert(format!("p{host}"), template(&format!("{origin}/auth")));
        world.hosts.push(origin);
    }
    let integrations: Vec<_> = (0..300)
        .map(|number| {
            // The last twenty are integrations of apps that came before, at the same hosts.
            let app = number % 280;
            let mut one = integration(&format!("app-{number}"), &format!("p{}", app % 40));
            one["client_id"] = json!(format!("app-{app}"));
            one
        })
        .collect();
    world.save(&json!({
        "callback": old,
        "keys": { API_KEY: "all" },
        "templates": templates,
        "integrations": integrations,
    }));
    let began = Instant::now();
    let (exit, report) = world.report(&["--dry-run"]);
    println!("300 integrations, dry: {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!((exit, states(&report).len()), (Some(2), 300));
    assert!(states(&report).values().all(|state| state == "not_asked"));
    kinds.tell(&json!({ "requests": true }));
    assert_eq!(kinds.hear()["requests"], json!({}), "a dry run asks no provider");
    assert!(!world.requests().contains_key("POST /connect/sessions"));

    // 7 apps on a host, four to eight questions each, a tenth of a second apart: 5.6 s on the
    // busiest host, and all hosts side by side.
    let began = Instant::now();
    let (exit, report) = world.report(&["--pause", "100ms"]);
    let took = began.elapsed();
    println!("300 integrations over 40 hosts, 100 ms apart: {:.1} s", took.as_secs_f64());
    assert_eq!(exit, Some(1));
    let states = states(&report);
    let wrong: Vec<_> = (0..300)
        .filter_map(|number| {
            let key = format!("app-{number}");
            let right = if number % 2 == 0 { "registered" } else { "not_registered" };
            (states[&key] != right)
                .then(|| format!("{:#}", check(&report, &format!("integration.{key}"))))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(took.as_secs() < 40, "{took:?}");
    kinds.tell(&json!({ "requests": true }));
    let asked = kinds.hear()["requests"].clone();
    let asked = asked.as_object().unwrap();
    assert_eq!(asked.len(), 280 * 4, "four questions an app, and one app is asked about once");
    // A verdict from likeness is confirmed by one more round, and nothing is asked beyond it.
    for (question, times) in asked {
        assert!(times.as_u64().unwrap() <= 2, "{question}: {times}");
    }
    let requests = world.requests();
    assert_eq!(requests["POST /connect/sessions"], 1);
    let starts: Vec<_> =
        requests.iter().filter(|(asked, _)| asked.contains("/oauth/connect/")).collect();
    assert_eq!(starts.len(), 300);
    assert!(starts.iter().all(|(_, times)| **times == 1));
}

#[test]
fn drift_is_watched_and_told_as_metrics() {
    let mut world = World::new();
    let providers = providers(&mut world);
    every_kind(&mut world, &providers);
    let arguments = ["--only", "both", "--every", "10s", "--metrics", "127.0.0.1:0", "--json"];
    let mut command = world.command(&arguments, &[("NANGO_SECRET_KEY", API_KEY)]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(watch.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address =
        line.trim().strip_prefix("metrics on http://").unwrap_or_else(|| panic!("{line}"));
    let address = address.strip_suffix("/metrics").unwrap().to_owned();
    let mut stdout = BufReader::new(watch.stdout.take().unwrap());
    let mut next = || {
        let mut text = String::new();
        while !text.ends_with("\n}\n") {
            assert!(stdout.read_line(&mut text).unwrap() > 0, "{text}");
        }
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let scrape = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(next()["verdict"], "pass");
    next();
    let text = scrape();
    for sample in [
        "callback_edge_preflight_safe 1",
        "callback_edge_preflight_switched 0",
        "callback_edge_preflight_integration{integration=\"both\",state=\"registered\"} 1",
    ] {
        assert!(text.contains(sample), "no {sample} in {text}");
    }
    let callback = world.callback.clone();
    world.save(&json!({ "callback": callback }));
    while next()["switch"]["switched"] != true {}
    assert!(scrape().contains("callback_edge_preflight_switched 1"));
    let pid = rustix::process::Pid::from_child(&watch);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    drop(stdout);
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn the_stand_in_is_what_real_clients_expect() {
    let mut world = World::new();
    let providers = providers(&mut world);
    every_kind(&mut world, &providers);
    world.save(&json!({ "connections": [{
        "connection_id": "c1",
        "provider_config_key": "both",
        "connection_config": { "subdomain": "acme" },
        "metadata": null,
    }] }));
    let mut sdk = Peer::node("nango/sdk.mjs", &[&world.by_address(), API_KEY]);
    sdk.hear();
    let mut call = |name: &str, with: Value| {
        sdk.tell(&json!({ "call": name, "with": with }));
        sdk.hear()
    };
    let listed = call("listIntegrations", json!([]));
    assert_eq!(listed["answer"]["configs"].as_array().unwrap().len(), KINDS.len());
    let one =
        call("getIntegration", json!([{ "uniqueKey": "both" }, { "include": ["credentials"] }]));
    assert_eq!(one["answer"]["data"]["credentials"]["client_id"], "both");
    let provider = call("getProvider", json!([{ "provider": "first" }]));
    assert_eq!(provider["answer"]["data"]["auth_mode"], "OAUTH2");
    let providers = call("listProviders", json!([{}]));
    assert_eq!(providers["answer"]["data"].as_array().unwrap().len(), 2);
    let session = call(
        "createConnectSession",
        json!([{ "tags": { "purpose": "test" }, "allowed_integrations": ["both"] }]),
    );
    assert!(session["answer"]["data"]["token"].is_string(), "{session}");
    let connections = call("listConnections", json!([{ "integrationId": "both", "limit": 10 }]));
    assert_eq!(connections["answer"]["connections"].as_array().unwrap().len(), 1);
    call("setMetadata", json!(["both", "c1", { "plan": "gold" }]));
    assert_eq!(call("getMetadata", json!(["both", "c1"]))["answer"], json!({ "plan": "gold" }));
    call("updateMetadata", json!(["both", ["c1"], { "seats": 2 }]));
    assert_eq!(
        call("getMetadata", json!(["both", "c1"]))["answer"],
        json!({ "plan": "gold", "seats": 2 })
    );
    assert_eq!(
        call("getConnection", json!(["both", "c1"]))["answer"]["connection_config"]["subdomain"],
        "acme"
    );
    assert_eq!(call("getConnection", json!(["both", "c2"]))["refused"], 404);
}

#[test]
fn connections_made_through_the_edge_are_intact() {
    let mut world = World::new();
    let callback = world.callback.clone();
    let mut provider = Peer::node("provider.mjs", &[&callback]);
    let origin = format!("http://provider.localhost:{}", provider.hear()["port"]);
    let mut template = template(&format!("{origin}/auth"));
    template["token_url"] = json!(format!("{origin}/token"));
    template["redirect_uri_metadata"] = json!(["accounts-server"]);
    let mut api = integration("an-api", "an-api");
    api["client_id"] = json!("nango");
    api["client_secret"] = json!("a-secret-of-the-test");
    world.save(&json!({
        "callback": callback,
        "keys": { API_KEY: "all" },
        "public_key": "a-public-key",
        "hmac_key": HMAC_KEY,
        "templates": { "an-api": template },
        "integrations": [api],
    }));

    let mut person = world.person();
    let digest = |key: &str| {
        let output = command(world.edge.dir())
            .args(["hmac", "an-api", "user-1"])
            .env("NANGO_HMAC_KEY", key)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let nango = json!({ "host": world.nango_origin, "publicKey": "a-public-key" });
    let mut auth = |hmac: &str| {
        person.tell(&json!({ "nango": nango, "auth": ["an-api", "user-1", {
            "hmac": hmac,
            "params": { "subdomain": "acme & co" },
            "authorization_params": { "ui_locales": "de" },
            "detectClosedAuthWindow": true,
        }] }));
        person.hear()
    };
    assert_eq!(auth(&digest("another"))["refused"], "invalid_hmac");
    let told = auth(&digest(HMAC_KEY));
    assert_eq!(
        told["connection"],
        json!({ "providerConfigKey": "an-api", "connectionId": "user-1", "isPending": false }),
        "{told:#}"
    );
    let hops = told["hops"].as_array().unwrap();
    let has = |status: u64, start: &str, part: &str| {
        hops.iter().any(|hop| {
            let url = hop[1].as_str().unwrap();
            hop[0] == status && url.starts_with(start) && url.contains(part)
        })
    };
    assert!(has(303, &format!("{origin}/auth"), "ui_locales=de"), "{hops:?}");
    assert!(has(308, &callback, "code="), "{hops:?}");

    let mut sdk = Peer::node("nango/sdk.mjs", &[&world.by_address(), API_KEY]);
    sdk.hear();
    let mut call = |name: &str, with: Value| {
        sdk.tell(&json!({ "call": name, "with": with }));
        sdk.hear()["answer"].clone()
    };
    let connection = call("getConnection", json!(["an-api", "user-1"]));
    assert_eq!(
        connection["connection_config"],
        json!({ "subdomain": "acme & co", "accounts-server": "https://Accounts.example/eu" })
    );
    call("setMetadata", json!(["an-api", "user-1", { "plan": "gold", "n": 1 }]));
    assert_eq!(call("getMetadata", json!(["an-api", "user-1"])), json!({ "plan": "gold", "n": 1 }));
}

/// Every line of the README's picture of a preflight stands in a real one.
#[test]
fn the_readme_shows_what_happens() {
    let mut world = World::new();
    let providers = providers(&mut world);
    let [(_, first), _] = &providers;
    let apps = [("hubspot", "both"), ("slack", "only-old"), ("discord", "after-login")];
    let integrations: Vec<_> = apps
        .iter()
        .map(|(key, client)| {
            let mut integration = integration(key, key);
            integration["client_id"] = json!(client);
            integration
        })
        .collect();
    let templates: BTreeMap<_, _> =
        apps.iter().map(|(key, _)| (key, template(&format!("{first}/auth")))).collect();
    let old = world.old();
    world.save(&json!({
        "callback": old,
        "keys": { API_KEY: "all" },
        "templates": templates,
        "integrations": integrations,
    }));
    let output = world.preflight(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    let shown = text
        .replace(&world.callback, "https://auth.example.com/oauth/callback")
        .replace(&world.nango_origin, "https://api.nango.dev");
    println!("{shown}");
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let start = "$ callback-edge preflight --callback https://auth.example.com/oauth/callback\n";
    let (_, picture) = readme.split_once(start).unwrap();
    for line in picture.split_once("```").unwrap().0.lines().filter(|line| *line != "…") {
        assert!(shown.lines().any(|told| told == line), "{line:?} is not in:\n{shown}");
    }
}
