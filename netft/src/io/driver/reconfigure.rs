//! Another config for a running node: peers come and go, routes follow the new plan, and what is
//! the same in both keeps its number, its socket and its session.

use std::collections::BTreeMap;

use super::{
    NewConfig,
    state::{Driver, PeerSessions},
};
use crate::{
    config::{Change, Config, timing},
    id::{PeerId, RouteId},
    io::keeper::World,
    route::{EventKind, Input, RouteSpec},
    topology::{self, Planned},
};

/// What becomes of the routes.
struct Routes {
    changes: Vec<Change>,
    /// The routes that stay and are described differently.
    described: Vec<(RouteId, RouteSpec)>,
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
        let NewConfig { config, world, .. } = new;
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
        self.input(Input::Configure { hold: config.hold, history: config.history });
        self.config = config;
        self.removed.clear();
        for (id, spec) in routes.described {
            if let Some(known) = self.routes.get_mut(&id) {
                known.plan.spec = spec.clone();
            }
            self.input(Input::Describe { id, spec });
        }
        self.set_world(world);
        routes.changes
    }

    fn compare(&self, config: &Config, world: &World) -> Routes {
        let known: Vec<_> = self.routes.values().map(|known| known.plan.clone()).collect();
        let plan = |config: &Config| {
            let planned = topology::plan(config, &world.interfaces, &world.sources, &known).routes;
            planned.into_iter().map(|plan| (plan.key(), plan)).collect::<BTreeMap<_, _>>()
        };
        let (before, after) = (plan(&self.config), plan(config));
        let mut routes = Routes { changes: Vec::new(), described: Vec::new() };
        for (id, known) in &self.routes {
            let key = known.plan.key();
            let Some(planned) = after.get(&key) else {
                let what = format!("route {id}: {}", ends(&self.config, &known.plan));
                routes.changes.push(Change::removed(what));
                continue;
            };
            // Compared with what the former config says, not with what an operator made of it.
            let Some(was) = before.get(&key) else { continue };
            let described = describe(&known.plan.spec, &was.spec, &planned.spec);
            if let Some((spec, what)) = described {
                if !what.is_empty() {
                    let what = format!("route {id}: {}: {what}", ends(config, planned));
                    routes.changes.push(Change::changed(what));
                }
                routes.described.push((*id, spec));
            }
        }
        let added = after.into_iter().filter(|(key, _)| known.iter().all(|k| k.key() != *key));
        routes.changes.extend(added.map(|(_, planned)| {
            let (ends, priority) = (ends(config, &planned), planned.spec.priority.0);
            Change::added(format!("route {ends}, {}, priority {priority}", pace(&planned.spec)))
        }));
        routes
    }
}

/// `running`, with what differs between two plans taken from the later one, and that in words.
fn describe(
    running: &RouteSpec,
    before: &RouteSpec,
    after: &RouteSpec,
) -> Option<(RouteSpec, String)> {
    if before == after {
        return None;
    }
    let mut spec = after.clone();
    let mut words = Vec::new();
    if before.timing == after.timing {
        spec.timing = running.timing;
    } else {
        words.push(format!("{} → {}", pace(running), pace(after)));
    }
    if before.priority == after.priority {
        spec.priority = running.priority;
    } else {
        words.push(format!("priority {} → {}", running.priority.0, after.priority.0));
    }
    Some((spec, words.join(", ")))
}

fn pace(spec: &RouteSpec) -> String {
    timing(spec.timing)
}

fn ends(config: &Config, plan: &Planned) -> String {
    let peer = config.peer_of(plan.spec.peer).map_or("?", |peer| peer.name.as_str());
    format!("{} → {} (peer {peer})", plan.spec.real_local, plan.spec.real_remote)
}
