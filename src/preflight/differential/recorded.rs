//! What providers were seen to answer, as reported in public, and what hostile ones may: the rule
//! over whole answers. The pages are our own, in the recorded shapes.

use super::provider::{PROVIDERS, Provider};
use super::rule::{Probes, Question, Ruling, State, judge};
use super::shape::{Asked, Shape, Spoken};
use crate::outbound::{Answer, Fault, Protocol, Reason, Step};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
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

type Answers = fn(&str, &str) -> Said;

/// By what is registered, the URI, and the state.
type Shaped = Box<dyn Fn(&[&str], &str, &str) -> Said>;

type Limit = fn() -> Said;

type Hostile<'a> = dyn Fn(&str, &str) -> Said + 'a;

/// Template, what a known URI gets, what an unknown one gets: of providers that were seen to look
/// before the login. What is less certain stands in `shapes_of_less_certainty_are_judged_right`.
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
fn the_readme_names_the_providers_that_were_seen_to_look_before_the_login() {
    let names: Vec<_> = shapes().iter().map(|(template, ..)| Provider::of(template).name).collect();
    let sentence = format!("by what they were seen to answer: {}.", names.join(", "));
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&sentence), "README.md, \"What `unknown` means\", lacks: {sentence}");
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
                "{name}: nothing recorded needs {marker:?}"
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

/// What no provider may be said to do that does it by chance, or for a reason of its own.
fn is_pass(state: State) -> bool {
    matches!(state, State::Registered | State::PrefixMatch | State::Unenforced)
}

const LOGIN: &str = "<title>Sign in</title><input type=\"password\">";

/// Counts the questions, from 0.
fn counted(answer: impl Fn(usize, &str) -> Said) -> impl Fn(&str, &str) -> Said {
    let count = std::cell::Cell::new(0);
    move |uri, _| {
        count.set(count.get() + 1);
        answer(count.get() - 1, uri)
    }
}

#[test]
fn what_differs_for_another_reason_is_no_registration() {
    let human = "<p>Are you human?</p><div data-callback=\"go\" data-error-callback=\"no\"></div>";
    let after_login_behind_a_wall = |status, body: &'static str| {
        move |uri: &str, _: &str| {
            if uri.contains("example.com") { page(status, body) } else { page(200, LOGIN) }
        }
    };
    let cases: Vec<(&str, Box<Hostile<'_>>)> = vec![
        ("a wall against example.com", Box::new(after_login_behind_a_wall(400, "Bad request"))),
        ("one that says error", Box::new(after_login_behind_a_wall(406, "error: invalid input"))),
        ("one that redirects", {
            let wall = |uri: &str, _: &str| {
                to(if uri.contains("example.com") { "/denied" } else { "/login" })
            };
            Box::new(wall)
        }),
        (
            "a captcha of no known make",
            Box::new(registered(
                &[OLD, NEW],
                |_, _| page(200, "<p>Sign in</p>"),
                move |_, _| page(200, human),
            )),
        ),
        (
            "an error whatever the callback",
            Box::new(registered(
                &[OLD, NEW],
                |_, _| page(400, "the scope is missing"),
                |_, _| page(400, "the redirect is missing"),
            )),
        ),
        (
            "an error page whatever the callback",
            Box::new(registered(
                &[OLD, NEW],
                |_, _| to("/error?error=invalid_scope"),
                |_, _| to("/error?error=invalid_request"),
            )),
        ),
        (
            "another greeting for bogus hosts, and a limit on the length of paths",
            Box::new(|uri, _| {
                if uri == PATH {
                    page(400, "too long")
                } else if uri == HOST {
                    page(200, "<p>Good morning</p>")
                } else {
                    page(200, "<p>Sign in</p>")
                }
            }),
        ),
        (
            "the same with paths and hosts exchanged",
            Box::new(|uri, _| {
                if uri == HOST {
                    page(400, "blocked")
                } else if uri == PATH {
                    page(200, "<p>Good morning</p>")
                } else {
                    page(200, "<p>Sign in</p>")
                }
            }),
        ),
        (
            "names the path after the callback's",
            Box::new(|uri, _| {
                let slug = uri.rsplit('/').next().unwrap_or_default();
                to(&format!("/login/for-{slug}"))
            }),
        ),
    ];
    none_passes(cases);
}

