//! Planned moves lose nothing: drains and live changes of priority, delay and threshold under a
//! numbered UDP probe and a TCP flow each way.
//!
//! `NETFT_LONG=1` does a hundred of each.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{process::Output, time::Instant};

use common::{NodePair, TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_flow_alive};
use netft_lab::{Lab, daemon::EventFollower, in_namespace, scheduling};
use serde_json::Value;

fn rounds() -> usize {
    if std::env::var("NETFT_LONG").as_deref() == Ok("1") { 100 } else { 6 }
}

impl NodePair {
    /// Orders are repeated while a busy machine keeps the daemon from answering in time.
    fn netft(&self, node: usize, args: &[&str]) -> Output {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let mut operator = self.site.operator_command(&self.lab, node).unwrap();
            let output = operator.args(args).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            let late = ["did not answer within", "driver does not answer"];
            if !late.iter().any(|late| error.contains(late)) || Instant::now() > deadline {
                return output;
            }
        }
    }

    fn run_netft(&self, node: usize, args: &[&str]) -> String {
        let output = self.netft(node, args);
        assert!(output.status.success(), "netft {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn run_refused(&self, node: usize, args: &[&str]) -> String {
        let output = self.netft(node, args);
        assert_eq!(output.status.code(), Some(1), "netft {args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The number of a node's route over a network.
    fn route(&mut self, node: usize, network: usize) -> u64 {
        let routes = self.daemon(node).routes().unwrap();
        routes.into_iter().find(|route| self.network(node, route) == network).unwrap().id
    }

    fn field(&mut self, node: usize, route: u64, field: &str) -> Value {
        let answer = self.daemon(node).get_json(&format!("/v1/routes/{route}")).unwrap();
        answer["route"][field].clone()
    }
}

/// Overflow of the adapters' queues (500 packets) while a daemon was not scheduled: at a
/// packet per millisecond nothing, unless the machine stood still for longer than 400 ms.
fn overflowed(events: &[EventFollower; 2]) -> u64 {
    let seen = events
        .iter()
        .flat_map(EventFollower::events_so_far)
        .filter(|event| event.name == "stalled");
    seen.filter_map(|event| event.u64_field("length_ms")).filter(|length| *length > 400).sum()
}

/// Runs `moves` under probes and flows both ways, of which nothing may be lost.
fn unnoticed(pair: &mut NodePair, moves: impl FnOnce(&mut NodePair)) {
    let start = Instant::now();
    let events = [0, 1].map(|node| pair.events(node));
    let probes = [pair.probe(0, false), pair.probe(1, true)];
    let flows = [pair.transfer(0, Some(TEST_RATE), false), pair.transfer(1, Some(TEST_RATE), true)];
    std::thread::sleep(TRAFFIC_CHECK_TIME);
    moves(pair);
    std::thread::sleep(TRAFFIC_CHECK_TIME);
    flows.into_iter().for_each(assert_flow_alive);
    for probe in probes {
        let log = probe.finish();
        let report = log.full_report();
        println!("{report:?}");
        assert!(report.sent > 0 && report.duplicates == 0, "{report:?}");
        scheduling::assert_timely(report.lost <= overflowed(&events), start, || {
            format!("{report:?}")
        });
    }
}

#[test]
fn drained_routes_are_left_by_both_ends_and_nothing_is_lost() {
    in_namespace("drained_routes_are_left_by_both_ends_and_nothing_is_lost", || {
        let mut pair = NodePair::start_up(3);
        unnoticed(&mut pair, |pair| {
            for round in 0..rounds() {
                let (node, network) = (round % 2, round / 2 % 2);
                let ids = [0, 1].map(|node| pair.route(node, network));
                let id = ids[node].to_string();
                let text = pair.run_netft(node, &["route", "drain", &id]);
                assert!(text.contains("drained"), "{text}");
                // Answered means that both directions have left.
                for end in [0, 1] {
                    assert_eq!(pair.field(end, ids[end], "active"), false, "node {end}");
                }
                assert_eq!(pair.field(node, ids[node], "drain_by"), "here");
                assert_eq!(pair.field(1 - node, ids[1 - node], "drain_by"), "peer");
                pair.run_netft(node, &["route", "undrain", &id]);
                for end in [0, 1] {
                    pair.wait_active(end, 0);
                }
            }
        });
    });
}

#[test]
fn live_changes_of_priority_delay_and_threshold_lose_nothing() {
    in_namespace("live_changes_of_priority_delay_and_threshold_lose_nothing", || {
        let mut pair = NodePair::start_up(3);
        let set = |pair: &mut NodePair, network: usize, what: &[&str]| {
            for node in [0, 1] {
                let id = pair.route(node, network).to_string();
                pair.run_netft(node, &[&["route", "set", &id], what].concat());
            }
        };
        unnoticed(&mut pair, |pair| {
            for round in 0..rounds() {
                let network = 1 + round % 2;
                set(pair, network, &["--priority", "1"]);
                (0..2).for_each(|node| pair.wait_active(node, network));
                match round % 3 {
                    0 => set(pair, network, &["--delay", "20", "--threshold", "8"]),
                    1 => set(pair, network, &["--delay", "60"]),
                    _ => set(pair, network, &["--threshold", "12"]),
                }
                set(pair, network, &["--priority", "9000"]);
                (0..2).for_each(|node| pair.wait_active(node, 0));
                set(pair, network, &["--delay", "30", "--threshold", "5"]);
            }
        });
        let id = pair.route(0, 1);
        assert_eq!(pair.field(0, id, "priority"), 9000);
        assert_eq!(pair.field(0, id, "delay_ms"), 30);
    });
}

#[test]
fn an_interface_is_drained_whole_and_the_last_route_only_by_force() {
    in_namespace("an_interface_is_drained_whole_and_the_last_route_only_by_force", || {
        let mut pair = NodePair::start_up(2);
        let [first, second] = [0, 1].map(|network| pair.route(0, network));
        let (nic0, nic1) = (Lab::nic_name(0), Lab::nic_name(1));
        unnoticed(&mut pair, |pair| {
            assert!(pair.run_netft(0, &["drain", &nic0]).contains("drained"));
            for node in [0, 1] {
                pair.wait_active(node, 1);
            }
            for args in [["drain", &nic1].as_slice(), &["route", "drain", &second.to_string()]] {
                let text = pair.run_refused(0, args);
                let line = "error: b would be left without another route";
                assert!(text.starts_with(line) && text.lines().count() == 1, "{text}");
                assert_eq!(pair.field(0, second, "drain"), Value::Null);
            }
            // By force it is drained, and serves all the same.
            pair.run_netft(0, &["drain", &nic1, "--force"]);
            assert_eq!(pair.field(0, second, "drain"), "drained");
            assert_eq!(pair.field(0, first, "drain"), "draining");
            pair.run_netft(0, &["undrain", &nic1]);
            pair.run_netft(0, &["undrain", &nic0]);
            pair.wait_active(0, 0);
        });
        let output = pair.netft(0, &["drain", "nowhere"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        // A drained route whose network dies is down, and comes back drained.
        pair.run_netft(0, &["route", "drain", &first.to_string()]);
        pair.lab.black_hole(0).unwrap();
        pair.daemon(0)
            .wait_for("route down", TEST_TIMEOUT, |r| r.iter().any(|r| r.id == first && !r.rx))
            .unwrap();
        pair.lab.heal_network(0).unwrap();
        pair.wait_routes_up(0);
        assert_eq!(pair.field(0, first, "drain"), "drained");
    });
}
