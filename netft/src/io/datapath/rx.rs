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
        gro::{Coalescer, Write},
        ip::Inner,
        virtio_net::GSO_UDP_L4,
    },
    session::{Opener, Session},
    wire::{
        DropReason,
        ack::Ack,
        challenge::Challenge,
        header,
        header::{FLAG_PARTIAL_CHECKSUM, FLAG_SLICE, HEADER_LEN, Header, Kind, PADDING},
        heartbeat::Heartbeat,
        probe::Probe,
        relay::Relay,
    },
};
use rustix::io::Errno;

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        FromWorker, QuicDatagram, WorkerIo,
        acks::{Acks, Back},
        driver_queue::Reports,
        fragments::Run,
        relay,
    },
    fib::{Fib, SocketId, TunQueue, UdpSocket},
    sys::{udp, udp::Received},
};

/// The most receives on one socket in a turn, so that the adapter gets its own.
const MAX_RECEIVES: usize = 4;
/// The most entries of a socket's error queue looked at in a turn.
const MAX_ERRORS: usize = 16;
/// Bytes of one receive: a whole merged batch, whatever the path MTU.
const INPUT_LEN: usize = 65_536;

/// The receiving half of a worker.
pub(super) struct Rx {
    input: Box<[u8]>,
    coalescer: Coalescer,
    /// What the packets of one receive brought; empty between receives, kept for its memory.
    frames: Vec<Bytes>,
    /// Where what leaves over a relay is sealed; empty before the first.
    frame: Vec<u8>,
    /// A turn since the last [`drained`](Self::drained) may have left something in its socket.
    left: bool,
}

/// What a worker's other parts lend to a turn.
pub(super) struct Lent<'a> {
    pub(super) fib: &'a Fib,
    pub(super) io: &'a WorkerIo,
    pub(super) queue: Option<&'a TunQueue>,
    pub(super) counters: &'a Counters,
    pub(super) reports: &'a mut Reports,
    pub(super) acks: &'a mut Acks,
}

