//! The QUIC connections of routes: which routes have one, who dials, and what their state means
//! for the route.
//!
//! A route's transport is QUIC when the config of either end says so: the end that wants it dials,
//! and an end that is dialled, by the peer's own key and from the route's own address, uses it too,
//! until the peer declines, or is without a connection for three seconds. When both ends want it,
//! the one with the smaller key dials first. Without a connection the route is down at once, for
//! [`Reason::NoConnection`], and the end that wants it dials again every second.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use netft_proto::{
    config::Config,
    engine::EngineInput,
    ids::{NodeKey, PeerId, RouteId},
    route,
    route::Reason,
    session::MAX_FRAME_LEN,
    time::Time,
    wire::header::FRAME_OVERHEAD,
};

use crate::io::{
    control::component::{Action, Actions, Component, Input, View},
    quic::{
        session_cid_tag,
        transport::{
            CidTags, CloseReason, NodeTransportSettings, PeerTransportSettings, QuicTransport,
            TRANSPORT_OVERHEAD,
        },
    },
};

/// How long a handshake may take; every attempt starts anew.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// The shortest time between two attempts.
const MIN_DIAL_INTERVAL: Duration = Duration::from_millis(250);
/// How long the node with the larger key waits for the other one to dial.
const LARGER_KEY_DIAL_DELAY: Duration = Duration::from_millis(300);
/// How long a peer that dials has to prove its key, and one that restarted to dial again.
const PEER_DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Smallest UDP payload QUIC works over (RFC 9000 section 14).
const MIN_QUIC_PAYLOAD: usize = 1200;

/// The connections, and the settings they are made with.
#[derive(Default)]
pub(super) struct QuicConnections {
    /// Made once: certificate and keys of this node.
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
    /// Connected, as of the last poll.
    is_up: bool,
    /// The engine was told that the route has no connection.
    fault_reported: bool,
    has_smaller_key: bool,
    /// The keys it was made with.
    keys: ConnectionKeys,
    dialled_at: Option<Time>,
    /// The earliest moment of the next dial.
    next_dial_at: Time,
    /// Given up then, unless a connection comes up.
    expires_at: Option<Time>,
    /// The error last logged.
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

    /// Every connection, also those on which no peer has proven its key.
    pub(super) fn all_transports(&self) -> impl Iterator<Item = (RouteId, &Arc<QuicTransport>)> {
        self.by_route.iter().map(|(id, held)| (*id, &held.transport))
    }

    /// The largest frame of a route whose interface takes `datagram` bytes, and the bytes that its
    /// transport adds to it.
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

    /// The tags of this node's connection ids, by which a worker knows a packet for a connection
    /// that does not exist, and a first flight.
    pub(super) fn cid_tags(&mut self, config: &Config) -> Option<CidTags> {
        let transport = self.shared_quic_config(config)?.cid_tag();
        Some(CidTags { transport, session: session_cid_tag(&config.key) })
    }

    fn shared_quic_config(&mut self, config: &Config) -> Option<&NodeTransportSettings> {
        if self.shared_config.is_none() {
            let made = NodeTransportSettings::new(&config.key, config.public_key);
            self.shared_config = made
                .inspect_err(|error| tracing::error!(%error, "QUIC transports are unavailable"))
                .ok();
        }
        let shared = self.shared_config.as_mut()?;
        if shared.own_key() != config.public_key
            && let Err(error) = shared.replace_key(&config.key, config.public_key)
        {
            tracing::error!(%error, "QUIC transports go on with the former key");
        }
        Some(shared)
    }

    fn peer_settings(&mut self, config: &Config, peer: PeerId) -> Option<PeerTransportSettings> {
        let keys = config.peer_of(peer)?.accepted_keys();
        let settings = self.shared_quic_config(config)?.for_peer(keys);
        settings
            .inspect_err(|error| tracing::error!(%peer, %error, "no QUIC transport with this peer"))
            .ok()
    }
}

impl Component for QuicConnections {
    /// The next timer, dial or expiry of a connection.
    fn next_wake(&self) -> Option<Time> {
        let due = |held: &TransportEntry| {
            let dial = held.should_dial().then_some(held.next_dial_at);
            [held.transport.next_timeout(), dial, held.expires_at].into_iter().flatten().min()
        };
        self.by_route.values().filter_map(due).min()
    }

