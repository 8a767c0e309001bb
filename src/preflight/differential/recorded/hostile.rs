//! Replies by chance, for another reason, or intended to mislead never result in `registered`.

use super::{
    HOST, LIVE, LOGIN, MAX_PROBES, NEW, OLD, PATH, ReplyResult, page, registered, response,
    state_of, to,
};
use crate::outbound::{Fault, Reason, Response, Step};
use crate::preflight::differential::rule::State;

type Limit = fn() -> ReplyResult;

type Hostile<'a> = dyn Fn(&str, &str) -> ReplyResult + 'a;

#[test]
fn hostile_replies_never_result_in_registered() {
    let login = "<title>Sign in</title><input type=\"password\">";
    let fault = || Err(Fault::new(Step::Head, Reason::Timeout, "nothing within 10000 ms"));
    let cases: Vec<(&str, Box<Hostile<'_>>)> = vec![
        ("compares after login", Box::new(|_, _| page(200, login))),
        (
            "429 in between",
            Box::new(registered(&[OLD], |_, _| page(200, login), |_, _| page(429, ""))),
        ),
        (
            "a captcha for unregistered hosts",
            Box::new(registered(
                &[OLD, NEW],
                |_, _| page(200, login),
                |_, _| page(200, "Just a moment... challenge-platform"),
            )),
        ),
        (
            "redirects unregistered ones to a captcha",
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
                |_, _| page(200, "word word").map(|response| Response { whole: false, ..response }),
            )),
        ),
        (
            "compressed without being requested",
            Box::new(|uri, _| response(200, &[("content-encoding", "br")], uri)),
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
        let (state, evidence) = state_of("anything", provider);
        assert!(!is_pass(state), "{name}: {state:?} {evidence}");
    }
}

/// States with which someone switches.
pub(super) fn is_pass(state: State) -> bool {
    matches!(
        state,
        State::Registered
            | State::DomainRegistered
            | State::PrefixMatch { proved: true }
            | State::Unenforced
    )
}

/// Counts the probes, from 0.
fn counted(reply: impl Fn(usize, &str) -> ReplyResult) -> impl Fn(&str, &str) -> ReplyResult {
    let count = std::cell::Cell::new(0);
    move |uri, _| {
        count.set(count.get() + 1);
        reply(count.get() - 1, uri)
    }
}

#[test]
fn replies_that_differ_for_another_reason_never_result_in_registered() {
    let human = "<p>Are you human?</p><div data-callback=\"go\" data-error-callback=\"no\"></div>";
    let after_login_with_firewall = |status, body: &'static str| {
        move |uri: &str, _: &str| {
            if uri.contains("example.com") { page(status, body) } else { page(200, LOGIN) }
        }
    };
    let cases: Vec<(&str, Box<Hostile<'_>>)> = vec![
        ("a firewall against example.com", Box::new(after_login_with_firewall(400, "Bad request"))),
        (
            "one with an error page",
            Box::new(after_login_with_firewall(406, "error: invalid input")),
        ),
        ("one that redirects", {
            let wall = |uri: &str, _: &str| {
                to(if uri.contains("example.com") { "/denied" } else { "/login" })
            };
            Box::new(wall)
        }),
        (
            "an unknown kind of captcha",
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
            "another greeting for unregistered hosts, and a limit on the length of paths",
            Box::new(|uri, _| {
                if uri == PATH || uri == LIVE {
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
                } else if uri == PATH || uri == LIVE {
                    page(200, "<p>Good morning</p>")
                } else {
                    page(200, "<p>Sign in</p>")
                }
            }),
        ),
        (
            "a redirect to a path that depends on the callback",
            Box::new(|uri, _| {
                let slug = uri.rsplit('/').next().unwrap_or_default();
                to(&format!("/login/for-{slug}"))
            }),
        ),
    ];
    assert_none_passes(cases);
}

