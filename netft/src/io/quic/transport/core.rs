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
    quic::{
        tls::SERVER_NAME,
        transport::{
            cid_tag::CidTag,
            connection::{CloseReason, RouteConnection, is_declined, reportable_error},
            inflight_limit::InflightLimit,
            settings::PeerTransportSettings,
            types::{FrameClass, SendOutcome},
        },
    },
    socket::UdpSocket,
    sys::{
        udp,
        udp::{MAX_SEGMENTS, MAX_SEND, SendFault},
    },
};

/// Connections of one route at a time, those that end among them; further ones are not answered.
const MAX_CONNECTIONS: usize = 6;
/// A frame this long may not share its packet with an acknowledgement of QUIC's.
const LARGE_FRAME_LEN: usize = 1000;
/// Bytes of one receive: a whole merged batch.
const MAX_RECEIVE_BYTES: usize = 65_536;
/// Frames handed to QUIC at once: its queue holds them and is empty again on return.
const FRAMES_PER_TRANSMIT: usize = 64;

/// See [`Transport`](crate::io::quic::transport::Transport).
pub(in crate::io) struct TransportInner {
    settings: PeerTransportSettings,
    remote: SocketAddr,
    endpoint: Endpoint,
    connections: Vec<RouteConnection>,
    /// Not kept open by this: a socket's address may be needed for its successor.
    pub(in crate::io) socket: Weak<UdpSocket>,
    /// The interface cannot segment.
    is_segmentation_refused: bool,
    /// What QUIC made of one transmit.
    transmit_buf: Vec<u8>,
    /// What frames are sent from, and packets are received in, used again and again.
    frame_buf: BytesMut,
    packet_buf: BytesMut,
    /// Why no connection comes about, until told.
    pub(in crate::io) unreported_error: Option<String>,
    /// The peer said that it wants another carrier here, until told.
    pub(in crate::io) is_declined: bool,
}

impl TransportInner {
    pub(in crate::io) fn new(settings: PeerTransportSettings, remote: SocketAddr) -> Self {
        let server = Some(Arc::new(settings.server.clone()));
        let endpoint = Endpoint::new(settings.endpoint.clone(), server, true, None);
        Self {
            settings,
            remote,
            endpoint,
            connections: Vec::new(),
            socket: Weak::new(),
            is_segmentation_refused: false,
            transmit_buf: Vec::new(),
            frame_buf: BytesMut::new(),
            packet_buf: BytesMut::new(),
            unreported_error: None,
            is_declined: false,
        }
    }

    pub(in crate::io) fn cid_tag(&self) -> CidTag {
        self.settings.cid_tag
    }

    /// Whether there is a connection to send on, and the largest frame it carries.
    pub(in crate::io) fn send_state(&mut self) -> (bool, Option<usize>) {
        let Some(place) = self.preferred_index() else { return (false, None) };
        let room =
            self.connections.get_mut(place).and_then(|link| link.connection.datagrams().max_size());
        (room.is_some(), room)
    }

    pub(in crate::io) fn next_timeout(&mut self) -> Option<Instant> {
        self.connections.iter_mut().filter_map(|link| link.connection.poll_timeout()).min()
    }

    /// Of every connection that is not closed, whether this node dialled it.
    #[cfg(test)]
    pub(in crate::io) fn open_connections(&self) -> impl Iterator<Item = bool> {
        self.connections.iter().filter(|link| !link.is_closed).map(|link| link.dialled)
    }

    fn preferred_index(&self) -> Option<usize> {
        let smaller = self.settings.has_smaller_key;
        let mut best: Option<usize> = None;
        for (place, link) in
            self.connections.iter().enumerate().filter(|(_, link)| link.is_usable())
        {
            let better = best
                .and_then(|known| self.connections.get(known))
                .is_none_or(|known| link.takes_precedence_over(known, smaller));
            if better {
                best = Some(place);
            }
        }
        best
    }

    pub(in crate::io) fn on_timeout(&mut self, now: Instant) {
        for link in &mut self.connections {
            if link.connection.poll_timeout().is_some_and(|at| at <= now) {
                link.connection.handle_timeout(now);
            }
        }
        self.drive_connections(now, None);
    }

    pub(in crate::io) fn dial(&mut self, now: Instant, mtu: u16) {
        for link in self.connections.iter_mut().filter(|link| link.dialled && link.is_handshaking())
        {
            link.close(now, CloseReason::Abandoned);
        }
        self.drive_connections(now, None);
        if self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        let gate = Arc::new(InflightLimit::default());
        let config = self.settings.client_config(mtu, &gate);
        match self.endpoint.connect(now, config, self.remote, SERVER_NAME) {
            Ok((handle, connection)) => {
                self.connections.push(RouteConnection::new(handle, connection, gate, true));
            }
            Err(error) => self.unreported_error = Some(error.to_string()),
        }
        self.drive_connections(now, None);
    }

