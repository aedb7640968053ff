//! Where a handshake the peer began came from, so that it is answered there: a clone of the peer at
//! another address, or a restarted peer behind a route that is not the active one, would never
//! hear an answer on the active route. Pure: the caller brings the time. Bounded by
//! [`MAX_TRACKED_HANDSHAKES`].
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
const RETURN_PATH_LIFETIME: Duration = Duration::from_millis(500);
/// Handshakes remembered at once; the oldest is forgotten.
const MAX_TRACKED_HANDSHAKES: usize = 32;
/// Other ids remembered at once: far more than connections live. One that is forgotten costs a
/// datagram on the wrong route, which QUIC sends again.
const MAX_OTHER_CIDS: usize = 256;
/// Bytes of a connection id either end issues. The one a dialer makes up for its first flight is
/// longer, which tells a dialer's datagram from an acceptor's.
const ISSUED_CID_LEN: usize = 8;
/// Set in the first byte of the packets of a handshake (RFC 9000 section 17.2).
const LONG_HEADER_BIT: u8 = 0x80;

/// Where answers to a handshake go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) struct ReturnPath {
    /// The route it came on.
    pub(in crate::io) route: RouteId,
    /// Whether the active route should carry this packet too. Not once the handshake is over:
    /// where a former process of the peer still runs, it would end the fresh connection with a
    /// reset (RFC 9000 section 10.3).
    pub(in crate::io) also_active_route: bool,
}

/// A connection id.
type IssuedCid = [u8; ISSUED_CID_LEN];

/// The handshakes peers began lately.
#[derive(Debug, Default)]
pub(in crate::io) struct HandshakeReturnPaths {
    recent: Vec<PeerHandshake>,
    /// Ids of no handshake that began lately, oldest first.
    other_cids: VecDeque<(PeerId, IssuedCid)>,
}

#[derive(Debug)]
struct PeerHandshake {
    peer: PeerId,
    /// The id the dialer named.
    dialer_cid: IssuedCid,
    /// The one it gave later.
    later_cid: Option<IssuedCid>,
    route: RouteId,
    expires_at: Instant,
}

impl HandshakeReturnPaths {
    /// Takes in a datagram of `peer` that came on `route`.
    pub(in crate::io) fn on_peer_datagram(
        &mut self,
        peer: PeerId,
        route: RouteId,
        datagram: &[u8],
        now: Instant,
    ) {
        let Some(first) = first_flight_cid(datagram) else { return };
        self.recent.retain(|origin| origin.expires_at > now);
        // The first copy took the fastest route.
        if self.recent.iter().any(|origin| (origin.peer, origin.dialer_cid) == (peer, first)) {
            return;
        }
        if self.recent.len() == MAX_TRACKED_HANDSHAKES {
            self.recent.remove(0);
        }
        self.recent.push(PeerHandshake {
            peer,
            dialer_cid: first,
            later_cid: None,
            route,
            expires_at: now + RETURN_PATH_LIFETIME,
        });
    }

    /// Where else than on the active route a datagram for `peer` should go.
    pub(in crate::io) fn return_path_for(
        &mut self,
        peer: PeerId,
        datagram: &[u8],
        now: Instant,
    ) -> Option<ReturnPath> {
        let (to, both): (IssuedCid, _) = match datagram {
            [first, _, _, _, _, length, rest @ ..] if first & LONG_HEADER_BIT != 0 => {
                let to = rest
                    .get(..ISSUED_CID_LEN)
                    .filter(|_| usize::from(*length) == ISSUED_CID_LEN)?;
                (to.try_into().ok()?, true)
            }
            [_, rest @ ..] => (rest.get(..ISSUED_CID_LEN)?.try_into().ok()?, false),
            [] => return None,
        };
        let mut recent =
            self.recent.iter_mut().filter(|origin| origin.peer == peer && origin.expires_at > now);
        if let Some(known) =
            recent.find(|origin| origin.dialer_cid == to || origin.later_cid == Some(to))
        {
            return Some(ReturnPath { route: known.route, also_active_route: both });
        }
        if both || self.other_cids.contains(&(peer, to)) {
            return None;
        }
        let mut recent = self.recent.iter_mut().rev();
        let fresh = recent.find(|origin| {
            origin.peer == peer && origin.expires_at > now && origin.later_cid.is_none()
        });
        if let Some(fresh) = fresh {
            fresh.later_cid = Some(to);
            return Some(ReturnPath { route: fresh.route, also_active_route: both });
        }
        if self.other_cids.len() == MAX_OTHER_CIDS {
            self.other_cids.pop_front();
        }
        self.other_cids.push_back((peer, to));
        None
    }
}

