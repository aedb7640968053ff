//! Routes follow the plan, and sockets, faults and frame limits follow the routes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::Ordering,
};

use netft_proto::{
    engine::{EngineInput, RouteTally},
    ids::{PeerId, RouteId},
    route::{Attributes, RouteChange, RouteSpec},
    time::Time,
    topology,
    topology::PlannedRoute,
};

use crate::io::{
    clock,
    control::{component::Input, driver::Driver, peer_table::PeerEntry, relay},
    host_state::HostState,
};

impl Driver {
    /// Takes in the node's interfaces: routes appear and go, sockets follow their addresses,
    /// faults are reported.
    pub(super) fn set_host_state(&mut self, mut host_state: HostState, reason: &'static str) {
        self.components.drill.mask_host_state(&mut host_state);
        self.sessions.set_adapter_state(&self.config, &host_state);
        self.planner.set_host_state(host_state);
        self.replan_routes(reason);
    }

    /// Makes the routes those of the plan.
    pub(super) fn replan_routes(&mut self, reason: &'static str) {
        self.planner.record_networks(&self.config);
        let running = self.routes.to_planned();
        if let Some(event) = self.planner.update_listening(&self.config, &running) {
            tracing::warn!(?event, "more addresses than the interface list holds");
            self.emit_event(event);
        }
        if let Some(advertisement) = self.planner.next_advertisement(&self.config, &running) {
            self.sessions.manager.advertise_interfaces(advertisement);
        }
        self.apply_plan(reason);
        self.announce_routes();
        // Something changed that may let a peer answer where it never did.
        self.feed_engine(EngineInput::RetryUnheard);
        self.publisher.mark_dirty(reason);
    }

    /// Adds candidate routes, and removes those that never came up and are not needed.
    pub(super) fn update_trials(&mut self) {
        if self.apply_plan("the state of routes changed") {
            self.announce_routes();
            self.publisher.mark_dirty("other pairs of cards are tried");
        }
    }

    /// Plans the routes and makes them so. Returns whether anything changed.
    fn apply_plan(&mut self, reason: &'static str) -> bool {
        let host_state = self.planner.host_state();
        let plan = self.planner.plan_routes(&self.config, host_state, &self.routes, &self.engine);
        self.planner.report_unrouted(&self.config, plan.unrouted);
        let planned: Vec<_> = plan
            .routes
            .into_iter()
            .filter(|plan| !self.routes.is_removed(&plan.route_key()))
            .collect();
        let diff = topology::diff_routes(&self.routes.to_planned(), &planned);
        let is_changed = !diff.is_empty();
        if is_changed {
            let (added, removed) = (diff.added.len(), diff.removed.len());
            tracing::debug!(reason, added, removed, changed = diff.changed.len(), "plan changed");
        }
        for gone in diff.removed {
            if let Some(id) = self.routes.id_of(gone.route_key()) {
                self.remove_route(id, reason);
            }
        }
        for plan in diff.added {
            self.add_route(plan, None, reason);
        }
        for (_, plan) in diff.changed {
            self.update_route_params(&plan);
        }
        is_changed
    }

    /// Gives the components and the sockets the routes that exist.
    fn announce_routes(&mut self) {
        // First: the engine is told of frame limits once it is known which routes use QUIC.
        self.dispatch(&Input::RoutesChanged);
        self.sync_sockets();
    }

    /// Adds a route, to an address that its peer proved at `learned_at` or to a planned one.
    pub(super) fn add_route(
        &mut self,
        plan: PlannedRoute,
        learned_at: Option<Time>,
        reason: &'static str,
    ) -> RouteId {
        let spec = plan.spec.clone();
        let id = self.routes.add(plan, learned_at);
        let (peer, local, remote) = (spec.peer, spec.real_local, spec.real_remote);
        tracing::debug!(route = %id, %peer, %local, %remote, reason, "route added");
        self.feed_engine(EngineInput::AddRoute { id, spec });
        self.apply_overrides(id);
        id
    }

    /// Applies an operator's overrides to a route that was just added or replaced.
    fn apply_overrides(&mut self, id: RouteId) {
        let Some(entry) = self.routes.get(id) else { return };
        let change = self.components.overrides.initial_change(&self.config, entry);
        if change != RouteChange::default() {
            tracing::info!(route = %id, ?change, "operator's overrides applied");
            self.feed_engine(EngineInput::ChangeRoute { id, change });
        }
    }

    /// Drains a route, or uses it again, because its address moved to another interface.
    fn apply_drain_override(&mut self, id: RouteId) {
        let Some(entry) = self.routes.get(id) else { return };
        let overrides = self.components.overrides.initial_change(&self.config, entry);
        let change = RouteChange {
            drain: Some(overrides.drain.unwrap_or_default()),
            ..RouteChange::default()
        };
        self.feed_engine(EngineInput::ChangeRoute { id, change });
    }

