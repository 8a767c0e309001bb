//! Whether the settings agree with each other.

use super::loops::{self, is_plain_allowed};
use super::problem::Problem;
use super::read::{PageBody, Read, RouteRead, TlsRead, below, path_at_nango};
use super::reader::At;
use super::settings::{CertificateFiles, Listen, Page, Settings, Tls};
use super::source::Place;
use crate::redirect::{Host, Path, Place as _, Route, RouteTable, Target};
use bytes::Bytes;
use std::collections::HashMap;
use std::io::Read as _;
use std::net::SocketAddr;

/// The longest page.
const PAGE_BYTES: usize = 64 << 10;

/// The longest query that hyper takes: its URIs end at 65534 bytes, path included.
const QUERY_BYTES: usize = 60_000;

/// Paths that the edge answers itself.
const RESERVED: [&str; 4] = ["/healthz", "/readyz", "/self-check", "/metrics"];
const RESERVED_BELOW: &str = "/.well-known/acme-challenge/";

/// Judges, and notes what does not agree; the settings are of use only if nothing was noted.
pub(super) fn settle(read: Read, problems: &mut Vec<Problem>) -> Option<Settings> {
    listeners(&read, problems);
    limits(&read, problems);
    let routes = routes(&read, problems);
    let pages = pages(&read, &routes, problems);
    let tls = tls(&read, problems);
    Some(Settings {
        public_url: read.public_url.map(|url| url.value),
        nango_url: read.nango?.value.as_str().trim_end_matches('/').into(),
        routes: RouteTable::new(routes).ok()?,
        pages: RouteTable::new(pages).ok()?,
        listen: Listen {
            http: read.listen.http.into_iter().map(|at| at.value).collect(),
            https: read.listen.https.into_iter().map(|at| at.value).collect(),
            admin: read.listen.admin.into_iter().map(|at| at.value).collect(),
            proxy_protocol: read.listen.proxy_protocol,
            trusted_proxies: read.listen.trusted_proxies,
        },
        tls,
        limits: read.limits.limits,
        shutdown: read.shutdown,
        self_check: read.self_check,
        log: read.log,
    })
}

fn listeners(read: &Read, problems: &mut Vec<Problem>) {
    let listen = &read.listen;
    let named = [("http", &listen.http), ("https", &listen.https), ("admin", &listen.admin)];
    let mut taken: HashMap<SocketAddr, &str> = HashMap::new();
    for (name, addresses) in named {
        for at in addresses {
            // Port 0 is a new port each time.
            if at.value.port() == 0 {
                continue;
            }
            if let Some(first) = taken.insert(at.value, name) {
                let what = format!("`{}` is listened on twice", at.value);
                problems.push(Problem::error(what).at(&at.place).hint(format!(
                    "`listen.{first}` has it already; give one of them another port"
                )));
            }
        }
    }
    if let Some(place) = &listen.nowhere {
        problems.push(
            Problem::error("nothing to listen on: `listen.http` and `listen.https` are both off")
                .at(place)
                .hint("set one of them, for example `http = \"127.0.0.1:8080\"` in `[listen]`"),
        );
    }
}

fn limits(read: &Read, problems: &mut Vec<Problem>) {
    let (Some(header), Some(query)) = (&read.limits.header_bytes, &read.limits.query_bytes) else {
        return;
    };
    if query.value > QUERY_BYTES {
        let what = format!("`limits.query_bytes` is {}, over {QUERY_BYTES}", query.value);
        problems.push(Problem::error(what).at(&query.place).hint(format!(
            "the longest request target is 65534 bytes, path included; give at most {QUERY_BYTES}"
        )));
    } else if query.value >= header.value {
        let what = format!(
            "`limits.query_bytes` ({}) is not below `limits.header_bytes` ({})",
            query.value, header.value
        );
        // Whichever was set.
        let place = if query.place == Place::Default { &header.place } else { &query.place };
        problems.push(Problem::error(what).at(place).hint(
            "the query is part of the request head; lower `query_bytes` or raise `header_bytes`",
        ));
    }
}

