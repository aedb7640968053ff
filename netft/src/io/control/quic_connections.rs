//! The QUIC connections of routes: which routes have one, who dials, and what their state means
//! for the route.
//!
//! A route's carrier is QUIC when the config of either end says so: the end that wants it dials,
//! and an end that is dialled, by the peer's own key and from the route's own address, uses it too,
//! until the peer says otherwise, or does not dial again for three seconds without one. When both
//! want it, the one with the smaller key dials first. Without a connection the route is broken
//! here, at once and with that as its cause, and whoever wants it dials again every second.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use netft_proto::{
    config::Config,
    engine::EngineInput,
    ids::{PeerId, RouteId},
    route,
    route::Reason,
    session::MAX_FRAME_LEN,
    time::Time,
    wire::header::FRAME_OVERHEAD,
};

use crate::io::{
    control::driver::Driver,
    counters::Counters,
    quic::transport::{
        CidTag, CloseReason, FrameClass, NodeTransportSettings, PeerTransportSettings,
        QuicTransport, SendOutcome, TRANSPORT_OVERHEAD,
    },
    sys::udp::SendFault,
};

/// How long a handshake may take. Every attempt starts anew.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// The shortest time between two attempts.
const MIN_DIAL_INTERVAL: Duration = Duration::from_millis(250);
/// How long the node with the larger key waits for the other one to dial.
const LARGER_KEY_DIAL_DELAY: Duration = Duration::from_millis(300);
/// How long a peer that asks has to prove itself, and one that restarted to ask again.
const PEER_DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Smallest UDP payload QUIC works over (RFC 9000 section 14).
const MIN_QUIC_PAYLOAD: usize = 1200;

/// The connections, and what they are made with.
#[derive(Default)]
pub(super) struct QuicConnections {
    /// Made once.
    shared_config: Option<NodeTransportSettings>,
    by_route: BTreeMap<RouteId, TransportEntry>,
}

/// The connection of one route.
struct TransportEntry {
    transport: Arc<QuicTransport>,
    peer: PeerId,
    /// This node's config wants it.
    wanted_locally: bool,
    /// The peer wants it, and has proven its key.
    wanted_by_peer: bool,
    /// As the engine was told.
    is_up: bool,
    fault_reported: bool,
    has_smaller_key: bool,
    dialled_at: Option<Time>,
    /// Dial not before.
    next_dial_at: Time,
    /// Given up then, unless a connection comes up.
    expires_at: Option<Time>,
    /// What was complained of last.
    last_error: String,
}

impl TransportEntry {
    fn is_enabled(&self) -> bool {
        self.wanted_locally || self.wanted_by_peer
    }

    fn should_dial(&self) -> bool {
        self.wanted_locally && !self.is_up
    }

    fn schedule_dial(&mut self, now: Time) {
        let grace = if self.has_smaller_key { Duration::ZERO } else { LARGER_KEY_DIAL_DELAY };
        let paused = self.dialled_at.map_or(now, |at| at + MIN_DIAL_INTERVAL);
        self.next_dial_at = paused.max(now + grace);
    }
}

impl QuicConnections {
    /// The connection whose state the frames of a route depend on.
    pub(super) fn transport_of(&self, route: RouteId) -> Option<&Arc<QuicTransport>> {
        self.by_route.get(&route).filter(|held| held.is_enabled()).map(|held| &held.transport)
    }

    /// Every connection, those that nobody has proven a key on among them.
    pub(super) fn all_transports(&self) -> impl Iterator<Item = (RouteId, &Arc<QuicTransport>)> {
        self.by_route.iter().map(|(id, held)| (*id, &held.transport))
    }

    /// The largest frame a route takes whose interface takes `datagram` bytes, and what its carrier
    /// adds to it.
    pub(super) fn frame_limit(&self, route: RouteId, datagram: usize) -> (usize, usize) {
        let Some(transport) = self.transport_of(route) else { return (datagram, 0) };
        (
            datagram
                .saturating_sub(TRANSPORT_OVERHEAD)
                .min(transport.max_frame_len())
                .max(FRAME_OVERHEAD),
            TRANSPORT_OVERHEAD,
        )
    }

    /// How a packet for a connection is told where there is none.
    pub(super) fn cid_tag(&mut self, config: &Config) -> Option<CidTag> {
        Some(self.shared_quic_config(config)?.cid_tag())
    }

    /// When a timer, a dial or an end of patience is due.
    pub(super) fn next_wake(&self) -> Option<Time> {
        let due = |held: &TransportEntry| {
            let dial = held.should_dial().then_some(held.next_dial_at);
            [held.transport.next_timeout(), dial, held.expires_at].into_iter().flatten().min()
        };
        self.by_route.values().filter_map(due).min()
    }

