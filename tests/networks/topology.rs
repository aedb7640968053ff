//! Routes to advertised addresses: nodes advertise their addresses to each other.

use std::{thread, time::Instant};

use crate::common::{
    NodePair, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, UNLISTED_NETWORKS, assert_flow_alive,
    assert_nothing_lost, commands::run_ip, wait_until,
};
use netft_lab::{
    Lab, Moment, NetworkLayout,
    daemon::{EventLine, RouteRow, SiteSettings},
    in_namespace,
};

fn up(routes: &[RouteRow]) -> usize {
    routes.iter().filter(|route| route.state == "up").count()
}

#[test]
fn b_15_one_address_per_peer_gives_exactly_three_routes() {
    in_namespace("b_15_one_address_per_peer_gives_exactly_three_routes", || {
        let mut pair = NodePair::start_with(3, UNLISTED_NETWORKS);
        for node in [0, 1] {
            assert_eq!(pair.daemon(node).routes().unwrap().len(), 3);
        }
        thread::sleep(TRAFFIC_CHECK_TIME);
        for node in [0, 1] {
            let routes = pair.daemon(node).routes().unwrap();
            assert_eq!((routes.len(), up(&routes)), (3, 3));
        }
    });
}

#[test]
fn b_16_all_cross_subnet_routes_are_nine_when_one_end_asks() {
    in_namespace("b_16_all_cross_subnet_routes_are_nine_when_one_end_asks", || {
        let each = ["[topology]\nplumb_all_cross_subnet_routes = true\n"];
        let mut pair = NodePair::prepared(
            &[NetworkLayout::Flat; 3],
            SiteSettings { per_node: &each, ..UNLISTED_NETWORKS },
        );
        for node in [0, 1] {
            pair.start(node);
        }
        for node in [0, 1] {
            let nine = |routes: &[RouteRow]| routes.len() == 9 && up(routes) >= 3;
            pair.daemon(node).wait_for("nine routes", TEST_TIMEOUT, nine).unwrap();
        }
    });
}

#[test]
fn b_19_routed_networks_are_learnt_too() {
    in_namespace("b_19_routed_networks_are_learnt_too", || {
        let mut pair = NodePair::start_over(
            &[NetworkLayout::Routed, NetworkLayout::Flat, NetworkLayout::Routed],
            UNLISTED_NETWORKS,
        );
        for node in [0, 1] {
            let routes = pair.daemon(node).routes().unwrap();
            assert_eq!((routes.len(), up(&routes)), (3, 3), "{routes:?}");
        }
        assert_flow_alive(pair.transfer(0, Some(crate::common::TEST_RATE), false));
    });
}

/// F-24, and a fourth network at run time: routes within a second, without an interruption.
#[test]
fn f_24_a_network_added_at_run_time_is_a_route_and_one_taken_away_is_none() {
    in_namespace("f_24_a_network_added_at_run_time_is_a_route_and_one_taken_away_is_none", || {
        let mut pair = NodePair::start_with(3, UNLISTED_NETWORKS);
        let (probe, flow) = (pair.probe(0, false), pair.transfer(1, None, false));
        thread::sleep(TRAFFIC_CHECK_TIME);
        let began = Instant::now();
        pair.lab.add_network(NetworkLayout::Flat).unwrap();
        let plugged = began.elapsed();
        for node in [0, 1] {
            let four = |routes: &[RouteRow]| routes.len() == 4 && up(routes) == 4;
            pair.daemon(node).wait_for("a fourth route", TEST_TIMEOUT, four).unwrap();
        }
        println!("four routes up {:?} after the last cable", began.elapsed() - plugged);
        pair.lab.delete_nic(3, 1).unwrap();
        for node in [0, 1] {
            let three = |routes: &[RouteRow]| routes.len() == 3 && up(routes) == 3;
            pair.daemon(node).wait_for("three routes again", TEST_TIMEOUT, three).unwrap();
        }
        pair.lab.add_nic(3, 1).unwrap();
        for node in [0, 1] {
            let four = |routes: &[RouteRow]| routes.len() == 4 && up(routes) == 4;
            pair.daemon(node).wait_for("the fourth route again", TEST_TIMEOUT, four).unwrap();
        }
        assert_flow_alive(flow);
        assert_nothing_lost(&probe.finish());
    });
}

