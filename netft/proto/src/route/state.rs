//! The ground vocabulary of routes: the states of a route and the reasons it changes for. Pure.

use std::fmt;

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

/// Why a route changed state or data moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The route is new.
    Added,
    /// A heartbeat was heard.
    Heard,
    /// The peer says it hears this node here.
    PeerHears,
    /// Both directions are proven.
    BothWays,
    /// No heartbeat for a detection time.
    HeartbeatsMissed,
    /// The peer says it does not hear this node here.
    PeerDoesNotHear,
    /// The peer is heard on no route, so what it said last does not count.
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
    /// An operator said so here.
    Admin,
    /// An operator said so at the peer.
    PeerAdmin,
    /// The session is new (the peer restarted).
    NewSession,
    /// The session ended.
    SessionLost,
    /// A route with a better priority is back and its hold time is over.
    Failback,
    /// A better route was found.
    BetterRoute,
    /// The route was removed.
    Removed,
    /// An operator drains the route here.
    Draining,
    /// An operator drains the route at the peer.
    PeerDraining,
    /// The route is up and clearly worse than another: lossy, or slower than it was.
    BrownOut,
    /// The carrier is QUIC, and there is no connection.
    NoConnection,
}

impl Reason {
    /// The words in output and logs.
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
            Self::NoConnection => "no QUIC connection",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
