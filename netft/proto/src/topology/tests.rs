#![allow(clippy::unwrap_used)]

mod addresses;
mod advertised;
mod reachable;

use std::collections::BTreeSet;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::*;
use crate::ids::PeerId;
use crate::{
    config::{
        Config, ExcludeRule, NetworkConfig, NetworkRole, PeerConfig, PrivateKey, RouteOverride,
    },
    ids::{NodeKey, virtual_addrs::VirtualAddrs},
    route::{Attributes, Delay, Priority, Reason, RouteClass, Threshold, Transport},
    wire::interfaces::{AdvertisedEndpoint, Advertisement},
};

pub(crate) fn config(peers: &[&[&str]]) -> Config {
    let key = NodeKey([1; 32]);
    let peers = peers.iter().enumerate().map(|(place, addresses)| {
        let key = NodeKey([place as u8 + 2; 32]);
        PeerConfig {
            id: PeerId(place as u16),
            name: format!("n{}", place + 2),
            key,
            next_key: None,
            addrs: VirtualAddrs::derive_from_key(&key),
            addresses: addresses.iter().map(|addr| end(addr)).collect(),
            names: Vec::new(),
            routes: Vec::new(),
            policies: crate::route::PeerPolicies::default(),
            transport: None,
        }
    });
    let mut config = Config::new("n1", PrivateKey(Vec::new().into()), key);
    config.peers = peers.collect();
    config
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
        LocalAddr { addr: net.addr(), prefix: net.trunc(), is_secondary: text.ends_with('s') }
    });
    Interface { loopback: name == "lo", addrs: addrs.collect(), ..Interface::healthy(index, name) }
}

