//! `redirect.*`, part 2: what happens to the query.

use super::evidence::{Answer, Evidence};
use super::landing::{Landing, location_shown};
use super::origins::origin;
use super::prober::{Cause, Outcome, answer};
use super::query::Difference;
use super::{Findings, Observations, check};
use crate::outbound::Reason;
use crate::report::Check;
use std::collections::BTreeSet;
use std::time::Duration;

/// Checks that are not evaluated when no query arrives.
const ON_A_QUERY: [&str; 5] = [
    "redirect.encoding",
    "redirect.parameters",
    "redirect.blocked",
    "redirect.size",
    "redirect.empty",
];

/// The maximum of findings of one kind to list.
const MAX_LINES: usize = 6;

pub(super) fn evaluate(observations: &Observations, findings: &mut Findings) {
    let dropped = observations.first().and_then(Outcome::landing)
        == Some(&Landing::Altered(Difference::Dropped));
    let corpus: Vec<_> = observations.corpus().collect();
    let duration = corpus.iter().map(|outcome| outcome.duration).sum();
    findings.add(query(&corpus, dropped).duration(duration));
    findings.add(complete(observations));
    if dropped {
        findings.add(check("redirect.template"));
        for id in ON_A_QUERY {
            findings.add(check(id).blocked("redirect.query"));
        }
        return;
    }
    findings.add(template(&corpus));
    findings.add(encoding(&corpus));
    findings.add(parameters(&corpus));
    if !observations.providers.is_empty() {
        findings.add(blocked(&corpus).duration(duration));
    }
    if !observations.sizes.is_empty() {
        findings.add(size(&observations.sizes));
    }
    if !observations.empty.is_empty() {
        findings.add(empty(&observations.empty));
    }
}

/// The differences that one check reports.
struct Altered<'s> {
    lines: Vec<String>,
    /// Whether one of the queries conforms to RFC 3986.
    conforming: bool,
    differences: Vec<&'s Difference>,
}