/// F-25.
#[test]
fn f_25_a_renamed_interface_keeps_its_route() {
    in_namespace("f_25_a_renamed_interface_keeps_its_route", || {
        let mut pair = NodePair::start_with(2, UNLISTED_NETWORKS);
        let before = pair.daemon(0).routes().unwrap();
        pair.lab.rename_interface(0, &Lab::nic_name(1), "lan7").unwrap();
        thread::sleep(4 * TRAFFIC_CHECK_TIME);
        let after = pair.daemon(0).routes().unwrap();
        assert_eq!(up(&after), 2);
        let ids = |routes: &[RouteRow]| routes.iter().map(|route| route.id).collect::<Vec<_>>();
        assert_eq!(ids(&before), ids(&after));
    });
}

/// Each end knows the other by an address on another network, and one of them by none at all.
#[test]
fn b_13_ends_that_know_different_addresses_find_each_other() {
    in_namespace("b_13_ends_that_know_different_addresses_find_each_other", || {
        for known in ["addresses = [\"10.3.0.1\"]", ""] {
            let mut pair = NodePair::prepared(&[NetworkLayout::Flat; 3], UNLISTED_NETWORKS);
            pair.rewrite_config(1, "addresses = [\"10.1.0.1\"]", known);
            for node in [1, 0] {
                pair.start(node);
            }
            for node in [0, 1] {
                assert_eq!(up(&pair.wait_routes_up(node)), 3);
            }
            assert_flow_alive(pair.transfer(0, Some(crate::common::TEST_RATE), false));
        }
    });
}

fn arp_setting(pair: &NodePair, node: usize, interface: &str, key: &str) -> String {
    let file = format!("/proc/sys/net/ipv4/conf/{interface}/{key}");
    pair.lab.node_netns(node).run_inside(|| std::fs::read_to_string(file)).unwrap().trim().into()
}

