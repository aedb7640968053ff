//! Routes that follow from what a peer advertises.

use super::*;

/// The interface list of a peer with these addresses, each on its own interface.
fn advertisement(addrs: &[&str]) -> Advertisement {
    let endpoints = addrs.iter().enumerate().map(|(place, text)| {
        let net: IpNet = text.parse().unwrap();
        AdvertisedEndpoint {
            addr: net.addr(),
            prefix_len: net.prefix_len(),
            interface: place as u16,
            metric: 1000 * (place as u32 + 1),
            is_routed: true,
        }
    });
    Advertisement {
        serial: 1,
        port: 3343,
        endpoints: endpoints.collect(),
        ..Advertisement::default()
    }
}

fn learnt(
    config: &Config,
    interfaces: &[Interface],
    far: Advertisement,
    ways: &KernelWays,
) -> RoutePlan {
    let offers = Advertisements::from([(PeerId(0), far)]);
    let sources = SourceAddresses::new();
    let around = PlanInputs {
        interfaces,
        sources: &sources,
        ways,
        activities: &RouteActivities::new(),
        advertisements: &offers,
        resolved: &ResolvedAddresses::new(),
    };
    plan_routes(config, &around, &[])
}

/// B15: one address is configured, the peer advertises the others.
#[test]
fn the_routes_a_peer_advertises_join_the_configured_one() {
    let config = config(&[&["10.1.0.2"]]);
    let far = advertisement(&["10.1.0.2/24", "10.2.0.2/24", "fd00:3::2/64", "10.77.0.2/24"]);
    let plan = learnt(&config, &three(), far, &KernelWays::new());
    assert_eq!(
        pairs(&plan),
        ["10.1.0.2 <- 10.1.0.1%2", "10.2.0.2 <- 10.2.0.1%3", "fd00:3::2 <- fd00:3::1%4"]
    );
    let priorities: Vec<_> = plan.routes.iter().map(|route| route.spec.priority.0).collect();
    assert_eq!(priorities, [2000, 3000, 4000], "the remote metric is the advertised one");
}

#[test]
fn all_cross_subnet_routes_are_nine_whichever_end_is_configured() {
    let quiet = config(&[&["10.1.0.2"]]);
    let mut asking = config(&[&["10.1.0.2"]]);
    asking.topology.all_cross_subnet = true;
    let mut interfaces = three();
    interfaces[3] = interface(4, "eth2", &["10.3.0.1/24"]);
    for (config, far_asks) in [(&asking, false), (&quiet, true)] {
        let mut far = advertisement(&["10.1.0.2/24", "10.2.0.2/24", "10.3.0.2/24"]);
        far.all_cross_subnet = far_asks;
        let plan = learnt(config, &interfaces, far, &KernelWays::new());
        let same = |route: &&PlannedRoute| route.spec.attributes.0 & Attributes::SAME_SUBNET != 0;
        assert_eq!(plan.routes.len(), 9);
        assert_eq!(plan.routes.iter().filter(same).count(), 3);
    }
}

/// B25: routed networks are used where the kernel has a route through that interface.
#[test]
fn routed_pairs_need_a_kernel_route_and_have_the_profile_of_their_class() {
    let config = Config { site: "north".into(), ..config(&[&["10.11.0.2"]]) };
    let mut far = advertisement(&["10.11.0.2/24", "10.12.0.2/24"]);
    let offers = Advertisements::from([(PeerId(0), far.clone())]);
    let asked = cross_subnet_pairs(&config, &three(), &offers, &ResolvedAddresses::new());
    assert_eq!(asked.len(), 4, "{asked:?}");
    let ways = KernelWays::from([((asked[0].0, asked[0].2), 0)]);
    let plan = learnt(&config, &three(), far.clone(), &ways);
    assert_eq!(pairs(&plan), ["10.11.0.2 <- 10.1.0.1%2"]);
    assert_eq!(plan.routes[0].spec.timing, RouteClass::CrossSubnet.default_timing());
    far.site = "south".into();
    let plan = learnt(&config, &three(), far, &ways);
    assert_eq!(plan.routes[0].spec.timing, RouteClass::CrossSite.default_timing());
    assert_eq!(plan.routes[0].spec.attributes.to_string(), "cross-subnet,cross-site");
}

#[test]
fn an_offer_names_what_may_carry_routes_and_nothing_else() {
    let mut config = config(&[&["10.1.0.2"]]);
    config.topology.exclude = vec![
        ExcludeRule::Interface("wlan*".into()),
        ExcludeRule::Prefix("10.5.0.0/16".parse().unwrap()),
    ];
    let mut interfaces = three();
    interfaces.push(interface(5, "wlan0", &["10.4.0.1/24"]));
    interfaces.push(interface(6, "eth3", &["10.5.0.1/24", "10.6.0.1/24", "10.6.0.9/24"]));
    interfaces.push(interface(7, "docker0", &["172.17.0.1/16"]));
    interfaces.push(interface(8, "eth4", &["10.6.0.1/24", "169.254.3.3/16"]));
    interfaces[1].default_route = Some(0);
    interfaces[2].speed = Some(1000);
    let offer = build_advertisement(&config, &interfaces, &[], &KernelWays::new());
    let names: Vec<_> =
        offer.endpoints.iter().map(|e| format!("{} {}", e.addr, e.metric)).collect();
    assert_eq!(names, ["10.6.0.1 1000", "fd00:3::1 1000", "10.2.0.1 1100", "10.1.0.1 10000"]);
    let mut bytes = Vec::new();
    offer.encode(&mut bytes);
    assert_eq!(Advertisement::decode(&bytes), Ok(offer));
}
