//! What to write in each platform, and the hints of a report about a recognized one.

use super::{Recognized, has, is_helmet, recognize};
use crate::check::Selection;
use crate::check::evidence::Evidence;
use crate::check::landing::{Landing, is_redirect};
use crate::check::observations::Observations;
use crate::check::query::Difference;
use crate::check::query_checks::LIMITS_HINT;
use crate::outbound::Response;
use crate::report::{Check, Status};
use http::StatusCode;

/// What to write in one platform.
pub(super) struct Advice {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    /// How the query arrives byte for byte.
    pub(super) query: &'static str,
    /// How to send 308 with `Cache-Control: no-store`.
    pub(super) response: &'static str,
}

#[rustfmt::skip]
pub(super) const ADVICE: &[Advice] = &[
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
pub(in crate::check) fn replace_hints(
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
pub(super) struct Platform<'r> {
    pub(super) first: &'r Response,
    /// Whether a cache mixed up responses, which the platform cannot fix.
    pub(super) is_stale: bool,
    /// Whether a query is rejected with 400.
    pub(super) is_rejected: bool,
}

impl Platform<'_> {
    /// What to change for a check, if the platform has it.
    pub(super) fn change(&self, check: &Check, advice: &Advice) -> Option<&'static str> {
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