/// The hardware address that `node` finds for `addr` over `interface`, from an empty table.
fn resolved_mac(pair: &NodePair, node: usize, interface: &str, addr: &str) -> String {
    let began = Instant::now();
    loop {
        let line =
            run_ip(pair.lab.node_netns(node), &format!("-4 neigh show to {addr} dev {interface}"));
        let mut words = line.split_whitespace().skip_while(|word| *word != "lladdr");
        if let Some(mac) = words.nth(1) {
            return mac.to_owned();
        }
        assert!(began.elapsed() < TEST_TIMEOUT, "{addr} is not resolved: {line}");
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// F-67: two cards of each node on one subnet. The answer to an ARP request is always the right
/// card's, also after the tables were emptied, so that both routes come up.
#[test]
fn f_67_two_cards_on_one_subnet_answer_for_their_own_addresses() {
    in_namespace("f_67_two_cards_on_one_subnet_answer_for_their_own_addresses", || {
        let mut pair = NodePair::prepared(&[NetworkLayout::Flat], UNLISTED_NETWORKS);
        for node in [0, 1] {
            run_ip(pair.lab.node_netns(node), "link add eth9 link eth0 type macvlan mode bridge");
            run_ip(
                pair.lab.node_netns(node),
                &format!("addr add 10.1.0.{}/24 dev eth9", 11 + node),
            );
            run_ip(pair.lab.node_netns(node), "link set eth9 up");
        }
        let mac = |pair: &NodePair, name: &str| {
            let line = run_ip(pair.lab.node_netns(1), &format!("-o link show dev {name}"));
            let mut words = line.split_whitespace().skip_while(|word| *word != "link/ether");
            words.nth(1).unwrap().to_owned()
        };
        let right = [mac(&pair, "eth0"), mac(&pair, "eth9")];
        for node in [0, 1] {
            pair.start(node);
        }
        let two = |routes: &[RouteRow]| routes.len() >= 2 && up(routes) >= 2;
        for _ in 0..4 {
            for node in [0, 1] {
                pair.daemon(node).wait_for("both routes", TEST_TIMEOUT, two).unwrap();
            }
            for node in [0, 1] {
                run_ip(pair.lab.node_netns(node), "neigh flush all");
            }
            let found = [("eth0", "10.1.0.2"), ("eth9", "10.1.0.12")]
                .map(|(interface, addr)| resolved_mac(&pair, 0, interface, addr));
            assert_eq!(found, right);
        }
        assert_eq!(arp_setting(&pair, 0, "eth9", "arp_ignore"), "1");
        assert_eq!(arp_setting(&pair, 0, "eth9", "arp_announce"), "2");
        let daemon = pair.daemons[0].take().unwrap();
        daemon.stop().unwrap();
        for key in ["arp_ignore", "arp_announce"] {
            assert_eq!(arp_setting(&pair, 0, "eth9", key), "0", "restored by a clean stop");
        }
        // A crash leaves them; --cleanup, or the stop of the next run, restores them.
        assert_eq!(arp_setting(&pair, 1, "eth9", "arp_ignore"), "1");
        pair.daemons[1].take().unwrap().kill().unwrap();
        assert_eq!(arp_setting(&pair, 1, "eth9", "arp_ignore"), "1");
        let mut cleanup = pair.site.daemon_command(&pair.lab, 1).unwrap();
        let output = cleanup.arg("--cleanup").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        for key in ["arp_ignore", "arp_announce"] {
            assert_eq!(arp_setting(&pair, 1, "eth9", key), "0", "restored by --cleanup");
        }
        pair.start(0);
        wait_until("raised", || arp_setting(&pair, 0, "eth9", "arp_ignore") == "1");
        pair.daemons[0].take().unwrap().kill().unwrap();
        pair.start(0);
        let any = |routes: &[RouteRow]| !routes.is_empty();
        pair.daemon(0).wait_for("its routes", TEST_TIMEOUT, any).unwrap();
        pair.daemons[0].take().unwrap().stop().unwrap();
        assert_eq!(arp_setting(&pair, 0, "eth9", "arp_ignore"), "0", "restored by the next run");
    });
}

/// F-62: hundreds of unrelated addresses, which sort before those in use, take no route away, and
/// what peers do not learn of is told.
#[test]
fn f_62_unrelated_addresses_take_no_route_away() {
    in_namespace("f_62_unrelated_addresses_take_no_route_away", || {
        let mut pair = NodePair::start_with(2, UNLISTED_NETWORKS);
        let ids = |routes: &[RouteRow]| routes.iter().map(|route| route.id).collect::<Vec<_>>();
        let before = [0, 1].map(|node| ids(&pair.daemon(node).routes().unwrap()));
        let (events, began) = (pair.events(1), Moment::now());
        let flow = pair.transfer(0, Some(crate::common::TEST_RATE), false);
        let lines: String = (0..300)
            .map(|n| format!("addr add 10.0.{}.{}/30 dev eth0\n", n / 60, n % 60 * 4 + 1))
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        run_ip(pair.lab.node_netns(1), &format!("-batch {}", file.path().display()));
        let is_cut = |event: &EventLine| event.name == "interface-list-cut";
        events.wait_for("a cut list", began.wall, TEST_TIMEOUT, is_cut).unwrap();
        thread::sleep(4 * TRAFFIC_CHECK_TIME);
        for node in [0, 1] {
            let routes = pair.daemon(node).routes().unwrap();
            assert_eq!((ids(&routes), up(&routes)), (before[node].clone(), 2), "{routes:?}");
        }
        assert_flow_alive(flow);
    });
}
