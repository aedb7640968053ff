//! Parser of the headers of one inner packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::DropReason;

/// Protocol number of TCP.
pub const IPPROTO_TCP: u8 = 6;
/// Protocol number of UDP.
pub const IPPROTO_UDP: u8 = 17;
/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER_LEN: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub const IPV6_HEADER_LEN: usize = 40;
/// Bytes of a TCP header without options.
pub const TCP_HEADER_LEN: usize = 20;
/// Offset of the flags in a TCP header.
pub(super) const TCP_FLAGS_OFFSET: usize = 13;
/// Bytes of a UDP header.
pub const UDP_HEADER_LEN: usize = 8;

pub(crate) const IPPROTO_HOPOPTS: u8 = 0;
pub(crate) const IPPROTO_ROUTING: u8 = 43;
pub(crate) const IPPROTO_DSTOPTS: u8 = 60;
/// Maximum number of extension headers followed; a packet with more is opaque.
pub(crate) const MAX_EXTENSIONS: usize = 8;

/// The IP version of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Header that follows the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Header {
    /// A whole TCP header of this many bytes, options included.
    Tcp {
        /// 20–60, and inside the packet.
        header_len: usize,
    },
    /// A whole UDP header.
    Udp,
    /// Anything else: a fragment, another protocol, a header that does not fit.
    Opaque,
}

/// The headers of one inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerHeaders {
    /// The IP version.
    pub version: IpVersion,
    /// Bytes of the whole packet, by its own length field; never more than were parsed.
    pub len: usize,
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
    /// The L4 header.
    pub l4: L4Header,
    /// Its offset, bytes; at most `len`.
    pub l4_offset: usize,
}

impl InnerHeaders {
    /// Parses the packet at the start of `bytes`; other packets may follow it.
    ///
    /// # Errors
    /// [`DropReason::InnerMalformed`] when it is neither IPv4 nor IPv6, or a length inside it does
    /// not fit.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        Self::parse_head(bytes, bytes.len())
    }

    /// As [`parse`](Self::parse), with only the first of the `whole` bytes in `head`. A header that
    /// extends beyond them leaves the packet opaque.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn parse_head(head: &[u8], whole: usize) -> Result<Self, DropReason> {
        let parsed = match head.first().map(|first| first >> 4) {
            Some(4) => parse_v4(head, whole),
            Some(6) => parse_v6(head, whole),
            _ => None,
        };
        parsed.ok_or(DropReason::InnerMalformed)
    }

    /// Bytes behind the IP header.
    #[inline]
    pub const fn l4_len(&self) -> usize {
        self.len - self.l4_offset
    }

    /// Bytes of IP and L4 header together; of an opaque packet, of the IP header.
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.l4_offset
            + match self.l4 {
                L4Header::Tcp { header_len: header } => header,
                L4Header::Udp => UDP_HEADER_LEN,
                L4Header::Opaque => 0,
            }
    }

    /// Returns whether the IP header is the bare one: no IPv4 options, no IPv6 extension header.
    #[inline]
    pub const fn is_bare(&self) -> bool {
        self.l4_offset
            == match self.version {
                IpVersion::V4 => IPV4_HEADER_LEN,
                IpVersion::V6 => IPV6_HEADER_LEN,
            }
    }

    /// The UDP destination port of `packet`, the bytes this was parsed from.
    #[inline]
    pub fn udp_destination_port(&self, packet: &[u8]) -> Option<u16> {
        if self.l4 != L4Header::Udp {
            return None;
        }
        read_be16(packet, self.l4_offset + 2)
    }
}

#[inline]
fn parse_v4(bytes: &[u8], whole: usize) -> Option<InnerHeaders> {
    let header: &[u8; IPV4_HEADER_LEN] = bytes.first_chunk()?;
    let l4_offset = usize::from(header[0] & 0x0f) * 4;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if l4_offset < IPV4_HEADER_LEN || len < l4_offset || len > whole {
        return None;
    }
    // "More fragments" or an offset: the L4 header or its payload is not all here.
    let fragment = (header[6] & 0x3f) != 0 || header[7] != 0;
    let protocol = if fragment { None } else { Some(header[9]) };
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    Some(InnerHeaders {
        version: IpVersion::V4,
        len,
        src: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        dst: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        l4: parse_l4(bytes.get(l4_offset..len.min(bytes.len())).unwrap_or_default(), protocol),
        l4_offset,
    })
}

