//! The proxies of the environment, and tunnels through them.

use super::resolve::{Resolver, bare};
use super::{Fault, Reason, Server, Step, within};
use http::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The proxies that the environment sets, and the hosts that need none.
///
/// Unlike the standard reader of the environment, it follows curl: `HTTP_PROXY` in upper case has no
/// effect, because a web server sets it from a header field for a CGI program. Unlike curl, and like
/// Go, an entry of `NO_PROXY` may have a port.
#[derive(Clone, Default)]
pub struct Proxies {
    all: String,
    http: String,
    https: String,
    no: Vec<(String, Option<u16>)>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URLs may contain a password.
        f.debug_struct("Proxies").field("no", &self.no).finish_non_exhaustive()
    }
}

/// A proxy variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadProxy {
    /// The variable has this scheme.
    Scheme(&'static str, String),
    /// The value of the variable is no URL.
    NotUrl(&'static str),
}

impl fmt::Display for BadProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the value, which may contain a password.
        match self {
            Self::Scheme(variable, scheme) => {
                write!(f, "unsupported proxy scheme `{scheme}` in `{variable}`")
            }
            Self::NotUrl(variable) => write!(f, "the value of `{variable}` is not a URL"),
        }
    }
}

impl std::error::Error for BadProxy {}

impl Proxies {
    /// The proxies that these variables set. An empty variable is not set.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, BadProxy> {
        let value = |names: &[&'static str]| {
            let set =
                |name: &&'static str| Some((*name, variable(name).filter(|it| !it.is_empty())?));
            names.iter().find_map(set)
        };
        let proxy = |names: &[&'static str]| match value(names) {
            None => Ok(String::new()),
            Some((name, url)) => check_proxy(name, &url).map(|()| url),
        };
        let no = value(&["no_proxy", "NO_PROXY"]).map(|(_, list)| list).unwrap_or_default();
        Ok(Self {
            all: proxy(&["all_proxy", "ALL_PROXY"])?,
            http: proxy(&["http_proxy"])?,
            https: proxy(&["https_proxy", "HTTPS_PROXY"])?,
            no: no.split([',', ' ']).filter(|it| !it.is_empty()).map(exception).collect(),
        })
    }

    /// The proxy for a server. This machine never needs one.
    pub(super) fn proxy_for(&self, server: &Server) -> Option<Proxy> {
        if server.is_loopback() {
            return None;
        }
        let no: Vec<_> = self
            .no
            .iter()
            .filter(|(_, port)| port.is_none_or(|port| port == server.port))
            .map(|(host, _)| host.as_str())
            .collect();
        let matcher = Matcher::builder()
            .all(&self.all)
            .http(&self.http)
            .https(&self.https)
            .no(no.join(","))
            .build();
        let found = matcher.intercept(&server.to_string().parse().ok()?)?;
        let uri = found.uri();
        Some(Proxy {
            host: uri.host()?.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            authorization: found.basic_auth().cloned(),
        })
    }
}

fn check_proxy(name: &'static str, url: &str) -> Result<(), BadProxy> {
    match url.split_once("://") {
        Some((scheme, _)) if !scheme.eq_ignore_ascii_case("http") => {
            // What is before `://` may contain a password, if the URL has no scheme.
            let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
            return Err(if is_scheme {
                BadProxy::Scheme(name, scheme.to_ascii_lowercase())
            } else {
                BadProxy::NotUrl(name)
            });
        }
        _ => {}
    }
    let uri: Result<http::Uri, _> = url.parse();
    let is_valid = uri.is_ok_and(|uri| {
        uri.authority().is_some_and(|authority| {
            let host = authority.host();
            // A port that is not a number remains in the text.
            !host.is_empty() && (authority.port().is_some() || authority.as_str().ends_with(host))
        })
    });
    if is_valid { Ok(()) } else { Err(BadProxy::NotUrl(name)) }
}

