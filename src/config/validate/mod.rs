//! Checks the rules that span several settings, and reads the files that settings refer to.

mod files;
mod tls;

use super::load::InspectCertificates;
use super::location::Location;
use super::loops::{Callbacks, is_plain_allowed};
use super::problem::Problem;
use super::read::{PageBody, ParsedRoute, ParsedSelfCheck, ParsedSettings, below, path_at_nango};
use super::reader::Located;
use super::settings::{Origin, Page, SelfCheck, Settings};
use crate::outbound::Roots;
use crate::redirect::{Host, Mounted as _, Path, Route, RouteTable, Target};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The maximum length of a query: hyper limits a URI to 65534 bytes, including the path.
const QUERY_BYTES: usize = 60_000;

/// Paths that the edge serves itself.
const RESERVED: [&str; 4] = ["/healthz", "/readyz", "/self-check", "/metrics"];
const RESERVED_BELOW: &str = "/.well-known/acme-challenge/";

/// Validates, and reports violations. The settings are usable only without errors. Files that only
/// `serve` needs are checked only for `serve`: then there is a function for certificates.
pub(super) fn validate(
    read: ParsedSettings,
    problems: &mut Vec<Problem>,
    inspect: Option<InspectCertificates>,
) -> Option<Settings> {
    let mut unusable = Vec::new();
    listeners(&read, problems);
    public_url(&read, problems);
    nango(&read, problems);
    limits(&read, problems);
    let routes = routes(&read, problems);
    let pages = pages(&read, &routes, problems);
    let tls = tls::validate(&read, problems, &mut unusable);
    let self_check = self_check(&read.self_check, problems, &mut unusable);
    if let Some(inspect) = inspect {
        problems.append(&mut unusable);
        let pairs = tls.as_ref().map_or(&[][..], |tls| &tls.pairs);
        problems.extend(inspect(pairs, &tls::hosts(&read)));
    }
    Some(Settings {
        public_url: read.public_url.map(|url| url.value),
        nango_url: read.nango?.value.as_str().trim_end_matches('/').into(),
        routes: RouteTable::new(routes).ok()?,
        pages: RouteTable::new(pages).ok()?,
        listen: read.listen.into(),
        tls,
        limits: read.limits.limits,
        shutdown: read.shutdown,
        self_check,
        log: read.log,
        preflight: read.preflight,
    })
}

fn listeners(read: &ParsedSettings, problems: &mut Vec<Problem>) {
    let listen = &read.listen;
    let named = [("http", &listen.http), ("https", &listen.https), ("admin", &listen.admin)];
    let mut taken: HashMap<u16, Vec<(SocketAddr, &str)>> = HashMap::new();
    for (name, addresses) in named {
        for at in addresses {
            // Port 0 is a different port each time.
            if at.value.port() == 0 {
                continue;
            }
            let there = taken.entry(at.value.port()).or_default();
            let clash = there.iter().find(|(other, of)| clash(at.value, *other, name == *of));
            if let Some((other, first)) = clash {
                let problem = if *other == at.value {
                    let twice = Problem::error(format!("`{}` is listed twice", at.value));
                    twice.hint(if *first == name {
                        "remove one of them".to_owned()
                    } else {
                        format!("`listen.{first}` has it too; change the port of one of them")
                    })
                } else {
                    let (all, one) = if at.value.ip().is_unspecified() {
                        (at.value, *other)
                    } else {
                        (*other, at.value)
                    };
                    let what =
                        format!("`{one}` conflicts with `{all}`, which includes all addresses");
                    Problem::error(what).hint(format!(
                        "`listen.{first}` has `{other}`; change the port of one of them"
                    ))
                };
                problems.push(problem.at(&at.location));
            }
            there.push((at.value, name));
        }
    }
    for (addresses, port, what, other) in [
        (&listen.http, 443, "plain HTTP on the port of https", "https"),
        (&listen.https, 80, "TLS on the port of http", "http"),
    ] {
        for at in addresses.iter().filter(|at| at.value.port() == port) {
            problems.push(
                Problem::warning(format!("`{}` is {what}", at.value))
                    .at(&at.location)
                    .hint(format!("use another port, or `listen.{other}`")),
            );
        }
    }
    if listen.admin.is_empty()
        && let Some(host) = listen.admin_hosts.first()
    {
        problems.push(
            Problem::warning("`listen.admin_hosts` has no effect: `listen.admin` is off")
                .at(&host.location)
                .hint("set `listen.admin`, or remove `listen.admin_hosts`"),
        );
    }
    if let Some(location) = &listen.no_listener {
        problems.push(
            Problem::error("nothing to listen on: `listen.http` and `listen.https` are both off")
                .at(location)
                .hint("set one of them, for example `http = \"127.0.0.1:8080\"` in `[listen]`"),
        );
    }
}

