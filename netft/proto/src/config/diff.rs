//! Difference of two configs as an operator reads it, and the settings that need a restart.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::{
    config::{
        keys,
        network::{NetworkConfig, NetworkRole},
        peer::{HostName, PeerConfig, RouteOverride},
        settings::{Config, ExcludeRule, RelayConfig},
    },
    route::{PeerPolicies, RouteClass, Timing, TrafficClass, Transport},
};

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Only the new config has it.
    Added,
    /// Only the old config has it.
    Removed,
    /// Both have it, with other values.
    Changed,
}

/// One change. Shown as an operator reads it: `+ peer c`, `~ hold: 1 s → 5 s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// Kind of the change.
    pub kind: ChangeKind,
    /// The setting, and its values.
    pub what: String,
}

impl ConfigChange {
    /// Something the new config has and the old one has not.
    pub fn added(what: impl Into<String>) -> Self {
        Self { kind: ChangeKind::Added, what: what.into() }
    }

    /// Something only the old config has.
    pub fn removed(what: impl Into<String>) -> Self {
        Self { kind: ChangeKind::Removed, what: what.into() }
    }

    /// Something both have, with other values.
    pub fn changed(what: impl Into<String>) -> Self {
        Self { kind: ChangeKind::Changed, what: what.into() }
    }
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.kind {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Changed => '~',
        };
        write!(f, "{mark} {}", self.what)
    }
}

/// A change that needs a restart: the node's identity, and the settings that its sockets, device
/// and workers are created with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` cannot change while netftd runs: {old} → {new}")]
pub struct RestartRequired {
    /// Path of its key in `netft.toml`, or the option of `netftd`.
    pub setting: &'static str,
    /// Value in force.
    pub old: String,
    /// Value asked for.
    pub new: String,
}

/// The changes that take a node from config `old` to config `new`.
///
/// # Errors
/// Every difference that needs a restart.
pub fn diff_configs(old: &Config, new: &Config) -> Result<Vec<ConfigChange>, Vec<RestartRequired>> {
    let fixed = restart_required(old, new);
    if !fixed.is_empty() {
        return Err(fixed);
    }
    let mut changes = Vec::new();
    let mut set = |what: &str, old: String, new: String| {
        if old != new {
            changes.push(ConfigChange::changed(format!("{what}: {old} → {new}")));
        }
    };
    for (what, class) in [
        ("timing in one subnet", RouteClass::SameSubnet),
        ("timing across subnets", RouteClass::CrossSubnet),
        ("timing across sites", RouteClass::CrossSite),
    ] {
        set(
            what,
            describe_timing(old.heartbeat.timings.for_class(class)),
            describe_timing(new.heartbeat.timings.for_class(class)),
        );
    }
    set(
        "hold",
        describe_duration(old.failover.hold_down),
        describe_duration(new.failover.hold_down),
    );
    set(
        "history",
        format!("{} heartbeats", old.heartbeat.history),
        format!("{} heartbeats", new.heartbeat.history),
    );
    set(
        "rekey",
        describe_duration(old.session.rekey_interval),
        describe_duration(new.session.rekey_interval),
    );
    set(
        "raise timer of path MTUs",
        describe_duration(old.failover.pmtu_raise_timer),
        describe_duration(new.failover.pmtu_raise_timer),
    );
    set(
        "silence until a peer is gone",
        describe_duration(old.failover.gone_after),
        describe_duration(new.failover.gone_after),
    );
    let bound = |rate: u32| if rate == 0 { "off".to_owned() } else { format!("{rate}/s") };
    set("multicast", bound(old.adapter.multicast), bound(new.adapter.multicast));
    set("forwarding", yes_or_no(old.adapter.forward), yes_or_no(new.adapter.forward));
    let (before, after) = (describe_relay(old.relay), describe_relay(new.relay));
    set("relay for peers", before, after);
    set("relays used", yes_or_no(old.relay.use_relays), yes_or_no(new.relay.use_relays));
    set("site", describe_site(&old.site), describe_site(&new.site));
    set(
        "all cross-subnet routes",
        yes_or_no(old.topology.all_cross_subnet),
        yes_or_no(new.topology.all_cross_subnet),
    );
    set(
        "ARP settings kept",
        yes_or_no(old.topology.keep_arp_settings),
        yes_or_no(new.topology.keep_arp_settings),
    );
    diff_excludes(old, new, &mut changes);
    diff_networks(old, new, &mut changes);
    diff_peers(old, new, &mut changes);
    diff_vips(old, new, &mut changes);
    Ok(changes)
}

