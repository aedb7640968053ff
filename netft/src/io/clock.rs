//! The clocks of the I/O layer. Decisions take their time from [`now`] only.

use std::time::Duration;

use netft_proto::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// The current time by `CLOCK_BOOTTIME`: keys, and the state of routes, also age while the machine
/// is suspended.
#[inline]
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    Time::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

/// Converts a wall-clock time, as the duration since 1970; at latest [`now`]. A step of the wall
/// clock in between shifts the result by as much.
pub(crate) fn from_wall_clock(stamp: Duration) -> Time {
    let wall = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(wall.tv_sec).unwrap_or_default();
    let wall = Duration::new(seconds, u32::try_from(wall.tv_nsec).unwrap_or_default());
    let past = u64::try_from(wall.saturating_sub(stamp).as_nanos()).unwrap_or(u64::MAX);
    Time::from_nanos(now().as_nanos().saturating_sub(past))
}
