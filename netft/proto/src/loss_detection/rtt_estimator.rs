//! When silence about data is suspicious: the probe timeout of RFC 9002 section 6.2. Pure.

use std::time::Duration;

/// The peer acknowledges data at least this often while it arrives.
pub const ACK_DELAY: Duration = Duration::from_millis(5);
/// Suspicion never comes sooner: below it the scheduler's own pauses look like loss.
pub const FLOOR: Duration = Duration::from_millis(10);
/// Before the first measurement.
const INITIAL: Duration = Duration::from_millis(50);
/// Suspicion never comes later: by then the heartbeats decide.
const CEILING: Duration = Duration::from_secs(1);

/// How long data to one peer takes to be acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    smoothed: Option<Duration>,
    variation: Duration,
}

impl Recovery {
    /// Begins with a round-trip time that was measured otherwise.
    pub fn expect(rtt: Duration) -> Self {
        Self { smoothed: Some(rtt + ACK_DELAY), variation: rtt / 2 }
    }

    /// Takes in how long a send waited for its acknowledgement.
    pub fn sample(&mut self, waited: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(waited);
                self.variation = waited / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(waited)) / 4;
                self.smoothed = Some((smoothed * 7 + waited) / 8);
            }
        }
    }

    /// How long unacknowledged data may wait before its route is suspect.
    pub fn timeout(&self) -> Duration {
        let Some(smoothed) = self.smoothed else { return INITIAL };
        (smoothed + self.variation * 4 + ACK_DELAY).clamp(FLOOR, CEILING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_what_is_measured_within_its_bounds() {
        let mut recovery = Recovery::default();
        assert_eq!(recovery.timeout(), INITIAL);
        for _ in 0..100 {
            recovery.sample(Duration::from_micros(300));
        }
        assert_eq!(recovery.timeout(), FLOOR);
        for _ in 0..100 {
            recovery.sample(Duration::from_millis(40));
        }
        assert!(recovery.timeout() >= Duration::from_millis(45));
        for _ in 0..100 {
            recovery.sample(Duration::from_secs(30));
        }
        assert_eq!(recovery.timeout(), CEILING);
    }
}
