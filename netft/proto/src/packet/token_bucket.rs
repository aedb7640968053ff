//! Token bucket shared by several threads. Pure: the caller passes the time.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::time::Time;

/// Lock-free token bucket with a rate in packets per second and a burst.
///
/// Its state is one number, the time at which the bucket is full again (the generic cell rate
/// algorithm of ITU-T I.371).
#[derive(Debug)]
pub struct TokenBucket {
    per_second: u32,
    /// Nanoseconds of one packet.
    interval_nanos: u64,
    /// Largest distance of `full_at` from the present, nanoseconds.
    burst_nanos: u64,
    full_at: AtomicU64,
}

impl TokenBucket {
    /// Smallest burst: one super-packet.
    pub const MIN_BURST: u64 = 64;

    /// A full bucket, with a burst of a quarter of the rate, and of at least
    /// [`MIN_BURST`](Self::MIN_BURST); `None` for no packets at all.
    pub fn new(per_second: u32) -> Option<Self> {
        let each = 1_000_000_000u64.checked_div(per_second.into())?;
        let burst = u64::from(per_second / 4).max(Self::MIN_BURST);
        Some(Self { per_second, ..Self::with_interval(Duration::from_nanos(each), burst) })
    }

    /// One packet every `each` (1 ns–1 s), `burst` of them at once. A full bucket.
    pub const fn with_interval(each: Duration, burst: u64) -> Self {
        let interval_nanos = each.as_nanos() as u64;
        let per_second = (1_000_000_000 / interval_nanos) as u32;
        Self {
            per_second,
            interval_nanos,
            burst_nanos: interval_nanos * burst,
            full_at: AtomicU64::new(0),
        }
    }

    /// Packets per second.
    pub const fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Takes `count` tokens, all or none. Returns whether they were available.
    pub fn try_take(&self, now: Time, count: u64) -> bool {
        let now = now.as_nanos();
        let spend = |full: u64| {
            let after = full.max(now).saturating_add(self.interval_nanos.saturating_mul(count));
            (after - now <= self.burst_nanos).then_some(after)
        };
        self.full_at.fetch_update(Relaxed, Relaxed, spend).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = TokenBucket::new(1000).unwrap();
        let start = Time::from_millis(70_000);
        let burst = (0..1000).filter(|_| rate.try_take(start, 1)).count();
        assert_eq!(burst, 250);
        let at = |nanos| start + Duration::from_nanos(nanos);
        let later = (1..100_000u64).filter(|n| rate.try_take(at(n * 100_000), 1)).count();
        assert!((9_990..=10_000).contains(&later), "{later} in ten seconds");
        // An idle time fills the bucket, and no further.
        let rested = at(3_600_000_000_000);
        assert_eq!((0..1000).filter(|_| rate.try_take(rested, 1)).count(), 250);
    }

    #[test]
    fn super_packets_pass_whole_or_not_at_all() {
        let rate = TokenBucket::new(10).unwrap();
        let now = Time::from_millis(5);
        assert!(!rate.try_take(now, 65) && rate.try_take(now, 60));
        assert!(!rate.try_take(now, 5) && rate.try_take(now, 4) && !rate.try_take(now, 1));
        assert!(TokenBucket::new(0).is_none() && !rate.try_take(now, u64::MAX));
    }

    #[test]
    fn threads_share_one_bucket() {
        let rate = TokenBucket::new(4000).unwrap();
        let taken: usize = std::thread::scope(|scope| {
            let work = || (0..1000).filter(|_| rate.try_take(Time::from_millis(9), 1)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }
}