    fn on_input(&mut self, now: Time, input: &Input<'_>, view: &View<'_>, actions: &mut Actions) {
        match *input {
            Input::ConnectionChanged(id) => self.on_transport_changed(id, now, view, actions),
            Input::ConnectionRequested(id) => self.on_connection_request(id, now, view, actions),
            Input::PeerRestarted(peer) => self.close_stale_connections(peer, now),
            Input::RemoteLearned(id) if self.by_route.contains_key(&id) => {
                self.remove_transport(id, CloseReason::Redial, actions);
                self.sync_connections(now, view, actions);
            }
            Input::RoutesChanged => self.sync_connections(now, view, actions),
            _ => {}
        }
    }

    /// Timers, dials and state changes of the connections: before the engine's own timers.
    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if view.table_dirty {
            self.sync_connections(now, view, actions);
        }
        let mut changed = Vec::new();
        let mut gone = Vec::new();
        for (id, held) in &mut self.by_route {
            if held.transport.next_timeout().is_some_and(|at| at <= now) {
                held.transport.on_timeout();
            }
            let ready = view.routes.get(*id).is_some_and(|entry| entry.reported_fault.is_none());
            if held.should_dial() && held.next_dial_at <= now {
                held.next_dial_at = now + HANDSHAKE_TIMEOUT;
                if ready {
                    held.dialled_at = Some(now);
                    held.transport.dial();
                }
            }
            // The queue may have had no room for a worker's message.
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
        changed.into_iter().for_each(|id| self.on_transport_changed(id, now, view, actions));
        gone.into_iter().for_each(|id| self.remove_transport(id, CloseReason::GoingAway, actions));
    }
}

impl QuicConnections {
    /// Gives the peer at the far end of a route, which dials, the time to prove its key.
    fn on_connection_request(
        &mut self,
        id: RouteId,
        now: Time,
        view: &View<'_>,
        actions: &mut Actions,
    ) {
        if !self.by_route.contains_key(&id) && self.add_transport(id, now, view) {
            if let Some(held) = self.by_route.get_mut(&id) {
                held.expires_at = Some(now + PEER_DIAL_TIMEOUT);
            }
            self.sync_connections(now, view, actions);
            actions.push(Action::RebuildTable("a peer asks for a QUIC connection"));
        }
    }

    /// The peer was restarted: connections with its former run are of no use.
    fn close_stale_connections(&mut self, peer: PeerId, now: Time) {
        for held in self.by_route.values_mut().filter(|held| held.peer == peer) {
            held.transport.close(CloseReason::Redial);
            held.expires_at = held.wanted_by_peer.then_some(now + PEER_DIAL_TIMEOUT);
        }
    }

    /// Closes every connection: the node stops.
    pub(super) fn close_all(&self) {
        self.by_route.values().for_each(|held| held.transport.close(CloseReason::GoingAway));
    }

    /// Makes connections follow the routes: their config, sockets and interfaces.
    fn sync_connections(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        self.by_route.retain(|id, held| {
            let exists = view.routes.contains(*id);
            if !exists {
                held.transport.close(CloseReason::GoingAway);
            }
            exists
        });
        self.replace_stale_keys(view.config, actions);
        for (id, entry) in view.routes.iter() {
            let wanted = entry.plan.spec.transport == route::Transport::Quic;
            match (self.by_route.get_mut(&id), wanted) {
                (None, true) => {
                    self.add_transport(id, now, view);
                }
                (Some(held), true) if !held.wanted_locally => {
                    (held.wanted_locally, held.expires_at) = (true, None);
                    held.schedule_dial(now);
                }
                // A peer that still wants it dials.
                (Some(held), false) if held.wanted_locally => {
                    self.remove_transport(id, CloseReason::Declined, actions);
                }
                _ => {}
            }
            self.update_transport(id, view, actions);
        }
    }

    /// Removes the connections that are down and would be dialled with keys that were replaced; one
    /// that is up goes on.
    fn replace_stale_keys(&mut self, config: &Config, actions: &mut Actions) {
        let is_stale = |held: &TransportEntry| {
            !held.is_up && node_keys(config, held.peer).is_some_and(|keys| keys != held.keys)
        };
        let stale = self.by_route.iter().filter(|(_, held)| is_stale(held));
        let stale: Vec<_> = stale.map(|(id, _)| *id).collect();
        stale.into_iter().for_each(|id| self.remove_transport(id, CloseReason::Redial, actions));
    }

