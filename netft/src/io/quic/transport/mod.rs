//! The `quic` carrier: one QUIC connection per route, bound to that route's two addresses, whose
//! DATAGRAM frames (RFC 9221) hold the same sealed frames that the `udp` carrier puts on the wire.
//!
//! ```text
//! worker, driver ──frames──▶ Carrier::send ─┐ one lock   ┌─▶ segmented send on the route's socket
//! worker ──packets of QUIC─▶ Carrier::receive ┴ quinn-proto ┴─▶ frames, opened by the same worker
//! ```
//!
//! QUIC's state machine runs under one lock, in whatever thread sends or receives: no packet is
//! handed over to another thread, and no frame waits in a queue of QUIC's. A heartbeat waits for
//! the lock at most, which is held for one batch. Bulk data that finds the window full is not
//! taken, the newest first; heartbeats, acknowledgements and probes always are.
//!
//! Who is at the other end is proven as on the control session (pinned keys), for this peer alone.
//! Connections do not migrate: a route's addresses are its identity, and what changes them is
//! another route. Of several connections the newest counts; of two that were made at once, the one
//! the node with the smaller key dialled.

mod cid_tag;
mod connection;
mod core;
mod inflight_limit;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use netft_proto::time::Time;

pub(in crate::io) use crate::io::quic::transport::{
    cid_tag::Marks,
    connection::Why,
    settings::{ADDED, Common, Settings},
};
use crate::io::{clock, fib::UdpSocket, quic::transport::core::Core, sys::udp::SendFault};

/// How often bulk data lets others run before it takes the lock all the same.
const COURTESY: usize = 1000;

/// How frames are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Class {
    /// Data: taken while the window has room.
    Bulk,
    /// Heartbeats, acknowledgements, probes: always taken, and marked as network control.
    Control,
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::io) struct Outcome {
    /// Frames QUIC took.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames the window had no room for.
    pub full: u64,
    /// Frames larger than the connection carries.
    pub too_big: u64,
    /// Frames there was no connection for.
    pub unconnected: u64,
    /// What the kernel refused, if it did.
    pub fault: Option<(SendFault, i32)>,
}

/// The QUIC connection of one route, and what it takes to have one.
pub struct Carrier {
    core: Mutex<Core>,
    /// Threads that want the lock for what must not wait.
    first: AtomicUsize,
    /// When a timer of QUIC is due, as [`Time`]; `u64::MAX`: never.
    deadline: AtomicU64,
    /// There is a connection to send on.
    up: AtomicBool,
    /// The largest frame it carries, bytes.
    room: AtomicUsize,
    /// UDP payload of the route's interface, bytes.
    mtu: AtomicU16,
    /// Frames on the route are to travel in it.
    used: AtomicBool,
    /// The state changed, or a connection was refused, since the driver looked last.
    news: AtomicBool,
}

impl Carrier {
    /// Without a connection. `mtu`: UDP payload of the route's interface, bytes.
    pub(in crate::io) fn new(settings: Settings, remote: SocketAddr, mtu: u16) -> Self {
        Self {
            core: Mutex::new(Core::new(settings, remote)),
            first: AtomicUsize::new(0),
            deadline: AtomicU64::new(u64::MAX),
            up: AtomicBool::new(false),
            room: AtomicUsize::new(usize::MAX),
            mtu: AtomicU16::new(mtu),
            used: AtomicBool::new(false),
            news: AtomicBool::new(false),
        }
    }

    /// Sends from `socket` from here on, or not at all.
    pub(in crate::io) fn set_socket(&self, socket: Option<&Arc<UdpSocket>>) {
        self.lock().socket = socket.map_or_else(Weak::new, Arc::downgrade);
    }

    /// The interface takes `mtu` bytes of UDP payload. Returns whether a connection made for less
    /// was closed, to be made anew.
    pub(in crate::io) fn set_mtu(&self, mtu: u16) -> bool {
        let before = self.mtu.swap(mtu, Relaxed);
        let grown = mtu > before && self.up();
        if grown {
            self.close(Why::Redial);
        }
        grown
    }

    /// Says whether frames on the route are to travel in it.
    pub(in crate::io) fn set_used(&self, used: bool) {
        self.used.store(used, Relaxed);
    }

    /// Whether frames on the route are to travel in it; if not, its peer has yet to prove itself.
    pub(in crate::io) fn used(&self) -> bool {
        self.used.load(Relaxed)
    }

