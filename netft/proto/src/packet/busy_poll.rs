//! Busy-poll time of a worker before it blocks in epoll. Pure.
//!
//! A block and the wake-up after it cost both ends of a request/response exchange more than the
//! work between them. So low-rate traffic whose next packet arrives soon is polled for. Bulk is
//! not: it keeps its worker awake by itself, and polling would take CPU time from the applications
//! it serves. Neither is traffic whose next packet is further away than the busy-poll time.

use std::time::Duration;

/// Average bytes per turn from which traffic is bulk.
const BULK_BYTES: u64 = 4096;
/// Average packets per turn from which traffic arrives in batches anyway.
const BULK_PACKETS: u64 = 3;
/// Reciprocal of the weight of one turn in the averages.
const EWMA_WEIGHT: u64 = 8;

/// Traffic averages of a worker, and the busy-poll time that follows from them.
#[derive(Clone, Copy, Debug)]
pub struct BusyPoller {
    max_duration: Duration,
    is_worthwhile: bool,
    /// Averages per turn, times [`EWMA_WEIGHT`].
    average_bytes: u64,
    average_packets: u64,
}

impl BusyPoller {
    /// Polls for at most `max_duration`; zero: never.
    pub const fn new(max_duration: Duration) -> Self {
        Self { max_duration, is_worthwhile: false, average_bytes: 0, average_packets: 0 }
    }

    /// Records a turn that moved packets, `waited` after the previous such turn.
    #[inline]
    pub fn on_traffic(&mut self, packets: u64, bytes: u64, waited: Duration) {
        self.is_worthwhile = waited <= self.max_duration;
        self.average_bytes = self.average_bytes - self.average_bytes / EWMA_WEIGHT + bytes;
        self.average_packets = self.average_packets - self.average_packets / EWMA_WEIGHT + packets;
    }

    /// Time to poll after a turn that moved packets.
    #[inline]
    pub fn poll_duration(&self) -> Duration {
        let is_low_rate = self.average_bytes < BULK_BYTES * EWMA_WEIGHT
            && self.average_packets < BULK_PACKETS * EWMA_WEIGHT;
        if self.is_worthwhile && is_low_rate { self.max_duration } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_DURATION: Duration = Duration::from_micros(100);
    const SHORT_WAIT: Duration = Duration::from_micros(60);

    #[test]
    fn low_rate_traffic_is_polled_for_while_it_keeps_coming() {
        let mut poller = BusyPoller::new(MAX_DURATION);
        assert_eq!(poller.poll_duration(), Duration::ZERO);
        poller.on_traffic(1, 60, SHORT_WAIT);
        assert_eq!(poller.poll_duration(), MAX_DURATION);
        poller.on_traffic(1, 60, MAX_DURATION * 2);
        assert_eq!(poller.poll_duration(), Duration::ZERO, "the next one is as far away");
        poller.on_traffic(2, 2800, SHORT_WAIT);
        assert_eq!(poller.poll_duration(), MAX_DURATION);
    }

    #[test]
    fn bulk_and_batches_are_not_polled_for() {
        for (packets, bytes) in [(1, 60_000), (40, 40 * 92)] {
            let mut poller = BusyPoller::new(MAX_DURATION);
            for _ in 0..20 {
                poller.on_traffic(packets, bytes, SHORT_WAIT);
                // The acknowledgement of the inner TCP.
                poller.on_traffic(1, 52, SHORT_WAIT);
            }
            assert_eq!(poller.poll_duration(), Duration::ZERO, "{packets} packets, {bytes} bytes");
            let turns = (0..100).take_while(|_| {
                poller.on_traffic(1, 52, SHORT_WAIT);
                poller.poll_duration().is_zero()
            });
            assert!((1..40).contains(&turns.count()), "low rate again");
        }
    }

    #[test]
    fn it_can_be_turned_off() {
        let mut poller = BusyPoller::new(Duration::ZERO);
        poller.on_traffic(1, 60, SHORT_WAIT);
        assert_eq!(poller.poll_duration(), Duration::ZERO);
    }
}
