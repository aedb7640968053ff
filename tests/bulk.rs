//! Bulk data in both directions at once, as fast as it goes, byte for byte.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{NodePair, assert_flow_alive, number_from_env};
use netft_lab::{in_namespace, in_namespace_for, scheduling, transfer::Transfer};

/// Bytes in each direction, at least.
const ENOUGH: u64 = 100 << 20;
/// The time a build without optimization takes on a small machine, many times over.
const LIMIT: Duration = Duration::from_secs(120);

/// Super-packets, coalescing and bundles under load; the route under it dies and returns, so
/// segments are lost, and cross each other on two routes.
#[test]
fn bulk_both_ways_over_failing_routes_arrives_unchanged() {
    in_namespace("bulk_both_ways_over_failing_routes_arrives_unchanged", || {
        let mut pair = NodePair::start_up(2);
        let flows = [(0, false), (1, false), (0, true), (1, true)];
        let flows = flows.map(|(from, six)| pair.transfer(from, None, six));
        let deadline = Instant::now() + LIMIT;
        // Even places go one way, odd ones the other.
        let one_way =
            |place: usize| flows[place].bytes_received() + flows[place + 2].bytes_received();
        let slowest = || one_way(0).min(one_way(1));
        let mut faults = 0;
        while slowest() < ENOUGH || faults < 3 {
            common::assert_before(deadline, || format!("only {} bytes one way", slowest()));
            assert!(!flows.iter().any(|flow| flow.is_broken()), "a flow broke");
            thread::sleep(Duration::from_millis(300));
            if faults < 3 {
                faults += 1;
                let (network, _) = pair.active(0);
                pair.lab.black_hole(network).unwrap();
                pair.wait_active(0, 1 - network);
                pair.lab.heal_network(network).unwrap();
                for node in [0, 1] {
                    pair.wait_routes_up(node);
                }
            }
        }
        for flow in flows {
            let outcome = flow.finish();
            assert_eq!(outcome.errors, Vec::<String>::new());
            assert!(outcome.hash_equal && outcome.bytes == outcome.received, "bytes changed");
        }
    });
}

/// Bulk data leaves bounded queues in sockets: heartbeats on the route that carries it go
/// there and back within the detection time.
/// For figures: `NETFT_SECONDS=20 cargo test --release --test bulk --test over_quic heartbeats --
/// --nocapture`.
#[test]
fn heartbeats_are_on_time_beside_bulk_data() {
    in_namespace_for("heartbeats_are_on_time_beside_bulk_data", LIMIT, || {
        let mut pair = NodePair::start_up(2);
        let route = pair.active(0).1;
        let flows = [(0, false), (1, false)].map(|(from, six)| pair.transfer(from, None, six));
        let began = Instant::now();
        let mut trips = Vec::new();
        while began.elapsed() < Duration::from_secs(number_from_env("NETFT_SECONDS", 3)) {
            thread::sleep(Duration::from_millis(20));
            for node in [0, 1] {
                let routes = pair.daemon(node).get_json("/v1/routes").unwrap();
                let routes = routes["routes"].as_array().unwrap();
                let active = routes.iter().find(|route| route["active"] == true).unwrap();
                trips.push(active["rtt_us"].as_f64().unwrap() / 1000.0);
            }
        }
        let bytes: u64 = flows.iter().map(Transfer::bytes_received).sum();
        trips.sort_by(f64::total_cmp);
        let at = |share: usize| trips[(trips.len() - 1) * share / 100];
        let gigabits = bytes as f64 * 8.0 / 1e9 / began.elapsed().as_secs_f64();
        println!(
            "{gigabits:.2} Gbit/s both ways; round trips p50 {:.2}, p99 {:.2}, max {:.2} ms",
            at(50),
            at(99),
            at(100)
        );
        let detection = (route.delay_ms * route.threshold) as f64;
        scheduling::assert_timely(at(50) < detection, began, || {
            format!("{} ms of {detection}", at(50))
        });
        flows.into_iter().for_each(assert_flow_alive);
    });
}
