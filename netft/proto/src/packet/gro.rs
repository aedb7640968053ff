//! Generic receive offload (GRO) in user space: coalesces consecutive packets of a flow into one
//! write to the adapter.
//!
//! The rules are those of the kernel's GRO: packets are merged only if segmentation restores them
//! exactly, and the order within a flow never changes. A partial checksum is protected by the AEAD
//! tag; a complete one is verified before its packet is merged, and a wrong one stays for the
//! receiver to see.
//! The `virtio_net_hdr` is derived from the headers found here, never from a hint of the sender.
//! Bounds: [`MAX_FLOWS`] flows at a time, [`MAX_SEGMENTS`] packets and 65,535 bytes per write;
//! packets stay in the caller's buffer.

use std::io::IoSlice;

use crate::packet::{
    checksum,
    checksum::UDP_CHECKSUM_OFFSET,
    ip::{
        InnerHeaders, IpVersion, L4Header, TCP_FLAGS_OFFSET, UDP_HEADER_LEN, read_be16, read_be32,
    },
    virtio_net::{GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetFormat, VnetHdr},
};

/// Maximum number of flows merged side by side; a further one flushes the oldest.
pub const MAX_FLOWS: usize = 8;
/// Maximum number of packets merged into one.
pub const MAX_SEGMENTS: usize = 64;

/// Largest packet that an IP length field describes.
const MAX_PACKET_LEN: usize = 65_535;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_PSH: u8 = 0x08;
const TCP_ACK: u8 = 0x10;
const TCP_URG: u8 = 0x20;
const TCP_CWR: u8 = 0x80;
/// The "don't fragment" bit in byte 6 of an IPv4 header.
const IPV4_DONT_FRAGMENT: u8 = 0x40;

/// One write to the adapter.
#[derive(Debug)]
pub struct TunWrite<'a> {
    /// Header in the first slice.
    pub hdr: VnetHdr,
    /// Number of merged packets.
    pub packets: usize,
    /// Bytes of the merged packet.
    pub bytes: usize,
    /// The encoded `hdr`, then the merged packet in order: one write to an offloading queue.
    pub slices: &'a [IoSlice<'a>],
}

/// The open flows of one receive batch. Every packet is a range of one buffer, which the caller
/// passes to every call and must not change before [`flush_all`](Self::flush_all).
#[derive(Debug)]
pub struct GroCoalescer {
    flows: [GroFlow; MAX_FLOWS],
    /// Indexes into `flows` in use, oldest first.
    order: [u8; MAX_FLOWS],
    open_count: usize,
    merge_udp: bool,
    format: VnetFormat,
}

/// A flow's packets so far.
#[derive(Clone, Copy, Debug)]
struct GroFlow {
    /// Offset of the first packet.
    start: usize,
    inner: InnerHeaders,
    header_len: usize,
    /// Payload bytes of the first packet, hence of all but the last.
    segment_len: usize,
    /// Bytes of the merged packet.
    total_len: usize,
    /// FIN and PSH of the last packet.
    flags: u8,
    /// The L4 checksums are partial; otherwise all but that of a lone packet are verified.
    partial: bool,
    packets: usize,
    /// Payloads after the first packet: offset and length.
    parts: [(u32, u32); MAX_SEGMENTS - 1],
}

/// Relation of a packet to an open flow.
enum MergeDecision {
    /// Another flow.
    OtherFlow,
    /// The same flow, but it must not be merged.
    NotMergeable,
    /// The next segment.
    Append,
}

impl GroCoalescer {
    /// An empty coalescer for queues of [`VnetFormat::Basic`]. `merge_udp`: whether the adapter
    /// takes merged UDP datagrams (Linux 6.2).
    pub fn new(merge_udp: bool) -> Self {
        let empty = InnerHeaders {
            version: IpVersion::V4,
            len: 0,
            src: [0; 4].into(),
            dst: [0; 4].into(),
            l4: L4Header::Opaque,
            l4_offset: 0,
        };
        let flow = GroFlow {
            start: 0,
            inner: empty,
            header_len: 0,
            segment_len: 0,
            total_len: 0,
            flags: 0,
            partial: true,
            packets: 0,
            parts: [(0, 0); MAX_SEGMENTS - 1],
        };
        let order = [0, 1, 2, 3, 4, 5, 6, 7];
        let format = VnetFormat::Basic;
        Self { flows: [flow; MAX_FLOWS], order, open_count: 0, merge_udp, format }
    }

