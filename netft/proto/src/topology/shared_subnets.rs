//! Interfaces of this node that share an IPv4 subnet. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;

use crate::{
    config::Config,
    topology::{advertisement::ranked_endpoints, types::Interface},
};

/// Interfaces that share a subnet with another one: name and index, with their addresses there.
pub type SharedSubnets = BTreeMap<(String, u32), Vec<Ipv4Addr>>;

/// The interfaces whose IPv4 subnet another interface of this node is in, too. By default the
/// kernel answers ARP requests for the addresses of one on the other (ARP flux).
pub fn shared_subnets(config: &Config, interfaces: &[Interface]) -> SharedSubnets {
    let usable: BTreeSet<IpAddr> = ranked_endpoints(config, interfaces, &[])
        .into_iter()
        .map(|endpoint| endpoint.addr)
        .collect();
    let mut owners: BTreeMap<IpNet, BTreeSet<u32>> = BTreeMap::new();
    let mut found: Vec<(&Interface, IpNet, Ipv4Addr)> = Vec::new();
    for interface in interfaces.iter().filter(|interface| interface.up) {
        for local in interface.addrs.iter().filter(|local| usable.contains(&local.addr)) {
            if let IpAddr::V4(v4) = local.addr {
                owners.entry(local.prefix).or_default().insert(interface.index);
                found.push((interface, local.prefix, v4));
            }
        }
    }
    let mut shared = SharedSubnets::new();
    for (interface, prefix, addr) in found {
        if owners[&prefix].len() > 1 {
            let key = (interface.name.clone(), interface.index);
            shared.entry(key).or_default().push(addr);
        }
    }
    shared
}
