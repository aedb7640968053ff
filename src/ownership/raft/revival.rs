//! When raft is started again after its store failed.

use std::time::Duration;

use netft::Time;

use super::voter::StoreOrigin;

/// Pause before the first attempt; doubled by each further one.
const MIN_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(8);
/// Once raft ran for that long, the pauses start anew.
const RESET_TIME: Duration = Duration::from_secs(60);

/// The attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct VoterRevival {
    /// `None`: raft runs, or an attempt is under way.
    next: Option<Time>,
    pause: Duration,
    started_at: Time,
    has_changed: bool,
    /// A store that was never there may be created by a later attempt.
    pub(super) origin: StoreOrigin,
}

impl VoterRevival {
    /// `is_missing`: raft did not start. `has_store`: there is a store, in whatever state.
    pub(super) fn new(now: Time, is_missing: bool, has_store: bool) -> Self {
        let next = is_missing.then(|| now + MIN_PAUSE);
        let origin = if has_store { StoreOrigin::Known } else { StoreOrigin::New };
        Self { next, pause: MIN_PAUSE, started_at: now, has_changed: true, origin }
    }

    /// Raft stopped, or an attempt failed.
    pub(super) fn on_failed(&mut self, now: Time) {
        if now.since(self.started_at) > RESET_TIME {
            (self.started_at, self.pause) = (now, MIN_PAUSE);
        }
        self.next = Some(now + self.pause);
        self.pause = (2 * self.pause).min(MAX_PAUSE);
        self.has_changed = true;
    }

    /// Raft runs.
    pub(super) fn on_started(&mut self, now: Time) {
        (self.next, self.started_at, self.has_changed) = (None, now, true);
        self.origin = StoreOrigin::Known;
    }

    /// True once after raft was started or stopped.
    pub(super) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// True if an attempt is due; it is under way from here on.
    pub(super) fn take_due(&mut self, now: Time) -> bool {
        let is_due = self.next.is_some_and(|next| now >= next);
        if is_due {
            self.next = None;
        }
        is_due
    }

    /// When the next attempt is due.
    pub(super) const fn next_wake(&self) -> Option<Time> {
        self.next
    }
}
