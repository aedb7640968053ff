//! The frames a worker has sealed and not yet sent: one buffer, one segmented send.
//!
//! Frames of one send have one length, the stride; only the last may be shorter. Small packets are
//! bundled into one frame while it has room, and never wait for others: the worker flushes as soon
//! as the adapter has nothing more.

use std::{sync::Arc, time::Duration};

use netft_proto::{
    loss_detection::{MAX_FRAMES, RetransmitLimits},
    session::{FrameSealer, Session},
    wire::header::{FLAG_FRAGMENT, FRAME_OVERHEAD, FrameKind, HEADER_LEN, TAG_LEN},
};

use crate::io::{
    counters::Counters,
    datapath::{
        acks::AckSender,
        frame_arena::{FrameArena, PAGE_SIZE},
        retransmit_buffer::RetransmitBuffers,
        transmit::{PlainSockets, transmit_frames},
        tx_context::TxContext,
    },
    fib::{Fib, FibPeer},
    handover::UnackedSend,
    path::Path,
    sys::{
        prefetch,
        udp::{MAX_SEGMENTS, MAX_SEND},
    },
};

const _: () = assert!(MAX_SEGMENTS <= MAX_FRAMES as usize);
/// Bytes of a block of the cipher.
const CIPHER_BLOCK_LEN: usize = 16;
const _: () = assert!(FRAME_OVERHEAD.is_multiple_of(CIPHER_BLOCK_LEN));

/// The destination of the frames of one flush.
pub(super) struct TxTarget<'f> {
    pub(super) session: &'f Arc<Session>,
    pub(super) sealer: FrameSealer<'f>,
    pub(super) path: &'f Path,
    /// The path of a copy: the first path is suspect, or the policy duplicates.
    pub(super) duplicate: Option<&'f Path>,
    /// The peer, if its policies may send the next packet on another path.
    pub(super) steered_peer: Option<&'f FibPeer>,
    /// The largest frame, bytes; at least one byte of payload fits.
    pub(super) max_frame: usize,
}

/// The chunk that frames are sealed into, and the sends in it and in others that are not
/// acknowledged.
pub(super) struct TxBatch {
    arena: FrameArena,
    /// Offset of the first frame in the current chunk.
    first_offset: usize,
    retransmit_buffers: RetransmitBuffers,
    plain_sockets: PlainSockets,
    /// Bytes of sealed frames.
    sealed_bytes: usize,
    sealed_frames: usize,
    stride: usize,
    /// Frames that stay together are padded to whole cipher blocks.
    pads_frames: bool,
    /// The bundle behind the sealed frames: its length without the tag, and its flags.
    open_bundle: Option<(usize, u8)>,
}

impl TxBatch {
    /// An empty buffer for packets that are copied from `source`.
    pub(super) fn new(source: &[u8], limits: RetransmitLimits) -> Self {
        let arena = FrameArena::new(source.as_ptr().addr().wrapping_add(PAGE_SIZE / 2));
        Self {
            first_offset: arena.first_offset(),
            arena,
            retransmit_buffers: RetransmitBuffers::new(limits),
            plain_sockets: PlainSockets::new(),
            sealed_bytes: 0,
            sealed_frames: 0,
            stride: 0,
            pads_frames: false,
            open_bundle: None,
        }
    }

    /// Takes over a send that a predecessor process left unacknowledged.
    pub(super) fn resume_send(&mut self, session: &Arc<Session>, send: &UnackedSend) {
        let (start, len) = (self.first_offset, send.bytes.len());
        let frames = len.div_ceil(send.stride.max(1));
        if len == 0 || len > MAX_SEND || send.stride > len || frames > MAX_SEGMENTS {
            return;
        }
        self.arena.current_chunk()[start..start + len].copy_from_slice(&send.bytes);
        let span = self.arena.make_span(start, len, send.stride.max(1));
        self.retransmit_buffers.resume_sent(session, send, (span, &send.bytes));
        self.first_offset = self.arena.retain_span(span);
    }

