//! Reads every key, in the order of `config show`.

use super::address;
use super::leaf::{self, DAY, HOUR, SECOND, YEAR, or_off, text};
use super::location::Location;
use super::problem::Problem;
use super::reader::{Located, Section};
use super::settings::{
    CertificateFiles, Challenge, ClientAddress, IntegrationSettings, Interval, Limits, Listen, Log,
    Networks, Origin, Preflight, Shutdown,
};
use crate::outbound::Override;
use crate::redirect::{FormPost, Host, Path, Target};
use http::HeaderValue;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// The parsed values; `validate` checks the rules that span several of them.
pub(super) struct ParsedSettings {
    pub(super) public_url: Option<Located<Origin>>,
    pub(super) plain_targets: Vec<IpNet>,
    pub(super) nango: Option<Located<Target>>,
    /// Whether `nango.url` is written with a slash at its end.
    pub(super) nango_slash: bool,
    pub(super) routes: Vec<ParsedRoute>,
    /// Where the list of routes is, if it is empty.
    pub(super) no_routes: Option<Location>,
    pub(super) pages: Vec<ParsedPage>,
    pub(super) listen: ParsedListen,
    pub(super) tls: ParsedTls,
    /// Whether no setting gives a host, not even an invalid one.
    pub(super) no_host: bool,
    pub(super) limits: ParsedLimits,
    pub(super) shutdown: Shutdown,
    pub(super) self_check: ParsedSelfCheck,
    pub(super) log: Log,
    pub(super) preflight: Preflight,
}

pub(super) struct ParsedRoute {
    pub(super) host: Option<Located<Host>>,
    pub(super) path: Located<Path>,
    /// `None`: it is derived from `nango.url`.
    pub(super) target: Option<Located<Target>>,
    pub(super) form_post: FormPost,
}

impl ParsedRoute {
    pub(super) fn host(&self) -> Option<&Host> {
        self.host.as_ref().map(|host| &host.value)
    }
}

pub(super) struct ParsedPage {
    pub(super) host: Option<Host>,
    pub(super) path: Located<Path>,
    pub(super) body: PageBody,
    pub(super) content_type: HeaderValue,
}

pub(super) enum PageBody {
    Text(Located<String>),
    File(Located<PathBuf>),
}

pub(super) struct ParsedListen {
    pub(super) http: Vec<Located<SocketAddr>>,
    pub(super) https: Vec<Located<SocketAddr>>,
    pub(super) admin: Vec<Located<SocketAddr>>,
    pub(super) admin_hosts: Vec<Located<Host>>,
    pub(super) proxy_protocol: Networks,
    pub(super) trusted_proxies: Networks,
    pub(super) client_address: ClientAddress,
    /// Where `http` is, if neither it nor `https` has an address.
    pub(super) no_listener: Option<Location>,
    /// Whether `https` is off. An invalid `https` is not.
    pub(super) no_https: bool,
}

impl From<ParsedListen> for Listen {
    fn from(read: ParsedListen) -> Self {
        Self {
            http: read.http.into_iter().map(|at| at.value).collect(),
            https: read.https.into_iter().map(|at| at.value).collect(),
            admin: read.admin.into_iter().map(|at| at.value).collect(),
            admin_hosts: read.admin_hosts.into_iter().map(|at| at.value).collect(),
            proxy_protocol: read.proxy_protocol,
            trusted_proxies: read.trusted_proxies,
            client_address: read.client_address,
        }
    }
}

pub(super) struct ParsedTls {
    pub(super) certificate: Option<Located<PathBuf>>,
    pub(super) private_key: Option<Located<PathBuf>>,
    pub(super) pairs: Vec<Located<CertificateFiles>>,
    /// Whether any pair was given, even an invalid one.
    pub(super) given: bool,
    pub(super) hsts: Option<Located<Duration>>,
    pub(super) acme: Option<ParsedAcme>,
}

