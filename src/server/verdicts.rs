//! The last results of the self-check. They determine what is logged: a change, and not each run. No I/O
//! and no clock.

use crate::check::Coverage;
use crate::report::{Report, Status};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The last results, by callback.
#[derive(Debug, Default)]
pub(super) struct Verdicts(HashMap<String, Known>);

#[derive(Debug, Default)]
struct Known {
    /// The verdicts of the last small and the last full run.
    small: Option<&'static str>,
    full: Option<&'static str>,
    /// The ids of the checks that failed when they last had a result.
    failed: BTreeSet<String>,
    failing_since: Option<Instant>,
}

/// What a run has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// The verdict, without a failed check.
    Verdict,
    /// The failed checks; these fail now.
    Failed(Vec<String>),
    /// No check fails any more, after this time.
    Recovered(Duration),
}

impl Verdicts {
    /// Takes over the result of a run. A check that failed recovers when it passes, not when it is not
    /// run: a small run omits many, and after a failure others are blocked.
    pub(super) fn update(&mut self, report: &Report, coverage: Coverage, now: Instant) -> Change {
        let known = self.0.entry(report.callback.clone()).or_default();
        let with = |statuses: &[Status]| -> BTreeSet<String> {
            let checks = report.checks.iter().filter(|check| statuses.contains(&check.status));
            checks.map(|check| check.id.to_string()).collect()
        };
        let passed = with(&[Status::Pass, Status::Warn]);
        let mut failed = with(&[Status::Fail]);
        failed.extend(known.failed.difference(&passed).cloned());
        let before = std::mem::replace(&mut known.failed, failed);
        let verdict = report.verdict_label();
        let last = match coverage {
            Coverage::Small => &mut known.small,
            Coverage::Full => &mut known.full,
        };
        let is_new = last.replace(verdict) != Some(verdict);
        if known.failed.is_empty() {
            match known.failing_since.take() {
                Some(since) => Change::Recovered(now.saturating_duration_since(since)),
                None if is_new => Change::Verdict,
                None => Change::None,
            }
        } else {
            known.failing_since.get_or_insert(now);
            if known.failed == before {
                Change::None
            } else {
                Change::Failed(known.failed.iter().cloned().collect())
            }
        }
    }

    /// Forgets the callbacks that are in no report.
    pub(super) fn retain(&mut self, reports: &[Report]) {
        self.0.retain(|callback, _| reports.iter().any(|report| report.callback == *callback));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Check, Extent};

    /// Second, coverage, the statuses of the checks, the change.
    type Row<'r> = (u64, Coverage, &'r [(&'static str, Status)], Change);

    fn report(checks: &[(&'static str, Status)]) -> Report {
        let check = |(id, status): &(&'static str, Status)| {
            let check = Check::new(*id, "works");
            match status {
                Status::Pass => check,
                Status::Warn => check.warn("odd"),
                Status::Fail => check.fail("broken"),
                Status::Unknown => check.unknown("unknown"),
                Status::Skip => check.skip("not run"),
            }
        };
        Report {
            broken: None,
            environment: None,
            callback: "https://a.example/cb".into(),
            target: "https://t.example/cb".into(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            duration: Duration::ZERO,
            checks: checks.iter().map(check).collect(),
            extent: Extent::Complete,
            switch: None,
        }
    }

    fn failed(ids: &[&str]) -> Change {
        Change::Failed(ids.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_changes_are_reported() {
        use Coverage::{Full, Small};
        use Status::{Fail, Pass, Skip, Unknown, Warn};
        let start = Instant::now();
        let mut verdicts = Verdicts::default();
        let rows: &[Row<'_>] = &[
            (0, Small, &[("a", Pass)], Change::Verdict),
            (1, Small, &[("a", Pass)], Change::None),
            (2, Small, &[("a", Warn)], Change::Verdict),
            (3, Small, &[("a", Warn)], Change::None),
            (4, Small, &[("a", Unknown)], Change::Verdict),
            (5, Small, &[("a", Fail), ("b", Skip)], failed(&["a"])),
            (6, Small, &[("a", Fail), ("b", Skip)], Change::None),
            (7, Small, &[("a", Fail), ("b", Fail)], failed(&["a", "b"])),
            // Neither is proven to work.
            (8, Small, &[("a", Unknown), ("b", Skip)], Change::None),
            (9, Small, &[("a", Pass), ("b", Skip)], failed(&["b"])),
            (10, Small, &[("a", Pass), ("b", Warn)], Change::Recovered(Duration::from_secs(5))),
            (11, Small, &[("a", Pass), ("b", Warn)], Change::None),
            // What only a full run finds, a small one does not clear.
            (12, Full, &[("a", Pass), ("c", Fail)], failed(&["c"])),
            (13, Small, &[("a", Pass)], Change::None),
            (14, Full, &[("a", Pass), ("c", Pass)], Change::Recovered(Duration::from_secs(2))),
            (15, Full, &[("a", Pass), ("c", Pass)], Change::None),
            (16, Small, &[("a", Pass)], Change::None),
            // Their verdicts may differ each time.
            (17, Small, &[("a", Warn)], Change::Verdict),
            (18, Full, &[("a", Pass)], Change::None),
            (19, Small, &[("a", Warn)], Change::None),
        ];
        for (second, coverage, checks, expected) in rows {
            let now = start + Duration::from_secs(*second);
            let change = verdicts.update(&report(checks), *coverage, now);
            assert_eq!(change, *expected, "{second}");
        }
        verdicts.retain(&[report(&[])]);
        assert_eq!(verdicts.0.len(), 1);
        verdicts.retain(&[]);
        assert!(verdicts.0.is_empty());
    }

    /// One certificate fails and another does not: the check fails.
    #[test]
    fn a_check_that_fails_once_fails() {
        let (mut verdicts, now) = (Verdicts::default(), Instant::now());
        let checks = [("tls.acme", Status::Fail), ("tls.acme", Status::Pass)];
        assert_eq!(verdicts.update(&report(&checks), Coverage::Small, now), failed(&["tls.acme"]));
        assert_eq!(verdicts.update(&report(&checks), Coverage::Small, now), Change::None);
    }
}
