#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{
    topology::tests::{config, interface, network as listing},
    wire::interfaces::{AdvertisedEndpoint, Advertisement},
};

const B: PeerId = PeerId(0);
const C: PeerId = PeerId(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The interface list of a peer: (address, interface, metric).
fn advertisement(endpoints: &[(&str, u16, u32)]) -> Advertisement {
    let endpoints = endpoints.iter().map(|(text, interface, metric)| {
        let net: IpNet = text.parse().unwrap();
        AdvertisedEndpoint {
            addr: net.addr(),
            prefix_len: net.prefix_len(),
            interface: *interface,
            metric: *metric,
            is_routed: false,
        }
    });
    Advertisement {
        serial: 1,
        port: 3343,
        endpoints: endpoints.collect(),
        ..Advertisement::default()
    }
}

fn edge(peer: PeerId, local: &str, remote: &str, up: bool) -> RouteLink {
    RouteLink { peer, local: ip(local), remote: ip(remote), up }
}

/// This node and two peers in two networks.
fn three() -> (Config, Vec<Interface>, Advertisements) {
    let interfaces = vec![
        interface(1, "lo", &["127.0.0.1/8"]),
        interface(2, "eth0", &["10.1.0.1/24", "fe80::1/64"]),
        interface(3, "eth1", &["10.2.0.1/24"]),
        interface(8, "docker0", &["172.17.0.1/16"]),
        interface(9, "netft0", &["169.254.7.7/32"]),
    ];
    let offers = Advertisements::from([
        (B, advertisement(&[("10.1.0.2/24", 5, 1000), ("10.2.0.2/24", 6, 1000)])),
        (C, advertisement(&[("10.1.0.3/24", 5, 1000), ("10.2.0.3/24", 6, 1000)])),
    ]);
    (config(&[&[], &[]]), interfaces, offers)
}

fn edges(down: &[&str]) -> Vec<RouteLink> {
    [(B, 1, 2), (B, 2, 2), (C, 1, 3), (C, 2, 3)]
        .map(|(peer, net, host)| {
            let remote = format!("10.{net}.0.{host}");
            edge(peer, &format!("10.{net}.0.1"), &remote, !down.contains(&remote.as_str()))
        })
        .to_vec()
}

fn states(networks: &[NetworkInfo]) -> Vec<String> {
    networks
        .iter()
        .map(|network| format!("{} {}", network.prefix, network.state.as_str()))
        .collect()
}

fn see(edges: &[RouteLink], alive: &[PeerId]) -> Vec<NetworkInfo> {
    let (config, interfaces, offers) = three();
    let alive = alive.iter().copied().collect();
    build_inventory(&config, &interfaces, &offers, (edges, &alive), &NetworkCache::default())
}

#[test]
fn a_network_is_a_prefix_with_the_interfaces_of_every_node() {
    let networks = see(&edges(&[]), &[B, C]);
    assert_eq!(states(&networks), ["10.1.0.0/24 up", "10.2.0.0/24 up"]);
    let first = &networks[0];
    assert_eq!((first.role, first.metric), (NetworkRole::Cluster, 1000));
    assert_eq!(first.metric_source, MetricSource::Interface);
    let listed: Vec<_> =
        first.interfaces.iter().map(|one| (one.peer, one.name.as_deref(), one.addr)).collect();
    let expected = [
        (None, Some("eth0"), ip("10.1.0.1")),
        (Some(B), None, ip("10.1.0.2")),
        (Some(C), None, ip("10.1.0.3")),
    ];
    assert_eq!(listed, expected);
    assert!(first.interfaces.iter().all(|one| one.state == InterfaceState::Up));
}

#[test]
fn one_interface_that_is_not_reached_parts_a_network_and_all_take_it_down() {
    let of = |networks: &[NetworkInfo]| -> Vec<_> {
        networks[0].interfaces.iter().map(|one| one.state).collect()
    };
    use InterfaceState::{Failed, Unavailable, Unreachable, Up};
    let parted = see(&edges(&["10.1.0.3"]), &[B, C]);
    assert_eq!(states(&parted), ["10.1.0.0/24 partitioned", "10.2.0.0/24 up"]);
    assert_eq!(of(&parted), [Unreachable, Up, Unreachable]);
    let lost = see(&edges(&["10.1.0.2", "10.1.0.3"]), &[B, C]);
    assert_eq!(states(&lost), ["10.1.0.0/24 down", "10.2.0.0/24 up"]);
    assert_eq!(of(&lost), [Failed, Unreachable, Unreachable]);
    // A node that is gone is no fault of a network.
    let gone = see(&edges(&["10.1.0.3", "10.2.0.3"]), &[B]);
    assert_eq!(states(&gone), ["10.1.0.0/24 up", "10.2.0.0/24 up"]);
    assert_eq!(of(&gone), [Up, Up, Unavailable]);
}

/// U26.
#[test]
fn one_silent_peer_is_no_evidence_against_the_own_interface() {
    let (config, interfaces, offers) = three();
    let edges: Vec<_> = edges(&["10.1.0.2"]).into_iter().filter(|edge| edge.peer == B).collect();
    let alive = [B].into();
    let networks =
        build_inventory(&config, &interfaces, &offers, (&edges, &alive), &NetworkCache::default());
    let own: Vec<_> = networks.iter().map(|network| network.interfaces[0].state).collect();
    assert_eq!(own, [InterfaceState::Unreachable, InterfaceState::Up]);
    assert_eq!(networks[0].state, NetworkState::Down);
}

#[test]
fn an_interface_that_does_not_work_takes_its_network_down() {
    let (config, mut interfaces, offers) = three();
    interfaces[1].carrier = false;
    let alive = [B, C].into();
    let down = edges(&["10.1.0.2", "10.1.0.3"]);
    let networks =
        build_inventory(&config, &interfaces, &offers, (&down, &alive), &NetworkCache::default());
    assert_eq!(networks[0].state, NetworkState::Down);
    assert_eq!(networks[0].interfaces[0].state, InterfaceState::Failed);
}

/// U28.
#[test]
fn a_network_whose_interface_is_gone_keeps_role_and_metric() {
    let (config, mut interfaces, offers) = three();
    interfaces[1].default_route = Some(0);
    interfaces[1].speed = Some(1000);
    let mut memory = NetworkCache::default();
    memory.record_interfaces(&config, &interfaces);
    let nic = interfaces.remove(1);
    memory.record_interfaces(&config, &interfaces);
    let alive = [B, C].into();
    let gone = edges(&["10.1.0.2", "10.1.0.3"]);
    let see = |interfaces: &[Interface], memory: &NetworkCache| {
        let networks = build_inventory(&config, interfaces, &offers, (&gone, &alive), memory);
        networks.into_iter().find(|one| one.prefix == "10.1.0.0/24".parse().unwrap()).unwrap()
    };
    let network = see(&interfaces, &memory);
    assert_eq!(network.state, NetworkState::Unavailable);
    assert_eq!((network.role, network.metric), (NetworkRole::ClusterAndClient, 10_100));
    assert_eq!(network.metric_source, MetricSource::Remembered);
    assert_eq!(network.interfaces.len(), 2, "the peers' are still there");
    // Without the cache only the peers' metrics are left.
    let advertisement = see(&interfaces, &NetworkCache::default());
    assert_eq!((advertisement.metric, advertisement.metric_source), (1000, MetricSource::Peer));
    interfaces.insert(1, nic);
    let back = see(&interfaces, &memory);
    assert_eq!((back.metric, back.metric_source), (10_100, MetricSource::Interface));
}

#[test]
fn the_config_decides_role_and_metric_and_its_networks_are_always_listed() {
    let (mut config, interfaces, offers) = three();
    config.networks = vec![
        listing("10.1.0.0/16", NetworkRole::ClusterAndClient, Some(7)),
        listing("10.2.0.0/24", NetworkRole::None, None),
        listing("10.9.0.0/24", NetworkRole::Cluster, None),
    ];
    let alive = [B, C].into();
    let networks =
        build_inventory(&config, &interfaces, &offers, (&[], &alive), &NetworkCache::default());
    let seen: Vec<_> = networks
        .iter()
        .map(|one| (one.prefix.to_string(), one.role, one.metric, one.metric_source, one.state))
        .collect();
    let row =
        |prefix: &str, role, metric, from, state| (prefix.to_owned(), role, metric, from, state);
    use NetworkState::{Unavailable, Up};
    let expected = [
        row("10.1.0.0/24", NetworkRole::ClusterAndClient, 7, MetricSource::Config, Up),
        row("10.2.0.0/24", NetworkRole::None, 1000, MetricSource::Interface, Up),
        row("10.9.0.0/24", NetworkRole::Cluster, 1000, MetricSource::Config, Unavailable),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn two_families_on_one_wire_share_the_verdict_of_their_interfaces() {
    let (config, mut interfaces, mut offers) = three();
    interfaces[1] = interface(2, "eth0", &["10.1.0.1/24", "fd00:1::1/64"]);
    offers.insert(B, advertisement(&[("10.1.0.2/24", 5, 1000), ("fd00:1::2/64", 5, 1000)]));
    offers.remove(&C);
    let alive = [B].into();
    for (up, state) in [(true, NetworkState::Up), (false, NetworkState::Down)] {
        let edges = [edge(B, "10.1.0.1", "10.1.0.2", up)];
        let networks = build_inventory(
            &config,
            &interfaces,
            &offers,
            (&edges, &alive),
            &NetworkCache::default(),
        );
        let v6 = networks.iter().find(|one| one.prefix.addr().is_ipv6()).unwrap();
        assert_eq!(v6.state, state, "the only route is over IPv4");
    }
}

#[test]
fn a_network_behind_a_router_has_the_state_of_its_routes() {
    let (config, interfaces, _) = three();
    let offers = Advertisements::from([(B, advertisement(&[("10.7.0.2/24", 5, 10_000)]))]);
    let alive = [B].into();
    let see = |edges: &[RouteLink]| {
        let networks = build_inventory(
            &config,
            &interfaces,
            &offers,
            (edges, &alive),
            &NetworkCache::default(),
        );
        states(&networks)
    };
    let up = [edge(B, "10.1.0.1", "10.7.0.2", true)];
    assert_eq!(see(&up), ["10.1.0.0/24 up", "10.2.0.0/24 up", "10.7.0.0/24 up"]);
    let down = [edge(B, "10.1.0.1", "10.7.0.2", false)];
    let lost = ["10.1.0.0/24 down", "10.2.0.0/24 up", "10.7.0.0/24 unavailable"];
    assert_eq!(see(&down), lost);
    // Behind a NAT the remote address is in no network: the local one still shows its routes.
    let mapped = [edge(B, "10.1.0.1", "192.0.2.9", true)];
    assert_eq!(see(&mapped)[0], "10.1.0.0/24 up");
}

proptest! {
    #[test]
    fn memory_is_bounded_and_forgets_nothing_that_is_there(count in 0..200u16) {
        let config = config(&[]);
        let mut memory = NetworkCache::default();
        let all: Vec<_> = (0..count)
            .map(|n| (u32::from(n) + 2, format!("10.{}.{}.1/24", n / 250, n % 250)))
            .map(|(index, address)| interface(index, "eth", &[&address]))
            .collect();
        memory.record_interfaces(&config, &all);
        prop_assert_eq!(memory.0.len(), usize::from(count));
        memory.record_interfaces(&config, &[]);
        prop_assert!(memory.0.len() <= MAX_REMEMBERED);
    }

    /// A network is up exactly when every join is, and down when none is.
    #[test]
    fn the_state_follows_from_what_is_reached(up in proptest::collection::vec(any::<bool>(), 2)) {
        let down: Vec<_> = ["10.1.0.2", "10.1.0.3"]
            .into_iter()
            .zip(&up)
            .filter(|(_, up)| !**up)
            .map(|(remote, _)| remote)
            .collect();
        let state = see(&edges(&down), &[B, C])[0].state;
        let expected = match down.len() {
            0 => NetworkState::Up,
            1 => NetworkState::Partitioned,
            _ => NetworkState::Down,
        };
        prop_assert_eq!(state, expected);
    }
}
