//! A session as one process leaves it to the next. Pure.
//!
//! Keys, counters and the replay window go along, so the peer sees one session. The counter
//! continues [`COUNTER_RESERVE`] higher: a frame of the former process that left after its counters
//! were read would have another counter than every frame of this one.

use crate::session::{
    fragment::reassembly::SavedPartialPacket,
    keys::{Cipher, SavedKeys},
};

/// Counters that are left out at a hand-over. Well below the span of an acknowledgement: the
/// acknowledgements of frames after the gap still cover those before it.
pub const COUNTER_RESERVE: u64 = 1024;

/// A session that was saved cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session of the former process cannot be used")]
pub struct UnusableSession;

/// The state of a session. Its keys are wiped when it is dropped.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedSession {
    /// This node's id of the session.
    pub local_id: u32,
    pub(super) remote_id: u32,
    pub(super) boot_id: u64,
    pub(super) cipher: Cipher,
    pub(super) accepts_fragments: bool,
    pub(super) next_counter: u64,
    pub(super) tx: SavedKeys,
    pub(super) rx: SavedKeys,
    /// The replay window. Not part of the serialised form: it is large.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub replay: Vec<u8>,
    /// The highest data counter accepted.
    pub(super) highest_received: Option<u64>,
    /// By route: data frames received here, reported by the peer, and acknowledged.
    pub(super) arrivals: Vec<(u32, u64, u64, u64)>,
    /// Frames sent on two routes, and given up.
    pub(super) loss: (u64, u64),
    pub(super) partial_packets: Vec<SavedPartialPacket>,
}

impl SavedSession {
    /// The first counter that the next process uses.
    pub const fn resumed_counter(&self) -> u64 {
        self.next_counter.saturating_add(COUNTER_RESERVE)
    }

    /// Bytes of the partial packets.
    pub fn partial_packet_bytes(&self) -> usize {
        self.partial_packets.iter().map(SavedPartialPacket::byte_count).sum()
    }
}
