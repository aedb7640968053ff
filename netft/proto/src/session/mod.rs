//! The cryptographic state of one session: keys, counters, replay window. Pure.
//!
//! The control plane creates it from a completed handshake; the workers seal and open frames with
//! it, without locks and without allocation per frame.
//!
//! The counter of a frame determines its key epoch, so a key update needs no bit on the wire and
//! loses no frame: epoch = counter >> 25. RFC 9001 appendix B.1.1 allows AES-GCM
//! 2^35 / l frames of l 16-byte blocks under one key, that is 2^28 frames of up to 2^11 bytes; an
//! epoch of 2^25 frames keeps to it for frames of up to 2^14 bytes ([`MAX_FRAME_LEN`]). Either end
//! holds the previous, the current and the next epoch. A sealer advances with its own counter; an
//! opener only after an *authentic* frame of the next epoch, so a forged counter changes nothing. A
//! direction that lost every frame of a whole epoch (2^25) in a row needs a fresh handshake.

pub mod fragment;
mod keys;
mod path_arrivals;
pub mod replay;
mod saved;
mod shared_state;

use std::{fmt, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use zeroize::Zeroize;

pub use crate::session::{
    keys::{Cipher, aegis_is_sound},
    saved::{COUNTER_RESERVE, SavedSession, UnusableSession},
};
use crate::{
    ids::{PeerId, RouteId, virtual_addrs::VirtualAddrs},
    loss_detection::DeliveryCounts,
    session::{
        fragment::{Fragment, reassembly::FragmentOutcome},
        keys::KeyWindow,
        replay::ReplayWindow,
        shared_state::{AckState, CounterSpace, SessionLossCounters, SharedReassembly},
    },
    time::Time,
    wire::{
        DropReason,
        ack::{Ack, MAX_RANGES},
        header::{COUNTER_LIMIT, FrameHeader, FrameKind, HEADER_LEN, TAG_LEN},
    },
};

/// Frames per key epoch, as a power of two.
pub const EPOCH_BITS: u32 = 25;
/// Maximum frame length, bytes: within the AEAD's limit, and enough for jumbo frames.
pub const MAX_FRAME_LEN: usize = 1 << 14;
/// Frames that a session may seal in all: counters are below this.
pub const MAX_FRAMES: u64 = 1 << 47;

const _: () = assert!(MAX_FRAMES < COUNTER_LIMIT);

/// Parameters negotiated by the handshake. The secrets are wiped when it is dropped.
pub struct SessionParams {
    /// The peer this session belongs to.
    pub peer: PeerId,
    /// The peer's virtual addresses: the only inner sources accepted from it (S-10).
    pub peer_addrs: VirtualAddrs,
    /// This node's id of the session, in the headers of the peer's frames.
    pub local_id: u32,
    /// The peer's id of the session, in the headers of this node's frames.
    pub remote_id: u32,
    /// The peer's boot id.
    pub boot_id: u64,
    /// The AEAD.
    pub cipher: Cipher,
    /// Secret of the transmit direction. Never equal to `rx_secret`: a reflected frame would be
    /// authentic.
    pub tx_secret: [u8; 32],
    /// Secret of the receive direction.
    pub rx_secret: [u8; 32],
}

impl Drop for SessionParams {
    fn drop(&mut self) {
        self.tx_secret.zeroize();
        self.rx_secret.zeroize();
    }
}

impl fmt::Debug for SessionParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionParams")
            .field("peer", &self.peer)
            .field("local", &self.local_id)
            .field("remote", &self.remote_id)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// One session, shared by every worker. Sealing and opening take no lock and allocate nothing per
/// frame; only out-of-order fragments take the reassembly lock.
pub struct Session {
    peer: PeerId,
    peer_addrs: VirtualAddrs,
    local_id: u32,
    remote_id: u32,
    boot_id: u64,
    peer_accepts_fragments: bool,
    epoch_bits: u32,
    counters: CounterSpace,
    tx: ArcSwap<KeyWindow>,
    rx: ArcSwap<KeyWindow>,
    replay: ReplayWindow,
    acks: AckState,
    losses: SessionLossCounters,
    reassembly: SharedReassembly,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("local", &self.local_id)
            .field("remote", &self.remote_id)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session with fresh keys, counter 0 and an empty replay window.
    pub fn new(params: SessionParams) -> Self {
        Self::with_limits(params, EPOCH_BITS, MAX_FRAMES)
    }

    /// A session whose epochs and counter space end early, so that tests can reach the ends.
    fn with_limits(params: SessionParams, epoch_bits: u32, max_frames: u64) -> Self {
        debug_assert_ne!(params.tx_secret, params.rx_secret);
        Self {
            peer: params.peer,
            peer_addrs: params.peer_addrs,
            local_id: params.local_id,
            remote_id: params.remote_id,
            boot_id: params.boot_id,
            peer_accepts_fragments: false,
            epoch_bits,
            counters: CounterSpace::new(max_frames),
            tx: ArcSwap::from_pointee(KeyWindow::new(params.cipher, &params.tx_secret)),
            rx: ArcSwap::from_pointee(KeyWindow::new(params.cipher, &params.rx_secret)),
            replay: ReplayWindow::new(),
            acks: AckState::default(),
            losses: SessionLossCounters::default(),
            reassembly: SharedReassembly::default(),
        }
    }

    /// The AEAD of its frames.
    pub fn cipher(&self) -> Cipher {
        self.tx.load().cipher()
    }

    /// The state for a successor process. No frame may be sealed or opened any more: the successor
    /// does that from here on.
    pub fn to_saved(&self) -> SavedSession {
        let (tx, rx) = (self.tx.load(), self.rx.load());
        SavedSession {
            local_id: self.local_id,
            remote_id: self.remote_id,
            boot_id: self.boot_id,
            cipher: tx.cipher(),
            accepts_fragments: self.peer_accepts_fragments,
            next_counter: self.counters.next_counter(),
            tx: tx.to_saved(),
            rx: rx.to_saved(),
            replay: self.replay.to_bytes(),
            highest_received: self.acks.highest_received(),
            arrivals: self.acks.arrivals.to_counts(),
            loss: self.losses.loss_counts(),
            partial_packets: self.reassembly.to_saved(),
        }
    }

    /// The session of a predecessor process with a peer.
    ///
    /// # Errors
    /// Its parts contradict each other.
    pub fn from_saved(
        saved: &SavedSession,
        peer: PeerId,
        peer_addrs: VirtualAddrs,
    ) -> Result<Self, UnusableSession> {
        let replay = ReplayWindow::from_bytes(&saved.replay).ok_or(UnusableSession)?;
        let acks = AckState::default();
        saved.highest_received.into_iter().for_each(|highest| acks.record_received(highest));
        for (route, received, reported, acked) in &saved.arrivals {
            acks.arrivals.record_received(RouteId(*route), *received);
            acks.arrivals.record_reported(RouteId(*route), *reported);
            acks.arrivals.record_acked(RouteId(*route), *acked);
        }
        let losses = SessionLossCounters::default();
        losses.record_duplicated(saved.loss.0);
        losses.record_lost(saved.loss.1);
        Ok(Self {
            peer,
            peer_addrs,
            local_id: saved.local_id,
            remote_id: saved.remote_id,
            boot_id: saved.boot_id,
            peer_accepts_fragments: saved.accepts_fragments,
            epoch_bits: EPOCH_BITS,
            counters: CounterSpace::resumed(MAX_FRAMES, saved.resumed_counter()),
            tx: ArcSwap::from_pointee(KeyWindow::from_saved(saved.cipher, &saved.tx)),
            rx: ArcSwap::from_pointee(KeyWindow::from_saved(saved.cipher, &saved.rx)),
            replay,
            acks,
            losses,
            reassembly: SharedReassembly::from_saved(&saved.partial_packets),
        })
    }

    /// Sets whether the peer's hello announced support for [fragments](crate::session::fragment);
    /// a session starts without.
    #[must_use]
    pub fn with_fragments(self, accepts_fragments: bool) -> Self {
        Self { peer_accepts_fragments: accepts_fragments, ..self }
    }

    /// Returns whether fragments may be sent to the peer.
    #[inline]
    pub fn peer_accepts_fragments(&self) -> bool {
        self.peer_accepts_fragments
    }

    /// Buffers a fragment that arrived apart from the others of its packet: on another route, at
    /// another worker, or in another receive batch. See
    /// [`ReassemblyBuffer::add_fragment`](fragment::reassembly::ReassemblyBuffer::add_fragment).
    ///
    /// # Errors
    /// As there.
    pub fn add_fragment(
        &self,
        now: Time,
        fragment: &Fragment,
        flags: u8,
        body: &[u8],
    ) -> Result<FragmentOutcome, DropReason> {
        self.reassembly.add_fragment(now, fragment, flags, body)
    }

    /// Discards partial packets past the reassembly timeout. Returns how many.
    #[inline]
    pub fn expire_partial_packets(&self, now: impl FnOnce() -> Time) -> u64 {
        self.reassembly.expire_partial_packets(now)
    }

    /// Takes back the memory of a packet that [`add_fragment`](Self::add_fragment) completed.
    pub fn recycle_buffer(&self, bytes: Vec<u8>) {
        self.reassembly.recycle_buffer(bytes);
    }

    /// Records the highest counter of a batch of opened data frames.
    pub fn record_received(&self, highest: u64) {
        self.acks.record_received(highest);
    }

    /// The acknowledgement of the peer's data; `None` before the first data frame.
    pub fn build_ack(&self) -> Option<Ack> {
        let highest = self.acks.highest_received()?;
        let ranges = self.replay.accepted_ranges(highest, MAX_RANGES);
        Some(Ack { highest, ranges, ..Ack::default() })
    }

    /// Stores an acknowledgement for every worker; any one of them may have received it.
    pub fn on_ack_received(&self, ack: Ack) {
        self.acks.on_ack_received(ack);
    }

    /// Number of the immediate-acknowledgement request the peer answered last; 0: none. To be read
    /// before [`poll_ack`](Self::poll_ack), which then returns at least the acknowledgement that
    /// carried the answer.
    pub fn last_immediate_ack(&self) -> u16 {
        self.acks.last_immediate_ack()
    }

    /// The latest acknowledgement, if one arrived since the call that left `seen` behind.
    pub fn poll_ack(&self, seen: &mut u64) -> Option<Arc<Ack>> {
        self.acks.poll_ack(seen)
    }

    /// Drops the counts of routes that are gone.
    pub fn retain_counted_routes(&self, exists: impl Fn(RouteId) -> bool) {
        self.acks.arrivals.retain_routes(exists);
    }

    /// Counts authentic data frames that arrived on a route, copies too.
    #[inline]
    pub fn record_arrivals(&self, route: RouteId, frames: u64) {
        self.acks.arrivals.record_received(route, frames);
    }

    /// Data frames that arrived on a route, copies too.
    pub fn arrivals_on(&self, route: RouteId) -> u64 {
        self.acks.arrivals.received(route)
    }

    /// Stores how many of this node's data frames the peer received on a route.
    pub fn record_peer_arrivals(&self, route: RouteId, frames: u64) {
        self.acks.arrivals.record_reported(route, frames);
    }

    /// Counts data frames sent on a route that are acknowledged, whichever copy arrived.
    pub fn record_acked_frames(&self, route: RouteId, frames: u64) {
        self.acks.arrivals.record_acked(route, frames);
    }

    /// Data frames sent on a route that are acknowledged, and those that arrived there.
    pub fn route_counts(&self, route: RouteId) -> DeliveryCounts {
        DeliveryCounts {
            acknowledged: self.acks.arrivals.acked(route),
            arrived: self.acks.arrivals.reported(route),
        }
    }

    /// Counts frames that were sent on two routes.
    pub fn record_duplicated(&self, frames: u64) {
        self.losses.record_duplicated(frames);
    }

    /// Counts frames that were given up unacknowledged.
    pub fn record_lost(&self, frames: u64) {
        self.losses.record_lost(frames);
    }

    /// Frames sent on two routes, and frames given up unacknowledged, since the session began.
    pub fn loss_counts(&self) -> (u64, u64) {
        self.losses.loss_counts()
    }

    /// The peer this session belongs to.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The peer's virtual addresses.
    pub fn peer_addrs(&self) -> VirtualAddrs {
        self.peer_addrs
    }

    /// This node's id of the session.
    pub fn local_id(&self) -> u32 {
        self.local_id
    }

    /// The peer's boot id.
    pub fn boot_id(&self) -> u64 {
        self.boot_id
    }

    /// Returns whether half of the counter space is used up: time for a fresh handshake while this
    /// session still carries everything.
    pub fn needs_fresh_handshake(&self) -> bool {
        self.counters.is_half_used()
    }

    /// Reserves the next `count` counters; returns the first.
    ///
    /// # Errors
    /// [`DropReason::KeyExhausted`] when the counter space is used up; it stays so.
    #[inline]
    pub fn reserve_counters(&self, count: u64) -> Result<u64, DropReason> {
        self.counters.reserve_counters(count)
    }

    /// Sealer for a batch of frames of one [queue](FrameHeader::queue). It keeps a key epoch alive:
    /// to be held for a turn, not longer.
    #[inline]
    pub fn frame_sealer(&self, queue: u8) -> FrameSealer<'_> {
        FrameSealer { session: self, queue, keys: self.tx.load() }
    }

    /// Opener for a batch of frames. It keeps a key epoch alive: to be held for a turn, not longer.
    #[inline]
    pub fn frame_opener(&self) -> FrameOpener<'_> {
        FrameOpener { session: self, keys: self.rx.load() }
    }

    /// Seals one frame of queue 0: [`FrameSealer::seal`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn seal_frame(
        &self,
        kind: FrameKind,
        flags: u8,
        counter: u64,
        frame: &mut [u8],
    ) -> Result<(), DropReason> {
        self.frame_sealer(0).seal(kind, flags, counter, frame)
    }

    /// Builds a frame of one message in `frame`, whose bytes it replaces; `write` appends the
    /// message. `queue`: the [queue](FrameHeader::queue) of the worker, 0 for the driver.
    ///
    /// # Errors
    /// Those of [`reserve_counters`](Self::reserve_counters) and [`FrameSealer::seal`]; the frame
    /// must not be sent then.
    pub fn seal_message(
        &self,
        kind: FrameKind,
        queue: u8,
        frame: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), DropReason> {
        frame.clear();
        frame.resize(HEADER_LEN, 0);
        write(frame);
        frame.resize(frame.len() + TAG_LEN, 0);
        let counter = self.reserve_counters(1)?;
        self.frame_sealer(queue).seal(kind, 0, counter, frame)
    }

    /// Opens one frame: [`FrameOpener::open`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn open_frame<'a>(
        &self,
        header: &FrameHeader,
        frame: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        self.frame_opener().open(header, frame)
    }
}