    /// The unacknowledged sends, for a successor process.
    pub(super) fn to_unacked(&self) -> Vec<UnackedSend> {
        self.retransmit_buffers.to_unacked(&self.arena)
    }

    /// Adds a packet of `len` bytes, which `write` writes, to the open bundle or a new one. `len`
    /// plus the overhead must not exceed the target's largest frame.
    #[inline]
    pub(super) fn push_bundled(
        &mut self,
        to: &mut TxTarget<'_>,
        context: &mut TxContext<'_>,
        flags: u8,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) {
        if let Some((filled, open_flags)) = self.open_bundle {
            let limit = if self.sealed_frames == 0 { to.max_frame } else { self.stride };
            if open_flags == flags && filled + len + TAG_LEN <= limit {
                let start = self.first_offset + self.sealed_bytes + filled;
                write(&mut self.arena.current_chunk()[start..start + len]);
                self.open_bundle = Some((filled + len, flags));
                return;
            }
            self.seal_bundle(to, context);
        }
        // It may grow to the stride.
        self.make_room(to, context, len + FRAME_OVERHEAD, self.stride.max(len + FRAME_OVERHEAD));
        let start = self.first_offset + self.sealed_bytes + HEADER_LEN;
        write(&mut self.arena.current_chunk()[start..start + len]);
        self.open_bundle = Some((HEADER_LEN + len, flags));
    }

    /// Makes room for `count` frames with packets of at most `len` bytes: if they do not fit behind
    /// the sealed frames, those are sent first. Split over two sends, the segments of a
    /// super-packet would be received, and written to the peer's adapter, in two pieces. Those that
    /// do not fit any send are split anyway, so they fill the one that was begun.
    #[inline]
    pub(super) fn keep_together(
        &mut self,
        to: &mut TxTarget<'_>,
        context: &mut TxContext<'_>,
        count: usize,
        len: usize,
    ) {
        self.seal_bundle(to, context);
        let filled = count * (len + FRAME_OVERHEAD).next_multiple_of(CIPHER_BLOCK_LEN);
        let is_split = count > MAX_SEGMENTS || filled > MAX_SEND;
        let fits_behind =
            self.sealed_frames + count <= MAX_SEGMENTS && self.sealed_bytes + filled <= MAX_SEND;
        if !is_split && !fits_behind {
            self.send_sealed(to, context);
        }
        self.pads_frames = is_split || self.sealed_bytes + filled <= MAX_SEND;
    }

    /// Adds a frame with one packet of `len` bytes, under a reserved counter.
    #[inline]
    pub(super) fn push_frame(
        &mut self,
        to: &mut TxTarget<'_>,
        context: &mut TxContext<'_>,
        (flags, counter): (u8, u64),
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) {
        self.seal_bundle(to, context);
        self.make_room(to, context, len + FRAME_OVERHEAD, len + FRAME_OVERHEAD);
        let start = self.first_offset + self.sealed_bytes + HEADER_LEN;
        let chunk = self.arena.current_chunk();
        write(&mut chunk[start..start + len]);
        // Sealing loads no other memory, so the next frame's is loaded meanwhile.
        let next = start + len + TAG_LEN;
        prefetch::prefetch_for_write(
            chunk.get(next..next + len + FRAME_OVERHEAD).unwrap_or_default(),
        );
        // A fragment ends where its frame does, so it is never padded.
        let fills = self.pads_frames && flags & FLAG_FRAGMENT == 0;
        let size =
            if fills { self.pad_to_block(to, HEADER_LEN + len) } else { len + FRAME_OVERHEAD };
        self.seal_frame(to, context, flags, counter, size);
    }

    /// Sends all frames.
    #[inline]
    pub(super) fn flush(&mut self, to: &mut TxTarget<'_>, context: &mut TxContext<'_>) {
        self.seal_bundle(to, context);
        self.send_sealed(to, context);
    }

    /// Seals the open bundle.
    #[inline]
    fn seal_bundle(&mut self, to: &mut TxTarget<'_>, context: &mut TxContext<'_>) {
        let Some((filled, flags)) = self.open_bundle.take() else { return };
        match to.sealer.session().reserve_counters(1) {
            Ok(counter) => {
                let size = self.pad_to_block(to, filled);
                self.seal_frame(to, context, flags, counter, size);
            }
            Err(reason) => context.counters.count_drop(reason),
        }
    }

