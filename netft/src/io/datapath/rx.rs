//! From a socket to the adapter, the driver or QUIC.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use bytes::Bytes;
use netft_proto::{
    ids::{PeerId, RouteId, virtual_addrs::VirtualAddrs},
    packet::{
        checksum,
        gro::{GroCoalescer, TunWrite},
        ip::InnerHeaders,
        virtio_net::GSO_UDP_L4,
    },
    session::{FrameOpener, Session},
    wire::{
        DropReason,
        ack::Ack,
        challenge::Challenge,
        header,
        header::{
            FLAG_FRAGMENT, FLAG_PARTIAL_CHECKSUM, FrameHeader, FrameKind, HEADER_LEN, PADDING_BYTE,
        },
        heartbeat::{Heartbeat, HeartbeatMessage},
        probe::Probe,
        relay::RelayHeader,
    },
};
use rustix::io::Errno;

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        acks::{AckSender, ReplyDestination},
        driver_queue::DriverQueue,
        fragments::FragmentRun,
        relay,
        report::{FromWorker, WorkerIo},
    },
    fib::Fib,
    quic::QuicDatagram,
    socket::{SocketId, TunQueue, UdpSocket},
    sys::{udp, udp::ReceivedBatch},
};

/// The most receives on one socket in a turn, so that the adapter gets its own.
const MAX_RECEIVES_PER_TURN: usize = 4;
/// The most entries of a socket's error queue looked at in a turn.
const MAX_ERRORS_PER_TURN: usize = 16;
/// Bytes of one receive: a whole merged batch, whatever the path MTU.
const RECEIVE_BUFFER_LEN: usize = 65_536;

/// The receiving half of a worker.
pub(super) struct RxPipeline {
    input: Box<[u8]>,
    coalescer: GroCoalescer,
    /// What the packets of one receive brought; empty between receives, kept for its memory.
    quic_frames: Vec<Bytes>,
    /// Where what leaves over a relay is sealed; empty before the first.
    relay_frame: Vec<u8>,
    /// A turn since the last [`take_drained`](Self::take_drained) may have left something in its
    /// socket.
    may_have_unread: bool,
}

/// What a worker's other parts lend to a turn.
pub(super) struct RxContext<'a> {
    pub(super) fib: &'a Fib,
    pub(super) io: &'a WorkerIo,
    pub(super) queue: Option<&'a TunQueue>,
    pub(super) counters: &'a Counters,
    pub(super) driver_queue: &'a mut DriverQueue,
    pub(super) acks: &'a mut AckSender,
}