#[inline]
fn parse_v6(bytes: &[u8], whole: usize) -> Option<InnerHeaders> {
    let header: &[u8; IPV6_HEADER_LEN] = bytes.first_chunk()?;
    let len = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = bytes.get(..len.min(bytes.len())).filter(|_| len <= whole)?;
    let src = <[u8; 16]>::try_from(&header[8..24]).ok()?;
    let dst = <[u8; 16]>::try_from(&header[24..40]).ok()?;
    let (l4_offset, protocol) = match header[6] {
        known @ (IPPROTO_TCP | IPPROTO_UDP) => (IPV6_HEADER_LEN, Some(known)),
        next => skip_extensions(packet, next),
    };
    Some(InnerHeaders {
        version: IpVersion::V6,
        len,
        src: IpAddr::V6(Ipv6Addr::from(src)),
        dst: IpAddr::V6(Ipv6Addr::from(dst)),
        l4: parse_l4(&packet[l4_offset..], protocol),
        l4_offset,
    })
}

/// End of the chain of extension headers (RFC 8200 section 4), and the protocol there; `None` and
/// the start of the chain if the L4 header or the pseudo-header is uncertain.
pub(crate) fn skip_extensions(packet: &[u8], first: u8) -> (usize, Option<u8>) {
    let opaque = (IPV6_HEADER_LEN, None);
    let (mut next, mut at) = (first, IPV6_HEADER_LEN);
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(next, IPPROTO_HOPOPTS | IPPROTO_ROUTING | IPPROTO_DSTOPTS) {
            return (at, Some(next));
        }
        let Some(&[following, length, _, segments_left]) = packet[at..].first_chunk() else {
            return opaque;
        };
        // With segments left, the checksum covers the final destination, not this one.
        if next == IPPROTO_ROUTING && segments_left != 0 {
            return opaque;
        }
        at += 8 + usize::from(length) * 8;
        if at > packet.len() {
            return opaque;
        }
        next = following;
    }
    opaque
}

#[inline]
fn parse_l4(segment: &[u8], protocol: Option<u8>) -> L4Header {
    match protocol {
        Some(IPPROTO_TCP) if segment.len() >= TCP_HEADER_LEN => {
            let header = usize::from(segment[12] >> 4) * 4;
            if header < TCP_HEADER_LEN || header > segment.len() {
                return L4Header::Opaque;
            }
            L4Header::Tcp { header_len: header }
        }
        Some(IPPROTO_UDP) if segment.len() >= UDP_HEADER_LEN => L4Header::Udp,
        _ => L4Header::Opaque,
    }
}

