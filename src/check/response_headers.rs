//! `redirect.*`, part 3: the header fields of the responses, and whether all clients get the same.

use super::landing::{Elsewhere, Landing};
use super::observations::PlainHttp;
use super::prober::Outcome;
use super::query::Difference;
use super::{Findings, Observations, check};
use crate::outbound::{Protocol, Reason, Response};
use crate::report::Check;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, EXPIRES, HeaderName, REFERRER_POLICY, SET_COOKIE};

pub(super) fn evaluate(observations: &Observations, findings: &mut Findings) {
    let responses: Vec<_> =
        observations.corpus().chain(&observations.plain_client).filter_map(redirected).collect();
    findings.add(cache(observations, &responses));
    findings.add(coop(&responses));
    findings.add(referrer(&responses));
    findings.add(cookie(&responses));
    findings.add(echo(&responses, &observations.canary));
    let Some(first) = observations.first() else { return };
    if !observations.callback.server.tls {
        let why = "not run: the callback is plain http";
        findings.add(check("redirect.protocols").skip(why));
        findings.add(check("redirect.http").skip(why));
    } else if let Some((protocol, other)) = &observations.other_protocol {
        findings.add(protocols(first, *protocol, other));
    }
    if let Some(plain) = &observations.plain_client {
        findings.add(clients(first, plain));
    }
    if let Some(form) = &observations.form {
        findings.add(self::form(first, form));
    }
    if let Some(plain_http) = &observations.plain_http {
        findings.add(http(plain_http));
    }
    match &observations.sibling {
        Some((callback, sibling)) => findings.add(github(&callback.shown(), sibling)),
        None if !observations.callback.path.ends_with("oauth/callback") => {
            let why = "not run: Nango derives it only from a path that ends in oauth/callback";
            findings.add(check("redirect.github").skip(why));
        }
        None => {}
    }
}

/// The response, if it leads to the target.
fn redirected(outcome: &Outcome) -> Option<&Response> {
    let got = outcome.result.as_ref().ok()?;
    matches!(got.landing, Landing::Exact | Landing::Altered(_)).then_some(&got.response)
}

/// RFC 9111 §4.2.2: caches may store a 301 or 308 without `Cache-Control`.
fn cache(observations: &Observations, responses: &[&Response]) -> Check {
    let check = check("redirect.cache");
    let hint =
        "send `Cache-Control: no-store`; in nginx, `add_header Cache-Control no-store always;`";
    let stale = observations
        .corpus()
        .chain(&observations.form)
        .any(|outcome| outcome.landing() == Some(&Landing::Altered(Difference::Stale)));
    if stale {
        return check
            .fail("a callback was redirected with the parameters of another")
            .detail("a cache stores the redirect, with its codes, and ignores the query")
            .hint("send `Cache-Control: no-store`, and exempt the path of the callback from the cache of the CDN");
    }
    let worst = responses.iter().map(|response| storable(response)).max_by_key(|(rank, _)| *rank);
    match worst {
        None | Some((0, _)) => check,
        Some((1, detail)) => check
            .warn("caches may store responses, but must revalidate them")
            .detail(detail)
            .hint(hint),
        Some((_, detail)) => check.fail("caches may store responses").detail(detail).hint(hint),
    }
}

/// Whether caches may store a response: 0 no, 1 only with revalidation, 2 yes.
fn storable(response: &Response) -> (u8, &'static str) {
    let directives = joined(&response.headers, &CACHE_CONTROL).unwrap_or_default();
    let has = |name: &str| {
        directives.split(',').any(|directive| directive.trim().split('=').next() == Some(name))
    };
    let fresh = directives
        .split(',')
        .filter_map(|directive| {
            let (name, seconds) = directive.trim().split_once('=')?;
            matches!(name, "max-age" | "s-maxage").then(|| seconds.trim_matches('"') != "0")
        })
        .any(|fresh| fresh);
    let permanent = matches!(response.status.as_u16(), 301 | 308);
    if has("no-store") {
        (0, "")
    } else if fresh {
        (2, "`Cache-Control` has a lifetime")
    } else if has("no-cache") || directives.contains("max-age") {
        if permanent {
            (1, "`Cache-Control` requires revalidation, but permits storing")
        } else {
            (0, "")
        }
    } else if permanent {
        (2, "no `Cache-Control: no-store`; browsers may store a 301 or 308 permanently")
    } else if response.headers.contains_key(EXPIRES) || has("public") {
        (2, "`Expires` or `Cache-Control: public` permits storing")
    } else {
        (0, "")
    }
}

