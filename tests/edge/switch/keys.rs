//! Which key opens which environment, and what it may do.

use super::{ACCOUNT_KEY, World, private};
use std::time::{Duration, Instant};

fn allow(world: &World, scopes: &[&str]) {
    let scopes = scopes.iter().map(|it| format!("account:environments:{it}")).collect();
    world.nango().account_keys.insert(ACCOUNT_KEY.into(), Some(scopes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_scope_is_named_and_nothing_is_repeated() {
    for (scopes, missing, patches) in [
        (&["list", "read"][..], "account:environments:update", 1),
        (&["list", "update"], "account:environments:read", 0),
        (&["read", "update"], "account:environments:list", 0),
    ] {
        let world = World::three().await;
        allow(&world, scopes);
        let run = world.switch(&[]).await.exits(3);
        assert!(run.text().contains(missing), "{missing}: {}", run.text());
        assert_eq!(world.nango().patches.len(), patches, "{missing}");
        world.all_have(&world.old);
        // With the scope, the same command completes it.
        allow(&world, &["list", "read", "update"]);
        world.switch(&[]).await.exits(0);
        world.all_have(&world.new);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_nango_refuses_changes_nothing() {
    for (file, key, exit, expected) in [
        ("account.key", "canary-unknown", 3, "does not accept the account API key"),
        // A key of the wrong kind.
        ("account.key", "canary-prod-key", 3, "account"),
        ("prod.key", "canary-unknown", 3, "unknown_account"),
        ("prod.key", ACCOUNT_KEY, 3, "account API key"),
        ("account.key", "", 64, "account.key"),
        ("account.key", "canary-1\ncanary-2", 64, "account.key"),
    ] {
        let world = World::one().await;
        private(&world.path(file), key);
        let run = world.switch(&[]).await;
        assert_eq!(run.code, Some(exit), "{file} {expected}: {}", run.text());
        assert!(run.text().contains(expected), "{file} {expected}: {}", run.text());
        world.no_patch();
    }
}

/// `webhook_url` has the id of the environment.
#[tokio::test(flavor = "multi_thread")]
async fn swapped_keys_are_found_before_any_save() {
    let world = World::three().await;
    private(&world.path("dev.key"), "canary-prod-key");
    private(&world.path("prod.key"), "canary-dev-key");
    let run = world.switch(&[]).await.exits(64);
    for name in ["dev", "prod"] {
        assert!(run.text().contains(name), "{}", run.text());
    }
    world.no_patch();
    // Without webhooks, a started flow has the callback of another environment.
    for environment in &mut world.nango().environments {
        environment.without_webhooks = true;
    }
    let other = "http://127.0.0.1:1/oauth/callback";
    world.nango().environment("prod").callback = other.into();
    for client in ["dev-app", "prod-app"] {
        world.register(client, &[other, &world.old, &world.new]);
    }
    let run = world.switch(&[]).await;
    assert!(matches!(run.code, Some(1 | 64)), "{}", run.text());
    world.no_patch();
}

/// Only a flow after the save shows it.
#[tokio::test(flavor = "multi_thread")]
async fn swapped_keys_that_nothing_shows_before_are_found_after_the_first_save() {
    let world = World::three().await;
    private(&world.path("dev.key"), "canary-prod-key");
    private(&world.path("prod.key"), "canary-dev-key");
    for environment in &mut world.nango().environments {
        environment.without_webhooks = true;
    }
    let run = world.switch(&[]).await.exits(1);
    world.all_have(&world.old);
    let patched: Vec<_> = world.nango().patches.iter().map(|it| it.environment.clone()).collect();
    assert!(patched.iter().all(|it| *it == patched[0]), "{patched:?}: {}", run.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_with_the_callback_of_another_environment_restores_at_once() {
    let world = World::three().await;
    let other = "http://127.0.0.1:1/oauth/callback";
    world.nango().environment("staging").callback = other.into();
    for client in ["dev-app", "staging-app"] {
        world.register(client, &[other, &world.old, &world.new]);
    }
    world.when_saved("dev", move |nango| nango.environment("dev").sends = Some(other.into()));
    let began = Instant::now();
    let run = world.switch(&["--wait=2m"]).await.exits(1);
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    assert_eq!(run.result("dev"), "restored", "{}", run.text());
    assert_eq!(world.saved("dev"), world.old);
    assert_eq!(world.saved("staging"), other);
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_serve_one_environment() {
    let world = World::one().await;
    std::fs::remove_file(world.path("nango.toml")).unwrap();
    let arguments = ["--callback", &world.new, "--yes", "--json", "--pause=1ms", "--wait=2s"];
    let mut command = world.command(&arguments);
    command.env("NANGO_SECRET_KEY", "canary-prod-key").env("NANGO_ACCOUNT_KEY", ACCOUNT_KEY);
    world.complete(command).await.exits(0);
    world.all_have(&world.new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    for file in ["account.key", "prod.key"] {
        let world = World::one().await;
        let permissions = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(world.path(file), permissions).unwrap();
        let run = world.switch(&[]).await.exits(64);
        assert!(run.text().contains("chmod 600"), "{file}: {}", run.text());
        assert!(world.nango().requests.is_empty(), "{file}: {:?}", world.nango().requests);
    }
}
