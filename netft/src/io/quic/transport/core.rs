//! State under the lock of a transport: QUIC's state machines and their buffers.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{DatagramEvent, Endpoint, Event, Incoming, SendDatagramError, Transmit};
use tracing::debug;

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

/// Connections of one route at once, closing ones included; further handshakes are ignored.
const MAX_CONNECTIONS: usize = 6;
/// Length from which a frame may not share its packet with a QUIC acknowledgement.
const LARGE_FRAME_LEN: usize = 1000;
/// Bytes of one receive: a whole coalesced batch.
const MAX_RECEIVE_BYTES: usize = 65_536;
/// Frames passed to QUIC at once: its queue holds them, and is empty again after the transmit.
const FRAMES_PER_TRANSMIT: usize = 64;

/// State of a [`QuicTransport`](crate::io::quic::transport::QuicTransport).
pub(in crate::io) struct TransportInner {
    settings: PeerTransportSettings,
    remote: SocketAddr,
    endpoint: Endpoint,
    connections: Vec<RouteConnection>,
    /// Weak, so that the socket can be closed and its address bound again.
    pub(in crate::io) socket: Weak<UdpSocket>,
    /// The interface does not support segmentation offload.
    is_segmentation_refused: bool,
    /// Segmented sends vanish on the route.
    pub(in crate::io) plain_sends: bool,
    /// Packets of one transmit.
    transmit_buf: Vec<u8>,
    /// Buffers of sent frames and received packets, reused.
    frame_buf: BytesMut,
    packet_buf: BytesMut,
    /// Error of the last connection, until reported.
    pub(in crate::io) unreported_error: Option<String>,
    /// The peer declined this transport, until reported.
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
            plain_sends: false,
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

    /// Returns whether a connection is established, and the largest frame it carries.
    pub(in crate::io) fn send_state(&mut self) -> (bool, Option<usize>) {
        let Some(place) = self.preferred_index() else { return (false, None) };
        let room = self
            .connections
            .get_mut(place)
            .and_then(|entry| entry.connection.datagrams().max_size());
        (room.is_some(), room)
    }

    pub(in crate::io) fn next_timeout(&mut self) -> Option<Instant> {
        self.connections.iter_mut().filter_map(|entry| entry.connection.poll_timeout()).min()
    }

    /// For every open connection, whether this node dialled it.
    #[cfg(test)]
    pub(in crate::io) fn open_connections(&self) -> impl Iterator<Item = bool> {
        self.connections.iter().filter(|entry| !entry.is_closed).map(|entry| entry.dialled)
    }

    fn preferred_index(&self) -> Option<usize> {
        let smaller = self.settings.has_smaller_key;
        let mut best: Option<usize> = None;
        for (place, entry) in
            self.connections.iter().enumerate().filter(|(_, entry)| entry.is_usable())
        {
            let better = best
                .and_then(|known| self.connections.get(known))
                .is_none_or(|known| entry.takes_precedence_over(known, smaller));
            if better {
                best = Some(place);
            }
        }
        best
    }

    pub(in crate::io) fn on_timeout(&mut self, now: Instant) {
        for entry in &mut self.connections {
            if entry.connection.poll_timeout().is_some_and(|at| at <= now) {
                entry.connection.handle_timeout(now);
            }
        }
        self.drive_connections(now, None);
    }

    pub(in crate::io) fn dial(&mut self, now: Instant, mtu: u16) {
        for entry in
            self.connections.iter_mut().filter(|entry| entry.dialled && entry.is_handshaking())
        {
            entry.close(now, CloseReason::Abandoned);
        }
        self.drive_connections(now, None);
        if self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        let inflight = Arc::new(InflightLimit::default());
        let config = self.settings.client_config(mtu, &inflight);
        match self.endpoint.connect(now, config, self.remote, SERVER_NAME) {
            Ok((handle, connection)) => {
                debug!(remote = %self.remote, mtu, "transport connection dialled");
                self.connections.push(RouteConnection::new(handle, connection, inflight, true));
            }
            Err(error) => self.unreported_error = Some(error.to_string()),
        }
        self.drive_connections(now, None);
    }

