//! Generic segmentation offload (GSO) in user space: segments a super-packet of the adapter into
//! packets that fit a route.
//!
//! Every segment has its own IP and L4 header, so the loss of one datagram costs one segment. The
//! L4 checksums stay partial; a flag of the frame says so. In a UDP tunnel the checksum of the
//! packet inside is completed here, and the tunnel's own stays partial.

use crate::{
    packet::{
        checksum,
        checksum::{TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET},
        ip::{InnerHeaders, IpVersion, L4Header, TCP_FLAGS_OFFSET},
        repeated_headers::RepeatedHeaders,
        tunnel::TunnelPacket,
        virtio_net::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, TUNNEL_CSUM, VnetHdr},
    },
    wire::DropReason,
};

const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_URG: u8 = 0x20;
/// Fewest payload bytes of a TCP segment (`TCP_MIN_GSO_SIZE` of the kernel). This and
/// [`MAX_DATAGRAMS`] bound the work that one packet can ask for.
const MIN_SEGMENT_LEN: usize = 8;
/// Most datagrams of a super-packet (`UDP_MAX_SEGMENTS` of the kernel).
const MAX_DATAGRAMS: usize = 128;

/// Segmentation of one super-packet.
#[derive(Clone, Copy, Debug)]
enum SegmentationMode {
    /// One packet, copied unchanged.
    Copy,
    /// One packet whose checksum is completed here: the receiver could not locate it.
    CompleteChecksum { start: usize, offset: usize },
    /// TCP segments.
    Tcp(RepeatedHeaders),
    /// UDP datagrams.
    Udp(RepeatedHeaders),
    /// Segments or datagrams in a UDP tunnel.
    Tunnel(TunnelSegmentation),
}

/// Segmentation of the packet in a UDP tunnel.
#[derive(Clone, Copy, Debug)]
struct TunnelSegmentation {
    outer: RepeatedHeaders,
    /// The segments have an outer UDP checksum.
    has_outer_checksum: bool,
    /// Offset of the inner IP header.
    offset: usize,
    inner: RepeatedHeaders,
    is_tcp: bool,
    /// Offset of the inner L4 header from there.
    l4_offset: usize,
}

