//! `--log debug` alone explains a failover and a refused handshake.

use std::time::{Duration, Instant};

use crate::common::{HOLD_CONFIG, NodePair, TEST_RATE, TEST_TIMEOUT};
use netft_lab::{daemon::SiteSettings, in_namespace};

/// Two nodes over two networks that log at `debug`; nothing runs yet.
fn prepared() -> NodePair {
    NodePair::prepared_for(2, SiteSettings { common: HOLD_CONFIG, ..SiteSettings::default() })
}

fn start(pair: &mut NodePair, node: usize) {
    let daemon = pair.site.start_daemon_with(&pair.lab, node, &["--log", "debug"]).unwrap();
    pair.daemons[node] = Some(daemon);
}

/// Waits until the log of a node holds, one below the other, a line for each step with all of the
/// step's words.
fn assert_explains(pair: &mut NodePair, node: usize, mark: usize, steps: &[&[&str]]) {
    let end = Instant::now() + TEST_TIMEOUT;
    loop {
        let log = pair.daemon(node).log_text();
        let mut lines = log[mark..].lines();
        let missing = steps.iter().find(|words| {
            let matches = |line: &str| words.iter().all(|word| line.contains(word));
            !lines.by_ref().any(matches)
        });
        let Some(missing) = missing else { return };
        crate::common::assert_before(end, || {
            format!("no line with {missing:?} in its place:\n{}", &log[mark..])
        });
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_debug_log_explains_a_failover() {
    in_namespace("the_debug_log_explains_a_failover", || {
        let mut pair = prepared();
        (0..2).for_each(|node| start(&mut pair, node));
        (0..2).for_each(|node| drop(pair.wait_routes_up(node)));
        let (network, route) = pair.active(0);
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        std::thread::sleep(crate::common::TRAFFIC_CHECK_TIME);
        let mark = pair.daemon(0).log_text().len();
        pair.lab.black_hole(network).unwrap();
        pair.wait_active(0, 1 - network);
        let from = format!("from={}", route.id);
        let ends = format!("{} -> {}", route.real_local, route.real_remote);
        // Unacknowledged frames, what is done with them, the engine's verdict, the table that
        // follows, and the event with its reason.
        let frames: &[&str] = &["frames retransmitted", &from];
        let suspect: &[&str] = &["is suspect", &ends];
        let table: &[&str] = &["forwarding table published", "generation=", "reason="];
        let moved: &[&str] = &["data to b moved", &ends];
        assert_explains(&mut pair, 0, mark, &[frames]);
        assert_explains(&mut pair, 0, mark, &[suspect]);
        assert_explains(&mut pair, 0, mark, &[table]);
        assert_explains(&mut pair, 0, mark, &[suspect, moved]);
        drop(flow);
    });
}

#[test]
fn the_debug_log_explains_a_refused_handshake() {
    in_namespace("the_debug_log_explains_a_refused_handshake", || {
        let mut pair = prepared();
        pair.site.replace_peer_key(0, 1).unwrap();
        (0..2).for_each(|node| start(&mut pair, node));
        let dialled: &[&str] = &["dial", "dialling"];
        let failed: &[&str] = &["handshake failed", "kind=", "reason="];
        for node in [0, 1] {
            assert_explains(&mut pair, node, 0, &[dialled, failed]);
        }
        // An operator who reads at `info` learns of it too.
        assert_explains(&mut pair, 0, 0, &[&["WARN", "key"]]);
    });
}

/// A log for machines: events have their fields apart.
#[test]
fn a_json_log_tells_events_by_kind_peer_and_route() {
    in_namespace("a_json_log_tells_events_by_kind_peer_and_route", || {
        let mut pair = prepared();
        let args = ["--log-format", "json"];
        for node in 0..2 {
            let daemon = pair.site.start_daemon_with(&pair.lab, node, &args).unwrap();
            pair.daemons[node] = Some(daemon);
        }
        pair.wait_routes_up(0);
        let event: &[&str] = &["\"event\":\"session-established\"", "\"peer\":\"b\""];
        assert_explains(&mut pair, 0, 0, &[event]);
        let moved: &[&str] = &["\"event\":\"moved\"", "\"component\":\"route\"", "\"routes\":\""];
        assert_explains(&mut pair, 0, 0, &[moved]);
        for line in pair.daemon(0).log_text().lines() {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
        }
    });
}
