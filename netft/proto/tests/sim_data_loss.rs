//! F-40: loss that only data suffers. Heartbeats pass, and data moves to a network that is clearly
//! better for it, stays away until that one is proven clean, and never alternates.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use netft_proto::{
    Time,
    route::{EventKind, Reason},
    sim,
    sim::{DataFault, FaultAction, NetworkModel, Scenario, SimReport},
};

const FAULT_AT: Time = Time::from_millis(3000);

fn run(scenario: &Scenario) -> SimReport {
    let report = sim::run_scenario(scenario);
    assert!(report.violations.is_empty(), "{}", report.failure_text(scenario));
    report
}

/// Three networks and a bulk transfer: a frame every 0.1 ms.
fn bulk(seed: u64, seconds: u64) -> Scenario {
    let scenario = Scenario::new(seed).networks(3).run_for(Duration::from_secs(seconds));
    scenario.data_every(Duration::from_micros(200)).timer_slack(Duration::from_micros(200))
}

fn harm(network: usize, from: usize, fault: DataFault) -> FaultAction {
    FaultAction::DataFault { network, from, to: 1 - from, fault }
}

/// Moves of a node's data from [`FAULT_AT`] on: when, to which network and why.
fn moves(report: &SimReport, scenario: &Scenario, node: usize) -> Vec<(Time, usize, Reason)> {
    report.network_moves(scenario, node, FAULT_AT)
}

#[test]
fn data_leaves_a_network_that_loses_it_within_its_bound_and_once() {
    for (permille, bound) in [(100, 300), (30, 500), (10, 1000)] {
        let mut took = Vec::new();
        for seed in 0..12 {
            let scenario = bulk(seed, 6).datagram_limit(1472);
            let scenario = scenario.with_fault(FAULT_AT, harm(0, 0, DataFault::Loss(permille)));
            let report = run(&scenario);
            let sender = moves(&report, &scenario, 0);
            let [(at, 1, Reason::DataLoss)] = sender[..] else {
                panic!("seed {seed}, {permille} per mille: {sender:?}")
            };
            assert_eq!(moves(&report, &scenario, 1), [], "its direction is clean");
            took.push(at.since(FAULT_AT));
        }
        took.sort();
        println!("{permille} per mille: left after {:?}, {:?} at most", took[6], took[11]);
        assert!(took[11] <= Duration::from_millis(bound), "{permille}: {took:?}");
    }
}

#[test]
fn corruption_and_bursts_count_like_loss() {
    for (seed, fault) in (0..).zip([DataFault::Corruption(100), DataFault::Bursts(100)]) {
        let scenario = bulk(seed, 5).with_fault(FAULT_AT, harm(0, 0, fault));
        let moves = moves(&run(&scenario), &scenario, 0);
        assert!(matches!(moves[..], [(_, 1, Reason::DataLoss)]), "{fault:?}: {moves:?}");
    }
}

/// What a probe timeout finds lost is sent again on another network: in a thin flow, and in bursts
/// as long, nearly all of it. It counts all the same.
#[test]
fn data_leaves_a_network_whose_losses_are_repaired_elsewhere() {
    let cases = [
        (200, DataFault::Bursts(100), 300, 500),
        (200, DataFault::Bursts(30), 700, 1500),
        (1000, DataFault::Bursts(100), 800, 1500),
        (1000, DataFault::Bursts(30), 2500, 6000),
        (2500, DataFault::Bursts(100), 2000, 5000),
        (5000, DataFault::Loss(100), 1200, 2500),
        (20_000, DataFault::Loss(100), 4000, 7000),
        (5000, DataFault::Corruption(30), 3000, 6000),
    ];
    for (every, fault, median, most) in cases {
        let mut took = Vec::new();
        for seed in 0..12 {
            let scenario = bulk(seed, 11).data_every(Duration::from_micros(every));
            let scenario = scenario.with_fault(FAULT_AT, harm(0, 0, fault));
            let report = run(&scenario);
            let sender = moves(&report, &scenario, 0);
            let [(at, 1, Reason::DataLoss), ..] = sender[..] else {
                panic!("seed {seed}, {fault:?}: {sender:?}")
            };
            assert_eq!(moves(&report, &scenario, 1), [], "its direction is clean");
            took.push(at.since(FAULT_AT));
        }
        took.sort();
        println!("{fault:?} every {every} µs: left after {:?}, {:?} at most", took[6], took[11]);
        assert!(took[6] <= Duration::from_millis(median), "{fault:?}: {took:?}");
        assert!(took[11] <= Duration::from_millis(most), "{fault:?}: {took:?}");
    }
}