fn restart_required(old: &Config, new: &Config) -> Vec<RestartRequired> {
    let backend = |config: &Config| config.adapter.backend.as_str().to_owned();
    let folder = |config: &Config| config.runtime_dir.display().to_string();
    let bytes = |config: &Config| config.retransmit_limits.bytes.to_string();
    let voters = |config: &Config| config.floating.ownership.voters.join(", ");
    // Another adapter's name, refused by itself, leads to another default.
    let store = |config: &Config| {
        let path = config.floating.ownership.store_path(&old.adapter.name);
        path.display().to_string()
    };
    let age = |config: &Config| describe_duration(config.retransmit_limits.age);
    let settings: [(&'static str, String, String); 15] = [
        (keys::NODE_NAME.path, old.name.clone(), new.name.clone()),
        (keys::NODE_KEY.path, old.public_key.to_string(), new.public_key.to_string()),
        (keys::ADAPTER_NAME.path, old.adapter.name.clone(), new.adapter.name.clone()),
        (keys::ADAPTER_BACKEND.path, backend(old), backend(new)),
        (keys::ADAPTER_MTU.path, old.adapter.mtu.to_string(), new.adapter.mtu.to_string()),
        (
            keys::ADAPTER_ADDRESS.path,
            old.adapter.addrs.v4.to_string(),
            new.adapter.addrs.v4.to_string(),
        ),
        (
            keys::ADAPTER_ADDRESS6.path,
            old.adapter.addrs.v6.to_string(),
            new.adapter.addrs.v6.to_string(),
        ),
        (keys::SESSION_PORT.path, old.session.port.to_string(), new.session.port.to_string()),
        (
            keys::ADAPTER_WORKERS.path,
            old.adapter.workers.to_string(),
            new.adapter.workers.to_string(),
        ),
        (
            keys::ADAPTER_BUSY_POLL.path,
            describe_duration(old.adapter.busy_poll),
            describe_duration(new.adapter.busy_poll),
        ),
        // The workers' retransmission buffers are allocated with these.
        (keys::RESEND_BYTES.path, bytes(old), bytes(new)),
        (keys::RESEND_AGE.path, age(old), age(new)),
        (keys::OWNERSHIP_VOTERS.path, voters(old), voters(new)),
        (keys::OWNERSHIP_STORE.path, store(old), store(new)),
        ("--runtime-dir", folder(old), folder(new)),
    ];
    settings
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(setting, old, new)| RestartRequired { setting, old, new })
        .collect()
}

fn describe_relay(relay: RelayConfig) -> String {
    if relay.offer { format!("{}/s", relay.limit) } else { "no".to_owned() }
}

fn describe_site(site: &str) -> String {
    if site.is_empty() { "none".to_owned() } else { site.to_owned() }
}

