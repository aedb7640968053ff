//! The settings of a node, one struct a table of `netft.toml`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    config::{
        dns::DnsConfig,
        limits::{
            DEFAULT_ADAPTER, DEFAULT_BUSY_POLL, DEFAULT_ETCD_PREFIX, DEFAULT_ETCD_TTL,
            DEFAULT_HISTORY, DEFAULT_HOLD_DOWN, DEFAULT_MTU, DEFAULT_MULTICAST, DEFAULT_PORT,
            DEFAULT_REKEY_INTERVAL, DEFAULT_RELAY_LIMIT, DEFAULT_RUNTIME_DIR,
        },
        network::NetworkConfig,
        peer::PeerConfig,
        private_key::PrivateKey,
        vip::VipConfig,
    },
    drill::report::DrillObjective,
    ids::{NodeKey, virtual_addrs::VirtualAddrs},
    loss_detection::RetransmitLimits,
    route::{DEFAULT_GONE_AFTER, DEFAULT_UNREACHABLE_AFTER, PMTU_RAISE_TIMER, RouteClass, Timing},
};

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
    /// Where others reach the daemon.
    pub access: AccessConfig,
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
    /// Addresses that move between the nodes.
    pub floating: FloatingConfig,
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
            access: AccessConfig::default(),
            adapter: AdapterConfig::derive_from_key(&public_key),
            session: SessionConfig::default(),
            heartbeat: HeartbeatConfig::default(),
            failover: FailoverConfig::default(),
            retransmit_limits: RetransmitLimits::default(),
            topology: TopologyConfig::default(),
            relay: RelayConfig::default(),
            networks: Vec::new(),
            peers: Vec::new(),
            floating: FloatingConfig::default(),
        }
    }

    /// Puts another key in the place of this node's. Virtual addresses that nobody chose are
    /// derived from it; the roster of the cluster, which knows the key, assigns the former ones.
    pub fn replace_key(&mut self, key: PrivateKey, public_key: NodeKey) {
        let before = VirtualAddrs::derive_from_key(&self.public_key);
        let after = VirtualAddrs::derive_from_key(&public_key);
        let addrs = &mut self.adapter.addrs;
        if addrs.v4 == before.v4 {
            addrs.v4 = after.v4;
        }
        if addrs.v6 == before.v6 {
            addrs.v6 = after.v6;
        }
        (self.key, self.public_key) = (key, public_key);
    }

    /// True when the config excludes `addr` on the interface of this name.
    pub fn is_excluded(&self, ifname: &str, addr: IpAddr) -> bool {
        // A floating address moves to another node: no route may start there.
        let is_vip =
            self.floating.vips.iter().flat_map(|vip| &vip.addresses).any(|vip| vip.addr == addr);
        is_vip
            || self.topology.exclude.iter().any(|exclude| match exclude {
                ExcludeRule::Interface(name) => match name.strip_suffix('*') {
                    Some(start) => ifname.starts_with(start),
                    None => ifname == name,
                },
                ExcludeRule::Prefix(prefix) => prefix.contains(&addr),
            })
    }
}

/// Where others reach the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessConfig {
    /// Directory of the lock and the control socket.
    pub runtime_dir: PathBuf,
    /// Metrics over TCP.
    pub metrics: MetricsConfig,
}

impl Default for AccessConfig {
    fn default() -> Self {
        let runtime_dir = PathBuf::from(DEFAULT_RUNTIME_DIR);
        Self { runtime_dir, metrics: MetricsConfig::default() }
    }
}

/// Metrics over TCP; off by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Endpoint that serves them; `None`: none does.
    pub listen: Option<SocketAddr>,
    /// File with the bearer token that a client must send.
    pub token_file: Option<PathBuf>,
    /// TLS; `None`: in the clear.
    pub tls: Option<TlsFiles>,
}

/// Files of a TLS server, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate, and those that lead to its root.
    pub certificate: PathBuf,
    /// Private key of the certificate.
    pub key: PathBuf,
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
    /// Packets of other hosts are let through to peers. Container bridges of this host always are.
    pub forward: bool,
}

/// UDP port and handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// UDP port of every local address.
    pub port: u16,
    /// Longest time between two handshakes with a peer.
    pub rekey_interval: Duration,
    /// AEGIS-256X4 is offered where the CPU has vector instructions for AES.
    pub aegis: bool,
}