    /// Gives a connection the socket and the interface of its route, and reports whether the
    /// route lacks one.
    fn update_transport(&mut self, id: RouteId, view: &View<'_>, actions: &mut Actions) {
        let Some(held) = self.by_route.get_mut(&id) else { return };
        let Some(entry) = view.routes.get(id) else { return };
        let spec = &entry.plan.spec;
        held.transport.set_socket(view.sockets.sockets_at(spec.real_local).first());
        if let Some(interface) = view.planner.host_state().interface(entry.plan.ifindex) {
            held.transport.set_mtu(max_udp_payload(interface.mtu, spec.real_remote.ip()));
        }
        held.transport.set_enabled(held.is_enabled());
        let broken = held.is_enabled() && !held.is_up;
        if std::mem::replace(&mut held.fault_reported, broken) == broken {
            return;
        }
        let reason = Reason::NoConnection;
        actions.push(Action::RebuildTable("a route's QUIC connection came or went"));
        actions.feed_engine(if broken {
            EngineInput::Fault { route: id, reason }
        } else {
            EngineInput::FaultCleared { route: id, reason }
        });
    }

    fn add_transport(&mut self, id: RouteId, now: Time, view: &View<'_>) -> bool {
        let Some(entry) = view.routes.get(id) else { return false };
        let spec = &entry.plan.spec;
        let (peer, remote) = (spec.peer, spec.real_remote.ip());
        let interface = view.planner.host_state().interface(entry.plan.ifindex);
        let mtu = max_udp_payload(interface.map_or(0, |interface| interface.mtu), remote);
        let Some(settings) = self.peer_settings(view.config, peer) else { return false };
        let Some(keys) = node_keys(view.config, peer) else { return false };
        let has_smaller_key =
            view.config.peer_of(peer).is_some_and(|peer| view.config.public_key < peer.key);
        let mut held = TransportEntry {
            transport: Arc::new(QuicTransport::new(settings, spec.real_remote, mtu)),
            peer,
            wanted_locally: spec.transport == route::Transport::Quic,
            wanted_by_peer: false,
            is_up: false,
            fault_reported: false,
            has_smaller_key,
            keys,
            dialled_at: None,
            next_dial_at: now,
            expires_at: None,
            last_error: String::new(),
        };
        held.schedule_dial(now);
        self.by_route.insert(id, held);
        true
    }

    /// The route's frames travel in UDP from here on.
    fn remove_transport(&mut self, id: RouteId, why: CloseReason, actions: &mut Actions) {
        let Some(held) = self.by_route.remove(&id) else { return };
        held.transport.close(why);
        let is_restart = matches!(why, CloseReason::Redial);
        if held.is_enabled() && !is_restart {
            tracing::info!(route = %id, peer = %held.peer, transport = "udp", "transport changed");
        }
        if held.fault_reported {
            let reason = Reason::NoConnection;
            actions.feed_engine(EngineInput::FaultCleared { route: id, reason });
        }
        actions.push(Action::UpdateFrameLimits);
        actions.push(Action::RebuildTable("a route's transport is UDP again"));
    }

    fn on_transport_changed(
        &mut self,
        id: RouteId,
        now: Time,
        view: &View<'_>,
        actions: &mut Actions,
    ) {
        let Some(held) = self.by_route.get_mut(&id) else { return };
        if let Some(error) = held.transport.take_error()
            && error != held.last_error
        {
            tracing::warn!(route = %id, peer = %held.peer, reason = %error, "no QUIC connection");
            held.last_error = error;
        }
        let declined = held.transport.take_declined();
        let up = held.transport.is_connected();
        if std::mem::replace(&mut held.is_up, up) != up {
            tracing::info!(route = %id, peer = %held.peer, up, "QUIC connection");
            if up {
                // Only a peer that proves its own key comes this far.
                held.wanted_by_peer |= !held.wanted_locally;
                held.expires_at = None;
                held.last_error.clear();
            } else {
                held.schedule_dial(now);
                // The end that wants it dials; until then UDP does no harm.
                held.expires_at = (!held.wanted_locally).then_some(now + PEER_DIAL_TIMEOUT);
            }
        }
        if declined {
            held.wanted_by_peer = false;
            if !held.wanted_locally {
                return self.remove_transport(id, CloseReason::GoingAway, actions);
            }
        }
        self.update_transport(id, view, actions);
        actions.push(Action::UpdateFrameLimits);
        actions.push(Action::RebuildTable("a route's QUIC connection changed"));
    }
}

