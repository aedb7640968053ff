//! What the file says → [`Config`], or everything that is wrong with it.

use std::{path::Path, time::Duration};

use netft::{
    NodeKey,
    config::{
        AdapterConfig, ClassTimings, Config, DEFAULT_ADAPTER, DEFAULT_BUSY_POLL, DEFAULT_HISTORY,
        DEFAULT_HOLD_DOWN, DEFAULT_MTU, DEFAULT_MULTICAST, DEFAULT_PORT, DEFAULT_REKEY_INTERVAL,
        FailoverConfig, HeartbeatConfig, NetworkConfig, PrivateKey, RelayConfig, SessionConfig,
        TopologyConfig,
    },
    ids::virtual_addrs::VirtualAddrs,
    io::identity,
    loss_detection,
    route::{PMTU_RAISE_TIMER, Timing},
};
use toml::Spanned;

use super::{
    names, peers,
    problem::ConfigProblem,
    raw,
    reader::{ByteSpan, FieldReader, NumberLimits},
    virtuals,
    virtuals::AdapterPrefixes,
};

/// The most packet workers: the sender's lane is one byte, and no machine gains from so many.
const MAX_WORKERS: u64 = 16;

/// This node's name and key, and where they stand.
pub(super) struct LocalNode {
    pub(super) name: String,
    pub(super) name_span: ByteSpan,
    pub(super) key: PrivateKey,
    pub(super) public: NodeKey,
    pub(super) key_span: ByteSpan,
}

/// The virtual addresses of a node, and where each comes from.
pub(super) struct VirtualAddrSpans {
    pub(super) addrs: VirtualAddrs,
    pub(super) v4_span: ByteSpan,
    pub(super) v6_span: ByteSpan,
}

/// Checks the whole file. Relative paths in it start at `folder`.
pub(super) fn check_file(
    file: &raw::ConfigFile,
    folder: &Path,
    runtime_dir: &Path,
) -> Result<Config, Vec<ConfigProblem>> {
    let mut reader = FieldReader::default();
    let node = read_node(&mut reader, file.node.as_ref(), folder);
    let prefixes = virtuals::read_prefixes(&mut reader, &file.adapter);
    let own = node.as_ref().map(|node| {
        let fields = (&file.adapter.address, &file.adapter.address6);
        let derived = VirtualAddrs::derive_from_key(&node.public);
        virtuals::read_virtual_addrs(&mut reader, fields, derived, &prefixes, &node.key_span)
    });
    let networks = read_networks(&mut reader, &file.network, &prefixes);
    let port = read_port(&mut reader, &file.session);
    let site = file.node.as_ref().and_then(|node| {
        reader.parse_text(&node.get_ref().site, "site", names::NODE_NAME_SYNTAX, names::node_name)
    });
    let topology = &file.topology;
    let all_cross_subnet = reader
        .read_flag(&topology.plumb_all_cross_subnet_routes, "plumb_all_cross_subnet_routes")
        .unwrap_or_default();
    let exclude = reader.read_list(
        &topology.exclude,
        "exclude",
        names::EXCLUDE_SYNTAX,
        false,
        names::parse_exclude,
    );
    let context = peers::PeerContext { node: node.as_ref(), own: own.as_ref(), prefixes, port };
    let peers = peers::read_peers(&mut reader, &file.peer, &context);

    let adapter = &file.adapter;
    let name =
        reader.parse_text(&adapter.name, "name", names::ADAPTER_NAME_SYNTAX, names::adapter_name);
    let backend = reader.parse_text(
        &adapter.backend,
        "backend",
        "`offload` or `plain`",
        names::parse_backend,
    );
    let mtu = reader.read_number(&adapter.mtu, "mtu", NumberLimits::new(1280, 65_535, "bytes"));
    let multicast = NumberLimits::new(0, 1_000_000, "packets per second");
    let multicast = reader.read_number(&adapter.multicast, "multicast", multicast);
    let workers = NumberLimits::new(0, MAX_WORKERS, "threads (0: from the number of cores)");
    let workers = reader.read_number(&adapter.workers, "workers", workers);
    let busy_poll = NumberLimits::new(0, 1000, "µs (0: never)");
    let busy_poll = reader.read_number(&adapter.busy_poll, "busy_poll", busy_poll);
    let timings = read_timings(&mut reader, &file.heartbeat);
    let history = NumberLimits::new(0, 40, "heartbeats");
    let history = reader.read_number(&file.heartbeat.history, "history", history);
    let hold = reader.read_number(&file.failover.hold, "hold", NumberLimits::new(0, 600_000, "ms"));
    let raise = NumberLimits::new(1000, 3_600_000, "ms");
    let mtu_raise = reader.read_number(&file.failover.mtu_raise, "mtu_raise", raise);
    let resend = read_retransmit_limits(&mut reader, &file.resend);
    let relay = read_relay(&mut reader, &file.relay);
    let rekey =
        reader.read_number(&file.session.rekey, "rekey", NumberLimits::new(60, 86_400, "seconds"));

    match (node, own) {
        (Some(node), Some(own)) if reader.problems.is_empty() => {
            let mut config = Config::new(node.name, node.key, node.public);
            config.adapter = AdapterConfig {
                name: name.map_or_else(|| DEFAULT_ADAPTER.to_owned(), |(name, _)| name),
                backend: backend.map(|(backend, _)| backend).unwrap_or_default(),
                mtu: mtu.map_or(DEFAULT_MTU, |mtu| mtu as u16),
                addrs: own.addrs,
                workers: workers.unwrap_or_default() as usize,
                busy_poll: busy_poll.map_or(DEFAULT_BUSY_POLL, Duration::from_micros),
                multicast: multicast.map_or(DEFAULT_MULTICAST, |rate| rate as u32),
            };
            config.runtime_dir = runtime_dir.to_owned();
            config.site = site.map(|(site, _)| site).unwrap_or_default();
            config.session = SessionConfig {
                port,
                rekey_interval: rekey.map_or(DEFAULT_REKEY_INTERVAL, Duration::from_secs),
            };
            config.heartbeat = HeartbeatConfig {
                timings,
                history: history.map_or(DEFAULT_HISTORY, |count| count as usize),
            };
            config.failover = FailoverConfig {
                hold_down: hold.map_or(DEFAULT_HOLD_DOWN, Duration::from_millis),
                pmtu_raise_timer: mtu_raise.map_or(PMTU_RAISE_TIMER, Duration::from_millis),
            };
            config.retransmit_limits = resend;
            let exclude = exclude.into_iter().map(|(exclude, _)| exclude).collect();
            config.topology = TopologyConfig { all_cross_subnet, exclude };
            (config.relay, config.networks, config.peers) = (relay, networks, peers);
            Ok(config)
        }
        _ => Err(reader.problems),
    }
}

