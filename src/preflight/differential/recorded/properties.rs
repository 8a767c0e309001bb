//! Properties of the rule over random replies.

use super::hostile::is_pass;
use super::{
    HOST, LIVE, LOGIN, MAX_PROBES, NEW, OLD, PATH, ReplyResult, page, probed, response, shape, to,
    uri,
};
use crate::outbound::{Fault, Reason, Response, Step};
use crate::preflight::differential::rule::{Decision, Facts, Probe, Rounds, State, judge};
use crate::preflight::differential::shape::{Bounce, Class, Reply, Shape};
use http::HeaderValue;
use proptest::prelude::*;

/// Any reply out of few, so that equal and different ones are both frequent.
fn any_reply() -> impl Strategy<Value = ReplyResult> {
    let odd = prop::sample::select(vec![401, 403, 404, 429, 500, 503]);
    let status = prop_oneof![6 => Just(200_u16), 4 => Just(302), 3 => Just(400), 2 => odd];
    let body = prop::sample::select(vec![
        "",
        "sign in",
        LOGIN,
        "invalid redirect_uri",
        "error: redirect_uri_mismatch",
        "unknown client",
        "just a moment...",
        "good morning",
        "the redirect is wrong",
        "<script>'invalid redirect_uri'</script>",
    ]);
    let location = prop::sample::select(vec![
        "",
        "/login",
        "/error?error=invalid_request",
        "bounce?code=1",
        "bounce?error=login_required",
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
            response(status, headers, body).map(|response| Response { whole, ..response })
        },
    )
}

fn sent_to(reply: &ReplyResult, uri: &str) -> ReplyResult {
    let mut reply = reply.clone();
    if let Ok(response) = &mut reply
        && let Some(location) = response.headers.get_mut("location")
        && let Some(query) = location.to_str().unwrap().strip_prefix("bounce")
    {
        *location = HeaderValue::from_str(&format!("{uri}{query}")).unwrap();
    }
    reply
}

/// One run of the rule.
#[derive(Debug)]
struct Run {
    state: State,
    sent: Vec<(Probe, Shape)>,
}

/// The probes as indexes of the replies.
const ROLES: [Probe; 6] = [
    Probe::Old,
    Probe::UnregisteredHost,
    Probe::New,
    Probe::UnregisteredPath,
    Probe::OldHostPath,
    Probe::RandomClient,
];

impl Run {
    /// Over replies to [`ROLES`]; from the second time on the same, except for those given.
    fn of(replies: &[ReplyResult; 6], again: &[Option<ReplyResult>; 6]) -> Self {
        let mut rounds = Rounds::new(Facts { has_client_id: true, registers_domains: false });
        let mut sent: Vec<(Probe, Shape)> = Vec::new();
        loop {
            match judge(&rounds) {
                Decision::Final(state, _) => return Self { state, sent },
                Decision::Send(probe) => {
                    let role =
                        if probe == Probe::LivePath { Probe::UnregisteredPath } else { probe };
                    let index = ROLES.iter().position(|it| *it == role).unwrap();
                    let second = sent.iter().any(|(before, _)| *before == role);
                    let reply = again[index].as_ref().filter(|_| second).unwrap_or(&replies[index]);
                    let shape = shape(&sent_to(reply, uri(probe)), uri(probe), "-");
                    sent.push((probe, shape.clone()));
                    rounds.record(probe, shape);
                }
            }
        }
    }

    /// All replies to old, host, new and path.
    fn replies(&self) -> [Vec<&Reply>; 4] {
        [Probe::Old, Probe::UnregisteredHost, Probe::New, Probe::UnregisteredPath].map(|role| {
            let of_role = self.sent.iter().filter(|(sent, _)| {
                *sent == role || *sent == Probe::LivePath && role == Probe::UnregisteredPath
            });
            let replies = of_role.filter_map(|(_, shape)| match shape {
                Shape::Reply(reply) => Some(reply),
                Shape::Unusable(_) => None,
            });
            replies.collect()
        })
    }
}

/// Replies from three, so that equal and different ones are both frequent, and mostly the same again.
fn any_run() -> impl Strategy<Value = Run> {
    let second = prop::option::weighted(0.1, 0..3_usize);
    (
        prop::array::uniform3(any_reply()),
        prop::array::uniform6(0..3_usize),
        prop::array::uniform6(second),
    )
        .prop_map(|(replies, picks, again)| {
            let first = picks.map(|pick| replies[pick].clone());
            Run::of(&first, &again.map(|pick| pick.map(|pick| replies[pick].clone())))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6_000))]

    #[test]
    fn registered_requires_an_acceptance_and_refused_controls(run in any_run()) {
        prop_assert!(run.sent.len() <= MAX_PROBES);
        if run.state == State::Registered {
            let [olds, hosts, news, paths] = run.replies();
            // The whole schedule, and no change.
            prop_assert_eq!([olds.len(), hosts.len(), news.len(), paths.len()], [3, 2, 5, 2]);
            for replies in [&olds, &hosts, &news, &paths] {
                prop_assert!(replies.iter().all(|it| it.is_like(replies[0])));
            }
            let (old, host, new, path) = (olds[0], hosts[0], news[0], paths[0]);
            let demands_login = new.status == 401 && new == old && host.explicit.mismatch;
            prop_assert!(new.is_served() || demands_login);
            for control in [host, path] {
                prop_assert!(!matches!(control.class, Class::Bounce(_) | Class::Login));
                prop_assert!(control != new);
                prop_assert!(
                    control.is_refused()
                        || !control.has_same_destination(new)
                        || control.has_more_error_words_than(new)
                );
            }
            // It is accepted by its own content, or like the old one.
            prop_assert!(
                matches!(new.class, Class::Bounce(_) | Class::Login)
                    || new.is_like(old)
                    || [old, host, path].iter().all(|it| it.explicit.mismatch)
            );
        }
    }

    #[test]
    fn not_registered_requires_a_refusal_and_an_accepted_old_one(run in any_run()) {
        if run.state == State::NotRegistered {
            let [olds, hosts, news, paths] = run.replies();
            prop_assert_eq!([olds.len(), hosts.len(), news.len(), paths.len()], [3, 2, 5, 2]);
            prop_assert!(olds.iter().all(|it| it.is_served()));
            prop_assert!(news.iter().chain(&hosts).chain(&paths).all(|it| it.is_refused()));
        }
    }

    #[test]
    fn accepted_controls_are_proved_by_an_authorization(run in any_run()) {
        if matches!(run.state, State::Unenforced | State::PrefixMatch { proved: true }) {
            let [_, hosts, news, paths] = run.replies();
            let success = |it: &&Reply| it.class == Class::Bounce(Bounce::Success);
            prop_assert!(news.iter().chain(&paths).all(success));
            prop_assert_eq!(hosts.iter().all(success), run.state == State::Unenforced);
        }
    }

    #[test]
    fn nothing_is_known_when_all_replies_are_equal(reply in any_reply()) {
        let run = Run::of(&std::array::from_fn(|_| reply.clone()), &std::array::from_fn(|_| None));
        // Except that it redirects authorizations to all.
        prop_assert!(!is_pass(run.state) || run.state == State::Unenforced);
        prop_assert_ne!(run.state, State::NotRegistered);
    }
}

