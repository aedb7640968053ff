//! The file's tables → [`Config`], or every problem with them.

use std::{path::Path, time::Duration};

use netft::{
    NodeKey,
    api::host::identity,
    config::{
        AdapterConfig, Config, ConfigKey, FailoverConfig, HeartbeatConfig, NetworkConfig,
        PrivateKey, RelayConfig, TopologyConfig, adapter_name, exclude_rule, keys, network_prefix,
        node_name,
    },
    drill::DrillObjective,
    ids::virtual_addrs::VirtualAddrs,
    loss_detection::RetransmitLimits,
    route::Timing,
};
use toml::Spanned;

use super::{
    dns, etcd, metrics, names, peers,
    problem::ConfigProblem,
    raw,
    reader::{ByteSpan, FieldReader},
    vips, virtuals,
    virtuals::AdapterPrefixes,
};

/// This node's name and key, and their places.
pub(super) struct LocalNode {
    pub(super) name: String,
    pub(super) name_span: ByteSpan,
    pub(super) key: PrivateKey,
    pub(super) public: NodeKey,
    pub(super) key_span: ByteSpan,
}

/// The virtual addresses of a node, and the place each comes from.
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
    let reader = &mut FieldReader::default();
    let node = read_node(reader, file.node.as_ref(), folder);
    let prefixes = virtuals::read_prefixes(reader, &file.adapter);
    let own = node.as_ref().map(|node| {
        let adapter = &file.adapter;
        let fields = (
            (&adapter.address, &keys::ADAPTER_ADDRESS),
            (&adapter.address6, &keys::ADAPTER_ADDRESS6),
        );
        let derived = VirtualAddrs::derive_from_key(&node.public);
        virtuals::read_virtual_addrs(reader, fields, derived, &prefixes, &node.key_span)
    });
    // Without a usable `[node]` the rest is checked against placeholders, and then dropped.
    let mut config = match &node {
        Some(node) => Config::new(&node.name, node.key.clone(), node.public),
        None => Config::new("", PrivateKey(Vec::new().into()), NodeKey([0; 32])),
    };
    config.access.runtime_dir = runtime_dir.to_owned();
    config.networks = read_networks(reader, &file.network, &prefixes);
    reader.store_number(&mut config.session.port, &file.session.port, &keys::SESSION_PORT);
    if let Some(table) = &file.node
        && let Some((site, _)) =
            reader.parse_text(&table.get_ref().site, &keys::NODE_SITE, node_name)
    {
        config.site = site;
    }
    read_topology(reader, &file.topology, &mut config.topology);
    let (node, own) = (node.as_ref(), own.as_ref());
    let context = peers::PeerCheckContext { node, own, prefixes, port: config.session.port };
    config.peers = peers::read_peers(reader, &file.peer, &context);
    let refuse_virtual = |reader: &mut FieldReader, addr, span: &ByteSpan| {
        context.prefixes.refuse_inside(reader, addr, span);
    };
    config.floating.vips = vips::read_vips(reader, &file.vip, &refuse_virtual);
    let nodes = config.peers.iter().map(|peer| peer.name.as_str());
    let nodes: Vec<_> = nodes.chain(node.map(|node| node.name.as_str())).collect();
    vips::check_node_names(reader, &file.vip, &nodes);
    vips::check_companions(reader, &file.vip, &config.floating.vips);
    config.floating.ownership = vips::read_ownership(reader, &file.ownership, &nodes);
    if let Some(table) = &file.dns {
        config.floating.dns = dns::read_dns(reader, table, &config.floating.vips, folder);
    }
    etcd::require_endpoints(reader, &file.vip, &file.ownership.etcd.endpoints);
    read_adapter(reader, &file.adapter, &mut config.adapter);
    read_heartbeat(reader, &file.heartbeat, &mut config.heartbeat);
    read_failover(reader, &file.failover, &mut config.failover);
    config.failover.objective = read_objective(reader, &file.slo);
    read_retransmit_limits(reader, &file.resend, &mut config.retransmit_limits);
    read_relay(reader, &file.relay, &mut config.relay);
    config.access.metrics = metrics::read_metrics(reader, &file.metrics, folder);
    let rekey = &mut config.session.rekey_interval;
    reader.store_duration(rekey, &file.session.rekey, &keys::SESSION_REKEY, Duration::from_secs);
    reader.store_flag(&mut config.session.aegis, &file.session.aegis, &keys::SESSION_AEGIS);

    match (node, own) {
        (Some(_), Some(own)) if reader.problems.is_empty() => {
            config.adapter.addrs = own.addrs;
            // The checks with a place above include these: a difference is a mistake of ours.
            let mistake = |error: netft::config::ConfigError| {
                vec![ConfigProblem::at_span(0..0, error.to_string(), "in this file")]
            };
            config.check_settings().map(|()| config).map_err(mistake)
        }
        _ => Err(std::mem::take(&mut reader.problems)),
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
    reader.require_field(&node.name, &keys::NODE_NAME, table.span(), "for example `name = \"a\"`");
    let help = "for example `key = \"/etc/netft/key\"`";
    reader.require_field(&node.key, &keys::NODE_KEY, table.span(), help);
    let name = reader.parse_text(&node.name, &keys::NODE_NAME, node_name);
    let path = reader.parse_text(&node.key, &keys::NODE_KEY, |text| match text {
        "" => Err("it is empty".to_owned()),
        _ => Ok(folder.join(text)),
    });
    let (path, key_span) = path?;
    let key = match identity::read_key_file(&path) {
        Ok(key) => key,
        Err(error) => {
            let problem = ConfigProblem::at_span(key_span, error.to_string(), "this file");
            let is_denied = error.is_permission_denied();
            reader.report_problem(ConfigProblem { is_denied, ..problem });
            return None;
        }
    };
    let public = identity::public_key(&key).ok()?;
    let (name, name_span) = name?;
    Some(LocalNode { name, name_span, key, public, key_span })
}

