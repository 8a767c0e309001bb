use crate::config::Networks;
use http::HeaderMap;
use std::net::{IpAddr, SocketAddr};

/// The client's address: what the connection shows, or, when the connection comes from a trusted
/// proxy, what that proxy says in `Forwarded` (RFC 7239) or `X-Forwarded-For`.
///
/// The lists are read from the right, past every trusted proxy: what stands further left was
/// written by whoever came before, and may be invented.
pub(super) fn address(peer: IpAddr, trusted: &Networks, headers: &HeaderMap) -> IpAddr {
    if trusted.is_empty() || !trusted.contain(peer) {
        return peer;
    }
    let named = if headers.contains_key("forwarded") {
        nearest(headers, "forwarded", trusted, forwarded_for)
    } else {
        nearest(headers, "x-forwarded-for", trusted, |node| Some(node))
    };
    named.unwrap_or(peer)
}

/// The right-most address that is not trusted. Something that is no address ends the search:
/// nothing to its left can be believed.
fn nearest(
    headers: &HeaderMap,
    field: &str,
    trusted: &Networks,
    node: impl Fn(&str) -> Option<&str>,
) -> Option<IpAddr> {
    let mut last = None;
    for value in headers.get_all(field).iter().rev() {
        for element in value.to_str().ok()?.rsplit(',') {
            let Some(address) = node(element.trim()).and_then(parse) else { return last };
            last = Some(address);
            if !trusted.contain(address) {
                return last;
            }
        }
    }
    last
}

/// The value of `for=` in one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// An address with or without a port, IPv6 with or without brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed_and_from_the_right() {
        let trusted = Networks(vec!["10.0.0.0/8".parse().unwrap()]);
        #[rustfmt::skip]
        let table = [
            ("192.0.2.9", "x-forwarded-for", "198.51.100.1", "192.0.2.9"),
            ("10.0.0.1", "x-forwarded-for", "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "x-forwarded-for", "1.1.1.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("10.0.0.1", "x-forwarded-for", "198.51.100.1:4711", "198.51.100.1"),
            ("10.0.0.1", "x-forwarded-for", "2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", "x-forwarded-for", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("10.0.0.1", "x-forwarded-for", "1.1.1.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "x-forwarded-for", "junk", "10.0.0.1"),
            ("10.0.0.1", "forwarded", "for=192.0.2.43, for=\"[2001:db8:cafe::17]:4711\";proto=https", "2001:db8:cafe::17"),
            ("10.0.0.1", "forwarded", "proto=https;For=192.0.2.43", "192.0.2.43"),
            ("10.0.0.1", "forwarded", "for=_hidden", "10.0.0.1"),
            ("10.0.0.1", "via", "whatever", "10.0.0.1"),
        ];
        for (peer, name, value, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(http::HeaderName::from_static(name), value.parse().unwrap());
            let expected: IpAddr = expected.parse().unwrap();
            assert_eq!(
                address(peer.parse().unwrap(), &trusted, &headers),
                expected,
                "{name}: {value}"
            );
        }
    }
}
