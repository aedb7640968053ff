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
const STEADY: u8 = 32;
/// Where one end's request belongs between two of the other's, percent of the delay.
const MIDDLE: u32 = 90;
/// How far from there jitter may take it.
const SPREAD: u32 = 8;
/// The longest time between two requests of one end, percent of the delay.
const LONGEST: u32 = 190;
/// The shortest; also what both ends ask at when something is amiss, up to the whole delay.
const SHORTEST: u32 = 75;

/// What one end of a route keeps of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turns {
    /// Heartbeats in a row that came in time.
    steady: u8,
    /// When the peer asked last, since this end did.
    asked: Option<Time>,
    /// The next request has news, or is wanted for another reason.
    hurried: bool,
    /// The peer is to ask before this end does again.
    left: bool,
    /// The peer's request came late, and this end's was put off for it.
    put_off: bool,
}

impl Turns {
    /// A heartbeat came, `gap` after the one before.
    pub(crate) fn heard(&mut self, gap: Option<Duration>, delay: Duration) {
        let in_time = gap.is_some_and(|gap| gap * 2 <= delay * 3);
        self.steady = if in_time { self.steady.saturating_add(1) } else { 0 };
    }

    /// The peer asked.
    pub(crate) fn asked(&mut self, at: Time) {
        self.asked = self.asked.max(Some(at));
    }

    /// Something is amiss.
    pub(crate) fn upset(&mut self) {
        self.steady = 0;
    }

    /// The next request must not wait.
    pub(crate) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Whether this end has left it to the peer to ask next.
    pub(crate) fn waits(&self) -> bool {
        self.left && !self.hurried
    }

    /// Whether this end left it to the peer and should not have: it is to ask within the delay.
    pub(crate) fn regrets(&mut self) -> bool {
        self.left && self.steady < STEADY && std::mem::take(&mut self.left)
    }

    /// When to ask instead of `now`, if the peer has asked just before: once, so that a peer that
    /// asks all the time is asked, too.
    pub(crate) fn put_off(&mut self, now: Time, delay: Duration) -> Option<RangeInclusive<Time>> {
        let asked = self.asked.filter(|_| self.waits() && !self.put_off)?;
        if now.since(asked) * 100 >= delay * (MIDDLE - 2 * SPREAD) {
            return None;
        }
        self.put_off = true;
        Some(about(asked, delay, MIDDLE))
    }

    /// This end asks `now`; it asks again within what is returned. `may_leave`: the route is one
    /// on which the ends may take turns.
    pub(crate) fn ask(
        &mut self,
        now: Time,
        delay: Duration,
        may_leave: bool,
    ) -> RangeInclusive<Time> {
        let asked = self.asked.take();
        if self.left && asked.is_none() {
            self.upset();
        }
        let gap = asked.map_or(MIDDLE, |at| percent(now.since(at), delay));
        // Two that ask at the same time are no pair that asks in turn: this one waits for half.
        self.left = may_leave && !self.hurried && self.steady >= STEADY && gap >= MIDDLE / 2;
        (self.hurried, self.put_off) = (false, false);
        if !self.left {
            return now + delay * SHORTEST / 100..=now + delay;
        }
        // Half of what is missing to the middle: the other end mends the rest.
        let next = (5 * MIDDLE).saturating_sub(gap) / 2;
        about(now, delay, next.clamp(2 * MIDDLE - 3 * SPREAD, LONGEST - SPREAD))
    }

    /// When this end may ask at the earliest, having asked at `last`.
    pub(crate) fn soonest(last: Time, delay: Duration) -> Time {
        last + delay * SHORTEST / 100
    }
}

fn about(from: Time, delay: Duration, percent: u32) -> RangeInclusive<Time> {
    let at = |percent: u32| from + delay * percent / 100;
    at(percent - SPREAD)..=at(percent + SPREAD)
}

fn percent(of: Duration, delay: Duration) -> u32 {
    u32::try_from(of.as_nanos() * 100 / delay.as_nanos().max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Time {
        Time::from_millis(1000 + ms)
    }

    fn steady() -> Turns {
        let mut turns = Turns::default();
        (0..STEADY).for_each(|_| turns.heard(Some(DELAY), DELAY));
        turns
    }

    /// Where the request after one at 0 ms belongs, the peer having asked `gap` ms before it.
    fn next(turns: &mut Turns, gap: u64) -> (u64, u64) {
        let now = at(200);
        turns.asked(at(200 - gap));
        let next = turns.ask(now, DELAY, true);
        (next.start().since(now).as_millis() as u64, next.end().since(now).as_millis() as u64)
    }

    #[test]
    fn on_a_steady_route_an_end_asks_every_other_time_in_the_middle_of_the_peers() {
        let mut turns = steady();
        assert_eq!(next(&mut turns, 90), (172, 188));
        assert!(turns.waits());
        assert_eq!(next(&mut turns, 100), (167, 183), "late: sooner the next time");
        assert_eq!(next(&mut turns, 80), (174, 190), "early: later, and never after 190 %");
        assert_eq!(next(&mut turns, 10), (75, 100), "both at once: one asks again in between");
        assert!(!turns.waits());
    }

    #[test]
    fn whatever_is_amiss_both_ends_ask() {
        let late = Some(DELAY * 3 / 2 + Duration::from_nanos(1));
        let cases: [fn(&mut Turns, Option<Duration>); 4] = [
            |turns, late| turns.heard(late, DELAY),
            |turns, _| turns.heard(None, DELAY),
            |turns, _| turns.upset(),
            |turns, _| turns.hurry(),
        ];
        for amiss in cases {
            let mut turns = steady();
            amiss(&mut turns, late);
            turns.heard(Some(DELAY), DELAY);
            assert_eq!(next(&mut turns, 90), (75, 100));
        }
        let mut turns = steady();
        turns.hurry();
        next(&mut turns, 90);
        assert_eq!(next(&mut turns, 90), (172, 188), "the news is out");
        turns.upset();
        assert!(turns.regrets() && !turns.regrets());
        let mut turns = steady();
        let now = at(200);
        assert_eq!(turns.ask(now, DELAY, false), at(275)..=at(300), "a route without turns");
    }

    #[test]
    fn a_peer_that_does_not_ask_in_its_turn_is_asked_every_delay() {
        let mut turns = steady();
        next(&mut turns, 90);
        let next = turns.ask(at(380), DELAY, true);
        assert_eq!(next, at(455)..=at(480));
    }

    #[test]
    fn a_peer_that_asked_just_before_is_asked_later_but_not_for_ever() {
        let mut turns = steady();
        next(&mut turns, 90);
        turns.asked(at(380));
        assert_eq!(turns.put_off(at(390), DELAY), Some(at(462)..=at(478)));
        turns.asked(at(460));
        assert_eq!(turns.put_off(at(470), DELAY), None);
    }
}
