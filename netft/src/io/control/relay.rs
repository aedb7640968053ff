//! Routes over relays: added when a peer has no direct route that is up, removed when it has again.
//! Which peers relay, they advertise themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use netft_proto::{
    config::Config,
    ids::{PeerId, RouteId},
    route::{Attributes, Priority, RouteSpec, RouteState, Transport},
    time::Time,
    topology::{Interface, PlannedRoute},
    wire::relay::RELAY_OVERHEAD,
};

use crate::io::{
    control::{
        component::{Action, Actions, Component, Input, View},
        sockets::Sockets,
    },
    datapath::workers::Workers,
    fib::Fib,
    relays::RelayEndpoint,
};

/// The time between two checks.
const RELAY_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a peer must be without a direct route before a relay is tried.
const OUTAGE_BEFORE_RELAY: Duration = Duration::from_secs(1);
/// How long a peer must have one before the relay is left.
const DIRECT_UP_BEFORE_LEAVING: Duration = Duration::from_secs(10);
/// The most relays to one peer.
const MAX_RELAYS: usize = 2;
/// Worse than any sum of metrics.
const RELAY_PRIORITY: Priority = Priority(4_000_000_000);
/// A datagram every path carries (RFC 8899 section 5.1.2), while a relay's routes are unknown.
const BASE_PLPMTU: usize = 1200;

/// The routes over relays, and when each peer lost or regained its direct routes.
#[derive(Default)]
pub(super) struct RelayRoutes {
    /// As of the config.
    is_enabled: bool,
    endpoints: BTreeMap<RouteId, Arc<RelayEndpoint>>,
    /// By peer: it has a direct route that is up, and since when that holds.
    direct_since: BTreeMap<PeerId, (bool, Time)>,
    next_check: Time,
    /// The last attempt to open sockets failed.
    open_failed: bool,
}

impl Component for RelayRoutes {
    fn next_wake(&self) -> Option<Time> {
        (self.is_enabled || !self.endpoints.is_empty()).then_some(self.next_check)
    }

    /// A peer sends over a relay: it has no direct route, so this node answers the same way.
    fn on_input(&mut self, _: Time, input: &Input<'_>, view: &View<'_>, actions: &mut Actions) {
        let Input::RelayedPeer { via, peer } = *input else { return };
        if !view.config.relay.use_relays || !view.planner.offers_relay(via) {
            return;
        }
        let direct = self.directly_reachable_peers(view);
        if direct.contains(&via) && !direct.contains(&peer) {
            self.open_relays(peer, &[via], actions);
        }
    }

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        self.is_enabled = view.config.relay.use_relays;
        if self.next_wake().is_none_or(|due| now < due) {
            return;
        }
        self.next_check = now + RELAY_CHECK_INTERVAL;
        let direct = self.directly_reachable_peers(view);
        let peers: Vec<_> = view.config.peers.iter().map(|peer| peer.id).collect();
        self.record_reachability(now, &peers, &direct);
        self.close_unneeded(now, &direct, view, actions);
        for peer in peers.into_iter().filter(|_| self.is_enabled) {
            let known = self.direct_since.get(&peer);
            if known.is_some_and(|(up, since)| !up && now.since(*since) >= OUTAGE_BEFORE_RELAY) {
                let relays: Vec<_> =
                    direct.iter().copied().filter(|via| view.planner.offers_relay(*via)).collect();
                self.open_relays(peer, &relays, actions);
            }
        }
        if !self.endpoints.is_empty() {
            actions.push(Action::UpdateFrameLimits);
        }
    }
}

impl RelayRoutes {
    /// The routes over relays, with their sockets.
    pub(super) fn endpoints(&self) -> &BTreeMap<RouteId, Arc<RelayEndpoint>> {
        &self.endpoints
    }

    /// A route over a relay was added.
    pub(super) fn on_opened(&mut self, route: RouteId, endpoint: RelayEndpoint) {
        self.open_failed = false;
        self.endpoints.insert(route, Arc::new(endpoint));
    }

    /// The sockets of a route over a relay did not open. Returns whether that is new.
    pub(super) fn on_open_failed(&mut self) -> bool {
        !std::mem::replace(&mut self.open_failed, true)
    }

