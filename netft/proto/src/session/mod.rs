//! The authenticated envelope of one session: keys, counters, replay window. Pure.
//!
//! Both planes hold it: the control plane makes it from an agreed handshake, the workers seal and
//! open with it, without locks and without allocation per frame.
//!
//! The counter of a frame names its key epoch, so no bit on the wire is spent on it and no frame
//! is lost when the key moves on: epoch = counter >> 25. RFC 9001 appendix B.1.1 allows AES-GCM
//! 2^35 / l frames of l 16-byte blocks under one key, that is 2^28 frames of up to 2^11 bytes; an
//! epoch of 2^25 frames keeps to it for frames of up to 2^14 bytes ([`MAX_FRAME`]). Either end
//! holds the previous, the current and the next epoch. A sealer moves on with its own counter; an
//! opener only after an *authentic* frame of the next epoch, so a forged counter moves nothing. A
//! direction in which every frame of a whole epoch (2^25) was lost in a row needs a fresh
//! handshake.

pub mod fragment;
mod keys;
pub mod replay;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU16, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use zeroize::Zeroize;

use crate::{
    ids::{PeerId, virtual_addrs::VirtualAddrs},
    session::{
        fragment::{Added, Assembly, Slice},
        keys::KeyWindow,
        replay::{COUNTER_LIMIT, ReplayWindow},
    },
    time::Time,
    wire::{
        DropReason,
        ack::{Ack, MAX_RANGES},
        header::{HEADER_LEN, Header, Kind, TAG_LEN},
    },
};

/// Frames per key epoch, as a power of two.
pub const EPOCH_BITS: u32 = 25;
/// The most bytes of a frame: a jumbo underlay has room for it, and the cipher's limit is kept.
pub const MAX_FRAME: usize = 1 << 14;
/// Frames a session may seal in all: counters are below this.
pub const MAX_FRAMES: u64 = 1 << 47;

const _: () = assert!(MAX_FRAMES < COUNTER_LIMIT);

/// Which AEAD a session uses. Both ends choose the same from their hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-256-GCM: both CPUs have AES instructions.
    Aes256Gcm,
    /// ChaCha20-Poly1305: at least one has not.
    ChaCha20Poly1305,
}

impl Cipher {
    /// The AEAD for two ends of which each says whether its CPU has AES instructions.
    pub const fn choose(local_aes: bool, remote_aes: bool) -> Self {
        if local_aes && remote_aes { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }
}

/// What the control session agreed on. The secrets are wiped when it is dropped.
pub struct SessionParams {
    /// The peer this session belongs to.
    pub peer: PeerId,
    /// The peer's virtual addresses: the only inner sources accepted from it (S-10).
    pub peer_addrs: VirtualAddrs,
    /// This node's number for the session: what the peer puts into its headers.
    pub local: u32,
    /// The peer's number for the session: what this node puts into its headers.
    pub remote: u32,
    /// The peer's boot id.
    pub boot_id: u64,
    /// The AEAD.
    pub cipher: Cipher,
    /// Secret of the direction from here to the peer. Never equal to `rx_secret`: a reflected
    /// frame would be authentic.
    pub tx_secret: [u8; 32],
    /// Secret of the direction from the peer to here.
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
            .field("local", &self.local)
            .field("remote", &self.remote)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// One session, shared by every worker. No lock, no allocation per frame, but for slices that came
/// apart.
pub struct Session {
    peer: PeerId,
    peer_addrs: VirtualAddrs,
    local: u32,
    remote: u32,
    boot_id: u64,
    epoch_bits: u32,
    max_frames: u64,
    counter: AtomicU64,
    tx: ArcSwap<KeyWindow>,
    rx: ArcSwap<KeyWindow>,
    replay: ReplayWindow,
    /// The highest data counter accepted, plus one; 0 before the first.
    heard: AtomicU64,
    /// What the peer acknowledged last, and how often it did.
    acked: ArcSwapOption<Ack>,
    acks: AtomicU64,
    /// The number of the question it answered last; 0: none.
    answered: AtomicU16,
    /// Frames sent twice, and frames given up, by all workers.
    duplicated: AtomicU64,
    lost: AtomicU64,
    /// Whether the peer takes slices.
    takes_slices: bool,
    /// The peer's packets some of whose slices are missing, and whether there are any.
    assembly: Mutex<Assembly>,
    incomplete: AtomicBool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("local", &self.local)
            .field("remote", &self.remote)
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
            local: params.local,
            remote: params.remote,
            boot_id: params.boot_id,
            epoch_bits,
            max_frames,
            counter: AtomicU64::new(0),
            tx: ArcSwap::from_pointee(KeyWindow::new(params.cipher, &params.tx_secret)),
            rx: ArcSwap::from_pointee(KeyWindow::new(params.cipher, &params.rx_secret)),
            replay: ReplayWindow::new(),
            heard: AtomicU64::new(0),
            acked: ArcSwapOption::empty(),
            acks: AtomicU64::new(0),
            answered: AtomicU16::new(0),
            duplicated: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            takes_slices: false,
            assembly: Mutex::default(),
            incomplete: AtomicBool::new(false),
        }
    }