/// One receive: a batch of datagrams of one sender.
pub(super) struct Batch<'a, 'l> {
    pub(super) lent: &'a Lent<'l>,
    pub(super) fib: &'l Fib,
    pub(super) writer: Writer<'a>,
    socket: SocketId,
    from: SocketAddr,
    /// The route of `socket` and `from`, looked up at most once.
    route: Option<Option<(PeerId, RouteId)>>,
    /// The session of the last frame.
    pub(super) session: Option<(u32, &'l Arc<Session>, Opener<'l>)>,
    /// The slices of one packet so far.
    pub(super) run: Option<Run>,
    frames: u64,
    /// One was a heartbeat.
    heartbeat: bool,
    /// Data frames and their highest counter, of the two sessions a batch may mix at a rekey.
    data: [Option<(&'l Arc<Session>, u64, u64)>; 2],
    /// A session data of which was here before.
    repeated: Option<&'l Arc<Session>>,
    /// The last question, and its session.
    asked: Option<(&'l Arc<Session>, u16)>,
}

/// Writes to the adapter.
pub(super) struct Writer<'a> {
    queue: Option<BorrowedFd<'a>>,
    counters: &'a Counters,
    /// The device is gone.
    dead: bool,
    /// The kernel does not take merged UDP datagrams.
    refuses_udp: bool,
}

impl Rx {
    pub(super) fn new() -> Self {
        let input = vec![0; INPUT_LEN].into_boxed_slice();
        Self {
            input,
            coalescer: Coalescer::new(true),
            frames: Vec::new(),
            frame: Vec::new(),
            left: false,
        }
    }

    /// Takes what the socket has, within bounds. `overflow` is the socket's last count of lost
    /// datagrams. Returns whether the adapter's queue turned out to be dead.
    pub(super) fn turn(
        &mut self,
        socket: &UdpSocket,
        overflow: &mut u32,
        lent: &mut Lent<'_>,
    ) -> bool {
        let mut dead = false;
        for _ in 0..MAX_RECEIVES {
            match udp::recv(socket.fd.as_fd(), &mut self.input) {
                Ok(None) => return dead,
                Ok(Some(received)) => {
                    if let Some(total) = received.overflow {
                        let lost = total.wrapping_sub(*overflow);
                        *overflow = total;
                        Counters::add(&lent.counters.socket_overflow, u64::from(lost));
                    }
                    let (died, alone) = self.batch(socket.id, &received, lent);
                    dead |= died;
                    // Heartbeats come one by one: what else may be there makes itself known.
                    if alone {
                        break;
                    }
                }
                // A truncated batch: nothing tells where its datagrams end.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    lent.counters.count(DropReason::Malformed);
                }
                Err(_) => self.errors(socket, lent),
            }
        }
        self.left = true;
        dead
    }

    /// Whether the turns since the last call left nothing in their sockets.
    pub(super) fn drained(&mut self) -> bool {
        !std::mem::take(&mut self.left)
    }

    /// Empties the socket's error queue. What this kernel says speaks against the route it names;
    /// what an ICMP message says speaks against nobody: anyone can send one, and a peer that is
    /// just starting answers the first packets so.
    pub(super) fn errors(&self, socket: &UdpSocket, lent: &mut Lent<'_>) {
        udp::drain_errors(socket.fd.as_fd(), MAX_ERRORS, |error| {
            let route = error.to.and_then(|to| lent.fib.routes.get(&(socket.id, to)));
            if let Some((_, route)) = route.filter(|_| !error.remote_origin) {
                lent.reports.send_error(*route, error.errno, lent.counters);
            }
        });
    }

    /// Returns whether the adapter's queue is dead, and whether it was one heartbeat alone.
    fn batch(
        &mut self,
        socket: SocketId,
        received: &Received,
        lent: &mut Lent<'_>,
    ) -> (bool, bool) {
        if let Some(relays) = &lent.fib.relays
            && let Some(port) = relays.backs.get(&socket)
        {
            let datagrams = &self.input[..received.len];
            relay::leave(port, received, datagrams, &mut self.frame, lent);
            return (false, false);
        }
        let merge = lent.queue.is_none_or(|queue| queue.vnet_hdr);
        let writer = Writer {
            queue: lent.queue.map(|queue| queue.fd.as_fd()),
            counters: lent.counters,
            dead: false,
            refuses_udp: false,
        };
        let from = received.from;
        let fib = lent.fib;
        let mut batch = Batch {
            lent,
            fib,
            writer,
            socket,
            from,
            route: None,
            session: None,
            run: None,
            frames: 0,
            heartbeat: false,
            data: [None; 2],
            repeated: None,
            asked: None,
        };
        let coalescer = merge.then_some(&mut self.coalescer);
        let input = &mut self.input[..received.len];
        if fib.carriers.is_empty() {
            batch.run(input, received.segment, coalescer);
        } else {
            batch.run_carried(input, received.segment, coalescer, &mut self.frames);
        }
        Counters::add(&lent.counters.rx_frames, batch.frames);
        let alone = batch.heartbeat && batch.frames == 1;
        let data = batch.data;
        let noted = data[0].is_some() || batch.repeated.is_some() || batch.asked.is_some();
        let route = if noted { batch.route().map(|(_, route)| route) } else { None };
        // Anyone can send a copy of what was seen; the answer goes only where a route is.
        let repeated = batch.repeated.filter(|_| route.is_some());
        let asked = batch.asked.filter(|_| route.is_some());
        let back = Back { route, socket, to: from };
        let Writer { dead, refuses_udp, .. } = batch.writer;
        for (session, frames, highest) in data.into_iter().flatten() {
            session.note_heard(highest);
            lent.acks.note(session, frames, back, clock::now());
        }
        if let Some(session) = repeated {
            lent.acks.repeated(session, back, clock::now());
        }
        if let Some((session, number)) = asked {
            lent.acks.asked(session, number, back);
        }
        if refuses_udp {
            self.coalescer.set_merge_udp(false);
        }
        (dead, alone)
    }
}

impl<'l> Batch<'_, 'l> {
    #[inline]
    pub(super) fn run(
        &mut self,
        input: &mut [u8],
        segment: usize,
        mut merge: Option<&mut Coalescer>,
    ) {
        if input.is_empty() {
            return self.drop(DropReason::Malformed);
        }
        let mut start = 0;
        while start < input.len() {
            let end = (start + segment).min(input.len());
            if header::is_quic(input[start]) {
                self.quic(&input[start..end]);
            } else if let Err(reason) =
                self.frame(input, (start, end, segment), merge.as_deref_mut())
            {
                self.drop(reason);
            }
            start = end;
        }
        self.finish(input, merge);
    }

