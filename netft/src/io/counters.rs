//! Packet counters: one block per worker and one of the session manager, each on cache lines of
//! its own, summed when read.
//!
//! Which counters there are is declared in [`api::counters`](crate::api::counters).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use netft_proto::wire::DropReason;

use crate::api::counters::{CounterSnapshot, packet_counters};

macro_rules! define_counters {
    ($($(#[doc = $help:literal])+ $field:ident, $json:literal, $metric:literal;)+) => {
        /// One block of counters: a worker's, or the session manager's. The driver adds to the
        /// first worker's block, so every add is atomic. Anyone reads.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct Counters {
            $($(#[doc = $help])+ pub $field: AtomicU64,)+
            /// Packets dropped, by reason.
            pub drops: [AtomicU64; DropReason::ALL.len()],
        }

        impl Counters {
            /// The sum of several blocks.
            pub(crate) fn sum_blocks<'a>(
                blocks: impl Iterator<Item = &'a Self>,
            ) -> CounterSnapshot {
                let drops = DropReason::ALL.map(|reason| (reason, 0)).to_vec();
                let mut total = CounterSnapshot { drops, ..CounterSnapshot::default() };
                for block in blocks {
                    $(total.$field += block.$field.load(Relaxed);)+
                    for (reason, count) in &mut total.drops {
                        *count += block.drops[*reason as usize].load(Relaxed);
                    }
                }
                total
            }
        }
    };
}

packet_counters!(define_counters);

/// Data of one route in one direction, summed over all workers.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteCounters {
    /// Data frames: sent ones with copies and retransmissions, received ones without duplicates.
    pub frames: AtomicU64,
    /// Their bytes, as UDP payload.
    pub bytes: AtomicU64,
}

impl RouteCounters {
    /// Counts data frames.
    #[inline]
    pub(crate) fn count_frames(&self, frames: u64, bytes: u64) {
        self.frames.fetch_add(frames, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

impl Counters {
    /// Counts one drop.
    #[inline]
    pub(crate) fn count_drop(&self, reason: DropReason) {
        self.drops[reason as usize].fetch_add(1, Relaxed);
    }

    /// Counts several drops.
    #[inline]
    pub(crate) fn count_drops(&self, reason: DropReason, packets: u64) {
        self.drops[reason as usize].fetch_add(packets, Relaxed);
    }

    /// Adds to one counter, atomically: a block may have two writers.
    #[inline]
    pub(crate) fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Relaxed);
    }
}
