//! Recognizes the program that writes the redirect, from names in header fields and from its own
//! pages, and names what to write there. Without I/O.
//!
//! Several layers are normal, such as nginx in front of Express. The layer that writes the redirect
//! counts: its traces on the redirect itself come first. Where two layers could have written it, or
//! nothing is characteristic, nothing is recognized: a wrong name costs more than none.
//!
//! Evidence consists of names only, never of values that a server chose.

use super::Selection;
use super::evidence::Evidence;
use super::landing::{Landing, is_redirect};
use super::observations::Observations;
use super::query::Difference;
use super::query_checks::LIMITS_HINT;
use crate::outbound::Response;
use crate::report::{Check, Status};
use http::StatusCode;
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

/// What to write in one platform.
struct Advice {
    id: &'static str,
    name: &'static str,
    /// How the query arrives byte for byte.
    query: &'static str,
    /// How to send 308 with `Cache-Control: no-store`.
    response: &'static str,
}

#[rustfmt::skip]
const ADVICE: &[Advice] = &[
    Advice { id: "nginx", name: "nginx", query: "`return 308 TARGET$is_args$args;` appends the raw query", response: "`return 308 …;` with `add_header Cache-Control no-store always;`" },
    Advice { id: "ingress-nginx", name: "ingress-nginx", query: "`return 308 TARGET$is_args$args;` in the annotation `configuration-snippet`: `permanent-redirect` accepts no `$args`", response: "`return 308 …;` with `add_header Cache-Control no-store always;` in the annotation `configuration-snippet`" },
    Advice { id: "apache", name: "Apache", query: "a `RewriteRule` keeps the raw query when its target has no `?` and its flags have no `QSD`", response: "`[R=308,L]` with `Header always set Cache-Control no-store`" },
    Advice { id: "haproxy", name: "HAProxy", query: "`redirect prefix` without `drop-query` keeps the raw query; after `redirect location`, append `?%[query]`", response: "`code 308` in `http-request redirect` with `http-after-response set-header Cache-Control no-store`" },
    Advice { id: "caddy", name: "Caddy", query: "`redir` to the origin of Nango followed by `{uri}` keeps the raw query", response: "`redir … 308` with `header Cache-Control no-store`" },
    Advice { id: "lighttpd", name: "lighttpd", query: "match only the path, end the target with `${qsa}`, and set `\"url-normalize\" => \"disable\"` in `server.http-parseopts`", response: "`url.redirect-code = 308` with `setenv.set-response-header` for `Cache-Control`, and `mod_setenv` before `mod_redirect` in `server.modules`" },
    Advice { id: "traefik", name: "Traefik", query: "let `redirectRegex` capture the query with the path, and append it", response: "Traefik responds to GET with 301 at most: add `Cache-Control: no-store` with the middleware `headers`, or redirect in a service behind it" },
    Advice { id: "envoy", name: "Envoy", query: "do not set `strip_query`", response: "`response_code: PERMANENT_REDIRECT` with `response_headers_to_add` for `Cache-Control`" },
    Advice { id: "cloudflare-rule", name: "Cloudflare", query: "switch on `Preserve query string` in the redirect rule; in a Worker, append the raw query of `request.url`", response: "a redirect rule sets no `Cache-Control`: use status 302, or a Worker that sends 308 with `no-store`" },
    Advice { id: "cloudfront", name: "CloudFront", query: "append `event.request.rawQueryString()` in a function with runtime 2.0", response: "return `statusCode: 308` and `cache-control: no-store` from the function" },
    Advice { id: "alb", name: "AWS Application Load Balancer", query: "append `?#{query}` in the redirect action", response: "the load balancer sends only 301 and 302, without `Cache-Control`: redirect in a Lambda function or in a service behind it" },
    Advice { id: "lambda", name: "AWS Lambda", query: "append `event.rawQueryString`", response: "return `statusCode: 308` and `cache-control: no-store`" },
    Advice { id: "vercel", name: "Vercel", query: "append the raw query of `req.url` in a function; redirects in `vercel.json` re-encode", response: "send 308 and `Cache-Control: no-store` from a function" },
    Advice { id: "netlify", name: "Netlify", query: "append the raw query of `request.url` in a function", response: "send 308 and `Cache-Control: no-store` from a function" },
    Advice { id: "nextjs", name: "Next.js", query: "append the query of `request.url` in a route handler: `searchParams` loses parameters that occur twice", response: "return a `Response` with 308, `Location` and `Cache-Control: no-store` from a route handler: `redirects` in `next.config` and `NextResponse.redirect` are cacheable" },
    Advice { id: "nuxt", name: "Nuxt", query: "append the raw query of `event.node.req.url` in a server route", response: "set the status, `Location` and `Cache-Control: no-store` in a server route" },
    Advice { id: "sveltekit", name: "SvelteKit", query: "append the query of `request.url` in `+server.js`", response: "return a `Response` with 308, `Location` and `Cache-Control: no-store` from `+server.js`" },
    Advice { id: "express", name: "Express", query: "append the raw query of `req.originalUrl` and set `Location` with `res.set`: `req.query` is parsed and `res.redirect` re-encodes", response: "`res.status(308).set({ Location, \"Cache-Control\": \"no-store\" }).end()`" },
    Advice { id: "nestjs", name: "NestJS", query: "append the raw query of `req.originalUrl` and set `Location` with `res.set`: `@Query()` is parsed and `res.redirect` re-encodes", response: "`res.status(308).set({ Location, \"Cache-Control\": \"no-store\" }).end()` on `@Res()`" },
    Advice { id: "fastify", name: "Fastify", query: "append the raw query of `request.raw.url`: `request.query` is parsed", response: "`reply.code(308).header(\"location\", …).header(\"cache-control\", \"no-store\").send()`" },
    Advice { id: "koa", name: "Koa", query: "append the raw query of `ctx.req.url` and set `Location` with `ctx.set`: `ctx.query` is parsed and `ctx.redirect` re-encodes", response: "`ctx.status = 308` with `ctx.set` for `Location` and `Cache-Control: no-store`" },
    Advice { id: "hono", name: "Hono", query: "append the query of `c.req.url`: `c.req.query()` is parsed", response: "`c.body(null, 308, { Location, \"Cache-Control\": \"no-store\" })`" },
    Advice { id: "flask", name: "Flask or Quart", query: "append `request.query_string.decode()` and set `Location` on a plain `Response`: `request.args` is parsed and `redirect()` re-encodes", response: "`Response(status=308, headers={\"Location\": …, \"Cache-Control\": \"no-store\"})`" },
    Advice { id: "django", name: "Django", query: "append `request.META[\"QUERY_STRING\"]` and set `Location` on a plain `HttpResponse`: redirect classes re-encode", response: "`HttpResponse(status=308)` with `Location` and `Cache-Control: no-store`" },
    Advice { id: "fastapi", name: "FastAPI", query: "append `request.scope[\"query_string\"].decode()` and set `location` on a plain `Response`: `RedirectResponse` re-encodes", response: "`Response(status_code=308, headers={\"location\": …, \"cache-control\": \"no-store\"})`" },
    Advice { id: "aiohttp", name: "aiohttp", query: "append the query of `request.raw_path` and set `Location` on a plain `Response`: `request.query_string` is decoded and the redirect classes re-encode", response: "`web.Response(status=308, headers={\"Location\": …, \"Cache-Control\": \"no-store\"})`" },
    Advice { id: "rails", name: "Rails", query: "append `request.query_string` in a controller; `redirect` in the routes drops or rebuilds the query", response: "`redirect_to …, status: 308, allow_other_host: true` after `response.set_header(\"Cache-Control\", \"no-store\")`" },
    Advice { id: "rack", name: "a Rack application", query: "append `env[\"QUERY_STRING\"]`", response: "`[308, { \"location\" => …, \"cache-control\" => \"no-store\" }, []]`" },
    Advice { id: "laravel", name: "Laravel", query: "append `$_SERVER[\"QUERY_STRING\"]`: `getQueryString()` sorts and `query()` is parsed", response: "`response(\"\", 308)` with `Location` and `Cache-Control: no-store`" },
    Advice { id: "symfony", name: "Symfony", query: "append `$_SERVER[\"QUERY_STRING\"]`: `getQueryString()` sorts and `query->all()` is parsed", response: "`new Response(\"\", 308, [...])` with `Location` and `Cache-Control: no-store`" },
    Advice { id: "php", name: "PHP", query: "append `$_SERVER[\"QUERY_STRING\"]`: `$_GET` is parsed", response: "`header(\"Location: …\", true, 308)` after `header(\"Cache-Control: no-store\")`" },
    Advice { id: "go", name: "a Go program", query: "append `r.URL.RawQuery`: `r.URL.Query()` is parsed, and `Encode()` sorts", response: "set `Location` and `Cache-Control: no-store`, then `w.WriteHeader(http.StatusPermanentRedirect)`" },
];

