//! The networks that the prefixes of all nodes' interfaces form, as this node sees them (NetFT's
//! topology manager: one network per subnet, though only one node be in it). Pure.
//!
//! Nodes do not tell each other what they see, so a state is this node's own view: a network two
//! others cannot use between them is up here as long as this node reaches both.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    config::{CLIENT_METRIC, Config, Role},
    ids::PeerId,
    topology::{
        Interface, Offers,
        advertisement::local_only,
        networks::{
            base, is_container_bridge, is_virtual, listed, metric, network_of, role, usable,
        },
    },
};

/// The most networks remembered that no interface of this node is in.
const MAX_REMEMBERED: usize = 64;

/// Whether a network can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkState {
    /// Every interface of a node with a session is reached there.
    Up,
    /// Some are reached and others are not.
    Partitioned,
    /// None is reached, or this node's own interface does not work.
    Down,
    /// This node has no interface there, and reaches nobody's.
    Unavailable,
}

impl NetworkState {
    /// The word in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Partitioned => "partitioned",
            Self::Down => "down",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What an interface in a network is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterfaceState {
    /// Reached; or this node's own, and it reaches all it should.
    Up,
    /// Not reached; or this node's own, and it reaches some only.
    Unreachable,
    /// This node's own: it does not work, or reaches nobody.
    Failed,
    /// Its node has no session with this one.
    Unavailable,
}

impl InterfaceState {
    /// The word in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Where a metric comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricFrom {
    /// The config lists the network.
    Config,
    /// The role, and the speed of this node's interface.
    Interface,
    /// What a peer says of its interface: this node has none there.
    Peer,
    /// What it was while an interface of this node was there.
    Remembered,
}

impl MetricFrom {
    /// The word in output.
    pub const fn name(self) -> &'static str {
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
pub struct FormedNetwork {
    /// Its prefix.
    pub prefix: IpNet,
    /// Whether it can be used.
    pub state: NetworkState,
    /// What it is used for: as the config says, else by whether a default route leaves there.
    pub role: Role,
    /// Lower is preferred.
    pub metric: u32,
    /// Where the metric comes from.
    pub metric_from: MetricFrom,
    /// The interfaces in it, this node's first, then by peer.
    pub interfaces: Vec<NetworkInterface>,
}

/// One address of an interface in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInterface {
    /// Whose it is; `None`: this node's.
    pub peer: Option<PeerId>,
    /// Its number on its node.
    pub number: u16,
    /// Its name; `None` for a peer's, which does not tell it.
    pub name: Option<String>,
    /// The address.
    pub addr: IpAddr,
    /// What it is good for.
    pub state: InterfaceState,
}

/// A route, as far as networks care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The peer it leads to.
    pub peer: PeerId,
    /// The address here.
    pub local: IpAddr,
    /// The address there.
    pub remote: IpAddr,
    /// Whether it is up.
    pub up: bool,
}

/// Role and metric of the networks this node was in: both stay what they were when an interface
/// goes (reliability U28). At most 64 of them without an interface; the smallest prefixes stay.
#[derive(Clone, Debug, Default)]
pub struct Memory(BTreeMap<IpNet, (Role, u32)>);

