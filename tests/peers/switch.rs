//! `switch` while users sign in, with real OAuth servers: no sign-in is lost.

use crate::peer::Peer;
use crate::preflight::{integration, template, with_providers};
use crate::support::process::PROGRAM;
use crate::support::{assert_shows, command};
use crate::world::World;
use serde_json::{Value, json};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// Canaries of the keys, which must never appear in output or in the journal.
const API_KEY: &str = "canary-api-key-5e1f";
const ACCOUNT_KEY: &str = "canary-account-key-31d8";
/// Also of the account, without the scope to change environments.
const READING_KEY: &str = "canary-reading-key-b2c4";

const JOURNAL: &str = "callback-edge-switch.json";

#[test]
fn no_sign_in_is_lost_during_a_switch_and_back() {
    let mut world = World::new();
    let (old, new) = (world.old(), world.callback.clone());
    let mut provider = Peer::node("provider.mjs", &[&old, &new]);
    let origin = format!("http://provider.localhost:{}", provider.receive()["port"]);
    world.hosts.push(origin.clone());
    let template = json!({
        "auth_mode": "OAUTH2",
        "authorization_url": format!("{origin}/auth"),
        "token_url": format!("{origin}/token"),
        "webhook_routing_script": "anApiWebhookRouting",
    });
    let mut mcp = template.clone();
    mcp["auth_mode"] = json!("MCP_OAUTH2_GENERIC");
    mcp["registration_url"] = json!(format!("{origin}/reg"));
    let integration = |key: &str| {
        json!({
            "unique_key": key,
            "provider": key,
            "client_id": "nango",
            "client_secret": "a-secret-of-the-test",
            "scopes": "openid",
        })
    };
    world.save(&json!({
        "callback": old,
        "keys": { API_KEY: "all" },
        "account_keys": { ACCOUNT_KEY: ACCOUNT_SCOPES },
        "public_key": "a-public-key",
        "templates": { "an-api": template, "an-mcp": mcp },
        "integrations": [integration("an-api"), integration("an-mcp")],
    }));
    let connect =
        |key: &str| format!("{}/oauth/connect/{key}?public_key=a-public-key", world.nango_origin);
    let (api, mcp) = (connect("an-api"), connect("an-mcp"));

    // Both callbacks work, and flows are in progress, when the switch begins.
    let mut person = world.person();
    assert_signed_in(&sign_in(&mut person, &api), &old);
    let ca = world.edge.dir().join("ca.pem").display().to_string();
    let mut people = Peer::node("people.mjs", &[&api, &ca, "3"]);
    people.receive();
    wait_for_sign_ins(&mut people, &old);
    let mut api_in_progress = world.person();
    pause(&mut api_in_progress, &api);
    let mut mcp_in_progress = world.person();
    pause(&mut mcp_in_progress, &mcp);

    let plan = switch(&world, &["--callback", &new, "--plan"]);
    assert_eq!(plan.code, Some(0), "{}", plan.text);
    assert!(plan.text.contains("an-mcp"), "{}", plan.text);
    assert_eq!(world.recorded("patches"), json!([]));

    let switched = switch(&world, &["--callback", &new, "--yes"]);
    assert_eq!(switched.code, Some(0), "{}", switched.text);
    wait_for_sign_ins(&mut people, &new);
    assert_signed_in(&sign_in(&mut person, &api), &new);
    // The flow in progress keeps its callback; a generic MCP flow does not, as the plan announced.
    api_in_progress.send(&json!({ "continue": true }));
    assert_signed_in(&api_in_progress.receive(), &old);
    mcp_in_progress.send(&json!({ "continue": true }));
    let failed = mcp_in_progress.receive();
    assert!(failed["page"].as_str().unwrap().contains("invalid_grant"), "{failed:#}");
    assert_signed_in(&sign_in(&mut mcp_in_progress, &mcp), &new);

    // The same in the other direction.
    pause(&mut api_in_progress, &api);
    let again = switch(&world, &["--callback", &new, "--yes"]);
    assert_eq!(again.code, Some(0), "{}", again.text);
    let status = switch(&world, &["--status"]);
    assert_eq!(status.code, Some(0), "{}", status.text);
    let back = switch(&world, &["--back", "--yes"]);
    assert_eq!(back.code, Some(0), "{}", back.text);
    assert_signed_in(&sign_in(&mut person, &api), &old);
    api_in_progress.send(&json!({ "continue": true }));
    assert_signed_in(&api_in_progress.receive(), &new);

    people.send(&json!({ "stop": true }));
    let ended = people.receive();
    println!("{ended}");
    assert_eq!(ended["lost"], json!([]));
    for callback in [&old, &new] {
        assert!(ended["signed_in"][callback].as_u64().unwrap() > 1, "{ended}");
    }
    let saved = |url: &str| json!({ "name": "dev", "body": { "callback_url": url } });
    assert_eq!(world.recorded("patches"), json!([saved(&new), saved(&old)]));
    let journal = fs::read_to_string(world.edge.dir().join(JOURNAL)).unwrap();
    for text in [&plan.text, &switched.text, &again.text, &status.text, &back.text, &journal] {
        assert!(!text.contains("canary") && !text.contains("nango_connect_session"), "{text}");
    }
}