fn read_node(
    reader: &mut FieldReader,
    table: Option<&Spanned<raw::NodeTable>>,
    folder: &Path,
) -> Option<LocalNode> {
    let Some(table) = table else {
        let help = "add `[node]` with `name` and `key`; `netft init` writes a whole file";
        reader.report_problem(
            ConfigProblem::at_span(0..0, "`[node]` is missing", "no `[node]` in this file")
                .with_help(help),
        );
        return None;
    };
    let node = table.get_ref();
    reader.require_field(&node.name, "name", table.span(), "for example `name = \"a\"`");
    reader.require_field(&node.key, "key", table.span(), "for example `key = \"/etc/netft/key\"`");
    let name = reader.parse_text(&node.name, "name", names::NODE_NAME_SYNTAX, names::node_name);
    let path = reader.parse_text(&node.key, "key", "the path of a key file", |text| match text {
        "" => Err("it is empty".to_owned()),
        _ => Ok(folder.join(text)),
    });
    let (path, key_span) = path?;
    let key = match identity::read_key_file(&path) {
        Ok(key) => key,
        Err(error) => {
            reader.report_problem(ConfigProblem::at_span(key_span, error.to_string(), "this file"));
            return None;
        }
    };
    let public = identity::public_key(&key).ok()?;
    let (name, name_span) = name?;
    Some(LocalNode { name, name_span, key, public, key_span })
}

fn read_port(reader: &mut FieldReader, session: &raw::SessionTable) -> u16 {
    let port = reader.read_number(&session.port, "port", NumberLimits::new(1, 65_535, ""));
    port.map_or(DEFAULT_PORT, |port| port as u16)
}