/// Sealing keys of a session, loaded once per batch.
pub struct FrameSealer<'s> {
    session: &'s Session,
    queue: u8,
    keys: Guard<Arc<KeyWindow>>,
}

impl<'s> FrameSealer<'s> {
    /// The session.
    #[inline]
    pub fn session(&self) -> &'s Session {
        self.session
    }

    /// Seals one frame in place. `frame` is [`FRAME_OVERHEAD`](crate::wire::header::FRAME_OVERHEAD)
    /// bytes longer than its payload, `frame[HEADER_LEN..len - TAG_LEN]`; the header and the tag
    /// are written around it. `counter` must come from
    /// [`Session::reserve_counters`], each once.
    ///
    /// # Errors
    /// The frame must not be sent then. [`DropReason::KeyExhausted`] when the counter's epoch is
    /// over, because other workers sealed a whole epoch (2^25 frames) since it was reserved, or
    /// the counter was not reserved; [`DropReason::Malformed`] when
    /// `frame` is shorter than the overhead.
    #[inline]
    pub fn seal(
        &mut self,
        kind: FrameKind,
        flags: u8,
        counter: u64,
        frame: &mut [u8],
    ) -> Result<(), DropReason> {
        if counter >= self.session.counters.limit() {
            return Err(DropReason::KeyExhausted);
        }
        let epoch = counter >> self.session.epoch_bits;
        if epoch > self.keys.current_epoch() {
            advance_epoch(&self.session.tx, epoch);
            self.keys = self.session.tx.load();
        }
        let key = self.keys.key_for_epoch(epoch).ok_or(DropReason::KeyExhausted)?;
        let Some((head, sealed)) = frame.split_first_chunk_mut::<HEADER_LEN>() else {
            return Err(DropReason::Malformed);
        };
        let Some((payload, tag)) = sealed.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(DropReason::Malformed);
        };
        let session = self.session.remote_id;
        *head =
            FrameHeader { kind, flags, queue: self.queue, session_id: session, counter }.encode();
        key.seal(counter, *head, payload, tag)
    }
}

