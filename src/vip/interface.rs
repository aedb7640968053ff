//! Choice of the interface that carries a floating address. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use netft::{
    config::{VipAddress, VipConfig},
    topology::{Interface, LocalAddr},
};

/// The interface that carries the address on this node.
///
/// # Errors
/// The reason why none does.
pub(super) fn choose_interface<'a>(
    vip: &VipConfig,
    interfaces: &'a [Interface],
    all_vips: &BTreeSet<IpAddr>,
    adapter: &str,
) -> Result<&'a Interface, String> {
    let mut usable = interfaces.iter().filter(|one| !one.loopback && one.name != adapter);
    let found = match &vip.interface {
        Some(name) => usable
            .find(|one| one.name == *name)
            .ok_or_else(|| format!("there is no interface {name}"))?,
        None => {
            let mut fitting: Vec<_> = usable.filter(|one| is_fitting(vip, one, all_vips)).collect();
            // One that works comes first.
            fitting.sort_by_key(|one| (!(one.up && one.carrier), one.index));
            *fitting.first().ok_or_else(|| no_network(vip))?
        }
    };
    check_interface(vip, found, all_vips)?;
    Ok(found)
}

/// The interface's own networks: those of its addresses that are no floating ones.
fn networks<'a>(
    interface: &'a Interface,
    all_vips: &'a BTreeSet<IpAddr>,
) -> impl Iterator<Item = &'a LocalAddr> {
    interface.addrs.iter().filter(|local| {
        let full = if local.addr.is_ipv4() { 32 } else { 128 };
        local.prefix.prefix_len() < full && !all_vips.contains(&local.addr)
    })
}

fn is_fitting(vip: &VipConfig, interface: &Interface, all_vips: &BTreeSet<IpAddr>) -> bool {
    match vip.network {
        // The address is not known yet.
        Some(network) if vip.is_dhcp() => {
            networks(interface, all_vips).any(|local| network.contains(&local.addr))
        }
        _ => vip.addresses.iter().all(|own| contains(vip, own, interface, all_vips)),
    }
}

fn contains(
    vip: &VipConfig,
    own: &VipAddress,
    interface: &Interface,
    all_vips: &BTreeSet<IpAddr>,
) -> bool {
    networks(interface, all_vips).any(|local| match vip.network {
        Some(network) if network.addr().is_ipv4() == own.addr.is_ipv4() => {
            network.contains(&local.addr)
        }
        _ => local.prefix.contains(&own.addr),
    })
}

fn no_network(vip: &VipConfig) -> String {
    match vip.network {
        Some(network) => format!("no interface of this node has an address in {network}"),
        None => format!(
            "no interface of this node has a network that contains {}: name it by `interface`",
            vip.describe_addresses()
        ),
    }
}

fn check_interface(
    vip: &VipConfig,
    interface: &Interface,
    all_vips: &BTreeSet<IpAddr>,
) -> Result<(), String> {
    let name = &interface.name;
    for VipAddress { addr, prefix_len } in &vip.addresses {
        let own = interface.addrs.iter().find(|local| local.addr == *addr);
        let full = if addr.is_ipv4() { 32 } else { 128 };
        if let Some(own) = own
            && own.prefix.prefix_len() < full
        {
            let len = own.prefix.prefix_len();
            return Err(format!("{addr}/{len} is an address of {name} by itself: remove it there"));
        }
        let around = networks(interface, all_vips).find(|local| local.prefix.contains(addr));
        if let (Some(len), Some(local)) = (prefix_len, around)
            && local.prefix.prefix_len() != *len
        {
            let network = local.prefix;
            return Err(format!("the network of {name} is {network}, not a /{len}: wrong mask"));
        }
    }
    match (interface.up, interface.carrier) {
        (false, _) => Err(format!("interface {name} is down")),
        (true, false) => Err(format!("interface {name} has no carrier")),
        (true, true) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft::config::vip_address;

    use super::*;

    fn interface(index: u32, addrs: &[&str]) -> Interface {
        let addrs = addrs.iter().map(|text| {
            let net: ipnet::IpNet = text.parse().unwrap();
            LocalAddr { addr: net.addr(), prefix: net.trunc(), is_secondary: false }
        });
        Interface { addrs: addrs.collect(), ..Interface::healthy(index, format!("eth{index}")) }
    }

    fn vip(addresses: &[&str]) -> VipConfig {
        let addresses = addresses.iter().map(|text| vip_address(text).unwrap());
        VipConfig::new("web", addresses.collect())
    }

    fn choose(vip: &VipConfig, interfaces: &[Interface]) -> Result<u32, String> {
        let all = vip.addresses.iter().map(|one| one.addr).collect();
        choose_interface(vip, interfaces, &all, "netft0").map(|one| one.index)
    }

    #[test]
    fn the_network_that_contains_the_addresses_carries_them() {
        let mut all = [
            interface(1, &["10.1.0.1/24"]),
            interface(2, &["10.2.0.1/24", "fd02::1/64"]),
            // Left by a crash: a floating address makes no network.
            interface(3, &["10.9.0.80/32"]),
            interface(4, &["10.2.0.7/24", "fd02::7/64"]),
        ];
        assert_eq!(choose(&vip(&["10.1.0.80"]), &all), Ok(1));
        assert_eq!(choose(&vip(&["10.2.0.80", "fd02::80"]), &all), Ok(2));
        all[1].carrier = false;
        assert_eq!(choose(&vip(&["10.2.0.80", "fd02::80"]), &all), Ok(4));
        for addresses in [&["10.9.0.80"][..], &["10.1.0.80", "fd02::80"]] {
            assert!(choose(&vip(addresses), &all).unwrap_err().contains("no interface"));
        }
        let by_network =
            VipConfig { network: Some("10.1.0.0/24".parse().unwrap()), ..vip(&["10.1.0.80"]) };
        assert_eq!(choose(&by_network, &all), Ok(1));
        let assigned = |text: &str| VipConfig { network: Some(text.parse().unwrap()), ..vip(&[]) };
        assert_eq!(choose(&assigned("10.2.0.0/24"), &all), Ok(4));
        assert!(choose(&assigned("10.9.0.0/24"), &all).unwrap_err().contains("no interface"));
    }

    #[test]
    fn an_interface_that_cannot_carry_it_is_named_with_the_reason() {
        let all = [interface(1, &["10.1.0.1/24", "10.1.0.80/24"])];
        let named = |addresses: &[&str], name: &str| VipConfig {
            interface: Some(name.to_owned()),
            ..vip(addresses)
        };
        for (vip, words) in [
            (vip(&["10.1.0.80"]), "10.1.0.80/24 is an address of eth1 by itself"),
            (vip(&["10.1.0.81/16"]), "the network of eth1 is 10.1.0.0/24, not a /16: wrong mask"),
            (named(&["10.1.0.81"], "eth7"), "there is no interface eth7"),
        ] {
            assert_eq!(choose(&vip, &all[..]).map_err(|why| why.contains(words)), Err(true));
        }
        let mut down = [interface(1, &["10.1.0.1/24"])];
        down[0].carrier = false;
        let why = choose(&named(&["10.9.0.81"], "eth1"), &down).unwrap_err();
        assert_eq!(why, "interface eth1 has no carrier");
        down[0].up = false;
        assert_eq!(choose(&vip(&["10.1.0.81"]), &down).unwrap_err(), "interface eth1 is down");
    }
}
