#[cfg(target_os = "linux")]
use super::system::lookup;
use super::{Fault, Reason, Step};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Resolves host names: by the overrides, else by the system's resolver.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    overrides: Vec<Override>,
}

/// Connections to `host:port` go to `address`. Several for the same host and port are several addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The host in the URL, lower case; an IPv6 address in brackets.
    pub host: String,
    /// The port in the URL.
    pub port: u16,
    /// Where to connect instead.
    pub address: SocketAddr,
}

/// The addresses of a host, and their source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Never empty.
    pub addresses: Vec<SocketAddr>,
    /// Their source.
    pub origin: Origin,
}

/// The source of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The host is an address itself.
    Literal,
    /// The caller.
    Override,
    /// The system's resolver.
    System,
    /// The address is that of this proxy, which resolves the host itself: `HOST:PORT`.
    Proxy(String),
}

/// The most addresses of one name; more are ignored.
const MAX_ADDRESSES: usize = 16;

/// Static binaries exist only for Linux; elsewhere the standard library's lookup is safe. It does not
/// distinguish a name that does not exist from a lookup that failed.
#[cfg(not(target_os = "linux"))]
async fn lookup(host: &str) -> Result<Vec<IpAddr>, Fault> {
    match tokio::net::lookup_host((host, 0)).await {
        Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
        Err(error) => Err(Fault::new(Step::Resolve, Reason::ResolverFailed, error.to_string())),
    }
}

impl Resolver {
    /// The overrides, then the system's resolver.
    pub fn new(overrides: Vec<Override>) -> Self {
        Self { overrides }
    }

    pub(super) fn overridden(&self, host: &str, port: u16) -> Option<Resolved> {
        let addresses: Vec<_> = self
            .overrides
            .iter()
            .filter(|entry| entry.port == port && entry.host.eq_ignore_ascii_case(host))
            .map(|entry| entry.address)
            .collect();
        let origin = Origin::Override;
        (!addresses.is_empty()).then_some(Resolved { addresses, origin })
    }

    pub(super) async fn resolve(&self, host: &str, port: u16) -> Result<Resolved, Fault> {
        if let Some(resolved) = self.overridden(host, port) {
            return Ok(resolved);
        }
        if let Some(address) = literal(host) {
            let addresses = vec![SocketAddr::new(address, port)];
            return Ok(Resolved { addresses, origin: Origin::Literal });
        }
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in lookup(host).await? {
            let address = SocketAddr::new(address, port);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Err(Fault::new(Step::Resolve, Reason::NoAddress, "the name has no address"));
        }
        Ok(Resolved { addresses, origin: Origin::System })
    }
}

impl Override {
    /// Reads curl's `--resolve` notation, `HOST:PORT:ADDRESS`.
    pub fn resolve(text: &str) -> Result<Self, BadOverride> {
        let (host, port, rest) = host_and_port(text).ok_or(BadOverride)?;
        let address = literal(rest).ok_or(BadOverride)?;
        Ok(Self { host, port, address: SocketAddr::new(address, port) })
    }
}

impl FromStr for Override {
    type Err = BadOverride;

    /// Reads curl's `--connect-to` notation, `HOST:PORT:ADDRESS:PORT`.
    fn from_str(text: &str) -> Result<Self, BadOverride> {
        let (host, port, rest) = host_and_port(text).ok_or(BadOverride)?;
        let address = rest.parse().map_err(|_| BadOverride)?;
        Ok(Self { host, port, address })
    }
}

/// A text is not an [`Override`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOverride;

impl fmt::Display for BadOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("contains no host, port and address; write an IPv6 address in brackets")
    }
}

impl std::error::Error for BadOverride {}

fn host_and_port(text: &str) -> Option<(String, u16, &str)> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':')? };
    let (host, rest) = text.split_at_checked(end)?;
    let (port, rest) = rest.strip_prefix(':')?.split_once(':')?;
    (!host.is_empty()).then_some((host.to_ascii_lowercase(), port.parse().ok()?, rest))
}

/// The address in a host, with or without the brackets of a URL.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    bare(host).parse().ok()
}

/// A host without the brackets of an IPv6 address.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_have_the_syntax_of_curl() {
        let read = |text| Override::resolve(text).map(|read| (read.host, read.address.to_string()));
        assert_eq!(
            read("A.example:443:203.0.113.7"),
            Ok(("a.example".into(), "203.0.113.7:443".into()))
        );
        assert_eq!(read("a:1:[::1]"), Ok(("a".into(), "[::1]:1".into())));
        assert_eq!(read("a:1:::1"), Ok(("a".into(), "[::1]:1".into())));
        let to = |text: &str| text.parse().map(|Override { host, address, .. }| (host, address));
        assert_eq!(
            to("[2001:DB8::1]:443:[::1]:8443"),
            Ok(("[2001:db8::1]".into(), "[::1]:8443".parse().unwrap()))
        );
        for bad in ["", "a", "a:1", "a:x:127.0.0.1", ":1:127.0.0.1", "a:1:b", "[::1:1:127.0.0.1"] {
            assert_eq!(Override::resolve(bad), Err(BadOverride), "{bad}");
        }
        assert_eq!("a:1:127.0.0.1".parse::<Override>(), Err(BadOverride));
    }

    #[tokio::test]
    async fn an_override_takes_precedence_over_the_system() {
        let resolver = Resolver::new(vec![Override::resolve("a.example:443:127.0.0.9").unwrap()]);
        let found = resolver.resolve("A.example", 443).await.unwrap();
        assert_eq!(found.origin, Origin::Override);
        assert_eq!(found.addresses, ["127.0.0.9:443".parse().unwrap()]);
        let literal = resolver.resolve("[::1]", 80).await.unwrap();
        assert_eq!(literal.origin, Origin::Literal);
    }
}
