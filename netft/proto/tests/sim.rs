//! Simulated clusters: random scenarios by seed, reproducibility of a seed, detection of injected
//! bugs.
//!
//! `NETFT_SIM_SEEDS=1000` runs more seeds, from `NETFT_SIM_FIRST=5000` on, `NETFT_SEED=42` runs one
//! and prints its timeline.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use netft_proto::{
    engine::InjectedBug,
    sim,
    sim::{Scenario, SimReport},
};

/// Runs `count` seeds on all cores; returns the results of `pick` in the order of seeds.
fn sweep<T: Send>(count: u64, pick: impl Fn(u64) -> Option<T> + Sync) -> Vec<T> {
    let first = number("NETFT_SIM_FIRST").unwrap_or(0);
    let next = AtomicU64::new(first);
    let kept = Mutex::new(Vec::new());
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    if let Some(found) = pick(seed) {
                        kept.lock().unwrap().push((seed, found));
                    }
                }
            });
        }
    });
    let mut kept = kept.into_inner().unwrap();
    kept.sort_by_key(|(seed, _)| *seed);
    kept.into_iter().map(|(_, found)| found).collect()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Runs one scenario and prints its timeline.
fn run_and_print(scenario: Scenario) {
    let scenario = scenario.keep_text();
    let report = sim::run_scenario(&scenario);
    println!("{}", report.text.as_deref().unwrap_or_default());
    assert!(report.violations.is_empty(), "{}", report.failure_text(&scenario));
}

#[test]
fn seeds_break_no_rule() {
    if let Some(seed) = number("NETFT_SEED") {
        return run_and_print(Scenario::random(seed));
    }
    let [heartbeats, packets, retransmissions, recovered, undelivered] =
        [const { AtomicU64::new(0) }; 5];
    let failures = sweep(number("NETFT_SIM_SEEDS").unwrap_or(200), |seed| {
        let scenario = Scenario::random(seed);
        let report = sim::run_scenario(&scenario);
        for (sum, part) in [
            (&heartbeats, report.heartbeats_delivered),
            (&packets, report.data.packets.len() as u64),
            (&retransmissions, report.data.retransmissions),
            (&recovered, report.data.recovered),
            (&undelivered, report.data.undelivered),
        ] {
            sum.fetch_add(part, Ordering::Relaxed);
        }
        (!report.violations.is_empty()).then(|| report.failure_text(&scenario))
    });
    let [packets, retransmissions, recovered, undelivered] =
        [packets, retransmissions, recovered, undelivered].map(AtomicU64::into_inner);
    println!("{} heartbeats delivered; {packets} packets,", heartbeats.into_inner());
    println!("{retransmissions} retransmissions, {recovered} packets recovered,");
    println!("{undelivered} lost although a network was good");
    let shown: Vec<_> = failures.iter().take(5).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} seeds failed\n{}", failures.len(), shown.join("\n"));
}

#[test]
fn seeds_of_data_faults_break_no_rule() {
    if let Some(seed) = number("NETFT_SEED") {
        return run_and_print(Scenario::random_data_faults(seed));
    }
    let failures = sweep(number("NETFT_SIM_SEEDS").unwrap_or(40), |seed| {
        let scenario = Scenario::random_data_faults(seed);
        let report = sim::run_scenario(&scenario);
        (!report.violations.is_empty()).then(|| report.failure_text(&scenario))
    });
    let shown: Vec<_> = failures.iter().take(5).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} seeds failed\n{}", failures.len(), shown.join("\n"));
}

/// The first seed of data faults that a bug breaks a rule in, and the rule.
fn first_broken_by(bug: InjectedBug) -> Option<(u64, String)> {
    (0..200).find_map(|seed| {
        let report = sim::run_scenario(&Scenario::random_data_faults(seed).with_bug(bug));
        report.violations.into_iter().next().map(|violation| (seed, violation))
    })
}

#[test]
fn an_engine_whose_heartbeats_alone_decide_is_found_out() {
    let found = first_broken_by(InjectedBug::HeartbeatsDecide);
    assert!(found.as_ref().is_some_and(|(_, text)| text.contains("rule 17")), "{found:?}");
}

#[test]
fn an_engine_that_never_returns_to_a_route_is_found_out() {
    let found = first_broken_by(InjectedBug::NeverReturn);
    assert!(found.as_ref().is_some_and(|(_, text)| text.contains("rule 5")), "{found:?}");
}

#[test]
fn an_engine_whose_data_alternates_is_found_out() {
    let found = first_broken_by(InjectedBug::ForgetDataLoss);
    assert!(found.as_ref().is_some_and(|(_, text)| text.contains("rule 18")), "{found:?}");
}

#[test]
fn one_seed_is_one_trace() {
    let run = |seed| sim::run_scenario(&Scenario::random(seed).keep_text());
    for seed in [0, 3, 11] {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.text, second.text);
        assert_eq!(first.trace_hash, second.trace_hash);
        assert_ne!(first.trace_hash, run(seed + 1).trace_hash);
    }
}

#[test]
fn keeping_the_text_does_not_change_the_run() {
    let with = sim::run_scenario(&Scenario::random(5).keep_text());
    let without = sim::run_scenario(&Scenario::random(5));
    assert_eq!(with.trace_hash, without.trace_hash);
    assert_eq!(with.heartbeats, without.heartbeats);
}

fn broken_by(bug: InjectedBug) -> Vec<SimReport> {
    sweep(50, |seed| {
        let report = sim::run_scenario(&Scenario::random(seed).with_bug(bug));
        (!report.violations.is_empty()).then_some(report)
    })
}

fn breaks(reports: &[SimReport], rules: &[&str]) -> bool {
    let violations = reports.iter().flat_map(|report| &report.violations);
    violations.into_iter().any(|text| rules.iter().any(|rule| text.contains(rule)))
}

#[test]
fn an_engine_that_ignores_the_peers_report_is_found_out() {
    let reports = broken_by(InjectedBug::IgnorePeerReport);
    assert!(breaks(&reports, &["rule 2", "rule 8"]), "{} reports", reports.len());
}

#[test]
fn an_engine_that_never_fails_over_is_found_out() {
    let reports = broken_by(InjectedBug::NeverFailOver);
    assert!(breaks(&reports, &["rule 1", "rule 2"]), "{} reports", reports.len());
}

#[test]
fn an_engine_that_gives_up_early_is_found_out() {
    let reports = broken_by(InjectedBug::EarlyDown);
    assert!(breaks(&reports, &["rule 4"]), "{} reports", reports.len());
}

#[test]
fn an_engine_that_suspects_for_ever_is_found_out() {
    let reports = broken_by(InjectedBug::NeverClearSuspicion);
    assert!(breaks(&reports, &["rule 15"]), "{} reports", reports.len());
}

#[test]
fn a_packet_path_that_delivers_twice_is_found_out() {
    let reports = broken_by(InjectedBug::DeliverTwice);
    assert!(breaks(&reports, &["rule 13"]), "{} reports", reports.len());
}

#[test]
fn a_packet_path_that_loses_what_is_in_flight_is_found_out() {
    let reports = broken_by(InjectedBug::LoseInFlight);
    assert!(breaks(&reports, &["rule 14"]), "{} reports", reports.len());
}
