//! Events of the engine and the driver, in the terms and the order of NetFT.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    drill::{order::DrillOrder, report::DrillReport},
    failover::{cost::FailoverCost, report::FailoverReport},
    ids::{PeerId, RouteId},
    route::{
        drain_state::DrainStage,
        session_end::SessionEndCause,
        spec::RouteSpec,
        state::{Reason, RouteState},
    },
    time::Time,
    vip::VipState,
};

/// An event and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it happened.
    pub at: Time,
    /// The event.
    pub kind: EventKind,
}

/// Change of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetworkChange {
    /// An interface of some node is in it, and none was before.
    Added,
    /// No interface is in it.
    Removed,
    /// Every interface of a node with a session is reached there.
    Up,
    /// Some are reached and others are not.
    Partitioned,
    /// None is reached, or this node's own interface does not work.
    Down,
    /// This node has no interface there, and reaches none.
    Unavailable,
}

impl NetworkChange {
    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Up => "up",
            Self::Partitioned => "partitioned",
            Self::Down => "down",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The events.
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
        /// Its fields.
        spec: RouteSpec,
    },
    /// The first authentic heartbeat arrived on a route (NetFT: `NetftRemoteReachable`).
    RemoteReachable {
        /// The peer.
        peer: PeerId,
        /// The route it arrived on.
        route: RouteId,
    },
    /// No heartbeat arrives on any route to a peer (NetFT: `NetftRemoteUnreachable`).
    RemoteUnreachable {
        /// The peer.
        peer: PeerId,
    },
    /// The peer was silent on every route for `failover.gone`: what a decision about the node
    /// itself waits for. [`RemoteReachable`](Self::RemoteReachable) ends it.
    RemoteGone {
        /// The peer.
        peer: PeerId,
        /// How long it was silent.
        after: Duration,
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
        /// When a heartbeat last arrived on it, if ever.
        last_heard: Option<Time>,
        /// The last heartbeats of the route in both directions, oldest first (NetFT's
        /// RouteHistoryLength), when it stopped being up or went down.
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
        /// Warnings of this node that were withheld before it.
        withheld: u32,
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
        /// Why, and at which end.
        cause: SessionEndCause,
    },
    /// Data on a route stays unacknowledged: it was retransmitted on another route, and data is
    /// duplicated there until heartbeats decide.
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
        /// The state of the routes at that moment.
        report: Box<FailoverReport>,
    },
    /// Another program changed the adapter; it was restored.
    AdapterRestored {
        /// The difference, and the action.
        what: String,
    },
    /// Packets of the overlay are lost, or may enter or leave in the clear.
    OverlayFault {
        /// The cause and the remedy.
        what: String,
    },
    /// A route to the peer is usable, and nothing comes back from it through the adapter.
    OverlayLost {
        /// The peer.
        peer: PeerId,
        /// The cause and the remedy.
        what: String,
    },
    /// The peer answers through the adapter again.
    OverlayAnswers {
        /// The peer.
        peer: PeerId,
    },
    /// No session with the peer can be negotiated, and a retry alone cannot help.
    SessionRefused {
        /// The peer.
        peer: PeerId,
        /// The cause and the remedy.
        reason: String,
    },
    /// A second machine uses the peer's key: the first keeps its session, the second is refused.
    DuplicateNode {
        /// The peer.
        peer: PeerId,
    },
    /// A second machine uses this node's own key, says a peer that refuses it.
    KeyCopied {
        /// The peer that says so.
        peer: PeerId,
    },
    /// A host name of the peer cannot be resolved. Its former addresses stay, and it is retried;
    /// emitted once per failure.
    NameFailed {
        /// The peer.
        peer: PeerId,
        /// The name.
        name: String,
        /// The resolver's error.
        reason: String,
    },
    /// This node was not scheduled; every deadline is extended.
    Stalled {
        /// Length of the stall.
        length: Duration,
    },
    /// The path MTU of a route changed, by probes or with its interface.
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
    /// Segmented sends (UDP_SEGMENT) vanish on a route while single datagrams arrive, and its
    /// frames are sent one by one; or segmented sends are tried again.
    SegmentedSends {
        /// The route.
        route: RouteId,
        /// The peer it leads to.
        peer: PeerId,
        /// Frames are sent one by one.
        plain: bool,
    },
    /// The cost of a suspicion or a move, once it is final. Not emitted when there was none.
    FailoverCost {
        /// The peer.
        peer: PeerId,
        /// The route that was suspect, or that data left.
        from: RouteId,
        /// The route that data, or its retransmission, moved to.
        to: Option<RouteId>,
        /// The cost.
        cost: FailoverCost,
    },
    /// Progress of a drain ordered at either end of a route, or its end.
    Drain {
        /// The route.
        route: RouteId,
        /// The peer it leads to.
        peer: PeerId,
        /// The stage it reached.
        stage: DrainStage,
    },
    /// A drill began: a failure is rehearsed on these routes.
    DrillStarted {
        /// The order.
        order: DrillOrder,
        /// The routes it makes fail.
        routes: Vec<RouteId>,
    },
    /// A drill is over, its fault is undone.
    DrillEnded {
        /// Its findings.
        report: Box<DrillReport>,
    },
    /// This node has more usable addresses than its interface list holds: peers do not learn the
    /// others. Emitted once until all fit again.
    InterfaceListCut {
        /// Addresses in the list.
        listed: usize,
        /// Usable addresses.
        usable: usize,
    },
    /// A floating address changed its state on this node.
    VipChanged {
        /// Its name.
        vip: String,
        /// Its addresses.
        addresses: String,
        /// The state it is in.
        state: VipState,
    },
    /// Something happened to a floating address that did not change its state.
    VipNotice {
        /// Its name.
        vip: String,
        /// Description of it, and of what was done.
        what: String,
    },
    /// netftd changed or restored a setting of the kernel.
    HostSettingChanged {
        /// The setting, with its former value.
        what: String,
    },
    /// The operator's overrides of an earlier run cannot be used, as a whole.
    OverridesRefused {
        /// The reason, and what became of the file.
        reason: String,
    },
    /// The configuration was reloaded.
    Reconfigured,
    /// A network of the nodes' interfaces was added or removed, or changed its state (NetFT's
    /// events 1128 to 1130, 1133 and 1134).
    NetworkChanged {
        /// Its prefix.
        prefix: IpNet,
        /// Its change.
        change: NetworkChange,
    },
    /// An interface of a network was added or removed (NetFT's events 1131 and 1132).
    InterfaceChanged {
        /// The peer it belongs to; `None` for this node's own.
        peer: Option<PeerId>,
        /// The prefix of the network.
        prefix: IpNet,
        /// Its address.
        addr: IpAddr,
        /// It was added; otherwise removed.
        added: bool,
    },
    /// The peer proved by path validation that it is at an address that is not configured, and the
    /// route leads there.
    AddressLearned {
        /// The route.
        route: RouteId,
        /// The peer it leads to.
        peer: PeerId,
        /// Its former remote address; `None` for a new route.
        from: Option<SocketAddr>,
        /// Its remote address.
        to: SocketAddr,
    },
}

