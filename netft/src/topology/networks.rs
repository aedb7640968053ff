//! Roles and metrics of networks, by longest prefix. Pure.

use std::net::IpAddr;

use super::Interface;
use crate::config::{CLIENT_METRIC, Config, DEFAULT_METRIC, Network, Role};

/// The listed network that holds `addr`, by the longest prefix.
pub(super) fn network_of(config: &Config, addr: IpAddr) -> Option<&Network> {
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

/// Whether the config names the network of `addr`, with a role that uses it.
pub(super) fn listed(config: &Config, addr: IpAddr) -> bool {
    network_of(config, addr).is_some_and(|network| network.role != Role::None)
}

/// Whether the config says that the network of `addr` is never used.
pub(super) fn refused(config: &Config, addr: IpAddr) -> bool {
    network_of(config, addr).is_some_and(|network| network.role == Role::None)
}

/// The metric of the network of `addr`: as listed, else by role.
pub fn metric_of(config: &Config, addr: IpAddr) -> u32 {
    network_of(config, addr).map_or(DEFAULT_METRIC, |network| {
        network.metric.unwrap_or_else(|| default_metric(network.role))
    })
}

/// What the config says the network of `addr` carries, Mbit/s.
pub fn capacity_of(config: &Config, addr: IpAddr) -> Option<u32> {
    network_of(config, addr)?.capacity
}

/// The sum of the metrics of the two end networks, as NetFT's. A remote network that the config
/// does not list counts with the default metric of the local one's role.
pub(super) fn priority(config: &Config, local: IpAddr, remote: IpAddr, same_subnet: bool) -> u32 {
    let own = metric_of(config, local);
    let far = if same_subnet {
        own
    } else if network_of(config, remote).is_some() {
        metric_of(config, remote)
    } else {
        default_metric(network_of(config, local).map_or(Role::Cluster, |network| network.role))
    };
    own.saturating_add(far)
}

const fn default_metric(role: Role) -> u32 {
    match role {
        Role::None | Role::Cluster => DEFAULT_METRIC,
        Role::ClusterAndClient => CLIENT_METRIC,
    }
}

/// Whether the interface joins containers or virtual machines of this host: its prefix exists on
/// many hosts at once, so sharing it says nothing. `veth` is not one: it is the host's own end.
pub(super) fn is_container_bridge(interface: &Interface) -> bool {
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
