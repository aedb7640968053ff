//! Routes by network, address family, adapter backend and router.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::thread;

use common::{
    HOLD_CONFIG, NodePair, TEST_RATE, TRAFFIC_CHECK_TIME, assert_flow_alive, assert_nothing_lost,
};
use netft_lab::{
    NetworkLayout,
    daemon::{RouteRow, SiteSettings},
    in_namespace,
};

#[test]
fn b_15_three_networks_give_exactly_three_routes() {
    in_namespace("b_15_three_networks_give_exactly_three_routes", || {
        let mut pair = NodePair::start_up(3);
        for node in [0, 1] {
            let mut routes = pair.wait_routes_up(node);
            routes.sort_by_key(|route| route.priority);
            let networks: Vec<usize> = routes.iter().map(|r| pair.network(node, r)).collect();
            assert_eq!(networks, [0, 1, 2], "one route per network, in order of metric");
            for (network, route) in routes.iter().enumerate() {
                let far = pair.lab.node_ipv4(network, 1 - node).to_string();
                assert!(route.real_remote.starts_with(&far), "{route:?}");
                assert_eq!(route.active, network == 0, "the best route carries the data");
            }
        }
    });
}

#[test]
fn both_inner_families_travel_over_ipv4() {
    in_namespace("both_inner_families_travel_over_ipv4", || {
        both_families(SiteSettings { common: HOLD_CONFIG, ..SiteSettings::default() });
    });
}

#[test]
fn both_inner_families_travel_over_ipv6() {
    in_namespace("both_inner_families_travel_over_ipv6", || {
        both_families(SiteSettings { common: HOLD_CONFIG, ipv6: true, ..SiteSettings::default() });
    });
}

#[test]
fn one_pair_may_use_ipv4_on_one_network_and_ipv6_on_another() {
    in_namespace("one_pair_may_use_ipv4_on_one_network_and_ipv6_on_another", || {
        let settings = SiteSettings { common: HOLD_CONFIG, ..SiteSettings::default() };
        let mut pair = NodePair::prepared(&[NetworkLayout::Flat; 2], settings);
        for node in [0, 1] {
            let [v4, v6] = [false, true].map(|six| pair.lab.node_address(1, 1 - node, six));
            pair.rewrite_config(node, &v4.to_string(), &v6.to_string());
            pair.rewrite_config(node, "10.2.0.0/24", "fd00:2::/64");
            pair.start(node);
        }
        for node in [0, 1] {
            let routes = pair.wait_routes_up(node);
            let six = |route: &RouteRow| route.local_address().is_some_and(|local| local.is_ipv6());
            assert_eq!(routes.iter().filter(|route| six(route)).count(), 1, "{routes:#?}");
            assert_eq!(routes.len(), 2);
        }
        let flows =
            [pair.transfer(0, Some(TEST_RATE), false), pair.transfer(1, Some(TEST_RATE), true)];
        pair.lab.black_hole(0).unwrap();
        for node in [0, 1] {
            pair.wait_active(node, 1);
        }
        flows.into_iter().for_each(assert_flow_alive);
    });
}

fn both_families(settings: SiteSettings<'_>) {
    let pair = NodePair::start_with(2, settings);
    for six in [false, true] {
        let probes = [pair.probe(0, six), pair.probe(1, six)];
        let flows =
            [pair.transfer(0, Some(TEST_RATE), six), pair.transfer(1, Some(TEST_RATE), six)];
        thread::sleep(TRAFFIC_CHECK_TIME);
        flows.into_iter().for_each(assert_flow_alive);
        for probe in probes {
            assert_nothing_lost(&probe.finish());
        }
    }
}

#[test]
fn plain_and_offload_backends_understand_each_other() {
    in_namespace("plain_and_offload_backends_understand_each_other", || {
        let each = ["[adapter]\nbackend = \"plain\"", "[adapter]\nbackend = \"offload\""];
        let pair = NodePair::start_with(
            1,
            SiteSettings { common: HOLD_CONFIG, per_node: &each, ..SiteSettings::default() },
        );
        // As fast as it goes: large segments on one side, single packets on the other.
        for from in [0, 1] {
            for six in [false, true] {
                let flow = pair.transfer(from, None, six);
                thread::sleep(TRAFFIC_CHECK_TIME);
                assert_flow_alive(flow);
            }
        }
    });
}

#[test]
fn a_route_through_a_router_carries_data() {
    in_namespace("a_route_through_a_router_carries_data", || {
        let settings = SiteSettings { common: HOLD_CONFIG, ..SiteSettings::default() };
        let mut pair =
            NodePair::start_over(&[NetworkLayout::Flat, NetworkLayout::Routed], settings);
        pair.lab.black_hole(0).unwrap();
        for node in [0, 1] {
            pair.wait_active(node, 1);
        }
        let flows =
            [pair.transfer(0, Some(TEST_RATE), false), pair.transfer(1, Some(TEST_RATE), true)];
        thread::sleep(TRAFFIC_CHECK_TIME);
        flows.into_iter().for_each(assert_flow_alive);
    });
}
