//! The frames a worker has sealed and not sent: one buffer, one segmented send.
//!
//! Frames of one send have one length, the stride; only the last may be shorter. Small packets
//! are bundled into one frame as long as it has room, and never wait for others: the worker
//! flushes as soon as the adapter has nothing more.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use netft_proto::{
    loss_detection::{Limits, MAX_FRAMES, Sent},
    session::{Sealer, Session},
    wire::{
        DropReason,
        header::{FLAG_SLICE, HEADER_LEN, Kind, OVERHEAD, TAG_LEN},
    },
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        acks::Acks,
        driver_queue::Reports,
        frame_arena::Chunks,
        reply_path,
        retransmit_buffer::{Place, Ring},
    },
    fib::{Fib, Path, PeerEntry, SocketId},
    sys::{
        prefetch, udp,
        udp::{MAX_SEGMENTS, MAX_SEND, SendFault},
    },
};

const PAGE: usize = crate::io::datapath::frame_arena::PAGE;
const _: () = assert!(MAX_SEGMENTS <= MAX_FRAMES as usize);
/// Bytes of a block of the cipher.
const BLOCK: usize = 16;
const _: () = assert!(OVERHEAD.is_multiple_of(BLOCK));

/// How many sockets whose interface cannot segment are remembered; one that is forgotten costs a
/// failed send.
const MAX_PLAIN_SOCKETS: usize = 64;

/// Where the frames of one flush go.
pub(super) struct Target<'f> {
    pub(super) session: &'f Arc<Session>,
    pub(super) sealer: Sealer<'f>,
    pub(super) path: &'f Path,
    /// Where a copy goes: the route is suspect, or the policy says so.
    pub(super) duplicate: Option<&'f Path>,
    /// The peer, if the next packet to it may go elsewhere.
    pub(super) steered: Option<&'f PeerEntry>,
    /// The largest frame, bytes; at least one byte of payload fits.
    pub(super) max_frame: usize,
}

/// What sending touches besides the frames.
pub(super) struct Context<'a> {
    pub(super) counters: &'a Counters,
    pub(super) reports: &'a mut Reports,
}

/// The buffer: the chunk frames are sealed into, and the sends that wait in it and in others for
/// their acknowledgement.
pub(super) struct Out {
    chunks: Chunks,
    /// Where the first frame starts, in the current chunk.
    base: usize,
    limits: Limits,
    rings: Vec<Ring>,
    /// Chunks of finished sends; empty between turns, kept for its memory.
    done: Vec<usize>,
    /// Bytes of finished frames.
    used: usize,
    frames: usize,
    stride: usize,
    /// The frames that stay together do so filled up to whole blocks, too.
    fills: bool,
    /// The bundle behind the finished frames: its length without the tag, and its flags.
    open: Option<(usize, u8)>,
    /// Sockets whose interface cannot segment.
    plain_sockets: Vec<SocketId>,
}

impl Out {
    /// An empty buffer for packets that are copied from `source`.
    pub(super) fn new(source: &[u8], limits: Limits) -> Self {
        let chunks = Chunks::new(source.as_ptr().addr().wrapping_add(PAGE / 2));
        Self {
            base: chunks.start(),
            chunks,
            limits,
            rings: Vec::new(),
            done: Vec::new(),
            used: 0,
            frames: 0,
            stride: 0,
            fills: false,
            open: None,
            plain_sockets: Vec::with_capacity(MAX_PLAIN_SOCKETS),
        }
    }

    /// Adds a packet of `len` bytes to the open bundle, or to a fresh one. `write` fills it in.
    /// `len` plus the overhead must not exceed the target's largest frame.
    #[inline]
    pub(super) fn bundle(
        &mut self,
        to: &mut Target<'_>,
        context: &mut Context<'_>,
        flags: u8,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) {
        if let Some((filled, open_flags)) = self.open {
            let limit = if self.frames == 0 { to.max_frame } else { self.stride };
            if open_flags == flags && filled + len + TAG_LEN <= limit {
                let start = self.base + self.used + filled;
                write(&mut self.chunks.current()[start..start + len]);
                self.open = Some((filled + len, flags));
                return;
            }
            self.close(to, context);
        }
        // It may grow to the stride.
        self.make_room(to, context, len + OVERHEAD, self.stride.max(len + OVERHEAD));
        let start = self.base + self.used + HEADER_LEN;
        write(&mut self.chunks.current()[start..start + len]);
        self.open = Some((HEADER_LEN + len, flags));
    }

