//! `redirect.*`, the second part: what becomes of the query.

use super::landing::{Landing, location_shown};
use super::prober::Seen;
use super::query::Difference;
use super::{Findings, Observations, check};
use crate::outbound::Reason;
use crate::report::Check;
use http::StatusCode;
use std::time::Duration;

/// Checks that say nothing when no query arrives at all.
const ON_A_QUERY: [&str; 5] = [
    "redirect.encoding",
    "redirect.parameters",
    "redirect.blocked",
    "redirect.size",
    "redirect.empty",
];

/// More findings of one kind than this are not listed.
const MOST_LINES: usize = 6;

pub(super) fn judge(seen: &Observations, findings: &mut Findings) {
    let dropped =
        seen.first().and_then(Seen::landing) == Some(&Landing::Altered(Difference::Dropped));
    let corpus: Vec<_> = seen.corpus().collect();
    let took = corpus.iter().map(|seen| seen.took).sum();
    findings.add(query(&corpus, dropped).took(took));
    findings.add(complete(seen));
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
    if !seen.providers.is_empty() {
        findings.add(blocked(&corpus).took(took));
    }
    if !seen.sizes.is_empty() {
        findings.add(size(&seen.sizes));
    }
    if !seen.empty.is_empty() {
        findings.add(empty(&seen.empty));
    }
}

/// The differences that one check reports.
struct Altered<'s> {
    lines: Vec<String>,
    /// Whether a query is among them that RFC 3986 allows.
    orderly: bool,
    differences: Vec<&'s Difference>,
}

