//! How long a worker looks for more before it sleeps: busy polling, where it pays. Pure.
//!
//! A sleep and the wake-up after it cost both ends of a conversation more than the work between
//! them. So where the next packet of a thin stream comes soon, it is waited for awake. Bulk keeps
//! its worker awake by itself, and a worker that looks would take its time from those it works
//! for; where the next packet is far away, looking finds nothing.

use std::time::Duration;

/// Bytes a turn moves on average, from which on it is bulk.
const BULK: u64 = 4096;
/// Packets a turn moves on average, from which on they come in batches anyway.
const MANY: u64 = 3;
/// What one turn weighs in the averages: one of so many.
const WEIGHT: u64 = 8;

/// What a worker knows of its traffic.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    most: Duration,
    worth: bool,
    /// Averages per turn, times [`WEIGHT`].
    bytes: u64,
    packets: u64,
}

impl Patience {
    /// Looks for at most `most`; zero: never.
    pub const fn new(most: Duration) -> Self {
        Self { most, worth: false, bytes: 0, packets: 0 }
    }

    /// A turn moved packets, `waited` after the one before had.
    #[inline]
    pub fn moved(&mut self, packets: u64, bytes: u64, waited: Duration) {
        self.worth = waited <= self.most;
        self.bytes = self.bytes - self.bytes / WEIGHT + bytes;
        self.packets = self.packets - self.packets / WEIGHT + packets;
    }

    /// How long after a turn that moved packets it is worth to look for more.
    #[inline]
    pub fn look(&self) -> Duration {
        let thin = self.bytes < BULK * WEIGHT && self.packets < MANY * WEIGHT;
        if self.worth && thin { self.most } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(100);
    const SOON: Duration = Duration::from_micros(60);

    #[test]
    fn a_thin_stream_is_waited_for_as_long_as_it_keeps_coming() {
        let mut patience = Patience::new(MOST);
        assert_eq!(patience.look(), Duration::ZERO);
        patience.moved(1, 60, SOON);
        assert_eq!(patience.look(), MOST);
        patience.moved(1, 60, MOST * 2);
        assert_eq!(patience.look(), Duration::ZERO, "the next one is as far away");
        patience.moved(2, 2800, SOON);
        assert_eq!(patience.look(), MOST);
    }

    #[test]
    fn bulk_and_batches_are_not_waited_for() {
        for (packets, bytes) in [(1, 60_000), (40, 40 * 92)] {
            let mut patience = Patience::new(MOST);
            for _ in 0..20 {
                patience.moved(packets, bytes, SOON);
                // The acknowledgement of the inner TCP.
                patience.moved(1, 52, SOON);
            }
            assert_eq!(patience.look(), Duration::ZERO, "{packets} packets, {bytes} bytes");
            let turns = (0..100).take_while(|_| {
                patience.moved(1, 52, SOON);
                patience.look().is_zero()
            });
            assert!((1..40).contains(&turns.count()), "thin again, thin for long");
        }
    }

    #[test]
    fn it_can_be_turned_off() {
        let mut patience = Patience::new(Duration::ZERO);
        patience.moved(1, 60, SOON);
        assert_eq!(patience.look(), Duration::ZERO);
    }
}