/// Reproducible random numbers (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap() % limit
    }
}

/// The kinds of trouble of a simulated app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Steady,
    Random,
    Rotation,
    HalfPropagated,
    Limiter,
    Outage,
}

/// An app that is registered or not, at a provider with trouble.
struct App {
    kind: Kind,
    known: Vec<&'static str>,
    good: ReplyResult,
    bad: ReplyResult,
    other: ReplyResult,
    period: usize,
    phase: usize,
}

impl App {
    fn any(random: &mut Random) -> Self {
        let goods = [
            page(200, LOGIN),
            to("/login?next=1"),
            page(200, "<p>Allow access"),
            to("bounce?code=1"),
        ];
        let bads = [
            page(400, "Invalid redirect_uri"),
            page(403, "Forbidden"),
            page(500, "oops"),
            to("/error?error=invalid_request"),
            page(200, "<p>An error occurred"),
            page(200, "The redirect_uri is not registered"),
        ];
        let others = [
            page(403, "slow down"),
            page(503, ""),
            page(200, "<p>Wait"),
            to("/busy"),
            page(400, "limit"),
        ];
        let known: [&[&str]; 5] = [&[OLD, NEW], &[OLD], &[NEW], &[], &[OLD, NEW, PATH, LIVE, HOST]];
        let kinds = [
            Kind::Steady,
            Kind::Random,
            Kind::Rotation,
            Kind::HalfPropagated,
            Kind::Limiter,
            Kind::Outage,
        ];
        Self {
            kind: kinds[random.below(kinds.len())],
            known: known[random.below(known.len())].to_vec(),
            good: goods[random.below(goods.len())].clone(),
            bad: bads[random.below(bads.len())].clone(),
            other: others[random.below(others.len())].clone(),
            period: 2 + random.below(9),
            phase: random.below(10),
        }
    }

    /// Whether a user who returns to the new callback always arrives there.
    fn is_registered(&self) -> bool {
        self.kind != Kind::HalfPropagated && self.known.contains(&NEW)
    }

    /// Whether a user never does.
    fn is_unregistered(&self) -> bool {
        !self.known.contains(&NEW) && self.kind != Kind::HalfPropagated
    }

    fn reply(&self, n: usize, uri: &str, random: &mut Random) -> ReplyResult {
        let turn = (n + self.phase) % self.period;
        let honest = if self.known.contains(&uri) { &self.good } else { &self.bad };
        let reply = match self.kind {
            Kind::Steady => honest,
            // Each state then needs one draw of 4,096.
            Kind::Random => [&self.good, &self.bad][random.below(2)],
            Kind::Rotation => [&self.good, &self.bad, honest][turn % 3],
            // Not on all of up to five servers.
            Kind::HalfPropagated => {
                let servers = [2, 3, 5][self.period % 3];
                if uri == OLD || uri == NEW && (n + self.phase).is_multiple_of(servers) {
                    &self.good
                } else {
                    &self.bad
                }
            }
            // One in N passes.
            Kind::Limiter => {
                if turn == 0 {
                    honest
                } else {
                    &self.other
                }
            }
            Kind::Outage => {
                if n >= self.phase {
                    &self.other
                } else {
                    honest
                }
            }
        };
        sent_to(reply, uri)
    }
}

/// Of 4,000 simulated apps, none passes that is not registered, and none fails that is.
#[test]
fn no_simulated_app_gets_a_wrong_state() {
    let mut random = Random(20_261_126);
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..4_000 {
        let app = App::any(&mut random);
        let count = std::cell::Cell::new(0);
        let random = std::cell::RefCell::new(&mut random);
        let (state, evidence, _) = probed("anything", |uri, _, _| {
            count.set(count.get() + 1);
            app.reply(count.get() - 1, uri, &mut random.borrow_mut())
        });
        let kind = app.kind;
        assert!(!is_pass(state) || app.is_registered(), "{kind:?} {state:?}: {evidence}");
        assert!(
            state != State::NotRegistered || app.is_unregistered(),
            "{kind:?} {state:?}: {evidence}"
        );
        *counts.entry((kind, format!("{state:?}"))).or_insert(0) += 1;
    }
    println!("{counts:#?}");
}