#[test]
fn three_environments_are_switched_only_when_the_provider_has_the_callback_of_all() {
    let (mut world, _server) = three_environments();
    let new = world.callback.clone();
    world.save(&environments(&world, ["both", "only-old", "both"]));
    write_project(world.edge.dir());
    for owner in ENVIRONMENTS.iter().chain(&["account"]) {
        write_key(world.edge.dir(), &format!("{owner}.key"), &key(owner));
    }
    let all = ["--all-environments", "--yes"];
    let to_new = [&all[..], &["--callback", &new]].concat();

    let unsafe_ = switch_project(&world, &[&to_new[..], &["--json"]].concat());
    assert_eq!(unsafe_.code, Some(1), "{}", unsafe_.text);
    let report: Value = serde_json::from_str(&unsafe_.stdout).unwrap();
    let verdicts = report["environments"].as_array().unwrap().iter();
    let verdicts = verdicts.map(|it| json!([it["name"], it["preflight"]["verdict"]]));
    let expected = [["development", "pass"], ["staging", "fail"], ["production", "pass"]];
    assert_eq!(verdicts.collect::<Value>(), json!(expected), "{report:#}");
    assert_eq!(world.recorded("patches"), json!([]));

    world.save(&environments(&world, ["both", "both", "both"]));
    let switched = switch_project(&world, &to_new);
    assert_eq!(switched.code, Some(0), "{}", switched.text);
    let back = switch_project(&world, &[&all[..1], &["--back", "--yes"]].concat());
    assert_eq!(back.code, Some(0), "{}", back.text);
    let old = world.old();
    let saved = |name: &str, url: &str| json!({ "name": name, "body": { "callback_url": url } });
    let patches = world.recorded("patches");
    let (there, returned) = patches.as_array().unwrap().split_at(3);
    assert_eq!(there[2], saved("production", &new), "{patches}");
    assert_eq!(returned[0], saved("production", &old), "{patches}");
    for name in ENVIRONMENTS {
        assert!(there.contains(&saved(name, &new)), "{patches}");
        assert!(returned.contains(&saved(name, &old)), "{patches}");
    }
    // Without the journal, the previous callback is saved like a new one. It is Nango's own.
    let again = switch_project(&world, &to_new);
    assert_eq!(again.code, Some(0), "{}", again.text);
    fs::remove_file(world.edge.dir().join(JOURNAL)).unwrap();
    let lost = switch_project(&world, &["--back", "--yes"]);
    assert_eq!(lost.code, Some(64), "{}", lost.text);
    let to_old = switch_project(&world, &[&all[..], &["--callback", &old]].concat());
    assert_eq!(to_old.code, Some(0), "{}", to_old.text);
    let patches = world.recorded("patches");
    assert_eq!(patches[11], saved("production", &old), "{patches}");
    for text in [&unsafe_.text, &switched.text, &back.text, &to_old.text] {
        assert!(!text.contains("canary"), "{text}");
    }
}

