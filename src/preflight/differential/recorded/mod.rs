//! Tests of the rule over complete replies: those of providers, as reported in public, hostile ones,
//! and random ones. The pages are written for the tests, in the recorded shapes.

mod hostile;
mod properties;
mod replies;

use super::provider::{PROVIDERS, Provider};
use super::rule::{Decision, Probe, Rounds, State, judge};
use super::shape::{Sent, Shape};
use crate::outbound::{Fault, Protocol, Response};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use replies::{RecordedProvider, ReplyFn, shapes, uncertain_shapes};
use std::time::Duration;

const OLD: &str = "https://api.nango.dev/oauth/callback";
const NEW: &str = "https://auth.example.org/oauth/callback";
const PATH: &str = "https://auth.example.org/n0123456789abcdef0123456789abcdef";
const HOST: &str = "https://n0123456789a.example.com/oauth/callback";

const ALL: [&str; 4] = [OLD, HOST, NEW, PATH];

type ReplyResult = Result<Response, Fault>;

#[expect(clippy::unnecessary_wraps, reason = "a reply may also be a fault")]
fn response(status: u16, headers: &[(&str, &str)], body: &str) -> ReplyResult {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    Ok(Response {
        status: http::StatusCode::from_u16(status).unwrap(),
        headers: all,
        body: Bytes::from(body.to_owned()),
        whole: true,
        protocol: Protocol::Http2,
        head_time: Duration::ZERO,
    })
}

fn page(status: u16, body: &str) -> ReplyResult {
    response(status, &[], body)
}

fn to(location: &str) -> ReplyResult {
    response(302, &[("location", location)], "")
}

const LOGIN: &str = "<title>Sign in</title><input type=\"password\">";

/// Sends the probes of the rule to `provider`. The nonce differs each time.
fn state_of(template: &str, provider: impl Fn(&str, &str) -> ReplyResult) -> (State, String) {
    let known = Provider::of(template);
    let mut count = 0;
    let mut send = |uri: &str| {
        count += 1;
        let state = format!("{count:08x}-1111-4111-8111-{:012x}", count * 77_777);
        let url = "https://p.example/auth?a=b";
        let sent = Sent { redirect_uri: uri, all: ALL, state: &state, url };
        Shape::of(&provider(uri, &state), sent, known.markers, known.mismatch_status)
    };
    let mut rounds = Rounds::default();
    for _ in 0..=MAX_PROBES {
        match judge(&rounds) {
            Decision::Final(state, evidence) => return (state, evidence),
            Decision::Send(probe) => rounds.record(probe, send(uri(probe))),
        }
    }
    panic!("more than {MAX_PROBES} probes")
}

const MAX_PROBES: usize = 8;

fn uri(probe: Probe) -> &'static str {
    match probe {
        Probe::Old => OLD,
        Probe::UnregisteredHost => HOST,
        Probe::New => NEW,
        Probe::UnregisteredPath => PATH,
    }
}

/// A provider that compares whole URIs, with a reply to registered and one to unregistered ones.
fn registered<'a>(
    known: &'a [&'a str],
    good: impl Fn(&str, &str) -> ReplyResult + 'a,
    bad: impl Fn(&str, &str) -> ReplyResult + 'a,
) -> impl Fn(&str, &str) -> ReplyResult + 'a {
    move |uri, state| if known.contains(&uri) { good(uri, state) } else { bad(uri, state) }
}

#[test]
fn the_documents_list_the_providers_whose_replies_before_login_are_recorded() {
    let names = shapes().into_iter().map(|(template, ..)| {
        let name = Provider::of(template).name;
        assert_ne!(name, Provider::of("").name, "`PROVIDERS` has no entry for {template}");
        name
    });
    let names: Vec<_> = names.collect();
    let sentence =
        format!("Providers whose replies before login are recorded: {}.", names.join(", "));
    let document = include_str!("../../../../docs/checks.md");
    assert!(document.contains(&sentence), "docs/checks.md does not contain: {sentence}");
}

/// And no reply to a registered callback contains it.
#[test]
fn every_marker_is_required_to_detect_a_recorded_rejection() {
    let certain = shapes().into_iter().map(|(template, good, bad)| {
        let shaped =
            move |known: &[&str], uri: &str, state: &str| registered(known, good, bad)(uri, state);
        (template, Box::new(shaped) as RecordedProvider)
    });
    let recorded: Vec<_> = certain.chain(uncertain_shapes()).collect();
    for provider in PROVIDERS {
        for marker in provider.markers {
            let is_mismatch = |shaped: &RecordedProvider, known: &[&str], markers: &[&str]| {
                let sent =
                    Sent { redirect_uri: NEW, all: ALL, state: "-", url: "https://p.example" };
                match Shape::of(&shaped(known, NEW, "-"), sent, markers, None) {
                    Shape::Reply(reply) => reply.explicit.mismatch,
                    Shape::Unusable(_) => false,
                }
            };
            let detects = |shaped: &RecordedProvider| {
                let reply =
                    [(&[OLD][..], &[][..]), (&[OLD], &[*marker]), (&[OLD, NEW], &[*marker])];
                reply.map(|(known, markers)| is_mismatch(shaped, known, markers))
                    == [false, true, false]
            };
            let own = recorded.iter().filter(|(template, _)| Provider::of(template) == *provider);
            let name = provider.name;
            assert!(
                own.map(|(_, shaped)| shaped).any(detects),
                "{name}: {marker:?} must be contained, in lower case, in a rejection recorded here \
                 that no other phrase detects, and in no reply to a registered callback"
            );
        }
    }
}

