//! JSON of the control socket. A change of meaning increments [`SCHEMA_VERSION`]; a new field does
//! not, so readers ignore unknown fields.

mod cluster;
mod counters;
mod drill;
mod events;
mod networks;
mod overrides;
mod peers;
mod reports;
mod upgrade;
mod validation;
mod vips;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

pub use cluster::{
    ClusterNodeView, ClusterStatus, InviteAnswer, InviteOrder, NextKeyAnswer, NextKeyOrder,
};
pub use counters::PacketCounters;
pub use drill::{
    DrillBody, DrillRequest, DrillVerdictView, DrillView, DrilledRouteView, ObjectiveView,
};
pub(in crate::control) use events::EventSubject;
pub use events::{EventDetail, EventList, EventView, RouteFields};
use netft::{
    config::AdapterBackend,
    route::{DrainStage, RouteState, Transport},
};
pub use networks::{Network, NetworkInterfaceView, NetworkList};
pub use overrides::OverrideView;
pub use peers::{MoveCountsView, PeerBody, PeerList, PeerPatch, PeerView, TrafficClassSpec};
pub use reports::{PeerReport, PeerReports};
use serde::{Deserialize, Serialize};
pub use upgrade::{UpgradeRequest, UpgradeStarted};
pub use validation::{
    Finding, PeerPath, PeerValidation, PeerValidations, Severity, ValidationResult,
};

pub use vips::{
    DhcpView, NameRecordView, NameView, OwnershipView, PartnerView, VipBody, VipCounts,
    VipHistoryLine, VipLeaseView, VipList, VipOrder, VipOrderDone, VipView, VoterView,
};

pub use super::session_state::SessionState;
use super::{cause::StallSummary, log_counts::LogCountsView, verdict::RedundancyVerdict, words};

/// Version of everything below.
pub const SCHEMA_VERSION: u32 = 2;

/// An answer, or a line of the event stream, with the version in front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionedBody<T> {
    /// [`SCHEMA_VERSION`].
    pub schema: u32,
    /// The answer itself.
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RouteList {
    /// Every route, by number.
    pub routes: Vec<RouteView>,
}

/// `GET /v1/routes/{id}`, and the answer to a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RouteBody {
    /// The route.
    pub route: RouteView,
    /// Why the change will not survive a restart; left out where it will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides_unsaved: Option<String>,
}

