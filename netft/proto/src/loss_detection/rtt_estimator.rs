//! When silence about data is suspicious: the probe timeout of RFC 9002 section 6.2. Pure.

use std::time::Duration;

/// The peer acknowledges data at least this often while it arrives.
pub const MAX_ACK_DELAY: Duration = Duration::from_millis(5);
/// Suspicion never comes sooner: below it the scheduler's own pauses look like loss.
pub const MIN_PTO: Duration = Duration::from_millis(10);
/// Before the first measurement.
const INITIAL_PTO: Duration = Duration::from_millis(50);
/// Suspicion never comes later: by then the heartbeats decide.
const MAX_PTO: Duration = Duration::from_secs(1);

/// How long data to one peer takes to be acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub struct RttEstimator {
    smoothed_rtt: Option<Duration>,
    rtt_variation: Duration,
}

impl RttEstimator {
    /// Begins with a round-trip time that was measured otherwise.
    pub fn from_rtt(rtt: Duration) -> Self {
        Self { smoothed_rtt: Some(rtt + MAX_ACK_DELAY), rtt_variation: rtt / 2 }
    }

    /// Takes in how long a send waited for its acknowledgement.
    pub fn add_sample(&mut self, waited: Duration) {
        match self.smoothed_rtt {
            None => {
                self.smoothed_rtt = Some(waited);
                self.rtt_variation = waited / 2;
            }
            Some(smoothed) => {
                self.rtt_variation = (self.rtt_variation * 3 + smoothed.abs_diff(waited)) / 4;
                self.smoothed_rtt = Some((smoothed * 7 + waited) / 8);
            }
        }
    }

    /// How long unacknowledged data may wait before its route is suspect.
    pub fn pto(&self) -> Duration {
        let Some(smoothed) = self.smoothed_rtt else { return INITIAL_PTO };
        (smoothed + self.rtt_variation * 4 + MAX_ACK_DELAY).clamp(MIN_PTO, MAX_PTO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_what_is_measured_within_its_bounds() {
        let mut recovery = RttEstimator::default();
        assert_eq!(recovery.pto(), INITIAL_PTO);
        for _ in 0..100 {
            recovery.add_sample(Duration::from_micros(300));
        }
        assert_eq!(recovery.pto(), MIN_PTO);
        for _ in 0..100 {
            recovery.add_sample(Duration::from_millis(40));
        }
        assert!(recovery.pto() >= Duration::from_millis(45));
        for _ in 0..100 {
            recovery.add_sample(Duration::from_secs(30));
        }
        assert_eq!(recovery.pto(), MAX_PTO);
    }
}