/// Frames that come late are sent again, and arrive twice: nothing is lost.
#[test]
fn late_frames_of_a_thin_flow_are_no_loss() {
    let reordering = NetworkModel {
        delay: Duration::from_micros(200),
        reorder_permille: 200,
        reorder_by: Duration::from_millis(20),
        ..NetworkModel::default()
    };
    for seed in 0..8 {
        let thin = bulk(seed, 12).data_every(Duration::from_millis(17));
        let delay = DataFault::Delay(Duration::from_millis(20));
        let delayed = thin.clone().with_fault(FAULT_AT, harm(0, 0, delay));
        for scenario in [thin.model_of(0, reordering), delayed] {
            let report = run(&scenario);
            assert!(report.data.retransmissions > 20, "{}", report.data.retransmissions);
            assert_eq!(moves(&report, &scenario, 0), [], "seed {seed}");
        }
    }
}

/// F-10. Until the size is known a black hole of large frames loses all of them. Nothing else is
/// lost, so data stays, whatever the rate.
#[test]
fn a_black_hole_of_large_frames_is_no_loss_of_data() {
    for every in [200, 1000, 5000, 20_000] {
        for seed in 0..12 {
            let scenario = bulk(seed, 7).datagram_limit(1472);
            let scenario = scenario.data_every(Duration::from_micros(every));
            let scenario = scenario.with_fault(FAULT_AT, harm(0, 0, DataFault::MaxSize(1300)));
            let report = run(&scenario);
            assert_eq!(moves(&report, &scenario, 0), [], "seed {seed}, every {every} µs");
            let sizes = report.events.iter().filter(|(node, event)| {
                *node == 0 && matches!(event.kind, EventKind::PathMtuChanged { .. })
            });
            assert!(sizes.count() >= 2, "lowered, and searched");
        }
    }
}

/// A route without data is asked for its size when it is compared: its own black hole is no reason
/// to pass it over.
#[test]
fn a_black_hole_of_large_frames_on_the_candidate_is_no_loss_of_data() {
    for seed in 0..12 {
        let scenario = bulk(seed, 7)
            .datagram_limit(1472)
            .with_fault(Time::from_millis(2900), harm(1, 0, DataFault::MaxSize(1300)))
            .with_fault(FAULT_AT, harm(0, 0, DataFault::Loss(100)));
        let moves = moves(&run(&scenario), &scenario, 0);
        assert!(matches!(moves[..], [(_, 1, Reason::DataLoss)]), "seed {seed}: {moves:?}");
    }
}

#[test]
fn a_lossy_candidate_is_passed_over() {
    let scenario = bulk(1, 6)
        .with_fault(FAULT_AT, harm(0, 0, DataFault::Loss(100)))
        .with_fault(FAULT_AT, harm(1, 0, DataFault::Loss(200)));
    let moves = moves(&run(&scenario), &scenario, 0);
    assert!(matches!(moves[..], [(_, 2, Reason::DataLoss)]), "{moves:?}");
}

/// The network of the first rank is slower for a while, and heals during a comparison. Its
/// hold-down begins then; data does not visit a network for its rank that it left for its loss.
#[test]
fn a_network_left_for_its_loss_is_not_taken_while_the_best_is_held_down() {
    for step in 0..28 {
        let extra = FaultAction::ExtraDelay { network: 0, by: Duration::from_millis(10) };
        let healed = Time::from_millis(5800 + step * 50);
        let scenario = bulk(step, 10)
            .data_every(Duration::from_millis(1))
            .with_fault(FAULT_AT, harm(1, 0, DataFault::Loss(30)))
            .with_fault(FAULT_AT, harm(2, 0, DataFault::Loss(10)))
            .with_fault(FAULT_AT, extra)
            .with_fault(healed, FaultAction::Heal { network: 0 });
        let moves = moves(&run(&scenario), &scenario, 0);
        let by_rank = |(_, to, why): &(_, usize, Reason)| *to > 0 && *why == Reason::BetterRoute;
        assert!(!moves.iter().any(by_rank), "step {step}: {moves:?}");
    }
}