/// Whether two addresses with the same port conflict.
fn clash(one: SocketAddr, other: SocketAddr, in_one_list: bool) -> bool {
    let (one, other) = (one.ip().to_canonical(), other.ip().to_canonical());
    if one == other {
        return true;
    }
    // `[::]` excludes IPv4 if the same list has IPv4 addresses.
    let is_shared = in_one_list && one.is_ipv4() != other.is_ipv4();
    let takes = |all: IpAddr, it: IpAddr| {
        all.is_unspecified() && (all.is_ipv6() || it.is_ipv4()) && !is_shared
    };
    takes(one, other) || takes(other, one)
}

fn public_url(read: &ParsedSettings, problems: &mut Vec<Problem>) {
    let Some(at) = &read.public_url else { return };
    let url = &at.value;
    let hosts: Vec<_> = read.routes.iter().map(ParsedRoute::host).collect();
    if !hosts.is_empty() && hosts.iter().all(|host| host.is_some_and(|host| *host != url.host)) {
        problems.push(
            Problem::warning(format!("no route is for `{}`, the host of `public_url`", url.host))
                .at(&at.location)
                .hint("give `public_url` the host of a route, or add a route for its host"),
        );
    }
    if url.https {
        return;
    }
    let https = Origin { https: true, port: None, ..url.clone() };
    // `http` redirects to the https origin: a public URL with http would be a loop.
    if !read.listen.https.is_empty() {
        problems.push(
            Problem::error("`public_url` is plain http, but `listen.https` is on")
                .at(&at.location)
                .hint(format!(
                    "write `{https}`, with the port if it is not 443; or turn `listen.https` off"
                )),
        );
    } else if tls::is_public(&url.host) && !is_private(&url.host) {
        problems.push(
            Problem::warning("`public_url` is plain http: providers accept only https callbacks")
                .at(&at.location)
                .hint(format!("write `{https}` if a proxy in front terminates TLS")),
        );
    }
}

/// Whether the host is an address that is not public.
fn is_private(host: &Host) -> bool {
    match host.as_str().trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(it)) => it.is_private() || it.is_loopback() || it.is_link_local(),
        Ok(IpAddr::V6(it)) => {
            it.is_loopback() || it.is_unique_local() || it.is_unicast_link_local()
        }
        Err(_) => false,
    }
}

/// `nango.url` is the URL that the paths of Nango are appended to.
fn nango(read: &ParsedSettings, problems: &mut Vec<Problem>) {
    let Some(nango) = &read.nango else { return };
    let url = nango.value.as_str().trim_end_matches('/');
    let paths = ["/oauth/callback", "/app-auth/connect", "/oauth", "/app-auth"];
    let callback = paths.map(|path| url.strip_suffix(path));
    if let Some(base) = callback.into_iter().flatten().next() {
        problems.push(
            Problem::error("`nango.url` is the URL of Nango without the path of its callback")
                .at(&nango.location)
                .with_note(format!("`{url}/oauth/callback` would be the target"))
                .hint(format!("write `{base}`")),
        );
    } else if read.nango_slash {
        problems.push(
            Problem::warning("`nango.url` ends in a slash, which is ignored")
                .at(&nango.location)
                .hint(format!("write `{url}`")),
        );
    }
    check_dashboard("nango.url", nango, problems);
}

fn check_dashboard(key: &str, url: &Located<Target>, problems: &mut Vec<Problem>) {
    if url.value.host() == "app.nango.dev" {
        problems.push(
            Problem::warning(format!("`{key}` is the dashboard of Nango, not its API"))
                .at(&url.location)
                .hint("use `api.nango.dev`: the callback of Nango Cloud is `https://api.nango.dev/oauth/callback`"),
        );
    }
}

