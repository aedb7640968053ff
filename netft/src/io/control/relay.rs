//! Ways over a relay: they come when a peer is reached over no route of its own, and go when it is
//! again. Which peers relay, they say themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use netft_proto::{
    engine::EngineInput,
    ids::{PeerId, RouteId},
    route::{Attributes, Priority, RouteSpec, RouteState, Transport},
    time::Time,
    topology::{Interface, PlannedRoute},
    wire::relay::RELAY_OVERHEAD,
};

use crate::io::{
    control::driver::{Driver, RouteEntry},
    relays::RelayEndpoint,
};

/// How often to look.
const RELAY_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a peer must be without a route of its own before a relay is tried.
const OUTAGE_BEFORE_RELAY: Duration = Duration::from_secs(1);
/// How long a peer must have one before the relay is left.
const DIRECT_UP_BEFORE_LEAVING: Duration = Duration::from_secs(10);
/// The most relays to one peer.
const MAX_RELAYS: usize = 2;
/// Worse than any sum of metrics.
const RELAY_PRIORITY: Priority = Priority(4_000_000_000);
/// A datagram every path carries (RFC 8899 section 5.1.2), while a relay's routes are unknown.
const BASE_PLPMTU: usize = 1200;

/// What the driver knows of its ways over relays.
#[derive(Default)]
pub(super) struct RelayRoutes {
    pub(super) endpoints: BTreeMap<RouteId, Arc<RelayEndpoint>>,
    /// Whether each peer has a route of its own that is up, and since when.
    direct_since: BTreeMap<PeerId, (bool, Time)>,
    next_check: Time,
}

