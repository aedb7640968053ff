//! The inputs of the route plan, and what was last reported of its outcome.

use std::{collections::BTreeSet, net::IpAddr};

use netft_proto::{
    config::Config,
    engine::Engine,
    ids::PeerId,
    route::EventKind,
    topology,
    topology::{
        Advertisements, NetworkCache, NetworkInfo, PlanInputs, PlannedRoute, RouteActivities,
        RouteActivity, RouteLink, RoutePlan, UnroutedAddress,
    },
    wire::interfaces::{Advertisement, MAX_ADVERTISED_ENDPOINTS},
};
use tokio::sync::watch;

use crate::io::{
    carrier_monitor::CarrierStates,
    control::route_table::{RouteKey, RouteTable},
    host_state::HostState,
};

/// Plans routes from the config, the interfaces and the peers' advertisements.
pub(super) struct RouteReplanner {
    host_state: HostState,
    /// The addresses of the peers, as they advertise them; the netlink watcher reads along.
    advertisements: watch::Sender<Advertisements>,
    /// The addresses of this node, as last advertised to the peers.
    advertisement: Advertisement,
    /// The addresses to have sockets on, with their interface.
    listening: Vec<(IpAddr, u32)>,
    /// The usable addresses did not all fit into the advertisement.
    is_list_cut: bool,
    /// Role and metric of the networks this node was in.
    network_cache: NetworkCache,
    /// The addresses of peers that no route leads to, as last logged.
    unrouted: Vec<UnroutedAddress>,
}

impl RouteReplanner {
    pub(super) fn new(advertisements: watch::Sender<Advertisements>) -> Self {
        Self {
            host_state: HostState::default(),
            advertisements,
            advertisement: Advertisement::default(),
            listening: Vec::new(),
            is_list_cut: false,
            network_cache: NetworkCache::default(),
            unrouted: Vec::new(),
        }
    }

    pub(super) fn host_state(&self) -> &HostState {
        &self.host_state
    }

    pub(super) fn set_host_state(&mut self, host_state: HostState) {
        self.host_state = host_state;
    }

    /// The addresses to have sockets on, with their interface.
    pub(super) fn listening(&self) -> &[(IpAddr, u32)] {
        &self.listening
    }

    /// Finds the addresses to have sockets on. Returns the event that the interface list leaves
    /// some out, once until all fit again.
    pub(super) fn update_listening(
        &mut self,
        config: &Config,
        running: &[PlannedRoute],
    ) -> Option<EventKind> {
        let interfaces = &self.host_state.interfaces;
        self.listening = topology::listening_addresses(config, interfaces, running);
        let usable = topology::ranked_endpoints(config, interfaces, running).len();
        let is_cut = usable > MAX_ADVERTISED_ENDPOINTS;
        let was_cut = std::mem::replace(&mut self.is_list_cut, is_cut);
        (is_cut && !was_cut)
            .then_some(EventKind::InterfaceListCut { listed: MAX_ADVERTISED_ENDPOINTS, usable })
    }

    /// True if a peer relays, by its last advertisement.
    pub(super) fn offers_relay(&self, peer: PeerId) -> bool {
        self.advertisements.borrow().get(&peer).is_some_and(|list| list.offers_relay)
    }

    /// Takes in what the carrier monitor saw. The netlink watcher's state may be newer; the next
    /// poll corrects that. Returns whether a carrier changed.
    pub(super) fn set_carriers(&mut self, seen: &CarrierStates) -> bool {
        let mut changed = false;
        for interface in &mut self.host_state.interfaces {
            for (_, carrier) in seen.iter().filter(|(index, _)| *index == interface.index) {
                changed |= *carrier != interface.carrier;
                interface.carrier = *carrier;
            }
        }
        changed
    }

