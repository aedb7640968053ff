//! The resend ring's memory: sealed frames stay where they were sealed until they are acknowledged.
//!
//! Nothing is copied: [`Out`](crate::io::datapath::tx_batch::Out) seals into a chunk, and the ring remembers which
//! part of it was one send. A chunk whose sends are all done is the next to be used, so in good
//! times a few chunks circulate in the cache. What is sent again, when and where, is decided in
//! [`route::flight`](netft_proto::loss_detection).

use std::sync::Arc;

use netft_proto::{
    ids::PeerId,
    loss_detection::{Flight, Frames, Limits},
    session::Session,
    time::Time,
    wire::header::Header,
};

use crate::io::datapath::frame_arena::{Chunks, PAGE};

/// The place of one send in the chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) chunk: usize,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) stride: usize,
}

impl Place {
    /// What the flight is told of the send; `bytes` are its frames, all sealed.
    pub(super) fn frames(self, bytes: &[u8]) -> Frames {
        let count = self.len.div_ceil(self.stride);
        Frames {
            first: counter(bytes, self.stride, 0),
            last: counter(bytes, self.stride, count - 1),
            count: count as u32,
            // Sends start a whole number of pages apart.
            bytes: self.len.next_multiple_of(PAGE),
            stride: self.stride,
            tail: self.len - (count - 1) * self.stride,
        }
    }
}

/// The counter of the nth frame.
fn counter(bytes: &[u8], stride: usize, frame: usize) -> u64 {
    let frame = bytes.get(frame * stride..).unwrap_or_default();
    Header::decode(frame).map_or(0, |header| header.counter)
}

/// What waits for one session's acknowledgements.
pub(super) struct Ring {
    pub(super) peer: PeerId,
    pub(super) session: Arc<Session>,
    seen: u64,
    pub(super) flight: Flight<Place>,
}

impl Ring {
    pub(super) fn new(session: Arc<Session>, limits: Limits) -> Self {
        Self { peer: session.peer(), session, seen: 0, flight: Flight::new(limits) }
    }

    /// Takes in the peer's acknowledgement and forgets what is too old. `done` gets the chunk of
    /// every send that is finished. Returns how many frames were forgotten unacknowledged.
    pub(super) fn settle(&mut self, now: Time, chunks: &Chunks, done: &mut Vec<usize>) -> u64 {
        self.flight.answered(self.session.answered());
        if let Some(ack) = self.session.news(&mut self.seen) {
            let counter =
                |place: &Place, n: u32| counter(chunks.read(*place), place.stride, n as usize);
            self.flight.hear(now, &ack, counter, |place| done.push(place.chunk));
        }
        self.flight.trim(now, |place| done.push(place.chunk))
    }
}