pub(crate) fn network(prefix: &str, role: NetworkRole, metric: Option<u32>) -> NetworkConfig {
    NetworkConfig { prefix: prefix.parse().unwrap(), role, metric, capacity: None, transport: None }
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

/// A plan before any peer advertised its interfaces.
fn plan(
    config: &Config,
    interfaces: &[Interface],
    sources: &SourceAddresses,
    known: &[PlannedRoute],
) -> RoutePlan {
    let (ways, offers) = (KernelWays::new(), Advertisements::new());
    let around = PlanInputs {
        interfaces,
        sources,
        ways: &ways,
        activities: &RouteActivities::new(),
        advertisements: &offers,
        resolved: &ResolvedAddresses::new(),
    };
    plan_routes(config, &around, known)
}

/// `remote <- local%ifindex` of every route.
fn pairs(plan: &RoutePlan) -> Vec<String> {
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
    let plan = plan(&config, &three(), &SourceAddresses::new(), &[]);
    assert_eq!(
        pairs(&plan),
        ["10.1.0.2 <- 10.1.0.1%2", "10.2.0.2 <- 10.2.0.1%3", "fd00:3::2 <- fd00:3::1%4"]
    );
    assert_eq!(plan.unrouted, []);
    let spec = &plan.routes[0].spec;
    assert_eq!(spec.attributes.0, Attributes::SAME_SUBNET);
    assert_eq!(spec.priority, Priority(2000));
    assert_eq!(spec.timing, RouteClass::SameSubnet.default_timing());
    assert_eq!(spec.real_local, end("10.1.0.1:3343"));
    assert_eq!(spec.virtual_local, IpAddr::V6(config.adapter.addrs.v6));
    assert_eq!(spec.virtual_remote, IpAddr::V6(config.peers[0].addrs.v6));
}

#[test]
fn each_remote_address_gets_the_one_route_the_rules_allow() {
    let docker = "br-0123456789ab";
    let exclude = |prefix| vec![network(prefix, NetworkRole::None, None)];
    let only = |prefix| vec![network(prefix, NetworkRole::Cluster, None)];
    type Case = (
        &'static str,
        Vec<Interface>,
        Vec<NetworkConfig>,
        &'static str,
        Result<&'static str, UnroutedReason>,
    );
    let cases: Vec<Case> = vec![
        ("router", three(), vec![], "10.9.0.2", Ok("10.9.0.2 <- 10.1.0.1%2")),
        ("no way", three(), vec![], "10.8.0.2", Err(UnroutedReason::NoKernelRoute)),
        (
            "role none",
            three(),
            exclude("10.1.0.0/16"),
            "10.1.0.2",
            Err(UnroutedReason::NetworkNotUsed),
        ),
        ("others stay", three(), exclude("10.1.0.0/16"), "10.2.0.2", Ok("10.2.0.2 <- 10.2.0.1%3")),
        ("listed", three(), only("10.1.0.0/24"), "10.1.0.2", Ok("10.1.0.2 <- 10.1.0.1%2")),
        (
            "not listed",
            three(),
            only("10.1.0.0/24"),
            "10.2.0.2",
            Err(UnroutedReason::NoKernelRoute),
        ),
        ("loopback", three(), vec![], "127.0.0.2", Err(UnroutedReason::Loopback)),
        ("listed v4", three(), only("127.0.0.0/8"), "127.0.0.2", Ok("127.0.0.2 <- 127.0.0.1%1")),
        ("ports", three(), only("::/0"), "[::1]:4000", Ok("::1 <- ::1%1")),
        ("itself", three(), only("::/0"), "[::1]:3343", Err(UnroutedReason::NoKernelRoute)),
        ("own", three(), vec![], "10.2.0.1", Err(UnroutedReason::OwnAddress)),
        ("any", three(), vec![], "0.0.0.0", Err(UnroutedReason::NotUnicast)),
        ("multicast", three(), vec![], "ff02::1", Err(UnroutedReason::NotUnicast)),
        ("scopeless", three(), vec![], "fe80::2", Err(UnroutedReason::NoScope)),
        ("scoped", three(), vec![], "[fe80::2%2]:3343", Ok("fe80::2 <- fe80::1%2")),
        ("other scope", three(), vec![], "[fe80::2%3]:3343", Err(UnroutedReason::NoKernelRoute)),
        ("over the adapter", three(), vec![], "10.7.0.2", Err(UnroutedReason::Excluded)),
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
            Err(UnroutedReason::NoKernelRoute),
        ),
        (
            "docker net",
            vec![interface(2, docker, &["10.1.0.1/24"])],
            vec![],
            "10.1.0.2",
            Err(UnroutedReason::NoKernelRoute),
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
    let sources = SourceAddresses::from([
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
                assert_eq!(plan.unrouted.iter().map(|skip| skip.reason).collect::<Vec<_>>(), [why]);
            }
        }
    }
}

#[test]
fn no_end_is_a_virtual_address() {
    let mut config = config(&[&["10.1.0.2"]]);
    let own = IpAddr::V4(config.adapter.addrs.v4);
    let far = config.peers[0].addrs.v4;
    config.peers[0].addresses = vec![SocketAddr::new(own, 3343), SocketAddr::new(far.into(), 1)];
    // The adapter under another name, and a careless prefix on a real interface.
    let tap = interface(5, "renamed", &[&format!("{own}/16")]);
    let plan = plan(&config, &[tap], &SourceAddresses::new(), &[]);
    assert_eq!(plan.routes, []);
    assert!(
        plan.unrouted.iter().all(|skip| skip.reason == UnroutedReason::VirtualAddress),
        "{:?}",
        plan.unrouted
    );

    config.peers[0].addresses = vec![end("169.254.99.1")];
    let tap = interface(5, "renamed", &[&format!("{own}/16")]);
    assert_eq!(self::plan(&config, &[tap], &SourceAddresses::new(), &[]).routes, []);
}

#[test]
fn priority_is_the_sum_of_the_metrics_of_both_networks() {
    let cases = [
        (vec![], "10.1.0.2", 2000),
        (vec![network("10.1.0.0/16", NetworkRole::Cluster, Some(7))], "10.1.0.2", 14),
        (vec![network("10.0.0.0/8", NetworkRole::ClusterAndClient, None)], "10.1.0.2", 20_000),
        (
            vec![
                network("10.0.0.0/8", NetworkRole::Cluster, Some(5)),
                network("10.1.0.0/24", NetworkRole::Cluster, Some(70)),
                network("10.9.0.0/24", NetworkRole::Cluster, Some(300)),
            ],
            "10.9.0.2",
            370,
        ),
        (vec![network("10.1.0.0/24", NetworkRole::ClusterAndClient, Some(3))], "10.9.0.2", 10_003),
        (vec![network("10.1.0.0/24", NetworkRole::Cluster, Some(u32::MAX))], "10.1.0.2", u32::MAX),
    ];
    let sources = SourceAddresses::from([(ip("10.9.0.2"), (ip("10.1.0.1"), 2))]);
    for (networks, remote, wanted) in cases {
        let config = Config { networks, ..config(&[&[remote]]) };
        let plan = plan(&config, &three(), &sources, &[]);
        assert_eq!(plan.routes[0].spec.priority, Priority(wanted), "{remote}");
    }
}

#[test]
fn cross_subnet_routes_have_their_own_attributes_and_timing() {
    let config = config(&[&["10.9.0.2"]]);
    let sources = SourceAddresses::from([(ip("10.9.0.2"), (ip("10.2.0.1"), 3))]);
    let plan = plan(&config, &three(), &sources, &[]);
    assert_eq!(plan.routes[0].spec.attributes.0, Attributes::CROSS_SUBNET);
    assert_eq!(plan.routes[0].spec.timing, RouteClass::CrossSubnet.default_timing());
    assert_eq!(
        off_subnet_remotes(&config, &three(), &ResolvedAddresses::new()),
        BTreeSet::from([ip("10.9.0.2")])
    );
}

/// The route's own entry before the peer's, the peer's before the networks'.
#[test]
fn the_transport_is_as_the_nearest_entry_says() {
    let carriers = |peer: Option<Transport>, route: Option<Transport>| {
        let mut config = config(&[&["10.1.0.2", "10.2.0.2"]]);
        let prefix = "10.1.0.0/24".parse().unwrap();
        let (role, transport) = (NetworkRole::Cluster, Some(Transport::Quic));
        config.networks = vec![
            NetworkConfig { prefix, role, metric: None, capacity: None, transport },
            network("10.2.0.0/24", role, None),
        ];
        config.peers[0].transport = peer;
        let second =
            RouteOverride { transport: route, ..RouteOverride::to_remote(end("10.2.0.2")) };
        config.peers[0].routes = vec![second];
        let plan = plan(&config, &three(), &SourceAddresses::new(), &[]);
        plan.routes.iter().map(|route| route.spec.transport).collect::<Vec<_>>()
    };
    let (udp, quic) = (Transport::Udp, Transport::Quic);
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
        transport: None,
    };
    let across = RouteOverride {
        local: Some(ip("10.1.0.1")),
        remote: end("10.2.0.2"),
        delay: None,
        threshold: Some(Threshold::new(9).unwrap()),
        priority: None,
        transport: None,
    };
    let absent = RouteOverride { local: Some(ip("10.4.0.1")), ..across.clone() };
    config.peers[0].routes = vec![plain, across, absent];
    let plan = plan(&config, &three(), &SourceAddresses::new(), &[]);
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
    assert_eq!(
        detect_faults(std::slice::from_ref(third), &three())[0].fault,
        Some(Reason::AddressGone)
    );
}