pub(super) struct ParsedAcme {
    pub(super) location: Location,
    pub(super) domains: Vec<Located<Host>>,
    pub(super) contact: Vec<Located<Box<str>>>,
    pub(super) directories: Vec<Located<Box<str>>>,
    pub(super) profile: Option<Located<String>>,
    pub(super) eab_key_id: Option<Located<String>>,
    pub(super) eab_hmac_key_file: Option<Located<PathBuf>>,
    pub(super) state_dir: Option<Located<PathBuf>>,
    pub(super) challenge: Option<Located<Challenge>>,
    pub(super) root_ca: Option<Located<PathBuf>>,
    pub(super) agreed: Option<Located<bool>>,
    /// The keys that are set, even to an invalid value.
    pub(super) given: Vec<&'static str>,
    /// Whether any of the above is invalid.
    pub(super) broken: bool,
}

impl ParsedAcme {
    pub(super) fn has(&self, key: &str) -> bool {
        self.given.contains(&key)
    }
}

pub(super) struct ParsedSelfCheck {
    pub(super) every: Interval,
    pub(super) cache: Duration,
    pub(super) token_file: Option<Located<PathBuf>>,
    pub(super) probe_key_file: Option<Located<PathBuf>>,
    pub(super) root_ca: Option<Located<PathBuf>>,
    pub(super) connect_to: Vec<Override>,
    pub(super) follow: bool,
}

pub(super) struct ParsedLimits {
    pub(super) limits: Limits,
    pub(super) header_bytes: Option<Located<usize>>,
    pub(super) query_bytes: Option<Located<usize>>,
}

/// The default ACME server.
pub(super) const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The default directory of account, keys and certificates.
pub(super) const STATE_DIR: &str = "/var/lib/callback-edge/acme";

const MILLISECOND: Duration = Duration::from_millis(1);

/// The minimum of hyper's HTTP/1 read buffer.
const MIN_HEADER_BYTES: usize = 8 << 10;

/// Browsers send up to 20 fields with a callback, and each proxy adds a few: a lower limit would
/// reject them. A field costs about 100 bytes of memory whatever its size on the wire (RFC 9113
/// §10.5.1), and 1000 of them cost as much as the largest common head.
const HEADER_FIELDS: RangeInclusive<usize> = 20..=1000;

/// Reads all keys. An invalid value is replaced by a default that is never used, since there are
/// problems and no settings then.
pub(super) fn read(root: &mut Section<'_, '_>) -> ParsedSettings {
    let public_url = root.value("public_url", text(address::origin));
    if let Some(Located { value, .. }) = &public_url {
        root.show("public_url", value.to_string());
    }
    let plain_targets = root.list("allow_plain_targets", address::private_network);
    let with_slash = |text: &str| Ok((address::base(text)?, text.ends_with('/')));
    let nango = root.section("nango").value("url", text(with_slash));
    let nango_slash = nango.as_ref().is_some_and(|nango| nango.value.1);
    let nango = nango.map(|at| Located { value: at.value.0, location: at.location });
    ParsedSettings {
        public_url,
        plain_targets: plain_targets.into_iter().map(|network| network.value).collect(),
        no_routes: root.is_empty("route").then(|| root.location_of("route")),
        routes: root.tables("route", |table| route(table, nango.as_ref())),
        no_host: !root.is_set("public_url") && root.no_element_has("route", "host"),
        nango,
        nango_slash,
        pages: root.tables("page", page),
        listen: listen(&mut root.section("listen")),
        tls: tls(&mut root.section("tls")),
        limits: limits(&mut root.section("limits")),
        shutdown: shutdown(&mut root.section("shutdown")),
        self_check: self_check(&mut root.section("self_check")),
        log: log(&mut root.section("log")),
        preflight: preflight(&mut root.section("preflight")),
    }
}

/// The path at Nango of a route without a target.
pub(super) fn path_at_nango(path: &Path) -> &'static str {
    if path.as_str().ends_with("app-auth/connect") {
        "/app-auth/connect"
    } else {
        "/oauth/callback"
    }
}

/// A path below `nango.url`.
pub(super) fn below(nango: &Target, path: &str) -> String {
    format!("{}{path}", nango.as_str().trim_end_matches('/'))
}

