//! Several environments: one after the other, production last, and no further one after a failure.

use super::World;
use crate::nango::{Fault, Kind, Rule, error};

/// The environments of the requests to save, in order.
fn patched(world: &World) -> Vec<String> {
    world.nango().patches.iter().map(|it| it.environment.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_are_switched_in_order_and_production_last() {
    let world = World::three().await;
    let run = world.switch(&[]).await.exits(0);
    assert_eq!(patched(&world), ["dev", "staging", "prod"]);
    for name in ["dev", "staging", "prod"] {
        assert_eq!(run.result(name), "switched", "{}", run.text());
    }
    // All are read before the first is saved; the next is saved after the confirmation of the one before.
    let events = world.nango().events.clone();
    let first = events.iter().position(|(kind, _)| *kind == Kind::Patch).unwrap();
    for name in ["dev", "staging", "prod"] {
        let is_read = |(kind, of): &(Kind, String)| *kind == Kind::Read && of == name;
        assert!(events[..first].iter().any(is_read), "{events:?}");
    }
    let of = |kind: Kind, name: &str| (kind, name.to_owned());
    let next = events.iter().position(|it| *it == of(Kind::Patch, "staging")).unwrap();
    assert!(events[first..next].contains(&of(Kind::Start, "dev")), "{events:?}");
    world.all_have(&world.new);
    // Again: nothing to do.
    let run = world.switch(&[]).await.exits(0);
    assert_eq!(patched(&world).len(), 3);
    assert_eq!(run.result("dev"), "already_switched", "{}", run.text());
    // And back, production first.
    world.back(&[]).await.exits(0);
    assert_eq!(patched(&world)[3], "prod");
    world.all_have(&world.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unsafe_environment_prevents_all_saves() {
    let world = World::three().await;
    world.register("staging-app", &[&world.old]);
    let run = world.switch(&[]).await.exits(1);
    world.no_patch();
    assert_eq!(run.result("staging"), "unsafe", "{}", run.text());
    // Unless only the others are selected.
    let arguments = ["--callback", &world.new, "--environment=dev,prod", "--yes", "--json"];
    world.run(&[&arguments[..], &["--pause=1ms", "--wait=2s"]].concat()).await.exits(0);
    assert_eq!(patched(&world), ["dev", "prod"]);
    assert_eq!(world.saved("staging"), world.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_a_save_restores_that_environment_and_begins_no_further_one() {
    for is_json in [true, false] {
        let world = World::three().await;
        world.rejects_after_save("staging");
        let arguments = world.arguments(&["--yes"]);
        let arguments: Vec<_> =
            arguments.into_iter().filter(|it| is_json || *it != "--json").collect();
        let run = world.run(&arguments).await.exits(4);
        assert_eq!(patched(&world), ["dev", "staging", "staging"], "{}", run.text());
        assert_eq!(world.saved("dev"), world.new);
        assert_eq!(world.saved("staging"), world.old);
        assert_eq!(world.saved("prod"), world.old);
        if is_json {
            for (name, result, value) in [
                ("dev", "switched", &world.new),
                ("staging", "restored", &world.old),
                ("prod", "not_begun", &world.old),
            ] {
                assert_eq!(run.result(name), result, "{}", run.text());
                assert_eq!(run.environment(name)["value"], **value, "{}", run.text());
            }
            assert!(run.report()["back"].as_str().unwrap().contains("--back"), "{}", run.text());
        } else {
            for name in ["dev", "staging", "prod"] {
                assert!(run.stdout.contains(name), "{name}: {}", run.text());
            }
            for part in ["restored", &world.new, &world.old, "--back"] {
                assert!(run.stdout.contains(part), "{part}: {}", run.text());
            }
        }
        // Back: only `dev` has the new callback.
        world.back(&[]).await.exits(0);
        assert_eq!(patched(&world).last().unwrap(), "dev");
        world.all_have(&world.old);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_after_a_partial_one_switches_the_rest() {
    let world = World::three().await;
    let refused = || Fault::Reply(error(500, "server_error", ""));
    world.rule(Rule::repeated(Kind::Patch, 9, refused).of("staging"));
    let run = world.switch(&[]).await.exits(4);
    assert_eq!(run.result("dev"), "switched", "{}", run.text());
    assert_eq!(run.result("prod"), "not_begun", "{}", run.text());
    assert_eq!(world.saved("staging"), world.old);
    world.nango().rules.clear();
    let run = world.switch(&[]).await.exits(0);
    assert_eq!(run.result("dev"), "already_switched", "{}", run.text());
    assert_eq!(run.result("staging"), "switched", "{}", run.text());
    world.all_have(&world.new);
    // The first callback of each is still known.
    world.back(&[]).await.exits(0);
    world.all_have(&world.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nango_does_not_have_is_a_usage_error() {
    let world = World::three().await;
    world.nango().environment("staging").name = "stage".into();
    let run = world.switch(&[]).await.exits(64);
    assert!(run.text().contains("staging"), "{}", run.text());
    world.no_patch();
    let run = world.run(&["--callback", &world.new, "--environment=prd", "--yes"]).await.exits(64);
    assert!(run.text().contains("prd"), "{}", run.text());
}
