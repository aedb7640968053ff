//! What the file says → [`Config`], or everything that is wrong with it.

use std::{path::Path, time::Duration};

use netft::{
    NodeKey,
    config::{
        Config, DEFAULT_ADAPTER, DEFAULT_BUSY_POLL, DEFAULT_MTU, DEFAULT_MULTICAST, DEFAULT_PORT,
        Network, PrivateKey, Relay, Timings,
    },
    ids::virtual_addrs::VirtualAddrs,
    io::identity,
    loss_detection,
    route::{PMTU_RAISE_TIMER, Timing},
};
use toml::Spanned;

use super::{
    names, peers,
    problem::Problem,
    raw,
    reader::{Limits, Reader, Span},
    virtuals,
    virtuals::Prefixes,
};

/// The most packet workers: the sender's lane is one byte, and no machine gains from so many.
const MAX_WORKERS: u64 = 16;

/// This node's name and key, and where they stand.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) name_span: Span,
    pub(super) key: PrivateKey,
    pub(super) public: NodeKey,
    pub(super) key_span: Span,
}

/// The virtual addresses of a node, and where each comes from.
pub(super) struct Virtual {
    pub(super) addrs: VirtualAddrs,
    pub(super) v4_span: Span,
    pub(super) v6_span: Span,
}

/// Checks the whole file. Relative paths in it start at `folder`.
pub(super) fn check(
    file: &raw::File,
    folder: &Path,
    runtime_dir: &Path,
) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader::default();
    let node = node(&mut reader, file.node.as_ref(), folder);
    let prefixes = virtuals::prefixes(&mut reader, &file.adapter);
    let own = node.as_ref().map(|node| {
        let fields = (&file.adapter.address, &file.adapter.address6);
        let derived = VirtualAddrs::derive(&node.public);
        virtuals::virtual_addrs(&mut reader, fields, derived, &prefixes, &node.key_span)
    });
    let networks = networks(&mut reader, &file.network, &prefixes);
    let port = port(&mut reader, &file.session);
    let site = file.node.as_ref().and_then(|node| {
        reader.parse(&node.get_ref().site, "site", names::NODE_NAME, names::node_name)
    });
    let topology = &file.topology;
    let all_cross_subnet = reader
        .flag(&topology.plumb_all_cross_subnet_routes, "plumb_all_cross_subnet_routes")
        .unwrap_or_default();
    let exclude = reader.list(&topology.exclude, "exclude", names::EXCLUDE, false, names::exclude);
    let context = peers::Context { node: node.as_ref(), own: own.as_ref(), prefixes, port };
    let peers = peers::peers(&mut reader, &file.peer, &context);

    let adapter = &file.adapter;
    let name = reader.parse(&adapter.name, "name", names::ADAPTER_NAME, names::adapter_name);
    let backend = reader.parse(&adapter.backend, "backend", "`offload` or `plain`", names::backend);
    let mtu = reader.number(&adapter.mtu, "mtu", Limits::new(1280, 65_535, "bytes"));
    let multicast = Limits::new(0, 1_000_000, "packets per second");
    let multicast = reader.number(&adapter.multicast, "multicast", multicast);
    let workers = Limits::new(0, MAX_WORKERS, "threads (0: from the number of cores)");
    let workers = reader.number(&adapter.workers, "workers", workers);
    let busy_poll = Limits::new(0, 1000, "µs (0: never)");
    let busy_poll = reader.number(&adapter.busy_poll, "busy_poll", busy_poll);
    let timings = timings(&mut reader, &file.heartbeat);
    let history = Limits::new(0, 40, "heartbeats");
    let history = reader.number(&file.heartbeat.history, "history", history);
    let hold = reader.number(&file.failover.hold, "hold", Limits::new(0, 600_000, "ms"));
    let raise = Limits::new(1000, 3_600_000, "ms");
    let mtu_raise = reader.number(&file.failover.mtu_raise, "mtu_raise", raise);
    let resend = resend(&mut reader, &file.resend);
    let relay = relay(&mut reader, &file.relay);
    let rekey = reader.number(&file.session.rekey, "rekey", Limits::new(60, 86_400, "seconds"));

    match (node, own) {
        (Some(node), Some(own)) if reader.problems.is_empty() => Ok(Config {
            name: node.name,
            key: node.key,
            public_key: node.public,
            adapter: name.map_or_else(|| DEFAULT_ADAPTER.to_owned(), |(name, _)| name),
            backend: backend.map(|(backend, _)| backend).unwrap_or_default(),
            mtu: mtu.map_or(DEFAULT_MTU, |mtu| mtu as u16),
            multicast: multicast.map_or(DEFAULT_MULTICAST, |rate| rate as u32),
            addrs: own.addrs,
            port,
            workers: workers.unwrap_or_default() as usize,
            busy_poll: busy_poll.map_or(DEFAULT_BUSY_POLL, Duration::from_micros),
            runtime_dir: runtime_dir.to_owned(),
            hold: Duration::from_millis(hold.unwrap_or(1000)),
            mtu_raise: mtu_raise.map_or(PMTU_RAISE_TIMER, Duration::from_millis),
            resend,
            history: history.unwrap_or(10) as usize,
            rekey: Duration::from_secs(rekey.unwrap_or(3600)),
            timings,
            site: site.map(|(site, _)| site).unwrap_or_default(),
            all_cross_subnet,
            exclude: exclude.into_iter().map(|(exclude, _)| exclude).collect(),
            relay,
            networks,
            peers,
        }),
        _ => Err(reader.problems),
    }
}

