//! `redirect.*`, part 1: whether the response is a redirect to the target.

use super::evidence::{Answer, Evidence};
use super::landing::{Elsewhere, Landing};
use super::location::{Parts, shown};
use super::observations::{Obstacle, RedirectChain};
use super::page::Page;
use super::plan::Plan;
use super::prober::{Outcome, Received};
use super::query::Difference;
use super::{Findings, Observations, check, query_checks, response_headers};
use crate::outbound::{Fault, Protocol, Reason};
use crate::report::{Check, Status};
use http::StatusCode;

pub(super) fn evaluate(
    plan: &Plan,
    observations: &Observations,
    findings: &mut Findings,
) -> Result<(), &'static str> {
    let Some(first) = observations.first() else { return Ok(()) };
    let got = match &first.result {
        Err(fault) => return findings.gate(no_response(fault), "redirect.answer"),
        Ok(got) => got,
    };
    findings.add(answer(observations, got).duration(got.response.head_time));
    obstacle(observations, findings);
    page(got, findings)?;
    status(got, findings)?;
    chain(observations, findings)?;
    template(observations, got, findings)?;
    target(plan, observations, got, findings)?;
    query_checks::evaluate(plan.strict, observations, findings);
    response_headers::evaluate(plan.strict, observations, findings);
    if has_stopped(observations) {
        for check in &mut findings.checks {
            let Some(id) = AFTER_THE_QUERIES.iter().find(|id| **id == check.id) else { continue };
            if matches!(check.status, Status::Fail | Status::Warn) {
                *check = super::check(id).blocked("redirect.answer");
            }
        }
    }
    Ok(())
}

/// Checks of requests that are sent after those of the queries, and compared with no control.
const AFTER_THE_QUERIES: [&str; 5] = [
    "redirect.empty",
    "redirect.protocols",
    "redirect.clients",
    "redirect.form",
    "redirect.github",
];

/// Whether plain queries reached the target at first, and never again: a ban of this machine looks
/// like this, whatever its status, and proves nothing about users.
fn has_stopped(observations: &Observations) -> bool {
    let all: Vec<&Outcome> =
        observations.by_address().into_iter().flat_map(|(_, outcomes)| outcomes).collect();
    let worked = all.iter().any(|it| it.evidence() == Evidence::Works);
    worked
        && all.iter().any(|it| it.evidence() == Evidence::Failing && it.controls.len() > 1)
        && all.iter().all(|it| !it.controls.contains(&Answer::Reached))
        && all.iter().all(|it| it.evidence() != Evidence::Intermittent)
}

/// Whether the server responds to every request, and with a header that all clients accept.
fn answer(observations: &Observations, got: &Received) -> Check {
    let check = check("redirect.answer");
    let (mut sent, mut failed, mut lines) = (0, 0, Vec::new());
    for (address, outcomes) in observations.by_address() {
        let failures = Failures::of(&outcomes);
        sent += failures.sent;
        failed += failures.failed;
        if failures.failed > 0 {
            let kinds: Vec<_> = failures
                .shapes
                .iter()
                .map(|(shape, count)| format!("{shape} ({count}×)"))
                .collect();
            lines.push(format!(
                "{address}: {} of {} requests failed: {}",
                failures.failed,
                failures.sent,
                kinds.join(", ")
            ));
        }
    }
    if failed > 0 {
        let summary = format!("{failed} of {sent} requests failed");
        let check = check.detail(lines.join("\n"));
        if has_stopped(observations) {
            return check
                .unknown(format!("after {} requests, all others fail", sent - failed))
                .hint("see the logs of the server and of its firewall: a rate limit or a ban of this machine looks like this, and so does a server that stopped; exempt the path of the callback from rate limits: all users of an office may share one address");
        }
        let is_refused = |line: &String| line.contains(" failed: 403, no redirect (");
        let hint = if lines.iter().all(is_refused) {
            "see the log of the firewall: a rate limit, or a rule that some values of `code` and `state` trigger, refuses these requests now and then"
        } else {
            "find out which of the servers behind this address fails now and then, and see their logs; the same requests succeed when they are repeated"
        };
        // One failure may be a restart, or the network of this machine.
        return if failed == 1 {
            check.warn(summary).hint(hint)
        } else {
            check.fail(summary).hint(hint)
        };
    }
    let fields = got.response.headers.len();
    if fields > MAX_FIELDS {
        return check
            .warn(format!("the response has {fields} header fields"))
            .detail(format!("some programs reject more than {MAX_FIELDS}, for example those that use Python's http.client"))
            .hint("find out which component adds header fields to the redirect; it needs `Location` and `Cache-Control`");
    }
    check.pass(format!("responds over {}", got.response.protocol.name()))
}

