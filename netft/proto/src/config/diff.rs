//! Difference of two configs as an operator reads it, and the settings that need a restart.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    config::{
        keys,
        network::{NetworkConfig, NetworkRole},
        peer::{HostName, PeerConfig, RouteOverride},
        settings::{Config, EtcdTls, ExcludeRule, RelayConfig, TlsFiles},
    },
    drill::report::DrillObjective,
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

/// As [`diff_configs`], where this node's key may have been replaced by its cluster.
///
/// # Errors
/// Every other difference that needs a restart.
pub fn diff_rotated_configs(
    old: &Config,
    new: &Config,
) -> Result<Vec<ConfigChange>, Vec<RestartRequired>> {
    let with_new_key = Config { key: new.key.clone(), public_key: new.public_key, ..old.clone() };
    let mut changes = diff_configs(&with_new_key, new)?;
    if old.public_key != new.public_key {
        let what = format!("key of this node: {} → {}", old.public_key, new.public_key);
        changes.push(ConfigChange::changed(what));
    }
    Ok(changes)
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
    set("AEGIS-256X4", yes_or_no(old.session.aegis), yes_or_no(new.session.aegis));
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
    set(
        "silence until packets to a peer are answered as unreachable",
        describe_duration(old.failover.unreachable_after),
        describe_duration(new.failover.unreachable_after),
    );
    set(
        "objective of drills",
        describe_objective(old.failover.objective),
        describe_objective(new.failover.objective),
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
    let folder = |config: &Config| config.access.runtime_dir.display().to_string();
    let bytes = |config: &Config| config.retransmit_limits.bytes.to_string();
    let voters = |config: &Config| config.floating.ownership.voters.join(", ");
    // Another adapter's name, refused by itself, leads to another default.
    let store = |config: &Config| {
        let path = config.floating.ownership.store_path(&old.adapter.name);
        path.display().to_string()
    };
    let listen = |config: &Config| {
        config.access.metrics.listen.map_or_else(|| "none".to_owned(), |it| it.to_string())
    };
    let token = |config: &Config| describe_path(config.access.metrics.token_file.as_deref());
    let tls = |config: &Config, file: fn(&TlsFiles) -> &Path| {
        describe_path(config.access.metrics.tls.as_ref().map(file))
    };
    let certificate = |config: &Config| tls(config, |files| &files.certificate);
    let key = |config: &Config| tls(config, |files| &files.key);
    let age = |config: &Config| describe_duration(config.retransmit_limits.age);
    let etcd = |config: &Config| config.floating.ownership.etcd.clone();
    let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let user = |config: &Config| text(etcd(config).user);
    let etcd_file = |config: &Config, file: fn(&EtcdTls) -> Option<&PathBuf>| {
        let found = etcd(config).tls.as_ref().and_then(file).map(|path| path.display().to_string());
        text(found)
    };
    let authorities = |config: &Config| etcd_file(config, |tls| Some(&tls.authorities));
    let client_certificate =
        |config: &Config| etcd_file(config, |tls| Some(&tls.client.as_ref()?.certificate));
    let client_key = |config: &Config| etcd_file(config, |tls| Some(&tls.client.as_ref()?.key));
    let password_file =
        |config: &Config| text(etcd(config).password_file.map(|path| path.display().to_string()));
    let settings: [(&'static str, String, String); 27] = [
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
        (keys::METRICS_LISTEN.path, listen(old), listen(new)),
        (keys::METRICS_TOKEN_FILE.path, token(old), token(new)),
        (keys::METRICS_CERTIFICATE_FILE.path, certificate(old), certificate(new)),
        (keys::METRICS_KEY_FILE.path, key(old), key(new)),
        (keys::ETCD_ENDPOINTS.path, etcd(old).endpoints.join(", "), etcd(new).endpoints.join(", ")),
        (keys::ETCD_CA_FILE.path, authorities(old), authorities(new)),
        (keys::ETCD_CERTIFICATE_FILE.path, client_certificate(old), client_certificate(new)),
        (keys::ETCD_KEY_FILE.path, client_key(old), client_key(new)),
        (keys::ETCD_PREFIX.path, etcd(old).prefix, etcd(new).prefix),
        (keys::ETCD_TTL.path, describe_duration(etcd(old).ttl), describe_duration(etcd(new).ttl)),
        (keys::ETCD_USER.path, user(old), user(new)),
        (keys::ETCD_PASSWORD_FILE.path, password_file(old), password_file(new)),
        ("--runtime-dir", folder(old), folder(new)),
    ];
    settings
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(setting, old, new)| RestartRequired { setting, old, new })
        .collect()
}

fn describe_path(path: Option<&Path>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
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
    let zone = |config: &Config| config.floating.dns.as_ref().map(|dns| dns.zone.clone());
    match (zone(old), zone(new)) {
        (None, None) => {}
        (None, Some(zone)) => changes.push(ConfigChange::added(format!("names in {zone}"))),
        (Some(zone), None) => changes.push(ConfigChange::removed(format!("names in {zone}"))),
        (Some(_), Some(zone)) if old.floating.dns != new.floating.dns => {
            changes.push(ConfigChange::changed(format!("names in {zone}")));
        }
        (Some(_), Some(_)) => {}
    }
}

fn diff_peers(old: &Config, new: &Config, changes: &mut Vec<ConfigChange>) {
    for peer in &old.peers {
        match new.peers.iter().find(|next| peer.is_followed_by(next)) {
            None => changes.push(ConfigChange::removed(format!("peer {}", peer.name))),
            Some(other) => diff_peer(peer, other, changes),
        }
    }
    for peer in &new.peers {
        if !old.peers.iter().any(|before| before.is_followed_by(peer)) {
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
    if old.key != new.key {
        say(format!("key {} → {}; its session stays", old.key, new.key));
    }
    if let Some(key) = new.next_key.filter(|key| old.next_key != Some(*key)) {
        say(format!("its next key is {key}, accepted beside the present one"));
    } else if old.key == new.key && old.next_key != new.next_key {
        say("no next key".to_owned());
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

fn describe_objective(objective: DrillObjective) -> String {
    let DrillObjective { detection, stall, lost } = objective;
    let parts = [
        detection.map(|most| format!("detection {}", describe_duration(most))),
        stall.map(|most| format!("stall {}", describe_duration(most))),
        lost.map(|most| format!("{most} frames lost")),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn describe_duration(length: Duration) -> String {
    match length.as_millis() {
        0 if !length.is_zero() => format!("{} µs", length.as_micros()),
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests;