    pub(in crate::io) fn close(&mut self, now: Instant, why: CloseReason) {
        self.connections.iter_mut().for_each(|entry| entry.close(now, why));
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
        let Some(entry) = self.connections.get_mut(place) else { return outcome };
        let room = entry.connection.datagrams().max_size().unwrap_or_default();
        let narrow = limit < room;
        if narrow || (class == FrameClass::Control && stride >= LARGE_FRAME_LEN) {
            // QUIC fills packets up to the interface's MTU: an acknowledgement in the same packet
            // as a frame of the path's MTU would exceed the path's MTU.
            entry.flush_pending_ack();
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
            let Some(entry) = self.connections.get_mut(place) else { break };
            if class == FrameClass::Bulk && frame.len() > limit {
                // Sealed for a route with a larger MTU: it would be lost on this one.
                outcome.too_big += 1;
                continue;
            }
            if class == FrameClass::Bulk && entry.inflight.available_bytes() < frame.len() as u64 {
                outcome.window_full += 1 + rest.len().div_ceil(stride) as u64;
                break;
            }
            let len = frame.len() as u64;
            // Without dropping an older frame, which might be a heartbeat.
            match entry.connection.datagrams().send(frame, false) {
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
        // The frames of the previous batch have been dropped: the memory is reused.
        self.packet_buf.reserve(MAX_RECEIVE_BYTES);
        for packet in packets {
            self.packet_buf.extend_from_slice(packet);
            let data = self.packet_buf.split();
            self.transmit_buf.clear();
            let event =
                self.endpoint.handle(now, self.remote, None, None, data, &mut self.transmit_buf);
            match event {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(entry) =
                        self.connections.iter_mut().find(|entry| entry.handle == handle)
                    {
                        entry.connection.handle_event(event);
                        entry.has_received_since_ack = true;
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

    /// Accepts a handshake from the route's remote address: first a Retry validates the address
    /// without state (S-06), then TLS proves the key.
    fn on_incoming(&mut self, now: Instant, mtu: u16, incoming: Incoming) {
        self.transmit_buf.clear();
        if !incoming.remote_address_validated() {
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.transmit_buf) {
                self.send_response(&transmit);
            }
            return;
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            // Ignoring costs least; a genuine peer dials again.
            return self.endpoint.ignore(incoming);
        }
        let inflight = Arc::new(InflightLimit::default());
        let server = self.settings.server_config(mtu, &inflight);
        match self.endpoint.accept(incoming, now, &mut self.transmit_buf, Some(server)) {
            Ok((handle, connection)) => {
                debug!(remote = %self.remote, mtu, "transport handshake accepted");
                self.connections.push(RouteConnection::new(handle, connection, inflight, false));
            }
            Err(error) => {
                debug!(remote = %self.remote, error = %error.cause, "transport handshake failed");
                if let Some(transmit) = error.response {
                    self.send_response(&transmit);
                }
            }
        }
    }

    /// Exchanges events with the endpoint, transmits, and collects received frames.
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
                        debug!(remote = %self.remote, %reason, "transport connection ended");
                        self.is_declined |= is_declined(&reason);
                        self.unreported_error =
                            reportable_error(&reason).or(self.unreported_error.take());
                        if let Some(entry) = self.connections.get_mut(place) {
                            entry.is_closed = true;
                        }
                    }
                    _ => {}
                }
            }
            if let Some(entry) = self.connections.get_mut(place) {
                let mut datagrams = entry.connection.datagrams();
                while let Some(frame) = datagrams.recv() {
                    if let Some(frames) = &mut frames {
                        frames.push(frame);
                    }
                }
            }
            self.transmit_pending(now, place, FrameClass::Control, &mut outcome);
            self.exchange_endpoint_events(place);
        }
        self.connections.retain(|entry| !entry.connection.is_drained());
    }

    /// Exchanges events between a connection and its endpoint.
    fn exchange_endpoint_events(&mut self, place: usize) {
        let Some(entry) = self.connections.get_mut(place) else { return };
        while let Some(event) = entry.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(entry.handle, event) {
                entry.connection.handle_event(event);
            }
        }
    }

    /// The handshake completed: connections of lower precedence are closed.
    fn on_connected(&mut self, now: Instant, place: usize) {
        let Some(entry) = self.connections.get_mut(place) else { return };
        entry.established_at = Some(now);
        let (remote, dialled) = (self.remote, entry.dialled);
        debug!(%remote, dialled, "transport connection established");
        self.unreported_error = None;
        let Some(best) = self.preferred_index() else { return };
        for (other, entry) in self.connections.iter_mut().enumerate() {
            if other != best && entry.is_usable() {
                entry.close(now, CloseReason::Superseded);
            }
        }
        // Transmits their close; `drive_connections` has passed those before this one.
        let mut outcome = SendOutcome::default();
        for other in (0..self.connections.len()).filter(|other| *other != place) {
            self.transmit_pending(now, other, FrameClass::Control, &mut outcome);
        }
    }

    /// Transmits everything a connection has queued, without pacing: see [`InflightLimit`].
    fn transmit_pending(
        &mut self,
        now: Instant,
        place: usize,
        class: FrameClass,
        outcome: &mut SendOutcome,
    ) {
        let Self {
            connections,
            transmit_buf: buf,
            is_segmentation_refused: plain,
            plain_sends,
            socket,
            remote,
            ..
        } = self;
        let Some(entry) = connections.get_mut(place) else { return };
        let socket = socket.upgrade();
        let most = MAX_SEND / usize::from(entry.connection.current_mtu()).max(1);
        let most = if *plain || *plain_sends { 1 } else { most.clamp(1, MAX_SEGMENTS) };
        let tos = (class == FrameClass::Control).then_some(udp::TOS_CONTROL);
        loop {
            buf.clear();
            let Some(transmit) = entry.connection.poll_transmit(now, most, buf) else { return };
            let Some(socket) = &socket else { continue };
            let bytes = buf.get(..transmit.size).unwrap_or_default();
            let mut result = send_datagram(socket, remote, bytes, transmit.segment_size, tos);
            if let Err((fault @ (SendFault::NoOffload | SendFault::SegmentsRefused), _)) = result {
                *plain |= fault == SendFault::NoOffload;
                let each = bytes.chunks(transmit.segment_size.unwrap_or(bytes.len()).max(1));
                let all = each.map(|one| send_datagram(socket, remote, one, None, tos));
                // An error of one does not stop the others.
                result = all.fold(Ok(()), Result::and);
            }
            outcome.fault = result.err().or(outcome.fault);
        }
    }

    fn send_response(&self, transmit: &Transmit) {
        let Some(socket) = self.socket.upgrade() else { return };
        let bytes = self.transmit_buf.get(..transmit.size).unwrap_or_default();
        // A lost response is requested again.
        let _ = send_datagram(&socket, &self.remote, bytes, None, Some(udp::TOS_CONTROL));
    }
}

/// One send call.
fn send_datagram(
    socket: &UdpSocket,
    remote: &SocketAddr,
    bytes: &[u8],
    segment: Option<usize>,
    tos: Option<u8>,
) -> Result<(), (SendFault, i32)> {
    let segment = segment.and_then(|size| u16::try_from(size).ok());
    socket.send_classified(remote, bytes, segment, tos)
}
