use super::{Check, Extent, Report, Status, SwitchPlan, Verdict};
use serde::{Serialize, Serializer};
use std::time::Duration;

/// The schema version. It changes when a member is removed or changes its meaning.
const SCHEMA: u32 = 1;

/// One report as an object, several as an array of objects.
pub fn json(reports: &[Report]) -> serde_json::Result<String> {
    match reports {
        [report] => serde_json::to_string_pretty(&ReportJson::from(report)),
        reports => json_list(reports),
    }
}

/// Always an array.
pub fn json_list(reports: &[Report]) -> serde_json::Result<String> {
    let all: Vec<_> = reports.iter().map(ReportJson::from).collect();
    serde_json::to_string_pretty(&all)
}

/// As part of a larger JSON object.
impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ReportJson::from(self).serialize(serializer)
    }
}

#[derive(Serialize)]
struct ReportJson<'r> {
    schema: u32,
    verdict: Verdict,
    extent: Extent,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'r str>,
    callback: &'r str,
    target: &'r str,
    started_at: String,
    duration_ms: u64,
    checks: Vec<CheckJson<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    switch: Option<&'r SwitchPlan>,
}

#[derive(Serialize)]
struct CheckJson<'r> {
    id: &'r str,
    status: Status,
    /// Only for an unknown result on which the verdict does not depend.
    #[serde(skip_serializing_if = "is_true")]
    blocks: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    subject: &'r str,
    summary: &'r str,
    detail: Option<&'r str>,
    hint: Option<&'r str>,
    docs: String,
    duration_ms: u64,
}

impl<'r> From<&'r Report> for ReportJson<'r> {
    fn from(report: &'r Report) -> Self {
        Self {
            schema: SCHEMA,
            verdict: report.verdict(),
            extent: report.extent,
            environment: report.environment.as_deref(),
            callback: &report.callback,
            target: &report.target,
            // RFC 3339, to the millisecond.
            started_at: format!("{:.3}", report.started_at),
            duration_ms: millis(report.duration),
            checks: report.checks.iter().map(CheckJson::from).collect(),
            error: report.broken.as_deref(),
            switch: report.switch.as_ref(),
        }
    }
}

impl<'r> From<&'r Check> for CheckJson<'r> {
    fn from(check: &'r Check) -> Self {
        Self {
            id: &check.id,
            status: check.status,
            blocks: check.blocks,
            state: check.state,
            subject: &check.subject,
            summary: &check.summary,
            detail: check.detail.as_deref(),
            hint: check.hint.as_deref(),
            docs: check.docs(),
            duration_ms: millis(check.duration),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(flag: &bool) -> bool {
    *flag
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