/// Python's `http.client` and Node's default accept no more.
const MAX_FIELDS: usize = 100;

/// The failures of an address that are not about a query.
#[derive(Default)]
struct Failures {
    sent: usize,
    failed: usize,
    /// Each with its count.
    shapes: Vec<(String, usize)>,
}

impl Failures {
    fn of(outcomes: &[&Outcome]) -> Self {
        let mut failures = Self::default();
        let is_unsteady = outcomes.iter().any(|it| it.evidence() == Evidence::Intermittent);
        for outcome in outcomes {
            let answers = || outcome.attempts.iter().chain(&outcome.controls);
            failures.sent += answers().filter(|it| **it != Answer::NotSent).count();
            let counts = match outcome.evidence() {
                Evidence::Intermittent => true,
                // Another query failed too.
                Evidence::Failing => outcome.controls.contains(&Answer::Failed),
                Evidence::Unrepeated => is_unsteady,
                _ => false,
            };
            if !counts {
                continue;
            }
            failures.failed += answers().filter(|it| **it == Answer::Failed).count();
            for shape in &outcome.failures {
                match failures.shapes.iter_mut().find(|(known, _)| known == shape) {
                    Some((_, count)) => *count += 1,
                    None => failures.shapes.push((shape.clone(), 1)),
                }
            }
        }
        failures
    }
}

/// What the first request lacked, and all others had.
fn obstacle(observations: &Observations, findings: &mut Findings) {
    match &observations.obstacle {
        None => {}
        Some(Obstacle::Cookie(without)) => {
            let hint = "exempt the path of the callback from the cookie wall: browsers may block the cookie, and programs do not keep it";
            let status = without.response.status.as_u16();
            findings.add(if matches!(without.landing, Landing::Stays(_)) {
                check("redirect.page")
                    .fail(format!("a cookie wall: responds with {status} until the cookie is returned"))
                    .detail("the response sets a cookie; with this cookie, the same request is redirected to the target")
                    .hint(hint)
            } else {
                check("redirect.loop")
                    .fail("a cookie wall: redirects to itself until the cookie is returned")
                    .detail(format!("the response is {status} and sets a cookie; with this cookie, the same request is redirected to the target"))
                    .hint(hint)
            });
        }
        Some(Obstacle::Protocol(failing)) => {
            let working =
                if *failing == Protocol::Http1 { Protocol::Http2 } else { Protocol::Http1 };
            let first = observations.primary().and_then(|probed| probed.first.as_ref());
            let shape = first.map(Outcome::shape).unwrap_or_default();
            findings.add(
                check("redirect.protocols")
                    .fail(format!("works only over {}", working.name()))
                    .detail(format!(
                        "{}: {shape}\nall other checks use {}",
                        failing.name(),
                        working.name()
                    ))
                    .hint("configure the path of the callback identically for both versions"),
            );
        }
    }
}

fn no_response(fault: &Fault) -> Check {
    let check = check("redirect.answer").detail(fault.to_string());
    match fault.reason {
        Reason::OutOfTime => check.unknown("not probed within the time limit"),
        Reason::Timeout => check
            .fail("does not respond in time")
            .hint("find out what delays the server; a redirect needs no slow operation"),
        Reason::TooLarge => check
            .fail("the response header is too large")
            .hint("find out what adds header fields of this size; browsers reject them too"),
        Reason::NotHttp => {
            check.fail("the response is not HTTP").hint("check what listens on this port")
        }
        Reason::Closed => check
            .fail("the server closes the connection without a response")
            .hint("see the log of the server; a firewall that rejects the request does this too"),
        _ => check.fail("no response").hint("see the log of the server"),
    }
}

