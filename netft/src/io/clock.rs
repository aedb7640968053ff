//! The clocks of the I/O layer. Decisions take their time from [`now`] only.

use netft_proto::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// The current time by `CLOCK_BOOTTIME`: keys, and the state of routes, also age while the machine
/// is suspended.
#[inline]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    Time::from_nanos(u64::try_from(nanos).unwrap_or_default())
}
