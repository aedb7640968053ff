//! The frames a worker has sealed and not sent: one buffer, one segmented send.
//!
//! Frames of one send have one length, the stride; only the last may be shorter. Small packets
//! are bundled into one frame as long as it has room, and never wait for others: the worker
//! flushes as soon as the adapter has nothing more.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use netft_proto::{
    loss_detection::{MAX_FRAMES, RetransmitLimits, SentBatch},
    session::{FrameSealer, Session},
    wire::{
        DropReason,
        header::{FLAG_FRAGMENT, FRAME_OVERHEAD, FrameKind, HEADER_LEN, TAG_LEN},
    },
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        acks::AckSender,
        driver_queue::DriverQueue,
        frame_arena::{ArenaSpan, FrameArena, PAGE_SIZE},
        reply_path,
        retransmit_buffer::RetransmitBuffer,
    },
    fib::{Fib, FibPeer},
    path::Path,
    socket::SocketId,
    sys::{
        prefetch, udp,
        udp::{MAX_SEGMENTS, MAX_SEND, SendFault},
    },
};

const _: () = assert!(MAX_SEGMENTS <= MAX_FRAMES as usize);
/// Bytes of a block of the cipher.
const CIPHER_BLOCK_LEN: usize = 16;
const _: () = assert!(FRAME_OVERHEAD.is_multiple_of(CIPHER_BLOCK_LEN));

/// How many sockets whose interface cannot segment are remembered; one that is forgotten costs a
/// failed send.
const MAX_PLAIN_SOCKETS: usize = 64;

/// Where the frames of one flush go.
pub(super) struct TxTarget<'f> {
    pub(super) session: &'f Arc<Session>,
    pub(super) sealer: FrameSealer<'f>,
    pub(super) path: &'f Path,
    /// Where a copy goes: the route is suspect, or the policy says so.
    pub(super) duplicate: Option<&'f Path>,
    /// The peer, if the next packet to it may go elsewhere.
    pub(super) steered_peer: Option<&'f FibPeer>,
    /// The largest frame, bytes; at least one byte of payload fits.
    pub(super) max_frame: usize,
}

/// What sending touches besides the frames.
pub(super) struct TxContext<'a> {
    pub(super) counters: &'a Counters,
    pub(super) driver_queue: &'a mut DriverQueue,
}

/// The buffer: the chunk frames are sealed into, and the sends that wait in it and in others for
/// their acknowledgement.
pub(super) struct TxBatch {
    arena: FrameArena,
    /// Where the first frame starts, in the current chunk.
    first_offset: usize,
    limits: RetransmitLimits,
    retransmit_buffers: Vec<RetransmitBuffer>,
    /// Chunks of finished sends; empty between turns, kept for its memory.
    released_chunks: Vec<usize>,
    /// Bytes of finished frames.
    sealed_bytes: usize,
    sealed_frames: usize,
    stride: usize,
    /// The frames that stay together do so filled up to whole blocks, too.
    pads_frames: bool,
    /// The bundle behind the finished frames: its length without the tag, and its flags.
    open_bundle: Option<(usize, u8)>,
    /// Sockets whose interface cannot segment.
    plain_sockets: Vec<SocketId>,
}

impl TxBatch {
    /// An empty buffer for packets that are copied from `source`.
    pub(super) fn new(source: &[u8], limits: RetransmitLimits) -> Self {
        let arena = FrameArena::new(source.as_ptr().addr().wrapping_add(PAGE_SIZE / 2));
        Self {
            first_offset: arena.first_offset(),
            arena,
            limits,
            retransmit_buffers: Vec::new(),
            released_chunks: Vec::new(),
            sealed_bytes: 0,
            sealed_frames: 0,
            stride: 0,
            pads_frames: false,
            open_bundle: None,
            plain_sockets: Vec::with_capacity(MAX_PLAIN_SOCKETS),
        }
    }

    /// Adds a packet of `len` bytes to the open bundle, or to a fresh one. `write` fills it in.
    /// `len` plus the overhead must not exceed the target's largest frame.
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

