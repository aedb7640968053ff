//! Messages to a peer's task: from the manager, its handshakes and its control streams.

use std::sync::Arc;

use netft_proto::{config::Config, session::Session, wire::interfaces::Advertisement};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::sync::oneshot;

use crate::io::quic::{
    failure::{HandshakeError, RefusalReason},
    session::session_id::SessionId,
    types::QueryError,
};

/// What happens to a peer.
pub(in crate::io) enum PeerTaskEvent {
    /// The peer dials.
    Incoming(Box<quinn::Incoming>),
    /// May a process with this boot id join?
    CheckBootId { boot_id: u64, reply: oneshot::Sender<Result<(), RefusalReason>> },
    /// Both ends have accepted each other.
    Established(Box<EstablishedSession>),
    /// An attempt came to nothing.
    Failed { dialled: bool, failure: HandshakeError },
    /// The peer receives on this session.
    Usable(u32),
    /// The peer knows that this node receives on this session.
    Confirmed(u32),
    /// The QUIC connection of this session has ended.
    Lost { local_session: u32, error: ConnectionError },
    /// A fresh session is wanted.
    Renew,
    /// The peer told of its interfaces on this session.
    Interfaces { local_session: u32, list: Box<Advertisement> },
    /// The peer is to be asked something.
    Query { query: Vec<u8>, reply: oneshot::Sender<Result<Vec<u8>, QueryError>> },
    /// The config changed, but not what it says of this peer.
    Config(Arc<Config>),
    /// The config does not know the peer any more.
    Forget,
}

/// Which end of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum HandshakeRole {
    /// Opens the stream and announces the generation.
    Dialer,
    /// Answers.
    Acceptor,
}

/// Two nodes that have accepted each other.
pub(in crate::io) struct EstablishedSession {
    pub(in crate::io) connection: Connection,
    pub(in crate::io) send: SendStream,
    pub(in crate::io) recv: RecvStream,
    pub(in crate::io) session_id: SessionId,
    pub(in crate::io) session: Arc<Session>,
    pub(in crate::io) boot_id: u64,
    pub(in crate::io) peer_name: String,
    pub(in crate::io) adapter_up: bool,
    pub(in crate::io) role: HandshakeRole,
    pub(in crate::io) generation: u32,
}