#[test]
fn redirects_and_rotations_never_result_in_registered() {
    let cases: Vec<(&str, Box<Hostile<'_>>)> = vec![
        (
            "redirects to anything with the error that it is not registered",
            Box::new(|uri, _| to(&format!("{uri}?error=redirect_uri_mismatch"))),
        ),
        (
            "redirects to anything before it compares",
            Box::new(|uri, _| to(&format!("{uri}?error=invalid_scope&state=1"))),
        ),
        (
            "the same in the fragment",
            Box::new(|uri, _| to(&format!("{uri}#error=invalid_scope&state=1"))),
        ),
        (
            "the same, with a firewall against example.com",
            Box::new(|uri, _| {
                if uri.contains("example.com") {
                    page(400, "Bad request")
                } else {
                    to(&format!("{uri}?error=invalid_scope"))
                }
            }),
        ),
        (
            "redirects to the new one only with the error that it is not registered",
            Box::new(registered(
                &[NEW],
                |uri, _| to(&format!("{uri}?error=redirect_uri_mismatch")),
                |_, _| page(400, "no"),
            )),
        ),
        ("two logins in rotation", Box::new(counted(|n, _| to(["/login", "/v2/login"][n % 2])))),
        (
            "a login and an error in rotation",
            Box::new(counted(|n, _| {
                page(200, ["<p>Sign in</p>", "<p>The redirect is invalid</p>"][n % 2])
            })),
        ),
        (
            "three logins in rotation",
            Box::new(counted(|n, _| to(["/login", "/v2/login", "/v3/login"][n % 3]))),
        ),
        (
            "three in rotation, two of them identical",
            Box::new(counted(|n, _| to(["/login", "/error", "/login"][n % 3]))),
        ),
        (
            "a meta refresh for all",
            Box::new(|uri, _| {
                page(200, &format!("<meta http-equiv=refresh content='0;url={uri}?error=x'>"))
            }),
        ),
        (
            "a script redirects to anything",
            Box::new(|uri, _| page(200, &format!("<script>location.href='{uri}'</script>"))),
        ),
        ("empty pages", Box::new(|_, _| page(200, ""))),
        (
            "JSON that contains the host in capitals",
            Box::new(|uri, _| page(200, &format!("{{\"for\":\"{}\"}}", uri.to_uppercase()))),
        ),
    ];
    assert_none_passes(cases);
}

