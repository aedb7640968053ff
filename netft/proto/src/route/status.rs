//! What an operator sees of routes and peers: plain values, copied out of the engine.

use std::{fmt, time::Duration};

use crate::{
    ids::{PeerId, RouteId},
    route::{drain::DrainStatus, event::Reason, spec::RouteSpec},
    time::Time,
};

/// The state of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteState {
    /// Nothing is heard.
    Down,
    /// Something is heard, but not both directions are proven.
    Init,
    /// Both directions are proven.
    Up,
    /// Taken out of use by an operator here. (Out of use at the peer, a route is init.)
    AdminDown,
}

impl RouteState {
    /// The word in output and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
            Self::AdminDown => "admin-down",
        }
    }
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One route as it is at one moment.
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// The route's number.
    pub id: RouteId,
    /// What it is.
    pub spec: RouteSpec,
    /// Its state.
    pub state: RouteState,
    /// The peer says it hears this node here.
    pub tx: bool,
    /// This node hears the peer here.
    pub rx: bool,
    /// Data to the peer goes out here.
    pub active: bool,
    /// Data stays unacknowledged here, and heartbeats have not decided yet.
    pub suspect: bool,
    /// How long data must still wait before it may return here; zero unless the route flapped.
    pub hold: Duration,
    /// How often the route was lost lately; one is forgiven per quiet minute, each doubles the
    /// hold.
    pub flaps: u32,
    /// How far draining it got, while an operator at one of its ends wants it drained.
    pub drain: Option<DrainStatus>,
    /// Data left for a better route, and has not returned.
    pub brown_out: bool,
    /// Smoothed round-trip time of heartbeats, while known.
    pub rtt: Option<Duration>,
    /// How far round-trip times stray from it, while known.
    pub jitter: Option<Duration>,
    /// Share of the peer's heartbeats lost lately, 0.0–1.0.
    pub loss: f32,
    /// Share of this node's heartbeats the peer lost lately, as it says, 0.0–1.0.
    pub loss_out: f32,
    /// Heartbeat requests sent.
    pub heartbeats_sent: u64,
    /// Heartbeats missed since the route was added.
    pub heartbeats_missed: u64,
    /// When the state changed last.
    pub last_change: Time,
    /// Why the state changed last.
    pub reason: Reason,
    /// The largest IP packet the route carries, bytes: its interface's MTU until probes find
    /// less; `None` while the interface is unknown.
    pub path_mtu: Option<usize>,
    /// How sure that is.
    pub path_mtu_status: PathMtuStatus,
}

/// How sure the path MTU of a route is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathMtuStatus {
    /// The largest IP packet the interface would take, bytes; `None` while it is unknown.
    pub limit: Option<usize>,
    /// When a probe of the path MTU's size was answered last.
    pub proven: Option<Time>,
    /// Probes are under way: what is found may be larger, or smaller.
    pub probing: bool,
}

/// One peer as it is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub peer: PeerId,
    /// A session with it exists.
    pub session: bool,
    /// At least one route to it is usable.
    pub reachable: bool,
    /// The route that carries data to it.
    pub active: Option<RouteId>,
    /// How often data moved to another route.
    pub failovers: u64,
}
