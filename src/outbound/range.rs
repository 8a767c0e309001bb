use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kinds of addresses that are not public (RFC 6890 and its registries).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// This machine.
    Loopback,
    /// RFC 1918, RFC 4193.
    Private,
    /// Carrier-grade NAT, also used by overlay networks (RFC 6598).
    CarrierGradeNat,
    /// Link-local; clouds serve instance metadata at such addresses (RFC 3927, RFC 4291 §2.5.6).
    LinkLocal,
    /// For examples in documentation (RFC 5737, RFC 3849, RFC 9637).
    Documentation,
    /// Not assigned to hosts on the Internet: unspecified, multicast, reserved.
    Reserved,
}

impl Range {
    /// The range of an address; `None` for a public one. An IPv6 address that embeds an IPv4 address
    /// has the range of the latter.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => embedded(v6).map_or_else(|| Self::of_v6(v6), Self::of_v4),
        }
    }

    fn of_v4(v4: Ipv4Addr) -> Option<Self> {
        Some(match v4.octets() {
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [100, 64..=127, ..] => Self::CarrierGradeNat,
            [169, 254, ..] => Self::LinkLocal,
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Self::Documentation,
            // This network, protocol assignments, benchmarks, multicast and above.
            [0 | 224..=255, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] => Self::Reserved,
            _ => return None,
        })
    }

    fn of_v6(v6: Ipv6Addr) -> Option<Self> {
        Some(match v6.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            // Unique local, and site-local before it (RFC 3879); NAT64 within a network (RFC 8215).
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Self::Documentation,
            // Protocol assignments: benchmarks, ORCHID (RFC 2928).
            [0x2001, 0..=0x1ff, ..] => Self::Reserved,
            // The global unicast addresses assigned so far (RFC 4291 §2.4).
            [0x2000..=0x3fff, ..] => return None,
            _ => Self::Reserved,
        })
    }
}

/// The embedded IPv4 address: mapped (RFC 4291 §2.5.5), by
/// NAT64 (RFC 6052), 6to4 (RFC 3056), or Teredo (RFC 4380).
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [high, low, inverted] = match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            [high, low, 0]
        }
        [0x2002, high, low, ..] => [high, low, 0],
        [0x2001, 0, _, _, _, _, high, low] => [high, low, 0xffff],
        _ => return None,
    };
    let bits = u32::from(high ^ inverted) << 16 | u32::from(low ^ inverted);
    Some(Ipv4Addr::from(bits))
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::CarrierGradeNat => "behind carrier-grade NAT",
            Self::LinkLocal => "link-local",
            Self::Documentation => "for documentation",
            Self::Reserved => "reserved",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn special_ranges_are_recognised_and_public_addresses_are_not() {
        use Range::*;
        let table = [
            ("127.0.0.1", Some(Loopback)),
            ("127.255.255.255", Some(Loopback)),
            ("::1", Some(Loopback)),
            ("10.0.0.0", Some(Private)),
            ("172.16.0.1", Some(Private)),
            ("172.31.255.255", Some(Private)),
            ("192.168.255.255", Some(Private)),
            ("fc00::", Some(Private)),
            ("fd00::1", Some(Private)),
            ("fec0::1", Some(Private)),
            ("64:ff9b:1::1", Some(Private)),
            ("100.64.0.0", Some(CarrierGradeNat)),
            ("100.127.255.255", Some(CarrierGradeNat)),
            ("169.254.169.254", Some(LinkLocal)),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("203.0.113.7", Some(Documentation)),
            ("2001:db8::1", Some(Documentation)),
            ("3fff:fff::1", Some(Documentation)),
            ("0.0.0.0", Some(Reserved)),
            ("0.1.2.3", Some(Reserved)),
            ("192.0.0.170", Some(Reserved)),
            ("198.19.0.1", Some(Reserved)),
            ("224.0.0.1", Some(Reserved)),
            ("255.255.255.255", Some(Reserved)),
            ("::", Some(Reserved)),
            ("::7f00:1", Some(Reserved)),
            ("100::1", Some(Reserved)),
            ("ff02::1", Some(Reserved)),
            ("2001:2::1", Some(Reserved)),
            ("2001:20::1", Some(Reserved)),
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::ffff:169.254.169.254", Some(LinkLocal)),
            ("64:ff9b::10.1.2.3", Some(Private)),
            ("2002:7f00:1::", Some(Loopback)),
            ("2001:0:4136:e378:8000:63bf:80ff:fffe", Some(Loopback)),
            ("1.1.1.1", None),
            ("9.255.255.255", None),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.128.0.0", None),
            ("126.255.255.255", None),
            ("128.0.0.0", None),
            ("169.253.255.255", None),
            ("172.15.255.255", None),
            ("172.32.0.0", None),
            ("192.169.0.0", None),
            ("198.17.255.255", None),
            ("223.255.255.255", None),
            ("2606:4700::1", None),
            ("2001:200::1", None),
            ("2001:4860:4860::8888", None),
            ("64:ff9b::1.1.1.1", None),
            ("::ffff:1.1.1.1", None),
        ];
        for (address, expected) in table {
            assert_eq!(Range::of(address.parse().unwrap()), expected, "{address}");
        }
    }

    proptest! {
        #[test]
        fn addresses_that_the_standard_library_calls_special_are_never_public(bits: u32, wide: u128) {
            let v4 = Ipv4Addr::from(bits);
            let special = v4.is_loopback() || v4.is_private() || v4.is_link_local()
                || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()
                || v4.is_documentation();
            prop_assert!(!special || Range::of(v4.into()).is_some());
            let v6 = Ipv6Addr::from(wide);
            let special = v6.is_loopback() || v6.is_unspecified() || v6.is_multicast()
                || v6.is_unique_local() || v6.is_unicast_link_local();
            prop_assert!(!special || Range::of(v6.into()).is_some());
        }

        #[test]
        fn an_embedded_ipv4_address_has_the_same_range(bits: u32, rest: [u16; 5]) {
            let v4 = Ipv4Addr::from(bits);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let [e, f, g, h, i] = rest;
            for v6 in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, e, f, g, h, i),
                Ipv6Addr::new(0x2001, 0, e, f, g, h, !high, !low),
            ] {
                prop_assert_eq!(Range::of(v6.into()), Range::of(v4.into()), "{}", v6);
            }
        }

        /// Octets near range boundaries, which a random `u32` rarely is.
        #[test]
        fn range_boundaries_agree_with_the_standard_library(
            first in prop::sample::select(vec![0u8, 1, 9, 10, 11, 100, 126, 127, 128, 169, 172, 192, 198, 203, 223, 224, 255]),
            rest: [u8; 3],
        ) {
            let [second, third, fourth] = rest;
            let v4 = Ipv4Addr::new(first, second, third, fourth);
            let range = Range::of(v4.into());
            prop_assert_eq!(range == Some(Range::Loopback), v4.is_loopback());
            prop_assert_eq!(range == Some(Range::Private), v4.is_private());
            prop_assert_eq!(range == Some(Range::LinkLocal), v4.is_link_local());
            prop_assert_eq!(range == Some(Range::Documentation), v4.is_documentation());
        }
    }
}
