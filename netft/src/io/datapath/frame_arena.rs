//! The memory that frames are sealed into: chunks that are reused once every send in them is
//! finished.
//!
//! The chunk released last is taken first, so that a few chunks circulate and stay in the cache.
//! Their number follows from the unacknowledged bytes, which [`RetransmitLimits`] bounds.
//!
//! [`RetransmitLimits`]: netft_proto::loss_detection::RetransmitLimits

use netft_proto::{loss_detection::BatchLayout, wire::header::FrameHeader};

use crate::io::sys::udp::MAX_SEND;

/// Bytes of a page. Copies are ten times slower on some CPUs when source and destination differ by
/// less than 32 bytes modulo the page; half a page apart, the drift over a super-packet rarely gets
/// that close.
pub(super) const PAGE_SIZE: usize = 4096;
/// Bytes of a chunk: four full sends.
const CHUNK_SIZE: usize = 4 * (MAX_SEND + PAGE_SIZE);

/// The span of one send in the arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArenaSpan {
    pub(super) chunk: usize,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) stride: usize,
}

/// Every chunk of one worker.
pub(super) struct FrameArena {
    chunks: Vec<ArenaChunk>,
    free: Vec<usize>,
    current: usize,
    /// Best start of a send, modulo the page.
    start_alignment: usize,
}

struct ArenaChunk {
    bytes: Box<[u8]>,
    /// Unfinished sends in it.
    pending_sends: usize,
}

impl FrameArena {
    /// An arena of one chunk. Sends start at `start_alignment` modulo the page.
    pub(super) fn new(start_alignment: usize) -> Self {
        let mut chunks = Self { chunks: Vec::new(), free: Vec::new(), current: 0, start_alignment };
        chunks.add_chunk();
        chunks
    }

    /// Offset of the first send in the current chunk.
    pub(super) fn first_offset(&self) -> usize {
        let here = self.chunks[self.current].bytes.as_ptr().addr();
        self.start_alignment.wrapping_sub(here) % PAGE_SIZE
    }

    /// The current chunk.
    #[inline]
    pub(super) fn current_chunk(&mut self) -> &mut [u8] {
        &mut self.chunks[self.current].bytes
    }

    /// The span of a send in the current chunk.
    pub(super) fn make_span(&self, start: usize, len: usize, stride: usize) -> ArenaSpan {
        ArenaSpan { chunk: self.current, start, len, stride }
    }

    /// The bytes of a send.
    pub(super) fn span_bytes(&self, span: ArenaSpan) -> &[u8] {
        &self.chunks[span.chunk].bytes[span.start..span.start + span.len]
    }

    /// Keeps a send of the current chunk until it is released. Returns the offset of the next one,
    /// in another chunk if this one has no room for a full send.
    pub(super) fn retain_span(&mut self, span: ArenaSpan) -> usize {
        self.chunks[span.chunk].pending_sends += 1;
        let end = span.start + span.len;
        let next = end + (self.first_offset() + PAGE_SIZE - end % PAGE_SIZE) % PAGE_SIZE;
        if next + MAX_SEND <= CHUNK_SIZE {
            return next;
        }
        self.current = self.free.pop().unwrap_or_else(|| self.add_chunk());
        self.first_offset()
    }

    /// Marks a send of this chunk as finished.
    pub(super) fn release_send(&mut self, chunk: usize) {
        let pending = &mut self.chunks[chunk].pending_sends;
        *pending -= 1;
        if *pending == 0 && chunk != self.current {
            self.free.push(chunk);
        }
    }

    fn add_chunk(&mut self) -> usize {
        self.chunks
            .push(ArenaChunk { bytes: vec![0; CHUNK_SIZE].into_boxed_slice(), pending_sends: 0 });
        self.chunks.len() - 1
    }
}

impl ArenaSpan {
    /// The layout of the send for loss detection; `bytes` are its sealed frames.
    pub(super) fn to_frames(self, bytes: &[u8]) -> BatchLayout {
        let count = self.len.div_ceil(self.stride);
        BatchLayout {
            first: frame_counter(bytes, self.stride, 0),
            last: frame_counter(bytes, self.stride, count - 1),
            count: count as u32,
            // Sends start at multiples of a page.
            bytes: self.len.next_multiple_of(PAGE_SIZE),
            stride: self.stride,
            tail: self.len - (count - 1) * self.stride,
        }
    }
}

/// The counter of the nth frame.
pub(super) fn frame_counter(bytes: &[u8], stride: usize, frame: usize) -> u64 {
    let frame = bytes.get(frame * stride..).unwrap_or_default();
    FrameHeader::decode(frame).map_or(0, |header| header.counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_reused_when_every_send_in_it_is_finished() {
        let mut chunks = FrameArena::new(0);
        let mut start = chunks.first_offset();
        let mut places = Vec::new();
        while places.len() < 20 {
            let place = chunks.make_span(start, MAX_SEND, 1000);
            start = chunks.retain_span(place);
            places.push(place);
        }
        let grown = chunks.chunks.len();
        assert!((5..=7).contains(&grown), "{grown} chunks for 20 full sends");
        for place in places.drain(..) {
            chunks.release_send(place.chunk);
        }
        for _ in 0..1000 {
            let place = chunks.make_span(start, MAX_SEND, 1000);
            start = chunks.retain_span(place);
            chunks.release_send(place.chunk);
        }
        assert_eq!(chunks.chunks.len(), grown);
    }

    #[test]
    fn sends_start_where_copies_are_fast_and_never_overlap() {
        let mut chunks = FrameArena::new(2048);
        let mut start = chunks.first_offset();
        let mut last: Option<ArenaSpan> = None;
        for len in [1, 4095, 4096, 65_507, 100, 70, 65_000, 65_507, 65_507, 65_507] {
            let place = chunks.make_span(start, len, len);
            let address = chunks.span_bytes(place).as_ptr().addr();
            assert_eq!(address % PAGE_SIZE, 2048);
            if let Some(last) = last.filter(|last| last.chunk == place.chunk) {
                assert!(place.start >= last.start + last.len);
            }
            start = chunks.retain_span(place);
            last = Some(place);
        }
    }
}
