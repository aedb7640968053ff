//! Assignment of virtual addresses: derived from the node's first key, moved on where two nodes
//! collide, and kept from then on.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    ids::{NodeKey, virtual_addrs, virtual_addrs::VirtualAddrs},
    roster::document::Roster,
};

/// Addresses of 169.254.1.0–169.254.254.255.
const V4_COUNT: u32 = 254 * 256;

/// Free virtual addresses for a node with this key: those derived from it, or the next ones.
pub(super) fn assign_addrs(roster: &Roster, key: &NodeKey) -> VirtualAddrs {
    let taken: BTreeSet<IpAddr> = roster.virtual_owners().into_keys().collect();
    let mut addrs = VirtualAddrs::derive_from_key(key);
    // A roster holds far fewer nodes than there are addresses.
    while taken.contains(&addrs.v4.into()) || virtual_addrs::is_metadata_service(addrs.v4) {
        addrs.v4 = next_v4(addrs.v4);
    }
    while taken.contains(&addrs.v6.into()) {
        addrs.v6 = next_v6(addrs.v6);
    }
    addrs
}

/// The next IPv4 address of the range, around its end.
fn next_v4(addr: Ipv4Addr) -> Ipv4Addr {
    let [.., high, low] = addr.octets();
    let index = u32::from(u16::from_be_bytes([high, low])).wrapping_sub(256);
    let [.., high, low] = ((index + 1) % V4_COUNT + 256).to_be_bytes();
    Ipv4Addr::new(169, 254, high, low)
}

/// The next interface identifier of the same prefix.
fn next_v6(addr: Ipv6Addr) -> Ipv6Addr {
    let bits = addr.to_bits();
    let host = (bits as u64).wrapping_add(1);
    Ipv6Addr::from_bits(bits >> 64 << 64 | u128::from(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::{cluster_id::ClusterId, document::RosterNode};

    #[test]
    fn addresses_move_on_where_they_collide_and_stay_in_range() {
        let mut roster = Roster::new("c", ClusterId([1; 32]));
        let key = NodeKey([7; 32]);
        for number in 0..600 {
            let addrs = assign_addrs(&roster, &key);
            assert!(!roster.virtual_owners().contains_key(&addrs.v4.into()));
            assert!(!roster.virtual_owners().contains_key(&addrs.v6.into()));
            assert!((1..=254).contains(&addrs.v4.octets()[2]), "{}", addrs.v4);
            assert_eq!(addrs.v6.segments()[..4], [0xfe80, 0, 0, 0]);
            roster.nodes.push(RosterNode::new(format!("n{number}"), key, addrs));
        }
        assert_eq!(roster.nodes[0].addrs, VirtualAddrs::derive_from_key(&key));
    }

    #[test]
    fn the_range_of_ipv4_is_a_ring_without_metadata_services() {
        assert_eq!(next_v4(Ipv4Addr::new(169, 254, 254, 255)), Ipv4Addr::new(169, 254, 1, 0));
        assert_eq!(next_v4(Ipv4Addr::new(169, 254, 1, 255)), Ipv4Addr::new(169, 254, 2, 0));
        assert!(virtual_addrs::is_metadata_service(Ipv4Addr::new(169, 254, 169, 254)));
    }
}