    pub(super) fn remove_route(&mut self, id: RouteId, reason: &'static str) {
        let Some(entry) = self.routes.remove(id) else { return };
        let peer = entry.plan.spec.peer;
        tracing::debug!(route = %id, %peer, reason, "route removed");
        for session in self.peers.get(peer).into_iter().flat_map(PeerEntry::live_sessions) {
            session.retain_counted_routes(|route| self.routes.contains(route));
        }
        self.feed_engine(EngineInput::RemoveRoute(id));
    }

    /// Takes over transport, timing and priority that are planned otherwise than before: the
    /// networks at its ends have other metrics, the peer advertised its site, or the config or an
    /// operator describes the remote end. An operator's overrides for the route stay.
    fn update_route_params(&mut self, plan: &PlannedRoute) {
        let Some(id) = self.routes.id_of(plan.route_key()) else { return };
        let Some(entry) = self.routes.get_mut(id) else { return };
        // The peer's advertisement came after its heartbeat: the address is a listed one.
        if entry.is_peer_reflexive() && plan.spec.attributes.0 & Attributes::LEARNED == 0 {
            entry.plan = plan.clone();
            let spec = plan.spec.clone();
            self.feed_engine(EngineInput::ReplaceSpec { id, spec });
            return self.apply_overrides(id);
        }
        let overrides = self.components.overrides.initial_change(&self.config, entry);
        let planned = &mut entry.plan.spec;
        let transport = plan.spec.transport;
        tracing::trace!(route = %id, "planned differently");
        let new_transport = std::mem::replace(&mut planned.transport, transport) != transport;
        let timing = std::mem::replace(&mut planned.timing, plan.spec.timing);
        let priority = std::mem::replace(&mut planned.priority, plan.spec.priority);
        let change = RouteChange {
            timing: (timing != plan.spec.timing && overrides.timing.is_none())
                .then_some(plan.spec.timing),
            priority: (priority != plan.spec.priority && overrides.priority.is_none())
                .then_some(plan.spec.priority),
            ..RouteChange::default()
        };
        // The peer's site comes with its advertisement, after the first routes. That a remote was
        // learned is no matter of the plan.
        let learned = planned.attributes.0 & Attributes::LEARNED;
        let attributes = Attributes(plan.spec.attributes.0 | learned);
        let new_attributes = std::mem::replace(&mut planned.attributes, attributes) != attributes;
        if (new_transport || new_attributes)
            && let Some(running) = self.engine.route_spec(id)
        {
            tracing::debug!(route = %id, %transport, %attributes, "transport, attributes planned");
            let spec = RouteSpec { transport, attributes, ..running.clone() };
            self.feed_engine(EngineInput::ReplaceSpec { id, spec });
        }
        if change != RouteChange::default() {
            self.feed_engine(EngineInput::ChangeRoute { id, change });
        }
    }

    /// Moves sockets to the interfaces that hold their addresses, opens and closes them, and
    /// reports to the engine what changed about the local ends.
    pub(super) fn sync_sockets(&mut self) {
        let plans: Vec<_> = self.routes.entries().map(|entry| entry.plan.clone()).collect();
        let host_state = self.planner.host_state();
        let local_ends = topology::detect_faults(&plans, &host_state.interfaces);
        let (mut inputs, mut moved) = (Vec::new(), Vec::new());
        for ((id, entry), local_end) in self.routes.iter_mut().zip(local_ends) {
            if let Some(holder) = host_state.interface(local_end.ifindex) {
                entry.plan.ifindex = holder.index;
                if entry.plan.ifname != holder.name {
                    entry.plan.ifname.clone_from(&holder.name);
                    moved.push(id);
                }
                let local = entry.plan.spec.real_local;
                match self.sockets.ensure_open(local, holder.index, &self.workers) {
                    Ok(opened) => {
                        if opened {
                            self.publisher.mark_dirty("a socket was opened");
                        }
                        self.components.retries.on_socket_opened(id);
                    }
                    Err(error) => {
                        let interface = &holder.name;
                        // Logged once; tried again until it works.
                        if self.components.retries.on_socket_failed(clock::now(), id) {
                            tracing::warn!(%local, %interface, %error, "cannot open a socket");
                        }
                    }
                }
            }
            if local_end.fault == entry.reported_fault {
                continue;
            }
            // The new fault first: a route is never without one in between.
            if let Some(reason) = local_end.fault {
                inputs.push(EngineInput::Fault { route: id, reason });
            }
            if let Some(reason) = entry.reported_fault {
                inputs.push(EngineInput::FaultCleared { route: id, reason });
            }
            entry.reported_fault = local_end.fault;
        }
        self.open_listening_sockets();
        self.close_unused_sockets();
        for input in inputs {
            self.feed_engine(input);
        }
        for id in moved {
            self.apply_drain_override(id);
        }
        self.update_frame_limits();
    }

