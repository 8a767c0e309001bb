//! What goes wrong around a run: names with errors, environments that are renamed or deleted, caches that
//! are slow after a killed run, files that cannot be written.

use super::{World, with_defaults};
use crate::nango::{Fault, Kind, Rule, error};
use crate::support::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

/// Exit 0 would mean that every value is as expected.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_journal_does_not_have_is_a_usage_error() {
    let world = World::three().await;
    world.switch(&[]).await.exits(0);
    let patches = world.nango().patches.len();
    let names = "--environment=prod,prd";
    for arguments in [["--back", "--yes", names], ["--status", "--json", names]] {
        let run = world.run(&arguments).await;
        assert_eq!(run.code, Some(64), "{}", run.text());
        assert!(run.text().contains("`prd`"), "{}", run.text());
    }
    assert_eq!(world.nango().patches.len(), patches);
}

/// The id is in the journal; the key is that of the name in the project file.
#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_was_renamed_goes_back() {
    let world = World::three().await;
    world.switch(&[]).await.exits(0);
    {
        let mut nango = world.nango();
        nango.environment("staging").name = "stage".into();
        let patches = nango.patches.iter_mut().filter(|it| it.environment == "staging");
        patches.for_each(|it| it.environment = "stage".into());
    }
    world.back(&[]).await.exits(0);
    world.all_have(&world.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_any_characters_is_switched_and_goes_back() {
    let world = World::one().await;
    let name = "Prod \"EU\" / 'é'\u{a0}1";
    world.nango().environment("prod").name = name.into();
    fs::remove_file(world.path("nango.toml")).unwrap();
    for first in [["--callback", &world.new], ["--wait=2s", "--back"]] {
        let arguments = [&first[..], &["--environment", name, "--yes", "--json"]].concat();
        let mut command = world.command(&arguments);
        command.env("NANGO_SECRET_KEY", "canary-prod-key");
        command.env("NANGO_ACCOUNT_KEY", super::ACCOUNT_KEY);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(world.nango().patches.len(), 2);
    world.all_have(&world.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_was_deleted_does_not_hide_the_status_of_others() {
    let world = World::three().await;
    world.switch(&[]).await.exits(0);
    world.nango().environments.retain(|it| it.name != "staging");
    world.nango().patches.clear();
    let run = world.run(&["--status", "--json"]).await.exits(3);
    assert_eq!(run.result("dev"), "as_expected", "{}", run.text());
    assert_eq!(run.result("prod"), "as_expected", "{}", run.text());
    assert_eq!(run.result("staging"), "not_read", "{}", run.text());
    assert_eq!(run.environment("staging")["before"], *world.old, "{}", run.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn back_after_a_killed_run_waits_for_a_slow_cache() {
    let world = World::one().await;
    world.nango().environments[0].cache.reads = 4;
    world.rule(Rule::at(Kind::Patch, Fault::HangAfter));
    world.kill(&world.arguments(&["--yes"])).await;
    world.back(&["--wait=8s"]).await.exits(0);
    world.all_have(&world.old);
    // One that is slower than the wait: it could not run, and nothing is wrong with the key.
    let world = World::one().await;
    world.nango().environments[0].cache.reads = 999;
    world.rule(Rule::at(Kind::Patch, Fault::HangAfter));
    world.kill(&world.arguments(&["--yes"])).await;
    let run = world.back(&["--wait=1s"]).await.exits(3);
    assert!(run.text().contains("--wait") && !run.text().contains("belongs"), "{}", run.text());
    assert_eq!(world.nango().patches.len(), 1);
}

/// As without a kill: it goes back only to a callback that providers have.
#[tokio::test(flavor = "multi_thread")]
async fn back_after_a_killed_run_is_refused_when_providers_no_longer_have_the_callback() {
    let world = World::one().await;
    world.rule(Rule::after_patch(Kind::Read, Fault::HangBefore));
    world.kill(&world.arguments(&["--yes"])).await;
    world.register("prod-app", &[&world.new]);
    let run = world.back(&[]).await.exits(1);
    assert_eq!(world.nango().patches.len(), 1, "{}", run.text());
    world.all_have(&world.new);
    assert_eq!(run.report()["command"], "back", "{}", run.text());
}

/// A later environment that has the new callback since a killed run proves nothing about the keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_flow_beside_an_environment_of_a_killed_run_is_waited_for() {
    let world = World::three().await;
    world.rule(Rule::at(Kind::Patch, Fault::HangAfter));
    let one = ["--callback", &world.new, "--environment=prod", "--yes"];
    world.kill(&with_defaults(&one, &[])).await;
    world.nango().environment("dev").cache.starts = 2;
    let both = ["--callback", &world.new, "--environment=dev,prod", "--yes"];
    world.run(&with_defaults(&both, &["--wait=8s"])).await.exits(0);
    assert_eq!(world.saved("dev"), world.new);
    assert_eq!(world.saved("prod"), world.new);
}

/// It shows the journal, and does not claim that a value is unexpected which it did not read.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_does_not_judge_values_that_it_did_not_read() {
    let world = World::one().await;
    world.switch(&[]).await.exits(0);
    world.rule(Rule::at(Kind::List, Fault::HangBefore));
    let child = world.start_until_it_hangs(&world.arguments(&["--yes"])).await;
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["environments"][0]["result"], "not_read", "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_written_any_more_prevents_the_save() {
    let world = World::one().await;
    let obstacle = world.path("callback-edge-switch.json.tmp");
    let action = Fault::Do(Box::new(move |_| fs::create_dir(obstacle).unwrap()));
    // The comparison before the save.
    world.rule(Rule::at(Kind::Read, action).after(1));
    let run = world.switch(&[]).await.exits(3);
    world.no_patch();
    assert_eq!(run.environment("prod")["phase"], "planned", "{}", run.text());
    assert!(run.report()["back"].is_null(), "{}", run.text());
}

/// A write would replace the link, and leave the journal that it points to as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_a_link_is_refused() {
    let world = World::one().await;
    symlink("the journal.json", world.journal()).unwrap();
    let run = world.switch(&[]).await.exits(3);
    assert!(run.text().contains("symbolic link"), "{}", run.text());
    world.no_patch();
    assert!(fs::symlink_metadata(world.journal()).unwrap().is_symlink());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_without_nango_shows_the_journal() {
    let world = World::one().await;
    world.switch(&[]).await.exits(0);
    world.rule(Rule::repeated(Kind::Read, 9, || Fault::Reply(error(500, "x", ""))));
    let run = world.run(&["--status", "--json"]).await.exits(3);
    assert_eq!(run.environment("prod")["before"], *world.old, "{}", run.text());
    assert!(run.environment("prod")["value"].is_null(), "{}", run.text());
}

/// A request that is lost once, for example.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_the_save_that_does_not_repeat_restores_nothing() {
    let world = World::one().await;
    let (broken, works) = (Arc::clone(&world.is_broken), Arc::clone(&world.is_broken));
    world.when_saved("prod", move |nango| {
        *broken.lock().unwrap() = true;
        let repaired = Fault::Do(Box::new(move |_| *works.lock().unwrap() = false));
        nango.rules.push(Rule::at(Kind::Integrations, repaired));
    });
    let run = world.switch(&[]).await.exits(0);
    assert_eq!(world.nango().patches.len(), 1, "{}", run.text());
    world.all_have(&world.new);
}

/// A failure of the network before the restore must not leave a callback that fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_reads_again_when_nango_does_not_respond() {
    let world = World::one().await;
    let (registry, new) = (Arc::clone(&world.registry), world.new.clone());
    world.when_saved("prod", move |nango| {
        let mut registry = registry.lock().unwrap();
        registry.callbacks.get_mut("prod-app").unwrap().remove(&new);
        let failing = || Fault::Reply(error(500, "server_error", ""));
        // The first one reads the save back.
        nango.rules.push(Rule::repeated(Kind::Read, 3, failing).after(1));
    });
    let run = world.switch(&[]).await.exits(1);
    assert_eq!(run.result("prod"), "restored", "{}", run.text());
    world.all_have(&world.old);
}
