//! The authenticated envelope of one session: keys, counters, replay window. Pure.

use std::sync::atomic::AtomicU64;

use super::{
    DropReason,
    header::{Header, Kind},
};
use crate::{addr::VirtualAddrs, id::PeerId};

/// Which AEAD a session uses. Both ends choose the same from their hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-256-GCM: both CPUs have AES instructions.
    Aes256Gcm,
    /// ChaCha20-Poly1305: at least one has not.
    ChaCha20Poly1305,
}

/// What the control session agreed on.
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
    /// Secret of the direction from here to the peer.
    pub tx_secret: [u8; 32],
    /// Secret of the direction from the peer to here.
    pub rx_secret: [u8; 32],
}

/// One session, shared by every worker. No lock, no allocation per frame.
pub struct Session {
    params: SessionParams,
    counter: AtomicU64,
}

impl Session {
    /// A session with fresh keys, counter 0 and an empty replay window.
    pub fn new(params: SessionParams) -> Self {
        Self { params, counter: AtomicU64::new(0) }
    }

    /// The peer this session belongs to.
    pub fn peer(&self) -> PeerId {
        self.params.peer
    }

    /// The peer's virtual addresses.
    pub fn peer_addrs(&self) -> VirtualAddrs {
        self.params.peer_addrs
    }

    /// This node's number for the session.
    pub fn local(&self) -> u32 {
        self.params.local
    }

    /// The peer's boot id.
    pub fn boot_id(&self) -> u64 {
        self.params.boot_id
    }

    /// Takes the next `count` counters; returns the first.
    ///
    /// # Errors
    /// [`DropReason::KeyExhausted`] when the counter space is used up.
    #[inline]
    pub fn reserve(&self, count: u64) -> Result<u64, DropReason> {
        let _ = (count, &self.counter);
        todo!()
    }

    /// Seals one frame in place. `frame` is [`OVERHEAD`](super::header::OVERHEAD) bytes longer
    /// than its payload, which stands at `frame[HEADER_LEN..len - TAG_LEN]`; the header and the
    /// tag are written around it. `counter` must come from [`reserve`](Self::reserve), each once.
    ///
    /// # Errors
    /// The frame must not be sent then.
    #[inline]
    pub fn seal(
        &self,
        kind: Kind,
        flags: u8,
        counter: u64,
        frame: &mut [u8],
    ) -> Result<(), DropReason> {
        let _ = (kind, flags, counter, frame);
        todo!()
    }

    /// Opens one frame in place: replay pre-check, tag, replay commit. Returns its payload.
    ///
    /// # Errors
    /// [`DropReason::Replayed`] or [`DropReason::NotAuthentic`]; nothing changes then.
    #[inline]
    pub fn open<'a>(
        &self,
        header: &Header,
        frame: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let _ = (header, frame);
        todo!()
    }
}