#[test]
fn two_nodes_on_one_loopback_address_pair_under_pinned_addresses() {
    let mut config = config(&[&["127.0.0.1"]]);
    config.networks = vec![network("127.0.0.0/8", NetworkRole::Cluster, None)];
    let pin = RouteOverride {
        local: Some(ip("127.0.0.2")),
        remote: end("127.0.0.1"),
        delay: None,
        threshold: None,
        priority: None,
        transport: None,
    };
    config.peers[0].routes = vec![pin];
    let plan = plan(&config, &three(), &SourceAddresses::new(), &[]);
    assert_eq!(pairs(&plan), ["127.0.0.1 <- 127.0.0.2%1"]);
    assert_eq!(detect_faults(&plan.routes, &three()), [LocalEndStatus { ifindex: 1, fault: None }]);
}

#[test]
fn a_route_whose_interface_vanished_stays_and_is_faulted() {
    let config = config(&[&["10.1.0.2", "10.9.0.2"]]);
    // Both could be reached over eth1 once eth0 is gone.
    let before = SourceAddresses::from([(ip("10.9.0.2"), (ip("10.1.0.1"), 2))]);
    let after = SourceAddresses::from([
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
        for sources in [&after, &SourceAddresses::new()] {
            let routes = plan(&config, interfaces, sources, &known).routes;
            assert!(
                diff_routes(&known, &routes).is_empty(),
                "{fault}: {:?}",
                diff_routes(&known, &routes)
            );
        }
        assert_eq!(
            detect_faults(&known, interfaces),
            [LocalEndStatus { ifindex, fault: Some(fault) }; 2]
        );
    }
    assert_eq!(detect_faults(&known, &three()), [LocalEndStatus { ifindex: 2, fault: None }; 2]);
}

#[test]
fn a_route_goes_when_the_config_does_not_want_it() {
    let mut config = config(&[&["10.1.0.2", "10.2.0.2"]]);
    let known = plan(&config, &three(), &SourceAddresses::new(), &[]).routes;
    let mut gone = three();
    gone.remove(1);
    config.networks = vec![network("10.1.0.0/24", NetworkRole::None, None)];
    let routes = plan(&config, &gone, &SourceAddresses::new(), &known).routes;
    assert_eq!(diff_routes(&known, &routes).removed, known[..1]);

    config.networks.clear();
    config.peers[0].addresses.remove(0);
    let routes = plan(&config, &gone, &SourceAddresses::new(), &known).routes;
    assert_eq!(diff_routes(&known, &routes).removed, known[..1]);
}

#[test]
fn a_renumbered_interface_gets_new_routes() {
    let config = config(&[&["10.1.0.2", "10.9.0.2"]]);
    let before = SourceAddresses::from([(ip("10.9.0.2"), (ip("10.1.0.1"), 2))]);
    let known = plan(&config, &three(), &before, &[]).routes;
    let mut renumbered = three();
    renumbered[1] = interface(2, "eth0", &["10.1.0.50/24"]);
    let after = SourceAddresses::from([(ip("10.9.0.2"), (ip("10.1.0.50"), 2))]);
    let routes = plan(&config, &renumbered, &after, &known).routes;
    let diff = diff_routes(&known, &routes);
    assert_eq!((diff.added.len(), diff.removed.len(), diff.changed.len()), (2, 2, 0));
}

#[test]
fn an_address_moved_to_another_interface_changes_the_route() {
    let config = config(&[&["10.1.0.2"]]);
    let known = plan(&config, &three(), &SourceAddresses::new(), &[]).routes;
    let mut moved = three();
    moved[1].addrs.clear();
    moved.push(interface(12, "eth9", &["10.1.0.1/24"]));
    assert_eq!(detect_faults(&known, &moved), [LocalEndStatus { ifindex: 12, fault: None }]);
    let routes = plan(&config, &moved, &SourceAddresses::new(), &known).routes;
    let diff = diff_routes(&known, &routes);
    assert_eq!((diff.added.len(), diff.removed.len()), (0, 0));
    let [(was, is)] = &diff.changed[..] else { panic!("{diff:?}") };
    assert_eq!((was.ifindex, is.ifindex, is.ifname.as_str()), (2, 12, "eth9"));
}

#[test]
fn a_running_pair_stays_when_a_lower_address_appears() {
    let config = config(&[&["10.1.0.9"]]);
    let before = [interface(2, "eth0", &["10.1.0.5/24"])];
    let known = plan(&config, &before, &SourceAddresses::new(), &[]).routes;
    let after = [interface(2, "eth0", &["10.1.0.5/24"]), interface(3, "eth1", &["10.1.0.2/24"])];
    let routes = plan(&config, &after, &SourceAddresses::new(), &known).routes;
    assert!(diff_routes(&known, &routes).is_empty());
}

#[test]
fn every_peer_and_family_is_planned_in_the_order_of_the_config() {
    let config = config(&[&["fd00:3::3", "10.2.0.3"], &["10.1.0.4"], &[]]);
    let plan = plan(&config, &three(), &SourceAddresses::new(), &[]);
    let peers: Vec<_> = plan.routes.iter().map(|route| route.spec.peer).collect();
    assert_eq!(peers, [PeerId(0), PeerId(0), PeerId(1)]);
    assert_eq!(plan, self::plan(&config, &three(), &SourceAddresses::new(), &plan.routes));
}
