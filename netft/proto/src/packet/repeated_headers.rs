//! The IP header and the L4 header that segmentation repeats, and what changes in them from segment
//! to segment.

use crate::packet::{
    checksum,
    checksum::{OnesComplementSum, TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET},
    ip::{
        IPPROTO_TCP, IPPROTO_UDP, IPV6_HEADER_LEN, InnerHeaders, IpVersion, L4Header,
        TCP_FLAGS_OFFSET, read_be16, read_be32,
    },
};

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// One IP header and the L4 header behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RepeatedHeaders {
    version: IpVersion,
    l4_offset: usize,
    ip_id: u16,
    /// Sum of the IPv4 header fields that are equal in all segments.
    ip_sum: OnesComplementSum,
    /// The pseudo-header sum without the length.
    pseudo_header_sum: OnesComplementSum,
    /// Sequence number of the first TCP segment.
    sequence: u32,
}

impl RepeatedHeaders {
    /// The headers at the start of `packet`, parsed as `inner`.
    #[inline]
    pub(super) fn new(packet: &[u8], inner: &InnerHeaders) -> Self {
        let (protocol, sequence) = match inner.l4 {
            L4Header::Tcp { .. } => {
                (IPPROTO_TCP, read_be32(packet, inner.l4_offset + 4).unwrap_or_default())
            }
            _ => (IPPROTO_UDP, 0),
        };
        let (mut ip_id, mut ip_sum) = (0, OnesComplementSum::default());
        if inner.version == IpVersion::V4 {
            // All but total length, identification and the checksum itself.
            ip_id = read_be16(packet, 4).unwrap_or_default();
            ip_sum = ip_sum
                .add_bytes(&packet[..2])
                .add_bytes(&packet[6..10])
                .add_bytes(&packet[12..inner.l4_offset]);
        }
        Self {
            version: inner.version,
            l4_offset: inner.l4_offset,
            ip_id,
            ip_sum,
            pseudo_header_sum: checksum::pseudo_header_sum(packet, inner.version, protocol),
            sequence,
        }
    }

    /// Sets length, identification and checksum of the IP header of segment `i`, a packet of `len`
    /// bytes.
    #[inline(always)]
    pub(super) fn patch_ip(&self, header: &mut [u8], len: usize, i: usize) {
        match self.version {
            IpVersion::V4 => {
                let (len, id) = (len as u16, self.ip_id.wrapping_add(i as u16));
                header[2..4].copy_from_slice(&len.to_be_bytes());
                header[4..6].copy_from_slice(&id.to_be_bytes());
                header[10..12].copy_from_slice(&self.ip_sum.add_u16(len).add_u16(id).to_checksum());
            }
            IpVersion::V6 => {
                let behind = (len - IPV6_HEADER_LEN) as u16;
                header[4..6].copy_from_slice(&behind.to_be_bytes());
            }
        }
    }

    /// Sets sequence number, flags and partial checksum of the TCP header of segment `i` of
    /// `count`, a packet of `len` bytes. `segment_len`: payload bytes of the segments before it.
    #[inline(always)]
    pub(super) fn patch_tcp(
        &self,
        header: &mut [u8],
        len: usize,
        (i, count): (usize, usize),
        segment_len: usize,
    ) {
        let tcp = &mut header[self.l4_offset..];
        let sequence = self.sequence.wrapping_add((i * segment_len) as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        // As the kernel's segmentation: FIN and PSH end the last one, CWR starts the first one.
        if i + 1 < count {
            tcp[TCP_FLAGS_OFFSET] &= !(TCP_FIN | TCP_PSH);
        }
        if i > 0 {
            tcp[TCP_FLAGS_OFFSET] &= !TCP_CWR;
        }
        let sum = self.partial_checksum(len);
        tcp[TCP_CHECKSUM_OFFSET..TCP_CHECKSUM_OFFSET + 2].copy_from_slice(&sum);
    }

    /// Sets length and partial checksum of the UDP header of a packet of `len` bytes.
    #[inline]
    pub(super) fn patch_udp(&self, header: &mut [u8], len: usize) {
        self.patch_udp_length(header, len);
        let sum = self.partial_checksum(len);
        let at = self.l4_offset + UDP_CHECKSUM_OFFSET;
        header[at..at + 2].copy_from_slice(&sum);
    }

    /// Sets the length of the UDP header of a packet of `len` bytes; its checksum stays.
    #[inline]
    pub(super) fn patch_udp_length(&self, header: &mut [u8], len: usize) {
        let l4_len = ((len - self.l4_offset) as u16).to_be_bytes();
        header[self.l4_offset + 4..self.l4_offset + 6].copy_from_slice(&l4_len);
    }

    #[inline]
    fn partial_checksum(&self, len: usize) -> [u8; 2] {
        self.pseudo_header_sum.add_u16((len - self.l4_offset) as u16).to_partial_checksum()
    }
}
