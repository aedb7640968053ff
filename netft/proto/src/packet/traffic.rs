//! Fields of a packet that identify its flow besides the addresses: ports, protocol, DSCP.

use crate::packet::ip::{
    IPPROTO_TCP, IPPROTO_UDP, InnerHeaders, IpVersion, L4Header, read_be16, skip_extensions,
};

impl InnerHeaders {
    /// Source and destination port of `packet`, the bytes this was parsed from; `None` unless it
    /// is a whole TCP or UDP packet.
    #[inline]
    pub fn ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        match self.l4 {
            L4Header::Tcp { .. } | L4Header::Udp => {
                read_be16(packet, self.l4_offset).zip(read_be16(packet, self.l4_offset + 2))
            }
            L4Header::Opaque => None,
        }
    }

    /// Protocol number of the L4 header, of a fragment too if its own header has it; `None` after
    /// IPv6 extension headers that are not followed. `packet` is what this was parsed from, whole
    /// or its head.
    pub fn protocol(&self, packet: &[u8]) -> Option<u8> {
        match (self.l4, self.version) {
            (L4Header::Tcp { .. }, _) => Some(IPPROTO_TCP),
            (L4Header::Udp, _) => Some(IPPROTO_UDP),
            (L4Header::Opaque, IpVersion::V4) => packet.get(9).copied(),
            (L4Header::Opaque, IpVersion::V6) => {
                // It may be the head of the packet only.
                let packet = &packet[..self.len.min(packet.len())];
                skip_extensions(packet, *packet.get(6)?).1
            }
        }
    }

    /// The upper six bits of the traffic class (RFC 2474 section 3).
    pub fn dscp(&self, packet: &[u8]) -> u8 {
        let class = match self.version {
            IpVersion::V4 => packet.get(1).copied(),
            IpVersion::V6 => read_be16(packet, 0).map(|word| (word >> 4) as u8),
        };
        class.unwrap_or_default() >> 2
    }
}
