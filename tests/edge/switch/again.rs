//! Several runs with one journal, and what surrounds a run: closed pipes, slow caches, other servers.

use super::World;
use crate::fakes::Reply;
use crate::nango::{Fault, Kind, Rule, error};
use std::process::Stdio;
use std::sync::Arc;

impl World {
    /// Switches these environments to this callback.
    async fn switch_to(&self, callback: &str, environments: &str) -> super::Run {
        let arguments = ["--callback", callback, "--environment", environments, "--yes"];
        self.run(&super::with_defaults(&arguments, &[])).await
    }

    /// Another correct callback, registered everywhere.
    async fn third(&self) -> String {
        let third = crate::fakes::plain(super::callback(self.origin.clone(), Arc::default()));
        let third = format!("http://{}/oauth/callback", third.await);
        for name in self.nango().saved().into_keys() {
            self.register(&format!("{name}-app"), &[&self.old, &self.new, &third]);
        }
        self.third.get_or_init(|| third).clone()
    }
}

/// As one job for each environment.
#[tokio::test(flavor = "multi_thread")]
async fn runs_for_single_environments_share_a_journal() {
    let world = World::three().await;
    for name in ["staging", "dev", "prod"] {
        world.switch_to(&world.new, name).await.exits(0);
    }
    world.all_have(&world.new);
    let run = world.status().await.exits(0);
    for name in ["dev", "staging", "prod"] {
        assert_eq!(run.environment(name)["before"], *world.old, "{}", run.text());
    }
    world.back(&["--environment=dev"]).await.exits(0);
    assert_eq!(world.saved("dev"), world.old);
    assert_eq!(world.saved("prod"), world.new);
    world.back(&[]).await.exits(0);
    world.all_have(&world.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completed_switch_can_be_followed_by_another_one() {
    let world = World::one().await;
    let third = world.third().await;
    world.switch(&[]).await.exits(0);
    let run = world.switch_to(&third, "prod").await;
    assert_eq!(world.saved("prod"), third, "{}", run.text());
    // One step back.
    let run = world.back(&[]).await.exits(0);
    assert_eq!(world.saved("prod"), world.new, "{}", run.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_without_production_are_switched_in_the_given_order() {
    let world = World::three().await;
    world.switch_to(&world.new, "staging,dev").await.exits(0);
    let patches = world.nango().patches.clone();
    let order: Vec<_> = patches.iter().map(|it| it.environment.as_str()).collect();
    assert_eq!(order, ["staging", "dev"]);
}

/// As with `| head`: the output ends, the switch does not.
#[tokio::test(flavor = "multi_thread")]
async fn closed_pipes_do_not_end_a_switch_part_way() {
    for (is_rejected, is_json) in [(false, true), (false, false), (true, true)] {
        let world = World::one().await;
        if is_rejected {
            world.rejects_after_save("prod");
        }
        let arguments = world.arguments(&["--yes"]);
        let arguments: Vec<_> =
            arguments.into_iter().filter(|it| is_json || *it != "--json").collect();
        let mut command = world.command(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
        let status = tokio::time::timeout(crate::support::PATIENCE * 2, ended).await;
        let status = status.unwrap().unwrap();
        world.all_have(if is_rejected { &world.old } else { &world.new });
        assert!(status.code().is_some_and(|code| code != 101), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_cache_does_not_prevent_going_back() {
    let world = World::one().await;
    world.nango().environments[0].cache.reads = 2;
    world.nango().environments[0].cache.starts = 2;
    world.switch(&["--wait=8s"]).await.exits(0);
    world.back(&["--wait=8s"]).await.exits(0);
    world.all_have(&world.old);
    // Nor the restore.
    world.rejects_after_save("prod");
    world.switch(&["--wait=8s"]).await.exits(1);
    world.all_have(&world.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_during_the_run_leaves_the_switch_unconfirmed() {
    let world = World::one().await;
    world.when_saved("prod", |nango| {
        nango.environment("prod").keys.clear();
    });
    let run = world.switch(&[]).await.exits(2);
    world.all_have(&world.new);
    assert_eq!(run.result("prod"), "switched_unconfirmed", "{}", run.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_of_the_api_are_not_followed() {
    for kind in [Kind::List, Kind::Read, Kind::Patch] {
        let world = World::one().await;
        let to = format!("{}/elsewhere", world.origin);
        let moved = move || Fault::Reply(Reply::new(308).with("location", &to));
        world.rule(Rule::repeated(kind, 9, moved));
        let run = world.switch(&[]).await;
        assert_eq!(run.code, Some(3), "{kind:?}: {}", run.text());
        world.all_have(&world.old);
        let requests = world.nango().requests.join("\n");
        assert!(!requests.contains("elsewhere"), "{requests}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_no_uuid_is_not_put_into_a_path() {
    for uuid in ["../integrations", "a/b", "", "?name=x"] {
        let world = World::one().await;
        world.nango().environments[0].uuid = uuid.into();
        let run = world.switch(&[]).await;
        assert!(matches!(run.code, Some(1 | 3 | 64)), "{uuid}: {}", run.text());
        world.no_patch();
        let nango = world.nango();
        let mut paths =
            nango.requests.iter().filter_map(|it| it.strip_prefix("GET /environments/"));
        assert!(paths.all(|it| !it.contains(['/', '?'])), "{uuid}: {:?}", nango.requests);
    }
}

/// Files of a run that was killed while it wrote the journal.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_write_of_the_journal_leaves_is_no_obstacle() {
    let world = World::one().await;
    for name in ["callback-edge-switch.json.tmp", "callback-edge-switch.json.lock"] {
        std::fs::write(world.path(name), "{\"half").unwrap();
    }
    world.switch(&[]).await.exits(0);
    world.back(&[]).await.exits(0);
    world.all_have(&world.old);
}

/// A name and a text of Nango's errors, which may contain anything.
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_nango_are_not_quoted_with_secrets() {
    for kind in [Kind::List, Kind::Read, Kind::Patch, Kind::Session] {
        for status in [400, 401, 403, 409, 422, 500] {
            if kind == Kind::Patch && status == 500 {
                // It is read back, which takes the whole wait; `requests` has this case.
                continue;
            }
            let world = World::one().await;
            let text = "canary-in-an-error Bearer canary-account-key \u{1b}[31m";
            let fault = move || Fault::Reply(error(status, "invalid_body", text));
            world.rule(Rule::repeated(kind, 9, fault));
            let run = world.switch(&[]).await;
            // The preflight may not need a session, and passes then.
            let is_offline = kind == Kind::Session && run.code == Some(2);
            assert!(
                is_offline || matches!(run.code, Some(1 | 3)),
                "{kind:?} {status}: {}",
                run.text()
            );
            assert!(!run.text().contains('\u{1b}'), "{kind:?} {status}: {}", run.text());
            world.all_have(if is_offline { &world.new } else { &world.old });
        }
    }
}