    /// Makes room for `count` frames for packets of at most `len` bytes: if they do not fit behind
    /// what is there, that is sent first. Cut over two sends, the segments of a super-packet would
    /// be received, and written to the far adapter, in two pieces.
    #[inline]
    pub(super) fn keep_together(
        &mut self,
        to: &mut Target<'_>,
        context: &mut Context<'_>,
        count: usize,
        len: usize,
    ) {
        self.close(to, context);
        let filled = count * (len + OVERHEAD).next_multiple_of(BLOCK);
        if self.frames + count > MAX_SEGMENTS || self.used + filled > MAX_SEND {
            self.send(to, context);
        }
        self.fills = self.used + filled <= MAX_SEND;
    }

    /// Adds a frame of its own for a packet of `len` bytes, under a reserved counter.
    #[inline]
    pub(super) fn frame(
        &mut self,
        to: &mut Target<'_>,
        context: &mut Context<'_>,
        (flags, counter): (u8, u64),
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) {
        self.close(to, context);
        self.make_room(to, context, len + OVERHEAD, len + OVERHEAD);
        let start = self.base + self.used + HEADER_LEN;
        let chunk = self.chunks.current();
        write(&mut chunk[start..start + len]);
        // The cipher needs no memory of its own to be loaded: the next frame's comes meanwhile.
        let next = start + len + TAG_LEN;
        prefetch::ahead(chunk.get(next..next + len + OVERHEAD).unwrap_or_default());
        // A slice ends where its frame does.
        let fills = self.fills && flags & FLAG_SLICE == 0;
        let size = if fills { self.pad(to, HEADER_LEN + len) } else { len + OVERHEAD };
        self.seal(to, context, flags, counter, size);
    }

    /// Sends everything.
    #[inline]
    pub(super) fn flush(&mut self, to: &mut Target<'_>, context: &mut Context<'_>) {
        self.close(to, context);
        self.send(to, context);
    }

    /// Seals the open bundle.
    #[inline]
    fn close(&mut self, to: &mut Target<'_>, context: &mut Context<'_>) {
        let Some((filled, flags)) = self.open.take() else { return };
        match to.sealer.session().reserve(1) {
            Ok(counter) => {
                let size = self.pad(to, filled);
                self.seal(to, context, flags, counter, size);
            }
            Err(reason) => context.counters.count(reason),
        }
    }

    /// Fills the frame that is next, `filled` bytes of it without the tag, up with zeroes to whole
    /// blocks of the cipher, where there is room: it takes longer for the last one in part. Returns
    /// the frame's length.
    #[inline]
    fn pad(&mut self, to: &Target<'_>, filled: usize) -> usize {
        let most = if self.frames == 0 { to.max_frame } else { self.stride };
        let whole = (filled + TAG_LEN).next_multiple_of(BLOCK);
        if whole > most.min(MAX_SEND - self.used) {
            return filled + TAG_LEN;
        }
        let start = self.base + self.used;
        self.chunks.current()[start + filled..start + whole - TAG_LEN].fill(0);
        whole
    }

    /// Sends what a further frame of `size` bytes, or of `most` when it has grown, must not follow.
    #[inline]
    fn make_room(&mut self, to: &Target<'_>, context: &mut Context<'_>, size: usize, most: usize) {
        let full = self.frames == MAX_SEGMENTS || self.used + most > MAX_SEND;
        if self.frames > 0 && (full || size > self.stride) {
            self.send(to, context);
        }
    }

    #[inline]
    fn seal(
        &mut self,
        to: &mut Target<'_>,
        context: &mut Context<'_>,
        flags: u8,
        counter: u64,
        size: usize,
    ) {
        let start = self.base + self.used;
        let frame = &mut self.chunks.current()[start..start + size];
        if let Err(reason) = to.sealer.seal(Kind::Data, flags, counter, frame) {
            return context.counters.count(reason);
        }
        self.used += size;
        self.frames += 1;
        if self.frames == 1 {
            self.stride = size;
        } else if size < self.stride {
            self.send(to, context);
        }
    }

