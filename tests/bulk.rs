//! Bulk data in both directions at once, as fast as it goes, byte for byte.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::Pair;
use netftd::lab::in_namespace;

/// Bytes in each direction, at least.
const ENOUGH: u64 = 100 << 20;
/// The time a build without optimization takes on a small machine, many times over.
const LIMIT: Duration = Duration::from_secs(120);

/// Super-packets, coalescing and bundles under load; the route under it dies and returns, so
/// segments are lost, and cross each other on two routes.
#[test]
fn bulk_both_ways_over_failing_routes_arrives_unchanged() {
    in_namespace("bulk_both_ways_over_failing_routes_arrives_unchanged", || {
        let mut pair = Pair::up(2);
        let flows = [(0, false), (1, false), (0, true), (1, true)];
        let flows = flows.map(|(from, six)| pair.transfer(from, None, six));
        let deadline = Instant::now() + LIMIT;
        // Even places go one way, odd ones the other.
        let one_way = |place: usize| flows[place].received() + flows[place + 2].received();
        let slowest = || one_way(0).min(one_way(1));
        let mut faults = 0;
        while slowest() < ENOUGH || faults < 3 {
            assert!(Instant::now() < deadline, "only {} bytes one way", slowest());
            assert!(!flows.iter().any(|flow| flow.broken()), "a flow broke");
            thread::sleep(Duration::from_millis(300));
            if faults < 3 {
                faults += 1;
                let (network, _) = pair.active(0);
                pair.lab.black_hole(network).unwrap();
                pair.wait_active(0, 1 - network);
                pair.lab.heal(network).unwrap();
                for node in [0, 1] {
                    pair.ready(node);
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
