//! Why a session ended, and at which end. Pure.

use std::fmt;

/// Cause of a session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEndCause {
    /// The peer said that it stops.
    PeerStopped,
    /// The peer closed the session for a newer one.
    PeerReplaced,
    /// The peer refuses this node.
    PeerRefused,
    /// This node has a newer session.
    Replaced,
    /// This node closed the session: the peer violated the protocol.
    Violation,
    /// This node's configuration or roster does not name the peer.
    PeerRemoved,
}

/// The end that closed a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionCloser {
    /// This node.
    ThisNode,
    /// The peer.
    Peer,
}

impl SessionEndCause {
    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PeerStopped => "peer-stopped",
            Self::PeerReplaced => "peer-replaced",
            Self::PeerRefused => "peer-refused",
            Self::Replaced => "replaced",
            Self::Violation => "violation",
            Self::PeerRemoved => "peer-removed",
        }
    }

    /// The cause in words, with the peer as `it`.
    pub const fn description(self) -> &'static str {
        match self {
            Self::PeerStopped => "its netftd stopped",
            Self::PeerReplaced => "it closed the session for a newer one",
            Self::PeerRefused => "it refuses this node",
            Self::Replaced => "a newer session replaced it",
            Self::Violation => "this node closed the session: the peer violated the protocol",
            Self::PeerRemoved => "this node's configuration does not name it",
        }
    }

    /// The end that closed the session.
    pub const fn closer(self) -> SessionCloser {
        match self {
            Self::PeerStopped | Self::PeerReplaced | Self::PeerRefused => SessionCloser::Peer,
            Self::Replaced | Self::Violation | Self::PeerRemoved => SessionCloser::ThisNode,
        }
    }
}

impl SessionCloser {
    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ThisNode => "this-node",
            Self::Peer => "peer",
        }
    }
}

impl fmt::Display for SessionEndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
