//! Events in JSON.

use std::{
    mem,
    mem::Discriminant,
    net::{IpAddr, SocketAddr},
};

use netft::route::{DrainStage, NetworkChange, RouteState, Transport};
use serde::{Deserialize, Serialize};

use crate::control::{
    cause::{FailoverCostView, FailoverReportView},
    words,
};

/// `GET /v1/events?after=N`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventList {
    /// Events after `N` that are still kept, oldest first.
    pub events: Vec<EventView>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventView {
    /// Sequence number, from 1.
    pub seq: u64,
    /// Wall-clock time, RFC 3339.
    pub at: String,
    /// The event.
    #[serde(flatten)]
    pub detail: EventDetail,
}

/// An event; the key `event` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventDetail {
    /// A route was added.
    RouteAdded {
        /// Its number.
        route: u32,
        /// The peer's name.
        peer: String,
        /// Transport by this node's configuration.
        #[serde(default, with = "words")]
        #[cfg_attr(test, schemars(with = "words::WordSchema<Transport>"))]
        transport: Transport,
        /// NetFT's eight fields.
        #[serde(flatten)]
        fields: RouteFields,
    },
    /// A route was removed.
    RouteRemoved {
        /// Its number.
        route: u32,
        /// The peer's name.
        peer: String,
        /// NetFT's eight fields.
        #[serde(flatten)]
        fields: RouteFields,
    },
    /// The first authentic heartbeat was received on a route.
    RemoteReachable {
        /// The route.
        route: u32,
        /// The peer's name.
        peer: String,
    },
    /// The last route to a peer went silent.
    RemoteUnreachable {
        /// The peer's name.
        peer: String,
    },
    /// A peer was silent on every route for `failover.gone`.
    RemoteGone {
        /// The peer's name.
        peer: String,
        /// Milliseconds of silence.
        after_ms: u64,
    },
    /// A route changed state.
    StateChanged {
        /// The route.
        route: u32,
        /// The peer's name.
        peer: String,
        /// The state before.
        #[serde(with = "words")]
        #[cfg_attr(test, schemars(with = "words::WordSchema<RouteState>"))]
        from: RouteState,
        /// The state after.
        #[serde(with = "words")]
        #[cfg_attr(test, schemars(with = "words::WordSchema<RouteState>"))]
        to: RouteState,
        /// Reason.
        reason: String,
        /// Milliseconds since the last heartbeat was received; null if none was.
        last_heard_ms_ago: Option<u64>,
        /// The last heartbeats in both directions of a route that left state up, oldest first.
        history: Vec<String>,
    },
    /// Consecutive missed heartbeats reached 40 % of the threshold.
    EarlyWarning {
        /// The route.
        route: u32,
        /// The peer's name.
        peer: String,
        /// Heartbeats missed in a row.
        missed: u16,
        /// The threshold.
        threshold: u16,
        /// Warnings of this node that were withheld before it.
        #[serde(default)]
        withheld: u32,
    },
    /// The adapter can carry traffic to a peer.
    Ready {
        /// The peer's name.
        peer: String,
        /// Milliseconds from the session's keys to the first route up.
        waited_ms: u64,
    },
    /// A session was established.
    SessionEstablished {
        /// The peer's name.
        peer: String,
        /// The peer's boot id, 16 hex digits.
        boot_id: String,
    },
    /// A session ended.
    SessionEnded {
        /// The peer's name.
        peer: String,
        /// The end that closed it: `peer` or `this-node`.
        #[serde(default)]
        by: String,
        /// `peer-stopped`, `peer-replaced`, `peer-refused`, `replaced`, `violation` or
        /// `peer-removed`.
        #[serde(default)]
        cause: String,
    },
    /// Data to a peer moved to another route.
    Moved {
        /// The peer's name.
        peer: String,
        /// The route before.
        from: Option<u32>,
        /// The route after; null when none is usable.
        to: Option<u32>,
        /// Reason.
        reason: String,
        /// Route states at that moment.
        cause: Box<FailoverReportView>,
    },
    /// Frames on a route stay unacknowledged: they were retransmitted on another one.
    Suspect {
        /// The route.
        route: u32,
        /// The peer it leads to.
        peer: String,
    },
    /// Another program changed the adapter; the change was reverted.
    AdapterRestored {
        /// Description of the change and of the correction.
        what: String,
    },
    /// Packets of the overlay are lost, or may enter or leave in the clear.
    OverlayFault {
        /// Cause and remedy.
        what: String,
    },
    /// A route to the peer is usable, and nothing comes back from it through the adapter.
    OverlayLost {
        /// The peer.
        peer: String,
        /// Cause and remedy.
        what: String,
    },
    /// The peer answers through the adapter again.
    OverlayAnswers {
        /// The peer.
        peer: String,
    },
    /// There is no session with the peer: it was refused, or no interface takes a handshake.
    SessionRefused {
        /// The peer.
        peer: String,
        /// Cause and remedy.
        reason: String,
    },
    /// A second machine uses this node's own key, says a peer that refuses it.
    KeyCopied {
        /// The peer that says so.
        peer: String,
    },
    /// A second node uses the peer's key.
    DuplicateNode {
        /// The peer.
        peer: String,
    },
    /// A name of the peer cannot be resolved; its former addresses stay in use.
    NameFailed {
        /// The peer.
        peer: String,
        /// The name.
        name: String,
        /// Resolver error.
        reason: String,
    },
    /// This node was not scheduled (self-stall).
    Stalled {
        /// Length, milliseconds.
        length_ms: u64,
    },
    /// Final cost of a suspicion, or of leaving a route.
    Cost {
        /// The peer.
        peer: String,
        /// Route that was suspect, or was left.
        from: u32,
        /// Route that took over.
        to: Option<u32>,
        /// The cost.
        #[serde(flatten)]
        cost: FailoverCostView,
    },
    /// The drain of a route began, completed or ended.
    Drain {
        /// The route.
        route: u32,
        /// The peer it leads to.
        peer: String,
        /// `draining`, `drained` (both directions have left) or `undrained`.
        #[serde(with = "words")]
        #[cfg_attr(test, schemars(with = "words::WordSchema<DrainStage>"))]
        stage: DrainStage,
    },
    /// netftd started: the events before this one are of an earlier run, with route numbers of its
    /// own.
    Restarted {
        /// Version of the program.
        version: String,
    },
    /// A drill began: a failure is rehearsed (`netft drill`).
    DrillStarted {
        /// Its target.
        target: String,
        /// How it fails.
        fault: String,
        /// Milliseconds it lasts.
        length_ms: u64,
        /// The routes it makes fail.
        routes: Vec<u32>,
    },
    /// A drill is over: its fault is undone.
    DrillEnded {
        /// Its target.
        target: String,
        /// How it failed.
        fault: String,
        /// `completed` or `aborted`.
        outcome: String,
        /// Why it was aborted; else null.
        reason: Option<String>,
        /// Microseconds until the last route was detected; null if one was not.
        detection_us: Option<u64>,
        /// Microseconds of the longest stall; null for none.
        stall_us: Option<u64>,
        /// Frames given up unacknowledged.
        lost: u64,
        /// Frames retransmitted on another route.
        resent: u64,
        /// Every route that was up is up again.
        recovered: bool,
        /// The routes it made fail.
        routes: Vec<u32>,
    },
    /// Events between the previous one and this one were lost.
    EventsLost {
        /// Number of lost events.
        count: u64,
    },
    /// Segmented sends (UDP_SEGMENT) vanish on a route while single datagrams arrive, and its
    /// frames are sent one by one; or segmented sends are tried again.
    SegmentedSends {
        /// The route.
        route: u32,
        /// The peer it leads to.
        peer: String,
        /// Frames are sent one by one.
        plain: bool,
    },
    /// This node has more usable addresses than its interface list holds.
    InterfaceListCut {
        /// Addresses in the list.
        listed: usize,
        /// Usable addresses.
        usable: usize,
    },
    /// Events of one cause came too fast: those that were replaced by a newer one of their kind and
    /// route were left out. The last state of each was told.
    EventsLeftOut {
        /// The peer they were about; null for events of this node.
        peer: Option<String>,
        /// Number of events left out.
        count: u64,
    },
    /// A floating address changed its state on this node.
    VipChanged {
        /// Its name.
        vip: String,
        /// Its addresses.
        addresses: String,
        /// `offline`, `starting`, `online`, `failed` or `unknown`.
        state: String,
        /// Reason; null where the state needs none.
        reason: Option<String>,
    },
    /// Something happened to a floating address that did not change its state.
    VipNotice {
        /// Its name.
        vip: String,
        /// Description of what happened and of what was done.
        what: String,
    },
    /// netftd changed or restored a setting of the kernel.
    HostSettingChanged {
        /// The setting, with its former value.
        what: String,
    },
    /// The operator's overrides of an earlier run cannot be used: none of them is in force.
    OverridesRefused {
        /// The reason, and what became of the file.
        reason: String,
    },
    /// The configuration was reloaded.
    Reconfigured,
    /// A network was added or removed, or changed its state as this node sees it.
    NetworkChanged {
        /// Its prefix, as `10.1.0.0/24`.
        prefix: String,
        /// `added`, `removed`, `up`, `partitioned`, `down` or `unavailable`.
        #[serde(with = "words")]
        #[cfg_attr(test, schemars(with = "words::WordSchema<NetworkChange>"))]
        change: NetworkChange,
    },
    /// An interface of a network was added or removed.
    InterfaceChanged {
        /// The node it belongs to; null for this node's own.
        peer: Option<String>,
        /// The prefix of the network.
        prefix: String,
        /// Its address.
        address: IpAddr,
        /// It was added; otherwise removed.
        added: bool,
    },
    /// The path MTU of a route changed, by probes or by its interface.
    PathMtuChanged {
        /// The route.
        route: u32,
        /// The peer it leads to.
        peer: String,
        /// Former path MTU, bytes.
        from: usize,
        /// New path MTU, bytes.
        to: usize,
    },
    /// The peer answered a path challenge at an unconfigured address (NAT); the route uses it.
    AddressLearned {
        /// The route.
        route: u32,
        /// The peer it leads to.
        peer: String,
        /// Former remote address; null for a new route.
        from: Option<SocketAddr>,
        /// New remote address.
        to: SocketAddr,
    },
}