impl<'s> Altered<'s> {
    fn by(id: &str, corpus: &[&'s Seen]) -> Self {
        let mut altered = Self { lines: Vec::new(), orderly: false, differences: Vec::new() };
        for seen in corpus {
            if let Some(Landing::Altered(difference)) = seen.landing()
                && difference.id() == id
            {
                altered.orderly |= seen.probe.orderly;
                let line = format!("{}: {}", seen.probe.name, difference.words());
                // A damage that every query takes is told once.
                if !altered.differences.contains(&difference) {
                    altered.lines.push(line);
                }
                altered.differences.push(difference);
            }
        }
        altered
    }

    fn detail(&self) -> String {
        let mut lines: Vec<_> = self.lines.iter().take(MOST_LINES).cloned().collect();
        if self.lines.len() > MOST_LINES {
            lines.push(format!("and {} more", self.lines.len() - MOST_LINES));
        }
        lines.join("\n")
    }

    fn judge(&self, check: Check, summary: &str, hint: &str) -> Check {
        if self.differences.is_empty() {
            return check;
        }
        let check = if self.orderly {
            check.fail(summary)
        } else {
            let check = check.warn(format!("{summary}, where bytes are no URL's"));
            return check.detail(self.detail()).hint(hint);
        };
        check.detail(self.detail()).hint(hint)
    }
}

fn query(corpus: &[&Seen], dropped: bool) -> Check {
    let check = check("redirect.query");
    if dropped {
        return check
            .fail("the query does not arrive")
            .detail("the Location carries none of the parameters")
            .hint("append the query as it came; nginx: `$is_args$args`, Caddy: `{uri}`, Cloudflare: \"Preserve query string\"");
    }
    let altered = Altered::by("redirect.query", corpus);
    if altered.differences.is_empty() {
        let exact = corpus.iter().filter(|seen| seen.is_exact()).count();
        let all = corpus.len();
        // What else became of the others is said by the checks below.
        return if exact == all {
            check.pass(format!("{all} queries arrive byte for byte"))
        } else {
            check.pass(format!("the query arrives, {exact} of {all} byte for byte"))
        };
    }
    altered.judge(
        check,
        "the query is changed",
        "copy the query into the Location as it came, and append nothing",
    )
}

/// A placeholder in some queries alone.
fn template(corpus: &[&Seen]) -> Check {
    Altered::by("redirect.template", corpus).judge(
        check("redirect.template"),
        "a placeholder stands in the Location as it is written",
        "see how your server writes the query string there",
    )
}

fn encoding(corpus: &[&Seen]) -> Check {
    let altered = Altered::by("redirect.encoding", corpus);
    let twice =
        altered.differences.iter().any(|d| matches!(d, Difference::Reencoded { twice: true, .. }));
    let summary = if twice { "the query is encoded twice" } else { "the query is re-encoded" };
    altered.judge(
        check("redirect.encoding"),
        summary,
        "do not parse the query and build it anew; take the raw string (`req.url`, `$args`, `RawQuery`)",
    )
}

fn parameters(corpus: &[&Seen]) -> Check {
    Altered::by("redirect.parameters", corpus).judge(
        check("redirect.parameters"),
        "parameters are lost, added or moved",
        "do not go through a map of parameters; take the raw query string, and let the framework add nothing to it",
    )
}

fn blocked(corpus: &[&Seen]) -> Check {
    let check = check("redirect.blocked");
    let mut lines = Vec::new();
    let (mut orderly, mut count, mut limited) = (false, 0, 0);
    for seen in corpus.iter().skip(1) {
        let why = match (&seen.result, seen.landing()) {
            (Err(fault), _) if fault.reason == Reason::OutOfTime => continue,
            (Err(fault), _) => fault.text.clone(),
            (_, Some(Landing::Stays(status))) => format!("answers {}", status.as_u16()),
            (Ok(got), Some(Landing::Elsewhere(_))) => {
                format!("leads to {}", location_shown(&got.answer.headers))
            }
            _ => continue,
        };
        count += 1;
        limited += usize::from(seen.status() == Some(StatusCode::TOO_MANY_REQUESTS));
        orderly |= seen.probe.orderly;
        if lines.len() < MOST_LINES {
            let probe = &seen.probe;
            let what = if probe.name == probe.what {
                probe.name.to_owned()
            } else {
                format!("{} ({})", probe.name, probe.what)
            };
            lines.push(format!("{what}: {why}"));
        }
    }
    if count == 0 {
        return check.pass(format!("none of {} callbacks is blocked", corpus.len()));
    }
    if limited == count {
        return check
            .unknown(format!("{count} of {} callbacks met a rate limit", corpus.len()))
            .hint("exempt the callback's path from rate limits: whole offices sign in from one address");
    }
    let summary = format!("{count} of {} callbacks are not redirected", corpus.len());
    let check = if orderly {
        check.fail(summary).hint("exempt the callback's path from the firewall rule that takes such parameters for an attack (CRS 930120 and 931 in ModSecurity)")
    } else {
        check.warn(summary).hint("only queries are refused that no provider should send; nothing to do unless yours does")
    };
    check.detail(lines.join("\n"))
}

fn size(sizes: &[Seen]) -> Check {
    let took: Duration = sizes.iter().map(|seen| seen.took).sum();
    let check = check("redirect.size").took(took);
    let arrives = |seen: &&Seen| match seen.landing() {
        // What happens to every query is told elsewhere.
        Some(Landing::Altered(difference)) => {
            !matches!(difference, Difference::Cut(_) | Difference::Dropped)
        }
        landing => landing.is_some_and(Landing::is_exact),
    };
    let judged: Vec<_> = sizes.iter().filter(|seen| !is_out_of_time(seen)).collect();
    let lost: Vec<_> = judged.iter().filter(|seen| !arrives(seen)).collect();
    let Some(least) = lost.first() else {
        return match judged.last() {
            Some(longest) => check.pass(format!("queries of {} arrive", longest.probe.name)),
            None => check.unknown("the time was used up"),
        };
    };
    let lines: Vec<_> =
        lost.iter().map(|seen| format!("{}: {}", seen.probe.name, seen.shape())).collect();
    let length = least.probe.query.as_ref().map_or(0, String::len);
    let check = check.detail(lines.join("\n"));
    let hint = "raise the limits on request line, header fields and query: nginx `large_client_header_buffers 4 32k`; in AWS WAF, exempt the path from SizeRestrictions_QUERYSTRING";
    // Codes with echoed scopes reach 6 KiB.
    let summary = format!("queries of {} do not arrive", least.probe.name);
    if length < 6 << 10 { check.fail(summary).hint(hint) } else { check.warn(summary).hint(hint) }
}

fn empty(empty: &[Seen]) -> Check {
    let check = check("redirect.empty");
    let [none, bare] = empty else { return check.skip("not run") };
    for seen in [none, bare] {
        match seen.landing() {
            Some(Landing::Altered(Difference::Dangling)) => {
                return check
                    .warn("a bare `?` is appended when there is no query")
                    .detail("harmless to Nango, but a sign that the Location is built by hand")
                    .hint(
                        "add the `?` only where there is a query; in nginx, `$is_args$args` does",
                    );
            }
            // What happens to every query is told elsewhere; and an answer that leaves out a
            // bare `?` says the same.
            Some(Landing::Exact | Landing::Altered(_)) => {}
            None if is_out_of_time(seen) => return check.unknown("the time was used up"),
            _ => {
                return check
                    .warn("a callback without parameters is not redirected")
                    .detail(format!("with {}: {}", seen.probe.what, seen.shape()))
                    .hint("nothing to do if such callbacks are refused on purpose");
            }
        }
    }
    check
}

/// Whether the probe was not sent for want of time.
fn is_out_of_time(seen: &Seen) -> bool {
    seen.result.as_ref().is_err_and(|fault| fault.reason == Reason::OutOfTime)
}

/// Whether the time was enough.
fn complete(seen: &Observations) -> Check {
    let check = check("redirect.complete");
    let all = seen.corpus().chain(&seen.sizes).chain(&seen.empty);
    let unsent = all.filter(|seen| is_out_of_time(seen)).count();
    if unsent == 0 {
        return check;
    }
    check
        .unknown(format!("the time was used up with {unsent} probes unsent"))
        .hint("give it more --timeout, or see why the callback answers so slowly")
}