    /// Sets whether the peer's hello says that it takes [slices](crate::session::fragment); `false` before.
    #[must_use]
    pub fn taking_slices(self, takes_slices: bool) -> Self {
        Self { takes_slices, ..self }
    }

    /// Whether slices may be sent to the peer.
    #[inline]
    pub fn takes_slices(&self) -> bool {
        self.takes_slices
    }

    /// Keeps a slice that did not come side by side with the others of its packet: on another
    /// route, to another worker, in another receive. See [`Assembly::add`].
    ///
    /// # Errors
    /// As there.
    pub fn keep_slice(
        &self,
        now: Time,
        slice: &Slice,
        flags: u8,
        body: &[u8],
    ) -> Result<Added, DropReason> {
        let mut assembly = self.assembly.lock().unwrap_or_else(PoisonError::into_inner);
        let added = assembly.add(now, slice, flags, body);
        self.incomplete.store(!assembly.is_empty(), Relaxed);
        added
    }

    /// Gives up packets that wait for their slices for too long. Returns how many.
    #[inline]
    pub fn expire_slices(&self, now: impl FnOnce() -> Time) -> u64 {
        if !self.incomplete.load(Relaxed) {
            return 0;
        }
        let mut assembly = self.assembly.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = assembly.expire(now());
        self.incomplete.store(!assembly.is_empty(), Relaxed);
        lost
    }

    /// Takes the memory of a packet of [`keep_slice`](Self::keep_slice) back.
    pub fn recycle_packet(&self, bytes: Vec<u8>) {
        self.assembly.lock().unwrap_or_else(PoisonError::into_inner).recycle(bytes);
    }

    /// Notes the highest counter of a batch of data frames that were opened.
    pub fn note_heard(&self, highest: u64) {
        self.heard.fetch_max(highest + 1, Relaxed);
    }

    /// What to tell the peer of its data; `None` before the first.
    pub fn acknowledgement(&self) -> Option<Ack> {
        let highest = self.heard.load(Relaxed).checked_sub(1)?;
        let ranges = self.replay.runs(highest, MAX_RANGES);
        Some(Ack { highest, ranges, ..Ack::default() })
    }

    /// Takes in what the peer acknowledged. Any worker may hear it, all of them look.
    pub fn acknowledged(&self, ack: Ack) {
        let answers = ack.answers;
        self.acked.store(Some(Arc::new(ack)));
        self.acks.fetch_add(1, Release);
        if answers != 0 {
            self.answered.store(answers, Release);
        }
    }

    /// The question the peer answered last; 0: none. To be read before [`news`](Self::news), which
    /// then knows what the answer says.
    pub fn answered(&self) -> u16 {
        self.answered.load(Acquire)
    }

    /// What the peer acknowledged since the call that left `seen` behind.
    pub fn news(&self, seen: &mut u64) -> Option<Arc<Ack>> {
        let acks = self.acks.load(Acquire);
        if std::mem::replace(seen, acks) == acks {
            return None;
        }
        self.acked.load_full()
    }

