//! The preflight of all environments, before anything is changed.

use super::machine::Goal;
use super::read::Environment;
use super::{Context, Stop, StopKind};
use crate::check;
use crate::preflight::{self, is_same_url};
use crate::report::{Check, Extent, Report, Verdict};
use jiff::Timestamp;
use std::time::Duration;

/// Checks the callback once, and runs the preflight of each environment.
pub async fn survey(context: &Context, environments: &mut [Environment]) {
    let mut checked: Vec<(String, Report)> = Vec::new();
    for environment in environments {
        let callback = environment.plan.check.callback.clone();
        let known = checked.iter().find(|(it, _)| *it == callback).map(|(_, report)| report);
        let report = if let Some(report) = known {
            report.clone()
        } else {
            let report = check_once(context, &environment.plan).await;
            checked.push((callback, report.clone()));
            report
        };
        let mut report = Box::pin(preflight::add_survey(
            report,
            &environment.plan,
            &environment.nango,
            &context.outbound,
        ))
        .await;
        report.environment = Some(environment.name.clone());
        environment.preflight = Some(report);
    }
}

/// The preflight after a change. Of the callback only a small part is checked again.
pub(super) async fn verify(context: &Context, environment: &Environment) -> Report {
    let mut plan = environment.plan.clone();
    plan.check.coverage = check::Coverage::Small;
    plan.check.follow = false;
    let report = check_once(context, &plan).await;
    let survey = preflight::add_survey(report, &plan, &environment.nango, &context.outbound);
    let mut report = Box::pin(survey).await;
    report.environment = Some(environment.name.clone());
    report
}

/// The report of the callback. Nango's own callback redirects nowhere: nothing of it is checked.
async fn check_once(context: &Context, plan: &preflight::Plan) -> Report {
    if !is_same_url(&plan.check.callback, plan.check.target.as_str()) {
        return Box::pin(check::run(&plan.check, &context.outbound)).await;
    }
    Report {
        broken: None,
        environment: None,
        callback: plan.check.callback.clone(),
        target: plan.check.target.redacted(),
        started_at: Timestamp::now(),
        duration: Duration::ZERO,
        checks: Vec::new(),
        extent: Extent::Complete,
        switch: None,
    }
}

/// What does not prevent a change although it is unconfirmed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tolerance {
    /// Providers that keep one callback: a person replaces it when asked.
    pub swaps: bool,
    /// Everything else: the callback was in use before.
    pub others: bool,
}

/// Whether all environments may be changed.
pub fn safety(environments: &[Environment], tolerance: Tolerance) -> Result<(), Stop> {
    let reports = environments.iter().filter_map(|it| Some((&it.name, it.preflight.as_ref()?)));
    let verdicts: Vec<_> =
        reports.map(|(name, report)| (name, tolerant(report, tolerance))).collect();
    let with = |wanted: Verdict| -> Vec<String> {
        let with = verdicts.iter().filter(|(_, verdict)| *verdict == wanted);
        with.map(|(name, _)| format!("`{name}`")).collect()
    };
    let (fail, error, unconfirmed) =
        (with(Verdict::Fail), with(Verdict::Error), with(Verdict::Unconfirmed));
    let is_back = environments.iter().any(|it| it.goal == Goal::Back);
    let (action, hint) = if is_back {
        (
            "go back in",
            "add the previous callback at the provider again, or pass --accept-risk KEY=REASON",
        )
    } else {
        ("switch", "fix what the report lists")
    };
    let (kind, why, hint) = if !fail.is_empty() {
        (StopKind::Unsafe, format!("it is not safe to {action} {}", fail.join(", ")), hint)
    } else if !error.is_empty() {
        let why = format!("the preflight of {} could not run", error.join(", "));
        (StopKind::CouldNotRun, why, "see its report")
    } else if !unconfirmed.is_empty() {
        let names = unconfirmed.join(", ");
        let why = format!("it is not confirmed that it is safe to {action} {names}");
        (StopKind::Unsafe, why, "confirm by hand what the report lists, then pass --ack")
    } else {
        return Ok(());
    };
    Err(Stop { kind, why, hint: hint.into() })
}

/// The verdict, without what is tolerated.
fn tolerant(report: &Report, tolerance: Tolerance) -> Verdict {
    let verdict = report.verdict();
    if verdict != Verdict::Unconfirmed || report.extent != Extent::Complete {
        return verdict;
    }
    let unconfirmed: Vec<_> = report.checks.iter().filter(|it| it.is_unconfirmed()).collect();
    let is_tolerated = |check: &&Check| match check.state {
        Some("one_callback") => tolerance.swaps,
        _ => tolerance.others,
    };
    if !unconfirmed.is_empty() && unconfirmed.iter().all(is_tolerated) {
        return Verdict::Pass;
    }
    verdict
}
