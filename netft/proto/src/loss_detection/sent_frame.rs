//! One send that waits for its acknowledgement.

use crate::{
    time::Time,
    wire::ack::{Ack, Range},
};

/// The most frames of a send: one bit each.
pub const MAX_FRAMES: u32 = u64::BITS;

/// The frames of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
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
pub struct Sent<P> {
    /// What its owner knows it by.
    pub payload: P,
    pub(crate) frames: Frames,
    /// Bit n: frame n is acknowledged.
    pub(crate) acked: u64,
    pub(crate) lane: usize,
    /// When it was sent first.
    pub(crate) born: Time,
    /// When it was sent last.
    pub(crate) at: Time,
    pub(crate) order: u64,
    /// Sent more than once: an acknowledgement does not tell which copy arrived.
    pub(crate) again: bool,
    pub(crate) doubled: bool,
    /// Its route had been found silent, and nothing had passed there since.
    pub(crate) doubtful: bool,
}

impl<P> Sent<P> {
    /// The frames that are not acknowledged: runs of first frame and count, in order.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        let (acked, count) = (self.acked, self.frames.count);
        let missing = move |frame: u32| acked & (1 << frame) == 0;
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = (next..count).find(|frame| missing(*frame))?;
            next = (first..count).find(|frame| !missing(*frame)).unwrap_or(count);
            Some((first, next - first))
        })
    }

    /// How many frames are not acknowledged.
    pub(crate) fn missing(&self) -> u32 {
        self.frames.count - self.acked.count_ones()
    }

    /// Bytes of the largest frame that is not acknowledged.
    pub(crate) fn largest_missing(&self) -> usize {
        self.largest(whole(self.frames.count) & !self.acked)
    }

    /// Bytes of the largest frame that is.
    pub(crate) fn largest_acked(&self) -> usize {
        self.largest(self.acked)
    }

    fn largest(&self, frames: u64) -> usize {
        let before_last = whole(self.frames.count - 1);
        if frames & before_last == 0 { self.frames.tail } else { self.frames.stride }
    }

    /// Whether everything is acknowledged.
    pub(crate) fn done(&self) -> bool {
        self.acked == whole(self.frames.count)
    }

    /// Notes what an acknowledgement says. Returns whether that was news.
    pub(crate) fn mark(&mut self, ack: &Ack, counter: impl Fn(&P, u32) -> u64) -> bool {
        let Frames { first, last, count, .. } = self.frames;
        let before = self.acked;
        let within = |range: &Range| range.first <= first && last <= range.last;
        let touches = |range: &Range| range.first <= last && first <= range.last;
        if ack.ranges.iter().any(within) {
            self.acked = whole(count);
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
const fn whole(frames: u32) -> u64 {
    if frames >= MAX_FRAMES { u64::MAX } else { (1 << frames) - 1 }
}