impl<'s> Altered<'s> {
    fn by(id: &str, corpus: &[&'s Outcome]) -> Self {
        let mut altered = Self { lines: Vec::new(), conforming: false, differences: Vec::new() };
        for outcome in corpus {
            if let Some(Landing::Altered(difference)) = outcome.landing()
                && difference.id() == id
            {
                altered.conforming |= outcome.probe.conforming;
                let line = format!("{}: {}", outcome.probe.name, difference.description());
                // A difference that every query has is listed once.
                if !altered.differences.contains(&difference) {
                    altered.lines.push(line);
                }
                altered.differences.push(difference);
            }
        }
        altered
    }

    fn detail(&self) -> String {
        let mut lines: Vec<_> = self.lines.iter().take(MAX_LINES).cloned().collect();
        if self.lines.len() > MAX_LINES {
            lines.push(format!("and {} more", self.lines.len() - MAX_LINES));
        }
        lines.join("\n")
    }

    fn evaluate(&self, check: Check, summary: &str, hint: &str) -> Check {
        if self.differences.is_empty() {
            return check;
        }
        let detail = self.detail();
        if self.conforming {
            check.fail(summary).detail(detail).hint(hint)
        } else {
            check
                .warn("queries with bytes that RFC 3986 forbids are changed")
                .detail(format!(
                    "{detail}\nno provider should send such bytes; ignore this unless yours does"
                ))
                .hint(hint)
        }
    }
}

fn query(corpus: &[&Outcome], dropped: bool) -> Check {
    let check = check("redirect.query");
    if dropped {
        return check
            .fail("the query does not arrive")
            .detail("the Location contains none of the parameters")
            .hint("append the raw query; nginx: `$is_args$args`, Caddy: `{uri}`, Cloudflare: \"Preserve query string\"");
    }
    let altered = Altered::by("redirect.query", corpus);
    if altered.differences.is_empty() {
        let exact = corpus.iter().filter(|outcome| outcome.is_exact()).count();
        let all = corpus.len();
        // The checks below report the others.
        return if exact == all {
            check.pass(format!("{all} queries arrive byte for byte"))
        } else {
            check.pass(format!("the query arrives, {exact} of {all} byte for byte"))
        };
    }
    altered.evaluate(
        check,
        "the query is changed",
        "copy the raw query into the Location, and append nothing",
    )
}

/// Finds a placeholder that only some queries lead to.
fn template(corpus: &[&Outcome]) -> Check {
    Altered::by("redirect.template", corpus).evaluate(
        check("redirect.template"),
        "the Location contains an unexpanded placeholder",
        "check how your server spells the query variable in this place",
    )
}

fn encoding(corpus: &[&Outcome]) -> Check {
    let altered = Altered::by("redirect.encoding", corpus);
    let twice =
        altered.differences.iter().any(|d| matches!(d, Difference::Reencoded { twice: true, .. }));
    let summary = if twice { "the query is encoded twice" } else { "the query is re-encoded" };
    altered.evaluate(
        check("redirect.encoding"),
        summary,
        "do not parse and rebuild the query; use the raw string (`req.url`, `$args`, `RawQuery`)",
    )
}

fn parameters(corpus: &[&Outcome]) -> Check {
    Altered::by("redirect.parameters", corpus).evaluate(
        check("redirect.parameters"),
        "parameters are lost, added or moved",
        "use the raw query string instead of a map of parameters; make sure that the framework adds nothing",
    )
}

fn blocked(corpus: &[&Outcome]) -> Check {
    let check = check("redirect.blocked");
    let of = |evidence: Evidence| -> Vec<&Outcome> {
        corpus.iter().skip(1).filter(|it| it.evidence() == evidence).copied().collect()
    };
    let limited = of(Evidence::Limited);
    let mut lost = of(Evidence::Blocked);
    let is_proved = !lost.is_empty();
    // Their failures are the same, and are repeated only up to a limit.
    if is_proved && of(Evidence::Intermittent).is_empty() {
        lost.extend(of(Evidence::Unrepeated));
    }
    let all = corpus.len();
    if is_proved {
        return not_redirected(check, &lost, all);
    }
    if !limited.is_empty() {
        return check
            .unknown(format!("{} of {all} queries were rate-limited", limited.len()))
            .detail("the server limits the request rate; no query is reported as blocked for that")
            .hint("exempt the path of the callback from rate limits: all users of an office may share one address");
    }
    let unproved = of(Evidence::Failing).len() + of(Evidence::Unrepeated).len();
    if unproved > 0 {
        return check
            .unknown(format!(
                "{unproved} of {all} queries failed, but not because of their content"
            ))
            .hint("fix redirect.answer first, then run the check again");
    }
    check.pass(format!("none of {all} queries is blocked"))
}

/// Queries that fail repeatedly while others of the same length pass.
fn not_redirected(check: Check, lost: &[&Outcome], all: usize) -> Check {
    let mut lines: Vec<_> = lost.iter().take(MAX_LINES).map(|outcome| why(outcome)).collect();
    if lost.len() > MAX_LINES {
        lines.push(format!("and {} more", lost.len() - MAX_LINES));
    }
    let check = check.detail(lines.join("\n"));
    if !lost.iter().any(|outcome| outcome.probe.conforming) {
        return check
            .warn(format!("{} of {all} queries are not redirected", lost.len()))
            .hint("only queries that no provider should send are rejected; ignore this unless your provider sends them");
    }
    let causes: Vec<_> = lost.iter().filter_map(|outcome| outcome.cause.as_ref()).collect();
    if !causes.is_empty() && causes.iter().all(|cause| matches!(cause, Cause::Referer(_))) {
        let origins: BTreeSet<_> = lost.iter().filter_map(|it| origin(it.probe.name)).collect();
        let first = origins.first().copied().unwrap_or_default();
        let others = match origins.len() {
            0 | 1 => String::new(),
            2 => " and one other site".to_owned(),
            several => format!(" and {} other sites", several - 1),
        };
        return check
            .fail(format!("requests that come from {first}/{others} are refused"))
            .hint("accept every `Referer` on the path of the callback: browsers send the origin of the provider; in nginx, remove `valid_referers`");
    }
    let timed_out = |outcome: &&Outcome| {
        outcome.result.as_ref().is_err_and(|fault| fault.reason == Reason::Timeout)
    };
    if lost.iter().all(timed_out) {
        return check
            .fail(format!("{} of {all} queries get no response in time", lost.len()))
            .hint("see the log of the server; a firewall that drops these requests does this too");
    }
    check
        .fail(format!("{} of {all} queries are not redirected", lost.len()))
        .hint("exempt the path of the callback from the firewall rule that treats these parameters as an attack (CRS 930120 and 931 in ModSecurity)")
}

/// Which query is lost, what happens to it, and what causes that.
fn why(outcome: &Outcome) -> String {
    let probe = &outcome.probe;
    let what = if probe.name == probe.what {
        probe.name.to_owned()
    } else {
        format!("{} ({})", probe.name, probe.what)
    };
    let response = match (&outcome.result, outcome.landing()) {
        (Err(fault), _) => fault.text.clone(),
        (Ok(got), Some(Landing::Elsewhere(_))) => {
            format!("redirects to {}", location_shown(&got.response.headers))
        }
        (Ok(got), _) => format!("responds with {}", got.response.status.as_u16()),
    };
    let cause = match &outcome.cause {
        Some(Cause::Referer(origin)) => format!("; without the referrer {origin}/ it passes"),
        Some(Cause::Parameter(name)) => format!("; `{name}` alone fails too"),
        None => String::new(),
    };
    format!("{what}: {response}{cause}")
}

fn size(sizes: &[Outcome]) -> Check {
    let duration: Duration = sizes.iter().map(|outcome| outcome.duration).sum();
    let check = check("redirect.size").duration(duration);
    let is_lost = |outcome: &&&Outcome| match outcome.landing() {
        Some(Landing::Altered(Difference::Cut(_) | Difference::Dropped)) => true,
        // Other checks report what happens to every query.
        _ => matches!(outcome.evidence(), Evidence::Blocked),
    };
    let sent: Vec<_> = sizes.iter().filter(|outcome| !is_out_of_time(outcome)).collect();
    let lost: Vec<_> = sent.iter().filter(is_lost).collect();
    let Some(least) = lost.first() else {
        let unproved = |outcome: &&&Outcome| answer(&outcome.result) != Answer::Reached;
        return match (sent.iter().find(unproved), sent.last()) {
            (Some(unproved), _) if unproved.evidence() == Evidence::Limited => check
                .unknown(format!("queries of {} were rate-limited", unproved.probe.name))
                .hint("exempt the path of the callback from rate limits, or wait and check again"),
            (Some(unproved), _) => check
                .unknown(format!(
                    "queries of {} failed, but not because of their size",
                    unproved.probe.name
                ))
                .hint("fix redirect.answer first, then run the check again"),
            (None, Some(longest)) => {
                check.pass(format!("queries of {} arrive", longest.probe.name))
            }
            (None, None) => check.unknown("not probed within the time limit"),
        };
    };
    let lines: Vec<_> =
        lost.iter().map(|outcome| format!("{}: {}", outcome.probe.name, outcome.shape())).collect();
    let length = least.probe.query.as_ref().map_or(0, String::len);
    let check = check.detail(lines.join("\n"));
    let hint = "raise the limits for the request line, the header and the query: in nginx `large_client_header_buffers 4 32k`; in AWS WAF, exempt the path from SizeRestrictions_QUERYSTRING";
    // Callbacks with long codes and scopes reach 6 KiB.
    let summary = format!("queries of {} do not arrive", least.probe.name);
    if length <= 6 << 10 { check.fail(summary).hint(hint) } else { check.warn(summary).hint(hint) }
}

fn empty(empty: &[Outcome]) -> Check {
    let check = check("redirect.empty");
    let mut note = None;
    for outcome in empty {
        match outcome.landing() {
            Some(Landing::Altered(Difference::Dangling)) => {
                note = Some("appends a bare `?` when there is no query, which is harmless");
            }
            // Other checks report what happens to every query; omitting a bare `?` is equivalent.
            Some(Landing::Exact | Landing::Altered(_)) => {}
            None if is_out_of_time(outcome) => {
                return check.unknown("not probed within the time limit");
            }
            Some(Landing::Stays(_)) if outcome.evidence() == Evidence::Limited => {
                return check.unknown("the server limits the request rate").hint(
                    "exempt the path of the callback from rate limits, or wait and check again",
                );
            }
            // No provider sends one.
            Some(Landing::Stays(status)) if !status.is_server_error() => {
                note = Some("a callback without parameters is not redirected, which is harmless");
            }
            Some(Landing::Elsewhere(_)) => {
                note = Some(
                    "a callback without parameters is redirected elsewhere, which is harmless",
                );
            }
            _ => {
                return check
                    .warn("a callback without parameters makes the server fail")
                    .detail(format!("with {}: {}", outcome.probe.what, outcome.shape()))
                    .hint("handle requests without parameters: monitoring and people send them");
            }
        }
    }
    match note {
        Some(note) => check.pass(note),
        None => check,
    }
}

/// Whether the probe was not sent, because the time limit was exceeded.
fn is_out_of_time(outcome: &Outcome) -> bool {
    outcome.result.as_ref().is_err_and(|fault| fault.reason == Reason::OutOfTime)
}

/// Whether all probes were sent within the time limit.
fn complete(observations: &Observations) -> Check {
    let check = check("redirect.complete");
    let all = observations.corpus().chain(&observations.sizes).chain(&observations.empty);
    let unsent = all.filter(|outcome| is_out_of_time(outcome)).count();
    if unsent == 0 {
        return check;
    }
    let probes = if unsent == 1 { "probe was" } else { "probes were" };
    check
        .unknown(format!("{unsent} {probes} not sent"))
        .detail(
            "the time limit of the check was exceeded, or the server did not respond repeatedly",
        )
        .hint("raise --timeout, or find out why the callback responds slowly")
}