    /// Pads the next frame, `filled` bytes of it without the tag, with zeroes to whole cipher
    /// blocks where there is room: a partial last block takes the cipher longer. Returns the
    /// frame's length.
    #[inline]
    fn pad_to_block(&mut self, to: &TxTarget<'_>, filled: usize) -> usize {
        let most = if self.sealed_frames == 0 { to.max_frame } else { self.stride };
        let whole = (filled + TAG_LEN).next_multiple_of(CIPHER_BLOCK_LEN);
        if whole > most.min(MAX_SEND - self.sealed_bytes) {
            return filled + TAG_LEN;
        }
        let start = self.first_offset + self.sealed_bytes;
        self.arena.current_chunk()[start + filled..start + whole - TAG_LEN].fill(0);
        whole
    }

    /// Sends the sealed frames if another one of `size` bytes, or of `most` once it has grown, must
    /// not follow them.
    #[inline]
    fn make_room(
        &mut self,
        to: &TxTarget<'_>,
        context: &mut TxContext<'_>,
        size: usize,
        most: usize,
    ) {
        let full = self.sealed_frames == MAX_SEGMENTS || self.sealed_bytes + most > MAX_SEND;
        if self.sealed_frames > 0 && (full || size > self.stride) {
            self.send_sealed(to, context);
        }
    }

    #[inline]
    fn seal_frame(
        &mut self,
        to: &mut TxTarget<'_>,
        context: &mut TxContext<'_>,
        flags: u8,
        counter: u64,
        size: usize,
    ) {
        let start = self.first_offset + self.sealed_bytes;
        let frame = &mut self.arena.current_chunk()[start..start + size];
        if let Err(reason) = to.sealer.seal(FrameKind::Data, flags, counter, frame) {
            return context.counters.count_drop(reason);
        }
        self.sealed_bytes += size;
        self.sealed_frames += 1;
        if self.sealed_frames == 1 {
            self.stride = size;
        } else if size < self.stride {
            self.send_sealed(to, context);
        }
    }

    fn send_sealed(&mut self, to: &TxTarget<'_>, context: &mut TxContext<'_>) {
        let (frames, stride, used) = (self.sealed_frames, self.stride, self.sealed_bytes);
        (self.sealed_bytes, self.sealed_frames, self.stride) = (0, 0, 0);
        if frames == 0 {
            return;
        }
        let span = self.arena.make_span(self.first_offset, used, stride);
        let bytes = self.arena.span_bytes(span);
        transmit_frames(to.path, bytes, stride, &mut self.plain_sockets, context);
        if let Some(second) = to.duplicate {
            transmit_frames(second, bytes, stride, &mut self.plain_sockets, context);
            Counters::add(&context.counters.duplicated_frames, frames as u64);
            to.session.record_duplicated(frames as u64);
        }
        let (path, duplicate) = (to.path.route_rtt(), to.duplicate.map(|second| second.route));
        if self.retransmit_buffers.record_sent(to.session, path, duplicate, (span, bytes)) {
            self.first_offset = self.arena.retain_span(span);
        }
    }

    /// Runs loss detection: see [`RetransmitBuffers::poll_loss_detection`].
    pub(super) fn poll_loss_detection(
        &mut self,
        fib: &Fib,
        context: &mut TxContext<'_>,
        acks: &mut AckSender,
        can_judge_silence: bool,
    ) {
        let Self { retransmit_buffers, arena, plain_sockets: plain, .. } = self;
        retransmit_buffers.poll_loss_detection(fib, arena, plain, context, acks, can_judge_silence);
    }

    /// Time until [`poll_loss_detection`](Self::poll_loss_detection) has something to do without
    /// an acknowledgement.
    pub(super) fn loss_timeout(&self) -> Option<Duration> {
        self.retransmit_buffers.loss_timeout()
    }
}