    /// Writes what was opened, before other bytes take its place.
    #[inline]
    pub(super) fn finish(&mut self, input: &mut [u8], mut merge: Option<&mut Coalescer>) {
        self.end_run(input, merge.as_deref_mut());
        self.expire();
        if let Some(coalescer) = merge {
            coalescer.flush(input, &mut |write| self.writer.merged(write));
        }
    }

    /// One frame, `input[start..end]`; the next one stands `segment` bytes behind its start.
    #[inline]
    pub(super) fn frame(
        &mut self,
        input: &mut [u8],
        (start, end, segment): (usize, usize, usize),
        merge: Option<&mut Coalescer>,
    ) -> Result<(), DropReason> {
        let frame = &mut input[start..end];
        let header = Header::decode(frame)?;
        let session = self.session(header.session)?;
        let payload = match session.open(&header, frame) {
            Ok(payload) => payload,
            Err(reason) => return Err(self.refused(&header, reason)),
        };
        let session = session.session();
        self.frames += 1;
        match header.kind {
            Kind::Data => {
                self.note_data(header.counter);
                let first = start + HEADER_LEN;
                let end = first + payload.len();
                if header.flags & FLAG_SLICE != 0 {
                    return self.slice(input, &header, (first, end, segment), session, merge);
                }
                let partial = header.flags & FLAG_PARTIAL_CHECKSUM != 0;
                self.data(input, (first, end), partial, session.peer_addrs(), merge)
            }
            Kind::Ack => {
                let ack = Ack::decode(payload)?;
                if ack.asks != 0 {
                    self.asked = self.session.as_ref().map(|(_, session, _)| (*session, ack.asks));
                }
                session.acknowledged(ack);
                Ok(())
            }
            Kind::Heartbeat => {
                let plaintext = payload.to_vec();
                self.heartbeat = true;
                self.control(session, header.lane, plaintext)
            }
            Kind::Probe => {
                let probe = Probe::decode(payload)?;
                self.probe(session.peer(), probe)
            }
            Kind::Challenge => {
                let challenge = Challenge::decode(payload)?;
                self.challenge(challenge, session.peer());
                Ok(())
            }
            Kind::Relay => {
                let relay = Relay::decode(payload)?;
                self.relayed(relay, &mut input[start..end], session)
            }
        }
    }

    /// The inner packets of a frame: up to its end, or to a zero, which no packet begins with.
    #[inline]
    fn data(
        &mut self,
        input: &mut [u8],
        (mut start, end): (usize, usize),
        partial: bool,
        peer: VirtualAddrs,
        mut merge: Option<&mut Coalescer>,
    ) -> Result<(), DropReason> {
        while start < end && input[start] != PADDING {
            let inner = Inner::parse(&input[start..end])?;
            if !peer.contains(inner.src) {
                self.drop(DropReason::InnerSource);
            } else if !self.is_for_us(&inner, &input[start..]) {
                self.drop(DropReason::InnerDestination);
            } else if let Some(coalescer) = merge.as_deref_mut() {
                let mut sink = |write: &Write<'_>| self.writer.merged(write);
                coalescer.push(input, start, &inner, partial, &mut sink);
            } else {
                let packet = &mut input[start..start + inner.len];
                if partial {
                    checksum::finish(packet, &inner);
                }
                self.writer.plain(packet);
            }
            start += inner.len;
        }
        Ok(())
    }

    /// Data that comes again tells that its acknowledgement did not reach its sender.
    #[cold]
    fn refused(&mut self, header: &Header, reason: DropReason) -> DropReason {
        if (header.kind, reason) == (Kind::Data, DropReason::Replayed) {
            self.repeated = self.session.as_ref().map(|(_, session, _)| *session);
        }
        reason
    }

