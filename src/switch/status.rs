//! The state of the environments in a journal.

use super::journal::{Entry, Journal};
use super::report::{EnvironmentReport, State};
use super::{Context, Stop};
use crate::preflight::{Account, is_same_url};
use crate::report::printable;

/// Reads the callback of each environment of the journal, or of those with these names, and compares
/// it with the journal.
pub async fn status(
    context: &Context,
    account: &Account,
    journal: &Journal,
    names: &[String],
) -> Result<Vec<EnvironmentReport>, Stop> {
    let mut reports = Vec::new();
    let wanted = |it: &&Entry| names.is_empty() || names.contains(&it.name);
    for entry in journal.environments.iter().filter(wanted) {
        let value = account.callback(&entry.uuid).await?;
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
    Ok(reports)
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
        result: State::Unexpected,
        reason: None,
        evidence: Vec::new(),
        preflight: None,
        verification: None,
    }
}
