//! Merges consecutive packets of a flow into one write to the adapter: receive offload in user
//! space.
//!
//! The rules are those of the kernel's GRO: nothing a receiver could tell apart is merged, and the
//! order within a flow never changes. Only packets with an unfinished checksum are merged (the
//! seal vouches for them); a checksum that must stay verifiable end to end is passed on untouched.
//! Everything written to the adapter is derived from the headers found here, never from a hint of
//! the sender. Bounds: [`MAX_GROUPS`] flows at a time, [`MAX_SEGMENTS`] packets and 65,535 bytes a
//! write; packets stay in the caller's buffer.

use std::io::IoSlice;

use crate::packet::{
    checksum,
    ip::{Inner, L4, UDP_LEN, Version, be16, be32},
    virtio_net::{GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHdr},
};

/// The most flows merged side by side; a further one ends the oldest.
pub const MAX_GROUPS: usize = 8;
/// The most packets merged into one.
pub const MAX_SEGMENTS: usize = 64;

/// The largest packet an IP length field describes.
const MAX_PACKET: usize = 65_535;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;
/// Where the flags stand in a TCP header.
const TCP_FLAGS: usize = 13;
/// The "don't fragment" bit in byte 6 of an IPv4 header.
const DONT_FRAGMENT: u8 = 0x40;

/// One write to the adapter.
#[derive(Debug)]
pub struct Write<'a> {
    /// What the first slice holds.
    pub hdr: VnetHdr,
    /// How many packets were merged.
    pub packets: usize,
    /// Bytes of the merged packet.
    pub bytes: usize,
    /// The encoded `hdr`, then the merged packet in order: one write to an offloading queue.
    pub slices: &'a [IoSlice<'a>],
}

/// The open flows of one receive batch. Every packet is a range of one buffer, which the caller
/// passes to every call and must not change before [`flush`](Self::flush).
#[derive(Debug)]
pub struct Coalescer {
    groups: [Group; MAX_GROUPS],
    /// Places in `groups` in use, oldest first.
    order: [u8; MAX_GROUPS],
    open: usize,
    merge_udp: bool,
}

/// A flow's packets so far.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// Where the first packet stands.
    start: usize,
    inner: Inner,
    header: usize,
    /// Payload bytes of the first packet, hence of all but the last.
    segment: usize,
    /// Bytes of the merged packet.
    total: usize,
    /// FIN and PSH of the last packet.
    flags: u8,
    packets: usize,
    /// Payloads behind the first packet: start and length.
    parts: [(u32, u32); MAX_SEGMENTS - 1],
}

/// What a packet is to a group of its own flow.
enum Fit {
    /// Another flow.
    Stranger,
    /// The same flow, but it must not be merged.
    Conflict,
    /// The next piece.
    Next,
}

impl Coalescer {
    /// Nothing open. `merge_udp`: whether the adapter takes merged UDP datagrams (Linux 6.2).
    pub fn new(merge_udp: bool) -> Self {
        let empty = Inner {
            version: Version::V4,
            len: 0,
            src: [0; 4].into(),
            dst: [0; 4].into(),
            l4: L4::Opaque,
            l4_offset: 0,
        };
        let group = Group {
            start: 0,
            inner: empty,
            header: 0,
            segment: 0,
            total: 0,
            flags: 0,
            packets: 0,
            parts: [(0, 0); MAX_SEGMENTS - 1],
        };
        let order = [0, 1, 2, 3, 4, 5, 6, 7];
        Self { groups: [group; MAX_GROUPS], order, open: 0, merge_udp }
    }

    /// Whether UDP datagrams are merged.
    pub fn set_merge_udp(&mut self, merge: bool) {
        self.merge_udp = merge;
    }

