//! `redirect.*`, part 2: what happens to the query.

use super::landing::{Landing, location_shown};
use super::prober::Outcome;
use super::query::Difference;
use super::{Findings, Observations, check};
use crate::outbound::Reason;
use crate::report::Check;
use http::StatusCode;
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
    let mut lines = Vec::new();
    let (mut conforming, mut count, mut limited) = (false, 0, 0);
    for outcome in corpus.iter().skip(1) {
        let why = match (&outcome.result, outcome.landing()) {
            (Err(fault), _) if fault.reason == Reason::OutOfTime => continue,
            (Err(fault), _) => fault.text.clone(),
            (_, Some(Landing::Stays(status))) => format!("responds with {}", status.as_u16()),
            (Ok(got), Some(Landing::Elsewhere(_))) => {
                format!("redirects to {}", location_shown(&got.response.headers))
            }
            _ => continue,
        };
        count += 1;
        limited += usize::from(outcome.status() == Some(StatusCode::TOO_MANY_REQUESTS));
        conforming |= outcome.probe.conforming;
        if lines.len() < MAX_LINES {
            let probe = &outcome.probe;
            let what = if probe.name == probe.what {
                probe.name.to_owned()
            } else {
                format!("{} ({})", probe.name, probe.what)
            };
            lines.push(format!("{what}: {why}"));
        }
    }
    if count == 0 {
        return check.pass(format!("none of {} queries is blocked", corpus.len()));
    }
    if limited == count {
        return check
            .unknown(format!("{count} of {} queries are rate-limited", corpus.len()))
            .hint("exempt the path of the callback from rate limits: all users of an office may share one address");
    }
    let summary = format!("{count} of {} queries are not redirected", corpus.len());
    let check = if conforming {
        check.fail(summary).hint("exempt the path of the callback from the firewall rule that treats these parameters as an attack (CRS 930120 and 931 in ModSecurity)")
    } else {
        check.warn(summary).hint("only queries that no provider should send are rejected; ignore this unless your provider sends them")
    };
    check.detail(lines.join("\n"))
}

fn size(sizes: &[Outcome]) -> Check {
    let duration: Duration = sizes.iter().map(|outcome| outcome.duration).sum();
    let check = check("redirect.size").duration(duration);
    let arrives = |outcome: &&Outcome| match outcome.landing() {
        // Other checks report what happens to every query.
        Some(Landing::Altered(difference)) => {
            !matches!(difference, Difference::Cut(_) | Difference::Dropped)
        }
        landing => landing.is_some_and(Landing::is_exact),
    };
    let sent: Vec<_> = sizes.iter().filter(|outcome| !is_out_of_time(outcome)).collect();
    let lost: Vec<_> = sent.iter().filter(|outcome| !arrives(outcome)).collect();
    let Some(least) = lost.first() else {
        return match sent.last() {
            Some(longest) => check.pass(format!("queries of {} arrive", longest.probe.name)),
            None => check.unknown("not probed within the time limit"),
        };
    };
    let lines: Vec<_> =
        lost.iter().map(|outcome| format!("{}: {}", outcome.probe.name, outcome.shape())).collect();
    let length = least.probe.query.as_ref().map_or(0, String::len);
    let check = check.detail(lines.join("\n"));
    let hint = "raise the limits for the request line, the header and the query: in nginx `large_client_header_buffers 4 32k`; in AWS WAF, exempt the path from SizeRestrictions_QUERYSTRING";
    // Callbacks with long codes and scopes reach 6 KiB.
    let summary = format!("queries of {} do not arrive", least.probe.name);
    if length < 6 << 10 { check.fail(summary).hint(hint) } else { check.warn(summary).hint(hint) }
}

fn empty(empty: &[Outcome]) -> Check {
    let check = check("redirect.empty");
    let [none, bare] = empty else { return check.skip("not run") };
    for outcome in [none, bare] {
        match outcome.landing() {
            Some(Landing::Altered(Difference::Dangling)) => {
                return check
                    .warn("appends a bare `?` when there is no query")
                    .detail("harmless for Nango, but a sign that the Location is built by hand")
                    .hint("append the `?` only when there is a query: `$is_args$args` in nginx");
            }
            // Other checks report what happens to every query; omitting a bare `?` is equivalent.
            Some(Landing::Exact | Landing::Altered(_)) => {}
            None if is_out_of_time(outcome) => {
                return check.unknown("not probed within the time limit");
            }
            _ => {
                return check
                    .warn("a callback without parameters is not redirected")
                    .detail(format!("with {}: {}", outcome.probe.what, outcome.shape()))
                    .hint("ignore this if the server rejects such callbacks intentionally");
            }
        }
    }
    check
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
        .unknown(format!("{unsent} {probes} not sent within the time limit"))
        .hint("raise --timeout, or find out why the callback responds slowly")
}
