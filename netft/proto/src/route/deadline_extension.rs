//! Extensions of the detection deadline: a new timing, a stall of the peer, unread datagrams. Pure.

use std::time::Duration;

use crate::{
    route::{liveness::Liveness, params::Timing},
    time::Time,
};

impl Liveness {
    /// Excuses a scheduling stall of the peer, reported by the heartbeat about to be counted:
    /// heartbeats it did not send meanwhile were not lost (reliability F-20). Returns the length of
    /// the silence if the stall explains it. The report is repeated for a second, so only a silence
    /// that spans the stall counts.
    pub(crate) fn excuse_peer_stall(
        &mut self,
        now: Time,
        stalled: Duration,
        delay: Duration,
    ) -> Option<Duration> {
        let last = self.last_heard?;
        let silence = now.since(last);
        if silence + delay * 2 < stalled {
            return None;
        }
        self.last_heard = Some((last + stalled).min(now));
        Some(silence)
    }

    /// Adapts the deadlines to a new timing. A shorter detection time starts with the change:
    /// heartbeats sent at the old interval were in time (RFC 5880 section 6.8.3 has the same rule).
    pub(crate) fn on_timing_changed(&mut self, now: Time, timing: Timing) {
        let (Some(heard), Some(deadline)) = (self.last_heard, self.deadline) else { return };
        let warned = self.early_warning_at.is_none();
        let longer = heard + timing.detection_time() >= deadline;
        self.arm_deadlines(if longer { heard } else { now }, timing);
        if !longer {
            self.deadline = self.deadline.min(Some(deadline));
        }
        if warned {
            self.early_warning_at = None;
        }
    }

    /// Extends the deadline by one delay, up to one more detection time in total: unread datagrams
    /// wait in a socket of the route, so its reader was not scheduled (F-20).
    pub(crate) fn extend_for_unread(&mut self, now: Time, timing: Timing) {
        let (Some(heard), Some(deadline)) = (self.last_heard, self.deadline) else { return };
        let latest = heard + timing.detection_time() * 2;
        self.deadline = Some(deadline.max((now + timing.delay.as_duration()).min(latest)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::route::params::{Delay, RouteClass, Threshold};

    const ORIGIN: Time = Time::from_millis(1000);
    const TIMING: Timing = RouteClass::SameSubnet.default_timing();

    fn timing(delay: u64, threshold: u64) -> Timing {
        Timing {
            delay: Delay::from_millis(delay).unwrap(),
            threshold: Threshold::new(threshold).unwrap(),
        }
    }

    fn heard_once() -> Liveness {
        let mut liveness = Liveness::new();
        assert!(liveness.on_heartbeat(ORIGIN, 1, TIMING, false), "a new route needs one");
        liveness
    }

    #[test]
    fn a_longer_detection_time_counts_from_the_last_heartbeat_and_a_shorter_one_from_the_change() {
        let mut liveness = heard_once();
        let now = ORIGIN + Duration::from_millis(100);
        liveness.on_timing_changed(now, timing(100, 5));
        assert_eq!(liveness.deadline, Some(ORIGIN + Duration::from_millis(500)));
        liveness.on_timing_changed(now, timing(30, 5));
        assert_eq!(liveness.deadline, Some(now + Duration::from_millis(150)));
        // Never later than it was.
        liveness.on_timing_changed(now + Duration::from_millis(50), timing(20, 6));
        assert_eq!(liveness.deadline, Some(now + Duration::from_millis(150)));
    }

    #[test]
    fn a_new_timing_does_not_warn_again() {
        let mut liveness = heard_once();
        assert!(liveness.take_due_warning(ORIGIN + TIMING.detection_time()));
        liveness.on_timing_changed(ORIGIN, timing(100, 5));
        assert_eq!(liveness.early_warning_at, None);
        liveness.on_heartbeat(ORIGIN, 2, timing(100, 5), false);
        assert_eq!(liveness.early_warning_at, Some(ORIGIN + Duration::from_millis(200)));
    }

    #[test]
    fn a_stall_is_excused_only_if_the_silence_spans_it() {
        let (delay, stalled) = (TIMING.delay.as_duration(), Duration::from_millis(500));
        let mut liveness = heard_once();
        let short = ORIGIN + (stalled - delay * 2 - Duration::from_millis(1));
        assert_eq!(liveness.excuse_peer_stall(short, stalled, delay), None);
        let end = ORIGIN + stalled + delay;
        assert_eq!(liveness.excuse_peer_stall(end, stalled, delay), Some(stalled + delay));
        assert_eq!(liveness.last_heard, Some(ORIGIN + stalled));
    }

    #[test]
    fn unread_datagrams_extend_the_deadline_by_one_detection_time_at_most() {
        let mut liveness = heard_once();
        let deadline = liveness.deadline.unwrap();
        liveness.extend_for_unread(deadline, TIMING);
        assert_eq!(liveness.deadline, Some(deadline + TIMING.delay.as_duration()));
        liveness.extend_for_unread(deadline + TIMING.detection_time(), TIMING);
        assert_eq!(liveness.deadline, Some(ORIGIN + TIMING.detection_time() * 2));
    }

    #[test]
    fn the_extremes_of_timing_and_time_do_not_overflow() {
        for (timing, start) in [
            (timing(5, 2), ORIGIN),
            (timing(60_000, 120), ORIGIN),
            (timing(60_000, 120), Time::from_nanos(u64::MAX - 1)),
        ] {
            let mut liveness = Liveness::new();
            liveness.on_timing_changed(start, timing);
            liveness.on_heartbeat(start, 1, timing, false);
            assert!(liveness.deadline.unwrap() >= start);
            liveness.on_heartbeat(start + Duration::from_secs(40_000), 2, timing, false);
            liveness.on_detection_timeout(timing);
            assert!(liveness.missed >= u64::from(timing.threshold.get()));
        }
    }
}
