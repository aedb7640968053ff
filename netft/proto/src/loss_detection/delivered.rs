//! How far a route is known to pass what it is given.

use crate::time::Time;

/// Sizes told apart; the oldest knowledge goes first.
const MAX_TRACKED_SIZES: usize = 4;

/// The newest sendings that are known to have arrived, each with the size of its frames.
///
/// That a small frame arrived says nothing about larger ones before it: a path that became narrow
/// swallows these alone (RFC 8899 section 4.3), and TCP would wait for its timer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeliveredBySize {
    records: [DeliveryRecord; MAX_TRACKED_SIZES],
}

#[derive(Clone, Copy, Debug, Default)]
struct DeliveryRecord {
    send_number: u64,
    /// Bytes.
    size: usize,
    /// When that was learnt.
    learned_at: Time,
}

impl DeliveryRecord {
    fn covers(&self, order: u64, size: usize) -> bool {
        self.send_number >= order && self.size >= size
    }
}

impl DeliveredBySize {
    /// Frames of `size` bytes that were sent as the `order`th, or before, arrived or are past.
    /// `came`: when that was learnt, if it was not asked for.
    #[inline]
    pub(crate) fn on_delivered(&mut self, order: u64, size: usize, came: Option<Time>) {
        let mut progress = came.unwrap_or_default();
        if let Some(same) = self.records.iter_mut().find(|known| known.covers(order, size)) {
            if same.size == size {
                same.learned_at = same.learned_at.max(progress);
            }
            return;
        }
        for known in &mut self.records {
            if known.send_number <= order && known.size <= size {
                if known.size == size {
                    progress = progress.max(known.learned_at);
                }
                *known = DeliveryRecord::default();
            }
        }
        if let Some(oldest) = self.records.iter_mut().min_by_key(|known| known.send_number) {
            *oldest = DeliveryRecord { send_number: order, size, learned_at: progress };
        }
    }

    /// Whether frames of `size` bytes or more, sent as the `order`th or later, arrived.
    #[inline]
    pub(crate) fn covers(&self, order: u64, size: usize) -> bool {
        self.records.iter().any(|known| known.covers(order, size))
    }

    /// When the route was last seen to pass frames of `size` bytes or more.
    #[inline]
    pub(crate) fn last_progress(&self, size: usize) -> Time {
        let as_large = self.records.iter().filter(|known| known.size >= size);
        as_large.map(|known| known.learned_at).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Option<Time> {
        Some(Time::from_millis(ms))
    }

    #[test]
    fn small_frames_say_nothing_about_large_ones() {
        let mut passed = DeliveredBySize::default();
        passed.on_delivered(10, 1400, at(1));
        passed.on_delivered(20, 100, at(2));
        assert!(passed.covers(10, 1400) && passed.covers(20, 100));
        assert!(!passed.covers(11, 1400) && !passed.covers(11, 101));
        assert_eq!(
            [1400, 101, 100].map(|size| Some(passed.last_progress(size))),
            [at(1), at(1), at(2)]
        );
        passed.on_delivered(30, 1400, None);
        assert!(passed.covers(30, 100) && passed.covers(30, 1400));
        assert_eq!(Some(passed.last_progress(1400)), at(1), "an answer is no progress");
        passed.on_delivered(29, 1400, at(5));
        assert_eq!(Some(passed.last_progress(1400)), at(5));
    }

    #[test]
    fn of_many_sizes_the_oldest_is_forgotten() {
        let mut passed = DeliveredBySize::default();
        for n in 1..=10 {
            passed.on_delivered(n, 2000 - n as usize, None);
        }
        assert!((7..=10).all(|n| passed.covers(n, 2000 - n as usize)));
        assert!((1..7).all(|n| !passed.covers(n, 2000 - n as usize)));
    }
}