/// Nango stores the callback in a column of this length; with a longer one every flow fails.
const CALLBACK_LENGTH: usize = 255;

fn check_length(route: &ParsedRoute, read: &ParsedSettings, problems: &mut Vec<Problem>) {
    let public = read.public_url.as_ref().map(|url| url.value.to_string());
    let origin = match (route.host(), public) {
        (Some(host), _) => format!("https://{host}"),
        (None, Some(public)) => public,
        (None, None) => return,
    };
    let length = origin.len() + route.path.value.as_str().len();
    if length > CALLBACK_LENGTH {
        let what =
            format!("the callback has {length} characters, and Nango stores {CALLBACK_LENGTH}");
        problems
            .push(Problem::error(what).at(&route.path.location).hint("use a shorter path or host"));
    }
}

fn limits(read: &ParsedSettings, problems: &mut Vec<Problem>) {
    let (Some(header), Some(query)) = (&read.limits.header_bytes, &read.limits.query_bytes) else {
        return;
    };
    if query.value > QUERY_BYTES {
        let what = format!("`limits.query_bytes` is {}, over {QUERY_BYTES}", query.value);
        problems.push(Problem::error(what).at(&query.location).hint(format!(
            "a request target has at most 65534 bytes, including the path; give at most {QUERY_BYTES}"
        )));
    } else if query.value >= header.value {
        let what = format!(
            "`limits.query_bytes` ({}) is not below `limits.header_bytes` ({})",
            query.value, header.value
        );
        // The one that is set.
        let location =
            if query.location == Location::Default { &header.location } else { &query.location };
        problems.push(Problem::error(what).at(location).hint(
            "the query is part of the request head; lower `query_bytes` or raise `header_bytes`",
        ));
    }
}

fn routes(read: &ParsedSettings, problems: &mut Vec<Problem>) -> Vec<Route> {
    if let Some(nango) = &read.nango {
        check_cleartext("nango.url", nango, read, problems);
    }
    let mut routes = Vec::new();
    let callbacks = Callbacks::of(read);
    let mut taken = TakenPaths::default();
    for route in &read.routes {
        check_reserved(&route.path, problems);
        check_pattern("route", &route.path, problems);
        check_length(route, read, problems);
        taken.insert("route", route.host(), &route.path, problems);
        if let Some(target) = &route.target {
            check_cleartext("target", target, read, problems);
            check_dashboard("target", target, problems);
        }
        let Some(target) = target(route, read) else { continue };
        if let Some(hit) = callbacks.hit(&target.value) {
            let what = match route.target {
                Some(_) => {
                    format!("the target `{}` is this server itself", target.value.redacted())
                }
                None => format!("`{}`, below `nango.url`, is this server itself", target.value),
            };
            problems.push(
                Problem::error(what)
                    .at(&target.location)
                    .with_note(format!(
                        "`{}` would redirect to `{}`",
                        route.path.value, hit.path.value
                    ))
                    .hint("use the address of Nango, for example `https://api.nango.dev`"),
            );
        }
        routes.push(Route {
            host: route.host().cloned(),
            path: route.path.value.clone(),
            target: target.value,
            form_post: route.form_post,
        });
    }
    if let Some(location) = &read.no_routes {
        problems.push(
            Problem::error("there is no route")
                .at(location)
                .hint("remove `route = []` to use the two default routes, or add a `[[route]]`"),
        );
    }
    routes
}

/// The target of the route, or the one derived from `nango.url`.
fn target(route: &ParsedRoute, read: &ParsedSettings) -> Option<Located<Target>> {
    if route.target.is_some() {
        return route.target.clone();
    }
    let nango = read.nango.as_ref()?;
    let text = below(&nango.value, path_at_nango(&route.path.value));
    Some(Located { value: Target::parse(&text).ok()?, location: nango.location.clone() })
}

/// Codes must not cross a public network in cleartext.
fn check_cleartext(
    key: &str,
    target: &Located<Target>,
    read: &ParsedSettings,
    problems: &mut Vec<Problem>,
) {
    if target.value.scheme() == "http" && !is_plain_allowed(&target.value, &read.plain_targets) {
        let what = format!("`{key}` sends codes in cleartext to `{}`", target.value.host());
        problems.push(Problem::error(what).at(&target.location).hint(
            "use https; plain http is allowed only to this machine and to IP addresses in the private \
             networks of `allow_plain_targets`",
        ));
    }
}

