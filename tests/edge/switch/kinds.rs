//! What the plan announces and what remains to be done, for the kinds of integration; and unusual
//! environments.

use super::unsafe_callbacks::add;
use super::{World, integration};
use crate::fakes::Reply;
use crate::nango::{Fault, Kind, Rule};
use crate::support::process::Lines;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::process::Stdio;
use std::sync::Arc;

fn mcp(world: &World, name: &str, registration: &str) {
    let template = json!({ "auth_mode": "MCP_OAUTH2", "client_registration": registration });
    add(world, name, template, "prod-app");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_announces_what_users_notice_and_the_report_what_remains() {
    let world = World::one().await;
    add(&world, "generic", json!({ "auth_mode": "MCP_OAUTH2_GENERIC" }), "x");
    mcp(&world, "dynamic", "dynamic");
    world.register("old-app", &[&world.old]);
    for it in &mut world.nango().environments[0].integrations {
        if it["unique_key"] == "dynamic" {
            it["client_id"] = json!("old-app");
        }
    }
    let ack = "--ack=prod/dynamic=CHG-1";
    let run = world.run(&world.arguments(&["--plan", ack])).await.exits(0);
    let plan = run.report()["plan"].to_string();
    for part in ["generic", "dynamic", "in progress"] {
        assert!(plan.contains(part), "{part}: {}", run.text());
    }
    assert_eq!(world.nango().registered, 0, "a start registers a client at the provider");
    let run = world.switch(&[ack]).await;
    assert!(matches!(run.code, Some(0 | 2)), "{}", run.text());
    world.all_have(&world.new);
    let remaining = run.report()["remaining"].to_string();
    for part in ["dynamic", &world.old] {
        assert!(remaining.contains(part), "{part}: {}", run.text());
    }
    assert_eq!(world.nango().registered, 0);
}

/// A person replaces it at the provider when the callback is saved.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_with_one_callback_needs_a_swap_that_a_person_confirms() {
    let with_reddit = async || {
        let world = World::one().await;
        add(&world, "reddit", json!({ "auth_mode": "OAUTH2" }), "reddit-app");
        world.register("reddit-app", &[&world.old]);
        world
    };
    let world = with_reddit().await;
    world.switch(&[]).await.exits(1);
    world.no_patch();
    let run = world.run(&world.arguments(&["--plan", "--ack=prod/reddit=CHG-1"])).await.exits(0);
    assert!(run.report()["plan"].to_string().contains("reddit"), "{}", run.text());
    // Swapped at the moment of the save.
    let (registry, new) = (Arc::clone(&world.registry), world.new.clone());
    world.when_saved("prod", move |_| {
        let mut registry = registry.lock().unwrap();
        *registry.callbacks.get_mut("reddit-app").unwrap() = [new].into();
    });
    world.switch(&["--ack=prod/reddit=CHG-1"]).await.exits(0);
    world.all_have(&world.new);
}

/// Old registrations can be removed after the switch: the preflight of the new callback still passes.
#[tokio::test(flavor = "multi_thread")]
async fn the_preflight_passes_when_only_the_new_callback_is_registered() {
    let world = World::one().await;
    world.switch(&[]).await.exits(0);
    world.register("prod-app", &[&world.new]);
    let mut command = crate::support::command(world.dir.path());
    command.args(["preflight", "--callback", &world.new, "--all-environments", "--pause=1ms"]);
    command.env("CALLBACK_EDGE_NANGO__URL", &world.origin);
    world.complete(command).await.exits(0);
    world.switch(&[]).await.exits(0);
    assert_eq!(world.nango().patches.len(), 1);
    // Also when it is repeated; the exit code is that of the last run.
    let mut command = crate::support::command(world.dir.path());
    command.args(["preflight", "--callback", &world.new, "--all-environments", "--pause=1ms"]);
    command.args(["--every=1h", "--json"]).env("CALLBACK_EDGE_NANGO__URL", &world.origin);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = Lines::of(child.stdout.take().unwrap());
    let code = tokio::task::block_in_place(|| {
        lines.wait_for(&mut child, &["\"verdict\""]);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap().code()
    });
    assert_eq!(code, Some(0), "{}", lines.text());
}

