//! Properties of the rule over random replies.

use super::{ALL, MAX_PROBES, ReplyResult, response, uri};
use crate::outbound::{Fault, Reason, Response, Step};
use crate::preflight::differential::rule::{Decision, Probe, Rounds, State, judge};
use crate::preflight::differential::shape::{Reply, Sent, Shape};
use http::HeaderValue;
use proptest::prelude::*;

/// Any reply out of few, so that equal and different ones are both frequent.
fn any_shape() -> impl Strategy<Value = ReplyResult> {
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
            response(status, headers, body).map(|response| Response { whole, ..response })
        },
    )
}

fn shape(reply: &ReplyResult, uri: &str) -> Shape {
    let mut reply = reply.clone();
    if let Ok(response) = &mut reply
        && response.headers.get("location").is_some_and(|to| to == "bounce")
    {
        response.headers.insert("location", HeaderValue::from_str(uri).unwrap());
    }
    let sent = Sent { redirect_uri: uri, all: ALL, state: "-", url: "https://p.example/auth" };
    Shape::of(&reply, sent, &[], None)
}

/// One run of the rule.
#[derive(Debug)]
struct Run {
    state: State,
    sent: Vec<(Probe, Shape)>,
}

impl Run {
    /// Over replies to old, host, new and path; the second time the same, except for those given.
    fn of(replies: &[ReplyResult; 4], again: &[Option<ReplyResult>; 4]) -> Self {
        let mut rounds = Rounds::default();
        let mut sent: Vec<(Probe, Shape)> = Vec::new();
        loop {
            match judge(&rounds) {
                Decision::Final(state, _) => return Self { state, sent },
                Decision::Send(probe) => {
                    let index = probe as usize;
                    let second = sent.iter().any(|(before, _)| *before == probe);
                    let reply = again[index].as_ref().filter(|_| second).unwrap_or(&replies[index]);
                    let shape = shape(reply, uri(probe));
                    sent.push((probe, shape.clone()));
                    rounds.record(probe, shape);
                }
            }
        }
    }

    /// Old, host, new and path, from this index of a probe.
    fn reply(&self, from: usize) -> [Option<&Reply>; 4] {
        [Probe::Old, Probe::UnregisteredHost, Probe::New, Probe::UnregisteredPath].map(|probe| {
            let mut sent = self.sent.iter().skip(from).take(4);
            sent.find(|(sent, _)| *sent == probe).and_then(|(_, shape)| match shape {
                Shape::Reply(reply) => Some(reply),
                Shape::Unusable(_) => None,
            })
        })
    }
}

/// Replies to old, host, new and path, and to each a second time: chosen from three, so that equal
/// and different ones are both frequent, and the second time mostly the same.
fn any_run() -> impl Strategy<Value = Run> {
    let second = prop::option::weighted(0.1, 0..3_usize);
    (
        prop::array::uniform3(any_shape()),
        prop::array::uniform4(0..3_usize),
        prop::array::uniform4(second),
    )
        .prop_map(|(replies, picks, again)| {
            let first = picks.map(|pick| replies[pick].clone());
            Run::of(&first, &again.map(|pick| pick.map(|pick| replies[pick].clone())))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6_000))]

    #[test]
    fn nothing_is_registered_when_a_control_is_accepted(run in any_run()) {
        prop_assert!(run.sent.len() <= MAX_PROBES);
        if run.state == State::Registered {
            let [Some(old), Some(host), Some(new), Some(path)] = run.reply(0) else {
                return Err(TestCaseError::fail("a probe without a reply"));
            };
            // Neither control was redirected, or got the same reply as the new callback.
            prop_assert!(!path.redirects_back && !host.redirects_back);
            prop_assert!(new != path && new != host);
            prop_assert!(!new.explicit.mismatch);
            if !new.redirects_back {
                prop_assert!(!new.rejects());
                // The provider explicitly rejects all others, or treats new and old identically.
                prop_assert!(
                    new.has_same_destination(old) || [old, host, path].iter().all(|it| it.explicit.mismatch)
                );
                prop_assert!(!path.has_same_destination(new) || path.has_more_error_words_than(new));
                prop_assert!(!host.has_same_destination(new) || host.has_more_error_words_than(new));
                // And the second round is equal.
                let [Some(old_again), Some(host_again), Some(new_again), Some(path_again)] =
                    run.reply(4)
                else {
                    return Err(TestCaseError::fail("not confirmed"));
                };
                for (first, again) in
                    [(old, old_again), (host, host_again), (new, new_again), (path, path_again)]
                {
                    prop_assert!(first.has_same_destination(again) && first.explicit == again.explicit);
                }
            }
        }
    }

    /// From the reply to the old one, unless the provider rejects it explicitly.
    #[test]
    fn not_registered_requires_a_difference(run in any_run()) {
        if run.state == State::NotRegistered {
            let [Some(old), Some(host), Some(new), Some(_)] = run.reply(0) else {
                return Err(TestCaseError::fail("a probe without a reply"));
            };
            prop_assert!(!new.redirects_back && !host.redirects_back);
            prop_assert!(new.explicit.mismatch || new.has_same_destination(host));
            if !new.explicit.mismatch {
                prop_assert!(!old.has_same_destination(new) || new.has_more_error_words_than(old));
            }
            if !(new.explicit.mismatch && host.explicit.mismatch && new.is_error_response()) {
                prop_assert_eq!(run.sent.len(), MAX_PROBES);
            }
        }
    }

    #[test]
    fn nothing_is_registered_when_all_replies_are_equal(reply in any_shape()) {
        let run = Run::of(&std::array::from_fn(|_| reply.clone()), &std::array::from_fn(|_| None));
        prop_assert!(!matches!(run.state, State::Registered | State::PrefixMatch));
    }
}
