//! Tests of the rule over complete replies: those of providers, as reported in public, hostile ones,
//! and random ones. The pages are written for the tests, in the recorded shapes.

mod hostile;
mod properties;
mod replies;

use super::provider::Provider;
use super::rule::{Decision, Facts, Probe, Rounds, SCHEDULE, State, judge};
use super::shape::{Sent, Shape};
use super::text::Spellings;
use super::{Callbacks, Controls};
use crate::outbound::{Fault, Protocol, Response};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use replies::{ReplyFn, shapes, uncertain_shapes};
use std::sync::LazyLock;
use std::time::Duration;

const OLD: &str = "https://api.nango.dev/oauth/callback";
const NEW: &str = "https://auth.example.org/oauth/callback";
/// The controls of them.
const PATH: &str = "https://auth.example.org/oauth/overview";
const LIVE: &str = "https://auth.example.org/app-auth/connect";
const HOST: &str = "https://news.example.com/oauth/callback";
const OLD_PATH: &str = "https://api.nango.dev/oauth/overview";

static SPELLINGS: LazyLock<Spellings> =
    LazyLock::new(|| Spellings::of(&[OLD, NEW, PATH, LIVE, HOST, OLD_PATH]));

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

/// Sends the probes of the rule to `provider`, which does not compare the client id. The nonce differs
/// each time.
fn state_of(template: &str, provider: impl Fn(&str, &str) -> ReplyResult) -> (State, String) {
    let (state, evidence, _) = probed(template, |uri, state, _| provider(uri, state));
    (state, evidence)
}

/// The same, with a provider that gets whether the client id is random. Returns the number of probes
/// too.
fn probed(
    template: &str,
    provider: impl Fn(&str, &str, bool) -> ReplyResult,
) -> (State, String, usize) {
    let registers_domains = Provider::of(template).callbacks == Callbacks::Domain;
    let mut rounds = Rounds::new(Facts { has_client_id: true, registers_domains });
    for count in 0..=MAX_PROBES {
        match judge(&rounds) {
            Decision::Final(state, evidence) => return (state, evidence, count),
            Decision::Send(probe) => {
                let uri = uri(probe);
                let state = format!("{count:08x}-1111-4111-8111-{:012x}", count * 77_777);
                let reply = provider(uri, &state, probe == Probe::RandomClient);
                rounds.record(probe, shape(&reply, uri, &state));
            }
        }
    }
    panic!("more than {MAX_PROBES} probes")
}

fn shape(reply: &ReplyResult, redirect_uri: &str, state: &str) -> Shape {
    let url = "https://p.example/auth?a=b";
    Shape::of(reply, Sent { redirect_uri, spellings: &SPELLINGS, state, url })
}

const MAX_PROBES: usize = SCHEDULE.len() + 1;

fn uri(probe: Probe) -> &'static str {
    match probe {
        Probe::Old | Probe::RandomClient => OLD,
        Probe::UnregisteredHost => HOST,
        Probe::New => NEW,
        Probe::UnregisteredPath => PATH,
        Probe::LivePath => LIVE,
        Probe::OldHostPath => OLD_PATH,
    }
}

#[test]
fn the_tests_send_the_real_controls() {
    let Controls { path, live, host, old_path } = Controls::of(OLD, NEW).unwrap();
    assert_eq!([path, live, host, old_path], [PATH, LIVE, HOST, OLD_PATH]);
}

/// A provider that compares whole URIs, with a reply to registered and one to unregistered ones.
fn registered<'a>(
    known: &'a [&'a str],
    good: impl Fn(&str, &str) -> ReplyResult + 'a,
    bad: impl Fn(&str, &str) -> ReplyResult + 'a,
) -> impl Fn(&str, &str) -> ReplyResult + 'a {
    move |uri, state| {
        let is_known = known.contains(&uri) || uri == LIVE && known.contains(&PATH);
        if is_known { good(uri, state) } else { bad(uri, state) }
    }
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

