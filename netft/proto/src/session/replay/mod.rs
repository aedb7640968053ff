//! The replay window: each session counter is accepted at most once. Pure and lock-free; all
//! workers of a session share one.
//!
//! A ring of [`SLOT_COUNT`] words, each for one block of 32 counters at a time:
//!
//! ```text
//! counter = lap (bits 17–47) | slot (bits 5–16) | bit (bits 0–4)
//! word    = lap (high 32 bits) | one bit per accepted counter (low 32 bits)
//! ```
//!
//! A counter compares its lap with that of its slot. An older lap in the slot: one compare-and-swap
//! replaces it by this lap with this one bit. The same lap: test and set the bit. A newer lap: the
//! counter is behind the window and refused. A zeroed ring is lap 0 with nothing accepted, so an
//! empty slot needs no mark, and a page that is not allocated yet reads as zeros.
//!
//! No highest counter is kept, which makes it lock-free. Nothing is accepted
//! twice, because a slot's lap only grows: after a counter was accepted its slot either still is of
//! its lap, with its bit set, or of a newer one; both refuse it. Each verdict is one atomic
//! read-modify-write of one word, so two threads with the same counter cannot both win, and no
//! other memory is published through the word: relaxed ordering suffices.
//!
//! A counter can be too old only when a counter of its slot's next lap was accepted, which is at
//! least 32 × [`SLOT_COUNT`] − 31 higher. So anything up to [`REPLAY_WINDOW`] behind the newest
//! accepted counter is judged exactly. A counter older than that and never seen may still be
//! accepted once, while its slot has not been taken over; the key epochs of the session bound how
//! old it can be.

