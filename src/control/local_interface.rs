//! Interfaces of this node by their addresses. Pure.

use std::net::IpAddr;

use netft::{api::snapshot::Snapshot, topology, topology::NetworkInfo};

/// The interface of this node that has `address`, and its network.
pub(super) fn find_local_interface(
    snapshot: &Snapshot,
    address: IpAddr,
) -> Option<(&NetworkInfo, &topology::NetworkInterface)> {
    snapshot.networks.iter().find_map(|network| {
        let is_it = |one: &&topology::NetworkInterface| one.peer.is_none() && one.addr == address;
        network.interfaces.iter().find(is_it).map(|interface| (network, interface))
    })
}
