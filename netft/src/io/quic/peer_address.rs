//! Address of a peer inside QUIC: stable whatever its routes do, and never on a wire.

use std::net::{Ipv6Addr, SocketAddr};

use netft_proto::{config::DEFAULT_PORT, ids::PeerId};

/// Unique local prefix (RFC 4193) of the synthetic addresses, which never leave this process.
pub(in crate::io) const PEER_ADDRESS_PREFIX: [u16; 3] = [0xfd6e, 0x6574, 0x6674];

/// Synthetic address of a peer.
pub(in crate::io) fn address_of(peer: PeerId) -> SocketAddr {
    let [a, b, c] = PEER_ADDRESS_PREFIX;
    (Ipv6Addr::new(a, b, c, 0, 0, 0, 1, peer.0), DEFAULT_PORT).into()
}

/// Peer of a synthetic address.
pub(in crate::io) fn peer_of(address: SocketAddr) -> Option<PeerId> {
    let SocketAddr::V6(v6) = address else { return None };
    let peer = PeerId(v6.ip().segments()[7]);
    (address_of(peer) == address).then_some(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_its_own_address_and_no_other_address_is_a_peer() {
        for peer in [0, 1, 255, 256, u16::MAX].map(PeerId) {
            assert_eq!(peer_of(address_of(peer)), Some(peer));
        }
        for other in ["192.0.2.1:3343", "[fd6e:6574:6674::1:1]:3344", "[fe80::1:1]:3343"] {
            assert_eq!(other.parse().ok().and_then(peer_of), None, "{other}");
        }
    }
}