    /// The advertisement of this node's addresses, if it changed.
    pub(super) fn next_advertisement(
        &mut self,
        config: &Config,
        running: &[PlannedRoute],
    ) -> Option<&Advertisement> {
        let HostState { interfaces, ways, .. } = &self.host_state;
        let mut next = topology::build_advertisement(config, interfaces, running, ways);
        next.serial = self.advertisement.serial;
        // Serial 0 was never sent.
        if next == self.advertisement && next.serial != 0 {
            return None;
        }
        next.serial = next.serial.wrapping_add(1).max(1);
        self.advertisement = next;
        Some(&self.advertisement)
    }

    /// The last advertisement with a new serial, if there was one.
    pub(super) fn repeat_advertisement(&mut self) -> Option<&Advertisement> {
        if self.advertisement.serial == 0 {
            return None;
        }
        self.advertisement.serial = self.advertisement.serial.wrapping_add(1).max(1);
        Some(&self.advertisement)
    }

    /// Serial of the last advertisement.
    pub(super) const fn advertisement_serial(&self) -> u32 {
        self.advertisement.serial
    }

    /// Continues after the last advertisement of a predecessor process: the peers ignore an older
    /// one.
    pub(super) fn resume_serial(&mut self, serial: u32) {
        self.advertisement.serial = serial;
    }

    /// The addresses that a peer advertised last.
    pub(super) fn advertisement_of(&self, peer: PeerId) -> Option<Advertisement> {
        self.advertisements.borrow().get(&peer).cloned()
    }

    /// Takes in the advertisement of a peer. Returns whether it says anything new.
    pub(super) fn on_advertisement(&self, peer: PeerId, list: &Advertisement) -> bool {
        self.advertisements.send_if_modified(|known| {
            let before = known.insert(peer, list.clone());
            before.is_none_or(|before| Advertisement { serial: list.serial, ..before } != *list)
        })
    }

    /// Drops the advertisements of peers that `config` does not know.
    pub(super) fn remove_absent(&self, config: &Config) {
        self.advertisements
            .send_modify(|known| known.retain(|peer, _| config.peer_of(*peer).is_some()));
    }

    /// Notes role and metric of the networks that the interfaces are in.
    pub(super) fn record_networks(&mut self, config: &Config) {
        self.network_cache.record_interfaces(config, &self.host_state.interfaces);
    }

    /// The routes that follow from a config and the interfaces, and those to addresses that peers
    /// proved.
    pub(super) fn plan_routes(
        &self,
        config: &Config,
        host_state: &HostState,
        routes: &RouteTable,
        engine: &Engine,
    ) -> RoutePlan {
        let advertisements = &*self.advertisements.borrow();
        let activities = route_activities(routes, engine);
        let inputs = host_state.plan_inputs(advertisements, &activities);
        let mut plan = topology::plan_routes(config, &inputs, &routes.to_planned());
        for entry in routes.entries().filter(|entry| entry.is_peer_reflexive()) {
            let key = entry.route_key();
            let listed = plan.routes.iter().any(|route| route.route_key() == key);
            if !listed
                && let Some(route) =
                    topology::plan_learned_route(config, &inputs, key, Some(&entry.plan))
            {
                plan.routes.push(route);
            }
        }
        plan
    }

    /// The route to an address that nobody listed, if there may be one.
    pub(super) fn plan_peer_reflexive(
        &self,
        config: &Config,
        routes: &RouteTable,
        key: RouteKey,
    ) -> Option<PlannedRoute> {
        if routes.is_removed(&key) {
            return None;
        }
        self.with_inputs(|inputs| topology::plan_learned_route(config, inputs, key, None))
    }

