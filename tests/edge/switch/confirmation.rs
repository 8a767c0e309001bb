//! The plan, and the confirmation of a person.

use super::World;
use crate::support::{PATIENCE, terminal};
use std::io::{Read as _, Write as _};
use std::process::Stdio;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_nothing() {
    let world = World::three().await;
    let run = world.run(&world.arguments(&["--plan"])).await.exits(0);
    assert_eq!(run.report()["command"], "plan");
    for name in ["dev", "staging", "prod"] {
        assert_eq!(run.result(name), "planned");
    }
    world.no_patch();
    assert!(!world.journal().exists());
    assert!(!world.probes.lock().unwrap().is_empty(), "a plan asks providers");
    // In the order of the switch: production last.
    let report = run.report();
    let names: Vec<_> =
        report["environments"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names.last().unwrap().as_str(), Some("prod"), "{report:#}");
    // A key that may only read is enough.
    let scopes = ["account:environments:list", "account:environments:read"];
    let scopes = Some(scopes.map(str::to_owned).to_vec());
    world.nango().account_keys.insert(super::ACCOUNT_KEY.into(), scopes);
    world.run(&world.arguments(&["--plan"])).await.exits(0);
    // The text has the callbacks and the environments.
    let arguments = ["--callback", &world.new, "--all-environments", "--plan", "--pause=1ms"];
    let run = world.run(&arguments).await.exits(0);
    for part in [&world.new, &world.old, "dev", "staging", "prod"] {
        assert!(run.stdout.contains(part), "{part}: {}", run.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_nothing_is_saved_unless_yes_is_given() {
    let world = World::one().await;
    let run = world.run(&world.arguments(&[])).await.exits(64);
    assert!(run.text().contains("--yes"), "{}", run.text());
    world.no_patch();
    let run = world.run(&world.arguments(&["--yes", "--plan"])).await;
    world.no_patch();
    assert!(matches!(run.code, Some(0 | 64)), "{}", run.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_confirms_on_a_terminal() {
    for (typed, is_saved) in
        [("yes\n", true), ("no\n", false), ("y\n", false), ("\n", false), ("\u{4}", false)]
    {
        let world = World::one().await;
        let (controller, user) = terminal(100);
        let arguments =
            ["--callback", &world.new, "--all-environments", "--pause=1ms", "--wait=2s"];
        let mut command = world.command(&arguments);
        command.env("TERM", "xterm").stdin(user.try_clone().unwrap());
        command.stdout(user.try_clone().unwrap()).stderr(Stdio::from(user));
        let mut child = command.spawn().unwrap();
        drop(command);
        (&controller).write_all(typed.as_bytes()).unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut output = Vec::new();
            // The end of a terminal is an error (EIO).
            let _ = (&controller).read_to_end(&mut output);
            String::from_utf8_lossy(&output).into_owned()
        });
        let output = tokio::time::timeout(PATIENCE * 2, read).await.unwrap().unwrap();
        let code = child.wait().unwrap().code();
        assert_eq!(!world.nango().patches.is_empty(), is_saved, "{typed:?}: {output}");
        assert_eq!(code == Some(0), is_saved, "{typed:?} {code:?}: {output}");
        assert!(!output.contains("canary"), "{output}");
    }
}
