use super::advice::{ADVICE, Advice, Platform};
use super::*;
use crate::outbound::Protocol;
use crate::report::Check;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
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
type Row = (&'static str, (&'static str, &'static str), (&'static str, &'static str), &'static str);

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
    let (first, page) = (response(308, header, ""), response(400, HAPROXY_400.0, HAPROXY_400.1));
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
