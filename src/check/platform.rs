//! Recognizes the program that writes the redirect, from names in header fields and from its own
//! pages; `advice` names what to write there. Without I/O.
//!
//! Several layers are normal, such as nginx in front of Express. The layer that writes the redirect
//! counts: its traces on the redirect itself come first. Where two layers could have written it, or
//! nothing is characteristic, nothing is recognized: a wrong name costs more than none.
//!
//! Evidence consists of names only, never of values that a server chose.

mod advice;

pub(super) use advice::replace_hints;

use super::landing::is_redirect;
use crate::outbound::Response;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, SERVER, SET_COOKIE, VARY, VIA,
    X_CONTENT_TYPE_OPTIONS,
};

/// A recognized program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recognized {
    /// The id of its recipe.
    pub(super) id: &'static str,
    /// What it was recognized from.
    pub(super) evidence: &'static str,
}

/// Recognizes the program that writes the redirect. `pages` are responses without a redirect, such
/// as the error pages of the same server.
pub(super) fn recognize(first: &Response, pages: &[&Response]) -> Option<Recognized> {
    let from_pages = || pages.iter().find_map(|page| application_page(first, page));
    let other = || match (server(first, pages), from_pages()) {
        (Some((found, Certainty::WroteIt)), _)
        | (Some((found, Certainty::Probable)), None)
        | (None, Some(found)) => Some(found),
        // Either of them could have written the redirect, or none is recognized.
        (Some(_), Some(_)) | (None, None) => None,
    };
    let found = application_on(first).or_else(|| redirect_body(first)).or_else(other)?;
    // Nest runs on Express, and shows its own error page.
    let nest = || pages.iter().find_map(|page| nest(page));
    if found.id == "express" { nest().or(Some(found)) } else { Some(found) }
}

const fn found(id: &'static str, evidence: &'static str) -> Recognized {
    Recognized { id, evidence }
}

/// Whether a server in front wrote the redirect itself.
enum Certainty {
    /// The response has its own body, or a field that only its own responses have.
    WroteIt,
    /// Nothing on the response comes from something else.
    Probable,
}

/// (field, part of its value in lower case, id, evidence)
#[rustfmt::skip]
const FIELDS: &[(&str, &str, &str, &str)] = &[
    ("x-powered-by", "next.js", "nextjs", "`X-Powered-By: Next.js`"),
    ("vary", "next-router-state-tree", "nextjs", "`Vary: next-router-state-tree`"),
    ("x-powered-by", "nuxt", "nuxt", "`X-Powered-By: Nuxt`"),
    ("x-sveltekit-page", "", "sveltekit", "`X-SvelteKit-Page`"),
    ("set-cookie", "laravel_session=", "laravel", "the cookie `laravel_session`"),
    ("x-powered-by", "express", "express", "`X-Powered-By: Express`"),
    ("x-powered-by", "php/", "php", "`X-Powered-By: PHP`"),
    ("set-cookie", "phpsessid=", "php", "the cookie `PHPSESSID`"),
    ("server", "werkzeug/", "flask", "`Server: Werkzeug`"),
    ("server", "aiohttp/", "aiohttp", "`Server: aiohttp`"),
    ("server", "webrick/", "rack", "`Server: WEBrick`"),
    ("server", "puma", "rack", "`Server: puma`"),
    // Its default, which no other server has.
    ("keep-alive", "timeout=72", "fastify", "`Keep-Alive: timeout=72`"),
];

/// An application that names itself in the header.
fn application_on(response: &Response) -> Option<Recognized> {
    let named = FIELDS.iter().find(|(name, part, ..)| has(response, name, part));
    if let Some((.., id, evidence)) = named {
        return Some(found(id, evidence));
    }
    if has(response, "x-runtime", "") && has(response, "x-request-id", "") {
        return Some(found("rails", "`X-Runtime` and `X-Request-Id`"));
    }
    // Next.js repeats the `Location` in it, for the redirects of its configuration.
    if is_redirect(response.status) && has(response, "refresh", "0;url=") {
        return Some(found("nextjs", "`Refresh` beside `Location`"));
    }
    // The defaults of its SecurityMiddleware.
    let is_django = has(response, "cross-origin-opener-policy", "same-origin")
        && has(response, "referrer-policy", "same-origin")
        && has(response, "x-content-type-options", "nosniff")
        && !is_helmet(response);
    is_django.then(|| found("django", "the header fields of its SecurityMiddleware"))
}

