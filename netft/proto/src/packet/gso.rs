//! Generic segmentation offload (GSO) in user space: segments a super-packet of the adapter into
//! packets that fit a route.
//!
//! Every segment has its own IP and L4 header, so the loss of one datagram costs one segment. The
//! L4 checksums stay partial; a flag of the frame says so.

use crate::{
    packet::{
        checksum,
        checksum::{OnesComplementSum, TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET},
        ip::{IPPROTO_TCP, IPPROTO_UDP, InnerHeaders, IpVersion, L4Header, read_be16, read_be32},
        virtio_net::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHdr},
    },
    wire::DropReason,
};

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_PSH: u8 = 0x08;
const TCP_URG: u8 = 0x20;
const TCP_CWR: u8 = 0x80;
/// Offset of the flags in a TCP header.
const TCP_FLAGS_OFFSET: usize = 13;

/// Segmentation of one super-packet.
#[derive(Clone, Copy, Debug)]
enum SegmentationMode {
    /// One packet, copied unchanged.
    Copy,
    /// One packet whose checksum is completed here: the receiver could not locate it.
    CompleteChecksum { start: usize, offset: usize },
    /// TCP segments.
    Tcp { sequence: u32 },
    /// UDP datagrams.
    Udp,
}

/// Segmentation plan of a super-packet.
#[derive(Clone, Copy, Debug)]
pub struct GsoPlan<'a> {
    packet: &'a [u8],
    version: IpVersion,
    l4_offset: usize,
    /// Bytes of IP and L4 header, repeated in every segment.
    header_len: usize,
    /// Payload bytes of every segment but the last.
    segment_len: usize,
    packet_count: usize,
    has_partial_checksum: bool,
    mode: SegmentationMode,
    /// Checksum of the IPv4 header fields that are equal in all segments.
    ip_sum: OnesComplementSum,
    ip_id: u16,
    /// The pseudo-header sum without the length.
    pseudo_header_sum: OnesComplementSum,
}

impl<'a> GsoPlan<'a> {
    /// Plans the segmentation of `packet`, which was parsed as `inner` and preceded by `hdr`, into
    /// packets of at most `max_packet` bytes. TCP segments become smaller than the kernel asked if
    /// the route needs it: a byte stream may be segmented anywhere.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] when a packet that must not be segmented exceeds `max_packet`,
    /// [`DropReason::InnerMalformed`] when `hdr` does not fit the packet.
    #[inline]
    pub fn new(
        hdr: &VnetHdr,
        packet: &'a [u8],
        inner: &InnerHeaders,
        max_packet: usize,
    ) -> Result<Self, DropReason> {
        let packet = packet.get(..inner.len).ok_or(DropReason::InnerMalformed)?;
        let mut split = Self {
            packet,
            version: inner.version,
            l4_offset: inner.l4_offset,
            header_len: 0,
            segment_len: packet.len(),
            packet_count: 1,
            has_partial_checksum: false,
            mode: SegmentationMode::Copy,
            ip_sum: OnesComplementSum::default(),
            ip_id: 0,
            pseudo_header_sum: OnesComplementSum::default(),
        };
        if hdr.gso_type == GSO_NONE {
            split.plan_single(hdr, inner, max_packet)?;
        } else {
            split.plan_super(hdr, inner, max_packet)?;
        }
        Ok(split)
    }

    /// As [`new`](Self::new), without a size limit.
    ///
    /// # Errors
    /// [`DropReason::InnerMalformed`] when `hdr` does not fit the packet.
    pub fn new_unlimited(
        hdr: &VnetHdr,
        packet: &'a [u8],
        inner: &InnerHeaders,
    ) -> Result<Self, DropReason> {
        Self::new(hdr, packet, inner, usize::MAX)
    }

    /// Number of packets; at least 1.
    #[inline]
    pub const fn packet_count(&self) -> usize {
        self.packet_count
    }

    /// Returns whether the L4 checksums of the packets are partial.
    #[inline]
    pub const fn has_partial_checksum(&self) -> bool {
        self.has_partial_checksum
    }

