//! The `quic` transport: one QUIC connection per route, bound to the route's two addresses, whose
//! DATAGRAM frames (RFC 9221) carry the same sealed frames as the `udp` transport.
//!
//! ```text
//! worker, driver ──frames──▶ send_frames ────┐ one lock   ┌─▶ segmented send on the route's socket
//! worker ──QUIC packets──▶ receive_packets ──┴ quinn-proto┴─▶ frames, opened by the same worker
//! ```
//!
//! QUIC's state machine runs under one lock, in the thread that sends or receives: no packet is
//! passed to another thread, and no frame waits in a queue of QUIC. A heartbeat waits for the lock
//! at most, which is held for one batch. Bulk data beyond the window is dropped, newest first;
//! heartbeats, acknowledgements and probes are always sent.
//!
//! The peer is authenticated by its pinned key, as on the control session. Connections do not
//! migrate: a route is identified by its addresses. Of several connections the newest takes
//! precedence; of two simultaneous ones, that dialled by the node with the smaller key.

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
    cid_tag::{CidTag, CidTags},
    connection::CloseReason,
    settings::{NodeTransportSettings, PeerTransportSettings, TRANSPORT_OVERHEAD},
    types::{FrameClass, SendOutcome},
};
use crate::io::{clock, quic::transport::core::TransportInner, socket::UdpSocket};

/// Yields of a bulk sender to priority waiters before it takes the lock anyway.
const MAX_BULK_YIELDS: usize = 1000;

/// QUIC transport of one route.
pub struct QuicTransport {
    inner: Mutex<TransportInner>,
    /// Threads that wait for the lock with control frames or timers.
    priority_waiters: AtomicUsize,
    /// Next timeout of QUIC, as [`Time`]; `u64::MAX`: none.
    next_timeout: AtomicU64,
    /// A connection is established.
    is_connected: AtomicBool,
    /// Largest frame it carries, bytes.
    max_frame_len: AtomicUsize,
    /// UDP payload of the route's interface, bytes.
    mtu: AtomicU16,
    /// Frames on the route are to be sent over QUIC.
    is_enabled: AtomicBool,
    /// The state changed, or a connection failed, since the driver's last poll.
    has_changed: AtomicBool,
}

impl QuicTransport {
    /// A transport without a connection. `mtu`: UDP payload of the route's interface, bytes.
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

    /// Sets the socket; `None`: nothing is sent.
    pub(in crate::io) fn set_socket(&self, socket: Option<&Arc<UdpSocket>>) {
        self.lock().socket = socket.map_or_else(Weak::new, Arc::downgrade);
    }

    /// Sets the MTU of the interface, bytes of UDP payload. Returns whether a connection with a
    /// smaller MTU was closed, to be dialled again.
    pub(in crate::io) fn set_mtu(&self, mtu: u16) -> bool {
        let before = self.mtu.swap(mtu, Relaxed);
        let grown = mtu > before && self.is_connected();
        if grown {
            self.close(CloseReason::Redial);
        }
        grown
    }

    /// Sets whether frames on the route are to be sent over QUIC.
    pub(in crate::io) fn set_enabled(&self, used: bool) {
        self.is_enabled.store(used, Relaxed);
    }

    /// Returns whether frames on the route are to be sent over QUIC.
    pub(in crate::io) fn is_enabled(&self) -> bool {
        self.is_enabled.load(Relaxed)
    }

    /// Returns whether a connection is established.
    #[inline]
    pub(in crate::io) fn is_connected(&self) -> bool {
        self.is_connected.load(Relaxed)
    }

    /// Largest frame that the connection carries, bytes; unlimited without one.
    pub(in crate::io) fn max_frame_len(&self) -> usize {
        self.max_frame_len.load(Relaxed)
    }

    /// Returns whether the state changed since the last call.
    pub(in crate::io) fn take_changed(&self) -> bool {
        self.has_changed.load(Relaxed) && self.has_changed.swap(false, Relaxed)
    }

    /// Time of the next [`on_timeout`](Self::on_timeout).
    pub(in crate::io) fn next_timeout(&self) -> Option<Time> {
        Some(self.next_timeout.load(Relaxed)).filter(|at| *at != u64::MAX).map(Time::from_nanos)
    }

    /// Handles QUIC's timers.
    pub(in crate::io) fn on_timeout(&self) {
        let now = Instant::now();
        let mut core = self.lock_priority();
        core.on_timeout(now);
        self.publish_state(&mut core, now);
    }

    /// Dials, and abandons an earlier dial that is still handshaking.
    pub(in crate::io) fn dial(&self) {
        let now = Instant::now();
        let mut core = self.lock();
        core.dial(now, self.mtu.load(Relaxed));
        self.publish_state(&mut core, now);
    }

    /// Closes every connection.
    pub(in crate::io) fn close(&self, why: CloseReason) {
        let now = Instant::now();
        let mut core = self.lock();
        core.close(now, why);
        self.publish_state(&mut core, now);
    }

    /// Returns, once, whether the peer closed because its configuration selects another transport.
    pub(in crate::io) fn take_declined(&self) -> bool {
        std::mem::take(&mut self.lock().is_declined)
    }

    /// Takes the error of the last connection, if not reported yet.
    pub(in crate::io) fn take_error(&self) -> Option<String> {
        self.lock().unreported_error.take()
    }

    /// Has packets sent one by one, or in segmented sends again.
    pub(in crate::io) fn set_plain_sends(&self, plain: bool) {
        self.lock_priority().plain_sends = plain;
    }

    /// Sends `bytes`, frames of `stride` bytes each (the last may be shorter). `limit`: largest
    /// frame that the path carries, bytes.
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

    /// Processes `packets` from the route's remote address, at most 64 KiB, and appends the frames
    /// they carried; packets of other QUIC connections go to `other`.
    pub(in crate::io) fn receive_packets<'p>(
        &self,
        packets: impl Iterator<Item = &'p [u8]>,
        frames: &mut Vec<Bytes>,
        mut other: impl FnMut(&'p [u8]),
    ) {
        let now = Instant::now();
        let mut core = self.lock_bulk();
        let cid_tag = core.cid_tag();
        let mine = packets.filter(|packet| {
            let is_own = cid_tag.matches_packet(packet);
            if !is_own {
                other(packet);
            }
            is_own
        });
        core.receive_packets(now, self.mtu.load(Relaxed), mine, frames);
        self.publish_state(&mut core, now);
    }

    /// Publishes the state that is read without the lock.
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

    /// Locks ahead of bulk senders.
    fn lock_priority(&self) -> MutexGuard<'_, TransportInner> {
        self.priority_waiters.fetch_add(1, Relaxed);
        let core = self.lock();
        self.priority_waiters.fetch_sub(1, Relaxed);
        core
    }

    /// Locks once there is no priority waiter. A mutex is not fair: a thread that unlocks and locks
    /// again at once would get it before a thread that has to be woken.
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
        // A panic under the lock ends the worker; the state stays usable for the others.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
