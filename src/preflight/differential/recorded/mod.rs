//! The rule over whole answers: what providers were seen to answer, as reported in public, what hostile
//! ones may, and anything. The pages are our own, in the recorded shapes.

mod answers;
mod hostile;
mod properties;

use super::provider::{PROVIDERS, Provider};
use super::rule::{Probes, Question, Ruling, State, judge};
use super::shape::{Asked, Shape};
use crate::outbound::{Answer, Fault, Protocol};
use answers::{Answers, Shaped, shapes, shapes_of_less_certainty};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const OLD: &str = "https://api.nango.dev/oauth/callback";
const NEW: &str = "https://auth.example.org/oauth/callback";
const PATH: &str = "https://auth.example.org/n0123456789abcdef0123456789abcdef";
const HOST: &str = "https://n0123456789a.example.com/oauth/callback";

const ALL: [&str; 4] = [OLD, HOST, NEW, PATH];

type Said = Result<Answer, Fault>;

#[expect(clippy::unnecessary_wraps, reason = "a provider's answer may be a fault as well")]
fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Said {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    Ok(Answer {
        status: http::StatusCode::from_u16(status).unwrap(),
        headers: all,
        body: Bytes::from(body.to_owned()),
        whole: true,
        protocol: Protocol::Http2,
        head_time: Duration::ZERO,
    })
}

fn page(status: u16, body: &str) -> Said {
    answer(status, &[], body)
}

fn to(location: &str) -> Said {
    answer(302, &[("location", location)], "")
}

const LOGIN: &str = "<title>Sign in</title><input type=\"password\">";

/// Asks `provider` with each URI, and once more if the rule wants to. The nonce differs each time.
fn ruling(template: &str, provider: impl Fn(&str, &str) -> Said) -> (State, String) {
    let known = Provider::of(template);
    let mut count = 0;
    let mut ask = |uri: &str| {
        count += 1;
        let state = format!("{count:08x}-1111-4111-8111-{:012x}", count * 77_777);
        let url = "https://p.example/auth?a=b";
        let asked = Asked { redirect_uri: uri, all: ALL, state: &state, url };
        Shape::of(&provider(uri, &state), asked, known.markers, known.mismatch_status)
    };
    let mut probes = Probes::default();
    for _ in 0..=MOST_QUESTIONS {
        match judge(&probes) {
            Ruling::Is(state, evidence) => return (state, evidence),
            Ruling::Ask(question) => probes.take(question, ask(uri(question))),
        }
    }
    panic!("it asks for ever")
}

const MOST_QUESTIONS: usize = 8;

fn uri(question: Question) -> &'static str {
    match question {
        Question::Old => OLD,
        Question::Host => HOST,
        Question::New => NEW,
        Question::Path => PATH,
    }
}

/// A provider that compares whole URIs, and answers in these two ways.
fn registered<'a>(
    known: &'a [&'a str],
    good: impl Fn(&str, &str) -> Said + 'a,
    bad: impl Fn(&str, &str) -> Said + 'a,
) -> impl Fn(&str, &str) -> Said + 'a {
    move |uri, state| if known.contains(&uri) { good(uri, state) } else { bad(uri, state) }
}

#[test]
fn the_documents_list_the_providers_whose_replies_before_login_are_recorded() {
    let names = shapes().into_iter().map(|(template, ..)| {
        let name = Provider::of(template).name;
        assert_ne!(name, Provider::of("").name, "{template} is no template of one in `PROVIDERS`");
        name
    });
    let names: Vec<_> = names.collect();
    let sentence =
        format!("Providers whose replies before login are recorded: {}.", names.join(", "));
    let document = include_str!("../../../../docs/checks.md");
    assert!(document.contains(&sentence), "docs/checks.md does not contain: {sentence}");
}

