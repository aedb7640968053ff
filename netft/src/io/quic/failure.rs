//! Errors of handshakes: refused by this node, refused by the peer, lost.

use std::io;

use netft_proto::{ids::virtual_addrs::VirtualAddrs, wire::version::WireVersions};
use quinn::{
    ApplicationClose, ConnectionError, ReadError, ReadExactError, TransportErrorCode, VarInt,
    WriteError,
};

use crate::{api::session::SessionCause, io::quic::tls::KeyRefused};

/// QUIC close code: the node stops; its sessions end at once.
pub(in crate::io) const CLOSE_GOING_AWAY: VarInt = VarInt::from_u32(1);
/// QUIC close code: superseded by a newer session.
pub(in crate::io) const CLOSE_SUPERSEDED: VarInt = VarInt::from_u32(2);
/// Close code that quinn sends when the last handle is dropped: an abandoned handshake.
pub(in crate::io) const CLOSE_ABANDONED: VarInt = VarInt::from_u32(0);
/// Maximum length of a peer's reason phrase in logs, characters.
const MAX_REASON_CHARS: usize = 200;

/// Error of the start of an endpoint.
#[derive(Debug, thiserror::Error)]
pub(in crate::io) enum EndpointError {
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error("the TLS provider lacks AES-128-GCM, which QUIC needs")]
    Suite,
    #[error("cannot start the QUIC endpoint: {0}")]
    Start(#[from] io::Error),
}

/// Reason for refusing a peer. The text is sent to the peer as well, so it names both sides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::io) enum RefusalReason {
    #[error(
        "wire version {theirs}, but this node speaks {own}: upgrade the older of the two",
        own = WireVersions::OWN_RANGE
    )]
    Version { theirs: WireVersions },
    #[error(
        "the peer says its virtual addresses are {} and {}, but the config here gives it {} and \
         {}: make both configs agree",
        announced.v4, announced.v6, configured.v4, configured.v6
    )]
    Addresses { announced: VirtualAddrs, configured: VirtualAddrs },
    #[error("the hello or a message after it is malformed")]
    Malformed,
    #[error(
        "another machine with this key is alive: a cloned node; give each machine its own key \
         with `netft keygen`"
    )]
    Duplicate,
    #[error("the key is that of another peer than the config names at this address")]
    WrongPeer,
    #[error("this node is out of random bytes")]
    Random,
}

impl RefusalReason {
    pub(in crate::io) fn close_code(&self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Version { .. } => 0x10,
            Self::Addresses { .. } => 0x11,
            Self::Malformed => 0x12,
            Self::Duplicate => 0x13,
            Self::WrongPeer => 0x14,
            Self::Random => 0x15,
        })
    }
}

/// Error of a handshake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::io) enum HandshakeError {
    /// This node refused.
    #[error("this node refuses the peer: {0}")]
    Refused(#[from] RefusalReason),
    /// The peer refused, with this reason.
    #[error("the peer refuses this node: {0}")]
    RefusedByPeer(String),
    /// The peer has a session with another machine that holds this node's key.
    #[error(
        "the peer has a session with another machine that holds this node's key: a cloned node; \
         give each machine its own key with `netft keygen`"
    )]
    DuplicateAtPeer,
    /// The peer's key is not the one in the config.
    #[error(
        "the node at the peer's address holds another key than the config here names: correct \
         `key` of this peer, or the address"
    )]
    Unpinned,
    /// The peer holds this node's own key.
    #[error(
        "the node at the peer's address holds this node's own key, it is a clone: make it a new \
         key with `netft keygen`"
    )]
    OwnKey,
    /// The peer does not accept this node's key.
    #[error(
        "the peer does not accept this node's key: list this node with its key in the peer's config"
    )]
    KeyRefusedByPeer,
    /// TLS failed for another reason.
    #[error("the handshake failed: {0}")]
    Tls(String),
    /// A timeout, or the connection was lost or abandoned.
    #[error("no answer: {0}")]
    Lost(String),
}

