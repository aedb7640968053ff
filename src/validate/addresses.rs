//! Checks of this node's addresses and interfaces, as routes start from them. Pure.

use netft::{
    api::host::ARP_SETTINGS,
    topology,
    topology::{Interface, RoutePlan},
    wire::interfaces::MAX_ADVERTISED_ENDPOINTS,
};

use super::facts::NodeFacts;
use crate::control::schema::{Finding, Severity};

/// More usable addresses than the interface list holds: peers do not learn the others.
pub(super) fn check_interface_list(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let interfaces: Vec<Interface> =
        facts.links.iter().map(|link| link.interface.clone()).collect();
    let usable = topology::ranked_endpoints(&facts.config, &interfaces, &[]).len();
    if usable <= MAX_ADVERTISED_ENDPOINTS {
        return Vec::new();
    }
    vec![Finding::new(
        Severity::Warning,
        "interface-list",
        "this node",
        format!(
            "{usable} usable addresses, and peers learn only {MAX_ADVERTISED_ENDPOINTS} of them: \
             those in use, those the config names, then by metric"
        ),
        "exclude interfaces or prefixes that lead to no peer: `exclude` under `[topology]`",
    )]
}

/// Link-local addresses of peers on an interface that this node does not have.
pub(super) fn check_link_local_interfaces(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let exists = |wanted: &str| {
        facts
            .links
            .iter()
            .any(|link| link.interface.name == wanted || Ok(link.interface.index) == wanted.parse())
    };
    let named = facts.config.peers.iter().flat_map(|peer| {
        peer.names.iter().filter_map(move |name| Some((peer, name, name.link_local()?.1)))
    });
    named
        .filter(|(_, _, interface)| !exists(interface))
        .map(|(peer, name, interface)| {
            Finding::new(
                Severity::Warning,
                "unreachable-address",
                format!("{}: {}", peer.name, name.host),
                format!("no route leads there: this node has no interface {interface}"),
                "correct the interface in the config: `ip link` lists those of this node",
            )
        })
        .collect()
}

/// Interfaces on one subnet that answer ARP for each other's addresses: packets arrive at the wrong
/// one. netftd separates them, unless the config keeps the settings.
pub(super) fn check_shared_subnets(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let interfaces: Vec<Interface> =
        facts.links.iter().map(|link| link.interface.clone()).collect();
    let shared = topology::shared_subnets(&facts.config, &interfaces);
    let mixed: Vec<_> = shared
        .keys()
        .map(|(name, _)| name.as_str())
        .filter(|name| facts.mixed_arp.contains(*name))
        .collect();
    let is_netftd_to_do = facts.daemon.is_none() && !facts.config.topology.keep_arp_settings;
    if mixed.is_empty() || is_netftd_to_do {
        return Vec::new();
    }
    let settings: Vec<_> = mixed
        .iter()
        .flat_map(|name| {
            ARP_SETTINGS.map(|(key, least)| format!("net.ipv4.conf.{name}.{key}={least}"))
        })
        .collect();
    vec![Finding::new(
        Severity::Warning,
        "shared-subnet",
        mixed.join(", "),
        "they are on a subnet with another interface and answer ARP for its addresses: packets \
         arrive at the wrong one",
        format!("`sysctl -w {}`, or remove `keep_arp_settings`", settings.join(" ")),
    )]
}
