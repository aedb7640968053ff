//! Roles and metrics of networks, by longest prefix. Pure.

pub(crate) mod inventory;

use std::net::IpAddr;

use crate::{
    config::{CLIENT_METRIC, Config, DEFAULT_METRIC, Network, Role},
    route::Carrier,
    topology::Interface,
};

/// The listed network that holds `addr`, by the longest prefix.
pub(crate) fn network_of(config: &Config, addr: IpAddr) -> Option<&Network> {
    config
        .networks
        .iter()
        .filter(|network| network.prefix.contains(&addr))
        .max_by_key(|network| network.prefix.prefix_len())
}

/// Whether the network of the local address `addr` may carry routes.
///
/// Without any listed network of a role other than `none` every network is used, except the
/// listed ones; otherwise only the listed ones are.
pub fn usable(config: &Config, addr: IpAddr) -> bool {
    match network_of(config, addr) {
        Some(network) => network.role != Role::None,
        None => config.networks.iter().all(|network| network.role == Role::None),
    }
}

/// Addresses on the adapter, here or at a peer, are carried by routes: they are no ends.
pub(crate) fn is_virtual(config: &Config, addr: IpAddr) -> bool {
    config.addrs.contains(addr) || config.peers.iter().any(|peer| peer.addrs.contains(addr))
}

/// Whether the config names the network of `addr`, with a role that uses it.
pub(crate) fn listed(config: &Config, addr: IpAddr) -> bool {
    network_of(config, addr).is_some_and(|network| network.role != Role::None)
}

/// Whether the config says that the network of `addr` is never used.
pub(crate) fn refused(config: &Config, addr: IpAddr) -> bool {
    network_of(config, addr).is_some_and(|network| network.role == Role::None)
}

/// The metric of `addr` on `interface`: as the config lists its network, else by role and speed.
///
/// A network that is not listed is for clients too when a default route leaves through its
/// interface, as NetFT assumes.
pub fn metric(config: &Config, interface: &Interface, addr: IpAddr) -> u32 {
    let listed = network_of(config, addr).and_then(|network| network.metric);
    listed.unwrap_or_else(|| base(role(config, interface, addr)) + slowness(interface.speed))
}

/// What the config says the network of `addr` carries, else the speed of its interface, Mbit/s.
pub fn capacity(config: &Config, interface: &Interface, addr: IpAddr) -> Option<u32> {
    network_of(config, addr).and_then(|network| network.capacity).or(interface.speed)
}

/// What the config says of how packets travel on the network of `addr`.
pub(crate) fn carrier(config: &Config, addr: IpAddr) -> Option<Carrier> {
    network_of(config, addr)?.carrier
}

/// The metric of the other end of a route between subnets, as long as the peer has not told it:
/// as the config lists it, else as the role of this end has it.
pub(crate) fn far_metric(
    config: &Config,
    interface: &Interface,
    local: IpAddr,
    remote: IpAddr,
) -> u32 {
    match network_of(config, remote) {
        Some(network) => network.metric.unwrap_or_else(|| base(network.role)),
        None => base(role(config, interface, local)),
    }
}

/// What the network of `addr` on `interface` is used for.
pub fn role(config: &Config, interface: &Interface, addr: IpAddr) -> Role {
    match network_of(config, addr) {
        Some(network) => network.role,
        None if interface.gateway => Role::ClusterAndClient,
        None => Role::Cluster,
    }
}

pub(crate) const fn base(role: Role) -> u32 {
    match role {
        Role::None | Role::Cluster => DEFAULT_METRIC,
        Role::ClusterAndClient => CLIENT_METRIC,
    }
}

/// What a slower interface adds: 100 for each factor of ten below 10 Gbit/s, the steps of the
/// 2008 R2 AutoMetric. One that tells no speed counts as 10 Gbit/s: a virtual one is as fast as
/// the machine.
fn slowness(speed: Option<u32>) -> u32 {
    match speed {
        None | Some(0 | 10_000..) => 0,
        Some(1_000..) => 100,
        Some(100..) => 200,
        Some(_) => 300,
    }
}

/// Whether the interface joins containers or virtual machines of this host: its prefix exists on
/// many hosts at once, so sharing it says nothing. `veth` is not one: it is the host's own end.
pub(crate) fn is_container_bridge(interface: &Interface) -> bool {
    const NAMES: [&str; 10] = [
        "docker",
        "virbr",
        "cni",
        "lxcbr",
        "lxdbr",
        "podman",
        "flannel",
        "cali",
        "cilium_",
        "kube-ipvs",
    ];
    let name = interface.name.as_str();
    NAMES.iter().any(|prefix| name.starts_with(prefix)) || is_docker_network(name)
}

/// `br-` and twelve hex digits, as Docker names the bridges of its networks; `br-lan` is a LAN.
fn is_docker_network(name: &str) -> bool {
    name.strip_prefix("br-")
        .is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