    /// Takes the packet at `start` of `buf`, parsed there as `inner`. `partial`: its L4 checksum
    /// is unfinished. `sink` gets what became complete.
    #[inline]
    pub fn push(
        &mut self,
        buf: &mut [u8],
        start: usize,
        inner: &Inner,
        partial: bool,
        sink: &mut impl FnMut(&Write<'_>),
    ) {
        if inner.l4 == L4::Opaque {
            // Its flow cannot be told, so it must not overtake any.
            self.flush(buf, sink);
            return single(buf, start, inner, partial, sink);
        }
        // The newest group first: that is where the next packet of a bulk flow belongs.
        for place in (0..self.open).rev() {
            let slot = usize::from(self.order[place]);
            match self.groups[slot].fit(buf, start, inner, partial) {
                Fit::Stranger => {}
                Fit::Conflict => {
                    self.close(place, buf, sink);
                    break;
                }
                Fit::Next => {
                    if self.groups[slot].append(buf, start, inner) {
                        self.close(place, buf, sink);
                    }
                    return;
                }
            }
        }
        if !partial || !self.may_start(buf, start, inner) {
            return single(buf, start, inner, partial, sink);
        }
        if self.open == MAX_GROUPS {
            self.close(0, buf, sink);
        }
        let slot = usize::from(self.order[self.open]);
        self.groups[slot].start(start, inner);
        self.open += 1;
    }

    /// Writes everything that is open, oldest flow first.
    #[inline]
    pub fn flush(&mut self, buf: &mut [u8], sink: &mut impl FnMut(&Write<'_>)) {
        for place in 0..self.open {
            self.groups[usize::from(self.order[place])].emit(buf, sink);
        }
        self.open = 0;
    }

    fn close(&mut self, place: usize, buf: &mut [u8], sink: &mut impl FnMut(&Write<'_>)) {
        self.groups[usize::from(self.order[place])].emit(buf, sink);
        self.order[place..self.open].rotate_left(1);
        self.open -= 1;
    }

    /// Whether others may be appended to this packet.
    #[inline]
    fn may_start(&self, buf: &[u8], start: usize, inner: &Inner) -> bool {
        let payload = inner.len - inner.header_len();
        if payload == 0 || !inner.is_bare() {
            return false;
        }
        let l4 = start + inner.l4_offset;
        match inner.l4 {
            // ACK alone: what ends a segment (PSH, FIN) leaves nothing to append to.
            L4::Tcp { .. } => {
                let others = FIN | SYN | RST | PSH | URG | CWR;
                buf[l4 + TCP_FLAGS] & (others | ACK) == ACK
            }
            L4::Udp => self.merge_udp && be16(buf, l4 + 4) == Some((UDP_LEN + payload) as u16),
            L4::Opaque => false,
        }
    }
}

impl Group {
    fn start(&mut self, start: usize, inner: &Inner) {
        self.start = start;
        self.inner = *inner;
        self.header = inner.header_len();
        self.segment = inner.len - self.header;
        self.total = inner.len;
        self.flags = 0;
        self.packets = 1;
    }

    /// Where the packet at `start` belongs.
    #[inline]
    fn fit(&self, buf: &[u8], start: usize, inner: &Inner, partial: bool) -> Fit {
        let (head, new) = (&buf[self.start..], &buf[start..]);
        let l4 = self.inner.l4_offset;
        // A packet with options has its ports elsewhere, and may be of this flow all the same.
        let ports = |packet: &[u8], at: usize| be32(packet, at);
        if inner.version != self.inner.version
            || inner.src != self.inner.src
            || inner.dst != self.inner.dst
            || std::mem::discriminant(&inner.l4) != std::mem::discriminant(&self.inner.l4)
            || ports(head, l4) != ports(new, inner.l4_offset)
        {
            return Fit::Stranger;
        }
        let payload = inner.len - inner.header_len();
        let same = partial
            && inner.l4 == self.inner.l4
            && inner.l4_offset == l4
            && (1..=self.segment).contains(&payload)
            && self.total + payload <= MAX_PACKET
            && self.same_ip(head, new)
            && match inner.l4 {
                L4::Tcp { header } => self.same_tcp(&head[l4..], &new[l4..], header),
                L4::Udp => be16(new, l4 + 4) == Some((UDP_LEN + payload) as u16),
                L4::Opaque => false,
            };
        if same { Fit::Next } else { Fit::Conflict }
    }

    /// TOS, TTL, DF; or traffic class, flow label, hop limit.
    #[inline]
    fn same_ip(&self, head: &[u8], new: &[u8]) -> bool {
        match self.inner.version {
            Version::V4 => {
                // Without DF the identifications must be those a segmentation would give.
                let in_order = head[6] & DONT_FRAGMENT != 0
                    || be16(head, 4).map(|id| id.wrapping_add(self.packets as u16)) == be16(new, 4);
                head[..2] == new[..2] && head[6..9] == new[6..9] && in_order
            }
            Version::V6 => head[..4] == new[..4] && head[7] == new[7],
        }
    }

    /// Contiguous; same acknowledgement, flags, window, urgent pointer and options.
    #[inline]
    fn same_tcp(&self, head: &[u8], new: &[u8], header: usize) -> bool {
        let merged = (self.total - self.header) as u32;
        let flags = new[TCP_FLAGS] & !(FIN | PSH);
        be32(head, 4).map(|sequence| sequence.wrapping_add(merged)) == be32(new, 4)
            && head[8..13] == new[8..13]
            && head[TCP_FLAGS] == flags
            && head[14..16] == new[14..16]
            && head[18..header] == new[18..header]
    }

    /// Adds a packet that [`fit`](Self::fit). Returns whether the group is complete.
    #[inline]
    fn append(&mut self, buf: &[u8], start: usize, inner: &Inner) -> bool {
        let payload = inner.len - self.header;
        self.parts[self.packets - 1] = ((start + self.header) as u32, payload as u32);
        self.packets += 1;
        self.total += payload;
        if let L4::Tcp { .. } = inner.l4 {
            self.flags = buf[start + inner.l4_offset + TCP_FLAGS] & (FIN | PSH);
        }
        payload < self.segment || self.flags != 0 || self.packets == MAX_SEGMENTS
    }

    fn emit(&self, buf: &mut [u8], sink: &mut impl FnMut(&Write<'_>)) {
        if self.packets == 1 {
            return single(buf, self.start, &self.inner, true, sink);
        }
        let inner = Inner { len: self.total, ..self.inner };
        let head = &mut buf[self.start..self.start + self.inner.len];
        let csum_offset = self.patch(head, &inner);
        let gso_type = match (inner.l4, inner.version) {
            (L4::Udp, _) => GSO_UDP_L4,
            (_, Version::V4) => GSO_TCPV4,
            (_, Version::V6) => GSO_TCPV6,
        };
        let hdr = VnetHdr {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: self.header as u16,
            gso_size: self.segment as u16,
            csum_start: inner.l4_offset as u16,
            csum_offset: csum_offset as u16,
        };
        let encoded = hdr.encode();
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
        slices[0] = IoSlice::new(&encoded);
        slices[1] = IoSlice::new(&buf[self.start..self.start + self.inner.len]);
        for (slice, (at, len)) in slices[2..=self.packets].iter_mut().zip(self.parts) {
            *slice = IoSlice::new(&buf[at as usize..(at + len) as usize]);
        }
        let slices = &slices[..=self.packets];
        sink(&Write { hdr, packets: self.packets, bytes: self.total, slices });
    }

    /// Makes the first packet's headers those of the merged packet.
    fn patch(&self, head: &mut [u8], inner: &Inner) -> usize {
        match inner.version {
            Version::V4 => {
                head[2..4].copy_from_slice(&(inner.len as u16).to_be_bytes());
                checksum::set_ipv4(&mut head[..inner.l4_offset]);
            }
            Version::V6 => {
                head[4..6].copy_from_slice(&(inner.l4_len() as u16).to_be_bytes());
            }
        }
        match inner.l4 {
            L4::Udp => {
                let len = (inner.l4_len() as u16).to_be_bytes();
                head[inner.l4_offset + 4..inner.l4_offset + 6].copy_from_slice(&len);
            }
            _ => head[inner.l4_offset + TCP_FLAGS] |= self.flags,
        }
        checksum::unfinish(head, inner).unwrap_or_default()
    }
}

/// The header for a packet that goes on as it came; an unfinished checksum is left to the kernel.
/// `packet` holds its headers at least.
pub fn as_it_came(packet: &mut [u8], inner: &Inner, partial: bool) -> VnetHdr {
    let unfinished = if partial { checksum::unfinish(packet, inner) } else { None };
    unfinished.map_or_else(VnetHdr::default, |offset| VnetHdr {
        flags: NEEDS_CSUM,
        gso_type: GSO_NONE,
        csum_start: inner.l4_offset as u16,
        csum_offset: offset as u16,
        ..VnetHdr::default()
    })
}

/// Passes one packet on as it came.
fn single(
    buf: &mut [u8],
    start: usize,
    inner: &Inner,
    partial: bool,
    sink: &mut impl FnMut(&Write<'_>),
) {
    let packet = &mut buf[start..start + inner.len];
    let hdr = as_it_came(packet, inner, partial);
    let encoded = hdr.encode();
    let slices = &[IoSlice::new(&encoded), IoSlice::new(packet)];
    sink(&Write { hdr, packets: 1, bytes: inner.len, slices });
}