/// An entry of `NO_PROXY`: a host, a suffix, an address or a network; each may have a port.
fn exception(entry: &str) -> (String, Option<u16>) {
    let entry = entry.strip_prefix('*').filter(|it| it.starts_with('.')).unwrap_or(entry);
    let (host, port) = match entry.rsplit_once(':') {
        // An IPv6 address contains colons.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().ok())
        }
        _ => (entry, None),
    };
    (bare(host).to_owned(), port)
}

/// A proxy. What it shows contains no password.
#[derive(Clone)]
pub(super) struct Proxy {
    host: String,
    port: u16,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How many bytes the head of the response to `CONNECT` may have.
const MAX_HEAD: usize = 16 << 10;

impl Proxy {
    /// The addresses of the proxy.
    pub(super) async fn addresses(
        &self,
        resolver: &Resolver,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, Fault> {
        let lookup = within(Step::Resolve, limit, resolver.resolve(&self.host, self.port)).await;
        lookup.map(|it| it.addresses).map_err(|fault| self.unusable(&fault))
    }

    /// Opens a tunnel to a server (RFC 9110 §9.3.6), also for plain HTTP: the proxy then forwards
    /// bytes, and cannot change the requests that are compared.
    pub(super) async fn tunnel(
        &self,
        to: &Server,
        resolver: &Resolver,
        limit: Duration,
    ) -> Result<TcpStream, Fault> {
        let addresses = self.addresses(resolver, limit).await?;
        let connect = async {
            TcpStream::connect(&*addresses).await.map_err(|error| Fault::io(Step::Connect, &error))
        };
        let mut stream =
            within(Step::Connect, limit, connect).await.map_err(|fault| self.unusable(&fault))?;
        let ask = async {
            let io = |error: std::io::Error| Fault::io(Step::Head, &error);
            stream.write_all(&self.request(to)).await.map_err(io)?;
            // Not one byte of the tunnel may be read here.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
                head.push(stream.read_u8().await.map_err(io)?);
            }
            Ok(head)
        };
        let head = within(Step::Head, limit, ask).await.map_err(|fault| self.unusable(&fault))?;
        match status(&head) {
            Some(200..300) => Ok(stream),
            status => Err(self.refusal(to, status)),
        }
    }

    fn request(&self, to: &Server) -> Vec<u8> {
        let authority = format!("{}:{}", to.host, to.port);
        let mut request =
            format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend(b"Proxy-Authorization: ");
            request.extend(authorization.as_bytes());
            request.extend(b"\r\n");
        }
        request.extend(b"\r\n");
        request
    }

    fn unusable(&self, fault: &Fault) -> Fault {
        Fault::new(Step::Proxy, fault.reason, format!("the proxy {self} is unusable: {fault}"))
    }

    fn refusal(&self, to: &Server, status: Option<u16>) -> Fault {
        let text = match status {
            // tinyproxy responds 401 to a wrong password.
            Some(status @ (401 | 407)) if self.authorization.is_some() => {
                format!("the proxy {self} rejects its user name or password ({status})")
            }
            Some(407) => format!("the proxy {self} requires a user name and a password (407)"),
            Some(403) => {
                format!(
                    "the proxy {self} does not allow connections to {}:{} (403)",
                    to.host, to.port
                )
            }
            Some(status) => {
                format!("the proxy {self} cannot connect to {}:{} ({status})", to.host, to.port)
            }
            None => format!("the proxy {self} does not respond to CONNECT with HTTP"),
        };
        Fault::new(Step::Proxy, Reason::Refused, text)
    }
}

