//! The 10-byte `virtio_net_hdr` in front of every packet of an offloading adapter queue.
//!
//! Native byte order: `TUNSETVNETLE` and `TUNSETVNETBE` stay unset.

/// Bytes of the header.
pub const VNET_HDR_LEN: usize = 10;

/// Flag: the L4 checksum is partial; it is to be completed over `csum_start..` into `csum_offset`.
pub const NEEDS_CSUM: u8 = 1;

/// Type: one packet, not to be segmented.
pub const GSO_NONE: u8 = 0;
/// Type: TCP over IPv4, to be segmented every `gso_size` bytes of payload.
pub const GSO_TCPV4: u8 = 1;
/// Type: TCP over IPv6, to be segmented every `gso_size` bytes of payload.
pub const GSO_TCPV6: u8 = 4;
/// Type: UDP payloads of `gso_size` bytes each behind one header.
pub const GSO_UDP_L4: u8 = 5;
/// Bit of the type: the first TCP segment carries CWR.
pub const GSO_ECN: u8 = 0x80;

/// A decoded header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    /// [`NEEDS_CSUM`], and flags that are ignored.
    pub flags: u8,
    /// One of the `GSO_` types, optionally with [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of IP and L4 header of a super-packet (a hint).
    pub hdr_len: u16,
    /// Payload bytes of each segment of a super-packet.
    pub gso_size: u16,
    /// Offset of the L4 header, bytes.
    pub csum_start: u16,
    /// Offset of the checksum from `csum_start`, bytes.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// Decodes the header.
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
        }
    }

    /// Encodes the header.
    #[inline]
    pub const fn encode(&self) -> [u8; VNET_HDR_LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// Returns whether the L4 checksum is partial.
    #[inline]
    pub const fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }
}

#[cfg(test)]
mod tests {
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
        };
        assert_eq!(VnetHdr::decode(&hdr.encode()), hdr);
        assert!(hdr.needs_csum());
        assert_eq!(VnetHdr::default().encode(), [0; VNET_HDR_LEN]);
    }
}