/// Replaces the general hints of the checks with those for the recognized platform. The first of them
/// in the report has the evidence and the recipe; a change that fixes several findings is described
/// once.
pub(super) fn replace_hints(
    selection: &Selection,
    observations: &Observations,
    checks: &mut [Check],
) {
    let Some(Ok(got)) = observations.first().map(|first| &first.result) else { return };
    let responses =
        observations.spellings.iter().filter_map(|outcome| outcome.result.as_ref().ok());
    let pages: Vec<_> = [&got.response]
        .into_iter()
        .chain(&observations.not_found)
        .chain(responses.map(|got| &got.response))
        .filter(|response| !is_redirect(response.status))
        .collect();
    let Some(recognized) = recognize(&got.response, &pages) else { return };
    let is_stale = observations
        .corpus()
        .any(|outcome| outcome.landing() == Some(&Landing::Altered(Difference::Stale)));
    let is_rejected = observations.corpus().any(|outcome| {
        outcome.evidence() == Evidence::Blocked && outcome.status() == Some(StatusCode::BAD_REQUEST)
    });
    let platform = Platform { first: &got.response, is_stale, is_rejected };
    let Some(advice) = ADVICE.iter().find(|advice| advice.id == recognized.id) else { return };
    let mut findings: Vec<&mut Check> = checks
        .iter_mut()
        .filter(|check| matches!(check.status, Status::Fail | Status::Warn))
        .collect();
    // The order of the report. What is not selected may not be in it.
    findings.sort_by_key(|check| (!selection.wants(&check.id), check.status == Status::Warn));
    let mut given: Vec<(&str, String)> = Vec::new();
    for check in findings {
        let Some(what) = platform.change(check, advice) else { continue };
        let Recognized { id, evidence } = recognized;
        let name = advice.name;
        check.hint = Some(match given.iter().find(|(known, _)| *known == what) {
            Some((_, first)) => format!("the change for `{first}` fixes this too"),
            None if given.is_empty() => format!(
                "the server is {name} ({evidence}): {what}; run `callback-edge recipe {id}`"
            ),
            None => format!("in {name}: {what}"),
        });
        given.push((what, check.id.clone().into_owned()));
    }
}

