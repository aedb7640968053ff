//! One QUIC connection of a route.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{Connection, ConnectionError, ConnectionHandle, VarInt};

use crate::io::quic::transport::inflight_limit::InflightLimit;

/// Two connections that came up within this time were made at once, each by one end.
const SIMULTANEOUS_WINDOW: Duration = Duration::from_secs(1);

/// Why an end closes a connection: the application's error code (RFC 9000 section 20.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum CloseReason {
    /// This node stops, or has no such route any more.
    GoingAway,
    /// Another connection has taken over.
    Superseded,
    /// To be dialled again, for other settings or because the peer restarted.
    Redial,
    /// This end's config wants another carrier here.
    Declined,
    /// The handshake took too long.
    Abandoned,
}

impl CloseReason {
    pub(in crate::io) const fn close_code(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::GoingAway => 1,
            Self::Superseded => 2,
            Self::Redial => 3,
            Self::Declined => 4,
            Self::Abandoned => 5,
        })
    }

    const fn reason_phrase(self) -> &'static [u8] {
        match self {
            Self::GoingAway => b"going away",
            Self::Superseded => b"superseded",
            Self::Redial => b"dial again",
            Self::Declined => b"another transport is configured",
            Self::Abandoned => b"took too long",
        }
    }
}

/// One connection.
pub(in crate::io) struct RouteConnection {
    pub(in crate::io) handle: ConnectionHandle,
    pub(in crate::io) connection: Connection,
    pub(in crate::io) inflight: Arc<InflightLimit>,
    /// This node dialled.
    pub(in crate::io) dialled: bool,
    /// When the handshake was over, both keys proven.
    pub(in crate::io) established_at: Option<Instant>,
    /// It is closed, and only kept until QUIC has said so.
    pub(in crate::io) is_closed: bool,
    /// Something came since the last hurried acknowledgement.
    pub(in crate::io) has_received_since_ack: bool,
}

impl RouteConnection {
    /// One whose handshake begins.
    pub(in crate::io) const fn new(
        handle: ConnectionHandle,
        connection: Connection,
        inflight: Arc<InflightLimit>,
        dialled: bool,
    ) -> Self {
        Self {
            handle,
            connection,
            inflight,
            dialled,
            established_at: None,
            is_closed: false,
            has_received_since_ack: false,
        }
    }

    /// Lets an acknowledgement that is not due leave with the next transmit, in a packet of its
    /// own, so that it does not share one with what is handed over after that.
    pub(in crate::io) fn flush_pending_ack(&mut self) {
        if std::mem::take(&mut self.has_received_since_ack) {
            self.connection.ping();
        }
    }

    /// Whether frames may be sent on it.
    pub(in crate::io) fn is_usable(&self) -> bool {
        self.established_at.is_some() && !self.is_closed
    }

    /// Whether its handshake is under way.
    pub(in crate::io) fn is_handshaking(&self) -> bool {
        self.established_at.is_none() && !self.is_closed
    }

    pub(in crate::io) fn close(&mut self, now: Instant, why: CloseReason) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.connection.close(now, why.close_code(), Bytes::from_static(why.reason_phrase()));
        }
    }

    /// Whether it counts rather than `other`, both being usable. `smaller`: this node has the
    /// smaller key. Both ends find the same.
    pub(in crate::io) fn takes_precedence_over(&self, other: &Self, smaller: bool) -> bool {
        let (Some(own), Some(its)) = (self.established_at, other.established_at) else {
            return self.established_at.is_some();
        };
        let apart = own.max(its) - own.min(its);
        if self.dialled != other.dialled && apart < SIMULTANEOUS_WINDOW {
            return self.dialled == smaller;
        }
        own > its
    }
}

/// What the end of a connection says to an operator; `None` for what is no news.
pub(in crate::io) fn reportable_error(error: &ConnectionError) -> Option<String> {
    match error {
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::LocallyClosed
        | ConnectionError::TimedOut
        | ConnectionError::Reset => None,
        other => Some(other.to_string()),
    }
}

/// Whether the peer does not want this carrier any more.
pub(in crate::io) fn is_declined(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close)
        if close.error_code == CloseReason::Declined.close_code())
}
