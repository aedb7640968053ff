//! The addresses of this node that routes may start from, and the interface list that it advertises
//! to its peers. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    config::{Config, NetworkRole},
    topology::{
        networks::{
            can_carry_routes, interface_metric, is_listed, is_overlay_or_bridge, is_virtual,
        },
        types::{Interface, KernelWays, LocalAddr, PlannedRoute},
    },
    wire::interfaces::{AdvertisedEndpoint, Advertisement, MAX_ADVERTISED_ENDPOINTS},
};

/// Most addresses that this node has sockets on; the first of [`listening_addresses`] stay.
pub const MAX_LISTENING_ADDRESSES: usize = 1024;

/// Builds the interface list of this node. The caller assigns the serial.
///
/// It holds the first [`MAX_ADVERTISED_ENDPOINTS`] of [`ranked_endpoints`]. `ways` are the answers
/// to [`cross_subnet_pairs`](crate::topology::cross_subnet_pairs): they tell the peers which of
/// the addresses reach more than their neighbours.
pub fn build_advertisement(
    config: &Config,
    interfaces: &[Interface],
    running: &[PlannedRoute],
    ways: &KernelWays,
) -> Advertisement {
    let routed: BTreeSet<_> = ways.keys().map(|(local, _)| *local).collect();
    let mut endpoints = ranked_endpoints(config, interfaces, running);
    for endpoint in &mut endpoints {
        endpoint.is_routed = routed.contains(&endpoint.addr);
    }
    endpoints.truncate(MAX_ADVERTISED_ENDPOINTS);
    endpoints.sort_by_key(|endpoint| (endpoint.metric, *endpoint));
    Advertisement {
        serial: 0,
        port: config.session.port,
        all_cross_subnet: config.topology.all_cross_subnet,
        offers_relay: config.relay.offer,
        site: config.site.clone(),
        endpoints,
    }
}

/// Every address that a route may start from, in the order in which a list that is too long keeps
/// them: those `running` routes start from, those the config names, then by metric.
///
/// Not among them: the adapter's addresses, loopback, overlays and container bridges, what the
/// config excludes. An interface without carrier is listed, as the carrier may return.
pub fn ranked_endpoints(
    config: &Config,
    interfaces: &[Interface],
    running: &[PlannedRoute],
) -> Vec<AdvertisedEndpoint> {
    let in_use: BTreeSet<_> = running.iter().map(|route| route.spec.real_local.ip()).collect();
    let numbers = interface_numbers(interfaces);
    let mut seen = BTreeSet::new();
    let mut endpoints: Vec<_> = interfaces
        .iter()
        .flat_map(|interface| {
            let number = numbers.get(&interface.index).copied().unwrap_or_default();
            chosen_addresses(config, interface, &in_use).into_iter().map(move |local| {
                AdvertisedEndpoint {
                    addr: local.addr,
                    prefix_len: local.prefix.prefix_len(),
                    interface: number,
                    metric: interface_metric(config, interface, local.addr),
                    is_routed: false,
                }
            })
        })
        .filter(|endpoint| seen.insert(endpoint.addr))
        .collect();
    endpoints.sort_by_key(|endpoint| {
        let addr = endpoint.addr;
        let is_named = is_named(config, addr) || is_listed(config, addr);
        (Reverse(in_use.contains(&addr)), Reverse(is_named), endpoint.metric, *endpoint)
    });
    endpoints
}

/// The addresses to have sockets on, with their interface: those of [`ranked_endpoints`], then
/// every other address that a peer may know of this node, such as one that moves between nodes.
pub fn listening_addresses(
    config: &Config,
    interfaces: &[Interface],
    running: &[PlannedRoute],
) -> Vec<(IpAddr, u32)> {
    let owned = |addr: IpAddr| {
        let owner = interfaces.iter().find(|interface| interface.owns_address(addr));
        owner.map(|owner| (addr, owner.index))
    };
    let ranked = ranked_endpoints(config, interfaces, running);
    let others = interfaces.iter().flat_map(|interface| {
        interface
            .addrs
            .iter()
            .filter(|local| is_eligible(config, interface, local))
            .map(|local| (local.addr, interface.index))
    });
    let mut seen = BTreeSet::new();
    ranked
        .into_iter()
        .filter_map(|endpoint| owned(endpoint.addr))
        .chain(others)
        .filter(|(addr, _)| seen.insert(*addr))
        .take(MAX_LISTENING_ADDRESSES)
        .collect()
}

