//! ICMP replies to the local stack. To packets too big for the peer's routes: "fragmentation
//! needed" (RFC 1191) and ICMPv6 "packet too big" (RFC 4443 section 3.2). To packets for a peer
//! that no route leads to: "host unreachable" (RFC 792), ICMPv6 "address unreachable" (RFC 4443
//! section 3.1).
//!
//! The host routes carry the right MTU, so the first serves packets that were built before it
//! changed and applications that read ICMP only. A source that allows fragmentation gets a reply as
//! well: its stack then fragments.

use std::{net::IpAddr, time::Duration};

use crate::packet::{
    checksum,
    checksum::OnesComplementSum,
    ip::{
        IPPROTO_DSTOPTS, IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPV4_HEADER_LEN, IPV6_HEADER_LEN,
        InnerHeaders, IpVersion, MAX_EXTENSIONS, read_be16,
    },
    token_bucket::TokenBucket,
};

/// Maximum length of a reply, bytes: the minimum IPv6 MTU (RFC 4443 section 2.4 (c)).
pub const MAX_ICMP_LEN: usize = 1280;
/// Maximum length of an IPv4 reply, bytes (RFC 1812 section 4.3.2.3).
const MAX_ICMPV4_LEN: usize = 576;
/// Bytes of an ICMP header.
const ICMP_HEADER_LEN: usize = 8;

const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_FRAGMENT: u8 = 44;
/// Destination unreachable, fragmentation needed.
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
const PACKET_TOO_BIG: [u8; 2] = [2, 0];
/// Destination unreachable, host unreachable.
const HOST_UNREACHABLE: [u8; 2] = [3, 1];
/// ICMPv6 destination unreachable, address unreachable.
const ADDRESS_UNREACHABLE: [u8; 2] = [1, 3];
/// Internetwork control (RFC 1812 section 4.3.2.5).
const INTERNETWORK_CONTROL_TOS: u8 = 0xc0;
const HOP_LIMIT: u8 = 64;

/// Error of a packet that its sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// It is larger than this many bytes.
    TooBig(usize),
    /// No route leads to its destination.
    Unreachable,
}

