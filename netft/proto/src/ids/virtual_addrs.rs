//! Virtual addresses derived from a node's key. Pure.
//!
//! IPv4 from 169.254.1.0–169.254.254.255 (RFC 3927 section 2.1: the first and last 256 are
//! reserved), IPv6 from fe80::/64. Derived from the key, so stable across restarts, NIC swaps and
//! clones of a machine; two nodes that collide are refused when the config is checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ring::digest;

use crate::ids::node_key::NodeKey;

/// The two addresses of a node's adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct VirtualAddrs {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

impl VirtualAddrs {
    /// The link-local addresses of the node with this key.
    pub fn derive_from_key(key: &NodeKey) -> Self {
        Self { v4: derive_v4(key), v6: derive_v6(key) }
    }

    /// Returns whether `addr` is one of the two.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) => v4 == self.v4,
            IpAddr::V6(v6) => v6 == self.v6,
        }
    }
}

/// Link-local addresses of cloud metadata services.
const METADATA_ADDRS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 169, 253),
    Ipv4Addr::new(169, 254, 170, 2),
];

/// Returns whether `addr` is that of a cloud metadata service.
pub fn is_metadata_service(addr: Ipv4Addr) -> bool {
    METADATA_ADDRS.contains(&addr)
}

fn derive_v4(key: &NodeKey) -> Ipv4Addr {
    let mut round = 0u8;
    loop {
        let hash = hash_key(key, b"netft v4", round);
        // 254 × 256 addresses: 1.0 to 254.255.
        let index = u32::from_be_bytes([0, hash[0], hash[1], hash[2]]) % (254 * 256);
        let [.., high, low] = (index + 256).to_be_bytes();
        let addr = Ipv4Addr::new(169, 254, high, low);
        if !is_metadata_service(addr) {
            return addr;
        }
        round = round.wrapping_add(1);
    }
}

fn derive_v6(key: &NodeKey) -> Ipv6Addr {
    let hash = hash_key(key, b"netft v6", 0);
    let mut octets = [0; 16];
    octets[0] = 0xfe;
    octets[1] = 0x80;
    octets[8..].copy_from_slice(&hash[..8]);
    Ipv6Addr::from(octets)
}

fn hash_key(key: &NodeKey, label: &[u8], round: u8) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(label);
    context.update(&[round]);
    context.update(&key.0);
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_stable_and_in_range() {
        for seed in 0..2000u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&seed.to_be_bytes());
            let addrs = VirtualAddrs::derive_from_key(&NodeKey(bytes));
            assert_eq!(addrs, VirtualAddrs::derive_from_key(&NodeKey(bytes)));
            let [a, b, c, _] = addrs.v4.octets();
            assert_eq!((a, b), (169, 254));
            assert!((1..=254).contains(&c), "{}", addrs.v4);
            assert!(!METADATA_ADDRS.contains(&addrs.v4));
            assert_eq!(addrs.v6.segments()[..4], [0xfe80, 0, 0, 0]);
        }
    }
}
