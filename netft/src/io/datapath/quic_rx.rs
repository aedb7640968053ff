//! Received QUIC packets: frames on routes over QUIC out of their connection, and packets of the
//! control session on to QUIC's endpoint.

use bytes::Bytes;
use netft_proto::{
    packet::handshake_limit::HandshakeLimiter,
    wire::{DropReason, header},
};

use crate::io::{
    clock,
    datapath::{report::FromWorker, rx_batch::RxBatch},
    quic::QuicDatagram,
};

impl RxBatch<'_, '_> {
    /// Processes one receive on a node where some route's transport is QUIC.
    pub(super) fn process_with_quic(
        &mut self,
        input: &mut [u8],
        segment: usize,
        frames: &mut Vec<Bytes>,
    ) {
        let fib = self.context.fib;
        let route = self.source.look_up_route(fib).map(|found| found.route);
        let transport = route.and_then(|route| Some((route, fib.transports.get(&route)?)));
        let Some((route, transport)) = transport else {
            return self.process_datagrams(input, segment);
        };
        if input.is_empty() {
            return self.count_drop(DropReason::Malformed);
        }
        // Frames in plain UDP stand between QUIC packets while the peer changes to QUIC.
        let mut start = 0;
        while start < input.len() {
            let end = same_kind_end(input, start, segment, true);
            let packets = input[start..end].chunks(segment);
            let mut packets = packets.filter(|packet| self.admit_quic(packet)).peekable();
            let mut others = Vec::new();
            // A flood of handshake packets does not take the connection's lock.
            if packets.peek().is_some() {
                transport.receive_packets(packets, frames, |packet| others.push(packet));
            }
            others.into_iter().for_each(|packet| self.pass_quic_on(packet));
            if transport.take_changed() {
                let connected = transport.is_connected();
                tracing::debug!(%route, connected, "QUIC transport changed");
                let message = FromWorker::ConnectionChanged(route);
                self.context.driver_queue.send(message, self.context.counters);
            }
            self.open_quic_frames(&mut input[start..end], frames);
            start = same_kind_end(input, end, segment, false);
            if end < start {
                self.process_datagrams(&mut input[end..start], segment);
            }
        }
    }

    /// Processes the frames of QUIC packets in the place of those packets, which were larger.
    fn open_quic_frames(&mut self, input: &mut [u8], frames: &mut Vec<Bytes>) {
        let mut at = 0;
        for frame in frames.drain(..) {
            if at + frame.len() > input.len() {
                self.flush_opened(input);
                at = 0;
            }
            let Some(place) = input.get_mut(at..at + frame.len()) else {
                self.count_drop(DropReason::TooBig);
                continue;
            };
            place.copy_from_slice(&frame);
            let place = (at, at + frame.len(), frame.len());
            if let Err(reason) = self.process_frame(input, place) {
                self.count_drop(reason);
            }
            at += frame.len();
        }
        self.flush_opened(input);
    }

    /// Processes a QUIC packet on a route without a transport of its own.
    pub(super) fn process_quic(&mut self, bytes: &[u8]) {
        if self.admit_quic(bytes) {
            self.pass_quic_on(bytes);
        }
    }

    /// Returns whether a QUIC packet is within the handshake limit of its route, and counts it if
    /// not.
    #[inline]
    fn admit_quic(&mut self, packet: &[u8]) -> bool {
        if !HandshakeLimiter::is_limited(packet) {
            return true;
        }
        let fib = self.context.fib;
        let route = self.source.look_up_route(fib).map(|found| found.route);
        let first_flight = !fib.cid_tags.is_some_and(|tags| tags.issued_id_of(packet));
        let admitted = self.handshake_limiter.try_take(route, first_flight, clock::now());
        if !admitted {
            self.count_drop(DropReason::HandshakeRate);
        }
        admitted
    }

    /// Passes a QUIC packet on to the endpoint of the control sessions.
    fn pass_quic_on(&mut self, bytes: &[u8]) {
        let fib = self.context.fib;
        match self.source.look_up_route(fib).map(|found| found.route) {
            // For a route's own connection, which does not exist here: an Initial, which the peer
            // repeats and whose sender the handshake proves; or a packet for a connection of this
            // node's former process, which the driver then replaces.
            Some(route)
                if fib.cid_tags.is_some_and(|tags| tags.transport.matches_packet(bytes)) =>
            {
                let message = FromWorker::ConnectionRequested(route);
                self.context.driver_queue.send(message, self.context.counters);
                return;
            }
            None if !fib.expects_unverified_sources() => {
                return self.count_drop(DropReason::UnknownSource);
            }
            _ => {}
        }
        let (socket, from) = (self.source.socket, self.source.from);
        // The permit first: nothing is copied for a full queue.
        match self.context.io.to_quic.try_reserve() {
            Ok(permit) => permit.send(QuicDatagram { socket, from, bytes: bytes.to_vec() }),
            Err(_) => self.count_drop(DropReason::QueueFull),
        }
    }
}

/// The end of the datagrams from `start` on that are all QUIC, or all not.
fn same_kind_end(input: &[u8], start: usize, segment: usize, quic: bool) -> usize {
    let mut end = start;
    while input.get(end).is_some_and(|first| header::is_quic(*first) == quic) {
        end += segment;
    }
    end.min(input.len())
}
