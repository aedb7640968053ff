//! What changes between two configs, in the operator's words; and what cannot. Pure.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::{
    config::{Backend, Config, Exclude, HostName, Network, Peer, Relay, Role, RouteOverride},
    route::{Carrier, Class, Policies, Timing, TrafficClass},
};

/// What becomes of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It comes.
    Added,
    /// It goes.
    Removed,
    /// It stays, and is different.
    Changed,
}

/// One change. Shown as an operator reads it: `+ peer c`, `~ hold: 1 s → 5 s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What becomes of it.
    pub mark: Mark,
    /// The thing, and its values.
    pub what: String,
}

impl Change {
    /// Something the new config has and the old one has not.
    pub fn added(what: impl Into<String>) -> Self {
        Self { mark: Mark::Added, what: what.into() }
    }

    /// Something only the old config has.
    pub fn removed(what: impl Into<String>) -> Self {
        Self { mark: Mark::Removed, what: what.into() }
    }

    /// Something both have, with other values.
    pub fn changed(what: impl Into<String>) -> Self {
        Self { mark: Mark::Changed, what: what.into() }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.mark {
            Mark::Added => '+',
            Mark::Removed => '-',
            Mark::Changed => '~',
        };
        write!(f, "{mark} {}", self.what)
    }
}

/// A change that needs a new process: what a node is, what its sockets, its device and its sessions
/// are made with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot change while it runs: {old} → {new}")]
pub struct Fixed {
    /// The setting.
    pub what: &'static str,
    /// As it is.
    pub old: String,
    /// As it was asked for.
    pub new: String,
}

/// What must be done so that a node of config `old` becomes one of config `new`.
///
/// # Errors
/// Everything that cannot change while a node runs.
pub fn diff(old: &Config, new: &Config) -> Result<Vec<Change>, Vec<Fixed>> {
    let fixed = fixed(old, new);
    if !fixed.is_empty() {
        return Err(fixed);
    }
    let mut changes = Vec::new();
    let mut set = |what: &str, old: String, new: String| {
        if old != new {
            changes.push(Change::changed(format!("{what}: {old} → {new}")));
        }
    };
    for (what, class) in [
        ("timing in one subnet", Class::SameSubnet),
        ("timing across subnets", Class::CrossSubnet),
        ("timing across sites", Class::CrossSite),
    ] {
        set(what, timing(old.timings.of(class)), timing(new.timings.of(class)));
    }
    set("hold", span(old.hold), span(new.hold));
    set("history", format!("{} heartbeats", old.history), format!("{} heartbeats", new.history));
    set("rekey", span(old.rekey), span(new.rekey));
    set("raise timer of path MTUs", span(old.mtu_raise), span(new.mtu_raise));
    let bound = |rate: u32| if rate == 0 { "off".to_owned() } else { format!("{rate}/s") };
    set("multicast", bound(old.multicast), bound(new.multicast));
    let (before, after) = (relay(old.relay), relay(new.relay));
    set("relay for peers", before, after);
    set("relays used", yes(old.relay.uses), yes(new.relay.uses));
    set("site", named(&old.site), named(&new.site));
    set("all cross-subnet routes", yes(old.all_cross_subnet), yes(new.all_cross_subnet));
    excludes(old, new, &mut changes);
    networks(old, new, &mut changes);
    peers(old, new, &mut changes);
    Ok(changes)
}

