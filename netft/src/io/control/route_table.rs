//! The routes of this node, beside what the engine knows of them.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use netft_proto::{
    ids::{PeerId, RouteId},
    route::{Attributes, Reason, RouteSpec},
    time::Time,
    topology::PlannedRoute,
};

use crate::io::counters::RouteCounters;

/// The identity of a route in every plan: peer, local end, and the remote end it was planned with.
pub(super) type RouteKey = (PeerId, SocketAddr, SocketAddr);

/// A route. Its timing and priority in force are the engine's
/// ([`Engine::route_spec`](netft_proto::engine::Engine::route_spec)): an operator may have changed
/// them since they were planned.
pub(super) struct RouteEntry {
    /// The plan, with the remote address the route leads to.
    pub(super) plan: PlannedRoute,
    /// The remote address of the plan, while the route leads to another one that its peer proved.
    pub(super) configured_remote: Option<SocketAddr>,
    /// When its peer proved the address it leads to.
    pub(super) learned_at: Option<Time>,
    /// The local fault last reported to the engine.
    pub(super) reported_fault: Option<Reason>,
    /// Frames and bytes of data the workers sent here.
    pub(super) counters: Arc<RouteCounters>,
    /// Frames and bytes of data the workers received here.
    pub(super) received: Arc<RouteCounters>,
}

impl RouteEntry {
    pub(super) fn new(plan: PlannedRoute, learned_at: Option<Time>) -> Self {
        Self {
            plan,
            configured_remote: None,
            learned_at,
            reported_fault: None,
            counters: Arc::default(),
            received: Arc::default(),
        }
    }

    /// True if the route leads over a third node: no interface makes it.
    pub(super) fn is_relayed(&self) -> bool {
        self.plan.spec.attributes.0 & Attributes::RELAYED != 0
    }

    /// True if the route was made for a peer-reflexive address: one that nobody listed.
    pub(super) fn is_peer_reflexive(&self) -> bool {
        self.configured_remote.is_none() && self.plan.spec.attributes.0 & Attributes::LEARNED != 0
    }

    /// The route as it was planned, wherever it leads.
    pub(super) fn to_planned(&self) -> PlannedRoute {
        let mut plan = self.plan.clone();
        if let Some(configured_remote) = self.configured_remote {
            plan.spec.real_remote = configured_remote;
            plan.spec.attributes.0 &= !Attributes::LEARNED;
        }
        plan
    }

    /// The identity of the route in another plan.
    pub(super) fn route_key(&self) -> RouteKey {
        let (peer, local, remote) = self.plan.route_key();
        (peer, local, self.configured_remote.unwrap_or(remote))
    }

    /// Puts the address that the route leads to into what is planned for it.
    pub(super) fn apply_learned_remote(&self, spec: &mut RouteSpec) {
        if self.configured_remote.is_some() {
            spec.real_remote = self.plan.spec.real_remote;
            spec.attributes.0 |= Attributes::LEARNED;
        }
    }
}

/// Every route, by number.
#[derive(Default)]
pub(super) struct RouteTable {
    entries: BTreeMap<RouteId, RouteEntry>,
    /// Routes that were removed through the API: a plan does not bring them back.
    removed: Vec<RouteKey>,
    last_id: u32,
}

impl RouteTable {
    /// Adds a route under a number that was never used before.
    pub(super) fn add(&mut self, plan: PlannedRoute, learned_at: Option<Time>) -> RouteId {
        self.last_id += 1;
        let id = RouteId(self.last_id);
        self.entries.insert(id, RouteEntry::new(plan, learned_at));
        id
    }

    /// Adds a route of a predecessor process under its number.
    pub(super) fn restore(&mut self, id: RouteId, entry: RouteEntry) {
        self.last_id = self.last_id.max(id.0);
        self.entries.insert(id, entry);
    }

    /// The highest number of a route so far.
    pub(super) const fn last_id(&self) -> u32 {
        self.last_id
    }

    /// Numbers up to `last` were used by a predecessor process.
    pub(super) fn skip_ids(&mut self, last: u32) {
        self.last_id = self.last_id.max(last);
    }

