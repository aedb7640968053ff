//! Packets that are replicated to every peer: multicast and the limited broadcast. Pure.
//!
//! The adapter's addresses are host addresses (`/32`, `/128`), so it has no directed broadcast
//! address.

use std::net::IpAddr;

use crate::packet::ip::{IPPROTO_UDP, IPV6_HEADER_LEN, InnerHeaders, IpVersion};

/// Protocol number of IGMP.
const IPPROTO_IGMP: u8 = 2;
/// Protocol number of the IPv6 fragment header.
const IPPROTO_FRAGMENT: u8 = 44;
/// Protocol number of ICMP for IPv6.
const IPPROTO_ICMPV6: u8 = 58;

/// Returns whether an address is replicated to every peer: 224.0.0.0/4, 255.255.255.255, and
/// ff00::/8 from link-local scope on (RFC 4291 section 2.7: the scopes below never leave their
/// interface).
#[inline]
pub fn is_multicast_or_broadcast(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast() && v6.octets()[1] & 0x0f >= 2,
    }
}

/// Returns whether `packet`, which was parsed as `inner`, is replicated to every peer and accepted
/// from one.
///
/// IGMP and MLD are not forwarded, because every peer receives all groups anyway. Neither are
/// neighbour and router discovery, because a peer is no router that this host takes routes and
/// addresses from.
pub fn is_forwarded_to_peers(inner: &InnerHeaders, packet: &[u8]) -> bool {
    if !is_multicast_or_broadcast(inner.dst) {
        return false;
    }
    match (inner.version, inner.protocol(packet)) {
        (IpVersion::V4, Some(IPPROTO_IGMP)) => false,
        (IpVersion::V6, Some(IPPROTO_ICMPV6)) => {
            !packet.get(inner.l4_offset).is_none_or(is_mld_or_ndp)
        }
        // Unknown protocol after extension headers that are not followed.
        (IpVersion::V6, None) => false,
        // UDP only: an ICMPv6 type may be in another fragment (RFC 6980).
        (IpVersion::V6, Some(IPPROTO_FRAGMENT)) => {
            packet.get(IPV6_HEADER_LEN) == Some(&IPPROTO_UDP)
        }
        _ => true,
    }
}

/// ICMPv6 types: MLD 130–132 and 143, neighbour and router discovery 133–137 (RFC 3810, RFC 4861).
fn is_mld_or_ndp(kind: &u8) -> bool {
    matches!(kind, 130..=137 | 143)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn parsed(packet: &[u8]) -> bool {
        is_forwarded_to_peers(&InnerHeaders::parse(packet).unwrap(), packet)
    }

    fn v4(protocol: u8, dst: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 1, protocol, 0, 0, 169, 254, 1, 1];
        packet.extend_from_slice(&dst);
        packet.extend_from_slice(&[0x14, 0xe9, 0x14, 0xe9, 0, 8, 0, 0]);
        packet
    }

    fn v6(next: u8, dst: &str, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, next, 1];
        packet.extend_from_slice(&[0xfe; 16]);
        packet.extend_from_slice(&dst.parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet.extend_from_slice(body);
        packet
    }

    #[test]
    fn multicast_and_the_limited_broadcast_go_to_every_peer() {
        for (addr, wanted) in [
            ("224.0.0.251", true),
            ("239.192.1.1", true),
            ("255.255.255.255", true),
            ("169.254.255.255", false),
            ("169.254.2.2", false),
            ("0.0.0.0", false),
            ("ff02::fb", true),
            ("ff15::abcd", true),
            ("ff01::1", false),
            ("ff00::1", false),
            ("fe80::1", false),
            ("::", false),
        ] {
            assert_eq!(is_multicast_or_broadcast(addr.parse().unwrap()), wanted, "{addr}");
        }
    }

    #[test]
    fn igmp_mld_and_neighbour_discovery_are_not_forwarded() {
        assert!(parsed(&v4(17, [224, 0, 0, 251])) && !parsed(&v4(IPPROTO_IGMP, [224, 0, 0, 22])));
        assert!(!parsed(&v4(17, [169, 254, 2, 2])));
        let udp = [0x14, 0xe9, 0x14, 0xe9, 0, 8, 0, 0];
        assert!(parsed(&v6(17, "ff02::fb", &udp)));
        let icmp = |kind| v6(IPPROTO_ICMPV6, "ff02::1", &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert!(parsed(&icmp(128)), "an echo request");
        for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143] {
            assert!(!parsed(&icmp(kind)), "{kind}");
        }
        // An MLD report follows a router alert option.
        let report = [IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 1];
        assert!(!parsed(&v6(0, "ff02::16", &report)));
        // A fragmented router advertisement could hide its type (RFC 6980).
        let fragment = |next| [next, 0, 0, 1, 0, 0, 0, 7, 134, 0, 0, 0, 0, 0, 0, 0];
        assert!(!parsed(&v6(IPPROTO_FRAGMENT, "ff02::1", &fragment(IPPROTO_ICMPV6))));
        assert!(!parsed(&v6(IPPROTO_FRAGMENT, "ff02::1", &fragment(60))), "more headers");
        assert!(parsed(&v6(IPPROTO_FRAGMENT, "ff02::1", &fragment(17))));
    }

    /// The first fragment of a packet decides for all of it.
    #[test]
    fn the_head_of_a_packet_is_enough() {
        let body = [17, 0, 0, 1, 0, 0, 0, 7, 0x14, 0xe9, 0x14, 0xe9, 0, 80, 0, 0];
        let mut head = v6(IPPROTO_FRAGMENT, "ff02::fb", &body);
        head[4..6].copy_from_slice(&1376u16.to_be_bytes());
        let inner = InnerHeaders::parse_head(&head, IPV6_HEADER_LEN + 1376).unwrap();
        assert!(is_forwarded_to_peers(&inner, &head));
    }

    proptest! {
        #[test]
        fn no_packet_panics(mut bytes in prop::collection::vec(any::<u8>(), 20..120), six: bool) {
            bytes[0] = if six { 0x60 } else { 0x45 };
            (bytes[2], bytes[4], bytes[16]) = (0, 0, 0xe0);
            if let Some(byte) = bytes.get_mut(24) {
                *byte = 0xff;
            }
            if let Ok(inner) = InnerHeaders::parse(&bytes) {
                is_forwarded_to_peers(&inner, &bytes);
            }
        }
    }
}
