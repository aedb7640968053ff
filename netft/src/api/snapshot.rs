//! A consistent picture of a running node, taken between two decisions.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use netft_proto::{
    config::AdapterBackend,
    failover::stall_histogram::StallHistogram,
    ids::{NodeKey, PeerId, RouteId, virtual_addrs::VirtualAddrs},
    route::{PeerPolicies, PeerStatus, RouteStatus},
    time::Time,
    topology::NetworkInfo,
    wire::DropReason,
};

/// Everything an operator may ask, as of one moment.
#[derive(Clone, Debug)]
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
    /// How long data stood still at failovers.
    pub stalls: StallHistogram,
    /// What was sent on each of them.
    pub sent_by_route: BTreeMap<RouteId, RouteSent>,
    /// The relays of those that lead over one.
    pub relay_of: BTreeMap<RouteId, PeerId>,
    /// Packet counters, summed over the workers.
    pub counters: CounterSnapshot,
}

/// What was sent on a route since it was added: data, with copies and resends, without heartbeats
/// and acknowledgements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteSent {
    /// Frames.
    pub frames: u64,
    /// Their bytes, as UDP payload.
    pub bytes: u64,
}

/// This node.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub key: NodeKey,
    /// Random per start.
    pub boot_id: u64,
    /// Since the adapter was opened.
    pub uptime: Duration,
}

/// The adapter.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// The interface name.
    pub name: String,
    /// The interface index; 0 while it is gone.
    pub ifindex: u32,
    /// Whether packets can be read from it.
    pub up: bool,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its MTU, bytes.
    pub mtu: u16,
    /// How it carries packets.
    pub backend: AdapterBackend,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// What the engine knows of it.
    pub status: PeerStatus,
    /// Its configured name.
    pub name: String,
    /// Its public key.
    pub key: NodeKey,
    /// Its virtual addresses.
    pub addrs: VirtualAddrs,
    /// Whether its adapter was up at the last handshake; `None` without a session.
    pub peer_adapter_up: Option<bool>,
    /// How data to it uses its routes.
    pub policies: PeerPolicies,
}

/// Packet counters since the adapter was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// Reads from the adapter (a super-packet counts once).
    pub adapter_reads: u64,
    /// Inner bytes read from the adapter.
    pub tx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Authentic frames received.
    pub rx_frames: u64,
    /// Inner bytes written to the adapter.
    pub rx_bytes: u64,
    /// Writes to the adapter (a coalesced super-packet counts once).
    pub adapter_writes: u64,
    /// Datagrams lost in full socket buffers.
    pub socket_overflow: u64,
    /// Frames sent again on another route because nothing acknowledged them.
    pub resent_frames: u64,
    /// Frames sent on a second route too: the first was suspect, or the policy says so.
    pub duplicated_frames: u64,
    /// Acknowledgements sent.
    pub acks_sent: u64,
    /// Frames forgotten unacknowledged: the resend ring was full, or they were too old.
    pub retransmit_overflow: u64,
    /// Datagrams of others passed on.
    pub relayed_frames: u64,
    /// Challenges sent to addresses heartbeats came from and no route leads to.
    pub challenges_sent: u64,
    /// Drops by reason, every reason listed.
    pub drops: Vec<(DropReason, u64)>,
}
