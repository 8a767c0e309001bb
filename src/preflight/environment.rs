//! The environment of the API key: its callback and its integrations.

use super::Plan;
use super::candidate::Candidate;
use super::nango::{Integration, Nango};
use crate::redirect::Target;
use crate::report::Check;

/// The maximum number of listed keys.
const MAX_LISTED: usize = 12;

/// The callback of the environment, from its flows.
pub(super) struct Environment {
    /// `None` when no flow started.
    current: Option<String>,
    /// Whether that is the new callback.
    pub(super) switched: bool,
}

impl Environment {
    /// From the redirect URI of most flows.
    pub(super) fn of(plan: &Plan, candidates: &[Candidate]) -> Self {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        let from_flows = candidates.iter().filter(|candidate| candidate.from_flow);
        for callback in from_flows.filter_map(|candidate| candidate.current.as_deref()) {
            match counts.iter_mut().find(|(known, _)| *known == callback) {
                Some(entry) => entry.1 += 1,
                None => counts.push((callback, 1)),
            }
        }
        let current = counts.iter().max_by_key(|(_, count)| *count).map(|(it, _)| (*it).to_owned());
        let switched = current.as_deref() == Some(plan.check.callback.as_str());
        Self { current, switched }
    }

    /// The callback of a flow that differs from that of the environment.
    pub(super) fn overridden<'c>(&self, candidate: &'c Candidate) -> Option<&'c str> {
        let current = candidate.current.as_deref().filter(|_| candidate.from_flow)?;
        (Some(current) != self.current.as_deref()).then_some(current)
    }

    /// The callback to go back to.
    pub(super) fn previous<'a>(&'a self, plan: &'a Plan) -> &'a str {
        match &self.current {
            Some(current) if !self.switched => current,
            _ => &plan.previous,
        }
    }

    /// `nango.current`. `no_flows` is the reason why no flow could be started.
    pub(super) fn check(&self, plan: &Plan, no_flows: Option<&str>) -> Check {
        let check = Check::new("nango.current", "the callback that Nango sends today");
        if let Some(current) = &self.current {
            let check = check.subject(shown(current));
            return if self.switched {
                check.pass("Nango already sends this callback")
            } else {
                check.pass(format!("Nango sends {}", shown(current)))
            };
        }
        let why = match no_flows {
            Some(why) => format!("no flow was started: {why}"),
            None => "no flow was started".into(),
        };
        check.skip(format!("{why}; assuming {}", shown(&plan.previous)))
    }
}

/// `nango.environment`: Nango returns no name of the environment, so users recognize it by its
/// integrations.
pub(super) fn contents(
    plan: &Plan,
    nango: &Nango,
    integrations: &[Integration],
    candidates: &[Candidate],
) -> Check {
    let check =
        Check::new("nango.environment", "the environment of the API key").subject(nango.base());
    let total = integrations.len();
    if total == 0 {
        return check
            .unknown("the environment has no integrations")
            .hint("check that the key belongs to the right environment");
    }
    let with = candidates.iter().filter(|candidate| candidate.kind.has_callback());
    let keys: Vec<_> = with.map(Candidate::key).collect();
    let excluded = match total - candidates.len() {
        excluded if !plan.only.is_empty() => format!(", {excluded} excluded by --only"),
        _ => String::new(),
    };
    let with_callback = keys.len();
    let noun = if total == 1 { "integration" } else { "integrations" };
    let summary = format!("{total} {noun}, {with_callback} with a callback{excluded}");
    let more = match keys.len().saturating_sub(MAX_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let most: Vec<_> = keys.into_iter().take(MAX_LISTED).collect();
    let check = check.detail(format!("{}{more}", most.join(", ")));
    // Settings may serve several environments; a misspelled key has no effect.
    let is_there = |key: &str| integrations.iter().any(|it| it.unique_key == key);
    let absent = plan.integrations.keys().map(AsRef::as_ref).filter(|key| !is_there(key));
    let absent: Vec<&str> = absent.collect();
    if absent.is_empty() {
        return check.pass(summary);
    }
    let absent = absent.join(", ");
    check
        .warn(summary)
        .hint(format!("`[preflight.integration]` has settings for {absent}: no such integration"))
}

/// A callback without its query values.
pub(super) fn shown(callback: &str) -> String {
    Target::parse(callback).map_or_else(|_| "an invalid URL".into(), |target| target.redacted())
}
