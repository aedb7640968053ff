//! Why there is no session: what this node refuses, what the peer refuses, what did not arrive.

use std::io;

use netft_proto::{ids::virtual_addrs::VirtualAddrs, wire::header::WIRE_VERSION};
use quinn::{ConnectionError, ReadError, ReadExactError, TransportErrorCode, VarInt, WriteError};

use crate::io::quic::tls::KeyRefused;

/// QUIC close code: the node stops. Its sessions end at once.
pub(in crate::io) const CLOSE_GOING_AWAY: VarInt = VarInt::from_u32(1);
/// QUIC close code: a newer session has taken over.
pub(in crate::io) const CLOSE_SUPERSEDED: VarInt = VarInt::from_u32(2);
/// What quinn sends when the last handle is dropped: an attempt given up.
pub(in crate::io) const CLOSE_ABANDONED: VarInt = VarInt::from_u32(0);
/// The longest reason of a peer that is shown, characters.
const MAX_REASON_CHARS: usize = 200;

/// Why the endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub(in crate::io) enum EndpointError {
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error("the TLS provider lacks AES-128-GCM, which QUIC needs")]
    Suite,
    #[error("cannot start the QUIC endpoint: {0}")]
    Start(#[from] io::Error),
}

/// Why this node refuses a peer. The text goes to the peer too, so it names both sides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::io) enum RefusalReason {
    #[error(
        "wire version {theirs}, but this node speaks {WIRE_VERSION}: run the same netft on both"
    )]
    Version { theirs: u8 },
    #[error(
        "the peer says its virtual addresses are {} and {}, but the config here gives it {} and \
         {}: make both configs agree",
        announced.v4, announced.v6, configured.v4, configured.v6
    )]
    Addresses { announced: VirtualAddrs, configured: VirtualAddrs },
    #[error("the hello is damaged or too long, or what followed it makes no sense")]
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

/// Why an attempt came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::io) enum HandshakeError {
    /// This node refused.
    #[error("this node refuses the peer: {0}")]
    Refused(#[from] RefusalReason),
    /// The peer refused and said why.
    #[error("the peer refuses this node: {0}")]
    RefusedByPeer(String),
    /// The peer's key is not the one in the config.
    #[error(
        "the node at the peer's address holds another key than the config here names: correct \
         `key` of this peer, or the address"
    )]
    Unpinned,
    /// The peer runs with this node's own key.
    #[error(
        "the node at the peer's address holds this node's own key, it is a clone: make it a new \
         key with `netft keygen`"
    )]
    OwnKey,
    /// The peer does not accept this node's key.
    #[error(
        "the peer does not accept this node's key: correct `key` of this node in the peer's config"
    )]
    KeyRefusedByPeer,
    /// TLS failed otherwise.
    #[error("the handshake failed: {0}")]
    Tls(String),
    /// Nothing, or not all, arrived in time, or the attempt was given up.
    #[error("no answer: {0}")]
    Lost(String),
}

impl HandshakeError {
    /// One word for each kind, so that each is told of by itself.
    pub(in crate::io) fn kind_name(&self) -> &'static str {
        match self {
            Self::Refused(RefusalReason::Version { .. }) => "version",
            Self::Refused(RefusalReason::Addresses { .. }) => "addresses",
            Self::Refused(RefusalReason::Malformed) => "malformed",
            Self::Refused(RefusalReason::Duplicate) => "duplicate",
            Self::Refused(RefusalReason::WrongPeer) => "wrong peer",
            Self::Refused(RefusalReason::Random) => "random",
            Self::RefusedByPeer(_) => "refused by peer",
            Self::Unpinned => "unpinned",
            Self::OwnKey => "own key",
            Self::KeyRefusedByPeer => "key refused by peer",
            Self::Tls(_) => "tls",
            Self::Lost(_) => "lost",
        }
    }

    /// Whether the next attempt will most likely end the same.
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
                Self::RefusedByPeer(sanitize_reason(&close.reason))
            }
            ConnectionError::ConnectionClosed(close) if is_tls_alert(close.error_code) => {
                Self::KeyRefusedByPeer
            }
            ConnectionError::TransportError(error) if is_tls_alert(error.code) => {
                // rustls hands a verifier's reason on as text only.
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

/// Whether a QUIC error code carries a TLS alert (RFC 9001 section 4.8).
fn is_tls_alert(code: TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// A peer's text, safe to log and to show (C-14).
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
