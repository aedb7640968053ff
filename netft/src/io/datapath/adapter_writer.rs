//! Delivery of a peer's inner packets: addresses checked, flows coalesced (GRO), one write to the
//! adapter for each result.

use std::os::fd::{AsFd, BorrowedFd};

use netft_proto::{
    ids::virtual_addrs::VirtualAddrs,
    packet::{
        checksum,
        gro::{GroCoalescer, TunWrite},
        ip::InnerHeaders,
        multicast,
        virtio_net::{GSO_UDP_L4, VnetFormat},
    },
    session::Session,
    wire::{DropReason, header::PADDING_BYTE},
};
use rustix::io::Errno;

use crate::io::{counters::Counters, datapath::rx_context::RxContext, fib::Fib, socket::TunQueue};

/// Writes to the adapter.
pub(super) struct AdapterWriter<'a> {
    queue: Option<BorrowedFd<'a>>,
    counters: &'a Counters,
    /// The device is gone.
    pub(super) queue_dead: bool,
    /// The kernel does not accept merged UDP datagrams (before Linux 6.2).
    pub(super) rejects_udp_gso: bool,
}

/// Checks inner packets and hands them to the adapter.
pub(super) struct InnerDelivery<'a> {
    fib: &'a Fib,
    counters: &'a Counters,
    /// `None` for an adapter without offload.
    coalescer: Option<&'a mut GroCoalescer>,
    /// The header of a write.
    pub(super) format: VnetFormat,
    pub(super) writer: AdapterWriter<'a>,
}

impl<'a> InnerDelivery<'a> {
    /// Delivery to the queue of `context`. Without a queue every packet is dropped.
    pub(super) fn new(context: &'a RxContext<'_>, coalescer: &'a mut GroCoalescer) -> Self {
        let (fib, counters) = (context.fib, context.counters);
        let format = context.queue.map_or(VnetFormat::Basic, |queue| queue.format);
        coalescer.set_format(format);
        let writer = AdapterWriter::new(context.queue, counters);
        let coalescer = format.has_offload().then_some(coalescer);
        Self { fib, counters, coalescer, format, writer }
    }

    /// Delivers the inner packets of one frame, `input[start..end]`: up to its end, or to a zero
    /// byte, which no packet begins with. They stay in `input` until [`flush`](Self::flush).
    #[inline]
    pub(super) fn deliver_packets(
        &mut self,
        input: &mut [u8],
        (mut start, end): (usize, usize),
        partial: bool,
        peer: VirtualAddrs,
    ) -> Result<(), DropReason> {
        while start < end && input[start] != PADDING_BYTE {
            let inner = InnerHeaders::parse(&input[start..end])?;
            if !peer.contains(inner.src) {
                self.counters.count_drop(DropReason::InnerSource);
            } else if !self.is_for_us(&inner, &input[start..]) {
                self.counters.count_drop(DropReason::InnerDestination);
            } else if let Some(coalescer) = self.coalescer.as_deref_mut() {
                let mut sink = |write: &TunWrite<'_>| self.writer.write_merged(write);
                coalescer.push_packet(input, start, &inner, partial, &mut sink);
            } else {
                let packet = &mut input[start..start + inner.len];
                if partial {
                    checksum::complete_checksum(packet, &inner);
                }
                self.writer.write_plain(packet);
            }
            start += inner.len;
        }
        Ok(())
    }

    /// Writes the coalesced packets that still stand in `input`.
    #[inline]
    pub(super) fn flush(&mut self, input: &mut [u8]) {
        if let Some(coalescer) = self.coalescer.as_deref_mut() {
            coalescer.flush_all(input, &mut |write| self.writer.write_merged(write));
        }
    }

    /// Delivers one packet to an adapter without offload.
    pub(super) fn deliver_plain(
        &mut self,
        packet: &mut [u8],
        partial: bool,
        session: &Session,
    ) -> Result<(), DropReason> {
        let inner = self.check_packet(packet, packet.len(), session)?;
        if partial {
            checksum::complete_checksum(packet, &inner);
        }
        self.writer.write_plain(packet);
        Ok(())
    }

    /// Checks that a packet of `total` bytes, which begins with `head`, is from the session's peer
    /// and for this node.
    pub(super) fn check_packet(
        &self,
        head: &[u8],
        total: usize,
        session: &Session,
    ) -> Result<InnerHeaders, DropReason> {
        let inner = InnerHeaders::parse_head(head, total)?;
        if inner.len != total {
            return Err(DropReason::InnerMalformed);
        }
        if !session.peer_addrs().contains(inner.src) {
            return Err(DropReason::InnerSource);
        }
        if !self.is_for_us(&inner, head) {
            return Err(DropReason::InnerDestination);
        }
        Ok(inner)
    }

    /// Returns whether a packet that begins with `head` is for this node: unicast to one of its
    /// addresses, or multicast or broadcast while the config accepts those.
    #[inline]
    fn is_for_us(&self, inner: &InnerHeaders, head: &[u8]) -> bool {
        self.fib.local_addrs.is_some_and(|local| local.contains(inner.dst))
            || self.is_for_all(inner, head)
    }

    #[cold]
    fn is_for_all(&self, inner: &InnerHeaders, head: &[u8]) -> bool {
        self.fib.multicast_limit.is_some() && multicast::is_forwarded_to_peers(inner, head)
    }
}

impl<'a> AdapterWriter<'a> {
    fn new(queue: Option<&'a TunQueue>, counters: &'a Counters) -> Self {
        let queue = queue.map(|queue| queue.fd.as_fd());
        Self { queue, counters, queue_dead: false, rejects_udp_gso: false }
    }

    /// Writes a packet with its `virtio_net_hdr`, possibly coalesced from several.
    #[inline]
    pub(super) fn write_merged(&mut self, write: &TunWrite<'_>) {
        let result = self.queue.map(|queue| rustix::io::writev(queue, write.slices));
        if result == Some(Err(Errno::INVAL)) && write.hdr.gso_type == GSO_UDP_L4 {
            self.rejects_udp_gso = true;
        }
        self.count_write(result, write.packets, write.bytes);
    }

    /// Writes one packet without a header.
    #[inline]
    fn write_plain(&mut self, packet: &[u8]) {
        let result = self.queue.map(|queue| rustix::io::write(queue, packet));
        self.count_write(result, 1, packet.len());
    }

    #[inline]
    fn count_write(
        &mut self,
        result: Option<rustix::io::Result<usize>>,
        packets: usize,
        bytes: usize,
    ) {
        match result {
            Some(Ok(_)) => {
                Counters::add(&self.counters.adapter_writes, 1);
                Counters::add(&self.counters.rx_bytes, bytes as u64);
                return;
            }
            Some(Err(Errno::BADFD | Errno::BADF)) => self.queue_dead = true,
            // A device that is down fails with EIO; the driver learns that from netlink. `None`: no
            // queue yet.
            Some(Err(_)) | None => {}
        }
        self.counters.count_drops(DropReason::AdapterFailed, packets as u64);
    }
}
