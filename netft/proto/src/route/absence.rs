//! Absence of a peer, in two thresholds. Data leaves a silent peer's routes after the detection
//! time and the peer is unreachable at once; that its node is gone is decided calmly, after a time
//! of the operator's choice (heartbeats over UDP are the first to be lost in an overloaded cloud).
//! Pure.

use std::time::Duration;

use crate::time::Time;

/// Default of `failover.gone`.
pub const DEFAULT_GONE_AFTER: Duration = Duration::from_secs(10);
/// Longest time between two looks that counts as silence of the peer: beyond it this node did not
/// run, and heard nobody.
const MAX_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long a peer has been silent on every route.
#[derive(Clone, Copy, Debug)]
pub struct PeerAbsence {
    looked_at: Time,
    silent_for: Duration,
    is_gone: bool,
}

impl PeerAbsence {
    /// A peer that is to be heard from `now` on.
    pub const fn new(now: Time) -> Self {
        Self { looked_at: now, silent_for: Duration::ZERO, is_gone: false }
    }

    /// The peer has been silent for longer than its time.
    pub const fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Looks at the peer. Returns true when it is gone from this moment on.
    pub fn look(&mut self, now: Time, heard: bool, gone_after: Duration) -> bool {
        let passed = now.since(self.looked_at).min(MAX_LOOK_INTERVAL);
        self.looked_at = now;
        if heard {
            (self.silent_for, self.is_gone) = (Duration::ZERO, false);
            return false;
        }
        self.silent_for = self.silent_for.saturating_add(passed);
        let was_gone = self.is_gone;
        self.is_gone = self.silent_for >= gone_after;
        self.is_gone && !was_gone
    }

    /// When to look next at a peer that is silent and not gone.
    pub fn next_look(&self, gone_after: Duration) -> Option<Time> {
        let left = gone_after.saturating_sub(self.silent_for);
        (!self.is_gone && self.silent_for > Duration::ZERO)
            .then(|| self.looked_at + left.clamp(Duration::from_millis(1), MAX_LOOK_INTERVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE_AFTER: Duration = Duration::from_secs(10);

    fn look_at(absence: &mut PeerAbsence, ms: u64, heard: bool) -> bool {
        absence.look(Time::from_millis(ms), heard, GONE_AFTER)
    }

    #[test]
    fn a_silent_peer_is_gone_after_its_time_once_and_back_at_once() {
        let mut absence = PeerAbsence::new(Time::ZERO);
        let mut gone = Vec::new();
        for ms in (100..60_000).step_by(100) {
            // Heard until 5 s, and for a moment at 12 s and at 40 s.
            let heard = ms <= 5000 || ms == 12_000 || ms == 40_000;
            if look_at(&mut absence, ms, heard) {
                gone.push(ms);
            }
            let expected = (22_000..40_000).contains(&ms) || ms >= 50_000;
            assert_eq!(absence.is_gone(), expected, "{ms}");
        }
        assert_eq!(gone, [22_000, 50_000]);
    }

    #[test]
    fn time_in_which_this_node_did_not_run_is_no_silence_of_the_peer() {
        let mut absence = PeerAbsence::new(Time::ZERO);
        look_at(&mut absence, 100, true);
        assert!(!look_at(&mut absence, 200, false));
        assert!(!look_at(&mut absence, 60_000, false));
        assert!(!absence.is_gone());
        let next = absence.next_look(GONE_AFTER).map(Time::as_millis);
        assert_eq!(next, Some(60_500));
    }

    #[test]
    fn looks_end_when_the_peer_is_gone() {
        let mut absence = PeerAbsence::new(Time::ZERO);
        let (mut now, mut looks) = (Time::from_millis(10), 0);
        while !absence.look(now, false, GONE_AFTER) {
            now = absence.next_look(GONE_AFTER).unwrap_or(now + Duration::from_millis(1));
            looks += 1;
        }
        assert!(looks <= 21, "{looks}");
        assert_eq!(absence.next_look(GONE_AFTER), None);
    }
}