impl EventKind {
    /// The name of the event, the same in the API, in output and in logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RouteAdded { .. } => "route-added",
            Self::RouteRemoved { .. } => "route-removed",
            Self::RemoteReachable { .. } => "remote-reachable",
            Self::RemoteUnreachable { .. } => "remote-unreachable",
            Self::RemoteGone { .. } => "remote-gone",
            Self::StateChanged { .. } => "state-changed",
            Self::EarlyWarning { .. } => "early-warning",
            Self::Ready { .. } => "ready",
            Self::SessionEstablished { .. } => "session-established",
            Self::SessionEnded { .. } => "session-ended",
            Self::Suspect { .. } => "suspect",
            Self::Moved { .. } => "moved",
            Self::AdapterRestored { .. } => "adapter-restored",
            Self::OverlayFault { .. } => "overlay-fault",
            Self::OverlayLost { .. } => "overlay-lost",
            Self::OverlayAnswers { .. } => "overlay-answers",
            Self::SessionRefused { .. } => "session-refused",
            Self::DuplicateNode { .. } => "duplicate-node",
            Self::KeyCopied { .. } => "key-copied",
            Self::NameFailed { .. } => "name-failed",
            Self::Stalled { .. } => "stalled",
            Self::PathMtuChanged { .. } => "path-mtu-changed",
            Self::SegmentedSends { .. } => "segmented-sends",
            Self::FailoverCost { .. } => "cost",
            Self::Drain { .. } => "drain",
            Self::DrillStarted { .. } => "drill-started",
            Self::DrillEnded { .. } => "drill-ended",
            Self::InterfaceListCut { .. } => "interface-list-cut",
            Self::VipChanged { .. } => "vip-changed",
            Self::VipNotice { .. } => "vip-notice",
            Self::HostSettingChanged { .. } => "host-setting-changed",
            Self::OverridesRefused { .. } => "overrides-refused",
            Self::Reconfigured => "reconfigured",
            Self::NetworkChanged { .. } => "network-changed",
            Self::InterfaceChanged { .. } => "interface-changed",
            Self::AddressLearned { .. } => "address-learned",
        }
    }
}
