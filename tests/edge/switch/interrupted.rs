//! A run that ends at any point: afterwards each command ends in a known state.

use super::{World, concurrently};
use crate::nango::{Fault, Kind, Rule};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;

/// Where a run is killed.
type Point = (&'static str, fn() -> Rule);

const BEFORE_THE_SAVE: &[Point] = &[
    ("before the list", || Rule::at(Kind::List, Fault::HangBefore)),
    ("before the first read", || Rule::at(Kind::Read, Fault::HangBefore)),
    ("before the key is proved", || Rule::at(Kind::Integration, Fault::HangBefore)),
    ("in the first preflight", || Rule::at(Kind::Start, Fault::HangBefore).after(1)),
    ("before the comparison", || Rule::at(Kind::Read, Fault::HangBefore).after(1)),
    ("before the PATCH", || Rule::at(Kind::Patch, Fault::HangBefore)),
];

const AFTER_THE_SAVE: &[Point] = &[
    ("after the PATCH", || Rule::at(Kind::Patch, Fault::HangAfter)),
    ("before the read back", || Rule::after_patch(Kind::Read, Fault::HangBefore)),
    ("before the session", || Rule::after_patch(Kind::Session, Fault::HangBefore)),
    ("before the flow", || Rule::after_patch(Kind::Start, Fault::HangBefore)),
    ("in the second preflight", || Rule::after_patch(Kind::Integrations, Fault::HangBefore)),
];

#[derive(Clone, Copy, Debug)]
enum Next {
    Status,
    Back,
    Again,
}

async fn killed(point: Point, next: Next, is_saved: bool) {
    let (name, rule) = point;
    let world = World::one().await;
    world.rule(rule());
    world.kill(&world.arguments(&["--yes"])).await;
    let expected = if is_saved { &world.new } else { &world.old };
    assert_eq!(world.saved("prod"), *expected, "{name}");
    let has_journal = world.journal().exists();
    assert!(has_journal || !is_saved, "{name}: no journal");
    match next {
        Next::Status => {
            let run = world.status().await;
            if has_journal {
                assert!(matches!(run.code, Some(0 | 2)), "{name}: {}", run.text());
                assert_eq!(run.environment("prod")["value"], **expected, "{name}");
                // A value that the run saved and did not confirm is not reported as done.
                assert!(run.code == Some(2) || !is_saved, "{name}: {}", run.text());
                let back = run.report()["back"].as_str().unwrap_or_default().to_owned();
                assert!(back.contains("--back") || !is_saved, "{name}: {}", run.text());
            }
        }
        Next::Back => {
            let run = world.back(&[]).await;
            if has_journal {
                assert_eq!(run.code, Some(0), "{name}: {}", run.text());
            }
            world.all_have(&world.old);
            let run = world.status().await;
            assert_eq!(run.code == Some(0), has_journal, "{name}: {}", run.text());
        }
        Next::Again => {
            let run = world.switch(&[]).await;
            assert_eq!(run.code, Some(0), "{name}: {}", run.text());
            world.all_have(&world.new);
            let run = world.status().await;
            assert_eq!(run.code, Some(0), "{name}: {}", run.text());
            // What it goes back to survived.
            let run = world.back(&[]).await;
            assert_eq!(run.code, Some(0), "{name}: {}", run.text());
            world.all_have(&world.old);
        }
    }
}

async fn killed_everywhere(next: Next) {
    concurrently(BEFORE_THE_SAVE, async |point| killed(*point, next, false).await).await;
    concurrently(AFTER_THE_SAVE, async |point| killed(*point, next, true).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_after_a_killed_run_is_true() {
    killed_everywhere(Next::Status).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_can_go_back() {
    killed_everywhere(Next::Back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_can_be_completed() {
    killed_everywhere(Next::Again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_while_it_restores_leaves_a_known_state() {
    for (name, fault, is_restored) in [
        ("before the restoring PATCH", (|| Fault::HangBefore) as fn() -> Fault, false),
        ("after the restoring PATCH", || Fault::HangAfter, true),
    ] {
        for next in [Next::Status, Next::Back, Next::Again] {
            let world = World::one().await;
            let registry = Arc::clone(&world.registry);
            let new = world.new.clone();
            world.when_saved("prod", move |nango| {
                let mut registry = registry.lock().unwrap();
                registry.callbacks.get_mut("prod-app").unwrap().remove(&new);
                nango.rules.push(Rule::at(Kind::Patch, fault()));
            });
            world.kill(&world.arguments(&["--yes"])).await;
            let saved = if is_restored { &world.old } else { &world.new };
            assert_eq!(world.saved("prod"), *saved, "{name}");
            match next {
                Next::Status => {
                    let run = world.status().await.exits(2);
                    assert_eq!(run.environment("prod")["value"], **saved, "{}", run.text());
                }
                Next::Back => {
                    world.back(&[]).await.exits(0);
                    world.all_have(&world.old);
                }
                Next::Again => {
                    // It is unsafe, so that the previous callback is restored.
                    let run = world.switch(&[]).await.exits(1);
                    assert_eq!(world.saved("prod"), world.old, "{name}: {}", run.text());
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_can_be_killed_too() {
    for (name, fault, is_back) in [
        ("before the PATCH", (|| Fault::HangBefore) as fn() -> Fault, false),
        ("after the PATCH", || Fault::HangAfter, true),
    ] {
        let world = World::one().await;
        world.switch(&[]).await.exits(0);
        world.rule(Rule::at(Kind::Patch, fault()));
        world.kill(&["--back", "--yes", "--json", "--wait=2s", "--pause=1ms"]).await;
        assert_eq!(world.saved("prod") == world.old, is_back, "{name}");
        world.status().await;
        world.back(&[]).await.exits(0);
        world.all_have(&world.old);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_in_the_second_environment_is_completed_or_undone() {
    for is_back in [true, false] {
        let world = World::three().await;
        world.rule(Rule::at(Kind::Patch, Fault::HangAfter).of("staging"));
        world.kill(&world.arguments(&["--yes"])).await;
        let run = world.status().await.exits(2);
        assert_eq!(run.environment("dev")["value"], *world.new, "{}", run.text());
        if is_back {
            world.back(&[]).await.exits(0);
            world.all_have(&world.old);
            assert!(world.nango().environment("prod").saves.is_empty(), "it was not begun");
        } else {
            world.switch(&[]).await.exits(0);
            world.all_have(&world.new);
        }
    }
}

/// The previous callback and the command to go back are known even if the journal is lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_printed_before_the_save() {
    for is_json in [true, false] {
        let world = World::one().await;
        world.rule(Rule::at(Kind::Patch, Fault::HangBefore));
        let arguments = world.arguments(&["--yes"]);
        let arguments: Vec<_> =
            arguments.into_iter().filter(|it| is_json || *it != "--json").collect();
        let run = world.kill(&arguments).await;
        for part in [world.old.as_str(), "callback-edge switch ", " --back"] {
            assert!(run.text().contains(part), "{part}: {}", run.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_with_130_and_the_state_is_known() {
    for (name, fault, is_saved) in [
        ("before the PATCH", (|| Fault::HangBefore) as fn() -> Fault, false),
        ("after the PATCH", || Fault::HangAfter, true),
    ] {
        let world = World::one().await;
        world.rule(Rule::at(Kind::Patch, fault()));
        let before = world.nango().saved();
        let child = world.start_until_it_hangs(&world.arguments(&["--yes"])).await;
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(id, Signal::INT).unwrap();
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let output = tokio::time::timeout(crate::support::PATIENCE, output).await.unwrap().unwrap();
        world.nango().rules.clear();
        assert_eq!(output.status.code(), Some(130), "{name}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("callback-edge switch --back"), "{name}: {text}");
        assert_eq!(before["prod"] != world.saved("prod"), is_saved, "{name}");
        world.status().await.exits(2);
        world.back(&[]).await.exits(0);
        world.all_have(&world.old);
    }
}