    pub(in crate::io) fn close(&mut self, now: Instant, why: CloseReason) {
        self.connections.iter_mut().for_each(|link| link.close(now, why));
        self.drive_connections(now, None);
    }

    pub(in crate::io) fn send_frames(
        &mut self,
        now: Instant,
        bytes: &[u8],
        stride: usize,
        limit: usize,
        class: FrameClass,
    ) -> SendOutcome {
        let mut outcome = SendOutcome::default();
        let count = bytes.len().div_ceil(stride.max(1)) as u64;
        let Some(place) = self.preferred_index() else {
            return SendOutcome { unconnected: count, ..outcome };
        };
        let Some(link) = self.connections.get_mut(place) else { return outcome };
        let room = link.connection.datagrams().max_size().unwrap_or_default();
        let narrow = limit < room;
        if narrow || (class == FrameClass::Control && stride >= LARGE_FRAME_LEN) {
            // QUIC fills packets up to its own idea of the path, which is the interface's: an
            // acknowledgement beside a frame of just the path's size would be one too many bytes.
            link.flush_pending_ack();
            self.transmit_pending(now, place, class, &mut outcome);
        }
        self.frame_buf.clear();
        self.frame_buf.reserve(bytes.len());
        self.frame_buf.extend_from_slice(bytes);
        let mut rest = self.frame_buf.split().freeze();
        // For the same reason no two frames may share a packet.
        let together = if narrow && 2 * stride <= room { 1 } else { FRAMES_PER_TRANSMIT };
        let mut queued = 0;
        while !rest.is_empty() {
            let frame = rest.split_to(stride.min(rest.len()));
            if narrow && frame.len() < stride {
                self.transmit_pending(now, place, class, &mut outcome);
            }
            let Some(link) = self.connections.get_mut(place) else { break };
            if class == FrameClass::Bulk && frame.len() > limit {
                // Sealed for a wider route: it would vanish on this one.
                outcome.too_big += 1;
                continue;
            }
            if class == FrameClass::Bulk && link.inflight.available_bytes() < frame.len() as u64 {
                outcome.window_full += 1 + rest.len().div_ceil(stride) as u64;
                break;
            }
            let len = frame.len() as u64;
            // Never at the cost of an older one, which might be a heartbeat.
            match link.connection.datagrams().send(frame, false) {
                Ok(()) => (outcome.sent, outcome.bytes) = (outcome.sent + 1, outcome.bytes + len),
                Err(SendDatagramError::TooLarge) => outcome.too_big += 1,
                Err(SendDatagramError::Blocked(_)) => outcome.window_full += 1,
                Err(_) => outcome.unconnected += 1,
            }
            queued += 1;
            if queued == together {
                self.transmit_pending(now, place, class, &mut outcome);
                queued = 0;
            }
        }
        self.transmit_pending(now, place, class, &mut outcome);
        outcome
    }

