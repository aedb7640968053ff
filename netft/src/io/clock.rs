//! The clock behind [`Time`]: `CLOCK_BOOTTIME`, so that a suspended machine sees time pass.

use rustix::time::{ClockId, clock_gettime};

use crate::time::Time;

/// The time of this machine, from its boot on.
#[inline]
pub fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    let nanos = time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec);
    Time::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards() {
        let earlier = now();
        assert!(now() >= earlier);
        assert!(earlier > Time::ZERO);
    }
}
