//! Sessions with peers: their versions, and why there is none, or none that works.

pub use netft_proto::wire::version::WireVersions;
use serde::{Serialize, Serializer};

/// The versions in a peer's hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerVersion {
    /// The wire versions that it speaks.
    pub wire: WireVersions,
    /// Its release; empty if it does not say.
    pub release: String,
}

/// Obstacle to a working session with a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionProblem {
    /// Its kind.
    pub cause: SessionCause,
    /// The cause, and the remedy where there is one, in one line.
    pub text: String,
}

impl SessionProblem {
    /// A problem of this kind.
    pub fn new(cause: SessionCause, text: impl Into<String>) -> Self {
        Self { cause, text: text.into() }
    }
}

/// Kinds of [`SessionProblem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionCause {
    /// There are keys, and no heartbeat of the peer arrives.
    Silent,
    /// No address of the peer is known that this node could send to.
    NoAddress,
    /// Every interface towards the peer is down, gone or without a carrier.
    NoNetwork,
    /// Handshakes get no answer.
    NoAnswer,
    /// No interface towards the peer takes packets of the size that a session needs.
    SmallMtu,
    /// The node at the peer's address holds another key than the configuration names.
    WrongKey,
    /// The peer does not accept this node's key.
    KeyRefused,
    /// Two machines have one key.
    Duplicate,
    /// The two nodes disagree: version, virtual addresses, or another refusal.
    Refused,
}

impl SessionCause {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Silent,
        Self::NoAddress,
        Self::NoNetwork,
        Self::NoAnswer,
        Self::SmallMtu,
        Self::WrongKey,
        Self::KeyRefused,
        Self::Duplicate,
        Self::Refused,
    ];

    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::NoAddress => "no-address",
            Self::NoNetwork => "no-network",
            Self::NoAnswer => "no-answer",
            Self::SmallMtu => "small-mtu",
            Self::WrongKey => "wrong-key",
            Self::KeyRefused => "key-refused",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
        }
    }
}

impl Serialize for SessionCause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