/// The status of a response (RFC 9112 §4).
fn status(head: &[u8]) -> Option<u16> {
    let head = std::str::from_utf8(head.strip_prefix(b"HTTP/1.")?.get(2..5)?).ok()?;
    head.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, BadProxy> {
        Proxies::from_env(|name| {
            let set = variables.iter().find(|(known, _)| *known == name);
            set.map(|(_, value)| (*value).to_owned())
        })
    }

    fn proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let url = url::Url::parse(url).unwrap();
        let server = Server {
            tls: url.scheme() == "https",
            host: url.host_str().unwrap().to_owned(),
            port: url.port_or_known_default().unwrap(),
        };
        proxies(variables).unwrap().proxy_for(&server).map(|proxy| proxy.to_string())
    }

    #[test]
    fn the_scheme_of_the_url_selects_the_variable() {
        let all = &[("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2"), ("ALL_PROXY", "a:3")];
        assert_eq!(proxy(all, "https://a.example/").as_deref(), Some("s:1"));
        assert_eq!(proxy(all, "http://a.example/").as_deref(), Some("p:2"));
        assert_eq!(proxy(&all[2..], "http://a.example/").as_deref(), Some("a:3"));
        assert_eq!(proxy(&[("HTTP_PROXY", "http://cgi:1")], "http://a.example/"), None);
        let both = &[("https_proxy", "http://low"), ("HTTPS_PROXY", "http://up:1")];
        assert_eq!(proxy(both, "https://a.example/").as_deref(), Some("low:80"));
        let empty = &[("https_proxy", ""), ("ALL_PROXY", "http://a:3")];
        assert_eq!(proxy(empty, "https://a.example/").as_deref(), Some("a:3"));
    }

    #[test]
    fn exceptions_are_suffixes_networks_and_ports() {
        for (no, url, is_proxied) in [
            ("*", "https://a.example/", false),
            ("b.example, a.example", "https://a.example/", false),
            ("a.example", "https://www.a.example/", false),
            (".a.example", "https://www.a.example/", false),
            ("*.a.example", "https://www.a.example/", false),
            ("a.example", "https://xa.example/", true),
            ("a.example:8443", "https://a.example/", true),
            ("a.example:8443", "https://a.example:8443/", false),
            ("10.0.0.0/8", "https://10.1.2.3/", false),
            ("10.0.0.0/8", "https://11.1.2.3/", true),
            ("10.1.2.3:80", "https://10.1.2.3/", true),
            ("2001:db8::/32", "https://[2001:db8::1]/", false),
            ("[2001:db8::1]:443", "https://[2001:db8::1]/", false),
            ("", "https://[2001:db8::1]/", true),
            ("", "https://localhost/", false),
            ("", "https://127.0.0.2/", false),
            ("", "https://[::1]/", false),
        ] {
            let variables = &[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", no)];
            assert_eq!(proxy(variables, url).is_some(), is_proxied, "{no} {url}");
        }
    }

    #[test]
    fn an_unusable_variable_is_named_without_its_value() {
        let error = |value| proxies(&[("HTTPS_PROXY", value)]).unwrap_err().to_string();
        assert_eq!(
            error("socks5://u:s3cret@p:1"),
            "unsupported proxy scheme `socks5` in `HTTPS_PROXY`"
        );
        assert_eq!(error("https://p:1"), "unsupported proxy scheme `https` in `HTTPS_PROXY`");
        for junk in ["http://", "/s3cret", "u:s3cret@p://x", "http://u:s3cret@p:x"] {
            assert_eq!(error(junk), "the value of `HTTPS_PROXY` is not a URL", "{junk}");
        }
    }

    #[test]
    fn credentials_are_sent_and_never_shown() {
        let found = proxies(&[("HTTPS_PROXY", "http://us%65r:s3cret@p:1")]).unwrap();
        let server = Server { tls: true, host: "a.example".into(), port: 443 };
        let proxy = found.proxy_for(&server).unwrap();
        let request = String::from_utf8(proxy.request(&server)).unwrap();
        assert!(request.starts_with("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n"));
        assert!(
            request.contains("\r\nProxy-Authorization: Basic dXNlcjpzM2NyZXQ=\r\n"),
            "{request}"
        );
        let shown = format!("{found:?} {proxy:?} {proxy} {}", proxy.refusal(&server, Some(407)));
        assert!(!shown.contains("s3cret") && !shown.contains("czNjcmV0"), "{shown}");
    }
}