    /// Makes room for `count` frames for packets of at most `len` bytes: if they do not fit behind
    /// what is there, that is sent first. Cut over two sends, the segments of a super-packet would
    /// be received, and written to the far adapter, in two pieces.
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
        if self.sealed_frames + count > MAX_SEGMENTS || self.sealed_bytes + filled > MAX_SEND {
            self.send_sealed(to, context);
        }
        self.pads_frames = self.sealed_bytes + filled <= MAX_SEND;
    }

    /// Adds a frame of its own for a packet of `len` bytes, under a reserved counter.
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
        // The cipher needs no memory of its own to be loaded: the next frame's comes meanwhile.
        let next = start + len + TAG_LEN;
        prefetch::prefetch_for_write(
            chunk.get(next..next + len + FRAME_OVERHEAD).unwrap_or_default(),
        );
        // A slice ends where its frame does.
        let fills = self.pads_frames && flags & FLAG_FRAGMENT == 0;
        let size =
            if fills { self.pad_to_block(to, HEADER_LEN + len) } else { len + FRAME_OVERHEAD };
        self.seal_frame(to, context, flags, counter, size);
    }

    /// Sends everything.
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

    /// Fills the frame that is next, `filled` bytes of it without the tag, up with zeroes to whole
    /// blocks of the cipher, where there is room: it takes longer for the last one in part. Returns
    /// the frame's length.
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

    /// Sends what a further frame of `size` bytes, or of `most` when it has grown, must not follow.
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
        let place = self.arena.make_span(self.first_offset, used, stride);
        let bytes = self.arena.span_bytes(place);
        transmit_frames(to.path, bytes, stride, &mut self.plain_sockets, context);
        if let Some(second) = to.duplicate {
            transmit_frames(second, bytes, stride, &mut self.plain_sockets, context);
            Counters::add(&context.counters.duplicated_frames, frames as u64);
            to.session.record_duplicated(frames as u64);
        }
        self.track_sent(to, place);
    }

    /// Keeps a send until it is acknowledged.
    fn track_sent(&mut self, to: &TxTarget<'_>, place: ArenaSpan) {
        if self.limits.is_disabled() {
            return;
        }
        let local = to.session.local_id();
        let known =
            self.retransmit_buffers.iter().position(|ring| ring.session.local_id() == local);
        let at = known.unwrap_or_else(|| {
            self.retransmit_buffers.push(RetransmitBuffer::new(to.session.clone(), self.limits));
            self.retransmit_buffers.len() - 1
        });
        let frames = place.to_frames(self.arena.span_bytes(place));
        let doubled = to.duplicate.is_some();
        self.retransmit_buffers[at].sent_frames.on_sent(
            place,
            frames,
            to.path.route_rtt(),
            doubled,
            clock::now(),
        );
        self.first_offset = self.arena.retain_span(place);
    }

    /// Takes in acknowledgements, sends again what a route may have swallowed, and forgets what
    /// is done with. Called once per turn, before anything new is sent: what was sent earlier
    /// leaves earlier.
    ///
    /// `quiet`: nothing more waits in the sockets, so silence proves something.
    pub(super) fn poll_loss_detection(
        &mut self,
        fib: &Fib,
        context: &mut TxContext<'_>,
        acks: &mut AckSender,
        can_judge_silence: bool,
    ) {
        if self.retransmit_buffers.is_empty() {
            return;
        }
        let now = clock::now();
        let Self {
            retransmit_buffers: rings,
            arena: chunks,
            plain_sockets,
            released_chunks: done,
            ..
        } = self;
        for ring in rings.iter_mut() {
            let lost = ring.process_acks(now, chunks, done);
            Counters::add(&context.counters.retransmit_overflow, lost);
            ring.session.record_lost(lost);
            done.drain(..).for_each(|chunk| chunks.release_send(chunk));
            let RetransmitBuffer { peer, session, sent_frames: flight, .. } = ring;
            let entry = fib.peers.iter().find(|entry| entry.peer == *peer);
            let Some(entry) = entry.filter(|_| !flight.is_empty()) else { continue };
            let paths = || entry.active.iter().chain(&entry.backups);
            while let Some(moved) =
                flight.poll_reroute(now, paths().map(|path| path.route_rtt()), can_judge_silence)
            {
                let Some(path) = paths().find(|path| path.route == moved.to) else { break };
                let mut frames = 0;
                for sent in flight.rerouted_batches(&moved) {
                    let bytes = chunks.span_bytes(sent.payload);
                    frames += retransmit_frames(path, bytes, sent, plain_sockets, context);
                }
                context.driver_queue.report_reroute(*peer, &moved, frames, context.counters);
            }
            while let Some(question) = flight.request_immediate_ack(
                now,
                paths().map(|path| path.route_rtt()),
                can_judge_silence,
            ) {
                let Some(path) = paths().find(|path| path.route == question.to) else { break };
                acks.request_immediate_ack(session, question, path, context.counters);
            }
            if let Some(route) = flight.take_sole_path_silent() {
                context.driver_queue.report_suspect(route, context.counters);
            }
        }
        let live = |ring: &RetransmitBuffer| {
            !ring.sent_frames.is_empty() || fib.sessions.contains_key(&ring.session.local_id())
        };
        rings.retain(live);
    }

    /// How long until [`poll_loss_detection`](Self::poll_loss_detection) has something to do by
    /// itself.
    pub(super) fn loss_timeout(&self) -> Option<Duration> {
        let now = clock::now();
        self.retransmit_buffers
            .iter()
            .filter_map(|ring| ring.sent_frames.until_next_timeout(now))
            .min()
    }
}

