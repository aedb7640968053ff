//! Every key of `netft.toml`. The config file is read, the builder checks and docs/config.md is
//! generated from this table; tests hold it against the file's parser and the live reload.

use crate::{
    config::{
        key::{
            ChangeEffect::{Live, Restart},
            ConfigKey, ConfigTable,
            KeyDefault::{Described, Flag, Number, Required, Text},
            KeySyntax,
        },
        limits::*,
    },
    loss_detection::{DEFAULT_AGE, DEFAULT_BYTES},
    route::{DEFAULT_GONE_AFTER, DEFAULT_UNREACHABLE_AFTER, PMTU_RAISE_TIMER, RouteClass},
};

/// Every table, in the order of the reference.
pub const CONFIG_TABLES: &[ConfigTable] = &[
    table("node", "This node. Required."),
    table("adapter", "The virtual adapter and its packet path."),
    table("heartbeat", "Failure detection on routes whose two ends are in one subnet."),
    table("heartbeat.cross_subnet", "Failure detection on routes through a router."),
    table("heartbeat.cross_site", "Failure detection on routes between two sites."),
    table("failover", "Timers of the route selection."),
    table("slo", "Objective that drills (`netft drill`) are measured by."),
    table("session", "UDP port and handshakes."),
    table("resend", "Retransmission of frames that a failing route lost."),
    table("topology", "Pairing of local and remote addresses into routes."),
    table("relay", "Forwarding over a third node while two nodes share no route that is up."),
    table("ownership", "Votes on the owners of floating addresses with `ownership = \"raft\"`."),
    table("metrics", "Metrics over TCP, for Prometheus; the control socket has them always."),
    table("ownership.etcd", "The etcd cluster of addresses with `ownership = \"etcd\"`."),
    list_of_tables("network", "A physical network to use. Without any, every one found is used."),
    list_of_tables("peer", "Another node; at most 256."),
    list_of_tables(
        "peer.class",
        "Traffic to the peer with a policy of its own; at most 16, the first match decides.",
    ),
    list_of_tables(
        "peer.route",
        "A route pinned by its addresses, with settings of its own; at most 64.",
    ),
    list_of_tables("vip", "A floating address: one node at a time answers for it; at most 256."),
    table("vip.placement", "Company and distance of other floating addresses."),
    table(
        "vip.check",
        "Health of the service behind the address: one of `tcp`, `http` and `exec`.",
    ),
    table(
        "dns",
        "Names of floating addresses in DNS, kept by dynamic update (RFC 2136, RFC 8945).",
    ),
    list_of_tables(
        "dns.name",
        "A name for one floating address or several; at most 64. It is online if any of them is.",
    ),
];

const fn table(path: &'static str, doc: &'static str) -> ConfigTable {
    ConfigTable { path, repeated: false, doc }
}

const fn list_of_tables(path: &'static str, doc: &'static str) -> ConfigTable {
    ConfigTable { path, repeated: true, doc }
}

const ADAPTER_NAME_SYNTAX: KeySyntax = KeySyntax::Text(
    "an interface name of 1 to 15 printable ASCII characters without `/`, `%` and `:`",
);
const EXCLUDE_SYNTAX: KeySyntax = KeySyntax::TextList(
    "an interface name such as `wlan0` or `veth*`, or a prefix such as `10.9.0.0/16`",
);
const HOST_OR_ENDPOINT_SYNTAX: KeySyntax = KeySyntax::TextList(
    "an address such as `10.1.0.2`, `10.1.0.2:3343`, `fd01::2` or `[fd01::2]:3343`, \
     or a name such as `b.example.net` or `b.example.net:3343`",
);
const ENDPOINT_SYNTAX: KeySyntax = KeySyntax::Text(
    "an address such as `10.1.0.2`, `10.1.0.2:3343`, `fd01::2` or `[fd01::2]:3343`",
);
const DSCP_SYNTAX: KeySyntax = KeySyntax::NumberOrText(
    DSCP_LIMITS,
    "a number from 0 to 63, or a name such as `\"ef\"`, `\"cs6\"` or `\"af41\"`",
);
const PORT_RANGE_SYNTAX: KeySyntax = KeySyntax::NumberOrText(
    PORT_LIMITS,
    "a port such as `5060`, or a range such as `\"5060-5070\"`",
);
const NODE_NAME_SYNTAX: KeySyntax =
    KeySyntax::Text("a name of 1 to 64 letters, digits, `.`, `_` or `-`");
const PREFIX_SYNTAX: &str = "a prefix such as `10.1.0.0/24` or `fd01::/64`";
const HOST_NAME_SYNTAX: KeySyntax =
    KeySyntax::Text("a host's name: letters, digits and `-`, parts joined by `.`");