/// One route: NetFT's eight fields, and its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RouteView {
    /// Number on this node.
    pub id: u32,
    /// The peer's name.
    pub peer: String,
    /// Physical address and port on this node.
    pub real_local: SocketAddr,
    /// Physical address and port on the peer.
    pub real_remote: SocketAddr,
    /// Interface of this node that has `real_local`; null where none has.
    #[serde(default)]
    pub interface: Option<String>,
    /// Prefix of the network of `real_local`; null where it is in none.
    #[serde(default)]
    pub network: Option<String>,
    /// Virtual address of this node.
    pub virtual_local: IpAddr,
    /// Virtual address of the peer.
    pub virtual_remote: IpAddr,
    /// Milliseconds between heartbeats.
    pub delay_ms: u32,
    /// Heartbeats missed before the route is down.
    pub threshold: u16,
    /// Lower is preferred.
    pub priority: u32,
    /// Bit mask: 1 same-subnet, 2 pinned, 4 cross-site, 2147483648 cross-subnet.
    pub attributes: u32,
    /// Transport: `udp` or `quic`.
    #[serde(with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<Transport>"))]
    pub transport: Transport,
    /// `down`, `init`, `up` or `admin-down`.
    #[serde(with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<RouteState>"))]
    pub state: RouteState,
    /// The peer reports that it receives from this node on this route.
    pub tx: bool,
    /// This node receives from the peer on this route.
    pub rx: bool,
    /// Data to the peer leaves on this route.
    pub active: bool,
    /// Frames on this route stay unacknowledged; heartbeats decide whether it is down.
    #[serde(default)]
    pub suspect: bool,
    /// Milliseconds of hold-down left; 0 unless the route failed recently.
    #[serde(default)]
    pub hold_ms: u64,
    /// Recent failures of the route: one is forgiven per stable minute, each doubles the
    /// hold-down.
    #[serde(default)]
    pub flaps: u32,
    /// While an operator drains it: `draining`, then `drained` once both directions have left;
    /// else null.
    #[serde(default, with = "words::optional")]
    #[cfg_attr(test, schemars(with = "Option<words::WordSchema<DrainStage>>"))]
    pub drain: Option<DrainStage>,
    /// End that drains it: `here`, `peer` or `both`; null when neither does.
    #[serde(default)]
    pub drain_by: Option<DrainedBy>,
    /// Smoothed round-trip time of heartbeats, microseconds; null while unknown.
    pub rtt_us: Option<u64>,
    /// Mean deviation of round-trip times, microseconds; null while unknown.
    #[serde(default)]
    pub jitter_us: Option<u64>,
    /// Share of the peer's heartbeats lost recently, 0.0–1.0.
    pub loss: f64,
    /// Share of this node's heartbeats lost on the way to the peer recently, 0.0–1.0.
    #[serde(default)]
    pub loss_out: f64,
    /// Share of this node's data frames that the route lost recently, or that data left it for,
    /// 0.0–1.0.
    #[serde(default)]
    pub data_loss: f64,
    /// Data moved to a better route because of loss or latency and has not returned.
    #[serde(default)]
    pub brown_out: bool,
    /// Heartbeat requests sent since the route was added.
    pub heartbeats_sent: u64,
    /// Heartbeats missed since the route was added.
    pub heartbeats_missed: u64,
    /// Time of the last state change, RFC 3339.
    pub last_change: String,
    /// Reason of the last state change.
    pub reason: String,
    /// The largest IP packet the route carries, bytes: its interface's MTU until probes find
    /// less; null while the interface is unknown.
    pub path_mtu: Option<usize>,
    /// MTU of the local interface, bytes; null while unknown.
    #[serde(default)]
    pub path_mtu_limit: Option<usize>,
    /// Milliseconds since a probe of `path_mtu` bytes was last answered; null if none was.
    #[serde(default)]
    pub path_mtu_age_ms: Option<u64>,
    /// Probes are in flight that may find another size.
    #[serde(default)]
    pub path_mtu_probing: bool,
    /// Frames are sent one by one, because segmented sends (UDP_SEGMENT) vanish on the route.
    #[serde(default)]
    pub plain_sends: bool,
    /// Data frames sent on the route since it was added, with duplicates and retransmissions.
    pub tx_frames: u64,
    /// Their bytes, as UDP payload.
    pub tx_bytes: u64,
    /// Data frames received on the route since it was added, each once.
    #[serde(default)]
    pub rx_frames: u64,
    /// Their bytes, as UDP payload.
    #[serde(default)]
    pub rx_bytes: u64,
    /// The peer that relays it; null for a route of this node's own. The real addresses of a
    /// relayed route are two sockets inside the daemon.
    #[serde(default)]
    pub via: Option<String>,
}

/// End of a route whose operator drains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DrainedBy {
    /// This node.
    Here,
    /// The peer.
    Peer,
    /// Both.
    Both,
}

impl DrainedBy {
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Peer => "peer",
            Self::Both => "both",
        }
    }
}

/// `PATCH /v1/routes/{id}`. Fields left out stay as they are; at least one is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// Disables or enables the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminState>,
}

/// Administrative state of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AdminState {
    /// Enabled.
    Up,
    /// Disabled.
    Down,
}

/// `POST /v1/drain`: one of `route` and `interface`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// One route, by its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<u32>,
    /// Every route over an interface of this node, all or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Starts the drain; false ends it.
    pub on: bool,
    /// Drains the last route to a peer too; its data then stays on it.
    #[serde(default)]
    pub force: bool,
    /// Milliseconds to wait until both directions have moved: 0–4000.
    #[serde(default)]
    pub wait_ms: u64,
    /// Milliseconds after which the drain ends by itself: 1000–7,776,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_ms: Option<u64>,
}

/// The answer to `POST /v1/drain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DrainResponse {
    /// Both directions have left every route.
    pub done: bool,
    /// Routes that still carry data; the drain continues.
    pub waits: Vec<DrainWaitView>,
    /// Routes of the request.
    pub routes: Vec<RouteView>,
    /// Why the order will not survive a restart; left out where it will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides_unsaved: Option<String>,
}

