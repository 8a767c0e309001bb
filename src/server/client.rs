use crate::config::{ClientAddress, Listen};
use http::HeaderMap;
use http::header::FORWARDED;
use std::net::IpAddr;

/// The client's address: the peer of the connection, or, when the peer is a trusted proxy, the
/// address in the one header field that `listen.client_address` selects.
///
/// The field is a list to which each proxy appends the address that it sees. It is read from the
/// right, past all trusted proxies. Elements further left were written by the client or by proxies
/// that are not trusted, and are never read: a client cannot hide or change what the proxy appended.
pub(super) fn address(peer: IpAddr, listen: &Listen, headers: &HeaderMap) -> IpAddr {
    match listen.client_address {
        _ if !listen.trusted_proxies.contain(peer) => peer,
        ClientAddress::XForwardedFor => {
            let values = headers.get_all("x-forwarded-for").iter().map(http::HeaderValue::as_bytes);
            nearest(peer, listen, values, last_comma, |element| node(element.trim_ascii()))
        }
        ClientAddress::Forwarded => {
            let values = headers.get_all(FORWARDED).iter().map(http::HeaderValue::as_bytes);
            nearest(peer, listen, values, last_comma_outside_quotes, forwarded_for)
        }
        ClientAddress::None => peer,
    }
}

/// The rightmost address that is not trusted, or the last one before an element without an address.
/// An empty element has none either: no proxy appends one, so it is not skipped, although RFC 9110
/// §5.6.1 allows that.
fn nearest<'h>(
    peer: IpAddr,
    listen: &Listen,
    values: impl DoubleEndedIterator<Item = &'h [u8]>,
    last_comma: impl Fn(&[u8]) -> Option<usize>,
    address: impl Fn(&[u8]) -> Option<IpAddr>,
) -> IpAddr {
    let mut nearest = peer;
    for value in values.rev() {
        let mut rest = Some(value);
        while let Some(list) = rest {
            let (before, element) = match last_comma(list).and_then(|at| list.split_at_checked(at))
            {
                Some((before, [_, element @ ..])) => (Some(before), element),
                _ => (None, list),
            };
            rest = before;
            match address(element) {
                Some(address) => nearest = address,
                None => return nearest,
            }
            if !listen.trusted_proxies.contain(nearest) {
                return nearest;
            }
        }
    }
    nearest
}

fn last_comma(list: &[u8]) -> Option<usize> {
    list.iter().rposition(|byte| *byte == b',')
}

/// The last comma that is in no quoted string. Quotes are paired from the right, since a quote that
/// the client left open must not reach into what the proxy appended.
fn last_comma_outside_quotes(list: &[u8]) -> Option<usize> {
    let mut quoted = false;
    for (position, byte) in list.iter().enumerate().rev() {
        match byte {
            b',' if !quoted => return Some(position),
            b'"' if !quoted => quoted = true,
            b'"' => quoted = list.get(..position).is_some_and(ends_escaping),
            _ => {}
        }
    }
    None
}

/// Whether the next byte of a quoted string is escaped (RFC 9110 §5.6.4).
fn ends_escaping(text: &[u8]) -> bool {
    text.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The address in the one `for` of an element of `Forwarded` (RFC 7239 §4).
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found: Option<Vec<u8>> = None;
    let mut rest = element;
    loop {
        // Pairs may be empty.
        let pair = rest.iter().position(|byte| !b"; \t".contains(byte));
        let Some(pair) = pair.and_then(|start| rest.get(start..)) else { return node(&found?) };
        let (name, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        let (value, after) = parameter_value(value.get(1..)?)?;
        // A parameter occurs once in an element.
        if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return None;
        }
        rest = after.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b";") {
            return None;
        }
    }
}

