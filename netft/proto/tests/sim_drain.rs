//! Drains in handwritten scenarios: make before break, at both ends, without a lost packet.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use netft_proto::{
    Time,
    route::{DrainStage, EventKind, Reason},
    sim,
    sim::{FaultAction, NetworkModel, Scenario, SimReport},
};

fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn run(scenario: &Scenario) -> SimReport {
    let report = sim::run_scenario(scenario);
    assert!(report.violations.is_empty(), "{}", report.failure_text(scenario));
    report
}

/// Stages of every drain in a node's events.
fn stages(report: &SimReport, node: usize) -> Vec<(Time, DrainStage)> {
    let events = report.events.iter().filter(|(at, _)| *at == node);
    events
        .filter_map(|(_, event)| match event.kind {
            EventKind::Drain { stage, .. } => Some((event.at, stage)),
            _ => None,
        })
        .collect()
}

/// The networks a node's data moved to, and why.
fn moves(report: &SimReport, scenario: &Scenario, node: usize) -> Vec<(usize, Reason)> {
    let moved = report.events.iter().filter(|(at, event)| *at == node && event.at > ms(1000));
    moved
        .filter_map(|(_, event)| match event.kind {
            EventKind::Moved { to: Some(to), reason, .. } => {
                Some((scenario.network_of(node, to).unwrap(), reason))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_hundred_drains_under_data_lose_nothing() {
    // Networks with very different delays, so that packets of the new route overtake the old ones.
    let model = |us, jitter| NetworkModel {
        delay: Duration::from_micros(us),
        jitter: Duration::from_micros(jitter),
        ..NetworkModel::default()
    };
    let mut scenario = Scenario::new(5)
        .networks(3)
        .model_of(0, model(12_000, 3000))
        .model_of(1, model(200, 50))
        .data_every(Duration::from_millis(1))
        .run_for(Duration::from_secs(52));
    for round in 0..100 {
        let (network, node) = (round as usize % 2, round as usize / 2 % 2);
        let drain = |on| FaultAction::Drain { network, node, on };
        let at = ms(1000 + round * 500);
        scenario = scenario
            .with_fault(at, drain(true))
            .with_fault(at + Duration::from_millis(250), drain(false));
    }
    let report = run(&scenario);
    for pair in [(0, 1), (1, 0)] {
        let sent: Vec<_> = report.packets_between(pair, ms(900)..ms(51_900)).collect();
        let lost = sent.iter().filter(|packet| packet.arrived_at.is_none()).count();
        assert!(sent.len() > 50_000 && lost == 0, "{lost} of {} lost", sent.len());
    }
    for node in [0, 1] {
        let stages = stages(&report, node);
        // Half of the drains found no data on their network; they have their events all the same.
        assert_eq!(stages.iter().filter(|(_, s)| *s == DrainStage::Drained).count(), 100);
        assert_eq!(stages.iter().filter(|(_, s)| *s == DrainStage::Undrained).count(), 100);
    }
}

#[test]
fn both_ends_leave_and_return_and_the_drain_is_complete_within_a_heartbeat() {
    let (began_at, ended_at) = (ms(2000), ms(3000));
    let drain = |on| FaultAction::Drain { network: 0, node: 0, on };
    let scenario = Scenario::new(3)
        .networks(2)
        .with_fault(began_at, drain(true))
        .with_fault(ended_at, drain(false))
        .run_for(Duration::from_secs(5));
    let report = run(&scenario);
    for (node, reason) in [(0, Reason::Draining), (1, Reason::PeerDraining)] {
        let moves = moves(&report, &scenario, node);
        assert_eq!(moves, [(1, reason), (0, Reason::BetterRoute)], "node {node}");
    }
    let stages = stages(&report, 0);
    let [(began, DrainStage::Draining), (done, DrainStage::Drained), (over, end)] = stages[..]
    else {
        panic!("{stages:?}")
    };
    assert_eq!((began, over, end), (began_at, ended_at, DrainStage::Undrained));
    let heartbeat = Duration::from_millis(31);
    assert!(done > began_at && done.since(began_at) <= heartbeat, "{:?}", done.since(began_at));
}

#[test]
fn a_drained_network_serves_when_the_others_die() {
    let scenario = Scenario::new(9)
        .networks(2)
        .with_fault(ms(2000), FaultAction::Drain { network: 0, node: 1, on: true })
        .with_fault(ms(3000), FaultAction::Cut { network: 1 })
        .with_fault(ms(4000), FaultAction::Heal { network: 1 })
        .run_for(Duration::from_secs(6));
    let report = run(&scenario);
    for node in [0, 1] {
        let networks: Vec<_> = moves(&report, &scenario, node).iter().map(|m| m.0).collect();
        assert_eq!(networks, [1, 0, 1], "node {node}");
        let detection = Duration::from_millis(160);
        let sent = report.packets_between((node, 1 - node), ms(3000) + detection..ms(5900));
        assert!(sent.into_iter().all(|packet| packet.arrived_at.is_some()));
    }
}

#[test]
fn both_networks_drained_at_opposite_ends_carry_on() {
    let scenario = Scenario::new(4)
        .networks(2)
        .with_fault(ms(2000), FaultAction::Drain { network: 0, node: 0, on: true })
        .with_fault(ms(2000), FaultAction::Drain { network: 1, node: 1, on: true })
        .run_for(Duration::from_secs(4));
    let report = run(&scenario);
    for pair in [(0, 1), (1, 0)] {
        let mut sent = report.packets_between(pair, ms(1000)..ms(3900));
        assert!(sent.all(|packet| packet.arrived_at.is_some()));
    }
    assert!(
        stages(&report, 0)
            .iter()
            .all(|(at, stage)| { *at < ms(2200) || *stage == DrainStage::Draining })
    );
}
