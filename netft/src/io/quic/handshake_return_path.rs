//! Where a handshake the peer began came from, so that it is answered there: a clone of the peer at
//! another address, or a restarted peer behind a route that is not the active one, would never
//! hear an answer on the active route. Pure: the caller brings the time. Bounded by [`MAX`].
//!
//! A datagram says for whom it is by the connection id in its clear part. The dialer names its
//! first one in its first flight and gives the acceptor another, unseen, during the handshake; so
//! an id that was never used before, soon after a handshake began, is taken for that handshake's.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use netft_proto::ids::{PeerId, RouteId};

/// How long answers go where the handshake came from; the active route carries everything after.
const WHILE: Duration = Duration::from_millis(500);
/// Handshakes remembered at once; the oldest is forgotten.
const MAX: usize = 32;
/// Other ids remembered at once: far more than connections live. One that is forgotten costs a
/// datagram on the wrong route, which QUIC sends again.
const OLDER: usize = 256;
/// Bytes of a connection id either end issues. The one a dialer makes up for its first flight is
/// longer, which tells a dialer's datagram from an acceptor's.
const ISSUED: usize = 8;
/// Set in the first byte of the packets of a handshake (RFC 9000 section 17.2).
const LONG: u8 = 0x80;

/// Where answers to a handshake go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) struct Answer {
    /// The route it came on.
    pub(in crate::io) route: RouteId,
    /// Whether the active route should carry this packet too. Not once the handshake is over:
    /// where a former process of the peer still runs, it would end the fresh connection with a
    /// reset (RFC 9000 section 10.3).
    pub(in crate::io) both: bool,
}

/// A connection id.
type Id = [u8; ISSUED];

/// The handshakes peers began lately.
#[derive(Debug, Default)]
pub(in crate::io) struct Origins {
    lately: Vec<Origin>,
    /// Ids of no handshake that began lately, oldest first.
    older: VecDeque<(PeerId, Id)>,
}

#[derive(Debug)]
struct Origin {
    peer: PeerId,
    /// The id the dialer named.
    first: Id,
    /// The one it gave later.
    second: Option<Id>,
    route: RouteId,
    until: Instant,
}

impl Origins {
    /// Takes in a datagram of `peer` that came on `route`.
    pub(in crate::io) fn heard(
        &mut self,
        peer: PeerId,
        route: RouteId,
        datagram: &[u8],
        now: Instant,
    ) {
        let Some(first) = dialer_of(datagram) else { return };
        self.lately.retain(|origin| origin.until > now);
        // The first copy took the fastest route.
        if self.lately.iter().any(|origin| (origin.peer, origin.first) == (peer, first)) {
            return;
        }
        if self.lately.len() == MAX {
            self.lately.remove(0);
        }
        self.lately.push(Origin { peer, first, second: None, route, until: now + WHILE });
    }

