//! The prober: a plan in, a report out.
//!
//! First, `collect` sends all requests and stores the results in [`Observations`]. Then each
//! category of checks evaluates them in its own file, in functions without I/O.
//! To add a check, add it to [`CHECKS`], send the requests that it needs in `collect`, and evaluate
//! it in the file of its category; a check that is never evaluated is reported as not run.
//! CONTRIBUTING.md lists the remaining steps.
//!
//! Servers are not trusted: reads are bounded, redirects are followed only on hosts related to the
//! callback and on the target, and a report quotes only bytes that the prober sent, or names.

mod collect;
mod confirm;
mod contrast;
mod corpus;
mod dns;
mod evidence;
mod followups;
mod landing;
mod location;
mod nango;
mod observations;
mod origins;
mod page;
mod plan;
mod platform;
mod prober;
mod qs;
mod query;
mod query_checks;
mod redirect;
mod response_headers;
mod tls;
mod url;

pub use plan::{Coverage, Mark, Plan, Selection};
pub use qs::read_by_nango;

use crate::outbound::{Outbound, Response};
use crate::report::{Check, Extent, Report, Status, printable};
use jiff::Timestamp;
use observations::Observations;
use std::time::Instant;

/// Whether a response is a bot challenge or a captcha instead of the requested page.
pub fn is_bot_wall(response: &Response) -> bool {
    page::Page::of(response) == Some(page::Page::BotWall)
}

/// A `state` that Nango never issued: a UUID of version 4 (RFC 9562 §5.4).
pub fn fresh_state() -> String {
    corpus::Run::new().state()
}

/// Unpredictable letters and digits.
pub fn fresh_nonce() -> String {
    corpus::Run::nonce()
}

/// Runs the plan. Never fails: the report contains what could not be checked.
pub async fn run(plan: &Plan, outbound: &Outbound) -> Report {
    let (started_at, began) = (Timestamp::now(), Instant::now());
    let mut findings = Findings::default();
    let blocker = run_checks(plan, outbound, &mut findings).await.err();
    let was_interrupted = plan.interrupt.is_cancelled();
    let complete = findings.checks.iter().find(|check| check.id == "redirect.complete");
    let all_sent = complete.is_some_and(|check| check.status == Status::Pass);
    let subject =
        findings.subject.clone().unwrap_or_else(|| printable(&location::shown(&plan.callback)));
    let all: Vec<_> = CHECKS
        .iter()
        .map(|(id, _)| {
            let evaluated = findings.take(id);
            let is_final =
                !was_interrupted || evaluated.as_ref().is_some_and(|it| is_known(it, all_sent));
            let mut check = evaluated.unwrap_or_else(|| match blocker {
                Some(blocker) => check(id).blocked(blocker),
                None => check(id).skip("not run: no request for it was sent"),
            });
            if !is_final {
                check = self::check(id).skip("not run: interrupted");
            }
            if check.subject.is_empty() {
                check.subject.clone_from(&subject);
            }
            check
        })
        .collect();
    Report {
        broken: findings.broken.filter(|_| !was_interrupted),
        environment: None,
        callback: printable(&location::shown(&plan.callback)),
        target: printable(&location::shown(plan.target.as_str())),
        started_at,
        duration: began.elapsed(),
        checks: select(all, &plan.selection),
        extent: match plan.selection == Selection::default() {
            _ if was_interrupted => Extent::Interrupted,
            true => Extent::Complete,
            false => Extent::Selected,
        },
        switch: None,
    }
}

/// Whether the result of a check is known although the check was interrupted: it is a failure or a
/// warning, or a pass that no unsent probe could change.
fn is_known(check: &Check, all_sent: bool) -> bool {
    match check.status {
        Status::Fail | Status::Warn => true,
        Status::Pass => {
            let id = &*check.id;
            let needs_all = matches!(id, "dns.alike" | "redirect.size")
                || collect::checks_of_all_queries().contains(&id);
            all_sent || !needs_all
        }
        Status::Skip => check.blocked_by.is_none(),
        Status::Unknown => false,
    }
}