/// What determines a hint.
struct Platform<'r> {
    first: &'r Response,
    /// Whether a cache mixed up responses, which the platform cannot fix.
    is_stale: bool,
    /// Whether a query is rejected with 400.
    is_rejected: bool,
}

impl Platform<'_> {
    /// What to change for a check, if the platform has it.
    fn change(&self, check: &Check, advice: &Advice) -> Option<&'static str> {
        let id = advice.id;
        Some(match &*check.id {
            // The recipe cannot change it either.
            "redirect.encoding" if id == "nextjs" && check.status == Status::Warn => {
                "nothing has to change: Next.js encodes the query before it calls a handler, and Nango reads the same values"
            }
            "redirect.query"
            | "redirect.encoding"
            | "redirect.parameters"
            | "redirect.template" => advice.query,
            "redirect.status" if is_redirect(self.first.status) => advice.response,
            "redirect.status"
                if matches!(self.first.status.as_u16(), 200..300 | 404 | 405 | 410) =>
            {
                "add the redirect"
            }
            "redirect.cache" if !self.is_stale => advice.response,
            "redirect.coop" | "redirect.referrer" if is_helmet(self.first) => {
                "Helmet adds it: exempt the path of the callback, or set its options `crossOriginOpenerPolicy` and `referrerPolicy` to false"
            }
            "redirect.coop" | "redirect.referrer" if id == "django" => {
                "SecurityMiddleware adds it to responses that have none: set `Cross-Origin-Opener-Policy: unsafe-none` and `Referrer-Policy: strict-origin-when-cross-origin` on this response"
            }
            // A firewall or another proxy, not the limit of this server.
            "redirect.size" if check.hint.as_deref() != Some(LIMITS_HINT) => return None,
            "redirect.size" if has(self.first, "server", "webrick/") => {
                "WEBrick accepts 2 KiB at most: use Puma"
            }
            "redirect.size" if id == "nginx" => "set `large_client_header_buffers 4 32k;`",
            "redirect.size" if id == "apache" => "set `LimitRequestLine 32768`",
            "redirect.size" if id == "haproxy" => "set `tune.bufsize 65536`",
            "redirect.blocked" if id == "lighttpd" && self.is_rejected => advice.query,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Protocol;
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};
    use std::time::Duration;

    /// A response as it was seen: the lines of its header, and its body.
    fn response(status: u16, header: &str, body: &str) -> Response {
        let mut headers = HeaderMap::new();
        for line in header.lines().filter(|line| !line.trim().is_empty()) {
            let (name, value) = line.trim().split_once(": ").unwrap();
            let name = HeaderName::try_from(name).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
            whole: true,
            protocol: Protocol::Http1,
            head_time: Duration::ZERO,
        }
    }

    /// (program and version, redirect: header and body, error page: header and body, id)
    type Row =
        (&'static str, (&'static str, &'static str), (&'static str, &'static str), &'static str);

    const DATE_LINE: &str =
        "Date: Thu, 26 Nov 2026 18:33:03 GMT\nLocation: https://api.nango.dev/oauth/callback?a=1\n";
    const NODE: &str = "Connection: keep-alive\nKeep-Alive: timeout=5\n";
    const EXPRESS_PAGE: (&str, &str) = (
        "Content-Security-Policy: default-src 'none'\nX-Content-Type-Options: nosniff\nContent-Type: text/html; charset=utf-8",
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<title>Error</title>\n</head>\n<body>\n<pre>Cannot GET /oauth/nowhere</pre>\n</body>\n</html>\n",
    );
    const EXPRESS_REDIRECT: &str = "<!DOCTYPE html><head><title>Permanent Redirect</title></head><body><p>Permanent Redirect. Redirecting to https://api.nango.dev/oauth/callback?x=1</p></body>";
    const NGINX_308: &str = "<html>\r\n<head><title>308 Permanent Redirect</title></head>\r\n<body>\r\n<center><h1>308 Permanent Redirect</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n";
    const NGINX_404: (&str, &str) = (
        "Server: nginx/1.22.1\nContent-Type: text/html",
        "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n",
    );
    const FLASK_PAGE: (&str, &str) = (
        "Content-Type: text/html; charset=utf-8",
        "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p>The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again.</p>\n",
    );
    const HAPROXY_400: (&str, &str) = (
        "Cache-Control: no-cache\nConnection: close\nContent-Type: text/html",
        "<html><body><h1>400 Bad request</h1>\nYour browser sent an invalid request.\n</body></html>\n",
    );
    const NEXT_PAGE: (&str, &str) = (
        "Vary: rsc, next-router-state-tree, next-router-prefetch\nX-Powered-By: Next.js\nContent-Type: text/html; charset=utf-8",
        "<!DOCTYPE html><html><head><script src=\"/_next/static/chunks/webpack-70c336f9a46f13b1.js\" async=\"\"></script>",
    );
    const GO_PAGE: (&str, &str) = (
        "Content-Type: text/plain; charset=utf-8\nX-Content-Type-Options: nosniff",
        "404 page not found\n",
    );
    const NO_PAGE: (&str, &str) = ("", "");

    /// What these programs sent on 26 November 2026, run with a redirect and without configuration.
    #[rustfmt::skip]
    const SEEN: &[Row] = &[
        ("Express 5.3.0", ("X-Powered-By: Express\nVary: Accept\nContent-Type: text/html; charset=utf-8", EXPRESS_REDIRECT), EXPRESS_PAGE, "express"),
        ("Express 5.3.0, without X-Powered-By and without a body", ("Content-Length: 0", ""), EXPRESS_PAGE, "express"),
        ("Express 5.3.0, res.redirect, its own error page", ("Vary: Accept\nContent-Type: text/html; charset=utf-8", EXPRESS_REDIRECT), NO_PAGE, "express"),
        ("Helmet 8.3.0 on Express 5.3.0", ("Cross-Origin-Opener-Policy: same-origin\nCross-Origin-Resource-Policy: same-origin\nOrigin-Agent-Cluster: ?1\nReferrer-Policy: no-referrer\nX-Content-Type-Options: nosniff\nX-DNS-Prefetch-Control: off\nX-Download-Options: noopen\nContent-Length: 0", ""), EXPRESS_PAGE, "express"),
        ("Koa 3.3.0, ctx.redirect", ("Content-Type: text/html; charset=utf-8", "Redirecting to https://api.nango.dev/oauth/callback?x=1."), ("Content-Type: text/plain; charset=utf-8", "Not Found"), "koa"),
        ("Koa 3.3.0, ctx.set", ("Content-Type: text/plain; charset=utf-8\nContent-Length: 18", "Permanent Redirect"), ("Content-Type: text/plain; charset=utf-8", "Not Found"), "koa"),
        ("Fastify 5.12.8", ("content-length: 0\nConnection: keep-alive\nKeep-Alive: timeout=72", ""), NO_PAGE, "fastify"),
        ("Fastify 5.12.8 behind a proxy", ("content-length: 0\nServer: nginx", ""), ("content-type: application/json; charset=utf-8", "{\"message\":\"Route GET:/oauth/nowhere not found\",\"error\":\"Not Found\",\"statusCode\":404}"), "fastify"),
        ("Hono 4.13.19", (NODE, ""), ("Content-Type: text/plain; charset=UTF-8", "404 Not Found"), "hono"),
        ("Next.js 16.4.6, route handler", ("vary: rsc, next-router-state-tree, next-router-prefetch, next-router-segment-prefetch\ncache-control: no-store", ""), NEXT_PAGE, "nextjs"),
        ("Next.js 16.4.6, pages/api", ("Cache-Control: no-store", ""), NEXT_PAGE, "nextjs"),
        ("Next.js 16.4.6, next.config", ("Refresh: 0;url=https://api.nango.dev/oauth/callback?a=1", "https://api.nango.dev/oauth/callback?a=1"), NO_PAGE, "nextjs"),
        ("Next.js 16.4.6, page", ("X-Powered-By: Next.js\nContent-Type: text/html; charset=utf-8", ""), NO_PAGE, "nextjs"),
        ("Flask 3.1.3, Werkzeug 3.1.9", ("Server: Werkzeug/3.1.9 Python/3.11.7", ""), NO_PAGE, "flask"),
        ("Flask 3.1.3 on gunicorn 27.0.1", ("Server: gunicorn\nContent-Type: text/html; charset=utf-8", ""), FLASK_PAGE, "flask"),
        ("Django 5.2.19 with SecurityMiddleware", ("Server: gunicorn\nX-Frame-Options: DENY\nX-Content-Type-Options: nosniff\nReferrer-Policy: same-origin\nCross-Origin-Opener-Policy: same-origin", ""), NO_PAGE, "django"),
        ("Django 5.2.19 without middleware", ("Server: WSGIServer/0.2 CPython/3.11.7\nContent-Type: text/html; charset=utf-8", ""), ("Content-Type: text/html; charset=utf-8", "<h1>Not Found</h1><p>The requested resource was not found on this server.</p>"), "django"),
        ("FastAPI 0.165.0, uvicorn 0.54.0", ("server: uvicorn\ncontent-length: 0", ""), ("server: uvicorn\ncontent-type: application/json", "{\"detail\":\"Not Found\"}"), "fastapi"),
        ("aiohttp 3.14.5", ("Content-Type: text/plain; charset=utf-8\nServer: Python/3.11 aiohttp/3.14.5", "308: Permanent Redirect"), NO_PAGE, "aiohttp"),
        ("Rails 6.1.7", ("Referrer-Policy: strict-origin-when-cross-origin\nX-Request-Id: 026a0f35\nX-Runtime: 0.024371", "<html><body>You are being <a href=\"https://api.nango.dev/oauth/callback?a=%2F\">redirected</a>.</body></html>"), NO_PAGE, "rails"),
        ("Rack 2.2.22, WEBrick 1.8.1", ("Server: WEBrick/1.8.1 (Ruby/3.1.2/2022-04-12)\nContent-Length: 0", ""), NO_PAGE, "rack"),
        ("PHP 8.2.36", ("X-Powered-By: PHP/8.2.36\nContent-type: text/html; charset=UTF-8", ""), NO_PAGE, "php"),
        ("Go 1.19.8, http.Redirect", ("Content-Type: text/html; charset=utf-8", "<a href=\"https://api.nango.dev/oauth/callback?a=1\">Permanent Redirect</a>.\n\n"), NO_PAGE, "go"),
        ("Go 1.19.8, Location by hand", ("Content-Length: 0", ""), GO_PAGE, "go"),
        ("nginx 1.22.1", ("Server: nginx/1.22.1\nContent-Type: text/html", NGINX_308), NGINX_404, "nginx"),
        ("nginx 1.22.1 before Express 5.3.0", ("Server: nginx\nX-Powered-By: Express\nVary: Accept", EXPRESS_REDIRECT), EXPRESS_PAGE, "express"),
        ("a return of nginx 1.22.1 beside Express 5.3.0", ("Server: nginx/1.22.1\nContent-Type: text/html", NGINX_308), EXPRESS_PAGE, "nginx"),
        ("Apache 2.4.71", ("Server: Apache/2.4.71 (Debian)\nContent-Type: text/html; charset=iso-8859-1", "<p>The document has moved <a href=\"https://api.nango.dev/oauth/callback?a=1\">here</a>.</p>"), NO_PAGE, "apache"),
        ("Caddy 2.6.2", ("Server: Caddy\nContent-Length: 0", ""), ("Server: Caddy\nContent-Length: 0", ""), "caddy"),
        ("Caddy 2.6.2 before Express 5.3.0", ("Content-Type: text/plain; charset=utf-8\nServer: Caddy\nVary: Accept\nX-Powered-By: Express", ""), EXPRESS_PAGE, "express"),
        ("lighttpd 1.4.69", ("Content-Length: 0\nServer: lighttpd/1.4.69", ""), NO_PAGE, "lighttpd"),
    ];

    /// Not run here: from the documentation of these services and packages.
    #[rustfmt::skip]
    const DOCUMENTED: &[Row] = &[
        ("Cloudflare, redirect rule", ("Server: cloudflare\nCF-RAY: 8c", "<hr><center>cloudflare</center>"), NO_PAGE, "cloudflare-rule"),
        ("Cloudflare, Worker", ("Server: cloudflare\nCF-RAY: 8c\nContent-Length: 0", ""), NO_PAGE, "cloudflare-rule"),
        ("CloudFront function", ("Server: CloudFront\nX-Cache: FunctionGeneratedResponse from cloudfront\nVia: 1.1 a.cloudfront.net (CloudFront)", ""), NO_PAGE, "cloudfront"),
        ("AWS ALB", ("Server: awselb/2.0\nContent-Type: text/html", ""), NO_PAGE, "alb"),
        ("Vercel", ("Server: Vercel\nX-Vercel-Id: iad1::a", ""), NO_PAGE, "vercel"),
        ("Next.js on Vercel", ("Server: Vercel\nVary: RSC, Next-Router-State-Tree", ""), NO_PAGE, "nextjs"),
        ("Netlify", ("Server: Netlify", ""), NO_PAGE, "netlify"),
        ("Envoy", ("server: envoy", ""), NO_PAGE, "envoy"),
        ("Traefik", ("Content-Length: 18", "Permanent Redirect"), GO_PAGE, "traefik"),
        ("API Gateway", ("Apigw-Requestid: a=", ""), NO_PAGE, "lambda"),
        ("NestJS", ("X-Powered-By: Express", ""), ("Content-Type: application/json; charset=utf-8", "{\"message\":\"Cannot GET /oauth/nowhere\",\"error\":\"Not Found\",\"statusCode\":404}"), "nestjs"),
        ("Laravel", ("X-Powered-By: PHP/8.3.1\nSet-Cookie: laravel_session=s3cret; path=/", ""), NO_PAGE, "laravel"),
        ("Nuxt", ("X-Powered-By: Nuxt", ""), NO_PAGE, "nuxt"),
    ];

    /// Nothing characteristic, or two layers that could both have written the redirect.
    #[rustfmt::skip]
    const NEUTRAL: &[Row] = &[
        ("nothing", ("Content-Length: 0", ""), NO_PAGE, ""),
        ("Node.js 20", (NODE, ""), ("Connection: close", ""), ""),
        ("Puma 5.6.5", ("Transfer-Encoding: chunked", ""), ("Content-Type: text/plain", "Not Found"), ""),
        ("an application behind nginx", ("Server: nginx\nContent-Length: 0", ""), NGINX_404, ""),
        ("an application behind Apache", ("Server: Apache\nContent-Type: text/html; charset=utf-8", ""), NO_PAGE, ""),
        ("an application behind Cloudflare", ("Server: cloudflare\nCF-Cache-Status: DYNAMIC\nCF-RAY: 8c", ""), NO_PAGE, ""),
        ("an application behind CloudFront", ("X-Cache: Miss from cloudfront\nVia: 1.1 a.cloudfront.net (CloudFront)", ""), NO_PAGE, ""),
        ("an application behind Envoy", ("server: envoy\nx-envoy-upstream-service-time: 1", ""), NO_PAGE, ""),
        ("an application behind HAProxy", ("Content-Length: 0", ""), HAPROXY_400, ""),
        ("an application behind lighttpd", ("Server: lighttpd\nContent-Type: text/html", ""), NO_PAGE, ""),
        ("gunicorn", ("Server: gunicorn", ""), ("Content-Type: text/html", "Not Found"), ""),
        ("uvicorn", ("server: uvicorn", ""), ("content-type: text/plain", "Not Found"), ""),
        ("Express beside a redirect of something else", ("Content-Length: 0", ""), ("X-Powered-By: Express\nContent-Type: text/html", "<pre>Cannot GET /oauth/nowhere</pre>"), ""),
        ("Caddy before Flask: both could have redirected", ("Server: Caddy\nContent-Length: 0", ""), FLASK_PAGE, ""),
        ("another API's error", ("Content-Length: 0", ""), ("Content-Type: application/json", "{\"detail\":\"Not found.\"}"), ""),
        ("security header fields by hand", ("Cross-Origin-Opener-Policy: same-origin\nReferrer-Policy: no-referrer\nX-Content-Type-Options: nosniff", ""), NO_PAGE, ""),
        ("a server of its own name", ("Server: acme-edge/3\nX-Powered-By: acme", ""), ("Server: acme-edge/3", "not here"), ""),
    ];

    #[test]
    fn programs_are_recognized_by_what_they_send() {
        for (name, redirect, page, id) in SEEN.iter().chain(DOCUMENTED) {
            assert_eq!(id_of(*redirect, *page), Some(*id), "{name}");
        }
        let mut ids: Vec<_> = SEEN.iter().map(|row| row.3).collect();
        ids.sort_unstable();
        ids.dedup();
        println!("{} programs seen: {}", ids.len(), ids.join(" "));
    }

    #[test]
    fn neutral_responses_are_not_recognized() {
        for (name, redirect, page, _) in NEUTRAL {
            assert_eq!(id_of(*redirect, *page), None, "{name}");
        }
    }

    fn id_of(redirect: (&str, &str), page: (&str, &str)) -> Option<&'static str> {
        let first = response(308, &format!("{DATE_LINE}{}", redirect.0), redirect.1);
        let page = response(404, page.0, page.1);
        recognize(&first, &[&page]).map(|it| it.id)
    }

    #[test]
    fn haproxy_sends_no_date_and_its_own_page_for_an_invalid_request() {
        // HAProxy 2.6.12.
        let header = "content-length: 0\nlocation: https://api.nango.dev/oauth/callback?a=1";
        let (first, page) =
            (response(308, header, ""), response(400, HAPROXY_400.0, HAPROXY_400.1));
        assert_eq!(recognize(&first, &[&page]).map(|it| it.id), Some("haproxy"));
        assert_eq!(recognize(&first, &[]), None);
    }

    #[test]
    fn a_page_of_the_callback_itself_is_recognized_too() {
        let page = response(404, EXPRESS_PAGE.0, EXPRESS_PAGE.1);
        assert_eq!(recognize(&page, &[&page]).map(|it| it.id), Some("express"));
        let page = response(404, NGINX_404.0, NGINX_404.1);
        assert_eq!(recognize(&page, &[&page]).map(|it| it.id), Some("nginx"));
    }

    #[test]
    fn every_recognized_program_has_advice() {
        for (name, .., id) in SEEN.iter().chain(DOCUMENTED) {
            assert!(ADVICE.iter().any(|advice| advice.id == *id), "{name}");
        }
        for (.., id, _) in FIELDS {
            assert!(ADVICE.iter().any(|advice| advice.id == *id), "{id}");
        }
        for (_, id) in PAGES {
            assert!(ADVICE.iter().any(|advice| advice.id == *id), "{id}");
        }
    }

    /// A redirect in Next.js cannot avoid the warning.
    #[test]
    fn next_js_is_not_blamed_for_an_encoding_that_keeps_the_values() {
        let first = response(308, "Vary: next-router-state-tree", "");
        let id = recognize(&first, &[]).unwrap().id;
        let advice = ADVICE.iter().find(|advice| advice.id == id).unwrap();
        let platform = Platform { first: &first, is_stale: false, is_rejected: false };
        let check = Check::new("redirect.encoding", "");
        let change = |check| platform.change(&check, advice).unwrap();
        assert!(change(check.clone().warn("re-encoded")).starts_with("nothing has to change"));
        assert_eq!(change(check.fail("changed")), advice.query);
    }

    /// Hints name `callback-edge recipe ID`.
    #[test]
    fn every_recognized_program_has_a_recipe() {
        let recipes = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/recipes");
        for Advice { id, .. } in ADVICE {
            assert!(recipes.join(id).join("recipe.toml").is_file(), "{id}");
        }
    }
}
