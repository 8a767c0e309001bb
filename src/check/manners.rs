//! `redirect.*`, the third part: what else the answers do, and whether all are answered alike.

use super::landing::{Elsewhere, Landing};
use super::observations::Insecure;
use super::prober::Seen;
use super::query::Difference;
use super::{Findings, Observations, check};
use crate::outbound::{Answer, Protocol, Reason};
use crate::report::Check;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, EXPIRES, HeaderName, REFERRER_POLICY, SET_COOKIE};

pub(super) fn judge(seen: &Observations, findings: &mut Findings) {
    let answers: Vec<_> = seen.corpus().chain(&seen.plain_client).filter_map(redirected).collect();
    findings.add(cache(seen, &answers));
    findings.add(coop(&answers));
    findings.add(referrer(&answers));
    findings.add(cookie(&answers));
    findings.add(echo(&answers, &seen.canary));
    let Some(first) = seen.first() else { return };
    if !seen.callback.server.tls {
        let why = "not run: the callback is plain http";
        findings.add(check("redirect.protocols").skip(why));
        findings.add(check("redirect.http").skip(why));
    } else if let Some((protocol, other)) = &seen.other_protocol {
        findings.add(protocols(first, *protocol, other));
    }
    if let Some(plain) = &seen.plain_client {
        findings.add(clients(first, plain));
    }
    if let Some(form) = &seen.form {
        findings.add(self::form(first, form));
    }
    if let Some(insecure) = &seen.insecure {
        findings.add(http(insecure));
    }
    match &seen.sibling {
        Some((callback, sibling)) => findings.add(github(&callback.shown(), sibling)),
        None if !seen.callback.path.ends_with("oauth/callback") => {
            let why = "not run: Nango derives it only from a path that ends in oauth/callback";
            findings.add(check("redirect.github").skip(why));
        }
        None => {}
    }
}

/// The answer, if it leads to the target.
fn redirected(seen: &Seen) -> Option<&Answer> {
    let got = seen.result.as_ref().ok()?;
    matches!(got.landing, Landing::Exact | Landing::Altered(_)).then_some(&got.answer)
}

/// RFC 9111 §4.2.2: 301 and 308 may be stored without a word.
fn cache(seen: &Observations, answers: &[&Answer]) -> Check {
    let check = check("redirect.cache");
    let hint =
        "send `Cache-Control: no-store`; in nginx, `add_header Cache-Control no-store always;`";
    let stale =
        seen.corpus().any(|seen| seen.landing() == Some(&Landing::Altered(Difference::Stale)));
    if stale {
        return check
            .fail("one callback was answered with the parameters of another")
            .detail("a cache on the way stores the redirect, codes and all, without regard to the query")
            .hint("send `Cache-Control: no-store`, and exempt the callback's path from caching at the CDN");
    }
    let worst = answers.iter().map(|answer| storable(answer)).max_by_key(|(rank, _)| *rank);
    match worst {
        None | Some((0, _)) => check,
        Some((1, detail)) => {
            check.warn("answers may be stored, though not used unasked").detail(detail).hint(hint)
        }
        Some((_, detail)) => check.fail("answers may be stored").detail(detail).hint(hint),
    }
}

