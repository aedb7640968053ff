//! Which routes exist and what is broken about them here: the world, compared with what is known.

use std::{net::SocketAddr, time::Duration};

use netft_proto::{
    config::{Config, RouteOverride},
    engine::Input,
    ids::{PeerId, RouteId},
    route::{Attributes, RouteChange},
    time::Time,
    topology,
    topology::Planned,
    wire::interfaces::Interfaces,
};

use crate::{
    api::error::RouteError,
    io::{
        clock,
        control::driver::{Driver, Known},
        netlink_watcher::World,
    },
};

/// A socket that did not open is tried again after this long.
const SOCKET_RETRY: Duration = Duration::from_millis(250);

impl Driver {
    /// Takes in how the node's interfaces are: routes appear and go, sockets follow their
    /// addresses, faults are told.
    pub(super) fn set_world(&mut self, world: World) {
        let adapter = world.interfaces.iter().find(|one| one.name == self.config.adapter);
        self.manager.adapter_up(adapter.is_some_and(|adapter| adapter.up));
        self.world = world;
        self.replan();
    }

    /// The routes there are, and those there should be by `config`.
    fn planned(&self, config: &Config) -> (Vec<Planned>, topology::Plan) {
        let known = self.routes.values().filter(|known| !known.relayed());
        let known: Vec<_> = known.map(Known::as_planned).collect();
        let plan = self.plan(config, &self.world, &known);
        (known, plan)
    }

    pub(super) fn replan(&mut self) {
        self.memory.note(&self.config, &self.world.interfaces);
        self.tell_peers();
        let (known, plan) = self.planned(&self.config);
        if self.skipped != plan.skipped {
            for skip in &plan.skipped {
                let peer = self.config.peer_of(skip.peer).map_or("?", |peer| &peer.name);
                let (remote, why) = (skip.remote, skip.why);
                tracing::warn!(%peer, %remote, %why, "no route leads there");
            }
            self.skipped = plan.skipped;
        }
        let planned: Vec<_> =
            plan.routes.into_iter().filter(|plan| !self.removed.contains(&plan.key())).collect();
        let diff = topology::diff(&known, &planned);
        for gone in diff.removed {
            let id = self.routes.iter().find(|(_, known)| known.key() == gone.key());
            if let Some(id) = id.map(|(id, _)| *id) {
                self.routes.remove(&id);
                self.input(Input::RemoveRoute(id));
            }
        }
        for plan in diff.added {
            self.add(plan);
        }
        for (_, plan) in diff.changed {
            self.retune(&plan);
        }
        // First: what QUIC takes of a datagram is known before the engine hears of sizes.
        self.follow_connections(clock::now());
        self.follow_addresses();
        self.dirty = true;
    }

    /// Tells every peer of this node's addresses, if they changed.
    fn tell_peers(&mut self) {
        let mut offer = topology::offer(&self.config, &self.world.interfaces);
        offer.serial = self.offer.serial;
        // Serial 0 was never told.
        if offer != self.offer || offer.serial == 0 {
            offer.serial = offer.serial.wrapping_add(1).max(1);
            self.manager.offer(&offer);
            self.offer = offer;
        }
    }