/// Whether the response is a page instead of a redirect.
fn page(got: &Received, findings: &mut Findings) -> Result<(), &'static str> {
    let status = got.response.status.as_u16();
    match Page::of(&got.response) {
        Some(Page::Nango) => {
            findings.add(check("redirect.page"));
            let check = check("redirect.proxy")
                .fail("fetches Nango's page instead of redirecting the browser")
                .detail(format!("responds with {status} and the page of Nango's callback"))
                .hint(Page::Nango.hint());
            findings.gate(check, "redirect.proxy")
        }
        Some(page) => {
            let check = check("redirect.page")
                .fail(format!("responds with {status} and {}", page.description()))
                .hint(page.hint());
            findings.gate(check, "redirect.page")
        }
        None => {
            findings.add(check("redirect.page"));
            findings.add(check("redirect.proxy"));
            Ok(())
        }
    }
}

fn status(got: &Received, findings: &mut Findings) -> Result<(), &'static str> {
    let check = check("redirect.status");
    let hint = "respond with 308 Permanent Redirect and `Cache-Control: no-store`";
    if let Landing::Stays(status) = got.landing {
        let (what, hint) = no_redirect(status);
        // Every repeat was limited too, but other clients may cause that.
        if status == StatusCode::TOO_MANY_REQUESTS {
            let check =
                check.unknown("the server limits the request rate (429)").detail(what).hint(hint);
            return findings.gate(check, "redirect.status");
        }
        let check = check
            .fail(format!("responds with {} instead of a redirect", status.as_u16()))
            .detail(what)
            .hint(hint);
        return findings.gate(check, "redirect.status");
    }
    let check = match got.response.status.as_u16() {
        308 => check,
        301 => check
            .warn("responds with 301")
            .detail("works, but Nango's documentation requires 308; browsers cache a 301 permanently unless `Cache-Control: no-store` forbids it (RFC 9110 §15.4.2)")
            .hint(hint),
        307 => check
            .warn("responds with 307")
            .detail("works, but Nango's documentation requires 308 (RFC 9110 §15.4.8, §15.4.9)")
            .hint(hint),
        303 => check
            .warn("responds with 303")
            .detail("works (RFC 9110 §15.4.4), but Nango's documentation requires 308")
            .hint(hint),
        _ => check
            .warn("responds with 302")
            .detail("works (RFC 9110 §15.4.3), but Nango's documentation requires 308; 302 is acceptable when your load balancer cannot send 308")
            .hint(hint),
    };
    findings.add(check);
    Ok(())
}

/// What a response that is not a redirect usually means, and how to fix it.
fn no_redirect(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        401 | 407 => (
            "the server requires credentials, which browsers do not send here",
            "exempt the path of the callback from authentication",
        ),
        403 => (
            "a firewall, bot protection or an access list rejects the request",
            "exempt the path of the callback from these rules",
        ),
        404 | 410 => (
            "nothing is configured at this path",
            "add the route; compare the path, including case, with the registered URL",
        ),
        405 => ("the path exists, but not for GET", "redirect GET requests on this path"),
        414 | 431 => (
            "the server rejects even a short query as too long",
            "raise the limits for the request line and the header",
        ),
        421 => {
            ("the server does not serve this host", "add the host to the server's configuration")
        }
        429 => (
            "the server limits the request rate",
            "exempt the path of the callback from rate limits, or wait",
        ),
        200..300 => ("the server reports success", "respond with 308 and a `Location`"),
        502..=504 => (
            "the proxy cannot reach its upstream",
            "start the upstream, or check that the host still leads to the right server",
        ),
        500.. => ("the server fails", "see the log of the server"),
        _ => ("browsers do not follow this response", "respond with 308 and a `Location`"),
    }
}

/// Whether the redirects reach the target only after more hops, or never.
fn chain(observations: &Observations, findings: &mut Findings) -> Result<(), &'static str> {
    match &observations.chain {
        Some(RedirectChain::Loop(urls)) => {
            let check = check("redirect.loop")
                .fail("redirects to itself")
                .detail(urls.join(" → "))
                .hint("redirect to Nango; behind a proxy that terminates TLS, do not redirect to https because the connection to the proxy is http");
            findings.gate(check, "redirect.loop")
        }
        Some(RedirectChain::Indirect(urls)) => {
            findings.add(check("redirect.loop"));
            let last = urls.last().map_or("", String::as_str);
            let check = check("redirect.hops")
                .fail(format!("takes {} hops to the target", urls.len()))
                .detail(urls.join(" → "))
                .hint(format!("register {last} with the providers and in Nango, or redirect to the target in the first response"));
            findings.gate(check, "redirect.hops")
        }
        Some(RedirectChain::TooLong(urls)) => {
            findings.add(check("redirect.loop"));
            let check = check("redirect.hops")
                .fail(format!("takes more than {} hops", urls.len()))
                .detail(urls.join(" → "))
                .hint("redirect to the target in the first response; browsers stop after about 20 redirects");
            findings.gate(check, "redirect.hops")
        }
        Some(RedirectChain::Other) | None => {
            findings.add(check("redirect.loop"));
            findings.add(check("redirect.hops"));
            Ok(())
        }
    }
}