    /// Returns whether the packets are segments of one TCP stream.
    #[inline]
    pub const fn is_tcp(&self) -> bool {
        matches!(self.mode, SegmentationMode::Tcp { .. })
    }

    /// The packet itself, if it is not changed and not segmented.
    #[inline]
    pub const fn as_unchanged(&self) -> Option<&'a [u8]> {
        if matches!(self.mode, SegmentationMode::Copy) { Some(self.packet) } else { None }
    }

    /// Bytes of packet `i`.
    #[inline]
    pub fn packet_len(&self, i: usize) -> usize {
        let (start, end) = self.payload_range(i);
        self.header_len + end - start
    }

    /// Returns whether the plan is empty: never, a super-packet is at least one packet.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes packet `i` (below [`packet_count`](Self::packet_count)) to the start of `out` and
    /// returns its length, [`packet_len`](Self::packet_len)`(i)`; 0 and nothing written when `out`
    /// is shorter.
    #[inline]
    pub fn write_packet(&self, i: usize, out: &mut [u8]) -> usize {
        let (start, end) = self.payload_range(i);
        let len = self.header_len + end - start;
        let Some(out) = out.get_mut(..len) else { return 0 };
        let (header, payload) = out.split_at_mut(self.header_len);
        header.copy_from_slice(&self.packet[..self.header_len]);
        payload.copy_from_slice(&self.packet[start..end]);
        match self.mode {
            SegmentationMode::Copy => {}
            SegmentationMode::CompleteChecksum { start, offset } => {
                checksum::complete_checksum_at(out, start, offset)
            }
            SegmentationMode::Tcp { sequence } => {
                self.patch_ip(header, len, i);
                self.patch_tcp(header, len, i, sequence);
            }
            SegmentationMode::Udp => {
                self.patch_ip(header, len, i);
                self.patch_udp(header, len);
            }
        }
        len
    }

    /// Range of the payload of packet `i`; the whole packet if no header is repeated.
    #[inline]
    fn payload_range(&self, i: usize) -> (usize, usize) {
        let start = (self.header_len + i * self.segment_len).min(self.packet.len());
        (start, (start + self.segment_len).min(self.packet.len()))
    }

    fn plan_single(
        &mut self,
        hdr: &VnetHdr,
        inner: &InnerHeaders,
        max_packet: usize,
    ) -> Result<(), DropReason> {
        let fits = self.packet.len() <= max_packet;
        if !hdr.needs_csum() {
            return if fits { Ok(()) } else { Err(DropReason::TooBig) };
        }
        if !describes_l4_checksum(hdr, inner) {
            let (start, offset) = (usize::from(hdr.csum_start), usize::from(hdr.csum_offset));
            self.mode = SegmentationMode::CompleteChecksum { start, offset };
            return if fits { Ok(()) } else { Err(DropReason::TooBig) };
        }
        self.has_partial_checksum = true;
        if fits {
            return Ok(());
        }
        let flags =
            self.packet.get(inner.l4_offset + TCP_FLAGS_OFFSET).copied().unwrap_or_default();
        if matches!(inner.l4, L4Header::Udp) || flags & (TCP_SYN | TCP_RST | TCP_URG) != 0 {
            return Err(DropReason::TooBig);
        }
        self.plan_segments(inner, usize::MAX, max_packet)
    }

    fn plan_super(
        &mut self,
        hdr: &VnetHdr,
        inner: &InnerHeaders,
        max_packet: usize,
    ) -> Result<(), DropReason> {
        let fits_type = matches!(
            (hdr.gso_type & !GSO_ECN, inner.version, inner.l4),
            (GSO_TCPV4, IpVersion::V4, L4Header::Tcp { .. })
                | (GSO_TCPV6, IpVersion::V6, L4Header::Tcp { .. })
                | (GSO_UDP_L4, _, L4Header::Udp)
        );
        if !fits_type
            || hdr.gso_size == 0
            || !hdr.needs_csum()
            || !describes_l4_checksum(hdr, inner)
        {
            return Err(DropReason::InnerMalformed);
        }
        self.has_partial_checksum = true;
        self.plan_segments(inner, usize::from(hdr.gso_size), max_packet)
    }

    /// Segments of at most `gso_size` payload bytes; `max_packet` narrows TCP further.
    fn plan_segments(
        &mut self,
        inner: &InnerHeaders,
        gso_size: usize,
        max_packet: usize,
    ) -> Result<(), DropReason> {
        self.header_len = inner.header_len();
        let payload = self.packet.len() - self.header_len;
        let room = max_packet.saturating_sub(self.header_len);
        let protocol = if matches!(inner.l4, L4Header::Udp) {
            if gso_size.min(payload) > room {
                return Err(DropReason::TooBig);
            }
            self.mode = SegmentationMode::Udp;
            self.segment_len = gso_size;
            IPPROTO_UDP
        } else {
            if room == 0 {
                return Err(DropReason::TooBig);
            }
            let sequence = read_be32(self.packet, inner.l4_offset + 4).unwrap_or_default();
            self.mode = SegmentationMode::Tcp { sequence };
            self.segment_len = gso_size.min(room);
            IPPROTO_TCP
        };
        self.packet_count = payload.div_ceil(self.segment_len).max(1);
        self.pseudo_header_sum = checksum::pseudo_header_sum(self.packet, self.version, protocol);
        if self.version == IpVersion::V4 {
            // All but total length, identification and the checksum itself.
            self.ip_id = read_be16(self.packet, 4).unwrap_or_default();
            self.ip_sum = OnesComplementSum::default()
                .add_bytes(&self.packet[..2])
                .add_bytes(&self.packet[6..10])
                .add_bytes(&self.packet[12..self.l4_offset]);
        }
        Ok(())
    }

    #[inline]
    fn patch_ip(&self, header: &mut [u8], len: usize, i: usize) {
        match self.version {
            IpVersion::V4 => {
                let (len, id) = (len as u16, self.ip_id.wrapping_add(i as u16));
                header[2..4].copy_from_slice(&len.to_be_bytes());
                header[4..6].copy_from_slice(&id.to_be_bytes());
                header[10..12].copy_from_slice(&self.ip_sum.add_u16(len).add_u16(id).to_checksum());
            }
            IpVersion::V6 => {
                let behind = (len - crate::packet::ip::IPV6_HEADER_LEN) as u16;
                header[4..6].copy_from_slice(&behind.to_be_bytes());
            }
        }
    }

    #[inline]
    fn patch_tcp(&self, header: &mut [u8], len: usize, i: usize, sequence: u32) {
        let tcp = &mut header[self.l4_offset..];
        let sequence = sequence.wrapping_add((i * self.segment_len) as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        // As the kernel's segmentation: FIN and PSH end the last one, CWR starts the first one.
        if i + 1 < self.packet_count {
            tcp[TCP_FLAGS_OFFSET] &= !(TCP_FIN | TCP_PSH);
        }
        if i > 0 {
            tcp[TCP_FLAGS_OFFSET] &= !TCP_CWR;
        }
        let sum =
            self.pseudo_header_sum.add_u16((len - self.l4_offset) as u16).to_partial_checksum();
        tcp[TCP_CHECKSUM_OFFSET..TCP_CHECKSUM_OFFSET + 2].copy_from_slice(&sum);
    }

    #[inline]
    fn patch_udp(&self, header: &mut [u8], len: usize) {
        let udp = &mut header[self.l4_offset..];
        let len = (len - self.l4_offset) as u16;
        udp[4..6].copy_from_slice(&len.to_be_bytes());
        let sum = self.pseudo_header_sum.add_u16(len).to_partial_checksum();
        udp[UDP_CHECKSUM_OFFSET..UDP_CHECKSUM_OFFSET + 2].copy_from_slice(&sum);
    }
}

/// Returns whether the partial checksum `hdr` describes is the L4 checksum found in the packet.
#[inline]
fn describes_l4_checksum(hdr: &VnetHdr, inner: &InnerHeaders) -> bool {
    let offset = match inner.l4 {
        L4Header::Tcp { .. } => TCP_CHECKSUM_OFFSET,
        L4Header::Udp => UDP_CHECKSUM_OFFSET,
        L4Header::Opaque => return false,
    };
    usize::from(hdr.csum_start) == inner.l4_offset && usize::from(hdr.csum_offset) == offset
}
