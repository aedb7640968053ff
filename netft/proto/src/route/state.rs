//! The ground vocabulary of routes: the states of a route and the reasons it changes for. Pure.

use std::fmt;

/// The state of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteState {
    /// No direction is proven.
    Down,
    /// Only one direction is proven.
    Init,
    /// Both directions are proven.
    Up,
    /// Taken out of use by an operator here. (A route out of use at the peer is init.)
    AdminDown,
}

impl RouteState {
    /// The name in output and logs.
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

/// Why a route changed state or data moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The route is new.
    Added,
    /// A heartbeat arrived.
    Heard,
    /// The peer reports that this node's heartbeats arrive.
    PeerHears,
    /// Both directions are proven.
    BothWays,
    /// No heartbeat for a detection time.
    HeartbeatsMissed,
    /// The peer reports that this node's heartbeats do not arrive.
    PeerDoesNotHear,
    /// The peer is heard on no route, so its last report does not count.
    HeardNowhere,
    /// The peer's end of the route is broken.
    PeerLocalDown,
    /// The interface lost its carrier.
    CarrierLost,
    /// The interface was set down.
    InterfaceDown,
    /// The interface is gone.
    InterfaceGone,
    /// The local address is gone.
    AddressGone,
    /// The kernel refused to send.
    SendError,
    /// An operator's order here.
    Admin,
    /// An operator's order at the peer.
    PeerAdmin,
    /// The session is new (the peer restarted).
    NewSession,
    /// The session ended.
    SessionLost,
    /// A preferred route is up again and its hold-down is over.
    Failback,
    /// A better route came up.
    BetterRoute,
    /// The route was removed.
    Removed,
    /// An operator drains the route here.
    Draining,
    /// An operator drains the route at the peer.
    PeerDraining,
    /// The route is up and clearly worse than another: lossy, or slower than it was.
    BrownOut,
    /// Data left the route: it loses data, which its heartbeats do not show.
    DataLoss,
    /// The transport is QUIC, and the route has no connection.
    NoConnection,
    /// The peer was never heard on the route: it is tried less and less often.
    NeverHeard,
}

impl Reason {
    /// The text in output and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Heard => "heartbeat heard",
            Self::PeerHears => "peer hears us",
            Self::BothWays => "both directions proven",
            Self::HeartbeatsMissed => "heartbeats missed",
            Self::PeerDoesNotHear => "peer does not hear us",
            Self::HeardNowhere => "peer heard on no route",
            Self::PeerLocalDown => "peer's end is down",
            Self::CarrierLost => "carrier lost",
            Self::InterfaceDown => "interface down",
            Self::InterfaceGone => "interface gone",
            Self::AddressGone => "address gone",
            Self::SendError => "send error",
            Self::Admin => "admin",
            Self::PeerAdmin => "admin at peer",
            Self::NewSession => "new session",
            Self::SessionLost => "session lost",
            Self::Failback => "failback",
            Self::BetterRoute => "better route",
            Self::Removed => "removed",
            Self::Draining => "draining",
            Self::PeerDraining => "draining at peer",
            Self::BrownOut => "brown-out",
            Self::DataLoss => "data loss",
            Self::NoConnection => "no QUIC connection",
            Self::NeverHeard => "never heard",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
