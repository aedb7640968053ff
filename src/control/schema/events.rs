//! What happened, as the control socket tells it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::control::cause::{FailoverCost, FailoverReport};

/// `GET /v1/events?after=N`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventList {
    /// The events after `N` that are still kept, oldest first.
    pub events: Vec<Event>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up by one with every event; starts at 1.
    pub seq: u64,
    /// When, RFC 3339.
    pub at: String,
    /// What.
    #[serde(flatten)]
    pub detail: EventDetail,
}

/// What happened; `event` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventDetail {
    /// A route was added.
    RouteAdded {
        /// Its number.
        route: u32,
        /// The peer's name.
        peer: String,
        /// How packets travel there as this node's config says: `udp` or `quic`.
        #[serde(default)]
        transport: String,
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
    /// The first authentic heartbeat was heard on a route.
    RemoteReachable {
        /// The route.
        route: u32,
        /// The peer's name.
        peer: String,
    },
    /// The last route to a peer stopped being heard.
    RemoteUnreachable {
        /// The peer's name.
        peer: String,
    },
    /// A route changed state.
    StateChanged {
        /// The route.
        route: u32,
        /// The peer's name.
        peer: String,
        /// The state before.
        from: String,
        /// The state after.
        to: String,
        /// Why.
        reason: String,
        /// How long before a heartbeat was last heard; null if never.
        last_heard_ms_ago: Option<u64>,
        /// The last heartbeats both ways of a route that stopped being up, oldest first.
        history: Vec<String>,
    },
    /// 40 % of the threshold was missed in a row.
    EarlyWarning {
        /// The route.
        route: u32,
        /// The peer's name.
        peer: String,
        /// Heartbeats missed in a row.
        missed: u16,
        /// The threshold.
        threshold: u16,
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
    },
    /// Data to a peer moved to another route.
    Moved {
        /// The peer's name.
        peer: String,
        /// The route before.
        from: Option<u32>,
        /// The route after; null when none is usable.
        to: Option<u32>,
        /// Why.
        reason: String,
        /// What was known of the routes at that moment.
        cause: Box<FailoverReport>,
    },
    /// Data on a route stays unacknowledged: it was sent again on another one.
    Suspect {
        /// The route.
        route: u32,
        /// The peer it leads to.
        peer: String,
    },
    /// Somebody changed the adapter from outside; it was put back.
    AdapterRestored {
        /// What was wrong, and what was done.
        what: String,
    },
    /// No session with the peer can be agreed on.
    SessionRefused {
        /// The peer.
        peer: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A second machine uses the peer's key.
    DuplicateNode {
        /// The peer.
        peer: String,
    },
    /// A name of the peer cannot be looked up; its former addresses stay.
    NameFailed {
        /// The peer.
        peer: String,
        /// The name.
        name: String,
        /// What the resolver said.
        reason: String,
    },
    /// This node itself was not scheduled.
    Stalled {
        /// For how long, milliseconds.
        length_ms: u64,
    },
    /// What a suspicion, or leaving a route, has cost, once nothing can be added.
    Cost {
        /// The peer.
        peer: String,
        /// The route that was suspect, or was left.
        from: u32,
        /// Where data, or what was in flight, went.
        to: Option<u32>,
        /// What it cost.
        #[serde(flatten)]
        cost: FailoverCost,
    },
    /// A route is drained at one of its ends, or no more.
    Drain {
        /// The route.
        route: u32,
        /// The peer it leads to.
        peer: String,
        /// `draining`, `drained` (both directions have left) or `undrained`.
        stage: String,
    },
    /// Events between the one before and this one were not kept.
    EventsLost {
        /// How many.
        count: u64,
    },
    /// Another config is in force.
    Reconfigured,
    /// Probes, or its interface, showed that a route carries packets of another size.
    PathMtuChanged {
        /// The route.
        route: u32,
        /// The peer it leads to.
        peer: String,
        /// The largest IP packet before, bytes.
        from: usize,
        /// The largest IP packet after, bytes.
        to: usize,
    },
    /// The peer answered a challenge at an address nobody listed (NAT), and the route leads there.
    AddressLearned {
        /// The route.
        route: u32,
        /// The peer it leads to.
        peer: String,
        /// Where it led before; null if it was made for this.
        from: Option<SocketAddr>,
        /// Where it leads.
        to: SocketAddr,
    },
}

/// NetFT's `FaultTolerantRoute`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteFields {
    /// The physical address and port here.
    pub real_local: SocketAddr,
    /// The physical address and port there.
    pub real_remote: SocketAddr,
    /// The virtual address here.
    pub virtual_local: IpAddr,
    /// The virtual address there.
    pub virtual_remote: IpAddr,
    /// Milliseconds between heartbeats.
    pub delay_ms: u32,
    /// Heartbeats missed before the route is down.
    pub threshold: u16,
    /// Lower is preferred.
    pub priority: u32,
    /// Bit mask, as in [`Route::attributes`](super::Route::attributes).
    pub attributes: u32,
}