    /// Counts frames that were sent on two routes.
    pub fn note_duplicated(&self, frames: u64) {
        self.duplicated.fetch_add(frames, Relaxed);
    }

    /// Counts frames that were forgotten unacknowledged.
    pub fn note_lost(&self, frames: u64) {
        self.lost.fetch_add(frames, Relaxed);
    }

    /// Frames sent on two routes, and frames forgotten unacknowledged, since the session began.
    pub fn tally(&self) -> (u64, u64) {
        (self.duplicated.load(Relaxed), self.lost.load(Relaxed))
    }

    /// The peer this session belongs to.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The peer's virtual addresses.
    pub fn peer_addrs(&self) -> VirtualAddrs {
        self.peer_addrs
    }

    /// This node's number for the session.
    pub fn local(&self) -> u32 {
        self.local
    }

    /// The peer's boot id.
    pub fn boot_id(&self) -> u64 {
        self.boot_id
    }

    /// Whether half of the counter space is used up: time for a fresh handshake while this session
    /// still carries everything.
    pub fn needs_fresh_handshake(&self) -> bool {
        self.counter.load(Relaxed) >= self.max_frames / 2
    }

    /// Takes the next `count` counters; returns the first.
    ///
    /// # Errors
    /// [`DropReason::KeyExhausted`] when the counter space is used up; it stays so.
    #[inline]
    pub fn reserve(&self, count: u64) -> Result<u64, DropReason> {
        // The check before keeps a refused caller from counting on for ever, so that the sum of
        // what is in flight (workers × count) never comes near a wrap.
        if count > self.max_frames || self.counter.load(Relaxed) >= self.max_frames {
            return Err(DropReason::KeyExhausted);
        }
        let first = self.counter.fetch_add(count, Relaxed);
        if first + count > self.max_frames {
            return Err(DropReason::KeyExhausted);
        }
        Ok(first)
    }

    /// What seals a batch of frames of one [lane](Header::lane). It keeps a key epoch alive: hold
    /// it for a turn, not longer.
    #[inline]
    pub fn sealer(&self, lane: u8) -> Sealer<'_> {
        Sealer { session: self, lane, keys: self.tx.load() }
    }

    /// What opens a batch of frames. It keeps a key epoch alive: hold it for a turn, not longer.
    #[inline]
    pub fn opener(&self) -> Opener<'_> {
        Opener { session: self, keys: self.rx.load() }
    }

    /// Seals one frame of lane 0: [`Sealer::seal`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn seal(
        &self,
        kind: Kind,
        flags: u8,
        counter: u64,
        frame: &mut [u8],
    ) -> Result<(), DropReason> {
        self.sealer(0).seal(kind, flags, counter, frame)
    }

    /// Makes a frame of one message in `frame`, whose bytes it replaces: `write` appends the
    /// message. Of [lane](Header::lane) 0 unless a worker says its own.
    ///
    /// # Errors
    /// Those of [`reserve`](Self::reserve) and [`Sealer::seal`]; the frame must not be sent then.
    pub fn message(
        &self,
        kind: Kind,
        lane: u8,
        frame: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), DropReason> {
        frame.clear();
        frame.resize(HEADER_LEN, 0);
        write(frame);
        frame.resize(frame.len() + TAG_LEN, 0);
        let counter = self.reserve(1)?;
        self.sealer(lane).seal(kind, 0, counter, frame)
    }

    /// Opens one frame: [`Opener::open`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn open<'a>(
        &self,
        header: &Header,
        frame: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        self.opener().open(header, frame)
    }
}

/// The sealing keys of a session, looked up once per batch.
pub struct Sealer<'s> {
    session: &'s Session,
    lane: u8,
    keys: Guard<Arc<KeyWindow>>,
}