    /// Where else than on the active route a datagram for `peer` should go.
    pub(in crate::io) fn answer(
        &mut self,
        peer: PeerId,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Answer> {
        let (to, both): (Id, _) = match datagram {
            [first, _, _, _, _, length, rest @ ..] if first & LONG != 0 => {
                let to = rest.get(..ISSUED).filter(|_| usize::from(*length) == ISSUED)?;
                (to.try_into().ok()?, true)
            }
            [_, rest @ ..] => (rest.get(..ISSUED)?.try_into().ok()?, false),
            [] => return None,
        };
        let mut lately =
            self.lately.iter_mut().filter(|origin| origin.peer == peer && origin.until > now);
        if let Some(known) = lately.find(|origin| origin.first == to || origin.second == Some(to)) {
            return Some(Answer { route: known.route, both });
        }
        if both || self.older.contains(&(peer, to)) {
            return None;
        }
        let mut lately = self.lately.iter_mut().rev();
        let fresh = lately
            .find(|origin| origin.peer == peer && origin.until > now && origin.second.is_none());
        if let Some(fresh) = fresh {
            fresh.second = Some(to);
            return Some(Answer { route: fresh.route, both });
        }
        if self.older.len() == OLDER {
            self.older.pop_front();
        }
        self.older.push_back((peer, to));
        None
    }
}

/// The connection id a dialer gave itself, if this is the first datagram of its handshake.
fn dialer_of(datagram: &[u8]) -> Option<[u8; ISSUED]> {
    let [first, _, _, _, _, length, rest @ ..] = datagram else { return None };
    if first & LONG == 0 || usize::from(*length) == ISSUED {
        return None;
    }
    let [length, rest @ ..] = rest.get(usize::from(*length)..)? else { return None };
    rest.get(..ISSUED).filter(|_| usize::from(*length) == ISSUED)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(3);
    const ROUTE: RouteId = RouteId(7);
    const DIALER: [u8; 8] = *b"dialers!";

    fn long(to: &[u8], from: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xc0, 0, 0, 0, 1, to.len() as u8];
        packet.extend(to);
        packet.push(from.len() as u8);
        packet.extend(from);
        packet
    }

    #[test]
    fn a_handshake_is_answered_where_it_came_from_for_a_while() {
        let (mut origins, now) = (Origins::default(), Instant::now());
        origins.heard(PEER, ROUTE, &long(&[1; 20], &DIALER), now);
        origins.heard(PEER, RouteId(8), &long(&[1; 20], &DIALER), now);
        let short = [&[0x40][..], &DIALER, b"rest"].concat();
        let mut answer = |packet: &[u8], now| origins.answer(PEER, packet, now);
        let (both, one) =
            (Answer { route: ROUTE, both: true }, Answer { route: ROUTE, both: false });
        assert_eq!(answer(&long(&DIALER, &[2; 8]), now), Some(both));
        assert_eq!(answer(&short, now), Some(one));
        assert_eq!(answer(&short, now + WHILE), None);
        assert_eq!(origins.answer(PeerId(4), &short, now), None);
    }

    #[test]
    fn a_new_id_soon_after_a_handshake_began_is_that_handshakes() {
        let (mut origins, now) = (Origins::default(), Instant::now());
        let [old, new, third] = [1, 2, 3].map(|byte| [0x40 | byte; 30]);
        assert_eq!(origins.answer(PEER, &old, now), None);
        origins.heard(PEER, ROUTE, &long(&[1; 20], &DIALER), now);
        assert_eq!(origins.answer(PEER, &old, now), None, "used before");
        let one = Some(Answer { route: ROUTE, both: false });
        assert_eq!(origins.answer(PEER, &new, now), one);
        assert_eq!(origins.answer(PEER, &third, now), None, "it has its id");
        assert_eq!(origins.answer(PEER, &new, now), one);
        assert_eq!(origins.answer(PEER, &new, now + WHILE), None);
    }

    #[test]
    fn what_an_acceptor_sends_and_what_is_damaged_tells_nothing() {
        let (mut origins, now) = (Origins::default(), Instant::now());
        let whole = long(&[1; 20], &DIALER);
        origins.heard(PEER, ROUTE, &long(&[1; 8], &DIALER), now);
        for end in 0..whole.len() {
            origins.heard(PEER, ROUTE, &whole[..end], now);
            origins.answer(PEER, &whole[..end], now);
        }
        assert!(origins.lately.is_empty());
    }

    #[test]
    fn many_handshakes_push_the_oldest_out() {
        let (mut origins, now) = (Origins::default(), Instant::now());
        for number in 0..2 * MAX as u64 {
            origins.heard(PEER, ROUTE, &long(&[1; 20], &number.to_be_bytes()), now);
        }
        assert_eq!(origins.lately.len(), MAX);
        let last = [&[0x40][..], &(2 * MAX as u64 - 1).to_be_bytes()].concat();
        assert!(origins.answer(PEER, &last, now).is_some());
    }
}