    pub(in crate::io) fn receive_packets<'p>(
        &mut self,
        now: Instant,
        mtu: u16,
        packets: impl Iterator<Item = &'p [u8]>,
        frames: &mut Vec<Bytes>,
    ) {
        // Whoever took the frames of the batch before has let them go: no fresh memory.
        self.packet_buf.reserve(MAX_RECEIVE_BYTES);
        for packet in packets {
            self.packet_buf.extend_from_slice(packet);
            let data = self.packet_buf.split();
            self.transmit_buf.clear();
            let event =
                self.endpoint.handle(now, self.remote, None, None, data, &mut self.transmit_buf);
            match event {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(link) =
                        self.connections.iter_mut().find(|link| link.handle == handle)
                    {
                        link.connection.handle_event(event);
                        link.has_received_since_ack = true;
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => {
                    self.on_incoming(now, mtu, incoming)
                }
                Some(DatagramEvent::Response(transmit)) => self.send_response(&transmit),
                None => {}
            }
        }
        self.drive_connections(now, Some(frames));
    }

    /// A dial of whoever is at the route's remote address: first whether it is there at all, at no
    /// cost to this node (S-06), then its key.
    fn on_incoming(&mut self, now: Instant, mtu: u16, incoming: Incoming) {
        self.transmit_buf.clear();
        if !incoming.remote_address_validated() {
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.transmit_buf) {
                self.send_response(&transmit);
            }
            return;
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            // Silence costs least; a genuine peer dials again.
            return self.endpoint.ignore(incoming);
        }
        let gate = Arc::new(InflightLimit::default());
        let server = self.settings.server_config(mtu, &gate);
        match self.endpoint.accept(incoming, now, &mut self.transmit_buf, Some(server)) {
            Ok((handle, connection)) => {
                self.connections.push(RouteConnection::new(handle, connection, gate, false));
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.send_response(&transmit);
                }
            }
        }
    }

    /// Carries events between QUIC's halves, sends what is due, takes frames out.
    fn drive_connections(&mut self, now: Instant, mut frames: Option<&mut Vec<Bytes>>) {
        let mut outcome = SendOutcome::default();
        for place in 0..self.connections.len() {
            self.exchange_endpoint_events(place);
            while let Some(event) =
                self.connections.get_mut(place).and_then(|l| l.connection.poll())
            {
                match event {
                    Event::Connected => self.on_connected(now, place),
                    Event::ConnectionLost { reason } => {
                        self.is_declined |= is_declined(&reason);
                        self.unreported_error =
                            reportable_error(&reason).or(self.unreported_error.take());
                        if let Some(link) = self.connections.get_mut(place) {
                            link.is_closed = true;
                        }
                    }
                    _ => {}
                }
            }
            if let Some(link) = self.connections.get_mut(place) {
                let mut datagrams = link.connection.datagrams();
                while let Some(frame) = datagrams.recv() {
                    if let Some(frames) = &mut frames {
                        frames.push(frame);
                    }
                }
            }
            self.transmit_pending(now, place, FrameClass::Control, &mut outcome);
            self.exchange_endpoint_events(place);
        }
        self.connections.retain(|link| !link.connection.is_drained());
    }

    /// Between a connection and its endpoint.
    fn exchange_endpoint_events(&mut self, place: usize) {
        let Some(link) = self.connections.get_mut(place) else { return };
        while let Some(event) = link.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(link.handle, event) {
                link.connection.handle_event(event);
            }
        }
    }

    /// Both keys are proven: what counts less than this connection ends.
    fn on_connected(&mut self, now: Instant, place: usize) {
        let Some(link) = self.connections.get_mut(place) else { return };
        link.established_at = Some(now);
        self.unreported_error = None;
        let Some(best) = self.preferred_index() else { return };
        for (other, link) in self.connections.iter_mut().enumerate() {
            if other != best && link.is_usable() {
                link.close(now, CloseReason::Superseded);
            }
        }
        // Their farewell: those before this one were served already.
        let mut outcome = SendOutcome::default();
        for other in (0..self.connections.len()).filter(|other| *other != place) {
            self.transmit_pending(now, other, FrameClass::Control, &mut outcome);
        }
    }

    /// Sends everything a connection has. It waits for nothing: see [`InflightLimit`].
    fn transmit_pending(
        &mut self,
        now: Instant,
        place: usize,
        class: FrameClass,
        outcome: &mut SendOutcome,
    ) {
        let Self {
            connections: links,
            transmit_buf: buf,
            is_segmentation_refused: plain,
            socket,
            remote,
            ..
        } = self;
        let Some(link) = links.get_mut(place) else { return };
        let socket = socket.upgrade();
        let most = MAX_SEND / usize::from(link.connection.current_mtu()).max(1);
        let most = if *plain { 1 } else { most.clamp(1, MAX_SEGMENTS) };
        let tos = (class == FrameClass::Control).then_some(udp::TOS_CONTROL);
        loop {
            buf.clear();
            let Some(transmit) = link.connection.poll_transmit(now, most, buf) else { return };
            let Some(socket) = &socket else { continue };
            let bytes = buf.get(..transmit.size).unwrap_or_default();
            let mut result = send_datagram(socket, remote, bytes, transmit.segment_size, tos);
            if matches!(result, Err((SendFault::NoOffload, _))) {
                *plain = true;
                let each = bytes.chunks(transmit.segment_size.unwrap_or(bytes.len()).max(1));
                let all = each.map(|one| send_datagram(socket, remote, one, None, tos));
                // The others go whatever becomes of one.
                result = all.fold(Ok(()), Result::and);
            }
            outcome.fault = result.err().or(outcome.fault);
        }
    }

    fn send_response(&self, transmit: &Transmit) {
        let Some(socket) = self.socket.upgrade() else { return };
        let bytes = self.transmit_buf.get(..transmit.size).unwrap_or_default();
        // Lost, it is asked for again.
        let _ = send_datagram(&socket, &self.remote, bytes, None, Some(udp::TOS_CONTROL));
    }
}

/// One send; again when the error may be an earlier packet's.
fn send_datagram(
    socket: &UdpSocket,
    remote: &SocketAddr,
    bytes: &[u8],
    segment: Option<usize>,
    tos: Option<u8>,
) -> Result<(), (SendFault, i32)> {
    let segment = segment.and_then(|size| u16::try_from(size).ok());
    udp::send_with_retry(socket.fd.as_fd(), remote, bytes, segment, tos)
}
