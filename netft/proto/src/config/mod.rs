//! What a node is told: typed, checked values. Pure.

mod diff;
mod number;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

pub use crate::config::diff::{
    ChangeKind, ConfigChange, RestartRequired, describe_timing, diff_configs,
};
use crate::{
    ids::{NodeKey, PeerId, virtual_addrs::VirtualAddrs},
    loss_detection::RetransmitLimits,
    route::{
        Delay, PMTU_RAISE_TIMER, PeerPolicies, Priority, RouteClass, Threshold, Timing, Transport,
    },
};

/// The default UDP port, as NetFT's.
pub const DEFAULT_PORT: u16 = 3343;
/// The default adapter name.
pub const DEFAULT_ADAPTER: &str = "netft0";
/// The default MTU of the adapter: fits a 1500-byte underlay over IPv4 and IPv6.
pub const DEFAULT_MTU: u16 = 1420;
/// The default bound on multicast and broadcast, packets per second.
pub const DEFAULT_MULTICAST: u32 = 1000;
/// The default of [`Config::with_busy_poll`]: what a round trip over netft takes whose ends sleep.
pub const DEFAULT_BUSY_POLL: Duration = Duration::from_micros(100);
/// The default hold-down before data returns to a better route.
pub const DEFAULT_HOLD_DOWN: Duration = Duration::from_secs(1);
/// The default number of heartbeats in the dump of a route that goes down.
pub const DEFAULT_HISTORY: usize = 10;
/// The default longest time between two handshakes.
pub const DEFAULT_REKEY_INTERVAL: Duration = Duration::from_secs(3600);
/// The default rate limit of a relay, datagrams per second.
pub const DEFAULT_RELAY_LIMIT: u32 = 20_000;
/// The default directory of the lock and the control socket.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/netft";
/// The default metric of a cluster network (as the 2008 R2 AutoMetric base).
pub const DEFAULT_METRIC: u32 = 1000;
/// The default metric of a cluster-and-client network: used after pure cluster networks.
pub const CLIENT_METRIC: u32 = 10_000;

/// Everything a node needs to know, grouped as the tables of `netft.toml` are.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name: 1–64 bytes of `[A-Za-z0-9._-]`.
    pub name: String,
    /// This node's Ed25519 private key, PKCS#8 DER.
    pub key: PrivateKey,
    /// This node's public key.
    pub public_key: NodeKey,
    /// Site of the node: routes between nodes of different sites are cross-site. Empty: no site;
    /// else as a node's name.
    pub site: String,
    /// Directory of the lock and the control socket.
    pub runtime_dir: PathBuf,
    /// The virtual adapter and its packet path.
    pub adapter: AdapterConfig,
    /// UDP port and handshakes.
    pub session: SessionConfig,
    /// Failure detection.
    pub heartbeat: HeartbeatConfig,
    /// Timers of the route selection.
    pub failover: FailoverConfig,
    /// Most that one peer's unacknowledged frames may occupy, kept for retransmission when a
    /// route fails. 0 bytes: no frame is kept, frames in flight on a failing route are lost.
    pub retransmit_limits: RetransmitLimits,
    /// Pairing of local and remote addresses.
    pub topology: TopologyConfig,
    /// Forwarding for, and over, a third node.
    pub relay: RelayConfig,
    /// The physical networks to use; empty: every one found.
    pub networks: Vec<NetworkConfig>,
    /// The other nodes.
    pub peers: Vec<PeerConfig>,
}

/// The virtual adapter and its packet path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterConfig {
    /// Interface name, 1–15 bytes.
    pub name: String,
    /// How packets cross the TUN device.
    pub backend: AdapterBackend,
    /// MTU, 1280–65,535 bytes. Above the path MTU, packets to peers that support fragmentation are
    /// fragmented; the other peers get the MTU that fits every route to them. A large MTU (62,000
    /// fits one send) pays with [`AdapterBackend::Plain`] and for large datagrams, which one lost
    /// fragment then costs whole.
    pub mtu: u16,
    /// Virtual addresses of this node.
    pub addrs: VirtualAddrs,
    /// Threads of the packet path; 0: chosen from the number of cores.
    pub workers: usize,
    /// How long a worker busy-polls before it blocks in epoll. Only low-rate request/response
    /// traffic is polled for; bulk traffic is not. Zero: never.
    pub busy_poll: Duration,
    /// Rate limit of multicast and broadcast from the adapter, packets per second, each copied to
    /// every peer; the burst is a quarter of it (64 at least). 0: none is sent, and none accepted
    /// from a peer.
    pub multicast: u32,
}