use std::{
    cmp::Ordering::{Equal, Greater, Less},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::wire::{ack::AckRange, header::COUNTER_LIMIT};

/// Counters of one slot.
const SLOT_BITS: u64 = u32::BITS as u64;
/// Words of the ring: 32 KiB per session once all of it is used. Pages are allocated with their
/// first counter: a session that carries heartbeats only uses one for minutes.
pub const SLOT_COUNT: usize = 4096;
/// Window behind the newest accepted counter in which every counter is judged exactly: 131,040. At
/// 1,000,000 frames per second it covers a delay difference of 131 ms between two routes.
pub const REPLAY_WINDOW: u64 = (SLOT_COUNT as u64 - 1) * SLOT_BITS;
/// Span of an acknowledgement, counters: 8 ms at 1,000,000 frames per second, more than the delay
/// of an acknowledgement.
pub const ACK_SPAN: u64 = 8192;
/// Accepted counters of one direction of one session.
pub struct ReplayWindow {
    pages: [OnceLock<Box<ReplayPage>>; SLOT_COUNT / PAGE_SLOTS],
}

/// Words of a page of the ring: 4 KiB.
const PAGE_SLOTS: usize = 512;

type ReplayPage = [AtomicU64; PAGE_SLOTS];

/// Position of a counter in the ring.
struct SlotPosition {
    slot: usize,
    lap: u64,
    bit: u64,
}

impl ReplayWindow {
    /// An empty window.
    pub fn new() -> Self {
        Self { pages: [const { OnceLock::new() }; SLOT_COUNT / PAGE_SLOTS] }
    }

    /// Returns whether [`accept`](Self::accept) would refuse `counter` at this moment.
    #[cfg(test)]
    pub(crate) fn is_replayed(&self, counter: u64) -> bool {
        if counter >= COUNTER_LIMIT {
            return true;
        }
        let SlotPosition { slot: number, lap, bit } = slot_position(counter);
        let Some(page) = self.pages[number / PAGE_SLOTS].get() else { return false };
        let word = page[number % PAGE_SLOTS].load(Relaxed);
        match (word >> 32).cmp(&lap) {
            Less => false,
            Equal => word & bit != 0,
            Greater => true,
        }
    }

    /// Accepts `counter`: true exactly once per counter, over all threads. Only for authentic
    /// frames: a forged counter would evict genuine ones. Always false from [`COUNTER_LIMIT`] on.
    #[inline]
    pub fn accept(&self, counter: u64) -> bool {
        if counter >= COUNTER_LIMIT {
            return false;
        }
        let SlotPosition { slot: number, lap, bit } = slot_position(counter);
        let slot = &self.pages[number / PAGE_SLOTS].get_or_init(new_page)[number % PAGE_SLOTS];
        let mut word = slot.load(Relaxed);
        loop {
            let new = match (word >> 32).cmp(&lap) {
                Less => lap << 32 | bit,
                Equal if word & bit == 0 => word | bit,
                Equal | Greater => return false,
            };
            match slot.compare_exchange_weak(word, new, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(changed) => word = changed,
            }
        }
    }

    /// The words, for a successor process: as many bytes as the pages in use need.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let in_use = self.pages.iter().rposition(|page| page.get().is_some());
        let mut bytes = Vec::with_capacity(SLOT_COUNT * 8);
        for page in self.pages.iter().take(in_use.map_or(0, |last| last + 1)) {
            match page.get() {
                Some(page) => {
                    page.iter().for_each(|word| bytes.extend(word.load(Relaxed).to_le_bytes()));
                }
                None => bytes.resize(bytes.len() + PAGE_SLOTS * 8, 0),
            }
        }
        bytes
    }

    /// The window with the words of a predecessor process; `None` if they are not those of a
    /// window.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let window = Self::new();
        let (pages, rest) = bytes.as_chunks::<{ PAGE_SLOTS * 8 }>();
        if !rest.is_empty() || pages.len() > window.pages.len() {
            return None;
        }
        for (page, bytes) in window.pages.iter().zip(pages) {
            let page = page.get_or_init(new_page);
            for (slot, word) in page.iter().zip(bytes.as_chunks::<8>().0) {
                slot.store(u64::from_le_bytes(*word), Relaxed);
            }
        }
        Some(window)
    }

    /// Ranges of accepted counters from `highest` down, newest first, at most `limit` ranges and
    /// [`ACK_SPAN`] counters: the content of an acknowledgement.
    pub fn accepted_ranges(&self, highest: u64, limit: usize) -> Vec<AckRange> {
        let mut ranges = Vec::with_capacity(limit.min(4));
        let mut open: Option<AckRange> = None;
        let top = highest / SLOT_BITS;
        for block in (0..=top).rev().take((ACK_SPAN / SLOT_BITS) as usize) {
            let base = block * SLOT_BITS;
            // Control frames above the highest data frame use the same counters.
            let above = if block == top { SLOT_BITS - 1 - highest % SLOT_BITS } else { 0 };
            let bits = self.block_bits(block) & (u32::MAX >> above);
            if bits == u32::MAX {
                let last = open.map_or(base + SLOT_BITS - 1, |run| run.last);
                open = Some(AckRange { first: base, last });
                continue;
            }
            for bit in (0..SLOT_BITS).rev() {
                let counter = base + bit;
                if bits & (1 << bit) != 0 {
                    let last = open.map_or(counter, |run| run.last);
                    open = Some(AckRange { first: counter, last });
                } else if let Some(run) = open.take() {
                    ranges.push(run);
                    if ranges.len() == limit {
                        return ranges;
                    }
                }
            }
        }
        ranges.extend(open);
        ranges
    }

    /// Bits of one block; none when its slot is of another lap.
    fn block_bits(&self, block: u64) -> u32 {
        let SlotPosition { slot: number, lap, .. } = slot_position(block * SLOT_BITS);
        let page = self.pages[number / PAGE_SLOTS].get();
        let word = page.map_or(0, |page| page[number % PAGE_SLOTS].load(Relaxed));
        if word >> 32 == lap { word as u32 } else { 0 }
    }
}

#[inline]
const fn slot_position(counter: u64) -> SlotPosition {
    let block = counter / SLOT_BITS;
    let number = block as usize % SLOT_COUNT;
    SlotPosition { slot: number, lap: block / SLOT_COUNT as u64, bit: 1 << (counter % SLOT_BITS) }
}

#[cold]
fn new_page() -> Box<ReplayPage> {
    Box::new([const { AtomicU64::new(0) }; PAGE_SLOTS])
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
