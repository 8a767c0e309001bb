use crate::outbound::{Override, Roots};
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

/// Everything that can be set, typed so that a wrong value cannot exist: whoever holds one need
/// check nothing again. Immutable; a reload builds a whole new one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where browsers reach the edge. `None`: told from the routes' hosts, else from the first
    /// listener once it is bound.
    pub public_url: Option<Origin>,
    /// Nango Cloud or a self-hosted server, without a trailing slash: `https://api.nango.dev`.
    pub nango_url: Box<str>,
    /// The callbacks. Never empty.
    pub routes: RouteTable<Route>,
    /// Small static answers.
    pub pages: RouteTable<Page>,
    /// Where to listen.
    pub listen: Listen,
    /// Certificates; present whenever `listen.https` is.
    pub tls: Option<Tls>,
    /// Limits and deadlines.
    pub limits: Limits,
    /// How to end.
    pub shutdown: Shutdown,
    /// The self-check endpoint.
    pub self_check: SelfCheck,
    /// Logging.
    pub log: Log,
    /// The preflight.
    pub preflight: Preflight,
}

/// What a preflight cannot find out by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// Networks that are not public, and in which providers may be asked all the same.
    pub private_networks: Networks,
    /// By the integration's unique key in Nango.
    pub integrations: BTreeMap<Box<str>, IntegrationSettings>,
}

/// How flows of one integration are started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntegrationSettings {
    /// Its connection configuration.
    pub params: BTreeMap<String, String>,
    /// Parameters of the authorization request.
    pub authorization_params: BTreeMap<String, String>,
    /// Scopes of the user, as Nango takes them.
    pub user_scope: Option<Box<str>>,
    /// A connection whose configuration is copied.
    pub like_connection: Option<Box<str>>,
    /// Whether providers are asked with `prompt=none`.
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
}

impl fmt::Display for Origin {
    /// As in a URL, the default port left out, no trailing slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        match self.port {
            Some(port) if port != if self.https { 443 } else { 80 } => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// A small static answer, for example a file that proves domain ownership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The host it answers on; `None` for any.
    pub host: Option<Host>,
    /// The path it answers on.
    pub path: Path,
    /// What it answers; a `file` has been read.
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

/// Addresses to listen on, and networks whose word is believed.
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
    /// Networks that must send a PROXY header, which is believed; nobody else may.
    pub proxy_protocol: Networks,
    /// Networks of the proxies whose [`client_address`](Self::client_address) is believed.
    pub trusted_proxies: Networks,
    /// The one header field in which a trusted proxy names the client.
    pub client_address: ClientAddress,
}

/// The header field that names the client. One alone is read: a proxy overwrites or appends to the
/// field that it knows, and passes the other on as the client wrote it.
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Certificates and what goes with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate and key files, chosen by SNI; the first answers when no name matches.
    pub pairs: Vec<CertificateFiles>,
    /// Certificates that the edge obtains by itself. With `pairs` as well, a pair that names a host
    /// is shown for it.
    pub acme: Option<Acme>,
    /// How long browsers are told to insist on TLS (RFC 6797); whole seconds.
    pub hsts: Option<Duration>,
}

/// Certificates by ACME (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The names and addresses to have certificates for, each once. Never empty.
    pub domains: Vec<Host>,
    /// Contact URLs for the account, `mailto:` written out.
    pub contact: Vec<Box<str>>,
    /// Directory URLs; the next is asked when one does not help. Never empty.
    pub directories: Vec<Box<str>>,
    /// The certificate profile to ask for.
    pub profile: Option<Box<str>>,
    /// What ties the account to a customer of the first directory.
    pub eab: Option<Eab>,
    /// The folder that keeps account, keys and certificates.
    pub state_dir: PathBuf,
    /// How it is proved that the names lead here.
    pub challenge: Challenge,
    /// Whose certificates are trusted when a directory is asked.
    pub roots: Roots,
}

/// External account binding (RFC 8555 §7.3.4).
#[derive(Clone, Debug)]
pub struct Eab {
    /// The key's name.
    pub key_id: Box<str>,
    /// The key itself.
    pub hmac_key: SecretSlice<u8>,
}

impl PartialEq for Eab {
    fn eq(&self, other: &Self) -> bool {
        self.key_id == other.key_id
            && self.hmac_key.expose_secret() == other.hmac_key.expose_secret()
    }
}

impl Eq for Eab {}

/// How a directory is shown that a name leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A handshake on port 443 (RFC 8737).
    TlsAlpn01,
    /// A request on port 80 (RFC 8555 §8.3).
    Http01,
}

impl Challenge {
    /// As it is registered.
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
}

/// Limits in counts and bytes, and deadlines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections on the public listeners, in all.
    pub connections: usize,
    /// Open connections of one client address (an IPv6 client is its /64).
    pub connections_per_address: usize,
    /// From accept to the end of the TLS handshake, PROXY header included.
    pub handshake_timeout: Duration,
    /// For a request to arrive whole, and for its answer to be taken.
    pub request_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
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

/// How to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long to serve on with failing readiness.
    pub delay: Duration,
    /// How long connections may take to finish then.
    pub grace: Duration,
}

/// The self-check endpoint.
#[derive(Clone, Debug)]
pub struct SelfCheck {
    /// How often it runs by itself.
    pub every: Option<Duration>,
    /// How long an answer is given again.
    pub cache: Duration,
    /// The bearer token that callers must present; from `token_file`, never empty.
    pub token: Option<SecretString>,
    /// Whose certificates are trusted.
    pub roots: Roots,
    /// Dial an address other than the one that DNS tells.
    pub connect_to: Vec<Override>,
    /// Whether the end-to-end step goes to Nango.
    pub follow: bool,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON; `None`: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
    /// The least severe level that is written.
    pub level: tracing::Level,
    /// Whether each request gets a line.
    pub requests: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
