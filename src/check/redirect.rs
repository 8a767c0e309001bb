//! `redirect.*`, the first part: whether the answer is a redirect to the target at all.

use super::landing::{Elsewhere, Landing};
use super::observations::Trail;
use super::page::Page;
use super::place::{Parts, shown};
use super::plan::Plan;
use super::prober::Got;
use super::query::Difference;
use super::{Findings, Observations, carry, check, manners};
use crate::outbound::{Fault, Reason};
use crate::report::Check;
use http::StatusCode;

pub(super) fn judge(
    plan: &Plan,
    seen: &Observations,
    findings: &mut Findings,
) -> Result<(), &'static str> {
    let Some(first) = seen.first() else { return Ok(()) };
    let got = match &first.result {
        Err(fault) => return findings.gate(no_answer(fault), "redirect.answer"),
        Ok(got) => got,
    };
    let protocol = got.answer.protocol.name();
    let answer = check("redirect.answer").pass(format!("answers over {protocol}"));
    findings.add(answer.took(got.answer.head_time));
    page(got, findings)?;
    status(got, findings)?;
    trail(seen, findings)?;
    template(seen, got, findings)?;
    target(plan, seen, got, findings)?;
    carry::judge(seen, findings);
    manners::judge(seen, findings);
    Ok(())
}

fn no_answer(fault: &Fault) -> Check {
    let check = check("redirect.answer").detail(fault.to_string());
    match fault.reason {
        Reason::OutOfTime => check.unknown("the time was used up"),
        Reason::Timeout => check.fail("no answer in time").hint(
            "see what the server does with the request; a redirect needs nothing that takes time",
        ),
        Reason::TooLarge => check
            .fail("the head of the answer is too large")
            .hint("see what sends header fields of this size; browsers refuse them too"),
        Reason::NotHttp => {
            check.fail("what answers does not speak HTTP").hint("see what listens on this port")
        }
        Reason::Closed => check
            .fail("the connection is closed without an answer")
            .hint("see the server's log; a firewall that dislikes the request does this too"),
        _ => check.fail("no answer").hint("see the server's log"),
    }
}

/// Something to look at stands where a redirect should.
fn page(got: &Got, findings: &mut Findings) -> Result<(), &'static str> {
    let status = got.answer.status.as_u16();
    match Page::of(&got.answer) {
        Some(Page::Nango) => {
            findings.add(check("redirect.page"));
            let check = check("redirect.proxy")
                .fail("fetches Nango's page itself instead of redirecting the browser")
                .detail(format!("{status} with the page of Nango's callback"))
                .hint(Page::Nango.hint());
            findings.gate(check, "redirect.proxy")
        }
        Some(page) => {
            let check = check("redirect.page")
                .fail(format!("answers {status} with {}", page.words()))
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

fn status(got: &Got, findings: &mut Findings) -> Result<(), &'static str> {
    let check = check("redirect.status");
    let hint = "answer 308 Permanent Redirect with `Cache-Control: no-store`";
    if let Landing::Stays(status) = got.landing {
        let (what, hint) = no_redirect(status);
        let check = check
            .fail(format!("answers {} instead of redirecting", status.as_u16()))
            .detail(what)
            .hint(hint);
        return findings.gate(check, "redirect.status");
    }
    let check = match got.answer.status.as_u16() {
        308 => check,
        301 => check
            .warn("answers 301")
            .detail("it works for a GET; but browsers turn a POST into a GET and lose its form, and store the answer for good unless `Cache-Control: no-store` forbids it (RFC 9110 §15.4.2)")
            .hint(hint),
        307 => check
            .warn("answers 307")
            .detail("it works; 308 is what Nango's documentation asks for (RFC 9110 §15.4.8, §15.4.9)")
            .hint(hint),
        303 => check
            .warn("answers 303")
            .detail("it works for a GET (RFC 9110 §15.4.4); 308 is what Nango's documentation asks for")
            .hint(hint),
        _ => check
            .warn("answers 302")
            .detail("it works for a GET; but browsers turn a POST into a GET and lose its form (RFC 9110 §15.4.3). Some load balancers know no 308")
            .hint(hint),
    };
    findings.add(check);
    Ok(())
}

/// What an answer that is no redirect mostly means, and what to do about it.
fn no_redirect(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        401 | 407 => (
            "it asks for credentials, which no provider's browser brings",
            "let the callback's path through without a login",
        ),
        403 => (
            "a firewall, a bot wall or an access list refuses the request",
            "exempt the callback's path from such rules",
        ),
        404 | 410 => (
            "nothing is configured at this path",
            "add the route; compare path and letter case with what is registered",
        ),
        405 => ("the path exists, but not for GET", "redirect GET requests on this path"),
        414 | 431 => (
            "even a short query is too long for it",
            "raise the limit on the request line and the header fields",
        ),
        421 => ("the server does not know this host", "add the host to the server's configuration"),
        429 => {
            ("too many requests were sent", "exempt the callback's path from rate limits, or wait")
        }
        200..300 => ("it says that all is done", "answer 308 with a `Location`"),
        502..=504 => (
            "what stands in front cannot reach the server behind it",
            "start the server behind it; or see whether the host still leads to the right place",
        ),
        500.. => ("the server fails", "see the server's log"),
        _ => ("browsers do not follow it", "answer 308 with a `Location`"),
    }
}

