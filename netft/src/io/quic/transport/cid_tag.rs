//! Which QUIC packets belong to a route's own connection, and which to the control session: both
//! come on one port, from one address.

use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of the destination id a dialer makes up. The control session's has 20 (quinn's choice).
const DIAL_LEN: usize = 12;
/// Bytes of the ids a node gives itself.
const OWN_LEN: usize = 8;
/// First byte: a long header (RFC 8999 section 5.1), which says how long the destination id is.
const LONG: u8 = 0x80;

/// Tells the packets of this node's carrier connections by their destination id.
#[derive(Clone, Copy, Debug)]
pub struct Marks(u64);

impl Marks {
    /// Ids of this node alone: `key` is derived from its identity, so that a restarted node knows
    /// what its former process is sent.
    pub(in crate::io) const fn new(key: u64) -> Self {
        Self(key)
    }

    /// Makes ids this node is addressed by.
    pub(in crate::io) fn generator(self) -> Box<dyn ConnectionIdGenerator> {
        Box::new(HashedConnectionIdGenerator::from_key(self.0))
    }

    /// Whether `packet` is for a carrier connection. One of 2^40 others is taken for one, and lost.
    #[inline]
    pub(in crate::io) fn claims(self, packet: &[u8]) -> bool {
        match destination(packet) {
            Some(id) if id.len() == OWN_LEN => {
                let ids = HashedConnectionIdGenerator::from_key(self.0);
                ids.validate(&ConnectionId::new(id)).is_ok()
            }
            Some(id) => id.len() == DIAL_LEN,
            None => false,
        }
    }
}

/// The destination id of a dial: random, as RFC 9000 section 7.2 wants it.
pub(in crate::io) fn dial_id() -> ConnectionId {
    let mut id = [0; DIAL_LEN];
    // Without random bytes TLS refuses to begin at all.
    let _ = SystemRandom::new().fill(&mut id);
    ConnectionId::new(&id)
}

#[inline]
fn destination(packet: &[u8]) -> Option<&[u8]> {
    if packet.first()? & LONG == 0 {
        return packet.get(1..1 + OWN_LEN);
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
        let marks = Marks::new(7);
        let own = marks.generator().generate_cid();
        let other = Marks::new(8).generator().generate_cid();
        let short = |id: &[u8]| [&[0x40][..], id, &[0; 20]].concat();
        assert!(marks.claims(&short(&own)) && marks.claims(&long(&own)));
        assert!(!marks.claims(&short(&other)) && !marks.claims(&long(&other)));
        assert!(marks.claims(&long(&dial_id())) && !marks.claims(&long(&[1; 20])));
    }

    /// W-01.
    #[test]
    fn truncated_packets_are_nobodys() {
        for packet in [long(&dial_id()), long(&[1; 8])] {
            for len in 0..14 {
                assert!(!Marks::new(7).claims(&packet[..len]), "{len}");
            }
        }
    }
}
