//! Figures of good times: no fault, so no route may go down, and suspicion must stay cheap.
//!
//! They take minutes (`NETFT_MINUTES`, 2 if not set), so they run when asked for:
//! `cargo test --release --test quiet -- --ignored --nocapture --test-threads=1`.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use common::{NodePair, PairCounters, number_from_env};
use netft_lab::{
    Moment,
    daemon::{EventLine, SiteSettings},
    in_namespace_for,
};

/// The bar: frames sent twice, as a share of the data, percent.
const MOST_TWICE: f64 = 2.0;

fn minutes() -> Duration {
    Duration::from_secs(60 * number_from_env("NETFT_MINUTES", 2))
}

/// Longer than any run asked for.
fn limit() -> Duration {
    minutes() * 2 + Duration::from_secs(120)
}

/// Keeps every core busy until dropped.
struct Hogs(Arc<AtomicBool>);

impl Hogs {
    fn start() -> Self {
        let stop = Arc::<AtomicBool>::default();
        for _ in 0..thread::available_parallelism().unwrap().get() {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Runs a quiet pair under `load` and returns how many routes went down; prints every event.
fn false_downs<L>(what: &str, load: impl FnOnce(&NodePair) -> L) -> usize {
    let mut pair = NodePair::start_with(3, SiteSettings::default());
    let events = [0, 1].map(|node| pair.events(node));
    let start = Moment::now();
    let before = PairCounters::take_snapshot(&mut pair);
    let load = load(&pair);
    thread::sleep(minutes());
    drop(load);
    let counts = PairCounters::take_snapshot(&mut pair).since(&before);
    let seen: Vec<(usize, EventLine)> = [0, 1]
        .into_iter()
        .flat_map(|node| events[node].events_so_far().into_iter().map(move |event| (node, event)))
        .filter(|(_, event)| event.is_at_or_after(start.wall))
        .collect();
    for (node, event) in &seen {
        println!("{} {}", pair.site.name(*node), event.json);
    }
    let count = |name: &str| seen.iter().filter(|(_, event)| event.name == name).count();
    let down =
        seen.iter().filter(|(_, e)| e.name == "state-changed" && e.str_field("from") == Some("up"));
    let down = down.count();
    println!(
        "{what}, {:?}: {down} routes down, {} moves, {} suspicions, {} stalls of a daemon; {} of \
         {} frames sent again, {} twice",
        minutes(),
        count("moved"),
        count("suspect"),
        count("stalled"),
        counts.daemon("resent_frames"),
        counts.daemon("tx_frames"),
        counts.daemon("duplicated_frames"),
    );
    down
}

#[test]
#[ignore = "takes NETFT_MINUTES"]
fn an_idle_pair_keeps_every_route() {
    in_namespace_for("an_idle_pair_keeps_every_route", limit(), || {
        assert_eq!(false_downs("idle", |_| ()), 0);
    });
}

#[test]
#[ignore = "takes NETFT_MINUTES"]
fn a_pair_on_busy_cores_keeps_every_route() {
    in_namespace_for("a_pair_on_busy_cores_keeps_every_route", limit(), || {
        assert_eq!(false_downs("cores busy", |_| Hogs::start()), 0);
    });
}

#[test]
#[ignore = "takes NETFT_MINUTES"]
fn a_pair_under_bulk_load_on_busy_cores_keeps_every_route() {
    in_namespace_for("a_pair_under_bulk_load_on_busy_cores_keeps_every_route", limit(), || {
        let load = |pair: &NodePair| (pair.transfer(0, None, false), Hogs::start());
        assert_eq!(false_downs("cores busy, bulk", load), 0);
    });
}

/// Frames sent twice without any fault, in percent of all frames.
fn twice(pair: &mut NodePair, what: &str, span: Duration) -> f64 {
    let before = PairCounters::take_snapshot(pair);
    let start = Instant::now();
    thread::sleep(span);
    let counts = PairCounters::take_snapshot(pair).since(&before);
    let [again, copies, frames] =
        ["resent_frames", "duplicated_frames", "tx_frames"].map(|name| counts.daemon(name));
    let share = (again + copies) as f64 * 100.0 / (frames.saturating_sub(again + copies)) as f64;
    println!(
        "{what}: {frames} frames in {:?}, {again} sent again, {copies} duplicated: {share:.3} %; \
         {} acknowledgements, {} frames forgotten, {} lost to full buffers",
        start.elapsed(),
        counts.daemon("acks_sent"),
        counts.daemon("ring_overflow"),
        counts.buffer_drops(),
    );
    share
}

#[test]
#[ignore = "takes NETFT_MINUTES"]
fn little_is_sent_twice_on_busy_cores() {
    in_namespace_for("little_is_sent_twice_on_busy_cores", limit(), || {
        let mut pair = NodePair::start_with(3, SiteSettings::default());
        let span = minutes() / 4;
        let hogs = Hogs::start();
        let bulk = pair.transfer(0, None, false);
        let one_way = twice(&mut pair, "bulk one way", span);
        let back = pair.transfer(1, None, false);
        let both_ways = twice(&mut pair, "bulk both ways", span);
        for flow in [bulk, back] {
            let outcome = flow.finish();
            assert!(outcome.hash_equal, "{:?}", outcome.errors);
        }
        let slow = pair.transfer(0, Some(common::TEST_RATE), false);
        let paced = twice(&mut pair, "5 MB/s one way", span);
        assert!(slow.finish().hash_equal);
        let probes = [pair.dense_probe(0), pair.dense_probe(1)];
        let small = twice(&mut pair, "10,000 packets/s both ways", span);
        probes.into_iter().for_each(|probe| drop(probe.finish()));
        drop(hogs);
        let worst = one_way.max(both_ways).max(paced).max(small);
        assert!(worst <= MOST_TWICE, "{worst:.3} % sent twice");
    });
}