fn route(table: &mut Section<'_, '_>, nango: Option<&Located<Target>>) -> Option<ParsedRoute> {
    let host = table.value("host", text(address::host));
    table.derived("host", "any");
    let path = table.required("path", "/oauth/callback", text(address::path));
    let is_set = table.is_set("target");
    let mut target = table.value("target", text(address::target));
    if let Some(Located { value, location }) = &mut target {
        let shown = value.redacted();
        if shown != value.as_str() {
            location.hide();
        }
        table.show("target", shown);
    }
    let form_post = table.value("form_post", text(leaf::form_post));
    table.derived("form_post", "convert");
    let path = path?;
    // An invalid host is not any host.
    if host.is_none() && table.is_set("host") {
        return None;
    }
    if let Some(nango) = nango {
        table.derived("target", below(&nango.value, path_at_nango(&path.value)));
    }
    if is_set && target.is_none() {
        return None;
    }
    Some(ParsedRoute {
        host,
        path,
        target,
        form_post: form_post.map_or(FormPost::Convert, |it| it.value),
    })
}

fn page(table: &mut Section<'_, '_>) -> Option<ParsedPage> {
    let host = table.value("host", text(address::host));
    table.derived("host", "any");
    let path = table.required("path", "/verification.txt", text(address::path));
    let (has_body, has_file) = (table.is_set("body"), table.is_set("file"));
    let body = table.value("body", leaf::verbatim);
    let file = table.value("file", leaf::file);
    let content_type = table.value("content_type", text(leaf::header));
    table.derived("content_type", "text/plain; charset=utf-8");
    if has_body == has_file {
        let problem = if has_body {
            Problem::error("a page has both `body` and `file`").hint("remove one of them")
        } else {
            Problem::error("a page has neither `body` nor `file`")
                .hint("set `body` to the text, or `file` to a path")
        };
        let location = table.location();
        table.note(problem.at(&location));
    }
    let body = match (body, file) {
        (Some(body), _) => PageBody::Text(body),
        (None, Some(file)) => PageBody::File(file),
        (None, None) => return None,
    };
    if host.is_none() && table.is_set("host") {
        return None;
    }
    Some(ParsedPage {
        host: host.map(|host| host.value),
        path: path?,
        body,
        content_type: content_type.map_or_else(
            || HeaderValue::from_static("text/plain; charset=utf-8"),
            |content_type| content_type.value,
        ),
    })
}

fn listen(table: &mut Section<'_, '_>) -> ParsedListen {
    let before = table.problem_count();
    let http = sockets(table, "http");
    let before_https = table.problem_count();
    let https = sockets(table, "https");
    let no_https =
        https.is_empty() && table.problem_count() == before_https && !table.is_gap("https");
    let no_listener = http.is_empty() && https.is_empty() && table.problem_count() == before;
    ParsedListen {
        // Without the table there is no `http`, and that was reported.
        no_listener: (no_listener && table.is_set("http") && !table.is_gap("http") && no_https)
            .then(|| table.location_of("http")),
        no_https,
        http,
        https,
        admin: sockets(table, "admin"),
        admin_hosts: table.list("admin_hosts", address::admin_host),
        proxy_protocol: networks(table, "proxy_protocol"),
        trusted_proxies: networks(table, "trusted_proxies"),
        client_address: value(table.value("client_address", text(leaf::client_address))),
    }
}

/// As [`listen`], where other settings may be invalid. `None` when the address that a health check asks
/// is not certain: it is invalid itself, or in a part of the file that cannot be read (`!is_complete`).
pub(super) fn listen_for_health(
    table: &mut Section<'_, '_>,
    is_complete: bool,
) -> Option<ParsedListen> {
    for key in Listen::HEALTH {
        let before = table.problem_count();
        let is_off = sockets(table, key).is_empty();
        if table.problem_count() > before || table.is_gap(key) {
            return None;
        }
        if !is_off {
            let is_written = !matches!(table.location_of(key), Location::Default);
            return (is_complete || is_written).then(|| listen(table));
        }
    }
    None
}

fn sockets(table: &mut Section<'_, '_>, key: &str) -> Vec<Located<SocketAddr>> {
    let sockets = table.list(key, address::socket);
    if sockets.is_empty() {
        table.show(key, "off");
    }
    sockets
}

fn networks(table: &mut Section<'_, '_>, key: &str) -> Networks {
    Networks(table.list(key, address::network).into_iter().map(|it| it.value).collect())
}

