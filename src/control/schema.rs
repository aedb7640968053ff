//! What the control socket says, field by field. A change of meaning counts [`SCHEMA_VERSION`] up;
//! a new field does not, so readers ignore fields they do not know.

mod counters;
mod events;
mod networks;
mod validation;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

pub use counters::PacketCounters;
pub use events::{Event, EventDetail, EventList, RouteFields};
pub use networks::{Network, NetworkInterface, NetworkList};
use serde::{Deserialize, Serialize};
pub use validation::{
    Finding, PeerPath, PeerValidation, PeerValidations, Severity, ValidationResult,
};

use super::cause::StallSummary;

/// The version of everything below.
pub const SCHEMA_VERSION: u32 = 2;

/// An answer, or a line of the event stream, with the version in front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionedBody<T> {
    /// [`SCHEMA_VERSION`].
    pub schema: u32,
    /// What was asked for.
    #[serde(flatten)]
    pub body: T,
}

impl<T> VersionedBody<T> {
    /// `body`, in this version.
    pub const fn new(body: T) -> Self {
        Self { schema: SCHEMA_VERSION, body }
    }
}

/// `GET /v1/routes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteList {
    /// Every route, by number.
    pub routes: Vec<Route>,
}

/// `GET /v1/routes/{id}`, and the answer to a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteBody {
    /// The route.
    pub route: Route,
}

/// One route: NetFT's eight fields, and its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Its number on this node.
    pub id: u32,
    /// The peer's name.
    pub peer: String,
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
    /// Bit mask: 1 same-subnet, 2 pinned, 4 cross-site, 2147483648 cross-subnet.
    pub attributes: u32,
    /// How packets travel: `udp` or `quic`.
    pub transport: String,
    /// `down`, `init`, `up` or `admin-down`.
    pub state: String,
    /// The peer says it hears this node here.
    pub tx: bool,
    /// This node hears the peer here.
    pub rx: bool,
    /// Data to the peer goes out here.
    pub active: bool,
    /// Data stays unacknowledged here, and heartbeats have not decided yet.
    #[serde(default)]
    pub suspect: bool,
    /// Milliseconds until data may return here; 0 unless the route was lost lately.
    #[serde(default)]
    pub hold_ms: u64,
    /// How often the route was lost lately: one is forgiven per quiet minute, each doubles the
    /// hold.
    #[serde(default)]
    pub flaps: u32,
    /// While an operator drains it: `draining`, then `drained` once both directions have left;
    /// else null.
    #[serde(default)]
    pub drain: Option<String>,
    /// Where it is drained: `here`, `peer` or `both`; null when nowhere.
    #[serde(default)]
    pub drain_by: Option<String>,
    /// Smoothed round-trip time of heartbeats, microseconds; null while unknown.
    pub rtt_us: Option<u64>,
    /// How far round-trip times stray from it, microseconds; null while unknown.
    #[serde(default)]
    pub jitter_us: Option<u64>,
    /// Share of the peer's heartbeats lost lately, 0.0–1.0.
    pub loss: f64,
    /// Share of this node's heartbeats the peer lost lately, 0.0–1.0.
    #[serde(default)]
    pub loss_out: f64,
    /// Data left for a better route because of loss or latency, and has not returned.
    #[serde(default)]
    pub brown_out: bool,
    /// Heartbeat requests sent since the route was added.
    pub heartbeats_sent: u64,
    /// Heartbeats missed since the route was added.
    pub heartbeats_missed: u64,
    /// When the state changed last, RFC 3339.
    pub last_change: String,
    /// Why the state changed last.
    pub reason: String,
    /// The largest IP packet the route carries, bytes: its interface's MTU until probes find
    /// less; null while the interface is unknown.
    pub path_mtu: Option<usize>,
    /// The largest IP packet the interface here would take, bytes; null while it is unknown.
    #[serde(default)]
    pub path_mtu_limit: Option<usize>,
    /// Milliseconds since a probe of that size was answered last; null if none was.
    #[serde(default)]
    pub path_mtu_age_ms: Option<u64>,
    /// Probes are under way that may find another size.
    #[serde(default)]
    pub path_mtu_probing: bool,
    /// Data frames sent here since the route was added, copies and resends among them.
    pub tx_frames: u64,
    /// Their bytes, as UDP payload.
    pub tx_bytes: u64,
    /// The peer that relays it; null for a route of this node's own. The real addresses of a
    /// relayed route are two sockets inside the daemon.
    #[serde(default)]
    pub via: Option<String>,
}

/// `PATCH /v1/routes/{id}`. Fields left out stay as they are; at least one is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutePatch {
    /// Milliseconds between heartbeats: 5–60,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Heartbeats missed before the route is down: 2–120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u64>,
    /// Lower is preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Takes the route out of use, or puts it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminState>,
}