    fn send(&mut self, to: &Target<'_>, context: &mut Context<'_>) {
        let (frames, stride, used) = (self.frames, self.stride, self.used);
        (self.used, self.frames, self.stride) = (0, 0, 0);
        if frames == 0 {
            return;
        }
        let place = self.chunks.place(self.base, used, stride);
        let bytes = self.chunks.read(place);
        put(to.path, bytes, stride, &mut self.plain_sockets, context);
        if let Some(second) = to.duplicate {
            put(second, bytes, stride, &mut self.plain_sockets, context);
            Counters::add(&context.counters.duplicated_frames, frames as u64);
            to.session.note_duplicated(frames as u64);
        }
        self.note(to, place);
    }

    /// Keeps a send until it is acknowledged.
    fn note(&mut self, to: &Target<'_>, place: Place) {
        if self.limits.off() {
            return;
        }
        let local = to.session.local();
        let known = self.rings.iter().position(|ring| ring.session.local() == local);
        let at = known.unwrap_or_else(|| {
            self.rings.push(Ring::new(to.session.clone(), self.limits));
            self.rings.len() - 1
        });
        let frames = place.frames(self.chunks.read(place));
        let doubled = to.duplicate.is_some();
        self.rings[at].flight.note(place, frames, to.path.way(), doubled, clock::now());
        self.base = self.chunks.keep(place);
    }

    /// Takes in acknowledgements, sends again what a route may have swallowed, and forgets what
    /// is done with. Called once per turn, before anything new is sent: what was sent earlier
    /// leaves earlier.
    ///
    /// `quiet`: nothing more waits in the sockets, so silence proves something.
    pub(super) fn service(
        &mut self,
        fib: &Fib,
        context: &mut Context<'_>,
        acks: &mut Acks,
        quiet: bool,
    ) {
        if self.rings.is_empty() {
            return;
        }
        let now = clock::now();
        let Self { rings, chunks, plain_sockets, done, .. } = self;
        for ring in rings.iter_mut() {
            let lost = ring.settle(now, chunks, done);
            Counters::add(&context.counters.ring_overflow, lost);
            ring.session.note_lost(lost);
            done.drain(..).for_each(|chunk| chunks.release(chunk));
            let Ring { peer, session, flight, .. } = ring;
            let entry = fib.peers.iter().find(|entry| entry.peer == *peer);
            let Some(entry) = entry.filter(|_| !flight.is_empty()) else { continue };
            let paths = || entry.active.iter().chain(&entry.backups);
            while let Some(moved) = flight.decide(now, paths().map(|path| path.way()), quiet) {
                let Some(path) = paths().find(|path| path.route == moved.to) else { break };
                let mut frames = 0;
                for sent in flight.moved(&moved) {
                    let bytes = chunks.read(sent.payload);
                    frames += resend(path, bytes, sent, plain_sockets, context);
                }
                context.reports.moved(*peer, &moved, frames, context.counters);
            }
            while let Some(question) = flight.ask(now, paths().map(|path| path.way()), quiet) {
                let Some(path) = paths().find(|path| path.route == question.to) else { break };
                acks.ask(session, question, path, context.counters);
            }
            if let Some(route) = flight.take_alone() {
                context.reports.suspect(route, context.counters);
            }
        }
        let live = |ring: &Ring| {
            !ring.flight.is_empty() || fib.sessions.contains_key(&ring.session.local())
        };
        rings.retain(live);
    }

    /// How long until [`service`](Self::service) has something to do by itself.
    pub(super) fn wait(&self) -> Option<Duration> {
        let now = clock::now();
        self.rings.iter().filter_map(|ring| ring.flight.wait(now)).min()
    }
}

