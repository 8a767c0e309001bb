//! `redirect.*`, part 2: what happens to the query.

use super::evidence::{Answer, Evidence};
use super::landing::{Landing, location_shown};
use super::origins::origin;
use super::prober::{Cause, Outcome, answer};
use super::query::Difference;
use super::{Findings, Observations, check};
use crate::outbound::Reason;
use crate::report::Check;
use http::header::{HeaderValue, LOCATION};
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
const MAX_LINES: usize = 3;

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
                // Many servers encode such bytes.
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
            let change = match id {
                "redirect.encoding" => "re-encoded",
                "redirect.parameters" => "rearranged",
                _ => "extended",
            };
            // Other queries lose values, which another check reports: "nothing breaks" would deny that.
            let (queries, prefix) = if self.broken.is_empty() {
                ("the query is", "nothing breaks in Nango; ")
            } else {
                ("other queries are", "")
            };
            return check
                .warn(format!("{queries} {change}, but Nango reads the same values"))
                .detail(lines(&self.equal))
                .hint(format!("{prefix}to forward every byte, {hint}"));
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
        let in_fragment = corpus.first().is_some_and(|first| is_in_fragment(first));
        return check("redirect.query")
            .fail("the query does not arrive")
            .detail(if in_fragment {
                "the parameters are after a `#` in the Location, and browsers do not send a fragment"
            } else {
                "the Location contains none of the parameters"
            })
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

/// Whether the parameters are in the fragment of the `Location`.
fn is_in_fragment(outcome: &Outcome) -> bool {
    let Ok(got) = &outcome.result else { return false };
    let location =
        got.response.headers.get(LOCATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let location = String::from_utf8_lossy(location);
    location.split_once('#').is_some_and(|(_, fragment)| fragment.contains(&outcome.probe.state))
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
            .unknown(format!("{unproved} of {all} queries failed, and so did plain ones"))
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
            .warn(format!("{} of {all} queries {} not redirected", lost.len(), are(lost.len())))
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
    // Only some are narrowed down to a cause.
    let narrowed = lost.iter().filter(|outcome| outcome.cause.is_some() || causes.is_empty());
    let hints: BTreeSet<_> = narrowed.map(|outcome| remedy(outcome)).collect();
    let hints: Vec<_> = hints.into_iter().collect();
    check
        .fail(format!("{} of {all} queries {} not redirected", lost.len(), are(lost.len())))
        .hint(hints.join("; "))
}

const fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// What to do about a query that is not redirected. A firewall refuses with a status of its own; other
/// responses come from a program that evaluates the parameters.
fn remedy(outcome: &Outcome) -> &'static str {
    match (&outcome.cause, &outcome.result, outcome.status().map(|status| status.as_u16())) {
        (Some(Cause::Missing("code")), ..) => {
            "redirect callbacks without a `code` too: errors and some providers send none"
        }
        (Some(Cause::Missing(_)), ..) => {
            "redirect callbacks without a `state` too: some providers send it under another name"
        }
        (_, Err(fault), _) if fault.reason == Reason::NotHttp => {
            "copy the raw query into the Location: a decoded line break ends the header field"
        }
        (_, _, Some(400 | 422)) => {
            "see the log of the program, which validates these parameters: redirect every callback"
        }
        (_, _, Some(500)) => {
            "see the log of the program, which fails on these parameters: copy the raw query into the Location without evaluating it"
        }
        (_, Ok(_), Some(200..=399)) => {
            "redirect every callback, whatever its parameters: Nango shows the errors of providers itself"
        }
        _ => {
            "exempt the path of the callback from the firewall rule that treats these parameters as an attack (CRS 930120 and 931 in ModSecurity)"
        }
    }
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
        Some(Cause::Missing(name)) => format!("; with a `{name}` it passes"),
        None => String::new(),
    };
    format!("{what}: {response}{cause}")
}

/// The hint for a server whose own limit is too low.
pub(super) const LIMITS_HINT: &str = "raise the limits for the request line, the header and the query: in nginx `large_client_header_buffers 4 32k`; in gunicorn `--limit-request-line 0`; in AWS WAF, exempt the path from SizeRestrictions_QUERYSTRING";

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
    let equal = lost.chunk_by(|one, next| one.shape() == next.shape());
    let lines: Vec<_> = equal
        .map(|equal| {
            let sizes: Vec<_> = equal.iter().map(|outcome| outcome.probe.name).collect();
            format!(
                "{}: {}",
                sizes.join(", "),
                equal.first().map(|it| it.shape()).unwrap_or_default()
            )
        })
        .collect();
    let length = least.probe.query.as_ref().map_or(0, String::len);
    let check = check.detail(lines.join("\n"));
    let hint = match least.status().map(|status| status.as_u16()) {
        Some(502) => {
            "let the proxy accept response headers with a long Location from its upstream: in nginx `proxy_buffer_size 32k` and `proxy_buffers 4 32k`"
        }
        Some(403 | 406) => {
            "exempt the path of the callback from the firewall rules about long queries; in AWS WAF, from SizeRestrictions_QUERYSTRING"
        }
        _ => LIMITS_HINT,
    };
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
