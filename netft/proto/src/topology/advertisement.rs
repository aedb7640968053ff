//! The interface list that this node advertises to its peers. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    config::Config,
    topology::{
        networks::{
            can_carry_routes, interface_metric, is_container_bridge, is_listed, is_virtual,
        },
        types::Interface,
    },
    wire::interfaces::{AdvertisedEndpoint, Advertisement, MAX_ADVERTISED_ENDPOINTS},
};

/// Builds the interface list of this node. The caller assigns the serial.
///
/// It holds every address that a route may start from: not the adapter's, no loopback, no container
/// bridge, none that the config excludes; of several addresses in one prefix on one interface the
/// first. An interface without carrier is listed, as the carrier may return.
pub fn build_advertisement(config: &Config, interfaces: &[Interface]) -> Advertisement {
    let mut seen = BTreeSet::new();
    let mut endpoints: Vec<_> = interfaces
        .iter()
        .filter(|interface| interface.name != config.adapter.name && !interface.loopback)
        .flat_map(|interface| endpoints_of(config, interface))
        .filter(|endpoint| seen.insert(endpoint.addr))
        .collect();
    endpoints.sort_by_key(|endpoint| (endpoint.metric, *endpoint));
    endpoints.truncate(MAX_ADVERTISED_ENDPOINTS);
    Advertisement {
        serial: 0,
        port: config.session.port,
        all_cross_subnet: config.topology.all_cross_subnet,
        offers_relay: config.relay.offer,
        site: config.site.clone(),
        endpoints,
    }
}

fn endpoints_of<'a>(
    config: &'a Config,
    interface: &'a Interface,
) -> impl Iterator<Item = AdvertisedEndpoint> + 'a {
    let mut prefixes = BTreeSet::new();
    let bridge = is_container_bridge(interface);
    interface
        .addrs
        .iter()
        .filter(move |local| {
            let (virtual_, excluded) =
                (is_virtual(config, local.addr), config.is_excluded(&interface.name, local.addr));
            let given = is_listed(config, local.addr);
            !local.is_secondary
                && !virtual_
                && !excluded
                && can_carry_routes(config, local.addr)
                && (given || (!bridge && !is_host_local(local.addr)))
                && !matches!(local.addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
        })
        .filter(move |local| prefixes.insert(local.prefix))
        .map(|local| AdvertisedEndpoint {
            addr: local.addr,
            prefix_len: local.prefix.prefix_len(),
            interface: interface.index as u16,
            metric: interface_metric(config, interface, local.addr),
        })
}

/// Returns whether many hosts have the address on unrelated networks.
pub(crate) fn is_host_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    }
}
