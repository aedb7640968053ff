//! The control session with each peer: one QUIC connection under mutual pinned keys, whose key
//! exporter gives the keys of heartbeats and data.
//!
//! ```text
//! dialer                                acceptor
//!    | ──── QUIC + TLS 1.3 handshake ──────> |   both keys proven, or refused
//!    | ──── Hello ─────────────────────────> |   checks it
//!    | <─── Hello ────────────────────────── |   dialer: accepted both ways, session up
//!    | ──── ready, generation ─────────────> |   acceptor: session up, may send
//!    | <─── ready ────────────────────────── |   dialer: may send
//!    | ──── settled ───────────────────────> |   both may retire what this supersedes
//! ```
//!
//! Why so many words: a finished QUIC handshake proves nothing to the dialer about the acceptor's
//! view of its key, and a frame sent before the other end has the keys is lost.
//!
//! The keys outlive the QUIC connection: when every route is down for hours they still fit. A
//! session ends when the peer says so, when its process is replaced by another, or when a newer
//! session has taken over. [`SessionManager`] is the way in; the driver owns it.

mod endpoint;
mod failure;
mod handshake_return_path;
pub(in crate::io) mod session;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
pub(in crate::io) mod transport;
mod unverified_sources;

use std::{net::SocketAddr, sync::Arc};

use netft_proto::{ids::PeerId, session::Session, wire::interfaces::Advertisement};

pub use crate::io::quic::session::{
    manager::{SessionManager, StartError},
    peer_query::{MAX_REPLY_LEN, PeerQuery, QueryError},
};
use crate::io::socket::SocketId;

/// The most datagrams that wait for the control session; beyond it the sender drops and counts.
pub const DATAGRAM_QUEUE_LEN: usize = 256;

/// A datagram for QUIC, as a packet worker hands it over.
#[derive(Clone, Debug)]
pub struct QuicDatagram {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// Where it came from.
    pub from: SocketAddr,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

/// What the control session tells the driver. At control-plane rate: a few per handshake.
pub enum FromQuic {
    /// Both ends have accepted each other; frames under this session may arrive from here on.
    SessionUp {
        /// The peer.
        peer: PeerId,
        /// The session, to be found by its local number.
        session: Arc<Session>,
        /// The peer's boot id: another one than before means the peer restarted.
        boot_id: u64,
        /// Whether this node dialled.
        dialer: bool,
        /// What the peer calls itself.
        peer_name: String,
        /// Whether the peer's adapter was up when it said hello.
        adapter_up: bool,
        /// Whether to send on it at once; if not, [`SessionPreferred`](Self::SessionPreferred)
        /// follows when it is time.
        preferred: bool,
    },
    /// Send on this session from here on; the former one still receives.
    SessionPreferred {
        /// The peer.
        peer: PeerId,
        /// This node's number of the session.
        local_session: u32,
    },
    /// The session is over: forget its keys.
    SessionDown {
        /// The peer.
        peer: PeerId,
        /// This node's number of the session.
        local_session: u32,
    },
    /// What the peer tells of its physical addresses.
    Interfaces {
        /// The peer.
        peer: PeerId,
        /// Its list.
        list: Advertisement,
    },
    /// A second machine uses the peer's key. The first keeps working, the second is refused.
    /// At most once a minute per peer.
    DuplicateNode {
        /// The peer.
        peer: PeerId,
    },
    /// No session can be agreed on, and trying again will not help by itself. At most once a
    /// minute per peer and kind.
    Refused {
        /// The peer.
        peer: PeerId,
        /// What is wrong and what to do, one line.
        reason: String,
    },
}

/// Takes what the control session tells. Called from the runtime's threads: it must not block, and
/// must not lose anything.
pub type FromQuicHandler = Arc<dyn Fn(FromQuic) + Send + Sync>;