    #[inline]
    fn note_data(&mut self, counter: u64) {
        let Some((_, session, _)) = &self.session else { return };
        let session: &'l Arc<Session> = session;
        for slot in &mut self.data {
            match slot {
                Some((known, frames, highest)) if known.local() == session.local() => {
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
    pub(super) fn from(&self) -> SocketAddr {
        self.from
    }

    fn control(
        &mut self,
        session: &Session,
        lane: u8,
        plaintext: Vec<u8>,
    ) -> Result<(), DropReason> {
        let peer = session.peer();
        let session_boot_id = session.boot_id();
        let route = match self.route() {
            Some((owner, route)) if owner == peer => route,
            _ => {
                if !Heartbeat::is_reply(&plaintext) {
                    self.strayed(peer, session_boot_id, plaintext);
                }
                return Err(DropReason::Misrouted);
            }
        };
        let received_at = clock::now();
        // A request wants an answer; a reply says what is known, as long as all is well.
        let Lent { fib, reports, counters, .. } = self.lent;
        let calm = fib.calm.contains(&peer);
        let answered = calm && self.answer((session, route), lane, &plaintext);
        let quiet = answered || Heartbeat::is_reply(&plaintext);
        let message = FromWorker::Heartbeat {
            peer,
            route,
            session_boot_id,
            plaintext,
            received_at,
            answered,
        };
        if calm && quiet {
            reports.leave(message, counters);
        } else {
            reports.send(message, counters);
        }
        Ok(())
    }

    /// Only what the probe says goes on, not its padding.
    fn probe(&mut self, peer: PeerId, probe: Probe) -> Result<(), DropReason> {
        let Some((_, route)) = self.route().filter(|(owner, _)| *owner == peer) else {
            return Err(DropReason::Misrouted);
        };
        let message = FromWorker::Probe { peer, route, probe };
        self.lent.reports.send(message, self.lent.counters);
        Ok(())
    }

    pub(super) fn quic(&mut self, bytes: &[u8]) {
        match self.route() {
            // A dial, which comes again, and who it is will show; or something for a connection of
            // this node's former process, which the next one is told of.
            Some((_, route)) if self.fib.marks.is_some_and(|marks| marks.claims(bytes)) => {
                let message = FromWorker::CarrierAsked(route);
                self.lent.reports.send(message, self.lent.counters);
                return;
            }
            None if !self.fib.expects_strangers() => {
                return self.drop(DropReason::UnknownSource);
            }
            _ => {}
        }
        let (socket, from) = (self.socket, self.from);
        // The permit first: nothing is copied for a full queue.
        match self.lent.io.to_quic.try_reserve() {
            Ok(permit) => permit.send(QuicDatagram { socket, from, bytes: bytes.to_vec() }),
            Err(_) => self.drop(DropReason::QueueFull),
        }
    }

    pub(super) fn route(&mut self) -> Option<(PeerId, RouteId)> {
        let key = (self.socket, self.from);
        *self.route.get_or_insert_with(|| self.lent.fib.routes.get(&key).copied())
    }

    #[inline]
    fn session(&mut self, number: u32) -> Result<&mut Opener<'l>, DropReason> {
        if self.session.as_ref().is_none_or(|(last, ..)| *last != number) {
            let found = self.fib.sessions.get(&number);
            let session = found.ok_or(DropReason::UnknownSession)?;
            self.session = Some((number, session, session.opener()));
        }
        let (.., opener) = self.session.as_mut().ok_or(DropReason::UnknownSession)?;
        Ok(opener)
    }

    #[inline]
    pub(super) fn drop(&self, reason: DropReason) {
        self.lent.counters.count(reason);
    }
}

impl Writer<'_> {
    /// A packet with its `virtio_net_hdr`, perhaps merged from many.
    #[inline]
    pub(super) fn merged(&mut self, write: &Write<'_>) {
        let result = self.queue.map(|queue| rustix::io::writev(queue, write.slices));
        if result == Some(Err(Errno::INVAL)) && write.hdr.gso_type == GSO_UDP_L4 {
            self.refuses_udp = true;
        }
        self.done(result, write.packets, write.bytes);
    }

    /// A packet alone.
    #[inline]
    pub(super) fn plain(&mut self, packet: &[u8]) {
        let result = self.queue.map(|queue| rustix::io::write(queue, packet));
        self.done(result, 1, packet.len());
    }

    #[inline]
    fn done(&mut self, result: Option<rustix::io::Result<usize>>, packets: usize, bytes: usize) {
        match result {
            Some(Ok(_)) => {
                Counters::add(&self.counters.adapter_writes, 1);
                Counters::add(&self.counters.rx_bytes, bytes as u64);
                return;
            }
            Some(Err(Errno::BADFD | Errno::BADF)) => self.dead = true,
            // A device that is down says EIO; the driver knows from netlink. Or no queue yet.
            Some(Err(_)) | None => {}
        }
        let dropped = &self.counters.drops[DropReason::AdapterFailed as usize];
        Counters::add(dropped, packets as u64);
    }
}