/// All values of a field in lower case, as one list.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// Browsers apply the policy of a redirect too, not only that of a page.
fn coop(responses: &[&Response]) -> Check {
    let check = check("redirect.coop");
    let name = HeaderName::from_static("cross-origin-opener-policy");
    let severs = |response: &&Response| {
        joined(&response.headers, &name).is_some_and(|policy| {
            policy.split(';').next().unwrap_or_default().trim() != "unsafe-none"
        })
    };
    if !responses.iter().any(severs) {
        return check;
    }
    check
        .fail("the popup loses its opener")
        .detail("with `Cross-Origin-Opener-Policy` on the redirect, Nango's page cannot report the result, and the login never ends")
        .hint("do not send `Cross-Origin-Opener-Policy` on the path of the callback")
}

fn referrer(responses: &[&Response]) -> Check {
    let check = check("redirect.referrer");
    let hides = |response: &&Response| {
        joined(&response.headers, &REFERRER_POLICY).is_some_and(|policies| {
            // The last known policy applies.
            policies
                .split(',')
                .next_back()
                .is_some_and(|policy| matches!(policy.trim(), "no-referrer" | "same-origin"))
        })
    };
    if !responses.iter().any(hides) {
        return check;
    }
    check
        .warn("hides the referrer")
        .detail("after a GitHub App installation without a state, Nango redirects to the `Referer`; with this policy, that is GitHub")
        .hint("do not send `Referrer-Policy` on the path of the callback")
}

fn cookie(responses: &[&Response]) -> Check {
    let check = check("redirect.cookie");
    if !responses.iter().any(|response| response.headers.contains_key(SET_COOKIE)) {
        return check;
    }
    check
        .warn("sets a cookie")
        .detail("a redirect needs no cookie; session or bot-protection middleware handles the request and may record it")
        .hint("exclude the path of the callback from session and bot-protection middleware")
}

/// The canary was sent in a header field and in a cookie.
fn echo(responses: &[&Response], canary: &str) -> Check {
    let check = check("redirect.echo");
    let contains_canary = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(canary);
    for response in responses {
        let field = response.headers.iter().find(|(_, value)| contains_canary(value.as_bytes()));
        let location = match field {
            Some((name, _)) => format!("in `{name}`"),
            None if contains_canary(&response.body) => "in the body".to_owned(),
            None => continue,
        };
        return check
            .fail("returns request header fields")
            .detail(format!(
                "the response contains a header field or cookie of the request {location}"
            ))
            .hint("build the response header from scratch; do not copy the request header");
    }
    check
}

fn protocols(first: &Outcome, protocol: Protocol, other: &Outcome) -> Check {
    let check = check("redirect.protocols").duration(other.duration);
    match &other.result {
        Err(fault) if fault.reason == Reason::NoProtocol && protocol == Protocol::Http2 => {
            check.pass("supports only HTTP/1.1")
        }
        Err(fault) if fault.reason == Reason::NoProtocol => check
            .warn("does not support HTTP/1.1")
            .detail(
                "browsers behind some proxies, and the programs of some providers, support only HTTP/1.1",
            )
            .hint("let the server negotiate `http/1.1` too"),
        Err(fault) if fault.reason == Reason::OutOfTime => check.unknown("not probed within the time limit"),
        _ if other.is_like(first) => check,
        _ => check
            .fail(format!("the response over {} differs", protocol.name()))
            .detail(format!("{}: {}\notherwise: {}", protocol.name(), other.shape(), first.shape()))
            .hint("configure the path of the callback identically for both versions"),
    }
}

