//! A consistent state of a running node, taken between two decisions of the driver.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use netft_proto::{
    config::AdapterBackend,
    failover::stall_histogram::StallHistogram,
    ids::{NodeKey, PeerId, RouteId, virtual_addrs::VirtualAddrs},
    overrides::OperatorOverrides,
    route::{PeerPolicies, PeerStatus, RouteStatus, SessionEndCause},
    time::Time,
    topology::NetworkInfo,
};
use serde::{Serialize, Serializer};

pub use crate::api::counters::CounterSnapshot;
use crate::api::session::{PeerVersion, SessionProblem};

/// Everything an operator may query, as of one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// The moment, on the clock of event times (`CLOCK_BOOTTIME`).
    pub now: Time,
    /// This node.
    pub node: NodeInfo,
    /// Its adapter.
    pub adapter: AdapterInfo,
    /// The peers, in the order of the configuration.
    pub peers: Vec<PeerInfo>,
    /// The routes, by id.
    pub routes: Vec<RouteStatus>,
    /// The networks, by metric.
    pub networks: Vec<NetworkInfo>,
    /// Durations of the data stalls at failovers.
    pub stalls: StallHistogram,
    /// Data sent on each route since it was added: with copies and retransmissions.
    pub sent_by_route: BTreeMap<RouteId, RouteTraffic>,
    /// Data received on each route since it was added: each frame once.
    pub received_by_route: BTreeMap<RouteId, RouteTraffic>,
    /// The relay of every route that leads over one.
    pub relay_of: BTreeMap<RouteId, PeerId>,
    /// Routes whose frames are sent one by one, because segmented sends vanish there.
    pub plain_sends: BTreeSet<RouteId>,
    /// The operator's overrides in force.
    pub overrides: OperatorOverrides,
    /// Packet counters, summed over the workers.
    pub counters: CounterSnapshot,
}

/// Data on a route in one direction, without heartbeats and acknowledgements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RouteTraffic {
    /// Frames.
    pub frames: u64,
    /// Their bytes, as UDP payload.
    pub bytes: u64,
}

/// This node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub key: NodeKey,
    /// Random number of this start.
    pub boot_id: u64,
    /// Time since the adapter was opened.
    pub uptime: Duration,
}

/// The adapter.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterInfo {
    /// The interface name.
    pub name: String,
    /// The interface index; 0 while it is gone.
    pub ifindex: u32,
    /// Packets can be read from it.
    pub up: bool,
    /// Its IPv4 address, as configured or derived from the key.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, as configured or derived from the key.
    pub v6: Ipv6Addr,
    /// The addresses that it has.
    pub addrs: Vec<IpNet>,
    /// Its MTU in the kernel, bytes; 0 while it is gone.
    pub mtu: u32,
    /// Its transmit queue length in the kernel, packets; `None` while it is gone.
    pub queue_len: Option<u32>,
    /// Its backend: with segmentation offload, or plain.
    pub backend: AdapterBackend,
    /// Super-packets of UDP tunnels (VXLAN, Geneve) cross it whole (Linux 6.17).
    pub tunnel_offload: bool,
}

/// One peer.
#[derive(Clone, Debug, Serialize)]
pub struct PeerInfo {
    /// Its state in the engine.
    pub status: PeerStatus,
    /// Its configured name.
    pub name: String,
    /// Its public key.
    pub key: NodeKey,
    /// Its virtual addresses.
    pub addrs: VirtualAddrs,
    /// It has been silent on every route for `failover.gone`.
    pub is_gone: bool,
    /// Its adapter was up at the last handshake; `None` without a session.
    pub peer_adapter_up: Option<bool>,
    /// The versions in its last hello of this run.
    pub version: Option<PeerVersion>,
    /// The cipher of its frames; `None` without a session.
    pub cipher: Option<&'static str>,
    /// Why there is no session, or none that works.
    pub session_problem: Option<SessionProblem>,
    /// Why the last session ended; `None` while there is one, and before the first.
    #[serde(serialize_with = "serialize_session_end")]
    pub session_end: Option<SessionEndCause>,
    /// Why nothing comes back from it through the adapter, while a route to it is usable.
    pub overlay_problem: Option<&'static str>,
    /// The policies by which data to it uses its routes.
    pub policies: PeerPolicies,
}

// `serialize_with` passes a reference.
#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref)]
fn serialize_session_end<S: Serializer>(
    cause: &Option<SessionEndCause>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    cause.map(SessionEndCause::as_str).serialize(serializer)
}
