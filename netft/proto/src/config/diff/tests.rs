#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    config::{AdapterBackend, ClassTimings, PrivateKey},
    ids::NodeKey,
    route::{Policy, policy::Dscp},
};

fn config() -> Config {
    let b = PeerConfig::new("b", NodeKey([2; 32])).with_address("10.1.0.2:3343".parse().unwrap());
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
    let cases: [Case; 22] = [
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
        (|c| c.topology.exclude.push(ExcludeRule::Interface("wlan*".into())), &["+ exclude wlan*"]),
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
        (|c| c.session.aegis = false, &["~ AEGIS-256X4: yes → no"]),
        (
            |c| c.failover.objective.stall = Some(Duration::from_millis(60)),
            &["~ objective of drills: none → stall 60 ms"],
        ),
        (
            |c| c.failover.pmtu_raise_timer = Duration::from_secs(5),
            &["~ raise timer of path MTUs: 60 s → 5 s"],
        ),
        (
            |c| c.failover.gone_after = Duration::from_secs(40),
            &["~ silence until a peer is gone: 10 s → 40 s"],
        ),
        (
            |c| c.failover.unreachable_after = Duration::from_secs(40),
            &["~ silence until packets to a peer are answered as unreachable: 3 s → 40 s"],
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
    let changes: [fn(&mut Config); 21] = [
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
        |c| c.access.runtime_dir = "/tmp".into(),
        |c| c.floating.ownership.voters = vec!["z".into()],
        |c| c.floating.ownership.store = Some("/tmp/votes".into()),
        |c| c.floating.ownership.etcd.endpoints = vec!["etcd:2379".to_owned()],
        |c| {
            let tls = EtcdTls { authorities: "/a".into(), client: None };
            c.floating.ownership.etcd.tls = Some(tls);
        },
        |c| c.floating.ownership.etcd.prefix = "/east/".to_owned(),
        |c| c.floating.ownership.etcd.ttl = Duration::from_secs(9),
        |c| c.floating.ownership.etcd.user = Some("netft".to_owned()),
        |c| c.floating.ownership.etcd.password_file = Some("/tmp/password".into()),
    ];
    let mut all = config();
    for change in changes {
        let mut new = config();
        new.failover.hold_down = Duration::ZERO;
        change(&mut new);
        change(&mut all);
        assert_eq!(diff_configs(&config(), &new).unwrap_err().len(), 1);
    }
    assert_eq!(diff_configs(&config(), &all).unwrap_err().len(), 21);
    let [without, with] = [None, Some(TlsFiles { certificate: "/c".into(), key: "/k".into() })]
        .map(|client| {
            let mut new = config();
            new.floating.ownership.etcd.tls = Some(EtcdTls { authorities: "/a".into(), client });
            new
        });
    assert_eq!(diff_configs(&without, &with).unwrap_err().len(), 2);
    let port = &diff_configs(&config(), &{
        let mut c = config();
        c.session.port = 1;
        c
    })
    .unwrap_err()[0];
    assert_eq!(port.to_string(), "`session.port` cannot change while netftd runs: 3343 → 1");
}