/// UDP port and handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// UDP port of every local address.
    pub port: u16,
    /// Longest time between two handshakes with a peer.
    pub rekey_interval: Duration,
}

/// Failure detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Default delay and threshold of each route class.
    pub timings: ClassTimings,
    /// Heartbeats kept per route for the dump when it goes down (NetFT's RouteHistoryLength), 0–40.
    pub history: usize,
}

/// Timers of the route selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverConfig {
    /// How long a better route must stay up before data returns to it.
    pub hold_down: Duration,
    /// PMTU_RAISE_TIMER of RFC 8899: how often a route whose path MTU is below its interface's MTU
    /// is probed for a larger one.
    pub pmtu_raise_timer: Duration,
}

/// Pairing of local and remote addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyConfig {
    /// Every pair of addresses on different subnets is a route (NetFT's
    /// PlumbAllCrossSubnetRoutes). One end is enough to ask for it.
    pub all_cross_subnet: bool,
    /// Interfaces and prefixes that are never used, though a network may hold them.
    pub exclude: Vec<ExcludeRule>,
}

impl AdapterConfig {
    /// Adapter `netft0` with the defaults and the addresses derived from the node's key.
    pub fn derive_from_key(key: &NodeKey) -> Self {
        Self {
            name: DEFAULT_ADAPTER.to_owned(),
            backend: AdapterBackend::default(),
            mtu: DEFAULT_MTU,
            addrs: VirtualAddrs::derive_from_key(key),
            workers: 0,
            busy_poll: DEFAULT_BUSY_POLL,
            multicast: DEFAULT_MULTICAST,
        }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { port: DEFAULT_PORT, rekey_interval: DEFAULT_REKEY_INTERVAL }
    }
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { timings: ClassTimings::default(), history: DEFAULT_HISTORY }
    }
}

impl Default for FailoverConfig {
    fn default() -> Self {
        Self { hold_down: DEFAULT_HOLD_DOWN, pmtu_raise_timer: PMTU_RAISE_TIMER }
    }
}

