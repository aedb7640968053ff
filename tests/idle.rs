//! An idle node leaves replies unread until it is awake, and misses none for it.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use common::{NodePair, PairCounters};
use netft_lab::{
    daemon::{EventLine, SiteSettings},
    in_namespace,
};

/// Heartbeats every 30 ms are steady by then, and no data has gone out for long enough.
const SETTLED: Duration = Duration::from_secs(4);
const WATCHED: Duration = Duration::from_secs(3);

/// True if a UDP socket of a node has unread datagrams (the field `rx_queue` of `proc(5)`).
fn unread(pair: &NodePair, node: usize) -> bool {
    let table = pair
        .lab
        .node_netns(node)
        .run_inside(|| std::fs::read_to_string("/proc/thread-self/net/udp"));
    let table = table.unwrap();
    let queues = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(4));
    queues.filter_map(|queues| queues.split_once(':')).any(|(_, rx)| rx != "00000000")
}

#[test]
fn replies_wait_until_an_idle_node_is_awake_and_none_is_missed() {
    in_namespace("replies_wait_until_an_idle_node_is_awake_and_none_is_missed", || {
        let mut pair = NodePair::start_with(3, SiteSettings::default());
        let events = [0, 1].map(|node| pair.events(node));
        thread::sleep(SETTLED);
        let quiet_since = SystemTime::now();
        let before = PairCounters::take_snapshot(&mut pair);
        let (mut looks, mut waiting) = (0, 0);
        let end = Instant::now() + WATCHED;
        while Instant::now() < end {
            looks += 1;
            waiting += u32::from(unread(&pair, 0));
            thread::sleep(Duration::from_millis(5));
        }
        let counts = PairCounters::take_snapshot(&mut pair).since(&before);
        println!("a reply waits in {waiting} of {looks} looks; {counts:?}");
        // Nearly all the time; a datagram that is read at once is not seen here.
        assert!(waiting * 2 > looks, "{waiting} of {looks}");
        for node in [0, 1] {
            for route in pair.wait_routes_up(node) {
                let rtt = Duration::from_micros(route.rtt_us.unwrap());
                assert!(rtt * 2 < Duration::from_millis(route.delay_ms), "no wait is: {route:?}");
            }
            let seen = events[node].events_so_far();
            let missed = |event: &EventLine| {
                event.name == "early-warning" && event.is_at_or_after(quiet_since)
            };
            let starved = seen.iter().any(|event| event.name == "stalled");
            assert!(starved || !seen.iter().any(missed), "{seen:?}");
        }
    });
}