/// The connection id a dialer gave itself, if this is the first datagram of its handshake.
fn first_flight_cid(datagram: &[u8]) -> Option<[u8; ISSUED_CID_LEN]> {
    let [first, _, _, _, _, length, rest @ ..] = datagram else { return None };
    if first & LONG_HEADER_BIT == 0 || usize::from(*length) == ISSUED_CID_LEN {
        return None;
    }
    let [length, rest @ ..] = rest.get(usize::from(*length)..)? else { return None };
    rest.get(..ISSUED_CID_LEN).filter(|_| usize::from(*length) == ISSUED_CID_LEN)?.try_into().ok()
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
        let (mut origins, now) = (HandshakeReturnPaths::default(), Instant::now());
        origins.on_peer_datagram(PEER, ROUTE, &long(&[1; 20], &DIALER), now);
        origins.on_peer_datagram(PEER, RouteId(8), &long(&[1; 20], &DIALER), now);
        let short = [&[0x40][..], &DIALER, b"rest"].concat();
        let mut answer = |packet: &[u8], now| origins.return_path_for(PEER, packet, now);
        let (both, one) = (
            ReturnPath { route: ROUTE, also_active_route: true },
            ReturnPath { route: ROUTE, also_active_route: false },
        );
        assert_eq!(answer(&long(&DIALER, &[2; 8]), now), Some(both));
        assert_eq!(answer(&short, now), Some(one));
        assert_eq!(answer(&short, now + RETURN_PATH_LIFETIME), None);
        assert_eq!(origins.return_path_for(PeerId(4), &short, now), None);
    }

    #[test]
    fn a_new_id_soon_after_a_handshake_began_is_that_handshakes() {
        let (mut origins, now) = (HandshakeReturnPaths::default(), Instant::now());
        let [old, new, third] = [1, 2, 3].map(|byte| [0x40 | byte; 30]);
        assert_eq!(origins.return_path_for(PEER, &old, now), None);
        origins.on_peer_datagram(PEER, ROUTE, &long(&[1; 20], &DIALER), now);
        assert_eq!(origins.return_path_for(PEER, &old, now), None, "used before");
        let one = Some(ReturnPath { route: ROUTE, also_active_route: false });
        assert_eq!(origins.return_path_for(PEER, &new, now), one);
        assert_eq!(origins.return_path_for(PEER, &third, now), None, "it has its id");
        assert_eq!(origins.return_path_for(PEER, &new, now), one);
        assert_eq!(origins.return_path_for(PEER, &new, now + RETURN_PATH_LIFETIME), None);
    }

    #[test]
    fn what_an_acceptor_sends_and_what_is_damaged_tells_nothing() {
        let (mut origins, now) = (HandshakeReturnPaths::default(), Instant::now());
        let whole = long(&[1; 20], &DIALER);
        origins.on_peer_datagram(PEER, ROUTE, &long(&[1; 8], &DIALER), now);
        for end in 0..whole.len() {
            origins.on_peer_datagram(PEER, ROUTE, &whole[..end], now);
            origins.return_path_for(PEER, &whole[..end], now);
        }
        assert!(origins.recent.is_empty());
    }

    #[test]
    fn many_handshakes_push_the_oldest_out() {
        let (mut origins, now) = (HandshakeReturnPaths::default(), Instant::now());
        for number in 0..2 * MAX_TRACKED_HANDSHAKES as u64 {
            origins.on_peer_datagram(PEER, ROUTE, &long(&[1; 20], &number.to_be_bytes()), now);
        }
        assert_eq!(origins.recent.len(), MAX_TRACKED_HANDSHAKES);
        let last = [&[0x40][..], &(2 * MAX_TRACKED_HANDSHAKES as u64 - 1).to_be_bytes()].concat();
        assert!(origins.return_path_for(PEER, &last, now).is_some());
    }
}
