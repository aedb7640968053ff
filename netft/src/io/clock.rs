//! The one place that reads a clock for decisions.

use rustix::time::{ClockId, clock_gettime};

use crate::time::Time;

/// The present moment: `CLOCK_BOOTTIME`, so that a suspended machine ages its keys and its
/// verdicts (reliability 2.4).
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
