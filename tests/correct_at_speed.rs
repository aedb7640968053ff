//! Everything arrives as it was sent, however fast and however bad the network: bytes by their hash
//! at both ends, packets by their checksums on the receiving adapter.
//!
//! In full: `NETFTD=target/release/netftd NETFT=target/release/netft NETFT_MIB=10240
//! cargo test --release --test correct_at_speed -- --ignored --nocapture --test-threads=1`.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    collections::HashSet,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use common::{NodePair, TEST_TIMEOUT, number_from_env};
use netft_lab::{
    checksums::{ChecksumInspector, ChecksumTally},
    daemon::{ADAPTER_NAME, SiteSettings},
    in_namespace, in_namespace_for,
    wire::{ImpairedWire, WireImpairments},
};

const OFFLOAD_CONFIG: &str = "[failover]\nhold = 300\n";
const PLAIN_CONFIG: &str = "[failover]\nhold = 300\n[adapter]\nbackend = \"plain\"\n";
const WORKERS_CONFIG: &str = "[failover]\nhold = 300\n[adapter]\nworkers = 3\n";
/// Configuration of each node, in turn.
const NODE_CONFIGS: [(&str, [&str; 2]); 4] = [
    ("fast", [OFFLOAD_CONFIG; 2]),
    ("plain", [PLAIN_CONFIG; 2]),
    ("fast and plain", [OFFLOAD_CONFIG, PLAIN_CONFIG]),
    ("one worker and three", [OFFLOAD_CONFIG, WORKERS_CONFIG]),
];
/// Every hundredth frame is lost, comes twice, comes late.
fn bad_wire() -> WireImpairments {
    WireImpairments { loss: 0.01, duplicate: 0.01, reorder: 0.01, ..WireImpairments::default() }
}
/// Much longer than any of this takes; a flow that stands still fails earlier.
const LONG_RUN: Duration = Duration::from_secs(7200);

/// Sends `enough` bytes each way at once, half in IPv4 and half in IPv6, and checks everything.
/// Returns what was seen on the adapters, and Gbit/s of both ways together.
fn both_ways(pair: &NodePair, enough: u64) -> ([ChecksumTally; 2], f64) {
    let inspect = |node| ChecksumInspector::start(pair.lab.node_netns(node), ADAPTER_NAME).unwrap();
    let inspectors = [inspect(0), inspect(1)];
    let start = Instant::now();
    let flows = [(0, false), (1, false), (0, true), (1, true)];
    let flows = flows.map(|(from, six)| pair.transfer(from, None, six));
    let (mut before, mut moved) = ([0; 4], Instant::now());
    while flows.iter().any(|flow| flow.bytes_received() < enough / 2) {
        assert!(!flows.iter().any(|flow| flow.is_broken()), "a flow broke");
        let bytes = [0, 1, 2, 3].map(|place| flows[place].bytes_received());
        if bytes != before {
            (before, moved) = (bytes, Instant::now());
        }
        assert!(moved.elapsed() < TEST_TIMEOUT, "no flow moves: {bytes:?}");
        thread::sleep(Duration::from_millis(200));
    }
    let mut total = 0;
    for flow in flows {
        let outcome = flow.finish();
        assert_eq!(outcome.errors, Vec::<String>::new());
        assert!(outcome.hash_equal && outcome.bytes == outcome.received, "bytes changed");
        total += outcome.bytes;
    }
    let rate = total as f64 * 8e-9 / start.elapsed().as_secs_f64();
    let tallies = inspectors.map(ChecksumInspector::finish);
    for tally in &tallies {
        assert_eq!((tally.wrong, &tally.errors[..]), (0, &[][..]));
        assert!(
            tally.finished + tally.unfinished > 100,
            "next to nothing was inspected: {tally:?}"
        );
    }
    (tallies, rate)
}

