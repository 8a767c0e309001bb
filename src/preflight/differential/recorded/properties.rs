//! The rule over any answers of a small world.

use super::{ALL, MOST_QUESTIONS, Said, answer, uri};
use crate::outbound::{Answer, Fault, Reason, Step};
use crate::preflight::differential::rule::{Probes, Question, Ruling, State, judge};
use crate::preflight::differential::shape::{Asked, Shape, Spoken};
use http::HeaderValue;
use proptest::prelude::*;

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
