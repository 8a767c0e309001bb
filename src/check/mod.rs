//! The prober: a plan in, a report out.
//!
//! First `gather` asks everything that can be asked, which makes [`Observations`]; then those are
//! judged: one file for each category of checks, each a set of functions without I/O.
//! To add a check, name it in [`CHECKS`], let `gather` ask what is not asked yet, and judge it in
//! the file of its category; a check that nobody judges is reported as not run. CONTRIBUTING.md
//! says what else it takes.
//!
//! Nothing that a server says is believed to be harmless: reads are bounded, redirects are
//! followed only on hosts akin to the callback's and to the target, and what is quoted in a
//! report is the prober's own invention, or a name.

mod carry;
mod corpus;
mod dns;
mod errands;
mod gather;
mod landing;
mod manners;
mod nango;
mod observations;
mod page;
mod place;
mod plan;
mod prober;
mod query;
mod redirect;
mod tls;
mod url;

pub use plan::{Plan, Selection};

use crate::outbound::{Answer, Outbound};
use crate::report::{Check, Report, printable};
use jiff::Timestamp;
use observations::Observations;
use std::time::Instant;

/// Whether an answer is a bot wall: a challenge or a captcha in place of what was asked for.
pub fn is_bot_wall(answer: &Answer) -> bool {
    page::Page::of(answer) == Some(page::Page::BotWall)
}

/// A `state` that no Nango ever issued: a UUID of version 4 (RFC 9562 §5.4).
pub fn fresh_state() -> String {
    corpus::Run::new().state()
}

/// Letters and digits that nobody can know.
pub fn fresh_nonce() -> String {
    corpus::Run::nonce()
}

/// Runs the plan. Never fails: what cannot be done is in the report.
pub async fn run(plan: &Plan, outbound: &Outbound) -> Report {
    let (started_at, began) = (Timestamp::now(), Instant::now());
    let mut findings = Findings::default();
    let blocker = look(plan, outbound, &mut findings).await.err();
    let subject =
        findings.subject.clone().unwrap_or_else(|| printable(&place::shown(&plan.callback)));
    let all: Vec<_> = CHECKS
        .iter()
        .map(|(id, _)| {
            let mut check = findings.take(id).unwrap_or_else(|| match blocker {
                Some(blocker) => check(id).blocked(blocker),
                None => check(id).skip("not asked for"),
            });
            if check.subject.is_empty() {
                check.subject.clone_from(&subject);
            }
            check
        })
        .collect();
    Report {
        broken: findings.broken,
        callback: printable(&place::shown(&plan.callback)),
        target: printable(&place::shown(plan.target.as_str())),
        started_at,
        duration: began.elapsed(),
        checks: select(all, &plan.selection),
        switch: None,
    }
}

/// Every check that can occur, in the order of the report, with what it says when it passes or
/// is not run.
const CHECKS: &[(&str, &str)] = &[
    ("url.characters", "no invisible characters"),
    ("url.syntax", "is an absolute URL"),
    ("url.https", "is https"),
    ("url.userinfo", "no user name or password"),
    ("url.port", "no needless port"),
    ("url.case", "host in lower case"),
    ("url.lookalike", "host in plain letters"),
    ("url.slash", "no trailing slash"),
    ("url.query", "no query of its own"),
    ("url.fragment", "no fragment"),
    ("url.path", "path fits GitHub Apps too"),
    ("url.target", "is not its own target"),
    ("dns.resolves", "host has addresses"),
    ("dns.public", "addresses are public"),
    ("dns.reach", "every address accepts connections"),
    ("dns.alike", "every address answers alike"),
    ("tls.handshake", "speaks TLS 1.2 or 1.3"),
    ("tls.chain", "certificate chain is complete and trusted"),
    ("tls.name", "certificate is for this host"),
    ("tls.expiry", "certificate is valid for long enough"),
    ("redirect.answer", "answers"),
    ("redirect.page", "no page in between"),
    ("redirect.proxy", "does not fetch Nango's page itself"),
    ("redirect.status", "answers 308"),
    ("redirect.loop", "does not lead back to itself"),
    ("redirect.hops", "leads to the target in one hop"),
    ("redirect.template", "no placeholder left in the Location"),
    ("redirect.target", "leads to the target"),
    ("redirect.query", "every query arrives byte for byte"),
    ("redirect.encoding", "no byte is re-encoded"),
    ("redirect.parameters", "no parameter is lost, added or moved"),
    ("redirect.blocked", "no provider's callback is blocked"),
    ("redirect.size", "long queries arrive"),
    ("redirect.empty", "no query, no question mark"),
    ("redirect.cache", "answers are not stored"),
    ("redirect.coop", "popup keeps its opener"),
    ("redirect.referrer", "referrer is left alone"),
    ("redirect.cookie", "sets no cookie"),
    ("redirect.echo", "echoes nothing of the request"),
    ("redirect.protocols", "HTTP/1.1 and HTTP/2 answer alike"),
    ("redirect.clients", "browsers and programs are answered alike"),
    ("redirect.form", "form posts become a GET"),
    ("redirect.http", "plain http leads to https"),
    ("redirect.github", "callback for GitHub Apps answers too"),
    ("redirect.complete", "all probes were sent in time"),
    ("nango.callback", "Nango answers at the target"),
    ("nango.echo", "a callback reaches Nango whole"),
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

/// A check with its title, passing until judged otherwise.
fn check(id: &'static str) -> Check {
    let title = CHECKS.iter().find(|(known, _)| *known == id).map_or(id, |(_, title)| title);
    Check::new(id, title)
}

/// What the categories found, so far.
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

    /// Adds a check that the later ones cannot do without.
    fn gate(&mut self, check: Check, id: &'static str) -> Result<(), &'static str> {
        use crate::report::Status::{Fail, Unknown};
        let shut = matches!(check.status, Fail | Unknown);
        self.add(check);
        if shut { Err(id) } else { Ok(()) }
    }

    fn take(&mut self, id: &str) -> Option<Check> {
        let at = self.checks.iter().position(|check| check.id == id)?;
        Some(self.checks.swap_remove(at))
    }
}

/// Looks as far as it can see; an error is the check that bars the way.
async fn look(
    plan: &Plan,
    outbound: &Outbound,
    findings: &mut Findings,
) -> Result<(), &'static str> {
    let callback = url::judge(plan, findings)?;
    let seen = Box::pin(gather::gather(plan, callback, outbound)).await;
    findings.subject = Some(match seen.front() {
        Some(door) => format!("{} via {}", seen.callback.shown(), door.address.ip()),
        None => seen.callback.shown(),
    });
    nango::judge_callback(plan, &seen, findings);
    dns::judge(&seen, findings)?;
    tls::judge(&seen, findings)?;
    redirect::judge(plan, &seen, findings)?;
    nango::judge_echo(plan, &seen, findings);
    Ok(())
}

/// The checks that are wanted, and those whose failure kept a wanted one from running.
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
    fn what_bars_a_wanted_check_is_reported_with_it() {
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