impl EventDetail {
    /// Every route the event names.
    pub fn routes(&self) -> Vec<u32> {
        match self {
            Self::Moved { from, to, cause, .. } => {
                let others = cause.candidates.iter().map(|candidate| candidate.route);
                from.iter().chain(to).copied().chain(others).collect()
            }
            Self::Cost { from, to, .. } => [*from].into_iter().chain(*to).collect(),
            Self::RouteAdded { route, .. }
            | Self::RouteRemoved { route, .. }
            | Self::RemoteReachable { route, .. }
            | Self::StateChanged { route, .. }
            | Self::EarlyWarning { route, .. }
            | Self::Suspect { route, .. }
            | Self::AddressLearned { route, .. }
            | Self::SegmentedSends { route, .. }
            | Self::PathMtuChanged { route, .. } => vec![*route],
            Self::DrillStarted { routes, .. } | Self::DrillEnded { routes, .. } => routes.clone(),
            Self::RemoteUnreachable { .. }
            | Self::RemoteGone { .. }
            | Self::Ready { .. }
            | Self::SessionEstablished { .. }
            | Self::SessionEnded { .. }
            | Self::AdapterRestored { .. }
            | Self::OverlayFault { .. }
            | Self::OverlayLost { .. }
            | Self::OverlayAnswers { .. }
            | Self::SessionRefused { .. }
            | Self::DuplicateNode { .. }
            | Self::KeyCopied { .. }
            | Self::NameFailed { .. }
            | Self::Stalled { .. }
            | Self::Drain { .. }
            | Self::Restarted { .. }
            | Self::EventsLost { .. }
            | Self::InterfaceListCut { .. }
            | Self::EventsLeftOut { .. }
            | Self::VipChanged { .. }
            | Self::VipNotice { .. }
            | Self::HostSettingChanged { .. }
            | Self::NetworkChanged { .. }
            | Self::InterfaceChanged { .. }
            | Self::OverridesRefused { .. }
            | Self::Reconfigured => Vec::new(),
        }
    }

