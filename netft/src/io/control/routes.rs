//! Which routes exist and what is broken about them here: the world, compared with what is known.

use std::{net::SocketAddr, time::Duration};

use netft_proto::{
    config::{Config, RouteOverride},
    engine::EngineInput,
    ids::{PeerId, RouteId},
    route::{Attributes, RouteChange},
    time::Time,
    topology,
    topology::PlannedRoute,
    wire::interfaces::Advertisement,
};

use crate::{
    api::error::RouteError,
    io::{
        clock,
        control::driver::{Driver, RouteEntry},
        host_state::HostState,
    },
};

/// A socket that did not open is tried again after this long.
const SOCKET_RETRY: Duration = Duration::from_millis(250);

impl Driver {
    /// Takes in how the node's interfaces are: routes appear and go, sockets follow their
    /// addresses, faults are told.
    pub(super) fn set_host_state(&mut self, host_state: HostState) {
        let adapter = host_state.interfaces.iter().find(|one| one.name == self.config.adapter.name);
        self.manager.set_adapter_up(adapter.is_some_and(|adapter| adapter.up));
        self.host_state = host_state;
        self.replan_routes();
    }

    /// The routes there are, and those there should be by `config`.
    fn current_and_planned(&self, config: &Config) -> (Vec<PlannedRoute>, topology::RoutePlan) {
        let known = self.routes.values().filter(|known| !known.is_relayed());
        let known: Vec<_> = known.map(RouteEntry::to_planned).collect();
        let plan = self.plan_routes(config, &self.host_state, &known);
        (known, plan)
    }

    pub(super) fn replan_routes(&mut self) {
        self.network_cache.record_interfaces(&self.config, &self.host_state.interfaces);
        self.advertise_addresses();
        let (known, plan) = self.current_and_planned(&self.config);
        if self.unrouted != plan.unrouted {
            for skip in &plan.unrouted {
                let peer = self.config.peer_of(skip.peer).map_or("?", |peer| &peer.name);
                let (remote, why) = (skip.remote, skip.reason);
                tracing::warn!(%peer, %remote, %why, "no route leads there");
            }
            self.unrouted = plan.unrouted;
        }
        let planned: Vec<_> = plan
            .routes
            .into_iter()
            .filter(|plan| !self.removed_routes.contains(&plan.route_key()))
            .collect();
        let diff = topology::diff_routes(&known, &planned);
        for gone in diff.removed {
            let id = self.routes.iter().find(|(_, known)| known.route_key() == gone.route_key());
            if let Some(id) = id.map(|(id, _)| *id) {
                self.routes.remove(&id);
                self.feed_engine(EngineInput::RemoveRoute(id));
            }
        }
        for plan in diff.added {
            self.add_route(plan);
        }
        for (_, plan) in diff.changed {
            self.update_route_params(&plan);
        }
        // First: what QUIC takes of a datagram is known before the engine hears of sizes.
        self.sync_connections(clock::now());
        self.sync_sockets();
        self.dirty = true;
    }

    /// Tells every peer of this node's addresses, if they changed.
    fn advertise_addresses(&mut self) {
        let mut advertisement =
            topology::build_advertisement(&self.config, &self.host_state.interfaces);
        advertisement.serial = self.advertisement.serial;
        // Serial 0 was never told.
        if advertisement != self.advertisement || advertisement.serial == 0 {
            advertisement.serial = advertisement.serial.wrapping_add(1).max(1);
            self.manager.advertise_interfaces(&advertisement);
            self.advertisement = advertisement;
        }
    }