/// The value of a parameter, a token or a quoted string, and what follows it.
fn parameter_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        // Some proxies leave the quotes of an IPv6 address or a port out; it stays unambiguous.
        let is_end = |byte: &u8| b"; \t\"\\".contains(byte);
        let (value, after) =
            text.split_at_checked(text.iter().position(is_end).unwrap_or(text.len()))?;
        return Some((value.to_vec(), after));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => return Some((value, bytes.as_slice())),
            b'\\' => value.push(*bytes.next()?),
            byte => value.push(*byte),
        }
    }
}

/// An address with or without a port, an IPv6 address with or without brackets (RFC 7239 §6).
fn node(node: &[u8]) -> Option<IpAddr> {
    let node = str::from_utf8(node).ok()?;
    if let Ok(address) = node.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = if let Some(bracketed) = node.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        (IpAddr::V6(address.parse().ok()?), port)
    } else {
        let (address, port) = node.split_at_checked(node.find(':')?)?;
        (IpAddr::V4(address.parse().ok()?), port)
    };
    (port.is_empty() || is_port(port.strip_prefix(':')?)).then(|| address.to_canonical())
}

/// A number, or a name that hides it: `_p8`.
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !name.is_empty() && name.bytes().all(is_plain)
        }
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Networks;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const PEER: &str = "10.0.0.1";

    /// The address for lines of one field, with `10.0.0.0/8` and `fd00::/8` trusted.
    fn named(field: &str, lines: &[&[u8]]) -> String {
        let client_address = match field {
            "x-forwarded-for" => ClientAddress::XForwardedFor,
            _ => ClientAddress::Forwarded,
        };
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let trusted_proxies = Networks(trusted.into());
        let listen = Listen { trusted_proxies, client_address, ..Listen::default() };
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line).unwrap();
            headers.append(HeaderName::try_from(field).unwrap(), value);
        }
        address(PEER.parse().unwrap(), &listen, &headers).to_string()
    }

    #[test]
    fn the_nearest_address_that_is_not_trusted_is_the_client() {
        #[rustfmt::skip]
        let table: [(&str, &[&[u8]], &str); 45] = [
            ("x-forwarded-for", &[b"198.51.100.1"], "198.51.100.1"),
            ("x-forwarded-for", &[b"1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("x-forwarded-for", &[b"1.1.1.1,198.51.100.1\t,\t10.0.0.2"], "198.51.100.1"),
            ("x-forwarded-for", &[b"1.1.1.1, 198.51.100.1", b"10.0.0.2", b"10.0.0.3"], "198.51.100.1"),
            ("x-forwarded-for", &[b"198.51.100.1:4711"], "198.51.100.1"),
            ("x-forwarded-for", &[b"2001:db8::1"], "2001:db8::1"),
            ("x-forwarded-for", &[b"[2001:db8::1]"], "2001:db8::1"),
            ("x-forwarded-for", &[b"[2001:db8::1]:4711"], "2001:db8::1"),
            ("x-forwarded-for", &[b"::ffff:198.51.100.1"], "198.51.100.1"),
            ("x-forwarded-for", &[b"198.51.100.1, ::ffff:10.0.0.2"], "198.51.100.1"),
            ("x-forwarded-for", &[b"198.51.100.1, fd00::1"], "198.51.100.1"),
            ("x-forwarded-for", &[b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("x-forwarded-for", &[b"1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("x-forwarded-for", &[b"1.1.1.1, , 10.0.0.2"], "10.0.0.2"),
            ("x-forwarded-for", &[b"1.1.1.1", b""], PEER),
            ("x-forwarded-for", &[b"1.1.1.1,"], PEER),
            ("x-forwarded-for", &[b"junk"], PEER),
            ("x-forwarded-for", &[b"198.51.100.1:"], PEER),
            ("x-forwarded-for", &[b"198.51.100.1:123456"], PEER),
            ("x-forwarded-for", &[b"\"1.1.1.1, 198.51.100.1\""], PEER),
            ("x-forwarded-for", &[b"\xff, 198.51.100.1"], "198.51.100.1"),
            ("x-forwarded-for", &[b"1.1.1.1, \xff, 10.0.0.2"], "10.0.0.2"),
            ("x-forwarded-for", &[], PEER),
            ("forwarded", &[b"for=192.0.2.43, for=\"[2001:db8:cafe::17]:4711\";proto=https"], "2001:db8:cafe::17"),
            ("forwarded", &[b"proto=https;For=192.0.2.43"], "192.0.2.43"),
            ("forwarded", &[b"proto=https; for=192.0.2.43; by=10.0.0.1"], "192.0.2.43"),
            ("forwarded", &[b"for=192.0.2.43;;"], "192.0.2.43"),
            ("forwarded", &[b"for=\"192.0.2.43:_p8\""], "192.0.2.43"),
            ("forwarded", &[b"for=\"192.0.2.43:_\""], PEER),
            ("forwarded", &[b"for=[2001:db8::1]:80"], "2001:db8::1"),
            ("forwarded", &[b"for=\"192\\.0.2.43\""], "192.0.2.43"),
            ("forwarded", &[b"for=1.1.1.1", b"for=192.0.2.43, for=10.0.0.2"], "192.0.2.43"),
            ("forwarded", &[b"for=_hidden"], PEER),
            ("forwarded", &[b"for=1.1.1.1, for=unknown"], PEER),
            ("forwarded", &[b"for=1.1.1.1, proto=http"], PEER),
            ("forwarded", &[b"for=1.1.1.1;for=192.0.2.43"], PEER),
            ("forwarded", &[b"for=192.0.2.43 proto=http"], PEER),
            ("forwarded", &[b"for=\"192.0.2.43\"x"], PEER),
            ("forwarded", &[b"for=\"192.0.2.43"], PEER),
            ("forwarded", &[b"for=\"192.0.2.43\\\""], PEER),
            ("forwarded", &[b"192.0.2.43"], PEER),
            // The comma is in a quoted string, so this is one element without an address.
            ("forwarded", &[b"for=\"a, for=1.1.1.1, \""], PEER),
            ("forwarded", &[b"for=\"\\\", for=1.1.1.1\""], PEER),
            ("forwarded", &[b"for=\"open, for=192.0.2.43"], "192.0.2.43"),
            ("forwarded", &[b"for=\"\\\\\", for=10.0.0.2"], "10.0.0.2"),
        ];
        for (field, lines, expected) in table {
            let shown: Vec<_> = lines.iter().map(|line| line.escape_ascii().to_string()).collect();
            assert_eq!(named(field, lines), expected, "{field}: {shown:?}");
        }
    }

    #[test]
    fn a_field_is_read_from_a_trusted_peer_only_and_only_the_configured_one() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        headers.insert("forwarded", HeaderValue::from_static("for=192.0.2.2"));
        let network = Networks(vec!["10.0.0.0/8".parse().unwrap()]);
        for (client_address, expected) in [
            (ClientAddress::XForwardedFor, "192.0.2.1"),
            (ClientAddress::Forwarded, "192.0.2.2"),
            (ClientAddress::None, PEER),
        ] {
            let listen =
                |trusted_proxies| Listen { trusted_proxies, client_address, ..Listen::default() };
            let of =
                |peer: &str, listen| address(peer.parse().unwrap(), &listen, &headers).to_string();
            assert_eq!(of(PEER, listen(network.clone())), expected);
            assert_eq!(of("192.0.2.9", listen(network.clone())), "192.0.2.9");
            assert_eq!(of(PEER, listen(Networks::default())), PEER);
        }
    }

    /// What a client may send as a field value: mostly the bytes that mean something here.
    fn client_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                &b"\""[..],
                b"\\",
                b",",
                b";",
                b"=",
                b"for=",
                b" ",
                b"\t",
                b"[",
                b"]",
                b":",
                b"_",
                b"10.0.0.2",
                b"198.51.100.1",
                b"2001:db8::1",
                b"for=10.0.0.2",
                b"for=198.51.100.1",
                b"for=\"[fd00::1]\"",
                b"\xff",
                b"\xc3\xa9",
                b"unknown",
            ])
            .prop_map(<[u8]>::to_vec),
            (0x20_u8..=0xff).prop_filter("DEL", |byte| *byte != 0x7f).prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// An address that is not trusted, as a proxy may write it in either field.
    fn appended() -> impl Strategy<Value = (IpAddr, String, String)> {
        let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
        let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
        let is_trusted = |address: &IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => v4.octets()[0] == 10,
            IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
        };
        let address = prop_oneof![v4, v6].prop_filter("trusted", move |it| !is_trusted(it));
        (address, prop::option::of(any::<u16>()), 0..4_usize).prop_map(|(address, port, form)| {
            let host = match address {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) if port.is_none() && form % 2 == 0 => v6.to_string(),
                IpAddr::V6(v6) => format!("[{v6}]"),
            };
            let node = port.map_or(host.clone(), |port| format!("{host}:{port}"));
            let forwarded = match (form, address, port) {
                (0, IpAddr::V4(_), None) => format!("for={node}"),
                (1, ..) => format!("proto=https;For=\"{node}\""),
                (2, ..) => format!("for=\"{node}\";host=\"a,b\\\"c\""),
                _ => format!("for=\"{node}\""),
            };
            (address.to_canonical(), node, forwarded)
        })
    }

    fn lines(lines: &[Vec<u8>]) -> Vec<&[u8]> {
        lines.iter().map(Vec::as_slice).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Proxies append to the last line or add a line of their own.
        #[test]
        fn what_a_client_writes_never_changes_what_the_proxy_appended(
            mut client in prop::collection::vec(client_bytes(), 0..4),
            (address, node, forwarded) in appended(),
            trusted in 0..3_usize,
            own_line: bool,
        ) {
            for (field, written, proxy) in [
                ("x-forwarded-for", &node, "10.0.0.9"),
                ("forwarded", &forwarded, "for=\"[fd00::9]:443\""),
            ] {
                let more = format!(", {proxy}").repeat(trusted);
                let written = format!("{written}{more}").into_bytes();
                let before = client.clone();
                match client.last_mut().filter(|_| !own_line) {
                    Some(last) => last.extend([b", ", &*written].concat()),
                    None => client.push(written),
                }
                prop_assert_eq!(named(field, &lines(&client)), address.to_string(), "{}", field);
                client = before;
            }
        }

        /// Compared with a reader from the left that ignores ports.
        #[test]
        fn the_client_is_the_peer_or_left_of_trusted_addresses_only(
            client in prop::collection::vec(client_bytes(), 0..4),
        ) {
            let named = named("x-forwarded-for", &lines(&client));
            let whole = client.join(&b","[..]);
            let elements: Vec<_> = whole.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
            let is_address = |element: &&[u8], text: &str| node(element).is_some_and(|it| it.to_string() == text);
            let is_trusted = |element: &&[u8]| {
                node(element).is_some_and(|it| it.to_string().starts_with("10.") || it.to_string().starts_with("fd"))
            };
            let found = elements.iter().rposition(|element| is_address(element, &named));
            let to_the_right = |at: usize| elements.iter().skip(at + 1).all(is_trusted);
            let holds = named == PEER || (0..elements.len()).any(|at| is_address(&elements[at], &named) && to_the_right(at));
            prop_assert!(holds, "{} at {:?}", named, found);
        }

        #[test]
        fn the_client_in_forwarded_is_the_peer_or_an_address_in_the_field(
            client in prop::collection::vec(client_bytes(), 0..4),
        ) {
            let named = named("forwarded", &lines(&client));
            let whole = client.join(&b","[..]);
            let unescaped: Vec<u8> = whole.iter().copied().filter(|byte| *byte != b'\\').collect();
            let text = String::from_utf8_lossy(&unescaped);
            let contains = |address: &str| text.contains(address);
            prop_assert!(named == PEER || contains(&named), "{}", named);
        }
    }
}