fn fixed(old: &Config, new: &Config) -> Vec<Fixed> {
    let backend = |config: &Config| match config.backend {
        Backend::Offload => "offload".to_owned(),
        Backend::Plain => "plain".to_owned(),
    };
    let folder = |config: &Config| config.runtime_dir.display().to_string();
    let kept = |config: &Config| match config.resend {
        limits if limits.off() => "nothing".to_owned(),
        limits => format!("{} bytes for {}", limits.bytes, span(limits.age)),
    };
    let settings: [(&'static str, String, String); 12] = [
        ("the node's name", old.name.clone(), new.name.clone()),
        ("the node's key", old.public_key.to_string(), new.public_key.to_string()),
        ("the adapter's name", old.adapter.clone(), new.adapter.clone()),
        ("the adapter's backend", backend(old), backend(new)),
        ("the adapter's MTU", old.mtu.to_string(), new.mtu.to_string()),
        ("the virtual IPv4 address", old.addrs.v4.to_string(), new.addrs.v4.to_string()),
        ("the virtual IPv6 address", old.addrs.v6.to_string(), new.addrs.v6.to_string()),
        ("the UDP port", old.port.to_string(), new.port.to_string()),
        ("the number of workers", old.workers.to_string(), new.workers.to_string()),
        ("busy polling", span(old.busy_poll), span(new.busy_poll)),
        // The workers' rings are made with it.
        ("what is kept to be sent again", kept(old), kept(new)),
        ("the runtime directory", folder(old), folder(new)),
    ];
    settings
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(what, old, new)| Fixed { what, old, new })
        .collect()
}

fn relay(relay: Relay) -> String {
    if relay.offer { format!("{}/s", relay.limit) } else { "no".to_owned() }
}

fn named(site: &str) -> String {
    if site.is_empty() { "none".to_owned() } else { site.to_owned() }
}

fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

fn excludes(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    let what = |exclude: &Exclude| match exclude {
        Exclude::Interface(name) => format!("exclude {name}"),
        Exclude::Prefix(prefix) => format!("exclude {prefix}"),
    };
    let gone = old.exclude.iter().filter(|exclude| !new.exclude.contains(exclude));
    changes.extend(gone.map(|exclude| Change::removed(what(exclude))));
    let come = new.exclude.iter().filter(|exclude| !old.exclude.contains(exclude));
    changes.extend(come.map(|exclude| Change::added(what(exclude))));
}

fn networks(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    for network in &old.networks {
        let prefix = network.prefix;
        match new.networks.iter().find(|other| other.prefix == prefix) {
            None => changes.push(Change::removed(format!("network {prefix}"))),
            Some(other) if other != network => {
                let (before, after) = (use_of(network), use_of(other));
                changes.push(Change::changed(format!("network {prefix}: {before} → {after}")));
            }
            Some(_) => {}
        }
    }
    for network in &new.networks {
        if old.networks.iter().all(|other| other.prefix != network.prefix) {
            let what = format!("network {}: {}", network.prefix, use_of(network));
            changes.push(Change::added(what));
        }
    }
}

fn use_of(network: &Network) -> String {
    let role = match network.role {
        Role::None => "not used",
        Role::Cluster => "cluster",
        Role::ClusterAndClient => "cluster and client",
    };
    let values = [
        network.metric.map(|metric| format!(", metric {metric}")),
        network.capacity.map(|capacity| format!(", {capacity} Mbit/s")),
        network.carrier.map(|carrier| format!(", carrier {carrier}")),
    ];
    values.into_iter().flatten().fold(role.to_owned(), |text, value| text + &value)
}

fn peers(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    for peer in &old.peers {
        match new.peers.iter().find(|other| other.key == peer.key) {
            None => changes.push(Change::removed(format!("peer {}", peer.name))),
            Some(other) => peer_changes(peer, other, changes),
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
            changes.push(Change::added(format!("peer {}: {addresses}", peer.name)));
        }
    }
}

fn peer_changes(old: &Peer, new: &Peer, changes: &mut Vec<Change>) {
    let name = &new.name;
    let anew = "its session starts anew";
    let mut say = |what: String| changes.push(Change::changed(format!("peer {name}: {what}")));
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
        say(format!("policy {} → {}", policies(&old.policies), policies(&new.policies)));
    }
    if old.carrier != new.carrier {
        let (before, after) = (carrier(old.carrier), carrier(new.carrier));
        say(format!("carrier {before} → {after}"));
    }
    for gone in old.routes.iter().filter(|route| !new.routes.contains(route)) {
        say(format!("no setting for {}", setting(gone)));
    }
    for come in new.routes.iter().filter(|route| !old.routes.contains(route)) {
        say(format!("setting for {}", setting(come)));
    }
}