const VIP_NAME_LIST: KeySyntax = KeySyntax::TextList("the name of another floating address");
const VIP_ADDRESS_SYNTAX: KeySyntax = KeySyntax::TextOrList(
    "an address such as `10.1.0.80`, `10.1.0.80/24` or `fd01::80`, or `dhcp`",
);
const FAILBACK_SYNTAX: KeySyntax =
    KeySyntax::NumberOrText(FAILBACK_LIMITS, "milliseconds, or `\"never\"` or `\"at-once\"`");
const COMMAND_SYNTAX: KeySyntax =
    KeySyntax::Command("a word of a command: the absolute path of a program, then its arguments");
const ENDPOINT_PORT_SYNTAX: KeySyntax =
    KeySyntax::Text("an address with a port such as `127.0.0.1:5432` or `[::1]:5432`");
const URL_SYNTAX: KeySyntax = KeySyntax::Text("a URL such as `http://127.0.0.1:8008/primary`");
const POLICY_CHOICE: KeySyntax = KeySyntax::Choice(&["failover", "duplicate", "balance"]);
const TRANSPORT_CHOICE: KeySyntax = KeySyntax::Choice(&["udp", "quic"]);
const DERIVED_ADDRESS: &str = "link-local, derived from the node's key";

const fn default_delay(class: RouteClass) -> u64 {
    class.default_timing().delay.as_millis() as u64
}

const fn default_threshold(class: RouteClass) -> u64 {
    class.default_timing().threshold.get() as u64
}