    pub(super) fn remove(&mut self, id: RouteId) -> Option<RouteEntry> {
        self.entries.remove(&id)
    }

    /// Removes the routes to a peer.
    pub(super) fn remove_peer(&mut self, peer: PeerId) {
        self.entries.retain(|_, entry| entry.plan.spec.peer != peer);
    }

    pub(super) fn get(&self, id: RouteId) -> Option<&RouteEntry> {
        self.entries.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: RouteId) -> Option<&mut RouteEntry> {
        self.entries.get_mut(&id)
    }

    pub(super) fn contains(&self, id: RouteId) -> bool {
        self.entries.contains_key(&id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = RouteId> {
        self.entries.keys().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RouteId, &RouteEntry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (RouteId, &mut RouteEntry)> {
        self.entries.iter_mut().map(|(id, entry)| (*id, entry))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &RouteEntry> {
        self.entries.values()
    }

    /// The route of this identity.
    pub(super) fn id_of(&self, key: RouteKey) -> Option<RouteId> {
        self.iter().find(|(_, entry)| entry.route_key() == key).map(|(id, _)| id)
    }

    /// Every route but those over relays, as planned.
    pub(super) fn to_planned(&self) -> Vec<PlannedRoute> {
        let direct = self.entries.values().filter(|entry| !entry.is_relayed());
        direct.map(RouteEntry::to_planned).collect()
    }

    /// True if a route was removed through the API.
    pub(super) fn is_removed(&self, key: &RouteKey) -> bool {
        self.removed.contains(key)
    }

    /// Keeps a route from being planned again.
    pub(super) fn forbid(&mut self, key: RouteKey) {
        self.removed.push(key);
    }

    /// Lets removed routes between a peer and one of its addresses be planned again.
    pub(super) fn allow(&mut self, peer: PeerId, remote: SocketAddr) {
        self.removed.retain(|key| (key.0, key.2) != (peer, remote));
    }

    /// Lets every removed route be planned again.
    pub(super) fn allow_all(&mut self) {
        self.removed.clear();
    }

    /// Leads a route to an address that its peer proved. Returns whether it led elsewhere before.
    pub(super) fn learn_remote(&mut self, now: Time, id: RouteId, remote: SocketAddr) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.learned_at = Some(now);
        if entry.plan.spec.real_remote == remote {
            return false;
        }
        let before = std::mem::replace(&mut entry.plan.spec.real_remote, remote);
        if !entry.is_peer_reflexive() {
            entry.configured_remote.get_or_insert(before);
            entry.plan.spec.attributes.0 |= Attributes::LEARNED;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::io::control::test_node::{REMOTE, planned_route};

    const NAT: &str = "192.0.2.7:4000";

    #[test]
    fn a_route_that_leads_elsewhere_keeps_the_identity_it_was_planned_with() {
        let mut routes = RouteTable::default();
        let plan = planned_route(PeerId(0));
        let id = routes.add(plan.clone(), None);
        let at = Time::from_millis(5);
        assert!(!routes.learn_remote(at, id, REMOTE.parse().unwrap()), "it leads there already");
        assert!(routes.learn_remote(at, id, NAT.parse().unwrap()));
        let entry = routes.get(id).unwrap();
        assert_eq!(entry.plan.spec.real_remote, NAT.parse().unwrap());
        assert!(!entry.is_peer_reflexive() && entry.learned_at == Some(at));
        assert_eq!(routes.id_of(plan.route_key()), Some(id));
        assert_eq!(routes.to_planned(), [plan]);
    }

    #[test]
    fn numbers_are_never_used_twice_and_removed_routes_stay_away() {
        let mut routes = RouteTable::default();
        let plan = planned_route(PeerId(0));
        let id = routes.add(plan.clone(), None);
        routes.remove(id).unwrap();
        routes.forbid(plan.route_key());
        assert!(routes.is_removed(&plan.route_key()));
        assert_ne!(routes.add(plan.clone(), None), id);
        routes.allow(PeerId(0), REMOTE.parse().unwrap());
        assert!(!routes.is_removed(&plan.route_key()));
    }
}
