//! A token bucket that several threads share. Pure: whoever asks tells the time.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::time::Time;

/// So many packets per second, and so many at once.
///
/// The bucket is one number, the moment at which it will be full again (the generic cell rate
/// algorithm of ITU-T I.371), so that threads need no lock.
#[derive(Debug)]
pub struct Rate {
    per_second: u32,
    /// Nanoseconds of one packet.
    each: u64,
    /// How far ahead of the time the bucket may be, nanoseconds.
    depth: u64,
    full: AtomicU64,
}

impl Rate {
    /// What a burst may hold in any case: one super-packet.
    pub const MIN_BURST: u64 = 64;

    /// A full bucket, with a burst of a quarter of the rate, and of at least
    /// [`MIN_BURST`](Self::MIN_BURST); `None` for no packets at all.
    pub fn new(per_second: u32) -> Option<Self> {
        let each = 1_000_000_000u64.checked_div(per_second.into())?;
        let burst = u64::from(per_second / 4).max(Self::MIN_BURST);
        Some(Self { per_second, ..Self::every(Duration::from_nanos(each), burst) })
    }

    /// One packet every `each` (1 ns–1 s), `burst` of them at once. A full bucket.
    pub const fn every(each: Duration, burst: u64) -> Self {
        let each = each.as_nanos() as u64;
        let per_second = (1_000_000_000 / each) as u32;
        Self { per_second, each, depth: each * burst, full: AtomicU64::new(0) }
    }

    /// Packets per second.
    pub const fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Takes `count` packets out of the bucket, all or none. Returns whether they were there.
    pub fn take(&self, now: Time, count: u64) -> bool {
        let now = now.as_nanos();
        let spend = |full: u64| {
            let after = full.max(now).saturating_add(self.each.saturating_mul(count));
            (after - now <= self.depth).then_some(after)
        };
        self.full.fetch_update(Relaxed, Relaxed, spend).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate::new(1000).unwrap();
        let start = Time::from_millis(70_000);
        let burst = (0..1000).filter(|_| rate.take(start, 1)).count();
        assert_eq!(burst, 250);
        let at = |nanos| start + Duration::from_nanos(nanos);
        let later = (1..100_000u64).filter(|n| rate.take(at(n * 100_000), 1)).count();
        assert!((9_990..=10_000).contains(&later), "{later} in ten seconds");
        // Silence fills the bucket again, and no further.
        let rested = at(3_600_000_000_000);
        assert_eq!((0..1000).filter(|_| rate.take(rested, 1)).count(), 250);
    }

    #[test]
    fn super_packets_pass_whole_or_not_at_all() {
        let rate = Rate::new(10).unwrap();
        let now = Time::from_millis(5);
        assert!(!rate.take(now, 65) && rate.take(now, 60));
        assert!(!rate.take(now, 5) && rate.take(now, 4) && !rate.take(now, 1));
        assert!(Rate::new(0).is_none() && !rate.take(now, u64::MAX));
    }

    #[test]
    fn threads_share_one_bucket() {
        let rate = Rate::new(4000).unwrap();
        let taken: usize = std::thread::scope(|scope| {
            let work = || (0..1000).filter(|_| rate.take(Time::from_millis(9), 1)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }
}