/// Production is first, to be switched last.
const ENVIRONMENTS: [&str; 3] = ["production", "staging", "development"];

/// A world whose Nango has the template of an OAuth server, which is returned too.
pub(crate) fn three_environments() -> (World, Peer) {
    let mut world = World::new();
    let (old, new) = (world.old(), world.callback.clone());
    let mut server = Peer::oauth("oauth-node", "oauth2orize.mjs", &[&old, &new]);
    // Providers with a loopback address as their host are refused.
    let origin = format!("http://oauth.localhost:{}", server.receive()["port"]);
    world.hosts.push(origin.clone());
    world.save(&json!({
        "account_keys": { ACCOUNT_KEY: ACCOUNT_SCOPES, READING_KEY: &ACCOUNT_SCOPES[..2] },
        "templates": { "an-api": {
            "auth_mode": "OAUTH2",
            "authorization_url": format!("{origin}/authorize"),
            "token_url": format!("{origin}/token"),
            "webhook_routing_script": "anApiWebhookRouting",
        } },
    }));
    (world, server)
}

/// Settings with the environments, and the registration that the app of each has at the server.
pub(crate) fn environments(world: &World, registrations: [&str; 3]) -> Value {
    let all = ENVIRONMENTS.iter().zip(registrations).enumerate();
    let all = all.map(|(number, (name, registration))| {
        json!({
            "uuid": format!("0b6c1a52-6d1e-4c86-9d5f-2f0c3f2f7a0{number}"),
            "name": name,
            "is_production": *name == "production",
            "callback": world.old(),
            "keys": { format!("{API_KEY}-{name}"): "all" },
            "integrations": [{
                "unique_key": "an-api",
                "provider": "an-api",
                "client_id": format!("confidential-{registration}"),
                "client_secret": "a-secret-of-the-test",
                "scopes": "read",
            }],
        })
    });
    json!({ "environments": all.collect::<Vec<_>>() })
}

/// The project file.
pub(crate) fn write_project(dir: &Path) {
    let own = ENVIRONMENTS.map(|it| format!("[environment.{it}]\nkey_file = \"{it}.key\"\n"));
    let text = format!("account_key_file = \"account.key\"\n{}", own.concat());
    fs::write(dir.join("nango.toml"), text).unwrap();
}

/// The key of the account, or of an environment.
pub(crate) fn key(owner: &str) -> String {
    match owner {
        "account" => ACCOUNT_KEY.to_owned(),
        "account that only reads" => READING_KEY.to_owned(),
        name => format!("{API_KEY}-{name}"),
    }
}

#[test]
fn the_transcripts_of_the_guide_are_correct() {
    let (mut world, [(_kinds, first), _authlib]) = with_providers();
    let (old, new) = (world.old(), world.callback.clone());
    let mut hubspot = template(&format!("{first}/auth"));
    hubspot["webhook_routing_script"] = json!("hubspotWebhookRouting");
    let mut mcp = template(&format!("{first}/auth"));
    mcp["auth_mode"] = json!("MCP_OAUTH2_GENERIC");
    let mut crm = integration("hubspot", "hubspot");
    crm["client_id"] = json!("both");
    world.save(&json!({
        "name": "production",
        "is_production": true,
        "callback": old,
        "keys": { API_KEY: "all" },
        "account_keys": { ACCOUNT_KEY: ACCOUNT_SCOPES },
        "templates": { "hubspot": hubspot, "mcp-generic": mcp },
        "integrations": [crm, integration("tools", "mcp-generic")],
    }));
    // The options for the servers of the test are also in the printed command to go back.
    let options = switch_command(&world, &[]);
    let options = options.get_args().skip(1).map(|it| format!(" {}", it.display()));
    let options: String = options.collect();
    let as_shown = |text: &str| {
        text.replace(&new, "https://auth.example.com/oauth/callback")
            .replace(&options, "")
            .replace(PROGRAM, "callback-edge")
            .replace(&world.nango_origin, "https://api.nango.dev")
            .replace(&first, "https://provider.example")
    };
    let to_new = format!("--callback {new}");
    let (plan, save) = (format!("{to_new} --plan"), format!("{to_new} --yes --quiet"));
    for arguments in [&plan, &save, "--status", "--back --yes --quiet"] {
        let all: Vec<_> = arguments.split(' ').collect();
        let mut command = switch_command(&world, &all);
        command.envs([("NANGO_SECRET_KEY", API_KEY), ("NANGO_ACCOUNT_KEY", ACCOUNT_KEY)]);
        // Both streams in the order of a terminal.
        let (mut output, writer) = std::io::pipe().unwrap();
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut program = command.spawn().unwrap();
        // It has the writing ends of the pipe.
        drop(command);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(program.wait().unwrap().code(), Some(0), "{text}");
        let typed = format!("callback-edge switch {}", as_shown(arguments));
        assert_shows("docs/switch.md", &typed, &as_shown(&text));
    }
}

