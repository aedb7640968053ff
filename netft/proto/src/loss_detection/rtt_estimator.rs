//! RTT estimate and probe timeout of one path (RFC 9002 sections 5 and 6.2). Pure.

use std::time::Duration;

/// The longest delay of an acknowledgement (RFC 9000 section 13.2.1, max_ack_delay).
pub const MAX_ACK_DELAY: Duration = Duration::from_millis(5);
/// Lower bound of the PTO: below it scheduling latency is indistinguishable from loss.
pub const MIN_PTO: Duration = Duration::from_millis(10);
/// PTO before the first sample.
const INITIAL_PTO: Duration = Duration::from_millis(50);
/// Upper bound of the PTO: heartbeats decide by then.
const MAX_PTO: Duration = Duration::from_secs(1);

/// Smoothed RTT and RTT variation, including the delay of acknowledgements.
#[derive(Clone, Copy, Debug, Default)]
pub struct RttEstimator {
    smoothed_rtt: Option<Duration>,
    rtt_variation: Duration,
}

impl RttEstimator {
    /// Starts from the round-trip time of heartbeats.
    pub fn from_rtt(rtt: Duration) -> Self {
        Self { smoothed_rtt: Some(rtt + MAX_ACK_DELAY), rtt_variation: rtt / 2 }
    }

    /// Applies one sample: the time from transmission to acknowledgement (RFC 9002 section 5.3).
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

    /// The probe timeout: smoothed RTT + 4 × variation + max_ack_delay, within its bounds.
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
        let mut estimator = RttEstimator::default();
        assert_eq!(estimator.pto(), INITIAL_PTO);
        for _ in 0..100 {
            estimator.add_sample(Duration::from_micros(300));
        }
        assert_eq!(estimator.pto(), MIN_PTO);
        for _ in 0..100 {
            estimator.add_sample(Duration::from_millis(40));
        }
        assert!(estimator.pto() >= Duration::from_millis(45));
        for _ in 0..100 {
            estimator.add_sample(Duration::from_secs(30));
        }
        assert_eq!(estimator.pto(), MAX_PTO);
    }
}
