//! Requests that fail, that are limited, or of which the response is lost; slow caches; and what the
//! confirmation after a save finds.

use super::{World, concurrently};
use crate::fakes::Reply;
use crate::nango::{Cache, Fault, Kind, Rule, error};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn limited(seconds: &str) -> Fault {
    Fault::Reply(error(429, "too_many_request", "").with("retry-after", seconds))
}

fn gateway() -> Reply {
    Reply::page(502, "<h1>Bad Gateway</h1>")
}

type NamedRule = (&'static str, fn() -> Rule);

/// A fault, the number of requests to save, and of those that were applied.
type Case = (&'static str, fn() -> Rule, usize, usize);

const TEMPORARY: &[Case] = &[
    ("PATCH lost", || Rule::at(Kind::Patch, Fault::LostBefore), 2, 1),
    ("response of PATCH lost", || Rule::at(Kind::Patch, Fault::LostAfter), 1, 1),
    ("PATCH 502", || Rule::at(Kind::Patch, Fault::Reply(gateway())), 2, 1),
    ("502 after PATCH", || Rule::at(Kind::Patch, Fault::ReplyAfter(gateway())), 1, 1),
    ("PATCH 429", || Rule::repeated(Kind::Patch, 2, || limited("0")), 3, 1),
    ("PATCH 429, 1 s", || Rule::at(Kind::Patch, limited("1")), 2, 1),
    ("list 429", || Rule::at(Kind::List, limited("0")), 1, 1),
    ("list 502", || Rule::at(Kind::List, Fault::Reply(gateway())), 1, 1),
    ("read 429", || Rule::at(Kind::Read, limited("0")), 1, 1),
    ("read lost", || Rule::at(Kind::Read, Fault::LostBefore), 1, 1),
    ("comparison 502", || Rule::at(Kind::Read, Fault::Reply(gateway())).after(1), 1, 1),
    ("read back 502", || Rule::after_patch(Kind::Read, Fault::Reply(gateway())), 1, 1),
    ("read back lost", || Rule::after_patch(Kind::Read, Fault::LostBefore), 1, 1),
    ("read back 429", || Rule::after_patch(Kind::Read, limited("0")), 1, 1),
    ("session lost", || Rule::after_patch(Kind::Session, Fault::LostBefore), 1, 1),
    ("start 502", || Rule::after_patch(Kind::Start, Fault::Reply(gateway())), 1, 1),
    ("start 429", || Rule::after_patch(Kind::Start, limited("0")), 1, 1),
];

#[tokio::test(flavor = "multi_thread")]
async fn temporary_faults_do_not_prevent_the_switch() {
    let case = async |(name, rule, patches, applied): &Case| {
        let world = World::one().await;
        world.rule(rule());
        let run = world.switch(&["--wait=4s"]).await;
        assert_eq!(run.code, Some(0), "{name}: {}", run.text());
        world.all_have(&world.new);
        let nango = world.nango();
        let found = nango.patches.len();
        let found = (found, nango.patches.iter().filter(|it| it.is_applied).count());
        assert_eq!(found, (*patches, *applied), "{name}: {:?}", nango.patches);
        // A PATCH without a usable response is read back before it is sent again.
        let kinds: Vec<_> = nango.events.iter().map(|(kind, _)| *kind).collect();
        if !name.contains("429") {
            assert!(!kinds.windows(2).any(|it| it == [Kind::Patch; 2]), "{name}: {kinds:?}");
        }
    };
    concurrently(TEMPORARY, case).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lasting_faults_before_the_save_change_nothing() {
    let rules: [NamedRule; 6] = [
        ("list", || Rule::repeated(Kind::List, 99, || Fault::Reply(gateway()))),
        ("read", || {
            Rule::repeated(Kind::Read, 99, || Fault::Reply(error(500, "server_error", "")))
        }),
        ("read lost", || Rule::repeated(Kind::Read, 99, || Fault::LostBefore)),
        ("PATCH 500", || {
            Rule::repeated(Kind::Patch, 99, || Fault::Reply(error(500, "server_error", "")))
        }),
        ("PATCH lost", || Rule::repeated(Kind::Patch, 99, || Fault::LostBefore)),
        ("PATCH 400", || {
            Rule::repeated(Kind::Patch, 99, || Fault::Reply(error(400, "invalid_body", "")))
        }),
    ];
    let case = async |(name, rule): NamedRule| {
        let world = World::one().await;
        world.rule(rule());
        let run = world.switch(&[]).await;
        assert_eq!(run.code, Some(3), "{name}: {}", run.text());
        world.all_have(&world.old);
        let patches = world.nango().patches.len();
        assert!(patches <= 2, "{name}: {patches} PATCHes");
        world.nango().rules.clear();
        let run = world.status().await;
        let expected = if world.journal().exists() { [0, 2] } else { [3, 64] };
        assert!(run.code.is_some_and(|it| expected.contains(&it)), "{name}: {}", run.text());
        world.switch(&[]).await.exits(0);
        world.all_have(&world.new);
    };
    concurrently(rules, case).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_cache_is_waited_for() {
    let case = async |(reads, starts)| {
        let world = World::one().await;
        world.nango().environments[0].cache = Cache { reads, starts };
        let run = world.switch(&["--wait=8s"]).await;
        assert_eq!(run.code, Some(0), "{reads} {starts}: {}", run.text());
        world.all_have(&world.new);
        assert_eq!(world.nango().patches.len(), 1, "{reads} {starts}");
    };
    concurrently([(2, 0), (0, 3), (3, 3)], case).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_still_shows_the_old_callback_restores_it() {
    let world = World::one().await;
    world.nango().environments[0].cache.starts = 10_000;
    let run = world.switch(&[]).await.exits(1);
    assert_eq!(run.result("prod"), "restored", "{}", run.text());
    world.all_have(&world.old);
    assert_eq!(world.nango().environments[0].saves.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_rejects_after_the_save_restores_the_previous_callback() {
    let world = World::one().await;
    world.rejects_after_save("prod");
    let run = world.switch(&[]).await.exits(1);
    assert_eq!(run.result("prod"), "restored", "{}", run.text());
    world.all_have(&world.old);
    // Now it is unsafe from the start.
    let patches = world.nango().patches.len();
    world.switch(&[]).await.exits(1);
    assert_eq!(world.nango().patches.len(), patches);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_after_the_save_stays_switched() {
    let world = World::one().await;
    let registry = Arc::clone(&world.registry);
    world.when_saved("prod", move |_| registry.lock().unwrap().is_down = true);
    let run = world.switch(&[]).await.exits(2);
    assert_eq!(run.result("prod"), "switched_unconfirmed", "{}", run.text());
    world.all_have(&world.new);
    // Later it is confirmed.
    world.registry.lock().unwrap().is_down = false;
    world.switch(&[]).await.exits(0);
    assert_eq!(world.nango().patches.len(), 1);
    assert_eq!(world.status().await.exits(0).environment("prod")["phase"], "confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_cannot_be_started_after_the_save_are_unknown() {
    let world = World::one().await;
    world.when_saved("prod", |nango| {
        nango.rules.push(Rule::repeated(Kind::Start, 999, || Fault::Reply(error(500, "x", ""))));
    });
    let run = world.switch(&[]).await.exits(2);
    assert_eq!(run.result("prod"), "switched_unconfirmed", "{}", run.text());
    world.all_have(&world.new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_back_that_fails_is_unknown() {
    let world = World::one().await;
    world.when_saved("prod", |nango| {
        nango.rules.push(Rule::repeated(Kind::Read, 999, || Fault::Reply(error(500, "x", ""))));
    });
    let run = world.switch(&[]).await;
    // It was acknowledged, and flows may show it.
    assert!(matches!(run.code, Some(2 | 4)), "{}", run.text());
    world.all_have(&world.new);
    world.nango().rules.clear();
    world.switch(&[]).await.exits(0);
    world.all_have(&world.new);
}

/// Nango acknowledges, and saves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_without_effect_is_not_reported_as_switched() {
    let world = World::one().await;
    let done = Reply::new(200).with("content-type", "application/json").body("{\"success\":true}");
    world.rule(Rule::repeated(Kind::Patch, 9, move || Fault::Reply(done.clone())));
    let run = world.switch(&[]).await;
    assert!(matches!(run.code, Some(1 | 3)), "{}", run.text());
    world.all_have(&world.old);
}

const OTHER: &str = "http://127.0.0.1:1/oauth/callback";

/// Another person saves a callback.
fn other_saves(environment: &'static str) -> Fault {
    Fault::Do(Box::new(move |nango| nango.environment(environment).save(OTHER)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_another_person_saved_is_kept() {
    // Between the plan and the PATCH.
    let world = World::one().await;
    world.rule(Rule::at(Kind::Read, other_saves("prod")).after(1));
    let run = world.switch(&[]).await.exits(1);
    world.no_patch();
    assert_eq!(run.environment("prod")["value"], OTHER, "{}", run.text());
    assert_eq!(run.result("prod"), "changed_by_others", "{}", run.text());
    // Between the PATCH and the read back.
    let world = World::one().await;
    world.rule(Rule::after_patch(Kind::Read, other_saves("prod")));
    let run = world.switch(&[]).await;
    assert!(matches!(run.code, Some(1 | 4)), "{}", run.text());
    assert_eq!(world.saved("prod"), OTHER, "{}", run.text());
    assert_eq!(run.environment("prod")["value"], OTHER, "{}", run.text());
    // Before the restore.
    let world = World::one().await;
    let (registry, new) = (Arc::clone(&world.registry), world.new.clone());
    world.when_saved("prod", move |nango| {
        registry.lock().unwrap().callbacks.get_mut("prod-app").unwrap().remove(&new);
        nango.rules.push(Rule::at(Kind::Read, other_saves("prod")).after(1));
    });
    let run = world.switch(&[]).await;
    assert!(matches!(run.code, Some(1 | 4)), "{}", run.text());
    assert_eq!(run.result("prod"), "changed_by_others", "{}", run.text());
    assert_eq!(world.saved("prod"), OTHER, "{}", run.text());
    // And `--back` keeps it too.
    let run = world.back(&[]).await;
    assert!(matches!(run.code, Some(1 | 4)), "{}", run.text());
    assert_eq!(world.saved("prod"), OTHER, "{}", run.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_is_reported_with_the_way_back() {
    let world = World::one().await;
    let registry = Arc::clone(&world.registry);
    let (client, new) = ("prod-app", world.new.clone());
    world.when_saved("prod", move |nango| {
        registry.lock().unwrap().callbacks.get_mut(client).unwrap().remove(&new);
        nango.rules.push(Rule::repeated(Kind::Patch, 99, || Fault::Reply(error(500, "x", ""))));
    });
    let run = world.switch(&[]).await.exits(4);
    assert_eq!(run.result("prod"), "not_restored", "{}", run.text());
    assert_eq!(world.saved("prod"), world.new);
    assert!(run.report()["back"].as_str().unwrap().contains("--back"), "{}", run.text());
    world.status().await.exits(2);
    world.nango().rules.clear();
    world.back(&[]).await.exits(0);
    world.all_have(&world.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_lasts_ends_the_run() {
    let world = World::one().await;
    world.rule(Rule::repeated(Kind::List, 99, || limited("3600")));
    let began = Instant::now();
    world.switch(&[]).await.exits(3);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    world.no_patch();
}
