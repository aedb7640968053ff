//! Policy rules of other programs (an exit node of another VPN) draw no packet for a peer away.

use std::{net::UdpSocket, time::SystemTime};

use crate::common::{NodePair, TEST_TIMEOUT, assert_flow_alive, commands::run_ip, wait_until};
use netft_lab::{Netns, daemon::ADAPTER_NAME, in_namespace};

/// Another VPN: a default route in table 52, over a device of its own.
fn add_exit_node(netns: &Netns) {
    run_ip(netns, "link add other0 type veth peer name other1");
    run_ip(netns, "link set other1 up");
    run_ip(netns, "link set other0 up");
    run_ip(netns, "addr add 100.64.0.1/32 dev other0");
    run_ip(netns, "route add default dev other0 table 52");
    run_ip(netns, "-6 route add default dev other0 table 52");
}

/// True if both ways to the peer lead through the adapter.
fn leads_through_adapter(pair: &NodePair) -> bool {
    let (node, peer) = (pair.lab.node_netns(0), pair.site.virtual_addrs(1));
    [format!("route get {}", peer.v4), format!("-6 route get {}", peer.v6)]
        .iter()
        .all(|get| run_ip(node, get).contains(&format!("dev {ADAPTER_NAME}")))
}

/// Number of rules that netft set in both families.
fn own_rules(netns: &Netns) -> usize {
    let count =
        |family: &str| run_ip(netns, &format!("{family} rule show")).matches("lookup 3343").count();
    count("-4") + count("-6")
}

#[test]
fn f_45_a_rule_before_the_main_table_draws_nothing_away() {
    in_namespace("f_45_a_rule_before_the_main_table_draws_nothing_away", || {
        let mut pair = NodePair::start_up(1);
        let events = pair.events(0);
        add_exit_node(pair.lab.node_netns(0));
        let node = pair.lab.node_netns(0);
        assert_eq!(own_rules(node), 0);
        let start = SystemTime::now();
        for family in ["-4", "-6"] {
            run_ip(node, &format!("{family} rule add pref 5270 lookup 52"));
        }
        wait_until("the own rules", || own_rules(node) == 2 && leads_through_adapter(&pair));
        let told = events.wait_for("the rule", start, TEST_TIMEOUT, |event| {
            event.str_field("what").is_some_and(|what| what.contains("policy rule 5270"))
        });
        told.unwrap();
        assert_flow_alive(pair.transfer(0, None, false));
        // A rule for the packets of a card's address is no reason for one of netft's.
        run_ip(node, "rule del pref 5270");
        wait_until("no own IPv4 rule", || own_rules(node) == 1);
        run_ip(node, "rule add pref 5270 from 10.1.0.1 lookup 52");
        std::thread::sleep(crate::common::TRAFFIC_CHECK_TIME);
        assert_eq!(own_rules(node), 1);
        run_ip(node, "rule del pref 5270");
        run_ip(node, "rule add pref 5270 lookup 52");
        wait_until("the own rules again", || own_rules(node) == 2);
        // Guarded, and always before the foreign one.
        run_ip(node, "rule del pref 3343");
        wait_until("the rule again", || own_rules(node) == 2);
        run_ip(node, "rule add pref 100 lookup 52");
        wait_until("a rule before 100", || run_ip(node, "rule show").contains("99:"));
        assert!(leads_through_adapter(&pair));
        // Gone with its cause.
        run_ip(node, "rule del pref 100");
        run_ip(node, "rule del pref 5270");
        wait_until("only the IPv6 rule", || own_rules(node) == 1);
        assert!(pair.daemons[0].take().unwrap().stop().unwrap().success());
        assert_eq!(own_rules(pair.lab.node_netns(0)), 0);
    });
}

/// Nothing goes before a rule of priority 0.
#[test]
fn f_45_what_cannot_be_cured_is_told_and_dropped() {
    in_namespace("f_45_what_cannot_be_cured_is_told_and_dropped", || {
        let mut pair = NodePair::start_up(1);
        let events = pair.events(0);
        add_exit_node(pair.lab.node_netns(0));
        let node = pair.lab.node_netns(0);
        let start = SystemTime::now();
        run_ip(node, "rule add pref 0 lookup 52");
        let peer = pair.site.virtual_addrs(1).v4;
        let told = events.wait_for("the fault", start, TEST_TIMEOUT, |event| {
            event.name == "overlay-fault"
                && event.str_field("what").is_some_and(|what| {
                    what.contains(&peer.to_string()) && what.contains("policy rule 0")
                })
        });
        told.unwrap();
        let sent = node.run_inside(|| {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"to the peer", (peer, 9))
        });
        assert_eq!(sent.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        let mut validate = pair.site.operator_command(&pair.lab, 0).unwrap();
        validate.args(["validate", "--json", "--config"]).arg(pair.site.config_path(0));
        let output = validate.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("overlay-route") && text.contains("other0"), "{text}");
        let dropped = |pair: &mut NodePair| pair.drops(0, "left_adapter");
        let deadline = std::time::Instant::now() + TEST_TIMEOUT;
        while dropped(&mut pair) == 0 {
            assert!(std::time::Instant::now() < deadline, "not counted");
            std::thread::sleep(crate::common::TRAFFIC_CHECK_TIME);
        }
    });
}