/// Numbers the interfaces for the list: the low 16 bits of the index, or the next number that is
/// free. Two interfaces with one number would count as one.
pub(crate) fn interface_numbers(interfaces: &[Interface]) -> BTreeMap<u32, u16> {
    let mut indexes: Vec<_> = interfaces.iter().map(|interface| interface.index).collect();
    indexes.sort_unstable();
    indexes.truncate(usize::from(u16::MAX));
    let mut taken = BTreeSet::new();
    let mut number_of = |index: u32| {
        let mut number = index as u16;
        while !taken.insert(number) {
            number = number.wrapping_add(1);
        }
        (index, number)
    };
    indexes.into_iter().map(&mut number_of).collect()
}

fn is_eligible(config: &Config, interface: &Interface, local: &LocalAddr) -> bool {
    let is_given = is_listed(config, local.addr);
    interface.name != config.adapter.name
        && !interface.loopback
        && !is_virtual(config, local.addr)
        && !config.is_excluded(&interface.name, local.addr)
        && can_carry_routes(config, local.addr)
        && (is_given || (!is_overlay_or_bridge(interface) && !is_host_local(local.addr)))
        && !matches!(local.addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The addresses of one interface that routes start from; of several in one prefix one.
///
/// An address in use stays while the interface has it. The others are the kernel's first choice: no
/// secondary, temporary or deprecated one. A host address (`/32`, `/128`) without a subnet often
/// moves between nodes (keepalived, kube-vip), so it is used only where the config names it, or as
/// the first of an interface that has no other of its family.
fn chosen_addresses(
    config: &Config,
    interface: &Interface,
    in_use: &BTreeSet<IpAddr>,
) -> Vec<LocalAddr> {
    let mut eligible: Vec<_> =
        interface.addrs.iter().filter(|local| is_eligible(config, interface, local)).collect();
    eligible.sort_by_key(|local| !in_use.contains(&local.addr));
    let first_choice = |v6: bool, is_host: bool| {
        let mut same = eligible.iter().filter(|local| {
            !local.is_secondary
                && local.addr.is_ipv6() == v6
                && is_host_address(local) == is_host
                && !(is_host && is_named(config, local.addr))
        });
        same.next().map(|local| local.addr)
    };
    let mut prefixes = BTreeSet::new();
    eligible
        .iter()
        .filter(|local| {
            let v6 = local.addr.is_ipv6();
            let is_only =
                || first_choice(v6, false).is_none() && first_choice(v6, true) == Some(local.addr);
            in_use.contains(&local.addr)
                || is_named(config, local.addr)
                || (!local.is_secondary && (!is_host_address(local) || is_only()))
        })
        .filter(|local| {
            prefixes.insert(local.prefix)
                || in_use.contains(&local.addr)
                || is_named(config, local.addr)
        })
        .map(|local| **local)
        .collect()
}

/// An address that is its own whole prefix; a point-to-point address has the other end's.
fn is_host_address(local: &LocalAddr) -> bool {
    local.prefix == IpNet::from(local.addr)
}

/// Returns whether the config names this very address of this node: a route starts there, or a
/// network is that address alone.
fn is_named(config: &Config, addr: IpAddr) -> bool {
    let mut routes = config.peers.iter().flat_map(|peer| &peer.routes);
    routes.any(|route| route.local == Some(addr))
        || config
            .networks
            .iter()
            .any(|network| network.prefix == IpNet::from(addr) && network.role != NetworkRole::None)
}

/// Returns whether many hosts have the address on unrelated networks.
pub(crate) fn is_host_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    }
}