#[test]
fn recorded_replies_result_in_the_right_state() {
    for (template, good, bad) in shapes() {
        for (known, expected) in [
            (&[OLD, NEW][..], State::Registered),
            (&[OLD], State::NotRegistered),
            (&[NEW], State::Registered),
            (&[OLD, NEW, PATH], State::PrefixMatch { proved: false }),
        ] {
            let (found, evidence) = state_of(template, registered(known, good, bad));
            // Xero responds only 500, which a firewall may send for an unusual host.
            let is_ambiguous = template == "xero" && known.contains(&PATH);
            let expected = if is_ambiguous { State::Inconclusive } else { expected };
            assert_eq!(found, expected, "{template} {known:?}: {evidence}");
            assert!(!evidence.contains("1111-4111"), "{evidence}");
        }
        let (found, evidence) = state_of(template, registered(&[], good, bad));
        let is_unavailable = template == "xero" && found == State::ClientRejected;
        assert!(is_unavailable || found == State::RefusedAll, "{template}: {found:?} {evidence}");
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
    let refuse = |_: &str, _: &str| page(400, "no");
    let error = |uri: &str, state: &str| to(&format!("{uri}?error=login_required&state={state}"));
    let code = |uri: &str, state: &str| to(&format!("{uri}?code=a1b2c3&state={state}"));
    let bare = |uri: &str, _: &str| to(uri);
    let unconfirmed = State::Inconclusive;
    for (known, by_code, by_error) in [
        (&[OLD, NEW][..], State::Registered, State::Registered),
        (&[OLD], State::NotRegistered, State::NotRegistered),
        (&[NEW], State::Registered, State::Registered),
        // Only an authorization proves that a control is accepted.
        (&[OLD, NEW, PATH], State::PrefixMatch { proved: true }, unconfirmed),
        (&[OLD, NEW, PATH, HOST], State::Unenforced, unconfirmed),
        (&[OLD, NEW, HOST], unconfirmed, unconfirmed),
        (&[HOST], unconfirmed, unconfirmed),
    ] {
        let (state, evidence) = state_of("anything", registered(known, code, refuse));
        assert_eq!(state, by_code, "{known:?} {evidence}");
        assert!(!evidence.contains("a1b2c3"), "{evidence}");
        let (state, evidence) = state_of("anything", registered(known, error, refuse));
        assert_eq!(state, by_error, "{known:?} {evidence}");
        let (state, evidence) = state_of("anything", registered(known, bare, refuse));
        assert_eq!(state, by_error, "{known:?} {evidence}");
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

/// Reply to unregistered callbacks; the state with only the new one registered, with only the old one,
/// and with none.
#[test]
fn a_refusal_decides_by_its_status_its_words_or_its_target() {
    let login = |_: &str, _: &str| page(200, LOGIN);
    let (yes, no) = (State::Registered, State::NotRegistered);
    let (open, all) = (State::Inconclusive, State::RefusedAll);
    let cases: [(&str, ReplyFn, State, State, State); 13] = [
        ("in words", |_, _| page(400, "Invalid redirect URI"), yes, no, all),
        ("a code", |_, _| to("/error?error=redirect_uri_mismatch"), yes, no, all),
        ("a page in words", |_, _| page(200, "redirect_uri is not registered"), yes, no, all),
        (
            "quoted words",
            |_, _| page(200, "<p>The <code>`redirect_uri`</code> is not <b>registered</b>"),
            yes,
            no,
            all,
        ),
        ("an error without words", |_, _| page(400, "Bad request"), yes, no, all),
        ("a missing page", |_, _| page(404, "not found"), yes, no, all),
        ("an error page", |_, _| to("/oauth/error?id=7"), yes, no, all),
        // An outage when all get it.
        ("403", |_, _| page(403, "Forbidden"), yes, no, open),
        ("500", |_, _| page(500, "oops"), yes, no, open),
        // Not a refusal by itself.
        ("another page", |_, _| to("/oops"), open, open, State::Undecidable),
        ("an error value", |_, _| to("/login?view=error"), yes, no, State::Undecidable),
        ("another language", |_, _| page(200, "<p>エラーが発生しました"), yes, open, all),
        ("an interstitial", |_, _| page(200, "<p>Unreviewed site"), open, open, State::Undecidable),
    ];
    for (name, bad, only_new, only_old, none) in cases {
        for (known, expected) in [
            (&[NEW][..], only_new),
            (&[OLD], only_old),
            (&[], none),
            (&[OLD, NEW], if name == "an interstitial" { open } else { yes }),
        ] {
            let (state, evidence) = state_of("anything", registered(known, login, bad));
            assert_eq!(state, expected, "{name} {known:?}: {evidence}");
        }
        // The new one gets another error than the unregistered ones.
        for odd in [page(409, "no"), to("/error?error=x"), page(200, "<p>An error happened</p>")] {
            let (state, evidence) =
                state_of("anything", registered(&[NEW], |_, _| odd.clone(), bad));
            assert_ne!(state, State::Registered, "{name}: {evidence}");
        }
    }
}

/// Each differs from a state in one reply.
#[test]
fn a_state_needs_every_part_of_its_evidence() {
    let login = || page(200, LOGIN);
    let mismatch = || page(400, "invalid redirect_uri");
    let bad = || page(400, "bad request");
    let code = |uri: &str| to(&format!("{uri}?code=a1b2c3"));
    let error = |uri: &str| to(&format!("{uri}?error=login_required"));
    let cut = |reply: ReplyResult| reply.map(|it| Response { whole: false, ..it });
    // The replies to the current callback, the new one, another path and another host.
    let cases: [(&str, [ReplyResult; 4]); 17] = [
        ("a host gets a login", [code(OLD), code(NEW), code(PATH), login()]),
        ("a path gets an error", [error(OLD), error(NEW), error(PATH), mismatch()]),
        ("a host gets an error", [error(OLD), error(NEW), mismatch(), error(HOST)]),
        ("all lead to the current one", std::array::from_fn(|_| to(&format!("{OLD}?error=x")))),
        ("two kinds of refusal", [login(), login(), page(414, "too long"), bad()]),
        ("an outage for the current one", [page(503, ""), login(), bad(), bad()]),
        ("a page that is no login", [login(), page(200, "hello"), bad(), bad()]),
        ("a page without words against it", [bad(), page(200, "hello"), bad(), bad()]),
        ("an incomplete page", [mismatch(), cut(page(200, "hello")), mismatch(), mismatch()]),
        ("another error", [page(409, "x"), page(409, "x"), mismatch(), mismatch()]),
        ("the new one is refused otherwise", [login(), page(404, ""), bad(), bad()]),
        (
            "the app is refused, and not for the current one",
            [
                bad(),
                page(400, "unknown client"),
                page(400, "unknown client"),
                page(400, "unknown client"),
            ],
        ),
        (
            "the app is refused for the new one only",
            [login(), page(400, "unknown client"), bad(), bad()],
        ),
        ("a path is refused like the new one", [login(), page(404, ""), page(404, ""), mismatch()]),
        ("a path leads elsewhere", [login(), login(), to("/oops"), mismatch()]),
        ("refused, and others elsewhere", [bad(), bad(), to("/oops"), to("/oops")]),
        ("two other targets", [login(), login(), to("/oops"), to("/other")]),
    ];
    for (name, [old, new, path, host]) in cases {
        let provider = |uri: &str, _: &str| match uri {
            OLD | OLD_PATH => old.clone(),
            NEW => new.clone(),
            // Each is redirected to itself.
            LIVE if name == "a path gets an error" => error(LIVE),
            LIVE if name == "a host gets a login" => code(LIVE),
            HOST => host.clone(),
            _ => path.clone(),
        };
        for template in ["anything", "strava"] {
            let (state, evidence) = state_of(template, provider);
            assert_eq!(state, State::Inconclusive, "{name}: {evidence}");
        }
    }
    let partner = |_: &str, _: &str| to("/partner/login");
    let known = registered(&[OLD, NEW], |_, _| to("/login"), partner);
    assert_eq!(state_of("anything", known).0, State::Inconclusive);
}

#[test]
fn without_a_client_id_identical_replies_prove_nothing() {
    for (reply, expected) in [
        (page(200, LOGIN), State::Inconclusive),
        (page(400, "bad request"), State::RefusedAll),
        (page(400, "unknown client"), State::RefusedAll),
    ] {
        let mut rounds = Rounds::new(Facts::default());
        let state = loop {
            match judge(&rounds) {
                Decision::Final(state, _) => break state,
                Decision::Send(probe) => {
                    assert_ne!(probe, Probe::RandomClient);
                    rounds.record(probe, shape(&reply, uri(probe), "-"));
                }
            }
        };
        assert_eq!(state, expected);
    }
}

#[test]
fn a_page_that_is_incomplete_later_is_a_change() {
    let count = std::cell::Cell::new(0);
    let (state, evidence) = state_of("anything", |uri, _| {
        count.set(count.get() + 1);
        let reply = if uri == OLD || uri == NEW { page(200, "hello") } else { page(400, "no") };
        reply.map(|reply| Response { whole: count.get() < 9, ..reply })
    });
    assert_eq!(state, State::Inconclusive, "{evidence}");
    assert!(evidence.contains("different replies"), "{evidence}");
}

/// In the first request, and in the others.
#[test]
fn pages_may_vary_in_words_that_are_not_about_errors() {
    let provider = |first: ReplyResult, later: ReplyResult| {
        let count = std::cell::Cell::new(0);
        move |uri: &str, _: &str| {
            count.set(count.get() + 1);
            if uri != OLD && uri != NEW {
                page(400, "no")
            } else if count.get() % 4 == 1 {
                first.clone()
            } else {
                later.clone()
            }
        }
    };
    let greeting = || page(200, "<p>Allow access. Good morning");
    let (state, evidence) =
        state_of("anything", provider(greeting(), page(200, "<p>Allow access. Good evening")));
    assert_eq!(state, State::Registered, "{evidence}");
    for other in [
        page(200, "<p>Allow access. Your callback"),
        greeting().map(|reply| Response { whole: false, ..reply }),
    ] {
        let (state, evidence) = state_of("anything", provider(greeting(), other));
        assert_eq!(state, State::Inconclusive, "{evidence}");
    }
}

#[test]
fn a_random_client_id_shows_what_is_compared_before_login() {
    let unknown_client = || page(400, "invalid_client");
    let login = || page(200, LOGIN);
    let cases = [
        // Reply to every callback, reply to a random client id.
        (login(), login(), State::Undecidable, "nothing before login"),
        (login(), unknown_client(), State::Undecidable, "the app before login"),
        (unknown_client(), unknown_client(), State::ClientRejected, "does not exist"),
        (page(401, "client disabled"), unknown_client(), State::ClientRejected, "does not exist"),
        (unknown_client(), login(), State::RefusedAll, "knows the app"),
        (page(400, "Bad request"), page(400, "Bad request"), State::RefusedAll, "likewise"),
        (page(400, "invalid redirect_uri"), unknown_client(), State::RefusedAll, "knows the app"),
        (to("/error"), unknown_client(), State::RefusedAll, "knows the app"),
        (page(503, ""), login(), State::Inconclusive, "403 or 5xx"),
        (login(), page(429, ""), State::Inconclusive, "a random client id"),
    ];
    for (reply, random, expected, words) in cases {
        let provider =
            |_: &str, _: &str, is_random| if is_random { random.clone() } else { reply.clone() };
        let (state, evidence, probes) = probed("anything", provider);
        assert_eq!(state, expected, "{evidence}");
        assert!(evidence.contains(words), "{evidence}");
        assert!(probes <= 5, "{evidence}");
    }
}

#[test]
fn a_control_on_the_old_host_shows_that_only_hosts_are_compared() {
    let refuse = |uri: &str| page(400, &format!("invalid redirect_uri {uri}"));
    for (known, words) in [
        (&[OLD, OLD_PATH, NEW, PATH][..], "only the host before login"),
        (&[OLD, NEW, PATH], "serves another path"),
    ] {
        let provider = registered(known, |_, _| page(200, LOGIN), |uri, _| refuse(uri));
        let (state, evidence) = state_of("anything", &provider);
        assert_eq!(state, State::PrefixMatch { proved: false }, "{evidence}");
        assert!(evidence.contains(words), "{evidence}");
        // Documented to register a domain alone.
        let (state, evidence) = state_of("strava", &provider);
        assert_eq!(state, State::DomainRegistered, "{evidence}");
    }
    let only_old = registered(&[OLD, OLD_PATH], |_, _| page(200, LOGIN), |uri, _| refuse(uri));
    assert_eq!(state_of("strava", only_old).0, State::NotRegistered);
    // A firewall against unusual hosts.
    let firewall = |uri: &str, _: &str| {
        if uri == HOST { page(403, "no") } else { page(200, LOGIN) }
    };
    assert_eq!(state_of("strava", firewall).0, State::Inconclusive);
}

/// The kinds of replies of seventeen servers, to registered and to unregistered callbacks.
#[test]
fn a_login_for_one_callback_and_refusals_for_the_others_decide() {
    let logins: [ReplyFn; 4] = [
        |_, _| to("https://p.example/accounts/login/?next=%2Fo%2Fauthorize"),
        |_, _| to("/#/sign-in?session=1"),
        |_, state| {
            to(&format!("/start?back=%2Fauth%3Fclient_id%3D1%26response_type%3Dcode&s={state}"))
        },
        |_, _| page(200, "<form><input name='username'><input type='password'>"),
    ];
    let refusals: [ReplyFn; 4] = [
        |_, _| page(403, ""),
        |_, _| page(500, "<h1>Internal Server Error</h1>"),
        |uri, _| page(400, &format!("{{\"error\":\"invalid_request\",\"uri\":\"{uri}\"}}")),
        |_, state| to(&format!("/oauth/error?rid={state}")),
    ];
    for login in logins {
        for refusal in refusals {
            for (known, expected) in [
                (&[OLD, NEW][..], State::Registered),
                (&[NEW], State::Registered),
                (&[OLD], State::NotRegistered),
            ] {
                let (state, evidence) = state_of("anything", registered(known, login, refusal));
                assert_eq!(state, expected, "{known:?}: {evidence}");
            }
        }
    }
}

/// The user has to log in only for callbacks that passed the comparison.
#[test]
fn a_bare_401_is_a_login_only_against_refusals_in_words() {
    let demand = |_: &str, _: &str| page(401, "Authentication required");
    let mismatch = |_: &str, _: &str| page(400, "invalid_client: `redirect_uri` does not match");
    let other = |_: &str, _: &str| page(400, "bad request");
    for (known, by_words, by_status) in [
        (&[OLD, NEW][..], State::Registered, State::Inconclusive),
        (&[OLD], State::Inconclusive, State::Inconclusive),
        (&[NEW], State::Inconclusive, State::Inconclusive),
        (&[OLD, NEW, PATH, HOST], State::RefusedAll, State::RefusedAll),
    ] {
        let (state, evidence) = state_of("anything", registered(known, demand, mismatch));
        assert_eq!(state, by_words, "{known:?}: {evidence}");
        let (state, evidence) = state_of("anything", registered(known, demand, other));
        assert_eq!(state, by_status, "{known:?}: {evidence}");
    }
}

#[test]
fn a_page_that_includes_the_script_of_a_captcha_is_not_a_bot_wall() {
    let scripts = "<script src=https://www.google.com/recaptcha/api.js></script>\
        <script src=/cdn-cgi/challenge-platform/scripts/jsd/main.js></script>";
    let app = |_: &str, _: &str| page(200, &format!("<p>Authorize</p>{scripts}"));
    let refuse = |_: &str, _: &str| page(400, "no such redirect_uri");
    let (state, evidence) = state_of("anything", registered(&[OLD, NEW], app, refuse));
    assert_eq!(state, State::Registered, "{evidence}");
    for wall in [
        response(403, &[("cf-mitigated", "challenge")], ""),
        page(200, "<title>Just a moment...</title>"),
        page(403, scripts),
        page(200, "<script>window._cf_chl_opt={}</script>"),
        to("/captcha?next=1"),
    ] {
        let bad = |_: &str, _: &str| wall.clone();
        let (state, evidence) = state_of("anything", registered(&[OLD, NEW], app, bad));
        assert_eq!(state, State::Inconclusive, "{evidence}");
        assert!(evidence.contains("captcha"), "{evidence}");
    }
}
