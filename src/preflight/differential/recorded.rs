//! What providers were seen to answer, as reported in public, and what hostile ones may: the rule
//! over whole answers. The pages are our own, in the recorded shapes.

use super::provider::Provider;
use super::rule::{Probes, Ruling, State, judge};
use super::shape::{Asked, Shape};
use crate::outbound::{Answer, Fault, Protocol, Reason, Step};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use std::time::Duration;

const OLD: &str = "https://api.nango.dev/oauth/callback";
const NEW: &str = "https://auth.example.org/oauth/callback";
const PATH: &str = "https://auth.example.org/n0123456789abcdef0123456789abcdef";
const HOST: &str = "https://n0123456789a.example.com/n0123456789abcdef0123456789abcdef";

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

/// Asks `provider` with each URI, and once more if the rule wants to. The nonce differs each time.
fn ruling(template: &str, provider: impl Fn(&str, &str) -> Said) -> (State, String) {
    let known = Provider::of(template);
    let mut count = 0;
    let mut ask = |uri: &str| {
        count += 1;
        let state = format!("{count:08x}-1111-4111-8111-{:012x}", count * 77_777);
        let asked = Asked { redirect_uri: uri, state: &state, url: "https://p.example/auth?a=b" };
        Shape::of(&provider(uri, &state), asked, known.markers, known.mismatch_status)
    };
    let mut probes =
        Probes { old: ask(OLD), host: ask(HOST), new: ask(NEW), path: ask(PATH), again: None };
    let mut said = judge(&probes);
    if said == Ruling::AskAgain {
        probes.again = Some((ask(NEW), ask(HOST)));
        said = judge(&probes);
    }
    match said {
        Ruling::Is(state, evidence) => (state, evidence),
        Ruling::AskAgain => panic!("it asks for ever"),
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

type Answers = fn(&str, &str) -> Said;

type Hostile<'a> = dyn Fn(&str, &str) -> Said + 'a;

/// Template, what a known URI gets, what an unknown one gets.
fn shapes() -> Vec<(&'static str, Answers, Answers)> {
    vec![
        (
            "google-mail",
            |uri, state| {
                to(&format!(
                    "https://p.example/v3/signin/identifier?continue={uri}&state={state}&dsh=S{state}"
                ))
            },
            |uri, state| {
                let error = format!(
                    "\u{a}\u{15}redirect_uri_mismatch\u{12}You can't sign in, redirect_uri={uri} {state}"
                );
                to(&format!(
                    "/signin/oauth/error?authError={}&client_id=1",
                    BASE64URL_NOPAD.encode(error.as_bytes())
                ))
            },
        ),
        (
            "okta",
            |_, state| {
                page(
                    200,
                    &format!(
                        "<title>Acme - Sign In</title><form><input name=\"identifier\"><input value=\"{state}\"></form>"
                    ),
                )
            },
            |uri, _| {
                page(
                    400,
                    &format!(
                        "<h1>400 Bad Request</h1><p>The 'redirect_uri' parameter must be a Login redirect URI in the client app settings: {uri}</p>"
                    ),
                )
            },
        ),
        (
            "xero",
            |_, state| {
                to(&format!("https://login.p.example/identity/user/login?ReturnUrl={state}"))
            },
            |_, state| {
                page(
                    500,
                    &format!(
                        "<h1>Sorry, something went wrong</h1>Error: unauthorized_client, request id {state}"
                    ),
                )
            },
        ),
        (
            "stripe",
            |_, state| to(&format!("/login?redirect={state}")),
            |uri, _| {
                page(
                    400,
                    &format!(
                        "{{\"error\":{{\"message\":\"Invalid redirect URI '{uri}'. Ensure this uri matches exactly one of the uris specified.\"}}}}"
                    ),
                )
            },
        ),
        (
            "jira",
            |_, state| to(&format!("https://id.p.example/login?continue={state}")),
            |uri, _| {
                to(&format!(
                    "https://id.p.example/error?error=unauthorized_client&error_description=redirect_uri%20is%20not%20registered%20for%20client%3A%20{uri}"
                ))
            },
        ),
        (
            "quickbooks",
            |_, state| to(&format!("https://accounts.p.example/app/sign-in?state={state}")),
            |uri, _| {
                page(
                    200,
                    &format!(
                        "<h2>Sorry, but we didn't connect</h2><p>The redirect_uri query parameter value is invalid. Make sure it is listed.</p><!-- {uri} -->"
                    ),
                )
            },
        ),
    ]
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
            // Xero says nothing but 500 there, so that nobody can tell a fault from a refusal.
            let blind = template == "xero" && known == [NEW];
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
fn no_hostile_answer_is_a_registration() {
    let login = "<title>Sign in</title><input type=\"password\">";
    let fault = || Err(Fault::new(Step::Head, Reason::Timeout, "nothing within 10000 ms"));
    let cases: Vec<(&str, Box<Hostile<'_>>)> = vec![
        ("after the login", Box::new(|_, _| page(200, login))),
        (
            "403 for what it does not know",
            Box::new(registered(&[OLD, NEW], |_, _| page(200, login), |_, _| page(403, "no"))),
        ),
        (
            "429 in between",
            Box::new(registered(&[OLD], |_, _| page(200, login), |_, _| page(429, ""))),
        ),
        (
            "503 for what it does not know",
            Box::new(registered(&[OLD, NEW], |_, _| page(200, login), |_, _| page(503, ""))),
        ),
        (
            "a captcha for bogus hosts",
            Box::new(registered(
                &[OLD, NEW],
                |_, _| page(200, login),
                |_, _| page(200, "Just a moment... challenge-platform"),
            )),
        ),
        (
            "leads bogus ones to a captcha",
            Box::new(registered(&[OLD, NEW], |_, _| to("/login"), |_, _| to("/sorry/index"))),
        ),
        (
            "time-outs",
            Box::new(registered(&[OLD, NEW], |_, _| page(200, login), move |_, _| fault())),
        ),
        (
            "endless pages",
            Box::new(registered(
                &[OLD, NEW],
                |_, _| page(200, login),
                |_, _| page(200, "word word").map(|answer| Answer { whole: false, ..answer }),
            )),
        ),
        (
            "compressed though not asked for",
            Box::new(|uri, _| answer(200, &[("content-encoding", "br")], uri)),
        ),
        ("redirects to anything", Box::new(|uri, _| to(&format!("{uri}?error=access_denied")))),
        (
            "only the length differs",
            Box::new(|uri, _| page(200, &format!("{login}{uri}{}", " ".repeat(uri.len())))),
        ),
        (
            "echoes the host",
            Box::new(|uri, _| page(200, &format!("{login}<p>to {}", uri.replace('/', "&#x2F;")))),
        ),
        (
            "a page with all messages",
            Box::new(|_, _| page(200, "<script>{invalid_redirect_uri:'x',unknown:'y'}</script>")),
        ),
        (
            "another greeting for hosts",
            Box::new(registered(
                &[OLD, NEW],
                |_, _| page(200, "good morning"),
                |_, _| page(200, "good evening"),
            )),
        ),
    ];
    for (name, provider) in cases {
        let (state, evidence) = ruling("anything", provider);
        assert!(
            !matches!(state, State::Registered | State::PrefixMatch),
            "{name}: {state:?} {evidence}"
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

/// Any answer of a small world, so that likeness and unlikeness are both frequent.
fn any_shape() -> impl Strategy<Value = Said> {
    let status = prop::sample::select(vec![200_u16, 302, 400, 401, 403, 404, 429, 500, 503]);
    let body = prop::sample::select(vec![
        "",
        "sign in",
        "sign in please",
        "invalid redirect_uri",
        "error: redirect_uri_mismatch",
        "unknown client",
        "just a moment...",
        "good morning",
    ]);
    let location = prop::sample::select(vec![
        "",
        "/login",
        "/error?error=invalid_request",
        "bounce",
        "https://api.nango.dev/oauth/callback?error=x",
    ]);
    (status, body, location, any::<bool>(), prop::bool::weighted(0.05)).prop_map(
        |(status, body, location, whole, fault)| {
            if fault {
                return Err(Fault::new(Step::Connect, Reason::Refused, "refused"));
            }
            let headers: &[(&str, &str)] =
                if location.is_empty() { &[] } else { &[("location", location)] };
            answer(status, headers, body).map(|answer| Answer { whole, ..answer })
        },
    )
}

fn shape(said: &Said, uri: &str) -> Shape {
    let mut said = said.clone();
    if let Ok(answer) = &mut said
        && answer.headers.get("location").is_some_and(|to| to == "bounce")
    {
        answer.headers.insert("location", HeaderValue::from_str(uri).unwrap());
    }
    let asked = Asked { redirect_uri: uri, state: "-", url: "https://p.example/auth" };
    Shape::of(&said, asked, &[], None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Whatever is answered: where a control misbehaves, nothing is registered.
    #[test]
    fn no_pass_while_a_control_misbehaves(
        answers in prop::array::uniform4(any_shape()),
        again in prop::option::of(prop::array::uniform2(any_shape())),
    ) {
        let [old, new, path, host] = &answers;
        let probes = Probes {
            old: shape(old, OLD),
            new: shape(new, NEW),
            path: shape(path, PATH),
            host: shape(host, HOST),
            again: again.as_ref().map(|[new, host]| (shape(new, NEW), shape(host, HOST))),
        };
        let ruling = judge(&probes);
        if again.is_some() {
            prop_assert_ne!(&ruling, &Ruling::AskAgain);
        }
        if let Ruling::Is(State::Registered, _) = ruling {
            let (Some(new), Some(path), Some(host)) =
                (probes.new.spoken(), probes.path.spoken(), probes.host.spoken())
            else {
                return Err(TestCaseError::fail("a question without an answer"));
            };
            prop_assert!(probes.old.spoken().is_some());
            // Neither control was redirected, neither was answered as the new callback was.
            prop_assert!(!path.bounced && !host.bounced);
            prop_assert!(new != path && new != host);
            prop_assert!(!new.says.mismatch && !new.says.bad_client || new.bounced);
            if !new.bounced {
                let (new_again, host_again) = probes.again.as_ref().unwrap();
                prop_assert!(new_again.spoken().is_some() && host_again.spoken().is_some());
                prop_assert!(new_again != host_again);
            }
        }
    }

    /// Four equal answers never tell anything good.
    #[test]
    fn no_pass_on_the_absence_of_an_error(said in any_shape()) {
        let [old, new, path, host] = [OLD, NEW, PATH, HOST].map(|uri| shape(&said, uri));
        let again = Some((new.clone(), host.clone()));
        let probes = Probes { old, new, path, host, again };
        let passes = matches!(
            judge(&probes),
            Ruling::Is(State::Registered | State::PrefixMatch, _)
        );
        prop_assert!(!passes);
    }
}
