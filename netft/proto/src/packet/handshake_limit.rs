//! Rate limit of QUIC handshake packets, per route. Pure: the caller passes the time.
//!
//! Anyone can forge a valid Initial with a peer's source address: its keys follow from its bytes
//! (RFC 9001 section 5.2). Each costs QUIC tens of microseconds, a netft frame costs less than one.
//! So packets with a long header are limited before they are copied. Established connections send
//! short headers (RFC 9000 section 17.3) and are not limited.
//!
//! First flights have a limit of their own, so that a flood of them does not stop a handshake that
//! this node began: its packets carry a connection id that this node issued, and a keyed hash tells
//! (the caller checks it). New dials of the peer on that route are delayed; sessions that stand are
//! not touched.

use std::time::Duration;

use crate::{ids::RouteId, packet::token_bucket::TokenBucket, time::Time};

/// Time of one packet: handshakes take about ten.
const PACKET_INTERVAL: Duration = Duration::from_millis(5);
/// Packets at once: several handshakes that begin together.
const PACKET_BURST: u64 = 64;
/// Tracked limits. Beyond, all are forgotten, and each route gets a fresh burst.
const MAX_TRACKED: usize = 1024;
/// Long header bit in the first byte (RFC 8999 section 5.1).
const LONG_HEADER_BIT: u8 = 0x80;

/// The route of a packet, and whether it is of a first flight.
type LimitKey = (Option<RouteId>, bool);

/// The limits of one worker.
#[derive(Debug, Default)]
pub struct HandshakeLimiter(Vec<(LimitKey, TokenBucket)>);

impl HandshakeLimiter {
    /// Returns whether a QUIC packet has a long header, so that it needs
    /// [`try_take`](Self::try_take).
    #[inline]
    pub fn is_limited(packet: &[u8]) -> bool {
        packet.first().is_some_and(|first| first & LONG_HEADER_BIT != 0)
    }

    /// Takes a packet that arrived on `route`; `None`: from a source of no route, which share one
    /// limit. `first_flight`: this node did not issue its connection id. Returns whether it is
    /// within the limit.
    pub fn try_take(&mut self, route: Option<RouteId>, first_flight: bool, now: Time) -> bool {
        let key = (route, first_flight);
        let place = self.0.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            if self.0.len() == MAX_TRACKED {
                self.0.clear();
            }
            self.0.push((key, TokenBucket::with_interval(PACKET_INTERVAL, PACKET_BURST)));
            self.0.len() - 1
        });
        self.0[place].1.try_take(now, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_and_kind_of_flight_has_a_limit_of_its_own() {
        let mut limiter = HandshakeLimiter::default();
        let start = Time::from_millis(1000);
        let mut taken = |route, first_flight, now| {
            (0..1000).filter(|_| limiter.try_take(route, first_flight, now)).count()
        };
        for route in [Some(RouteId(1)), Some(RouteId(2)), None] {
            for first_flight in [true, false] {
                assert_eq!(taken(route, first_flight, start), 64);
            }
        }
        assert_eq!(taken(None, true, start + Duration::from_millis(50)), 10);
        assert!(HandshakeLimiter::is_limited(&[0xc0]));
        assert!(!HandshakeLimiter::is_limited(&[0x40; 30]) && !HandshakeLimiter::is_limited(&[]));
    }

    #[test]
    fn memory_is_bounded() {
        let mut limiter = HandshakeLimiter::default();
        for route in 0..5000 {
            assert!(limiter.try_take(Some(RouteId(route)), true, Time::ZERO));
            assert!(limiter.0.len() <= MAX_TRACKED);
        }
    }
}
