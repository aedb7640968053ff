//! Packets some of whose slices are still missing.

use std::{collections::VecDeque, time::Duration};

use crate::{
    session::fragment::{Fragment, FragmentLayout},
    time::Time,
    wire::DropReason,
};

/// The most incomplete packets of a session, of at most 64 KiB each: with a spare one, 1 MiB
/// (reliability W-06).
pub const MAX_PARTIAL_PACKETS: usize = 15;
/// How long a packet waits for its slices.
pub const REASSEMBLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The incomplete packets of one session. A packet that is too old goes, and the oldest when
/// there are too many; each counts as one drop.
#[derive(Debug, Default)]
pub struct ReassemblyBuffer {
    /// Oldest first.
    partial_packets: VecDeque<PartialPacket>,
    /// Memory of a packet that is done, for the next one.
    spare: Vec<u8>,
}

/// What a slice led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FragmentOutcome {
    /// The packet this slice made whole.
    pub completed: Option<Vec<u8>>,
    /// Packets given up for it.
    pub discarded: u64,
}

#[derive(Debug)]
struct PartialPacket {
    first_counter: u64,
    flags: u8,
    layout: FragmentLayout,
    since: Time,
    /// Bit n: slice n is here.
    received: u128,
    missing: usize,
    bytes: Vec<u8>,
}

impl ReassemblyBuffer {
    /// Takes a slice: `body` is what stands behind its head, `flags` are its frame's. Nothing is
    /// kept of a slice that is refused.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when it contradicts what an earlier slice of the packet said, or
    /// was here already.
    pub fn add_fragment(
        &mut self,
        now: Time,
        fragment: &Fragment,
        flags: u8,
        body: &[u8],
    ) -> Result<FragmentOutcome, DropReason> {
        let Fragment { first_counter: first, index, layout: cut } = *fragment;
        let mut added =
            FragmentOutcome { completed: None, discarded: self.expire_partial_packets(now) };
        // A frame belongs to one packet: layouts that claim the same counter contradict.
        let end = |first: u64, cut: FragmentLayout| first.saturating_add(cut.fragment_count as u64);
        let overlaps = |known: &PartialPacket| {
            first < end(known.first_counter, known.layout) && known.first_counter < end(first, cut)
        };
        let place = match self.partial_packets.iter().position(overlaps) {
            Some(place) => place,
            None => {
                if self.partial_packets.len() == MAX_PARTIAL_PACKETS {
                    self.evict_oldest();
                    added.discarded += 1;
                }
                self.start_packet(now, first, cut, flags);
                self.partial_packets.len() - 1
            }
        };
        let Some(known) = self.partial_packets.get_mut(place) else { return Ok(added) };
        let same = (known.first_counter, known.layout, known.flags) == (first, cut, flags);
        let room =
            known.bytes.get_mut(cut.byte_range(index)).filter(|room| room.len() == body.len());
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

    /// Gives up what waits for longer than [`REASSEMBLY_TIMEOUT`]. Returns how many packets that
    /// were.
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

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.partial_packets.is_empty()
    }

    /// Packets that wait, and bytes of memory.
    #[cfg(test)]
    pub(crate) fn memory_usage(&self) -> (usize, usize) {
        let bytes = self.partial_packets.iter().map(|known| known.bytes.capacity()).sum::<usize>();
        (self.partial_packets.len(), bytes + self.spare.capacity())
    }

    /// Takes the memory of a packet back, for the next one.
    pub fn recycle_buffer(&mut self, bytes: Vec<u8>) {
        self.spare = bytes;
    }

    fn start_packet(&mut self, now: Time, first: u64, layout: FragmentLayout, flags: u8) {
        let mut bytes = std::mem::take(&mut self.spare);
        // What an earlier packet left is overwritten: no packet leaves before it is whole.
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