/// Whether an operator wants a route used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminState {
    /// Used.
    Up,
    /// Not used.
    Down,
}

/// `POST /v1/drain`: one of `route` and `interface`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// One route, by its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<u32>,
    /// Every route over an interface of this node, all or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Drains; false uses the routes again.
    pub on: bool,
    /// Drains the last route to a peer too; its data then stays where it is.
    #[serde(default)]
    pub force: bool,
    /// Milliseconds to wait until both directions have left: 0–4000.
    #[serde(default)]
    pub wait_ms: u64,
}

/// The answer to `POST /v1/drain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainResponse {
    /// Nothing is waited for any more.
    pub done: bool,
    /// What is still waited for; the order stands.
    pub waits: Vec<DrainWait>,
    /// The routes the order is about.
    pub routes: Vec<Route>,
}

/// What draining a route waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainWait {
    /// The route.
    pub route: u32,
    /// The peer it leads to.
    pub peer: String,
    /// What is missing.
    pub reason: String,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// The daemon's version.
    pub version: String,
    /// This node.
    pub node: NodeStatus,
    /// Its adapter.
    pub adapter: AdapterStatus,
    /// How many peers there are.
    pub peers: PeerCounts,
    /// How many routes there are.
    pub routes: RouteCounts,
    /// How often data moved to another route, over all peers.
    pub failovers: u64,
    /// How long data stood still at failovers.
    pub stalls: StallSummary,
    /// How many peers have which policy; only policies that some peer has.
    pub policies: BTreeMap<String, usize>,
    /// Packets since the start.
    pub counters: PacketCounters,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its public key, base64.
    pub key: String,
    /// Drawn anew at every start; 16 hex digits.
    pub boot_id: String,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
}

/// The adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterStatus {
    /// Its interface name.
    pub name: String,
    /// Its interface index; 0 while it is gone.
    pub ifindex: u32,
    /// Whether it is up.
    pub up: bool,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its MTU, bytes.
    pub mtu: u16,
    /// `offload` or `plain`.
    pub backend: String,
}

/// How many peers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCounts {
    /// In the config.
    pub configured: usize,
    /// With a session.
    pub sessions: usize,
    /// With a usable route.
    pub reachable: usize,
}

/// How many routes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCounts {
    /// All.
    pub total: usize,
    /// Up.
    pub up: usize,
}

/// `GET /v1/peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerList {
    /// Every peer, in the config's order.
    pub peers: Vec<Peer>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its public key, base64.
    pub key: String,
    /// Its virtual IPv4 address.
    pub v4: Ipv4Addr,
    /// Its virtual IPv6 address.
    pub v6: Ipv6Addr,
    /// The physical addresses its routes lead to.
    pub addresses: Vec<SocketAddr>,
    /// A session with it exists.
    pub session: bool,
    /// At least one route to it is usable.
    pub reachable: bool,
    /// The route that carries data to it.
    pub active: Option<u32>,
    /// How often data moved to another route.
    pub failovers: u64,
    /// Whether its adapter was up at the last handshake; null without a session.
    pub adapter_up: Option<bool>,
    /// How data of no class uses its routes: `failover`, `duplicate` or `balance`.
    pub policy: String,
    /// The classes of traffic with a policy of their own; the first that matches decides.
    pub classes: Vec<TrafficClassSpec>,
}

/// A class of traffic. Criteria that are not there match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficClassSpec {
    /// `failover`, `duplicate` or `balance`.
    pub policy: String,
    /// The code point, 0–63.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u64>,
    /// `tcp`, `udp` or `icmp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The TCP or UDP port at either end: `5060`, or `5060-5070`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Bytes of the smallest packet, its IP header included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u32>,
    /// Bytes of the largest packet, its IP header included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u32>,
}

/// `GET /v1/peers/{name}`, and the answer to a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerBody {
    /// The peer.
    pub peer: Peer,
}

/// `PATCH /v1/peers/{name}`. Fields left out stay as they are; at least one is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerPatch {
    /// For data of no class: `failover`, `duplicate` or `balance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// At most 16 classes in place of all there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<TrafficClassSpec>>,
}

/// `POST /v1/reload`, with `?dry_run=true` or without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadResult {
    /// Whether the changes are in force; false for a dry run, and when there are none.
    pub applied: bool,
    /// What changes, one line each: settings, then routes. `+` comes, `-` goes, `~` is different.
    pub changes: Vec<String>,
}

/// `netft hosts --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostList {
    /// The nodes, this one first.
    pub hosts: Vec<HostEntry>,
}

/// The name of a node's virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// The node's name, and `.netft`.
    pub name: String,
    /// Its virtual IPv4 address.
    pub v4: Ipv4Addr,
    /// Its virtual IPv6 address; a link-local one needs the adapter as its scope.
    pub v6: Ipv6Addr,
}

/// The answer to a request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong, in one line.
    pub error: String,
}
