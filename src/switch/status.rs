//! The state of the environments in a journal.

use super::Context;
use super::journal::Entry;
use super::report::{EnvironmentReport, State};
use crate::preflight::{Account, is_same_url};
use crate::report::printable;

/// Reads the callback of each of these environments, and compares it with the journal.
pub async fn status(
    context: &Context,
    account: &Account,
    entries: &[&Entry],
) -> Vec<EnvironmentReport> {
    let mut reports = Vec::new();
    for entry in entries {
        let value = match account.callback(&entry.uuid).await {
            Ok(value) => value,
            // One that was deleted must not hide the others.
            Err(error) => {
                let reason = Some(printable(&error.to_string()));
                reports.push(EnvironmentReport { reason, ..offline(entry) });
                continue;
            }
        };
        let value = value.unwrap_or_else(|| context.default_callback.clone());
        let is_new = is_same_url(&value, &entry.after);
        let is_old = is_same_url(&value, &entry.before);
        let is_expected = match entry.phase.expects_new() {
            Some(true) => is_new && !entry.phase.is_interrupted(),
            Some(false) => is_old,
            None => false,
        };
        let mut report = offline(entry);
        report.value = Some(printable(&value));
        report.result = if is_expected { State::AsExpected } else { State::Unexpected };
        report.reason = match (is_expected, is_new, is_old) {
            (true, ..) => None,
            (_, true, _) => Some("the new callback is in use; it is not confirmed".into()),
            (_, _, true) => Some("the previous callback is in use".into()),
            _ => Some("another person saved another callback".into()),
        };
        reports.push(report);
    }
    reports
}

/// The state in the journal alone.
pub fn offline(entry: &Entry) -> EnvironmentReport {
    EnvironmentReport {
        name: printable(&entry.name),
        uuid: printable(&entry.uuid),
        is_production: entry.is_production,
        before: printable(&entry.before),
        after: printable(&entry.after),
        value: None,
        phase: Some(entry.phase),
        result: State::NotRead,
        reason: None,
        evidence: Vec::new(),
        preflight: None,
        verification: None,
    }
}
