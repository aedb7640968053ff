//! Faults of the active route under load: no packet is lost, none arrives twice, no flow breaks.
//!
//! 10,000 numbered datagrams per second each way and a hashed TCP stream at full speed, over three
//! networks at default settings. `NETFT_SEED` repeats a run. The long runs make `NETFT_FAULTS`
//! (200) faults of one kind and print what applications felt:
//! `cargo test --release --test nothing_lost -- --ignored --nocapture --test-threads=1`.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fmt::Write as _,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use common::{
    NodePair, PairCounters,
    faults::{FaultKind, TestRng},
    number_from_env,
};
use netft_lab::{
    Moment,
    daemon::{EventFollower, SiteSettings},
    in_namespace, in_namespace_for,
    probe::ProbeLog,
    scheduling,
};

/// How long faults last, from and to, milliseconds.
type Lasts = (u64, u64);
/// Longer than detection takes.
const DETECTED: Lasts = (250, 700);
/// Shorter than heartbeats can detect.
const UNDETECTED: Lasts = (15, 140);
/// Faults between two checks, to bound the memory of the logs.
const ROUND: u64 = 20;
/// Effects of a fault appear within this time.
const FELT: Duration = Duration::from_secs(1);
/// Reported events begin this long before the fault.
const BEFORE: Duration = Duration::from_millis(50);
/// Event fields that are not printed.
const NOISE: [&str; 5] = ["history", "seq", "at", "schema", "peer"];

/// A failover, and the return after it, take less than this many detection times.
const SLACK: u32 = 2;

/// One fault, and what was counted when it began.
struct Fault {
    number: u64,
    kind: FaultKind,
    network: usize,
    at: Moment,
    counts: PairCounters,
    /// How long it lasted, and what came before.
    story: String,
}

/// Effects of one fault on applications: longest time without an arrival (both directions), from
/// sending to arrival (both directions), and of the TCP flow without a byte.
#[derive(Default)]
struct Felt {
    gaps: Vec<Duration>,
    delays: Vec<Duration>,
    stalls: Vec<Duration>,
}