/// Keys that a connection with a peer rests on: this node's, and those of the peer.
type ConnectionKeys = (NodeKey, Vec<NodeKey>);

fn node_keys(config: &Config, peer: PeerId) -> Option<ConnectionKeys> {
    Some((config.public_key, config.peer_of(peer)?.accepted_keys().collect()))
}

/// Largest UDP payload of an interface, at most a frame with QUIC's overhead.
fn max_udp_payload(mtu: u32, remote: IpAddr) -> u16 {
    let headers = if remote.is_ipv4() { 28 } else { 48 };
    let most = MAX_FRAME_LEN + TRANSPORT_OVERHEAD;
    (mtu as usize).saturating_sub(headers).clamp(MIN_QUIC_PAYLOAD, most) as u16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::io::{
        control::test_node::{TestNode, actions_of, due_actions},
        identity,
    };

    const PEER: PeerId = PeerId(0);

    /// A node with one route, whose peer has a usable key.
    fn node() -> (TestNode, RouteId) {
        let mut node = TestNode::new(1);
        let key = identity::generate_key().unwrap();
        node.config.peers[0].key = identity::public_key(&key).unwrap();
        let id = node.add_route(PEER);
        (node, id)
    }

    fn is_fault(action: &Action) -> bool {
        matches!(action, Action::Engine(EngineInput::Fault { reason: Reason::NoConnection, .. }))
    }

    #[test]
    fn a_route_over_quic_is_down_and_dialled_until_its_connection_is_up() {
        let (mut node, id) = node();
        let (mut connections, at) = (QuicConnections::default(), Time::from_millis);
        let changed = Input::RoutesChanged;
        assert!(actions_of(&mut connections, at(0), &changed, &node).is_empty(), "all is UDP");
        node.routes.get_mut(id).unwrap().plan.spec.transport = route::Transport::Quic;
        let wanted = actions_of(&mut connections, at(0), &changed, &node);
        assert!(wanted.iter().any(is_fault), "{wanted:?}");
        assert!(connections.transport_of(id).is_some_and(|transport| transport.is_enabled()));
        let dial = connections.next_wake().unwrap();
        assert!(dial <= at(300), "the node with the larger key waits 300 ms");
        due_actions(&mut connections, dial, &node);
        assert!(connections.by_route[&id].dialled_at == Some(dial));
        let again = connections.by_route[&id].next_dial_at;
        assert_eq!(again.since(dial), HANDSHAKE_TIMEOUT);

        node.routes.get_mut(id).unwrap().plan.spec.transport = route::Transport::Udp;
        let udp = actions_of(&mut connections, at(400), &changed, &node);
        assert!(
            matches!(udp[..], [Action::Engine(EngineInput::FaultCleared { .. }), ..]),
            "{udp:?}"
        );
        assert!(connections.transport_of(id).is_none() && connections.next_wake().is_none());
    }

    #[test]
    fn a_peer_that_dials_has_three_seconds_to_prove_its_key() {
        let (node, id) = node();
        let (mut connections, at) = (QuicConnections::default(), Time::from_millis);
        let requested = Input::ConnectionRequested(id);
        let actions = actions_of(&mut connections, at(0), &requested, &node);
        assert!(matches!(actions[..], [Action::RebuildTable(_)]), "{actions:?}");
        assert!(connections.transport_of(id).is_none(), "frames stay in UDP meanwhile");
        assert_eq!(connections.all_transports().count(), 1);
        assert!(actions_of(&mut connections, at(1), &requested, &node).is_empty());
        due_actions(&mut connections, at(2999), &node);
        assert_eq!(connections.all_transports().count(), 1);
        due_actions(&mut connections, at(3000), &node);
        assert_eq!(connections.all_transports().count(), 0);
    }

    #[test]
    fn a_connection_goes_with_its_route() {
        let (mut node, id) = node();
        let mut connections = QuicConnections::default();
        node.routes.get_mut(id).unwrap().plan.spec.transport = route::Transport::Quic;
        actions_of(&mut connections, Time::ZERO, &Input::RoutesChanged, &node);
        node.routes.remove(id);
        assert!(actions_of(&mut connections, Time::ZERO, &Input::RoutesChanged, &node).is_empty());
        assert_eq!(connections.all_transports().count(), 0);
    }
}
