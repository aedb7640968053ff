//! A third node relays between two that share no network.

use std::{thread, time::Duration};

use crate::common::{
    TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_flow_alive, three_nodes::NodeTriple,
    wait_until,
};
use netft_lab::{Lab, daemon::RouteRow, in_namespace};

const USE: &str = "[relay]\nuse = true\n";
const OFFER: &str = "[relay]\noffer = true\n";
/// Short detection across subnets, which relayed routes count as.
const COMMON: &str = "[heartbeat.cross_subnet]\ndelay = 50\nthreshold = 8\n";

/// The relayed routes of a node: peer, relay, state.
fn relayed(three: &NodeTriple, node: usize) -> Vec<(String, String, String)> {
    // It may not listen yet.
    let Ok(answer) = three.daemons[node].get_json("/v1/routes") else { return Vec::new() };
    let rows = answer["routes"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.filter(|row| !row["via"].is_null())
        .map(|row| (text(&row["peer"]), text(&row["via"]), text(&row["state"])))
        .collect()
}

fn up(peer: &str) -> Vec<(String, String, String)> {
    vec![(peer.to_owned(), "b".to_owned(), "up".to_owned())]
}

#[test]
fn two_nodes_without_a_common_network_meet_over_a_third() {
    in_namespace("two_nodes_without_a_common_network_meet_over_a_third", || {
        let lab = Lab::new(3, 2).unwrap();
        NodeTriple::separate_nodes(&lab);
        let three = NodeTriple::start(lab, COMMON, &[USE, OFFER, USE]);
        wait_until("relayed routes at both ends", || {
            relayed(&three, 0) == up("c") && relayed(&three, 2) == up("a")
        });
        assert_eq!(relayed(&three, 1), []);
        // The first session of these two, and then data, both ways.
        assert_flow_alive(three.transfer(0, 2, TEST_RATE));
        assert_flow_alive(three.transfer(2, 0, TEST_RATE));
        assert!(three.counter(1, "relayed_frames") > 100);
        for node in 0..3 {
            assert_eq!(three.drops(node, "relay_refused"), 0);
            assert_eq!(three.drops(node, "not_authentic"), 0);
        }
        // Only what the adapter of the relay itself was sent was opened there.
        assert_eq!(three.counter(1, "rx_bytes"), 0);
        let mut shown = three.site.operator_command(&three.lab, 0).unwrap();
        let shown = shown.arg("routes").output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("via b") && shown.contains("relayed"), "{shown}");
    });
}

#[test]
fn a_flow_outlives_the_loss_of_every_own_route_and_returns() {
    in_namespace("a_flow_outlives_the_loss_of_every_own_route_and_returns", || {
        let three = {
            let mut three = NodeTriple::start(Lab::new(3, 2).unwrap(), COMMON, &[USE, OFFER, USE]);
            for daemon in &mut three.daemons {
                daemon.wait_ready(4).unwrap();
            }
            three
        };
        assert_eq!(relayed(&three, 0), [], "nobody needs one");
        let flow = three.transfer(0, 2, TEST_RATE);
        thread::sleep(TRAFFIC_CHECK_TIME);
        NodeTriple::separate_nodes(&three.lab);
        wait_until("a relayed route", || relayed(&three, 0) == up("c"));
        let before = flow.bytes_received();
        wait_until("bytes over it", || flow.bytes_received() > before + TEST_RATE / 10);
        three.lab.add_nic(1, 0).unwrap();
        three.lab.add_nic(0, 2).unwrap();
        let mut three = three;
        three.daemons[0]
            .wait_for("data on an own route", TEST_TIMEOUT, |routes: &[RouteRow]| {
                let own = |route: &&RouteRow| route.active && route.real_local.starts_with("10.");
                routes.iter().filter(own).count() == 2
            })
            .unwrap();
        assert_flow_alive(flow);
        // It rests a while, and goes.
        let gone = || relayed(&three, 0).is_empty() && relayed(&three, 2).is_empty();
        let deadline = std::time::Instant::now() + Duration::from_secs(10) + TEST_TIMEOUT;
        while !gone() {
            crate::common::assert_before(deadline, || format!("{:?}", relayed(&three, 0)));
            thread::sleep(TRAFFIC_CHECK_TIME);
        }
    });
}

#[test]
fn nobody_relays_who_was_not_told_to() {
    in_namespace("nobody_relays_who_was_not_told_to", || {
        for each in [[USE, "", USE], ["", OFFER, USE], ["", OFFER, ""]] {
            let lab = Lab::new(3, 2).unwrap();
            NodeTriple::separate_nodes(&lab);
            let mut three = NodeTriple::start(lab, COMMON, &each);
            three.daemons[0].wait_for("b", TEST_TIMEOUT, |r| r.iter().any(|r| r.active)).unwrap();
            three.daemons[2].wait_for("b", TEST_TIMEOUT, |r| r.iter().any(|r| r.active)).unwrap();
            // Longer than it takes to try one, and to prove it.
            thread::sleep(Duration::from_secs(2));
            for node in [0, 2] {
                let up = relayed(&three, node).iter().any(|(.., state)| state == "up");
                assert!(!up, "{each:?}: {:?}", relayed(&three, node));
            }
        }
    });
}