fn read_adapter(reader: &mut FieldReader, table: &raw::AdapterTable, adapter: &mut AdapterConfig) {
    if let Some((name, _)) = reader.parse_text(&table.name, &keys::ADAPTER_NAME, adapter_name) {
        adapter.name = name;
    }
    let backend = reader.read_choice(&table.backend, &keys::ADAPTER_BACKEND, names::parse_backend);
    adapter.backend = backend.unwrap_or(adapter.backend);
    reader.store_number(&mut adapter.mtu, &table.mtu, &keys::ADAPTER_MTU);
    reader.store_number(&mut adapter.multicast, &table.multicast, &keys::ADAPTER_MULTICAST);
    reader.store_flag(&mut adapter.forward, &table.forward, &keys::ADAPTER_FORWARD);
    reader.store_number(&mut adapter.workers, &table.workers, &keys::ADAPTER_WORKERS);
    reader.store_duration(
        &mut adapter.busy_poll,
        &table.busy_poll,
        &keys::ADAPTER_BUSY_POLL,
        Duration::from_micros,
    );
}

fn read_heartbeat(
    reader: &mut FieldReader,
    table: &raw::HeartbeatTable,
    heartbeat: &mut HeartbeatConfig,
) {
    let timings = &mut heartbeat.timings;
    let profile =
        reader.read_choice(&table.profile, &keys::HEARTBEAT_PROFILE, names::parse_profile);
    *timings = profile.unwrap_or(*timings);
    let mut store = |timing: &mut Timing,
                     fields: [&raw::OptionalField; 2],
                     keys: [&ConfigKey; 2]| {
        timing.delay = reader.read_delay(fields[0], keys[0]).unwrap_or(timing.delay);
        timing.threshold = reader.read_threshold(fields[1], keys[1]).unwrap_or(timing.threshold);
    };
    let (subnet, site) = (&table.cross_subnet, &table.cross_site);
    store(
        &mut timings.same_subnet,
        [&table.delay, &table.threshold],
        [&keys::HEARTBEAT_DELAY, &keys::HEARTBEAT_THRESHOLD],
    );
    store(
        &mut timings.cross_subnet,
        [&subnet.delay, &subnet.threshold],
        [&keys::CROSS_SUBNET_DELAY, &keys::CROSS_SUBNET_THRESHOLD],
    );
    store(
        &mut timings.cross_site,
        [&site.delay, &site.threshold],
        [&keys::CROSS_SITE_DELAY, &keys::CROSS_SITE_THRESHOLD],
    );
    reader.store_number(&mut heartbeat.history, &table.history, &keys::HEARTBEAT_HISTORY);
}