/// It leads on, but not at once, or for ever.
fn trail(seen: &Observations, findings: &mut Findings) -> Result<(), &'static str> {
    match &seen.trail {
        Some(Trail::Loop(stations)) => {
            let check = check("redirect.loop")
                .fail("leads back to itself")
                .detail(stations.join(" → "))
                .hint("let the redirect lead to Nango; behind a proxy that ends TLS, do not redirect to https by the inner scheme");
            findings.gate(check, "redirect.loop")
        }
        Some(Trail::Detour(stations)) => {
            findings.add(check("redirect.loop"));
            let last = stations.last().map_or("", String::as_str);
            let check = check("redirect.hops")
                .fail(format!("takes {} hops to the target", stations.len()))
                .detail(stations.join(" → "))
                .hint(format!("register {last} with the providers and in Nango, or let the first answer lead to the target"));
            findings.gate(check, "redirect.hops")
        }
        Some(Trail::Endless(stations)) => {
            findings.add(check("redirect.loop"));
            let check = check("redirect.hops")
                .fail(format!("takes more than {} hops", stations.len()))
                .detail(stations.join(" → "))
                .hint("let the first answer lead to the target; browsers give up after about 20 redirects");
            findings.gate(check, "redirect.hops")
        }
        Some(Trail::Lost) | None => {
            findings.add(check("redirect.loop"));
            findings.add(check("redirect.hops"));
            Ok(())
        }
    }
}

/// As far as the place and the whole query are concerned; `carry` looks at each query.
fn template(seen: &Observations, got: &Got, findings: &mut Findings) -> Result<(), &'static str> {
    let (Landing::Elsewhere(Elsewhere::Template(marker))
    | Landing::Altered(Difference::Template(marker))) = &got.landing
    else {
        return Ok(());
    };
    let check = check("redirect.template")
        .fail("a placeholder stands in the Location as it is written")
        .detail(format!("`{marker}` in {}", seen.first_location()))
        .hint("see how your server writes the query string there, and whether quotes or a prefix keep it from being filled in");
    findings.gate(check, "redirect.template")
}

/// It leads to another place.
fn target(
    plan: &Plan,
    seen: &Observations,
    got: &Got,
    findings: &mut Findings,
) -> Result<(), &'static str> {
    let check = check("redirect.target");
    let Landing::Elsewhere(elsewhere) = &got.landing else {
        findings.add(check);
        return Ok(());
    };
    let wanted = shown(plan.target.as_str());
    let location = seen.first_location();
    let both = format!("leads to  {location}\nshould be {wanted}");
    let hint = format!(
        "let the Location be {wanted}, then `?` and the query as it came; if that was just set up, it may take minutes to spread (--wait)"
    );
    let check = match elsewhere {
        Elsewhere::Missing => check
            .fail("redirects without a Location")
            .detail("browsers stay where they are")
            .hint(hint),
        Elsewhere::Several(count) => check
            .fail(format!("sends {count} Location fields"))
            .detail("browsers take the first, the last, or neither")
            .hint("let one place alone set it"),
        Elsewhere::Glued => check
            .fail("the query stands right behind the path")
            .detail("the `?` between them is missing")
            .hint("put a `?` before the query; in nginx, `$is_args$args` brings it"),
        Elsewhere::OwnQuery => check
            .fail("the target's own parameters are missing")
            .detail(both)
            .hint("keep the target's query, and append the callback's with `&`"),
        Elsewhere::Relative => {
            check.fail("leads to a place on the callback's own host").detail(both).hint(hint)
        }
        Elsewhere::Path => check.fail("leads to another path").detail(both).hint(hint),
        Elsewhere::Site | Elsewhere::Template(_) => {
            site(plan, &location, check).detail(both).hint(hint)
        }
    };
    findings.gate(check, "redirect.target")
}

fn site(plan: &Plan, location: &str, check: Check) -> Check {
    let (got, wanted) = (Parts::of(location).server(), Parts::of(plan.target.as_str()).server());
    let (Some(got), Some(wanted)) = (got, wanted) else { return check.fail("leads elsewhere") };
    if got.host != wanted.host {
        const LOGIN: [&str; 6] = ["login", "signin", "sign-in", "sso", "cloudflareaccess", "auth0"];
        let login = LOGIN.iter().any(|mark| location.to_ascii_lowercase().contains(mark));
        let what =
            if login { "another host, by the look of it a login wall" } else { "another host" };
        check.fail(format!("leads to {what}"))
    } else if got.tls != wanted.tls {
        check.fail(format!("leads to {} instead of {}", got.scheme(), wanted.scheme()))
    } else {
        check.fail(format!("leads to port {} instead of {}", got.port, wanted.port))
    }
}