impl Config {
    /// A node with NetFT-like defaults: adapter `netft0`, port 3343, link-local addresses from
    /// its key, every network it finds, no peer.
    pub fn new(name: impl Into<String>, key: PrivateKey, public_key: NodeKey) -> Self {
        Self {
            name: name.into(),
            key,
            public_key,
            site: String::new(),
            runtime_dir: PathBuf::from(DEFAULT_RUNTIME_DIR),
            adapter: AdapterConfig::derive_from_key(&public_key),
            session: SessionConfig::default(),
            heartbeat: HeartbeatConfig::default(),
            failover: FailoverConfig::default(),
            retransmit_limits: RetransmitLimits::default(),
            topology: TopologyConfig::default(),
            relay: RelayConfig::default(),
            networks: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// Adds a peer.
    #[must_use]
    pub fn with_peer(mut self, peer: PeerConfig) -> Self {
        self.peers.push(peer);
        self.assign_ids();
        self
    }

    /// Adds a physical network; with none, every network found is used.
    #[must_use]
    pub fn with_network(mut self, network: NetworkConfig) -> Self {
        self.networks.push(network);
        self
    }

    /// Sets what this node does as a relay, and with relays.
    #[must_use]
    pub fn with_relay(mut self, relay: RelayConfig) -> Self {
        self.relay = relay;
        self
    }

    /// Names the adapter: 1–15 bytes.
    #[must_use]
    pub fn with_adapter(mut self, name: impl Into<String>) -> Self {
        self.adapter.name = name.into();
        self
    }

    /// Bounds multicast and broadcast, packets per second; 0 turns it off.
    #[must_use]
    pub fn with_multicast(mut self, per_second: u32) -> Self {
        self.adapter.multicast = per_second;
        self
    }

    /// Chooses how the adapter carries packets.
    #[must_use]
    pub fn with_backend(mut self, backend: AdapterBackend) -> Self {
        self.adapter.backend = backend;
        self
    }

    /// Sets how long a worker looks for the next packet of a thin stream before it sleeps.
    #[must_use]
    pub fn with_busy_poll(mut self, most: Duration) -> Self {
        self.adapter.busy_poll = most;
        self
    }

    /// Sets the UDP port of every local address.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.session.port = port;
        self
    }

    /// Sets the default delay and threshold of each class of routes.
    #[must_use]
    pub fn with_timings(mut self, timings: ClassTimings) -> Self {
        self.heartbeat.timings = timings;
        self
    }

    /// Sets how long a better route must stay good before data returns to it.
    #[must_use]
    pub fn with_hold_down(mut self, hold: Duration) -> Self {
        self.failover.hold_down = hold;
        self
    }

    /// Sets how much of what is in flight is kept, and for how long.
    #[must_use]
    pub fn with_retransmit_limits(mut self, limits: RetransmitLimits) -> Self {
        self.retransmit_limits = limits;
        self
    }

    /// Sets where the node stands.
    #[must_use]
    pub fn with_site(mut self, site: impl Into<String>) -> Self {
        self.site = site.into();
        self
    }

    /// Makes every pair of addresses on different subnets a route.
    #[must_use]
    pub fn with_all_cross_subnet(mut self, all: bool) -> Self {
        self.topology.all_cross_subnet = all;
        self
    }

    /// Whether the config says never to use `addr` on the interface of this name.
    pub fn is_excluded(&self, ifname: &str, addr: IpAddr) -> bool {
        self.topology.exclude.iter().any(|exclude| match exclude {
            ExcludeRule::Interface(name) => match name.strip_suffix('*') {
                Some(start) => ifname.starts_with(start),
                None => ifname == name,
            },
            ExcludeRule::Prefix(prefix) => prefix.contains(&addr),
        })
    }

    /// Sets where the lock lives.
    #[must_use]
    pub fn with_runtime_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.runtime_dir = dir.into();
        self
    }
}

impl PeerConfig {
    /// A peer with link-local addresses from its key, and no physical address yet.
    pub fn new(name: impl Into<String>, key: NodeKey) -> Self {
        Self {
            id: PeerId(0),
            name: name.into(),
            key,
            addrs: VirtualAddrs::derive_from_key(&key),
            addresses: Vec::new(),
            names: Vec::new(),
            routes: Vec::new(),
            policies: PeerPolicies::default(),
            transport: None,
        }
    }

    /// Adds a physical address of the peer, with its port.
    #[must_use]
    pub fn with_address(mut self, address: SocketAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// Adds a name of physical addresses of the peer, with their port.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>, port: u16) -> Self {
        self.names.push(HostName { host: host.into(), port });
        self
    }

    /// Adds a route that differs from what pairing gives.
    #[must_use]
    pub fn with_route(mut self, route: RouteOverride) -> Self {
        self.routes.push(route);
        self
    }

    /// Sets how packets travel on routes to the peer.
    #[must_use]
    pub fn with_transport(mut self, carrier: Transport) -> Self {
        self.transport = Some(carrier);
        self
    }

    /// Sets how data to the peer uses its routes.
    #[must_use]
    pub fn with_policies(mut self, policies: PeerPolicies) -> Self {
        self.policies = policies;
        self
    }
}

/// Ways over a third node, when two share no route of their own that is up. Off by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// This node passes datagrams on between its peers. It cannot read them.
    pub offer: bool,
    /// How many datagrams it passes on, per second, at least 1; what is more is dropped.
    pub limit: u32,
    /// This node goes over peers that offer it.
    pub use_relays: bool,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { offer: false, limit: DEFAULT_RELAY_LIMIT, use_relays: false }
    }
}

/// What is never used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExcludeRule {
    /// Interfaces of this name; `*` at its end stands for anything.
    Interface(String),
    /// Addresses in this prefix.
    Prefix(IpNet),
}