/// A route whose drain is not complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DrainWaitView {
    /// The route.
    pub route: u32,
    /// The peer it leads to.
    pub peer: String,
    /// Missing step.
    pub reason: String,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DaemonStatus {
    /// The daemon's version.
    pub version: String,
    /// Verdict on the node's redundancy.
    #[serde(default)]
    pub verdict: RedundancyVerdict,
    /// This node.
    pub node: NodeStatus,
    /// Its adapter.
    pub adapter: AdapterStatus,
    /// Number of peers.
    pub peers: PeerCounts,
    /// Number of routes.
    pub routes: RouteCounts,
    /// Moves of data away from a route that failed or carried badly, over all peers.
    pub failovers: u64,
    /// Moves of data by cause, over all peers.
    #[serde(default)]
    pub moves: MoveCountsView,
    /// Stalls of data at failovers; none where no data was in flight.
    pub stalls: StallSummary,
    /// Number of peers by policy; unused policies are left out.
    pub policies: BTreeMap<String, usize>,
    /// Number of floating addresses.
    #[serde(default)]
    pub vips: VipCounts,
    /// Names of floating addresses in DNS.
    #[serde(default)]
    pub names: Vec<NameView>,
    /// The engine that decides on the owners of floating addresses; null without one.
    #[serde(default)]
    pub ownership: Option<OwnershipView>,
    /// Every engine that decides on owners of floating addresses.
    #[serde(default)]
    pub engines: Vec<OwnershipView>,
    /// Packet counters since the start.
    pub counters: PacketCounters,
    /// Log lines that were lost or left out since the start.
    #[serde(default)]
    pub log: LogCountsView,
    /// An operator's overrides at run time, over restarts.
    #[serde(default)]
    pub overrides: Vec<OverrideView>,
    /// Why `overrides` will not survive a restart; null where they will.
    #[serde(default)]
    pub overrides_unsaved: Option<String>,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its public key, base64.
    pub key: String,
    /// Random per start; 16 hex digits.
    pub boot_id: String,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// Process id of netftd; 0 from a version that does not tell.
    #[serde(default)]
    pub pid: u32,
}

/// The adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AdapterStatus {
    /// Its interface name.
    pub name: String,
    /// Its interface index; 0 while it is gone.
    pub ifindex: u32,
    /// Up.
    pub up: bool,
    /// Its IPv4 address, as configured or derived from the key.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, as configured or derived from the key.
    pub v6: Ipv6Addr,
    /// The addresses that the kernel has for it, with their prefix lengths.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Its MTU in the kernel, bytes; 0 while it is gone.
    pub mtu: u32,
    /// Its transmit queue length in the kernel, packets; null while it is gone.
    #[serde(default)]
    pub queue_len: Option<u32>,
    /// `offload` or `plain`.
    #[serde(with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<AdapterBackend>"))]
    pub backend: AdapterBackend,
    /// Super-packets of UDP tunnels (VXLAN, Geneve) cross it whole (Linux 6.17).
    #[serde(default)]
    pub tunnel_offload: bool,
}

/// Number of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerCounts {
    /// In the config.
    pub configured: usize,
    /// With a session, silent ones among them.
    pub sessions: usize,
    /// With a session and without a heartbeat within a detection time.
    #[serde(default)]
    pub silent: usize,
    /// With a usable route.
    pub reachable: usize,
    /// With a usable route, and without an answer through the adapter.
    #[serde(default)]
    pub unanswered: usize,
}

/// Number of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RouteCounts {
    /// All.
    pub total: usize,
    /// Up.
    pub up: usize,
}

/// `POST /v1/reload`, with `?dry_run=true` or without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReloadResult {
    /// The changes are in force; false for a dry run and without changes.
    pub applied: bool,
    /// Changes, one line each: settings, then routes. `+` added, `-` removed, `~` modified.
    pub changes: Vec<String>,
    /// An operator's overrides beside the file, which stay; for a dry run only.
    #[serde(default)]
    pub overrides: Vec<OverrideView>,
    /// The config file.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

/// `netft hosts --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HostList {
    /// The nodes, this one first.
    pub hosts: Vec<HostEntry>,
}

/// Host name of a node's virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HostEntry {
    /// The node's name, and `.netft`.
    pub name: String,
    /// Its virtual IPv4 address.
    pub v4: Ipv4Addr,
    /// Its virtual IPv6 address; a link-local one needs the adapter as its scope.
    pub v6: Ipv6Addr,
}

/// Answer to a request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// Description in one line.
    pub error: String,
}