#[test]
fn what_redirects_or_takes_turns_is_no_registration() {
    let cases: Vec<(&str, Box<Hostile<'_>>)> = vec![
        (
            "redirects to anything, and says that it does not know it",
            Box::new(|uri, _| to(&format!("{uri}?error=redirect_uri_mismatch"))),
        ),
        (
            "redirects to anything before it has looked",
            Box::new(|uri, _| to(&format!("{uri}?error=invalid_scope&state=1"))),
        ),
        ("the same behind #", Box::new(|uri, _| to(&format!("{uri}#error=invalid_scope&state=1")))),
        (
            "the same, with a wall against example.com",
            Box::new(|uri, _| {
                if uri.contains("example.com") {
                    page(400, "Bad request")
                } else {
                    to(&format!("{uri}?error=invalid_scope"))
                }
            }),
        ),
        (
            "redirects to the new one only to say that it does not know it",
            Box::new(registered(
                &[NEW],
                |uri, _| to(&format!("{uri}?error=redirect_uri_mismatch")),
                |_, _| page(400, "no"),
            )),
        ),
        ("by turns another login", Box::new(counted(|n, _| to(["/login", "/v2/login"][n % 2])))),
        (
            "by turns an error",
            Box::new(counted(|n, _| {
                page(200, ["<p>Sign in</p>", "<p>The redirect is invalid</p>"][n % 2])
            })),
        ),
        (
            "by turns one of three",
            Box::new(counted(|n, _| to(["/login", "/v2/login", "/v3/login"][n % 3]))),
        ),
        (
            "two of three by turns are the same",
            Box::new(counted(|n, _| to(["/login", "/error", "/login"][n % 3]))),
        ),
        (
            "a meta refresh for all",
            Box::new(|uri, _| {
                page(200, &format!("<meta http-equiv=refresh content='0;url={uri}?error=x'>"))
            }),
        ),
        (
            "a script goes on to anything",
            Box::new(|uri, _| page(200, &format!("<script>location.href='{uri}'</script>"))),
        ),
        ("empty pages", Box::new(|_, _| page(200, ""))),
        (
            "JSON that names the host in capitals",
            Box::new(|uri, _| page(200, &format!("{{\"for\":\"{}\"}}", uri.to_uppercase()))),
        ),
    ];
    none_passes(cases);
}

