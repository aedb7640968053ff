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
    engine::Input,
    ids::{PeerId, RouteId},
    route::{Attributes, Carrier, Priority, RouteSpec, RouteState},
    time::Time,
    topology::{Interface, Planned},
    wire::relay::RELAY_OVERHEAD,
};

use crate::io::{
    control::driver::{Driver, Known},
    relays::Port,
};

/// How often to look.
const LOOK: Duration = Duration::from_millis(100);
/// How long a peer must be without a route of its own before a relay is tried.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a peer must have one before the relay is left.
const REST: Duration = Duration::from_secs(10);
/// The most relays to one peer.
const MAX_RELAYS: usize = 2;
/// Worse than any sum of metrics.
const PRIORITY: Priority = Priority(4_000_000_000);
/// A datagram every path carries (RFC 8899 section 5.1.2), while a relay's routes are unknown.
const BASE: usize = 1200;

/// What the driver knows of its ways over relays.
#[derive(Default)]
pub(super) struct Ways {
    pub(super) ports: BTreeMap<RouteId, Arc<Port>>,
    /// Whether each peer has a route of its own that is up, and since when.
    direct: BTreeMap<PeerId, (bool, Time)>,
    due: Time,
}

impl Driver {
    /// Looks at every peer, every [`LOOK`].
    pub(super) fn mind_relays(&mut self, now: Time) {
        let uses = self.config.relay.uses;
        if !uses && self.ways.ports.is_empty() || now < self.ways.due {
            return;
        }
        self.ways.due = now + LOOK;
        let direct = self.reached();
        let peers: Vec<_> = self.config.peers.iter().map(|peer| peer.id).collect();
        self.ways.direct.retain(|peer, _| peers.contains(peer));
        for peer in &peers {
            let up = direct.contains(peer);
            let known = self.ways.direct.entry(*peer).or_insert((up, now));
            if known.0 != up {
                *known = (up, now);
            }
        }
        let spent = |port: &Port| {
            let rested = |(up, since): &(bool, Time)| *up && now.since(*since) >= REST;
            !uses
                || !direct.contains(&port.via)
                || self.ways.direct.get(&port.peer).is_none_or(rested)
        };
        let gone = self
            .ways
            .ports
            .iter()
            .filter(|(id, port)| spent(port) || !self.routes.contains_key(id));
        let gone: Vec<_> = gone.map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.leave_relay(id));
        for peer in peers {
            let known = self.ways.direct.get(&peer);
            if uses && known.is_some_and(|(up, since)| !up && now.since(*since) >= PATIENCE) {
                let relays: Vec<_> = {
                    let told = self.told.borrow();
                    let relays =
                        direct.iter().filter(|via| told.get(via).is_some_and(|list| list.relays));
                    relays.copied().collect()
                };
                relays.into_iter().for_each(|via| self.try_relay(via, peer));
            }
        }
        if !self.ways.ports.is_empty() {
            self.tell_limits();
        }
    }

    /// A peer uses a relay this node has no way over yet.
    pub(super) fn relayed(&mut self, via: PeerId, peer: PeerId) {
        let direct = self.reached();
        let relays = self.told.borrow().get(&via).is_some_and(|list| list.relays);
        let uses = self.config.relay.uses && relays;
        if uses && direct.contains(&via) && !direct.contains(&peer) {
            self.try_relay(via, peer);
        }
    }

    /// The largest datagram that passes over a relay, as far as this node's way to it goes.
    pub(super) fn relay_room(&self, id: RouteId) -> Option<usize> {
        let via = self.ways.ports.get(&id)?.via;
        let fib = self.fib.load();
        let frame = fib.peers.iter().find(|entry| entry.peer == via)?.max_frame();
        Some(frame.saturating_sub(RELAY_OVERHEAD).max(BASE))
    }

    /// The peers with a route of their own that is up.
    fn reached(&self) -> BTreeSet<PeerId> {
        let routes = self.engine.routes().into_iter();
        let own = routes.filter(|route| !self.ways.ports.contains_key(&route.id));
        own.filter(|route| route.state == RouteState::Up).map(|route| route.spec.peer).collect()
    }

    fn try_relay(&mut self, via: PeerId, peer: PeerId) {
        let ports = self.ways.ports.values().filter(|port| port.peer == peer);
        let vias: Vec<_> = ports.map(|port| port.via).collect();
        if via == peer || vias.contains(&via) || vias.len() >= MAX_RELAYS {
            return;
        }
        let home = Ipv4Addr::LOCALHOST.into();
        let interface = self.world.interfaces.iter().find(|one| one.up && one.owns(home)).cloned();
        let Some(interface) = interface else {
            return tracing::warn!("no relay without the loopback interface: ip link set lo up");
        };
        if let Err(error) = self.add_relay(via, peer, &interface) {
            tracing::warn!(%error, "cannot open the sockets of a relay");
        }
    }

    fn add_relay(&mut self, via: PeerId, peer: PeerId, home: &Interface) -> io::Result<()> {
        let Some(config) = self.config.peer_of(peer) else { return Ok(()) };
        let (virtual_local, virtual_remote) = (self.config.addrs.v6.into(), config.addrs.v6.into());
        let local = (Ipv4Addr::LOCALHOST, 0).into();
        let front = self.sockets.one(local, home.index, usize::from(peer.0), &self.workers)?;
        let back = match self.sockets.one(local, home.index, usize::from(peer.0), &self.workers) {
            Ok(back) => back,
            Err(error) => {
                self.sockets.close(front.local, &self.workers);
                return Err(error);
            }
        };
        let spec = RouteSpec {
            peer,
            real_local: front.local,
            real_remote: back.local,
            virtual_local,
            virtual_remote,
            timing: self.config.timings.cross_subnet,
            priority: PRIORITY,
            attributes: Attributes(Attributes::RELAYED),
            carrier: Carrier::Udp,
        };
        let plan = Planned { spec: spec.clone(), ifindex: home.index, ifname: home.name.clone() };
        let id = self.next_route();
        let port = Port { via, peer, front, back };
        self.ways.ports.insert(id, Arc::new(port));
        self.routes.insert(id, Known::new(plan));
        self.input(Input::AddRoute { id, spec });
        self.follow_addresses();
        self.dirty = true;
        Ok(())
    }

    fn leave_relay(&mut self, id: RouteId) {
        let Some(port) = self.ways.ports.remove(&id) else { return };
        if self.routes.remove(&id).is_some() {
            self.input(Input::RemoveRoute(id));
        }
        for socket in [&port.front, &port.back] {
            self.sockets.close(socket.local, &self.workers);
        }
        self.dirty = true;
    }
}

impl Ways {
    /// When to look next, if ever.
    pub(super) fn wake(&self, uses: bool) -> Option<Time> {
        (uses || !self.ports.is_empty()).then_some(self.due)
    }

    /// Whether the socket at a local address is the far end of a way over a relay.
    pub(super) fn is_back(&self, local: SocketAddr) -> bool {
        self.ports.values().any(|port| port.back.local == local)
    }
}
