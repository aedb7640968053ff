//! Reassembly of fragmented packets.

use std::{collections::VecDeque, time::Duration};

use crate::{
    session::fragment::{Fragment, FragmentLayout, MAX_FRAGMENTS},
    time::Time,
    wire::DropReason,
};

/// Maximum number of partial packets of a session, of at most 64 KiB each: with a spare buffer,
/// 1 MiB (W-06).
pub const MAX_PARTIAL_PACKETS: usize = 15;
/// Timeout of a partial packet.
pub const REASSEMBLY_TIMEOUT: Duration = Duration::from_secs(1);

/// Partial packets of one session. A packet is discarded when it times out, and the oldest when the
/// buffer is full; each counts as one drop.
#[derive(Debug, Default)]
pub struct ReassemblyBuffer {
    /// Oldest first.
    partial_packets: VecDeque<PartialPacket>,
    /// Memory of a completed or discarded packet, for the next one.
    spare: Vec<u8>,
}

/// Result of adding a fragment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FragmentOutcome {
    /// The packet that this fragment completed.
    pub completed: Option<Vec<u8>>,
    /// Number of partial packets discarded for it.
    pub discarded: u64,
}

/// A partial packet, for a successor process.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct SavedPartialPacket {
    first_counter: u64,
    flags: u8,
    layout: FragmentLayout,
    since: Time,
    /// The halves of the mask of fragments that arrived, low one first.
    received: [u64; 2],
    bytes: Vec<u8>,
}

impl SavedPartialPacket {
    pub(crate) fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    fn is_consistent(&self) -> bool {
        let mask = u128::from(self.received[0]) | u128::from(self.received[1]) << 64;
        self.bytes.len() == self.layout.packet_len
            && self.layout.fragment_count <= MAX_FRAGMENTS
            && (mask.count_ones() as usize) < self.layout.fragment_count
    }
}

#[derive(Debug)]
struct PartialPacket {
    first_counter: u64,
    flags: u8,
    layout: FragmentLayout,
    since: Time,
    /// Bit n: fragment n has arrived.
    received: u128,
    missing: usize,
    bytes: Vec<u8>,
}

impl ReassemblyBuffer {
    /// Adds a fragment: `body` follows its header, `flags` are those of its frame. A refused
    /// fragment leaves no trace.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] for a duplicate, or a layout that contradicts that of an earlier
    /// fragment of the packet.
    pub fn add_fragment(
        &mut self,
        now: Time,
        fragment: &Fragment,
        flags: u8,
        body: &[u8],
    ) -> Result<FragmentOutcome, DropReason> {
        let Fragment { first_counter: first, index, layout } = *fragment;
        let mut added =
            FragmentOutcome { completed: None, discarded: self.expire_partial_packets(now) };
        // A frame belongs to one packet: layouts that claim the same counter contradict.
        let end = |first: u64, layout: FragmentLayout| first + layout.fragment_count as u64;
        let overlaps = |known: &PartialPacket| {
            first < end(known.first_counter, known.layout)
                && known.first_counter < end(first, layout)
        };
        let place = match self.partial_packets.iter().position(overlaps) {
            Some(place) => place,
            None => {
                if self.partial_packets.len() == MAX_PARTIAL_PACKETS {
                    self.evict_oldest();
                    added.discarded += 1;
                }
                self.start_packet(now, first, layout, flags);
                self.partial_packets.len() - 1
            }
        };
        let Some(known) = self.partial_packets.get_mut(place) else { return Ok(added) };
        let same = (known.first_counter, known.layout, known.flags) == (first, layout, flags);
        let room =
            known.bytes.get_mut(layout.byte_range(index)).filter(|room| room.len() == body.len());
        let (true, Some(room)) = (same && known.received & (1 << index) == 0, room) else {
            return Err(DropReason::Malformed);
        };
        room.copy_from_slice(body);
        known.received |= 1 << index;
        known.missing -= 1;
        if known.missing == 0 {
            added.completed = self.partial_packets.remove(place).map(|done| done.bytes);
        }
        Ok(added)
    }

    /// Discards packets older than [`REASSEMBLY_TIMEOUT`]. Returns how many.
    pub fn expire_partial_packets(&mut self, now: Time) -> u64 {
        let mut lost = 0;
        while self
            .partial_packets
            .front()
            .is_some_and(|oldest| now.since(oldest.since) > REASSEMBLY_TIMEOUT)
        {
            self.evict_oldest();
            lost += 1;
        }
        lost
    }

    /// The partial packets for a successor process.
    pub(crate) fn to_saved(&self) -> Vec<SavedPartialPacket> {
        let save = |known: &PartialPacket| SavedPartialPacket {
            first_counter: known.first_counter,
            flags: known.flags,
            layout: known.layout,
            since: known.since,
            received: [known.received as u64, (known.received >> 64) as u64],
            bytes: known.bytes.clone(),
        };
        self.partial_packets.iter().map(save).collect()
    }

    /// The partial packets of a predecessor process; those that contradict themselves are left out.
    pub(crate) fn from_saved(saved: &[SavedPartialPacket]) -> Self {
        let restore = |saved: &SavedPartialPacket| {
            let received = u128::from(saved.received[0]) | u128::from(saved.received[1]) << 64;
            PartialPacket {
                first_counter: saved.first_counter,
                flags: saved.flags,
                layout: saved.layout,
                since: saved.since,
                received,
                missing: saved.layout.fragment_count - received.count_ones() as usize,
                bytes: saved.bytes.clone(),
            }
        };
        let consistent = saved.iter().filter(|saved| saved.is_consistent());
        let partial_packets = consistent.take(MAX_PARTIAL_PACKETS).map(restore).collect();
        Self { partial_packets, spare: Vec::new() }
    }

    /// Returns whether there are no partial packets.
    pub fn is_empty(&self) -> bool {
        self.partial_packets.is_empty()
    }

    /// Number of partial packets, and bytes of memory.
    #[cfg(test)]
    pub(crate) fn memory_usage(&self) -> (usize, usize) {
        let bytes = self.partial_packets.iter().map(|known| known.bytes.capacity()).sum::<usize>();
        (self.partial_packets.len(), bytes + self.spare.capacity())
    }

    /// Takes back the memory of a completed packet, for the next one.
    pub fn recycle_buffer(&mut self, bytes: Vec<u8>) {
        self.spare = bytes;
    }

    fn start_packet(&mut self, now: Time, first: u64, layout: FragmentLayout, flags: u8) {
        let mut bytes = std::mem::take(&mut self.spare);
        // Bytes of an earlier packet are overwritten: a packet is returned only when complete.
        bytes.resize(layout.packet_len, 0);
        let missing = layout.fragment_count;
        self.partial_packets.push_back(PartialPacket {
            first_counter: first,
            flags,
            layout,
            since: now,
            received: 0,
            missing,
            bytes,
        });
    }

    fn evict_oldest(&mut self) {
        if let Some(oldest) = self.partial_packets.pop_front() {
            self.spare = oldest.bytes;
        }
    }
}
