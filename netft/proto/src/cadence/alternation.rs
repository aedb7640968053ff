//! Whose turn it is to ask. Pure.
//!
//! A request and its reply prove both directions to both ends: each hears the other. While a route
//! is steady the ends ask in turn, so a heartbeat goes each way once per delay and not twice, at
//! half the cost, and an end wakes up every other delay. Both ask, because only who asks learns
//! the round trip. What is not asked in one's own turn is the other's to ask in its own, so one
//! lost heartbeat is a silence of less than two delays; and whatever is amiss, both ask every
//! delay.

use std::{ops::RangeInclusive, time::Duration};

use crate::time::Time;

/// Heartbeats in a row that have to arrive in time before one end may leave it to the other.
const MIN_STEADY_HEARTBEATS: u8 = 32;
/// Where one end's request belongs between two of the other's, percent of the delay.
const TURN_OFFSET_PERCENT: u32 = 90;
/// How far from there jitter may take it.
const TURN_JITTER_PERCENT: u32 = 8;
/// The longest time between two requests of one end, percent of the delay.
const MAX_INTERVAL_PERCENT: u32 = 190;
/// The shortest; also what both ends ask at when something is amiss, up to the whole delay.
const MIN_INTERVAL_PERCENT: u32 = 75;

/// What one end of a route keeps of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestAlternation {
    /// Heartbeats in a row that came in time.
    steady_heartbeats: u8,
    /// When the peer asked last, since this end did.
    peer_requested_at: Option<Time>,
    /// The next request has news, or is wanted for another reason.
    forced: bool,
    /// The peer is to ask before this end does again.
    yielded: bool,
    /// The peer's request came late, and this end's was put off for it.
    deferred: bool,
}

impl RequestAlternation {
    /// A heartbeat came, `gap` after the one before.
    pub(crate) fn on_heartbeat(&mut self, gap: Option<Duration>, delay: Duration) {
        let in_time = gap.is_some_and(|gap| gap * 2 <= delay * 3);
        self.steady_heartbeats = if in_time { self.steady_heartbeats.saturating_add(1) } else { 0 };
    }

    /// The peer asked.
    pub(crate) fn on_peer_request(&mut self, at: Time) {
        self.peer_requested_at = self.peer_requested_at.max(Some(at));
    }

    /// Something is amiss.
    pub(crate) fn reset_steady(&mut self) {
        self.steady_heartbeats = 0;
    }

    /// The next request must not wait.
    pub(crate) fn force_next_request(&mut self) {
        self.forced = true;
    }

    /// Whether this end has left it to the peer to ask next.
    pub(crate) fn is_peers_turn(&self) -> bool {
        self.yielded && !self.forced
    }

    /// Whether this end left it to the peer and should not have: it is to ask within the delay.
    pub(crate) fn take_back_turn(&mut self) -> bool {
        self.yielded
            && self.steady_heartbeats < MIN_STEADY_HEARTBEATS
            && std::mem::take(&mut self.yielded)
    }

    /// When to ask instead of `now`, if the peer has asked just before: once, so that a peer that
    /// asks all the time is asked, too.
    pub(crate) fn defer_request(
        &mut self,
        now: Time,
        delay: Duration,
    ) -> Option<RangeInclusive<Time>> {
        let asked = self.peer_requested_at.filter(|_| self.is_peers_turn() && !self.deferred)?;
        if now.since(asked) * 100 >= delay * (TURN_OFFSET_PERCENT - 2 * TURN_JITTER_PERCENT) {
            return None;
        }
        self.deferred = true;
        Some(window_around(asked, delay, TURN_OFFSET_PERCENT))
    }