fn clients(first: &Outcome, plain: &Outcome) -> Check {
    let check = check("redirect.clients").duration(plain.duration);
    if plain.result.as_ref().is_err_and(|fault| fault.reason == Reason::OutOfTime) {
        return check.unknown("not probed within the time limit");
    }
    if plain.is_like(first) {
        return check;
    }
    check
        .warn("programs get a different response than browsers")
        .detail(format!("program: {}\nbrowser: {}", plain.shape(), first.shape()))
        .hint("exempt the path of the callback from bot protection: providers validate it with programs")
}

fn form(first: &Outcome, form: &Outcome) -> Check {
    let check = check("redirect.form").duration(form.duration);
    let got = match &form.result {
        Err(fault) if fault.reason == Reason::OutOfTime => {
            return check.unknown("not probed within the time limit");
        }
        Err(fault) => {
            return check
                .warn("a form post gets no response")
                .detail(fault.to_string())
                .hint("respond with 303 and the fields in the query, or with 405");
        }
        Ok(got) => got,
    };
    let hint = "respond with 303 and the fields in the query, or with 405; ignore this if no provider of yours uses `response_mode=form_post`";
    match (got.response.status.as_u16(), &got.landing) {
        (307 | 308, _) => check
            .warn(format!("a form post gets a {}", got.response.status.as_u16()))
            .detail("browsers repeat the POST at Nango, which responds to every POST with 415")
            .hint(hint),
        (301..=303, landing) if landing.keeps_values() => check,
        // Other checks report what happens to every query.
        (301..=303, Landing::Altered(difference))
            if *difference == Difference::Stale || first.landing() == Some(&got.landing) =>
        {
            check.blocked(difference.id())
        }
        (301..=303, _) => {
            check.warn("the fields of a form post are lost").detail(form.shape()).hint(hint)
        }
        (status, _) => check.pass(format!("form posts are rejected ({status})")),
    }
}

fn http(plain_http: &PlainHttp) -> Check {
    let check = check("redirect.http");
    let outcome = match plain_http {
        PlainHttp::NotProbed(why) => return check.skip(format!("not run: {why}")),
        PlainHttp::Probed(outcome) => outcome,
    };
    let check = check.duration(outcome.duration);
    let hint = "redirect plain http to the same path and query on https";
    match &outcome.result {
        Err(fault) if fault.reason == Reason::OutOfTime => {
            check.unknown("not probed within the time limit")
        }
        Err(_) => check.pass("plain http is not served"),
        Ok(got) => match &got.landing {
            Landing::Exact => check,
            Landing::Altered(difference) if difference.keeps_values() => check,
            Landing::Altered(difference) => check
                .warn("plain http redirects to https, but changes the query")
                .detail(difference.description())
                .hint(hint),
            Landing::Elsewhere(Elsewhere::Path) => check
                .warn("plain http redirects to another path")
                .detail(outcome.shape())
                .hint(hint),
            Landing::Elsewhere(_) => {
                check.warn("plain http redirects elsewhere").detail(outcome.shape()).hint(hint)
            }
            Landing::Stays(status) if status.is_success() => {
                check.warn("plain http returns a page").detail(outcome.shape()).hint(hint)
            }
            Landing::Stays(status) => {
                check.pass(format!("plain http is rejected ({})", status.as_u16()))
            }
        },
    }
}

/// The Setup URL that Nango's dashboard derives.
fn github(url: &str, outcome: &Outcome) -> Check {
    let check = check("redirect.github").duration(outcome.duration);
    match &outcome.result {
        Err(fault) if fault.reason == Reason::OutOfTime => check.unknown("not probed within the time limit"),
        Ok(got) if matches!(got.landing, Landing::Exact | Landing::Altered(_)) => check,
        _ => check
            .warn("the Setup URL of GitHub Apps does not redirect to Nango")
            .detail(format!("{url}: {}", outcome.shape()))
            .hint("redirect …/app-auth/connect to Nango's /app-auth/connect too; ignore this if you use no GitHub Apps"),
    }
}
