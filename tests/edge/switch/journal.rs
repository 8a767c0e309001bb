//! The journal: written before each save, and never overwritten while it is needed.

use super::{World, private};
use crate::nango::{Fault, Kind, Rule};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_callback_is_in_the_journal_before_the_save() {
    let world = World::one().await;
    let (journal, old, new) = (world.journal(), world.old.clone(), world.new.clone());
    let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let written = std::sync::Arc::clone(&seen);
    world.when_saved("prod", move |_| {
        let mode = fs::metadata(&journal).unwrap().permissions().mode();
        *written.lock().unwrap() = format!("{mode:o} {}", fs::read_to_string(&journal).unwrap());
    });
    let run = world.switch(&[]).await.exits(0);
    let seen = seen.lock().unwrap().clone();
    for part in ["600 ", &old, &new, "saving"] {
        assert!(seen.contains(part), "{part}: {seen} {}", run.text());
    }
    let journal: Value = serde_json::from_slice(&fs::read(world.journal()).unwrap()).unwrap();
    assert_eq!(journal["environments"][0]["phase"], "confirmed", "{journal:#}");
    assert_eq!(journal["environments"][0]["before"], *old, "{journal:#}");
    let mode = fs::metadata(world.journal()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_saved_when_the_journal_cannot_be_written() {
    let world = World::one().await;
    fs::create_dir(world.path("directory")).unwrap();
    for journal in ["missing/journal.json", "directory", "/dev/full", "/proc/journal.json"] {
        let run = world.switch(&["--journal", journal]).await;
        assert!(matches!(run.code, Some(3 | 64)), "{journal}: {}", run.text());
        assert!(run.text().contains(journal), "{journal}: {}", run.text());
        world.no_patch();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_understood_is_kept_and_nothing_is_saved() {
    let world = World::one().await;
    world.switch(&[]).await.exits(0);
    let valid = fs::read_to_string(world.journal()).unwrap();
    let patches = world.nango().patches.len();
    let mut newer: Value = serde_json::from_str(&valid).unwrap();
    newer["schema"] = json!(99);
    let mut other: Value = serde_json::from_str(&valid).unwrap();
    other["nango"] = json!("https://nango.example");
    let half = valid[..valid.len() / 2].to_owned();
    for text in [String::new(), "{}".into(), "x".into(), half, newer.to_string(), other.to_string()]
    {
        private(&world.journal(), &text);
        for arguments in [world.arguments(&["--yes"]), vec!["--back", "--yes", "--json"]] {
            let run = world.run(&arguments).await;
            assert!(matches!(run.code, Some(3 | 64)), "{text}: {}", run.text());
            assert!(run.text().contains("callback-edge-switch.json"), "{}", run.text());
        }
        let run = world.status().await;
        assert!(matches!(run.code, Some(3 | 64)), "{text}: {}", run.text());
        assert_eq!(fs::read_to_string(world.journal()).unwrap(), text);
    }
    assert_eq!(world.nango().patches.len(), patches);
    fs::remove_file(world.journal()).unwrap();
    for run in [world.back(&[]).await, world.status().await] {
        assert!(matches!(run.code, Some(3 | 64)), "{}", run.text());
        assert!(run.text().contains("--journal"), "{}", run.text());
    }
    assert_eq!(world.nango().patches.len(), patches);
}

/// An environment with the same name, in another place.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_other_environments_is_not_used() {
    let world = World::one().await;
    world.switch(&[]).await.exits(0);
    let text = fs::read_to_string(world.journal()).unwrap();
    let mut journal: Value = serde_json::from_str(&text).unwrap();
    journal["environments"][0]["uuid"] = json!("0b6c1a52-6d1e-4c86-9d5f-2f0c3f2f7aff");
    private(&world.journal(), &journal.to_string());
    let patches = world.nango().patches.len();
    let run = world.back(&[]).await;
    assert!(!matches!(run.code, Some(0 | 2)), "{}", run.text());
    assert_eq!(world.nango().patches.len(), patches);
    world.all_have(&world.new);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_at_once_are_prevented() {
    let world = World::one().await;
    world.rule(Rule::at(Kind::Patch, Fault::HangAfter));
    let mut first = world.start_until_it_hangs(&world.arguments(&["--yes"])).await;
    let patches = world.nango().patches.len();
    for arguments in [world.arguments(&["--yes"]), vec!["--back", "--yes", "--json"]] {
        let run = world.run(&arguments).await.exits(3);
        assert!(run.text().contains("callback-edge-switch.json"), "{}", run.text());
    }
    assert_eq!(world.nango().patches.len(), patches);
    first.kill().unwrap();
    first.wait().unwrap();
    // The lock ends with the process.
    world.nango().rules.clear();
    world.switch(&[]).await.exits(0);
}

/// A journal in progress is for another callback: its previous callback must not be forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_switch_keeps_the_way_back_of_the_first() {
    let world = World::one().await;
    world.rule(Rule::at(Kind::Patch, Fault::HangAfter));
    world.kill(&world.arguments(&["--yes"])).await;
    let third = world.new.replace("/oauth/callback", "/app-auth/connect");
    world.register("prod-app", &[&world.old, &world.new, &third]);
    let arguments = ["--callback", &third, "--all-environments", "--yes", "--json", "--wait=2s"];
    let run = world.run(&[&arguments[..], &["--pause=1ms"]].concat()).await;
    assert!(!matches!(run.code, Some(0 | 2)), "{}", run.text());
    assert!(fs::read_to_string(world.journal()).unwrap().contains(&world.old));
    world.back(&[]).await.exits(0);
    world.all_have(&world.old);
}
