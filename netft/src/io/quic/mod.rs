//! The control session with each peer: one QUIC connection, mutually authenticated by pinned keys,
//! whose TLS exporter derives the keys of heartbeats and data.
//!
//! ```text
//! dialer                                acceptor
//!    | ──── QUIC + TLS 1.3 handshake ──────> |   both keys proven, or closed
//!    | ──── Hello ─────────────────────────> |   checks it
//!    | <─── Hello ────────────────────────── |   dialer: accepted both ways, session up
//!    | ──── ready, generation ─────────────> |   acceptor: session up, may send
//!    | <─── ready ────────────────────────── |   dialer: may send
//!    | ──── confirmed ─────────────────────> |   both may retire superseded sessions
//! ```
//!
//! Reason for the messages after the handshake: a completed QUIC handshake does not prove to the
//! dialer that the acceptor accepts its key, and a frame sent before the other end has installed
//! the keys is lost.
//!
//! The keys outlive the QUIC connection: they stay valid when every route is down for hours. A
//! session ends when the peer closes it, when another process of the peer replaces it, or when a
//! newer session supersedes it. The driver owns the
//! [`SessionManager`](session::manager::SessionManager).

mod endpoint;
mod failure;
mod handshake_return_path;
mod join;
mod peer_address;
pub(crate) mod session;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
pub(in crate::io) mod transport;
mod types;
mod unverified_sources;

pub(in crate::io) use crate::io::quic::endpoint::session_cid_tag;
pub(crate) use crate::io::quic::types::{
    DATAGRAM_QUEUE_LEN, FromQuic, FromQuicHandler, QuicDatagram, StartError,
};
pub use crate::io::quic::{
    join::{JoinAttempt, JoinError, Joiner, request_join},
    types::{PeerRequest, QueryError},
};
