//! What the lock of a carrier guards: QUIC's state machines, fed and drained.

use std::{
    net::SocketAddr,
    os::fd::AsFd,
    sync::{Arc, Weak},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{DatagramEvent, Endpoint, Event, Incoming, SendDatagramError, Transmit};

use crate::io::{
    fib::UdpSocket,
    quic::{
        tls::SERVER_NAME,
        transport::{
            Class, Outcome,
            cid_tag::Marks,
            connection::{Link, Why, complaint, unwanted},
            inflight_limit::Gate,
            settings::Settings,
        },
    },
    sys::{
        udp,
        udp::{MAX_SEGMENTS, MAX_SEND, SendFault},
    },
};

/// Connections of one route at a time, those that end among them; further ones are not answered.
const MAX_LINKS: usize = 6;
/// A frame this long may not share its packet with an acknowledgement of QUIC's.
const LARGE: usize = 1000;
/// Bytes of one receive: a whole merged batch.
const RECEIVE: usize = 65_536;
/// Frames handed to QUIC at once: its queue holds them and is empty again on return.
const BATCH: usize = 64;

/// See [`Carrier`](crate::io::quic::transport::Carrier).
pub(in crate::io) struct Core {
    settings: Settings,
    remote: SocketAddr,
    endpoint: Endpoint,
    links: Vec<Link>,
    /// Not kept open by this: a socket's address may be needed for its successor.
    pub(in crate::io) socket: Weak<UdpSocket>,
    /// The interface cannot segment.
    plain: bool,
    /// What QUIC made of one transmit.
    buf: Vec<u8>,
    /// What frames are sent from, and packets are received in, used again and again.
    out: BytesMut,
    arena: BytesMut,
    /// Why no connection comes about, until told.
    pub(in crate::io) complaint: Option<String>,
    /// The peer said that it wants another carrier here, until told.
    pub(in crate::io) unwanted: bool,
}

impl Core {
    pub(in crate::io) fn new(settings: Settings, remote: SocketAddr) -> Self {
        let server = Some(Arc::new(settings.server.clone()));
        let endpoint = Endpoint::new(settings.endpoint.clone(), server, true, None);
        Self {
            settings,
            remote,
            endpoint,
            links: Vec::new(),
            socket: Weak::new(),
            plain: false,
            buf: Vec::new(),
            out: BytesMut::new(),
            arena: BytesMut::new(),
            complaint: None,
            unwanted: false,
        }
    }

    pub(in crate::io) fn marks(&self) -> Marks {
        self.settings.marks
    }

    /// Whether there is a connection to send on, and the largest frame it carries.
    pub(in crate::io) fn state(&mut self) -> (bool, Option<usize>) {
        let Some(place) = self.best() else { return (false, None) };
        let room =
            self.links.get_mut(place).and_then(|link| link.connection.datagrams().max_size());
        (room.is_some(), room)
    }

    pub(in crate::io) fn timeout(&mut self) -> Option<Instant> {
        self.links.iter_mut().filter_map(|link| link.connection.poll_timeout()).min()
    }

    /// Of every connection that is not closed, whether this node dialled it.
    #[cfg(test)]
    pub(in crate::io) fn live(&self) -> impl Iterator<Item = bool> {
        self.links.iter().filter(|link| !link.over).map(|link| link.dialled)
    }

    fn best(&self) -> Option<usize> {
        let smaller = self.settings.smaller;
        let mut best: Option<usize> = None;
        for (place, link) in self.links.iter().enumerate().filter(|(_, link)| link.usable()) {
            let better = best
                .and_then(|known| self.links.get(known))
                .is_none_or(|known| link.counts_before(known, smaller));
            if better {
                best = Some(place);
            }
        }
        best
    }

    pub(in crate::io) fn tick(&mut self, now: Instant) {
        for link in &mut self.links {
            if link.connection.poll_timeout().is_some_and(|at| at <= now) {
                link.connection.handle_timeout(now);
            }
        }
        self.pump(now, None);
    }

    pub(in crate::io) fn dial(&mut self, now: Instant, mtu: u16) {
        for link in self.links.iter_mut().filter(|link| link.dialled && link.shaking()) {
            link.close(now, Why::Abandoned);
        }
        self.pump(now, None);
        if self.links.len() >= MAX_LINKS {
            return;
        }
        let gate = Arc::new(Gate::default());
        let config = self.settings.dialling(mtu, &gate);
        match self.endpoint.connect(now, config, self.remote, SERVER_NAME) {
            Ok((handle, connection)) => {
                self.links.push(Link::new(handle, connection, gate, true));
            }
            Err(error) => self.complaint = Some(error.to_string()),
        }
        self.pump(now, None);
    }

    pub(in crate::io) fn close(&mut self, now: Instant, why: Why) {
        self.links.iter_mut().for_each(|link| link.close(now, why));
        self.pump(now, None);
    }

    pub(in crate::io) fn send(
        &mut self,
        now: Instant,
        bytes: &[u8],
        stride: usize,
        limit: usize,
        class: Class,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let count = bytes.len().div_ceil(stride.max(1)) as u64;
        let Some(place) = self.best() else { return Outcome { unconnected: count, ..outcome } };
        let Some(link) = self.links.get_mut(place) else { return outcome };
        let room = link.connection.datagrams().max_size().unwrap_or_default();
        let narrow = limit < room;
        if narrow || (class == Class::Control && stride >= LARGE) {
            // QUIC fills packets up to its own idea of the path, which is the interface's: an
            // acknowledgement beside a frame of just the path's size would be one too many bytes.
            link.hurry_acknowledgement();
            self.transmit(now, place, class, &mut outcome);
        }
        self.out.clear();
        self.out.reserve(bytes.len());
        self.out.extend_from_slice(bytes);
        let mut rest = self.out.split().freeze();
        // For the same reason no two frames may share a packet.
        let together = if narrow && 2 * stride <= room { 1 } else { BATCH };
        let mut queued = 0;
        while !rest.is_empty() {
            let frame = rest.split_to(stride.min(rest.len()));
            if narrow && frame.len() < stride {
                self.transmit(now, place, class, &mut outcome);
            }
            let Some(link) = self.links.get_mut(place) else { break };
            if class == Class::Bulk && frame.len() > limit {
                // Sealed for a wider route: it would vanish on this one.
                outcome.too_big += 1;
                continue;
            }
            if class == Class::Bulk && link.gate.room() < frame.len() as u64 {
                outcome.full += 1 + rest.len().div_ceil(stride) as u64;
                break;
            }
            let len = frame.len() as u64;
            // Never at the cost of an older one, which might be a heartbeat.
            match link.connection.datagrams().send(frame, false) {
                Ok(()) => (outcome.sent, outcome.bytes) = (outcome.sent + 1, outcome.bytes + len),
                Err(SendDatagramError::TooLarge) => outcome.too_big += 1,
                Err(SendDatagramError::Blocked(_)) => outcome.full += 1,
                Err(_) => outcome.unconnected += 1,
            }
            queued += 1;
            if queued == together {
                self.transmit(now, place, class, &mut outcome);
                queued = 0;
            }
        }
        self.transmit(now, place, class, &mut outcome);
        outcome
    }

    pub(in crate::io) fn receive<'p>(
        &mut self,
        now: Instant,
        mtu: u16,
        packets: impl Iterator<Item = &'p [u8]>,
        frames: &mut Vec<Bytes>,
    ) {
        // Whoever took the frames of the batch before has let them go: no fresh memory.
        self.arena.reserve(RECEIVE);
        for packet in packets {
            self.arena.extend_from_slice(packet);
            let data = self.arena.split();
            self.buf.clear();
            let event = self.endpoint.handle(now, self.remote, None, None, data, &mut self.buf);
            match event {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(link) = self.links.iter_mut().find(|link| link.handle == handle) {
                        link.connection.handle_event(event);
                        link.heard = true;
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => self.incoming(now, mtu, incoming),
                Some(DatagramEvent::Response(transmit)) => self.respond(&transmit),
                None => {}
            }
        }
        self.pump(now, Some(frames));
    }

    /// A dial of whoever is at the route's remote address: first whether it is there at all, at no
    /// cost to this node (S-06), then its key.
    fn incoming(&mut self, now: Instant, mtu: u16, incoming: Incoming) {
        self.buf.clear();
        if !incoming.remote_address_validated() {
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.buf) {
                self.respond(&transmit);
            }
            return;
        }
        if self.links.len() >= MAX_LINKS {
            // Silence costs least; a genuine peer dials again.
            return self.endpoint.ignore(incoming);
        }
        let gate = Arc::new(Gate::default());
        let server = self.settings.answering(mtu, &gate);
        match self.endpoint.accept(incoming, now, &mut self.buf, Some(server)) {
            Ok((handle, connection)) => {
                self.links.push(Link::new(handle, connection, gate, false));
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(&transmit);
                }
            }
        }
    }

    /// Carries events between QUIC's halves, sends what is due, takes frames out.
    fn pump(&mut self, now: Instant, mut frames: Option<&mut Vec<Bytes>>) {
        let mut outcome = Outcome::default();
        for place in 0..self.links.len() {
            self.exchange(place);
            while let Some(event) = self.links.get_mut(place).and_then(|l| l.connection.poll()) {
                match event {
                    Event::Connected => self.connected(now, place),
                    Event::ConnectionLost { reason } => {
                        self.unwanted |= unwanted(&reason);
                        self.complaint = complaint(&reason).or(self.complaint.take());
                        if let Some(link) = self.links.get_mut(place) {
                            link.over = true;
                        }
                    }
                    _ => {}
                }
            }
            if let Some(link) = self.links.get_mut(place) {
                let mut datagrams = link.connection.datagrams();
                while let Some(frame) = datagrams.recv() {
                    if let Some(frames) = &mut frames {
                        frames.push(frame);
                    }
                }
            }
            self.transmit(now, place, Class::Control, &mut outcome);
            self.exchange(place);
        }
        self.links.retain(|link| !link.connection.is_drained());
    }

    /// Between a connection and its endpoint.
    fn exchange(&mut self, place: usize) {
        let Some(link) = self.links.get_mut(place) else { return };
        while let Some(event) = link.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(link.handle, event) {
                link.connection.handle_event(event);
            }
        }
    }

    /// Both keys are proven: what counts less than this connection ends.
    fn connected(&mut self, now: Instant, place: usize) {
        let Some(link) = self.links.get_mut(place) else { return };
        link.up_at = Some(now);
        self.complaint = None;
        let Some(best) = self.best() else { return };
        for (other, link) in self.links.iter_mut().enumerate() {
            if other != best && link.usable() {
                link.close(now, Why::Superseded);
            }
        }
        // Their farewell: those before this one were served already.
        let mut outcome = Outcome::default();
        for other in (0..self.links.len()).filter(|other| *other != place) {
            self.transmit(now, other, Class::Control, &mut outcome);
        }
    }

    /// Sends everything a connection has. It waits for nothing: see [`Gate`].
    fn transmit(&mut self, now: Instant, place: usize, class: Class, outcome: &mut Outcome) {
        let Self { links, buf, plain, socket, remote, .. } = self;
        let Some(link) = links.get_mut(place) else { return };
        let socket = socket.upgrade();
        let most = MAX_SEND / usize::from(link.connection.current_mtu()).max(1);
        let most = if *plain { 1 } else { most.clamp(1, MAX_SEGMENTS) };
        let tos = (class == Class::Control).then_some(udp::TOS_CONTROL);
        loop {
            buf.clear();
            let Some(transmit) = link.connection.poll_transmit(now, most, buf) else { return };
            let Some(socket) = &socket else { continue };
            let bytes = buf.get(..transmit.size).unwrap_or_default();
            let mut result = put(socket, remote, bytes, transmit.segment_size, tos);
            if matches!(result, Err((SendFault::NoOffload, _))) {
                *plain = true;
                let each = bytes.chunks(transmit.segment_size.unwrap_or(bytes.len()).max(1));
                let all = each.map(|one| put(socket, remote, one, None, tos));
                // The others go whatever becomes of one.
                result = all.fold(Ok(()), Result::and);
            }
            outcome.fault = result.err().or(outcome.fault);
        }
    }

    fn respond(&self, transmit: &Transmit) {
        let Some(socket) = self.socket.upgrade() else { return };
        let bytes = self.buf.get(..transmit.size).unwrap_or_default();
        // Lost, it is asked for again.
        let _ = put(&socket, &self.remote, bytes, None, Some(udp::TOS_CONTROL));
    }
}

/// One send; again when the error may be an earlier packet's.
fn put(
    socket: &UdpSocket,
    remote: &SocketAddr,
    bytes: &[u8],
    segment: Option<usize>,
    tos: Option<u8>,
) -> Result<(), (SendFault, i32)> {
    let segment = segment.and_then(|size| u16::try_from(size).ok());
    udp::attempt(socket.fd.as_fd(), remote, bytes, segment, tos)
}
