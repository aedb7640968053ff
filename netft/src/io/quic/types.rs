//! Datagrams from the workers to QUIC, and events from the control sessions to the driver.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use netft_proto::{ids::PeerId, session::Session, wire::interfaces::Advertisement};

use tokio::sync::oneshot;

use crate::io::{identity::KeyError, quic::failure::EndpointError, socket::SocketId};

/// The most datagrams that wait for the control session; beyond it the sender drops and counts.
pub const DATAGRAM_QUEUE_LEN: usize = 256;
/// The most bytes of a question.
pub(in crate::io) const MAX_QUERY_LEN: usize = 256;
/// The most bytes of an answer.
pub const MAX_REPLY_LEN: usize = 64 * 1024;
/// How long an answer may take, from the asking on.
pub(in crate::io) const QUERY_TIMEOUT: Duration = Duration::from_secs(4);

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

/// Why the control session could not start.
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

/// Why a peer gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No peer has this number.
    #[error("there is no such peer")]
    UnknownPeer,
    /// There is no session to ask on.
    #[error("there is no session with it")]
    NoSession,
    /// The peer takes no questions.
    #[error("its netftd is too old to be asked")]
    TooOld,
    /// Nothing came in time.
    #[error("it gave no answer within {} s", QUERY_TIMEOUT.as_secs())]
    TimedOut,
    /// It does not answer this question, or its answer is too long, or the session ended.
    #[error("it gave no answer")]
    Refused,
    /// The question is too long.
    #[error("a question has at most {MAX_QUERY_LEN} bytes")]
    TooLong,
}

/// What a peer asks.
pub struct PeerQuery {
    /// Who asks. It has proven its key.
    pub peer: PeerId,
    /// What: at most 256 bytes.
    pub payload: Vec<u8>,
    /// Where the answer goes, at most [`MAX_REPLY_LEN`] bytes. Dropped, the question is refused.
    pub reply_tx: oneshot::Sender<Vec<u8>>,
}

impl fmt::Debug for PeerQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("peer", &self.peer).finish_non_exhaustive()
    }
}
