//! Effect of a failover on a TCP flow, compared with the same outage on a plain network of the same
//! run.
//!
//! `NETFT_FAULTS` blackouts of each, 3 if not set. For figures:
//! `NETFT_FAULTS=50 cargo test --release --test stall -- --include-ignored --nocapture`.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use common::{NodePair, PairCounters, faults::TestRng, number_from_env};
use netft_lab::{
    KernelCounters,
    daemon::SiteSettings,
    in_namespace_for, scheduling,
    transfer::{SendPattern, Transfer},
};

/// 1 kB every 2 ms.
const CHUNK: usize = 1000;
const RATE: u64 = 500_000;
/// A stall that a blackout causes ends within this.
const FELT: Duration = Duration::from_secs(1);

/// The middle and the ends of what was measured, milliseconds.
struct Stalls(Vec<f64>);

impl Stalls {
    fn new(stalls: &[Duration]) -> Self {
        let mut stalls: Vec<f64> = stalls.iter().map(|stall| stall.as_secs_f64() * 1e3).collect();
        stalls.sort_by(f64::total_cmp);
        Self(stalls)
    }

    fn at(&self, percent: usize) -> f64 {
        self.0[(self.0.len() - 1) * percent / 100]
    }

    fn row(&self, what: &str, tcp: &str) {
        let [middle, most, max] = [50, 99, 100].map(|percent| self.at(percent));
        println!("| {what} | {middle:.1} | {most:.1} | {max:.1} | {tcp} |");
    }
}

/// TCP's reaction.
fn troubles(counters: &[KernelCounters]) -> String {
    let names = ["SpuriousRTOs", "Timeouts", "LossProbes", "DSACKRecv", "LostRetransmit"];
    let sum = |name: &str| counters.iter().map(|counters| counters.get(name)).sum::<u64>();
    let mut words: Vec<String> =
        names.map(|name| format!("{} {name}", sum(&format!("TcpExtTCP{name}")))).into();
    words.push(format!("{} retransmitted", sum("TcpRetransSegs")));
    words.join(", ")
}

/// Makes `network` swallow everything for `lasts` under a thin flow from `from` to `to`. Returns
/// the flow's stall, and what TCP did.
fn blackout(
    pair: &NodePair,
    network: usize,
    [from, to]: [SocketAddr; 2],
    congestion: &str,
    lasts: Duration,
) -> (Duration, KernelCounters) {
    let pace = SendPattern { chunk: CHUNK, rate: Some(RATE), congestion };
    let nodes = [0, 1].map(|node| pair.lab.node_netns(node));
    let flow = Transfer::start_with_pattern((nodes[0], from), (nodes[1], to), pace).unwrap();
    thread::sleep(Duration::from_millis(400));
    let before = nodes[0].kernel_counters();
    let fault = pair.lab.black_hole(network).unwrap().monotonic;
    thread::sleep(lasts.saturating_sub(fault.elapsed()));
    pair.lab.heal_network(network).unwrap();
    thread::sleep(FELT.saturating_sub(fault.elapsed()));
    let counters = nodes[0].kernel_counters().since(&before);
    let outcome = flow.finish();
    assert_eq!(outcome.errors, Vec::<String>::new());
    assert!(outcome.hash_equal, "the bytes changed");
    (outcome.longest_stall(fault, fault + FELT), counters)
}

/// The same blackouts through netft and over a plain network, in turn.
fn beside_plain(congestion: &str, rounds: u64) {
    let mut pair = NodePair::start_with(
        3,
        SiteSettings { common: common::HOLD_CONFIG, ..SiteSettings::default() },
    );
    let mut dice = TestRng(number_from_env("NETFT_SEED", 1));
    let (mut ours, mut plain) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    let through = [0, 1].map(|node| pair.endpoint(node, false));
    let (mut spurious, start) = (0, Instant::now());
    for _ in 0..rounds {
        // The time detection by heartbeats takes, at the defaults.
        let lasts = Duration::from_millis(dice.between(150, 220));
        let (network, _) = pair.active(0);
        let over = [0, 1].map(|node| SocketAddr::from((pair.lab.node_ipv4(network, node), 0)));
        let (stall, counters) = blackout(&pair, network, through, congestion, lasts);
        spurious += counters.get("TcpExtTCPSpuriousRTOs");
        ours.0.push(stall);
        ours.1.push(counters);
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
        let (stall, counters) = blackout(&pair, network, over, congestion, lasts);
        plain.0.push(stall);
        plain.1.push(counters);
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
    }
    println!("| {rounds} blackouts of 150–220 ms, {congestion} | p50 ms | p99 | max | TCP |");
    println!("|---|---|---|---|---|");
    let (through, over) = (Stalls::new(&ours.0), Stalls::new(&plain.0));
    through.row("through netft", &troubles(&ours.1));
    over.row("over a plain network", &troubles(&plain.1));
    scheduling::assert_timely(through.at(50) < over.at(50), start, || {
        "a failover stalls no less than a blackout".to_owned()
    });
    scheduling::assert_timely(spurious == 0, start, || {
        "a failover made TCP believe in a loss".to_owned()
    });
}