fn pages(read: &ParsedSettings, routes: &[Route], problems: &mut Vec<Problem>) -> Vec<Page> {
    let mut taken = TakenPaths::default();
    let mut pages = Vec::new();
    let of_routes: HashSet<_> = routes.iter().map(|route| (route.host(), route.path())).collect();
    for page in &read.pages {
        check_reserved(&page.path, problems);
        check_pattern("page", &page.path, problems);
        taken.insert("page", page.host.as_ref(), &page.path, problems);
        if of_routes.contains(&(page.host.as_ref(), &page.path.value)) {
            let what = format!("`{}` is the path of a route", page.path.value);
            problems.push(
                Problem::error(what)
                    .at(&page.path.location)
                    .hint("give the page another path, or another host"),
            );
        }
        let body = match &page.body {
            PageBody::Text(text) => files::page_body(text),
            PageBody::File(file) => files::page(file),
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

fn self_check(
    read: &ParsedSelfCheck,
    problems: &mut Vec<Problem>,
    unusable: &mut Vec<Problem>,
) -> SelfCheck {
    let token = read.token_file.as_ref().map(files::token);
    SelfCheck {
        every: read.every,
        cache: read.cache,
        // An empty token grants no access.
        token: token.map(|token| or_report(token, unusable).unwrap_or_default()),
        probe_key: read
            .probe_key_file
            .as_ref()
            .and_then(|file| or_report(files::probe_key(file), unusable)),
        roots: roots(read.root_ca.as_ref(), problems),
        connect_to: read.connect_to.clone(),
        follow: read.follow,
    }
}

/// The public CAs and those in the file.
fn roots(file: Option<&Located<PathBuf>>, problems: &mut Vec<Problem>) -> Roots {
    file.and_then(|file| or_report(files::roots(file), problems)).unwrap_or_else(Roots::public)
}

/// The value, or `None` after reporting the problem.
fn or_report<T>(read: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    read.map_err(|problem| problems.push(problem)).ok()
}

/// Hosts and paths that are taken, each with its location.
#[derive(Default)]
struct TakenPaths(HashMap<(Option<Host>, Path), Location>);

impl TakenPaths {
    fn insert(
        &mut self,
        thing: &str,
        host: Option<&Host>,
        path: &Located<Path>,
        problems: &mut Vec<Problem>,
    ) {
        let key = (host.cloned(), path.value.clone());
        if let Some(first) = self.0.get(&key) {
            let on = host.map_or("any host".into(), |host| format!("`{host}`"));
            let what = format!("a second {thing} for `{}` on {on}", path.value);
            let problem = Problem::error(what).at(&path.location);
            problems.push(match first {
                Location::File(position) => {
                    problem.hint(format!("the first is on line {}; remove one", position.line))
                }
                _ => problem,
            });
            return;
        }
        self.0.insert(key, path.location.clone());
    }
}

fn check_reserved(path: &Located<Path>, problems: &mut Vec<Problem>) {
    let text = path.value.as_str();
    if RESERVED.contains(&text) || text.starts_with(RESERVED_BELOW) {
        problems.push(
            Problem::error(format!("`{text}` is reserved"))
                .at(&path.location)
                .hint("choose another path: the edge serves this one itself"),
        );
    }
}

/// Other servers match patterns. `*` and `:` are legal in a path (RFC 3986 §3.3), so that only what can
/// hardly be meant literally is an error.
fn check_pattern(table: &str, path: &Located<Path>, problems: &mut Vec<Problem>) {
    let text = path.value.as_str();
    let sign = ["*", "{", "/:", "$", "(", "<"].into_iter().find(|sign| text.contains(sign));
    let Some(sign) = sign else { return };
    let what = format!("`{text}` contains `{sign}`, but paths are matched exactly");
    let is_pattern = text.ends_with('*') || text.contains(['{', '<']);
    let problem = if is_pattern { Problem::error(what) } else { Problem::warning(what) };
    problems.push(
        problem
            .at(&path.location)
            .hint(format!("patterns are not supported; write one `[[{table}]]` for each path")),
    );
}
