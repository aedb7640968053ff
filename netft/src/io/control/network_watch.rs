//! Events of the networks that the nodes' interfaces form: added, removed, up, partitioned, down.
//!
//! A change is reported once it has settled, so that a failure that takes several routes is one
//! line for each network, not one for each step.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ipnet::IpNet;
use netft_proto::{
    ids::PeerId,
    route::{Attributes, EventKind, NetworkChange, RouteState, RouteStatus},
    time::Time,
    topology::{NetworkInfo, NetworkState, RouteLink},
};

use crate::io::control::component::{Action, Actions, Component, Input, View};

/// How long after the first change the networks are compared.
const NETWORK_SETTLE_TIME: Duration = Duration::from_secs(1);

/// The networks as last reported.
#[derive(Default)]
pub(super) struct NetworkWatch {
    known: Option<Vec<NetworkInfo>>,
    compare_at: Option<Time>,
}

impl NetworkWatch {
    /// A route or a session changed.
    pub(super) fn mark_changed(&mut self, now: Time) {
        self.compare_at.get_or_insert(now + NETWORK_SETTLE_TIME);
    }
}

impl Component for NetworkWatch {
    fn next_wake(&self) -> Option<Time> {
        self.compare_at
    }

    fn on_input(&mut self, now: Time, input: &Input<'_>, _: &View<'_>, _: &mut Actions) {
        if matches!(input, Input::RoutesChanged) {
            self.mark_changed(now);
        }
    }

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if self.compare_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let networks = network_inventory(view);
        let events = compare_networks(self.known.as_deref(), &networks);
        tracing::debug!(networks = networks.len(), events = events.len(), "networks compared");
        for kind in events {
            actions.push(Action::Emit(kind));
        }
        self.known = Some(networks);
    }
}

/// The networks, with the state of the routes in them.
pub(super) fn network_inventory(view: &View<'_>) -> Vec<NetworkInfo> {
    let relayed = |id| view.routes.get(id).is_some_and(|entry| entry.is_relayed());
    // A cross-subnet route on which no heartbeat ever arrived is no evidence about the networks of
    // its ends.
    let is_evidence = |route: &RouteStatus| {
        route.heartbeats.last_heard.is_some()
            || route.spec.attributes.0 & Attributes::CROSS_SUBNET == 0
            || route.state == RouteState::Up
    };
    let routes = view.engine.route_statuses().into_iter();
    let links: Vec<_> = routes
        .filter(|route| !relayed(route.id) && is_evidence(route))
        .map(|route| RouteLink {
            peer: route.spec.peer,
            local: route.spec.real_local.ip(),
            remote: route.spec.real_remote.ip(),
            up: route.state == RouteState::Up,
        })
        .collect();
    let peers = view.engine.peer_statuses().into_iter().filter(|peer| peer.session);
    let alive = peers.map(|peer| peer.peer).collect();
    view.planner.network_inventory(view.config, &links, &alive)
}

/// The events between two inventories. The first one reports states alone.
fn compare_networks(before: Option<&[NetworkInfo]>, after: &[NetworkInfo]) -> Vec<EventKind> {
    let known = before.unwrap_or_default();
    let find = |prefix: IpNet| known.iter().find(|network| network.prefix == prefix);
    let mut events = Vec::new();
    for network in after {
        let prefix = network.prefix;
        let was = find(prefix);
        if let Some(was) = was {
            events.extend(compare_interfaces(was, network));
        } else if before.is_some() {
            events.push(EventKind::NetworkChanged { prefix, change: NetworkChange::Added });
        }
        if was.is_none_or(|was| was.state != network.state) {
            let change = state_change(network.state);
            events.push(EventKind::NetworkChanged { prefix, change });
        }
    }
    let is_gone = |network: &&NetworkInfo| after.iter().all(|one| one.prefix != network.prefix);
    events.extend(known.iter().filter(is_gone).map(|network| EventKind::NetworkChanged {
        prefix: network.prefix,
        change: NetworkChange::Removed,
    }));
    events
}

const fn state_change(state: NetworkState) -> NetworkChange {
    match state {
        NetworkState::Up => NetworkChange::Up,
        NetworkState::Partitioned => NetworkChange::Partitioned,
        NetworkState::Down => NetworkChange::Down,
        NetworkState::Unavailable => NetworkChange::Unavailable,
    }
}

fn compare_interfaces(before: &NetworkInfo, after: &NetworkInfo) -> Vec<EventKind> {
    let ends = |network: &NetworkInfo| -> BTreeSet<(Option<PeerId>, IpAddr)> {
        network.interfaces.iter().map(|one| (one.peer, one.addr)).collect()
    };
    let (was, is) = (ends(before), ends(after));
    let prefix = after.prefix;
    let event = |added: bool| {
        move |(peer, addr): &(Option<PeerId>, IpAddr)| EventKind::InterfaceChanged {
            peer: *peer,
            prefix,
            addr: *addr,
            added,
        }
    };
    was.difference(&is).map(event(false)).chain(is.difference(&was).map(event(true))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::io::control::test_node::{TestNode, due_actions};

    fn events(watch: &mut NetworkWatch, now: Time, node: &TestNode) -> Vec<String> {
        let text = |action| match action {
            Action::Emit(EventKind::NetworkChanged { prefix, change }) => {
                format!("{prefix} {}", change.as_str())
            }
            Action::Emit(EventKind::InterfaceChanged { addr, added, .. }) => {
                format!("{addr} {added}")
            }
            other => panic!("{other:?}"),
        };
        due_actions(watch, now, node).into_iter().map(text).collect()
    }

    #[test]
    fn t_06_networks_and_interfaces_are_reported_once_they_settled() {
        let mut node = TestNode::new(1);
        let mut watch = NetworkWatch::default();
        let at = |ms| Time::from_millis(ms);
        watch.mark_changed(at(0));
        assert_eq!(watch.next_wake(), Some(at(1000)));
        assert!(events(&mut watch, at(999), &node).is_empty());
        let first = events(&mut watch, at(1000), &node);
        assert_eq!(first.len(), 1, "{first:?}");
        assert!(first[0].starts_with("198.51.100.0/24 "), "{first:?}");
        watch.mark_changed(at(1100));
        assert!(events(&mut watch, at(2200), &node).is_empty(), "nothing changed");
        // A card is lost, then the network.
        let mut state = node.planner.host_state().clone();
        let mut second = state.interfaces[1].clone();
        second.index = 3;
        second.name = "eth1".to_owned();
        second.addrs[0].addr = "198.51.100.9".parse().unwrap();
        state.interfaces.push(second);
        node.planner.set_host_state(state.clone());
        watch.mark_changed(at(3000));
        assert!(events(&mut watch, at(4000), &node).contains(&"198.51.100.9 true".to_owned()));
        state.interfaces.truncate(1);
        node.planner.set_host_state(state);
        watch.mark_changed(at(5000));
        assert_eq!(events(&mut watch, at(6000), &node), ["198.51.100.0/24 removed"]);
    }
}
