//! `--back`: to Nango's own callback or to a previous one, only when providers still have it.

use super::{World, callback};
use crate::fakes::plain;
use std::sync::{Arc, Mutex};

#[tokio::test(flavor = "multi_thread")]
async fn back_is_refused_when_providers_no_longer_have_the_callback() {
    let world = World::three().await;
    world.switch(&[]).await.exits(0);
    let patches = world.nango().patches.len();
    world.register("staging-app", &[&world.new]);
    let run = world.back(&[]).await.exits(1);
    assert_eq!(run.report()["command"], "back");
    assert!(run.text().contains("staging"), "{}", run.text());
    assert_eq!(world.nango().patches.len(), patches, "{}", run.text());
    world.all_have(&world.new);
    // It needs a confirmation too.
    world.register("staging-app", &[&world.old, &world.new]);
    world.run(&["--back", "--json", "--pause=1ms"]).await.exits(64);
    assert_eq!(world.nango().patches.len(), patches);
    let run = world.back(&[]).await.exits(0);
    assert_eq!(run.result("prod"), "back", "{}", run.text());
    world.all_have(&world.old);
    // Again: nothing to do.
    let patches = world.nango().patches.len();
    world.back(&[]).await.exits(0);
    assert_eq!(world.nango().patches.len(), patches);
}

/// It is no redirect, and not checked as one.
#[tokio::test(flavor = "multi_thread")]
async fn back_to_nango_s_own_callback_needs_no_working_redirect() {
    let world = World::one().await;
    world.switch(&[]).await.exits(0);
    *world.is_broken.lock().unwrap() = true;
    world.back(&[]).await.exits(0);
    world.all_have(&world.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn back_to_another_callback_checks_it() {
    let world = World::one().await;
    let is_broken = Arc::new(Mutex::new(false));
    let first = plain(callback(world.origin.clone(), Arc::clone(&is_broken))).await;
    let first = format!("http://{first}/oauth/callback");
    world.nango().environments[0].callback.clone_from(&first);
    world.register("prod-app", &[&first, &world.old, &world.new]);
    let run = world.switch(&[]).await.exits(0);
    assert_eq!(run.environment("prod")["before"], *first, "{}", run.text());
    *is_broken.lock().unwrap() = true;
    world.back(&[]).await.exits(1);
    world.all_have(&world.new);
    *is_broken.lock().unwrap() = false;
    world.back(&[]).await.exits(0);
    world.all_have(&first);
}

#[tokio::test(flavor = "multi_thread")]
async fn back_fails_part_way_with_a_complete_report() {
    use crate::nango::{Fault, Kind, Rule, error};
    let world = World::three().await;
    world.switch(&[]).await.exits(0);
    let refused = || Fault::Reply(error(500, "server_error", ""));
    world.rule(Rule::repeated(Kind::Patch, 9, refused).of("staging"));
    let run = world.back(&[]).await.exits(4);
    // Production is first.
    assert_eq!(world.saved("prod"), world.old);
    assert_eq!(world.saved("staging"), world.new);
    for name in ["dev", "staging", "prod"] {
        assert_eq!(run.environment(name)["value"], *world.saved(name), "{}", run.text());
    }
    world.nango().rules.clear();
    world.back(&[]).await.exits(0);
    world.all_have(&world.old);
    // And forward again.
    world.switch(&[]).await.exits(0);
    world.all_have(&world.new);
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_contradict_each_other_are_usage_errors() {
    let world = World::one().await;
    for arguments in [
        &[][..],
        &["--back", "--status"],
        &["--back", "--callback", &world.new],
        &["--status", "--callback", &world.new],
        &["--status", "--yes"],
        &["--callback", &world.new, "--only=crm", "--yes"],
        &["--callback", &world.new, "--wait=0s", "--yes"],
        &["--callback", &world.new, "--wait=soon", "--yes"],
    ] {
        let run = world.run(arguments).await;
        assert!(run.code == Some(64), "{arguments:?}: {}", run.text());
        assert!(world.nango().requests.is_empty(), "{arguments:?}");
    }
}

/// It is complete: a shell runs it, with the options of the switch.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_command_goes_back() {
    let world = World::three().await;
    std::fs::rename(world.path("nango.toml"), world.path("my project's.toml")).unwrap();
    let options = ["--project=my project's.toml", "--journal=the journal.json"];
    world.rejects_after_save("staging");
    let run = world.switch(&options).await.exits(4);
    let back = run.report()["back"].as_str().unwrap().to_owned();
    assert!(run.stderr.contains(&back), "{back}: {}", run.text());
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &format!("exec {back} --yes --json")]).env_clear();
    command.current_dir(world.dir.path()).env("CALLBACK_EDGE_NANGO__URL", &world.origin);
    command.stdin(std::process::Stdio::null());
    let run = world.complete(command).await.exits(0);
    assert_eq!(run.report()["command"], "back", "{}", run.text());
    world.all_have(&world.old);
}

/// The previous callback is known from the output; it needs no redirect, before and after the save.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_journal_a_switch_to_nango_s_own_callback_goes_back() {
    let world = World::one().await;
    world.switch(&[]).await.exits(0);
    std::fs::remove_file(world.journal()).unwrap();
    let arguments = ["--callback", &world.old, "--all-environments", "--yes", "--json"];
    let run = world.run(&[&arguments[..], &["--pause=1ms", "--wait=2s"]].concat()).await;
    assert_eq!(run.code, Some(0), "{}", run.text());
    world.all_have(&world.old);
}
