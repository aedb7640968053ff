//! Liveness of one route: receipt of the peer's heartbeats, and the deadline that ends it. Pure.
//!
//! As in BFD (RFC 5880 section 6.8.4) receipt ends when no heartbeat arrives for one detection
//! time, delay × threshold. A route that was lost recovers with the second heartbeat.

use crate::{
    route::{params::Timing, state::Reason},
    time::Time,
};

/// Heartbeats that a lost route must receive before it counts as received again (the pong_count of
/// kronosnet): a single late packet of a failed path proves nothing.
const HEARTBEATS_TO_RECOVER: u8 = 2;

/// Receipt of the peer's heartbeats on one route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    /// Heartbeats arrive within the detection time.
    pub(crate) rx: bool,
    pub(crate) last_heard: Option<Time>,
    /// When receipt ends unless another heartbeat arrives.
    pub(crate) deadline: Option<Time>,
    /// When the early warning is due; `None` once it was given.
    pub(crate) early_warning_at: Option<Time>,
    pub(crate) consecutive_heard: u8,
    /// Serial of the last heartbeat: a duplicate of it proves nothing more.
    last_serial: Option<u32>,
    pub(crate) was_lost: bool,
    /// Why receipt ended, or never began.
    pub(crate) loss_reason: Reason,
    /// Heartbeats missed since the route was added.
    pub(crate) missed: u64,
}

impl Liveness {
    pub(crate) fn new() -> Self {
        Self {
            rx: false,
            last_heard: None,
            deadline: None,
            early_warning_at: None,
            consecutive_heard: 0,
            last_serial: None,
            was_lost: false,
            loss_reason: Reason::Added,
            missed: 0,
        }
    }

    /// Counts a heartbeat received at `now`. Returns whether receipt began with it, which a local
    /// fault (`has_fault`) prevents.
    pub(crate) fn on_heartbeat(
        &mut self,
        now: Time,
        serial: u32,
        timing: Timing,
        has_fault: bool,
    ) -> bool {
        let gap = self.last_heard.map(|last| now.since(last));
        let delay = timing.delay.as_duration();
        if let Some(gap) = gap.filter(|gap| self.rx && *gap >= delay * 2) {
            // The heartbeat that ended the gap was not missed.
            self.missed += (gap.as_nanos() / delay.as_nanos()) as u64 - 1;
        }
        let recent = gap.is_some_and(|gap| gap < timing.detection_time());
        let duplicate = self.last_serial.replace(serial) == Some(serial);
        self.consecutive_heard = match (recent, duplicate) {
            (true, true) => self.consecutive_heard.max(1),
            (true, false) => self.consecutive_heard.saturating_add(1),
            (false, _) => 1,
        };
        self.last_heard = Some(now);
        let needed = if self.was_lost { HEARTBEATS_TO_RECOVER } else { 1 };
        let begins = !self.rx && self.consecutive_heard >= needed && !has_fault;
        self.rx |= begins;
        if self.rx {
            // An extension granted beyond the last heartbeat stays granted.
            let granted = [self.deadline, self.early_warning_at].map(|at| at.filter(|_| !begins));
            self.arm_deadlines(now, timing);
            self.deadline = self.deadline.max(granted[0]);
            self.early_warning_at = self.early_warning_at.max(granted[1]);
        }
        begins
    }

    /// Sets deadline and early warning for a heartbeat received at `since`.
    pub(crate) fn arm_deadlines(&mut self, since: Time, timing: Timing) {
        let warning = timing.delay.as_duration() * u32::from(timing.early_warning_misses());
        self.deadline = Some(since + timing.detection_time());
        self.early_warning_at = Some(since + warning);
    }

    /// Ends receipt: the detection time passed without a heartbeat.
    pub(crate) fn on_detection_timeout(&mut self, timing: Timing) {
        self.missed += u64::from(timing.threshold.get());
        self.end_rx(Reason::HeartbeatsMissed);
    }

    /// Ends receipt for `reason`.
    pub(crate) fn end_rx(&mut self, reason: Reason) {
        self.was_lost |= self.rx;
        self.rx = false;
        self.consecutive_heard = 0;
        self.deadline = None;
        self.early_warning_at = None;
        self.loss_reason = reason;
    }

    /// Ends receipt with its session; the next session starts without a loss.
    pub(crate) fn reset_session(&mut self, reason: Reason) {
        self.end_rx(reason);
        self.was_lost = false;
    }

    /// Returns whether the early warning is due, once per silence.
    pub(crate) fn take_due_warning(&mut self, now: Time) -> bool {
        self.early_warning_at.take_if(|warning| *warning <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::params::RouteClass;

    const ORIGIN: Time = Time::from_millis(1000);
    const TIMING: Timing = RouteClass::SameSubnet.default_timing();

    fn heard_once() -> Liveness {
        let mut liveness = Liveness::new();
        assert!(liveness.on_heartbeat(ORIGIN, 1, TIMING, false), "a new route needs one");
        liveness
    }

    #[test]
    fn a_lost_route_is_heard_twice_and_a_copy_does_not_count() {
        let mut liveness = heard_once();
        liveness.on_detection_timeout(TIMING);
        let mut hear = |at, serial| liveness.on_heartbeat(at, serial, TIMING, false);
        assert!(!hear(ORIGIN, 2));
        assert!(!hear(ORIGIN, 2), "a copy");
        let late = ORIGIN + TIMING.detection_time();
        assert!(!hear(late, 3), "a detection time later it is the first again");
        assert!(hear(late, 4));
        liveness.reset_session(Reason::NewSession);
        assert!(liveness.on_heartbeat(late, 5, TIMING, false), "a session begins afresh");
    }

    #[test]
    fn a_fault_prevents_receipt() {
        let mut liveness = Liveness::new();
        assert!(!liveness.on_heartbeat(ORIGIN, 1, TIMING, true));
        assert_eq!((liveness.rx, liveness.deadline), (false, None));
        assert!(liveness.on_heartbeat(ORIGIN, 2, TIMING, false));
    }
}
