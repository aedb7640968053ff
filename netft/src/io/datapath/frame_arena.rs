//! The memory frames are sealed into: chunks that are used again once nothing in them waits.
//!
//! The chunk released last is taken first, so that few of them circulate, in the cache. Their
//! number follows from the bytes in flight, which the flights bound.

use crate::io::{datapath::retransmit_buffer::Place, sys::udp::MAX_SEND};

/// Copies run ten times slower on some CPUs when source and destination differ by less than 32
/// bytes modulo the page; half a page apart, the drift over a super-packet rarely comes there.
pub(super) const PAGE: usize = 4096;
/// Bytes of a chunk: four full sends.
const CHUNK: usize = 4 * (MAX_SEND + PAGE);

/// Every chunk of one worker.
pub(super) struct Chunks {
    all: Vec<Chunk>,
    free: Vec<usize>,
    current: usize,
    /// Where sends start best, modulo the page.
    wanted: usize,
}

struct Chunk {
    bytes: Box<[u8]>,
    /// Sends in it that are not finished.
    live: usize,
}

impl Chunks {
    /// One chunk. Sends start `wanted` modulo the page.
    pub(super) fn new(wanted: usize) -> Self {
        let mut chunks = Self { all: Vec::new(), free: Vec::new(), current: 0, wanted };
        chunks.grow();
        chunks
    }

    /// Where the first send of the current chunk starts.
    pub(super) fn start(&self) -> usize {
        let here = self.all[self.current].bytes.as_ptr().addr();
        self.wanted.wrapping_sub(here) % PAGE
    }

    /// The current chunk.
    #[inline]
    pub(super) fn current(&mut self) -> &mut [u8] {
        &mut self.all[self.current].bytes
    }

    /// The place of a send in the current chunk.
    pub(super) fn place(&self, start: usize, len: usize, stride: usize) -> Place {
        Place { chunk: self.current, start, len, stride }
    }

    /// The bytes of a send.
    pub(super) fn read(&self, place: Place) -> &[u8] {
        &self.all[place.chunk].bytes[place.start..place.start + place.len]
    }

    /// Keeps a send of the current chunk until it is released. Returns where the next one starts,
    /// in another chunk if this one has no room for a full send.
    pub(super) fn keep(&mut self, place: Place) -> usize {
        self.all[place.chunk].live += 1;
        let end = place.start + place.len;
        let next = end + (self.start() + PAGE - end % PAGE) % PAGE;
        if next + MAX_SEND <= CHUNK {
            return next;
        }
        self.current = self.free.pop().unwrap_or_else(|| self.grow());
        self.start()
    }

    /// A send of this chunk is finished.
    pub(super) fn release(&mut self, chunk: usize) {
        let live = &mut self.all[chunk].live;
        *live -= 1;
        if *live == 0 && chunk != self.current {
            self.free.push(chunk);
        }
    }

    fn grow(&mut self) -> usize {
        self.all.push(Chunk { bytes: vec![0; CHUNK].into_boxed_slice(), live: 0 });
        self.all.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_used_again_when_nothing_in_it_waits() {
        let mut chunks = Chunks::new(0);
        let mut start = chunks.start();
        let mut places = Vec::new();
        while places.len() < 20 {
            let place = chunks.place(start, MAX_SEND, 1000);
            start = chunks.keep(place);
            places.push(place);
        }
        let grown = chunks.all.len();
        assert!((5..=7).contains(&grown), "{grown} chunks for 20 full sends");
        for place in places.drain(..) {
            chunks.release(place.chunk);
        }
        for _ in 0..1000 {
            let place = chunks.place(start, MAX_SEND, 1000);
            start = chunks.keep(place);
            chunks.release(place.chunk);
        }
        assert_eq!(chunks.all.len(), grown);
    }

    #[test]
    fn sends_start_where_copies_are_fast_and_never_overlap() {
        let mut chunks = Chunks::new(2048);
        let mut start = chunks.start();
        let mut last: Option<Place> = None;
        for len in [1, 4095, 4096, 65_507, 100, 70, 65_000, 65_507, 65_507, 65_507] {
            let place = chunks.place(start, len, len);
            let address = chunks.read(place).as_ptr().addr();
            assert_eq!(address % PAGE, 2048);
            if let Some(last) = last.filter(|last| last.chunk == place.chunk) {
                assert!(place.start >= last.start + last.len);
            }
            start = chunks.keep(place);
            last = Some(place);
        }
    }
}
