//! Roles and metrics of networks, by longest prefix. Pure.

pub(crate) mod inventory;

use std::net::IpAddr;

use crate::{
    config::{CLIENT_METRIC, Config, DEFAULT_METRIC, NetworkConfig, NetworkRole},
    route::Transport,
    topology::types::Interface,
};

/// The most that the kernel's metric of a default route adds to an interface's.
const MAX_KERNEL_METRIC: u32 = 10_000;

/// The configured network that contains `addr`, by the longest prefix.
pub(crate) fn network_of(config: &Config, addr: IpAddr) -> Option<&NetworkConfig> {
    config
        .networks
        .iter()
        .filter(|network| network.prefix.contains(&addr))
        .max_by_key(|network| network.prefix.prefix_len())
}

/// Returns whether the network of the local address `addr` may carry routes.
///
/// Without any configured network of a role other than `none` every network is used, except the
/// configured ones; otherwise only the configured ones are.
pub fn can_carry_routes(config: &Config, addr: IpAddr) -> bool {
    match network_of(config, addr) {
        Some(network) => network.role != NetworkRole::None,
        None => config.networks.iter().all(|network| network.role == NetworkRole::None),
    }
}

/// Returns whether `addr` is on the adapter, here or at a peer: such addresses are carried by
/// routes and are no ends of one.
pub(crate) fn is_virtual(config: &Config, addr: IpAddr) -> bool {
    config.adapter.addrs.contains(addr) || config.peers.iter().any(|peer| peer.addrs.contains(addr))
}

/// Returns whether the network of `addr` is configured with a role other than `none`.
pub(crate) fn is_listed(config: &Config, addr: IpAddr) -> bool {
    network_of(config, addr).is_some_and(|network| network.role != NetworkRole::None)
}

/// Returns whether the network of `addr` is configured with the role `none`.
pub(crate) fn is_role_none(config: &Config, addr: IpAddr) -> bool {
    network_of(config, addr).is_some_and(|network| network.role == NetworkRole::None)
}

/// The metric of `addr` on `interface`: as configured for its network, else by role and speed.
///
/// A network that is not configured is for clients too when a default route leaves through its
/// interface, as NetFT assumes. Of several such interfaces the kernel's metric of the default route
/// ranks.
pub fn interface_metric(config: &Config, interface: &Interface, addr: IpAddr) -> u32 {
    let listed = network_of(config, addr).and_then(|network| network.metric);
    listed.unwrap_or_else(|| {
        let role = network_role(config, interface, addr);
        let of_default = interface.default_route.filter(|_| role == NetworkRole::ClusterAndClient);
        let kernel_metric = of_default.map_or(0, |metric| metric.min(MAX_KERNEL_METRIC));
        base_metric(role) + speed_penalty(interface.speed) + kernel_metric
    })
}

/// The configured capacity of the network of `addr`, else the speed of its interface, Mbit/s.
pub fn network_capacity(config: &Config, interface: &Interface, addr: IpAddr) -> Option<u32> {
    network_of(config, addr).and_then(|network| network.capacity).or(interface.speed)
}

/// The configured transport of the network of `addr`.
pub(crate) fn network_transport(config: &Config, addr: IpAddr) -> Option<Transport> {
    network_of(config, addr)?.transport
}

/// The metric of the remote end of a cross-subnet route until the peer advertises it: as
/// configured, else by the role of the local end.
pub(crate) fn remote_metric(
    config: &Config,
    interface: &Interface,
    local: IpAddr,
    remote: IpAddr,
) -> u32 {
    match network_of(config, remote) {
        Some(network) => network.metric.unwrap_or_else(|| base_metric(network.role)),
        None => base_metric(network_role(config, interface, local)),
    }
}

/// The role of the network of `addr` on `interface`.
pub fn network_role(config: &Config, interface: &Interface, addr: IpAddr) -> NetworkRole {
    match network_of(config, addr) {
        Some(network) => network.role,
        None if interface.default_route.is_some() => NetworkRole::ClusterAndClient,
        None => NetworkRole::Cluster,
    }
}

pub(crate) const fn base_metric(role: NetworkRole) -> u32 {
    match role {
        NetworkRole::None | NetworkRole::Cluster => DEFAULT_METRIC,
        NetworkRole::ClusterAndClient => CLIENT_METRIC,
    }
}

/// Metric added for a slow interface: 100 for each factor of ten below 10 Gbit/s, the steps of the
/// 2008 R2 AutoMetric. An interface that reports no speed counts as 10 Gbit/s, as virtual ones do.
fn speed_penalty(speed: Option<u32>) -> u32 {
    match speed {
        None | Some(0 | 10_000..) => 0,
        Some(1_000..) => 100,
        Some(100..) => 200,
        Some(_) => 300,
    }
}

/// Returns whether the interface leads to no physical network of its own: it connects containers or
/// virtual machines of this host (many hosts have its prefix, so sharing it proves no common
/// network), or it is an overlay over the physical networks, which fails with them. `veth` is none:
/// it is the host's own end.
///
/// By kind where the kernel has one, else by the names that the programs give. An address on one is
/// used where the config lists its network.
pub fn is_overlay_or_bridge(interface: &Interface) -> bool {
    // `tun` is the kind of TAP devices too: Tailscale, ZeroTier, Nebula, OpenVPN, virtual machines.
    const OVERLAY_KINDS: [&str; 22] = [
        "tun",
        "wireguard",
        "ovpn",
        "vxlan",
        "geneve",
        "bareudp",
        "gre",
        "gretap",
        "erspan",
        "ip6gre",
        "ip6gretap",
        "ip6erspan",
        "ipip",
        "ip6tnl",
        "sit",
        "vti",
        "vti6",
        "xfrm",
        "gtp",
        "amt",
        "nlmon",
        "dummy",
    ];
    const OVERLAY_NAMES: [&str; 7] =
        ["ovn-", "ovs-", "vboxnet", "vmnet", "tailscale", "zt", "nodelocaldns"];
    let name = interface.name.as_str();
    interface.kind.as_deref().is_some_and(|kind| OVERLAY_KINDS.contains(&kind))
        || OVERLAY_NAMES.iter().any(|prefix| name.starts_with(prefix))
        || is_container_bridge(name)
        || is_wireguard_name(name)
}

/// Returns whether an interface of this name connects containers or virtual machines of this host.
pub fn is_container_bridge(name: &str) -> bool {
    const BRIDGE_NAMES: [&str; 14] = [
        "docker", "virbr", "cni", "lxc", "lxdbr", "incusbr", "podman", "flannel", "cali", "cilium",
        "kube-", "weave", "cbr0", "antrea-",
    ];
    BRIDGE_NAMES.iter().any(|prefix| name.starts_with(prefix)) || is_docker_network(name)
}

/// `wg` and digits, as WireGuard's tools name its interfaces, also those of programs.
fn is_wireguard_name(name: &str) -> bool {
    name.strip_prefix("wg")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `br-` and twelve hex digits, as Docker names the bridges of its networks; `br-lan` is a LAN.
fn is_docker_network(name: &str) -> bool {
    name.strip_prefix("br-")
        .is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