/// Writes the reply to `packet`, which was parsed as `inner`, into `out` and returns its length.
/// Its source is the destination of the packet, the next hop that does not forward it.
///
/// `None`, and nothing is to be sent, for ICMP errors, for fragments other than the first, and when
/// an address is not that of a single host (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)).
pub fn write_icmp_error(
    packet: &[u8],
    inner: &InnerHeaders,
    error: IcmpError,
    out: &mut [u8; MAX_ICMP_LEN],
) -> Option<usize> {
    let packet = packet.get(..inner.len)?;
    if !is_single_host(inner.src)
        || !is_single_host(inner.dst)
        || must_not_reply(packet, inner.version)
    {
        return None;
    }
    let (head, most) = match inner.version {
        IpVersion::V4 => (IPV4_HEADER_LEN, MAX_ICMPV4_LEN),
        IpVersion::V6 => (IPV6_HEADER_LEN, MAX_ICMP_LEN),
    };
    let quoted = packet.get(..packet.len().min(most - head - ICMP_HEADER_LEN))?;
    let len = head + ICMP_HEADER_LEN + quoted.len();
    let reply = out.get_mut(..len)?;
    reply.fill(0);
    reply[head + ICMP_HEADER_LEN..].copy_from_slice(quoted);
    match inner.version {
        IpVersion::V4 => {
            reply[..2].copy_from_slice(&[0x45, INTERNETWORK_CONTROL_TOS]);
            reply[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            reply[8..10].copy_from_slice(&[HOP_LIMIT, IPPROTO_ICMP]);
            reply[12..16].copy_from_slice(&packet[16..20]);
            reply[16..20].copy_from_slice(&packet[12..16]);
            checksum::set_ipv4_checksum(&mut reply[..IPV4_HEADER_LEN]);
            let icmp = &mut reply[IPV4_HEADER_LEN..];
            match error {
                IcmpError::TooBig(mtu) => {
                    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                    icmp[..2].copy_from_slice(&FRAGMENTATION_NEEDED);
                    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
                }
                IcmpError::Unreachable => icmp[..2].copy_from_slice(&HOST_UNREACHABLE),
            }
            let sum = OnesComplementSum::default().add_bytes(icmp).to_checksum();
            icmp[2..4].copy_from_slice(&sum);
        }
        IpVersion::V6 => {
            let behind = (len - IPV6_HEADER_LEN) as u16;
            reply[0] = 0x60 | INTERNETWORK_CONTROL_TOS >> 4;
            reply[1] = INTERNETWORK_CONTROL_TOS << 4;
            reply[4..6].copy_from_slice(&behind.to_be_bytes());
            reply[6..8].copy_from_slice(&[IPPROTO_ICMPV6, HOP_LIMIT]);
            reply[8..24].copy_from_slice(&packet[24..40]);
            reply[24..40].copy_from_slice(&packet[8..24]);
            let pseudo =
                checksum::pseudo_header_sum(reply, IpVersion::V6, IPPROTO_ICMPV6).add_u16(behind);
            let icmp = &mut reply[IPV6_HEADER_LEN..];
            match error {
                IcmpError::TooBig(mtu) => {
                    let mtu = u32::try_from(mtu).unwrap_or(u32::MAX);
                    icmp[..2].copy_from_slice(&PACKET_TOO_BIG);
                    icmp[4..8].copy_from_slice(&mtu.to_be_bytes());
                }
                IcmpError::Unreachable => icmp[..2].copy_from_slice(&ADDRESS_UNREACHABLE),
            }
            let sum = pseudo.add_bytes(icmp).to_checksum();
            icmp[2..4].copy_from_slice(&sum);
        }
    }
    Some(len)
}

/// Returns whether an address is that of a single host.
fn is_single_host(addr: IpAddr) -> bool {
    let broadcast = matches!(addr, IpAddr::V4(v4) if v4.is_broadcast());
    !(addr.is_multicast() || addr.is_unspecified() || addr.is_loopback() || broadcast)
}

/// Returns whether a packet is an ICMP error, a fragment other than the first, or unparsable.
fn must_not_reply(packet: &[u8], version: IpVersion) -> bool {
    let icmp_type = match version {
        IpVersion::V4 => icmp_type_v4(packet),
        IpVersion::V6 => icmp_type_v6(packet),
    };
    match (icmp_type, version) {
        (None, _) => true,
        (Some(None), _) => false,
        // Unreachable, quench, redirect, time exceeded, parameter problem.
        (Some(Some(kind)), IpVersion::V4) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // Errors have no high bit; a redirect counts as one.
        (Some(Some(kind)), IpVersion::V6) => kind < 128 || kind == 137,
    }
}

/// The ICMP type of an ICMP packet; `None` if the packet lacks the start of the L4 header.
fn icmp_type_v4(packet: &[u8]) -> Option<Option<u8>> {
    if read_be16(packet, 6)? & 0x1fff != 0 {
        return None;
    }
    let offset = usize::from(packet.first()? & 0x0f) * 4;
    if packet.get(9) == Some(&IPPROTO_ICMP) {
        packet.get(offset).copied().map(Some)
    } else {
        Some(None)
    }
}

/// The same after the extension headers of IPv6.
fn icmp_type_v6(packet: &[u8]) -> Option<Option<u8>> {
    let (mut next, mut at) = (*packet.get(6)?, IPV6_HEADER_LEN);
    for _ in 0..MAX_EXTENSIONS {
        let length = match next {
            IPPROTO_ICMPV6 => return packet.get(at).copied().map(Some),
            IPPROTO_HOPOPTS | IPPROTO_ROUTING | IPPROTO_DSTOPTS => {
                8 + usize::from(*packet.get(at + 1)?) * 8
            }
            IPPROTO_FRAGMENT if read_be16(packet, at + 2)? & 0xfff8 == 0 => 8,
            IPPROTO_FRAGMENT => return None,
            _ => return Some(None),
        };
        next = *packet.get(at)?;
        at += length;
    }
    None
}

/// Rate limit of the replies (RFC 4443 section 2.4 (f)): a burst of 32, one more every 5 ms.
pub const fn icmp_rate_limit() -> TokenBucket {
    TokenBucket::with_interval(Duration::from_millis(5), 32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use etherparse::{
        Icmpv4Type, Icmpv6Type, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader,
        icmpv4::DestUnreachableHeader,
    };
    use proptest::prelude::*;

    use super::*;

    const A: [u8; 4] = [169, 254, 1, 1];
    const B: [u8; 4] = [169, 254, 2, 2];
    const A6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const B6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    fn v4(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let builder = PacketBuilder::ipv4(A, B, 64).udp(7, 9);
        builder.write(&mut out, &vec![1; len - 28]).unwrap();
        out
    }

    fn v6(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let builder = PacketBuilder::ipv6(A6, B6, 64).udp(7, 9);
        builder.write(&mut out, &vec![1; len - 48]).unwrap();
        out
    }

    fn answered(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
        reply_to(packet, IcmpError::TooBig(mtu))
    }

    fn reply_to(packet: &[u8], error: IcmpError) -> Option<Vec<u8>> {
        let inner = InnerHeaders::parse(packet).unwrap();
        let mut out = [0xee; MAX_ICMP_LEN];
        write_icmp_error(packet, &inner, error, &mut out).map(|len| out[..len].to_vec())
    }

    #[test]
    fn an_unreachable_destination_is_named_to_the_sender() {
        use etherparse::icmpv6::DestUnreachableCode;
        let packet = v4(100);
        let answer = reply_to(&packet, IcmpError::Unreachable).unwrap();
        let headers = PacketHeaders::from_ip_slice(&answer).unwrap();
        let Some(TransportHeader::Icmpv4(icmp)) = headers.transport else { panic!("no ICMP") };
        let host = DestUnreachableHeader::Host;
        assert_eq!(icmp.icmp_type, Icmpv4Type::DestinationUnreachable(host));
        assert_eq!(headers.payload.slice(), packet);
        assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(&packet));
        let packet = v6(100);
        let answer = reply_to(&packet, IcmpError::Unreachable).unwrap();
        let headers = PacketHeaders::from_ip_slice(&answer).unwrap();
        let Some(TransportHeader::Icmpv6(icmp)) = headers.transport else { panic!("no ICMP") };
        let address = DestUnreachableCode::Address;
        assert_eq!(icmp.icmp_type, Icmpv6Type::DestinationUnreachable(address));
        assert_eq!(headers.payload.slice(), packet);
        assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(B6, A6, &packet).unwrap());
    }

    #[test]
    fn the_ipv4_answer_names_the_mtu_and_quotes_the_packet() {
        for len in [29, 100, 548, 549, 1400] {
            let packet = v4(len);
            let answer = answered(&packet, 1168).unwrap();
            let headers = PacketHeaders::from_ip_slice(&answer).unwrap();
            let Some(NetHeaders::Ipv4(ip, _)) = headers.net else { panic!("no IPv4") };
            assert_eq!((ip.source, ip.destination), (B, A));
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            let Some(TransportHeader::Icmpv4(icmp)) = headers.transport else { panic!("no ICMP") };
            let needed = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1168 };
            assert_eq!(icmp.icmp_type, Icmpv4Type::DestinationUnreachable(needed));
            let quoted = headers.payload.slice();
            assert_eq!(quoted, &packet[..len.min(548)]);
            assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(quoted));
        }
    }

    #[test]
    fn the_ipv6_answer_names_the_mtu_and_quotes_the_packet() {
        for len in [49, 500, 1232, 1233, 1420] {
            let packet = v6(len);
            let answer = answered(&packet, 70_000).unwrap();
            let headers = PacketHeaders::from_ip_slice(&answer).unwrap();
            let Some(NetHeaders::Ipv6(ip, _)) = headers.net else { panic!("no IPv6") };
            assert_eq!((ip.source, ip.destination), (B6, A6));
            let Some(TransportHeader::Icmpv6(icmp)) = headers.transport else { panic!("no ICMP") };
            assert_eq!(icmp.icmp_type, Icmpv6Type::PacketTooBig { mtu: 70_000 });
            let quoted = headers.payload.slice();
            assert_eq!(quoted, &packet[..len.min(1232)]);
            let sum = icmp.icmp_type.calc_checksum(B6, A6, quoted).unwrap();
            assert_eq!(icmp.checksum, sum);
        }
    }

    #[test]
    fn errors_fragments_and_groups_get_no_answer() {
        let mut icmp = v4(100);
        icmp[9] = IPPROTO_ICMP;
        for (kind, replied) in [(0, true), (8, true), (3, false), (5, false), (11, false)] {
            icmp[20] = kind;
            assert_eq!(answered(&icmp, 68).is_some(), replied, "type {kind}");
        }
        let mut icmp = v6(100);
        icmp[6] = IPPROTO_ICMPV6;
        for (kind, replied) in [(128, true), (135, true), (1, false), (2, false), (137, false)] {
            icmp[40] = kind;
            assert_eq!(answered(&icmp, 68).is_some(), replied, "ICMPv6 type {kind}");
        }
        for (at, value, replied) in [(6, 0x20, true), (6, 0x40, true), (7, 1, false), (6, 1, false)]
        {
            let mut fragment = v4(100);
            fragment[at] = value;
            assert_eq!(answered(&fragment, 68).is_some(), replied, "byte {at} = {value}");
        }
        let mut fragment = v6(100);
        fragment[6] = IPPROTO_FRAGMENT;
        fragment[40..48].copy_from_slice(&[17, 0, 0, 1, 0, 0, 0, 0]);
        assert!(answered(&fragment, 68).is_some());
        fragment[43] = 8;
        assert!(answered(&fragment, 68).is_none());
        fragment[40..44].copy_from_slice(&[IPPROTO_ICMPV6, 0, 0, 1]);
        fragment[48] = 1;
        assert!(answered(&fragment, 68).is_none(), "an error behind a fragment header");
        for (at, addr) in [(16, [224, 0, 0, 1]), (16, [255; 4]), (12, [0; 4]), (12, [127, 0, 0, 1])]
        {
            let mut odd = v4(100);
            odd[at..at + 4].copy_from_slice(&addr);
            assert!(answered(&odd, 68).is_none(), "{addr:?}");
        }
        let mut group = v6(100);
        group[24] = 0xff;
        assert!(answered(&group, 68).is_none());
    }

    #[test]
    fn a_flood_is_answered_within_the_bound() {
        let limit = icmp_rate_limit();
        let start = crate::time::Time::from_millis(5000);
        let at = |nanos: u64| start + Duration::from_nanos(nanos);
        let replied =
            (0..10_000_000_000u64).step_by(100_000).filter(|n| limit.try_take(at(*n), 1)).count();
        assert!((2000..=2032).contains(&replied), "{replied} in ten seconds");
    }

    proptest! {
        #[test]
        fn no_packet_panics(
            mut bytes in prop::collection::vec(any::<u8>(), 20..300),
            six: bool,
            mtu: usize,
        ) {
            let len = bytes.len() as u16;
            if six && bytes.len() >= IPV6_HEADER_LEN {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&(len - IPV6_HEADER_LEN as u16).to_be_bytes());
            } else {
                bytes[0] = 0x45;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
            }
            if let Some(reply) = answered(&bytes, mtu) {
                prop_assert!(InnerHeaders::parse(&reply).is_ok());
            }
        }
    }
}
