//! A node of this build and one that speaks the next wire version, too, with a flag and a field in
//! its hello that this build does not know: `scripts/versions` builds it.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{path::PathBuf, thread};

use common::{NodePair, TEST_RATE, TRAFFIC_CHECK_TIME, assert_flow_alive, assert_nothing_lost};
use netft_lab::{daemon::ProgramPaths, in_namespace};
use serde_json::{Value, json};

fn next_programs() -> PathBuf {
    let folder = std::env::var_os("NETFT_NEXT_VERSION").map(PathBuf::from);
    folder.expect("`scripts/versions` runs this test, and names the other build")
}

/// Versions of the other node, as a node has them from its hello.
fn versions(pair: &mut NodePair, node: usize) -> (Value, Value) {
    let peers = pair.daemon(node).get_json("/v1/peers").unwrap();
    let peer = &peers["peers"][0];
    (peer["wire_versions"].clone(), peer["release"].clone())
}

/// A network dies under traffic: nothing is lost, whoever is newer.
fn assert_failover_loses_nothing(pair: &mut NodePair) {
    let flows = [0, 1].map(|from| pair.transfer(from, Some(TEST_RATE), false));
    let probes = [0, 1].map(|from| pair.probe(from, false));
    thread::sleep(TRAFFIC_CHECK_TIME);
    let network = pair.active(0).0;
    pair.lab.black_hole(network).unwrap();
    thread::sleep(2 * TRAFFIC_CHECK_TIME);
    assert_ne!(pair.active(0).0, network);
    probes.into_iter().for_each(|probe| assert_nothing_lost(&probe.finish()));
    flows.into_iter().for_each(assert_flow_alive);
    pair.lab.heal_network(network).unwrap();
}

#[test]
#[ignore = "needs another build: `scripts/versions`"]
fn f_128_two_versions_are_one_cluster() {
    let next = next_programs();
    in_namespace("f_128_two_versions_are_one_cluster", || {
        // The newer one dials, or is dialled.
        for newer in [0, 1] {
            let mut pair = NodePair::prepared_for(2, common::hold_settings());
            let programs = ProgramPaths::new(next.join("netftd"), next.join("netft"));
            let daemon = pair.site.start_program(&pair.lab, newer, &programs).unwrap();
            pair.daemons[newer] = Some(daemon);
            pair.start(1 - newer);
            [0, 1].into_iter().for_each(|node| drop(pair.wait_routes_up(node)));
            let release = json!(env!("CARGO_PKG_VERSION"));
            assert_eq!(versions(&mut pair, 1 - newer), (json!([1, 2]), release.clone()));
            assert_eq!(versions(&mut pair, newer), (json!([1, 1]), release));
            assert_failover_loses_nothing(&mut pair);
            for node in [0, 1] {
                pair.daemons[node].take().unwrap().stop().unwrap();
            }
        }
    });
}
