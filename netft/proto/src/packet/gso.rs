//! Cuts a super-packet of the adapter into packets a route carries: segmentation in user space.
//!
//! Every packet that comes out is whole (own IP and L4 header), so the loss of one datagram costs
//! one segment. The L4 checksum of the segments stays unfinished; the frame says so.

use crate::{
    packet::{
        checksum,
        checksum::{Sum, TCP_CHECKSUM, UDP_CHECKSUM},
        ip::{Inner, L4, TCP, UDP, Version, be16, be32},
        virtio_net::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHdr},
    },
    wire::DropReason,
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;
/// Where the flags stand in a TCP header.
const TCP_FLAGS: usize = 13;

/// How the packets of one super-packet are made.
#[derive(Clone, Copy, Debug)]
enum How {
    /// One packet, copied as it is.
    Copy,
    /// One packet whose checksum is finished on the way: nobody behind could.
    Finish { start: usize, offset: usize },
    /// TCP segments.
    Tcp { sequence: u32 },
    /// UDP datagrams.
    Udp,
}

/// A super-packet, ready to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Split<'a> {
    packet: &'a [u8],
    version: Version,
    l4_offset: usize,
    /// Bytes of IP and L4 header, repeated in every segment.
    header: usize,
    /// Payload bytes of every segment but the last.
    segment: usize,
    count: usize,
    partial: bool,
    how: How,
    /// The sum of what no segment changes in the IPv4 header.
    ip_sum: Sum,
    ip_id: u16,
    /// The pseudo-header sum without the length.
    pseudo: Sum,
}

impl<'a> Split<'a> {
    /// Plans how to cut `packet`, which was parsed as `inner` and stood behind `hdr`, into packets
    /// of at most `max_packet` bytes. TCP is cut finer than the kernel asked when the route needs
    /// it: a byte stream may be cut anywhere.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] when a piece that must stay whole is larger than `max_packet`,
    /// [`DropReason::InnerMalformed`] when `hdr` does not fit the packet.
    #[inline]
    pub fn new(
        hdr: &VnetHdr,
        packet: &'a [u8],
        inner: &Inner,
        max_packet: usize,
    ) -> Result<Self, DropReason> {
        let packet = packet.get(..inner.len).ok_or(DropReason::InnerMalformed)?;
        let mut split = Self {
            packet,
            version: inner.version,
            l4_offset: inner.l4_offset,
            header: 0,
            segment: packet.len(),
            count: 1,
            partial: false,
            how: How::Copy,
            ip_sum: Sum::default(),
            ip_id: 0,
            pseudo: Sum::default(),
        };
        if hdr.gso_type == GSO_NONE {
            split.plan_single(hdr, inner, max_packet)?;
        } else {
            split.plan_super(hdr, inner, max_packet)?;
        }
        Ok(split)
    }

    /// Plans `packet` as whole packets, however large.
    ///
    /// # Errors
    /// [`DropReason::InnerMalformed`] when `hdr` does not fit the packet.
    pub fn whole(hdr: &VnetHdr, packet: &'a [u8], inner: &Inner) -> Result<Self, DropReason> {
        Self::new(hdr, packet, inner, usize::MAX)
    }

    /// How many packets come out; at least 1.
    #[inline]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether the L4 checksums of the packets are unfinished.
    #[inline]
    pub const fn partial(&self) -> bool {
        self.partial
    }

    /// Whether the packets are segments of one TCP stream.
    #[inline]
    pub const fn is_tcp(&self) -> bool {
        matches!(self.how, How::Tcp { .. })
    }