fn carrier(carrier: Option<Carrier>) -> String {
    carrier.map_or_else(|| "by network".to_owned(), |carrier| carrier.to_string())
}

/// The policy of a peer, with the classes that have another.
fn policies(policies: &Policies) -> String {
    let default = policies.default_policy().to_string();
    policies.classes().iter().fold(default, |text, one| text + ", " + &class(one))
}

/// A class: its policy, and what narrows it.
fn class(class: &TrafficClass) -> String {
    let TrafficClass { policy, dscp, protocol, ports, min_size, max_size } = class;
    let values = [
        dscp.map(|dscp| format!("DSCP {}", dscp.get())),
        protocol.map(|protocol| protocol.name().to_owned()),
        ports.map(|ports| format!("port {ports}")),
        min_size.map(|size| format!("from {size} bytes")),
        max_size.map(|size| format!("up to {size} bytes")),
    ];
    let values: Vec<_> = values.into_iter().flatten().collect();
    format!("{policy} ({})", values.join(", "))
}

/// A route override: its ends and what it says.
fn setting(route: &RouteOverride) -> String {
    let mut text = match route.local {
        Some(local) => format!("{local} → {}", route.remote),
        None => route.remote.to_string(),
    };
    let values = [
        route.delay.map(|delay| format!("delay {} ms", delay.as_millis())),
        route.threshold.map(|threshold| format!("threshold {}", threshold.get())),
        route.priority.map(|priority| format!("priority {}", priority.0)),
        route.carrier.map(|carrier| format!("carrier {carrier}")),
    ];
    for value in values.into_iter().flatten() {
        text += ", ";
        text += &value;
    }
    text
}

/// Delay and threshold as an operator reads them.
pub fn timing(timing: Timing) -> String {
    format!("{} ms × {}", timing.delay.as_millis(), timing.threshold.get())
}