fn node(reader: &mut Reader, table: Option<&Spanned<raw::Node>>, folder: &Path) -> Option<Node> {
    let Some(table) = table else {
        let help = "add `[node]` with `name` and `key`; `netft init` writes a whole file";
        reader.report(
            Problem::at(0..0, "`[node]` is missing", "no `[node]` in this file").help(help),
        );
        return None;
    };
    let node = table.get_ref();
    reader.missing(&node.name, "name", table.span(), "for example `name = \"a\"`");
    reader.missing(&node.key, "key", table.span(), "for example `key = \"/etc/netft/key\"`");
    let name = reader.parse(&node.name, "name", names::NODE_NAME, names::node_name);
    let path = reader.parse(&node.key, "key", "the path of a key file", |text| match text {
        "" => Err("it is empty".to_owned()),
        _ => Ok(folder.join(text)),
    });
    let (path, key_span) = path?;
    let key = match identity::read(&path) {
        Ok(key) => key,
        Err(error) => {
            reader.report(Problem::at(key_span, error.to_string(), "this file"));
            return None;
        }
    };
    let public = identity::public_key(&key).ok()?;
    let (name, name_span) = name?;
    Some(Node { name, name_span, key, public, key_span })
}

fn port(reader: &mut Reader, session: &raw::Session) -> u16 {
    let port = reader.number(&session.port, "port", Limits::new(1, 65_535, ""));
    port.map_or(DEFAULT_PORT, |port| port as u16)
}

fn resend(reader: &mut Reader, table: &raw::Resend) -> loss_detection::Limits {
    let base = loss_detection::Limits::default();
    let bytes = reader.number(&table.bytes, "bytes", Limits::new(0, 1 << 32, "bytes"));
    let age = reader.number(&table.age, "age", Limits::new(10, 60_000, "ms"));
    loss_detection::Limits {
        bytes: bytes.map_or(base.bytes, |bytes| bytes as usize),
        age: age.map_or(base.age, Duration::from_millis),
    }
}

fn relay(reader: &mut Reader, table: &raw::Relay) -> Relay {
    let base = Relay::default();
    let limit = Limits::new(1, 10_000_000, "datagrams per second");
    let limit = reader.number(&table.limit, "limit", limit);
    Relay {
        offer: reader.flag(&table.offer, "offer").unwrap_or(base.offer),
        limit: limit.map_or(base.limit, |limit| limit as u32),
        uses: reader.flag(&table.uses, "use").unwrap_or(base.uses),
    }
}

fn timings(reader: &mut Reader, heartbeat: &raw::Heartbeat) -> Timings {
    let windows =
        reader.parse(&heartbeat.profile, "profile", "`default` or `windows`", names::profile);
    let base = match windows {
        Some((true, _)) => Timings::WINDOWS,
        _ => Timings::default(),
    };
    let mut timing = |delay: &raw::Field, threshold: &raw::Field, base: Timing| Timing {
        delay: reader.delay(delay).unwrap_or(base.delay),
        threshold: reader.threshold(threshold).unwrap_or(base.threshold),
    };
    let (subnet, site) = (&heartbeat.cross_subnet, &heartbeat.cross_site);
    Timings {
        same_subnet: timing(&heartbeat.delay, &heartbeat.threshold, base.same_subnet),
        cross_subnet: timing(&subnet.delay, &subnet.threshold, base.cross_subnet),
        cross_site: timing(&site.delay, &site.threshold, base.cross_site),
    }
}

fn networks(
    reader: &mut Reader,
    tables: &[Spanned<raw::Network>],
    prefixes: &Prefixes,
) -> Vec<Network> {
    const ROLES: &str = "`none`, `cluster` or `cluster-and-client`";
    let mut networks: Vec<(Network, Span)> = Vec::new();
    for table in tables {
        let network = table.get_ref();
        let help = "for example `prefix = \"10.1.0.0/24\"`";
        reader.missing(&network.prefix, "prefix", table.span(), help);
        let prefix = reader.parse(&network.prefix, "prefix", names::PREFIX, names::prefix);
        let role = reader.parse(&network.role, "role", ROLES, names::role);
        let metric = Limits::new(1, 1_000_000_000, "");
        let metric = reader.number(&network.metric, "metric", metric);
        let capacity = Limits::new(1, 10_000_000, "Mbit/s");
        let capacity = reader.number(&network.capacity, "capacity", capacity);
        let carrier = reader.parse(&network.carrier, "carrier", names::CARRIER, names::carrier);
        let Some((prefix, span)) = prefix else { continue };
        if let Some((other, first)) =
            networks.iter().find(|(other, _)| virtuals::overlap(&other.prefix, &prefix))
        {
            let message = format!("network {prefix} overlaps network {}", other.prefix);
            reader.report(
                Problem::at(span.clone(), message, "this one")
                    .and(first.clone(), "and this one")
                    .help("an address must belong to one network: give each address range once"),
            );
            continue;
        }
        prefixes.refuse_overlap(reader, prefix, &span);
        let role = role.map(|(role, _)| role).unwrap_or_default();
        let metric = metric.map(|metric| metric as u32);
        let capacity = capacity.map(|capacity| capacity as u32);
        let carrier = carrier.map(|(carrier, _)| carrier);
        networks.push((Network { prefix, role, metric, capacity, carrier }, span));
    }
    networks.into_iter().map(|(network, _)| network).collect()
}
