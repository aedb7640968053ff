//! Histogram of the stalls of data at failovers, with fixed buckets. Pure.
//!
//! The stall of a failover is the time from the last delivery on the old route to the first
//! transmission on the new one. It is measured by
//!
//! * **data**, if any was outstanding: how long the oldest unacknowledged frame had waited when it
//!   was retransmitted on another route (the maximum over several retransmissions);
//! * **heartbeats** otherwise: the time from the last answered heartbeat on the old route to the
//!   move, an upper bound of the stall that data would have had. It stands in the cost of the move
//!   and is not counted in the histogram: nothing stood still.

use std::time::Duration;

/// Upper bounds of the buckets, milliseconds; one more bucket holds longer stalls.
pub const BUCKET_BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 20, 40, 80, 160, 320, 640];

/// The measurement a stall is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StallSource {
    /// Frames that awaited their acknowledgement.
    Data,
    /// Heartbeats, as no data was outstanding.
    Heartbeats,
}

impl StallSource {
    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Heartbeats => "heartbeats",
        }
    }
}

/// The stall of one move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverStall {
    /// Its length.
    pub length: Duration,
    /// Its measurement.
    pub source: StallSource,
}

/// The stalls of a node's failovers since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct StallHistogram {
    /// Stalls per bucket of [`BUCKET_BOUNDS_MS`] (above the bound before, up to its own), and
    /// beyond the last.
    pub buckets: [u64; BUCKET_BOUNDS_MS.len() + 1],
    /// Sum of all stalls.
    pub sum: Duration,
    /// The longest stall.
    pub max: Duration,
}

impl StallHistogram {
    /// Counts one.
    pub fn record(&mut self, length: Duration) {
        let fits = |bound: &u64| length <= Duration::from_millis(*bound);
        let place = BUCKET_BOUNDS_MS.iter().position(fits).unwrap_or(BUCKET_BOUNDS_MS.len());
        self.buckets[place] += 1;
        self.sum = self.sum.saturating_add(length);
        self.max = self.max.max(length);
    }

    /// Number of stalls.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The length that `permille` of the stalls did not exceed: the bound of a bucket, or the
    /// longest stall if that is less. `None` without any stall.
    pub fn quantile_permille(&self, permille: u64) -> Option<Duration> {
        let count = self.count();
        // The rank of the quantile, rounded up: 1 to the count.
        let rank = (u128::from(count) * u128::from(permille)).div_ceil(1000).max(1);
        let mut below = 0;
        for (place, bucket) in self.buckets.iter().enumerate() {
            below += u128::from(*bucket);
            if below >= rank {
                let bound = BUCKET_BOUNDS_MS.get(place).map(|ms| Duration::from_millis(*ms));
                return Some(bound.map_or(self.max, |bound| bound.min(self.max)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_falls_into_one_bucket_and_the_quantiles_bound_it() {
        let mut stalls = StallHistogram::default();
        assert_eq!((stalls.count(), stalls.quantile_permille(500)), (0, None));
        for us in [0, 1000, 1001, 20_000, 20_001, 640_000, 640_001] {
            stalls.record(Duration::from_micros(us));
        }
        assert_eq!(stalls.buckets, [2, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1]);
        assert_eq!(stalls.count(), 7);
        assert_eq!(stalls.quantile_permille(500), Some(Duration::from_millis(20)), "the 4th of 7");
        assert_eq!(stalls.quantile_permille(990), Some(Duration::from_micros(640_001)));
        assert_eq!(stalls.max, Duration::from_micros(640_001));
        assert_eq!(stalls.sum, Duration::from_micros(1_322_003));
    }

    #[test]
    fn a_bound_is_never_above_the_longest() {
        let mut stalls = StallHistogram::default();
        stalls.record(Duration::from_millis(11));
        for permille in [0, 1, 500, 1000] {
            assert_eq!(stalls.quantile_permille(permille), Some(Duration::from_millis(11)));
        }
    }
}