/// A PKCS#8 private key; never printed, wiped when dropped.
#[derive(Clone)]
pub struct PrivateKey(pub zeroize::Zeroizing<Vec<u8>>);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// How the adapter carries packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdapterBackend {
    /// Super-packets through `vnet_hdr`.
    #[default]
    Offload,
    /// One packet per read and write, through the `tun-tap` crate.
    Plain,
}

/// Default timings by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassTimings {
    /// Both ends in one prefix.
    pub same_subnet: Timing,
    /// Through a router.
    pub cross_subnet: Timing,
    /// Between sites.
    pub cross_site: Timing,
}

impl ClassTimings {
    /// 1000 ms × 5 everywhere: `profile = "windows"`.
    pub const WINDOWS_PROFILE: Self = Self {
        same_subnet: Timing::WINDOWS_PROFILE,
        cross_subnet: Timing::WINDOWS_PROFILE,
        cross_site: Timing::WINDOWS_PROFILE,
    };

    /// The timing of a class.
    pub const fn for_class(&self, class: RouteClass) -> Timing {
        match class {
            RouteClass::SameSubnet => self.same_subnet,
            RouteClass::CrossSubnet => self.cross_subnet,
            RouteClass::CrossSite => self.cross_site,
        }
    }
}

impl Default for ClassTimings {
    fn default() -> Self {
        Self {
            same_subnet: RouteClass::SameSubnet.default_timing(),
            cross_subnet: RouteClass::CrossSubnet.default_timing(),
            cross_site: RouteClass::CrossSite.default_timing(),
        }
    }
}

/// A physical network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Its prefix.
    pub prefix: IpNet,
    /// Its role.
    pub role: NetworkRole,
    /// Lower is preferred; `None`: by role.
    pub metric: Option<u32>,
    /// What it carries, Mbit/s, at least 1: the share of flows its routes get by
    /// [`Policy::Balance`](crate::route::Policy::Balance). `None`: the interface's link speed.
    pub capacity: Option<u32>,
    /// How packets travel on routes that end here. `None`: UDP, unless the peer, the route or the
    /// other end says QUIC.
    pub transport: Option<Transport>,
}

/// What a network is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkRole {
    /// Never used.
    None,
    /// For traffic between nodes.
    #[default]
    Cluster,
    /// For traffic between nodes and of clients; preferred last.
    ClusterAndClient,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its number in this process, given by the adapter: what stands here before is replaced.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// Its public key.
    pub key: NodeKey,
    /// Its virtual addresses.
    pub addrs: VirtualAddrs,
    /// Its physical addresses, with port.
    pub addresses: Vec<SocketAddr>,
    /// Names of more of them: looked up at the start, every minute, and when no route is usable.
    pub names: Vec<HostName>,
    /// Routes that differ from what pairing gives.
    pub routes: Vec<RouteOverride>,
    /// How data to it uses its routes.
    pub policies: PeerPolicies,
    /// How packets travel on routes to it; `None`: as their network says.
    pub transport: Option<Transport>,
}

/// A name of physical addresses, and their port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName {
    /// The name, as the system's resolver takes it.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A route given in the config. Fields left out come from pairing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOverride {
    /// The physical address here; `None`: by pairing.
    pub local: Option<IpAddr>,
    /// The physical address there.
    pub remote: SocketAddr,
    /// Time between heartbeats.
    pub delay: Option<Delay>,
    /// Heartbeats missed before the route is down.
    pub threshold: Option<Threshold>,
    /// Lower is preferred.
    pub priority: Option<Priority>,
    /// How packets travel; `None`: as the peer says.
    pub transport: Option<Transport>,
}

impl RouteOverride {
    /// A route to `remote` that is as pairing would make it.
    pub fn to_remote(remote: SocketAddr) -> Self {
        Self { local: None, remote, delay: None, threshold: None, priority: None, transport: None }
    }

    /// Pins the physical address here.
    #[must_use]
    pub fn with_local(mut self, local: IpAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// Sets the priority; lower is preferred.
    #[must_use]
    pub fn with_priority(mut self, priority: u32) -> Self {
        self.priority = Some(Priority(priority));
        self
    }
}
