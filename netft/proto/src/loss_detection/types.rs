//! The values loss detection takes and returns: limits, usable paths, reroutes.

use std::time::Duration;

use crate::ids::RouteId;

/// Default memory for one peer's outstanding frames, bytes.
pub const DEFAULT_BYTES: usize = 64 << 20;
/// Default time an outstanding frame is kept.
pub const DEFAULT_AGE: Duration = Duration::from_secs(1);
/// How long acknowledgements report a stall of their sender, and how long the report counts.
pub const STALL_REPORT_PERIOD: Duration = Duration::from_millis(200);

/// Limits on what is kept for retransmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetransmitLimits {
    /// Bytes of memory; 0 disables retransmission and acknowledgements.
    pub bytes: usize,
    /// How long after its first transmission a frame is kept.
    pub age: Duration,
}

impl RetransmitLimits {
    /// Returns whether retransmission is disabled.
    #[inline]
    pub const fn is_disabled(&self) -> bool {
        self.bytes == 0
    }
}

impl Default for RetransmitLimits {
    /// 64 MiB and 1 s.
    fn default() -> Self {
        Self { bytes: DEFAULT_BYTES, age: DEFAULT_AGE }
    }
}

/// A route that data may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsablePath {
    /// The route.
    pub route: RouteId,
    /// Its round-trip time by heartbeats: the initial RTT of the path.
    pub rtt: Option<Duration>,
    /// Epoch of the evidence of its losses ([`Engine::loss_epoch`](crate::engine::Engine)).
    pub loss_epoch: u32,
}

/// Frames to retransmit at once, in order, on another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reroute {
    /// The route they were sent on.
    pub from: RouteId,
    /// The route they are retransmitted on.
    pub to: RouteId,
    /// The path PTO expired, and the engine has yet to judge the route. Otherwise the engine had
    /// excluded the route already.
    pub suspect: bool,
    /// Time since the first transmission of the oldest of them.
    pub waited: Duration,
    /// First and last send number of the retransmission.
    pub(crate) send_numbers: (u64, u64),
}

impl Reroute {
    pub(crate) fn is_empty(&self) -> bool {
        let (first, last) = self.send_numbers;
        first > last
    }
}

/// Data frames of a route at one moment, under one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Sent there and acknowledged, whichever copy arrived.
    pub acknowledged: u64,
    /// Arrived there, as the peer reported last.
    pub arrived: u64,
}

impl DeliveryCounts {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            acknowledged: self.acknowledged.saturating_sub(before.acknowledged),
            arrived: self.arrived.saturating_sub(before.arrived),
        }
    }

    /// Frames of which only the copy on another route arrived, plus a constant.
    pub(crate) fn missing(self) -> i64 {
        self.acknowledged.wrapping_sub(self.arrived) as i64
    }
}

/// A request for an immediate acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImmediateAckRequest {
    /// Its number, for
    /// [`Ack::immediate_ack_request`](crate::wire::ack::Ack::immediate_ack_request). Never 0.
    pub number: u16,
    /// The route that carries it: another one than it is about.
    pub to: RouteId,
}
