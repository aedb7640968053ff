//! Alternation of heartbeat requests between the two ends of a route. Pure.
//!
//! A request and its reply prove both directions to both ends. While a route is steady the ends
//! send requests alternately, so one heartbeat goes each way per delay instead of two, and each end
//! wakes up every other delay. Both ends send requests, because only the sender measures the
//! round-trip time. A request that is not sent in one end's turn is sent by the other end in its
//! own, so one lost heartbeat is a silence of less than two delays. On any disturbance both ends
//! return to one request per delay.

use std::{ops::RangeInclusive, time::Duration};

use crate::time::Time;

/// Heartbeats in a row that have to arrive in time before the ends alternate.
const MIN_STEADY_HEARTBEATS: u8 = 32;
/// Offset of one end's request from the other's, percent of the delay.
const TURN_OFFSET_PERCENT: u32 = 90;
/// Jitter around the offset, percent of the delay.
const TURN_JITTER_PERCENT: u32 = 8;
/// The longest time between two requests of one end, percent of the delay.
const MAX_INTERVAL_PERCENT: u32 = 190;
/// The shortest; without alternation requests leave after this to 100 percent of the delay.
const MIN_INTERVAL_PERCENT: u32 = 75;

/// Alternation state of one end of a route.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestAlternation {
    /// Heartbeats in a row that arrived in time.
    steady_heartbeats: u8,
    /// The peer's last request since the last of this end.
    peer_requested_at: Option<Time>,
    /// The next request must not be deferred.
    forced: bool,
    /// The next request is the peer's.
    yielded: bool,
    /// The peer's request arrived late, and this end's was deferred for it.
    deferred: bool,
}

impl RequestAlternation {
    /// Counts a heartbeat that arrived `gap` after the one before.
    pub(crate) fn on_heartbeat(&mut self, gap: Option<Duration>, delay: Duration) {
        let in_time = gap.is_some_and(|gap| gap * 2 <= delay * 3);
        self.steady_heartbeats = if in_time { self.steady_heartbeats.saturating_add(1) } else { 0 };
    }

    /// Notes a request of the peer.
    pub(crate) fn on_peer_request(&mut self, at: Time) {
        self.peer_requested_at = self.peer_requested_at.max(Some(at));
    }

    /// Ends the steady state after a disturbance.
    pub(crate) fn reset_steady(&mut self) {
        self.steady_heartbeats = 0;
    }

    /// Exempts the next request from alternation.
    pub(crate) fn force_next_request(&mut self) {
        self.forced = true;
    }

    /// Returns whether the next request is the peer's.
    pub(crate) fn is_peers_turn(&self) -> bool {
        self.yielded && !self.forced
    }

    /// Takes the turn back if the route stopped being steady. Returns whether this end is to send
    /// within the delay.
    pub(crate) fn take_back_turn(&mut self) -> bool {
        self.yielded
            && self.steady_heartbeats < MIN_STEADY_HEARTBEATS
            && std::mem::take(&mut self.yielded)
    }

    /// The window to defer a due request to, if the peer's request arrived just before: once, so
    /// that a peer that always sends first still receives requests.
    pub(crate) fn defer_request(
        &mut self,
        now: Time,
        delay: Duration,
    ) -> Option<RangeInclusive<Time>> {
        let peer_sent =
            self.peer_requested_at.filter(|_| self.is_peers_turn() && !self.deferred)?;
        if now.since(peer_sent) * 100 >= delay * (TURN_OFFSET_PERCENT - 2 * TURN_JITTER_PERCENT) {
            return None;
        }
        self.deferred = true;
        Some(window_around(peer_sent, delay, TURN_OFFSET_PERCENT))
    }

    /// Counts a request sent at `now`; returns the window of the next one. `may_alternate`: the
    /// route permits alternation.
    pub(crate) fn on_request_sent(
        &mut self,
        now: Time,
        delay: Duration,
        may_alternate: bool,
    ) -> RangeInclusive<Time> {
        let peer_sent = self.peer_requested_at.take();
        if self.yielded && peer_sent.is_none() {
            self.reset_steady();
        }
        let gap =
            peer_sent.map_or(TURN_OFFSET_PERCENT, |at| percent_of_delay(now.since(at), delay));
        // Both ends sent at about the same time: this one shifts by half before it alternates.
        self.yielded = may_alternate
            && !self.forced
            && self.steady_heartbeats >= MIN_STEADY_HEARTBEATS
            && gap >= TURN_OFFSET_PERCENT / 2;
        (self.forced, self.deferred) = (false, false);
        if !self.yielded {
            return now + delay * MIN_INTERVAL_PERCENT / 100..=now + delay;
        }
        // Half of the deviation is corrected here, the rest by the other end.
        let next = (5 * TURN_OFFSET_PERCENT).saturating_sub(gap) / 2;
        window_around(
            now,
            delay,
            next.clamp(
                2 * TURN_OFFSET_PERCENT - 3 * TURN_JITTER_PERCENT,
                MAX_INTERVAL_PERCENT - TURN_JITTER_PERCENT,
            ),
        )
    }