/// One receive: a batch of datagrams of one sender.
pub(super) struct RxBatch<'a, 'l> {
    pub(super) context: &'a RxContext<'l>,
    pub(super) fib: &'l Fib,
    pub(super) writer: AdapterWriter<'a>,
    socket: SocketId,
    from: SocketAddr,
    /// The route of `socket` and `from`, looked up at most once.
    route: Option<Option<(PeerId, RouteId)>>,
    /// The session of the last frame.
    pub(super) session: Option<(u32, &'l Arc<Session>, FrameOpener<'l>)>,
    /// The slices of one packet so far.
    pub(super) fragment_run: Option<FragmentRun>,
    frame_count: u64,
    /// One was a heartbeat.
    has_heartbeat: bool,
    /// Data frames and their highest counter, of the two sessions a batch may mix at a rekey.
    data_by_session: [Option<(&'l Arc<Session>, u64, u64)>; 2],
    /// A session data of which was here before.
    duplicate_session: Option<&'l Arc<Session>>,
    /// The last question, and its session.
    immediate_ack: Option<(&'l Arc<Session>, u16)>,
}

/// Writes to the adapter.
pub(super) struct AdapterWriter<'a> {
    queue: Option<BorrowedFd<'a>>,
    counters: &'a Counters,
    /// The device is gone.
    queue_dead: bool,
    /// The kernel does not take merged UDP datagrams.
    rejects_udp_gso: bool,
}

impl RxPipeline {
    pub(super) fn new() -> Self {
        let input = vec![0; RECEIVE_BUFFER_LEN].into_boxed_slice();
        Self {
            input,
            coalescer: GroCoalescer::new(true),
            quic_frames: Vec::new(),
            relay_frame: Vec::new(),
            may_have_unread: false,
        }
    }

    /// Takes what the socket has, within bounds. `overflow` is the socket's last count of lost
    /// datagrams. Returns whether the adapter's queue turned out to be dead.
    pub(super) fn read_socket(
        &mut self,
        socket: &UdpSocket,
        overflow: &mut u32,
        context: &mut RxContext<'_>,
    ) -> bool {
        let mut dead = false;
        for _ in 0..MAX_RECEIVES_PER_TURN {
            match udp::recv_batch(socket.fd.as_fd(), &mut self.input) {
                Ok(None) => return dead,
                Ok(Some(received)) => {
                    if let Some(total) = received.dropped_total {
                        let lost = total.wrapping_sub(*overflow);
                        *overflow = total;
                        Counters::add(&context.counters.socket_overflow, u64::from(lost));
                    }
                    let (died, alone) = self.process_batch(socket.id, &received, context);
                    dead |= died;
                    // Heartbeats come one by one: what else may be there makes itself known.
                    if alone {
                        break;
                    }
                }
                // A truncated batch: nothing tells where its datagrams end.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    context.counters.count_drop(DropReason::Malformed);
                }
                Err(_) => self.drain_error_queue(socket, context),
            }
        }
        self.may_have_unread = true;
        dead
    }

    /// Whether the turns since the last call left nothing in their sockets.
    pub(super) fn take_drained(&mut self) -> bool {
        !std::mem::take(&mut self.may_have_unread)
    }

    /// Empties the socket's error queue. What this kernel says speaks against the route it names;
    /// what an ICMP message says speaks against nobody: anyone can send one, and a peer that is
    /// just starting answers the first packets so.
    pub(super) fn drain_error_queue(&self, socket: &UdpSocket, context: &mut RxContext<'_>) {
        udp::drain_errors(socket.fd.as_fd(), MAX_ERRORS_PER_TURN, |error| {
            let route = error.to.and_then(|to| context.fib.routes.get(&(socket.id, to)));
            if let Some((_, route)) = route.filter(|_| !error.remote_origin) {
                context.driver_queue.report_send_error(*route, error.errno, context.counters);
            }
        });
    }

    /// Returns whether the adapter's queue is dead, and whether it was one heartbeat alone.
    fn process_batch(
        &mut self,
        socket: SocketId,
        received: &ReceivedBatch,
        context: &mut RxContext<'_>,
    ) -> (bool, bool) {
        if let Some(relays) = &context.fib.relays
            && let Some(endpoint) = relays.by_outer_socket.get(&socket)
        {
            let datagrams = &self.input[..received.len];
            relay::send_to_relay(endpoint, received, datagrams, &mut self.relay_frame, context);
            return (false, false);
        }
        let merge = context.queue.is_none_or(|queue| queue.vnet_hdr);
        let writer = AdapterWriter {
            queue: context.queue.map(|queue| queue.fd.as_fd()),
            counters: context.counters,
            queue_dead: false,
            rejects_udp_gso: false,
        };
        let from = received.from;
        let fib = context.fib;
        let mut batch = RxBatch {
            context,
            fib,
            writer,
            socket,
            from,
            route: None,
            session: None,
            fragment_run: None,
            frame_count: 0,
            has_heartbeat: false,
            data_by_session: [None; 2],
            duplicate_session: None,
            immediate_ack: None,
        };
        let coalescer = merge.then_some(&mut self.coalescer);
        let input = &mut self.input[..received.len];
        if fib.transports.is_empty() {
            batch.process_datagrams(input, received.segment, coalescer);
        } else {
            batch.process_with_quic(input, received.segment, coalescer, &mut self.quic_frames);
        }
        Counters::add(&context.counters.rx_frames, batch.frame_count);
        let alone = batch.has_heartbeat && batch.frame_count == 1;
        let data = batch.data_by_session;
        let noted =
            data[0].is_some() || batch.duplicate_session.is_some() || batch.immediate_ack.is_some();
        let route = if noted { batch.look_up_route().map(|(_, route)| route) } else { None };
        // Anyone can send a copy of what was seen; the answer goes only where a route is.
        let repeated = batch.duplicate_session.filter(|_| route.is_some());
        let asked = batch.immediate_ack.filter(|_| route.is_some());
        let reply_to = ReplyDestination { route, socket, to: from };
        let AdapterWriter { queue_dead: dead, rejects_udp_gso: refuses_udp, .. } = batch.writer;
        for (session, frames, highest) in data.into_iter().flatten() {
            session.record_received(highest);
            context.acks.on_data(session, frames, reply_to, clock::now());
        }
        if let Some(session) = repeated {
            context.acks.on_duplicate_data(session, reply_to, clock::now());
        }
        if let Some((session, number)) = asked {
            context.acks.on_immediate_ack_request(session, number, reply_to);
        }
        if refuses_udp {
            self.coalescer.set_merge_udp(false);
        }
        (dead, alone)
    }
}

impl<'l> RxBatch<'_, 'l> {
    #[inline]
    pub(super) fn process_datagrams(
        &mut self,
        input: &mut [u8],
        segment: usize,
        mut merge: Option<&mut GroCoalescer>,
    ) {
        if input.is_empty() {
            return self.count_drop(DropReason::Malformed);
        }
        let mut start = 0;
        while start < input.len() {
            let end = (start + segment).min(input.len());
            if header::is_quic(input[start]) {
                self.process_quic(&input[start..end]);
            } else if let Err(reason) =
                self.process_frame(input, (start, end, segment), merge.as_deref_mut())
            {
                self.count_drop(reason);
            }
            start = end;
        }
        self.flush_opened(input, merge);
    }