fn span(length: Duration) -> String {
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
        config::{PrivateKey, Timings},
        ids::NodeKey,
        route::{Policy, policy::Dscp},
    };

    fn config() -> Config {
        let b = Peer::new("b", NodeKey([2; 32])).address("10.1.0.2:3343".parse().unwrap());
        Config::new("a", PrivateKey(Vec::new().into()), NodeKey([1; 32])).peer(b)
    }

    fn network(prefix: &str, metric: u32) -> Network {
        let prefix = prefix.parse().unwrap();
        Network { prefix, role: Role::Cluster, metric: Some(metric), capacity: None, carrier: None }
    }

    fn lines(change: impl Fn(&mut Config)) -> Vec<String> {
        let (old, mut new) = (config(), config());
        change(&mut new);
        diff(&old, &new).unwrap().iter().map(Change::to_string).collect()
    }

    #[test]
    fn the_same_config_changes_nothing() {
        assert_eq!(diff(&config(), &config()), Ok(Vec::new()));
    }

    #[test]
    fn each_change_is_one_line() {
        type Case = (fn(&mut Config), &'static [&'static str]);
        let cases: [Case; 17] = [
            (
                |c| {
                    c.site = "north".into();
                    c.all_cross_subnet = true;
                },
                &["~ site: none → north", "~ all cross-subnet routes: no → yes"],
            ),
            (|c| c.exclude.push(Exclude::Interface("wlan*".into())), &["+ exclude wlan*"]),
            (|c| c.hold = Duration::from_secs(5), &["~ hold: 1 s → 5 s"]),
            (|c| c.hold = Duration::from_millis(50), &["~ hold: 1 s → 50 ms"]),
            (
                |c| c.peers[0].names.push(HostName { host: "b.example".into(), port: 9 }),
                &["~ peer b: address b.example:9"],
            ),
            (|c| c.multicast = 0, &["~ multicast: 1000/s → off"]),
            (
                |c| c.relay = Relay { offer: true, limit: 5, uses: true },
                &["~ relay for peers: no → 5/s", "~ relays used: no → yes"],
            ),
            (|c| c.history = 20, &["~ history: 10 heartbeats → 20 heartbeats"]),
            (|c| c.rekey = Duration::from_secs(60), &["~ rekey: 3600 s → 60 s"]),
            (|c| c.mtu_raise = Duration::from_secs(5), &["~ raise timer of path MTUs: 60 s → 5 s"]),
            (
                |c| c.timings = Timings::WINDOWS,
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
                    c.networks.push(Network { capacity: Some(2500), ..network });
                },
                &["+ network 10.1.0.0/24: cluster, metric 7, 2500 Mbit/s"],
            ),
            (
                |c| {
                    let voice = TrafficClass {
                        dscp: Dscp::named("ef"),
                        max_size: Some(300),
                        ..TrafficClass::new(Policy::Duplicate)
                    };
                    let policies = Policies::new(Policy::Balance);
                    c.peers[0].policies = policies.with_classes(vec![voice]).unwrap();
                },
                &["~ peer b: policy failover → balance, duplicate (DSCP 46, up to 300 bytes)"],
            ),
            (|c| c.peers.clear(), &["- peer b"]),
            (
                |c| {
                    let address = "10.1.0.3:3343".parse().unwrap();
                    c.peers.push(Peer::new("c", NodeKey([3; 32])).address(address));
                },
                &["+ peer c: 10.1.0.3:3343"],
            ),
            (
                |c| {
                    let b = &mut c.peers[0];
                    b.name = "bee".into();
                    b.addresses = vec!["10.2.0.2:3343".parse().unwrap()];
                    let route = RouteOverride::to(b.addresses[0]).priority(7);
                    b.routes.push(route.from("10.2.0.1".parse().unwrap()));
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
        let changes = diff(&old, &new).unwrap();
        let lines: Vec<_> = changes.iter().map(Change::to_string).collect();
        let metric = "~ network 10.2.0.0/24: cluster, metric 2 → cluster, metric 3";
        assert_eq!(lines, ["- network 10.1.0.0/24", metric]);
    }

    #[test]
    fn the_order_of_peers_means_nothing() {
        let c = || Peer::new("c", NodeKey([3; 32]));
        let (old, mut new) = (config().peer(c()), config().peer(c()));
        new.peers.reverse();
        assert_eq!(diff(&old, &new), Ok(Vec::new()));
    }

    #[test]
    fn what_needs_a_new_process_is_refused_whole() {
        let changes: [fn(&mut Config); 13] = [
            |c| c.name = "z".into(),
            |c| c.public_key = NodeKey([9; 32]),
            |c| c.adapter = "netft1".into(),
            |c| c.backend = Backend::Plain,
            |c| c.mtu = 1300,
            |c| c.addrs.v4 = "169.254.7.7".parse().unwrap(),
            |c| c.addrs.v6 = "fe80::7".parse().unwrap(),
            |c| c.port = 1,
            |c| c.workers = 3,
            |c| c.busy_poll = Duration::ZERO,
            |c| c.resend.age = Duration::from_millis(50),
            |c| c.resend.bytes = 0,
            |c| c.runtime_dir = "/tmp".into(),
        ];
        let mut all = config();
        for change in changes {
            let mut new = config();
            new.hold = Duration::ZERO;
            change(&mut new);
            change(&mut all);
            assert_eq!(diff(&config(), &new).unwrap_err().len(), 1);
        }
        assert_eq!(diff(&config(), &all).unwrap_err().len(), 12);
        let port = &diff(&config(), &{
            let mut c = config();
            c.port = 1;
            c
        })
        .unwrap_err()[0];
        assert_eq!(port.to_string(), "the UDP port cannot change while it runs: 3343 → 1");
    }
}