/// How far an answer may be stored: 0 not, 1 not used without asking, 2 freely.
fn storable(answer: &Answer) -> (u8, &'static str) {
    let directives = joined(&answer.headers, &CACHE_CONTROL).unwrap_or_default();
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
    let permanent = matches!(answer.status.as_u16(), 301 | 308);
    if has("no-store") {
        (0, "")
    } else if fresh {
        (2, "`Cache-Control` gives it a lifetime")
    } else if has("no-cache") || directives.contains("max-age") {
        if permanent {
            (1, "`Cache-Control` demands a question first, but lets it be stored")
        } else {
            (0, "")
        }
    } else if permanent {
        (2, "no `Cache-Control: no-store`; browsers may store a 301 or 308 for good")
    } else if answer.headers.contains_key(EXPIRES) || has("public") {
        (2, "`Expires` or `Cache-Control: public` lets it be stored")
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

/// A redirect's policy counts as much as a page's.
fn coop(answers: &[&Answer]) -> Check {
    let check = check("redirect.coop");
    let name = HeaderName::from_static("cross-origin-opener-policy");
    let severs = |answer: &&Answer| {
        joined(&answer.headers, &name).is_some_and(|policy| {
            policy.split(';').next().unwrap_or_default().trim() != "unsafe-none"
        })
    };
    if !answers.iter().any(severs) {
        return check;
    }
    check
        .fail("the popup loses its opener")
        .detail("with `Cross-Origin-Opener-Policy` on the redirect, Nango's page cannot report back, and the sign-in never ends")
        .hint("leave `Cross-Origin-Opener-Policy` out on the callback's path")
}

fn referrer(answers: &[&Answer]) -> Check {
    let check = check("redirect.referrer");
    let hides = |answer: &&Answer| {
        joined(&answer.headers, &REFERRER_POLICY).is_some_and(|policies| {
            // The last policy that is known counts.
            policies
                .split(',')
                .next_back()
                .is_some_and(|policy| matches!(policy.trim(), "no-referrer" | "same-origin"))
        })
    };
    if !answers.iter().any(hides) {
        return check;
    }
    check
        .warn("hides where the browser comes from")
        .detail("Nango sends a GitHub App's installation without a state back to its `Referer`; with this policy, it ends at GitHub")
        .hint("leave `Referrer-Policy` out on the callback's path")
}

fn cookie(answers: &[&Answer]) -> Check {
    let check = check("redirect.cookie");
    if !answers.iter().any(|answer| answer.headers.contains_key(SET_COOKIE)) {
        return check;
    }
    check
        .warn("sets a cookie")
        .detail("a redirect needs none, and shared caches and consent rules mind it")
        .hint("keep session and bot-wall middleware away from the callback's path")
}

/// The canary was sent in a field and a cookie of its own.
fn echo(answers: &[&Answer], canary: &str) -> Check {
    let check = check("redirect.echo");
    let holds = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(canary);
    for answer in answers {
        let field = answer.headers.iter().find(|(_, value)| holds(value.as_bytes()));
        let place = match field {
            Some((name, _)) => format!("in `{name}`"),
            None if holds(&answer.body) => "in the body".to_owned(),
            None => continue,
        };
        return check
            .fail("sends the request's own header fields back")
            .detail(format!("a header field or cookie comes back {place}"))
            .hint("build the answer's header anew; do not pass on the request's");
    }
    check
}

fn protocols(first: &Seen, protocol: Protocol, other: &Seen) -> Check {
    let check = check("redirect.protocols").took(other.took);
    match &other.result {
        Err(fault) if fault.reason == Reason::NoProtocol && protocol == Protocol::Http2 => {
            check.pass("HTTP/1.1 alone is spoken")
        }
        Err(fault) if fault.reason == Reason::NoProtocol => check
            .warn("HTTP/1.1 is not spoken")
            .detail(
                "browsers behind some proxies, and some providers' validators, know nothing else",
            )
            .hint("let the server negotiate `http/1.1` too"),
        Err(fault) if fault.reason == Reason::OutOfTime => check.unknown("the time was used up"),
        _ if other.is_like(first) => check,
        _ => check
            .fail(format!("{} is answered differently", protocol.name()))
            .detail(format!("{}: {}\nelse: {}", protocol.name(), other.shape(), first.shape()))
            .hint("set up the callback's path in the same way for both versions"),
    }
}

fn clients(first: &Seen, plain: &Seen) -> Check {
    let check = check("redirect.clients").took(plain.took);
    if plain.result.as_ref().is_err_and(|fault| fault.reason == Reason::OutOfTime) {
        return check.unknown("the time was used up");
    }
    if plain.is_like(first) {
        return check;
    }
    check
        .warn("programs are answered differently from browsers")
        .detail(format!("program: {}\nbrowser: {}", plain.shape(), first.shape()))
        .hint("providers validate a callback with programs of theirs: exempt its path from bot protection")
}

fn form(first: &Seen, form: &Seen) -> Check {
    let check = check("redirect.form").took(form.took);
    let got = match &form.result {
        Err(fault) if fault.reason == Reason::OutOfTime => {
            return check.unknown("the time was used up");
        }
        Err(fault) => {
            return check
                .warn("a form post is not answered")
                .detail(fault.to_string())
                .hint("answer 303 with the fields in the query, or 405");
        }
        Ok(got) => got,
    };
    let hint = "answer a form post with 303 and the fields in the query; nothing to do if no provider of yours uses `response_mode=form_post`";
    match (got.answer.status.as_u16(), &got.landing) {
        (307 | 308, _) => check
            .warn(format!("a form post is answered {}", got.answer.status.as_u16()))
            .detail("browsers post the form on to Nango, which answers 415 to every POST")
            .hint(hint),
        (301..=303, Landing::Exact | Landing::Altered(Difference::Stale)) => check,
        // What happens to every query is told elsewhere.
        (301..=303, landing) if first.landing() == Some(landing) => check,
        (301..=303, Landing::Altered(Difference::Reencoded { .. })) => check,
        (301..=303, _) => {
            check.warn("the fields of a form post are lost").detail(form.shape()).hint(hint)
        }
        (status, _) => check.pass(format!("form posts are refused ({status})")),
    }
}

fn http(insecure: &Insecure) -> Check {
    let check = check("redirect.http");
    let seen = match insecure {
        Insecure::NotAsked(why) => return check.skip(format!("not run: {why}")),
        Insecure::Asked(seen) => seen,
    };
    let check = check.took(seen.took);
    let hint = "redirect plain http to the same path on https, query and all";
    match &seen.result {
        Err(fault) if fault.reason == Reason::OutOfTime => check.unknown("the time was used up"),
        Err(_) => check.pass("plain http is not served"),
        Ok(got) => match &got.landing {
            Landing::Exact => check,
            Landing::Altered(difference) => check
                .warn("plain http leads to https, but the query does not come along unchanged")
                .detail(difference.words())
                .hint(hint),
            Landing::Elsewhere(Elsewhere::Path) => {
                check.warn("plain http leads to another path").detail(seen.shape()).hint(hint)
            }
            Landing::Elsewhere(_) => {
                check.warn("plain http leads elsewhere").detail(seen.shape()).hint(hint)
            }
            Landing::Stays(status) if status.is_success() => {
                check.warn("plain http is answered with a page").detail(seen.shape()).hint(hint)
            }
            Landing::Stays(status) => {
                check.pass(format!("plain http is refused ({})", status.as_u16()))
            }
        },
    }
}

/// The Setup URL that Nango's dashboard derives.
fn github(url: &str, seen: &Seen) -> Check {
    let check = check("redirect.github").took(seen.took);
    match &seen.result {
        Err(fault) if fault.reason == Reason::OutOfTime => check.unknown("the time was used up"),
        Ok(got) if matches!(got.landing, Landing::Exact | Landing::Altered(_)) => check,
        _ => check
            .warn("the Setup URL of GitHub Apps does not lead to Nango")
            .detail(format!("{url}: {}", seen.shape()))
            .hint("redirect …/app-auth/connect to Nango's /app-auth/connect too; nothing to do if you use no GitHub Apps"),
    }
}
