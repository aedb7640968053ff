//! The frames a worker has sealed and not sent: one buffer, one segmented send.
//!
//! Frames of one send have one length, the stride; only the last may be shorter. Small packets
//! are bundled into one frame as long as it has room, and never wait for others: the worker
//! flushes as soon as the adapter has nothing more.

use std::os::fd::AsFd;

use super::report::Reports;
use crate::{
    io::{
        counters::Counters,
        fib::{Path, SocketId},
        sys::udp::{self, MAX_SEGMENTS, MAX_SEND, SendFault},
    },
    wire::{
        DropReason,
        header::{HEADER_LEN, Kind, OVERHEAD, TAG_LEN},
        session::Sealer,
    },
};

/// Copies run ten times slower on some CPUs when source and destination differ by less than 32
/// bytes modulo the page; half a page apart, the drift over a super-packet rarely comes there.
const PAGE: usize = 4096;

/// How many sockets whose interface cannot segment are remembered; one that is forgotten costs a
/// failed send.
const MAX_PLAIN_SOCKETS: usize = 64;

/// Where the frames of one flush go.
pub(super) struct Target<'f> {
    pub(super) sealer: Sealer<'f>,
    pub(super) path: &'f Path,
    /// The largest frame, bytes; at least one byte of payload fits.
    pub(super) max_frame: usize,
}

/// What sending touches besides the frames.
pub(super) struct Context<'a> {
    pub(super) counters: &'a Counters,
    pub(super) reports: &'a mut Reports,
}

/// The buffer.
pub(super) struct Out {
    buf: Box<[u8]>,
    /// Where the first frame starts.
    base: usize,
    /// Bytes of finished frames.
    used: usize,
    frames: usize,
    stride: usize,
    /// The bundle behind the finished frames: its length without the tag, and its flags.
    open: Option<(usize, u8)>,
    /// Sockets whose interface cannot segment.
    plain_sockets: Vec<SocketId>,
}

impl Out {
    /// An empty buffer for packets that are copied from `source`.
    pub(super) fn new(source: &[u8]) -> Self {
        let buf = vec![0; MAX_SEND + PAGE].into_boxed_slice();
        let wanted = source.as_ptr().addr().wrapping_add(PAGE / 2);
        let base = wanted.wrapping_sub(buf.as_ptr().addr()) % PAGE;
        Self {
            buf,
            base,
            used: 0,
            frames: 0,
            stride: 0,
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
                write(&mut self.buf[start..start + len]);
                self.open = Some((filled + len, flags));
                return;
            }
            self.close(to, context);
        }
        self.make_room(to, context, len + OVERHEAD);
        let start = self.base + self.used + HEADER_LEN;
        write(&mut self.buf[start..start + len]);
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
        let used = self.used + count * (len + OVERHEAD);
        if self.frames + count > MAX_SEGMENTS || used > MAX_SEND {
            self.send(to, context);
        }
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
        self.make_room(to, context, len + OVERHEAD);
        let start = self.base + self.used + HEADER_LEN;
        write(&mut self.buf[start..start + len]);
        self.seal(to, context, flags, counter, len + OVERHEAD);
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
            Ok(counter) => self.seal(to, context, flags, counter, filled + TAG_LEN),
            Err(reason) => context.counters.count(reason),
        }
    }

    /// Sends what a further frame of `size` bytes must not follow.
    #[inline]
    fn make_room(&mut self, to: &Target<'_>, context: &mut Context<'_>, size: usize) {
        // A bundle may grow to the stride.
        let full = self.frames == MAX_SEGMENTS || self.used + self.stride > MAX_SEND;
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
        let frame = &mut self.buf[start..start + size];
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
        let (frames, stride) = (self.frames, self.stride);
        let bytes = &self.buf[self.base..self.base + self.used];
        (self.used, self.frames, self.stride) = (0, 0, 0);
        if frames == 0 {
            return;
        }
        let socket = &to.path.socket;
        if frames > 1 && !self.plain_sockets.contains(&socket.id) {
            match attempt(to.path, bytes, Some(stride as u16)) {
                Ok(()) => return Counters::add(&context.counters.tx_frames, frames as u64),
                Err((SendFault::NoOffload, _)) => {
                    if self.plain_sockets.len() == MAX_PLAIN_SOCKETS {
                        self.plain_sockets.clear();
                    }
                    self.plain_sockets.push(socket.id);
                }
                Err(fault) => return failed(to.path, context, frames as u64, fault),
            }
        }
        for frame in bytes.chunks(stride) {
            match attempt(to.path, frame, None) {
                Ok(()) => Counters::add(&context.counters.tx_frames, 1),
                Err(fault) => failed(to.path, context, 1, fault),
            }
        }
    }
}

/// One send; once more when the error was an earlier packet's.
fn attempt(path: &Path, bytes: &[u8], segment: Option<u16>) -> Result<(), (SendFault, i32)> {
    let once = || {
        udp::send(path.socket.fd.as_fd(), &path.remote, bytes, segment, None).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or_default();
            (udp::classify(&error, segment.is_some()), errno)
        })
    };
    match once() {
        Err((SendFault::Refused, _)) => once(),
        result => result,
    }
}

/// Counts frames the kernel refused, and tells the driver what speaks against the route.
#[cold]
fn failed(path: &Path, context: &mut Context<'_>, frames: u64, (fault, errno): (SendFault, i32)) {
    let reason = match fault {
        SendFault::TooBig => DropReason::TooBig,
        _ => DropReason::SendFailed,
    };
    Counters::add(&context.counters.drops[reason as usize], frames);
    if fault != SendFault::Transient {
        context.reports.send_error(path.route, errno, context.counters);
    }
}
