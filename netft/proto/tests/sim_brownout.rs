//! Brown-outs in handwritten scenarios: loss and latency move data to a clearly better network,
//! no route is down for them, and nothing oscillates.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use netft_proto::{
    Time,
    route::Reason,
    sim,
    sim::{FaultAction, NetworkModel, Scenario, SimReport},
};

const FAULT_AT: Time = Time::from_millis(3000);

fn run(scenario: &Scenario) -> SimReport {
    let report = sim::run_scenario(scenario);
    assert!(report.violations.is_empty(), "{}", report.failure_text(scenario));
    report
}

fn minute(seed: u64, networks: usize) -> Scenario {
    let scenario = Scenario::new(seed).networks(networks).run_for(Duration::from_secs(60));
    scenario.data_every(Duration::from_millis(100))
}

fn loss(network: usize, from: usize, permille: u16) -> FaultAction {
    FaultAction::Loss { network, from, to: 1 - from, permille }
}

/// Moves of a node's data from [`FAULT_AT`] on: when, to which network and why.
fn moves(report: &SimReport, scenario: &Scenario, node: usize) -> Vec<(Time, usize, Reason)> {
    report.network_moves(scenario, node, FAULT_AT)
}

fn no_route_went_down(report: &SimReport, scenario: &Scenario) {
    for (node, peer) in [(0, 1), (1, 0)] {
        for network in 0..report.routes[node].len() {
            assert_eq!(
                report.first_left_up(node, scenario.route_id(node, peer, network), FAULT_AT),
                None
            );
        }
    }
}

#[test]
fn five_percent_lost_one_way_move_the_sender_within_seconds_and_once() {
    let mut took = Vec::new();
    for seed in 0..40 {
        let scenario = minute(seed, 2).with_fault(FAULT_AT, loss(0, 0, 50));
        let report = run(&scenario);
        let sender = moves(&report, &scenario, 0);
        let [(at, 1, Reason::BrownOut)] = sender[..] else { panic!("seed {seed}: {sender:?}") };
        took.push(at.since(FAULT_AT));
        assert_eq!(moves(&report, &scenario, 1), [], "seed {seed}: its direction is clean");
        no_route_went_down(&report, &scenario);
    }
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("5 % lost: left after {median:?} (median), {longest:?} at most");
    assert!(median <= Duration::from_millis(3500) && longest <= Duration::from_secs(10));
}

#[test]
fn equal_loss_on_every_network_moves_nothing() {
    for (seed, permille) in (0..20).zip([20, 50, 100, 200].into_iter().cycle()) {
        let mut scenario = minute(seed, 2);
        for (network, from) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            scenario = scenario.with_fault(FAULT_AT, loss(network, from, permille));
        }
        // At 20 % loss a route may go down; only brown-outs count here.
        let report = run(&scenario);
        for node in [0, 1] {
            let moves = moves(&report, &scenario, node);
            let brown = moves.iter().filter(|(_, _, why)| *why == Reason::BrownOut).count();
            // A network may be measured as clean by chance; data must not alternate.
            let most = 1;
            assert!(brown <= most, "seed {seed}, {permille} per mille: {moves:?}");
        }
    }
}

#[test]
fn data_returns_to_a_healed_network_after_the_hold_down() {
    for seed in 0..10 {
        let healed = Time::from_millis(9000);
        let scenario = minute(seed, 2)
            .with_fault(FAULT_AT, loss(0, 0, 100))
            .with_fault(healed, FaultAction::HealAll);
        let report = run(&scenario);
        let moves = moves(&report, &scenario, 0);
        let [(left, 1, Reason::BrownOut), (back, 0, Reason::Failback)] = moves[..] else {
            panic!("seed {seed}: {moves:?}")
        };
        assert!(left < healed && back > healed + Duration::from_secs(1), "{moves:?}");
        assert!(back.since(healed) <= Duration::from_secs(45), "{moves:?}");
    }
}

#[test]
fn twenty_milliseconds_more_move_both_ends_and_less_bring_them_back() {
    let by = Duration::from_millis(20);
    let healed = Time::from_millis(20_000);
    for seed in 0..10 {
        let scenario = minute(seed, 2)
            .with_fault(FAULT_AT, FaultAction::ExtraDelay { network: 0, by })
            .with_fault(healed, FaultAction::ExtraDelay { network: 0, by: Duration::ZERO });
        let report = run(&scenario);
        for node in [0, 1] {
            let moves = moves(&report, &scenario, node);
            let [(left, 1, Reason::BrownOut), (back, 0, Reason::Failback)] = moves[..] else {
                panic!("seed {seed}: {moves:?}")
            };
            assert!(left.since(FAULT_AT) <= Duration::from_secs(4), "{moves:?}");
            assert!(back > healed && back.since(healed) <= Duration::from_secs(5), "{moves:?}");
        }
        no_route_went_down(&report, &scenario);
    }
}

#[test]
fn networks_that_slow_down_alike_and_one_that_always_was_slower_move_nothing() {
    let far = NetworkModel {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(3),
        ..NetworkModel::default()
    };
    let by = Duration::from_millis(20);
    let alike = minute(1, 2)
        .with_fault(FAULT_AT, FaultAction::ExtraDelay { network: 0, by })
        .with_fault(FAULT_AT, FaultAction::ExtraDelay { network: 1, by });
    for scenario in [alike, minute(2, 2).model_of(0, far)] {
        let report = run(&scenario);
        for node in [0, 1] {
            assert_eq!(moves(&report, &scenario, node), []);
            assert_eq!(report.routes[node].iter().position(|route| route.active), Some(0));
        }
    }
}

#[test]
fn nodes_that_are_scheduled_late_move_nothing() {
    for seed in 0..5 {
        let mut scenario = minute(seed, 3).timer_slack(Duration::from_millis(8));
        for step in 0..280u64 {
            let (node, length) = ((step % 3) as usize % 2, Duration::from_millis(step * 37 % 70));
            let at = FAULT_AT + Duration::from_millis(200 * step);
            scenario = scenario.with_fault(at, FaultAction::Pause { node, length });
        }
        let report = run(&scenario);
        for node in [0, 1] {
            assert_eq!(moves(&report, &scenario, node), [], "seed {seed}");
        }
    }
}

#[test]
fn whatever_is_lost_or_slow_the_rules_hold_and_moves_are_few() {
    for seed in 0..25 {
        let draw = |place: u64, choices: &[u16]| {
            let mixed = (seed * 31 + place).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            choices[mixed as usize % choices.len()]
        };
        let mut scenario = minute(seed, 3).then_converge();
        for network in 0..3 {
            let place = network as u64 * 4;
            for from in [0, 1] {
                let permille = draw(place + from as u64, &[0, 0, 10, 20, 50, 100, 300]);
                scenario = scenario.with_fault(FAULT_AT, loss(network, from, permille));
            }
            let by = Duration::from_millis(u64::from(draw(place + 2, &[0, 0, 8, 20, 50])));
            scenario =
                scenario.with_fault(FAULT_AT + by * 100, FaultAction::ExtraDelay { network, by });
        }
        let report = run(&scenario);
        for node in [0, 1] {
            let moves = moves(&report, &scenario, node);
            let brown = moves.iter().filter(|(_, _, why)| *why == Reason::BrownOut).count();
            assert!(brown <= 6, "seed {seed}: {moves:#?}");
        }
    }
}
