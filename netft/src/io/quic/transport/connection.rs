//! One QUIC connection of a route.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{Connection, ConnectionError, ConnectionHandle, VarInt};
use tracing::debug;

use crate::io::quic::transport::inflight_limit::InflightLimit;

/// Two connections established within this time were dialled simultaneously, each by one end.
const SIMULTANEOUS_WINDOW: Duration = Duration::from_secs(1);

/// Reason for closing a connection: the application error code (RFC 9000 section 20.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum CloseReason {
    /// This node stops, or the route was removed.
    GoingAway,
    /// Superseded by another connection.
    Superseded,
    /// To be dialled again with other settings, or because the peer restarted.
    Redial,
    /// This end's configuration selects another transport.
    Declined,
    /// The handshake timed out.
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
    /// Time at which the handshake completed, both keys proven.
    pub(in crate::io) established_at: Option<Instant>,
    /// Closed, and kept until its close is sent.
    pub(in crate::io) is_closed: bool,
    /// A packet arrived since the last forced acknowledgement.
    pub(in crate::io) has_received_since_ack: bool,
}

impl RouteConnection {
    /// A connection whose handshake begins.
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

    /// Forces a pending acknowledgement into the next transmit, so that it does not share a packet
    /// with the frame that follows.
    pub(in crate::io) fn flush_pending_ack(&mut self) {
        if std::mem::take(&mut self.has_received_since_ack) {
            self.connection.ping();
        }
    }

    /// Returns whether frames may be sent on it.
    pub(in crate::io) fn is_usable(&self) -> bool {
        self.established_at.is_some() && !self.is_closed
    }

    /// Returns whether its handshake is under way.
    pub(in crate::io) fn is_handshaking(&self) -> bool {
        self.established_at.is_none() && !self.is_closed
    }

    pub(in crate::io) fn close(&mut self, now: Instant, why: CloseReason) {
        if !std::mem::replace(&mut self.is_closed, true) {
            debug!(?why, dialled = self.dialled, "transport connection closed by this node");
            self.connection.close(now, why.close_code(), Bytes::from_static(why.reason_phrase()));
        }
    }

    /// Returns whether it takes precedence over `other`, both being usable. `smaller`: this node
    /// has the smaller key. Both ends come to the same result.
    pub(in crate::io) fn takes_precedence_over(&self, other: &Self, smaller: bool) -> bool {
        let (Some(own), Some(its)) = (self.established_at, other.established_at) else {
            return self.established_at.is_some();
        };
        let difference = own.max(its) - own.min(its);
        if self.dialled != other.dialled && difference < SIMULTANEOUS_WINDOW {
            return self.dialled == smaller;
        }
        own > its
    }
}

/// Error text of a lost connection for the operator; `None` for an expected end.
pub(in crate::io) fn reportable_error(error: &ConnectionError) -> Option<String> {
    match error {
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::LocallyClosed
        | ConnectionError::TimedOut
        | ConnectionError::Reset => None,
        other => Some(other.to_string()),
    }
}

/// Returns whether the peer closed because its configuration selects another transport.
pub(in crate::io) fn is_declined(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close)
        if close.error_code == CloseReason::Declined.close_code())
}
