//! The networks formed by the interface prefixes of all nodes, as this node sees them (NetFT's
//! topology manager: one network per subnet, even with a single node in it). Pure.
//!
//! Nodes do not exchange these states, so each is this node's own view: a network that two others
//! cannot use between them is up here as long as this node reaches both.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    config::{CLIENT_METRIC, Config, NetworkRole},
    ids::PeerId,
    topology::{
        advertisement::{interface_numbers, is_host_local},
        networks::{
            base_metric, can_carry_routes, interface_metric, is_listed, is_overlay_or_bridge,
            is_virtual, network_of, network_role,
        },
        types::{Advertisements, Interface},
    },
};

/// The most networks cached that no interface of this node is in.
const MAX_REMEMBERED: usize = 64;

/// State of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkState {
    /// Every interface of a node with a session is reached there.
    Up,
    /// Some are reached and others are not.
    Partitioned,
    /// None is reached, or this node's own interface does not work.
    Down,
    /// This node has no interface there, and reaches none.
    Unavailable,
}

impl NetworkState {
    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Partitioned => "partitioned",
            Self::Down => "down",
            Self::Unavailable => "unavailable",
        }
    }
}

/// State of an interface in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterfaceState {
    /// Reached; or this node's own, and it reaches all it should.
    Up,
    /// Not reached; or this node's own, and it reaches some only.
    Unreachable,
    /// This node's own: it is down or without carrier, or reaches none of several peers. One peer's
    /// silence is no evidence against it (U26).
    Failed,
    /// Its node has no session with this one.
    Unavailable,
}

impl InterfaceState {
    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Source of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricSource {
    /// The config lists the network.
    Config,
    /// The role, and the speed of this node's interface.
    Interface,
    /// The peer's interface list: this node has no interface there.
    Peer,
    /// The last metric while this node had an interface there.
    Remembered,
}

impl MetricSource {
    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Interface => "interface",
            Self::Peer => "peer",
            Self::Remembered => "remembered",
        }
    }
}

/// One network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NetworkInfo {
    /// Its prefix.
    pub prefix: IpNet,
    /// Its state.
    pub state: NetworkState,
    /// Its role: as configured, else by whether a default route leaves there.
    pub role: NetworkRole,
    /// Lower is preferred.
    pub metric: u32,
    /// Source of the metric.
    pub metric_source: MetricSource,
    /// The interfaces in it, this node's first, then by peer.
    pub interfaces: Vec<NetworkInterface>,
}

/// One address of an interface in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NetworkInterface {
    /// The peer it belongs to; `None` for this node's own.
    pub peer: Option<PeerId>,
    /// Its number on its node.
    pub number: u16,
    /// Its name; `None` for a peer's, which is not advertised.
    pub name: Option<String>,
    /// The address.
    pub addr: IpAddr,
    /// Its state.
    pub state: InterfaceState,
}

/// A route, as far as the inventory needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLink {
    /// The peer it leads to.
    pub peer: PeerId,
    /// The address here.
    pub local: IpAddr,
    /// The address there.
    pub remote: IpAddr,
    /// It is up.
    pub up: bool,
}

/// Role and metric of the networks this node was in: both stay what they were when an interface
/// goes (reliability U28). At most 64 of them without an interface; the smallest prefixes stay.
#[derive(Clone, Debug, Default)]
pub struct NetworkCache(BTreeMap<IpNet, (NetworkRole, u32)>);

impl NetworkCache {
    /// Records role and metric of the present interfaces.
    pub fn record_interfaces(&mut self, config: &Config, interfaces: &[Interface]) {
        let present = own_members(config, interfaces);
        for (prefix, members) in &present {
            if let Some(best) = members.iter().min_by_key(|member| member.metric) {
                self.0.insert(*prefix, (best.role, best.metric));
            }
        }
        let gone: Vec<_> =
            self.0.keys().copied().filter(|prefix| !present.contains_key(prefix)).collect();
        for prefix in gone.iter().skip(MAX_REMEMBERED) {
            self.0.remove(prefix);
        }
    }
}

/// An interface in a network, before its state is derived.
#[derive(Clone, Debug)]
struct NetworkMember {
    peer: Option<PeerId>,
    number: u16,
    name: Option<String>,
    addr: IpAddr,
    healthy: bool,
    role: NetworkRole,
    metric: u32,
}