#[test]
fn recorded_replies_result_in_the_right_state() {
    for (template, good, bad) in shapes() {
        for (known, state) in [
            (&[OLD, NEW][..], State::Registered),
            (&[OLD], State::NotRegistered),
            (&[NEW], State::Registered),
            (&[OLD, NEW, PATH], State::PrefixMatch),
        ] {
            let (found, evidence) = state_of(template, registered(known, good, bad));
            // Xero responds only 500, which cannot be distinguished from a fault unless the current
            // callback is registered and both controls agree.
            let ambiguous = template == "xero" && (known == [NEW] || known.contains(&PATH));
            let expected = if ambiguous { State::Inconclusive } else { state };
            assert_eq!(found, expected, "{template} {known:?}: {evidence}");
            assert!(!evidence.contains("1111-4111"), "{evidence}");
        }
        let (found, evidence) = state_of(template, registered(&[], good, bad));
        assert!(
            matches!(found, State::NotRegistered | State::Undecidable | State::ClientRejected),
            "{template}: {found:?} {evidence}"
        );
    }
}
#[test]
fn pages_with_volatile_words_can_be_compared() {
    let words = ["amber", "birch", "cedar", "dune"];
    let calls = std::cell::Cell::new(0);
    let tip = || {
        calls.set(calls.get() + 1);
        words[calls.get() % 4]
    };
    let good =
        |_: &str, state: &str| page(200, &format!("<p>Sign in</p><i>{}</i><b>{state}</b>", tip()));
    let bad = |uri: &str, state: &str| {
        page(
            200,
            &format!("<p>The redirect_uri {uri} is not associated</p><i>{}</i>{state}", tip()),
        )
    };
    // A tip of the day differs; only an explicit error decides.
    let (state, _) = state_of("anything", registered(&[OLD], good, bad));
    assert_eq!(state, State::NotRegistered);
    let (state, _) = state_of("anything", registered(&[OLD, NEW], good, bad));
    assert!(matches!(state, State::Registered | State::Inconclusive));
}

#[test]
fn a_redirect_to_the_callback_decides() {
    let bounce = |uri: &str, state: &str| to(&format!("{uri}?error=login_required&state={state}"));
    let refuse = |_: &str, _: &str| page(400, "no");
    for (known, expected) in [
        (&[OLD, NEW][..], State::Registered),
        (&[OLD], State::NotRegistered),
        (&[NEW], State::Registered),
        (&[OLD, NEW, PATH], State::PrefixMatch),
        (&[OLD, NEW, HOST], State::Unenforced),
    ] {
        let (state, evidence) = state_of("anything", registered(known, bounce, refuse));
        assert_eq!(state, expected, "{known:?} {evidence}");
    }
}
#[test]
fn uncertain_shapes_result_in_the_right_state() {
    for (template, shaped) in uncertain_shapes() {
        for (known, expected) in [
            (&[OLD, NEW][..], State::Registered),
            (&[OLD], State::NotRegistered),
            (&[NEW], State::Registered),
        ] {
            let (state, evidence) = state_of(template, |uri, state| shaped(known, uri, state));
            assert_eq!(state, expected, "{template} {known:?}: {evidence}");
        }
    }
}
/// After the switch the old callback may be removed. Without an explicit error, a reply that only
/// the new one gets cannot be distinguished from a firewall against all others.
#[test]
fn only_explicit_errors_decide_when_the_old_callback_is_removed() {
    let login = |_: &str, _: &str| page(200, LOGIN);
    let cases: [(&str, ReplyFn, State, State); 6] = [
        // The reply to unregistered ones; the state with only the new one registered; with none.
        (
            "a rejection",
            |_, _| page(400, "Invalid redirect URI"),
            State::Registered,
            State::NotRegistered,
        ),
        (
            "a code",
            |_, _| to("/error?error=redirect_uri_mismatch"),
            State::Registered,
            State::NotRegistered,
        ),
        (
            "a page with an error",
            |_, _| page(200, "redirect_uri is not registered"),
            State::Registered,
            State::Undecidable,
        ),
        (
            "an error without words",
            |_, _| page(400, "Bad request"),
            State::Inconclusive,
            State::Undecidable,
        ),
        ("another page", |_, _| to("/oops"), State::Inconclusive, State::Undecidable),
        ("a missing page", |_, _| page(404, "not found"), State::Inconclusive, State::Undecidable),
    ];
    for (name, bad, only_new, none) in cases {
        for (known, expected) in [(&[NEW][..], only_new), (&[], none)] {
            let (state, evidence) = state_of("anything", registered(known, login, bad));
            assert_eq!(state, expected, "{name} {known:?}: {evidence}");
        }
        // The new one gets another error than the unregistered ones.
        for odd in [page(400, "no"), to("/error?error=x"), page(200, "<p>An error happened</p>")] {
            let (state, evidence) =
                state_of("anything", registered(&[NEW], |_, _| odd.clone(), bad));
            assert_ne!(state, State::Registered, "{name}: {evidence}");
        }
    }
}