    /// This end asks `now`; it asks again within what is returned. `may_leave`: the route is one
    /// on which the ends may take turns.
    pub(crate) fn on_request_sent(
        &mut self,
        now: Time,
        delay: Duration,
        may_leave: bool,
    ) -> RangeInclusive<Time> {
        let asked = self.peer_requested_at.take();
        if self.yielded && asked.is_none() {
            self.reset_steady();
        }
        let gap = asked.map_or(TURN_OFFSET_PERCENT, |at| percent_of_delay(now.since(at), delay));
        // Two that ask at the same time are no pair that asks in turn: this one waits for half.
        self.yielded = may_leave
            && !self.forced
            && self.steady_heartbeats >= MIN_STEADY_HEARTBEATS
            && gap >= TURN_OFFSET_PERCENT / 2;
        (self.forced, self.deferred) = (false, false);
        if !self.yielded {
            return now + delay * MIN_INTERVAL_PERCENT / 100..=now + delay;
        }
        // Half of what is missing to the middle: the other end mends the rest.
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

    /// When this end may ask at the earliest, having asked at `last`.
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
        let mut turns = RequestAlternation::default();
        (0..MIN_STEADY_HEARTBEATS).for_each(|_| turns.on_heartbeat(Some(DELAY), DELAY));
        turns
    }

    /// Where the request after one at 0 ms belongs, the peer having asked `gap` ms before it.
    fn next(turns: &mut RequestAlternation, gap: u64) -> (u64, u64) {
        let now = at(200);
        turns.on_peer_request(at(200 - gap));
        let next = turns.on_request_sent(now, DELAY, true);
        (next.start().since(now).as_millis() as u64, next.end().since(now).as_millis() as u64)
    }

    #[test]
    fn on_a_steady_route_an_end_asks_every_other_time_in_the_middle_of_the_peers() {
        let mut turns = steady();
        assert_eq!(next(&mut turns, 90), (172, 188));
        assert!(turns.is_peers_turn());
        assert_eq!(next(&mut turns, 100), (167, 183), "late: sooner the next time");
        assert_eq!(next(&mut turns, 80), (174, 190), "early: later, and never after 190 %");
        assert_eq!(next(&mut turns, 10), (75, 100), "both at once: one asks again in between");
        assert!(!turns.is_peers_turn());
    }

    #[test]
    fn whatever_is_amiss_both_ends_ask() {
        let late = Some(DELAY * 3 / 2 + Duration::from_nanos(1));
        let cases: [fn(&mut RequestAlternation, Option<Duration>); 4] = [
            |turns, late| turns.on_heartbeat(late, DELAY),
            |turns, _| turns.on_heartbeat(None, DELAY),
            |turns, _| turns.reset_steady(),
            |turns, _| turns.force_next_request(),
        ];
        for amiss in cases {
            let mut turns = steady();
            amiss(&mut turns, late);
            turns.on_heartbeat(Some(DELAY), DELAY);
            assert_eq!(next(&mut turns, 90), (75, 100));
        }
        let mut turns = steady();
        turns.force_next_request();
        next(&mut turns, 90);
        assert_eq!(next(&mut turns, 90), (172, 188), "the news is out");
        turns.reset_steady();
        assert!(turns.take_back_turn() && !turns.take_back_turn());
        let mut turns = steady();
        let now = at(200);
        assert_eq!(
            turns.on_request_sent(now, DELAY, false),
            at(275)..=at(300),
            "a route without turns"
        );
    }

    #[test]
    fn a_peer_that_does_not_ask_in_its_turn_is_asked_every_delay() {
        let mut turns = steady();
        next(&mut turns, 90);
        let next = turns.on_request_sent(at(380), DELAY, true);
        assert_eq!(next, at(455)..=at(480));
    }

    #[test]
    fn a_peer_that_asked_just_before_is_asked_later_but_not_for_ever() {
        let mut turns = steady();
        next(&mut turns, 90);
        turns.on_peer_request(at(380));
        assert_eq!(turns.defer_request(at(390), DELAY), Some(at(462)..=at(478)));
        turns.on_peer_request(at(460));
        assert_eq!(turns.defer_request(at(470), DELAY), None);
    }
}
