//! Nothing is sent to Nango's settings while anything is unsafe.

use super::{World, concurrently, integration};
use serde_json::{Value, json};

/// Changes a world; it is then no longer safe to switch.
type Change = fn(&World);

/// Adds an integration of this template, which has the provider of the other one.
pub(super) fn add(world: &World, name: &str, template: Value, client: &str) {
    let mut nango = world.nango();
    let mut template = template;
    template["authorization_url"] = nango.templates["crm"]["authorization_url"].clone();
    nango.templates.insert(name.into(), template);
    nango.environments[0].integrations.push(integration(name, name, client));
}

/// Each is unsafe in its way.
const CASES: [(&str, Change); 8] = [
    ("not registered", |it| it.register("prod-app", &[&it.old])),
    ("unknown client", |it| it.registry.lock().unwrap().callbacks.clear()),
    ("no provider", |it| it.registry.lock().unwrap().is_down = true),
    ("broken callback", |it| *it.is_broken.lock().unwrap() = true),
    ("app settings", |it| add(it, "plugin", json!({ "auth_mode": "INSTALL_PLUGIN" }), "x")),
    ("GitHub app", |it| add(it, "app", json!({ "auth_mode": "APP" }), "x")),
    ("shared app", |it| {
        it.nango().environments[0].integrations[0]["credentials"]["client_id"] = json!("");
    }),
    ("no start", |it| {
        add(it, "other", json!({ "auth_mode": "OAUTH2" }), "prod-app");
        it.nango().environments[0].failing.insert("other".into(), "is missing client ID".into());
        it.nango().environments[0].integrations[1]["credentials"]["client_id"] = json!(null);
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_saved_while_anything_is_unsafe() {
    let case = async |(name, change): (&str, Change)| {
        let world = World::one().await;
        change(&world);
        let run = world.switch(&[]).await;
        assert_eq!(run.code, Some(1), "{name}: {}", run.text());
        assert_eq!(run.result("prod"), "unsafe", "{name}: {}", run.text());
        world.no_patch();
        world.all_have(&world.old);
        assert!(!world.journal().exists(), "{name}");
        // The plan has the same verdict.
        let run = world.run(&world.arguments(&["--plan"])).await;
        assert_eq!(run.code, Some(1), "{name}: {}", run.text());
        world.no_patch();
    };
    concurrently(CASES, case).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_or_an_accepted_risk_lets_it_be_saved() {
    let world = World::one().await;
    add(&world, "plugin", json!({ "auth_mode": "INSTALL_PLUGIN" }), "x");
    world.switch(&["--ack", "prod/plugin=CHG-1"]).await.exits(0);
    world.all_have(&world.new);
    let world = World::one().await;
    world.nango().environments[0].integrations[0]["credentials"]["client_id"] = json!("");
    let run = world.switch(&["--accept-risk", "prod/crm=CHG-2"]).await.exits(0);
    assert!(run.text().contains("CHG-2"), "{}", run.text());
    world.all_have(&world.new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_nango_cannot_use_is_refused_before_any_save() {
    let world = World::one().await;
    let long = format!("{}/{}", world.new, "a".repeat(256));
    let with_fragment = format!("{}#x", world.new);
    for callback in ["", "not a URL", &with_fragment, &long] {
        let run = world.run(&["--callback", callback, "--all-environments", "--yes"]).await;
        assert!(matches!(run.code, Some(1 | 64)), "{callback}: {}", run.text());
        world.no_patch();
    }
    let run = world.run(&["--callback", &long, "--all-environments", "--yes"]).await;
    assert!(run.text().contains("255"), "{}", run.text());
    // The callback is saved as it was given and checked, not as a parser writes it.
    let spelled = world.new.replace("http://127.0.0.1", "HTTP://127.0.0.1");
    let run =
        world.run(&["--callback", &spelled, "--all-environments", "--yes", "--pause=1ms"]).await;
    if run.code != Some(1) {
        assert!(
            world.nango().patches.iter().all(|it| it.body.contains("HTTP://")),
            "{}",
            run.text()
        );
    }
}