const ACCOUNT_SCOPES: [&str; 3] =
    ["account:environments:list", "account:environments:read", "account:environments:update"];

struct Ran {
    code: Option<i32>,
    stdout: String,
    /// Standard output and standard error.
    text: String,
}

/// Runs `switch` for the one environment of the world.
fn switch(world: &World, arguments: &[&str]) -> Ran {
    let mut command = switch_command(world, arguments);
    command.envs([("NANGO_SECRET_KEY", API_KEY), ("NANGO_ACCOUNT_KEY", ACCOUNT_KEY)]);
    ran(command.output().unwrap())
}

/// Runs `switch` with the keys of the project file.
fn switch_project(world: &World, arguments: &[&str]) -> Ran {
    ran(switch_command(world, arguments).output().unwrap())
}

fn switch_command(world: &World, arguments: &[&str]) -> Command {
    let mut command = command(world.edge.dir());
    command.arg("switch").args(arguments).args(["--pause", "1ms", "--wait", "20s"]);
    world.connect(&mut command);
    command
}

fn ran(output: Output) -> Ran {
    let stdout = String::from_utf8(output.stdout).unwrap();
    let text = stdout.clone() + &String::from_utf8(output.stderr).unwrap();
    Ran { code: output.status.code(), stdout, text }
}

/// Writes a key that only its owner can read.
fn write_key(dir: &Path, name: &str, key: &str) {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(dir.join(name));
    std::io::Write::write_all(&mut file.unwrap(), key.as_bytes()).unwrap();
}

/// Signs in with a browser.
fn sign_in(person: &mut Peer, connect: &str) -> Value {
    person.send(&json!({ "connect": connect }));
    person.receive()
}

/// Starts a sign-in, and waits until the browser shows the login page of the provider.
fn pause(person: &mut Peer, connect: &str) {
    person.send(&json!({ "connect": connect, "pause": true }));
    let message = person.receive();
    assert!(message["paused"].is_string(), "{message:#}");
}

/// Asserts that a sign-in succeeded through this callback.
fn assert_signed_in(result: &Value, callback: &str) {
    let message = &result["message"]["eventType"];
    assert_eq!(message, "nango_oauth_callback_success", "{result:#}");
    let hops = result["hops"].as_array().unwrap();
    let with_code: Vec<_> =
        hops.iter().filter_map(|hop| hop[1].as_str()).filter(|url| url.contains("code=")).collect();
    assert!(with_code[0].starts_with(&format!("{callback}?")), "{with_code:?}");
}

/// Waits until the people have signed in through this callback.
fn wait_for_sign_ins(people: &mut Peer, callback: &str) {
    people.send(&json!({ "until": { "callback": callback, "count": 3 } }));
    let state = people.receive();
    assert_eq!(state["lost"], json!([]), "{state}");
}
