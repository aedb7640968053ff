#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::{
    config::{Backend, Config, Exclude, Network, Peer, PrivateKey, Role, RouteOverride, Timings},
    ids::{NodeKey, virtual_addrs::VirtualAddrs},
    route::{Attributes, Carrier, Class, Delay, Priority, Reason, Threshold},
    wire::interfaces::{Endpoint, Interfaces},
};

pub(crate) fn config(peers: &[&[&str]]) -> Config {
    let key = NodeKey([1; 32]);
    let peers = peers.iter().enumerate().map(|(place, addresses)| {
        let key = NodeKey([place as u8 + 2; 32]);
        Peer {
            id: PeerId(place as u16),
            name: format!("n{}", place + 2),
            key,
            addrs: VirtualAddrs::derive(&key),
            addresses: addresses.iter().map(|addr| end(addr)).collect(),
            names: Vec::new(),
            routes: Vec::new(),
            policies: crate::route::Policies::default(),
            carrier: None,
        }
    });
    Config {
        name: "n1".into(),
        key: PrivateKey(Vec::new().into()),
        public_key: key,
        adapter: "netft0".into(),
        backend: Backend::Offload,
        mtu: 1420,
        addrs: VirtualAddrs::derive(&key),
        port: 3343,
        workers: 1,
        busy_poll: Duration::ZERO,
        runtime_dir: "/run/netft".into(),
        hold: Duration::from_secs(3),
        mtu_raise: Duration::from_secs(60),
        multicast: 0,
        relay: crate::config::Relay::default(),
        resend: crate::loss_detection::Limits::default(),
        history: 10,
        rekey: Duration::from_secs(3600),
        timings: Timings::default(),
        site: String::new(),
        all_cross_subnet: false,
        exclude: Vec::new(),
        networks: Vec::new(),
        peers: peers.collect(),
    }
}

/// `10.0.0.1` → port 3343; with a port, as given.
fn end(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| SocketAddr::new(text.parse().unwrap(), 3343))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn interface(index: u32, name: &str, addrs: &[&str]) -> Interface {
    let addrs = addrs.iter().map(|text| {
        let net: IpNet = text.trim_end_matches('s').parse().unwrap();
        LocalAddr { addr: net.addr(), prefix: net.trunc(), secondary: text.ends_with('s') }
    });
    Interface {
        index,
        name: name.into(),
        kind: None,
        up: true,
        carrier: true,
        loopback: name == "lo",
        mtu: 1500,
        gateway: false,
        speed: None,
        addrs: addrs.collect(),
    }
}

pub(crate) fn network(prefix: &str, role: Role, metric: Option<u32>) -> Network {
    Network { prefix: prefix.parse().unwrap(), role, metric, capacity: None, carrier: None }
}

fn three() -> Vec<Interface> {
    vec![
        interface(1, "lo", &["127.0.0.1/8", "::1/128"]),
        interface(2, "eth0", &["10.1.0.1/24", "fe80::1/64"]),
        interface(3, "eth1", &["10.2.0.1/24"]),
        interface(4, "eth2", &["fd00:3::1/64"]),
        interface(9, "netft0", &["169.254.7.7/32"]),
    ]
}

/// A plan before any peer told anything.
fn plan(config: &Config, interfaces: &[Interface], sources: &Sources, known: &[Planned]) -> Plan {
    let (ways, offers) = (Ways::new(), Offers::new());
    let around = Surroundings {
        interfaces,
        sources,
        ways: &ways,
        offers: &offers,
        resolved: &Resolved::new(),
    };
    super::plan(config, &around, known)
}

/// `remote <- local%ifindex` of every route.
fn pairs(plan: &Plan) -> Vec<String> {
    plan.routes
        .iter()
        .map(|route| {
            let spec = &route.spec;
            format!("{} <- {}%{}", spec.real_remote.ip(), spec.real_local.ip(), route.ifindex)
        })
        .collect()
}

