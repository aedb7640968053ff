//! Return path of a handshake that the peer began: it is answered on the route it arrived on. A
//! clone of the peer at another address, or a restarted peer behind a route that is not the active
//! one, would never receive an answer on the active route. Pure: the caller passes the time.
//! Bounded by [`MAX_TRACKED_HANDSHAKES`].
//!
//! Datagrams are attributed by their destination connection id. The dialer's first id is in its
//! first flight; it issues another one, encrypted, during the handshake. So an unknown id soon
//! after the start of a handshake is attributed to that handshake.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use netft_proto::ids::{PeerId, RouteId};

/// Time during which answers use the return path; later datagrams use the active route.
const RETURN_PATH_LIFETIME: Duration = Duration::from_millis(500);
/// Tracked handshakes; the oldest is evicted.
const MAX_TRACKED_HANDSHAKES: usize = 32;
/// Tracked connection ids of other connections: far more than there are. An evicted one costs a
/// datagram on the wrong route, which QUIC retransmits.
const MAX_OTHER_CIDS: usize = 256;
/// Bytes of the connection ids that either end issues. The random destination id of a dialer's
/// first flight is longer, which distinguishes a dialer's datagram from an acceptor's.
const ISSUED_CID_LEN: usize = 8;
/// Long header bit in the first byte of handshake packets (RFC 9000 section 17.2).
const LONG_HEADER_BIT: u8 = 0x80;

/// Route for the answers to a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) struct ReturnPath {
    /// The route it arrived on.
    pub(in crate::io) route: RouteId,
    /// True if the packet is sent on the active route too. Not after the handshake: a former
    /// process of the peer there would end the fresh connection with a stateless reset (RFC 9000
    /// section 10.3).
    pub(in crate::io) also_active_route: bool,
}

/// A connection id.
type IssuedCid = [u8; ISSUED_CID_LEN];

/// Recent handshakes that peers began.
#[derive(Debug, Default)]
pub(in crate::io) struct HandshakeReturnPaths {
    recent: Vec<PeerHandshake>,
    /// Connection ids of no recent handshake, oldest first.
    other_cids: VecDeque<(PeerId, IssuedCid)>,
}

#[derive(Debug)]
struct PeerHandshake {
    peer: PeerId,
    /// Source id of the dialer's first flight.
    dialer_cid: IssuedCid,
    /// The id it issued later.
    later_cid: Option<IssuedCid>,
    route: RouteId,
    expires_at: Instant,
}

impl HandshakeReturnPaths {
    /// Records a datagram of `peer` that arrived on `route`.
    pub(in crate::io) fn on_peer_datagram(
        &mut self,
        peer: PeerId,
        route: RouteId,
        datagram: &[u8],
        now: Instant,
    ) {
        let Some(first) = first_flight_cid(datagram) else { return };
        self.recent.retain(|handshake| handshake.expires_at > now);
        // The first copy arrived on the fastest route.
        if self
            .recent
            .iter()
            .any(|handshake| (handshake.peer, handshake.dialer_cid) == (peer, first))
        {
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

    /// Return path of a datagram for `peer`, besides the active route.
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
        let mut recent = self
            .recent
            .iter_mut()
            .filter(|handshake| handshake.peer == peer && handshake.expires_at > now);
        if let Some(known) =
            recent.find(|handshake| handshake.dialer_cid == to || handshake.later_cid == Some(to))
        {
            return Some(ReturnPath { route: known.route, also_active_route: both });
        }
        if both || self.other_cids.contains(&(peer, to)) {
            return None;
        }
        let mut recent = self.recent.iter_mut().rev();
        let fresh = recent.find(|handshake| {
            handshake.peer == peer && handshake.expires_at > now && handshake.later_cid.is_none()
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

/// Source connection id of a dialer's first flight; `None` for other datagrams.
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
        let (mut paths, now) = (HandshakeReturnPaths::default(), Instant::now());
        paths.on_peer_datagram(PEER, ROUTE, &long(&[1; 20], &DIALER), now);
        paths.on_peer_datagram(PEER, RouteId(8), &long(&[1; 20], &DIALER), now);
        let short = [&[0x40][..], &DIALER, b"rest"].concat();
        let mut answer = |packet: &[u8], now| paths.return_path_for(PEER, packet, now);
        let (both, one) = (
            ReturnPath { route: ROUTE, also_active_route: true },
            ReturnPath { route: ROUTE, also_active_route: false },
        );
        assert_eq!(answer(&long(&DIALER, &[2; 8]), now), Some(both));
        assert_eq!(answer(&short, now), Some(one));
        assert_eq!(answer(&short, now + RETURN_PATH_LIFETIME), None);
        assert_eq!(paths.return_path_for(PeerId(4), &short, now), None);
    }

    #[test]
    fn a_new_id_soon_after_a_handshake_began_is_that_handshakes() {
        let (mut paths, now) = (HandshakeReturnPaths::default(), Instant::now());
        let [old, new, third] = [1, 2, 3].map(|byte| [0x40 | byte; 30]);
        assert_eq!(paths.return_path_for(PEER, &old, now), None);
        paths.on_peer_datagram(PEER, ROUTE, &long(&[1; 20], &DIALER), now);
        assert_eq!(paths.return_path_for(PEER, &old, now), None, "used before");
        let one = Some(ReturnPath { route: ROUTE, also_active_route: false });
        assert_eq!(paths.return_path_for(PEER, &new, now), one);
        assert_eq!(paths.return_path_for(PEER, &third, now), None, "it has its id");
        assert_eq!(paths.return_path_for(PEER, &new, now), one);
        assert_eq!(paths.return_path_for(PEER, &new, now + RETURN_PATH_LIFETIME), None);
    }

    #[test]
    fn what_an_acceptor_sends_and_what_is_damaged_tells_nothing() {
        let (mut paths, now) = (HandshakeReturnPaths::default(), Instant::now());
        let whole = long(&[1; 20], &DIALER);
        paths.on_peer_datagram(PEER, ROUTE, &long(&[1; 8], &DIALER), now);
        for end in 0..whole.len() {
            paths.on_peer_datagram(PEER, ROUTE, &whole[..end], now);
            paths.return_path_for(PEER, &whole[..end], now);
        }
        assert!(paths.recent.is_empty());
    }

    #[test]
    fn many_handshakes_push_the_oldest_out() {
        let (mut paths, now) = (HandshakeReturnPaths::default(), Instant::now());
        for number in 0..2 * MAX_TRACKED_HANDSHAKES as u64 {
            paths.on_peer_datagram(PEER, ROUTE, &long(&[1; 20], &number.to_be_bytes()), now);
        }
        assert_eq!(paths.recent.len(), MAX_TRACKED_HANDSHAKES);
        let last = [&[0x40][..], &(2 * MAX_TRACKED_HANDSHAKES as u64 - 1).to_be_bytes()].concat();
        assert!(paths.return_path_for(PEER, &last, now).is_some());
    }
}