    /// Writes what was opened, before other bytes take its place.
    #[inline]
    pub(super) fn flush_opened(&mut self, input: &mut [u8], mut merge: Option<&mut GroCoalescer>) {
        self.store_fragment_run(input, merge.as_deref_mut());
        self.expire_fragments();
        if let Some(coalescer) = merge {
            coalescer.flush_all(input, &mut |write| self.writer.write_merged(write));
        }
    }

    /// One frame, `input[start..end]`; the next one stands `segment` bytes behind its start.
    #[inline]
    pub(super) fn process_frame(
        &mut self,
        input: &mut [u8],
        (start, end, segment): (usize, usize, usize),
        merge: Option<&mut GroCoalescer>,
    ) -> Result<(), DropReason> {
        let frame = &mut input[start..end];
        let header = FrameHeader::decode(frame)?;
        let session = self.look_up_session(header.session_id)?;
        let payload = match session.open(&header, frame) {
            Ok(payload) => payload,
            Err(reason) => return Err(self.on_open_failed(&header, reason)),
        };
        let session = session.session();
        self.frame_count += 1;
        match header.kind {
            FrameKind::Data => {
                self.record_data(header.counter);
                let first = start + HEADER_LEN;
                let end = first + payload.len();
                if header.flags & FLAG_FRAGMENT != 0 {
                    return self.process_fragment(
                        input,
                        &header,
                        (first, end, segment),
                        session,
                        merge,
                    );
                }
                let partial = header.flags & FLAG_PARTIAL_CHECKSUM != 0;
                self.process_data(input, (first, end), partial, session.peer_addrs(), merge)
            }
            FrameKind::Ack => {
                let ack = Ack::decode(payload)?;
                if ack.immediate_ack_request != 0 {
                    self.immediate_ack = self
                        .session
                        .as_ref()
                        .map(|(_, session, _)| (*session, ack.immediate_ack_request));
                }
                session.on_ack_received(ack);
                Ok(())
            }
            FrameKind::Heartbeat => {
                self.has_heartbeat = true;
                let heartbeat = Heartbeat::decode(payload)?;
                self.process_heartbeat(session, header.queue, heartbeat)
            }
            FrameKind::Probe => {
                let probe = Probe::decode(payload)?;
                self.report_probe(session.peer(), probe)
            }
            FrameKind::Challenge => {
                let challenge = Challenge::decode(payload)?;
                self.report_challenge(challenge, session.peer());
                Ok(())
            }
            FrameKind::Relay => {
                let relay = RelayHeader::decode(payload)?;
                self.on_relay_frame(relay, &mut input[start..end], session)
            }
        }
    }