/// The 16-bit number at `at`.
#[inline]
pub(crate) fn read_be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 32-bit number at `at`.
#[inline]
pub(crate) fn read_be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    fn v4_tcp() -> Vec<u8> {
        let mut out = Vec::new();
        PacketBuilder::ipv4([169, 254, 1, 1], [169, 254, 2, 2], 64)
            .tcp(1, 2, 3, 4)
            .write(&mut out, b"hello")
            .unwrap();
        out
    }

    #[test]
    fn a_tcp_packet_is_read_and_what_follows_it_is_not() {
        let mut bytes = v4_tcp();
        let len = bytes.len();
        bytes.extend_from_slice(&v4_tcp());
        let inner = InnerHeaders::parse(&bytes).unwrap();
        assert_eq!(inner.len, len);
        assert_eq!(inner.l4, L4Header::Tcp { header_len: 20 });
        assert_eq!((inner.l4_offset, inner.l4_len(), inner.header_len()), (20, 25, 40));
        assert_eq!(inner.dst, IpAddr::from([169, 254, 2, 2]));
        assert!(inner.is_bare());
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let good = v4_tcp();
        for (at, value) in [(0, 0x44), (0, 0x55), (0, 0x05), (2, 0xff), (3, 19)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(InnerHeaders::parse(&bad), Err(DropReason::InnerMalformed), "byte {at}");
        }
        for end in 0..good.len() {
            assert_eq!(InnerHeaders::parse(&good[..end]), Err(DropReason::InnerMalformed));
        }
    }

    #[test]
    fn fragments_and_broken_tcp_headers_are_opaque() {
        for (at, value) in [(6, 0x20), (7, 1), (6, 0x1f), (32, 0x40), (32, 0xf0), (9, 132)] {
            let mut bytes = v4_tcp();
            bytes[at] = value;
            assert_eq!(InnerHeaders::parse(&bytes).unwrap().l4, L4Header::Opaque, "byte {at}");
        }
        let mut dont_fragment = v4_tcp();
        dont_fragment[6] = 0x40;
        assert_eq!(
            InnerHeaders::parse(&dont_fragment).unwrap().l4,
            L4Header::Tcp { header_len: 20 }
        );
    }

    fn v6(next: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![0x60, 0, 0, 0, 0, body.len() as u8, next, 64];
        out.extend_from_slice(&[0xfe; 16]);
        out.extend_from_slice(&[0xfd; 16]);
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn extension_headers_are_followed_to_the_udp_header() {
        let mut body = vec![IPPROTO_DSTOPTS, 0, 1, 4, 0, 0, 0, 0];
        body.extend_from_slice(&[IPPROTO_UDP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        body.extend_from_slice(&[0, 53, 0x0d, 0x0f, 0, 8, 0, 0]);
        let packet = v6(IPPROTO_HOPOPTS, &body);
        let inner = InnerHeaders::parse(&packet).unwrap();
        assert_eq!((inner.l4, inner.l4_offset), (L4Header::Udp, 64));
        assert_eq!(inner.udp_destination_port(&packet), Some(0x0d0f));
        assert!(!inner.is_bare());
    }

    #[test]
    fn a_head_tells_as_much_as_the_whole() {
        let tcp = v4_tcp();
        let udp = v6(IPPROTO_UDP, &[0, 53, 0x0d, 0x0f, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        for (packet, headers) in [(tcp, 40), (udp, 48)] {
            let inner = InnerHeaders::parse(&packet).unwrap();
            for end in 0..packet.len() {
                let parsed = InnerHeaders::parse_head(&packet[..end], packet.len());
                if end >= headers {
                    assert_eq!(parsed, Ok(inner), "{end}");
                } else if end >= inner.l4_offset {
                    assert_eq!(parsed, Ok(InnerHeaders { l4: L4Header::Opaque, ..inner }), "{end}");
                } else {
                    assert_eq!(parsed, Err(DropReason::InnerMalformed), "{end}");
                }
            }
            let short = InnerHeaders::parse_head(&packet, packet.len() - 1);
            assert_eq!(short, Err(DropReason::InnerMalformed));
        }
    }

    #[test]
    fn ipv6_fragments_and_pending_routing_headers_are_opaque() {
        for (next, body) in [
            (44, [IPPROTO_UDP, 0, 0, 0, 0, 0, 0, 1]),
            (IPPROTO_ROUTING, [IPPROTO_UDP, 0, 4, 1, 0, 0, 0, 0]),
            (IPPROTO_HOPOPTS, [IPPROTO_UDP, 9, 0, 0, 0, 0, 0, 0]),
        ] {
            let mut body = body.to_vec();
            body.extend_from_slice(&[0; 8]);
            let inner = InnerHeaders::parse(&v6(next, &body)).unwrap();
            assert_eq!(inner.l4, L4Header::Opaque, "{next}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics_and_offsets_stay_inside(
            first in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x00]),
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            len in 0u8..200,
        ) {
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            if bytes.len() > 6 {
                let at = if first == 0x60 { 5 } else { 3 };
                bytes[at - 1] = 0;
                bytes[at] = len;
            }
            if let Ok(inner) = InnerHeaders::parse(&bytes) {
                prop_assert!(inner.len <= bytes.len());
                prop_assert!(inner.l4_offset <= inner.len);
                prop_assert!(inner.header_len() <= inner.len);
            }
        }
    }
}
