//! Messages to a peer's task: from the manager, its handshakes and its control streams.

use std::sync::Arc;

use netft_proto::{
    config::Config,
    session::Session,
    wire::{interfaces::Advertisement, topic::Topic},
};
use quinn::{ClientConfig, Connection, ConnectionError, RecvStream, SendStream};
use tokio::sync::oneshot;

use crate::{
    api::session::PeerVersion,
    io::{
        handover::SessionRank,
        quic::{
            failure::{HandshakeError, RefusalReason},
            session::session_id::SessionId,
            types::QueryError,
        },
    },
};

/// Channel of the reply to a request for the peer.
pub(in crate::io) type RequestReply = oneshot::Sender<Result<Vec<u8>, QueryError>>;

/// Message to the task of one peer.
pub(in crate::io) enum PeerTaskEvent {
    /// The peer dials.
    Incoming(Box<quinn::Incoming>),
    /// Request to decide whether a process with this boot id may have a session.
    CheckBootId { boot_id: u64, reply: oneshot::Sender<Result<(), RefusalReason>> },
    /// Both ends have accepted each other's hello.
    Established(Box<EstablishedSession>),
    /// A handshake failed.
    Failed { dialled: bool, failure: HandshakeError },
    /// The peer receives on this session.
    Usable(u32),
    /// The peer knows that this node receives on this session.
    Confirmed(u32),
    /// The QUIC connection of this session has ended.
    Lost { local_session: u32, error: ConnectionError },
    /// Request for a fresh session.
    Renew,
    /// Interface list of the peer, received on this session.
    Interfaces { local_session: u32, list: Box<Advertisement> },
    /// Request for the peer.
    Request { topic: Topic, payload: Vec<u8>, reply: RequestReply },
    /// The configuration changed, but not the identity of this peer. The settings of its dials.
    Config(Arc<Config>, Box<ClientConfig>),
    /// The peer was removed from the configuration.
    Forget,
    /// Request to end without a word to the peer: a successor process goes on with its sessions.
    Save(oneshot::Sender<Vec<SessionRank>>),
}

/// Role of this node in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum HandshakeRole {
    /// Opens the stream and announces the generation.
    Dialer,
    /// Answers.
    Acceptor,
}

/// Session of two nodes that have accepted each other.
pub(in crate::io) struct EstablishedSession {
    pub(in crate::io) connection: Connection,
    pub(in crate::io) send: SendStream,
    pub(in crate::io) recv: RecvStream,
    pub(in crate::io) session_id: SessionId,
    pub(in crate::io) session: Arc<Session>,
    pub(in crate::io) boot_id: u64,
    pub(in crate::io) peer_name: String,
    pub(in crate::io) peer_version: PeerVersion,
    pub(in crate::io) adapter_up: bool,
    pub(in crate::io) role: HandshakeRole,
    pub(in crate::io) generation: u32,
}
