//! What a packet says of its flow besides its addresses.

use crate::packet::ip::{Inner, L4, TCP, UDP, Version, be16, skip_extensions};

impl Inner {
    /// Source and destination port of `packet`, the bytes this was parsed from; `None` unless it
    /// is a whole TCP or UDP packet.
    #[inline]
    pub fn ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        match self.l4 {
            L4::Tcp { .. } | L4::Udp => {
                be16(packet, self.l4_offset).zip(be16(packet, self.l4_offset + 2))
            }
            L4::Opaque => None,
        }
    }

    /// The transport's protocol number, of a fragment too where its own header tells; `None`
    /// behind IPv6 extension headers that are not followed. `packet` is what this was parsed from,
    /// all of it or its head.
    pub fn protocol(&self, packet: &[u8]) -> Option<u8> {
        match (self.l4, self.version) {
            (L4::Tcp { .. }, _) => Some(TCP),
            (L4::Udp, _) => Some(UDP),
            (L4::Opaque, Version::V4) => packet.get(9).copied(),
            (L4::Opaque, Version::V6) => {
                // It may be the head of the packet only.
                let packet = &packet[..self.len.min(packet.len())];
                skip_extensions(packet, *packet.get(6)?).1
            }
        }
    }

    /// The upper six bits of the traffic class (RFC 2474 section 3).
    pub fn dscp(&self, packet: &[u8]) -> u8 {
        let class = match self.version {
            Version::V4 => packet.get(1).copied(),
            Version::V6 => be16(packet, 0).map(|word| (word >> 4) as u8),
        };
        class.unwrap_or_default() >> 2
    }
}
