//! Two sites with a router between them, far from each other: 50 ms each way, 1 % of loss. No
//! route may go down for it.
//!
//! 20 seconds, or `NETFT_SECONDS`: the figure is
//! `NETFT_SECONDS=300 cargo test --release --test two_sites -- --nocapture`.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{thread, time::Duration};

use common::{Pair, alive, number};
use netft_lab::{Moment, Shape, daemon::Settings, in_namespace_for, wire::Grey};

const NETWORKS: usize = 2;
/// Thin: loss and distance are the test, not the throughput.
const THIN: u64 = 50_000;

#[test]
fn distance_and_loss_take_no_route_down() {
    let span = Duration::from_secs(number("NETFT_SECONDS", 20));
    let limit = span * 2 + Duration::from_secs(90);
    in_namespace_for("distance_and_loss_take_no_route_down", limit, || {
        let prepared = Pair::prepared(&[Shape::Routed; NETWORKS], Settings::default());
        let seed = number("NETFT_SEED", 1);
        let wires =
            [0, 1].map(|network| prepared.lab.far_site(network, seed + network as u64).unwrap());
        let far = Grey { delay: Duration::from_millis(50), loss: 0.01, ..Grey::default() };
        wires.iter().for_each(|wire| wire.set_both(far));
        let mut pair = prepared.started();
        for node in [0, 1] {
            for route in pair.daemon(node).routes().unwrap() {
                assert_eq!((route.delay_ms, route.threshold), (100, 5), "the cross-subnet profile");
            }
        }
        let events = [0, 1].map(|node| pair.events(node));
        let start = Moment::now();
        let flow = pair.transfer(0, Some(THIN), false);
        thread::sleep(span);
        alive(flow);
        let seen = events.iter().flat_map(netft_lab::daemon::Events::seen);
        let changed = |event: &netft_lab::daemon::Event| {
            event.since(start.wall) && event.name == "state-changed"
        };
        let changes: Vec<String> =
            seen.filter(changed).map(|event| event.line.to_string()).collect();
        let [mut lost, mut relayed] = [0, 0];
        for wire in &wires {
            for (gone, passed) in [wire.counts(0), wire.counts(1)] {
                (lost, relayed) = (lost + gone, relayed + passed);
            }
        }
        println!(
            "{span:?}: {} changes of state; {lost} frames lost, {relayed} passed",
            changes.len()
        );
        // Heartbeats went over the wires, and some of them were lost.
        assert!(lost > 0 && relayed > span.as_millis() as u64 / 100 * 4, "{lost}, {relayed}");
        assert_eq!(changes, Vec::<String>::new());
    });
}
