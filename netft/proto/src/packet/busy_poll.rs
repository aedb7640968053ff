//! How long a worker looks for more before it sleeps: busy polling, where it pays. Pure.
//!
//! A sleep and the wake-up after it cost both ends of a conversation more than the work between
//! them. So where the next packet of a thin stream comes soon, it is waited for awake. Bulk keeps
//! its worker awake by itself, and a worker that looks would take its time from those it works
//! for; where the next packet is far away, looking finds nothing.

use std::time::Duration;

/// Bytes a turn moves on average, from which on it is bulk.
const BULK_BYTES: u64 = 4096;
/// Packets a turn moves on average, from which on they come in batches anyway.
const BULK_PACKETS: u64 = 3;
/// What one turn weighs in the averages: one of so many.
const EWMA_WEIGHT: u64 = 8;

/// What a worker knows of its traffic.
#[derive(Clone, Copy, Debug)]
pub struct BusyPoller {
    max_duration: Duration,
    is_worthwhile: bool,
    /// Averages per turn, times [`EWMA_WEIGHT`].
    average_bytes: u64,
    average_packets: u64,
}

impl BusyPoller {
    /// Looks for at most `most`; zero: never.
    pub const fn new(max_duration: Duration) -> Self {
        Self { max_duration, is_worthwhile: false, average_bytes: 0, average_packets: 0 }
    }

    /// A turn moved packets, `waited` after the one before had.
    #[inline]
    pub fn on_traffic(&mut self, packets: u64, bytes: u64, waited: Duration) {
        self.is_worthwhile = waited <= self.max_duration;
        self.average_bytes = self.average_bytes - self.average_bytes / EWMA_WEIGHT + bytes;
        self.average_packets = self.average_packets - self.average_packets / EWMA_WEIGHT + packets;
    }

    /// How long after a turn that moved packets it is worth to look for more.
    #[inline]
    pub fn poll_duration(&self) -> Duration {
        let thin = self.average_bytes < BULK_BYTES * EWMA_WEIGHT
            && self.average_packets < BULK_PACKETS * EWMA_WEIGHT;
        if self.is_worthwhile && thin { self.max_duration } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(100);
    const SOON: Duration = Duration::from_micros(60);

    #[test]
    fn a_thin_stream_is_waited_for_as_long_as_it_keeps_coming() {
        let mut patience = BusyPoller::new(MOST);
        assert_eq!(patience.poll_duration(), Duration::ZERO);
        patience.on_traffic(1, 60, SOON);
        assert_eq!(patience.poll_duration(), MOST);
        patience.on_traffic(1, 60, MOST * 2);
        assert_eq!(patience.poll_duration(), Duration::ZERO, "the next one is as far away");
        patience.on_traffic(2, 2800, SOON);
        assert_eq!(patience.poll_duration(), MOST);
    }

    #[test]
    fn bulk_and_batches_are_not_waited_for() {
        for (packets, bytes) in [(1, 60_000), (40, 40 * 92)] {
            let mut patience = BusyPoller::new(MOST);
            for _ in 0..20 {
                patience.on_traffic(packets, bytes, SOON);
                // The acknowledgement of the inner TCP.
                patience.on_traffic(1, 52, SOON);
            }
            assert_eq!(
                patience.poll_duration(),
                Duration::ZERO,
                "{packets} packets, {bytes} bytes"
            );
            let turns = (0..100).take_while(|_| {
                patience.on_traffic(1, 52, SOON);
                patience.poll_duration().is_zero()
            });
            assert!((1..40).contains(&turns.count()), "thin again, thin for long");
        }
    }

    #[test]
    fn it_can_be_turned_off() {
        let mut patience = BusyPoller::new(Duration::ZERO);
        patience.on_traffic(1, 60, SOON);
        assert_eq!(patience.poll_duration(), Duration::ZERO);
    }
}
