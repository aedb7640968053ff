//! The internet checksum (RFC 1071).
//!
//! Sums are kept in the machine's own byte order, where they are the same 16-bit ones-complement
//! number with its bytes swapped (RFC 1071 section 2 (B)), so that eight bytes are added at a time.

use crate::packet::ip::{Inner, L4, TCP, UDP, Version};

/// Where the checksum stands in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// Where the checksum stands in a UDP header.
pub const UDP_CHECKSUM: usize = 6;

/// A running ones-complement sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd number of them is padded with a zero, so only the last call may be odd.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
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
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word.to_be() as u64)
    }

    /// The sum as it stands in an unfinished checksum field.
    #[inline]
    pub const fn unfinished(self) -> [u8; 2] {
        self.fold().to_ne_bytes()
    }

    /// The complement: a finished checksum field.
    #[inline]
    pub const fn finished(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    #[inline]
    const fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

/// The sum of the pseudo-header without its length (RFC 9293 section 3.1, RFC 8200 section 8.1).
#[inline]
pub fn pseudo(packet: &[u8], version: Version, protocol: u8) -> Sum {
    let addresses = match version {
        Version::V4 => packet.get(12..20),
        Version::V6 => packet.get(8..40),
    };
    Sum::default().bytes(addresses.unwrap_or_default()).word(u16::from(protocol))
}

/// Sets the checksum of an IPv4 header; `header` is the header alone.
#[inline]
pub fn set_ipv4(header: &mut [u8]) {
    let Some(field) = header.get_mut(10..12) else { return };
    field.fill(0);
    let sum = Sum::default().bytes(header).finished();
    header[10..12].copy_from_slice(&sum);
}

/// Sets the unfinished L4 checksum of `packet` (one whole inner packet, parsed as `inner`) and
/// returns where it stands behind the L4 header's start; `None` and no change for other protocols.
#[inline]
pub fn unfinish(packet: &mut [u8], inner: &Inner) -> Option<usize> {
    let (protocol, offset) = field(inner)?;
    let sum = pseudo(packet, inner.version, protocol).word(inner.l4_len() as u16).unfinished();
    put(packet, inner.l4_offset + offset, sum);
    Some(offset)
}

/// Computes the whole TCP or UDP checksum of `packet` (one whole inner packet, parsed as `inner`);
/// no change for other protocols.
pub fn finish(packet: &mut [u8], inner: &Inner) {
    if let Some(offset) = unfinish(packet, inner) {
        finish_at(packet, inner.l4_offset, offset);
    }
}

/// Finishes an unfinished checksum as `virtio_net_hdr` describes it: the sum over
/// `packet[start..]`, which includes the unfinished field, goes into `start + offset`.
/// Nothing happens when the field lies outside.
pub fn finish_at(packet: &mut [u8], start: usize, offset: usize) {
    let Some(covered) = packet.get(start..) else { return };
    let mut sum = Sum::default().bytes(covered).finished();
    // A computed zero is sent as all ones (RFC 768); both mean the same to TCP (RFC 1624).
    if sum == [0, 0] {
        sum = [0xff, 0xff];
    }
    put(packet, start + offset, sum);
}

/// Protocol and checksum position of a packet whose checksum this module can finish.
#[inline]
const fn field(inner: &Inner) -> Option<(u8, usize)> {
    match inner.l4 {
        L4::Tcp { .. } => Some((TCP, TCP_CHECKSUM)),
        L4::Udp => Some((UDP, UDP_CHECKSUM)),
        L4::Opaque => None,
    }
}

#[inline]
fn put(packet: &mut [u8], at: usize, bytes: [u8; 2]) {
    if let Some(field) = packet.get_mut(at..at + 2) {
        field.copy_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.unfinished(), [0xdd, 0xf2]);
        assert_eq!(sum.finished(), [0x22, 0x0d]);
    }

    #[test]
    fn an_odd_byte_counts_as_a_high_byte() {
        assert_eq!(Sum::default().bytes(&[1, 2, 3]).unfinished(), [4, 2]);
        assert_eq!(Sum::default().word(0x0402).unfinished(), [4, 2]);
    }

    #[test]
    fn a_known_ipv4_header_gets_its_checksum() {
        let mut header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xff, 0xff, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        set_ipv4(&mut header);
        assert_eq!(header[10..12], [0xb8, 0x61]);
    }

    #[test]
    fn a_field_outside_the_packet_is_left_alone() {
        let mut packet = [7; 4];
        finish_at(&mut packet, 2, 8);
        finish_at(&mut packet, 9, 0);
        set_ipv4(&mut packet);
        assert_eq!(packet, [7; 4]);
    }
}
