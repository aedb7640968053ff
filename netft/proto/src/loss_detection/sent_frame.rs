//! One send that waits for its acknowledgement.

use crate::{
    time::Time,
    wire::ack::{Ack, AckRange},
};

/// The most frames of a send: one bit each.
pub const MAX_FRAMES: u32 = u64::BITS;

/// The frames of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLayout {
    /// The counter of the first.
    pub first: u64,
    /// The counter of the last; those between ascend.
    pub last: u64,
    /// How many: 1–64.
    pub count: u32,
    /// The memory they hold, bytes.
    pub bytes: usize,
    /// Bytes of every frame but the last.
    pub stride: usize,
    /// Bytes of the last frame, at most the stride.
    pub tail: usize,
}

/// One send.
#[derive(Clone, Copy, Debug)]
pub struct SentBatch<P> {
    /// What its owner knows it by.
    pub payload: P,
    pub(crate) layout: BatchLayout,
    /// Bit n: frame n is acknowledged.
    pub(crate) acked: u64,
    pub(crate) path_index: usize,
    /// When it was sent first.
    pub(crate) first_sent_at: Time,
    /// When it was sent last.
    pub(crate) last_sent_at: Time,
    pub(crate) send_number: u64,
    /// Sent more than once: an acknowledgement does not tell which copy arrived.
    pub(crate) resent: bool,
    pub(crate) duplicated: bool,
    /// Its route had been found silent, and nothing had passed there since.
    pub(crate) sent_while_suspect: bool,
}

impl<P> SentBatch<P> {
    /// The frames that are not acknowledged: runs of first frame and count, in order.
    pub fn missing_runs(&self) -> impl Iterator<Item = (u32, u32)> {
        let (acked, count) = (self.acked, self.layout.count);
        let missing = move |frame: u32| acked & (1 << frame) == 0;
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = (next..count).find(|frame| missing(*frame))?;
            next = (first..count).find(|frame| !missing(*frame)).unwrap_or(count);
            Some((first, next - first))
        })
    }

    /// How many frames are not acknowledged.
    pub(crate) fn missing_count(&self) -> u32 {
        self.layout.count - self.acked.count_ones()
    }

    /// Bytes of the largest frame that is not acknowledged.
    pub(crate) fn largest_missing(&self) -> usize {
        self.largest_frame(all_frames_mask(self.layout.count) & !self.acked)
    }

    /// Bytes of the largest frame that is.
    pub(crate) fn largest_acked(&self) -> usize {
        self.largest_frame(self.acked)
    }

    fn largest_frame(&self, frames: u64) -> usize {
        let before_last = all_frames_mask(self.layout.count - 1);
        if frames & before_last == 0 { self.layout.tail } else { self.layout.stride }
    }

    /// Whether everything is acknowledged.
    pub(crate) fn is_acked(&self) -> bool {
        self.acked == all_frames_mask(self.layout.count)
    }

    /// Notes what an acknowledgement says. Returns whether that was news.
    pub(crate) fn apply_ack(&mut self, ack: &Ack, counter: impl Fn(&P, u32) -> u64) -> bool {
        let BatchLayout { first, last, count, .. } = self.layout;
        let before = self.acked;
        let within = |range: &AckRange| range.first <= first && last <= range.last;
        let touches = |range: &AckRange| range.first <= last && first <= range.last;
        if ack.ranges.iter().any(within) {
            self.acked = all_frames_mask(count);
        } else if ack.ranges.iter().any(touches) {
            for frame in 0..count {
                let counter = counter(&self.payload, frame);
                if ack.ranges.iter().any(|range| range.first <= counter && counter <= range.last) {
                    self.acked |= 1 << frame;
                }
            }
        }
        self.acked != before
    }
}

/// All frames of a send.
const fn all_frames_mask(frames: u32) -> u64 {
    if frames >= MAX_FRAMES { u64::MAX } else { (1 << frames) - 1 }
}
