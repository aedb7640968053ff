//! Checks of this node's addresses and interfaces, as routes start from them. Pure.

use netft::{
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
