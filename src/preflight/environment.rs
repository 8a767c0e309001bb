//! The environment that the key opens: which callback it sends, and what is in it.

use super::Plan;
use super::candidate::Candidate;
use super::nango::{Integration, Nango};
use crate::redirect::Target;
use crate::report::Check;

/// More keys than this are counted rather than listed.
const MOST_NAMED: usize = 12;

/// The environment's callback, as flows show it.
pub(super) struct Environment {
    /// `None` when no flow showed it.
    current: Option<String>,
    /// Whether that is the callback that is to be saved.
    pub(super) switched: bool,
}

impl Environment {
    /// What most flows have.
    pub(super) fn of(plan: &Plan, candidates: &[Candidate]) -> Self {
        let mut votes: Vec<(&str, usize)> = Vec::new();
        let seen = candidates.iter().filter(|candidate| candidate.seen);
        for callback in seen.filter_map(|candidate| candidate.current.as_deref()) {
            match votes.iter_mut().find(|(known, _)| *known == callback) {
                Some(vote) => vote.1 += 1,
                None => votes.push((callback, 1)),
            }
        }
        let current = votes.iter().max_by_key(|(_, count)| *count).map(|(it, _)| (*it).to_owned());
        let switched = current.as_deref() == Some(plan.check.callback.as_str());
        Self { current, switched }
    }

    /// The callback that a flow had in place of the environment's, if it had another.
    pub(super) fn overridden<'c>(&self, candidate: &'c Candidate) -> Option<&'c str> {
        let current = candidate.current.as_deref().filter(|_| candidate.seen)?;
        (Some(current) != self.current.as_deref()).then_some(current)
    }

    /// The callback to go back to.
    pub(super) fn previous<'a>(&'a self, plan: &'a Plan) -> &'a str {
        match &self.current {
            Some(current) if !self.switched => current,
            _ => &plan.previous,
        }
    }

    /// `nango.current`. `no_flows` says why no flow was started, if that was refused.
    pub(super) fn check(&self, plan: &Plan, no_flows: Option<&str>) -> Check {
        let check = Check::new("nango.current", "which callback Nango sends today");
        if let Some(current) = &self.current {
            let check = check.subject(shown(current));
            return if self.switched {
                check.pass("Nango sends this callback already")
            } else {
                check.pass(format!("Nango sends {}", shown(current)))
            };
        }
        let why = match no_flows {
            Some(why) => format!("no flow was started: {why}"),
            None => "no flow was started".into(),
        };
        check.skip(format!("{why}; {} is taken for it", shown(&plan.previous)))
    }
}

/// `nango.environment`: Nango names none, so that people tell it by what is in it.
pub(super) fn contents(
    plan: &Plan,
    nango: &Nango,
    integrations: &[Integration],
    candidates: &[Candidate],
) -> Check {
    let check = Check::new("nango.environment", "the key's environment").subject(nango.base());
    let in_all = integrations.len();
    if in_all == 0 {
        return check
            .unknown("the environment has no integrations")
            .hint("see whether the key is of the environment that you mean");
    }
    let with = candidates.iter().filter(|candidate| candidate.flow.has_callback());
    let keys: Vec<_> = with.map(Candidate::key).collect();
    let left_out = match in_all - candidates.len() {
        left_out if !plan.only.is_empty() => format!(", {left_out} left out"),
        _ => String::new(),
    };
    let with_callback = keys.len();
    let summary =
        format!("{in_all} integrations, {with_callback} of them with a callback{left_out}");
    let more = match keys.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let most: Vec<_> = keys.into_iter().take(MOST_NAMED).collect();
    let check = check.detail(format!("{}{more}", most.join(", ")));
    // Settings may serve several environments; who misspells a key misses what it would set.
    let is_there = |key: &str| integrations.iter().any(|it| it.unique_key == key);
    let absent = plan.integrations.keys().map(AsRef::as_ref).filter(|key| !is_there(key));
    let absent: Vec<&str> = absent.collect();
    if absent.is_empty() {
        return check.pass(summary);
    }
    let absent = absent.join(", ");
    check
        .warn(summary)
        .hint(format!("the settings name {absent}, which this environment does not have"))
}

/// A callback without the values of its query.
pub(super) fn shown(callback: &str) -> String {
    Target::parse(callback).map_or_else(|_| "an odd URL".into(), |target| target.shown())
}
