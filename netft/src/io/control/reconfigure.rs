//! Another config for a running node: peers come and go, routes follow the new plan, and what is
//! the same in both keeps its number, its socket and its session.

use std::{collections::BTreeMap, sync::Arc};

use netft_proto::{
    config::{Change, Config, timing},
    engine::Input,
    ids::{PeerId, RouteId},
    packet::token_bucket::Rate,
    route::{EventKind, Priority, RouteSpec, Timing},
    topology::Planned,
};

use crate::io::{
    control::{
        NewConfig,
        driver::{Driver, PeerSessions},
    },
    netlink_watcher::World,
};

/// What becomes of the routes.
struct Routes {
    changes: Vec<Change>,
    /// The routes that stay and are described differently.
    described: Vec<(RouteId, RouteSpec, (Timing, Priority))>,
}

impl Driver {
    pub(super) fn add_peer(&mut self, peer: PeerId) {
        self.peers.insert(peer, PeerSessions::default());
        self.input(Input::AddPeer(peer));
    }

    /// Goes over to another config, if it is to be applied. Says what becomes of the routes.
    ///
    /// What was changed by hand on a route stays, as far as the new config says nothing else than
    /// the one before; routes added or removed by hand are as the new config says.
    pub(super) fn reconfigure(&mut self, new: NewConfig) -> Vec<Change> {
        let routes = self.compare(&new.config, &new.world);
        if !new.apply {
            return routes.changes;
        }
        // First: whoever follows the events learns the names of new peers in time.
        self.announce(EventKind::Reconfigured);
        let NewConfig { mut config, world, .. } = new;
        let gone: Vec<_> =
            self.peers.keys().copied().filter(|peer| config.peer_of(*peer).is_none()).collect();
        for peer in gone {
            self.peers.remove(&peer);
            self.routes.retain(|_, known| known.plan.spec.peer != peer);
            self.input(Input::RemovePeer(peer));
        }
        for peer in &config.peers {
            if !self.peers.contains_key(&peer.id) {
                self.add_peer(peer.id);
            }
        }
        let Config { hold, history, mtu_raise, .. } = config;
        self.input(Input::Configure { hold, history, mtu_raise });
        self.keep_policies(&mut config);
        self.config = config;
        self.bound_rates();
        // Capacities and policies are in the forwarding table.
        self.dirty = true;
        self.removed.clear();
        self.told.send_modify(|offers| offers.retain(|peer, _| self.peers.contains_key(peer)));
        for (id, spec, planned) in routes.described {
            if let Some(known) = self.routes.get_mut(&id) {
                known.plan.spec = spec.clone();
                known.planned = planned;
            }
            self.input(Input::Describe { id, spec });
        }
        self.set_world(world);
        routes.changes
    }

    /// Bounds multicast and relayed datagrams as the config says; a bound that stays is not filled
    /// anew.
    pub(super) fn bound_rates(&mut self) {
        let relay = self.config.relay;
        let passes = if relay.offer { relay.limit } else { 0 };
        for (rate, wanted) in
            [(&mut self.multicast, self.config.multicast), (&mut self.passes, passes)]
        {
            if rate.as_ref().map_or(0, |rate| rate.per_second()) != wanted {
                *rate = Rate::new(wanted).map(Arc::new);
            }
        }
    }

    fn compare(&self, config: &Config, world: &World) -> Routes {
        let own = || self.routes.iter().filter(|(_, known)| !known.relayed());
        let known: Vec<_> = own().map(|(_, known)| known.as_planned()).collect();
        let planned = self.plan(config, world, &known).routes;
        let planned: BTreeMap<_, _> = planned.into_iter().map(|plan| (plan.key(), plan)).collect();
        let mut routes = Routes { changes: Vec::new(), described: Vec::new() };
        for (id, known) in own() {
            let Some(after) = planned.get(&known.key()) else {
                let what = format!("route {id}: {}", ends(&self.config, &known.plan));
                routes.changes.push(Change::removed(what));
                continue;
            };
            let (mut spec, what) = describe(&known.plan.spec, known.planned, &after.spec);
            known.lead(&mut spec);
            if !what.is_empty() {
                let what = format!("route {id}: {}: {what}", ends(config, after));
                routes.changes.push(Change::changed(what));
            }
            if spec != known.plan.spec {
                routes.described.push((*id, spec, (after.spec.timing, after.spec.priority)));
            }
        }
        let added = planned.into_iter().filter(|(key, _)| known.iter().all(|k| k.key() != *key));
        routes.changes.extend(added.map(|(_, planned)| {
            let (ends, priority) = (ends(config, &planned), planned.spec.priority.0);
            Change::added(format!("route {ends}, {}, priority {priority}", pace(&planned.spec)))
        }));
        routes
    }
}

/// `running`, with what is planned otherwise than `before` taken from `after`, and that in words:
/// what an operator made of a route stays until the config says otherwise.
fn describe(
    running: &RouteSpec,
    before: (Timing, Priority),
    after: &RouteSpec,
) -> (RouteSpec, String) {
    let mut spec = after.clone();
    let mut words = Vec::new();
    if before.0 == after.timing {
        spec.timing = running.timing;
    } else {
        words.push(format!("{} → {}", pace(running), pace(after)));
    }
    if before.1 == after.priority {
        spec.priority = running.priority;
    } else {
        words.push(format!("priority {} → {}", running.priority.0, after.priority.0));
    }
    if running.carrier != after.carrier {
        words.push(format!("carrier {} → {}", running.carrier, after.carrier));
    }
    (spec, words.join(", "))
}

fn pace(spec: &RouteSpec) -> String {
    timing(spec.timing)
}

fn ends(config: &Config, plan: &Planned) -> String {
    let peer = config.peer_of(plan.spec.peer).map_or("?", |peer| peer.name.as_str());
    format!("{} → {} (peer {peer})", plan.spec.real_local, plan.spec.real_remote)
}
