//! The small check, for the background: few requests, that still detect what breaks a callback.

use super::{BOTH, Case, World};
use crate::fakes::{Act, CertificateSpec, Received, Reply, behaviour, correct, nango, plain, tls};
use callback_edge::check::{self, Coverage, Plan};
use callback_edge::outbound::{Limits, Outbound, Resolver, Roots};
use callback_edge::redirect::Target;
use callback_edge::report::{self, Report, Status, Verdict};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is at the target.
type NangoAct = fn(&Received) -> Act;

#[tokio::test]
async fn a_small_check_sends_at_most_15_requests_to_a_callback_and_one_to_nango() {
    let mut world = World::new().await;
    let (at_callback, at_nango) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&at_nango);
    let address = plain(behaviour(move |heard| {
        count.fetch_add(1, SeqCst);
        nango(heard)
    }))
    .await;
    world.origin = format!("http://{address}");
    let count = Arc::clone(&at_callback);
    let counted = move |_: &Received, correct| {
        count.fetch_add(1, SeqCst);
        Act::Reply(correct)
    };
    let case = world.case("correct", &[], counted).await;
    let report = small(&world, &case).await;
    assert_eq!(
        report.verdict(),
        Verdict::Pass,
        "{}",
        report::text(std::slice::from_ref(&report), None, report::Detail::All)
    );
    assert_eq!(status(&report, "nango.end_to_end"), Some(Status::Pass));
    let sent = at_callback.load(SeqCst);
    println!("{sent} requests");
    assert!((8..=15).contains(&sent), "{sent}");
    assert_eq!(at_nango.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_check_detects_what_breaks_a_callback() {
    let world = World::new().await;
    let first: Mutex<Option<Reply>> = Mutex::default();
    let replace = |name, expected, from: &'static str, to: &'static str| {
        world.queried(name, expected, move |query| query.replace(from, to))
    };
    let mut cases = vec![
        replace("slashes are decoded", &["redirect.encoding"], "%2F", "/").await,
        replace("hex becomes upper case", &["redirect.encoding"], "%3a", "%3A").await,
        replace("spaces become pluses", &["redirect.encoding"], "%20", "+").await,
        replace("letters are decoded", &["redirect.encoding"], "%7E", "~").await,
        replace("an empty value is dropped", &["redirect.parameters"], "&empty=", "").await,
        replace("a bare key gets a value", &["redirect.parameters"], "&bare&", "&bare=&").await,
        replace("a duplicate is dropped", &["redirect.parameters"], "&scope=b&empty", "&empty")
            .await,
        world
            .located("the query is dropped", &["redirect.query"], |location| {
                location.split('?').next().unwrap_or_default().to_owned()
            })
            .await,
        world
            .case("a cache ignores the query", &["redirect.cache"], move |heard, correct| {
                if heard.method != "GET" || heard.query.is_none() {
                    return Act::Reply(correct);
                }
                Act::Reply(first.lock().unwrap().get_or_insert(correct).clone())
            })
            .await,
        world
            .case("responses may be cached", &["redirect.cache"], |_, correct| {
                Act::Reply(correct.without("cache-control"))
            })
            .await,
        world
            .located("another target", &["redirect.target"], |location| {
                location.replace("/oauth/callback", "/oauth/callbacks")
            })
            .await,
        world
            .case("codes of 4 KiB are refused", &["redirect.size"], |heard, correct| {
                let long = heard.query.as_ref().is_some_and(|query| query.len() > 2048);
                Act::Reply(if long { Reply::new(414) } else { correct })
            })
            .await,
        world
            .case("the Referer is hidden", &["redirect.referrer"], |_, correct| {
                Act::Reply(correct.with("referrer-policy", "no-referrer"))
            })
            .await,
    ];
    let spec =
        CertificateSpec { left: Err(Duration::from_hours(24)), ..CertificateSpec::default() };
    let expired = world.authority.issue(spec).config(BOTH);
    let direct = world.changed(|_, correct| Act::Reply(correct));
    cases.push(world.at("expired", &["tls.expiry"], tls(expired, behaviour(direct)).await));
    let unlike: [(&str, NangoAct); 3] = [
        ("the target is not Nango", |_| Act::Reply(Reply::page(404, "Cannot GET"))),
        ("the Referer is lost before Nango", |heard| {
            nango(&Received { headers: Vec::new(), ..heard.clone() })
        }),
        ("the query is lost before Nango", |heard| {
            nango(&Received { query: None, ..heard.clone() })
        }),
    ];
    for (name, act) in unlike {
        let origin = format!("http://{}", plain(behaviour(act)).await);
        let target = Target::parse(&format!("{origin}/oauth/callback")).unwrap();
        let server = behaviour(move |heard| Act::Reply(correct(&origin, heard)));
        let server = tls(world.config(BOTH), server).await;
        let mut case = world.at(name, &["nango.end_to_end"], server);
        case.target = target;
        cases.push(case);
    }
    for case in cases {
        let report = small(&world, &case).await;
        for id in case.expected {
            let found = status(&report, id);
            assert!(
                matches!(found, Some(Status::Fail | Status::Warn | Status::Unknown)),
                "{}: {id} is {found:?}\n{}",
                case.name,
                report::text(std::slice::from_ref(&report), None, report::Detail::All)
            );
        }
    }
}

fn status(report: &Report, id: &str) -> Option<Status> {
    report.checks.iter().find(|check| check.id == id).map(|check| check.status)
}

/// The check that the server runs in the background.
async fn small(world: &World, case: &Case) -> Report {
    let roots = Roots::public().and_pem(world.authority.pem.as_bytes()).unwrap();
    let limits = Limits { step: case.timeout, ..Limits::default() };
    let outbound = Outbound::new(Resolver::new(case.overrides.clone()), roots, limits);
    let mut plan = Plan::new(&case.url, case.target.clone());
    plan.coverage = Coverage::Small;
    plan.follow = false;
    plan.strict = true;
    check::run(&plan, &outbound).await
}