    /// Calls `read` with the inputs of the plan.
    pub(super) fn with_inputs<T>(&self, read: impl FnOnce(&PlanInputs<'_>) -> T) -> T {
        read(&self.host_state.plan_inputs(&self.advertisements.borrow(), &RouteActivities::new()))
    }

    /// The route that a peer tries between two listed addresses and this node did not plan, if
    /// there may be one.
    pub(super) fn plan_adopted(
        &self,
        config: &Config,
        routes: &RouteTable,
        key: RouteKey,
    ) -> Option<PlannedRoute> {
        let to_peer = routes.entries().filter(|entry| entry.plan.spec.peer == key.0);
        if routes.is_removed(&key) || to_peer.count() >= topology::MAX_ROUTES_PER_PEER {
            return None;
        }
        self.with_inputs(|inputs| topology::plan_adopted_route(config, inputs, key))
    }

    /// Logs the addresses of peers that no route leads to, when they change.
    pub(super) fn report_unrouted(&mut self, config: &Config, unrouted: Vec<UnroutedAddress>) {
        if self.unrouted == unrouted {
            return;
        }
        for skip in &unrouted {
            let peer = config.peer_of(skip.peer).map_or("?", |peer| &peer.name);
            let (remote, reason) = (skip.remote, skip.reason);
            tracing::warn!(%peer, %remote, %reason, "no route leads there");
        }
        self.unrouted = unrouted;
    }

    /// The addresses of a peer that no route leads to.
    pub(super) fn unrouted_of(&self, peer: PeerId) -> impl Iterator<Item = &UnroutedAddress> {
        self.unrouted.iter().filter(move |address| address.peer == peer)
    }

    /// The networks, with the routes in them and the peers that have a session.
    pub(super) fn network_inventory(
        &self,
        config: &Config,
        links: &[RouteLink],
        alive: &BTreeSet<PeerId>,
    ) -> Vec<NetworkInfo> {
        topology::build_inventory(
            config,
            &self.host_state.interfaces,
            &self.advertisements.borrow(),
            (links, alive),
            &self.network_cache,
        )
    }
}

/// The activity of the routes, as of the engine's last call.
fn route_activities(routes: &RouteTable, engine: &Engine) -> RouteActivities {
    let now = engine.last_call();
    let peers = engine.peer_statuses();
    let has_session = |peer| peers.iter().any(|known| known.peer == peer && known.session);
    let statuses = engine.route_statuses().into_iter();
    let keyed = statuses.filter_map(|status| {
        let activity = RouteActivity::of_route(&status, has_session(status.spec.peer), now);
        Some((routes.get(status.id)?.route_key(), activity))
    });
    keyed.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::io::control::test_node::TestNode;

    #[test]
    fn addresses_are_advertised_once_and_again_when_they_change() {
        let mut node = TestNode::new(1);
        let serial = node.planner.next_advertisement(&node.config, &[]).unwrap().serial;
        assert_eq!(serial, 1);
        assert!(node.planner.next_advertisement(&node.config, &[]).is_none());
        node.config.site = "south".into();
        assert_eq!(node.planner.next_advertisement(&node.config, &[]).unwrap().serial, 2);
    }

    #[test]
    fn an_advertisement_with_another_serial_alone_is_nothing_new() {
        let node = TestNode::new(1);
        let list = Advertisement { serial: 1, port: 3343, ..Advertisement::default() };
        assert!(node.planner.on_advertisement(PeerId(0), &list));
        let again = Advertisement { serial: 2, ..list.clone() };
        assert!(!node.planner.on_advertisement(PeerId(0), &again));
        let relay = Advertisement { offers_relay: true, ..list };
        assert!(node.planner.on_advertisement(PeerId(0), &relay));
        assert!(node.planner.offers_relay(PeerId(0)));
        node.planner.remove_absent(&TestNode::new(0).config);
        assert!(!node.planner.offers_relay(PeerId(0)));
    }

    #[test]
    fn a_carrier_counts_when_it_differs() {
        let mut node = TestNode::new(0);
        assert!(!node.planner.set_carriers(&vec![(2, true), (9, false)]));
        assert!(node.planner.set_carriers(&vec![(2, false)]));
        assert!(!node.planner.host_state().interface(2).unwrap().carrier);
    }
}
