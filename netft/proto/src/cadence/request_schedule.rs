//! When the heartbeat requests of one route are due. Pure.

use std::time::Duration;

use crate::{cadence::alternation::RequestAlternation, time::Time};

/// Requests of one route.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestSchedule {
    /// When the next one is due; `None` while this node may not send.
    pub(crate) next: Option<Time>,
    /// When the last one left.
    last: Option<Time>,
    pub(crate) alternation: RequestAlternation,
    /// Requests sent since the route was added.
    pub(crate) sent: u64,
    /// Since when they are sent.
    tried_since: Option<Time>,
    /// The next one waits because the peer was never heard.
    backs_off: bool,
}

/// The longest time between two requests to a peer that was never heard on the route.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A peer that was never heard is asked every eighth of the time since the first request: soon
/// enough to come up a second after what was missing returns within eight, and 66 requests in the
/// eight minutes until [`MAX_BACKOFF`].
const BACKOFF_DIVISOR: u32 = 8;

impl RequestSchedule {
    /// Begins to send, or begins anew, at full rate.
    pub(crate) fn start(&mut self, now: Time) {
        (self.next, self.tried_since, self.backs_off) = (Some(now), Some(now), false);
    }

    /// Sends again after an interruption that says nothing about the peer.
    pub(crate) fn resume(&mut self, now: Time) {
        let pause = self.backoff(now).filter(|_| self.backs_off).unwrap_or_default();
        let due = self.last.map_or(now, |last| last + pause).max(now);
        self.tried_since.get_or_insert(now);
        self.next = Some(due);
    }

    /// Sends nothing until it is resumed or started again.
    pub(crate) fn pause(&mut self) {
        self.next = None;
    }

    /// Sends nothing until it is started again.
    pub(crate) fn stop(&mut self) {
        (self.next, self.tried_since, self.backs_off) = (None, None, false);
    }

    /// Since when requests are sent.
    pub(crate) fn tried_since(&self) -> Option<Time> {
        self.tried_since
    }

    /// The next request waits because the peer was never heard.
    pub(crate) fn backs_off(&self) -> bool {
        self.backs_off
    }

    /// The time between two requests while the peer was never heard.
    pub(crate) fn backoff(&self, now: Time) -> Option<Duration> {
        self.tried_since.map(|since| (now.since(since) / BACKOFF_DIVISOR).min(MAX_BACKOFF))
    }

    /// Notes whether the next request waits.
    pub(crate) fn set_backs_off(&mut self, backs_off: bool) {
        self.backs_off = backs_off;
    }

    /// Sends at `at` at the latest, whichever end's turn it is.
    pub(crate) fn request_by(&mut self, at: Time) {
        self.next = self.next.map(|planned| planned.min(at));
        self.alternation.force_next_request();
    }

    /// Sends as soon as the rate limit of four requests per delay permits; not to a peer that was
    /// never heard on the route: it has no use for news there.
    pub(crate) fn request_soon(&mut self, now: Time, delay: Duration) {
        if self.backs_off {
            return;
        }
        let soonest = self.last.map_or(now, |last| last + delay / 4);
        self.request_by(soonest.max(now));
    }

    /// Returns whether the request may leave now, before it is due, together with that of another
    /// route.
    pub(crate) fn can_request_early(&self, now: Time, delay: Duration) -> bool {
        let soonest = self.last.map(|last| RequestAlternation::earliest_request(last, delay));
        self.alternation.is_peers_turn() && soonest.is_some_and(|soonest| soonest <= now)
    }

    /// Returns to one request per delay unless the route is `undisturbed`.
    pub(crate) fn enforce_cadence(&mut self, now: Time, delay: Duration, undisturbed: bool) {
        if !undisturbed {
            self.alternation.reset_steady();
        }
        if self.alternation.take_back_turn() {
            let latest = self.last.map_or(now, |last| last + delay).max(now);
            self.next = self.next.map(|planned| planned.min(latest));
        }
    }

    /// Counts a request that leaves at `now`; the next one is due at `next`.
    pub(crate) fn on_request_sent(&mut self, now: Time, next: Time) {
        (self.next, self.last) = (Some(next), Some(now));
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn an_urgent_request_respects_the_rate_limit() {
        let mut schedule = RequestSchedule::default();
        schedule.request_soon(at(5), DELAY);
        assert_eq!(schedule.next, None, "a route that may not send has nothing to advance");
        schedule.on_request_sent(at(1000), at(1090));
        schedule.request_soon(at(1010), DELAY);
        assert_eq!((schedule.next, schedule.sent), (Some(at(1025)), 1));
        schedule.request_by(at(1030));
        assert_eq!(schedule.next, Some(at(1025)), "never later");
    }

    #[test]
    fn a_request_leaves_early_only_in_the_peers_turn() {
        let mut schedule = RequestSchedule::default();
        schedule.on_request_sent(at(1000), at(1090));
        assert!(!schedule.can_request_early(at(1080), DELAY));
    }
}
