use super::resolve::literal;
use std::fmt;
use std::net::SocketAddr;

/// A server, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// Whether it uses TLS.
    pub tls: bool,
    /// The host in the URL: `Host` and SNI. An IPv6 address is in brackets.
    pub host: String,
    /// The port in the URL.
    pub port: u16,
}

impl Server {
    /// `https` or `http`.
    pub const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The default port of the scheme (RFC 9110 §4.2).
    pub const fn default_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }

    /// `host`, with the port unless it is the scheme's default (RFC 9110 §4.2.3).
    pub fn authority(&self) -> String {
        if self.port == Self::default_port(self.tls) {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether it is this machine, by name (RFC 6761 §6.3) or address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || literal(&self.host).is_some_and(|address| address.is_loopback())
    }

    /// Whether the hosts are equal, or one is a subdomain of the other, like `www.example.com` and
    /// `example.com`.
    pub fn is_related_to(&self, other: &Self) -> bool {
        let below = |name: &str, above: &str| {
            name.strip_suffix(above).is_some_and(|label| label.ends_with('.'))
        };
        self.host == other.host
            || (literal(&self.host).is_none() && literal(&other.host).is_none())
                && (below(&self.host, &other.host) || below(&other.host, &self.host))
    }

    /// The server at this address.
    #[must_use]
    pub fn at(self, address: SocketAddr) -> Endpoint {
        Endpoint { server: self, address }
    }
}

impl fmt::Display for Server {
    /// The origin (RFC 6454 §6.2), without a default port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

/// A server and the address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The server.
    pub server: Server,
    /// The address to connect to.
    pub address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(tls: bool, host: &str, port: u16) -> Server {
        Server { tls, host: host.into(), port }
    }

    #[test]
    fn the_default_port_is_omitted() {
        assert_eq!(server(true, "a.example", 443).to_string(), "https://a.example");
        assert_eq!(server(false, "[::1]", 80).to_string(), "http://[::1]");
        assert_eq!(server(false, "a.example", 443).to_string(), "http://a.example:443");
    }

    #[test]
    fn a_subdomain_is_related_but_a_suffix_is_not() {
        let related = |one, other| server(true, one, 443).is_related_to(&server(false, other, 80));
        assert!(related("www.a.example", "a.example") && related("a.example", "www.a.example"));
        assert!(!related("xa.example", "a.example"));
        assert!(!related("1.127.0.0.1", "127.0.0.1") && !related("127.0.0.2", "127.0.0.1"));
    }

    #[test]
    fn loopback_is_recognised_by_name_and_by_address() {
        for here in ["localhost", "a.localhost", "127.9.9.9", "[::1]"] {
            assert!(server(false, here, 80).is_loopback(), "{here}");
        }
        for away in ["localhost.example", "10.0.0.1", "[::2]"] {
            assert!(!server(false, away, 80).is_loopback(), "{away}");
        }
    }
}
