use super::location::Location;
use crate::outbound::{Override, Roots, Server};
use crate::redirect::{Host, Mounted, Path, Route, RouteTable};
use bytes::Bytes;
use http::HeaderValue;
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// All settings, with types that exclude invalid values: code that uses them checks nothing again.
/// Immutable; a reload builds a new instance.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where browsers reach the edge. `None`: derived from the routes' hosts, else from the first
    /// listener once it is bound.
    pub public_url: Option<Origin>,
    /// Nango Cloud or a self-hosted server, without a trailing slash: `https://api.nango.dev`.
    pub nango_url: Box<str>,
    /// The callbacks. Never empty.
    pub routes: RouteTable<Route>,
    /// Small static responses.
    pub pages: RouteTable<Page>,
    /// Where to listen.
    pub listen: Listen,
    /// Certificates; present if `listen.https` is.
    pub tls: Option<Tls>,
    /// Limits and time-outs.
    pub limits: Limits,
    /// Graceful shutdown.
    pub shutdown: Shutdown,
    /// The self-check endpoint.
    pub self_check: SelfCheck,
    /// Logging.
    pub log: Log,
    /// The preflight.
    pub preflight: Preflight,
}

/// What a preflight cannot discover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// Networks that are not public, and in which the preflight may probe providers.
    pub private_networks: Networks,
    /// By the integration's unique key in Nango.
    pub integrations: BTreeMap<Box<str>, IntegrationSettings>,
}

/// How to start flows of an integration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntegrationSettings {
    /// The connection configuration.
    pub params: BTreeMap<String, String>,
    /// Parameters of the authorization request.
    pub authorization_params: BTreeMap<String, String>,
    /// User scopes, in Nango's format.
    pub user_scope: Option<Box<str>>,
    /// The connection to copy the configuration from.
    pub like_connection: Option<Box<str>>,
    /// Whether probes have `prompt=none`.
    pub prompt_none: Option<bool>,
}

/// Scheme, host and port of a URL (RFC 6454 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether the scheme is `https`.
    pub https: bool,
    /// The host.
    pub host: Host,
    /// The port; `None` for the scheme's default.
    pub port: Option<u16>,
}

impl Origin {
    /// The port in use.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        let (tls, host, port) = (self.https, self.host.to_string(), self.port());
        Server { tls, host, port }.is_loopback()
    }
}

impl fmt::Display for Origin {
    /// As in a URL, without the default port and without a trailing slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        match self.port {
            Some(port) if port != if self.https { 443 } else { 80 } => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// A small static response, for example a file that proves domain ownership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The host; `None` for any.
    pub host: Option<Host>,
    /// The path.
    pub path: Path,
    /// The response body, which may be the content of `file`.
    pub body: Bytes,
    /// Its `Content-Type`.
    pub content_type: HeaderValue,
}

impl Mounted for Page {
    fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }
    fn path(&self) -> &Path {
        &self.path
    }
}

/// Addresses to listen on, and networks of trusted proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// Plain HTTP.
    pub http: Vec<SocketAddr>,
    /// HTTP over TLS.
    pub https: Vec<SocketAddr>,
    /// Health, self-check and metrics; plain HTTP.
    pub admin: Vec<SocketAddr>,
    /// Further host names under which the admin listener serves metrics and the self-check.
    pub admin_hosts: Vec<Host>,
    /// Networks that must send a PROXY header, which is trusted; no other client may send one.
    pub proxy_protocol: Networks,
    /// Networks of the proxies with a trusted [`client_address`](Self::client_address).
    pub trusted_proxies: Networks,
    /// The header field in which a trusted proxy sends the client address.
    pub client_address: ClientAddress,
}

impl Listen {
    /// The settings whose first address a health check asks: the first of them that has one.
    pub(super) const HEALTH: [&str; 3] = ["admin", "http", "https"];

    /// The address that a health check asks, and its setting.
    pub fn for_health(&self) -> Option<(&'static str, SocketAddr)> {
        let addresses = [&self.admin, &self.http, &self.https];
        let mut found = Self::HEALTH.into_iter().zip(addresses);
        found.find_map(|(key, addresses)| Some((key, *addresses.first()?)))
    }
}

/// The header field with the client address. Only one is read: a proxy overwrites or appends to the
/// field that it supports, and forwards the other as the client wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAddress {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// None: the client is the peer of the connection.
    None,
}