    /// Takes in what a peer tells of its addresses: routes appear and go.
    pub(super) fn learn(&mut self, peer: PeerId, list: Interfaces) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let news = self.told.send_if_modified(|offers| {
            let before = offers.insert(peer, list.clone());
            before.is_none_or(|before| Interfaces { serial: list.serial, ..before } != list)
        });
        if news {
            self.replan();
        }
    }

    /// Takes over carrier, timing and priority that are planned otherwise than before: the networks
    /// at its ends have other metrics, the peer told its site, or an entry for its far end came by
    /// hand. What an operator set stays until then.
    fn retune(&mut self, plan: &Planned) {
        let found = self.routes.iter_mut().find(|(_, known)| known.key() == plan.key());
        let Some((id, known)) = found else { return };
        // The peer's list came after its heartbeat: the address is listed.
        if known.unlisted() && plan.spec.attributes.0 & Attributes::ADOPTED == 0 {
            known.plan = plan.clone();
            known.planned = (plan.spec.timing, plan.spec.priority);
            let (id, spec) = (*id, plan.spec.clone());
            return self.input(Input::Describe { id, spec });
        }
        if known.plan.spec.carrier != plan.spec.carrier {
            known.plan.spec.carrier = plan.spec.carrier;
            let (id, spec) = (*id, known.plan.spec.clone());
            self.input(Input::Describe { id, spec });
            return self.retune(plan);
        }
        let (timing, priority) = (plan.spec.timing, plan.spec.priority);
        let before = std::mem::replace(&mut known.planned, (timing, priority));
        let change = RouteChange {
            timing: (before.0 != timing).then_some(timing),
            priority: (before.1 != priority).then_some(priority),
            ..RouteChange::default()
        };
        if change != RouteChange::default() {
            known.plan.spec.timing = change.timing.unwrap_or(known.plan.spec.timing);
            known.plan.spec.priority = change.priority.unwrap_or(known.plan.spec.priority);
            let id = *id;
            self.input(Input::ChangeRoute { id, change });
        }
    }

    fn add(&mut self, plan: Planned) {
        let id = self.next_route();
        let spec = plan.spec.clone();
        self.routes.insert(id, Known::new(plan));
        self.input(Input::AddRoute { id, spec });
    }

    /// Sockets follow their addresses to whatever interface holds them; the engine is told what
    /// changed about the local ends.
    pub(super) fn follow_addresses(&mut self) {
        let plans: Vec<_> = self.routes.values().map(|known| known.plan.clone()).collect();
        let health = topology::faults(&plans, &self.world.interfaces);
        let (mut inputs, mut retry) = (Vec::new(), None);
        for ((id, known), health) in self.routes.iter_mut().zip(health) {
            if let Some(holder) = self.world.interface(health.ifindex) {
                known.plan.ifindex = holder.index;
                known.plan.ifname.clone_from(&holder.name);
                let local = known.plan.spec.real_local;
                match self.sockets.ensure(local, holder.index, &self.workers) {
                    Ok(changed) => {
                        self.dirty |= changed;
                        known.unopened = None;
                    }
                    Err(error) => {
                        let interface = &holder.name;
                        // Told once; tried again until it works.
                        if known.unopened.is_none() {
                            tracing::warn!(%local, %interface, %error, "cannot open a socket");
                        }
                        let again = clock::now() + SOCKET_RETRY;
                        known.unopened = Some(again);
                        retry = Some(again);
                    }
                }
            }
            if health.fault == known.fault {
                continue;
            }
            // The new fault first: a route is never whole in between.
            if let Some(reason) = health.fault {
                inputs.push(Input::Fault { route: *id, reason });
            }
            if let Some(reason) = known.fault {
                inputs.push(Input::FaultCleared { route: *id, reason });
            }
            known.fault = health.fault;
        }
        retry.into_iter().for_each(|at| self.retry(at));
        self.listen();
        let (routes, offer, ways) = (&self.routes, &self.offer, &self.ways);
        let offered = |local: SocketAddr| {
            local.port() == offer.port
                && offer.endpoints.iter().any(|endpoint| endpoint.addr == local.ip())
        };
        let wanted = |local: SocketAddr| {
            offered(local)
                || ways.is_back(local)
                || routes.values().any(|known| known.plan.spec.real_local == local)
        };
        self.dirty |= self.sockets.retain(wanted, &self.workers);
        for input in inputs {
            self.input(input);
        }
        self.tell_limits();
    }

    /// Opens a socket on every address the peers are told of: one that knows another address of
    /// this node than a route leads to may dial there. One that does not open is tried again with
    /// the next change; a route from there says so.
    fn listen(&mut self) {
        for endpoint in &self.offer.endpoints {
            let owner = self.world.interfaces.iter().find(|owner| owner.owns(endpoint.addr));
            let local = SocketAddr::new(endpoint.addr, self.offer.port);
            if let Some(owner) = owner
                && let Ok(changed) = self.sockets.ensure(local, owner.index, &self.workers)
            {
                self.dirty |= changed;
            }
        }
    }

    /// A route whose heartbeats lie unread in its socket is not silent (F-20): this thread was
    /// scheduled, the one that reads there was not.
    pub(super) fn look_before_blaming(&mut self, now: Time) {
        for route in self.engine.overdue(now) {
            let local = self.routes.get(&route).map(|known| known.plan.spec.real_local);
            if local.is_some_and(|local| self.sockets.unread(local)) {
                self.input(Input::Unread(route));
            }
        }
    }

    /// Adds a route through the API, as if the config had named it.
    pub(super) fn add_by_hand(
        &mut self,
        peer: PeerId,
        route: RouteOverride,
    ) -> Result<RouteId, RouteError> {
        let remote = route.remote;
        let mut config = self.config.clone();
        let entry = config.peer_of_mut(peer).ok_or(RouteError::UnknownPeer(peer))?;
        entry.routes.push(route);
        // First without consequences: an entry for a route there is would change that one.
        let own = |route: &Planned| (route.key().0, route.key().2) == (peer, remote);
        let known = |key| self.routes.iter().find(|(_, known)| known.key() == key);
        let mut planned = self.planned(&config).1.routes;
        planned.retain(own);
        if planned.iter().all(|route| known(route.key()).is_some()) {
            let same = planned.first().and_then(|route| known(route.key()));
            return Err(same.map_or(RouteError::NoWay(remote), |(id, _)| RouteError::Exists(*id)));
        }
        self.config = config;
        let before: Vec<_> = self.routes.keys().copied().collect();
        let removed = std::mem::take(&mut self.removed);
        self.removed = removed.into_iter().filter(|key| (key.0, key.2) != (peer, remote)).collect();
        self.replan();
        let added = self.routes.keys().find(|id| !before.contains(id)).copied();
        added.ok_or(RouteError::NoWay(remote))
    }

    /// Removes a route until it is added through the API again.
    pub(super) fn remove_by_hand(&mut self, id: RouteId) -> Result<(), RouteError> {
        let known = self.routes.remove(&id).ok_or(RouteError::Unknown(id))?;
        let (peer, _, remote) = known.key();
        self.removed.push(known.key());
        if let Some(entry) = self.config.peer_of_mut(peer) {
            entry.routes.retain(|route| route.remote != remote);
        }
        self.input(Input::RemoveRoute(id));
        self.follow_addresses();
        self.dirty = true;
        Ok(())
    }
}
