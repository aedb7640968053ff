//! The resend ring's memory: sealed frames stay where they were sealed until they are acknowledged.
//!
//! Nothing is copied: [`TxBatch`](crate::io::datapath::tx_batch::TxBatch) seals into a chunk, and
//! the ring remembers which part of it was one send. A chunk whose sends are all done is the next
//! to be used, so in good times a few chunks circulate in the cache. What is sent again, when and
//! where, is decided in [`route::sent_frames`](netft_proto::loss_detection).

use std::sync::Arc;

use netft_proto::{
    ids::PeerId,
    loss_detection::{RetransmitLimits, SentFrames},
    session::Session,
    time::Time,
};

use crate::io::datapath::frame_arena::{ArenaSpan, FrameArena, frame_counter};

/// What waits for one session's acknowledgements.
pub(super) struct RetransmitBuffer {
    pub(super) peer: PeerId,
    pub(super) session: Arc<Session>,
    seen_ack_version: u64,
    pub(super) sent_frames: SentFrames<ArenaSpan>,
}

impl RetransmitBuffer {
    pub(super) fn new(session: Arc<Session>, limits: RetransmitLimits) -> Self {
        Self {
            peer: session.peer(),
            session,
            seen_ack_version: 0,
            sent_frames: SentFrames::new(limits),
        }
    }

    /// Takes in the peer's acknowledgement and forgets what is too old. `done` gets the chunk of
    /// every send that is finished. Returns how many frames were forgotten unacknowledged.
    pub(super) fn process_acks(
        &mut self,
        now: Time,
        chunks: &FrameArena,
        done: &mut Vec<usize>,
    ) -> u64 {
        self.sent_frames.on_ack_request_answered(self.session.last_immediate_ack());
        if let Some(ack) = self.session.poll_ack(&mut self.seen_ack_version) {
            let counter = |place: &ArenaSpan, n: u32| {
                frame_counter(chunks.span_bytes(*place), place.stride, n as usize)
            };
            self.sent_frames.on_ack_received(now, &ack, counter, |place| done.push(place.chunk));
        }
        self.sent_frames.discard_expired(now, |place| done.push(place.chunk))
    }
}
