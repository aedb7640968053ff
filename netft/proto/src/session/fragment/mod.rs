//! Fragmentation of inner packets that are larger than a frame. Pure.
//!
//! The fragments of a packet are data frames with
//! [`FLAG_FRAGMENT`](crate::wire::header::FLAG_FRAGMENT) under consecutive counters, so `counter −
//! index` identifies the packet. All but the last carry equally many bytes, so one segmented send
//! (UDP GSO) takes them and one coalesced receive (UDP GRO) returns them together. The payload of
//! each begins with:
//!
//! ```text
//! +---------------+---------------+-------------------------------+
//! |     index     |     count     |  bytes of the packet          |
//! +---------------+---------------+-------------------------------+
//! ```
//!
//! Every fragment determines the whole layout: its offset follows from its length and these
//! numbers. Fragments with different layouts are never combined.
//!
//! A packet is lost with any of its fragments: of n datagrams that are lost independently with
//! probability p, 1 − (1 − p)^n (n = 44, p = 0.1 %: 4.3 %). So only packets that cannot be
//! segmented are fragmented, and only for a peer whose hello announces support.

pub mod reassembly;

use std::ops::Range;

use crate::wire::{DropReason, header::COUNTER_LIMIT};

/// Bytes of the fragment header.
pub const FRAGMENT_HEADER_LEN: usize = 4;
/// Maximum number of fragments of a packet: 65,535 bytes in frames of 552 bytes and more.
pub const MAX_FRAGMENTS: usize = 128;
/// Largest inner packet, bytes.
pub const MAX_PACKET_LEN: usize = 65_535;

/// Layout of the fragments of a packet, the same in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FragmentLayout {
    /// Bytes of the packet.
    packet_len: usize,
    /// Bytes of every fragment but the last, which has at least 1 and at most as many.
    fragment_len: usize,
    /// At least 2, at most [`MAX_FRAGMENTS`].
    fragment_count: usize,
}

impl FragmentLayout {
    /// Layout of a packet of `total` bytes in frames with `room` bytes of payload.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] when it needs more than [`MAX_FRAGMENTS`].
    pub fn new(total: usize, room: usize) -> Result<Self, DropReason> {
        // A packet that fits is sent in one frame, never as a single fragment.
        let len = room.saturating_sub(FRAGMENT_HEADER_LEN).min(total.saturating_sub(1));
        let count = total.checked_div(len).map_or(0, |_| total.div_ceil(len));
        if !(2..=MAX_FRAGMENTS).contains(&count) || total > MAX_PACKET_LEN {
            return Err(DropReason::TooBig);
        }
        Ok(Self { packet_len: total, fragment_len: len, fragment_count: count })
    }

    /// Largest packet that fits into fragments with `room` bytes of payload.
    pub fn max_packet_len(room: usize) -> usize {
        (room.saturating_sub(FRAGMENT_HEADER_LEN) * MAX_FRAGMENTS)
            .clamp(room, MAX_PACKET_LEN.max(room))
    }

    /// Number of fragments.
    #[inline]
    pub const fn fragment_count(&self) -> usize {
        self.fragment_count
    }

    /// Bytes of the packet.
    #[inline]
    pub const fn packet_len(&self) -> usize {
        self.packet_len
    }

    /// Range of fragment `index` (below [`fragment_count`](Self::fragment_count)) in the packet.
    #[inline]
    pub fn byte_range(&self, index: usize) -> Range<usize> {
        let start = index * self.fragment_len;
        start..(start + self.fragment_len).min(self.packet_len)
    }

    /// Writes fragment `index` of `packet` into `payload`, which has [`FRAGMENT_HEADER_LEN`] bytes
    /// more than the fragment; nothing when either does not fit.
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

/// Decoded header of a received fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Counter of the first fragment of the packet: identifies the packet within its session.
    pub first_counter: u64,
    /// Index of this fragment, below the layout's count.
    pub index: usize,
    /// Layout of the packet.
    pub layout: FragmentLayout,
}

impl Fragment {
    /// Decodes the header of `payload`, the opened part of a frame sealed under `counter`; the
    /// bytes of the packet follow after [`FRAGMENT_HEADER_LEN`].
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the numbers contradict each other or the length, or the
    /// packet's counters would not end below [`COUNTER_LIMIT`].
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
        if first > COUNTER_LIMIT - count as u64 {
            return Err(DropReason::Malformed);
        }
        let layout = FragmentLayout { packet_len: total, fragment_len: len, fragment_count: count };
        // One fragment fewer would not hold the packet, and these do.
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
