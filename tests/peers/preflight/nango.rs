//! The preflight and Nango, and Nango and its users.

use super::{API_KEY, HMAC_KEY, KINDS, every_kind, integration, states, template};
use crate::peer::Peer;
use crate::support::{check, command};
use crate::world::World;
use serde_json::{Value, json};
use std::time::Instant;

#[test]
fn errors_of_nango_are_reported_with_their_cause() {
    let (mut world, _providers) = every_kind();
    let result = |world: &World, arguments: &[&str], key: &str| {
        let output = world.preflight_with(arguments, &[("NANGO_SECRET_KEY", key)]);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text + &String::from_utf8(output.stderr).unwrap())
    };
    let only = ["--only", "both"];
    let (exit, text) = result(&world, &only, "another-key");
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
    let (exit, text) = result(&world, &only, "no-list");
    assert_eq!(exit, Some(3));
    assert!(text.contains(&format!("lacks the scope `{list}`")), "{text}");
    let (exit, text) = result(&world, &["--only", "both", "--mode", "connect"], "no-session");
    assert_eq!(exit, Some(3));
    assert!(text.contains(&format!("lacks one of the scopes `{sessions}` or")), "{text}");
    // Nango either omits the credentials silently, or the error contains the missing scope.
    for (key, expected) in [("enough", 3), ("no-credentials", 2)] {
        let (exit, text) = result(&world, &["--only", "both", "--mode", "offline"], key);
        assert_eq!(exit, Some(expected), "{text}");
        assert!(text.contains("environment:integrations:read"), "{text}");
    }
    let (exit, text) = result(&world, &only, "enough");
    assert_eq!(exit, Some(0), "{text}");

    world.save(&json!({ "throttled": 2 }));
    let began = Instant::now();
    let (exit, text) = result(&world, &only, "enough");
    assert_eq!(exit, Some(0), "{text}");
    assert!(began.elapsed().as_secs() >= 2, "it did not wait for `Retry-After`");

    world.save(&json!({ "capped": true }));
    let (exit, text) = result(&world, &["--only", "both", "--mode", "connect"], "enough");
    assert_eq!(exit, Some(3));
    assert!(text.contains("`resource_capped`") && text.contains("--mode offline"), "{text}");

    world.save(&json!({ "broken": true }));
    let (exit, text) = result(&world, &only, "enough");
    assert_eq!(exit, Some(3));
    assert!(text.contains("is not Nango's API"), "{text}");
}

#[test]
fn flows_are_started_with_a_public_key_and_a_signature() {
    let (mut world, _providers) = every_kind();
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
fn the_fake_nango_works_with_the_real_clients() {
    let (mut world, _providers) = every_kind();
    world.save(&json!({ "connections": [{
        "connection_id": "c1",
        "provider_config_key": "both",
        "connection_config": { "subdomain": "acme" },
        "metadata": null,
    }] }));
    let mut sdk = Peer::node("nango/sdk.mjs", &[&world.by_address(), API_KEY]);
    sdk.receive();
    let mut call = |name: &str, with: Value| {
        sdk.send(&json!({ "call": name, "with": with }));
        sdk.receive()
    };
    let listed = call("listIntegrations", json!([]));
    assert_eq!(listed["result"]["configs"].as_array().unwrap().len(), KINDS.len());
    let one =
        call("getIntegration", json!([{ "uniqueKey": "both" }, { "include": ["credentials"] }]));
    assert_eq!(one["result"]["data"]["credentials"]["client_id"], "both");
    let provider = call("getProvider", json!([{ "provider": "first" }]));
    assert_eq!(provider["result"]["data"]["auth_mode"], "OAUTH2");
    let providers = call("listProviders", json!([{}]));
    assert_eq!(providers["result"]["data"].as_array().unwrap().len(), 2);
    let session = call(
        "createConnectSession",
        json!([{ "tags": { "purpose": "test" }, "allowed_integrations": ["both"] }]),
    );
    assert!(session["result"]["data"]["token"].is_string(), "{session}");
    let connections = call("listConnections", json!([{ "integrationId": "both", "limit": 10 }]));
    assert_eq!(connections["result"]["connections"].as_array().unwrap().len(), 1);
    call("setMetadata", json!(["both", "c1", { "plan": "gold" }]));
    assert_eq!(call("getMetadata", json!(["both", "c1"]))["result"], json!({ "plan": "gold" }));
    call("updateMetadata", json!(["both", ["c1"], { "seats": 2 }]));
    assert_eq!(
        call("getMetadata", json!(["both", "c1"]))["result"],
        json!({ "plan": "gold", "seats": 2 })
    );
    assert_eq!(
        call("getConnection", json!(["both", "c1"]))["result"]["connection_config"]["subdomain"],
        "acme"
    );
    assert_eq!(call("getConnection", json!(["both", "c2"]))["error"], 404);
}

#[test]
fn connections_created_through_the_server_are_intact() {
    let mut world = World::new();
    let callback = world.callback.clone();
    let mut provider = Peer::node("provider.mjs", &[&callback]);
    let origin = format!("http://provider.localhost:{}", provider.receive()["port"]);
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
        person.send(&json!({ "nango": nango, "auth": ["an-api", "user-1", {
            "hmac": hmac,
            "params": { "subdomain": "acme & co" },
            "authorization_params": { "ui_locales": "de" },
            "detectClosedAuthWindow": true,
        }] }));
        person.receive()
    };
    assert_eq!(auth(&digest("another"))["refused"], "invalid_hmac");
    let result = auth(&digest(HMAC_KEY));
    assert_eq!(
        result["connection"],
        json!({ "providerConfigKey": "an-api", "connectionId": "user-1", "isPending": false }),
        "{result:#}"
    );
    let hops = result["hops"].as_array().unwrap();
    let has = |status: u64, start: &str, part: &str| {
        hops.iter().any(|hop| {
            let url = hop[1].as_str().unwrap();
            hop[0] == status && url.starts_with(start) && url.contains(part)
        })
    };
    assert!(has(303, &format!("{origin}/auth"), "ui_locales=de"), "{hops:?}");
    assert!(has(308, &callback, "code="), "{hops:?}");

    let mut sdk = Peer::node("nango/sdk.mjs", &[&world.by_address(), API_KEY]);
    sdk.receive();
    let mut call = |name: &str, with: Value| {
        sdk.send(&json!({ "call": name, "with": with }));
        sdk.receive()["result"].clone()
    };
    let connection = call("getConnection", json!(["an-api", "user-1"]));
    assert_eq!(
        connection["connection_config"],
        json!({ "subdomain": "acme & co", "accounts-server": "https://Accounts.example/eu" })
    );
    call("setMetadata", json!(["an-api", "user-1", { "plan": "gold", "n": 1 }]));
    assert_eq!(call("getMetadata", json!(["an-api", "user-1"])), json!({ "plan": "gold", "n": 1 }));
}
