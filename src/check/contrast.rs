//! Compares the responses of several addresses, or HTTP versions, to the same queries. Without I/O.

use super::evidence::Answer;
use super::landing::Landing;
use super::prober::{Outcome, answer};
use super::query::Difference;
use std::collections::{BTreeMap, BTreeSet};

/// One address, or one HTTP version, and its responses.
pub(super) struct Party<'o> {
    pub(super) name: String,
    pub(super) outcomes: Vec<&'o Outcome>,
}

/// How the responses differ.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contrast {
    /// The only party with a fault that the others do not have, and the first such fault.
    pub(super) only: Option<(String, String)>,
    /// One line for each difference.
    pub(super) lines: Vec<String>,
    /// Whether Nango reads the same values everywhere.
    pub(super) keeps_values: bool,
}

/// The differences; `None` when there are none.
pub(super) fn contrast(parties: &[Party<'_>]) -> Option<Contrast> {
    // A party that fails at the first probe received no others; the rest is still compared.
    let firsts: Vec<(&str, Vec<&Outcome>)> = parties
        .iter()
        .map(|party| (party.name.as_str(), party.outcomes.iter().copied().take(1).collect()))
        .collect();
    let complete: Vec<_> = parties
        .iter()
        .filter(|party| party.outcomes.len() > 1)
        .map(|party| (party.name.as_str(), party.outcomes.clone()))
        .collect();
    let (mut lines, mut faulty, mut keeps_values) = (Vec::new(), Vec::new(), true);
    for (name, found) in unshared(&firsts).into_iter().chain(unshared(&complete)) {
        let line = format!("{name}: {}", found.text);
        if lines.contains(&line) {
            continue;
        }
        lines.push(line);
        keeps_values &= found.keeps_values;
        if found.is_fault && faulty.iter().all(|(other, _)| other != name) {
            faulty.push((name.to_owned(), found.text));
        }
    }
    let only = if faulty.len() == 1 { faulty.pop() } else { None };
    (!lines.is_empty()).then_some(Contrast { only, lines, keeps_values })
}

/// What some of the parties do and others do not.
fn unshared<'n>(parties: &[(&'n str, Vec<&Outcome>)]) -> Vec<(&'n str, Found)> {
    let comparable = comparable(parties);
    let all: Vec<_> =
        parties.iter().map(|(name, outcomes)| (*name, traits(outcomes, &comparable))).collect();
    let shared: BTreeSet<String> = all
        .first()
        .into_iter()
        .flat_map(|(_, its)| its.keys())
        .filter(|key| all.iter().all(|(_, its)| its.contains_key(*key)))
        .cloned()
        .collect();
    let mut unshared = Vec::new();
    for (name, its) in all {
        let own: Vec<_> = its.into_iter().filter(|(key, _)| !shared.contains(key)).collect();
        let has_faults = own.iter().any(|(_, found)| found.is_fault);
        // What works is of interest only when nothing fails.
        let own = own.into_iter().map(|(_, found)| found);
        let mut own: Vec<_> = own.filter(|found| found.is_fault || !has_faults).collect();
        own.sort_by_key(|found| found.order);
        unshared.extend(own.into_iter().map(|found| (name, found)));
    }
    unshared
}

/// The names of the probes that every party responded to, whatever the response.
fn comparable<'o>(parties: &[(&str, Vec<&'o Outcome>)]) -> BTreeSet<&'o str> {
    let is_conclusive = |outcome: &&&Outcome| {
        let is_stale = outcome.landing() == Some(&Landing::Altered(Difference::Stale));
        !is_stale && !matches!(answer(&outcome.result), Answer::NotSent | Answer::Limited)
    };
    let mut sets = parties.iter().map(|(_, outcomes)| {
        let outcomes = outcomes.iter().filter(is_conclusive);
        outcomes.map(|outcome| outcome.probe.name).collect::<BTreeSet<_>>()
    });
    let first = sets.next().unwrap_or_default();
    sets.fold(first, |common, names| common.intersection(&names).copied().collect())
}

struct Found {
    order: usize,
    text: String,
    is_fault: bool,
    keeps_values: bool,
}

/// What the responses of a party have in common, by a key that does not depend on the query.
fn traits(outcomes: &[&Outcome], comparable: &BTreeSet<&str>) -> BTreeMap<String, Found> {
    let mut traits = BTreeMap::new();
    for (order, outcome) in outcomes.iter().enumerate() {
        let name = outcome.probe.name;
        if !comparable.contains(name) {
            continue;
        }
        let about = match name {
            "plain" => String::new(),
            size if size.ends_with("KiB") => format!(" to queries of {size}"),
            name => format!(" to the query `{name}`"),
        };
        let (key, text, is_fault) = match &outcome.result {
            Err(fault) => (format!("{name} fails"), format!("{}{about}", fault.text), true),
            Ok(got) => {
                let status = got.response.status.as_u16();
                match &got.landing {
                    Landing::Exact => {
                        let text = format!("redirects with {status}");
                        (text.clone(), text, false)
                    }
                    Landing::Altered(difference) => {
                        let id = difference.id();
                        let what = match id {
                            "redirect.encoding" => "re-encodes the query",
                            "redirect.size" => "cuts long queries",
                            "redirect.parameters" => "changes the parameters",
                            _ => "changes the query",
                        };
                        let text = format!("{what} ({name}: {})", difference.description());
                        (format!("{id} {}", difference.keeps_values()), text, true)
                    }
                    Landing::Elsewhere(_) => {
                        (format!("{name} elsewhere"), format!("redirects{about} elsewhere"), true)
                    }
                    Landing::Stays(_) => {
                        (format!("{name} {status}"), format!("responds with {status}{about}"), true)
                    }
                }
            }
        };
        // A redirect with another status is a difference between servers, whatever its query.
        let keeps_values = is_fault && outcome.keeps_values();
        traits.entry(key).or_insert(Found { order, text, is_fault, keeps_values });
    }
    traits
}
