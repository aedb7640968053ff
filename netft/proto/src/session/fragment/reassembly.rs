//! Packets some of whose slices are still missing.

use std::{collections::VecDeque, time::Duration};

use crate::{
    session::fragment::{Cut, Slice},
    time::Time,
    wire::DropReason,
};

/// The most incomplete packets of a session, of at most 64 KiB each: with a spare one, 1 MiB
/// (reliability W-06).
pub const MAX_PACKETS: usize = 15;
/// How long a packet waits for its slices.
pub const MAX_AGE: Duration = Duration::from_secs(1);

/// The incomplete packets of one session. A packet that is too old goes, and the oldest when
/// there are too many; each counts as one drop.
#[derive(Debug, Default)]
pub struct Assembly {
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    /// Memory of a packet that is done, for the next one.
    spare: Vec<u8>,
}

/// What a slice led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// The packet this slice made whole.
    pub whole: Option<Vec<u8>>,
    /// Packets given up for it.
    pub lost: u64,
}

#[derive(Debug)]
struct Waiting {
    first: u64,
    flags: u8,
    cut: Cut,
    since: Time,
    /// Bit n: slice n is here.
    here: u128,
    missing: usize,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Takes a slice: `body` is what stands behind its head, `flags` are its frame's. Nothing is
    /// kept of a slice that is refused.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when it contradicts what an earlier slice of the packet said, or
    /// was here already.
    pub fn add(
        &mut self,
        now: Time,
        slice: &Slice,
        flags: u8,
        body: &[u8],
    ) -> Result<Added, DropReason> {
        let Slice { first, index, cut } = *slice;
        let mut added = Added { whole: None, lost: self.expire(now) };
        // A frame belongs to one packet: layouts that claim the same counter contradict.
        let end = |first: u64, cut: Cut| first.saturating_add(cut.count as u64);
        let overlaps =
            |known: &Waiting| first < end(known.first, known.cut) && known.first < end(first, cut);
        let place = match self.waiting.iter().position(overlaps) {
            Some(place) => place,
            None => {
                if self.waiting.len() == MAX_PACKETS {
                    self.forget_oldest();
                    added.lost += 1;
                }
                self.start(now, first, cut, flags);
                self.waiting.len() - 1
            }
        };
        let Some(known) = self.waiting.get_mut(place) else { return Ok(added) };
        let same = (known.first, known.cut, known.flags) == (first, cut, flags);
        let room = known.bytes.get_mut(cut.range(index)).filter(|room| room.len() == body.len());
        let (true, Some(room)) = (same && known.here & (1 << index) == 0, room) else {
            return Err(DropReason::Malformed);
        };
        room.copy_from_slice(body);
        known.here |= 1 << index;
        known.missing -= 1;
        if known.missing == 0 {
            added.whole = self.waiting.remove(place).map(|done| done.bytes);
        }
        Ok(added)
    }

    /// Gives up what waits for longer than [`MAX_AGE`]. Returns how many packets that were.
    pub fn expire(&mut self, now: Time) -> u64 {
        let mut lost = 0;
        while self.waiting.front().is_some_and(|oldest| now.since(oldest.since) > MAX_AGE) {
            self.forget_oldest();
            lost += 1;
        }
        lost
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Packets that wait, and bytes of memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        let bytes = self.waiting.iter().map(|known| known.bytes.capacity()).sum::<usize>();
        (self.waiting.len(), bytes + self.spare.capacity())
    }

    /// Takes the memory of a packet back, for the next one.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        self.spare = bytes;
    }

    fn start(&mut self, now: Time, first: u64, cut: Cut, flags: u8) {
        let mut bytes = std::mem::take(&mut self.spare);
        // What an earlier packet left is overwritten: no packet leaves before it is whole.
        bytes.resize(cut.total, 0);
        let missing = cut.count;
        self.waiting.push_back(Waiting { first, flags, cut, since: now, here: 0, missing, bytes });
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.waiting.pop_front() {
            self.spare = oldest.bytes;
        }
    }
}
