//! Slices: an inner packet larger than a frame may be, in several frames. Pure.
//!
//! The slices of a packet are data frames with [`FLAG_SLICE`](crate::wire::header::FLAG_SLICE) under
//! consecutive counters, so `counter − index` names the packet. All but the last carry equally
//! many bytes, so one segmented send takes them and one merged receive brings them side by side.
//! The sealed part of each begins with:
//!
//! ```text
//! +---------------+---------------+-------------------------------+
//! |     index     |     count     |  bytes of the packet          |
//! +---------------+---------------+-------------------------------+
//! ```
//!
//! Every slice tells the whole layout: from its own length and these numbers follows where it
//! belongs, and slices that tell different layouts do not belong together.
//!
//! A packet is lost with any of its slices: of n datagrams that are lost independently with
//! probability p, 1 − (1 − p)^n (n = 44, p = 0.1 %: 4.3 %). So only what cannot be cut into
//! packets of its own is sliced, and only towards a peer whose hello says that it understands.

mod reassembly;

use std::ops::Range;

pub use crate::session::fragment::reassembly::{Added, Assembly, MAX_AGE, MAX_PACKETS};
use crate::wire::DropReason;

/// Bytes in front of each slice.
pub const SLICE_LEN: usize = 4;
/// The most slices of a packet: 65,535 bytes in frames of 552 bytes and more.
pub const MAX_SLICES: usize = 128;
/// The largest inner packet.
pub const MAX_PACKET: usize = 65_535;

/// How a packet is cut: equal for all its slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of the packet.
    total: usize,
    /// Bytes of every slice but the last, which has at least 1 and at most as many.
    len: usize,
    /// At least 2, at most [`MAX_SLICES`].
    count: usize,
}

impl Cut {
    /// How to cut a packet of `total` bytes for frames with `room` bytes of payload.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] when that takes more than [`MAX_SLICES`].
    pub fn new(total: usize, room: usize) -> Result<Self, DropReason> {
        // A packet that fits is sent in one frame; it is never cut into one slice.
        let len = room.saturating_sub(SLICE_LEN).min(total.saturating_sub(1));
        let count = total.checked_div(len).map_or(0, |_| total.div_ceil(len));
        if !(2..=MAX_SLICES).contains(&count) || total > MAX_PACKET {
            return Err(DropReason::TooBig);
        }
        Ok(Self { total, len, count })
    }

    /// The largest packet that frames with `room` bytes of payload carry in slices.
    pub fn reach(room: usize) -> usize {
        (room.saturating_sub(SLICE_LEN) * MAX_SLICES).clamp(room, MAX_PACKET.max(room))
    }

    /// How many slices.
    #[inline]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the packet.
    #[inline]
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Where slice `index` (below [`count`](Self::count)) stands in the packet.
    #[inline]
    pub fn range(&self, index: usize) -> Range<usize> {
        let start = index * self.len;
        start..(start + self.len).min(self.total)
    }

    /// Writes slice `index` of `packet` into `payload`, which has [`SLICE_LEN`] bytes more than
    /// the slice; nothing when either does not fit.
    #[inline]
    pub fn write(&self, index: usize, packet: &[u8], payload: &mut [u8]) {
        let Some(bytes) = packet.get(self.range(index)) else { return };
        let Some((head, body)) = payload.split_first_chunk_mut::<SLICE_LEN>() else { return };
        let total = (self.total as u16).to_be_bytes();
        *head = [index as u8, self.count as u8, total[0], total[1]];
        if body.len() == bytes.len() {
            body.copy_from_slice(bytes);
        }
    }
}

/// A slice as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The counter of the packet's first slice: the name of the packet within its session.
    pub first: u64,
    /// The place of this one, below the cut's count.
    pub index: usize,
    /// How the packet was cut.
    pub cut: Cut,
}

impl Slice {
    /// Reads the head of `payload`, the opened part of a frame sealed under `counter`; the bytes
    /// of the packet stand behind [`SLICE_LEN`].
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the numbers contradict each other or the length.
    #[inline]
    pub fn decode(counter: u64, payload: &[u8]) -> Result<Self, DropReason> {
        let Some((&[index, count, t0, t1], body)) = payload.split_first_chunk::<SLICE_LEN>() else {
            return Err(DropReason::Malformed);
        };
        let (index, count) = (usize::from(index), usize::from(count));
        let total = usize::from(u16::from_be_bytes([t0, t1]));
        if !(2..=MAX_SLICES).contains(&count) || index >= count || body.len() >= total {
            return Err(DropReason::Malformed);
        }
        let len = if index + 1 < count {
            body.len()
        } else if (total - body.len()).is_multiple_of(count - 1) {
            (total - body.len()) / (count - 1)
        } else {
            return Err(DropReason::Malformed);
        };
        let first = counter.checked_sub(index as u64).ok_or(DropReason::Malformed)?;
        let cut = Cut { total, len, count };
        // One slice fewer would not hold the packet, and these do.
        if len * (count - 1) >= total || len * count < total {
            return Err(DropReason::Malformed);
        }
        if cut.range(index).len() != body.len() {
            return Err(DropReason::Malformed);
        }
        Ok(Self { first, index, cut })
    }
}

#[cfg(test)]
mod tests;