fn routes(read: &Read, problems: &mut Vec<Problem>) -> Vec<Route> {
    if let Some(nango) = &read.nango {
        plain("nango.url", nango, read, problems);
    }
    let mut routes = Vec::new();
    let mut places = Places::default();
    for route in &read.routes {
        free(&route.path, problems);
        places.take("route", route.host.as_ref(), &route.path, problems);
        if let Some(target) = &route.target {
            plain("target", target, read, problems);
        }
        let Some(target) = target(route, read) else { continue };
        if let Some(hit) = loops::hit(&target.value, read) {
            let what = match route.target {
                Some(_) => format!("the target `{}` is this edge itself", target.value),
                None => format!("`{}`, below `nango.url`, is this edge itself", target.value),
            };
            problems.push(
                Problem::error(what)
                    .at(&target.place)
                    .beside(format!(
                        "`{}` would redirect to `{}`",
                        route.path.value, hit.path.value
                    ))
                    .hint("name Nango's own address, for example `https://api.nango.dev`"),
            );
        }
        routes.push(Route {
            host: route.host.clone(),
            path: route.path.value.clone(),
            target: target.value,
            form_post: route.form_post,
        });
    }
    if let Some(place) = &read.no_routes {
        problems.push(
            Problem::error("there is no route")
                .at(place)
                .hint("remove `route = []` for the two default routes, or add a `[[route]]`"),
        );
    }
    routes
}

/// The target of the route, or the one that follows from `nango.url`.
fn target(route: &RouteRead, read: &Read) -> Option<At<Target>> {
    if route.target.is_some() {
        return route.target.clone();
    }
    let nango = read.nango.as_ref()?;
    let text = below(&nango.value, path_at_nango(&route.path.value));
    Some(At { value: Target::parse(&text).ok()?, place: nango.place.clone() })
}

/// Codes must not cross a network of strangers in the clear.
fn plain(key: &str, target: &At<Target>, read: &Read, problems: &mut Vec<Problem>) {
    if target.value.scheme() == "http" && !is_plain_allowed(&target.value, &read.plain_targets) {
        let what = format!("`{key}` sends the codes in the clear to `{}`", target.value.host());
        problems.push(Problem::error(what).at(&target.place).hint(
            "use https; plain http goes to this machine, and to IP addresses in the private \
             networks that `allow_plain_targets` names",
        ));
    }
}

fn pages(read: &Read, routes: &[Route], problems: &mut Vec<Problem>) -> Vec<Page> {
    let mut places = Places::default();
    let mut pages = Vec::new();
    for page in &read.pages {
        free(&page.path, problems);
        places.take("page", page.host.as_ref(), &page.path, problems);
        let clash =
            |route: &&Route| route.path() == &page.path.value && route.host() == page.host.as_ref();
        if routes.iter().any(|route| clash(&route)) {
            let what = format!("a route answers on `{}` already", page.path.value);
            problems.push(
                Problem::error(what)
                    .at(&page.path.place)
                    .hint("give the page another path, or another host"),
            );
        }
        let body = match &page.body {
            PageBody::Text(text) if text.value.len() > PAGE_BYTES => {
                Err(too_long("the body of the page", &text.place))
            }
            PageBody::Text(text) => Ok(Bytes::from(text.value.clone())),
            PageBody::File(file) => page_file(file),
        };
        match body {
            Ok(body) => pages.push(Page {
                host: page.host.clone(),
                path: page.path.value.clone(),
                body,
                content_type: page.content_type.clone(),
            }),
            Err(problem) => problems.push(problem),
        }
    }
    pages
}

fn page_file(file: &At<std::path::PathBuf>) -> Result<Bytes, Problem> {
    let name = format!("page `{}`", file.value.display());
    let mut body = Vec::new();
    std::fs::File::open(&file.value)
        .and_then(|open| open.take(PAGE_BYTES as u64 + 1).read_to_end(&mut body))
        .map_err(|error| {
            Problem::error(format!("cannot read {name}"))
                .at(&file.place)
                .caused_by(&error)
                .hint("relative paths start at the working directory")
        })?;
    if body.len() > PAGE_BYTES { Err(too_long(&name, &file.place)) } else { Ok(body.into()) }
}