    /// The packet itself, when nothing is to be changed in it and it stays one.
    #[inline]
    pub const fn as_is(&self) -> Option<&'a [u8]> {
        if matches!(self.how, How::Copy) { Some(self.packet) } else { None }
    }

    /// Bytes of packet `i`.
    #[inline]
    pub fn len(&self, i: usize) -> usize {
        let (start, end) = self.payload(i);
        self.header + end - start
    }

    /// Whether the plan is empty: never, a super-packet is at least one packet.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes packet `i` (below [`count`](Self::count)) to the start of `out` and returns its
    /// length, [`len`](Self::len)`(i)`; 0 and nothing written when `out` is shorter.
    #[inline]
    pub fn write(&self, i: usize, out: &mut [u8]) -> usize {
        let (start, end) = self.payload(i);
        let len = self.header + end - start;
        let Some(out) = out.get_mut(..len) else { return 0 };
        let (header, payload) = out.split_at_mut(self.header);
        header.copy_from_slice(&self.packet[..self.header]);
        payload.copy_from_slice(&self.packet[start..end]);
        match self.how {
            How::Copy => {}
            How::Finish { start, offset } => checksum::finish_at(out, start, offset),
            How::Tcp { sequence } => {
                self.patch_ip(header, len, i);
                self.patch_tcp(header, len, i, sequence);
            }
            How::Udp => {
                self.patch_ip(header, len, i);
                self.patch_udp(header, len);
            }
        }
        len
    }

    /// Where the payload of packet `i` stands; the whole packet where there is no header to repeat.
    #[inline]
    fn payload(&self, i: usize) -> (usize, usize) {
        let start = (self.header + i * self.segment).min(self.packet.len());
        (start, (start + self.segment).min(self.packet.len()))
    }

    fn plan_single(
        &mut self,
        hdr: &VnetHdr,
        inner: &Inner,
        max_packet: usize,
    ) -> Result<(), DropReason> {
        let fits = self.packet.len() <= max_packet;
        if !hdr.needs_csum() {
            return if fits { Ok(()) } else { Err(DropReason::TooBig) };
        }
        if !described(hdr, inner) {
            let (start, offset) = (usize::from(hdr.csum_start), usize::from(hdr.csum_offset));
            self.how = How::Finish { start, offset };
            return if fits { Ok(()) } else { Err(DropReason::TooBig) };
        }
        self.partial = true;
        if fits {
            return Ok(());
        }
        let flags = self.packet.get(inner.l4_offset + TCP_FLAGS).copied().unwrap_or_default();
        if matches!(inner.l4, L4::Udp) || flags & (SYN | RST | URG) != 0 {
            return Err(DropReason::TooBig);
        }
        self.plan_segments(inner, usize::MAX, max_packet)
    }

    fn plan_super(
        &mut self,
        hdr: &VnetHdr,
        inner: &Inner,
        max_packet: usize,
    ) -> Result<(), DropReason> {
        let fits_type = matches!(
            (hdr.gso_type & !GSO_ECN, inner.version, inner.l4),
            (GSO_TCPV4, Version::V4, L4::Tcp { .. })
                | (GSO_TCPV6, Version::V6, L4::Tcp { .. })
                | (GSO_UDP_L4, _, L4::Udp)
        );
        if !fits_type || hdr.gso_size == 0 || !hdr.needs_csum() || !described(hdr, inner) {
            return Err(DropReason::InnerMalformed);
        }
        self.partial = true;
        self.plan_segments(inner, usize::from(hdr.gso_size), max_packet)
    }

    /// Segments of at most `gso_size` payload bytes; `max_packet` narrows TCP further.
    fn plan_segments(
        &mut self,
        inner: &Inner,
        gso_size: usize,
        max_packet: usize,
    ) -> Result<(), DropReason> {
        self.header = inner.header_len();
        let payload = self.packet.len() - self.header;
        let room = max_packet.saturating_sub(self.header);
        let protocol = if matches!(inner.l4, L4::Udp) {
            if gso_size.min(payload) > room {
                return Err(DropReason::TooBig);
            }
            self.how = How::Udp;
            self.segment = gso_size;
            UDP
        } else {
            if room == 0 {
                return Err(DropReason::TooBig);
            }
            let sequence = be32(self.packet, inner.l4_offset + 4).unwrap_or_default();
            self.how = How::Tcp { sequence };
            self.segment = gso_size.min(room);
            TCP
        };
        self.count = payload.div_ceil(self.segment).max(1);
        self.pseudo = checksum::pseudo(self.packet, self.version, protocol);
        if self.version == Version::V4 {
            // All but total length, identification and the checksum itself.
            self.ip_id = be16(self.packet, 4).unwrap_or_default();
            self.ip_sum = Sum::default()
                .bytes(&self.packet[..2])
                .bytes(&self.packet[6..10])
                .bytes(&self.packet[12..self.l4_offset]);
        }
        Ok(())
    }

    #[inline]
    fn patch_ip(&self, header: &mut [u8], len: usize, i: usize) {
        match self.version {
            Version::V4 => {
                let (len, id) = (len as u16, self.ip_id.wrapping_add(i as u16));
                header[2..4].copy_from_slice(&len.to_be_bytes());
                header[4..6].copy_from_slice(&id.to_be_bytes());
                header[10..12].copy_from_slice(&self.ip_sum.word(len).word(id).finished());
            }
            Version::V6 => {
                let behind = (len - crate::packet::ip::IPV6_LEN) as u16;
                header[4..6].copy_from_slice(&behind.to_be_bytes());
            }
        }
    }

    #[inline]
    fn patch_tcp(&self, header: &mut [u8], len: usize, i: usize, sequence: u32) {
        let tcp = &mut header[self.l4_offset..];
        let sequence = sequence.wrapping_add((i * self.segment) as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        // As the kernel's segmentation: FIN and PSH end the last one, CWR starts the first one.
        if i + 1 < self.count {
            tcp[TCP_FLAGS] &= !(FIN | PSH);
        }
        if i > 0 {
            tcp[TCP_FLAGS] &= !CWR;
        }
        let sum = self.pseudo.word((len - self.l4_offset) as u16).unfinished();
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&sum);
    }

    #[inline]
    fn patch_udp(&self, header: &mut [u8], len: usize) {
        let udp = &mut header[self.l4_offset..];
        let len = (len - self.l4_offset) as u16;
        udp[4..6].copy_from_slice(&len.to_be_bytes());
        let sum = self.pseudo.word(len).unfinished();
        udp[UDP_CHECKSUM..UDP_CHECKSUM + 2].copy_from_slice(&sum);
    }
}

/// Whether the unfinished checksum `hdr` describes is the L4 checksum found in the packet.
#[inline]
fn described(hdr: &VnetHdr, inner: &Inner) -> bool {
    let offset = match inner.l4 {
        L4::Tcp { .. } => TCP_CHECKSUM,
        L4::Udp => UDP_CHECKSUM,
        L4::Opaque => return false,
    };
    usize::from(hdr.csum_start) == inner.l4_offset && usize::from(hdr.csum_offset) == offset
}
