#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    config::NetworkRole,
    topology::{
        Advertisements, Interface, KernelWays, ResolvedAddresses, RouteActivities, SourceAddresses,
        tests::{config, interface, network},
    },
    wire::interfaces::{AdvertisedEndpoint, Advertisement},
};

const PEER: PeerId = PeerId(0);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn interfaces() -> Vec<Interface> {
    vec![
        interface(1, "lo", &["127.0.0.1/8"]),
        interface(2, "eth0", &["203.0.113.1/24"]),
        interface(9, "netft0", &["169.254.7.7/32"]),
    ]
}

/// The peer says that it is at 10.0.0.2.
fn offers() -> Advertisements {
    let endpoint = AdvertisedEndpoint {
        addr: [10, 0, 0, 2].into(),
        prefix_len: 24,
        interface: 4,
        metric: 1500,
        is_routed: false,
    };
    let list = Advertisement {
        serial: 1,
        port: 3343,
        endpoints: vec![endpoint],
        ..Advertisement::default()
    };
    Advertisements::from([(PEER, list)])
}

fn plan(
    config: &Config,
    interfaces: &[Interface],
    ends: (PeerId, SocketAddr, SocketAddr),
    known: Option<&PlannedRoute>,
) -> Option<PlannedRoute> {
    let around = PlanInputs {
        interfaces,
        sources: &SourceAddresses::new(),
        ways: &KernelWays::new(),
        activities: &RouteActivities::new(),
        advertisements: &offers(),
        resolved: &ResolvedAddresses::new(),
    };
    plan_learned_route(config, &around, ends, known)
}

fn ends(remote: &str) -> (PeerId, SocketAddr, SocketAddr) {
    (PEER, at("203.0.113.1:3343"), at(remote))
}

#[test]
fn a_proven_address_gets_a_route_from_where_it_was_heard() {
    let (config, interfaces) = (config(&[&[]]), interfaces());
    // On this node's subnet too: the NAT is a router.
    for remote in ["198.51.100.9:41000", "203.0.113.9:41000"] {
        let planned = plan(&config, &interfaces, ends(remote), None).unwrap();
        assert_eq!(planned.route_key(), ends(remote));
        assert_eq!((planned.ifindex, planned.ifname.as_str()), (2, "eth0"));
        let attributes = Attributes::CROSS_SUBNET | Attributes::LEARNED;
        assert_eq!(planned.spec.attributes, Attributes(attributes));
        assert_eq!(planned.spec.timing, RouteClass::CrossSubnet.default_timing());
    }
}

#[test]
fn no_route_leads_where_none_may() {
    let (mut config, interfaces) = (config(&[&[]]), interfaces());
    let virtual_ = SocketAddr::new(config.peers[0].addrs.v4.into(), 3343).to_string();
    for remote in ["127.0.0.1:3343", "224.0.0.1:9", "203.0.113.1:9", "0.0.0.0:9", &virtual_] {
        assert_eq!(plan(&config, &interfaces, ends(remote), None), None, "{remote}");
    }
    let there = ends("198.51.100.9:41000");
    assert_eq!(plan(&config, &interfaces, (PeerId(7), there.1, there.2), None), None);
    let elsewhere = at("203.0.113.2:3343");
    assert_eq!(plan(&config, &interfaces, (PEER, elsewhere, there.2), None), None);
    config.networks = vec![network("198.51.100.0/24", NetworkRole::None, None)];
    assert_eq!(plan(&config, &interfaces, there, None), None, "the config refuses it");
    config.networks = vec![network("203.0.113.0/24", NetworkRole::None, None)];
    assert_eq!(plan(&config, &interfaces, there, None), None, "the config refuses its own end");
}

#[test]
fn a_route_that_runs_outlives_its_interface() {
    let (config, mut interfaces) = (config(&[&[]]), interfaces());
    let there = ends("198.51.100.9:41000");
    let known = plan(&config, &interfaces, there, None).unwrap();
    interfaces.remove(1);
    assert_eq!(plan(&config, &interfaces, there, None), None);
    let kept = plan(&config, &interfaces, there, Some(&known)).unwrap();
    assert_eq!((kept.route_key(), kept.ifindex), (there, 2));
}

#[test]
fn only_an_address_the_peer_does_not_have_is_mapped() {
    let (interfaces, offers) = (interfaces(), offers());
    let around = |offers| {
        let (sources, ways, resolved) =
            (SourceAddresses::new(), KernelWays::new(), ResolvedAddresses::new());
        let around = PlanInputs {
            interfaces: &interfaces,
            sources: &sources,
            ways: &ways,
            activities: &RouteActivities::new(),
            advertisements: offers,
            resolved: &resolved,
        };
        ["198.51.100.9:41000", "10.0.0.2:3343"].map(|from| is_behind_nat(&around, PEER, at(from)))
    };
    assert_eq!(around(&offers), [true, false]);
    assert_eq!(around(&Advertisements::new()), [false, false], "nothing is advertised yet");
}
