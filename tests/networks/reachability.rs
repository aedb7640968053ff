//! Routes exist where packets get through, whatever addresses, metrics and default routes say
//! (F-48, F-49).

use std::thread;

use crate::common::{
    NodePair, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, UNLISTED_NETWORKS, assert_flow_alive,
    commands::run_ip,
};
use netft_lab::{Lab, NetworkLayout, daemon::RouteRow, in_namespace};

fn up(routes: &[RouteRow]) -> usize {
    routes.iter().filter(|route| route.state == "up").count()
}

fn wait_up(pair: &mut NodePair, count: usize) -> Vec<RouteRow> {
    let what = format!("{count} routes up");
    let wanted = |routes: &[RouteRow]| up(routes) == count;
    pair.daemon(1).wait_for(&what, TEST_TIMEOUT, wanted).unwrap();
    pair.daemon(0).wait_for(&what, TEST_TIMEOUT, wanted).unwrap()
}

/// Leaves a node default routes alone on its routed networks, with a metric of 100 for the first,
/// 200 for the second, and so on.
fn set_default_routes(lab: &Lab, node: usize) {
    for network in 0..lab.network_count() {
        let (nic, host) = (Lab::nic_name(network), node + 1);
        let number = network + 1;
        run_ip(lab.node_netns(node), &format!("route del 10.{number}.0.0/16 dev {nic}"));
        run_ip(lab.node_netns(node), &format!("-6 route del fd00:{number}::/32 dev {nic}"));
        let gateway = format!("10.{number}.{host}.254");
        let metric = 100 * number;
        run_ip(
            lab.node_netns(node),
            &format!("route add default via {gateway} dev {nic} metric {metric}"),
        );
    }
}

/// F-48: as every DHCP client makes them.
#[test]
fn f_48_two_default_routes_are_two_routes_in_the_order_of_their_metrics() {
    in_namespace("f_48_two_default_routes_are_two_routes_in_the_order_of_their_metrics", || {
        let mut pair = NodePair::prepared(&[NetworkLayout::Routed; 2], UNLISTED_NETWORKS);
        for node in [0, 1] {
            set_default_routes(&pair.lab, node);
            pair.start(node);
        }
        let routes = wait_up(&mut pair, 2);
        let active = routes.iter().find(|route| route.active).unwrap();
        assert_eq!(pair.network(0, active), 0, "{routes:?}");
        let flow = pair.transfer(0, Some(crate::common::TEST_RATE), false);
        pair.lab.black_hole(0).unwrap();
        pair.wait_active(0, 1);
        assert_flow_alive(flow);
    });
}

/// F-48: cards that lead nowhere, at both ends.
#[test]
fn f_48_isolated_cards_do_not_keep_the_others_from_being_routes() {
    in_namespace("f_48_isolated_cards_do_not_keep_the_others_from_being_routes", || {
        let mut pair = NodePair::prepared(&[NetworkLayout::Routed], UNLISTED_NETWORKS);
        for (node, cards) in [(0, 3), (1, 2)] {
            for card in 1..=cards {
                let (name, far) = (format!("iso{card}"), format!("end{card}"));
                run_ip(
                    pair.lab.node_netns(node),
                    &format!("link add {name} type veth peer name {far}"),
                );
                let address = format!("9.{node}.{card}.1/24");
                run_ip(pair.lab.node_netns(node), &format!("addr add {address} dev {name}"));
                run_ip(pair.lab.node_netns(node), &format!("link set {name} up"));
                run_ip(pair.lab.node_netns(node), &format!("link set {far} up"));
            }
            set_default_routes(&pair.lab, node);
            pair.start(node);
        }
        let routes = wait_up(&mut pair, 1);
        assert_eq!(routes.len(), 1, "nothing else is tried: {routes:?}");
    });
}

/// F-49: both routes are up, and neither needs the default route.
#[test]
fn f_49_a_default_route_that_moves_removes_no_route() {
    in_namespace("f_49_a_default_route_that_moves_removes_no_route", || {
        let mut pair = NodePair::prepared(&[NetworkLayout::Routed; 2], UNLISTED_NETWORKS);
        run_ip(pair.lab.node_netns(0), "route add default via 10.1.1.254");
        run_ip(pair.lab.node_netns(1), "route add default via 10.1.2.254");
        for node in [0, 1] {
            pair.start(node);
        }
        let ids = |routes: &[RouteRow]| routes.iter().map(|route| route.id).collect::<Vec<_>>();
        let before = ids(&wait_up(&mut pair, 2));
        let flow = pair.transfer(0, Some(crate::common::TEST_RATE), false);
        for gateway in ["10.2.1.254", "10.1.1.254"] {
            run_ip(pair.lab.node_netns(0), &format!("route replace default via {gateway}"));
            thread::sleep(4 * TRAFFIC_CHECK_TIME);
            let routes = pair.daemon(0).routes().unwrap();
            assert_eq!((up(&routes), ids(&routes)), (2, before.clone()));
        }
        assert_flow_alive(flow);
    });
}

/// F-48: three cables from card to card in one prefix, where the order of the addresses is another
/// one at each end.
#[test]
fn f_48_cables_that_sort_crosswise_are_all_routes() {
    in_namespace("f_48_cables_that_sort_crosswise_are_all_routes", || {
        let mut pair = NodePair::prepared(&[NetworkLayout::Flat; 3], UNLISTED_NETWORKS);
        for (node, hosts) in [(0, [1, 3, 5]), (1, [6, 4, 2])] {
            for (network, host) in hosts.into_iter().enumerate() {
                let nic = Lab::nic_name(network);
                run_ip(pair.lab.node_netns(node), &format!("addr flush dev {nic}"));
                run_ip(pair.lab.node_netns(node), &format!("addr add 10.9.0.{host}/24 dev {nic}"));
            }
        }
        pair.rewrite_config(0, "10.1.0.2", "10.9.0.6");
        pair.rewrite_config(1, "10.1.0.1", "10.9.0.1");
        for node in [0, 1] {
            pair.start(node);
        }
        wait_up(&mut pair, 3);
    });
}
