//! The `virtio_net_hdr` in front of every packet of an offloading adapter queue: 10 bytes, or 24
//! where the kernel describes the packets of UDP tunnels (Linux 6.17).
//!
//! Native byte order: `TUNSETVNETLE` and `TUNSETVNETBE` stay unset. The header of a tunnel's packet
//! is little-endian whatever the machine, so it is asked for on little-endian machines only.

/// Bytes of the header without the offsets of a tunnel.
pub const VNET_HDR_LEN: usize = 10;
/// Bytes of the header with them (`virtio_net_hdr_v1_hash_tunnel`).
pub const TUNNEL_VNET_HDR_LEN: usize = 24;

/// Flag: the L4 checksum is partial; it is to be completed over `csum_start..` into `csum_offset`.
pub const NEEDS_CSUM: u8 = 1;
/// Flag: the segments of a tunnel's super-packet have an outer UDP checksum.
pub const TUNNEL_CSUM: u8 = 8;

/// Type: one packet, not to be segmented.
pub const GSO_NONE: u8 = 0;
/// Type: TCP over IPv4, to be segmented every `gso_size` bytes of payload.
pub const GSO_TCPV4: u8 = 1;
/// Type: TCP over IPv6, to be segmented every `gso_size` bytes of payload.
pub const GSO_TCPV6: u8 = 4;
/// Type: UDP payloads of `gso_size` bytes each behind one header.
pub const GSO_UDP_L4: u8 = 5;
/// Bit of the type: the packet to be segmented is in a UDP tunnel over IPv4.
pub const GSO_TUNNEL_V4: u8 = 0x20;
/// Bit of the type: the packet to be segmented is in a UDP tunnel over IPv6.
pub const GSO_TUNNEL_V6: u8 = 0x40;
/// Bit of the type: the first TCP segment carries CWR.
pub const GSO_ECN: u8 = 0x80;

/// Header before each packet of an adapter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VnetFormat {
    /// None: a queue without offload.
    Absent,
    /// [`VNET_HDR_LEN`] bytes.
    Basic,
    /// [`TUNNEL_VNET_HDR_LEN`] bytes: super-packets of UDP tunnels are described too.
    Tunnel,
}

impl VnetFormat {
    /// Bytes of the header.
    #[inline]
    pub const fn header_len(self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Basic => VNET_HDR_LEN,
            Self::Tunnel => TUNNEL_VNET_HDR_LEN,
        }
    }

    /// Returns whether super-packets and partial checksums cross the queue.
    #[inline]
    pub const fn has_offload(self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// Splits what was read from a queue into the header and the packet; `None` when it is shorter
    /// than the header.
    #[inline]
    pub fn split_header(self, bytes: &[u8]) -> Option<(VnetHdr, &[u8])> {
        match self {
            Self::Absent => Some((VnetHdr::default(), bytes)),
            Self::Basic => {
                bytes.split_first_chunk().map(|(hdr, packet)| (VnetHdr::decode(hdr), packet))
            }
            Self::Tunnel => {
                bytes.split_first_chunk().map(|(hdr, packet)| (VnetHdr::decode_tunnel(hdr), packet))
            }
        }
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    /// [`NEEDS_CSUM`], [`TUNNEL_CSUM`], and flags that are ignored.
    pub flags: u8,
    /// One of the `GSO_` types, optionally with [`GSO_ECN`] and one of the tunnel bits.
    pub gso_type: u8,
    /// Bytes of IP and L4 header of a super-packet (a hint).
    pub hdr_len: u16,
    /// Payload bytes of each segment of a super-packet.
    pub gso_size: u16,
    /// Offset of the L4 header, bytes; in a tunnel, of the one inside it.
    pub csum_start: u16,
    /// Offset of the checksum from `csum_start`, bytes.
    pub csum_offset: u16,
    /// Offset of the tunnel's UDP header, bytes; 0 outside a tunnel.
    pub outer_l4: u16,
    /// Offset of the IP header in the tunnel, bytes; 0 outside a tunnel.
    pub inner_l3: u16,
}

impl VnetHdr {
    /// Decodes a header of [`VnetFormat::Basic`].
    #[inline]
    pub const fn decode(bytes: &[u8; VNET_HDR_LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
            outer_l4: 0,
            inner_l3: 0,
        }
    }

    /// Decodes a header of [`VnetFormat::Tunnel`].
    #[inline]
    pub fn decode_tunnel(bytes: &[u8; TUNNEL_VNET_HDR_LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, .., t0, t1, n0, n1] = *bytes;
        Self {
            outer_l4: u16::from_le_bytes([t0, t1]),
            inner_l3: u16::from_le_bytes([n0, n1]),
            ..Self::decode(&[flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1])
        }
    }

    /// Encodes the header in the longest format; the first
    /// [`header_len`](VnetFormat::header_len) bytes are the header of a shorter one.
    #[inline]
    pub const fn encode(&self) -> [u8; TUNNEL_VNET_HDR_LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        let [t0, t1] = self.outer_l4.to_le_bytes();
        let [n0, n1] = self.inner_l3.to_le_bytes();
        // Between them: the number of buffers and the receive hash, which the kernel ignores.
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9] = [0; 10];
        [
            self.flags,
            self.gso_type,
            h0,
            h1,
            g0,
            g1,
            s0,
            s1,
            o0,
            o1,
            b0,
            b1,
            b2,
            b3,
            b4,
            b5,
            b6,
            b7,
            b8,
            b9,
            t0,
            t1,
            n0,
            n1,
        ]
    }

    /// Returns whether the L4 checksum is partial.
    #[inline]
    pub const fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// Returns whether the packet to be segmented is in a UDP tunnel.
    #[inline]
    pub const fn is_tunnel(&self) -> bool {
        self.gso_type & (GSO_TUNNEL_V4 | GSO_TUNNEL_V6) != 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn encoding_and_decoding_are_inverse() {
        let hdr = VnetHdr {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV6 | GSO_ECN,
            hdr_len: 72,
            gso_size: 1348,
            csum_start: 40,
            csum_offset: 16,
            ..VnetHdr::default()
        };
        assert_eq!(VnetHdr::decode(hdr.encode().first_chunk().unwrap()), hdr);
        assert!(hdr.needs_csum() && !hdr.is_tunnel());
        assert_eq!(VnetHdr::default().encode(), [0; TUNNEL_VNET_HDR_LEN]);
        let tunnel = VnetHdr {
            flags: NEEDS_CSUM | TUNNEL_CSUM,
            gso_type: GSO_TCPV4 | GSO_TUNNEL_V6,
            outer_l4: 40,
            inner_l3: 70,
            ..hdr
        };
        assert!(tunnel.is_tunnel());
        assert_eq!(VnetHdr::decode_tunnel(&tunnel.encode()), tunnel);
        // The offsets stand in the last four bytes (virtio 1.4, section 5.1.6).
        assert_eq!(tunnel.encode()[20..], [40, 0, 70, 0]);
    }

    #[test]
    fn a_packet_begins_behind_the_header_of_its_queue() {
        let bytes = [1; 30];
        for format in [VnetFormat::Absent, VnetFormat::Basic, VnetFormat::Tunnel] {
            let len = format.header_len();
            let (hdr, packet) = format.split_header(&bytes).unwrap();
            assert_eq!(packet.len(), bytes.len() - len);
            assert_eq!(hdr.needs_csum(), format.has_offload());
            assert!(len == 0 || format.split_header(&bytes[..len - 1]).is_none());
        }
    }
}
