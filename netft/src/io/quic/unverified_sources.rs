//! Unverified sources: addresses of no route that send QUIC, such as a peer whose address is
//! unknown or has changed.
//!
//! While some peer has no usable route, QUIC is accepted from any source. Each source gets a
//! synthetic address, and its real one is validated before a handshake begins (Retry, RFC 9000
//! section 8.1); TLS then proves its key. The peer's advertised addresses become routes, which the
//! connection migrates to (RFC 9000 section 9). Pure, and bounded by [`MAX_SOURCES`].

use std::{
    collections::VecDeque,
    net::{Ipv6Addr, SocketAddr},
};

use netft_proto::{config::DEFAULT_PORT, ids::PeerId};

use crate::io::{quic::peer_address::PEER_ADDRESS_PREFIX, socket::SocketId};

/// Tracked sources; the oldest without a proven key is evicted first.
const MAX_SOURCES: usize = 64;
/// Segment that distinguishes the address of an unverified source from that of a peer.
const UNVERIFIED_SEGMENT: u16 = 3;

/// A source of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) struct UnverifiedSource {
    pub(in crate::io) socket: SocketId,
    pub(in crate::io) from: SocketAddr,
    /// The peer, once its key is proven.
    pub(in crate::io) peer: Option<PeerId>,
}

/// Sources of no route.
#[derive(Debug, Default)]
pub(in crate::io) struct UnverifiedSources {
    sources: VecDeque<(u32, UnverifiedSource)>,
    last_number: u32,
}

impl UnverifiedSources {
    /// Synthetic address of a source.
    pub(in crate::io) fn assign_address(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
    ) -> SocketAddr {
        let known =
            self.sources.iter().find(|(_, known)| (known.socket, known.from) == (socket, from));
        if let Some((number, _)) = known {
            return address_of(*number);
        }
        if self.sources.len() == MAX_SOURCES {
            let unproven = self.sources.iter().position(|(_, known)| known.peer.is_none());
            self.sources.remove(unproven.unwrap_or_default());
        }
        self.last_number = self.last_number.wrapping_add(1);
        self.sources.push_back((self.last_number, UnverifiedSource { socket, from, peer: None }));
        address_of(self.last_number)
    }

    /// Source of a synthetic address; `None` once it is evicted.
    pub(in crate::io) fn find_source(&self, address: SocketAddr) -> Option<UnverifiedSource> {
        let number = number_of(address)?;
        self.sources.iter().find(|(known, _)| *known == number).map(|(_, source)| *source)
    }

    /// Records the peer of a source.
    pub(in crate::io) fn set_peer(&mut self, address: SocketAddr, peer: PeerId) {
        let number = number_of(address);
        let source = self.sources.iter_mut().find(|(known, _)| Some(*known) == number);
        if let Some((_, source)) = source {
            source.peer = Some(peer);
        }
    }
}

fn address_of(number: u32) -> SocketAddr {
    let [a, b, c] = PEER_ADDRESS_PREFIX;
    let [high, low] = [(number >> 16) as u16, number as u16];
    (Ipv6Addr::new(a, b, c, 0, 0, UNVERIFIED_SEGMENT, high, low), DEFAULT_PORT).into()
}

fn number_of(address: SocketAddr) -> Option<u32> {
    let SocketAddr::V6(v6) = address else { return None };
    let [.., high, low] = v6.ip().segments();
    let number = u32::from(high) << 16 | u32::from(low);
    (address_of(number) == address).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> (SocketId, SocketAddr) {
        (SocketId(1), ([192, 0, 2, last], 9).into())
    }

    #[test]
    fn a_source_keeps_its_address_and_is_found_by_it() {
        let mut sources = UnverifiedSources::default();
        let (socket, from) = source(1);
        let address = sources.assign_address(socket, from);
        assert_eq!(sources.assign_address(socket, from), address);
        assert_ne!(sources.assign_address(SocketId(2), from), address);
        assert_eq!(sources.find_source(address).map(|found| found.from), Some(from));
        assert_eq!(
            crate::io::quic::peer_address::peer_of(address),
            None,
            "it is no peer's address"
        );
        sources.set_peer(address, PeerId(4));
        assert_eq!(sources.find_source(address).and_then(|found| found.peer), Some(PeerId(4)));
    }

    #[test]
    fn a_flood_of_sources_evicts_the_unproven_first() {
        let mut sources = UnverifiedSources::default();
        let peer = sources.assign_address(SocketId(0), source(0).1);
        sources.set_peer(peer, PeerId(1));
        for last in 0..=255 {
            let (socket, from) = source(last);
            sources.assign_address(socket, from);
        }
        assert_eq!(sources.sources.len(), MAX_SOURCES);
        assert!(sources.find_source(peer).is_some());
    }
}
