//! Requests through the API: snapshots, changes of routes and peers, other configs.

use netft_proto::{
    config::{ConfigChange, FailoverConfig, RouteOverride},
    engine::EngineInput,
    ids::{PeerId, RouteId},
    overrides::{PolicyOverride, TooManyOverrides},
    route::{EventKind, PeerChange, RouteChange, RouteSpec},
    topology::PlannedRoute,
};

use crate::{
    api::{
        drain::{DrainError, DrainOrder, DrainTarget},
        error::{PeerError, RouteError},
    },
    io::{
        clock,
        control::{drain, drill, driver::Driver, overrides::route_ends, reconfigure, snapshot},
        messages::{DriverRequest, NewConfig},
    },
};

impl Driver {
    pub(super) fn on_request(&mut self, request: DriverRequest) {
        // A caller that went away is no error.
        match request {
            DriverRequest::Snapshot(answer) => {
                let (view, components) = (self.view(), &self.components);
                let snapshot =
                    snapshot::build_snapshot(&view, components, &self.sessions, &self.workers);
                let _ = answer.send(snapshot);
            }
            DriverRequest::Change(id, change, answer) => {
                let _ = answer.send(self.change_route(id, change));
            }
            DriverRequest::Add(peer, route, answer) => {
                let _ = answer.send(self.add_requested_route(peer, route));
            }
            DriverRequest::Remove(id, answer) => {
                let _ = answer.send(self.remove_requested_route(id));
            }
            DriverRequest::Reconfigure(new, answer) => {
                let _ = answer.send(self.reconfigure(*new));
            }
            DriverRequest::ChangePeer(peer, change, answer) => {
                let _ = answer.send(self.change_peer(peer, change));
            }
            DriverRequest::Drain(order, answer) => {
                let _ = answer.send(self.drain_routes(&order));
            }
            DriverRequest::Drill(order, answer) => {
                let _ = answer.send(drill::start_drill(self, order));
            }
            DriverRequest::DrillStatus(answer) => {
                let _ = answer.send(drill::drill_status(self));
            }
            DriverRequest::Recheck(answer) => {
                let _ = answer.send(clock::now());
                let routes: Vec<_> = self.routes.ids().collect();
                tracing::debug!(routes = routes.len(), "path MTU of every route probed anew");
                for route in routes {
                    self.feed_engine(EngineInput::RecheckPathMtu(route));
                }
            }
            DriverRequest::Joining(joining) => self.publisher.set_joining(joining),
            DriverRequest::Closing => self.sessions.begin_closing(),
            // The thread's loop ends with these.
            DriverRequest::Stop(_) | DriverRequest::Freeze(..) => {}
        }
    }

    fn change_route(&mut self, id: RouteId, change: RouteChange) -> Result<(), RouteError> {
        let entry = self.routes.get(id).ok_or(RouteError::Unknown(id))?;
        let overrides = &mut self.components.overrides;
        let kept = overrides.change_route(&self.config, entry, &change);
        kept.map_err(|TooManyOverrides| RouteError::TooManyOverrides)?;
        tracing::debug!(route = %id, ?change, "route changed by request");
        self.feed_engine(EngineInput::ChangeRoute { id, change });
        Ok(())
    }

    /// Adds a route, as if the config had named it.
    fn add_requested_route(
        &mut self,
        peer: PeerId,
        route: RouteOverride,
    ) -> Result<RouteId, RouteError> {
        let remote = route.remote;
        let mut config = self.config.clone();
        let entry = config.peer_of_mut(peer).ok_or(RouteError::UnknownPeer(peer))?;
        entry.routes.push(route);
        // First without consequences: an override for a route that exists would change that one.
        let host_state = self.planner.host_state();
        let mut planned =
            self.planner.plan_routes(&config, host_state, &self.routes, &self.engine).routes;
        planned.retain(|route: &PlannedRoute| {
            (route.spec.peer, route.spec.real_remote) == (peer, remote)
        });
        let existing = |route: &PlannedRoute| self.routes.id_of(route.route_key());
        if planned.iter().all(|route| existing(route).is_some()) {
            let same = planned.first().and_then(existing);
            return Err(same.map_or(RouteError::NoLocalAddress(remote), RouteError::Exists));
        }
        self.config = config;
        let before: Vec<_> = self.routes.ids().collect();
        self.routes.allow(peer, remote);
        self.replan_routes("a route was added by request");
        let added = self.routes.ids().find(|id| !before.contains(id));
        added.ok_or(RouteError::NoLocalAddress(remote))
    }

    /// Removes a route until it is added again.
    fn remove_requested_route(&mut self, id: RouteId) -> Result<(), RouteError> {
        let key = self.routes.get(id).ok_or(RouteError::Unknown(id))?.route_key();
        let (peer, _, remote) = key;
        self.routes.forbid(key);
        if let Some(entry) = self.config.peer_of_mut(peer) {
            entry.routes.retain(|route| route.remote != remote);
        }
        self.remove_route(id, "a route was removed by request");
        self.sync_sockets();
        self.publisher.mark_dirty("a route was removed by request");
        Ok(())
    }