    fn shared_quic_config(&mut self, config: &Config) -> Option<&NodeTransportSettings> {
        if self.shared_config.is_none() {
            let made = NodeTransportSettings::new(&config.key, config.public_key);
            self.shared_config = made.inspect_err(|error| tracing::error!(%error, "no QUIC")).ok();
        }
        self.shared_config.as_ref()
    }

    fn peer_settings(&mut self, config: &Config, peer: PeerId) -> Option<PeerTransportSettings> {
        let key = config.peer_of(peer)?.key;
        let settings = self.shared_quic_config(config)?.for_peer(key);
        settings.inspect_err(|error| tracing::error!(%error, "no QUIC with this peer")).ok()
    }
}

impl Driver {
    /// Timers, dials and news of the connections: before the engine's own timers.
    pub(super) fn poll_connections(&mut self, now: Time) {
        if self.dirty {
            self.sync_connections(now);
        }
        let mut changed = Vec::new();
        let mut gone = Vec::new();
        for (id, held) in &mut self.connections.by_route {
            if held.transport.next_timeout().is_some_and(|at| at <= now) {
                held.transport.on_timeout();
            }
            let ready = self.routes.get(id).is_some_and(|known| known.reported_fault.is_none());
            if held.should_dial() && held.next_dial_at <= now {
                held.next_dial_at = now + HANDSHAKE_TIMEOUT;
                if ready {
                    held.dialled_at = Some(now);
                    held.transport.dial();
                }
            }
            // A worker's message may have found no place.
            if held.transport.take_changed() || held.transport.is_connected() != held.is_up {
                changed.push(*id);
            }
            if held.expires_at.is_some_and(|at| at <= now) {
                held.expires_at = None;
                held.wanted_by_peer = false;
                if !held.wanted_locally {
                    gone.push(*id);
                }
            }
        }
        changed.into_iter().for_each(|id| self.on_transport_changed(id, now));
        gone.into_iter().for_each(|id| self.remove_transport(id, CloseReason::GoingAway));
    }

    /// Takes in what a worker saw of a connection.
    pub(super) fn on_connection_event(&mut self, id: RouteId, now: Time) {
        if self.connections.by_route.contains_key(&id) {
            self.on_transport_changed(id, now);
        }
    }

    /// Gives whoever asks for a connection on this route the chance to prove its key.
    pub(super) fn on_connection_request(&mut self, id: RouteId, now: Time) {
        if !self.connections.by_route.contains_key(&id) && self.add_transport(id, now) {
            if let Some(held) = self.connections.by_route.get_mut(&id) {
                held.expires_at = Some(now + PEER_DIAL_TIMEOUT);
            }
            self.sync_connections(now);
            self.dirty = true;
        }
    }

    /// The peer was started again: connections with its former run are of no use.
    pub(super) fn close_stale_connections(&mut self, peer: PeerId, now: Time) {
        for held in self.connections.by_route.values_mut().filter(|held| held.peer == peer) {
            held.transport.close(CloseReason::Redial);
            held.expires_at = held.wanted_by_peer.then_some(now + PEER_DIAL_TIMEOUT);
        }
    }

    /// A route leads to another address of its peer: a connection there is begun anew.
    pub(super) fn restart_connection(&mut self, id: RouteId, now: Time) {
        if self.connections.by_route.contains_key(&id) {
            self.remove_transport(id, CloseReason::Redial);
            self.sync_connections(now);
        }
    }

    /// Says farewell on every connection.
    pub(super) fn close_connections(&self) {
        self.connections
            .by_route
            .values()
            .for_each(|held| held.transport.close(CloseReason::GoingAway));
    }

    /// Makes connections follow the routes: their config, sockets and interfaces.
    pub(super) fn sync_connections(&mut self, now: Time) {
        let wanted = |driver: &Self, id: &RouteId| {
            let known = driver.routes.get(id);
            known.is_some_and(|known| known.plan.spec.transport == route::Transport::Quic)
        };
        let stale: Vec<_> = self
            .connections
            .by_route
            .keys()
            .filter(|id| !self.routes.contains_key(id))
            .copied()
            .collect();
        for id in stale {
            if let Some(held) = self.connections.by_route.remove(&id) {
                held.transport.close(CloseReason::GoingAway);
            }
        }
        let ids: Vec<_> = self.routes.keys().copied().collect();
        for id in ids {
            let here = wanted(self, &id);
            let held = self.connections.by_route.get(&id).map(|held| held.wanted_locally);
            match (held, here) {
                (None, true) => {
                    self.add_transport(id, now);
                }
                (Some(false), true) => {
                    if let Some(held) = self.connections.by_route.get_mut(&id) {
                        (held.wanted_locally, held.expires_at) = (true, None);
                        held.schedule_dial(now);
                    }
                }
                // A peer that still wants it dials.
                (Some(true), false) => self.remove_transport(id, CloseReason::Declined),
                _ => {}
            }
            self.update_transport(id);
        }
    }