fn too_long(what: &str, place: &Place) -> Problem {
    Problem::error(format!("{what} is over {}KiB", PAGE_BYTES >> 10))
        .at(place)
        .hint("pages are for verification files; serve anything larger elsewhere")
}

fn tls(read: &Read, problems: &mut Vec<Problem>) -> Option<Tls> {
    let tls = &read.tls;
    let pairs = pairs(tls, problems);
    if let (Some(https), false) = (read.listen.https.first(), tls.given) {
        problems.push(
            Problem::error("`listen.https` needs a certificate, and `[tls]` names none")
                .at(&https.place)
                .hint("set `certificate` and `private_key` in `[tls]`, or turn `listen.https` off"),
        );
    }
    if let (Some(hsts), false) = (&tls.hsts, tls.given) {
        problems.push(
            Problem::warning("`tls.hsts` does nothing without a certificate")
                .at(&hsts.place)
                .hint("let whatever terminates TLS send Strict-Transport-Security"),
        );
    }
    let hsts = tls.hsts.as_ref().map(|hsts| hsts.value);
    (!pairs.is_empty()).then_some(Tls { pairs, hsts })
}

fn pairs(tls: &TlsRead, problems: &mut Vec<Problem>) -> Vec<CertificateFiles> {
    let mut pairs: Vec<_> = tls.pairs.iter().map(|pair| pair.value.clone()).collect();
    match (&tls.certificate, &tls.private_key) {
        (Some(certificate), Some(private_key)) => {
            if let Some(pair) = tls.pairs.first() {
                problems.push(
                    Problem::error(
                        "certificates are given both as `tls.certificate` and as `[[tls.pair]]`",
                    )
                    .at(&pair.place)
                    .hint(
                        "move `certificate` and `private_key` into a `[[tls.pair]]` of their own",
                    ),
                );
            }
            pairs.push(CertificateFiles {
                certificate: certificate.value.clone(),
                private_key: private_key.value.clone(),
            });
        }
        (Some(certificate), None) => problems.push(half("certificate", "private_key", certificate)),
        (None, Some(private_key)) => problems.push(half("private_key", "certificate", private_key)),
        (None, None) => {}
    }
    pairs
}

fn half(has: &str, lacks: &str, at: &At<std::path::PathBuf>) -> Problem {
    Problem::error(format!("`tls.{has}` is set, and `tls.{lacks}` is not"))
        .at(&at.place)
        .hint(format!("name the PEM file as `{lacks}`"))
}

/// Places that are taken, each with where that was written.
#[derive(Default)]
struct Places(HashMap<(Option<Host>, Path), Place>);

impl Places {
    fn take(
        &mut self,
        thing: &str,
        host: Option<&Host>,
        path: &At<Path>,
        problems: &mut Vec<Problem>,
    ) {
        let key = (host.cloned(), path.value.clone());
        if let Some(first) = self.0.get(&key) {
            let on = host.map_or("any host".into(), |host| format!("`{host}`"));
            let what = format!("a second {thing} for `{}` on {on}", path.value);
            let problem = Problem::error(what).at(&path.place);
            problems.push(match first {
                Place::File(spot) => {
                    problem.hint(format!("the first is on line {}; remove one", spot.line))
                }
                _ => problem,
            });
            return;
        }
        self.0.insert(key, path.place.clone());
    }
}

fn free(path: &At<Path>, problems: &mut Vec<Problem>) {
    let text = path.value.as_str();
    if RESERVED.contains(&text) || text.starts_with(RESERVED_BELOW) {
        problems.push(
            Problem::error(format!("the edge itself answers on `{text}`"))
                .at(&path.place)
                .hint("choose another path"),
        );
    }
}
