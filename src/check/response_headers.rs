//! `redirect.*`, part 3: the header fields of the responses, and whether all clients get the same.

use super::contrast::{Party, contrast};
use super::evidence::{Answer, Evidence};
use super::landing::{Elsewhere, Landing};
use super::observations::PlainHttp;
use super::prober::{Outcome, answer};
use super::query::Difference;
use super::{Findings, Observations, check};
use crate::outbound::{Protocol, Reason, Response};
use crate::report::Check;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, EXPIRES, HeaderName, HeaderValue, REFERRER_POLICY, SET_COOKIE};

pub(super) fn evaluate(strict: bool, observations: &Observations, findings: &mut Findings) {
    let programs = observations.programs.iter().map(|(_, outcome)| outcome);
    let responses: Vec<_> = observations.corpus().chain(programs).filter_map(redirected).collect();
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
    } else if let Some((protocol, others)) = &observations.other_protocol {
        findings.add(protocols(strict, observations, *protocol, others));
    }
    if !observations.programs.is_empty() {
        findings.add(clients(first, &observations.programs));
    }
    if let Some(form) = &observations.form {
        findings.add(self::form(first, form));
    }
    if let Some(plain_http) = &observations.plain_http {
        findings.add(http(plain_http));
    }
    match &observations.sibling {
        Some((callback, outcomes)) => {
            findings.add(github(observations, &callback.shown(), outcomes));
        }
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
        Some((1, detail)) => {
            check.pass("caches use no response without revalidation").detail(detail)
        }
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
            (1, "`no-store` also prevents that caches store the redirect")
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
    // Browsers treat anything else as `unsafe-none` (HTML §7.1.3.1).
    const SEVERING: [&str; 3] =
        ["same-origin", "same-origin-allow-popups", "noopener-allow-popups"];
    let check = check("redirect.coop");
    let name = HeaderName::from_static("cross-origin-opener-policy");
    let severs = |response: &&Response| {
        joined(&response.headers, &name).is_some_and(|policy| {
            SEVERING.contains(&policy.split(';').next().unwrap_or_default().trim())
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
    const POLICIES: [&str; 8] = [
        "no-referrer",
        "no-referrer-when-downgrade",
        "same-origin",
        "origin",
        "strict-origin",
        "origin-when-cross-origin",
        "strict-origin-when-cross-origin",
        "unsafe-url",
    ];
    let check = check("redirect.referrer");
    let hides = |response: &&Response| {
        joined(&response.headers, &REFERRER_POLICY).is_some_and(|policies| {
            // The last known policy applies (Referrer Policy §8.1).
            let mut policies = policies.rsplit(',').map(str::trim);
            policies
                .find(|policy| POLICIES.contains(policy))
                .is_some_and(|policy| matches!(policy, "no-referrer" | "same-origin"))
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

/// Cookies of load balancers and CDNs, by the start of their names. They are not about the request.
const INFRASTRUCTURE: [&str; 17] = [
    "__cf_bm",
    "__cflb",
    "_cfuvid",
    "cf_clearance",
    "AWSALB",
    "AWSELB",
    "ARRAffinity",
    "GCLB",
    "GAESA",
    "BIGipServer",
    "TS01",
    "NSC_",
    "INGRESSCOOKIE",
    "SERVERID",
    "incap_ses_",
    "visid_incap_",
    "ak_bmsc",
];

fn cookie(responses: &[&Response]) -> Check {
    let check = check("redirect.cookie");
    let cookies = responses.iter().flat_map(|response| response.headers.get_all(SET_COOKIE));
    let cookies: Vec<_> = cookies.map(HeaderValue::as_bytes).collect();
    if cookies.is_empty() {
        return check;
    }
    let is_known =
        |cookie: &&[u8]| INFRASTRUCTURE.iter().any(|it| cookie.starts_with(it.as_bytes()));
    if cookies.iter().all(is_known) {
        return check.pass("only a load balancer or a CDN sets a cookie");
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

fn protocols(
    strict: bool,
    observations: &Observations,
    protocol: Protocol,
    others: &[Outcome],
) -> Check {
    let check = check("redirect.protocols").duration(others.iter().map(|it| it.duration).sum());
    let Some(other) = others.first() else { return check };
    let usual = if protocol == Protocol::Http2 { Protocol::Http1 } else { Protocol::Http2 };
    match &other.result {
        Err(fault) if fault.reason == Reason::NoProtocol && protocol == Protocol::Http2 => {
            return check.pass("supports only HTTP/1.1");
        }
        // A server that ignores ALPN closes the connection, or sends frames of HTTP/2.
        Err(fault)
            if protocol == Protocol::Http1
                && matches!(
                    fault.reason,
                    Reason::NoProtocol | Reason::NotHttp | Reason::Closed
                ) =>
        {
            return check
                .warn("supports only HTTP/2")
                .detail(
                    "browsers behind some proxies, and the programs of some providers, support only HTTP/1.1",
                )
                .hint("let the server negotiate `http/1.1` too");
        }
        _ => {}
    }
    if let Some(inconclusive) = inconclusive(&check, other) {
        return inconclusive;
    }
    let names: Vec<_> = others.iter().map(|it| it.probe.name).collect();
    let sent = observations.corpus().chain(&observations.sizes);
    let party = |protocol: Protocol, outcomes| Party { name: protocol.name().to_owned(), outcomes };
    let parties = [
        party(usual, sent.filter(|it| names.contains(&it.probe.name)).collect()),
        party(protocol, others.iter().collect()),
    ];
    let Some(contrast) = contrast(&parties) else { return check };
    let summary = match contrast.only {
        Some((protocol, what)) => format!("only over {protocol}: {what}"),
        None => format!("the response over {} differs", protocol.name()),
    };
    let harmless = contrast.keeps_values && !strict;
    let check = if harmless { check.warn(summary) } else { check.fail(summary) };
    check
        .detail(contrast.lines.join("\n"))
        .hint("configure the path of the callback identically for both versions")
}

/// The check as unknown, when the time limit or a rate limit prevented the response.
fn inconclusive(check: &Check, outcome: &Outcome) -> Option<Check> {
    match outcome.evidence() {
        Evidence::NotSent => Some(check.clone().unknown("not probed within the time limit")),
        Evidence::Limited if answer(&outcome.result) != Answer::Reached => Some(
            check
                .clone()
                .unknown("the server limits the request rate")
                .hint("exempt the path of the callback from rate limits, or wait and check again"),
        ),
        _ => None,
    }
}

fn clients(first: &Outcome, programs: &[(&'static str, Outcome)]) -> Check {
    let duration = programs.iter().map(|(_, outcome)| outcome.duration).sum();
    let check = check("redirect.clients").duration(duration);
    let different: Vec<_> =
        programs.iter().filter(|(_, outcome)| !outcome.is_like(first)).collect();
    if let Some((_, outcome)) = different.iter().find(|(_, it)| inconclusive(&check, it).is_some())
        && let Some(unknown) = inconclusive(&check, outcome)
    {
        return unknown;
    }
    if different.is_empty() {
        return check;
    }
    let is_refused = |outcome: &Outcome| answer(&outcome.result) != Answer::Reached;
    let names: Vec<_> = different.iter().map(|(name, _)| *name).collect();
    let lines = different.iter().map(|(name, outcome)| format!("{name}: {}", outcome.shape()));
    let lines: Vec<_> = lines.chain([format!("browser: {}", first.shape())]).collect();
    let all = different.len() == programs.len();
    let summary = match (different.iter().all(|(_, outcome)| is_refused(outcome)), all) {
        (false, _) => "programs get a different response than browsers".to_owned(),
        (true, true) => "programs are refused".to_owned(),
        (true, false) => format!("some programs are refused: {}", names.join(", ")),
    };
    check
        .warn(summary)
        .detail(lines.join("\n"))
        .hint("exempt the path of the callback from bot protection and from rules about the `User-Agent`: providers validate it with programs")
}

fn form(first: &Outcome, form: &Outcome) -> Check {
    let check = check("redirect.form").duration(form.duration);
    if let Some(inconclusive) = inconclusive(&check, form) {
        return inconclusive;
    }
    let hint = "respond with 303 and the fields in the query, or with 405; ignore this if no provider of yours uses `response_mode=form_post`";
    // No provider posts a form unless the integration requests it.
    let note = "only `response_mode=form_post` needs it";
    let got = match &form.result {
        Err(fault) => {
            return check.warn("a form post gets no response").detail(fault.to_string()).hint(hint);
        }
        Ok(got) => got,
    };
    match (got.response.status.as_u16(), &got.landing) {
        (status @ (307 | 308), Landing::Exact | Landing::Altered(_)) => check
            .pass(format!("form posts are not converted ({status}); {note}"))
            .detail("browsers repeat the POST at Nango, which responds to every POST with 415"),
        (301..=303, landing) if landing.keeps_values() => check,
        // Other checks report what happens to every query.
        (301..=303, Landing::Altered(difference))
            if *difference == Difference::Stale || first.landing() == Some(&got.landing) =>
        {
            check.blocked(difference.id())
        }
        (301..=303, Landing::Altered(Difference::Dropped)) => {
            check.pass(format!("form posts lose their fields; {note}"))
        }
        (_, Landing::Altered(_)) => {
            check.warn("a form post is changed").detail(form.shape()).hint(hint)
        }
        (status @ 400..=499, _) => check.pass(format!("form posts are refused ({status})")),
        (status @ 200..=299, _) => {
            check.warn(format!("a form post gets a page ({status})")).hint(hint)
        }
        (status @ 500.., _) => {
            check.warn(format!("a form post makes the server fail ({status})")).hint(hint)
        }
        _ => check.warn("a form post is redirected elsewhere").detail(form.shape()).hint(hint),
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
    if let Some(inconclusive) = inconclusive(&check, outcome) {
        return inconclusive;
    }
    match &outcome.result {
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
fn github(observations: &Observations, url: &str, outcomes: &[Outcome]) -> Check {
    let check = check("redirect.github").duration(outcomes.iter().map(|it| it.duration).sum());
    let Some(first) = outcomes.first() else { return check };
    if let Some(inconclusive) = inconclusive(&check, first) {
        return inconclusive;
    }
    if answer(&first.result) != Answer::Reached {
        return check
            .warn("the Setup URL of GitHub Apps does not redirect to Nango")
            .detail(format!("{url}: {}", first.shape()))
            .hint("redirect …/app-auth/connect to Nango's /app-auth/connect too; ignore this if you use no GitHub Apps");
    }
    // What happens to the same query at the callback is reported there.
    let is_reported = |difference: &Difference| {
        let ids = observations.corpus().filter_map(|outcome| match outcome.landing() {
            Some(Landing::Altered(difference)) => Some(difference.id()),
            _ => None,
        });
        ids.into_iter().any(|id| id == difference.id())
    };
    let altered = outcomes.iter().find_map(|outcome| match outcome.landing() {
        Some(Landing::Altered(difference)) if !is_reported(difference) => {
            Some(format!("{}: {}", outcome.probe.name, difference.description()))
        }
        _ => None,
    });
    match altered {
        Some(line) => check
            .warn("the Setup URL of GitHub Apps changes the query")
            .detail(format!("{url}\n{line}"))
            .hint("configure …/app-auth/connect like the callback; ignore this if you use no GitHub Apps"),
        None => check,
    }
}