impl<'s> Sealer<'s> {
    /// The session.
    #[inline]
    pub fn session(&self) -> &'s Session {
        self.session
    }

    /// Seals one frame in place. `frame` is [`OVERHEAD`](crate::wire::header::OVERHEAD) bytes longer
    /// than its payload, which stands at `frame[HEADER_LEN..len - TAG_LEN]`; the header and the
    /// tag are written around it. `counter` must come from [`Session::reserve`], each once.
    ///
    /// # Errors
    /// The frame must not be sent then. [`DropReason::KeyExhausted`] when the counter's epoch is
    /// over, because other workers sealed a whole epoch (2^25 frames) since it was reserved, or
    /// the counter is none of [`Session::reserve`]'s; [`DropReason::Malformed`] when `frame` is
    /// shorter than the overhead.
    #[inline]
    pub fn seal(
        &mut self,
        kind: Kind,
        flags: u8,
        counter: u64,
        frame: &mut [u8],
    ) -> Result<(), DropReason> {
        if counter >= self.session.max_frames {
            return Err(DropReason::KeyExhausted);
        }
        let epoch = counter >> self.session.epoch_bits;
        if epoch > self.keys.epoch() {
            advance(&self.session.tx, epoch);
            self.keys = self.session.tx.load();
        }
        let key = self.keys.key(epoch).ok_or(DropReason::KeyExhausted)?;
        let Some((head, sealed)) = frame.split_first_chunk_mut::<HEADER_LEN>() else {
            return Err(DropReason::Malformed);
        };
        let Some((payload, tag)) = sealed.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(DropReason::Malformed);
        };
        let session = self.session.remote;
        *head = Header { kind, flags, lane: self.lane, session, counter }.encode();
        tag.copy_from_slice(key.seal(counter, *head, payload)?.as_ref());
        Ok(())
    }
}

/// The opening keys of a session, looked up once per batch.
pub struct Opener<'s> {
    session: &'s Session,
    keys: Guard<Arc<KeyWindow>>,
}

impl<'s> Opener<'s> {
    /// The session.
    #[inline]
    pub fn session(&self) -> &'s Session {
        self.session
    }

    /// Opens one frame in place: replay pre-check, tag, replay commit. Returns its payload.
    /// `header` is the decoded head of `frame`.
    ///
    /// # Errors
    /// [`DropReason::Replayed`], [`DropReason::NotAuthentic`] (also for a counter of an epoch that
    /// is neither the previous, the current nor the next) or [`DropReason::Malformed`]. Nothing in
    /// the session changes then; the bytes of `frame` are unspecified.
    #[inline]
    pub fn open<'a>(
        &mut self,
        header: &Header,
        frame: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let session = self.session;
        let counter = header.counter;
        let epoch = counter >> session.epoch_bits;
        if self.keys.key(epoch).is_none() {
            // Another worker may have moved on since.
            self.keys = session.rx.load();
        }
        let key = self.keys.key(epoch).ok_or(DropReason::NotAuthentic)?;
        if session.replay.seen(counter) {
            return Err(DropReason::Replayed);
        }
        let Some((head, sealed)) = frame.split_first_chunk_mut::<HEADER_LEN>() else {
            return Err(DropReason::Malformed);
        };
        let payload = key.open(counter, *head, sealed)?;
        if !session.replay.accept(counter) {
            return Err(DropReason::Replayed);
        }
        if epoch > self.keys.epoch() {
            advance(&session.rx, epoch);
            self.keys = session.rx.load();
        }
        Ok(payload)
    }
}

/// Moves a direction on to `epoch`.
#[cold]
fn advance(window: &ArcSwap<KeyWindow>, epoch: u64) {
    loop {
        let keys = window.load();
        if keys.epoch() >= epoch {
            return;
        }
        step(window, &keys);
    }
}

/// Publishes the window after `keys`. Workers may race: each derives the same keys, and a swap
/// that lost against another's takes no effect, so the window never steps back.
fn step(window: &ArcSwap<KeyWindow>, keys: &Arc<KeyWindow>) {
    window.compare_and_swap(keys, Arc::new(keys.advanced()));
}

#[cfg(test)]
mod tests;