/// `faults` faults of `kinds` in turn, each as long as the dice say within `lasts`.
fn nothing_is_lost(kinds: &[FaultKind], lasts: Lasts, faults: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut dice = TestRng(number_from_env("NETFT_SEED", now));
    println!("NETFT_SEED={}", dice.0);
    let mut pair = NodePair::start_with(3, SiteSettings::default());
    let events = [0, 1].map(|node| pair.events(node));
    let mut felt = Felt::default();
    let mut problems = Vec::new();
    let mut done = 0;
    while done < faults {
        let count = ROUND.min(faults - done);
        round(
            &mut pair,
            &events,
            &mut dice,
            (kinds, lasts),
            (done, count),
            &mut felt,
            &mut problems,
        );
        done += count;
    }
    println!("| {faults} faults | p50 | p99 | max |\n|---|---|---|---|");
    felt.gaps.sort();
    felt.delays.sort();
    felt.stalls.sort();
    row("UDP: longest time without an arrival", &felt.gaps);
    row("UDP: longest time from sending to arriving", &felt.delays);
    row("TCP: longest time without a byte", &felt.stalls);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn row(what: &str, sorted: &[Duration]) {
    let at = |share: usize| sorted[(sorted.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("| {what} | {:.1} ms | {:.1} ms | {:.1} ms |", at(50), at(99), at(100));
}

fn round(
    pair: &mut NodePair,
    events: &[EventFollower; 2],
    dice: &mut TestRng,
    (kinds, lasts): (&[FaultKind], Lasts),
    (done, count): (u64, u64),
    felt: &mut Felt,
    problems: &mut Vec<String>,
) {
    let before = PairCounters::take_snapshot(pair);
    let flow = pair.transfer(0, None, false);
    let probes = [pair.dense_probe(0), pair.dense_probe(1)];
    let start = Instant::now();
    thread::sleep(Duration::from_millis(dice.between(300, 600)));
    let mut faults: Vec<Fault> = Vec::new();
    for number in done..done + count {
        faults.push(strike(pair, dice, (kinds[number as usize % kinds.len()], lasts), number));
    }
    thread::sleep(FELT);
    let after = PairCounters::take_snapshot(pair);
    let logs = probes.map(|probe| probe.finish());
    let outcome = flow.finish();
    let counts = after.since(&before);
    println!(
        "faults {done}..{}: {} + {} datagrams in {:?} (no room at the socket {} times), \
         {} MB of TCP",
        done + count,
        logs[0].sent.len(),
        logs[1].sent.len(),
        start.elapsed(),
        logs[0].refused + logs[1].refused,
        outcome.received / 1_000_000,
    );
    tell(&counts);
    if !outcome.hash_equal || outcome.resets > 0 || outcome.bytes != outcome.received {
        problems.push(format!("TCP: {:?}, equal {}", outcome.errors, outcome.hash_equal));
    }
    let detection = pair.active(0).1.detection_time();
    for fault in &faults {
        let (from, to) = (fault.at.monotonic, fault.at.monotonic + FELT);
        let gap = logs.iter().map(|log| log.report_between(from, to).longest_gap).max().unwrap();
        let stalled = stalls(events, fault.at, detection);
        felt.gaps.push(gap);
        if std::env::var("DBG").is_ok() {
            let each: Vec<String> = logs
                .iter()
                .map(|log| {
                    let r = log.report_between(from, to);
                    format!("{:.1}", r.longest_gap.as_secs_f64() * 1e3)
                })
                .collect();
            println!("  fault {} {:?}: gaps {each:?}", fault.number, fault.kind);
            for (node, events) in events.iter().enumerate() {
                for e in events.events_so_far().into_iter().filter(|e| {
                    e.is_at_or_after(fault.at.wall)
                        && e.at < fault.at.wall + Duration::from_millis(220)
                }) {
                    let at = e.at.duration_since(fault.at.wall).unwrap_or_default().as_millis();
                    let mut line = e.json;
                    if let Some(l) = line.as_object_mut() {
                        l.retain(|k, _| !NOISE.contains(&&**k));
                    }
                    let t = line.to_string();
                    println!("    {at} n{node} {}", &t[..t.len().min(260)]);
                }
                for e in events.events_so_far().into_iter().filter(|e| {
                    e.name.contains("cost")
                        && e.is_at_or_after(fault.at.wall)
                        && e.at < fault.at.wall + Duration::from_millis(2500)
                }) {
                    println!("    cost n{node} {}", e.json);
                }
            }
        }
        felt.delays.push(logs.iter().map(|log| log.max_delay(from, to)).max().unwrap());
        felt.stalls.push(outcome.longest_stall(from, to));
        let what = format!("fault {}: the longest time without an arrival", fault.number);
        scheduling::assert_within(&what, gap, detection * SLACK + stalled, start);
    }
    inquest(&logs, &faults, &after, events, problems);
    let twice: u64 = logs.iter().map(|log| log.full_report().duplicates).sum();
    if twice > 0 {
        problems.push(format!("faults {done}..: {twice} delivered twice"));
    }
}

/// Counters of a round.
fn tell(counts: &PairCounters) {
    let daemons = ["resent_frames", "duplicated_frames", "ring_overflow", "socket_overflow"];
    let kernels = ["TCPSpuriousRTOs", "TCPTimeouts", "TCPLossProbes", "TCPDSACKRecv"];
    let mut words = daemons.map(|name| format!("{name} {}", counts.daemon(name))).to_vec();
    let tcp = |name: &&str| format!("{name} {}", counts.kernel(&format!("TcpExt{name}")));
    words.extend(kernels.iter().map(tcp));
    println!("  {}; lost to full buffers:{}", words.join(", "), counts.buffer_drop_details());
}

/// Breaks the active route of a node, mends it, and waits: for the hold or not, as the dice say.
fn strike(
    pair: &mut NodePair,
    dice: &mut TestRng,
    (kind, lasts): (FaultKind, Lasts),
    number: u64,
) -> Fault {
    let victim = dice.between(0, 2) as usize;
    let (network, _) = pair.active(kind.sender().unwrap_or(victim));
    let counts = PairCounters::take_snapshot(pair);
    let at = kind.inject_fault(pair, network, victim);
    let lasts = Duration::from_millis(dice.between(lasts.0, lasts.1));
    thread::sleep(lasts);
    kind.heal_fault(pair, network, victim);
    for node in [0, 1] {
        pair.wait_routes_up(node);
    }
    let hold_over = dice.between(0, 2) == 0;
    let pause = if hold_over { dice.between(1000, 1500) } else { dice.between(0, 300) };
    thread::sleep(Duration::from_millis(pause));
    let story = format!("mended after {lasts:?}, whole for {pause} ms");
    Fault { number, kind, network, at, counts, story }
}

/// Self-stalls of the daemons around a fault, plus a detection time for each.
fn stalls(events: &[EventFollower; 2], at: Moment, detection: Duration) -> Duration {
    let seen = events.iter().flat_map(EventFollower::events_so_far);
    let near = seen.filter(|event| event.is_at_or_after(at.wall) && event.at <= at.wall + FELT);
    let lengths = near.filter_map(|event| event.u64_field("length_ms"));
    lengths.map(|length| Duration::from_millis(length) + detection).sum()
}

/// True if a machine failed, not a network: a daemon was not scheduled for a while, or lost its
/// peer although two of three networks are whole. What is lost then is told, not judged.
fn starved(events: &[EventFollower; 2], fault: &Fault, until: Option<SystemTime>) -> bool {
    let starves = ["stalled", "remote-unreachable"];
    let near = |at: SystemTime| until.is_none_or(|until| at < until);
    let mut seen = events.iter().flat_map(EventFollower::events_so_far);
    seen.any(|e| {
        starves.contains(&&*e.name) && e.is_at_or_after(fault.at.wall - FELT) && near(e.at)
    })
}

/// For every fault that lost datagrams: prints everything that may tell why, and complains unless
/// the machine was [`starved`], or the kernels dropped as many in that time for want of room.
fn inquest(
    logs: &[ProbeLog; 2],
    faults: &[Fault],
    after: &PairCounters,
    events: &[EventFollower; 2],
    problems: &mut Vec<String>,
) {
    for (place, fault) in faults.iter().enumerate() {
        let next = faults.get(place + 1);
        let start = fault.at.monotonic - BEFORE;
        let end = next.map(|fault| fault.at.monotonic - BEFORE);
        let within = |at: &Instant| (*at >= start || place == 0) && end.is_none_or(|end| *at < end);
        let lost = logs.each_ref().map(|log| {
            let near: Vec<Instant> = log.lost_send_times().into_iter().filter(within).collect();
            let after = |at: &Instant| {
                at.duration_since(start).as_secs_f64() - start.duration_since(*at).as_secs_f64()
            };
            let relative = |at| (after(at) - BEFORE.as_secs_f64()) * 1e3;
            near.iter().map(relative).collect::<Vec<f64>>()
        });
        if lost.iter().all(Vec::is_empty) {
            continue;
        }
        let Fault { number, kind, network, story, .. } = fault;
        let mut text = String::new();
        let _ = writeln!(text, "fault {number}: {kind:?} of network {network}, {story}");
        for (node, lost) in lost.iter().enumerate().filter(|(_, lost)| !lost.is_empty()) {
            let times: Vec<String> = lost.iter().take(40).map(|at| format!("{at:.1}")).collect();
            let (count, times) = (lost.len(), times.join(" "));
            let _ = writeln!(text, "  {count} from node {node}, sent at (ms after it): {times}");
        }
        let counts = next.map_or(after, |next| &next.counts).since(&fault.counts);
        let gone: usize = lost.iter().map(Vec::len).sum();
        // Reported events begin before the fault.
        let before = &faults[place.saturating_sub(1)].counts;
        let dropped = next.map_or(after, |next| &next.counts).since(before).buffer_drops();
        if starved(events, fault, next.map(|next| next.at.wall)) {
            let _ = writeln!(text, "  not judged: a daemon was not scheduled");
        } else if gone as u64 > dropped {
            problems.push(format!("fault {number}, {kind:?}: {gone} lost, see above"));
        }
        let _ = writeln!(text, "  {counts:?}");
        let from = fault.at.wall - BEFORE;
        let until = next.map(|fault| fault.at.wall);
        for (node, events) in events.iter().enumerate() {
            let seen = events.events_so_far().into_iter();
            for event in
                seen.filter(|e| e.is_at_or_after(from) && until.is_none_or(|until| e.at < until))
            {
                let at = event.at.duration_since(from).unwrap_or_default().as_millis() as i64;
                let at = at - BEFORE.as_millis() as i64;
                let mut line = event.json;
                if let Some(line) = line.as_object_mut() {
                    line.retain(|key, _| !NOISE.contains(&&**key));
                }
                let _ = writeln!(text, "  {at} ms, node {node}: {line}");
            }
        }
        println!("{text}");
    }
}

#[test]
fn six_random_faults_lose_nothing() {
    in_namespace("six_random_faults_lose_nothing", || {
        nothing_is_lost(&FaultKind::ALL, DETECTED, number_from_env("NETFT_FAULTS", 6));
    });
}

/// A long run with faults of one kind.
fn long(name: &str, kind: FaultKind, lasts: Lasts) {
    let faults = number_from_env("NETFT_FAULTS", 200);
    in_namespace_for(name, Duration::from_secs(60 + 6 * faults), || {
        nothing_is_lost(&[kind], lasts, faults);
    });
}

#[test]
#[ignore = "makes NETFT_FAULTS faults, up to 6 s each"]
fn black_holes_lose_nothing() {
    long("black_holes_lose_nothing", FaultKind::BlackHole, DETECTED);
}

#[test]
#[ignore = "makes NETFT_FAULTS faults, up to 6 s each"]
fn one_way_loss_loses_nothing() {
    long("one_way_loss_loses_nothing", FaultKind::OneWay { from: 0 }, DETECTED);
}

#[test]
#[ignore = "makes NETFT_FAULTS faults, up to 6 s each"]
fn one_way_loss_the_other_way_loses_nothing() {
    long("one_way_loss_the_other_way_loses_nothing", FaultKind::OneWay { from: 1 }, DETECTED);
}

#[test]
#[ignore = "makes NETFT_FAULTS faults, up to 6 s each"]
fn lost_carriers_lose_nothing() {
    long("lost_carriers_lose_nothing", FaultKind::Carrier, DETECTED);
}

#[test]
#[ignore = "makes NETFT_FAULTS faults, up to 6 s each"]
fn deleted_cards_lose_nothing() {
    long("deleted_cards_lose_nothing", FaultKind::NicDeleted, DETECTED);
}

/// Outages that only data can detect: they are over before a heartbeat is missed.
#[test]
#[ignore = "makes NETFT_FAULTS faults, up to 6 s each"]
fn short_holes_lose_nothing() {
    long("short_holes_lose_nothing", FaultKind::BlackHole, UNDETECTED);
}