/// Every check, in the order of the report, with the summary of a pass.
const CHECKS: &[(&str, &str)] = &[
    ("url.characters", "has no invisible characters"),
    ("url.syntax", "is an absolute URL"),
    ("url.https", "uses https"),
    ("url.userinfo", "has no user name or password"),
    ("url.port", "omits the default port"),
    ("url.case", "scheme and host are in lower case"),
    ("url.lookalike", "host is not internationalized"),
    ("url.slash", "has no trailing slash"),
    ("url.query", "has no query"),
    ("url.fragment", "has no fragment"),
    ("url.path", "path ends in oauth/callback"),
    ("url.target", "is not its own target"),
    ("dns.resolves", "host has addresses"),
    ("dns.public", "every address is public"),
    ("dns.reach", "every address accepts connections"),
    ("dns.alike", "every address gives the same response"),
    ("tls.handshake", "accepts TLS 1.2 or 1.3"),
    ("tls.chain", "certificate chain is complete and trusted"),
    ("tls.name", "certificate is valid for this host"),
    ("tls.expiry", "certificate does not expire soon"),
    ("redirect.answer", "responds"),
    ("redirect.page", "is a redirect, not a page"),
    ("redirect.proxy", "does not fetch Nango's page itself"),
    ("redirect.status", "responds with 308"),
    ("redirect.loop", "does not redirect to itself"),
    ("redirect.hops", "reaches the target in one hop"),
    ("redirect.template", "Location has no unexpanded placeholder"),
    ("redirect.target", "redirects to the target"),
    ("redirect.query", "every query arrives byte for byte"),
    ("redirect.encoding", "no byte is re-encoded"),
    ("redirect.parameters", "no parameter is lost, added or moved"),
    ("redirect.blocked", "no provider's callback is blocked"),
    ("redirect.size", "long queries arrive"),
    ("redirect.empty", "appends no `?` without a query"),
    ("redirect.cache", "responses are not cacheable"),
    ("redirect.coop", "popup keeps its opener"),
    ("redirect.referrer", "does not hide the referrer"),
    ("redirect.cookie", "sets no cookie"),
    ("redirect.echo", "does not return request header fields"),
    ("redirect.protocols", "HTTP/1.1 and HTTP/2 give the same response"),
    ("redirect.clients", "programs get the same response as browsers"),
    ("redirect.form", "form posts become a GET with the fields in the query"),
    ("redirect.http", "plain http redirects to https"),
    ("redirect.github", "Setup URL of GitHub Apps works too"),
    ("redirect.complete", "all probes were sent in time"),
    ("nango.callback", "target is Nango's callback"),
    ("nango.end_to_end", "callback leads to Nango"),
    ("nango.echo", "callback arrives at Nango unchanged"),
];

/// The id of every check that can occur.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, and within bounds")]
pub const IDS: &[&str] = &{
    let mut ids = [""; CHECKS.len()];
    let mut number = 0;
    while number < CHECKS.len() {
        ids[number] = CHECKS[number].0;
        number += 1;
    }
    ids
};

/// A check with its title; it passes unless changed.
fn check(id: &'static str) -> Check {
    let title = CHECKS.iter().find(|(known, _)| *known == id).map_or(id, |(_, title)| title);
    Check::new(id, title)
}

/// The results so far.
#[derive(Debug, Default)]
struct Findings {
    checks: Vec<Check>,
    broken: Option<String>,
    subject: Option<String>,
}