    /// Stable identifier of the event, the value of `event` in JSON.
    pub fn event_id(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value.get("event").and_then(|id| id.as_str()).unwrap_or_default().to_owned()
    }

    /// The peer the event is about; `None` for events of this node.
    pub fn peer(&self) -> Option<&str> {
        match self {
            Self::RouteAdded { peer, .. }
            | Self::RouteRemoved { peer, .. }
            | Self::RemoteReachable { peer, .. }
            | Self::RemoteUnreachable { peer }
            | Self::RemoteGone { peer, .. }
            | Self::StateChanged { peer, .. }
            | Self::EarlyWarning { peer, .. }
            | Self::Ready { peer, .. }
            | Self::SessionEstablished { peer, .. }
            | Self::SessionEnded { peer, .. }
            | Self::Moved { peer, .. }
            | Self::Suspect { peer, .. }
            | Self::OverlayLost { peer, .. }
            | Self::OverlayAnswers { peer }
            | Self::SessionRefused { peer, .. }
            | Self::DuplicateNode { peer }
            | Self::KeyCopied { peer }
            | Self::NameFailed { peer, .. }
            | Self::PathMtuChanged { peer, .. }
            | Self::SegmentedSends { peer, .. }
            | Self::AddressLearned { peer, .. }
            | Self::Cost { peer, .. }
            | Self::Drain { peer, .. } => Some(peer),
            Self::EventsLeftOut { peer, .. } | Self::InterfaceChanged { peer, .. } => {
                peer.as_deref()
            }
            Self::AdapterRestored { .. }
            | Self::DrillStarted { .. }
            | Self::DrillEnded { .. }
            | Self::OverlayFault { .. }
            | Self::Stalled { .. }
            | Self::InterfaceListCut { .. }
            | Self::VipChanged { .. }
            | Self::VipNotice { .. }
            | Self::HostSettingChanged { .. }
            | Self::OverridesRefused { .. }
            | Self::Reconfigured
            | Self::NetworkChanged { .. }
            | Self::Restarted { .. }
            | Self::EventsLost { .. } => None,
        }
    }