fn assert_none_passes(cases: Vec<(&str, Box<Hostile<'_>>)>) {
    let wrong: Vec<_> = cases
        .into_iter()
        .filter_map(|(name, provider)| {
            let (state, evidence) = state_of("anything", provider);
            is_pass(state).then(|| format!("{name}: {state:?} {evidence}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Two replies that repeat after up to ten probes, in all sequences: servers in rotation, some with the
/// registration and some without; limiters that let one in N pass.
#[test]
fn no_cycle_of_replies_results_in_a_state() {
    let mut cycles = 0;
    for period in 2..=10 {
        for sequence in 1..(1_u32 << period) - 1 {
            let refused = || page(403, "no");
            let cycle = counted(|n, _| {
                if sequence >> (n % period) & 1 == 1 { page(200, LOGIN) } else { refused() }
            });
            let (state, evidence) = state_of("anything", cycle);
            assert!(!is_pass(state) && state != State::NotRegistered, "{sequence:b} {evidence}");
            cycles += 1;
        }
    }
    assert_eq!(cycles, 2026);
}

/// A registration that has reached half of the servers, which are used in rotation.
#[test]
fn a_registration_in_progress_is_neither_registered_nor_not() {
    for (servers, knowing) in [(2, 1), (3, 1), (3, 2), (4, 2), (5, 1), (5, 4)] {
        for first in 0..servers {
            let provider = counted(|n, uri| {
                let knows = (n + first) % servers < knowing;
                if uri == OLD || uri == NEW && knows { page(200, LOGIN) } else { page(400, "no") }
            });
            let (state, evidence) = state_of("anything", provider);
            assert_eq!(state, State::Inconclusive, "{knowing} of {servers}: {evidence}");
        }
    }
}

/// Two replies at random, in all sequences of the first twelve.
#[test]
fn random_replies_rarely_result_in_a_state() {
    let (mut passes, mut failures) = (0, 0);
    for draw in 0..4096_u32 {
        let random =
            counted(|n, _| if draw >> n & 1 == 1 { page(200, LOGIN) } else { page(400, "no") });
        let (state, _) = state_of("anything", random);
        passes += u32::from(is_pass(state));
        failures += u32::from(state == State::NotRegistered);
    }
    // Only those in which each of the twelve replies is as expected.
    assert_eq!((passes, failures), (2, 1));
}

/// Replies that partner programs, reviews of sites and limiters give for another reason.
#[test]
fn a_difference_without_a_refusal_is_not_a_rejection() {
    let cases: [(&str, Box<Hostile<'_>>); 4] = [
        ("a login in the brand of a partner", {
            let branded = |_: &str, _: &str| page(200, "<h1>Acme</h1><input type=password>");
            Box::new(registered(&[OLD], branded, |_, _| page(200, LOGIN)))
        }),
        ("a redirect to a login of a partner", {
            let branded = |_: &str, _: &str| to("https://acme.example/login");
            Box::new(registered(&[OLD], branded, |_, _| to("/login")))
        }),
        ("a warning for unreviewed sites", {
            let warn = |_: &str, _: &str| page(200, "<h1>This site was not reviewed</h1>");
            Box::new(registered(&[OLD], |_, _| page(200, LOGIN), warn))
        }),
        ("a page with an error for unreviewed sites", {
            let warn = |_: &str, _: &str| page(200, "<h1>An error: not reviewed</h1>");
            Box::new(registered(&[OLD], |_, _| page(200, LOGIN), warn))
        }),
    ];
    for (name, provider) in cases {
        let (state, evidence) = state_of("anything", provider);
        assert_eq!(state, State::Inconclusive, "{name}: {evidence}");
    }
}

/// Whatever the reply is, and from whichever probe on.
#[test]
fn a_limit_on_requests_never_results_in_a_state() {
    let limited: [(&str, Limit); 5] = [
        ("429", || page(429, "")),
        ("302", || to("/busy")),
        ("200", || page(200, "<p>An error: too many requests</p>")),
        ("400", || page(400, "rate_limit_exceeded")),
        ("another server", || to("https://queue.example/")),
    ];
    let mut failures = Vec::new();
    for (name, limited) in limited {
        for from in 0..MAX_PROBES {
            let undecidable = counted(|n, _| if n >= from { limited() } else { page(200, LOGIN) });
            let (state, evidence) = state_of("anything", undecidable);
            if is_pass(state) || state == State::NotRegistered {
                failures.push(format!("{name} from {from}: {state:?} {evidence}"));
            }
            for (known, wrong) in
                [(&[OLD, NEW][..], State::NotRegistered), (&[OLD], State::Registered)]
            {
                let provider = counted(|n, uri| {
                    if n >= from {
                        limited()
                    } else if known.contains(&uri) {
                        page(200, LOGIN)
                    } else {
                        page(400, "Invalid redirect URI")
                    }
                });
                let (state, evidence) = state_of("anything", provider);
                if state == wrong {
                    failures.push(format!("{name} from {from}, {known:?}: {state:?} {evidence}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_page_with_all_messages_is_not_a_rejection() {
    let all = "<script>{\"a\":\"Invalid redirect URI\",\"b\":\"Unknown\"}</script>";
    let cut =
        |response: ReplyResult| response.map(|response| Response { whole: false, ..response });
    let cases: Vec<(&str, Box<Hostile<'_>>)> = vec![
        ("200", Box::new(move |_, _| page(200, all))),
        ("404 of a single-page app", Box::new(move |_, _| page(404, all))),
        ("401 of a single-page app", Box::new(move |_, _| page(401, all))),
        (
            "the page for the old one is incomplete",
            Box::new(registered(
                &[OLD],
                move |_, _| cut(page(200, "<script>{\"a\":\"Inval")),
                move |_, _| page(200, all),
            )),
        ),
        (
            "in some replies",
            Box::new(counted(move |n, _| page(200, if n == 0 || n > 3 { LOGIN } else { all }))),
        ),
    ];
    for (name, provider) in cases {
        let (state, evidence) = state_of("anything", provider);
        assert!(state != State::NotRegistered && !is_pass(state), "{name}: {state:?} {evidence}");
    }
}

/// What is removed from a reply must not depend on the URI that was sent: otherwise identical
/// replies that contain the path of the new callback would differ between it and a control.
#[test]
fn the_same_reply_to_a_control_never_results_in_registered() {
    let replies: [ReplyResult; 3] = [
        to("https://sso.example/oauth/callback/start"),
        page(200, "<p>Sign in. Callback: /oauth/callback</p>"),
        page(200, "Go on to auth.example.org"),
    ];
    for reply in replies {
        let (state, evidence) = state_of("anything", |uri, _| {
            if uri == HOST { page(400, "what is this") } else { reply.clone() }
        });
        assert_ne!(state, State::Registered, "{reply:?}: {evidence}");
    }
}