#[test]
fn three_shared_networks_make_exactly_three_routes() {
    let config = config(&[&["10.1.0.2", "10.2.0.2", "fd00:3::2"]]);
    let plan = plan(&config, &three(), &Sources::new(), &[]);
    assert_eq!(
        pairs(&plan),
        ["10.1.0.2 <- 10.1.0.1%2", "10.2.0.2 <- 10.2.0.1%3", "fd00:3::2 <- fd00:3::1%4"]
    );
    assert_eq!(plan.skipped, []);
    let spec = &plan.routes[0].spec;
    assert_eq!(spec.attributes.0, Attributes::SAME_SUBNET);
    assert_eq!(spec.priority, Priority(2000));
    assert_eq!(spec.timing, Class::SameSubnet.default_timing());
    assert_eq!(spec.real_local, end("10.1.0.1:3343"));
    assert_eq!(spec.virtual_local, IpAddr::V6(config.addrs.v6));
    assert_eq!(spec.virtual_remote, IpAddr::V6(config.peers[0].addrs.v6));
}

#[test]
fn each_remote_address_gets_the_one_route_the_rules_allow() {
    let docker = "br-0123456789ab";
    let exclude = |prefix| vec![network(prefix, Role::None, None)];
    let only = |prefix| vec![network(prefix, Role::Cluster, None)];
    type Case =
        (&'static str, Vec<Interface>, Vec<Network>, &'static str, Result<&'static str, Why>);
    let cases: Vec<Case> = vec![
        ("router", three(), vec![], "10.9.0.2", Ok("10.9.0.2 <- 10.1.0.1%2")),
        ("no way", three(), vec![], "10.8.0.2", Err(Why::NoWay)),
        ("role none", three(), exclude("10.1.0.0/16"), "10.1.0.2", Err(Why::NetworkNotUsed)),
        ("others stay", three(), exclude("10.1.0.0/16"), "10.2.0.2", Ok("10.2.0.2 <- 10.2.0.1%3")),
        ("listed", three(), only("10.1.0.0/24"), "10.1.0.2", Ok("10.1.0.2 <- 10.1.0.1%2")),
        ("not listed", three(), only("10.1.0.0/24"), "10.2.0.2", Err(Why::NoWay)),
        ("loopback", three(), vec![], "127.0.0.2", Err(Why::Loopback)),
        ("listed v4", three(), only("127.0.0.0/8"), "127.0.0.2", Ok("127.0.0.2 <- 127.0.0.1%1")),
        ("ports", three(), only("::/0"), "[::1]:4000", Ok("::1 <- ::1%1")),
        ("itself", three(), only("::/0"), "[::1]:3343", Err(Why::NoWay)),
        ("own", three(), vec![], "10.2.0.1", Err(Why::Own)),
        ("any", three(), vec![], "0.0.0.0", Err(Why::NotUnicast)),
        ("multicast", three(), vec![], "ff02::1", Err(Why::NotUnicast)),
        ("scopeless", three(), vec![], "fe80::2", Err(Why::NoScope)),
        ("scoped", three(), vec![], "[fe80::2%2]:3343", Ok("fe80::2 <- fe80::1%2")),
        ("other scope", three(), vec![], "[fe80::2%3]:3343", Err(Why::NoWay)),
        ("over the adapter", three(), vec![], "10.7.0.2", Err(Why::Excluded)),
        (
            "lowest",
            vec![interface(2, "a", &["10.1.0.9/24", "10.1.0.3/24"])],
            vec![],
            "10.1.0.2",
            Ok("10.1.0.2 <- 10.1.0.3%2"),
        ),
        (
            "first",
            vec![interface(2, "a", &["10.1.0.9/24", "10.1.0.3/24s"])],
            vec![],
            "10.1.0.2",
            Ok("10.1.0.2 <- 10.1.0.9%2"),
        ),
        (
            "longest",
            vec![interface(2, "a", &["10.1.0.3/16"]), interface(3, "b", &["10.1.0.9/24"])],
            vec![],
            "10.1.0.2",
            Ok("10.1.0.2 <- 10.1.0.9%3"),
        ),
        (
            "docker",
            vec![interface(2, "docker0", &["10.1.0.1/24"])],
            vec![],
            "10.1.0.2",
            Err(Why::NoWay),
        ),
        (
            "docker net",
            vec![interface(2, docker, &["10.1.0.1/24"])],
            vec![],
            "10.1.0.2",
            Err(Why::NoWay),
        ),
        (
            "docker listed",
            vec![interface(2, docker, &["10.1.0.1/24"])],
            only("10.1.0.0/24"),
            "10.1.0.2",
            Ok("10.1.0.2 <- 10.1.0.1%2"),
        ),
        (
            "lan bridge",
            vec![interface(2, "br-lan", &["10.1.0.1/24"])],
            vec![],
            "10.1.0.2",
            Ok("10.1.0.2 <- 10.1.0.1%2"),
        ),
        (
            "veth",
            vec![interface(2, "veth1a2b", &["10.1.0.1/24"])],
            vec![],
            "10.1.0.2",
            Ok("10.1.0.2 <- 10.1.0.1%2"),
        ),
    ];
    let sources = Sources::from([
        (ip("10.9.0.2"), (ip("10.1.0.1"), 2)),
        (ip("10.7.0.2"), (ip("169.254.7.7"), 9)),
    ]);
    for (case, interfaces, networks, remote, wanted) in cases {
        let config = Config { networks, ..config(&[&[remote]]) };
        let plan = plan(&config, &interfaces, &sources, &[]);
        match wanted {
            Ok(pair) => assert_eq!(pairs(&plan), [pair], "{case}"),
            Err(why) => {
                assert_eq!(plan.routes, [], "{case}");
                assert_eq!(plan.skipped.iter().map(|skip| skip.why).collect::<Vec<_>>(), [why]);
            }
        }
    }
}

#[test]
fn no_end_is_a_virtual_address() {
    let mut config = config(&[&["10.1.0.2"]]);
    let own = IpAddr::V4(config.addrs.v4);
    let far = config.peers[0].addrs.v4;
    config.peers[0].addresses = vec![SocketAddr::new(own, 3343), SocketAddr::new(far.into(), 1)];
    // The adapter under another name, and a careless prefix on a real interface.
    let tap = interface(5, "renamed", &[&format!("{own}/16")]);
    let plan = plan(&config, &[tap], &Sources::new(), &[]);
    assert_eq!(plan.routes, []);
    assert!(plan.skipped.iter().all(|skip| skip.why == Why::Virtual), "{:?}", plan.skipped);

    config.peers[0].addresses = vec![end("169.254.99.1")];
    let tap = interface(5, "renamed", &[&format!("{own}/16")]);
    assert_eq!(self::plan(&config, &[tap], &Sources::new(), &[]).routes, []);
}

#[test]
fn priority_is_the_sum_of_the_metrics_of_both_networks() {
    let cases = [
        (vec![], "10.1.0.2", 2000),
        (vec![network("10.1.0.0/16", Role::Cluster, Some(7))], "10.1.0.2", 14),
        (vec![network("10.0.0.0/8", Role::ClusterAndClient, None)], "10.1.0.2", 20_000),
        (
            vec![
                network("10.0.0.0/8", Role::Cluster, Some(5)),
                network("10.1.0.0/24", Role::Cluster, Some(70)),
                network("10.9.0.0/24", Role::Cluster, Some(300)),
            ],
            "10.9.0.2",
            370,
        ),
        (vec![network("10.1.0.0/24", Role::ClusterAndClient, Some(3))], "10.9.0.2", 10_003),
        (vec![network("10.1.0.0/24", Role::Cluster, Some(u32::MAX))], "10.1.0.2", u32::MAX),
    ];
    let sources = Sources::from([(ip("10.9.0.2"), (ip("10.1.0.1"), 2))]);
    for (networks, remote, wanted) in cases {
        let config = Config { networks, ..config(&[&[remote]]) };
        let plan = plan(&config, &three(), &sources, &[]);
        assert_eq!(plan.routes[0].spec.priority, Priority(wanted), "{remote}");
    }
}

#[test]
fn cross_subnet_routes_have_their_own_attributes_and_timing() {
    let config = config(&[&["10.9.0.2"]]);
    let sources = Sources::from([(ip("10.9.0.2"), (ip("10.2.0.1"), 3))]);
    let plan = plan(&config, &three(), &sources, &[]);
    assert_eq!(plan.routes[0].spec.attributes.0, Attributes::CROSS_SUBNET);
    assert_eq!(plan.routes[0].spec.timing, Class::CrossSubnet.default_timing());
    assert_eq!(unpaired(&config, &three(), &Resolved::new()), BTreeSet::from([ip("10.9.0.2")]));
}

/// The route's own entry before the peer's, the peer's before the networks'.
#[test]
fn the_carrier_is_as_the_nearest_entry_says() {
    let carriers = |peer: Option<Carrier>, route: Option<Carrier>| {
        let mut config = config(&[&["10.1.0.2", "10.2.0.2"]]);
        let prefix = "10.1.0.0/24".parse().unwrap();
        let (role, carrier) = (Role::Cluster, Some(Carrier::Quic));
        config.networks = vec![
            Network { prefix, role, metric: None, capacity: None, carrier },
            network("10.2.0.0/24", role, None),
        ];
        config.peers[0].carrier = peer;
        let second = RouteOverride { carrier: route, ..RouteOverride::to(end("10.2.0.2")) };
        config.peers[0].routes = vec![second];
        let plan = plan(&config, &three(), &Sources::new(), &[]);
        plan.routes.iter().map(|route| route.spec.carrier).collect::<Vec<_>>()
    };
    let (udp, quic) = (Carrier::Udp, Carrier::Quic);
    assert_eq!(carriers(None, None), [quic, udp]);
    assert_eq!(carriers(Some(udp), None), [udp, udp]);
    assert_eq!(carriers(Some(quic), None), [quic, quic]);
    assert_eq!(carriers(Some(quic), Some(udp)), [quic, udp]);
    assert_eq!(carriers(None, Some(quic)), [quic, quic]);
}

#[test]
fn an_override_replaces_what_it_names_and_pins_its_interface() {
    let mut config = config(&[&["10.1.0.2", "10.2.0.2"]]);
    let plain = RouteOverride {
        local: None,
        remote: end("10.1.0.2"),
        delay: Some(Delay::from_millis(77).unwrap()),
        threshold: None,
        priority: Some(Priority(5)),
        carrier: None,
    };
    let across = RouteOverride {
        local: Some(ip("10.1.0.1")),
        remote: end("10.2.0.2"),
        delay: None,
        threshold: Some(Threshold::new(9).unwrap()),
        priority: None,
        carrier: None,
    };
    let absent = RouteOverride { local: Some(ip("10.4.0.1")), ..across.clone() };
    config.peers[0].routes = vec![plain, across, absent];
    let plan = plan(&config, &three(), &Sources::new(), &[]);
    assert_eq!(
        pairs(&plan),
        ["10.1.0.2 <- 10.1.0.1%2", "10.2.0.2 <- 10.1.0.1%2", "10.2.0.2 <- 10.4.0.1%0"]
    );
    let [first, second, third] = &plan.routes[..] else { panic!("{plan:?}") };
    assert_eq!(first.spec.attributes.0, Attributes::SAME_SUBNET | Attributes::PINNED);
    assert_eq!(first.spec.timing.delay.as_millis(), 77);
    assert_eq!(first.spec.timing.threshold.get(), 5);
    assert_eq!(first.spec.priority, Priority(5));
    assert_eq!(second.spec.attributes.0, Attributes::CROSS_SUBNET | Attributes::PINNED);
    assert_eq!(second.spec.timing.delay.as_millis(), 100);
    assert_eq!(second.spec.timing.threshold.get(), 9);
    assert_eq!(faults(std::slice::from_ref(third), &three())[0].fault, Some(Reason::AddressGone));
}

#[test]
fn two_nodes_on_one_loopback_address_pair_under_pinned_addresses() {
    let mut config = config(&[&["127.0.0.1"]]);
    config.networks = vec![network("127.0.0.0/8", Role::Cluster, None)];
    let pin = RouteOverride {
        local: Some(ip("127.0.0.2")),
        remote: end("127.0.0.1"),
        delay: None,
        threshold: None,
        priority: None,
        carrier: None,
    };
    config.peers[0].routes = vec![pin];
    let plan = plan(&config, &three(), &Sources::new(), &[]);
    assert_eq!(pairs(&plan), ["127.0.0.1 <- 127.0.0.2%1"]);
    assert_eq!(faults(&plan.routes, &three()), [Health { ifindex: 1, fault: None }]);
}

#[test]
fn a_route_whose_interface_vanished_stays_and_is_faulted() {
    let config = config(&[&["10.1.0.2", "10.9.0.2"]]);
    // Both could be reached over eth1 once eth0 is gone.
    let before = Sources::from([(ip("10.9.0.2"), (ip("10.1.0.1"), 2))]);
    let after = Sources::from([
        (ip("10.1.0.2"), (ip("10.2.0.1"), 3)),
        (ip("10.9.0.2"), (ip("10.2.0.1"), 3)),
    ]);
    let known = plan(&config, &three(), &before, &[]).routes;
    let mut gone = three();
    gone.remove(1);
    let mut down = three();
    down[1].up = false;
    down[1].carrier = false;
    let mut unplugged = three();
    unplugged[1].carrier = false;
    let mut bare = three();
    bare[1].addrs.clear();
    let mut bare_and_down = bare.clone();
    bare_and_down[1].up = false;
    for (interfaces, fault, ifindex) in [
        (&gone, Reason::InterfaceGone, 0),
        (&down, Reason::InterfaceDown, 2),
        (&unplugged, Reason::CarrierLost, 2),
        (&bare, Reason::AddressGone, 0),
        (&bare_and_down, Reason::InterfaceDown, 0),
    ] {
        for sources in [&after, &Sources::new()] {
            let routes = plan(&config, interfaces, sources, &known).routes;
            assert!(diff(&known, &routes).is_empty(), "{fault}: {:?}", diff(&known, &routes));
        }
        assert_eq!(faults(&known, interfaces), [Health { ifindex, fault: Some(fault) }; 2]);
    }
    assert_eq!(faults(&known, &three()), [Health { ifindex: 2, fault: None }; 2]);
}

#[test]
fn a_route_goes_when_the_config_does_not_want_it() {
    let mut config = config(&[&["10.1.0.2", "10.2.0.2"]]);
    let known = plan(&config, &three(), &Sources::new(), &[]).routes;
    let mut gone = three();
    gone.remove(1);
    config.networks = vec![network("10.1.0.0/24", Role::None, None)];
    let routes = plan(&config, &gone, &Sources::new(), &known).routes;
    assert_eq!(diff(&known, &routes).removed, known[..1]);

    config.networks.clear();
    config.peers[0].addresses.remove(0);
    let routes = plan(&config, &gone, &Sources::new(), &known).routes;
    assert_eq!(diff(&known, &routes).removed, known[..1]);
}

#[test]
fn a_renumbered_interface_gets_new_routes() {
    let config = config(&[&["10.1.0.2", "10.9.0.2"]]);
    let before = Sources::from([(ip("10.9.0.2"), (ip("10.1.0.1"), 2))]);
    let known = plan(&config, &three(), &before, &[]).routes;
    let mut renumbered = three();
    renumbered[1] = interface(2, "eth0", &["10.1.0.50/24"]);
    let after = Sources::from([(ip("10.9.0.2"), (ip("10.1.0.50"), 2))]);
    let routes = plan(&config, &renumbered, &after, &known).routes;
    let diff = diff(&known, &routes);
    assert_eq!((diff.added.len(), diff.removed.len(), diff.changed.len()), (2, 2, 0));
}

#[test]
fn an_address_moved_to_another_interface_changes_the_route() {
    let config = config(&[&["10.1.0.2"]]);
    let known = plan(&config, &three(), &Sources::new(), &[]).routes;
    let mut moved = three();
    moved[1].addrs.clear();
    moved.push(interface(12, "eth9", &["10.1.0.1/24"]));
    assert_eq!(faults(&known, &moved), [Health { ifindex: 12, fault: None }]);
    let routes = plan(&config, &moved, &Sources::new(), &known).routes;
    let diff = diff(&known, &routes);
    assert_eq!((diff.added.len(), diff.removed.len()), (0, 0));
    let [(was, is)] = &diff.changed[..] else { panic!("{diff:?}") };
    assert_eq!((was.ifindex, is.ifindex, is.ifname.as_str()), (2, 12, "eth9"));
}

#[test]
fn a_running_pair_stays_when_a_lower_address_appears() {
    let config = config(&[&["10.1.0.9"]]);
    let before = [interface(2, "eth0", &["10.1.0.5/24"])];
    let known = plan(&config, &before, &Sources::new(), &[]).routes;
    let after = [interface(2, "eth0", &["10.1.0.5/24"]), interface(3, "eth1", &["10.1.0.2/24"])];
    let routes = plan(&config, &after, &Sources::new(), &known).routes;
    assert!(diff(&known, &routes).is_empty());
}

#[test]
fn every_peer_and_family_is_planned_in_the_order_of_the_config() {
    let config = config(&[&["fd00:3::3", "10.2.0.3"], &["10.1.0.4"], &[]]);
    let plan = plan(&config, &three(), &Sources::new(), &[]);
    let peers: Vec<_> = plan.routes.iter().map(|route| route.spec.peer).collect();
    assert_eq!(peers, [PeerId(0), PeerId(0), PeerId(1)]);
    assert_eq!(
        plan,
        self::plan(&config, &three(), &Sources::new(), &plan.routes)
    );
}

/// What a peer with these addresses (each on its own interface) tells.
fn told(addrs: &[&str]) -> Interfaces {
    let endpoints = addrs.iter().enumerate().map(|(place, text)| {
        let net: IpNet = text.parse().unwrap();
        Endpoint {
            addr: net.addr(),
            prefix_len: net.prefix_len(),
            interface: place as u16,
            metric: 1000 * (place as u32 + 1),
        }
    });
    Interfaces { serial: 1, port: 3343, endpoints: endpoints.collect(), ..Interfaces::default() }
}

fn learnt(config: &Config, interfaces: &[Interface], far: Interfaces, ways: &Ways) -> Plan {
    let offers = Offers::from([(PeerId(0), far)]);
    let sources = Sources::new();
    let around = Surroundings {
        interfaces,
        sources: &sources,
        ways,
        offers: &offers,
        resolved: &Resolved::new(),
    };
    super::plan(config, &around, &[])
}

/// B15: one address is configured, the peer tells the others.
#[test]
fn the_routes_a_peer_tells_of_join_the_configured_one() {
    let config = config(&[&["10.1.0.2"]]);
    let far = told(&["10.1.0.2/24", "10.2.0.2/24", "fd00:3::2/64", "10.77.0.2/24"]);
    let plan = learnt(&config, &three(), far, &Ways::new());
    assert_eq!(
        pairs(&plan),
        ["10.1.0.2 <- 10.1.0.1%2", "10.2.0.2 <- 10.2.0.1%3", "fd00:3::2 <- fd00:3::1%4"]
    );
    let priorities: Vec<_> = plan.routes.iter().map(|route| route.spec.priority.0).collect();
    assert_eq!(priorities, [2000, 3000, 4000], "the far metric is the peer's to say");
}

#[test]
fn all_cross_subnet_routes_are_nine_whichever_end_asks() {
    let quiet = config(&[&["10.1.0.2"]]);
    let asking = Config { all_cross_subnet: true, ..config(&[&["10.1.0.2"]]) };
    let mut interfaces = three();
    interfaces[3] = interface(4, "eth2", &["10.3.0.1/24"]);
    for (config, far_asks) in [(&asking, false), (&quiet, true)] {
        let mut far = told(&["10.1.0.2/24", "10.2.0.2/24", "10.3.0.2/24"]);
        far.all_cross_subnet = far_asks;
        let plan = learnt(config, &interfaces, far, &Ways::new());
        let same = |route: &&Planned| route.spec.attributes.0 & Attributes::SAME_SUBNET != 0;
        assert_eq!(plan.routes.len(), 9);
        assert_eq!(plan.routes.iter().filter(same).count(), 3);
    }
}

/// B25: routed networks are used where the kernel has a way out of that very interface.
#[test]
fn routed_pairs_need_a_way_of_the_kernel_and_have_the_profile_of_their_class() {
    let config = Config { site: "north".into(), ..config(&[&["10.11.0.2"]]) };
    let mut far = told(&["10.11.0.2/24", "10.12.0.2/24"]);
    let offers = Offers::from([(PeerId(0), far.clone())]);
    let asked = crossings(&config, &three(), &offers);
    assert_eq!(asked.len(), 2, "{asked:?}");
    let ways: Ways = asked.iter().map(|(local, _, remote)| (*local, *remote)).take(1).collect();
    let plan = learnt(&config, &three(), far.clone(), &ways);
    assert_eq!(pairs(&plan), ["10.11.0.2 <- 10.1.0.1%2"]);
    assert_eq!(plan.routes[0].spec.timing, Class::CrossSubnet.default_timing());
    far.site = "south".into();
    let plan = learnt(&config, &three(), far, &ways);
    assert_eq!(plan.routes[0].spec.timing, Class::CrossSite.default_timing());
}

#[test]
fn an_offer_names_what_may_carry_routes_and_nothing_else() {
    let mut config = config(&[&["10.1.0.2"]]);
    config.exclude =
        vec![Exclude::Interface("wlan*".into()), Exclude::Prefix("10.5.0.0/16".parse().unwrap())];
    let mut interfaces = three();
    interfaces.push(interface(5, "wlan0", &["10.4.0.1/24"]));
    interfaces.push(interface(6, "eth3", &["10.5.0.1/24", "10.6.0.1/24", "10.6.0.9/24"]));
    interfaces.push(interface(7, "docker0", &["172.17.0.1/16"]));
    interfaces.push(interface(8, "eth4", &["10.6.0.1/24", "169.254.3.3/16"]));
    interfaces[1].gateway = true;
    interfaces[2].speed = Some(1000);
    let offer = offer(&config, &interfaces);
    let names: Vec<_> =
        offer.endpoints.iter().map(|e| format!("{} {}", e.addr, e.metric)).collect();
    assert_eq!(names, ["10.6.0.1 1000", "fd00:3::1 1000", "10.2.0.1 1100", "10.1.0.1 10000"]);
    let mut bytes = Vec::new();
    offer.encode(&mut bytes);
    assert_eq!(Interfaces::decode(&bytes), Ok(offer));
}