/// Nango may show no value for its own callback. It refuses an empty value, so that the whole URL is saved
/// to go back.
#[tokio::test(flavor = "multi_thread")]
async fn an_environment_without_a_saved_callback_goes_back_to_nango_s_own() {
    let world = World::one().await;
    world.nango().environments[0].is_default = true;
    let run = world.switch(&[]).await.exits(0);
    assert_eq!(run.environment("prod")["before"], *world.old, "{}", run.text());
    world.back(&[]).await.exits(0);
    world.all_have(&world.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_an_acknowledgement_does_not_matter() {
    for reply in [Reply::new(204), Reply::new(200), Reply::page(200, "ok")] {
        let world = World::one().await;
        world.rule(Rule::at(Kind::Patch, Fault::ReplyAfter(reply)));
        world.switch(&[]).await.exits(0);
        assert_eq!(world.nango().patches.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_is_named_twice_is_switched_once() {
    let world = World::three().await;
    let arguments = ["--callback", &world.new, "--environment=dev,dev", "--environment=dev"];
    let run = world.run(&[&arguments[..], &["--yes", "--json", "--pause=1ms"]].concat()).await;
    assert!(matches!(run.code, Some(0 | 64)), "{}", run.text());
    assert!(world.nango().patches.len() <= 1, "{}", run.text());
}

/// Its previous callback is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_a_person_switched_is_confirmed_and_not_changed() {
    let world = World::three().await;
    world.nango().environment("dev").callback.clone_from(&world.new);
    let run = world.switch(&[]).await.exits(0);
    assert_eq!(run.result("dev"), "already_switched", "{}", run.text());
    assert!(world.nango().patches.iter().all(|it| it.environment != "dev"));
    world.all_have(&world.new);
    world.back(&[]).await;
    assert!(world.nango().patches.iter().all(|it| it.environment != "dev"));
    assert_eq!(world.saved("prod"), world.old);
}

/// Some flow, not the first.
#[tokio::test(flavor = "multi_thread")]
async fn an_integration_that_cannot_start_does_not_prevent_the_confirmation() {
    let world = World::one().await;
    let broken = integration("a-broken", "crm", "prod-app");
    world.nango().environments[0].integrations.insert(0, broken);
    let text = "is missing client ID".to_owned();
    world.nango().environments[0].failing.insert("a-broken".into(), text);
    let run = world.switch(&["--ack=prod/a-broken=unused"]).await;
    assert!(matches!(run.code, Some(0 | 2)), "{}", run.text());
    world.all_have(&world.new);
}

/// A key that reads templates and credentials proves the providers, but no flow.
#[tokio::test(flavor = "multi_thread")]
async fn without_permission_to_start_flows_the_switch_is_unconfirmed() {
    let world = World::one().await;
    let scopes = ["environment:integrations:list", "environment:integrations:read_credentials"];
    let scopes = scopes.map(str::to_owned).to_vec();
    world.nango().environments[0].keys.insert("canary-prod-key".into(), Some(scopes));
    let run = world.switch(&[]).await;
    // The harness compares the exit code with what is saved.
    assert!(matches!(run.code, Some(1..=3)), "{}", run.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_from_nango_cannot_control_the_terminal() {
    let world = World::one().await;
    world.nango().environments[0].integrations[0]["display_name"] = json!("\u{1b}[31mred\u{7}");
    let mut other = world.nango().environments[0].clone();
    (other.name, other.uuid) =
        ("\u{1b}]0;x\u{7}".into(), "0b6c1a52-6d1e-4c86-9d5f-2f0c3f2f7a77".into());
    other.keys.clear();
    world.nango().environments.push(other);
    let arguments = ["--callback", &world.new, "--environment=prod", "--yes", "--pause=1ms"];
    let run = world.run(&arguments).await.exits(0);
    assert!(!run.text().contains(['\u{1b}', '\u{7}']), "{:?}", run.text());
    let run = world.run(&["--callback", &world.new, "--environment=x", "--yes"]).await;
    assert!(!run.text().contains(['\u{1b}', '\u{7}']), "{:?}", run.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_not_sent_over_plain_http() {
    let world = World::one().await;
    std::fs::write(world.path("config.toml"), "allow_plain_targets = '10.0.0.0/8'").unwrap();
    for arguments in [world.arguments(&["--yes"]), vec!["--status"], vec!["--back", "--yes"]] {
        if arguments[0] != "--callback" {
            world.switch(&[]).await;
        }
        let mut command = world.command(&arguments);
        command.env("CALLBACK_EDGE_NANGO__URL", "http://10.1.2.3");
        let run = world.complete(command).await;
        // The journal is of another Nango.
        assert!(matches!(run.code, Some(3 | 64)), "{arguments:?}: {}", run.text());
        assert!(run.code == Some(64) || arguments[0] != "--callback", "{}", run.text());
    }
}
