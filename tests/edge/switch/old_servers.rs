//! Nango servers without the Environments API: a person saves the callback in the settings.

use super::World;
use crate::nango::{EnvironmentsApi, Fault, Kind, Rule};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_the_url_to_paste_is_printed() {
    for api in [EnvironmentsApi::Absent, EnvironmentsApi::Dashboard] {
        let world = World::one().await;
        world.nango().environments_api = api;
        let arguments = ["--callback", &world.new, "--all-environments", "--yes", "--pause=1ms"];
        let run = world.run(&arguments).await.exits(3);
        for part in [world.new.as_str(), "settings"] {
            assert!(run.stdout.contains(part), "{api:?}, {part}: {}", run.text());
        }
        world.no_patch();
        // An unsafe callback is not offered for pasting.
        world.register("prod-app", &[&world.old]);
        let run = world.run(&arguments).await.exits(1);
        assert!(!run.text().contains("paste"), "{}", run.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_the_change_by_a_person_is_waited_for_and_confirmed() {
    for api in [EnvironmentsApi::Absent, EnvironmentsApi::Dashboard] {
        let world = World::one().await;
        world.nango().environments_api = api;
        // Once the preflight is complete, and some polls later.
        let starts = {
            world.run(&world.arguments(&["--plan"])).await;
            world.nango().events.iter().filter(|(kind, _)| *kind == Kind::Start).count()
        };
        let new = world.new.clone();
        let save = Fault::Do(Box::new(move |nango| nango.environments[0].save(&new)));
        world.rule(Rule::at(Kind::Start, save).after(starts + 3));
        let run = world.switch(&["--wait=10s"]).await.exits(0);
        assert_eq!(run.result("prod"), "switched", "{}", run.text());
        world.no_patch();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_a_change_that_does_not_come_ends_the_wait() {
    let world = World::one().await;
    world.nango().environments_api = EnvironmentsApi::Absent;
    world.switch(&["--wait=1s"]).await.exits(3);
    world.no_patch();
    world.all_have(&world.old);
}

/// The list route exists: a wrong id is no old server.
#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_disappears_is_no_old_server() {
    let world = World::one().await;
    let gone = Fault::Do(Box::new(|nango: &mut crate::nango::Nango| {
        nango.environments[0].uuid = "0b6c1a52-6d1e-4c86-9d5f-2f0c3f2f7aee".into();
    }));
    world.rule(Rule::at(Kind::Integrations, gone));
    let run = world.switch(&[]).await;
    assert!(!matches!(run.code, Some(0 | 2)), "{}", run.text());
    assert!(!run.text().contains("paste"), "{}", run.text());
    assert!(world.nango().patches.iter().all(|it| !it.is_applied));
    world.all_have(&world.old);
}