impl Driver {
    /// Looks at every peer, every [`RELAY_CHECK_INTERVAL`].
    pub(super) fn poll_relays(&mut self, now: Time) {
        let uses = self.config.relay.use_relays;
        if !uses && self.relay_routes.endpoints.is_empty() || now < self.relay_routes.next_check {
            return;
        }
        self.relay_routes.next_check = now + RELAY_CHECK_INTERVAL;
        let direct = self.directly_reachable_peers();
        let peers: Vec<_> = self.config.peers.iter().map(|peer| peer.id).collect();
        self.relay_routes.direct_since.retain(|peer, _| peers.contains(peer));
        for peer in &peers {
            let up = direct.contains(peer);
            let known = self.relay_routes.direct_since.entry(*peer).or_insert((up, now));
            if known.0 != up {
                *known = (up, now);
            }
        }
        let spent = |port: &RelayEndpoint| {
            let rested =
                |(up, since): &(bool, Time)| *up && now.since(*since) >= DIRECT_UP_BEFORE_LEAVING;
            !uses
                || !direct.contains(&port.via)
                || self.relay_routes.direct_since.get(&port.peer).is_none_or(rested)
        };
        let gone = self
            .relay_routes
            .endpoints
            .iter()
            .filter(|(id, port)| spent(port) || !self.routes.contains_key(id));
        let gone: Vec<_> = gone.map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.remove_relay_route(id));
        for peer in peers {
            let known = self.relay_routes.direct_since.get(&peer);
            if uses
                && known.is_some_and(|(up, since)| !up && now.since(*since) >= OUTAGE_BEFORE_RELAY)
            {
                let relays: Vec<_> = {
                    let advertisements = self.advertisements.borrow();
                    let relays = direct.iter().filter(|via| {
                        advertisements.get(via).is_some_and(|list| list.offers_relay)
                    });
                    relays.copied().collect()
                };
                relays.into_iter().for_each(|via| self.try_relay_route(via, peer));
            }
        }
        if !self.relay_routes.endpoints.is_empty() {
            self.report_frame_limits();
        }
    }

    /// A peer uses a relay this node has no way over yet.
    pub(super) fn on_relayed_peer(&mut self, via: PeerId, peer: PeerId) {
        let direct = self.directly_reachable_peers();
        let relays = self.advertisements.borrow().get(&via).is_some_and(|list| list.offers_relay);
        let uses = self.config.relay.use_relays && relays;
        if uses && direct.contains(&via) && !direct.contains(&peer) {
            self.try_relay_route(via, peer);
        }
    }

    /// The largest datagram that passes over a relay, as far as this node's way to it goes.
    pub(super) fn relay_max_datagram(&self, id: RouteId) -> Option<usize> {
        let via = self.relay_routes.endpoints.get(&id)?.via;
        let fib = self.fib.load();
        let frame = fib.peers.iter().find(|entry| entry.peer == via)?.max_frame();
        Some(frame.saturating_sub(RELAY_OVERHEAD).max(BASE_PLPMTU))
    }

    /// The peers with a route of their own that is up.
    fn directly_reachable_peers(&self) -> BTreeSet<PeerId> {
        let routes = self.engine.route_statuses().into_iter();
        let own = routes.filter(|route| !self.relay_routes.endpoints.contains_key(&route.id));
        own.filter(|route| route.state == RouteState::Up).map(|route| route.spec.peer).collect()
    }

    fn try_relay_route(&mut self, via: PeerId, peer: PeerId) {
        let ports = self.relay_routes.endpoints.values().filter(|port| port.peer == peer);
        let relays: Vec<_> = ports.map(|port| port.via).collect();
        if via == peer || relays.contains(&via) || relays.len() >= MAX_RELAYS {
            return;
        }
        let loopback = Ipv4Addr::LOCALHOST.into();
        let interface = self
            .host_state
            .interfaces
            .iter()
            .find(|one| one.up && one.owns_address(loopback))
            .cloned();
        let Some(interface) = interface else {
            return tracing::warn!("no relay without the loopback interface: ip link set lo up");
        };
        if let Err(error) = self.add_relay_route(via, peer, &interface) {
            tracing::warn!(%error, "cannot open the sockets of a relay");
        }
    }

    fn add_relay_route(
        &mut self,
        via: PeerId,
        peer: PeerId,
        loopback: &Interface,
    ) -> io::Result<()> {
        let Some(config) = self.config.peer_of(peer) else { return Ok(()) };
        let (virtual_local, virtual_remote) =
            (self.config.adapter.addrs.v6.into(), config.addrs.v6.into());
        let local = (Ipv4Addr::LOCALHOST, 0).into();
        let inner = self.sockets.open_ephemeral(
            local,
            loopback.index,
            usize::from(peer.0),
            &self.workers,
        )?;
        let outer = match self.sockets.open_ephemeral(
            local,
            loopback.index,
            usize::from(peer.0),
            &self.workers,
        ) {
            Ok(back) => back,
            Err(error) => {
                self.sockets.close_sockets(inner.local, &self.workers);
                return Err(error);
            }
        };
        let spec = RouteSpec {
            peer,
            real_local: inner.local,
            real_remote: outer.local,
            virtual_local,
            virtual_remote,
            timing: self.config.heartbeat.timings.cross_subnet,
            priority: RELAY_PRIORITY,
            attributes: Attributes(Attributes::RELAYED),
            transport: Transport::Udp,
        };
        let plan = PlannedRoute {
            spec: spec.clone(),
            ifindex: loopback.index,
            ifname: loopback.name.clone(),
        };
        let id = self.next_route_id();
        let endpoint = RelayEndpoint { via, peer, inner, outer };
        self.relay_routes.endpoints.insert(id, Arc::new(endpoint));
        self.routes.insert(id, RouteEntry::new(plan));
        self.feed_engine(EngineInput::AddRoute { id, spec });
        self.sync_sockets();
        self.dirty = true;
        Ok(())
    }

    fn remove_relay_route(&mut self, id: RouteId) {
        let Some(port) = self.relay_routes.endpoints.remove(&id) else { return };
        if self.routes.remove(&id).is_some() {
            self.feed_engine(EngineInput::RemoveRoute(id));
        }
        for socket in [&port.inner, &port.outer] {
            self.sockets.close_sockets(socket.local, &self.workers);
        }
        self.dirty = true;
    }
}

impl RelayRoutes {
    /// When to look next, if ever.
    pub(super) fn next_wake(&self, uses: bool) -> Option<Time> {
        (uses || !self.endpoints.is_empty()).then_some(self.next_check)
    }

    /// Whether the socket at a local address is the far end of a way over a relay.
    pub(super) fn is_outer_socket(&self, local: SocketAddr) -> bool {
        self.endpoints.values().any(|port| port.outer.local == local)
    }
}
