//! Another config for a running node: peers come and go, routes follow the new plan, and what is
//! the same in both keeps its number, its socket and its session.

use std::{collections::BTreeMap, sync::Arc};

use netft_proto::{
    config::{Config, ConfigChange, FailoverConfig, describe_timing},
    engine::EngineInput,
    ids::{PeerId, RouteId},
    packet::token_bucket::TokenBucket,
    route::{EventKind, Priority, RouteSpec, Timing},
    topology::PlannedRoute,
};

use crate::io::{
    control::driver::{Driver, PeerEntry},
    host_state::HostState,
    messages::NewConfig,
};

/// What becomes of the routes.
struct ReconfigurePlan {
    changes: Vec<ConfigChange>,
    /// The routes that stay and are described differently.
    updated_specs: Vec<(RouteId, RouteSpec, (Timing, Priority))>,
}

impl Driver {
    pub(super) fn add_peer(&mut self, peer: PeerId) {
        self.peers.insert(peer, PeerEntry::default());
        self.feed_engine(EngineInput::AddPeer(peer));
    }

    /// Goes over to another config, if it is to be applied. Says what becomes of the routes.
    ///
    /// What was changed by hand on a route stays, as far as the new config says nothing else than
    /// the one before; routes added or removed by hand are as the new config says.
    pub(super) fn reconfigure(&mut self, new: NewConfig) -> Vec<ConfigChange> {
        let routes = self.compare_routes(&new.config, &new.host_state);
        if !new.apply {
            return routes.changes;
        }
        // First: whoever follows the events learns the names of new peers in time.
        self.emit_event(EventKind::Reconfigured);
        let NewConfig { mut config, host_state, .. } = new;
        let gone: Vec<_> =
            self.peers.keys().copied().filter(|peer| config.peer_of(*peer).is_none()).collect();
        for peer in gone {
            self.peers.remove(&peer);
            self.routes.retain(|_, known| known.plan.spec.peer != peer);
            self.feed_engine(EngineInput::RemovePeer(peer));
        }
        for peer in &config.peers {
            if !self.peers.contains_key(&peer.id) {
                self.add_peer(peer.id);
            }
        }
        let FailoverConfig { hold_down: hold, pmtu_raise_timer: mtu_raise } = config.failover;
        let history = config.heartbeat.history;
        self.feed_engine(EngineInput::Configure { hold, history, mtu_raise });
        self.carry_over_policies(&mut config);
        self.config = config;
        self.update_rate_limits();
        // Capacities and policies are in the forwarding table.
        self.dirty = true;
        self.removed_routes.clear();
        self.advertisements
            .send_modify(|offers| offers.retain(|peer, _| self.peers.contains_key(peer)));
        for (id, spec, planned) in routes.updated_specs {
            if let Some(known) = self.routes.get_mut(&id) {
                known.plan.spec = spec.clone();
                known.planned_params = planned;
            }
            self.feed_engine(EngineInput::ReplaceSpec { id, spec });
        }
        self.set_host_state(host_state);
        routes.changes
    }

    /// Bounds multicast and relayed datagrams as the config says; a bound that stays is not filled
    /// anew.
    pub(super) fn update_rate_limits(&mut self) {
        let relay = self.config.relay;
        let relay_limit = if relay.offer { relay.limit } else { 0 };
        for (rate, wanted) in [
            (&mut self.multicast_limit, self.config.adapter.multicast),
            (&mut self.relay_limit, relay_limit),
        ] {
            if rate.as_ref().map_or(0, |rate| rate.per_second()) != wanted {
                *rate = TokenBucket::new(wanted).map(Arc::new);
            }
        }
    }

    fn compare_routes(&self, config: &Config, host_state: &HostState) -> ReconfigurePlan {
        let own = || self.routes.iter().filter(|(_, known)| !known.is_relayed());
        let known: Vec<_> = own().map(|(_, known)| known.to_planned()).collect();
        let planned = self.plan_routes(config, host_state, &known).routes;
        let planned: BTreeMap<_, _> =
            planned.into_iter().map(|plan| (plan.route_key(), plan)).collect();
        let mut routes = ReconfigurePlan { changes: Vec::new(), updated_specs: Vec::new() };
        for (id, known) in own() {
            let Some(after) = planned.get(&known.route_key()) else {
                let what = format!("route {id}: {}", describe_ends(&self.config, &known.plan));
                routes.changes.push(ConfigChange::removed(what));
                continue;
            };
            let (mut spec, what) =
                merge_route_spec(&known.plan.spec, known.planned_params, &after.spec);
            known.apply_learned_remote(&mut spec);
            if !what.is_empty() {
                let what = format!("route {id}: {}: {what}", describe_ends(config, after));
                routes.changes.push(ConfigChange::changed(what));
            }
            if spec != known.plan.spec {
                routes.updated_specs.push((*id, spec, (after.spec.timing, after.spec.priority)));
            }
        }
        let added =
            planned.into_iter().filter(|(key, _)| known.iter().all(|k| k.route_key() != *key));
        routes.changes.extend(added.map(|(_, planned)| {
            let (ends, priority) = (describe_ends(config, &planned), planned.spec.priority.0);
            ConfigChange::added(format!(
                "route {ends}, {}, priority {priority}",
                route_timing_text(&planned.spec)
            ))
        }));
        routes
    }
}

/// `running`, with what is planned otherwise than `before` taken from `after`, and that in words:
/// what an operator made of a route stays until the config says otherwise.
fn merge_route_spec(
    running: &RouteSpec,
    before: (Timing, Priority),
    after: &RouteSpec,
) -> (RouteSpec, String) {
    let mut spec = after.clone();
    let mut words = Vec::new();
    if before.0 == after.timing {
        spec.timing = running.timing;
    } else {
        words.push(format!("{} → {}", route_timing_text(running), route_timing_text(after)));
    }
    if before.1 == after.priority {
        spec.priority = running.priority;
    } else {
        words.push(format!("priority {} → {}", running.priority.0, after.priority.0));
    }
    if running.transport != after.transport {
        words.push(format!("transport {} → {}", running.transport, after.transport));
    }
    (spec, words.join(", "))
}

fn route_timing_text(spec: &RouteSpec) -> String {
    describe_timing(spec.timing)
}

fn describe_ends(config: &Config, plan: &PlannedRoute) -> String {
    let peer = config.peer_of(plan.spec.peer).map_or("?", |peer| peer.name.as_str());
    format!("{} → {} (peer {peer})", plan.spec.real_local, plan.spec.real_remote)
}
