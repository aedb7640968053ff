//! What policies look at in an inner packet.

use super::{
    ip::{Inner, L4, TCP, UDP, Version, be16, skip_extensions},
    vnet::VnetHdr,
};
use crate::route::policy::Traffic;

impl Inner {
    /// What policies look at, in `packet`, the bytes this was parsed from.
    #[inline]
    pub fn traffic(&self, hdr: &VnetHdr, packet: &[u8]) -> Traffic {
        let ports = match self.l4 {
            L4::Tcp { .. } | L4::Udp => {
                be16(packet, self.l4_offset).zip(be16(packet, self.l4_offset + 2))
            }
            L4::Opaque => None,
        };
        let segment = self.header_len() + usize::from(hdr.gso_size);
        Traffic {
            src: self.src,
            dst: self.dst,
            protocol: self.protocol(packet),
            ports,
            dscp: self.dscp(packet),
            size: if hdr.gso_size == 0 { self.len } else { segment.min(self.len) },
        }
    }

    /// The transport's protocol number, of a fragment too where its own header tells; `None`
    /// behind IPv6 extension headers that are not followed.
    fn protocol(&self, packet: &[u8]) -> Option<u8> {
        match (self.l4, self.version) {
            (L4::Tcp { .. }, _) => Some(TCP),
            (L4::Udp, _) => Some(UDP),
            (L4::Opaque, Version::V4) => packet.get(9).copied(),
            (L4::Opaque, Version::V6) => {
                skip_extensions(packet.get(..self.len)?, *packet.get(6)?).1
            }
        }
    }

    /// The upper six bits of the traffic class (RFC 2474 section 3).
    fn dscp(&self, packet: &[u8]) -> u8 {
        let class = match self.version {
            Version::V4 => packet.get(1).copied(),
            Version::V6 => be16(packet, 0).map(|word| (word >> 4) as u8),
        };
        class.unwrap_or_default() >> 2
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use etherparse::{IpDscp, PacketBuilder};
    use proptest::prelude::*;

    use super::*;

    fn traffic(packet: &[u8]) -> Traffic {
        Inner::parse(packet).unwrap().traffic(&VnetHdr::default(), packet)
    }

    #[test]
    fn ports_protocol_code_point_and_size_are_read() {
        let mut header = etherparse::Ipv4Header::new(0, 64, 17.into(), [1; 4], [2; 4]).unwrap();
        header.dscp = IpDscp::try_new(46).unwrap();
        let mut udp = Vec::new();
        PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
            .udp(5000, 53)
            .write(&mut udp, b"12345")
            .unwrap();
        let found = traffic(&udp);
        assert_eq!((found.protocol, found.ports), (Some(17), Some((5000, 53))));
        assert_eq!((found.dscp, found.size), (46, 33));
        udp[6] = 0x20;
        let fragment = traffic(&udp);
        assert_eq!((fragment.protocol, fragment.ports), (Some(17), None));

        let mut icmp = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64)
            .icmpv6_echo_request(1, 2)
            .write(&mut icmp, &[])
            .unwrap();
        icmp[0] |= 0x0b;
        icmp[1] |= 0x80;
        let found = traffic(&icmp);
        assert_eq!((found.protocol, found.ports, found.dscp), (Some(58), None, 46));
    }

    #[test]
    fn a_super_packet_is_as_large_as_one_of_its_segments() {
        let mut tcp = Vec::new();
        PacketBuilder::ipv4([1; 4], [2; 4], 64)
            .tcp(1, 2, 3, 4)
            .write(&mut tcp, &[0; 4000])
            .unwrap();
        let hdr = VnetHdr { gso_size: 1000, ..VnetHdr::default() };
        assert_eq!(Inner::parse(&tcp).unwrap().traffic(&hdr, &tcp).size, 1040);
    }

    proptest! {
        #[test]
        fn no_packet_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..120), v6: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            if bytes.len() >= 40 {
                let len = bytes.len() as u16 - if v6 { 40 } else { 0 };
                let at = if v6 { 4 } else { 2 };
                bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
            }
            if let Ok(inner) = Inner::parse(&bytes) {
                prop_assert!(inner.traffic(&VnetHdr::default(), &bytes).dscp < 64);
            }
        }
    }
}
