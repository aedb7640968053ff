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
mod types;

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
    cid_tag::CidTag,
    connection::CloseReason,
    settings::{NodeTransportSettings, PeerTransportSettings, TRANSPORT_OVERHEAD},
    types::{FrameClass, SendOutcome},
};
use crate::io::{clock, quic::transport::core::TransportInner, socket::UdpSocket};

/// How often bulk data lets others run before it takes the lock all the same.
const MAX_BULK_YIELDS: usize = 1000;

/// The QUIC connection of one route, and what it takes to have one.
pub struct QuicTransport {
    inner: Mutex<TransportInner>,
    /// Threads that want the lock for what must not wait.
    priority_waiters: AtomicUsize,
    /// When a timer of QUIC is due, as [`Time`]; `u64::MAX`: never.
    next_timeout: AtomicU64,
    /// There is a connection to send on.
    is_connected: AtomicBool,
    /// The largest frame it carries, bytes.
    max_frame_len: AtomicUsize,
    /// UDP payload of the route's interface, bytes.
    mtu: AtomicU16,
    /// Frames on the route are to travel in it.
    is_enabled: AtomicBool,
    /// The state changed, or a connection was refused, since the driver looked last.
    has_changed: AtomicBool,
}

impl QuicTransport {
    /// Without a connection. `mtu`: UDP payload of the route's interface, bytes.
    pub(in crate::io) fn new(
        settings: PeerTransportSettings,
        remote: SocketAddr,
        mtu: u16,
    ) -> Self {
        Self {
            inner: Mutex::new(TransportInner::new(settings, remote)),
            priority_waiters: AtomicUsize::new(0),
            next_timeout: AtomicU64::new(u64::MAX),
            is_connected: AtomicBool::new(false),
            max_frame_len: AtomicUsize::new(usize::MAX),
            mtu: AtomicU16::new(mtu),
            is_enabled: AtomicBool::new(false),
            has_changed: AtomicBool::new(false),
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
        let grown = mtu > before && self.is_connected();
        if grown {
            self.close(CloseReason::Redial);
        }
        grown
    }

    /// Says whether frames on the route are to travel in it.
    pub(in crate::io) fn set_enabled(&self, used: bool) {
        self.is_enabled.store(used, Relaxed);
    }

    /// Whether frames on the route are to travel in it; if not, its peer has yet to prove itself.
    pub(in crate::io) fn is_enabled(&self) -> bool {
        self.is_enabled.load(Relaxed)
    }

    /// Whether there is a connection to send on.
    #[inline]
    pub(in crate::io) fn is_connected(&self) -> bool {
        self.is_connected.load(Relaxed)
    }

    /// The largest frame the connection carries, bytes; unlimited without one.
    pub(in crate::io) fn max_frame_len(&self) -> usize {
        self.max_frame_len.load(Relaxed)
    }

    /// Whether something changed since the last call.
    pub(in crate::io) fn take_changed(&self) -> bool {
        self.has_changed.load(Relaxed) && self.has_changed.swap(false, Relaxed)
    }

    /// When [`on_timeout`](Self::on_timeout) is due.
    pub(in crate::io) fn next_timeout(&self) -> Option<Time> {
        Some(self.next_timeout.load(Relaxed)).filter(|at| *at != u64::MAX).map(Time::from_nanos)
    }

    /// Serves QUIC's timers.
    pub(in crate::io) fn on_timeout(&self) {
        let now = Instant::now();
        let mut core = self.lock_priority();
        core.on_timeout(now);
        self.publish_state(&mut core, now);
    }

    /// Begins a connection, in place of one that has not come about. Why it cannot is logged.
    pub(in crate::io) fn dial(&self) {
        let now = Instant::now();
        let mut core = self.lock();
        core.dial(now, self.mtu.load(Relaxed));
        self.publish_state(&mut core, now);
    }

    /// Ends every connection, and says so.
    pub(in crate::io) fn close(&self, why: CloseReason) {
        let now = Instant::now();
        let mut core = self.lock();
        core.close(now, why);
        self.publish_state(&mut core, now);
    }

    /// Whether the peer closed because it does not want this carrier here any more. Told once.
    pub(in crate::io) fn take_declined(&self) -> bool {
        std::mem::take(&mut self.lock().is_declined)
    }

    /// Why the last connection ended or did not come about, if that is news.
    pub(in crate::io) fn take_error(&self) -> Option<String> {
        self.lock().unreported_error.take()
    }

    /// Sends `bytes`, frames of `stride` bytes (the last may be shorter). The path carries frames
    /// of `limit` bytes.
    pub(in crate::io) fn send_frames(
        &self,
        bytes: &[u8],
        stride: usize,
        limit: usize,
        class: FrameClass,
    ) -> SendOutcome {
        let now = Instant::now();
        let mut core = match class {
            FrameClass::Bulk => self.lock_bulk(),
            FrameClass::Control => self.lock_priority(),
        };
        let outcome = core.send_frames(now, bytes, stride, limit, class);
        self.publish_state(&mut core, now);
        outcome
    }

    /// Takes in `packets` that came from the route's remote address, at most 64 KiB, and gives the
    /// frames they brought; those that are not for a carrier connection go to `other`.
    pub(in crate::io) fn receive_packets<'p>(
        &self,
        packets: impl Iterator<Item = &'p [u8]>,
        frames: &mut Vec<Bytes>,
        mut other: impl FnMut(&'p [u8]),
    ) {
        let now = Instant::now();
        let mut core = self.lock_bulk();
        let marks = core.cid_tag();
        let mine = packets.filter(|packet| {
            let claimed = marks.matches_packet(packet);
            if !claimed {
                other(packet);
            }
            claimed
        });
        core.receive_packets(now, self.mtu.load(Relaxed), mine, frames);
        self.publish_state(&mut core, now);
    }

    /// Takes over what others read without the lock.
    fn publish_state(&self, core: &mut TransportInner, now: Instant) {
        let (up, room) = core.send_state();
        let room = room.unwrap_or(usize::MAX);
        let before = (self.is_connected.swap(up, Relaxed), self.max_frame_len.swap(room, Relaxed));
        if before != (up, room) || core.unreported_error.is_some() || core.is_declined {
            self.has_changed.store(true, Relaxed);
        }
        let at = core.next_timeout().map_or(u64::MAX, |at| {
            let wait = at.saturating_duration_since(now);
            (clock::now() + wait.min(Duration::from_secs(3600))).as_nanos()
        });
        self.next_timeout.store(at, Relaxed);
    }

    /// The lock, ahead of bulk data.
    fn lock_priority(&self) -> MutexGuard<'_, TransportInner> {
        self.priority_waiters.fetch_add(1, Relaxed);
        let core = self.lock();
        self.priority_waiters.fetch_sub(1, Relaxed);
        core
    }

    /// The lock, once nobody waits for it who goes first. A mutex is not fair: a thread that lets
    /// go and asks again at once would get it before one that has to be woken.
    fn lock_bulk(&self) -> MutexGuard<'_, TransportInner> {
        for _ in 0..MAX_BULK_YIELDS {
            if self.priority_waiters.load(Relaxed) == 0 {
                break;
            }
            std::thread::yield_now();
        }
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, TransportInner> {
        // A thread that panicked in here took its worker with it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