    /// The earliest time of the request after one at `last`.
    pub(crate) fn earliest_request(last: Time, delay: Duration) -> Time {
        last + delay * MIN_INTERVAL_PERCENT / 100
    }
}

fn window_around(from: Time, delay: Duration, percent: u32) -> RangeInclusive<Time> {
    let at = |percent: u32| from + delay * percent / 100;
    at(percent - TURN_JITTER_PERCENT)..=at(percent + TURN_JITTER_PERCENT)
}

fn percent_of_delay(of: Duration, delay: Duration) -> u32 {
    u32::try_from(of.as_nanos() * 100 / delay.as_nanos().max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Time {
        Time::from_millis(1000 + ms)
    }

    fn steady() -> RequestAlternation {
        let mut alternation = RequestAlternation::default();
        (0..MIN_STEADY_HEARTBEATS).for_each(|_| alternation.on_heartbeat(Some(DELAY), DELAY));
        alternation
    }

    /// The window of the request after one at 0 ms, with the peer's `gap` ms before it.
    fn next(alternation: &mut RequestAlternation, gap: u64) -> (u64, u64) {
        let now = at(200);
        alternation.on_peer_request(at(200 - gap));
        let next = alternation.on_request_sent(now, DELAY, true);
        (next.start().since(now).as_millis() as u64, next.end().since(now).as_millis() as u64)
    }

    #[test]
    fn on_a_steady_route_an_end_sends_every_other_request_between_the_peers() {
        let mut alternation = steady();
        assert_eq!(next(&mut alternation, 90), (172, 188));
        assert!(alternation.is_peers_turn());
        assert_eq!(next(&mut alternation, 100), (167, 183), "late: sooner the next time");
        assert_eq!(next(&mut alternation, 80), (174, 190), "early: later, and never after 190 %");
        assert_eq!(
            next(&mut alternation, 10),
            (75, 100),
            "both at once: one sends again in between"
        );
        assert!(!alternation.is_peers_turn());
    }

    #[test]
    fn after_any_disturbance_both_ends_send_requests() {
        let late = Some(DELAY * 3 / 2 + Duration::from_nanos(1));
        let cases: [fn(&mut RequestAlternation, Option<Duration>); 4] = [
            |alternation, late| alternation.on_heartbeat(late, DELAY),
            |alternation, _| alternation.on_heartbeat(None, DELAY),
            |alternation, _| alternation.reset_steady(),
            |alternation, _| alternation.force_next_request(),
        ];
        for disturb in cases {
            let mut alternation = steady();
            disturb(&mut alternation, late);
            alternation.on_heartbeat(Some(DELAY), DELAY);
            assert_eq!(next(&mut alternation, 90), (75, 100));
        }
        let mut alternation = steady();
        alternation.force_next_request();
        next(&mut alternation, 90);
        assert_eq!(next(&mut alternation, 90), (172, 188), "the forced request left");
        alternation.reset_steady();
        assert!(alternation.take_back_turn() && !alternation.take_back_turn());
        let mut alternation = steady();
        let now = at(200);
        assert_eq!(
            alternation.on_request_sent(now, DELAY, false),
            at(275)..=at(300),
            "a route without alternation"
        );
    }

    #[test]
    fn a_peer_that_skips_its_turn_is_sent_a_request_every_delay() {
        let mut alternation = steady();
        next(&mut alternation, 90);
        let next = alternation.on_request_sent(at(380), DELAY, true);
        assert_eq!(next, at(455)..=at(480));
    }

    #[test]
    fn a_request_is_deferred_after_the_peers_own_but_only_once() {
        let mut alternation = steady();
        next(&mut alternation, 90);
        alternation.on_peer_request(at(380));
        assert_eq!(alternation.defer_request(at(390), DELAY), Some(at(462)..=at(478)));
        alternation.on_peer_request(at(460));
        assert_eq!(alternation.defer_request(at(470), DELAY), None);
    }
}
