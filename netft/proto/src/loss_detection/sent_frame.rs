//! One batch of frames that awaits its acknowledgement.

use crate::{
    ids::RouteId,
    loss_detection::copies::CopyRoutes,
    time::Time,
    wire::ack::{Ack, AckRange},
};

/// The most frames of a batch: one bit each.
pub const MAX_FRAMES: u32 = u64::BITS;

/// The frames of a batch.
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

/// One batch.
#[derive(Clone, Copy, Debug)]
pub struct SentBatch<P> {
    /// Its identity for its owner.
    pub payload: P,
    pub(crate) layout: BatchLayout,
    /// Bit n: frame n is acknowledged.
    pub(crate) acked: u64,
    pub(crate) path_index: usize,
    /// First transmission.
    pub(crate) first_sent_at: Time,
    /// Last transmission.
    pub(crate) last_sent_at: Time,
    pub(crate) send_number: u64,
    /// Retransmitted: an acknowledgement does not tell which copy arrived.
    pub(crate) resent: bool,
    /// The other routes that carried it.
    pub(crate) copies: CopyRoutes,
    /// Its path was suspect when it was sent.
    pub(crate) sent_while_suspect: bool,
    /// Frames that count as lost alone on its path.
    pub(crate) counted_lost: u32,
}

impl<P> SentBatch<P> {
    /// Frames that are acknowledged: bit n is the nth.
    pub const fn acked_mask(&self) -> u64 {
        self.acked
    }

    /// A second route it was sent on.
    pub fn copy_route(&self) -> Option<RouteId> {
        self.copies.iter().next()
    }

    /// Runs of unacknowledged frames: index of the first frame and count, in order.
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

    /// Number of unacknowledged frames.
    pub(crate) fn missing_count(&self) -> u32 {
        self.layout.count - self.acked.count_ones()
    }

    /// Returns whether an acknowledgement does not tell which copy arrived (Karn).
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.resent || !self.copies.is_empty()
    }

    /// Bytes of all frames.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.layout.stride * (self.layout.count as usize - 1) + self.layout.tail
    }

    /// Size of the largest unacknowledged frame, bytes.
    pub(crate) fn largest_missing(&self) -> usize {
        self.largest_frame(all_frames_mask(self.layout.count) & !self.acked)
    }

    /// Size of the largest acknowledged frame, bytes.
    pub(crate) fn largest_acked(&self) -> usize {
        self.largest_frame(self.acked)
    }

    fn largest_frame(&self, frames: u64) -> usize {
        let before_last = all_frames_mask(self.layout.count - 1);
        if frames & before_last == 0 { self.layout.tail } else { self.layout.stride }
    }

    /// Returns whether every frame is acknowledged.
    pub(crate) fn is_acked(&self) -> bool {
        self.acked == all_frames_mask(self.layout.count)
    }

    /// Applies an acknowledgement. Returns how many frames it covers that were not acknowledged
    /// before.
    pub(crate) fn apply_ack(&mut self, ack: &Ack, counter: impl Fn(&P, u32) -> u64) -> u32 {
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
        (self.acked & !before).count_ones()
    }
}

/// The mask of all frames of a batch.
const fn all_frames_mask(frames: u32) -> u64 {
    if frames >= MAX_FRAMES { u64::MAX } else { (1 << frames) - 1 }
}