fn tls(table: &mut Section<'_, '_>) -> ParsedTls {
    let certificate = table.value("certificate", leaf::file);
    let private_key = table.value("private_key", leaf::file);
    let is_set = ["certificate", "private_key"].map(|key| table.is_set(key));
    let mut given = is_set.contains(&true);
    let half = match is_set {
        [true, false] => Some(("certificate", "private_key")),
        [false, true] => Some(("private_key", "certificate")),
        _ => None,
    };
    if let Some((has, lacks)) = half {
        let location = table.location_of(has);
        let what = format!("`tls.{has}` is set, but `tls.{lacks}` is not");
        let hint = format!("set `{lacks}` to a PEM file");
        table.note(Problem::error(what).at(&location).hint(hint));
    }
    let pairs = table.tables("pair", |pair| {
        given = true;
        let location = pair.location();
        let certificate = pair.required("certificate", "fullchain.pem", leaf::file);
        let private_key = pair.required("private_key", "privkey.pem", leaf::file);
        Some(Located { value: certificate_files(&certificate?, &private_key?), location })
    });
    let hsts = table.value("hsts", or_off(leaf::max_age));
    let hsts =
        hsts.and_then(|Located { value, location }| Some(Located { value: value?, location }));
    let acme = acme(table);
    ParsedTls { certificate, private_key, pairs, given, hsts, acme }
}

pub(super) fn certificate_files(
    certificate: &Located<PathBuf>,
    private_key: &Located<PathBuf>,
) -> CertificateFiles {
    CertificateFiles {
        certificate: certificate.value.clone(),
        private_key: private_key.value.clone(),
        certificate_location: certificate.location.clone(),
        private_key_location: private_key.location.clone(),
    }
}

/// `None` without the table, which turns ACME on.
fn acme(table: &mut Section<'_, '_>) -> Option<ParsedAcme> {
    let given = table.is_set("acme");
    let before = table.problem_count();
    let mut acme = table.section("acme");
    let mut read = ParsedAcme {
        location: acme.location(),
        domains: acme.list("domains", address::domain),
        contact: acme.list("contact", leaf::contact),
        directories: acme.list("directory", address::directory),
        profile: acme.value("profile", leaf::verbatim),
        eab_key_id: acme.value("eab_key_id", leaf::verbatim),
        eab_hmac_key_file: acme.value("eab_hmac_key_file", leaf::file),
        state_dir: acme.value("state_dir", leaf::file),
        challenge: acme.value("challenge", text(leaf::challenge)),
        root_ca: acme.value("root_ca", leaf::file),
        agreed: acme.value("agree_to_terms", leaf::flag),
        given: ["agree_to_terms", "eab_key_id", "eab_hmac_key_file", "domains"]
            .into_iter()
            .filter(|key| acme.is_set(key))
            .collect(),
        broken: false,
    };
    if given {
        acme.derived("domains", "the hosts of the routes, else of public_url");
        acme.derived("directory", LETS_ENCRYPT);
        acme.derived("state_dir", STATE_DIR);
        acme.derived("challenge", Challenge::TlsAlpn01.name());
    }
    read.broken = acme.problem_count() > before || acme.has_gaps();
    given.then_some(read)
}

/// A visitor of a callback does not return: an idle HTTP/2 connection costs 31 kB for so long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);

/// Longer than proxies keep a connection without a request: nginx and AWS 60 s, Google 600 s. One that
/// sends a request while the connection closes responds with 502.
const PROXY_IDLE_TIMEOUT: Duration = Duration::from_secs(620);

fn limits(table: &mut Section<'_, '_>) -> ParsedLimits {
    let connections = count(table, "connections", 1_000_000);
    let connections_per_address = count(table, "connections_per_address", 1_000_000);
    let handshake_timeout = time(table, "handshake_timeout", MILLISECOND, HOUR);
    let request_timeout = time(table, "request_timeout", MILLISECOND, HOUR);
    let idle_timeout = table.value("idle_timeout", text(leaf::duration(MILLISECOND..=DAY)));
    table.derived("idle_timeout", "8s, of proxies 620s");
    let idle_timeout = idle_timeout.map(|found| found.value);
    let connection_age = time(table, "connection_age", MILLISECOND, YEAR);
    let header_bytes = table.value("header_bytes", leaf::size(MIN_HEADER_BYTES..=1 << 20));
    let header_fields = table.value("header_fields", leaf::count(HEADER_FIELDS));
    let query_bytes = table.value("query_bytes", leaf::size(1..=1 << 20));
    let form_bytes = table.value("form_bytes", leaf::size(1..=1 << 20));
    let limits = Limits {
        connections,
        connections_per_address,
        handshake_timeout,
        request_timeout,
        idle_timeout: idle_timeout.unwrap_or(IDLE_TIMEOUT),
        proxy_idle_timeout: idle_timeout.unwrap_or(PROXY_IDLE_TIMEOUT),
        connection_age,
        header_bytes: value(header_bytes.clone()),
        header_fields: value(header_fields),
        query_bytes: value(query_bytes.clone()),
        form_bytes: value(form_bytes),
    };
    ParsedLimits { limits, header_bytes, query_bytes }
}