fn none_passes(cases: Vec<(&str, Box<Hostile<'_>>)>) {
    let told: Vec<_> = cases
        .into_iter()
        .filter_map(|(name, provider)| {
            let (state, evidence) = ruling("anything", provider);
            is_pass(state).then(|| format!("{name}: {state:?} {evidence}"))
        })
        .collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// A provider that looks after the login, and draws one of two login pages by lot: every draw.
#[test]
fn lots_are_hardly_ever_taken_for_an_answer() {
    let mut wrong = 0;
    for draw in 0..256_u32 {
        let lots = counted(|n, _| to(["/login", "/v2/login"][usize::from(draw >> n & 1 == 1)]));
        let (state, _) = ruling("anything", lots);
        wrong += u32::from(is_pass(state));
    }
    // Only where each of eight answers is as it would be.
    assert!(wrong <= 2, "{wrong} of 256");
}

/// Whatever a limit on requests answers, and from whichever question on.
#[test]
fn a_limit_on_requests_is_neither_good_nor_bad() {
    let busy: [(&str, Limit); 5] = [
        ("429", || page(429, "")),
        ("302", || to("/busy")),
        ("200", || page(200, "<p>An error: too many requests</p>")),
        ("400", || page(400, "rate_limit_exceeded")),
        ("another server", || to("https://queue.example/")),
    ];
    let mut told = Vec::new();
    for (name, busy) in busy {
        for from in 0..8 {
            let undecidable = counted(|n, _| if n >= from { busy() } else { page(200, LOGIN) });
            let (state, evidence) = ruling("anything", undecidable);
            if is_pass(state) || state == State::NotRegistered {
                told.push(format!("{name} from {from}: {state:?} {evidence}"));
            }
            for (known, wrong) in
                [(&[OLD, NEW][..], State::NotRegistered), (&[OLD], State::Registered)]
            {
                let provider = counted(|n, uri| {
                    if n >= from {
                        busy()
                    } else if known.contains(&uri) {
                        page(200, LOGIN)
                    } else {
                        page(400, "Invalid redirect URI")
                    }
                });
                let (state, evidence) = ruling("anything", provider);
                if state == wrong {
                    told.push(format!("{name} from {from}, {known:?}: {state:?} {evidence}"));
                }
            }
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn a_page_with_all_messages_is_no_refusal() {
    let all = "<script>{\"a\":\"Invalid redirect URI\",\"b\":\"Unknown\"}</script>";
    let cut = |answer: Said| answer.map(|answer| Answer { whole: false, ..answer });
    let cases: Vec<(&str, Box<Hostile<'_>>)> = vec![
        ("200", Box::new(move |_, _| page(200, all))),
        ("404 of an app in the browser", Box::new(move |_, _| page(404, all))),
        ("401 of an app in the browser", Box::new(move |_, _| page(401, all))),
        (
            "the old one's was not read to its end",
            Box::new(registered(
                &[OLD],
                move |_, _| cut(page(200, "<script>{\"a\":\"Inval")),
                move |_, _| page(200, all),
            )),
        ),
        (
            "now and then",
            Box::new(counted(move |n, _| page(200, if n == 0 || n > 3 { LOGIN } else { all }))),
        ),
    ];
    for (name, provider) in cases {
        let (state, evidence) = ruling("anything", provider);
        assert!(
            !matches!(state, State::NotRegistered | State::Registered | State::PrefixMatch),
            "{name}: {state:?} {evidence}"
        );
    }
}

/// Reported, though with less certainty; nothing is known beforehand but a phrase.
fn shapes_of_less_certainty() -> Vec<(&'static str, Shaped)> {
    let entra = |text: &str| format!("<title>Sign in</title><script>$Config={{{text}}};</script>");
    let mut all: Vec<(&str, Shaped)> = vec![
        // The page is the same but for its configuration.
        (
            "microsoft",
            Box::new(move |known, uri, state| {
                page(
                    200,
                    &if known.contains(&uri) {
                        entra(&format!("\"sCtx\":\"{state}\",\"urlPost\":\"/acme/login\""))
                    } else {
                        entra(&format!(
                            "\"strServiceExceptionMessage\":\"AADSTS50011: The redirect URI '{uri}' specified in the request does not match\""
                        ))
                    },
                )
            }),
        ),
        // As it was: to the callback that is registered, whichever was asked with.
        (
            "github",
            Box::new(|known, uri, state| {
                let default = known.first().copied().unwrap_or("https://other.example/");
                to(&if known.contains(&uri) {
                    format!("/login?return_to=%2Flogin%2Foauth%3Fredirect_uri%3D{uri}")
                } else {
                    format!("{default}?error=redirect_uri_mismatch&state={state}")
                })
            }),
        ),
        // As it is.
        (
            "github-app",
            Box::new(|known, uri, _| {
                if known.contains(&uri) {
                    to("/login?client_id=1")
                } else {
                    page(
                        200,
                        "<p>Be careful! The redirect_uri is not associated with this application.</p>",
                    )
                }
            }),
        ),
        (
            "anything",
            Box::new(|known, uri, _| {
                if known.contains(&uri) {
                    answer(200, &[("content-type", "text/html")], LOGIN)
                } else {
                    answer(
                        200,
                        &[("content-type", "application/json")],
                        &format!("{{\"error\":\"invalid_redirect_uri\",\"uri\":\"{uri}\"}}"),
                    )
                }
            }),
        ),
    ];
    // Of these the phrase alone is known, and of all but the first not whether it comes before the
    // login.
    for (template, phrase) in [
        ("asana", "does not match a valid url for the application"),
        ("slack", "did not match any configured URIs"),
        ("linkedin", "does not match the registered value"),
        ("dropbox", "must exactly match one of"),
        ("salesforce", "must match configuration"),
    ] {
        let shaped = move |known: &[&str], uri: &str, _: &str| {
            if known.contains(&uri) {
                to("/login?u=1")
            } else {
                page(400, &format!("<p>{uri} {phrase}.</p>"))
            }
        };
        all.push((template, Box::new(shaped)));
    }
    all
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

/// What is left out of an answer must not depend on what was asked: else the same answer to the new
/// callback and to a bogus path, which holds the path of the former, looks like two.
#[test]
fn the_same_answer_to_a_control_is_no_registration() {
    let alike: [Said; 3] = [
        to("https://sso.example/oauth/callback/start"),
        page(200, "<p>Sign in. Callback: /oauth/callback</p>"),
        page(200, "Go on to auth.example.org"),
    ];
    for said in alike {
        let (state, evidence) =
            ruling(
                "anything",
                |uri, _| {
                    if uri == HOST { page(400, "what is this") } else { said.clone() }
                },
            );
        assert_ne!(state, State::Registered, "{said:?}: {evidence}");
    }
}

/// Any answer of a small world, so that likeness and unlikeness are both frequent.
fn any_shape() -> impl Strategy<Value = Said> {
    let odd = prop::sample::select(vec![401, 403, 404, 429, 500, 503]);
    let status = prop_oneof![6 => Just(200_u16), 4 => Just(302), 3 => Just(400), 2 => odd];
    let body = prop::sample::select(vec![
        "",
        "sign in",
        "sign in please",
        "invalid redirect_uri",
        "error: redirect_uri_mismatch",
        "unknown client",
        "just a moment...",
        "good morning",
        "the redirect is wrong",
    ]);
    let location = prop::sample::select(vec![
        "",
        "/login",
        "/error?error=invalid_request",
        "bounce",
        "https://api.nango.dev/oauth/callback?error=x",
    ]);
    let location = prop_oneof![2 => Just(""), 3 => location];
    (status, body, location, prop::bool::weighted(0.9), prop::bool::weighted(0.02)).prop_map(
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
    let asked = Asked { redirect_uri: uri, all: ALL, state: "-", url: "https://p.example/auth" };
    Shape::of(&said, asked, &[], None)
}

/// One run of the rule.
#[derive(Debug)]
struct Run {
    state: State,
    asked: Vec<(Question, Shape)>,
}

impl Run {
    /// Over answers to old, host, new and path; the second time the same, but for those given.
    fn of(answers: &[Said; 4], again: &[Option<Said>; 4]) -> Self {
        let mut probes = Probes::default();
        let mut asked: Vec<(Question, Shape)> = Vec::new();
        loop {
            match judge(&probes) {
                Ruling::Is(state, _) => return Self { state, asked },
                Ruling::Ask(question) => {
                    let place = question as usize;
                    let second = asked.iter().any(|(before, _)| *before == question);
                    let said = again[place].as_ref().filter(|_| second).unwrap_or(&answers[place]);
                    let shape = shape(said, uri(question));
                    asked.push((question, shape.clone()));
                    probes.take(question, shape);
                }
            }
        }
    }

    /// Old, host, new and path, from the so many-th question on.
    fn spoken(&self, from: usize) -> [Option<&Spoken>; 4] {
        [Question::Old, Question::Host, Question::New, Question::Path].map(|question| {
            let mut asked = self.asked.iter().skip(from).take(4);
            asked.find(|(asked, _)| *asked == question).and_then(|(_, shape)| match shape {
                Shape::Answer(spoken) => Some(spoken),
                Shape::Silent(_) => None,
            })
        })
    }
}

/// Answers to old, host, new and path, and to each once more: drawn from three, so that likeness is
/// as frequent as unlikeness, and the second time mostly what they were the first.
fn any_run() -> impl Strategy<Value = Run> {
    let second = prop::option::weighted(0.1, 0..3_usize);
    (
        prop::array::uniform3(any_shape()),
        prop::array::uniform4(0..3_usize),
        prop::array::uniform4(second),
    )
        .prop_map(|(answers, picks, again)| {
            let first = picks.map(|pick| answers[pick].clone());
            Run::of(&first, &again.map(|pick| pick.map(|pick| answers[pick].clone())))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6_000))]

    /// Whatever is answered: where a control misbehaves, nothing is registered.
    #[test]
    fn no_pass_while_a_control_misbehaves(run in any_run()) {
        prop_assert!(run.asked.len() <= MOST_QUESTIONS);
        if run.state == State::Registered {
            let [Some(old), Some(host), Some(new), Some(path)] = run.spoken(0) else {
                return Err(TestCaseError::fail("a question without an answer"));
            };
            // Neither control was redirected, neither was answered as the new callback was.
            prop_assert!(!path.bounced && !host.bounced);
            prop_assert!(new != path && new != host);
            prop_assert!(!new.says.mismatch);
            if !new.bounced {
                prop_assert!(!new.refuses());
                // Somebody says that a bogus one is bogus, or the good one is a reference.
                prop_assert!(
                    new.leads_as(old) || [old, host, path].iter().all(|it| it.says.mismatch)
                );
                prop_assert!(!path.leads_as(new) || path.is_told_beside(new));
                prop_assert!(!host.leads_as(new) || host.is_told_beside(new));
                // And all of it twice.
                let [Some(old_again), Some(host_again), Some(new_again), Some(path_again)] =
                    run.spoken(4)
                else {
                    return Err(TestCaseError::fail("not confirmed"));
                };
                for (first, again) in
                    [(old, old_again), (host, host_again), (new, new_again), (path, path_again)]
                {
                    prop_assert!(first.leads_as(again) && first.says == again.says);
                }
            }
        }
    }

    /// Whatever is answered: a callback is unknown only where the provider told it apart from
    /// the old one, or said so.
    #[test]
    fn no_failure_without_a_difference(run in any_run()) {
        if run.state == State::NotRegistered {
            let [Some(old), Some(host), Some(new), Some(_)] = run.spoken(0) else {
                return Err(TestCaseError::fail("a question without an answer"));
            };
            prop_assert!(!new.bounced && !host.bounced);
            prop_assert!(new.says.mismatch || new.leads_as(host));
            if !new.says.mismatch {
                prop_assert!(!old.leads_as(new) || new.is_told_beside(old));
            }
            if !(new.says.mismatch && host.says.mismatch && new.is_outright()) {
                prop_assert_eq!(run.asked.len(), MOST_QUESTIONS);
            }
        }
    }

    /// Four equal answers never tell anything good.
    #[test]
    fn no_pass_on_the_absence_of_an_error(said in any_shape()) {
        let run = Run::of(&std::array::from_fn(|_| said.clone()), &std::array::from_fn(|_| None));
        prop_assert!(!matches!(run.state, State::Registered | State::PrefixMatch));
    }
}
