//! Everything the engine tells the world, in NetFT's words and order.

use std::{net::SocketAddr, time::Duration};

use crate::{
    failover::{cost::FailoverCost, report::FailoverReport},
    ids::{PeerId, RouteId},
    route::{
        drain_state::DrainStage,
        spec::RouteSpec,
        state::{Reason, RouteState},
    },
    time::Time,
};

/// Something that happened, with the moment it did.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Time,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// A route was added (NetFT: `Added route <struct mscs::FaultTolerantRoute>`).
    RouteAdded {
        /// Its number.
        route: RouteId,
        /// Its eight fields.
        spec: RouteSpec,
    },
    /// A route was removed.
    RouteRemoved {
        /// Its number.
        route: RouteId,
        /// What it was.
        spec: RouteSpec,
    },
    /// The first authentic heartbeat on a route (NetFT: `NetftRemoteReachable`).
    RemoteReachable {
        /// The peer.
        peer: PeerId,
        /// The route it was heard on.
        route: RouteId,
    },
    /// The last route to a peer stopped being heard (NetFT: `NetftRemoteUnreachable`).
    RemoteUnreachable {
        /// The peer.
        peer: PeerId,
    },
    /// A route changed state.
    StateChanged {
        /// The route.
        route: RouteId,
        /// The peer it leads to.
        peer: PeerId,
        /// The state before.
        from: RouteState,
        /// The state after.
        to: RouteState,
        /// Why.
        reason: Reason,
        /// When a heartbeat was last heard on it, if ever.
        last_heard: Option<Time>,
        /// The last heartbeats of the route both ways, oldest first (NetFT's RouteHistoryLength),
        /// when it stopped being up or went down.
        history: Vec<String>,
    },
    /// 40 % of the threshold missed in a row (NetFT: `NetftTwoFifthMissedHeartbeats`).
    EarlyWarning {
        /// The route.
        route: RouteId,
        /// The peer it leads to.
        peer: PeerId,
        /// Heartbeats missed in a row.
        missed: u16,
        /// The threshold.
        threshold: u16,
    },
    /// At least one route to the peer is up, the adapter can carry traffic to it.
    Ready {
        /// The peer.
        peer: PeerId,
        /// From the session's keys to the first route up.
        waited: Duration,
    },
    /// The session with a peer is established: authenticated, and a route carries it.
    SessionEstablished {
        /// The peer.
        peer: PeerId,
        /// The peer's boot id.
        boot_id: u64,
    },
    /// The session with a peer ended.
    SessionEnded {
        /// The peer.
        peer: PeerId,
    },
    /// Data on a route stays unacknowledged: what is in flight was sent again on another route,
    /// and data goes both ways until heartbeats decide.
    Suspect {
        /// The route.
        route: RouteId,
        /// The peer it leads to.
        peer: PeerId,
    },
    /// Data to a peer moved to another route.
    Moved {
        /// The peer.
        peer: PeerId,
        /// The route before.
        from: Option<RouteId>,
        /// The route after; `None` when no route is usable.
        to: Option<RouteId>,
        /// Why.
        reason: Reason,
        /// What was known of the routes at that moment.
        report: Box<FailoverReport>,
    },
    /// Somebody changed the adapter from outside; it was put back.
    AdapterRestored {
        /// What was wrong, and what was done.
        what: String,
    },
    /// No session with the peer can be agreed on; trying again does not help by itself.
    SessionRefused {
        /// The peer.
        peer: PeerId,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A second machine uses the peer's key: the first keeps working, the second is refused.
    DuplicateNode {
        /// The peer.
        peer: PeerId,
    },
    /// A name of the peer cannot be looked up; its former addresses stay, and it is tried again.
    /// Told when it begins.
    NameFailed {
        /// The peer.
        peer: PeerId,
        /// The name.
        name: String,
        /// What the resolver said.
        reason: String,
    },
    /// This node itself was not scheduled; nobody is blamed for that time.
    Stalled {
        /// For how long.
        length: Duration,
    },
    /// Probes, or its interface, showed that a route carries packets of another size.
    PathMtuChanged {
        /// The route.
        route: RouteId,
        /// The peer it leads to.
        peer: PeerId,
        /// The largest IP packet before, bytes.
        from: usize,
        /// The largest IP packet after, bytes.
        to: usize,
    },
    /// What a suspicion, or leaving a route, has cost, once nothing can be added. Not told when it
    /// cost nothing.
    FailoverCost {
        /// The peer.
        peer: PeerId,
        /// The route that was suspect, or was left.
        from: RouteId,
        /// Where data, or what was in flight, went.
        to: Option<RouteId>,
        /// What it cost.
        cost: FailoverCost,
    },
    /// An operator at one of its ends drains a route, or ended that.
    Drain {
        /// The route.
        route: RouteId,
        /// The peer it leads to.
        peer: PeerId,
        /// How far it got.
        stage: DrainStage,
    },
    /// The configuration changed while the node runs.
    Reconfigured,
    /// The peer answered a challenge at an address nobody listed, and the route leads there.
    AddressLearned {
        /// The route.
        route: RouteId,
        /// The peer it leads to.
        peer: PeerId,
        /// Where it led before; `None`: it was made for this.
        from: Option<SocketAddr>,
        /// Where it leads.
        to: SocketAddr,
    },
}