/// Declares the keys and lists them; the doc comment of a key is its text in the reference.
macro_rules! config_keys {
    ($($(#[doc = $doc:literal])+
    $name:ident = $path:literal, $syntax:expr, $default:expr, $effect:expr, $example:literal;)+)
    => {
        $($(#[doc = $doc])+
        pub const $name: ConfigKey = ConfigKey {
            path: $path,
            syntax: $syntax,
            default: $default,
            effect: $effect,
            doc: concat!($($doc),+).trim_ascii(),
            example: $example,
        };)+

        /// Every key, in the order of the reference.
        pub const CONFIG_KEYS: &[&ConfigKey] = &[$(&$name),+];
    };
}

config_keys! {
    /// Name of this node in logs, output and the other nodes' configs.
    NODE_NAME = "node.name", NODE_NAME_SYNTAX, Required, Restart, r#""a""#;
    /// Key file of this node, made by `netft keygen`. A relative path starts at the config
    /// file's directory.
    NODE_KEY = "node.key", KeySyntax::SecretFile("the path of a key file"), Required, Restart,
        r#""/etc/netft/key""#;
    /// Site of this node. Routes between nodes of different sites are cross-site.
    NODE_SITE = "node.site", NODE_NAME_SYNTAX, Described("no site"), Live, r#""north""#;

    /// Interface name of the adapter.
    ADAPTER_NAME = "adapter.name", ADAPTER_NAME_SYNTAX,
        Text(DEFAULT_ADAPTER), Restart, r#""netft1""#;
    /// How packets cross the TUN device: `offload` moves super-packets (GSO and GRO through
    /// `vnet_hdr`), `plain` one packet per system call through the `tun-tap` crate, on any kernel.
    ADAPTER_BACKEND = "adapter.backend", KeySyntax::Choice(&["offload", "plain"]),
        Text("offload"), Restart, r#""plain""#;
    /// MTU of the adapter. Above the path MTU, packets are fragmented for peers that support it;
    /// 62000 fits one send and pays for large datagrams.
    ADAPTER_MTU = "adapter.mtu", KeySyntax::Number(MTU_LIMITS), Number(DEFAULT_MTU as u64),
        Restart, "1400";
    /// Rate limit of multicast and broadcast, each packet copied to every peer; the burst is a
    /// quarter of it, at least 64. 0: none is sent, and none accepted.
    ADAPTER_MULTICAST = "adapter.multicast", KeySyntax::Number(MULTICAST_LIMITS),
        Number(DEFAULT_MULTICAST as u64), Live, "100";
    /// Other hosts may send to peers through this node, if it forwards (`ip_forward`) and
    /// masquerades them. Containers on this host always may.
    ADAPTER_FORWARD = "adapter.forward", KeySyntax::Flag, Flag(false), Live, "true";
    /// Threads of the packet path, one TUN queue each.
    ADAPTER_WORKERS = "adapter.workers", KeySyntax::Number(WORKER_LIMITS), Number(0), Restart, "4";
    /// How long a worker busy-polls before it blocks in epoll. Only low-rate request/response
    /// traffic is polled for; bulk traffic is not.
    ADAPTER_BUSY_POLL = "adapter.busy_poll", KeySyntax::Number(BUSY_POLL_LIMITS),
        Number(DEFAULT_BUSY_POLL.as_micros() as u64), Restart, "0";
    /// Virtual IPv4 address of this node, inside `prefix`; without `prefix` from 169.254.1.0 to
    /// 169.254.254.255. The peers' configs name it as the peer's `address`.
    ADAPTER_ADDRESS = "adapter.address", KeySyntax::Text("an IPv4 address"),
        Described(DERIVED_ADDRESS), Restart, r#""10.99.0.1""#;
    /// Virtual IPv6 address of this node, inside `prefix`; without `prefix` in fe80::/64.
    ADAPTER_ADDRESS6 = "adapter.address6", KeySyntax::Text("an IPv6 address"),
        Described(DERIVED_ADDRESS), Restart, r#""fd99::1""#;
    /// Prefix of the virtual addresses, at most one of each family; `address` (IPv4) or `address6`
    /// (IPv6) must then be given. No physical network may overlap it.
    ADAPTER_PREFIX = "adapter.prefix", KeySyntax::TextOrList(PREFIX_SYNTAX),
        Described("link-local"), Restart, r#"["10.99.0.0/24", "fd99::/64"]"#;

    /// Defaults of delay and threshold: `default` is the column here, `windows` is 1000 ms × 5 in
    /// all three classes, as NetFT's.
    HEARTBEAT_PROFILE = "heartbeat.profile", KeySyntax::Choice(&["default", "windows"]),
        Text("default"), Live, r#""windows""#;
    /// Time between two heartbeats.
    HEARTBEAT_DELAY = "heartbeat.delay", KeySyntax::Number(DELAY_LIMITS),
        Number(default_delay(RouteClass::SameSubnet)), Live, "50";
    /// Consecutive heartbeats missed before a route is down. Detection time: delay × threshold.
    HEARTBEAT_THRESHOLD = "heartbeat.threshold", KeySyntax::Number(THRESHOLD_LIMITS),
        Number(default_threshold(RouteClass::SameSubnet)), Live, "4";
    /// Heartbeats in the dump of a route that goes down (NetFT's RouteHistoryLength).
    HEARTBEAT_HISTORY = "heartbeat.history", KeySyntax::Number(HISTORY_LIMITS),
        Number(DEFAULT_HISTORY as u64), Live, "20";
    /// Time between two heartbeats.
    CROSS_SUBNET_DELAY = "heartbeat.cross_subnet.delay", KeySyntax::Number(DELAY_LIMITS),
        Number(default_delay(RouteClass::CrossSubnet)), Live, "200";
    /// Consecutive heartbeats missed before a route is down.
    CROSS_SUBNET_THRESHOLD = "heartbeat.cross_subnet.threshold",
        KeySyntax::Number(THRESHOLD_LIMITS),
        Number(default_threshold(RouteClass::CrossSubnet)), Live, "4";
    /// Time between two heartbeats.
    CROSS_SITE_DELAY = "heartbeat.cross_site.delay", KeySyntax::Number(DELAY_LIMITS),
        Number(default_delay(RouteClass::CrossSite)), Live, "500";
    /// Consecutive heartbeats missed before a route is down.
    CROSS_SITE_THRESHOLD = "heartbeat.cross_site.threshold", KeySyntax::Number(THRESHOLD_LIMITS),
        Number(default_threshold(RouteClass::CrossSite)), Live, "4";

    /// Hold-down: how long a better route must stay up before data returns to it.
    FAILOVER_HOLD = "failover.hold", KeySyntax::Number(HOLD_DOWN_LIMITS),
        Number(DEFAULT_HOLD_DOWN.as_millis() as u64), Live, "500";
    /// PMTU_RAISE_TIMER (RFC 8899): how often a route whose path MTU is below its interface's MTU
    /// is probed for a larger one.
    FAILOVER_MTU_RAISE = "failover.mtu_raise", KeySyntax::Number(PMTU_RAISE_LIMITS),
        Number(PMTU_RAISE_TIMER.as_millis() as u64), Live, "600000";
    /// How long a peer is silent on every route until it is reported as gone. It is unreachable at
    /// once; whoever decides that a node is dead should wait for this.
    FAILOVER_GONE = "failover.gone", KeySyntax::Number(GONE_LIMITS),
        Number(DEFAULT_GONE_AFTER.as_millis() as u64), Live, "40000";
    /// How long no route to a peer is usable until this node answers packets to it with ICMP
    /// "destination unreachable": connects fail at once in place of hanging, established TCP
    /// connections wait on (RFC 1122 section 4.2.3.9).
    FAILOVER_UNREACHABLE = "failover.unreachable", KeySyntax::Number(UNREACHABLE_LIMITS),
        Number(DEFAULT_UNREACHABLE_AFTER.as_millis() as u64), Live, "10000";

    /// Longest time from a failure to its detection.
    SLO_DETECTION = "slo.detection_ms", KeySyntax::Number(OBJECTIVE_TIME_LIMITS),
        Described("no objective"), Live, "200";
    /// Longest stall of data at a failover.
    SLO_STALL = "slo.stall_ms", KeySyntax::Number(OBJECTIVE_TIME_LIMITS),
        Described("no objective"), Live, "60";
    /// Most frames that a failover may give up unacknowledged.
    SLO_LOST = "slo.lost", KeySyntax::Number(OBJECTIVE_LOST_LIMITS),
        Described("no objective"), Live, "0";

    /// UDP port of every local address, and of peers' addresses that name none.
    SESSION_PORT = "session.port", KeySyntax::Number(PORT_LIMITS), Number(DEFAULT_PORT as u64),
        Restart, "4000";
    /// Longest time between two handshakes with a peer.
    SESSION_REKEY = "session.rekey", KeySyntax::Number(REKEY_LIMITS),
        Number(DEFAULT_REKEY_INTERVAL.as_secs()), Live, "600";
    /// AEGIS-256X4 is offered, if this CPU has vector instructions for AES (VAES and AVX-512). If
    /// the peer offers it, too, it encrypts the frames: twice as fast as AES-256-GCM, which
    /// `false` keeps. Takes effect with the next handshake.
    SESSION_AEGIS = "session.aegis", KeySyntax::Flag, Flag(true), Live, "false";

    /// Memory for one peer's unacknowledged frames. 0: no frame is kept, frames in flight on a
    /// failing route are lost.
    RESEND_BYTES = "resend.bytes", KeySyntax::Number(RETRANSMIT_BYTES_LIMITS),
        Number(DEFAULT_BYTES as u64), Restart, "16777216";
    /// How long an unacknowledged frame is kept.
    RESEND_AGE = "resend.age", KeySyntax::Number(RETRANSMIT_AGE_LIMITS),
        Number(DEFAULT_AGE.as_millis() as u64), Restart, "2000";

    /// Every pair of addresses on different subnets is a route, too (NetFT's
    /// PlumbAllCrossSubnetRoutes). One end is enough to ask for it.
    TOPOLOGY_CROSS_SUBNET = "topology.plumb_all_cross_subnet_routes", KeySyntax::Flag, Flag(false),
        Live, "true";
    /// Interfaces and prefixes that are never used, though a network may hold them.
    TOPOLOGY_EXCLUDE = "topology.exclude", EXCLUDE_SYNTAX,
        Described("nothing"), Live, r#"["wlan*", "10.9.0.0/16"]"#;
    /// Leaves `arp_ignore` and `arp_announce` of interfaces on one subnet as they are. Otherwise
    /// netftd sets them to 1 and 2 while it runs, so that each answers for its own addresses only.
    TOPOLOGY_KEEP_ARP = "topology.keep_arp_settings", KeySyntax::Flag, Flag(false), Live, "true";

    /// This node forwards datagrams between its peers. It cannot read them.
    RELAY_OFFER = "relay.offer", KeySyntax::Flag, Flag(false), Live, "true";
    /// Rate limit of what this node forwards; more is dropped.
    RELAY_LIMIT = "relay.limit", KeySyntax::Number(RELAY_LIMITS),
        Number(DEFAULT_RELAY_LIMIT as u64), Live, "500";
    /// This node reaches peers over a peer that offers to forward, when no direct route is up.
    RELAY_USE = "relay.use", KeySyntax::Flag, Flag(false), Live, "true";

    /// Nodes that vote, the same list on every node: two and a third one that may carry no address,
    /// or any odd number. A voter without addresses is a witness: it votes and is never leader.
    OWNERSHIP_VOTERS = "ownership.voters", KeySyntax::TextList("the name of a node"),
        Described("all nodes"), Restart, r#"["a", "b"]"#;
    /// File of this node's votes and decisions. It must outlive a reboot: a voter that forgets its
    /// vote could vote twice.
    OWNERSHIP_STORE = "ownership.store", KeySyntax::PublicFile("an absolute path"),
        Described("`/var/lib/netft/`, the adapter's name, `.ownership`"), Restart,
        r#""/srv/netft/ownership""#;

    /// Address and port that answer `GET /metrics`, in the Prometheus text format or OpenMetrics.
    /// One that is not loopback needs `token_file`, or `certificate_file` and `key_file`.
    METRICS_LISTEN = "metrics.listen", ENDPOINT_PORT_SYNTAX, Described("none"), Restart,
        r#""127.0.0.1:9343""#;
    /// File with the bearer token that a client must send: 16 to 256 printable characters on one
    /// line, unreadable for others. A relative path starts at the config file's directory.
    METRICS_TOKEN_FILE = "metrics.token_file", KeySyntax::SecretFile("the path of a file"),
        Described("none"), Restart, r#""metrics-token""#;
    /// File with the server's certificate and those that lead to its root, PEM: the metrics are
    /// served over TLS 1.3 alone.
    METRICS_CERTIFICATE_FILE = "metrics.certificate_file",
        KeySyntax::PublicFile("the path of a file"), Described("none"), Restart, r#""metrics.crt""#;
    /// File with the private key of the certificate, PEM, unreadable for others.
    METRICS_KEY_FILE = "metrics.key_file", KeySyntax::SecretFile("the path of a file"),
        Described("none"), Restart, r#""metrics.key""#;
    /// Servers of the cluster, etcd 3.4 or later. With `http` the connection is not encrypted: use
    /// a trusted network.
    ETCD_ENDPOINTS = "ownership.etcd.endpoints",
        KeySyntax::TextList("`http://HOST:PORT` or `https://HOST:PORT`"),
        Described("none"), Restart, r#"["https://10.1.0.5:2379"]"#;
    /// Certificates (PEM) of the authorities that the servers' certificates lead to; for `https`.
    ETCD_CA_FILE = "ownership.etcd.ca_file", KeySyntax::PublicFile("an absolute path"),
        Described("none"), Restart, r#""/etc/netft/etcd.ca.pem""#;
    /// Certificate of this node (PEM), for servers that ask for one; with `key_file`.
    ETCD_CERTIFICATE_FILE = "ownership.etcd.certificate_file",
        KeySyntax::PublicFile("an absolute path"), Described("none"), Restart,
        r#""/etc/netft/etcd.pem""#;
    /// Private key of `certificate_file`.
    ETCD_KEY_FILE = "ownership.etcd.key_file", KeySyntax::SecretFile("an absolute path"),
        Described("none"), Restart, r#""/etc/netft/etcd.key""#;
    /// Prefix of the keys, the same on every node and used by nothing else.
    ETCD_PREFIX = "ownership.etcd.prefix", KeySyntax::Text("printable ASCII that ends with `/`"),
        Text(DEFAULT_ETCD_PREFIX), Restart, r#""/netft/east/""#;
    /// Time after which etcd takes the addresses of a silent node. etcd counts in whole seconds,
    /// and raises a value that is too short for its own elections.
    ETCD_TTL = "ownership.etcd.ttl", KeySyntax::Number(ETCD_TTL_LIMITS),
        Number(DEFAULT_ETCD_TTL.as_secs()), Restart, "5";
    /// User of the cluster; it reads and writes the keys under `prefix`.
    ETCD_USER = "ownership.etcd.user", KeySyntax::Text("a name"), Described("none"), Restart,
        r#""netft""#;
    /// File whose first line is the user's password.
    ETCD_PASSWORD_FILE = "ownership.etcd.password_file", KeySyntax::SecretFile("an absolute path"),
        Described("none"), Restart, r#""/etc/netft/etcd.password""#;

    /// Prefix of the network; no two networks overlap.
    NETWORK_PREFIX = "network.prefix", KeySyntax::Text(PREFIX_SYNTAX), Required, Live,
        r#""10.2.0.0/24""#;
    /// `cluster` for traffic between nodes, `cluster-and-client` for that and clients' (used
    /// last), `none` for never.
    NETWORK_ROLE = "network.role", KeySyntax::Choice(&["none", "cluster", "cluster-and-client"]),
        Text("cluster"), Live, r#""cluster-and-client""#;
    /// Preference; lower is preferred. The priority of a route is the sum of its two ends' metrics.
    NETWORK_METRIC = "network.metric", KeySyntax::Number(METRIC_LIMITS),
        Described("1000, cluster-and-client 10000"), Live, "10";
    /// Capacity of the network: the share of flows its routes get under the policy `balance`.
    NETWORK_CAPACITY = "network.capacity", KeySyntax::Number(CAPACITY_LIMITS),
        Described("the interface's link speed"), Live, "2500";
    /// Transport of the routes that end here. One end that says `quic` is enough.
    NETWORK_TRANSPORT = "network.transport", TRANSPORT_CHOICE, Described("`udp`"), Live,
        r#""quic""#;

    /// Name of the peer: its own `node.name`.
    PEER_NAME = "peer.name", NODE_NAME_SYNTAX, Required, Live, r#""b""#;
    /// Public key of the peer, printed by `netft pubkey FILE` there.
    PEER_KEY = "peer.key", KeySyntax::Text("a public key: 32 bytes in base64 (44 characters)"),
        Required, Live, r#""AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=""#;
    /// Physical addresses of the peer, at most 32; one is enough, the peer advertises the others.
    /// Names are looked up at the start, every minute, and when no route is usable. An IPv6
    /// link-local address stands with this node's interface: `fe80::1%eth0`.
    PEER_ADDRESSES = "peer.addresses", HOST_OR_ENDPOINT_SYNTAX,
        Described("none: the peer must dial"), Live, r#"["10.1.0.9", "b.example.net"]"#;
    /// Virtual IPv4 address of the peer, if its own config names one.
    PEER_ADDRESS = "peer.address", KeySyntax::Text("an IPv4 address"),
        Described(DERIVED_ADDRESS), Live, r#""10.99.0.2""#;
    /// Virtual IPv6 address of the peer, if its own config names one.
    PEER_ADDRESS6 = "peer.address6", KeySyntax::Text("an IPv6 address"),
        Described(DERIVED_ADDRESS), Live, r#""fd99::2""#;
    /// How data to the peer uses its routes: `failover` the best one, `duplicate` every frame on
    /// the two best, `balance` each flow on one of all that are up.
    PEER_POLICY = "peer.policy", POLICY_CHOICE, Text("failover"), Live, r#""balance""#;
    /// Transport of the routes to the peer.
    PEER_TRANSPORT = "peer.transport", TRANSPORT_CHOICE, Described("as its networks say"), Live,
        r#""quic""#;

    /// Policy of the class.
    CLASS_POLICY = "peer.class.policy", POLICY_CHOICE, Required, Live, r#""duplicate""#;
    /// DSCP of the packets.
    CLASS_DSCP = "peer.class.dscp", DSCP_SYNTAX,
        Described("any"), Live, r#""ef""#;
    /// IP protocol of the packets.
    CLASS_PROTOCOL = "peer.class.protocol", KeySyntax::Choice(&["tcp", "udp", "icmp"]),
        Described("any"), Live, r#""udp""#;
    /// TCP or UDP port of the packets, source or destination.
    CLASS_PORT = "peer.class.port", PORT_RANGE_SYNTAX,
        Described("any"), Live, r#""5060-5070""#;
    /// Smallest packet, with its IP header.
    CLASS_MIN_SIZE = "peer.class.min_size", KeySyntax::Number(PACKET_SIZE_LIMITS),
        Described("any"), Live, "40";
    /// Largest packet, with its IP header.
    CLASS_MAX_SIZE = "peer.class.max_size", KeySyntax::Number(PACKET_SIZE_LIMITS),
        Described("any"), Live, "400";

    /// Physical address of this node.
    ROUTE_LOCAL = "peer.route.local",
        KeySyntax::Text("an address such as `10.1.0.2` or `fd01::2`"),
        Described("by pairing"), Live, r#""10.1.0.1""#;
    /// Physical address of the peer, with or without a port.
    ROUTE_REMOTE = "peer.route.remote", ENDPOINT_SYNTAX,
        Required, Live, r#""10.1.0.9""#;
    /// Time between two heartbeats.
    ROUTE_DELAY = "peer.route.delay", KeySyntax::Number(DELAY_LIMITS), Described("of its class"),
        Live, "50";
    /// Consecutive heartbeats missed before the route is down.
    ROUTE_THRESHOLD = "peer.route.threshold", KeySyntax::Number(THRESHOLD_LIMITS),
        Described("of its class"), Live, "4";
    /// Preference; lower is preferred.
    ROUTE_PRIORITY = "peer.route.priority", KeySyntax::Number(PRIORITY_LIMITS),
        Described("the sum of the two networks' metrics"), Live, "10";
    /// Transport of the route.
    ROUTE_TRANSPORT = "peer.route.transport", TRANSPORT_CHOICE, Described("as the peer says"), Live,
        r#""quic""#;

    /// Name of the address, the same on every node.
    VIP_NAME = "vip.name", NODE_NAME_SYNTAX, Required, Live, r#""web""#;
    /// The address, or one of each family. The kernel gets a host address (/32, /128). A prefix
    /// length is only compared with that of the interface's network. `dhcp`: a server assigns one
    /// of IPv4; `interface` or `network` says where.
    VIP_ADDRESS = "vip.address", VIP_ADDRESS_SYNTAX, Required, Live,
        r#"["10.1.0.80/24", "fd01::80"]"#;
    /// Interface that carries the address on this node.
    VIP_INTERFACE = "vip.interface", ADAPTER_NAME_SYNTAX,
        Described("by network"), Live, r#""eth1""#;
    /// Network whose interface carries the address; it stands in place of `interface`.
    VIP_NETWORK = "vip.network", KeySyntax::Text(PREFIX_SYNTAX),
        Described("the one that contains the address"), Live, r#""10.1.0.0/24""#;
    /// Who decides on the owner: `manual`, the operator by `netft vip online`, `offline` and
    /// `move`; `raft`, the nodes that vote, by the keys below; `etcd`, an etcd cluster;
    /// `external`, a cluster manager by the agent `netft-vip`.
    VIP_OWNERSHIP = "vip.ownership", KeySyntax::Choice(&["manual", "raft", "etcd", "external"]),
        Text("manual"), Live, r#""raft""#;
    /// How long the owner may answer without a renewal.
    VIP_LEASE = "vip.lease", KeySyntax::Number(LEASE_LIMITS),
        Described("400; 15000 with `ownership = \"external\"`"), Live, "1000";
    /// How the kernel enforces the lease: `nftables` drops the packets and ARP answers of a node
    /// whose lease ended, whatever state netftd is in; `none` does not.
    VIP_FENCE = "vip.fence", KeySyntax::Choice(&["nftables", "none"]),
        Text("nftables"), Live, r#""none""#;
    /// The owner may choose the address as the source of its own connections.
    VIP_SOURCE = "vip.source", KeySyntax::Flag, Flag(false), Live, "true";
    /// Nodes that should own the address, the best first.
    VIP_PREFERRED = "vip.preferred", KeySyntax::TextList("the name of a node"),
        Described("none"), Live, r#"["a"]"#;
    /// When the address returns to a preferred node that can carry it again: `never`, `at-once`,
    /// or after this time without a fault.
    VIP_FAILBACK = "vip.failback", FAILBACK_SYNTAX, Text("never"), Live, "60000";
    /// The address goes to whichever node's check passes, for example to a database's leader; of
    /// several, to the one where it began to pass last. `preferred`, `failback` and `placement`
    /// have no effect then.
    VIP_FOLLOW = "vip.follow", KeySyntax::Flag, Flag(false), Live, "true";
    /// Program and arguments, run at every change of the address's state; never a shell line. It
    /// gets `NETFT_VIP`, `NETFT_STATE`, `NETFT_ADDRESS`, `NETFT_INTERFACE` and `NETFT_REASON`.
    VIP_HOOK = "vip.hook", COMMAND_SYNTAX,
        Described("none"), Live, r#"["/usr/local/bin/on-vip"]"#;
    /// Time limit of the hook; it is killed after that.
    VIP_HOOK_TIMEOUT = "vip.hook_timeout", KeySyntax::Number(CHECK_TIME_LIMITS),
        Number(DEFAULT_HOOK_TIMEOUT.as_millis() as u64), Live, "1000";

    /// Floating addresses whose owner should own this one, too. It goes where they are; they do not
    /// heed it.
    VIP_TOGETHER_WITH = "vip.placement.together_with", VIP_NAME_LIST,
        Described("none"), Live, r#"["db"]"#;
    /// Floating addresses whose owners should not own this one, as long as another node can.
    VIP_APART_FROM = "vip.placement.apart_from", VIP_NAME_LIST,
        Described("none"), Live, r#"["db"]"#;

    /// Passes if the endpoint accepts a TCP connection.
    VIP_CHECK_TCP = "vip.check.tcp", ENDPOINT_PORT_SYNTAX, Described("another probe"), Live,
        r#""127.0.0.1:5432""#;
    /// Passes if a GET of the URL is answered with `status`. No TLS; the host is an address.
    VIP_CHECK_HTTP = "vip.check.http", URL_SYNTAX, Described("another probe"), Live,
        r#""http://127.0.0.1:8008/primary""#;
    /// HTTP status of a healthy service.
    VIP_CHECK_STATUS = "vip.check.status", KeySyntax::Number(HTTP_STATUS_LIMITS),
        Number(DEFAULT_CHECK_STATUS as u64), Live, "204";
    /// Program and arguments; passes if it exits with 0. Never a shell line.
    VIP_CHECK_EXEC = "vip.check.exec", COMMAND_SYNTAX, Described("another probe"), Live,
        r#"["/usr/local/bin/healthy", "--fast"]"#;
    /// Time limit of one run.
    VIP_CHECK_TIMEOUT = "vip.check.timeout", KeySyntax::Number(CHECK_TIME_LIMITS),
        Number(DEFAULT_CHECK_TIMEOUT.as_millis() as u64), Live, "500";
    /// Time from one run to the next.
    VIP_CHECK_INTERVAL = "vip.check.interval", KeySyntax::Number(CHECK_TIME_LIMITS),
        Number(DEFAULT_CHECK_TIMEOUT.as_millis() as u64), Live, "500";
    /// Passes in a row that make a failed service healthy.
    VIP_CHECK_RISE = "vip.check.rise", KeySyntax::Number(CHECK_COUNT_LIMITS),
        Number(DEFAULT_CHECK_RISE as u64), Live, "1";
    /// Failures in a row that make a healthy service failed.
    VIP_CHECK_FALL = "vip.check.fall", KeySyntax::Number(CHECK_COUNT_LIMITS),
        Number(DEFAULT_CHECK_FALL as u64), Live, "1";

    /// Primary server of the zone.
    DNS_SERVER = "dns.server", KeySyntax::Text("an address such as `10.1.0.53` or `[fd01::53]:53`"),
        Required, Live, r#""10.1.0.54""#;
    /// Zone that the names are in.
    DNS_ZONE = "dns.zone", HOST_NAME_SYNTAX, Required, Live, r#""cluster.example""#;
    /// File of the TSIG key that may change the zone, as `tsig-keygen` writes it: HMAC-SHA-256,
    /// HMAC-SHA-384 or HMAC-SHA-512; unreadable for others. It is read for each update. A relative
    /// path starts at the config file's directory.
    DNS_KEY_FILE = "dns.key_file", KeySyntax::SecretFile("the path of a key file"), Required, Live,
        r#""/etc/netft/dns.key""#;
    /// Time to live of the records.
    DNS_TTL = "dns.ttl", KeySyntax::Number(DNS_TTL_LIMITS),
        Number(DEFAULT_DNS_TTL as u64), Live, "60";

    /// The name, without the zone.
    DNS_NAME_NAME = "dns.name.name", HOST_NAME_SYNTAX, Required, Live, r#""www""#;
    /// Floating addresses that the name leads to. Those that fit no network of a node are offline
    /// there, which does not make the name fail.
    DNS_NAME_MEMBERS = "dns.name.members", KeySyntax::TextList("the name of a floating address"),
        Required, Live, r#"["db", "web"]"#;
    /// Every member is registered, online or not: for clients that try one address after the other.
    /// Otherwise those that are online.
    DNS_NAME_REGISTER_ALL = "dns.name.register_all", KeySyntax::Flag, Flag(false), Live, "true";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::policy::MAX_CLASSES;

    #[test]
    fn the_texts_name_the_limits_of_the_code() {
        let default = format!("{DEFAULT_METRIC}, cluster-and-client {CLIENT_METRIC}");
        assert_eq!(format!("{:?}", NETWORK_METRIC.default), format!("Described({default:?})"));
        assert!(PEER_ADDRESSES.doc.contains(&format!("at most {MAX_PEER_ADDRESSES}")));
        for (path, most) in [
            ("peer", MAX_PEERS),
            ("peer.class", MAX_CLASSES),
            ("peer.route", MAX_PEER_ROUTES),
            ("vip", MAX_VIPS),
            ("dns.name", MAX_DNS_NAMES),
        ] {
            let texts = CONFIG_TABLES.iter().filter(|table| table.path == path);
            let text: String = texts.map(|table| table.doc).collect();
            assert!(text.contains(&format!("at most {most}")), "{text}");
        }
    }

    /// A report for support leaves out what such a file holds.
    #[test]
    fn a_key_that_names_a_file_says_whether_it_holds_a_secret() {
        for key in CONFIG_KEYS {
            let says_it = matches!(
                key.syntax,
                KeySyntax::SecretFile(_) | KeySyntax::PublicFile(_) | KeySyntax::Command(_)
            );
            let names_file = key.path.ends_with("_file")
                || key.doc.starts_with("File")
                || format!("{}", key.syntax).contains("path");
            assert!(says_it || !names_file, "{}", key.path);
        }
    }

    #[test]
    fn every_default_is_in_its_range() {
        for key in CONFIG_KEYS {
            if let (Number(default), Some(limits)) = (key.default, key.limits()) {
                assert!(limits.contains(default), "{}", key.path);
            }
        }
    }
}