    /// Sets the header of the writes.
    #[inline]
    pub fn set_format(&mut self, format: VnetFormat) {
        self.format = format;
    }

    /// Sets whether UDP datagrams are merged.
    pub fn set_merge_udp(&mut self, merge: bool) {
        self.merge_udp = merge;
    }

    /// Adds the packet at `start` of `buf`, parsed there as `inner`. `partial`: its L4 checksum is
    /// partial. `sink` receives the packets that are flushed.
    #[inline]
    pub fn push_packet(
        &mut self,
        buf: &mut [u8],
        start: usize,
        inner: &InnerHeaders,
        partial: bool,
        sink: &mut impl FnMut(&TunWrite<'_>),
    ) {
        if inner.l4 == L4Header::Opaque {
            // Its flow is unknown, so it must not overtake any.
            self.flush_all(buf, sink);
            return emit_single(buf, start, inner, partial, self.format, sink);
        }
        // The newest flow first: the next packet of a bulk flow most likely belongs to it.
        for place in (0..self.open_count).rev() {
            let slot = usize::from(self.order[place]);
            match self.flows[slot].merge_decision(buf, start, inner, partial) {
                MergeDecision::OtherFlow => {}
                MergeDecision::NotMergeable => {
                    self.close_flow(place, buf, sink);
                    break;
                }
                MergeDecision::Append => {
                    if self.flows[slot].append_packet(buf, start, inner) {
                        self.close_flow(place, buf, sink);
                    }
                    return;
                }
            }
        }
        if !self.can_start_flow(buf, start, inner, partial) {
            return emit_single(buf, start, inner, partial, self.format, sink);
        }
        if self.open_count == MAX_FLOWS {
            self.close_flow(0, buf, sink);
        }
        let slot = usize::from(self.order[self.open_count]);
        self.flows[slot].start_flow(start, inner, partial);
        self.open_count += 1;
    }

    /// Writes everything that is open, oldest flow first.
    #[inline]
    pub fn flush_all(&mut self, buf: &mut [u8], sink: &mut impl FnMut(&TunWrite<'_>)) {
        for place in 0..self.open_count {
            self.flows[usize::from(self.order[place])].emit_merged(buf, self.format, sink);
        }
        self.open_count = 0;
    }

    fn close_flow(&mut self, place: usize, buf: &mut [u8], sink: &mut impl FnMut(&TunWrite<'_>)) {
        self.flows[usize::from(self.order[place])].emit_merged(buf, self.format, sink);
        self.order[place..self.open_count].rotate_left(1);
        self.open_count -= 1;
    }

    /// Returns whether others may be appended to this packet.
    #[inline]
    fn can_start_flow(
        &self,
        buf: &[u8],
        start: usize,
        inner: &InnerHeaders,
        partial: bool,
    ) -> bool {
        let payload = inner.len - inner.header_len();
        if payload == 0 || !inner.is_bare() {
            return false;
        }
        let l4 = start + inner.l4_offset;
        match inner.l4 {
            // ACK alone: after PSH or FIN nothing may be appended.
            L4Header::Tcp { .. } => {
                let others = TCP_FIN | TCP_SYN | TCP_RST | TCP_PSH | TCP_URG | TCP_CWR;
                buf[l4 + TCP_FLAGS_OFFSET] & (others | TCP_ACK) == TCP_ACK
            }
            L4Header::Udp => {
                // A datagram without a checksum would be restored with one.
                self.merge_udp
                    && read_be16(buf, l4 + 4) == Some((UDP_HEADER_LEN + payload) as u16)
                    && (partial || read_be16(buf, l4 + UDP_CHECKSUM_OFFSET) != Some(0))
            }
            L4Header::Opaque => false,
        }
    }
}

impl GroFlow {
    fn start_flow(&mut self, start: usize, inner: &InnerHeaders, partial: bool) {
        self.start = start;
        self.inner = *inner;
        self.header_len = inner.header_len();
        self.segment_len = inner.len - self.header_len;
        self.total_len = inner.len;
        self.flags = 0;
        self.partial = partial;
        self.packets = 1;
    }

    /// Decides whether the packet at `start` is merged into this flow.
    #[inline]
    fn merge_decision(
        &self,
        buf: &[u8],
        start: usize,
        inner: &InnerHeaders,
        partial: bool,
    ) -> MergeDecision {
        let (head, new) = (&buf[self.start..], &buf[start..]);
        let l4 = self.inner.l4_offset;
        // With IP options the ports are at another offset, but the flow may be the same.
        let ports = |packet: &[u8], at: usize| read_be32(packet, at);
        if inner.version != self.inner.version
            || inner.src != self.inner.src
            || inner.dst != self.inner.dst
            || std::mem::discriminant(&inner.l4) != std::mem::discriminant(&self.inner.l4)
            || ports(head, l4) != ports(new, inner.l4_offset)
        {
            return MergeDecision::OtherFlow;
        }
        let payload = inner.len - inner.header_len();
        let same = partial == self.partial
            && inner.l4 == self.inner.l4
            && inner.l4_offset == l4
            && (1..=self.segment_len).contains(&payload)
            && self.total_len + payload <= MAX_PACKET_LEN
            && self.same_ip(head, new)
            && match inner.l4 {
                L4Header::Tcp { header_len: header } => {
                    self.same_tcp(&head[l4..], &new[l4..], header)
                }
                L4Header::Udp => read_be16(new, l4 + 4) == Some((UDP_HEADER_LEN + payload) as u16),
                L4Header::Opaque => false,
            }
            && (partial || self.has_right_checksums(head, new, inner));
        if same { MergeDecision::Append } else { MergeDecision::NotMergeable }
    }

    /// Verifies the complete checksum of the packet `new`, and of the flow's first one before the
    /// second is merged with it.
    fn has_right_checksums(&self, head: &[u8], new: &[u8], inner: &InnerHeaders) -> bool {
        (self.packets > 1 || checksum::is_complete_checksum_right(head, &self.inner))
            && checksum::is_complete_checksum_right(new, inner)
    }

    /// TOS, TTL, DF; or traffic class, flow label, hop limit.
    #[inline]
    fn same_ip(&self, head: &[u8], new: &[u8]) -> bool {
        match self.inner.version {
            IpVersion::V4 => {
                // Without DF the identifications must be those a segmentation would give.
                let in_order = head[6] & IPV4_DONT_FRAGMENT != 0
                    || read_be16(head, 4).map(|id| id.wrapping_add(self.packets as u16))
                        == read_be16(new, 4);
                head[..2] == new[..2] && head[6..9] == new[6..9] && in_order
            }
            IpVersion::V6 => head[..4] == new[..4] && head[7] == new[7],
        }
    }

    /// Contiguous; same acknowledgement, flags, window, urgent pointer and options.
    #[inline]
    fn same_tcp(&self, head: &[u8], new: &[u8], header: usize) -> bool {
        let merged = (self.total_len - self.header_len) as u32;
        let flags = new[TCP_FLAGS_OFFSET] & !(TCP_FIN | TCP_PSH);
        read_be32(head, 4).map(|sequence| sequence.wrapping_add(merged)) == read_be32(new, 4)
            && head[8..13] == new[8..13]
            && head[TCP_FLAGS_OFFSET] == flags
            && head[14..16] == new[14..16]
            && head[18..header] == new[18..header]
    }

    /// Adds a packet that [`merge_decision`](Self::merge_decision). Returns whether the group is
    /// complete.
    #[inline]
    fn append_packet(&mut self, buf: &[u8], start: usize, inner: &InnerHeaders) -> bool {
        let payload = inner.len - self.header_len;
        self.parts[self.packets - 1] = ((start + self.header_len) as u32, payload as u32);
        self.packets += 1;
        self.total_len += payload;
        if let L4Header::Tcp { .. } = inner.l4 {
            self.flags = buf[start + inner.l4_offset + TCP_FLAGS_OFFSET] & (TCP_FIN | TCP_PSH);
        }
        payload < self.segment_len || self.flags != 0 || self.packets == MAX_SEGMENTS
    }

    fn emit_merged(
        &self,
        buf: &mut [u8],
        format: VnetFormat,
        sink: &mut impl FnMut(&TunWrite<'_>),
    ) {
        if self.packets == 1 {
            return emit_single(buf, self.start, &self.inner, self.partial, format, sink);
        }
        let inner = InnerHeaders { len: self.total_len, ..self.inner };
        let head = &mut buf[self.start..self.start + self.inner.len];
        let csum_offset = self.patch_headers(head, &inner);
        let gso_type = match (inner.l4, inner.version) {
            (L4Header::Udp, _) => GSO_UDP_L4,
            (_, IpVersion::V4) => GSO_TCPV4,
            (_, IpVersion::V6) => GSO_TCPV6,
        };
        let hdr = VnetHdr {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: self.header_len as u16,
            gso_size: self.segment_len as u16,
            csum_start: inner.l4_offset as u16,
            csum_offset: csum_offset as u16,
            ..VnetHdr::default()
        };
        let encoded = hdr.encode();
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
        slices[0] = IoSlice::new(&encoded[..format.header_len()]);
        slices[1] = IoSlice::new(&buf[self.start..self.start + self.inner.len]);
        for (slice, (at, len)) in slices[2..=self.packets].iter_mut().zip(self.parts) {
            *slice = IoSlice::new(&buf[at as usize..(at + len) as usize]);
        }
        let slices = &slices[..=self.packets];
        sink(&TunWrite { hdr, packets: self.packets, bytes: self.total_len, slices });
    }

    /// Makes the first packet's headers those of the merged packet.
    fn patch_headers(&self, head: &mut [u8], inner: &InnerHeaders) -> usize {
        match inner.version {
            IpVersion::V4 => {
                head[2..4].copy_from_slice(&(inner.len as u16).to_be_bytes());
                checksum::set_ipv4_checksum(&mut head[..inner.l4_offset]);
            }
            IpVersion::V6 => {
                head[4..6].copy_from_slice(&(inner.l4_len() as u16).to_be_bytes());
            }
        }
        match inner.l4 {
            L4Header::Udp => {
                let len = (inner.l4_len() as u16).to_be_bytes();
                head[inner.l4_offset + 4..inner.l4_offset + 6].copy_from_slice(&len);
            }
            _ => head[inner.l4_offset + TCP_FLAGS_OFFSET] |= self.flags,
        }
        checksum::set_partial_checksum(head, inner).unwrap_or_default()
    }
}

/// Header of a packet that is not merged; the kernel completes a partial checksum.
/// `packet` holds its headers at least.
pub fn passthrough_header(packet: &mut [u8], inner: &InnerHeaders, partial: bool) -> VnetHdr {
    let offset = if partial { checksum::set_partial_checksum(packet, inner) } else { None };
    offset.map_or_else(VnetHdr::default, |offset| VnetHdr {
        flags: NEEDS_CSUM,
        gso_type: GSO_NONE,
        csum_start: inner.l4_offset as u16,
        csum_offset: offset as u16,
        ..VnetHdr::default()
    })
}

/// Emits one packet unchanged.
fn emit_single(
    buf: &mut [u8],
    start: usize,
    inner: &InnerHeaders,
    partial: bool,
    format: VnetFormat,
    sink: &mut impl FnMut(&TunWrite<'_>),
) {
    let packet = &mut buf[start..start + inner.len];
    let hdr = passthrough_header(packet, inner, partial);
    let encoded = hdr.encode();
    let slices = &[IoSlice::new(&encoded[..format.header_len()]), IoSlice::new(packet)];
    sink(&TunWrite { hdr, packets: 1, bytes: inner.len, slices });
}
