//! The newest deliveries of a path, by frame size.

use crate::time::Time;

/// Frame sizes tracked; the oldest record is replaced first.
const MAX_TRACKED_SIZES: usize = 4;

/// The newest delivered batches, each with the size of its frames.
///
/// The delivery of a small frame proves nothing about larger ones sent before: a path whose MTU
/// shrank loses only those (RFC 8899 section 4.3), and TCP would wait for its timer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeliveredBySize {
    records: [DeliveryRecord; MAX_TRACKED_SIZES],
}

#[derive(Clone, Copy, Debug, Default)]
struct DeliveryRecord {
    send_number: u64,
    /// Bytes.
    size: usize,
    /// When the acknowledgement arrived.
    learned_at: Time,
}

impl DeliveryRecord {
    fn covers(&self, send_number: u64, size: usize) -> bool {
        self.send_number >= send_number && self.size >= size
    }
}

impl DeliveredBySize {
    /// Records that frames of `size` bytes up to send number `send_number` were delivered or
    /// overtaken. `received_at`: when the acknowledgement arrived, unless it was requested.
    #[inline]
    pub(crate) fn on_delivered(
        &mut self,
        send_number: u64,
        size: usize,
        received_at: Option<Time>,
    ) {
        let mut progress = received_at.unwrap_or_default();
        if let Some(same) = self.records.iter_mut().find(|record| record.covers(send_number, size))
        {
            if same.size == size {
                same.learned_at = same.learned_at.max(progress);
            }
            return;
        }
        for record in &mut self.records {
            if record.send_number <= send_number && record.size <= size {
                if record.size == size {
                    progress = progress.max(record.learned_at);
                }
                *record = DeliveryRecord::default();
            }
        }
        if let Some(oldest) = self.records.iter_mut().min_by_key(|record| record.send_number) {
            *oldest = DeliveryRecord { send_number, size, learned_at: progress };
        }
    }

    /// Returns whether a frame of `size` bytes or more with send number `send_number` or later was
    /// delivered.
    #[inline]
    pub(crate) fn covers(&self, send_number: u64, size: usize) -> bool {
        self.records.iter().any(|record| record.covers(send_number, size))
    }

    /// When a delivery of frames of `size` bytes or more was last acknowledged.
    #[inline]
    pub(crate) fn last_progress(&self, size: usize) -> Time {
        let as_large = self.records.iter().filter(|record| record.size >= size);
        as_large.map(|record| record.learned_at).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Option<Time> {
        Some(Time::from_millis(ms))
    }

    #[test]
    fn small_frames_prove_nothing_about_large_ones() {
        let mut delivered = DeliveredBySize::default();
        delivered.on_delivered(10, 1400, at(1));
        delivered.on_delivered(20, 100, at(2));
        assert!(delivered.covers(10, 1400) && delivered.covers(20, 100));
        assert!(!delivered.covers(11, 1400) && !delivered.covers(11, 101));
        assert_eq!(
            [1400, 101, 100].map(|size| Some(delivered.last_progress(size))),
            [at(1), at(1), at(2)]
        );
        delivered.on_delivered(30, 1400, None);
        assert!(delivered.covers(30, 100) && delivered.covers(30, 1400));
        assert_eq!(
            Some(delivered.last_progress(1400)),
            at(1),
            "a requested acknowledgement is no progress"
        );
        delivered.on_delivered(29, 1400, at(5));
        assert_eq!(Some(delivered.last_progress(1400)), at(5));
    }

    #[test]
    fn of_many_sizes_the_oldest_is_forgotten() {
        let mut delivered = DeliveredBySize::default();
        for n in 1..=10 {
            delivered.on_delivered(n, 2000 - n as usize, None);
        }
        assert!((7..=10).all(|n| delivered.covers(n, 2000 - n as usize)));
        assert!((1..7).all(|n| !delivered.covers(n, 2000 - n as usize)));
    }
}