/// Whether the first Location has a placeholder; `query_checks` evaluates each query.
fn template(
    observations: &Observations,
    got: &Received,
    findings: &mut Findings,
) -> Result<(), &'static str> {
    let (Landing::Elsewhere(Elsewhere::Template(marker))
    | Landing::Altered(Difference::Template(marker))) = &got.landing
    else {
        return Ok(());
    };
    let check = check("redirect.template")
        .fail("the Location contains an unexpanded placeholder")
        .detail(format!("`{marker}` in {}", observations.first_location()))
        .hint("check how your server spells the query variable in this place, and whether quotes or a prefix prevent the substitution");
    findings.gate(check, "redirect.template")
}

/// Whether the Location differs from the target.
fn target(
    plan: &Plan,
    observations: &Observations,
    got: &Received,
    findings: &mut Findings,
) -> Result<(), &'static str> {
    let check = check("redirect.target");
    let Landing::Elsewhere(elsewhere) = &got.landing else {
        findings.add(check);
        return Ok(());
    };
    let wanted = shown(plan.target.as_str());
    let location = observations.first_location();
    let both = format!("redirects to  {location}\nshould be     {wanted}");
    let hint = format!(
        "set the Location to {wanted}, followed by `?` and the raw query; a recent change may take minutes to spread (--wait)"
    );
    let check = match elsewhere {
        Elsewhere::Missing => {
            check.fail("the redirect has no Location").detail("browsers do not navigate").hint(hint)
        }
        Elsewhere::Several(count) => check
            .fail(format!("the redirect has {count} Location fields"))
            .detail("browsers use the first, the last, or neither")
            .hint("make sure that only one component sets the Location"),
        Elsewhere::Glued => check
            .fail("the query follows the path without a `?`")
            .detail("the query becomes a part of the path")
            .hint("put a `?` before the query; in nginx, `$is_args$args` does this"),
        Elsewhere::OwnQuery => check
            .fail("the target's own query is missing")
            .detail(both)
            .hint("append the query of the callback to the target's query with `&`"),
        Elsewhere::Invalid => check.fail("the Location is not a valid URL").detail(both).hint(hint),
        Elsewhere::Relative => {
            check.fail("redirects to the callback's own host").detail(both).hint(hint)
        }
        Elsewhere::Path => check.fail("redirects to another path").detail(both).hint(hint),
        Elsewhere::Site | Elsewhere::Template(_) => {
            site(plan, &location, check).detail(both).hint(hint)
        }
    };
    findings.gate(check, "redirect.target")
}

fn site(plan: &Plan, location: &str, check: Check) -> Check {
    // Without a scheme it has the callback's (RFC 3986 §4.2).
    let location = match plan.callback.split_once(':') {
        Some((scheme, _)) if location.starts_with("//") => format!("{scheme}:{location}"),
        _ => location.to_owned(),
    };
    let (got, wanted) = (Parts::of(&location).server(), Parts::of(plan.target.as_str()).server());
    let (Some(got), Some(wanted)) = (got, wanted) else { return check.fail("redirects elsewhere") };
    if got.host != wanted.host {
        const LOGIN: [&str; 6] = ["login", "signin", "sign-in", "sso", "cloudflareaccess", "auth0"];
        let login = LOGIN.iter().any(|mark| location.to_ascii_lowercase().contains(mark));
        let what = if login { "another host, probably a login page" } else { "another host" };
        check.fail(format!("redirects to {what}"))
    } else if got.tls != wanted.tls {
        check.fail(format!("redirects to {} instead of {}", got.scheme(), wanted.scheme()))
    } else {
        check.fail(format!("redirects to port {} instead of {}", got.port, wanted.port))
    }
}
