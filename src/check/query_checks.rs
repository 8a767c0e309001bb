//! `redirect.*`, part 2: what happens to the query.

use super::corpus::LARGEST_CALLBACK;
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

pub(super) fn evaluate(strict: bool, observations: &Observations, findings: &mut Findings) {
    let dropped = observations.first().and_then(Outcome::landing)
        == Some(&Landing::Altered(Difference::Dropped));
    let corpus: Vec<_> = observations.corpus().collect();
    let duration = corpus.iter().map(|outcome| outcome.duration).sum();
    let altered = Altered::in_corpus(&corpus, strict);
    findings.add(query(&corpus, &altered, dropped).duration(duration));
    findings.add(complete(observations));
    if dropped {
        findings.add(check("redirect.template"));
        for id in ON_A_QUERY {
            findings.add(check(id).blocked("redirect.query"));
        }
        return;
    }
    findings.add(template(&altered));
    findings.add(encoding(&altered));
    findings.add(parameters(&altered));
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

/// The queries that arrive altered.
struct Altered<'s> {
    /// With a change that a provider's callback can suffer: a changed value, or any change in strict
    /// mode.
    broken: Vec<(&'s Outcome, &'s Difference)>,
    /// With bytes that RFC 3986 forbids, which no provider should send.
    forbidden: Vec<(&'s Outcome, &'s Difference)>,
    /// With the same values for Nango.
    equal: Vec<(&'s Outcome, &'s Difference)>,
}

/// The checks that can report a query with the same values, in the order of precedence: a server
/// that rebuilds the query causes several kinds of differences, and they are one warning.
const ON_EQUAL_VALUES: [&str; 3] = ["redirect.encoding", "redirect.parameters", "redirect.query"];

impl<'s> Altered<'s> {
    fn in_corpus(corpus: &[&'s Outcome], strict: bool) -> Self {
        let mut all = Self { broken: Vec::new(), forbidden: Vec::new(), equal: Vec::new() };
        for outcome in corpus {
            let Some(Landing::Altered(difference)) = outcome.landing() else { continue };
            let equal = difference.keeps_values() && !strict;
            match (equal, outcome.probe.conforming) {
                (true, true) => all.equal.push((outcome, difference)),
                // Many servers encode such bytes, and nobody notices.
                (true, false) => {}
                (false, true) => all.broken.push((outcome, difference)),
                (false, false) => all.forbidden.push((outcome, difference)),
            }
        }
        all
    }

    /// Evaluates the check with this id.
    fn evaluate(&self, id: &'static str, summary: &str, hint: &str) -> Check {
        let check = check(id);
        let by = |all: &[(&'s Outcome, &'s Difference)]| -> Vec<_> {
            all.iter().copied().filter(|(_, difference)| difference.id() == id).collect()
        };
        let (broken, forbidden) = (by(&self.broken), by(&self.forbidden));
        if !broken.is_empty() {
            let all = [broken, forbidden].concat();
            return check.fail(summary).detail(lines(&all)).hint(hint);
        }
        let reports = ON_EQUAL_VALUES
            .into_iter()
            .find(|id| self.equal.iter().any(|(_, difference)| difference.id() == *id));
        if reports == Some(id) {
            return check
                .warn("the query arrives in other bytes, but Nango reads the same values")
                .detail(lines(&self.equal))
                .hint(format!("nothing breaks in Nango; to forward every byte, {hint}"));
        }
        if forbidden.is_empty() {
            return check;
        }
        check
            .warn("queries with bytes that RFC 3986 forbids are changed")
            .detail(format!(
                "{}\nno provider should send such bytes; ignore this unless yours does",
                lines(&forbidden)
            ))
            .hint(hint)
    }

    /// Whether the check with this id has nothing to report.
    fn has_none(&self, id: &str) -> bool {
        let mut all = self.broken.iter().chain(&self.forbidden).chain(&self.equal);
        !all.any(|(_, difference)| difference.id() == id)
    }
}

/// One line for each difference; a difference that every query has is listed once.
fn lines(altered: &[(&Outcome, &Difference)]) -> String {
    let mut seen: Vec<&Difference> = Vec::new();
    let mut lines = Vec::new();
    for (outcome, difference) in altered {
        if !seen.contains(difference) {
            seen.push(difference);
            lines.push(format!("{}: {}", outcome.probe.name, difference.description()));
        }
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

fn query(corpus: &[&Outcome], altered: &Altered<'_>, dropped: bool) -> Check {
    if dropped {
        return check("redirect.query")
            .fail("the query does not arrive")
            .detail("the Location contains none of the parameters")
            .hint("append the raw query; nginx: `$is_args$args`, Caddy: `{uri}`, Cloudflare: \"Preserve query string\"");
    }
    if altered.has_none("redirect.query") {
        let exact = corpus.iter().filter(|outcome| outcome.is_exact()).count();
        let all = corpus.len();
        // The checks below report the others.
        return check("redirect.query").pass(if exact == all {
            format!("{all} queries arrive byte for byte")
        } else {
            format!("the query arrives, {exact} of {all} byte for byte")
        });
    }
    altered.evaluate(
        "redirect.query",
        "the query is changed",
        "copy the raw query into the Location, and append nothing",
    )
}

/// Finds a placeholder that only some queries lead to.
fn template(altered: &Altered<'_>) -> Check {
    altered.evaluate(
        "redirect.template",
        "the Location contains an unexpanded placeholder",
        "check how your server spells the query variable in this place",
    )
}

fn encoding(altered: &Altered<'_>) -> Check {
    let twice = altered
        .broken
        .iter()
        .any(|(_, difference)| matches!(difference, Difference::Reencoded { twice: true, .. }));
    let summary = if twice { "the query is encoded twice" } else { "the query is re-encoded" };
    altered.evaluate(
        "redirect.encoding",
        summary,
        "do not parse and rebuild the query; use the raw string (`req.url`, `$args`, `RawQuery`)",
    )
}

fn parameters(altered: &Altered<'_>) -> Check {
    altered.evaluate(
        "redirect.parameters",
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
    if length <= LARGEST_CALLBACK {
        check.fail(summary).hint(hint)
    } else {
        check.warn(summary).hint(hint)
    }
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
