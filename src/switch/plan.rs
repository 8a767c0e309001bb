//! What a switch does, as text: read before it is confirmed.

use super::machine::{Goal, Phase};
use super::read::Environment;
use crate::preflight::{FLOWS_IN_PROGRESS, is_same_url};
use crate::report::printable;

/// The plan of all environments, one line for each step or effect. `back` is the command to go back.
pub fn plan(environments: &[Environment], back: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for environment in environments {
        let name = &environment.name;
        let (before, after) = (printable(&environment.before), printable(&environment.after));
        let switch = environment.preflight.as_ref().and_then(|it| it.switch.as_ref());
        let to_replace = switch.map(|it| in_backticks(&it.to_replace)).unwrap_or_default();
        let to_recreate = switch.map(|it| in_backticks(&it.to_recreate)).unwrap_or_default();
        let (from, to) = match environment.goal {
            Goal::Switch | Goal::Verify => (&before, &after),
            Goal::Back | Goal::Undo => (&after, &before),
        };
        let may_change = environment.may_change();
        if may_change && !environment.is_proven {
            lines.push(format!(
                "{name}: nothing proves that the API key opens this environment; a flow that starts after \
                 the save shows it, and a wrong key leads to a restore"
            ));
        }
        if may_change && !to_replace.is_empty() {
            lines.push(format!(
                "{name}: replace the callback of {to_replace} with {to} at the provider, immediately \
                 before the save: flows fail in between"
            ));
        }
        lines.push(if may_change {
            format!("{name}: save {to} instead of {from}")
        } else {
            format!("{name}: has {to} already; it is verified, and nothing is saved")
        });
        if !to_recreate.is_empty() {
            lines.push(format!(
                "{name}: after it, delete and create in Nango {to_recreate}; their users connect again"
            ));
        }
        // That about flows in progress is below, once for all.
        let is_own = |it: &&String| **it != FLOWS_IN_PROGRESS;
        let cautions = switch.iter().filter(|_| may_change).flat_map(|it| &it.cautions);
        for caution in cautions.filter(is_own) {
            lines.push(format!("{name}: {caution}"));
        }
    }
    if environments.iter().any(Environment::may_change) {
        lines.push(
            "flows in progress end at the callback with which they started: within 30 minutes for a \
             connect session, at most 60 minutes (Nango's cookie); keep it working and registered"
                .into(),
        );
        // Without the Environments API, there is no id, and a person saves the callback.
        if environments.iter().all(|it| !it.uuid.is_empty()) {
            lines.push(
                "a confirmation that fails restores the previous callback of that environment; what is \
                 unknown stays switched"
                    .into(),
            );
        }
        if !back.is_empty() {
            lines.push(format!("to go back: {back}"));
        }
    }
    lines
}

impl Environment {
    /// Whether the callback may be saved; otherwise it is only verified.
    pub fn may_change(&self) -> bool {
        let is_interrupted = self.phase.is_some_and(Phase::is_interrupted);
        let has = |url: &str| self.value.as_deref().is_some_and(|value| is_same_url(value, url));
        match self.goal {
            Goal::Switch | Goal::Undo => true,
            Goal::Verify => false,
            Goal::Back => is_interrupted || !has(&self.before),
        }
    }
}

/// What remains to be done after a switch.
pub(super) fn remaining(
    environments: &[(&Environment, Option<&crate::report::Report>)],
) -> Vec<String> {
    let mut lines = Vec::new();
    for (environment, report) in environments {
        let name = &environment.name;
        let before = printable(&environment.before);
        let after = report.and_then(|it| it.switch.as_ref());
        let earlier = environment.preflight.as_ref().and_then(|it| it.switch.as_ref());
        let recreate = after.or(earlier).map(|it| it.to_recreate.clone()).unwrap_or_default();
        if !recreate.is_empty() {
            lines.push(format!(
                "{name}: delete and create in Nango {}; their users connect again",
                in_backticks(&recreate)
            ));
        }
        if earlier.is_some_and(|it| it.may_have_mcp) {
            lines.push(format!(
                "{name}: MCP integrations with a client metadata document follow within five minutes"
            ));
        }
        lines.push(format!("{name}: connect one account by hand"));
        lines.push(format!(
            "{name}: keep {before} working and registered for some days, then remove it at the providers, \
             and run the preflight again"
        ));
    }
    lines
}

/// Keys of integrations, for a sentence.
pub(super) fn in_backticks(keys: &[String]) -> String {
    keys.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ")
}