/// Datagrams of every size, each with its number: which ones came, in what was inspected.
fn datagrams(pair: &NodePair, count: u32) -> Vec<Vec<u8>> {
    let inspector = ChecksumInspector::start(pair.lab.node_netns(1), ADAPTER_NAME).unwrap();
    let end = |node: usize| {
        let endpoint = pair.endpoint(node, false);
        pair.lab.node_netns(node).run_inside(|| UdpSocket::bind(endpoint)).unwrap()
    };
    let ends = [end(0), end(1)];
    ends[0].connect(ends[1].local_addr().unwrap()).unwrap();
    for datagram in (0..count).map(made) {
        ends[0].send(&datagram).unwrap();
        if number_of(&datagram).is_multiple_of(16) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    thread::sleep(Duration::from_millis(300));
    let tally = inspector.finish();
    assert_eq!((tally.wrong, &tally.errors[..]), (0, &[][..]));
    tally.datagrams
}

fn made(number: u32) -> Vec<u8> {
    // Runs of one size, which are merged, and of others.
    let len = 4 + (number as usize / 8 * 97) % 1388;
    let mut datagram: Vec<u8> = (0..len).map(|at| (at as u32 * 7 + number) as u8).collect();
    datagram[..4].copy_from_slice(&number.to_be_bytes());
    datagram
}

fn number_of(datagram: &[u8]) -> u32 {
    u32::from_be_bytes(*datagram.first_chunk().unwrap())
}

fn print_tallies(tallies: &[ChecksumTally; 2], rate: f64, mib: u64, what: &str) {
    let sum = |of: fn(&ChecksumTally) -> u64| of(&tallies[0]) + of(&tallies[1]);
    println!(
        "{what}: {mib} MiB each way, {rate:.2} Gbit/s together, hashes equal; inspected {} packets \
         with an unfinished checksum ({} merged), {} with a finished one, 0 wrong",
        sum(|tally| tally.unfinished),
        sum(|tally| tally.merged),
        sum(|tally| tally.finished),
    );
}

/// Backends decide which form checksums have, not which packets arrive: a plain sender's kernel
/// finishes them, a plain receiver does it itself, a fast one verifies what it merges.
fn forms(tallies: &[ChecksumTally; 2], each: [&str; 2]) {
    for (tally, config) in tallies.iter().zip(each) {
        match (config == PLAIN_CONFIG, each.contains(&PLAIN_CONFIG)) {
            (true, _) => assert_eq!(tally.unfinished, 0, "{tallies:?}"),
            (false, false) => assert!(tally.unfinished > 0, "{tallies:?}"),
            // What comes in order merges: on a bad network perhaps nothing.
            (false, true) => {}
        }
    }
}

fn over_bad_networks(mib: u64) {
    for (what, each) in NODE_CONFIGS {
        let mut pair =
            NodePair::start_with(1, SiteSettings { per_node: &each, ..SiteSettings::default() });
        let clean = datagrams(&pair, 500);
        assert_eq!(clean, (0..500).map(made).collect::<Vec<_>>(), "{what}");
        let wire = ImpairedWire::insert(&pair.lab, 0, 11).unwrap();
        wire.set_both_impairments(bad_wire());
        let came = datagrams(&pair, 1000);
        let distinct: HashSet<_> = came.iter().collect();
        assert_eq!(distinct.len(), came.len(), "{what}: a packet was delivered twice");
        assert!(came.iter().all(|datagram| made(number_of(datagram)) == *datagram));
        assert!(came.len() > 900, "{what}: only {} of 1000 came", came.len());
        let (tallies, rate) = both_ways(&pair, mib << 20);
        forms(&tallies, each);
        print_tallies(&tallies, rate, mib, &format!("{what}, bad network"));
        assert!(pair.drops(0, "replayed") + pair.drops(1, "replayed") > 0, "nothing came twice");
        let lost = wire.lost_and_relayed(0).0 + wire.lost_and_relayed(1).0;
        assert!(lost > 0, "nothing was lost");
    }
}

fn at_full_speed(mib: u64) {
    for (what, each) in NODE_CONFIGS {
        let pair =
            NodePair::start_with(1, SiteSettings { per_node: &each, ..SiteSettings::default() });
        let (tallies, rate) = both_ways(&pair, mib << 20);
        forms(&tallies, each);
        let merged = tallies.iter().all(|tally| tally.merged > 0);
        assert_eq!(merged, !each.contains(&PLAIN_CONFIG), "{tallies:?}");
        print_tallies(&tallies, rate, mib, what);
    }
}

#[test]
fn lost_repeated_and_late_frames_change_nothing() {
    in_namespace("lost_repeated_and_late_frames_change_nothing", || over_bad_networks(2));
}

#[test]
fn full_speed_changes_nothing() {
    in_namespace("full_speed_changes_nothing", || at_full_speed(32));
}

#[test]
#[ignore = "moves NETFT_MIB MiB each way, four times"]
fn lost_repeated_and_late_frames_change_nothing_for_long() {
    in_namespace_for("lost_repeated_and_late_frames_change_nothing_for_long", LONG_RUN, || {
        over_bad_networks(number_from_env("NETFT_MIB", 1024));
    });
}

#[test]
#[ignore = "moves NETFT_MIB MiB each way, four times"]
fn full_speed_changes_nothing_for_long() {
    in_namespace_for("full_speed_changes_nothing_for_long", LONG_RUN, || {
        at_full_speed(number_from_env("NETFT_MIB", 10_240));
    });
}
