//! Demultiplexing of QUIC packets by destination connection id: transport connections of a route
//! and the control session share one port and address.

use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of the random destination id of a dialer. The control session's has 20 (quinn's default).
const DIALER_CID_LEN: usize = 12;
/// Bytes of the ids that a node issues.
const LOCAL_CID_LEN: usize = 8;
/// Long header bit in the first byte (RFC 8999 section 5.1): the destination id has a length field.
const LONG_HEADER_BIT: u8 = 0x80;

/// Recognises the packets of this node's transport connections by their destination id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CidTag(u64);

impl CidTag {
    /// A tag with `key`, derived from the node's identity, so that a restarted node recognises
    /// packets for its former process.
    pub(in crate::io) const fn new(key: u64) -> Self {
        Self(key)
    }

    /// Generator of this node's connection ids.
    pub(in crate::io) fn cid_generator(self) -> Box<dyn ConnectionIdGenerator> {
        Box::new(HashedConnectionIdGenerator::from_key(self.0))
    }

    /// Returns whether `packet` belongs to a transport connection. One of 2^40 others is mistaken
    /// for one, and lost.
    #[inline]
    pub(in crate::io) fn matches_packet(self, packet: &[u8]) -> bool {
        destination_cid(packet).is_some_and(|id| id.len() == DIALER_CID_LEN)
            || self.issued_id_of(packet)
    }

    /// Returns whether the destination id of `packet` is one that was issued with this tag.
    #[inline]
    fn issued_id_of(self, packet: &[u8]) -> bool {
        let id = destination_cid(packet).filter(|id| id.len() == LOCAL_CID_LEN);
        id.is_some_and(|id| {
            let ids = HashedConnectionIdGenerator::from_key(self.0);
            ids.validate(&ConnectionId::new(id)).is_ok()
        })
    }
}

/// The tags of both kinds of a node's connections.
#[derive(Clone, Copy, Debug)]
pub struct CidTags {
    /// Of the transport connections of routes.
    pub(in crate::io) transport: CidTag,
    /// Of the control sessions.
    pub(in crate::io) session: CidTag,
}

impl CidTags {
    /// Returns whether this node issued the destination id of `packet`, so that it is of no first
    /// flight. Nobody can forge such an id who has seen none.
    #[inline]
    pub(in crate::io) fn issued_id_of(&self, packet: &[u8]) -> bool {
        [self.transport, self.session].into_iter().any(|tag| tag.issued_id_of(packet))
    }
}

/// Random destination id of a dialer's first flight (RFC 9000 section 7.2).
pub(in crate::io) fn random_dialer_cid() -> ConnectionId {
    let mut id = [0; DIALER_CID_LEN];
    // Without random bytes the TLS handshake cannot start at all.
    let _ = SystemRandom::new().fill(&mut id);
    ConnectionId::new(&id)
}

#[inline]
fn destination_cid(packet: &[u8]) -> Option<&[u8]> {
    if packet.first()? & LONG_HEADER_BIT == 0 {
        return packet.get(1..1 + LOCAL_CID_LEN);
    }
    let len = usize::from(*packet.get(5)?);
    packet.get(6..6 + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(id: &[u8]) -> Vec<u8> {
        [&[0xc0, 0, 0, 0, 1, id.len() as u8][..], id, &[0; 20]].concat()
    }

    #[test]
    fn own_ids_and_dials_are_recognised_and_nothing_else_is() {
        let tag = CidTag::new(7);
        let own = tag.cid_generator().generate_cid();
        let other = CidTag::new(8).cid_generator().generate_cid();
        let short = |id: &[u8]| [&[0x40][..], id, &[0; 20]].concat();
        assert!(tag.matches_packet(&short(&own)) && tag.matches_packet(&long(&own)));
        assert!(!tag.matches_packet(&short(&other)) && !tag.matches_packet(&long(&other)));
        assert!(
            tag.matches_packet(&long(&random_dialer_cid())) && !tag.matches_packet(&long(&[1; 20]))
        );
    }

    /// F-51. A forger may choose the length of ids that a node issues.
    #[test]
    fn ids_of_either_kind_of_connection_are_issued_and_others_are_not() {
        let tags = CidTags { transport: CidTag::new(7), session: CidTag::new(8) };
        for key in [7, 8] {
            let id = CidTag::new(key).cid_generator().generate_cid();
            assert!(tags.issued_id_of(&long(&id)));
            assert!(!tags.issued_id_of(&long(&id[..7])));
        }
        let other = CidTag::new(9).cid_generator().generate_cid();
        for id in [&other[..], &[0x5a; 8], &random_dialer_cid(), &[1; 20]] {
            assert!(!tags.issued_id_of(&long(id)), "{id:?}");
        }
    }

    /// W-01.
    #[test]
    fn truncated_packets_are_not_recognised() {
        for packet in [long(&random_dialer_cid()), long(&[1; 8])] {
            for len in 0..14 {
                assert!(!CidTag::new(7).matches_packet(&packet[..len]), "{len}");
            }
        }
    }
}