/// Segmentation plan of a super-packet.
#[derive(Clone, Copy, Debug)]
pub struct GsoPlan<'a> {
    packet: &'a [u8],
    /// Bytes of all headers, repeated in every segment.
    header_len: usize,
    /// Payload bytes of every segment but the last.
    segment_len: usize,
    packet_count: usize,
    has_partial_checksum: bool,
    mode: SegmentationMode,
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
            header_len: 0,
            segment_len: packet.len(),
            packet_count: 1,
            has_partial_checksum: false,
            mode: SegmentationMode::Copy,
        };
        if hdr.gso_type == GSO_NONE {
            split.plan_single(hdr, inner, max_packet)?;
        } else if hdr.is_tunnel() {
            split.plan_tunnel(hdr, inner, max_packet)?;
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

    /// Returns whether the packets are segments of one TCP stream, in a tunnel or not.
    #[inline]
    pub const fn is_tcp(&self) -> bool {
        match &self.mode {
            SegmentationMode::Tcp(_) => true,
            SegmentationMode::Tunnel(tunnel) => tunnel.is_tcp,
            _ => false,
        }
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
        let place = (i, self.packet_count);
        match &self.mode {
            SegmentationMode::Copy => {}
            SegmentationMode::CompleteChecksum { start, offset } => {
                checksum::complete_checksum_at(out, *start, *offset)
            }
            SegmentationMode::Tcp(headers) => {
                headers.patch_ip(header, len, i);
                headers.patch_tcp(header, len, place, self.segment_len);
            }
            SegmentationMode::Udp(headers) => {
                headers.patch_ip(header, len, i);
                headers.patch_udp(header, len);
            }
            SegmentationMode::Tunnel(tunnel) => {
                tunnel.patch_segment(out, place, self.segment_len);
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
        if !fits_type || !hdr.needs_csum() || !describes_l4_checksum(hdr, inner) {
            return Err(DropReason::InnerMalformed);
        }
        self.has_partial_checksum = true;
        self.plan_segments(inner, requested_size(hdr, inner)?, max_packet)
    }

    /// Segments of at most `gso_size` payload bytes; `max_packet` narrows TCP further.
    fn plan_segments(
        &mut self,
        inner: &InnerHeaders,
        gso_size: usize,
        max_packet: usize,
    ) -> Result<(), DropReason> {
        let is_tcp = matches!(inner.l4, L4Header::Tcp { .. });
        self.divide_payload(inner.header_len(), is_tcp, gso_size, max_packet)?;
        let headers = RepeatedHeaders::new(self.packet, inner);
        self.mode =
            if is_tcp { SegmentationMode::Tcp(headers) } else { SegmentationMode::Udp(headers) };
        Ok(())
    }

    fn plan_tunnel(
        &mut self,
        hdr: &VnetHdr,
        outer: &InnerHeaders,
        max_packet: usize,
    ) -> Result<(), DropReason> {
        let TunnelPacket { offset, inner } = TunnelPacket::parse(hdr, self.packet, outer)?;
        let is_tcp = matches!(inner.l4, L4Header::Tcp { .. });
        let checksum_offset = if is_tcp { TCP_CHECKSUM_OFFSET } else { UDP_CHECKSUM_OFFSET };
        if !hdr.needs_csum() || usize::from(hdr.csum_offset) != checksum_offset {
            return Err(DropReason::InnerMalformed);
        }
        let header_len = offset + inner.header_len();
        self.divide_payload(header_len, is_tcp, requested_size(hdr, &inner)?, max_packet)?;
        let has_outer_checksum = hdr.flags & TUNNEL_CSUM != 0;
        self.has_partial_checksum = has_outer_checksum;
        self.mode = SegmentationMode::Tunnel(TunnelSegmentation {
            outer: RepeatedHeaders::new(self.packet, outer),
            has_outer_checksum,
            offset,
            inner: RepeatedHeaders::new(&self.packet[offset..], &inner),
            is_tcp,
            l4_offset: inner.l4_offset,
        });
        Ok(())
    }

    /// Sets how the payload behind `header_len` bytes of headers is divided.
    #[inline]
    fn divide_payload(
        &mut self,
        header_len: usize,
        is_tcp: bool,
        gso_size: usize,
        max_packet: usize,
    ) -> Result<(), DropReason> {
        self.header_len = header_len;
        let payload = self.packet.len() - header_len;
        let room = max_packet.saturating_sub(header_len);
        if is_tcp {
            // The bound of the work holds for what the route narrows, too.
            if room == 0 || room < MIN_SEGMENT_LEN.min(payload) {
                return Err(DropReason::TooBig);
            }
            self.segment_len = gso_size.min(room);
        } else {
            if gso_size.min(payload) > room {
                return Err(DropReason::TooBig);
            }
            self.segment_len = gso_size;
        }
        self.packet_count = payload.div_ceil(self.segment_len).max(1);
        Ok(())
    }
}

impl TunnelSegmentation {
    /// Makes the headers at the start of `packet` those of segment `i` of `count`. `segment_len`:
    /// payload bytes of the segments before it.
    // Out of line, so that segments outside a tunnel do not pay for its size.
    #[inline(never)]
    fn patch_segment(&self, packet: &mut [u8], (i, count): (usize, usize), segment_len: usize) {
        let len = packet.len();
        self.outer.patch_ip(packet, len, i);
        if self.has_outer_checksum {
            self.outer.patch_udp(packet, len);
        } else {
            self.outer.patch_udp_length(packet, len);
        }
        let inner = &mut packet[self.offset..];
        let len = inner.len();
        self.inner.patch_ip(inner, len, i);
        let checksum_offset = if self.is_tcp {
            self.inner.patch_tcp(inner, len, (i, count), segment_len);
            TCP_CHECKSUM_OFFSET
        } else {
            self.inner.patch_udp(inner, len);
            UDP_CHECKSUM_OFFSET
        };
        checksum::complete_checksum_at(inner, self.l4_offset, checksum_offset);
    }
}

/// The payload bytes of a segment that `hdr` asks for, of a packet with the headers `inner`.
#[inline]
fn requested_size(hdr: &VnetHdr, inner: &InnerHeaders) -> Result<usize, DropReason> {
    let size = usize::from(hdr.gso_size);
    let fits = match inner.l4 {
        L4Header::Tcp { .. } => size >= MIN_SEGMENT_LEN,
        _ => size > 0 && inner.len - inner.header_len() <= size * MAX_DATAGRAMS,
    };
    if fits { Ok(size) } else { Err(DropReason::InnerMalformed) }
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