    /// The inner packets of a frame: up to its end, or to a zero, which no packet begins with.
    #[inline]
    fn process_data(
        &mut self,
        input: &mut [u8],
        (mut start, end): (usize, usize),
        partial: bool,
        peer: VirtualAddrs,
        mut merge: Option<&mut GroCoalescer>,
    ) -> Result<(), DropReason> {
        while start < end && input[start] != PADDING_BYTE {
            let inner = InnerHeaders::parse(&input[start..end])?;
            if !peer.contains(inner.src) {
                self.count_drop(DropReason::InnerSource);
            } else if !self.is_for_us(&inner, &input[start..]) {
                self.count_drop(DropReason::InnerDestination);
            } else if let Some(coalescer) = merge.as_deref_mut() {
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

    /// Data that comes again tells that its acknowledgement did not reach its sender.
    #[cold]
    fn on_open_failed(&mut self, header: &FrameHeader, reason: DropReason) -> DropReason {
        if (header.kind, reason) == (FrameKind::Data, DropReason::Replayed) {
            self.duplicate_session = self.session.as_ref().map(|(_, session, _)| *session);
        }
        reason
    }

    #[inline]
    fn record_data(&mut self, counter: u64) {
        let Some((_, session, _)) = &self.session else { return };
        let session: &'l Arc<Session> = session;
        for slot in &mut self.data_by_session {
            match slot {
                Some((known, frames, highest)) if known.local_id() == session.local_id() => {
                    *frames += 1;
                    *highest = (*highest).max(counter);
                    return;
                }
                Some(_) => {}
                None => {
                    *slot = Some((session, 1, counter));
                    return;
                }
            }
        }
    }

    /// The socket this came in on.
    pub(super) fn socket(&self) -> SocketId {
        self.socket
    }

    /// Where it came from.
    pub(super) fn source_addr(&self) -> SocketAddr {
        self.from
    }

    fn process_heartbeat(
        &mut self,
        session: &Session,
        queue: u8,
        heartbeat: Heartbeat,
    ) -> Result<(), DropReason> {
        let peer = session.peer();
        let session_boot_id = session.boot_id();
        let route = match self.look_up_route() {
            Some((owner, route)) if owner == peer => route,
            _ => {
                if heartbeat.message == HeartbeatMessage::Request {
                    self.report_peer_reflexive(peer, session_boot_id, heartbeat);
                }
                return Err(DropReason::Misrouted);
            }
        };
        let received_at = clock::now();
        // A request wants an answer; a reply says what is known, as long as all is well.
        let RxContext { fib, driver_queue: reports, counters, .. } = self.context;
        let is_healthy = fib.healthy_peers.contains(&peer);
        let answered = is_healthy && self.reply_from_template((session, route), queue, &heartbeat);
        let can_defer = answered || heartbeat.message == HeartbeatMessage::Reply;
        let message = FromWorker::Heartbeat {
            peer,
            route,
            session_boot_id,
            heartbeat,
            received_at,
            answered,
        };
        if is_healthy && can_defer {
            reports.send_deferred(message, counters);
        } else {
            reports.send(message, counters);
        }
        Ok(())
    }

    /// Only what the probe says goes on, not its padding.
    fn report_probe(&mut self, peer: PeerId, probe: Probe) -> Result<(), DropReason> {
        let Some((_, route)) = self.look_up_route().filter(|(owner, _)| *owner == peer) else {
            return Err(DropReason::Misrouted);
        };
        let message = FromWorker::Probe { peer, route, probe };
        self.context.driver_queue.send(message, self.context.counters);
        Ok(())
    }

    pub(super) fn process_quic(&mut self, bytes: &[u8]) {
        match self.look_up_route() {
            // A dial, which comes again, and who it is will show; or something for a connection of
            // this node's former process, which the next one is told of.
            Some((_, route))
                if self.fib.cid_tag.is_some_and(|marks| marks.matches_packet(bytes)) =>
            {
                let message = FromWorker::ConnectionRequested(route);
                self.context.driver_queue.send(message, self.context.counters);
                return;
            }
            None if !self.fib.expects_unverified_sources() => {
                return self.count_drop(DropReason::UnknownSource);
            }
            _ => {}
        }
        let (socket, from) = (self.socket, self.from);
        // The permit first: nothing is copied for a full queue.
        match self.context.io.to_quic.try_reserve() {
            Ok(permit) => permit.send(QuicDatagram { socket, from, bytes: bytes.to_vec() }),
            Err(_) => self.count_drop(DropReason::QueueFull),
        }
    }

    pub(super) fn look_up_route(&mut self) -> Option<(PeerId, RouteId)> {
        let key = (self.socket, self.from);
        *self.route.get_or_insert_with(|| self.context.fib.routes.get(&key).copied())
    }

    #[inline]
    fn look_up_session(&mut self, number: u32) -> Result<&mut FrameOpener<'l>, DropReason> {
        if self.session.as_ref().is_none_or(|(last, ..)| *last != number) {
            let found = self.fib.sessions.get(&number);
            let session = found.ok_or(DropReason::UnknownSession)?;
            self.session = Some((number, session, session.frame_opener()));
        }
        let (.., opener) = self.session.as_mut().ok_or(DropReason::UnknownSession)?;
        Ok(opener)
    }

    #[inline]
    pub(super) fn count_drop(&self, reason: DropReason) {
        self.context.counters.count_drop(reason);
    }
}

impl AdapterWriter<'_> {
    /// A packet with its `virtio_net_hdr`, perhaps merged from many.
    #[inline]
    pub(super) fn write_merged(&mut self, write: &TunWrite<'_>) {
        let result = self.queue.map(|queue| rustix::io::writev(queue, write.slices));
        if result == Some(Err(Errno::INVAL)) && write.hdr.gso_type == GSO_UDP_L4 {
            self.rejects_udp_gso = true;
        }
        self.count_write(result, write.packets, write.bytes);
    }

    /// A packet alone.
    #[inline]
    pub(super) fn write_plain(&mut self, packet: &[u8]) {
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
            // A device that is down says EIO; the driver knows from netlink. Or no queue yet.
            Some(Err(_)) | None => {}
        }
        let dropped = &self.counters.drops[DropReason::AdapterFailed as usize];
        Counters::add(dropped, packets as u64);
    }
}