    /// Takes in what a peer tells of its addresses: routes appear and go.
    pub(super) fn on_advertisement(&mut self, peer: PeerId, list: Advertisement) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let news = self.advertisements.send_if_modified(|offers| {
            let before = offers.insert(peer, list.clone());
            before.is_none_or(|before| Advertisement { serial: list.serial, ..before } != list)
        });
        if news {
            self.replan_routes();
        }
    }

    /// Takes over carrier, timing and priority that are planned otherwise than before: the networks
    /// at its ends have other metrics, the peer told its site, or an entry for its far end came by
    /// hand. What an operator set stays until then.
    fn update_route_params(&mut self, plan: &PlannedRoute) {
        let found = self.routes.iter_mut().find(|(_, known)| known.route_key() == plan.route_key());
        let Some((id, known)) = found else { return };
        // The peer's list came after its heartbeat: the address is listed.
        if known.is_peer_reflexive() && plan.spec.attributes.0 & Attributes::LEARNED == 0 {
            known.plan = plan.clone();
            known.planned_params = (plan.spec.timing, plan.spec.priority);
            let (id, spec) = (*id, plan.spec.clone());
            return self.feed_engine(EngineInput::ReplaceSpec { id, spec });
        }
        if known.plan.spec.transport != plan.spec.transport {
            known.plan.spec.transport = plan.spec.transport;
            let (id, spec) = (*id, known.plan.spec.clone());
            self.feed_engine(EngineInput::ReplaceSpec { id, spec });
            return self.update_route_params(plan);
        }
        let (timing, priority) = (plan.spec.timing, plan.spec.priority);
        let before = std::mem::replace(&mut known.planned_params, (timing, priority));
        let change = RouteChange {
            timing: (before.0 != timing).then_some(timing),
            priority: (before.1 != priority).then_some(priority),
            ..RouteChange::default()
        };
        if change != RouteChange::default() {
            known.plan.spec.timing = change.timing.unwrap_or(known.plan.spec.timing);
            known.plan.spec.priority = change.priority.unwrap_or(known.plan.spec.priority);
            let id = *id;
            self.feed_engine(EngineInput::ChangeRoute { id, change });
        }
    }

    fn add_route(&mut self, plan: PlannedRoute) {
        let id = self.next_route_id();
        let spec = plan.spec.clone();
        self.routes.insert(id, RouteEntry::new(plan));
        self.feed_engine(EngineInput::AddRoute { id, spec });
    }

    /// Sockets follow their addresses to whatever interface holds them; the engine is told what
    /// changed about the local ends.
    pub(super) fn sync_sockets(&mut self) {
        let plans: Vec<_> = self.routes.values().map(|known| known.plan.clone()).collect();
        let health = topology::detect_faults(&plans, &self.host_state.interfaces);
        let (mut inputs, mut retry) = (Vec::new(), None);
        for ((id, known), health) in self.routes.iter_mut().zip(health) {
            if let Some(holder) = self.host_state.interface(health.ifindex) {
                known.plan.ifindex = holder.index;
                known.plan.ifname.clone_from(&holder.name);
                let local = known.plan.spec.real_local;
                match self.sockets.ensure_open(local, holder.index, &self.workers) {
                    Ok(changed) => {
                        self.dirty |= changed;
                        known.socket_retry_at = None;
                    }
                    Err(error) => {
                        let interface = &holder.name;
                        // Told once; tried again until it works.
                        if known.socket_retry_at.is_none() {
                            tracing::warn!(%local, %interface, %error, "cannot open a socket");
                        }
                        let again = clock::now() + SOCKET_RETRY;
                        known.socket_retry_at = Some(again);
                        retry = Some(again);
                    }
                }
            }
            if health.fault == known.reported_fault {
                continue;
            }
            // The new fault first: a route is never whole in between.
            if let Some(reason) = health.fault {
                inputs.push(EngineInput::Fault { route: *id, reason });
            }
            if let Some(reason) = known.reported_fault {
                inputs.push(EngineInput::FaultCleared { route: *id, reason });
            }
            known.reported_fault = health.fault;
        }
        retry.into_iter().for_each(|at| self.schedule_retry(at));
        self.open_advertised_sockets();
        let (routes, offer, ways) = (&self.routes, &self.advertisement, &self.relay_routes);
        let offered = |local: SocketAddr| {
            local.port() == offer.port
                && offer.endpoints.iter().any(|endpoint| endpoint.addr == local.ip())
        };
        let wanted = |local: SocketAddr| {
            offered(local)
                || ways.is_outer_socket(local)
                || routes.values().any(|known| known.plan.spec.real_local == local)
        };
        self.dirty |= self.sockets.close_unwanted(wanted, &self.workers);
        for input in inputs {
            self.feed_engine(input);
        }
        self.report_frame_limits();
    }

    /// Opens a socket on every address the peers are told of: one that knows another address of
    /// this node than a route leads to may dial there. One that does not open is tried again with
    /// the next change; a route from there says so.
    fn open_advertised_sockets(&mut self) {
        for endpoint in &self.advertisement.endpoints {
            let owner =
                self.host_state.interfaces.iter().find(|owner| owner.owns_address(endpoint.addr));
            let local = SocketAddr::new(endpoint.addr, self.advertisement.port);
            if let Some(owner) = owner
                && let Ok(changed) = self.sockets.ensure_open(local, owner.index, &self.workers)
            {
                self.dirty |= changed;
            }
        }
    }

    /// A route whose heartbeats lie unread in its socket is not silent (F-20): this thread was
    /// scheduled, the one that reads there was not.
    pub(super) fn check_unread_sockets(&mut self, now: Time) {
        for route in self.engine.overdue_routes(now) {
            let local = self.routes.get(&route).map(|known| known.plan.spec.real_local);
            if local.is_some_and(|local| self.sockets.has_unread(local)) {
                self.feed_engine(EngineInput::UnreadData(route));
            }
        }
    }

    /// Adds a route through the API, as if the config had named it.
    pub(super) fn add_requested_route(
        &mut self,
        peer: PeerId,
        route: RouteOverride,
    ) -> Result<RouteId, RouteError> {
        let remote = route.remote;
        let mut config = self.config.clone();
        let entry = config.peer_of_mut(peer).ok_or(RouteError::UnknownPeer(peer))?;
        entry.routes.push(route);
        // First without consequences: an entry for a route there is would change that one.
        let own =
            |route: &PlannedRoute| (route.route_key().0, route.route_key().2) == (peer, remote);
        let known = |key| self.routes.iter().find(|(_, known)| known.route_key() == key);
        let mut planned = self.current_and_planned(&config).1.routes;
        planned.retain(own);
        if planned.iter().all(|route| known(route.route_key()).is_some()) {
            let same = planned.first().and_then(|route| known(route.route_key()));
            return Err(
                same.map_or(RouteError::NoLocalAddress(remote), |(id, _)| RouteError::Exists(*id))
            );
        }
        self.config = config;
        let before: Vec<_> = self.routes.keys().copied().collect();
        let removed = std::mem::take(&mut self.removed_routes);
        self.removed_routes =
            removed.into_iter().filter(|key| (key.0, key.2) != (peer, remote)).collect();
        self.replan_routes();
        let added = self.routes.keys().find(|id| !before.contains(id)).copied();
        added.ok_or(RouteError::NoLocalAddress(remote))
    }

    /// Removes a route until it is added through the API again.
    pub(super) fn remove_requested_route(&mut self, id: RouteId) -> Result<(), RouteError> {
        let known = self.routes.remove(&id).ok_or(RouteError::Unknown(id))?;
        let (peer, _, remote) = known.route_key();
        self.removed_routes.push(known.route_key());
        if let Some(entry) = self.config.peer_of_mut(peer) {
            entry.routes.retain(|route| route.remote != remote);
        }
        self.feed_engine(EngineInput::RemoveRoute(id));
        self.sync_sockets();
        self.dirty = true;
        Ok(())
    }
}
