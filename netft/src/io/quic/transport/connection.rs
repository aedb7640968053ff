//! One QUIC connection of a route.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{Connection, ConnectionError, ConnectionHandle, VarInt};

use crate::io::quic::transport::inflight_limit::Gate;

/// Two connections that came up within this time were made at once, each by one end.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Why an end closes a connection: the application's error code (RFC 9000 section 20.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Why {
    /// This node stops, or has no such route any more.
    GoingAway,
    /// Another connection has taken over.
    Superseded,
    /// To be dialled again, for other settings or because the peer restarted.
    Redial,
    /// This end's config wants another carrier here.
    Unwanted,
    /// The handshake took too long.
    Abandoned,
}

impl Why {
    pub(in crate::io) const fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::GoingAway => 1,
            Self::Superseded => 2,
            Self::Redial => 3,
            Self::Unwanted => 4,
            Self::Abandoned => 5,
        })
    }

    const fn words(self) -> &'static [u8] {
        match self {
            Self::GoingAway => b"going away",
            Self::Superseded => b"superseded",
            Self::Redial => b"dial again",
            Self::Unwanted => b"another carrier is configured",
            Self::Abandoned => b"took too long",
        }
    }
}

/// One connection.
pub(in crate::io) struct Link {
    pub(in crate::io) handle: ConnectionHandle,
    pub(in crate::io) connection: Connection,
    pub(in crate::io) gate: Arc<Gate>,
    /// This node dialled.
    pub(in crate::io) dialled: bool,
    /// When the handshake was over, both keys proven.
    pub(in crate::io) up_at: Option<Instant>,
    /// It is closed, and only kept until QUIC has said so.
    pub(in crate::io) over: bool,
    /// Something came since the last hurried acknowledgement.
    pub(in crate::io) heard: bool,
}

impl Link {
    /// One whose handshake begins.
    pub(in crate::io) const fn new(
        handle: ConnectionHandle,
        connection: Connection,
        gate: Arc<Gate>,
        dialled: bool,
    ) -> Self {
        Self { handle, connection, gate, dialled, up_at: None, over: false, heard: false }
    }

    /// Lets an acknowledgement that is not due leave with the next transmit, in a packet of its
    /// own, so that it does not share one with what is handed over after that.
    pub(in crate::io) fn hurry_acknowledgement(&mut self) {
        if std::mem::take(&mut self.heard) {
            self.connection.ping();
        }
    }

    /// Whether frames may be sent on it.
    pub(in crate::io) fn usable(&self) -> bool {
        self.up_at.is_some() && !self.over
    }

    /// Whether its handshake is under way.
    pub(in crate::io) fn shaking(&self) -> bool {
        self.up_at.is_none() && !self.over
    }

    pub(in crate::io) fn close(&mut self, now: Instant, why: Why) {
        if !std::mem::replace(&mut self.over, true) {
            self.connection.close(now, why.code(), Bytes::from_static(why.words()));
        }
    }

    /// Whether it counts rather than `other`, both being usable. `smaller`: this node has the
    /// smaller key. Both ends find the same.
    pub(in crate::io) fn counts_before(&self, other: &Self, smaller: bool) -> bool {
        let (Some(own), Some(its)) = (self.up_at, other.up_at) else { return self.up_at.is_some() };
        let apart = own.max(its) - own.min(its);
        if self.dialled != other.dialled && apart < AT_ONCE {
            return self.dialled == smaller;
        }
        own > its
    }
}

/// What the end of a connection says to an operator; `None` for what is no news.
pub(in crate::io) fn complaint(error: &ConnectionError) -> Option<String> {
    match error {
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::LocallyClosed
        | ConnectionError::TimedOut
        | ConnectionError::Reset => None,
        other => Some(other.to_string()),
    }
}

/// Whether the peer does not want this carrier any more.
pub(in crate::io) fn unwanted(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close)
        if close.error_code == Why::Unwanted.code())
}