/// Whether Helmet, a package for Node.js, added its default fields.
fn is_helmet(response: &Response) -> bool {
    ["origin-agent-cluster", "x-dns-prefetch-control", "x-download-options"]
        .iter()
        .all(|name| has(response, name, ""))
}

/// An application that wrote the body of the redirect.
fn redirect_body(response: &Response) -> Option<Recognized> {
    if !is_redirect(response.status) {
        return None;
    }
    let text = body(response);
    let reason = response.status.canonical_reason().unwrap_or_default();
    let starts = |start: &str| text.starts_with(start);
    let evidence = "the body of its redirect";
    if text.contains(&format!("{reason}. Redirecting to ")) && has_field(response, &VARY, "accept")
    {
        Some(found("express", evidence))
    } else if starts("Redirecting to ") && text.trim_end().ends_with('.') {
        Some(found("koa", evidence))
    } else if text.contains("You should be redirected automatically to the target URL:") {
        Some(found("flask", evidence))
    } else if text.contains("You are being <a href=") {
        Some(found("rails", evidence))
    } else if starts("<a href=\"") && text.contains(&format!("\">{reason}</a>.")) {
        Some(found("go", evidence))
    } else {
        None
    }
}

/// (part of the page, id): pages that frameworks send for unknown paths and errors.
const PAGES: &[(&str, &str)] = &[
    ("<pre>Cannot GET /", "express"),
    ("\"message\":\"Route GET:/", "fastify"),
    ("The requested URL was not found on the server. If you entered the URL manually", "flask"),
    ("<p>The requested resource was not found on this server.</p>", "django"),
    ("in your Django settings file", "django"),
    ("relative flex items-top justify-center min-h-screen", "laravel"),
    ("Oops! An Error Occurred", "symfony"),
    ("Sinatra doesn", "rack"),
    ("/_next/static/", "nextjs"),
];

/// (complete page, content type, id)
const COMPLETE_PAGES: &[(&str, &str, &str)] = &[
    ("{\"detail\":\"Not Found\"}", "application/json", "fastapi"),
    ("404 Not Found", "text/plain; charset=UTF-8", "hono"),
];

/// An application that wrote an error page of the same server.
fn application_page(first: &Response, page: &Response) -> Option<Recognized> {
    let text = body(page);
    let content_type = page.headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let evidence = "its error page";
    // Express adds the field to every response, so it did not write the redirect.
    let is_other = has(page, "x-powered-by", "express") && !has(first, "x-powered-by", "express");
    if let Some(nest) = nest(page).filter(|_| !is_other) {
        return Some(nest);
    }
    // Next.js adds it to its pages, not to what handlers return.
    if has(page, "x-powered-by", "next.js") {
        return Some(found("nextjs", "`X-Powered-By: Next.js` on its error page"));
    }
    if let Some((_, id)) = PAGES.iter().find(|(part, _)| text.contains(part)) {
        return (*id != "express" || !is_other).then(|| found(id, evidence));
    }
    let complete =
        |(whole, kind, _): &&(&str, &str, &str)| text == *whole && content_type == Some(*kind);
    if let Some((.., id)) = COMPLETE_PAGES.iter().find(complete) {
        return Some(found(id, evidence));
    }
    let is_go = text == "404 page not found\n" && page.headers.contains_key(X_CONTENT_TYPE_OPTIONS);
    // Koa sends the reason phrase where a program sets no body.
    let reason = first.status.canonical_reason().unwrap_or_default();
    let plain = "text/plain; charset=utf-8";
    let is_koa = is_redirect(first.status)
        && (body(first) == reason && has_field(first, &CONTENT_TYPE, plain))
        && (text == "Not Found" && content_type == Some(plain));
    if is_koa {
        return Some(found("koa", "its redirect and its error page"));
    }
    // Traefik has the same page, and sends the reason phrase as the body of a redirect.
    match is_go {
        true if body(first) == reason => Some(found("traefik", "its error page and its redirect")),
        true => Some(found("go", evidence)),
        false => None,
    }
}