#[test]
fn equal_loss_everywhere_moves_nothing_for_ten_minutes() {
    let faults =
        [DataFault::Loss(30), DataFault::Policer(6), DataFault::Bursts(30), DataFault::Bursts(100)];
    for (seed, fault) in (0..).zip(faults) {
        let mut scenario = bulk(seed, 603).networks(2).data_every(Duration::from_millis(2));
        scenario = scenario.without_invariants();
        for network in 0..2 {
            scenario = scenario.with_fault(FAULT_AT, harm(network, 0, fault));
        }
        let moves = moves(&run(&scenario), &scenario, 0);
        assert!(moves.len() <= 2, "{fault:?}: {moves:?}");
    }
}

#[test]
fn reordering_and_duplication_are_no_loss() {
    let model = NetworkModel {
        delay: Duration::from_micros(200),
        jitter: Duration::from_millis(3),
        duplicate_permille: 100,
        reorder_permille: 200,
        reorder_by: Duration::from_millis(7),
    };
    let scenario = bulk(1, 20).model_of(0, model);
    let report = run(&scenario);
    assert_eq!(moves(&report, &scenario, 0), []);
}

#[test]
fn data_returns_once_the_network_is_proven_clean_and_not_before() {
    let healed = Time::from_millis(20_000);
    let scenario = bulk(1, 60)
        .data_every(Duration::from_millis(1))
        .with_fault(FAULT_AT, harm(0, 0, DataFault::Loss(100)))
        .with_fault(healed, FaultAction::HealAll);
    let moves = moves(&run(&scenario), &scenario, 0);
    let [(left, 1, Reason::DataLoss), (back, 0, Reason::Failback)] = moves[..] else {
        panic!("{moves:?}")
    };
    assert!(left < healed && back > healed && back.since(healed) <= Duration::from_secs(30));
}

/// F-50. Rule 19 holds the time.
#[test]
fn segmented_sends_that_vanish_are_plain_soon_on_the_only_network() {
    for seed in 0..12 {
        let scenario = bulk(seed, 6).networks(1);
        let scenario = scenario.with_fault(FAULT_AT, harm(0, 0, DataFault::SegmentedSends));
        let report = run(&scenario);
        let late = FAULT_AT + Duration::from_secs(2)..Time::from_millis(5500);
        let mut late = report.packets_between((0, 1), late);
        assert!(late.all(|packet| packet.arrived_at.is_some()), "seed {seed}");
    }
}

#[test]
fn data_leaves_a_network_where_segmented_sends_vanish() {
    for seed in 0..12 {
        let scenario = bulk(seed, 6).with_fault(FAULT_AT, harm(0, 0, DataFault::SegmentedSends));
        let report = run(&scenario);
        // Plain sends may be faster; a network that was left before is tried once they are in use.
        // What is retransmitted on the best other network and on its way is not lost there.
        let moves = moves(&report, &scenario, 0);
        assert!(
            matches!(
                moves[..],
                [] | [(_, 1, Reason::DataLoss)]
                    | [(_, 1, Reason::DataLoss), (_, 0, Reason::Failback)]
            ),
            "{seed}: {moves:?}"
        );
        let late = FAULT_AT + Duration::from_millis(300)..Time::from_millis(5500);
        let mut late = report.packets_between((0, 1), late);
        assert!(late.all(|packet| packet.arrived_at.is_some()), "{seed}: {moves:?}");
    }
}

/// At a high rate a thousand batches pass in the time by which reordering delays some.
#[test]
fn heavy_reordering_at_a_high_rate_is_no_loss() {
    let model = NetworkModel {
        delay: Duration::from_micros(200),
        reorder_permille: 200,
        reorder_by: Duration::from_millis(20),
        ..NetworkModel::default()
    };
    let scenario = bulk(1, 2).data_every(Duration::from_micros(40)).model_of(0, model);
    let scenario = scenario.without_invariants();
    let moves = run(&scenario).network_moves(&scenario, 0, Time::from_millis(500));
    assert_eq!(moves, []);
}
