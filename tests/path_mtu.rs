//! Paths that swallow large packets, in a real kernel: traffic goes on in smaller ones, the route
//! stays up, and the size comes back.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use common::{
    NodePair, TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_before, assert_flow_alive,
};
use futures_util::TryStreamExt;
use netft_lab::{
    Moment,
    daemon::{EventFollower, SiteSettings},
    in_namespace, scheduling,
};
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{RouteAttribute, RouteMetric},
};

/// Data returns soon, and a narrow path is tried again as soon as the config allows. No route goes
/// down because the machine is busy: probes do not look at the threshold.
const COMMON: &str = "[heartbeat]\nthreshold = 40\n\n[failover]\nhold = 300\nmtu_raise = 1000\n";
const NARROW: u32 = 1400;

fn pair(networks: usize, six: bool) -> NodePair {
    NodePair::start_with(
        networks,
        SiteSettings { common: COMMON, ipv6: six, ..SiteSettings::default() },
    )
}

/// The path MTU of the node's route on a network.
fn path_mtu(pair: &mut NodePair, node: usize, network: usize) -> Option<u32> {
    let routes = pair.daemon(node).routes().unwrap();
    let route = routes.iter().find(|route| pair.network(node, route) == network);
    route.unwrap().path_mtu
}

/// Waits until the path MTU of the node's route on a network is `want`.
fn await_path_mtu(pair: &mut NodePair, node: usize, network: usize, want: u32) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let found = path_mtu(pair, node, network);
        if found == Some(want) {
            return;
        }
        assert_before(deadline, || format!("node {node}: {found:?} instead of {want}"));
        thread::sleep(TRAFFIC_CHECK_TIME / 5);
    }
}

/// The MTU of the host route to the other node's virtual IPv4 address.
fn towards(pair: &NodePair, node: usize) -> Option<u32> {
    let IpAddr::V4(to) = pair.endpoint(1 - node, false).ip() else { return None };
    let request = RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(to, 32);
    pair.lab
        .node_netns(node)
        .run_netlink("look up a route", |netlink| async move {
            let found = netlink.route().get(request.build()).execute().try_next().await?;
            Ok(found.unwrap().attributes.into_iter().find_map(|attribute| match attribute {
                RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                }),
                _ => None,
            }))
        })
        .unwrap()
}

/// No route of a node changed its state, and no data moved, since `since`.
fn nothing_but_sizes(events: &EventFollower, since: Moment) {
    let loud = ["state-changed", "moved", "remote-unreachable", "session-ended"];
    let seen = events.events_so_far();
    let others: Vec<_> =
        seen.iter().filter(|e| e.is_at_or_after(since.wall) && loud.contains(&&*e.name)).collect();
    scheduling::assert_timely(others.is_empty(), since.monotonic, || format!("{others:#?}"));
}

/// F-10: heartbeats pass, large packets die.
fn black_hole(networks: usize, six: bool) {
    let mut pair = pair(networks, six);
    for node in [0, 1] {
        pair.wait_active(node, 0);
        await_path_mtu(&mut pair, node, 0, 1500);
    }
    let events = [0, 1].map(|node| pair.events(node));
    let flows = [pair.transfer(0, Some(TEST_RATE), false), pair.transfer(1, Some(TEST_RATE), true)];
    thread::sleep(TRAFFIC_CHECK_TIME);
    let whole = [0, 1].map(|node| towards(&pair, node));

    let broken = pair.lab.make_mtu_black_hole(0, NARROW).unwrap();
    let (_, route) = pair.active(0);
    for node in [0, 1] {
        await_path_mtu(&mut pair, node, 0, NARROW);
    }
    // What vanished goes again on the other network. On the only one, three probes, each waited for
    // five heartbeats, find it; then TCP sends again, by a timer of its own that has doubled.
    let found = Duration::from_millis(route.delay_ms) * 40;
    let bound = if networks > 1 { route.detection_time() } else { found };
    let now = Instant::now();
    for flow in &flows {
        let stall = flow.longest_stall(broken.monotonic, now);
        scheduling::assert_within("a stall", stall, bound, broken.monotonic);
        println!("networks {networks}, six {six}: longest stall {stall:?}");
    }
    thread::sleep(TRAFFIC_CHECK_TIME);
    for node in [0, 1] {
        // Packets over the frame size are fragmented: no ICMP message asks for smaller ones.
        assert_eq!(towards(&pair, node), whole[node]);
        for network in 1..networks {
            assert_eq!(path_mtu(&mut pair, node, network), Some(1500));
        }
    }

    pair.lab.make_mtu_black_hole(0, 1500).unwrap();
    for node in [0, 1] {
        await_path_mtu(&mut pair, node, 0, 1500);
        assert_eq!(towards(&pair, node), whole[node]);
        nothing_but_sizes(&events[node], broken);
        assert_eq!(pair.active(node).0, 0, "no data moved");
    }
    flows.into_iter().for_each(assert_flow_alive);
}

#[test]
fn f_10_large_packets_die_on_one_of_two_networks_and_flows_go_on() {
    in_namespace("f_10_large_packets_die_on_one_of_two_networks_and_flows_go_on", || {
        black_hole(2, false);
    });
}

#[test]
fn f_10_large_packets_die_on_the_only_network_and_flows_go_on() {
    in_namespace("f_10_large_packets_die_on_the_only_network_and_flows_go_on", || {
        black_hole(1, false);
    });
}

#[test]
fn f_10_large_packets_die_on_an_ipv6_network_and_flows_go_on() {
    in_namespace("f_10_large_packets_die_on_an_ipv6_network_and_flows_go_on", || {
        black_hole(1, true);
    });
}