    /// Whether there is a connection to send on.
    #[inline]
    pub(in crate::io) fn up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// The largest frame the connection carries, bytes; unlimited without one.
    pub(in crate::io) fn room(&self) -> usize {
        self.room.load(Relaxed)
    }

    /// Whether something changed since the last call.
    pub(in crate::io) fn take_news(&self) -> bool {
        self.news.load(Relaxed) && self.news.swap(false, Relaxed)
    }

    /// When [`tick`](Self::tick) is due.
    pub(in crate::io) fn deadline(&self) -> Option<Time> {
        Some(self.deadline.load(Relaxed)).filter(|at| *at != u64::MAX).map(Time::from_nanos)
    }

    /// Serves QUIC's timers.
    pub(in crate::io) fn tick(&self) {
        let now = Instant::now();
        let mut core = self.lock_first();
        core.tick(now);
        self.settle(&mut core, now);
    }

    /// Begins a connection, in place of one that has not come about. Why it cannot is logged.
    pub(in crate::io) fn dial(&self) {
        let now = Instant::now();
        let mut core = self.lock();
        core.dial(now, self.mtu.load(Relaxed));
        self.settle(&mut core, now);
    }

    /// Ends every connection, and says so.
    pub(in crate::io) fn close(&self, why: Why) {
        let now = Instant::now();
        let mut core = self.lock();
        core.close(now, why);
        self.settle(&mut core, now);
    }

    /// Whether the peer closed because it does not want this carrier here any more. Told once.
    pub(in crate::io) fn take_unwanted(&self) -> bool {
        std::mem::take(&mut self.lock().unwanted)
    }

    /// Why the last connection ended or did not come about, if that is news.
    pub(in crate::io) fn take_complaint(&self) -> Option<String> {
        self.lock().complaint.take()
    }

    /// Sends `bytes`, frames of `stride` bytes (the last may be shorter). The path carries frames
    /// of `limit` bytes.
    pub(in crate::io) fn send(
        &self,
        bytes: &[u8],
        stride: usize,
        limit: usize,
        class: Class,
    ) -> Outcome {
        let now = Instant::now();
        let mut core = match class {
            Class::Bulk => self.lock_last(),
            Class::Control => self.lock_first(),
        };
        let outcome = core.send(now, bytes, stride, limit, class);
        self.settle(&mut core, now);
        outcome
    }

    /// Takes in `packets` that came from the route's remote address, at most 64 KiB, and gives the
    /// frames they brought; those that are not for a carrier connection go to `other`.
    pub(in crate::io) fn receive<'p>(
        &self,
        packets: impl Iterator<Item = &'p [u8]>,
        frames: &mut Vec<Bytes>,
        mut other: impl FnMut(&'p [u8]),
    ) {
        let now = Instant::now();
        let mut core = self.lock_last();
        let marks = core.marks();
        let mine = packets.filter(|packet| {
            let claimed = marks.claims(packet);
            if !claimed {
                other(packet);
            }
            claimed
        });
        core.receive(now, self.mtu.load(Relaxed), mine, frames);
        self.settle(&mut core, now);
    }

    /// Takes over what others read without the lock.
    fn settle(&self, core: &mut Core, now: Instant) {
        let (up, room) = core.state();
        let room = room.unwrap_or(usize::MAX);
        let before = (self.up.swap(up, Relaxed), self.room.swap(room, Relaxed));
        if before != (up, room) || core.complaint.is_some() || core.unwanted {
            self.news.store(true, Relaxed);
        }
        let at = core.timeout().map_or(u64::MAX, |at| {
            let wait = at.saturating_duration_since(now);
            (clock::now() + wait.min(Duration::from_secs(3600))).as_nanos()
        });
        self.deadline.store(at, Relaxed);
    }

    /// The lock, ahead of bulk data.
    fn lock_first(&self) -> MutexGuard<'_, Core> {
        self.first.fetch_add(1, Relaxed);
        let core = self.lock();
        self.first.fetch_sub(1, Relaxed);
        core
    }

    /// The lock, once nobody waits for it who goes first. A mutex is not fair: a thread that lets
    /// go and asks again at once would get it before one that has to be woken.
    fn lock_last(&self) -> MutexGuard<'_, Core> {
        for _ in 0..COURTESY {
            if self.first.load(Relaxed) == 0 {
                break;
            }
            std::thread::yield_now();
        }
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A thread that panicked in here took its worker with it.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