impl Findings {
    fn add(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Adds a check that the following ones depend on; an error if it did not pass.
    fn gate(&mut self, check: Check, id: &'static str) -> Result<(), &'static str> {
        let blocks = matches!(check.status, Status::Fail | Status::Unknown);
        self.add(check);
        if blocks { Err(id) } else { Ok(()) }
    }

    /// The first check with one of these id prefixes that failed or is unknown.
    fn failed(&self, prefixes: &[&str]) -> Option<&'static str> {
        use crate::report::Status::{Fail, Unknown};
        let failed = self.checks.iter().filter(|it| matches!(it.status, Fail | Unknown));
        let mut named = failed.filter(|it| prefixes.iter().any(|prefix| it.id.starts_with(prefix)));
        let found = named.next()?;
        IDS.iter().copied().find(|id| found.id == *id)
    }

    fn passed(&self, id: &str) -> bool {
        self.checks.iter().any(|it| it.id == id && it.status == Status::Pass)
    }

    fn take(&mut self, id: &str) -> Option<Check> {
        let at = self.checks.iter().position(|check| check.id == id)?;
        Some(self.checks.remove(at))
    }
}

/// Runs the checks in order; the error is the id of the check that blocks the following ones.
async fn run_checks(
    plan: &Plan,
    outbound: &Outbound,
    findings: &mut Findings,
) -> Result<(), &'static str> {
    let callback = url::evaluate(plan, findings)?;
    let observations = Box::pin(collect::collect(plan, callback, outbound)).await;
    findings.subject = Some(match observations.primary() {
        Some(_) if observations.proxy().is_some() => {
            let proxy = observations.proxy().unwrap_or_default();
            format!("{} via the proxy {proxy}", observations.callback.shown())
        }
        Some(probed) => format!("{} via {}", observations.callback.shown(), probed.address.ip()),
        None => observations.callback.shown(),
    });
    let result = evaluate(plan, &observations, findings);
    platform::replace_hints(&plan.selection, &observations, &mut findings.checks);
    result
}

fn evaluate(
    plan: &Plan,
    observations: &Observations,
    findings: &mut Findings,
) -> Result<(), &'static str> {
    nango::evaluate_callback(plan, observations, findings);
    dns::evaluate(plan.strict, observations, findings)?;
    tls::evaluate(observations, findings)?;
    redirect::evaluate(plan, observations, findings)?;
    nango::evaluate_echo(plan, observations, findings);
    nango::evaluate_end_to_end(plan, observations, findings);
    Ok(())
}

/// The selected checks, and those that blocked one of them.
fn select(checks: Vec<Check>, selection: &Selection) -> Vec<Check> {
    let blockers: Vec<_> = checks
        .iter()
        .filter(|check| selection.wants(&check.id))
        .filter_map(|check| check.blocked_by)
        .collect();
    checks
        .into_iter()
        .filter(|check| selection.wants(&check.id) || blockers.contains(&&*check.id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_grouped_by_category() {
        let mut categories: Vec<&str> = Vec::new();
        for (number, id) in IDS.iter().enumerate() {
            assert!(!IDS[..number].contains(id), "{id}");
            let category = id.split('.').next().unwrap();
            if categories.last() != Some(&category) {
                assert!(!categories.contains(&category), "{id}");
                categories.push(category);
            }
        }
        assert_eq!(categories, ["url", "dns", "tls", "redirect", "nango"]);
    }

    #[test]
    fn a_check_that_blocks_a_selected_one_is_reported_too() {
        let checks = || {
            vec![
                check("dns.resolves").fail("no"),
                check("dns.public"),
                check("tls.chain").blocked("dns.resolves"),
            ]
        };
        let only = |only: &str| Selection { only: vec![only.to_owned()], skip: Vec::new() };
        let ids = |selection: &Selection| {
            select(checks(), selection)
                .into_iter()
                .map(|check| check.id.into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&only("tls.")), ["dns.resolves", "tls.chain"]);
        assert_eq!(ids(&only("dns.p")), ["dns.public"]);
        let skip = Selection { only: Vec::new(), skip: vec!["tls".to_owned()] };
        assert_eq!(ids(&skip), ["dns.resolves", "dns.public"]);
    }
}