    /// The socket and the interface of a route, for its connection; and whether it has one.
    fn update_transport(&mut self, id: RouteId) {
        let Some(held) = self.connections.by_route.get_mut(&id) else { return };
        let Some(known) = self.routes.get(&id) else { return };
        let spec = &known.plan.spec;
        held.transport.set_socket(self.sockets.sockets_at(spec.real_local).first());
        if let Some(interface) = self.host_state.interface(known.plan.ifindex) {
            held.transport.set_mtu(max_udp_payload(interface.mtu, spec.real_remote.ip()));
        }
        held.transport.set_enabled(held.is_enabled());
        let broken = held.is_enabled() && !held.is_up;
        if std::mem::replace(&mut held.fault_reported, broken) == broken {
            return;
        }
        let reason = Reason::NoConnection;
        self.dirty = true;
        self.feed_engine(if broken {
            EngineInput::Fault { route: id, reason }
        } else {
            EngineInput::FaultCleared { route: id, reason }
        });
    }

    fn add_transport(&mut self, id: RouteId, now: Time) -> bool {
        let Some(known) = self.routes.get(&id) else { return false };
        let spec = &known.plan.spec;
        let (peer, remote) = (spec.peer, spec.real_remote);
        let here = spec.transport == route::Transport::Quic;
        let mtu =
            self.host_state.interface(known.plan.ifindex).map_or(0, |interface| interface.mtu);
        let Some(settings) = self.connections.peer_settings(&self.config, peer) else {
            return false;
        };
        let smaller =
            self.config.peer_of(peer).is_some_and(|peer| self.config.public_key < peer.key);
        let mut held = TransportEntry {
            transport: Arc::new(QuicTransport::new(
                settings,
                remote,
                max_udp_payload(mtu, remote.ip()),
            )),
            peer,
            wanted_locally: here,
            wanted_by_peer: false,
            is_up: false,
            fault_reported: false,
            has_smaller_key: smaller,
            dialled_at: None,
            next_dial_at: now,
            expires_at: None,
            last_error: String::new(),
        };
        held.schedule_dial(now);
        self.connections.by_route.insert(id, held);
        true
    }

    /// The route's frames travel in UDP from here on.
    fn remove_transport(&mut self, id: RouteId, why: CloseReason) {
        let Some(held) = self.connections.by_route.remove(&id) else { return };
        held.transport.close(why);
        if held.fault_reported {
            self.feed_engine(EngineInput::FaultCleared { route: id, reason: Reason::NoConnection });
        }
        self.report_frame_limits();
        self.dirty = true;
    }

    fn on_transport_changed(&mut self, id: RouteId, now: Time) {
        let Some(held) = self.connections.by_route.get_mut(&id) else { return };
        if let Some(complaint) = held.transport.take_error()
            && complaint != held.last_error
        {
            tracing::warn!(route = %id, reason = %complaint, "no QUIC connection");
            held.last_error = complaint;
        }
        let unwanted = held.transport.take_declined();
        let up = held.transport.is_connected();
        if std::mem::replace(&mut held.is_up, up) != up {
            tracing::info!(route = %id, up, "QUIC connection");
            if up {
                // Only the peer's own key comes this far.
                held.wanted_by_peer |= !held.wanted_locally;
                held.expires_at = None;
                held.last_error.clear();
            } else {
                held.schedule_dial(now);
                // Whoever wants it dials; until then UDP does no harm.
                held.expires_at = (!held.wanted_locally).then_some(now + PEER_DIAL_TIMEOUT);
            }
        }
        if unwanted {
            held.wanted_by_peer = false;
            if !held.wanted_locally {
                return self.remove_transport(id, CloseReason::GoingAway);
            }
        }
        self.update_transport(id);
        self.report_frame_limits();
        self.dirty = true;
    }

    /// Sends a frame that is not data on a route whose carrier is QUIC; `None` if it is not.
    pub(super) fn send_over_quic(&mut self, route: RouteId, frame: &[u8]) -> Option<SendOutcome> {
        let transport = self.connections.transport_of(route)?;
        let outcome = transport.send_frames(frame, frame.len(), usize::MAX, FrameClass::Control);
        if let Some(counters) = self.workers.counters().first() {
            Counters::add(&counters.tx_frames, outcome.sent);
        }
        if let Some((SendFault::Route, _)) = outcome.fault {
            self.on_send_failed(route);
        }
        Some(outcome)
    }
}

/// UDP payload of an interface, as far as a frame and QUIC's share of it use it.
fn max_udp_payload(mtu: u32, remote: IpAddr) -> u16 {
    let headers = if remote.is_ipv4() { 28 } else { 48 };
    let most = MAX_FRAME_LEN + TRANSPORT_OVERHEAD;
    (mtu as usize).saturating_sub(headers).clamp(MIN_QUIC_PAYLOAD, most) as u16
}
