//! The names that stand for floating addresses in DNS.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use crate::config::{
    check::{ConfigError, check_count, check_number},
    keys,
    limits::{DEFAULT_DNS_TTL, MAX_DNS_NAMES},
    vip::VipConfig,
};

/// Longest name of DNS as a text (RFC 1035 section 2.3.4).
const MAX_NAME_LEN: usize = 253;
/// Longest part of a name between two dots.
const MAX_LABEL_LEN: usize = 63;

/// A zone, and the names in it that this node keeps by dynamic update (RFC 2136).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The zone's primary server.
    pub server: SocketAddr,
    /// The zone.
    pub zone: String,
    /// File of the TSIG key that may change it.
    pub key_file: PathBuf,
    /// Time to live of the records, seconds.
    pub ttl: u32,
    /// The names.
    pub names: Vec<DnsName>,
}

/// A name for a group of floating addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsName {
    /// The name below the zone.
    pub name: String,
    /// Floating addresses; the name is online if any of them is.
    pub members: Vec<String>,
    /// Every member is registered, online or not.
    pub register_all: bool,
}

impl DnsConfig {
    /// A zone without names, with the default time to live.
    pub fn new(server: SocketAddr, zone: impl Into<String>, key_file: PathBuf) -> Self {
        Self { server, zone: zone.into(), key_file, ttl: DEFAULT_DNS_TTL, names: Vec::new() }
    }

    /// The whole name.
    pub fn full_name(&self, name: &DnsName) -> String {
        format!("{}.{}", name.name, self.zone)
    }
}

/// A name of hosts (RFC 1123 section 2.1), in lower case, without a dot at its end.
pub fn host_name(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if text.is_empty() || text.len() > MAX_NAME_LEN {
        return Err(format!("it is {} bytes long, 1 to {MAX_NAME_LEN} are allowed", text.len()));
    }
    for label in text.split('.') {
        let is_sound = (1..=MAX_LABEL_LEN).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !is_sound {
            return Err(format!("{label:?} is no part of a host's name"));
        }
    }
    Ok(text)
}

/// Checks the names, which lead to floating addresses.
pub(super) fn check_dns(dns: &DnsConfig, vips: &[VipConfig]) -> Result<(), ConfigError> {
    let refused = |key, value: &str, reason: String| ConfigError::NotAllowed {
        key,
        value: value.to_owned(),
        reason,
    };
    host_name(&dns.zone).map_err(|reason| refused(&keys::DNS_ZONE, &dns.zone, reason))?;
    check_number(&keys::DNS_TTL, dns.ttl.into())?;
    check_count("names", dns.names.len(), MAX_DNS_NAMES)?;
    let mut names = BTreeSet::new();
    for name in &dns.names {
        let bad_name = |reason| refused(&keys::DNS_NAME_NAME, &name.name, reason);
        let normal_name = host_name(&name.name).map_err(bad_name)?;
        host_name(&dns.full_name(name)).map_err(bad_name)?;
        if !names.insert(normal_name) {
            let value = name.name.clone();
            return Err(ConfigError::UsedTwice { key: &keys::DNS_NAME_NAME, value });
        }
        for member in &name.members {
            if !vips.iter().any(|vip| vip.name == *member) {
                let reason = "there is no floating address of this name".to_owned();
                return Err(refused(&keys::DNS_NAME_MEMBERS, member, reason));
            }
        }
        if name.members.is_empty() {
            let reason = "a name without members leads nowhere".to_owned();
            return Err(refused(&keys::DNS_NAME_MEMBERS, &name.name, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_hosts_can_have() {
        assert_eq!(host_name("Web.Example."), Ok("web.example".to_owned()));
        let long = "a".repeat(64);
        for text in ["", ".", "a..b", "-a", "a-", "a_b", "a b", "ä", &long, &"a.".repeat(128)] {
            assert!(host_name(text).is_err(), "{text}");
        }
        assert!(host_name(&"a.".repeat(127)).is_ok(), "the longest");
    }
}
