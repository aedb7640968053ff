//! Parts of a session that stand beside its keys: counter space, acknowledgement state, loss
//! counters, the shared reassembly buffer. Each is shared by every worker.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{
        AtomicBool, AtomicU16, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use arc_swap::ArcSwapOption;

use crate::{
    session::{
        fragment::{
            Fragment,
            reassembly::{FragmentOutcome, ReassemblyBuffer, SavedPartialPacket},
        },
        path_arrivals::PathArrivals,
    },
    time::Time,
    wire::{DropReason, ack::Ack},
};

/// Frame counters of the sending direction, each reserved once.
pub(super) struct CounterSpace {
    next: AtomicU64,
    limit: u64,
}

impl CounterSpace {
    pub(super) fn new(limit: u64) -> Self {
        Self { next: AtomicU64::new(0), limit }
    }

    /// The space of a predecessor process, from `next` on.
    pub(super) fn resumed(limit: u64, next: u64) -> Self {
        Self { next: AtomicU64::new(next), limit }
    }

    /// The next counter: none from it on was reserved.
    pub(super) fn next_counter(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Upper bound of the counters.
    #[inline]
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn is_half_used(&self) -> bool {
        self.next.load(Relaxed) >= self.limit / 2
    }

    #[inline]
    pub(super) fn reserve_counters(&self, count: u64) -> Result<u64, DropReason> {
        // The check before the addition keeps refused callers from adding for ever, so that the sum
        // of all reservations in progress (workers × count) never comes near a wrap.
        if count > self.limit || self.next.load(Relaxed) >= self.limit {
            return Err(DropReason::KeyExhausted);
        }
        let first = self.next.fetch_add(count, Relaxed);
        if first + count > self.limit {
            return Err(DropReason::KeyExhausted);
        }
        Ok(first)
    }
}

/// Acknowledgement state: the highest data counter received, and the peer's latest acknowledgement.
#[derive(Default)]
pub(super) struct AckState {
    /// The highest data counter accepted, plus one; 0 before the first.
    data_counter_end: AtomicU64,
    latest_ack: ArcSwapOption<Ack>,
    ack_count: AtomicU64,
    /// The immediate-acknowledgement request the peer answered last; 0: none.
    last_immediate_ack: AtomicU16,
    /// Data frames that arrived on each route.
    pub(super) arrivals: PathArrivals,
}

impl AckState {
    pub(super) fn record_received(&self, highest: u64) {
        self.data_counter_end.fetch_max(highest + 1, Relaxed);
    }

    pub(super) fn highest_received(&self) -> Option<u64> {
        self.data_counter_end.load(Relaxed).checked_sub(1)
    }

    pub(super) fn on_ack_received(&self, ack: Ack) {
        let answered = ack.immediate_ack_reply;
        self.latest_ack.store(Some(Arc::new(ack)));
        self.ack_count.fetch_add(1, Release);
        if answered != 0 {
            self.last_immediate_ack.store(answered, Release);
        }
    }

    pub(super) fn last_immediate_ack(&self) -> u16 {
        self.last_immediate_ack.load(Acquire)
    }

    pub(super) fn poll_ack(&self, seen: &mut u64) -> Option<Arc<Ack>> {
        let acks = self.ack_count.load(Acquire);
        if std::mem::replace(seen, acks) == acks {
            return None;
        }
        self.latest_ack.load_full()
    }
}

/// Frames sent twice, and frames given up, by all workers.
#[derive(Default)]
pub(super) struct SessionLossCounters {
    duplicated_frames: AtomicU64,
    lost_frames: AtomicU64,
}

impl SessionLossCounters {
    pub(super) fn record_duplicated(&self, frames: u64) {
        self.duplicated_frames.fetch_add(frames, Relaxed);
    }

    pub(super) fn record_lost(&self, frames: u64) {
        self.lost_frames.fetch_add(frames, Relaxed);
    }

    pub(super) fn loss_counts(&self) -> (u64, u64) {
        (self.duplicated_frames.load(Relaxed), self.lost_frames.load(Relaxed))
    }
}

/// The reassembly buffer behind its lock, with a flag that spares idle workers the lock.
#[derive(Default)]
pub(super) struct SharedReassembly {
    buffer: Mutex<ReassemblyBuffer>,
    has_partial_packets: AtomicBool,
}

impl SharedReassembly {
    pub(super) fn to_saved(&self) -> Vec<SavedPartialPacket> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner).to_saved()
    }

    pub(super) fn from_saved(saved: &[SavedPartialPacket]) -> Self {
        let buffer = ReassemblyBuffer::from_saved(saved);
        let has_partial_packets = AtomicBool::new(!buffer.is_empty());
        Self { buffer: Mutex::new(buffer), has_partial_packets }
    }

    pub(super) fn add_fragment(
        &self,
        now: Time,
        fragment: &Fragment,
        flags: u8,
        body: &[u8],
    ) -> Result<FragmentOutcome, DropReason> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let added = buffer.add_fragment(now, fragment, flags, body);
        self.has_partial_packets.store(!buffer.is_empty(), Relaxed);
        added
    }

    #[inline]
    pub(super) fn expire_partial_packets(&self, now: impl FnOnce() -> Time) -> u64 {
        if !self.has_partial_packets.load(Relaxed) {
            return 0;
        }
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = buffer.expire_partial_packets(now());
        self.has_partial_packets.store(!buffer.is_empty(), Relaxed);
        lost
    }

    pub(super) fn recycle_buffer(&self, bytes: Vec<u8>) {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner).recycle_buffer(bytes);
    }
}