    /// Opens a socket on every usable address: a peer that knows another address of this node
    /// than a route leads to may dial there. One that does not open is tried again with the next
    /// change; if a route starts there, that failure is logged with the route's.
    fn open_listening_sockets(&mut self) {
        let port = self.config.session.port;
        for (addr, ifindex) in self.planner.listening() {
            let local = SocketAddr::new(*addr, port);
            let starts_route = self.routes.entries().any(|it| it.plan.spec.real_local == local);
            if !starts_route
                && let Ok(true) = self.sockets.ensure_open(local, *ifindex, &self.workers)
            {
                self.publisher.mark_dirty("a socket was opened");
            }
        }
    }

    /// Closes the sockets that no route, usable address or relay uses.
    fn close_unused_sockets(&mut self) {
        let port = self.config.session.port;
        let is_listening = |local: SocketAddr| {
            local.port() == port
                && self.planner.listening().iter().any(|(addr, _)| *addr == local.ip())
        };
        let is_used = |local: SocketAddr| {
            is_listening(local)
                || self.components.relay.is_outer_socket(local)
                || self.routes.entries().any(|entry| entry.plan.spec.real_local == local)
        };
        if self.sockets.close_unwanted(is_used, &self.workers) {
            self.publisher.mark_dirty("a socket was closed");
        }
    }

    /// Reports to the engine what the interface and the transport of every route take, where it
    /// changed.
    pub(super) fn update_frame_limits(&mut self) {
        let fib = self.publisher.fib();
        let mut limits = std::mem::take(&mut self.components.frame_limits);
        let (connections, relays) = (&self.components.connections, &self.components.relay);
        let changed = limits.take_changed(&self.view(), connections, relays, &fib);
        self.components.frame_limits = limits;
        for input in changed {
            self.feed_engine(input);
        }
    }

    /// Tells the engine of overdue routes whose heartbeats lie unread in their sockets, or with a
    /// worker that was interrupted before it handed them over (F-20): this thread was scheduled,
    /// the worker was not.
    pub(super) fn check_unread_sockets(&mut self, now: Time) {
        let overdue = self.engine.overdue_routes(now);
        let is_interrupted = !overdue.is_empty() && self.workers.is_any_interrupted(now);
        for route in overdue {
            let local = self.routes.get(route).map(|entry| entry.plan.spec.real_local);
            if is_interrupted || local.is_some_and(|local| self.sockets.has_unread(local)) {
                self.feed_engine(EngineInput::UnreadData(route));
            }
        }
    }

    /// Counts the data of compared and audited routes: sent by the workers, arrived at the peer.
    pub(super) fn feed_tallies(&mut self, now: Time) {
        for (peer, route) in self.engine.counted_routes(now) {
            let entry = self.routes.get(route);
            let session = self.peers.preferred_session(peer);
            if let (Some(entry), Some(session)) = (entry, session) {
                let sent = entry.counters.frames.load(Ordering::Relaxed);
                let tally = RouteTally { sent, counts: session.route_counts(route) };
                tracing::debug!(%route, ?tally, "copies counted");
                self.feed_engine(EngineInput::Tally { route, tally });
            }
        }
    }

    /// Adds a route to `peer` over the relay `via`.
    pub(super) fn open_relay(&mut self, via: PeerId, peer: PeerId) {
        let loopback_addr = Ipv4Addr::LOCALHOST.into();
        let mut interfaces = self.planner.host_state().interfaces.iter();
        let loopback =
            interfaces.find(|interface| interface.up && interface.owns_address(loopback_addr));
        let Some(loopback) = loopback.cloned() else {
            if self.components.relay.on_open_failed() {
                tracing::warn!("no relay without the loopback interface: ip link set lo up");
            }
            return;
        };
        let (sockets, workers) = (&mut self.sockets, &self.workers);
        let endpoint = match relay::open_endpoint((via, peer), loopback.index, sockets, workers) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                if self.components.relay.on_open_failed() {
                    tracing::warn!(%error, "cannot open the sockets of a relay");
                }
                return;
            }
        };
        let Some(plan) = relay::plan_route(&self.config, &endpoint, &loopback) else { return };
        let id = self.add_route(plan, None, "its peer has no direct route");
        tracing::info!(route = %id, %peer, %via, "relay chosen");
        self.components.relay.on_opened(id, endpoint);
        self.sync_sockets();
        self.publisher.mark_dirty("a relay was chosen");
    }
}
