//! The one place that reads a clock for decisions.

use rustix::time::{ClockId, clock_gettime};

use crate::time::Time;

/// The present moment: `CLOCK_BOOTTIME`, so that a suspended machine ages its keys and its
/// verdicts (reliability 2.4).
#[inline]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    Time::from_nanos(u64::try_from(nanos).unwrap_or_default())
}
