//! The internet checksum (RFC 1071).
//!
//! Sums are kept in the machine's own byte order, where they are the same 16-bit ones-complement
//! number with its bytes swapped (RFC 1071 section 2 (B)), so that eight bytes are added at a time.

use crate::packet::ip::{IPPROTO_TCP, IPPROTO_UDP, InnerHeaders, IpVersion, L4Header};

/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM_OFFSET: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM_OFFSET: usize = 6;

/// A running ones-complement sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnesComplementSum(u64);

impl OnesComplementSum {
    /// Adds bytes; an odd number of them is padded with a zero, so only the last call may be odd.
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        // 2^32 words of 32 bits fit into the sum: no packet is that long.
        let mut sum = self.0;
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        let (halves, last) = rest.as_chunks::<2>();
        for half in halves {
            sum += u64::from(u16::from_ne_bytes(*half));
        }
        if let [byte] = last {
            sum += u64::from(u16::from_ne_bytes([*byte, 0]));
        }
        Self(sum)
    }

    /// Adds one 16-bit number.
    #[inline]
    #[must_use]
    pub const fn add_u16(self, word: u16) -> Self {
        Self(self.0 + word.to_be() as u64)
    }

    /// The sum as the value of a partial checksum field.
    #[inline]
    pub const fn to_partial_checksum(self) -> [u8; 2] {
        self.fold_carries().to_ne_bytes()
    }

    /// The complement: the value of a complete checksum field.
    #[inline]
    pub const fn to_checksum(self) -> [u8; 2] {
        (!self.fold_carries()).to_ne_bytes()
    }

    #[inline]
    const fn fold_carries(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

/// The sum of the pseudo-header without its length (RFC 9293 section 3.1, RFC 8200 section 8.1).
#[inline]
pub fn pseudo_header_sum(packet: &[u8], version: IpVersion, protocol: u8) -> OnesComplementSum {
    let addresses = match version {
        IpVersion::V4 => packet.get(12..20),
        IpVersion::V6 => packet.get(8..40),
    };
    OnesComplementSum::default()
        .add_bytes(addresses.unwrap_or_default())
        .add_u16(u16::from(protocol))
}

/// Sets the checksum of an IPv4 header; `header` is the header alone.
#[inline]
pub fn set_ipv4_checksum(header: &mut [u8]) {
    let Some(field) = header.get_mut(10..12) else { return };
    field.fill(0);
    let sum = OnesComplementSum::default().add_bytes(header).to_checksum();
    header[10..12].copy_from_slice(&sum);
}

/// Sets the partial L4 checksum of `packet` (one whole inner packet, parsed as `inner`) and returns
/// its offset in the L4 header; `None` and no change for other protocols.
#[inline]
pub fn set_partial_checksum(packet: &mut [u8], inner: &InnerHeaders) -> Option<usize> {
    let (protocol, offset) = checksum_field(inner)?;
    let sum = pseudo_header_sum(packet, inner.version, protocol)
        .add_u16(inner.l4_len() as u16)
        .to_partial_checksum();
    write_bytes_at(packet, inner.l4_offset + offset, sum);
    Some(offset)
}

/// Computes the whole TCP or UDP checksum of `packet` (one whole inner packet, parsed as `inner`);
/// no change for other protocols.
pub fn complete_checksum(packet: &mut [u8], inner: &InnerHeaders) {
    if let Some(offset) = set_partial_checksum(packet, inner) {
        complete_checksum_at(packet, inner.l4_offset, offset);
    }
}

/// Returns whether the complete TCP or UDP checksum of the packet at the start of `packet`, parsed
/// as `inner`, is right. A UDP datagram without a checksum has none that is right.
pub fn is_complete_checksum_right(packet: &[u8], inner: &InnerHeaders) -> bool {
    let Some((protocol, offset)) = checksum_field(inner) else { return false };
    let Some(covered) = packet.get(inner.l4_offset..inner.len) else { return false };
    if inner.l4 == L4Header::Udp && covered.get(offset..offset + 2) == Some(&[0, 0]) {
        return false;
    }
    pseudo_header_sum(packet, inner.version, protocol)
        .add_u16(inner.l4_len() as u16)
        .add_bytes(covered)
        .to_checksum()
        == [0, 0]
}

/// Completes a partial checksum as `virtio_net_hdr` describes it: the sum over `packet[start..]`,
/// which includes the partial field, goes into `start + offset`. No change when the field lies
/// outside.
pub fn complete_checksum_at(packet: &mut [u8], start: usize, offset: usize) {
    let Some(covered) = packet.get(start..) else { return };
    let mut sum = OnesComplementSum::default().add_bytes(covered).to_checksum();
    // A computed zero is sent as all ones (RFC 768); both mean the same to TCP (RFC 1624).
    if sum == [0, 0] {
        sum = [0xff, 0xff];
    }
    write_bytes_at(packet, start + offset, sum);
}

/// Protocol and checksum offset of a packet whose checksum this module can complete.
#[inline]
const fn checksum_field(inner: &InnerHeaders) -> Option<(u8, usize)> {
    match inner.l4 {
        L4Header::Tcp { .. } => Some((IPPROTO_TCP, TCP_CHECKSUM_OFFSET)),
        L4Header::Udp => Some((IPPROTO_UDP, UDP_CHECKSUM_OFFSET)),
        L4Header::Opaque => None,
    }
}

#[inline]
fn write_bytes_at(packet: &mut [u8], at: usize, bytes: [u8; 2]) {
    if let Some(field) = packet.get_mut(at..at + 2) {
        field.copy_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let sum = OnesComplementSum::default()
            .add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.to_partial_checksum(), [0xdd, 0xf2]);
        assert_eq!(sum.to_checksum(), [0x22, 0x0d]);
    }

    #[test]
    fn an_odd_byte_counts_as_a_high_byte() {
        assert_eq!(
            OnesComplementSum::default().add_bytes(&[1, 2, 3]).to_partial_checksum(),
            [4, 2]
        );
        assert_eq!(OnesComplementSum::default().add_u16(0x0402).to_partial_checksum(), [4, 2]);
    }

    #[test]
    fn a_known_ipv4_header_gets_its_checksum() {
        let mut header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xff, 0xff, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        set_ipv4_checksum(&mut header);
        assert_eq!(header[10..12], [0xb8, 0x61]);
    }

    #[test]
    fn a_field_outside_the_packet_is_left_alone() {
        let mut packet = [7; 4];
        complete_checksum_at(&mut packet, 2, 8);
        complete_checksum_at(&mut packet, 9, 0);
        set_ipv4_checksum(&mut packet);
        assert_eq!(packet, [7; 4]);
    }
}