impl HandshakeError {
    /// Name of the kind, by which reports are rate-limited.
    pub(in crate::io) fn kind_name(&self) -> &'static str {
        match self {
            Self::Refused(RefusalReason::Version { .. }) => "version",
            Self::Refused(RefusalReason::Addresses { .. }) => "addresses",
            Self::Refused(RefusalReason::Malformed) => "malformed",
            Self::Refused(RefusalReason::Duplicate) => "duplicate",
            Self::Refused(RefusalReason::WrongPeer) => "wrong peer",
            Self::Refused(RefusalReason::Random) => "random",
            Self::RefusedByPeer(_) => "refused by peer",
            Self::DuplicateAtPeer => "duplicate at peer",
            Self::Unpinned => "unpinned",
            Self::OwnKey => "own key",
            Self::KeyRefusedByPeer => "key refused by peer",
            Self::Tls(_) => "tls",
            Self::Lost(_) => "lost",
        }
    }

    /// The kind of the problem, as the API names it.
    pub(in crate::io) fn session_cause(&self) -> SessionCause {
        match self {
            Self::Refused(RefusalReason::Duplicate) | Self::OwnKey | Self::DuplicateAtPeer => {
                SessionCause::Duplicate
            }
            Self::Refused(RefusalReason::WrongPeer) | Self::Unpinned => SessionCause::WrongKey,
            Self::KeyRefusedByPeer => SessionCause::KeyRefused,
            Self::Refused(_) | Self::RefusedByPeer(_) | Self::Tls(_) => SessionCause::Refused,
            Self::Lost(_) => SessionCause::NoAnswer,
        }
    }

    /// A refusal by the peer's close.
    pub(in crate::io) fn from_close(close: &ApplicationClose) -> Self {
        if close.error_code == RefusalReason::Duplicate.close_code() {
            return Self::DuplicateAtPeer;
        }
        Self::RefusedByPeer(sanitize_reason(&close.reason))
    }

    /// Returns true if the next attempt will most likely fail the same way.
    pub(in crate::io) fn is_permanent(&self) -> bool {
        !matches!(self, Self::Lost(_))
    }
}

impl From<ConnectionError> for HandshakeError {
    fn from(error: ConnectionError) -> Self {
        match &error {
            ConnectionError::ApplicationClosed(close)
                if ![CLOSE_ABANDONED, CLOSE_GOING_AWAY, CLOSE_SUPERSEDED]
                    .contains(&close.error_code) =>
            {
                Self::from_close(close)
            }
            ConnectionError::ConnectionClosed(close) if is_tls_alert(close.error_code) => {
                Self::KeyRefusedByPeer
            }
            ConnectionError::TransportError(error) if is_tls_alert(error.code) => {
                // rustls passes the verifier's reason on as text only.
                let reason_names =
                    |refused: KeyRefused| error.reason.contains(&format!("{refused:?}"));
                match () {
                    () if reason_names(KeyRefused::Own) => Self::OwnKey,
                    () if reason_names(KeyRefused::Unpinned) => Self::Unpinned,
                    () => Self::Tls(sanitize_reason(error.reason.as_bytes())),
                }
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl From<WriteError> for HandshakeError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            _ => Self::Refused(RefusalReason::Malformed),
        }
    }
}

impl From<ReadExactError> for HandshakeError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::ReadError(ReadError::ConnectionLost(error)) => error.into(),
            _ => Self::Refused(RefusalReason::Malformed),
        }
    }
}

/// Returns whether a QUIC error code carries a TLS alert (RFC 9001 section 4.8).
fn is_tls_alert(code: TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// Escapes and truncates a reason phrase of a peer for logs and terminals (C-14).
pub(in crate::io) fn sanitize_reason(text: &[u8]) -> String {
    String::from_utf8_lossy(text).escape_default().take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_reason_is_short_and_harmless() {
        let text = sanitize_reason(&[b"\x1b[2J\n\xff".as_slice(), &[b'x'; 10_000]].concat());
        assert!(text.chars().count() <= MAX_REASON_CHARS);
        assert!(text.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{text}");
    }
}
