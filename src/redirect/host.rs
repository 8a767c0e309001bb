use http::{HeaderMap, Uri, Version, header};
use std::borrow::Cow;
use std::fmt;

/// A host name or IP literal, lower case, without port and without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Box<str>);

impl Host {
    /// Parses a host as in a URL: a name (internationalised ones in their `xn--` form),
    /// an IPv4 address, or an IPv6 address in brackets.
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        // An address has no final dot.
        let name = text.strip_suffix('.').filter(|it| !it.ends_with(']')).unwrap_or(text);
        let valid = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                name.len() <= 253
                    && name.split('.').all(|label| {
                        (1..=63).contains(&label.len())
                            && label.bytes().all(|byte| {
                                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
                            })
                    })
            }
        };
        if valid { Ok(Self(name.to_ascii_lowercase().into())) } else { Err(BadHost) }
    }

    /// `localhost`.
    pub fn localhost() -> Self {
        Self("localhost".into())
    }

    /// The host as text; an IPv6 address in brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is not a host, or a request has no host where it must, or more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHost;

impl fmt::Display for BadHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not a host name or IP address")
    }
}

impl std::error::Error for BadHost {}

/// The host that a request is for, lower case and without port; `None` for HTTP/1.0 without
/// `Host`.
///
/// HTTP/1.1 requires exactly one valid `Host` (RFC 9112 §3.2); HTTP/2 has `:authority` and refuses a
/// `Host` that differs from it (RFC 9113 §8.3.1). The absolute form, which HTTP/1.1
/// has for requests to proxies, is refused: this server is not a proxy.
pub fn requested_host<'r>(
    version: Version,
    uri: &'r Uri,
    headers: &'r HeaderMap,
) -> Result<Option<Cow<'r, str>>, BadHost> {
    let mut fields = headers.get_all(header::HOST).iter();
    let field = match fields.next() {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| BadHost)?),
    };
    if fields.next().is_some() {
        return Err(BadHost);
    }
    let authority = match (uri.authority(), field) {
        (Some(_), _) if version < Version::HTTP_2 => return Err(BadHost),
        (Some(authority), Some(field)) if !authority.as_str().eq_ignore_ascii_case(field) => {
            return Err(BadHost);
        }
        (Some(authority), _) => Some(authority.as_str()),
        (None, None) if version == Version::HTTP_11 => return Err(BadHost),
        (None, field) => field,
    };
    authority.map(without_port).transpose()
}

/// Whether a registered name may have this byte (RFC 3986 §3.2.2): unreserved, `%`, or a sub-delimiter.
const fn is_host(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%'
        | b'!' | b'$' | b'&'..=b',' | b';' | b'=')
}

/// The host of a `host[:port]`, in lower case.
fn without_port(authority: &str) -> Result<Cow<'_, str>, BadHost> {
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of a bare `[::1]` is inside the brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, ""),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let valid = !host.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && host
            .bytes()
            .all(|byte| is_host(byte) || (bracketed && matches!(byte, b':' | b'[' | b']')));
    if !valid {
        return Err(BadHost);
    }
    Ok(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_case_without_port() {
        #[rustfmt::skip]
        let table = [
            ("auth.example.com", Ok("auth.example.com")),
            ("AUTH.Example.com:443", Ok("auth.example.com")),
            ("auth.example.com.", Ok("auth.example.com")),
            ("auth.example.com.:80", Ok("auth.example.com")),
            ("[::1]:8080", Ok("[::1]")),
            ("[::1]", Ok("[::1]")),
            ("127.0.0.1:8080", Ok("127.0.0.1")),
            ("host:", Ok("host")),
            ("", Err(BadHost)),
            (":80", Err(BadHost)),
            (".", Err(BadHost)),
            (".:80", Err(BadHost)),
            ("a b", Err(BadHost)),
            ("user@host", Err(BadHost)),
            ("host:80:80", Err(BadHost)),
            ("host:http", Err(BadHost)),
            ("host/path", Err(BadHost)),
        ];
        for (text, expected) in table {
            assert_eq!(without_port(text), expected.map(Cow::Borrowed), "{text:?}");
        }
    }

    #[test]
    fn configured_hosts_are_names_or_addresses() {
        for good in ["a", "a.example.com", "xn--bcher-kva.example", "127.0.0.1", "[2001:db8::1]"] {
            assert_eq!(Host::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(Host::parse("A.Example.COM.").unwrap().as_str(), "a.example.com");
        for bad in [
            "",
            ".",
            "a..b",
            "a:80",
            "a/b",
            "bücher.example",
            "[::1",
            "[x]",
            "a b",
            "*.a",
            "[::1].",
        ] {
            assert_eq!(Host::parse(bad), Err(BadHost), "{bad:?}");
        }
    }
}