    /// Drains every route that the order names, or uses them again; none when it is refused.
    fn drain_routes(&mut self, order: &DrainOrder) -> Result<Vec<RouteId>, DrainError> {
        let is_interface_drained = match &order.target {
            DrainTarget::Interface(name) => {
                self.components.overrides.overrides().for_interface(name).is_some()
            }
            DrainTarget::Route(_) => false,
        };
        let routes = drain::check_order(&self.view(), order, is_interface_drained)?;
        self.keep_drain(order, &routes).map_err(|TooManyOverrides| DrainError::TooMany)?;
        tracing::debug!(?routes, on = order.on, force = order.force, "drain order accepted");
        let change = RouteChange { drain: Some(order.on), ..RouteChange::default() };
        for id in &routes {
            self.feed_engine(EngineInput::ChangeRoute { id: *id, change });
        }
        Ok(routes)
    }

    /// Keeps a drain for routes to come, and for the next run.
    fn keep_drain(
        &mut self,
        order: &DrainOrder,
        routes: &[RouteId],
    ) -> Result<(), TooManyOverrides> {
        let Self { components, routes: table, config, .. } = self;
        let limit = order.limit.map(|limit| limit.start_at(clock::now()));
        let mut entries = routes.iter().filter_map(|id| table.get(*id));
        match &order.target {
            DrainTarget::Interface(name) => {
                let over: Vec<_> = entries.filter_map(|entry| route_ends(config, entry)).collect();
                components.overrides.drain_interface(name, &over, (order.on, limit))
            }
            DrainTarget::Route(_) => entries.try_for_each(|entry| {
                components.overrides.drain_route(config, entry, (order.on, limit))
            }),
        }
    }

    /// Changes how data to a peer uses its routes, from the next packet on.
    fn change_peer(&mut self, id: PeerId, change: PeerChange) -> Result<(), PeerError> {
        let peer = self.config.peer_of_mut(id).ok_or(PeerError::Unknown(id))?;
        let changed = peer.policies.with_change(change)?;
        let before = std::mem::replace(&mut peer.policies, changed.clone());
        tracing::debug!(peer = %id, "policies changed by request");
        if let Some(entry) = self.peers.get_mut(id) {
            let configured = entry.configured_policies.get_or_insert(before).clone();
            let peer = peer.name.clone();
            let policies = PolicyOverride { peer, policies: changed, configured };
            self.components.overrides.set_policies(policies);
        }
        self.publisher.mark_dirty("a peer's policies changed");
        Ok(())
    }

    /// Puts an operator's policies of an earlier run into the config.
    pub(super) fn apply_policy_overrides(&mut self) {
        self.peers.apply_policy_overrides(self.components.overrides.overrides(), &mut self.config);
        self.retain_policy_overrides();
    }

    /// Drops an operator's policies for peers that are gone, or whose policies the config changed.
    fn retain_policy_overrides(&mut self) {
        let Self { components, peers, config, .. } = self;
        components.overrides.retain_policies(|policies| {
            let peer = config.peers.iter().find(|peer| peer.name == policies.peer);
            let entry = peer.and_then(|peer| peers.get(peer.id));
            entry.is_some_and(|entry| entry.configured_policies.is_some())
        });
    }

    /// Goes over to another config, if it is to be applied. Returns what becomes of the routes.
    ///
    /// An operator's change of a route stays unless the new config changes the same; routes added
    /// or removed through the API are as the new config says.
    fn reconfigure(&mut self, new: NewConfig) -> Vec<ConfigChange> {
        let NewConfig { mut config, host_state, apply } = new;
        let plan = reconfigure::compare_routes(&self.view(), &config, &host_state);
        if !apply {
            return plan.changes;
        }
        tracing::debug!(routes = plan.changes.len(), "configuration replaced");
        // First: a subscriber of the events learns the names of new peers in time.
        self.emit_event(EventKind::Reconfigured);
        for peer in self.peers.remove_absent(&config) {
            self.routes.remove_peer(peer);
            self.feed_engine(EngineInput::RemovePeer(peer));
        }
        for peer in &config.peers {
            if !self.peers.contains(peer.id) {
                self.add_peer(peer.id);
            }
        }
        let FailoverConfig { hold_down: hold, pmtu_raise_timer: mtu_raise, .. } = config.failover;
        let history = config.heartbeat.history;
        self.feed_engine(EngineInput::Configure { hold, history, mtu_raise });
        self.peers.carry_over_policies(&self.config, &mut config);
        self.config = config;
        self.retain_policy_overrides();
        self.publisher.set_rate_limits(&self.config);
        // Capacities and policies are in the forwarding table.
        self.publisher.mark_dirty("the config changed");
        self.routes.allow_all();
        self.planner.remove_absent(&self.config);
        for (id, spec, (timing, priority)) in plan.updated_specs {
            if let Some(entry) = self.routes.get_mut(id) {
                let before = &entry.plan.spec;
                let changed = (before.timing != timing, before.priority != priority);
                self.components.overrides.forget_values(&self.config, entry, changed);
                entry.plan.spec = RouteSpec { timing, priority, ..spec.clone() };
            }
            self.feed_engine(EngineInput::ReplaceSpec { id, spec });
        }
        self.set_host_state(host_state, "the config changed");
        plan.changes
    }
}
