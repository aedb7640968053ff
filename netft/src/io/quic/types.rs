//! Datagrams from the workers to QUIC, and events from the control sessions to the driver.

use std::{fmt, net::SocketAddr, sync::Arc};

use netft_proto::{
    ids::PeerId, route::SessionEndCause, session::Session, wire::interfaces::Advertisement,
};

use tokio::sync::oneshot;

use crate::{
    api::session::{PeerVersion, SessionProblem},
    io::{identity::KeyError, quic::failure::EndpointError, socket::SocketId},
};

/// Length of the datagram queue to QUIC; beyond it the sender drops and counts.
pub(crate) const DATAGRAM_QUEUE_LEN: usize = 256;

/// A datagram for QUIC, as a packet worker hands it over.
#[derive(Clone, Debug)]
pub(crate) struct QuicDatagram {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// Its source address.
    pub from: SocketAddr,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

/// Event from the control sessions to the driver: a few per handshake.
pub(crate) enum FromQuic {
    /// Both ends have accepted each other; frames of the session may arrive from now on.
    SessionUp {
        /// The peer.
        peer: PeerId,
        /// The session, identified by its local id.
        session: Arc<Session>,
        /// The peer's boot id: a new one means that the peer restarted.
        boot_id: u64,
        /// Name of the peer in its hello.
        peer_name: String,
        /// The versions in its hello.
        peer_version: PeerVersion,
        /// State of the peer's adapter in its hello.
        adapter_up: bool,
        /// True if data moves to it at once; otherwise [`SessionPreferred`](Self::SessionPreferred)
        /// follows.
        preferred: bool,
    },
    /// Data moves to this session; the former one still receives.
    SessionPreferred {
        /// The peer.
        peer: PeerId,
        /// This node's id of the session.
        local_session: u32,
    },
    /// The session has ended: its keys are to be discarded.
    SessionDown {
        /// The peer.
        peer: PeerId,
        /// This node's id of the session.
        local_session: u32,
        /// Why it ended.
        cause: SessionEndCause,
    },
    /// Interface list of the peer.
    Interfaces {
        /// The peer.
        peer: PeerId,
        /// The list.
        list: Advertisement,
    },
    /// A second machine uses the peer's key: its session is refused, the first keeps working. At
    /// most once a minute per peer.
    DuplicateNode {
        /// The peer.
        peer: PeerId,
    },
    /// A handshake was refused for a reason that a retry does not cure. At most once a minute per
    /// peer and reason.
    Refused {
        /// The peer.
        peer: PeerId,
        /// The reason and the remedy, one line.
        reason: String,
    },
    /// A handshake failed. At most once a second per peer and kind.
    HandshakeFailed {
        /// The peer.
        peer: PeerId,
        /// Why.
        problem: SessionProblem,
    },
}

/// Handler of the events. Called from the runtime's threads: it must neither block nor drop events.
pub(crate) type FromQuicHandler = Arc<dyn Fn(FromQuic) + Send + Sync>;

/// Error of the start of the control sessions.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node's key is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The config names another public key than the private key has.
    #[error("the public key in the config is not that of the private key; remove or correct it")]
    PublicKey,
    /// A peer has this node's own key.
    #[error("peer {name} has this node's own key; give it its own with `netft keygen`")]
    OwnKey {
        /// The peer.
        name: String,
    },
    /// Two peers have one key.
    #[error("peers {one} and {other} have the same key; give each its own with `netft keygen`")]
    SameKey {
        /// The first.
        one: String,
        /// The second.
        other: String,
    },
    /// More peers than can be numbered.
    #[error("{0} peers are configured; at most 65536 can be")]
    TooMany(usize),
    /// TLS or QUIC would not start.
    #[error("the control session cannot start: {0}")]
    Start(String),
}

impl From<EndpointError> for StartError {
    fn from(error: EndpointError) -> Self {
        Self::Start(error.to_string())
    }
}

/// Error of a request to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No peer has this id.
    #[error("there is no such peer")]
    UnknownPeer,
    /// There is no session with the peer.
    #[error("there is no session with it")]
    NoSession,
    /// The peer does not support requests of this topic.
    #[error("its netftd is too old to be asked")]
    TooOld,
    /// No reply in time.
    #[error("it gave no answer within {seconds} s")]
    TimedOut {
        /// The timeout of the topic.
        seconds: u64,
    },
    /// The peer refused the request, its reply was too long, or the session ended.
    #[error("it gave no answer")]
    Refused,
    /// The request is too long.
    #[error("a request of this topic has at most {max} bytes")]
    TooLong {
        /// The bound of the topic.
        max: usize,
    },
}

/// Request of a peer, within the bounds of its topic.
pub struct PeerRequest {
    /// The authenticated peer.
    pub peer: PeerId,
    /// The request.
    pub payload: Vec<u8>,
    /// Channel of the reply, within the topic's bound. Dropping it refuses the request.
    pub reply_tx: oneshot::Sender<Vec<u8>>,
}

impl fmt::Debug for PeerRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerRequest").field("peer", &self.peer).finish_non_exhaustive()
    }
}