/// Sends the frames of one send that are not acknowledged. Returns how many.
fn retransmit_frames(
    path: &Path,
    bytes: &[u8],
    sent: &SentBatch<ArenaSpan>,
    plain: &mut Vec<SocketId>,
    context: &mut TxContext<'_>,
) -> u64 {
    let stride = sent.payload.stride;
    let mut frames = 0;
    for (first, count) in sent.missing_runs() {
        let start = first as usize * stride;
        let end = (start + count as usize * stride).min(bytes.len());
        transmit_frames(path, &bytes[start..end], stride, plain, context);
        frames += u64::from(count);
    }
    Counters::add(&context.counters.resent_frames, frames);
    frames
}

/// Sends frames of one length (the last may be shorter), in one call where the interface can.
fn transmit_frames(
    path: &Path,
    bytes: &[u8],
    stride: usize,
    plain: &mut Vec<SocketId>,
    context: &mut TxContext<'_>,
) {
    if let Some(transport) = &path.transport {
        return reply_path::transmit_over_quic(path, transport, bytes, stride, context);
    }
    let frames = bytes.len().div_ceil(stride);
    let socket = &path.socket;
    let fits = stride <= path.max_datagram;
    if frames > 1 && fits && !plain.contains(&socket.id) {
        match send_datagrams(path, bytes, Some(stride as u16)) {
            Ok(()) => return count_sent(path, context, bytes.len(), frames as u64),
            Err((SendFault::NoOffload, _)) => {
                if plain.len() == MAX_PLAIN_SOCKETS {
                    plain.clear();
                }
                plain.push(socket.id);
            }
            Err(fault) => return on_send_failed(path, context, frames as u64, fault),
        }
    }
    for frame in bytes.chunks(stride) {
        // Sealed for a wider route: it would vanish on this one.
        if frame.len() > path.max_datagram {
            context.counters.count_drop(DropReason::TooBig);
            continue;
        }
        match send_datagrams(path, frame, None) {
            Ok(()) => count_sent(path, context, frame.len(), 1),
            Err(fault) => on_send_failed(path, context, 1, fault),
        }
    }
}

/// Counts what the kernel took.
#[inline]
pub(super) fn count_sent(path: &Path, context: &TxContext<'_>, bytes: usize, frames: u64) {
    Counters::add(&context.counters.tx_frames, frames);
    Counters::add(&path.counters.frames, frames);
    Counters::add(&path.counters.bytes, bytes as u64);
}

/// One send of data; again when the error may be an earlier packet's.
fn send_datagrams(path: &Path, bytes: &[u8], segment: Option<u16>) -> Result<(), (SendFault, i32)> {
    udp::send_with_retry(path.socket.fd.as_fd(), &path.remote, bytes, segment, None)
}

/// Counts frames the kernel refused, and tells the driver what speaks against the route.
#[cold]
pub(super) fn on_send_failed(
    path: &Path,
    context: &mut TxContext<'_>,
    frames: u64,
    (fault, errno): (SendFault, i32),
) {
    let reason = match fault {
        SendFault::TooBig => DropReason::TooBig,
        _ => DropReason::SendFailed,
    };
    Counters::add(&context.counters.drops[reason as usize], frames);
    if fault != SendFault::Transient {
        context.driver_queue.report_send_error(path.route, errno, context.counters);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, atomic::Ordering::Relaxed};

    use netft_proto::ids::RouteId;
    use tokio::sync::mpsc;

    use super::*;
    use crate::io::socket::UdpSocket;

    #[test]
    fn frames_sealed_for_a_wider_route_are_counted_and_not_sent() {
        let fd = udp::open_socket("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let local = std::net::SocketAddr::try_from(rustix::net::getsockname(&fd).unwrap()).unwrap();
        let socket = Arc::new(UdpSocket { id: SocketId(1), local, ifindex: 1, worker: 0, fd });
        let path = Path {
            route: RouteId(1),
            socket,
            remote: local,
            max_datagram: 1200,
            rtt: None,
            counters: Arc::default(),
            transport: None,
        };
        let counters = Counters::default();
        let mut reports = DriverQueue::new(mpsc::channel(1).0, mpsc::channel(1).0);
        let mut context = TxContext { counters: &counters, driver_queue: &mut reports };
        transmit_frames(&path, &[0; 1400 * 2 + 700], 1400, &mut Vec::new(), &mut context);
        assert_eq!(counters.drops[DropReason::TooBig as usize].load(Relaxed), 2);
        assert_eq!(counters.tx_frames.load(Relaxed), 1, "the last one is shorter");
        assert_eq!(path.counters.bytes.load(Relaxed), 700);
    }
}