/// A set of IP networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl Networks {
    /// Whether the address is in one of them; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// TLS on the public listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate and key files, chosen by SNI; the first is the default when no name matches.
    pub pairs: Vec<CertificateFiles>,
    /// Certificates that the edge obtains itself. A pair in `pairs` for the same host takes
    /// precedence.
    pub acme: Option<Acme>,
    /// `max-age` of HSTS (RFC 6797); whole seconds.
    pub hsts: Option<Duration>,
}

/// Certificates by ACME (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The names and addresses to obtain certificates for, each once. Never empty.
    pub domains: Vec<Host>,
    /// Contact URLs of the account, with `mailto:`.
    pub contact: Vec<Box<str>>,
    /// Directory URLs of ACME servers; the next is used when one fails. Never empty.
    pub directories: Vec<Box<str>>,
    /// The certificate profile to request.
    pub profile: Option<Box<str>>,
    /// Binds the account to a customer account of the first ACME server.
    pub eab: Option<Eab>,
    /// The directory of account, keys and certificates.
    pub state_dir: PathBuf,
    /// The challenge type.
    pub challenge: Challenge,
    /// The CAs that are trusted for connections to ACME servers.
    pub roots: Roots,
}

/// External account binding (RFC 8555 §7.3.4).
#[derive(Clone, Debug)]
pub struct Eab {
    /// The key identifier.
    pub key_id: Box<str>,
    /// The key.
    pub hmac_key: SecretSlice<u8>,
}

impl PartialEq for Eab {
    fn eq(&self, other: &Self) -> bool {
        self.key_id == other.key_id
            && self.hmac_key.expose_secret() == other.hmac_key.expose_secret()
    }
}

impl Eq for Eab {}

/// How control over a name is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A handshake on port 443 (RFC 8737).
    TlsAlpn01,
    /// A request on port 80 (RFC 8555 §8.3).
    Http01,
}

impl Challenge {
    /// The registered name (RFC 8555 §9.7.8).
    pub const fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the leaf certificate, then the intermediates.
    pub certificate: PathBuf,
    /// PEM: the private key of the leaf.
    pub private_key: PathBuf,
    /// Where `certificate` is written.
    pub certificate_location: Location,
    /// Where `private_key` is written.
    pub private_key_location: Location,
}

/// Limits in counts and bytes, and time-outs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections on the public listeners in total.
    pub connections: usize,
    /// Open connections of one client address (an IPv6 client is its /64).
    pub connections_per_address: usize,
    /// From accept to the end of the TLS handshake, including the PROXY header.
    pub handshake_timeout: Duration,
    /// For a request to arrive completely, and for the client to read its response.
    pub request_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// The same for a connection of a proxy.
    pub proxy_idle_timeout: Duration,
    /// How long a connection may live.
    pub connection_age: Duration,
    /// Request head: request line and header fields, in bytes.
    pub header_bytes: usize,
    /// Header fields of one request.
    pub header_fields: usize,
    /// Query, in bytes.
    pub query_bytes: usize,
    /// Form body, in bytes.
    pub form_bytes: usize,
}

/// Graceful shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long to continue serving with failing readiness.
    pub delay: Duration,
    /// How long connections may take to finish after that.
    pub grace: Duration,
}

/// The self-check endpoint.
#[derive(Clone, Debug)]
pub struct SelfCheck {
    /// The interval of automatic runs.
    pub every: Interval,
    /// How long a result is cached.
    pub cache: Duration,
    /// The bearer token that callers must present; from `token_file`, never empty.
    pub token: Option<SecretString>,
    /// The key by which replicas recognise each other's probes; from `probe_key_file`.
    pub probe_key: Option<SecretSlice<u8>>,
    /// The trusted CAs.
    pub roots: Roots,
    /// Addresses to connect to instead of those in DNS.
    pub connect_to: Vec<Override>,
    /// Whether to send requests that cost Nango a lookup or an error report, too.
    pub follow: bool,
}

/// The interval of the self-check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interval {
    /// Every 5 minutes, unless every callback is on loopback.
    #[default]
    Default,
    /// Never.
    Off,
    /// This one.
    Every(Duration),
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON; `None`: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
    /// The least severe level that is logged.
    pub level: tracing::Level,
    /// Whether each request is logged.
    pub requests: bool,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For humans.
    Text,
    /// One JSON object per line.
    Json,
}