fn nest(page: &Response) -> Option<Recognized> {
    let text = body(page);
    let is_nest =
        text.contains("\"message\":\"Cannot GET /") && text.contains("\"statusCode\":404");
    is_nest.then(|| found("nestjs", "its error page"))
}

/// A web server, load balancer or CDN, if it may have written the redirect itself.
fn server(first: &Response, pages: &[&Response]) -> Option<(Recognized, Certainty)> {
    use Certainty::{Probable, WroteIt};
    let text = body(first);
    let wrote = |id, evidence| Some((found(id, evidence), WroteIt));
    let probable = |id, evidence| Some((found(id, evidence), Probable));
    let on_page = |part: &str| pages.iter().any(|page| body(page).contains(part));
    let field = |part: &str| has_field(first, &SERVER, part);
    if text.contains("<center>cloudflare") {
        return wrote("cloudflare-rule", "the body of its redirect");
    }
    if text.contains("<center>nginx") || text.contains("<center>openresty") {
        return if on_page("default backend - 404") {
            wrote("ingress-nginx", "its error pages")
        } else {
            wrote("nginx", "the body of its redirect")
        };
    }
    if has(first, "x-cache", "generatedresponse from cloudfront") {
        return wrote("cloudfront", "`X-Cache: FunctionGeneratedResponse`");
    }
    if field("cloudfront") {
        return wrote("cloudfront", "`Server: CloudFront`");
    }
    if field("awselb/") {
        return wrote("alb", "`Server: awselb`");
    }
    if field("apache") {
        let is_own = text.contains("<p>The document has moved <a href=")
            || has_field(first, &CONTENT_TYPE, "text/html; charset=iso-8859-1");
        return if is_own {
            wrote("apache", "`Server: Apache` and the body of its redirect")
        } else {
            None
        };
    }
    // What Cloudflare gets from an origin has `CF-Cache-Status`.
    if field("cloudflare") && !has(first, "cf-cache-status", "") {
        return probable("cloudflare-rule", "`Server: cloudflare` without `CF-Cache-Status`");
    }
    if field("vercel") {
        return probable("vercel", "`Server: Vercel`");
    }
    if field("netlify") {
        return probable("netlify", "`Server: Netlify`");
    }
    if field("envoy") && !has(first, "x-envoy-upstream-service-time", "") {
        return probable("envoy", "`Server: envoy`");
    }
    if has(first, "apigw-requestid", "")
        || has(first, "x-amzn-requestid", "") && has(first, "x-amzn-trace-id", "")
    {
        return probable("lambda", "the request ids of AWS");
    }
    // Their own redirects have no body. An application behind them usually has one.
    let is_bare = first.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0")
        && !first.headers.contains_key(CONTENT_TYPE)
        && !first.headers.contains_key(VIA);
    if field("caddy") && is_bare {
        return probable("caddy", "`Server: Caddy`");
    }
    if field("lighttpd") && is_bare {
        return probable("lighttpd", "`Server: lighttpd`");
    }
    // It adds neither field to its own responses, and an application behind it adds `Date`.
    let is_anonymous = !first.headers.contains_key(SERVER) && !first.headers.contains_key(DATE);
    let is_haproxy = on_page("Your browser sent an invalid request.")
        || on_page("No server is available to handle this request.");
    if is_anonymous && is_bare && is_haproxy {
        return wrote("haproxy", "its error page");
    }
    None
}

/// Whether a field has a value that contains this text, in lower case.
fn has(response: &Response, name: &'static str, part: &str) -> bool {
    has_field(response, &HeaderName::from_static(name), part)
}

fn has_field(response: &Response, name: &HeaderName, part: &str) -> bool {
    response.headers.get_all(name).iter().any(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        // The name of a cookie, not its value.
        if *name == SET_COOKIE { value.starts_with(part) } else { value.contains(part) }
    })
}

fn body(response: &Response) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&response.body)
}

#[cfg(test)]
mod tests;
