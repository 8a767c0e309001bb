//! What several requests with the same query prove. Without I/O.

use super::landing::Landing;
use crate::outbound::{Fault, Reason, Response};
use http::header::RETRY_AFTER;

/// One response, as far as the evidence goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It leads to the target, with the query or a changed one.
    Reached,
    /// A rate limit.
    Limited,
    /// Anything else, also no response.
    Failed,
    /// The request was not sent.
    NotSent,
}

impl Answer {
    pub(super) fn of(result: Result<(&Response, &Landing), &Fault>) -> Self {
        match result {
            Err(fault) if fault.reason == Reason::OutOfTime => Self::NotSent,
            Ok((_, Landing::Exact | Landing::Altered(_))) => Self::Reached,
            Ok((response, _)) if is_rate_limit(response) => Self::Limited,
            Ok(_) | Err(_) => Self::Failed,
        }
    }
}

/// 429 (RFC 6585 §4), or 503 with a sign of a limit: `Retry-After`, or the page that nginx itself
/// sends for `limit_req`. An upstream that is down makes nginx respond with 502 or 504.
pub(super) fn is_rate_limit(response: &Response) -> bool {
    match response.status.as_u16() {
        429 => true,
        503 => {
            let page = String::from_utf8_lossy(&response.body);
            response.headers.contains_key(RETRY_AFTER)
                || page.contains("<title>503 Service Temporarily Unavailable</title>")
                    && page.contains("<center>nginx")
        }
        _ => false,
    }
}

/// What the attempts prove about one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The first attempt reaches the target.
    Works,
    /// Some attempts reach the target, others fail.
    Intermittent,
    /// A rate limit, which is not about the query.
    Limited,
    /// Every attempt fails, and every control reaches the target: it is about the query.
    Blocked,
    /// Every attempt fails, and so do controls: it is not about the query.
    Failing,
    /// An attempt failed and was not repeated.
    Unrepeated,
    /// No request was sent.
    NotSent,
}

impl Evidence {
    /// `attempts` have the query; `controls` are other queries of the same length, sent between them.
    pub(super) fn of(attempts: &[Answer], controls: &[Answer]) -> Self {
        use Answer::{Failed, Limited, NotSent, Reached};
        let (first, repeats) = match attempts.split_first() {
            None | Some((NotSent, _)) => return Self::NotSent,
            Some((Reached, _)) => return Self::Works,
            Some((first, repeats)) => (*first, repeats),
        };
        let has = |answers: &[Answer], answer| answers.contains(&answer);
        if has(repeats, Reached) {
            let failed = has(attempts, Failed);
            return if failed { Self::Intermittent } else { Self::Limited };
        }
        let repeated = repeats.iter().any(|answer| *answer != NotSent);
        if has(controls, Limited) || first == Limited && !repeated {
            Self::Limited
        } else if !repeated {
            Self::Unrepeated
        } else if has(controls, Failed) {
            Self::Failing
        } else if has(controls, Reached) {
            Self::Blocked
        } else if first == Limited {
            Self::Limited
        } else {
            Self::Failing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Answer::{Failed as F, Limited as L, NotSent as N, Reached as R};

    #[test]
    fn a_cause_needs_repeats_and_controls() {
        use Evidence::{Blocked, Failing, Intermittent, Limited, NotSent, Unrepeated, Works};
        #[rustfmt::skip]
        let table: &[(&[Answer], &[Answer], Evidence)] = &[
            (&[], &[], NotSent),
            (&[N], &[], NotSent),
            (&[R], &[], Works),
            (&[F], &[], Unrepeated),
            (&[F, N], &[N], Unrepeated),
            (&[F, R], &[], Intermittent),
            (&[F, F, R], &[R], Intermittent),
            (&[F, L, R], &[], Intermittent),
            (&[F, F, F], &[R, R], Blocked),
            (&[F, F], &[R, N], Blocked),
            (&[F, F], &[R, F], Failing),
            (&[F, F, F], &[F, F], Failing),
            (&[F, F, F], &[], Failing),
            (&[F, F], &[L], Limited),
            (&[L], &[], Limited),
            (&[L, R], &[], Limited),
            (&[L, L], &[L], Limited),
            (&[L, L], &[], Limited),
            // A firewall that responds with 429.
            (&[L, L, L], &[R, R], Blocked),
            (&[L, F], &[R], Blocked),
            (&[L, F], &[F], Failing),
        ];
        for (attempts, controls, expected) in table {
            assert_eq!(Evidence::of(attempts, controls), *expected, "{attempts:?} {controls:?}");
        }
    }

    proptest::proptest! {
        /// Never blocked without a repeat that failed and a control that passed.
        #[test]
        fn a_firewall_is_named_only_with_evidence(attempts in answers(), controls in answers()) {
            if Evidence::of(&attempts, &controls) == Evidence::Blocked {
                let bad = |answer: &Answer| matches!(answer, F | L);
                proptest::prop_assert!(attempts.iter().filter(|it| bad(it)).count() >= 2);
                proptest::prop_assert!(!attempts.contains(&R));
                proptest::prop_assert!(controls.contains(&R) && !controls.iter().any(bad));
            }
        }
    }

    fn answers() -> impl proptest::strategy::Strategy<Value = Vec<Answer>> {
        let answer = proptest::sample::select(vec![R, L, F, N]);
        proptest::collection::vec(answer, 0..5)
    }
}
