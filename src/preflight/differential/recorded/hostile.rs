//! What may be answered by chance, for another reason, or to mislead: never a pass.

use super::{HOST, LOGIN, NEW, OLD, PATH, Said, answer, page, registered, ruling, to};
use crate::outbound::{Answer, Fault, Reason, Step};
use crate::preflight::differential::rule::State;

type Limit = fn() -> Said;

type Hostile<'a> = dyn Fn(&str, &str) -> Said + 'a;

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

/// What no provider may be said to do that does it by chance, or for a reason of its own.
fn is_pass(state: State) -> bool {
    matches!(state, State::Registered | State::PrefixMatch | State::Unenforced)
}

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