fn shutdown(table: &mut Section<'_, '_>) -> Shutdown {
    Shutdown {
        delay: time(table, "delay", Duration::ZERO, HOUR),
        grace: time(table, "grace", Duration::ZERO, DAY),
    }
}

fn self_check(table: &mut Section<'_, '_>) -> ParsedSelfCheck {
    let every = table.value("every", or_off(leaf::duration(SECOND..=DAY)));
    table.derived("every", "5m; off if all are on loopback");
    let cache = time(table, "cache", Duration::ZERO, HOUR);
    let token_file = table.value("token_file", leaf::file);
    let probe_key_file = table.value("probe_key_file", leaf::file);
    let root_ca = table.value("root_ca", leaf::file);
    let connect_to = table.list("connect_to", address::connect_to);
    ParsedSelfCheck {
        every: every
            .map_or(Interval::Default, |it| it.value.map_or(Interval::Off, Interval::Every)),
        cache,
        token_file,
        probe_key_file,
        root_ca,
        connect_to: connect_to.into_iter().map(|entry| entry.value).collect(),
        follow: value(table.value("follow", leaf::flag)),
    }
}

pub(super) fn log(table: &mut Section<'_, '_>) -> Log {
    let format = table.value("format", text(leaf::log_format));
    table.derived("format", "text on a terminal, else json");
    let level = table.value("level", text(leaf::log_level));
    Log {
        format: format.map(|format| format.value),
        level: level.map_or(tracing::Level::INFO, |level| level.value),
        requests: value(table.value("requests", leaf::flag)),
    }
}

fn preflight(table: &mut Section<'_, '_>) -> Preflight {
    let private_networks = networks(table, "private_networks");
    let (mut all, names) = table.named("integration");
    let integrations =
        names.iter().map(|name| (name.as_str().into(), integration(&mut all.section(name))));
    Preflight { private_networks, integrations: integrations.collect() }
}

/// Parameters that Nango and the differential test set themselves.
const NOT_TO_OVERRIDE: [&str; 4] = ["client_id", "redirect_uri", "response_type", "state"];

pub(super) fn integration(table: &mut Section<'_, '_>) -> IntegrationSettings {
    let texts = |texts: BTreeMap<String, Located<String>>| -> BTreeMap<String, String> {
        texts.into_iter().map(|(name, text)| (name, text.value)).collect()
    };
    let params = texts(table.texts("params"));
    let authorization_params = table.texts("authorization_params");
    for (name, text) in &authorization_params {
        if NOT_TO_OVERRIDE.contains(&name.as_str()) {
            let what = format!("`{name}` would override what Nango sends");
            table.note(Problem::error(what).at(&text.location).hint("remove the key"));
        }
    }
    IntegrationSettings {
        params,
        authorization_params: texts(authorization_params),
        user_scope: table.value("user_scope", leaf::verbatim).map(|it| it.value),
        like_connection: table
            .value("like_connection", text(|text| Ok(text.into())))
            .map(|it| it.value),
        prompt_none: table.value("prompt_none", leaf::flag).map(|it| it.value),
    }
}

fn count(table: &mut Section<'_, '_>, key: &str, max: usize) -> usize {
    value(table.value(key, leaf::count(1..=max)))
}

fn time(table: &mut Section<'_, '_>, key: &str, min: Duration, max: Duration) -> Duration {
    value(table.value(key, text(leaf::duration(min..=max))))
}

fn value<T: Default>(found: Option<Located<T>>) -> T {
    found.map(|found| found.value).unwrap_or_default()
}