/// The networks, by metric and prefix. `alive` are the peers with a session, `edges` the routes
/// between addresses of interfaces.
pub fn build_inventory(
    config: &Config,
    interfaces: &[Interface],
    advertisements: &Advertisements,
    (edges, alive): (&[RouteLink], &BTreeSet<PeerId>),
    cache: &NetworkCache,
) -> Vec<NetworkInfo> {
    let mut members = own_members(config, interfaces);
    for (peer, list) in advertisements {
        for endpoint in &list.endpoints {
            let client = endpoint.metric >= CLIENT_METRIC;
            members.entry(endpoint.subnet_prefix()).or_default().push(NetworkMember {
                peer: Some(*peer),
                number: endpoint.interface,
                name: None,
                addr: endpoint.addr,
                healthy: true,
                role: if client { NetworkRole::ClusterAndClient } else { NetworkRole::Cluster },
                metric: endpoint.metric,
            });
        }
    }
    for prefix in config.networks.iter().map(|network| &network.prefix).chain(cache.0.keys()) {
        // A listed prefix may hold several networks, which are there by themselves.
        if !members.keys().any(|known| prefix.contains(known)) {
            members.insert(*prefix, Vec::new());
        }
    }
    // The interfaces each route connects; a remote address that is not advertised is behind a NAT.
    let number = |peer: Option<PeerId>, addr: IpAddr| {
        let all = members.values().flatten();
        let mut found = all.filter(|member| (member.peer, member.addr) == (peer, addr));
        found.next().map(|member| (peer, member.number))
    };
    let living = edges.iter().filter(|edge| alive.contains(&edge.peer));
    let joins: Vec<InterfacePair> = living
        .map(|edge| InterfacePair {
            local: number(None, edge.local),
            remote: number(Some(edge.peer), edge.remote),
            up: edge.up,
        })
        .collect();
    let mut networks: Vec<_> = members
        .iter()
        .map(|(prefix, members)| build_network(config, *prefix, members, &joins, alive, cache))
        .collect();
    networks.sort_by_key(|network| (network.metric, network.prefix));
    networks
}

/// An interface of some node.
type InterfaceKey = (Option<PeerId>, u16);

/// A route between two interfaces.
#[derive(Clone, Copy, Debug)]
struct InterfacePair {
    local: Option<InterfaceKey>,
    remote: Option<InterfaceKey>,
    up: bool,
}

impl InterfacePair {
    fn touches_interface(&self, place: InterfaceKey) -> bool {
        [self.local, self.remote].contains(&Some(place))
    }
}

fn build_network(
    config: &Config,
    prefix: IpNet,
    members: &[NetworkMember],
    joins: &[InterfacePair],
    alive: &BTreeSet<PeerId>,
    cache: &NetworkCache,
) -> NetworkInfo {
    let places: BTreeSet<InterfaceKey> =
        members.iter().map(|member| (member.peer, member.number)).collect();
    let inside = |place: Option<InterfaceKey>| place.is_some_and(|place| places.contains(&place));
    let within: Vec<_> =
        joins.iter().filter(|join| inside(join.local) && inside(join.remote)).copied().collect();
    // A network with a single node is judged by its routes to others.
    let considered = if within.is_empty() {
        joins.iter().filter(|join| inside(join.local) || inside(join.remote)).copied().collect()
    } else {
        within
    };
    let interfaces: Vec<_> = members
        .iter()
        .map(|member| NetworkInterface {
            peer: member.peer,
            number: member.number,
            name: member.name.clone(),
            addr: member.addr,
            state: interface_state(member, &considered, alive),
        })
        .collect();
    let (role, metric, metric_from) = role_and_metric(config, prefix, members, cache);
    NetworkInfo {
        prefix,
        state: network_state(members, &places, &considered),
        role,
        metric,
        metric_source: metric_from,
        interfaces,
    }
}