    /// The part of the node that the event is about, as NetFT's log names its components (C3):
    /// `topology` is its TM, `interface` its IM, `route` its FTI, `session` its CONNECT, `node`
    /// its NETFTAPI.
    pub const fn component(&self) -> &'static str {
        match self {
            Self::RouteAdded { .. }
            | Self::RouteRemoved { .. }
            | Self::AddressLearned { .. }
            | Self::NameFailed { .. }
            | Self::NetworkChanged { .. } => "topology",
            Self::InterfaceChanged { .. }
            | Self::InterfaceListCut { .. }
            | Self::AdapterRestored { .. }
            | Self::VipChanged { .. }
            | Self::VipNotice { .. }
            | Self::HostSettingChanged { .. }
            | Self::OverlayFault { .. }
            | Self::OverlayLost { .. }
            | Self::OverlayAnswers { .. } => "interface",
            Self::RemoteReachable { .. }
            | Self::RemoteGone { .. }
            | Self::RemoteUnreachable { .. }
            | Self::StateChanged { .. }
            | Self::EarlyWarning { .. }
            | Self::Moved { .. }
            | Self::Suspect { .. }
            | Self::Cost { .. }
            | Self::Drain { .. }
            | Self::DrillStarted { .. }
            | Self::DrillEnded { .. }
            | Self::PathMtuChanged { .. }
            | Self::SegmentedSends { .. }
            | Self::Ready { .. } => "route",
            Self::SessionEstablished { .. }
            | Self::SessionEnded { .. }
            | Self::SessionRefused { .. }
            | Self::DuplicateNode { .. }
            | Self::KeyCopied { .. } => "session",
            Self::Stalled { .. }
            | Self::OverridesRefused { .. }
            | Self::Reconfigured
            | Self::EventsLeftOut { .. }
            | Self::Restarted { .. }
            | Self::EventsLost { .. } => "node",
        }
    }
}

/// Kind of an event and its route, if it is about one.
pub(in crate::control) type EventSubject = (Discriminant<EventDetail>, Option<u32>);

impl EventDetail {
    /// Subject of the event: a newer one with the same subject replaces an older one.
    pub(in crate::control) fn subject(&self) -> EventSubject {
        let route = match self {
            // The last move to a peer is the one that counts.
            Self::Moved { .. } => None,
            Self::Drain { route, .. } => Some(*route),
            other => other.routes().first().copied(),
        };
        (mem::discriminant(self), route)
    }

    /// State or stage that the event leads to; empty for others.
    pub(in crate::control) fn state_word(&self) -> &'static str {
        match self {
            Self::StateChanged { to, .. } => to.as_str(),
            Self::Drain { stage, .. } => stage.as_str(),
            _ => "",
        }
    }
}

/// NetFT's `FaultTolerantRoute`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RouteFields {
    /// Physical address and port on this node.
    pub real_local: SocketAddr,
    /// Physical address and port on the peer.
    pub real_remote: SocketAddr,
    /// Virtual address of this node.
    pub virtual_local: IpAddr,
    /// Virtual address of the peer.
    pub virtual_remote: IpAddr,
    /// Milliseconds between heartbeats.
    pub delay_ms: u32,
    /// Missed heartbeats after which the route is down.
    pub threshold: u16,
    /// Lower is preferred.
    pub priority: u32,
    /// Bit mask, as in the list of routes.
    pub attributes: u32,
}