    /// True if the socket at a local address is the outer one of a route over a relay.
    pub(super) fn is_outer_socket(&self, local: SocketAddr) -> bool {
        self.endpoints.values().any(|endpoint| endpoint.outer.local == local)
    }

    /// The largest datagram that passes over a relay, as far as this node's route to it goes.
    pub(super) fn max_datagram(&self, route: RouteId, fib: &Fib) -> Option<usize> {
        let via = self.endpoints.get(&route)?.via;
        let frame = fib.peers.iter().find(|entry| entry.peer == via)?.max_frame();
        Some(frame.saturating_sub(RELAY_OVERHEAD).max(BASE_PLPMTU))
    }

    /// The peers with a direct route that is up.
    fn directly_reachable_peers(&self, view: &View<'_>) -> BTreeSet<PeerId> {
        let routes = view.engine.route_statuses().into_iter();
        let direct = routes.filter(|route| !self.endpoints.contains_key(&route.id));
        direct.filter(|route| route.state == RouteState::Up).map(|route| route.spec.peer).collect()
    }

    fn record_reachability(&mut self, now: Time, peers: &[PeerId], direct: &BTreeSet<PeerId>) {
        self.direct_since.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            let up = direct.contains(peer);
            let known = self.direct_since.entry(*peer).or_insert((up, now));
            if known.0 != up {
                *known = (up, now);
            }
        }
    }

    /// Removes routes over relays that are out of reach or no longer needed.
    fn close_unneeded(
        &mut self,
        now: Time,
        direct: &BTreeSet<PeerId>,
        view: &View<'_>,
        actions: &mut Actions,
    ) {
        let Self { is_enabled, endpoints, direct_since, .. } = self;
        endpoints.retain(|route, endpoint| {
            let has_settled =
                |(up, since): &(bool, Time)| *up && now.since(*since) >= DIRECT_UP_BEFORE_LEAVING;
            let reason = if !*is_enabled {
                "relays are disabled"
            } else if !direct.contains(&endpoint.via) {
                "the relay is out of reach"
            } else if direct_since.get(&endpoint.peer).is_none_or(has_settled) {
                "the peer has a direct route"
            } else if !view.routes.contains(*route) {
                "the route was removed"
            } else {
                return true;
            };
            let (peer, via) = (endpoint.peer, endpoint.via);
            tracing::info!(%route, %peer, %via, reason, "relay left");
            let sockets = [endpoint.inner.local, endpoint.outer.local];
            actions.push(Action::CloseRelay { route: *route, sockets });
            false
        });
    }

    /// Adds routes to a peer over those of `relays` it has none over yet.
    fn open_relays(&self, peer: PeerId, relays: &[PeerId], actions: &mut Actions) {
        let used = self.endpoints.values().filter(|endpoint| endpoint.peer == peer);
        let used: BTreeSet<_> = used.map(|endpoint| endpoint.via).collect();
        let free = relays.iter().copied().filter(|via| *via != peer && !used.contains(via));
        for via in free.take(MAX_RELAYS.saturating_sub(used.len())) {
            actions.push(Action::OpenRelay { via, peer });
        }
    }
}

/// Opens the two sockets of a route over a relay on the loopback interface, at ports the kernel
/// chooses.
///
/// # Errors
/// Of opening a socket; none is left open.
pub(super) fn open_endpoint(
    (via, peer): (PeerId, PeerId),
    loopback: u32,
    sockets: &mut Sockets,
    workers: &Workers,
) -> io::Result<RelayEndpoint> {
    let bind_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let worker = usize::from(peer.0);
    let inner = sockets.open_ephemeral(bind_addr, loopback, worker, workers)?;
    match sockets.open_ephemeral(bind_addr, loopback, worker, workers) {
        Ok(outer) => Ok(RelayEndpoint { via, peer, inner, outer }),
        Err(error) => {
            sockets.close_sockets(inner.local, workers);
            Err(error)
        }
    }
}

