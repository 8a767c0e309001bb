//! Whether the settings agree with each other.

use super::file::{Unreadable, read_file};
use super::loops::{Callbacks, is_plain_allowed};
use super::place::Place;
use super::problem::Problem;
use super::read::{
    AcmeRead, LETS_ENCRYPT, PageBody, Read, RouteRead, STATE_DIR, SelfCheckRead, TlsRead, below,
    path_at_nango,
};
use super::reader::At;
use super::settings::{
    Acme, CertificateFiles, Challenge, Eab, Listen, Origin, Page, RootCa, SelfCheck, Settings, Tls,
};
use crate::outbound::Roots;
use crate::redirect::{Host, Path, Place as _, Route, RouteTable, Target};
use bytes::Bytes;
use secrecy::SecretString;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The longest page.
const PAGE_BYTES: usize = 64 << 10;

/// The longest bearer token: it has to fit in a request's head.
const TOKEN_BYTES: usize = 4 << 10;

/// The longest list of authorities.
const ROOT_CA_BYTES: usize = 1 << 20;

/// The longest query that hyper takes: its URIs end at 65534 bytes, path included.
const QUERY_BYTES: usize = 60_000;

/// Paths that the edge answers itself.
const RESERVED: [&str; 4] = ["/healthz", "/readyz", "/self-check", "/metrics"];
const RESERVED_BELOW: &str = "/.well-known/acme-challenge/";

/// Judges, and notes what does not agree; the settings are of use only if nothing was noted.
pub(super) fn settle(read: Read, problems: &mut Vec<Problem>) -> Option<Settings> {
    listeners(&read, problems);
    public_url(&read, problems);
    limits(&read, problems);
    let routes = routes(&read, problems);
    let pages = pages(&read, &routes, problems);
    let tls = tls(&read, problems);
    let self_check = self_check(&read.self_check, problems);
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
        self_check,
        log: read.log,
        preflight: read.preflight,
    })
}

