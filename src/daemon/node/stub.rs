//! Stands in for `netft::adapter`, type by type.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use netft::{
    NodeKey, RouteId, Time,
    addr::VirtualAddrs,
    config::{Backend, Config},
    route::{Event, PeerStatus, RouteChange, RouteStatus},
    wire::DropReason,
};

/// Everything about a node at one moment, consistent.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The moment.
    pub now: Time,
    /// This node.
    pub node: NodeInfo,
    /// Its adapter.
    pub adapter: AdapterInfo,
    /// Its peers, by their ids.
    pub peers: Vec<PeerInfo>,
    /// Its routes.
    pub routes: Vec<RouteStatus>,
    /// Its counters, summed over workers.
    pub counters: CounterSnapshot,
}

/// This node.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub key: NodeKey,
    /// Drawn anew at every start.
    pub boot_id: u64,
    /// Since the start.
    pub uptime: Duration,
}

/// The adapter.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
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
    /// How it carries packets.
    pub backend: Backend,
}

/// A peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its state.
    pub status: PeerStatus,
    /// Its name.
    pub name: String,
    /// Its public key.
    pub key: NodeKey,
    /// Its virtual addresses.
    pub addrs: VirtualAddrs,
    /// Whether its adapter is up, as far as it said.
    pub peer_adapter_up: Option<bool>,
}

/// Packet counters since the start.
#[derive(Clone, Debug, Default)]
pub struct CounterSnapshot {
    /// Inner packets taken from the adapter.
    pub adapter_reads: u64,
    /// Inner bytes taken from the adapter.
    pub tx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Frames received and authentic.
    pub rx_frames: u64,
    /// Inner bytes written to the adapter.
    pub rx_bytes: u64,
    /// Writes to the adapter.
    pub adapter_writes: u64,
    /// Datagrams the kernel dropped at a full socket buffer.
    pub socket_overflow: u64,
    /// Packets dropped, by reason.
    pub drops: Vec<(DropReason, u64)>,
}

/// Why a route was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No route has this number.
    #[error("there is no route {0}: `netft routes` lists them")]
    Unknown(RouteId),
    /// The adapter is closed.
    #[error("the adapter is closed")]
    Closed,
}

/// Why an adapter did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon has it.
    #[error("adapter {0} belongs to a running netftd: stop it, or choose another adapter name")]
    Held(String),
    /// The environment refuses.
    #[error("{0}")]
    System(String),
}

/// Events that were dropped because nobody took them in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped(pub u64);

/// The adapter of this process.
pub struct Adapter {
    never: std::convert::Infallible,
}

/// What happens at the adapter.
pub struct EventStream {
    never: std::convert::Infallible,
}

impl Adapter {
    /// Creates the adapter and starts everything under it.
    ///
    /// # Errors
    /// The environment refuses: no TUN device, no capability, the name is taken.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let _ = config;
        Err(OpenError::System("this build has no packet path".to_owned()))
    }

    /// Its state; `None` after it closed.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        match self.never {}
    }

    /// What happens from here on.
    pub fn events(&self) -> EventStream {
        match self.never {}
    }

    /// Changes a route.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub async fn change_route(&self, _: RouteId, _: RouteChange) -> Result<(), RouteError> {
        match self.never {}
    }

    /// Tells the peers and takes everything down.
    pub async fn close(self) {
        match self.never {}
    }
}

impl EventStream {
    /// The next event; `None` after the adapter closed.
    pub async fn next(&mut self) -> Option<Result<Event, Skipped>> {
        match self.never {}
    }
}
