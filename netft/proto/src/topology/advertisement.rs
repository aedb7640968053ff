//! What this node tells its peers of its addresses. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    config::Config,
    topology::{
        Interface,
        networks::{is_container_bridge, is_virtual, listed, metric, usable},
    },
    wire::interfaces::{Endpoint, Interfaces, MAX_ENDPOINTS},
};

/// The interface list of this node. The serial is the caller's to count.
///
/// Offered is every address that routes may start from: not the adapter's, no loopback, no
/// container bridge, nothing the config excludes; of several addresses in one prefix on one
/// interface the first. An interface without a carrier keeps its place: it may get one.
pub fn offer(config: &Config, interfaces: &[Interface]) -> Interfaces {
    let mut seen = BTreeSet::new();
    let mut endpoints: Vec<_> = interfaces
        .iter()
        .filter(|interface| interface.name != config.adapter && !interface.loopback)
        .flat_map(|interface| endpoints_of(config, interface))
        .filter(|endpoint| seen.insert(endpoint.addr))
        .collect();
    endpoints.sort_by_key(|endpoint| (endpoint.metric, *endpoint));
    endpoints.truncate(MAX_ENDPOINTS);
    Interfaces {
        serial: 0,
        port: config.port,
        all_cross_subnet: config.all_cross_subnet,
        relays: config.relay.offer,
        site: config.site.clone(),
        endpoints,
    }
}

fn endpoints_of<'a>(
    config: &'a Config,
    interface: &'a Interface,
) -> impl Iterator<Item = Endpoint> + 'a {
    let mut prefixes = BTreeSet::new();
    let bridge = is_container_bridge(interface);
    interface
        .addrs
        .iter()
        .filter(move |local| {
            let (virtual_, excluded) =
                (is_virtual(config, local.addr), config.excludes(&interface.name, local.addr));
            let given = listed(config, local.addr);
            !local.secondary
                && !virtual_
                && !excluded
                && usable(config, local.addr)
                && (given || (!bridge && !local_only(local.addr)))
                && !matches!(local.addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
        })
        .filter(move |local| prefixes.insert(local.prefix))
        .map(|local| Endpoint {
            addr: local.addr,
            prefix_len: local.prefix.prefix_len(),
            interface: interface.index as u16,
            metric: metric(config, interface, local.addr),
        })
}

/// An address that many hosts have on networks that have nothing to do with each other.
pub(crate) fn local_only(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    }
}