/// Sends the frames of one send that are not acknowledged. Returns how many.
fn resend(
    path: &Path,
    bytes: &[u8],
    sent: &Sent<Place>,
    plain: &mut Vec<SocketId>,
    context: &mut Context<'_>,
) -> u64 {
    let stride = sent.payload.stride;
    let mut frames = 0;
    for (first, count) in sent.runs() {
        let start = first as usize * stride;
        let end = (start + count as usize * stride).min(bytes.len());
        put(path, &bytes[start..end], stride, plain, context);
        frames += u64::from(count);
    }
    Counters::add(&context.counters.resent_frames, frames);
    frames
}

/// Sends frames of one length (the last may be shorter), in one call where the interface can.
fn put(
    path: &Path,
    bytes: &[u8],
    stride: usize,
    plain: &mut Vec<SocketId>,
    context: &mut Context<'_>,
) {
    if let Some(carrier) = &path.carrier {
        return reply_path::put(path, carrier, bytes, stride, context);
    }
    let frames = bytes.len().div_ceil(stride);
    let socket = &path.socket;
    let fits = stride <= path.max_datagram;
    if frames > 1 && fits && !plain.contains(&socket.id) {
        match attempt(path, bytes, Some(stride as u16)) {
            Ok(()) => return sent(path, context, bytes.len(), frames as u64),
            Err((SendFault::NoOffload, _)) => {
                if plain.len() == MAX_PLAIN_SOCKETS {
                    plain.clear();
                }
                plain.push(socket.id);
            }
            Err(fault) => return failed(path, context, frames as u64, fault),
        }
    }
    for frame in bytes.chunks(stride) {
        // Sealed for a wider route: it would vanish on this one.
        if frame.len() > path.max_datagram {
            context.counters.count(DropReason::TooBig);
            continue;
        }
        match attempt(path, frame, None) {
            Ok(()) => sent(path, context, frame.len(), 1),
            Err(fault) => failed(path, context, 1, fault),
        }
    }
}

/// Counts what the kernel took.
#[inline]
pub(super) fn sent(path: &Path, context: &Context<'_>, bytes: usize, frames: u64) {
    Counters::add(&context.counters.tx_frames, frames);
    Counters::add(&path.sent.frames, frames);
    Counters::add(&path.sent.bytes, bytes as u64);
}

/// One send of data; again when the error may be an earlier packet's.
fn attempt(path: &Path, bytes: &[u8], segment: Option<u16>) -> Result<(), (SendFault, i32)> {
    udp::attempt(path.socket.fd.as_fd(), &path.remote, bytes, segment, None)
}

/// Counts frames the kernel refused, and tells the driver what speaks against the route.
#[cold]
pub(super) fn failed(
    path: &Path,
    context: &mut Context<'_>,
    frames: u64,
    (fault, errno): (SendFault, i32),
) {
    let reason = match fault {
        SendFault::TooBig => DropReason::TooBig,
        _ => DropReason::SendFailed,
    };
    Counters::add(&context.counters.drops[reason as usize], frames);
    if fault != SendFault::Transient {
        context.reports.send_error(path.route, errno, context.counters);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, atomic::Ordering::Relaxed};

    use netft_proto::ids::RouteId;
    use tokio::sync::mpsc;

    use super::*;
    use crate::io::fib::UdpSocket;

    #[test]
    fn frames_sealed_for_a_wider_route_are_counted_and_not_sent() {
        let fd = udp::open("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let local = std::net::SocketAddr::try_from(rustix::net::getsockname(&fd).unwrap()).unwrap();
        let socket = Arc::new(UdpSocket { id: SocketId(1), local, ifindex: 1, worker: 0, fd });
        let path = Path {
            route: RouteId(1),
            socket,
            remote: local,
            max_datagram: 1200,
            rtt: None,
            sent: Arc::default(),
            carrier: None,
        };
        let counters = Counters::default();
        let mut reports = Reports::new(mpsc::channel(1).0, mpsc::channel(1).0);
        let mut context = Context { counters: &counters, reports: &mut reports };
        put(&path, &[0; 1400 * 2 + 700], 1400, &mut Vec::new(), &mut context);
        assert_eq!(counters.drops[DropReason::TooBig as usize].load(Relaxed), 2);
        assert_eq!(counters.tx_frames.load(Relaxed), 1, "the last one is shorter");
        assert_eq!(path.sent.bytes.load(Relaxed), 700);
    }
}
