//! The resend ring's memory: sealed frames stay where they were sealed until they are acknowledged.
//!
//! Nothing is copied: [`TxBatch`](crate::io::datapath::tx_batch::TxBatch) seals into a chunk, and
//! the ring remembers which part of it was one send. A chunk whose sends are all done is the next
//! to be used, so in good times a few chunks circulate in the cache. What is sent again, when and
//! where, is decided in [`route::sent_frames`](netft_proto::loss_detection).

use std::sync::Arc;

use netft_proto::{
    ids::PeerId,
    loss_detection::{BatchLayout, RetransmitLimits, SentFrames},
    session::Session,
    time::Time,
    wire::header::FrameHeader,
};

use crate::io::datapath::frame_arena::{FrameArena, PAGE_SIZE};

/// The place of one send in the chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArenaSpan {
    pub(super) chunk: usize,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) stride: usize,
}

impl ArenaSpan {
    /// What the flight is told of the send; `bytes` are its frames, all sealed.
    pub(super) fn to_frames(self, bytes: &[u8]) -> BatchLayout {
        let count = self.len.div_ceil(self.stride);
        BatchLayout {
            first: frame_counter(bytes, self.stride, 0),
            last: frame_counter(bytes, self.stride, count - 1),
            count: count as u32,
            // Sends start a whole number of pages apart.
            bytes: self.len.next_multiple_of(PAGE_SIZE),
            stride: self.stride,
            tail: self.len - (count - 1) * self.stride,
        }
    }
}

/// The counter of the nth frame.
fn frame_counter(bytes: &[u8], stride: usize, frame: usize) -> u64 {
    let frame = bytes.get(frame * stride..).unwrap_or_default();
    FrameHeader::decode(frame).map_or(0, |header| header.counter)
}

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