/// Failure detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Default delay and threshold of each route class.
    pub timings: ClassTimings,
    /// Heartbeats kept per route for the dump when it goes down (NetFT's RouteHistoryLength), 0–40.
    pub history: usize,
}

/// Timers of the route selection, and the objective for failovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverConfig {
    /// How long a better route must stay up before data returns to it.
    pub hold_down: Duration,
    /// PMTU_RAISE_TIMER of RFC 8899: how often a route whose path MTU is below its interface's MTU
    /// is probed for a larger one.
    pub pmtu_raise_timer: Duration,
    /// How long a peer must be silent on every route until it is gone: unreachable it is at once.
    pub gone_after: Duration,
    /// How long no route to a peer is usable until packets to it are answered as unreachable.
    pub unreachable_after: Duration,
    /// The objective that drills are measured by.
    pub objective: DrillObjective,
}

/// Pairing of local and remote addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyConfig {
    /// Every pair of addresses on different subnets is a route (NetFT's
    /// PlumbAllCrossSubnetRoutes). One end is enough to ask for it.
    pub all_cross_subnet: bool,
    /// Interfaces and prefixes that are never used, though a network may hold them.
    pub exclude: Vec<ExcludeRule>,
    /// Leaves the ARP settings of interfaces on one subnet as they are.
    pub keep_arp_settings: bool,
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
            forward: false,
        }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { port: DEFAULT_PORT, rekey_interval: DEFAULT_REKEY_INTERVAL, aegis: true }
    }
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { timings: ClassTimings::default(), history: DEFAULT_HISTORY }
    }
}

impl Default for FailoverConfig {
    fn default() -> Self {
        Self {
            hold_down: DEFAULT_HOLD_DOWN,
            pmtu_raise_timer: PMTU_RAISE_TIMER,
            gone_after: DEFAULT_GONE_AFTER,
            unreachable_after: DEFAULT_UNREACHABLE_AFTER,
            objective: DrillObjective::default(),
        }
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
    /// There is no device: the node is a witness (`netftd --witness`), which carries no traffic.
    None,
}

impl AdapterBackend {
    /// False for a witness.
    pub const fn has_device(self) -> bool {
        !matches!(self, Self::None)
    }

    /// The word in the config file and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offload => "offload",
            Self::Plain => "plain",
            Self::None => "none",
        }
    }
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

/// Addresses that move between the nodes, and who decides on their owners.
#[derive(Clone, Debug, Default)]
pub struct FloatingConfig {
    /// The addresses.
    pub vips: Vec<VipConfig>,
    /// Votes on the owners of those with `ownership = "raft"`.
    pub ownership: OwnershipConfig,
    /// Their names in DNS.
    pub dns: Option<DnsConfig>,
}

/// Votes on the owners of floating addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnershipConfig {
    /// Names of the nodes that vote; empty: all nodes of the config.
    pub voters: Vec<String>,
    /// File of votes and decisions; `None`: the default for the adapter.
    pub store: Option<PathBuf>,
    /// The etcd cluster of addresses with `ownership = "etcd"`.
    pub etcd: EtcdConfig,
}

/// An etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URL of each server.
    pub endpoints: Vec<String>,
    /// TLS; `None`: every URL is `http`.
    pub tls: Option<EtcdTls>,
    /// Prefix of the keys, the same on every node and different from other clusters'.
    pub prefix: String,
    /// Time after which etcd gives a silent node's addresses away, whole seconds.
    pub ttl: Duration,
    /// User; `None`: etcd asks for none.
    pub user: Option<String>,
    /// File with the user's password in its first line.
    pub password_file: Option<PathBuf>,
}

/// Files for TLS to etcd's servers, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdTls {
    /// Certificates of the authorities that the servers' certificates lead to.
    pub authorities: PathBuf,
    /// This node's certificate, for servers that ask for one.
    pub client: Option<TlsFiles>,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            tls: None,
            prefix: DEFAULT_ETCD_PREFIX.to_owned(),
            ttl: DEFAULT_ETCD_TTL,
            user: None,
            password_file: None,
        }
    }
}

impl OwnershipConfig {
    /// The file of votes and decisions.
    pub fn store_path(&self, adapter: &str) -> PathBuf {
        let default = || format!("/var/lib/netft/{adapter}.ownership").into();
        self.store.clone().unwrap_or_else(default)
    }
}

/// An interface or prefix that is never used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExcludeRule {
    /// Interfaces of this name; `*` at its end stands for anything.
    Interface(String),
    /// Addresses in this prefix.
    Prefix(IpNet),
}
