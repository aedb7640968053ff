//! Receipt on a route as one process leaves it to the next. Pure.

use crate::{
    route::{liveness::Liveness, params::Timing},
    time::Time,
};

/// Receipt on a route, for a successor process.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct SavedLiveness {
    pub(crate) rx: bool,
    pub(crate) last_heard: Option<Time>,
    pub(crate) was_lost: bool,
    pub(crate) missed: u64,
}

impl Liveness {
    /// The state for a successor process.
    pub(crate) fn to_saved(self) -> SavedLiveness {
        let Self { rx, last_heard, was_lost, missed, .. } = self;
        SavedLiveness { rx, last_heard, was_lost, missed }
    }

    /// The state that a predecessor process left; the detection time starts at `now`.
    pub(crate) fn from_saved(saved: SavedLiveness, now: Time, timing: Timing) -> Self {
        let SavedLiveness { rx, last_heard, was_lost, missed } = saved;
        let mut liveness = Self::new();
        (liveness.rx, liveness.was_lost) = (rx, was_lost);
        (liveness.last_heard, liveness.missed) = (last_heard, missed);
        if rx {
            liveness.arm_deadlines(now, timing);
        }
        liveness
    }
}