/// The route between the two sockets of a relay endpoint.
pub(super) fn plan_route(
    config: &Config,
    endpoint: &RelayEndpoint,
    loopback: &Interface,
) -> Option<PlannedRoute> {
    let peer = config.peer_of(endpoint.peer)?;
    let spec = RouteSpec {
        peer: peer.id,
        real_local: endpoint.inner.local,
        real_remote: endpoint.outer.local,
        virtual_local: config.adapter.addrs.v6.into(),
        virtual_remote: peer.addrs.v6.into(),
        timing: config.heartbeat.timings.cross_subnet,
        priority: RELAY_PRIORITY,
        attributes: Attributes(Attributes::RELAYED),
        transport: Transport::Udp,
    };
    Some(PlannedRoute { spec, ifindex: loopback.index, ifname: loopback.name.clone() })
}

#[cfg(test)]
mod tests {
    use netft_proto::{config::RelayConfig, wire::interfaces::Advertisement};

    use super::*;
    use crate::io::{
        control::test_node::{TestNode, actions_of, due_actions},
        socket::{SocketId, UdpSocket},
        sys::udp,
    };

    const RELAY: PeerId = PeerId(0);
    const PEER: PeerId = PeerId(1);

    /// A node whose peer [`RELAY`] relays and is up, and whose peer [`PEER`] has no route.
    fn node_with_relay() -> TestNode {
        let mut node = TestNode::new(2);
        node.config.relay = RelayConfig { use_relays: true, ..RelayConfig::default() };
        let route = node.add_route(RELAY);
        node.bring_up(Time::from_millis(1), RELAY, route);
        let list = Advertisement { serial: 1, offers_relay: true, ..Advertisement::default() };
        assert!(node.planner.on_advertisement(RELAY, &list));
        node
    }

    #[test]
    fn a_peer_without_a_direct_route_for_a_second_is_tried_over_a_relay() {
        let node = node_with_relay();
        let (mut relays, at) = (RelayRoutes::default(), Time::from_millis);
        assert!(due_actions(&mut relays, at(10), &node).is_empty());
        assert_eq!(relays.next_wake(), Some(at(110)));
        assert!(due_actions(&mut relays, at(900), &node).is_empty());
        let due = due_actions(&mut relays, at(1010), &node);
        assert!(matches!(due[..], [Action::OpenRelay { via: RELAY, peer: PEER }]), "{due:?}");
    }

    #[test]
    fn a_peer_that_sends_over_a_relay_is_answered_over_it_at_once() {
        let node = node_with_relay();
        let mut relays = RelayRoutes::default();
        let relayed = |via, peer| Input::RelayedPeer { via, peer };
        let actions = actions_of(&mut relays, Time::ZERO, &relayed(RELAY, PEER), &node);
        assert!(matches!(actions[..], [Action::OpenRelay { via: RELAY, peer: PEER }]));
        let direct = actions_of(&mut relays, Time::ZERO, &relayed(RELAY, RELAY), &node);
        assert!(direct.is_empty(), "it has a direct route");
        let unknown = actions_of(&mut relays, Time::ZERO, &relayed(PEER, RELAY), &node);
        assert!(unknown.is_empty(), "that one does not relay");
    }

    #[test]
    fn nothing_is_due_while_relays_are_disabled() {
        let node = TestNode::new(2);
        let mut relays = RelayRoutes::default();
        assert!(due_actions(&mut relays, Time::from_millis(5000), &node).is_empty());
        assert_eq!(relays.next_wake(), None);
    }

    #[test]
    fn sockets_that_do_not_open_are_told_once_until_they_open() {
        let mut relays = RelayRoutes::default();
        assert!(relays.on_open_failed());
        assert!(!relays.on_open_failed(), "a warning that repeats every second says nothing");
        let local = "127.0.0.1:0".parse().unwrap_or_else(|error| panic!("{error}"));
        let socket = |id| {
            let fd = udp::open_socket(local, 1, false).unwrap_or_else(|error| panic!("{error}"));
            Arc::new(UdpSocket { id: SocketId(id), local, ifindex: 1, worker: 0, fd, fault: None })
        };
        let endpoint = RelayEndpoint { via: RELAY, peer: PEER, inner: socket(1), outer: socket(2) };
        relays.on_opened(RouteId(1), endpoint);
        assert!(relays.on_open_failed(), "it had worked in between");
    }
}
