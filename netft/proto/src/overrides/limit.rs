//! The end of an override that an operator limited in time.

use std::time::Duration;

use crate::time::Time;

/// Shortest time an override can be limited to.
pub const MIN_LIMIT: Duration = Duration::from_secs(1);
/// Longest time an override can be limited to.
pub const MAX_LIMIT: Duration = Duration::from_secs(90 * 24 * 3600);

/// A limit given again within this time of the known one is the same: a client repeats its request.
const SAME_LIMIT: Duration = Duration::from_secs(2);

/// The end of an override that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TimeLimit {
    /// The moment, on the clock of this boot.
    pub ends_at: Time,
    /// The same on the wall clock, milliseconds since 1970.
    pub wall_end_ms: u64,
    /// The time it was given.
    pub lasts: Duration,
}

impl TimeLimit {
    /// A limit of `lasts` from now, within [`MIN_LIMIT`] and [`MAX_LIMIT`].
    pub fn new(now: Time, wall_now_ms: u64, lasts: Duration) -> Self {
        let lasts = lasts.clamp(MIN_LIMIT, MAX_LIMIT);
        let wall_end_ms = wall_now_ms.saturating_add(lasts.as_millis() as u64);
        Self { ends_at: now + lasts, wall_end_ms, lasts }
    }

    /// The rest of a limit that was given by an earlier process; `None` when it is over. Its
    /// [`ends_at`](Self::ends_at) counts from [`Time::ZERO`].
    ///
    /// Between two runs only the wall clock goes on. If it was set back meanwhile, the rest is at
    /// most the time that the override was given.
    pub fn resume(wall_now_ms: u64, wall_end_ms: u64, lasts: Duration) -> Option<Self> {
        let lasts = lasts.min(MAX_LIMIT);
        let rest = Duration::from_millis(wall_end_ms.saturating_sub(wall_now_ms)).min(lasts);
        (!rest.is_zero()).then(|| Self { ends_at: Time::ZERO + rest, wall_end_ms, lasts })
    }

    /// A limit that counts from [`Time::ZERO`], from `now` on.
    #[must_use]
    pub fn start_at(self, now: Time) -> Self {
        Self { ends_at: now + self.ends_at.since(Time::ZERO), ..self }
    }

    /// The limit in force after `new` is given in place of `known`.
    pub(super) fn replace(known: Option<Self>, new: Option<Self>) -> Option<Self> {
        let (Some(known), Some(new)) = (known, new) else { return new };
        let (early, late) = (known.ends_at.min(new.ends_at), known.ends_at.max(new.ends_at));
        Some(if late.since(early) <= SAME_LIMIT { known } else { new })
    }
}