fn limit(rounds: u64) -> Duration {
    Duration::from_secs(60 + rounds * 15)
}

#[test]
fn a_thin_flow_stalls_less_than_on_a_plain_network_with_cubic() {
    let rounds = number_from_env("NETFT_FAULTS", 3);
    let name = "a_thin_flow_stalls_less_than_on_a_plain_network_with_cubic";
    in_namespace_for(name, limit(rounds), || beside_plain("cubic", rounds));
}

/// Where the kernel has it.
#[test]
fn a_thin_flow_stalls_less_than_on_a_plain_network_with_bbr() {
    let rounds = number_from_env("NETFT_FAULTS", 3);
    let name = "a_thin_flow_stalls_less_than_on_a_plain_network_with_bbr";
    let known = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    if !std::fs::read_to_string(known).unwrap().contains("bbr") {
        return println!("SKIP {name}: this kernel has no bbr");
    }
    in_namespace_for(name, limit(rounds), || beside_plain("bbr", rounds));
}

/// Bytes per second that arrived over ten seconds.
fn rate(flow: &Transfer, fault: Option<&dyn Fn()>) -> f64 {
    let half = Duration::from_secs(5);
    let (start, before) = (Instant::now(), flow.bytes_received());
    thread::sleep(half);
    if let Some(fault) = fault {
        fault();
    }
    thread::sleep((half * 2).saturating_sub(start.elapsed()));
    (flow.bytes_received() - before) as f64 / start.elapsed().as_secs_f64()
}

/// Ten seconds around a failover beside the ten seconds before, `NETFT_FAULTS` times.
#[test]
#[ignore = "half a minute per fault"]
fn bulk_throughput_around_a_failover() {
    let rounds = number_from_env("NETFT_FAULTS", 5);
    in_namespace_for("bulk_throughput_around_a_failover", limit(rounds * 3), || {
        let mut pair = NodePair::start_with(
            3,
            SiteSettings { common: common::HOLD_CONFIG, ..SiteSettings::default() },
        );
        let mut shares = Vec::new();
        for round in 0..rounds {
            let flow = pair.transfer(0, None, false);
            thread::sleep(Duration::from_secs(2));
            let (network, _) = pair.active(0);
            let before = PairCounters::take_snapshot(&mut pair);
            // Other jobs come and go on the machine: the two spans take turns in being first.
            let fault: &dyn Fn() = &|| {
                pair.lab.black_hole(network).unwrap();
            };
            let first = rate(&flow, (round % 2 == 1).then_some(fault));
            let second = rate(&flow, (round % 2 == 0).then_some(fault));
            let (steady, around) = if round % 2 == 0 { (first, second) } else { (second, first) };
            let counts = PairCounters::take_snapshot(&mut pair).since(&before);
            assert!(flow.finish().hash_equal);
            pair.lab.heal_network(network).unwrap();
            for node in [0, 1] {
                pair.wait_routes_up(node);
            }
            shares.push(around / steady);
            println!(
                "steady {:.0} MB/s, around a failover {:.0} MB/s: {:.3}; frames: {} sent again, {} \
                 duplicated of {}",
                steady / 1e6,
                around / 1e6,
                around / steady,
                counts.daemon("resent_frames"),
                counts.daemon("duplicated_frames"),
                counts.daemon("tx_frames"),
            );
        }
        shares.sort_by(f64::total_cmp);
        let middle = shares[shares.len() / 2];
        println!("around a failover: {middle:.3} of steady (median of {rounds}), {shares:.3?}");
        assert!(middle > 0.8, "a failover costs {:.0} % of ten seconds", (1.0 - middle) * 100.0);
    });
}
