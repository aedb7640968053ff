//! The clock of leases.

use netft::Time;
use rustix::time::{ClockId, clock_gettime};

/// The current time by `CLOCK_BOOTTIME`, the clock of the library's times: a lease also ages while
/// the machine is suspended.
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    Time::from_nanos(u64::try_from(nanos).unwrap_or_default())
}