fn yes_or_no(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

fn diff_excludes(old: &Config, new: &Config, changes: &mut Vec<ConfigChange>) {
    let what = |exclude: &ExcludeRule| match exclude {
        ExcludeRule::Interface(name) => format!("exclude {name}"),
        ExcludeRule::Prefix(prefix) => format!("exclude {prefix}"),
    };
    let gone =
        old.topology.exclude.iter().filter(|exclude| !new.topology.exclude.contains(exclude));
    changes.extend(gone.map(|exclude| ConfigChange::removed(what(exclude))));
    let come =
        new.topology.exclude.iter().filter(|exclude| !old.topology.exclude.contains(exclude));
    changes.extend(come.map(|exclude| ConfigChange::added(what(exclude))));
}

fn diff_networks(old: &Config, new: &Config, changes: &mut Vec<ConfigChange>) {
    for network in &old.networks {
        let prefix = network.prefix;
        match new.networks.iter().find(|other| other.prefix == prefix) {
            None => changes.push(ConfigChange::removed(format!("network {prefix}"))),
            Some(other) if other != network => {
                let (before, after) = (describe_network(network), describe_network(other));
                changes
                    .push(ConfigChange::changed(format!("network {prefix}: {before} → {after}")));
            }
            Some(_) => {}
        }
    }
    for network in &new.networks {
        if old.networks.iter().all(|other| other.prefix != network.prefix) {
            let what = format!("network {}: {}", network.prefix, describe_network(network));
            changes.push(ConfigChange::added(what));
        }
    }
}

fn describe_network(network: &NetworkConfig) -> String {
    let role = match network.role {
        NetworkRole::None => "not used",
        NetworkRole::Cluster => "cluster",
        NetworkRole::ClusterAndClient => "cluster and client",
    };
    let values = [
        network.metric.map(|metric| format!(", metric {metric}")),
        network.capacity.map(|capacity| format!(", {capacity} Mbit/s")),
        network.transport.map(|transport| format!(", transport {transport}")),
    ];
    values.into_iter().flatten().fold(role.to_owned(), |text, value| text + &value)
}

fn diff_vips(old: &Config, new: &Config, changes: &mut Vec<ConfigChange>) {
    for vip in &old.floating.vips {
        let name = &vip.name;
        match new.floating.vips.iter().find(|other| other.name == *name) {
            None => changes.push(ConfigChange::removed(format!("floating address {name}"))),
            Some(other) if other != vip => {
                let keys = vip.changed_keys(other).join(", ");
                changes.push(ConfigChange::changed(format!("floating address {name}: {keys}")));
            }
            Some(_) => {}
        }
    }
    for vip in new
        .floating
        .vips
        .iter()
        .filter(|vip| old.floating.vips.iter().all(|old| old.name != vip.name))
    {
        let what = format!("floating address {}: {}", vip.name, vip.describe_addresses());
        changes.push(ConfigChange::added(what));
    }
}

fn diff_peers(old: &Config, new: &Config, changes: &mut Vec<ConfigChange>) {
    for peer in &old.peers {
        match new.peers.iter().find(|other| other.key == peer.key) {
            None => changes.push(ConfigChange::removed(format!("peer {}", peer.name))),
            Some(other) => diff_peer(peer, other, changes),
        }
    }
    for peer in &new.peers {
        if old.peers.iter().all(|other| other.key != peer.key) {
            let names = peer.names.iter().map(HostName::to_string);
            let addresses = peer.addresses.iter().map(SocketAddr::to_string);
            let addresses: Vec<_> = addresses.chain(names).collect();
            let addresses = match addresses.is_empty() {
                true => "it must dial".to_owned(),
                false => addresses.join(", "),
            };
            changes.push(ConfigChange::added(format!("peer {}: {addresses}", peer.name)));
        }
    }
}

fn diff_peer(old: &PeerConfig, new: &PeerConfig, changes: &mut Vec<ConfigChange>) {
    let name = &new.name;
    let anew = "its session starts anew";
    let mut say =
        |what: String| changes.push(ConfigChange::changed(format!("peer {name}: {what}")));
    if old.name != new.name {
        say(format!("it was {}; {anew}", old.name));
    }
    if old.addrs.v4 != new.addrs.v4 {
        say(format!("virtual address {} → {}; {anew}", old.addrs.v4, new.addrs.v4));
    }
    if old.addrs.v6 != new.addrs.v6 {
        say(format!("virtual address {} → {}; {anew}", old.addrs.v6, new.addrs.v6));
    }
    for gone in old.addresses.iter().filter(|address| !new.addresses.contains(address)) {
        say(format!("no address {gone}"));
    }
    for come in new.addresses.iter().filter(|address| !old.addresses.contains(address)) {
        say(format!("address {come}"));
    }
    for gone in old.names.iter().filter(|name| !new.names.contains(name)) {
        say(format!("no address {gone}"));
    }
    for come in new.names.iter().filter(|name| !old.names.contains(name)) {
        say(format!("address {come}"));
    }
    if old.policies != new.policies {
        say(format!(
            "policy {} → {}",
            describe_policies(&old.policies),
            describe_policies(&new.policies)
        ));
    }
    if old.transport != new.transport {
        let (before, after) =
            (describe_transport(old.transport), describe_transport(new.transport));
        say(format!("transport {before} → {after}"));
    }
    for gone in old.routes.iter().filter(|route| !new.routes.contains(route)) {
        say(format!("no setting for {}", describe_override(gone)));
    }
    for come in new.routes.iter().filter(|route| !old.routes.contains(route)) {
        say(format!("setting for {}", describe_override(come)));
    }
}

fn describe_transport(transport: Option<Transport>) -> String {
    transport.map_or_else(|| "by network".to_owned(), |transport| transport.to_string())
}

/// The policy of a peer, with the classes that have another.
fn describe_policies(policies: &PeerPolicies) -> String {
    let default = policies.default_policy().to_string();
    policies.classes().iter().fold(default, |text, one| text + ", " + &describe_class(one))
}

/// A class: its policy, and what narrows it.
fn describe_class(class: &TrafficClass) -> String {
    let TrafficClass { policy, dscp, protocol, ports, min_size, max_size } = class;
    let values = [
        dscp.map(|dscp| format!("DSCP {}", dscp.get())),
        protocol.map(|protocol| protocol.as_str().to_owned()),
        ports.map(|ports| format!("port {ports}")),
        min_size.map(|size| format!("from {size} bytes")),
        max_size.map(|size| format!("up to {size} bytes")),
    ];
    let values: Vec<_> = values.into_iter().flatten().collect();
    format!("{policy} ({})", values.join(", "))
}

/// A route override: its ends and what it says.
fn describe_override(route: &RouteOverride) -> String {
    let mut text = match route.local {
        Some(local) => format!("{local} → {}", route.remote),
        None => route.remote.to_string(),
    };
    let values = [
        route.delay.map(|delay| format!("delay {} ms", delay.as_millis())),
        route.threshold.map(|threshold| format!("threshold {}", threshold.get())),
        route.priority.map(|priority| format!("priority {}", priority.0)),
        route.transport.map(|transport| format!("transport {transport}")),
    ];
    for value in values.into_iter().flatten() {
        text += ", ";
        text += &value;
    }
    text
}

/// Delay and threshold as an operator reads them.
pub fn describe_timing(timing: Timing) -> String {
    format!("{} ms × {}", timing.delay.as_millis(), timing.threshold.get())
}

fn describe_duration(length: Duration) -> String {
    match length.as_millis() {
        0 if !length.is_zero() => format!("{} µs", length.as_micros()),
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        config::{AdapterBackend, ClassTimings, PrivateKey},
        ids::NodeKey,
        route::{Policy, policy::Dscp},
    };

    fn config() -> Config {
        let b =
            PeerConfig::new("b", NodeKey([2; 32])).with_address("10.1.0.2:3343".parse().unwrap());
        with_peer(Config::new("a", PrivateKey(Vec::new().into()), NodeKey([1; 32])), b)
    }

    fn with_peer(mut config: Config, peer: PeerConfig) -> Config {
        config.peers.push(peer);
        config
    }

    fn network(prefix: &str, metric: u32) -> NetworkConfig {
        let prefix = prefix.parse().unwrap();
        NetworkConfig {
            prefix,
            role: NetworkRole::Cluster,
            metric: Some(metric),
            capacity: None,
            transport: None,
        }
    }

    fn lines(change: impl Fn(&mut Config)) -> Vec<String> {
        let (old, mut new) = (config(), config());
        change(&mut new);
        diff_configs(&old, &new).unwrap().iter().map(ConfigChange::to_string).collect()
    }

    #[test]
    fn the_same_config_changes_nothing() {
        assert_eq!(diff_configs(&config(), &config()), Ok(Vec::new()));
    }

    #[test]
    fn each_change_is_one_line() {
        type Case = (fn(&mut Config), &'static [&'static str]);
        let cases: [Case; 19] = [
            (
                |c| {
                    c.site = "north".into();
                    c.topology.all_cross_subnet = true;
                    c.topology.keep_arp_settings = true;
                },
                &[
                    "~ site: none → north",
                    "~ all cross-subnet routes: no → yes",
                    "~ ARP settings kept: no → yes",
                ],
            ),
            (
                |c| c.topology.exclude.push(ExcludeRule::Interface("wlan*".into())),
                &["+ exclude wlan*"],
            ),
            (|c| c.failover.hold_down = Duration::from_secs(5), &["~ hold: 1 s → 5 s"]),
            (|c| c.failover.hold_down = Duration::from_millis(50), &["~ hold: 1 s → 50 ms"]),
            (
                |c| c.peers[0].names.push(HostName { host: "b.example".into(), port: 9 }),
                &["~ peer b: address b.example:9"],
            ),
            (|c| c.adapter.multicast = 0, &["~ multicast: 1000/s → off"]),
            (|c| c.adapter.forward = true, &["~ forwarding: no → yes"]),
            (
                |c| c.relay = RelayConfig { offer: true, limit: 5, use_relays: true },
                &["~ relay for peers: no → 5/s", "~ relays used: no → yes"],
            ),
            (|c| c.heartbeat.history = 20, &["~ history: 10 heartbeats → 20 heartbeats"]),
            (|c| c.session.rekey_interval = Duration::from_secs(60), &["~ rekey: 3600 s → 60 s"]),
            (
                |c| c.failover.pmtu_raise_timer = Duration::from_secs(5),
                &["~ raise timer of path MTUs: 60 s → 5 s"],
            ),
            (
                |c| c.failover.gone_after = Duration::from_secs(40),
                &["~ silence until a peer is gone: 10 s → 40 s"],
            ),
            (
                |c| c.heartbeat.timings = ClassTimings::WINDOWS_PROFILE,
                &[
                    "~ timing in one subnet: 30 ms × 5 → 1000 ms × 5",
                    "~ timing across subnets: 100 ms × 5 → 1000 ms × 5",
                    "~ timing across sites: 250 ms × 8 → 1000 ms × 5",
                ],
            ),
            (
                |c| c.networks.push(network("10.1.0.0/24", 7)),
                &["+ network 10.1.0.0/24: cluster, metric 7"],
            ),
            (
                |c| {
                    let network = network("10.1.0.0/24", 7);
                    c.networks.push(NetworkConfig { capacity: Some(2500), ..network });
                },
                &["+ network 10.1.0.0/24: cluster, metric 7, 2500 Mbit/s"],
            ),
            (
                |c| {
                    let voice = TrafficClass {
                        dscp: Dscp::from_name("ef"),
                        max_size: Some(300),
                        ..TrafficClass::new(Policy::Duplicate)
                    };
                    let policies = PeerPolicies::new(Policy::Balance);
                    c.peers[0].policies = policies.with_classes(vec![voice]).unwrap();
                },
                &["~ peer b: policy failover → balance, duplicate (DSCP 46, up to 300 bytes)"],
            ),
            (|c| c.peers.clear(), &["- peer b"]),
            (
                |c| {
                    let address = "10.1.0.3:3343".parse().unwrap();
                    c.peers.push(PeerConfig::new("c", NodeKey([3; 32])).with_address(address));
                },
                &["+ peer c: 10.1.0.3:3343"],
            ),
            (
                |c| {
                    let b = &mut c.peers[0];
                    b.name = "bee".into();
                    b.addresses = vec!["10.2.0.2:3343".parse().unwrap()];
                    let route = RouteOverride::to_remote(b.addresses[0]).with_priority(7);
                    b.routes.push(route.with_local("10.2.0.1".parse().unwrap()));
                },
                &[
                    "~ peer bee: it was b; its session starts anew",
                    "~ peer bee: no address 10.1.0.2:3343",
                    "~ peer bee: address 10.2.0.2:3343",
                    "~ peer bee: setting for 10.2.0.1 → 10.2.0.2:3343, priority 7",
                ],
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(lines(change), expected);
        }
    }

    #[test]
    fn networks_go_and_change() {
        let (mut old, mut new) = (config(), config());
        old.networks = vec![network("10.1.0.0/24", 1), network("10.2.0.0/24", 2)];
        new.networks = vec![network("10.2.0.0/24", 3)];
        let changes = diff_configs(&old, &new).unwrap();
        let lines: Vec<_> = changes.iter().map(ConfigChange::to_string).collect();
        let metric = "~ network 10.2.0.0/24: cluster, metric 2 → cluster, metric 3";
        assert_eq!(lines, ["- network 10.1.0.0/24", metric]);
    }

    #[test]
    fn the_order_of_peers_means_nothing() {
        let c = || PeerConfig::new("c", NodeKey([3; 32]));
        let (old, mut new) = (with_peer(config(), c()), with_peer(config(), c()));
        new.peers.reverse();
        assert_eq!(diff_configs(&old, &new), Ok(Vec::new()));
    }

    #[test]
    fn what_needs_a_new_process_is_refused_whole() {
        let changes: [fn(&mut Config); 15] = [
            |c| c.name = "z".into(),
            |c| c.public_key = NodeKey([9; 32]),
            |c| c.adapter.name = "netft1".into(),
            |c| c.adapter.backend = AdapterBackend::Plain,
            |c| c.adapter.mtu = 1300,
            |c| c.adapter.addrs.v4 = "169.254.7.7".parse().unwrap(),
            |c| c.adapter.addrs.v6 = "fe80::7".parse().unwrap(),
            |c| c.session.port = 1,
            |c| c.adapter.workers = 3,
            |c| c.adapter.busy_poll = Duration::ZERO,
            |c| c.retransmit_limits.age = Duration::from_millis(50),
            |c| c.retransmit_limits.bytes = 0,
            |c| c.runtime_dir = "/tmp".into(),
            |c| c.floating.ownership.voters = vec!["z".into()],
            |c| c.floating.ownership.store = Some("/tmp/votes".into()),
        ];
        let mut all = config();
        for change in changes {
            let mut new = config();
            new.failover.hold_down = Duration::ZERO;
            change(&mut new);
            change(&mut all);
            assert_eq!(diff_configs(&config(), &new).unwrap_err().len(), 1);
        }
        assert_eq!(diff_configs(&config(), &all).unwrap_err().len(), 15);
        let port = &diff_configs(&config(), &{
            let mut c = config();
            c.session.port = 1;
            c
        })
        .unwrap_err()[0];
        assert_eq!(port.to_string(), "`session.port` cannot change while netftd runs: 3343 → 1");
    }
}
