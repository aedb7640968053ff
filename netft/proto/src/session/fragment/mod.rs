//! Slices: an inner packet larger than a frame may be, in several frames. Pure.
//!
//! The slices of a packet are data frames with
//! [`FLAG_FRAGMENT`](crate::wire::header::FLAG_FRAGMENT) under consecutive counters, so `counter −
//! index` names the packet. All but the last carry equally many bytes, so one segmented send takes
//! them and one merged receive brings them side by side. The sealed part of each begins with:
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

pub mod reassembly;

use std::ops::Range;

use crate::wire::DropReason;

/// Bytes in front of each slice.
pub const FRAGMENT_HEADER_LEN: usize = 4;
/// The most slices of a packet: 65,535 bytes in frames of 552 bytes and more.
pub const MAX_FRAGMENTS: usize = 128;
/// The largest inner packet.
pub const MAX_PACKET_LEN: usize = 65_535;

/// How a packet is cut: equal for all its slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentLayout {
    /// Bytes of the packet.
    packet_len: usize,
    /// Bytes of every slice but the last, which has at least 1 and at most as many.
    fragment_len: usize,
    /// At least 2, at most [`MAX_FRAGMENTS`].
    fragment_count: usize,
}

impl FragmentLayout {
    /// How to cut a packet of `total` bytes for frames with `room` bytes of payload.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] when that takes more than [`MAX_FRAGMENTS`].
    pub fn new(total: usize, room: usize) -> Result<Self, DropReason> {
        // A packet that fits is sent in one frame; it is never cut into one slice.
        let len = room.saturating_sub(FRAGMENT_HEADER_LEN).min(total.saturating_sub(1));
        let count = total.checked_div(len).map_or(0, |_| total.div_ceil(len));
        if !(2..=MAX_FRAGMENTS).contains(&count) || total > MAX_PACKET_LEN {
            return Err(DropReason::TooBig);
        }
        Ok(Self { packet_len: total, fragment_len: len, fragment_count: count })
    }

    /// The largest packet that frames with `room` bytes of payload carry in slices.
    pub fn max_packet_len(room: usize) -> usize {
        (room.saturating_sub(FRAGMENT_HEADER_LEN) * MAX_FRAGMENTS)
            .clamp(room, MAX_PACKET_LEN.max(room))
    }

    /// How many slices.
    #[inline]
    pub const fn fragment_count(&self) -> usize {
        self.fragment_count
    }

    /// Bytes of the packet.
    #[inline]
    pub const fn packet_len(&self) -> usize {
        self.packet_len
    }

    /// Where slice `index` (below [`fragment_count`](Self::fragment_count)) stands in the packet.
    #[inline]
    pub fn byte_range(&self, index: usize) -> Range<usize> {
        let start = index * self.fragment_len;
        start..(start + self.fragment_len).min(self.packet_len)
    }

    /// Writes slice `index` of `packet` into `payload`, which has [`FRAGMENT_HEADER_LEN`] bytes
    /// more than the slice; nothing when either does not fit.
    #[inline]
    pub fn write_fragment(&self, index: usize, packet: &[u8], payload: &mut [u8]) {
        let Some(bytes) = packet.get(self.byte_range(index)) else { return };
        let Some((head, body)) = payload.split_first_chunk_mut::<FRAGMENT_HEADER_LEN>() else {
            return;
        };
        let total = (self.packet_len as u16).to_be_bytes();
        *head = [index as u8, self.fragment_count as u8, total[0], total[1]];
        if body.len() == bytes.len() {
            body.copy_from_slice(bytes);
        }
    }
}

/// A slice as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The counter of the packet's first slice: the name of the packet within its session.
    pub first_counter: u64,
    /// The place of this one, below the cut's count.
    pub index: usize,
    /// How the packet was cut.
    pub layout: FragmentLayout,
}

impl Fragment {
    /// Reads the head of `payload`, the opened part of a frame sealed under `counter`; the bytes
    /// of the packet stand behind [`FRAGMENT_HEADER_LEN`].
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the numbers contradict each other or the length.
    #[inline]
    pub fn decode(counter: u64, payload: &[u8]) -> Result<Self, DropReason> {
        let Some((&[index, count, t0, t1], body)) =
            payload.split_first_chunk::<FRAGMENT_HEADER_LEN>()
        else {
            return Err(DropReason::Malformed);
        };
        let (index, count) = (usize::from(index), usize::from(count));
        let total = usize::from(u16::from_be_bytes([t0, t1]));
        if !(2..=MAX_FRAGMENTS).contains(&count) || index >= count || body.len() >= total {
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
        let layout = FragmentLayout { packet_len: total, fragment_len: len, fragment_count: count };
        // One slice fewer would not hold the packet, and these do.
        if len * (count - 1) >= total || len * count < total {
            return Err(DropReason::Malformed);
        }
        if layout.byte_range(index).len() != body.len() {
            return Err(DropReason::Malformed);
        }
        Ok(Self { first_counter: first, index, layout })
    }
}

#[cfg(test)]
mod tests;