/// Nothing else in a recorded refusal tells of it, and no answer to a registered callback says it.
#[test]
fn every_marker_stands_in_a_recorded_refusal_that_it_alone_tells() {
    let sure = shapes().into_iter().map(|(template, good, bad)| {
        let shaped =
            move |known: &[&str], uri: &str, state: &str| registered(known, good, bad)(uri, state);
        (template, Box::new(shaped) as Shaped)
    });
    let recorded: Vec<_> = sure.chain(shapes_of_less_certainty()).collect();
    for provider in PROVIDERS {
        for marker in provider.markers {
            let says = |shaped: &Shaped, known: &[&str], markers: &[&str]| {
                let asked =
                    Asked { redirect_uri: NEW, all: ALL, state: "-", url: "https://p.example" };
                match Shape::of(&shaped(known, NEW, "-"), asked, markers, None) {
                    Shape::Answer(spoken) => spoken.says.mismatch,
                    Shape::Silent(_) => false,
                }
            };
            let tells = |shaped: &Shaped| {
                let said = [(&[OLD][..], &[][..]), (&[OLD], &[*marker]), (&[OLD, NEW], &[*marker])];
                said.map(|(known, markers)| says(shaped, known, markers)) == [false, true, false]
            };
            let own = recorded.iter().filter(|(template, _)| Provider::of(template) == *provider);
            let name = provider.name;
            assert!(
                own.map(|(_, shaped)| shaped).any(tells),
                "{name}: {marker:?} must stand, in lower case, in a refusal recorded here that no other \
                 phrase tells, and in no answer to a registered callback"
            );
        }
    }
}

#[test]
fn recorded_shapes_are_judged_right() {
    for (template, good, bad) in shapes() {
        for (known, state) in [
            (&[OLD, NEW][..], State::Registered),
            (&[OLD], State::NotRegistered),
            (&[NEW], State::Registered),
            (&[OLD, NEW, PATH], State::PrefixMatch),
        ] {
            let (found, evidence) = ruling(template, registered(known, good, bad));
            // Xero says nothing but 500 there, so that nobody can tell a fault from a refusal
            // unless the good one is a reference and both controls agree.
            let blind = template == "xero" && (known == [NEW] || known.contains(&PATH));
            let expected = if blind { State::Inconclusive } else { state };
            assert_eq!(found, expected, "{template} {known:?}: {evidence}");
            assert!(!evidence.contains("1111-4111"), "{evidence}");
        }
        let (found, evidence) = ruling(template, registered(&[], good, bad));
        assert!(
            matches!(found, State::NotRegistered | State::Undecidable | State::ClientRejected),
            "{template}: {found:?} {evidence}"
        );
    }
}
#[test]
fn pages_that_change_by_themselves_are_compared_all_the_same() {
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
    // A tip of the day differs; the outright word decides, or nothing does.
    let (state, _) = ruling("anything", registered(&[OLD], good, bad));
    assert_eq!(state, State::NotRegistered);
    let (state, _) = ruling("anything", registered(&[OLD, NEW], good, bad));
    assert!(matches!(state, State::Registered | State::Inconclusive));
}

#[test]
fn a_bounce_decides() {
    let bounce = |uri: &str, state: &str| to(&format!("{uri}?error=login_required&state={state}"));
    let refuse = |_: &str, _: &str| page(400, "no");
    for (known, expected) in [
        (&[OLD, NEW][..], State::Registered),
        (&[OLD], State::NotRegistered),
        (&[NEW], State::Registered),
        (&[OLD, NEW, PATH], State::PrefixMatch),
        (&[OLD, NEW, HOST], State::Unenforced),
    ] {
        let (state, evidence) = ruling("anything", registered(known, bounce, refuse));
        assert_eq!(state, expected, "{known:?} {evidence}");
    }
}
#[test]
fn shapes_of_less_certainty_are_judged_right() {
    for (template, shaped) in shapes_of_less_certainty() {
        for (known, expected) in [
            (&[OLD, NEW][..], State::Registered),
            (&[OLD], State::NotRegistered),
            (&[NEW], State::Registered),
        ] {
            let (state, evidence) = ruling(template, |uri, state| shaped(known, uri, state));
            assert_eq!(state, expected, "{template} {known:?}: {evidence}");
        }
    }
}
/// After the switch the old callback may be gone. Where nobody says so in words, the new one
/// alone is answered well: that it is known cannot be told from a wall before all others.
#[test]
fn with_the_old_callback_gone_only_words_decide() {
    let login = |_: &str, _: &str| page(200, LOGIN);
    let cases: [(&str, Answers, State, State); 6] = [
        // What the bad ones get; with only the new one registered; with none.
        (
            "a refusal",
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
            "a page that refuses",
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
            let (state, evidence) = ruling("anything", registered(known, login, bad));
            assert_eq!(state, expected, "{name} {known:?}: {evidence}");
        }
        // The new one gets something else than a refusal, and is not welcome all the same.
        for odd in [page(400, "no"), to("/error?error=x"), page(200, "<p>An error happened</p>")] {
            let (state, evidence) = ruling("anything", registered(&[NEW], |_, _| odd.clone(), bad));
            assert_ne!(state, State::Registered, "{name}: {evidence}");
        }
    }
}