fn read_retransmit_limits(
    reader: &mut FieldReader,
    table: &raw::ResendTable,
) -> loss_detection::RetransmitLimits {
    let base = loss_detection::RetransmitLimits::default();
    let bytes = reader.read_number(&table.bytes, "bytes", NumberLimits::new(0, 1 << 32, "bytes"));
    let age = reader.read_number(&table.age, "age", NumberLimits::new(10, 60_000, "ms"));
    loss_detection::RetransmitLimits {
        bytes: bytes.map_or(base.bytes, |bytes| bytes as usize),
        age: age.map_or(base.age, Duration::from_millis),
    }
}

fn read_relay(reader: &mut FieldReader, table: &raw::RelayTable) -> RelayConfig {
    let base = RelayConfig::default();
    let limit = NumberLimits::new(1, 10_000_000, "datagrams per second");
    let limit = reader.read_number(&table.limit, "limit", limit);
    RelayConfig {
        offer: reader.read_flag(&table.offer, "offer").unwrap_or(base.offer),
        limit: limit.map_or(base.limit, |limit| limit as u32),
        use_relays: reader.read_flag(&table.uses, "use").unwrap_or(base.use_relays),
    }
}

fn read_timings(reader: &mut FieldReader, heartbeat: &raw::HeartbeatTable) -> ClassTimings {
    let windows = reader.parse_text(
        &heartbeat.profile,
        "profile",
        "`default` or `windows`",
        names::parse_profile,
    );
    let base = match windows {
        Some((true, _)) => ClassTimings::WINDOWS_PROFILE,
        _ => ClassTimings::default(),
    };
    let mut timing =
        |delay: &raw::OptionalField, threshold: &raw::OptionalField, base: Timing| Timing {
            delay: reader.read_delay(delay).unwrap_or(base.delay),
            threshold: reader.read_threshold(threshold).unwrap_or(base.threshold),
        };
    let (subnet, site) = (&heartbeat.cross_subnet, &heartbeat.cross_site);
    ClassTimings {
        same_subnet: timing(&heartbeat.delay, &heartbeat.threshold, base.same_subnet),
        cross_subnet: timing(&subnet.delay, &subnet.threshold, base.cross_subnet),
        cross_site: timing(&site.delay, &site.threshold, base.cross_site),
    }
}

fn read_networks(
    reader: &mut FieldReader,
    tables: &[Spanned<raw::NetworkTable>],
    prefixes: &AdapterPrefixes,
) -> Vec<NetworkConfig> {
    const ROLE_SYNTAX: &str = "`none`, `cluster` or `cluster-and-client`";
    let mut networks: Vec<(NetworkConfig, ByteSpan)> = Vec::new();
    for table in tables {
        let network = table.get_ref();
        let help = "for example `prefix = \"10.1.0.0/24\"`";
        reader.require_field(&network.prefix, "prefix", table.span(), help);
        let prefix =
            reader.parse_text(&network.prefix, "prefix", names::PREFIX_SYNTAX, names::parse_prefix);
        let role = reader.parse_text(&network.role, "role", ROLE_SYNTAX, names::parse_role);
        let metric = NumberLimits::new(1, 1_000_000_000, "");
        let metric = reader.read_number(&network.metric, "metric", metric);
        let capacity = NumberLimits::new(1, 10_000_000, "Mbit/s");
        let capacity = reader.read_number(&network.capacity, "capacity", capacity);
        let transport = reader.parse_text(
            &network.transport,
            "transport",
            names::TRANSPORT_SYNTAX,
            names::parse_transport,
        );
        let Some((prefix, span)) = prefix else { continue };
        if let Some((other, first)) =
            networks.iter().find(|(other, _)| virtuals::prefixes_overlap(&other.prefix, &prefix))
        {
            let message = format!("network {prefix} overlaps network {}", other.prefix);
            reader.report_problem(
                ConfigProblem::at_span(span.clone(), message, "this one")
                    .with_mark(first.clone(), "and this one")
                    .with_help(
                        "an address must belong to one network: give each address range once",
                    ),
            );
            continue;
        }
        prefixes.refuse_overlap(reader, prefix, &span);
        let role = role.map(|(role, _)| role).unwrap_or_default();
        let metric = metric.map(|metric| metric as u32);
        let capacity = capacity.map(|capacity| capacity as u32);
        let transport = transport.map(|(carrier, _)| carrier);
        networks.push((NetworkConfig { prefix, role, metric, capacity, transport }, span));
    }
    networks.into_iter().map(|(network, _)| network).collect()
}
