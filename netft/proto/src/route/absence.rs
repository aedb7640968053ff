//! Absence of a peer, in two thresholds. Data leaves a silent peer's routes after the detection
//! time and the peer is unreachable at once; that its node is gone is decided after a time of
//! the operator's choice (heartbeats over UDP are the first to be lost in an overloaded cloud).
//! Pure.

use std::time::Duration;

use crate::time::Time;

/// Default of `failover.gone`.
pub const DEFAULT_GONE_AFTER: Duration = Duration::from_secs(10);
/// Default of `failover.unreachable`: a neighbour that answers no ARP request is unreachable for
/// the kernel after 3 s too.
pub const DEFAULT_UNREACHABLE_AFTER: Duration = Duration::from_secs(3);
/// Longest time between two updates that counts as silence of the peer: beyond it this node was not
/// scheduled.
const MAX_UPDATE_INTERVAL: Duration = Duration::from_millis(500);

/// How long a peer has been silent on every route.
#[derive(Clone, Copy, Debug)]
pub struct PeerAbsence {
    updated_at: Time,
    silent_for: Duration,
    is_gone: bool,
}

impl PeerAbsence {
    /// A peer that is to be heard from `now` on.
    pub const fn new(now: Time) -> Self {
        Self { updated_at: now, silent_for: Duration::ZERO, is_gone: false }
    }

    /// The peer has been silent for longer than its time.
    pub const fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Adds the time since the last update. Returns true when the peer is gone from this moment on.
    pub fn update(&mut self, now: Time, heard: bool, gone_after: Duration) -> bool {
        let passed = now.since(self.updated_at).min(MAX_UPDATE_INTERVAL);
        self.updated_at = now;
        if heard {
            (self.silent_for, self.is_gone) = (Duration::ZERO, false);
            return false;
        }
        self.silent_for = self.silent_for.saturating_add(passed);
        let was_gone = self.is_gone;
        self.is_gone = self.silent_for >= gone_after;
        self.is_gone && !was_gone
    }

    /// When the next [`update`](Self::update) of a peer that is silent and not gone is due.
    pub fn next_update(&self, gone_after: Duration) -> Option<Time> {
        let left = gone_after.saturating_sub(self.silent_for);
        (!self.is_gone && self.silent_for > Duration::ZERO)
            .then(|| self.updated_at + left.clamp(Duration::from_millis(1), MAX_UPDATE_INTERVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE_AFTER: Duration = Duration::from_secs(10);

    fn update_at(absence: &mut PeerAbsence, ms: u64, heard: bool) -> bool {
        absence.update(Time::from_millis(ms), heard, GONE_AFTER)
    }

    #[test]
    fn a_silent_peer_is_gone_after_its_time_once_and_back_at_once() {
        let mut absence = PeerAbsence::new(Time::ZERO);
        let mut gone = Vec::new();
        for ms in (100..60_000).step_by(100) {
            // Heard until 5 s, and for a moment at 12 s and at 40 s.
            let heard = ms <= 5000 || ms == 12_000 || ms == 40_000;
            if update_at(&mut absence, ms, heard) {
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
        update_at(&mut absence, 100, true);
        assert!(!update_at(&mut absence, 200, false));
        assert!(!update_at(&mut absence, 60_000, false));
        assert!(!absence.is_gone());
        let next = absence.next_update(GONE_AFTER).map(Time::as_millis);
        assert_eq!(next, Some(60_500));
    }

    #[test]
    fn updates_end_when_the_peer_is_gone() {
        let mut absence = PeerAbsence::new(Time::ZERO);
        let (mut now, mut updates) = (Time::from_millis(10), 0);
        while !absence.update(now, false, GONE_AFTER) {
            now = absence.next_update(GONE_AFTER).unwrap_or(now + Duration::from_millis(1));
            updates += 1;
        }
        assert!(updates <= 21, "{updates}");
        assert_eq!(absence.next_update(GONE_AFTER), None);
    }
}
