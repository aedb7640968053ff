//! Routes and peers as an operator sees them: plain values, copied out of the engine.

use std::time::Duration;

use crate::{
    failover::move_counts::MoveCounts,
    ids::{PeerId, RouteId},
    route::{
        drain_state::DrainStatus,
        mtu::PathMtuStatus,
        spec::RouteSpec,
        state::{Reason, RouteState},
    },
    time::Time,
};

/// One route at one moment.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RouteStatus {
    /// The route's number.
    pub id: RouteId,
    /// Its fields.
    pub spec: RouteSpec,
    /// Its state.
    pub state: RouteState,
    /// When the state last changed.
    pub last_change: Time,
    /// Why the state last changed.
    pub reason: Reason,
    /// The peer reports that this node's heartbeats arrive.
    pub tx: bool,
    /// The peer's heartbeats arrive.
    pub rx: bool,
    /// Data to the peer leaves on this route.
    pub active: bool,
    /// Data stays unacknowledged, and heartbeats have not decided yet.
    pub suspect: bool,
    /// Its hold-down after losses.
    pub hold_down: HoldDownStatus,
    /// Progress of a drain that an operator at either end ordered.
    pub drain: Option<DrainStatus>,
    /// Data left for a better route and has not returned.
    pub brown_out: bool,
    /// Measurements by heartbeats.
    pub quality: RouteQuality,
    /// Heartbeats sent and missed.
    pub heartbeats: HeartbeatCounters,
    /// The path MTU.
    pub path_mtu: PathMtuStatus,
}

/// Hold-down of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HoldDownStatus {
    /// How much longer data may not return to the route; zero unless it flapped.
    pub left: Duration,
    /// Recent losses of the route. Each doubles the hold-down, and one decays per quiet minute.
    pub flaps: u32,
}

/// Quality of a route as its heartbeats measure it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RouteQuality {
    /// Smoothed round-trip time, while known.
    pub rtt: Option<Duration>,
    /// Mean deviation of the round-trip time, while known.
    pub jitter: Option<Duration>,
    /// Share of the peer's recent heartbeats that were lost, 0.0–1.0.
    pub loss_in: f32,
    /// Share of this node's recent heartbeats that were lost, as the peer reports, 0.0–1.0.
    pub loss_out: f32,
    /// Share of this node's recent data frames that the route lost, 0.0–1.0; what it was left for,
    /// until a comparison shows none.
    pub data_loss: f32,
}

/// Heartbeat counters of a route since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HeartbeatCounters {
    /// Requests sent.
    pub sent: u64,
    /// Heartbeats of the peer that did not arrive.
    pub missed: u64,
    /// When the peer was last heard there, if ever.
    pub last_heard: Option<Time>,
    /// Since when requests are sent without interruption: by a session, a fault, or a change that
    /// lets hope for an answer.
    pub tried_since: Option<Time>,
}

/// One peer at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PeerStatus {
    /// The peer.
    pub peer: PeerId,
    /// A session with it exists.
    pub session: bool,
    /// At least one route to it is usable.
    pub reachable: bool,
    /// The route that carries data to it.
    pub active: Option<RouteId>,
    /// Moves of data to another route, by cause.
    pub moves: MoveCounts,
    /// Heartbeats of the peer arrive on a route, within its detection time.
    pub heard: bool,
    /// When a heartbeat of the peer last arrived on any of its routes.
    pub last_heard: Option<Time>,
}