/// Opening keys of a session, loaded once per batch.
pub struct FrameOpener<'s> {
    session: &'s Session,
    keys: Guard<Arc<KeyWindow>>,
}

impl<'s> FrameOpener<'s> {
    /// The session.
    #[inline]
    pub fn session(&self) -> &'s Session {
        self.session
    }

    /// Opens one frame in place: tag, then replay window. Returns its payload. `header` is the
    /// decoded head of `frame`.
    ///
    /// # Errors
    /// [`DropReason::NotAuthentic`] (also for a counter of an epoch that is neither the previous,
    /// the current nor the next), [`DropReason::Replayed`] for an authentic frame only, because a
    /// duplicate is acknowledged (S-06), or [`DropReason::Malformed`]. Nothing in the session
    /// changes then; the bytes of `frame` are unspecified.
    #[inline]
    pub fn open<'a>(
        &mut self,
        header: &FrameHeader,
        frame: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let session = self.session;
        let counter = header.counter;
        let epoch = counter >> session.epoch_bits;
        if self.keys.key_for_epoch(epoch).is_none() {
            // Another worker may have advanced the epoch since.
            self.keys = session.rx.load();
        }
        let key = self.keys.key_for_epoch(epoch).ok_or(DropReason::NotAuthentic)?;
        let Some((head, sealed)) = frame.split_first_chunk_mut::<HEADER_LEN>() else {
            return Err(DropReason::Malformed);
        };
        let payload = key.open(counter, *head, sealed)?;
        if !session.replay.accept(counter) {
            return Err(DropReason::Replayed);
        }
        if epoch > self.keys.current_epoch() {
            advance_epoch(&session.rx, epoch);
            self.keys = session.rx.load();
        }
        Ok(payload)
    }
}

/// Advances a direction to `epoch`.
#[cold]
fn advance_epoch(window: &ArcSwap<KeyWindow>, epoch: u64) {
    loop {
        let keys = window.load();
        if keys.current_epoch() >= epoch {
            return;
        }
        publish_next_epoch(window, &keys);
    }
}

/// Publishes the window after `keys`. Workers may race: all derive the same keys, and the swap of
/// the loser has no effect, so the window never moves back.
fn publish_next_epoch(window: &ArcSwap<KeyWindow>, keys: &Arc<KeyWindow>) {
    window.compare_and_swap(keys, Arc::new(keys.to_next_epoch()));
}

#[cfg(test)]
mod tests;