impl Memory {
    /// Takes in the interfaces as they are.
    pub fn note(&mut self, config: &Config, interfaces: &[Interface]) {
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

/// An interface in a network, while its state is found.
#[derive(Clone, Debug)]
struct Member {
    peer: Option<PeerId>,
    number: u16,
    name: Option<String>,
    addr: IpAddr,
    healthy: bool,
    role: Role,
    metric: u32,
}

/// The networks, by metric and prefix. `alive` are the peers with a session, `edges` the routes
/// between addresses of interfaces.
pub fn formed(
    config: &Config,
    interfaces: &[Interface],
    offers: &Offers,
    (edges, alive): (&[Edge], &BTreeSet<PeerId>),
    memory: &Memory,
) -> Vec<FormedNetwork> {
    let mut members = own_members(config, interfaces);
    for (peer, list) in offers {
        for endpoint in &list.endpoints {
            let client = endpoint.metric >= CLIENT_METRIC;
            members.entry(endpoint.prefix()).or_default().push(Member {
                peer: Some(*peer),
                number: endpoint.interface,
                name: None,
                addr: endpoint.addr,
                healthy: true,
                role: if client { Role::ClusterAndClient } else { Role::Cluster },
                metric: endpoint.metric,
            });
        }
    }
    for prefix in config.networks.iter().map(|network| &network.prefix).chain(memory.0.keys()) {
        // A listed prefix may hold several networks, which are there by themselves.
        if !members.keys().any(|known| prefix.contains(known)) {
            members.insert(*prefix, Vec::new());
        }
    }
    // The interfaces each route joins; a far address nobody told is behind a NAT.
    let number = |peer: Option<PeerId>, addr: IpAddr| {
        let all = members.values().flatten();
        let mut found = all.filter(|member| (member.peer, member.addr) == (peer, addr));
        found.next().map(|member| (peer, member.number))
    };
    let living = edges.iter().filter(|edge| alive.contains(&edge.peer));
    let joins: Vec<Join> = living
        .map(|edge| Join {
            near: number(None, edge.local),
            far: number(Some(edge.peer), edge.remote),
            up: edge.up,
        })
        .collect();
    let mut networks: Vec<_> = members
        .iter()
        .map(|(prefix, members)| network(config, *prefix, members, &joins, alive, memory))
        .collect();
    networks.sort_by_key(|network| (network.metric, network.prefix));
    networks
}

/// An interface of some node.
type Place = (Option<PeerId>, u16);

/// A route between two interfaces.
#[derive(Clone, Copy, Debug)]
struct Join {
    near: Option<Place>,
    far: Option<Place>,
    up: bool,
}

impl Join {
    fn touches(&self, place: Place) -> bool {
        [self.near, self.far].contains(&Some(place))
    }
}

fn network(
    config: &Config,
    prefix: IpNet,
    members: &[Member],
    joins: &[Join],
    alive: &BTreeSet<PeerId>,
    memory: &Memory,
) -> FormedNetwork {
    let places: BTreeSet<Place> =
        members.iter().map(|member| (member.peer, member.number)).collect();
    let inside = |place: Option<Place>| place.is_some_and(|place| places.contains(&place));
    let within: Vec<_> =
        joins.iter().filter(|join| inside(join.near) && inside(join.far)).copied().collect();
    // Where nobody shares the network it is as good as the ways to others.
    let considered = if within.is_empty() {
        joins.iter().filter(|join| inside(join.near) || inside(join.far)).copied().collect()
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
    let (role, metric, metric_from) = worth(config, prefix, members, memory);
    FormedNetwork {
        prefix,
        state: state(members, &places, &considered),
        role,
        metric,
        metric_from,
        interfaces,
    }
}

fn state(members: &[Member], places: &BTreeSet<Place>, joins: &[Join]) -> NetworkState {
    let mut own = members.iter().filter(|member| member.peer.is_none()).peekable();
    let here = own.peek().is_some();
    let works = own.any(|member| member.healthy);
    if here && !works {
        return NetworkState::Down;
    }
    let touched = places.iter().filter(|place| joins.iter().any(|join| join.touches(**place)));
    let reached = |place: &Place| joins.iter().any(|join| join.up && join.touches(*place));
    let (reached, lost): (Vec<Place>, Vec<_>) = touched.copied().partition(reached);
    match (reached.is_empty(), lost.is_empty()) {
        (false, true) => NetworkState::Up,
        (false, false) => NetworkState::Partitioned,
        (true, _) if !here => NetworkState::Unavailable,
        // Nobody with a session is to be reached there: it is as good as its interface.
        (true, true) => NetworkState::Up,
        (true, false) => NetworkState::Down,
    }
}

fn interface_state(member: &Member, joins: &[Join], alive: &BTreeSet<PeerId>) -> InterfaceState {
    let place = (member.peer, member.number);
    let touching = || joins.iter().filter(|join| join.touches(place));
    let (up, all) = (touching().filter(|join| join.up).count(), touching().count());
    match member.peer {
        None if !member.healthy || (up == 0 && all > 0) => InterfaceState::Failed,
        None if up < all => InterfaceState::Unreachable,
        None => InterfaceState::Up,
        Some(peer) if !alive.contains(&peer) => InterfaceState::Unavailable,
        Some(_) if up > 0 => InterfaceState::Up,
        Some(_) => InterfaceState::Unreachable,
    }
}

/// Role and metric, and where the metric comes from.
fn worth(
    config: &Config,
    prefix: IpNet,
    members: &[Member],
    memory: &Memory,
) -> (Role, u32, MetricFrom) {
    let given = network_of(config, prefix.addr()).filter(|given| given.prefix.contains(&prefix));
    let best = |own: bool| {
        let side = members.iter().filter(|member| member.peer.is_none() == own);
        side.min_by_key(|member| member.metric).map(|member| (member.role, member.metric))
    };
    let (role, metric, from) = if let Some((role, metric)) = best(true) {
        (role, metric, MetricFrom::Interface)
    } else if let Some((role, metric)) = memory.0.get(&prefix) {
        (*role, *metric, MetricFrom::Remembered)
    } else if let Some((role, metric)) = best(false) {
        (role, metric, MetricFrom::Peer)
    } else {
        let role = given.map_or(Role::Cluster, |given| given.role);
        (role, base(role), MetricFrom::Config)
    };
    let role = given.map_or(role, |given| given.role);
    match given.and_then(|given| given.metric) {
        Some(metric) => (role, metric, MetricFrom::Config),
        None => (role, metric, from),
    }
}

/// The addresses of this node that form networks, those of networks that are not used too.
fn own_members(config: &Config, interfaces: &[Interface]) -> BTreeMap<IpNet, Vec<Member>> {
    let mut members = BTreeMap::<_, Vec<Member>>::new();
    let fit = |interface: &&Interface| interface.name != config.adapter && !interface.loopback;
    for interface in interfaces.iter().filter(fit) {
        let bridge = is_container_bridge(interface);
        for local in &interface.addrs {
            let given = listed(config, local.addr);
            if local.secondary
                || is_virtual(config, local.addr)
                || config.excludes(&interface.name, local.addr)
                || (!given && (bridge || local_only(local.addr)))
                || matches!(local.addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
            {
                continue;
            }
            members.entry(local.prefix.trunc()).or_default().push(Member {
                peer: None,
                number: interface.index as u16,
                name: Some(interface.name.clone()),
                addr: local.addr,
                healthy: interface.healthy(),
                // With any network listed, only those are used.
                role: if usable(config, local.addr) {
                    role(config, interface, local.addr)
                } else {
                    Role::None
                },
                metric: metric(config, interface, local.addr),
            });
        }
    }
    members
}

#[cfg(test)]
mod tests;