fn read_failover(
    reader: &mut FieldReader,
    table: &raw::FailoverTable,
    failover: &mut FailoverConfig,
) {
    let hold_down = &mut failover.hold_down;
    reader.store_duration(hold_down, &table.hold, &keys::FAILOVER_HOLD, Duration::from_millis);
    let raise = &mut failover.pmtu_raise_timer;
    reader.store_duration(
        raise,
        &table.mtu_raise,
        &keys::FAILOVER_MTU_RAISE,
        Duration::from_millis,
    );
    let gone = &mut failover.gone_after;
    reader.store_duration(gone, &table.gone, &keys::FAILOVER_GONE, Duration::from_millis);
    reader.store_duration(
        &mut failover.unreachable_after,
        &table.unreachable,
        &keys::FAILOVER_UNREACHABLE,
        Duration::from_millis,
    );
}

fn read_objective(reader: &mut FieldReader, table: &raw::ObjectiveTable) -> DrillObjective {
    let detection = reader.read_number(&table.detection_ms, &keys::SLO_DETECTION);
    let stall = reader.read_number(&table.stall_ms, &keys::SLO_STALL);
    DrillObjective {
        detection: detection.map(Duration::from_millis),
        stall: stall.map(Duration::from_millis),
        lost: reader.read_number(&table.lost, &keys::SLO_LOST),
    }
}

fn read_retransmit_limits(
    reader: &mut FieldReader,
    table: &raw::ResendTable,
    limits: &mut RetransmitLimits,
) {
    reader.store_number(&mut limits.bytes, &table.bytes, &keys::RESEND_BYTES);
    reader.store_duration(&mut limits.age, &table.age, &keys::RESEND_AGE, Duration::from_millis);
}

fn read_relay(reader: &mut FieldReader, table: &raw::RelayTable, relay: &mut RelayConfig) {
    reader.store_flag(&mut relay.offer, &table.offer, &keys::RELAY_OFFER);
    reader.store_number(&mut relay.limit, &table.limit, &keys::RELAY_LIMIT);
    reader.store_flag(&mut relay.use_relays, &table.uses, &keys::RELAY_USE);
}

fn read_topology(
    reader: &mut FieldReader,
    table: &raw::TopologyTable,
    topology: &mut TopologyConfig,
) {
    let all = &mut topology.all_cross_subnet;
    reader.store_flag(all, &table.plumb_all_cross_subnet_routes, &keys::TOPOLOGY_CROSS_SUBNET);
    let keep = &mut topology.keep_arp_settings;
    reader.store_flag(keep, &table.keep_arp_settings, &keys::TOPOLOGY_KEEP_ARP);
    let exclude = reader.read_list(&table.exclude, &keys::TOPOLOGY_EXCLUDE, exclude_rule);
    topology.exclude = exclude.into_iter().map(|(rule, _)| rule).collect();
}

fn read_networks(
    reader: &mut FieldReader,
    tables: &[Spanned<raw::NetworkTable>],
    prefixes: &AdapterPrefixes,
) -> Vec<NetworkConfig> {
    let mut networks: Vec<(NetworkConfig, ByteSpan)> = Vec::new();
    for table in tables {
        let network = table.get_ref();
        let help = "for example `prefix = \"10.1.0.0/24\"`";
        reader.require_field(&network.prefix, &keys::NETWORK_PREFIX, table.span(), help);
        let prefix = reader.parse_text(&network.prefix, &keys::NETWORK_PREFIX, network_prefix);
        let role = reader.read_choice(&network.role, &keys::NETWORK_ROLE, names::parse_role);
        let metric = reader.read_number(&network.metric, &keys::NETWORK_METRIC);
        let capacity = reader.read_number(&network.capacity, &keys::NETWORK_CAPACITY);
        let transport = reader.read_choice(
            &network.transport,
            &keys::NETWORK_TRANSPORT,
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
        let role = role.unwrap_or_default();
        let metric = metric.map(|metric| metric as u32);
        let capacity = capacity.map(|capacity| capacity as u32);
        networks.push((NetworkConfig { prefix, role, metric, capacity, transport }, span));
    }
    networks.into_iter().map(|(network, _)| network).collect()
}
