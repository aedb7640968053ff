//! Packet counters: one block per worker and one of the session manager, each on cache lines of
//! its own, summed when read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use netft_proto::wire::DropReason;

/// One block of counters: a worker's, or the session manager's. The driver adds to the first
/// worker's block, so every add is atomic. Anyone reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Inner packets taken from the adapter (a super-packet counts once).
    pub adapter_reads: AtomicU64,
    /// Inner bytes taken from the adapter.
    pub tx_bytes: AtomicU64,
    /// Frames sent.
    pub tx_frames: AtomicU64,
    /// Frames received and authentic.
    pub rx_frames: AtomicU64,
    /// Inner bytes written to the adapter.
    pub rx_bytes: AtomicU64,
    /// Writes to the adapter (a coalesced super-packet counts once).
    pub adapter_writes: AtomicU64,
    /// Datagrams the kernel dropped because a socket's buffer was full (`SO_RXQ_OVFL`).
    pub socket_overflow: AtomicU64,
    /// Frames sent again on another route because nothing acknowledged them.
    pub resent_frames: AtomicU64,
    /// Frames sent on a second route too: the first was suspect, or the policy says so.
    pub duplicated_frames: AtomicU64,
    /// Acknowledgements sent.
    pub acks_sent: AtomicU64,
    /// Frames forgotten unacknowledged, because the resend ring was full or they were too old.
    pub ring_overflow: AtomicU64,
    /// Datagrams of others passed on.
    pub relayed_frames: AtomicU64,
    /// Challenges sent to addresses heartbeats came from and no route leads to.
    pub challenges_sent: AtomicU64,
    /// Packets dropped, by reason.
    pub drops: [AtomicU64; DropReason::ALL.len()],
}

/// What the packet path sent on one route, added up by all workers.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteCounters {
    /// Data frames, copies and resends among them.
    pub frames: AtomicU64,
    /// Their bytes, as UDP payload.
    pub bytes: AtomicU64,
}

impl Counters {
    /// Counts one drop.
    #[inline]
    pub fn count_drop(&self, reason: DropReason) {
        self.drops[reason as usize].fetch_add(1, Relaxed);
    }

    /// Adds to one counter, atomically: a block may have two writers.
    #[inline]
    pub fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Relaxed);
    }
}
