//! Checks of the floating addresses of a config.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use crate::config::{
    check::{ConfigError, check_count, check_number, check_text},
    keys,
    limits::MAX_VIPS,
    text,
    vip::{VipAddress, VipConfig, VipFailback, VipProbe},
};

impl VipConfig {
    /// Checks it by itself.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_text(&keys::VIP_NAME, &self.name, text::node_name)?;
        check_vip(self)
    }
}

/// Checks an address of a [`VipConfig`]: `ADDRESS` or `ADDRESS/LENGTH`.
pub fn vip_address(text: &str) -> Result<VipAddress, String> {
    let (addr, len) = match text.split_once('/') {
        None => (text, None),
        Some((addr, len)) => (addr, Some(len)),
    };
    let addr: IpAddr = addr.parse().map_err(|_| "this is no IP address".to_owned())?;
    let most = if addr.is_ipv4() { 32 } else { 128 };
    let prefix_len = match len.map(str::parse::<u8>) {
        None => None,
        Some(Ok(len)) if (1..=most).contains(&len) => Some(len),
        Some(_) => return Err(format!("the prefix length is a number from 1 to {most}")),
    };
    check_address(addr, prefix_len)?;
    Ok(VipAddress { addr, prefix_len })
}

fn check_address(addr: IpAddr, prefix_len: Option<u8>) -> Result<(), String> {
    let why = match addr {
        _ if addr.is_unspecified() || addr.is_loopback() => "no other host can reach it",
        _ if addr.is_multicast() => "this is a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "this is the broadcast address",
        // RFC 3927 section 1.9 and RFC 4291 section 2.5.6: an interface chooses its own.
        IpAddr::V4(v4) if v4.is_link_local() => "link-local addresses belong to one interface",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            "link-local addresses belong to one interface"
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "write the IPv4 address itself",
        _ => "",
    };
    if !why.is_empty() {
        return Err(why.to_owned());
    }
    if let (IpAddr::V4(v4), Some(len)) = (addr, prefix_len)
        && len < 31
        && let Ok(net) = ipnet::Ipv4Net::new(v4, len)
        && (v4 == net.network() || v4 == net.broadcast())
    {
        return Err(format!("it is the network or broadcast address of {}", net.trunc()));
    }
    Ok(())
}

/// Checks every floating address, and each against the others.
pub(super) fn check_vips(vips: &[VipConfig]) -> Result<(), ConfigError> {
    check_count("floating addresses", vips.len(), MAX_VIPS)?;
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for vip in vips {
        check_text(&keys::VIP_NAME, &vip.name, text::node_name)?;
        if !names.insert(&vip.name) {
            let value = vip.name.clone();
            return Err(ConfigError::UsedTwice { key: &keys::VIP_NAME, value });
        }
        check_vip(vip)?;
        for address in &vip.addresses {
            let value = address.addr.to_string();
            if !addresses.insert(address.addr) {
                return Err(ConfigError::UsedTwice { key: &keys::VIP_ADDRESS, value });
            }
        }
    }
    Ok(())
}

/// Checks one floating address by itself.
fn check_vip(vip: &VipConfig) -> Result<(), ConfigError> {
    let refused =
        |key, value: String, reason: String| Err(ConfigError::NotAllowed { key, value, reason });
    let families: Vec<_> = vip.addresses.iter().map(|one| one.addr.is_ipv4()).collect();
    if !matches!(families[..], [] | [_] | [true, false] | [false, true]) {
        let reason = "one address, or one of each family, is needed".to_owned();
        return refused(&keys::VIP_ADDRESS, vip.describe_addresses(), reason);
    }
    let is_placed = match vip.network {
        Some(network) => network.addr().is_ipv4(),
        None => vip.interface.is_some(),
    };
    if vip.is_dhcp() && !is_placed {
        let reason = "an assigned address needs `interface`, or `network` of IPv4".to_owned();
        return refused(&keys::VIP_ADDRESS, vip.describe_addresses(), reason);
    }
    for VipAddress { addr, prefix_len } in &vip.addresses {
        if let Err(reason) = check_address(*addr, *prefix_len) {
            return refused(&keys::VIP_ADDRESS, addr.to_string(), reason);
        }
        if let Some(network) = vip.network
            && !network.contains(addr)
            && network.addr().is_ipv4() == addr.is_ipv4()
        {
            let reason = format!("{addr} is outside it");
            return refused(&keys::VIP_NETWORK, network.to_string(), reason);
        }
    }
    if let Some(name) = &vip.interface {
        check_text(&keys::VIP_INTERFACE, name, text::adapter_name)?;
    }
    if let Some(network) = vip.network
        && let Err(reason) = text::check_prefix(network)
    {
        return refused(&keys::VIP_NETWORK, network.to_string(), reason);
    }
    let millis = |length: Duration| length.as_millis() as u64;
    check_number(&keys::VIP_LEASE, millis(vip.lease))?;
    if let VipFailback::After(wait) = vip.failback {
        check_number(&keys::VIP_FAILBACK, millis(wait))?;
    }
    if let Some(check) = &vip.check {
        check_number(&keys::VIP_CHECK_TIMEOUT, millis(check.timeout))?;
        check_number(&keys::VIP_CHECK_INTERVAL, millis(check.interval))?;
        check_number(&keys::VIP_CHECK_RISE, check.rise.into())?;
        check_number(&keys::VIP_CHECK_FALL, check.fall.into())?;
        if let VipProbe::Http { status, .. } = check.probe {
            check_number(&keys::VIP_CHECK_STATUS, status.into())?;
        }
    }
    match &vip.hook {
        Some(hook) => check_number(&keys::VIP_HOOK_TIMEOUT, millis(hook.timeout)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_unicast_and_not_link_local() {
        for text in ["10.1.0.9", "10.1.0.9/24", "fd01::9", "fd01::9/64", "10.1.0.0/31"] {
            assert!(vip_address(text).is_ok(), "{text}");
        }
        for (text, word) in [
            ("10.1.0.0/24", "network or broadcast"),
            ("10.1.0.255/24", "network or broadcast"),
            ("10.1.0.9/33", "from 1 to 32"),
            ("10.1.0.9/0", "from 1 to 32"),
            ("fd01::9/129", "from 1 to 128"),
            ("127.0.0.1", "no other host"),
            ("0.0.0.0", "no other host"),
            ("224.0.0.18", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("169.254.7.7", "link-local"),
            ("fe80::9", "link-local"),
            ("::ffff:10.1.0.9", "IPv4 address itself"),
            ("here", "no IP address"),
        ] {
            assert!(vip_address(text).is_err_and(|why| why.contains(word)), "{text}");
        }
    }
}
