//! Which QUIC packets belong to a route's own connection, and which to the control session: both
//! come on one port, from one address.

use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of the destination id a dialer makes up. The control session's has 20 (quinn's choice).
const DIALER_CID_LEN: usize = 12;
/// Bytes of the ids a node gives itself.
const LOCAL_CID_LEN: usize = 8;
/// First byte: a long header (RFC 8999 section 5.1), which says how long the destination id is.
const LONG_HEADER_BIT: u8 = 0x80;

/// Tells the packets of this node's carrier connections by their destination id.
#[derive(Clone, Copy, Debug)]
pub struct CidTag(u64);

impl CidTag {
    /// Ids of this node alone: `key` is derived from its identity, so that a restarted node knows
    /// what its former process is sent.
    pub(in crate::io) const fn new(key: u64) -> Self {
        Self(key)
    }

    /// Makes ids this node is addressed by.
    pub(in crate::io) fn cid_generator(self) -> Box<dyn ConnectionIdGenerator> {
        Box::new(HashedConnectionIdGenerator::from_key(self.0))
    }

    /// Whether `packet` is for a carrier connection. One of 2^40 others is taken for one, and lost.
    #[inline]
    pub(in crate::io) fn matches_packet(self, packet: &[u8]) -> bool {
        match destination_cid(packet) {
            Some(id) if id.len() == LOCAL_CID_LEN => {
                let ids = HashedConnectionIdGenerator::from_key(self.0);
                ids.validate(&ConnectionId::new(id)).is_ok()
            }
            Some(id) => id.len() == DIALER_CID_LEN,
            None => false,
        }
    }
}

/// The destination id of a dial: random, as RFC 9000 section 7.2 wants it.
pub(in crate::io) fn random_dialer_cid() -> ConnectionId {
    let mut id = [0; DIALER_CID_LEN];
    // Without random bytes TLS refuses to begin at all.
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
    fn own_ids_and_dials_are_claimed_and_nothing_else_is() {
        let marks = CidTag::new(7);
        let own = marks.cid_generator().generate_cid();
        let other = CidTag::new(8).cid_generator().generate_cid();
        let short = |id: &[u8]| [&[0x40][..], id, &[0; 20]].concat();
        assert!(marks.matches_packet(&short(&own)) && marks.matches_packet(&long(&own)));
        assert!(!marks.matches_packet(&short(&other)) && !marks.matches_packet(&long(&other)));
        assert!(
            marks.matches_packet(&long(&random_dialer_cid()))
                && !marks.matches_packet(&long(&[1; 20]))
        );
    }

    /// W-01.
    #[test]
    fn truncated_packets_are_nobodys() {
        for packet in [long(&random_dialer_cid()), long(&[1; 8])] {
            for len in 0..14 {
                assert!(!CidTag::new(7).matches_packet(&packet[..len]), "{len}");
            }
        }
    }
}