fn listeners(read: &Read, problems: &mut Vec<Problem>) {
    let listen = &read.listen;
    let named = [("http", &listen.http), ("https", &listen.https), ("admin", &listen.admin)];
    let mut taken: HashMap<u16, Vec<(SocketAddr, &str)>> = HashMap::new();
    for (name, addresses) in named {
        for at in addresses {
            // Port 0 is a new port each time.
            if at.value.port() == 0 {
                continue;
            }
            let there = taken.entry(at.value.port()).or_default();
            let clash = there.iter().find(|(other, of)| clash(at.value, *other, name == *of));
            if let Some((other, first)) = clash {
                let problem = if *other == at.value {
                    Problem::error(format!("`{}` is listened on twice", at.value)).hint(format!(
                        "`listen.{first}` has it already; give one of them another port"
                    ))
                } else {
                    let (all, one) = if at.value.ip().is_unspecified() {
                        (at.value, *other)
                    } else {
                        (*other, at.value)
                    };
                    let what = format!("`{one}` is taken twice: `{all}` takes all addresses");
                    Problem::error(what).hint(format!(
                        "`listen.{first}` has `{other}` already; give one of them another port"
                    ))
                };
                problems.push(problem.at(&at.place));
            }
            there.push((at.value, name));
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

/// Whether two addresses with one port get in each other's way.
fn clash(one: SocketAddr, other: SocketAddr, in_one_list: bool) -> bool {
    let (one, other) = (one.ip().to_canonical(), other.ip().to_canonical());
    if one == other {
        return true;
    }
    // `[::]` leaves IPv4 to what the same list names for it.
    let is_shared = in_one_list && one.is_ipv4() != other.is_ipv4();
    let takes = |all: IpAddr, it: IpAddr| {
        all.is_unspecified() && (all.is_ipv6() || it.is_ipv4()) && !is_shared
    };
    takes(one, other) || takes(other, one)
}

/// Where `https` is on, `http` sends to the https origin: a public URL with http would lead there
/// and back again for ever.
fn public_url(read: &Read, problems: &mut Vec<Problem>) {
    let Some(url) = read.public_url.as_ref().filter(|url| !url.value.https) else { return };
    if read.listen.https.is_empty() {
        return;
    }
    let https = Origin { https: true, port: None, ..url.value.clone() };
    problems.push(
        Problem::error("`public_url` is plain http, and `listen.https` is on").at(&url.place).hint(
            format!("write `{https}`, with the port if it is not 443; or turn `listen.https` off"),
        ),
    );
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
    let callbacks = Callbacks::of(read);
    let mut places = Places::default();
    for route in &read.routes {
        free(&route.path, problems);
        places.take("route", route.host.as_ref(), &route.path, problems);
        if let Some(target) = &route.target {
            plain("target", target, read, problems);
        }
        let Some(target) = target(route, read) else { continue };
        if let Some(hit) = callbacks.hit(&target.value) {
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
    let taken: HashSet<_> = routes.iter().map(|route| (route.host(), route.path())).collect();
    for page in &read.pages {
        free(&page.path, problems);
        places.take("page", page.host.as_ref(), &page.path, problems);
        if taken.contains(&(page.host.as_ref(), &page.path.value)) {
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

fn page_file(file: &At<PathBuf>) -> Result<Bytes, Problem> {
    read_file(&file.value, PAGE_BYTES).map(Bytes::from).map_err(|why| {
        let name = format!("page `{}`", file.value.display());
        match why {
            Unreadable::TooLong(_) => too_long(&name, &file.place),
            why => unreadable(&name, file, &why, "verification.html"),
        }
    })
}

/// A file that a setting names cannot be read.
fn unreadable(name: &str, file: &At<PathBuf>, why: &Unreadable, example: &str) -> Problem {
    let hint = why.hint(&file.value, example);
    Problem::error(format!("cannot read {name}"))
        .at(&file.place)
        .caused_by(why)
        .hint(hint.unwrap_or_else(|| "relative paths start at the working directory".into()))
}

fn too_long(what: &str, place: &Place) -> Problem {
    Problem::error(format!("{what} is over {}KiB", PAGE_BYTES >> 10))
        .at(place)
        .hint("pages are for verification files; serve anything larger elsewhere")
}

fn tls(read: &Read, problems: &mut Vec<Problem>) -> Option<Tls> {
    let tls = &read.tls;
    let pairs = pairs(tls, problems);
    let given = tls.given || tls.acme.is_some();
    if let (Some(https), false) = (read.listen.https.first(), given) {
        problems.push(
            Problem::error("`listen.https` needs a certificate, and `[tls]` names none")
                .at(&https.place)
                .hint(
                    "set `certificate` and `private_key` in `[tls]`, or let `[tls.acme]` obtain \
                     one, or turn `listen.https` off",
                ),
        );
    }
    let pair = tls.pairs.first().map(|pair| &pair.place);
    let certificate = tls.certificate.as_ref().map(|certificate| &certificate.place).or(pair);
    if let (Some(certificate), true) = (certificate, read.listen.https.is_empty()) {
        problems.push(
            Problem::warning("the certificate is not used: `listen.https` is off")
                .at(certificate)
                .hint("set `https = \"0.0.0.0:443\"` in `[listen]`, or remove the certificate"),
        );
    }
    if let (Some(hsts), false) = (&tls.hsts, given) {
        problems.push(
            Problem::warning("`tls.hsts` does nothing without a certificate")
                .at(&hsts.place)
                .hint("let whatever terminates TLS send Strict-Transport-Security"),
        );
    }
    let hsts = tls.hsts.as_ref().map(|hsts| hsts.value);
    let acme = tls.acme.as_ref().and_then(|acme| self::acme(acme, read, problems));
    (!pairs.is_empty() || acme.is_some()).then_some(Tls { pairs, acme, hsts })
}

fn acme(acme: &AcmeRead, read: &Read, problems: &mut Vec<Problem>) -> Option<Acme> {
    let before = problems.len();
    let agreed = acme.agreed.as_ref();
    if !agreed.is_some_and(|agreed| agreed.value) && !acme.broken {
        problems.push(
            Problem::error("`[tls.acme]` needs your consent to the authority's terms of service")
                .at(agreed.map_or(&acme.place, |agreed| &agreed.place))
                .hint("read them, and set `agree_to_terms = true`"),
        );
    }
    let challenge = acme.challenge.as_ref().map_or(Challenge::TlsAlpn01, |it| it.value);
    if read.listen.https.is_empty() {
        problems.push(
            Problem::error("`[tls.acme]` obtains certificates, and `listen.https` is off")
                .at(&acme.place)
                .hint("set it, for example `https = \"0.0.0.0:443\"` in `[listen]`"),
        );
    }
    if let (Challenge::Http01, true, Some(at)) =
        (challenge, read.listen.http.is_empty(), &acme.challenge)
    {
        problems.push(
            Problem::error("the challenge `http-01` is answered on `listen.http`, which is off")
                .at(&at.place)
                .hint("set it, for example `http = \"0.0.0.0:80\"`, or use `tls-alpn-01`"),
        );
    }
    let eab = match (&acme.eab_key_id, &acme.eab_hmac_key_file) {
        (Some(id), Some(file)) => {
            Some(Eab { key_id: id.value.as_str().into(), hmac_key_file: file.value.clone() })
        }
        (Some(id), None) if !acme.broken => {
            let half = half_of("tls.acme", "eab_key_id", "eab_hmac_key_file", &id.place);
            problems.push(half.hint("the authority hands out both together"));
            None
        }
        (None, Some(file)) if !acme.broken => {
            let half = half_of("tls.acme", "eab_hmac_key_file", "eab_key_id", &file.place);
            problems.push(half.hint("the authority hands out both together"));
            None
        }
        _ => None,
    };
    let mut domains: Vec<Host> = Vec::new();
    for at in &acme.domains {
        if domains.contains(&at.value) {
            let what = format!("`{}` stands in `tls.acme.domains` twice", at.value);
            problems.push(Problem::error(what).at(&at.place).hint("remove one of them"));
        } else {
            domains.push(at.value.clone());
        }
    }
    if acme.domains.is_empty() {
        let named = read.routes.iter().filter_map(|route| route.host.clone());
        for host in named {
            if !domains.contains(&host) {
                domains.push(host);
            }
        }
        if let (true, Some(public)) = (domains.is_empty(), &read.public_url) {
            domains.push(public.value.host.clone());
        }
    }
    if domains.is_empty() && !acme.broken {
        problems.push(
            Problem::error("nothing says which domain the certificate is for")
                .at(&acme.place)
                .hint("name it as `domains` in `[tls.acme]`, as `host` of a route, or in `public_url`"),
        );
    }
    for host in domains.iter().filter(|host| !is_public(host)) {
        // A private directory may know it.
        if acme.directories.is_empty() {
            let what = format!("no public authority certifies `{host}`");
            problems.push(Problem::error(what).at(&acme.place).hint(
                "name a public host, or a private authority as `directory` with its `root_ca`",
            ));
        }
    }
    let text = |at: &At<String>| at.value.as_str().into();
    let path = |at: &At<PathBuf>| at.value.clone();
    let mut directories: Vec<_> = acme.directories.iter().map(|it| it.value.clone()).collect();
    if directories.is_empty() {
        directories.push(LETS_ENCRYPT.into());
    }
    (problems.len() == before && !acme.broken).then(|| Acme {
        domains,
        contact: acme.contact.iter().map(|it| it.value.clone()).collect(),
        directories,
        profile: acme.profile.as_ref().map(text),
        eab,
        state_dir: acme.state_dir.as_ref().map_or_else(|| STATE_DIR.into(), path),
        challenge,
        root_ca: acme.root_ca.as_ref().map(path),
    })
}

/// Whether the host can be known beyond this machine: more than one label, or an address.
fn is_public(host: &Host) -> bool {
    let name = host.as_str();
    (name.contains('.') || name.starts_with('[')) && !name.ends_with(".localhost")
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

fn half(has: &str, lacks: &str, at: &At<PathBuf>) -> Problem {
    half_of("tls", has, lacks, &at.place).hint(format!("name the PEM file as `{lacks}`"))
}

fn half_of(table: &str, has: &str, lacks: &str, place: &Place) -> Problem {
    Problem::error(format!("`{table}.{has}` is set, and `{table}.{lacks}` is not")).at(place)
}

fn self_check(read: &SelfCheckRead, problems: &mut Vec<Problem>) -> SelfCheck {
    let token = read.token_file.as_ref().map(token).transpose();
    let root_ca = read.root_ca.as_ref().map(root_ca).transpose();
    SelfCheck {
        every: read.every,
        cache: read.cache,
        token: token.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        }),
        root_ca: root_ca.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        }),
        connect_to: read.connect_to.clone(),
        follow: read.follow,
    }
}

fn token(file: &At<PathBuf>) -> Result<SecretString, Problem> {
    let name = format!("the token file `{}`", file.value.display());
    let unfit =
        |why: &str, hint: &str| Problem::error(format!("{name} {why}")).at(&file.place).hint(hint);
    let token = read_file(&file.value, TOKEN_BYTES)
        .map_err(|why| unreadable(&name, file, &why, "self-check-token"))?;
    let token = token.trim_ascii();
    if token.is_empty() {
        return Err(unfit("is empty", "write a token into it, or remove `token_file`"));
    }
    // RFC 9110 §5.5: nothing else can be sent in a header.
    if !token.iter().all(u8::is_ascii_graphic) {
        let hint =
            "write one word of letters, digits and signs, for example from `openssl rand -hex 32`";
        return Err(unfit("holds what no bearer token has", hint));
    }
    Ok(String::from_utf8_lossy(token).into_owned().into())
}

fn root_ca(file: &At<PathBuf>) -> Result<RootCa, Problem> {
    let name = format!("`{}`", file.value.display());
    let pem = read_file(&file.value, ROOT_CA_BYTES)
        .map_err(|why| unreadable(&name, file, &why, "ca.pem"))?;
    if let Err(error) = Roots::public().and_pem(&pem) {
        return Err(Problem::error(format!("{name} {error}"))
            .at(&file.place)
            .hint("name a file with the authorities' certificates, each from `-----BEGIN CERTIFICATE-----` on"));
    }
    Ok(RootCa { path: file.value.clone(), pem: pem.into() })
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