fn network_state(
    members: &[NetworkMember],
    places: &BTreeSet<InterfaceKey>,
    joins: &[InterfacePair],
) -> NetworkState {
    let mut own = members.iter().filter(|member| member.peer.is_none()).peekable();
    let here = own.peek().is_some();
    let works = own.any(|member| member.healthy);
    if here && !works {
        return NetworkState::Down;
    }
    let touched =
        places.iter().filter(|place| joins.iter().any(|join| join.touches_interface(**place)));
    let reached =
        |place: &InterfaceKey| joins.iter().any(|join| join.up && join.touches_interface(*place));
    let (reached, lost): (Vec<InterfaceKey>, Vec<_>) = touched.copied().partition(reached);
    match (reached.is_empty(), lost.is_empty()) {
        (false, true) => NetworkState::Up,
        (false, false) => NetworkState::Partitioned,
        (true, _) if !here => NetworkState::Unavailable,
        // No peer with a session is there: the network is as good as its interface.
        (true, true) => NetworkState::Up,
        (true, false) => NetworkState::Down,
    }
}

fn interface_state(
    member: &NetworkMember,
    joins: &[InterfacePair],
    alive: &BTreeSet<PeerId>,
) -> InterfaceState {
    let place = (member.peer, member.number);
    let touching = || joins.iter().filter(|join| join.touches_interface(place));
    let (up, all) = (touching().filter(|join| join.up).count(), touching().count());
    let peers: BTreeSet<_> = touching().filter_map(|join| join.remote?.0).collect();
    match member.peer {
        None if !member.healthy || (up == 0 && peers.len() > 1) => InterfaceState::Failed,
        None if up < all => InterfaceState::Unreachable,
        None => InterfaceState::Up,
        Some(peer) if !alive.contains(&peer) => InterfaceState::Unavailable,
        Some(_) if up > 0 => InterfaceState::Up,
        Some(_) => InterfaceState::Unreachable,
    }
}

/// Role and metric, and where the metric comes from.
fn role_and_metric(
    config: &Config,
    prefix: IpNet,
    members: &[NetworkMember],
    cache: &NetworkCache,
) -> (NetworkRole, u32, MetricSource) {
    let given = network_of(config, prefix.addr()).filter(|given| given.prefix.contains(&prefix));
    let best = |own: bool| {
        let side = members.iter().filter(|member| member.peer.is_none() == own);
        side.min_by_key(|member| member.metric).map(|member| (member.role, member.metric))
    };
    let (role, metric, from) = if let Some((role, metric)) = best(true) {
        (role, metric, MetricSource::Interface)
    } else if let Some((role, metric)) = cache.0.get(&prefix) {
        (*role, *metric, MetricSource::Remembered)
    } else if let Some((role, metric)) = best(false) {
        (role, metric, MetricSource::Peer)
    } else {
        let role = given.map_or(NetworkRole::Cluster, |given| given.role);
        (role, base_metric(role), MetricSource::Config)
    };
    let role = given.map_or(role, |given| given.role);
    match given.and_then(|given| given.metric) {
        Some(metric) => (role, metric, MetricSource::Config),
        None => (role, metric, from),
    }
}

/// The addresses of this node that form networks, those of networks that are not used too.
fn own_members(config: &Config, interfaces: &[Interface]) -> BTreeMap<IpNet, Vec<NetworkMember>> {
    let mut members = BTreeMap::<_, Vec<NetworkMember>>::new();
    let fit = |interface: &&Interface| interface.name != config.adapter.name && !interface.loopback;
    let numbers = interface_numbers(interfaces);
    for interface in interfaces.iter().filter(fit) {
        let bridge = is_overlay_or_bridge(interface);
        for local in &interface.addrs {
            let given = is_listed(config, local.addr);
            if local.is_secondary
                || is_virtual(config, local.addr)
                || config.is_excluded(&interface.name, local.addr)
                || (!given && (bridge || is_host_local(local.addr)))
                || matches!(local.addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
            {
                continue;
            }
            members.entry(local.prefix.trunc()).or_default().push(NetworkMember {
                peer: None,
                number: numbers.get(&interface.index).copied().unwrap_or_default(),
                name: Some(interface.name.clone()),
                addr: local.addr,
                healthy: interface.is_healthy(),
                // With any network listed, only those are used.
                role: if can_carry_routes(config, local.addr) {
                    network_role(config, interface, local.addr)
                } else {
                    NetworkRole::None
                },
                metric: interface_metric(config, interface, local.addr),
            });
        }
    }
    members
}

#[cfg(test)]
mod tests;
