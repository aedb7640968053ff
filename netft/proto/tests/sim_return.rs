//! Recovery in handwritten scenarios: failback, hold-down, pauses, restarts.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use netft_proto::{
    Time,
    route::{EventKind, Reason, RouteState},
    sim,
    sim::{FaultAction, Scenario, SimReport},
};

/// Two heartbeats in each direction, and each end's report to the other.
const PROOF_TIME: Duration = Duration::from_millis(4 * 30 + 5);

fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn run(scenario: &Scenario) -> SimReport {
    let report = sim::run_scenario(scenario);
    assert!(report.violations.is_empty(), "{}", report.failure_text(scenario));
    report
}

fn two(networks: usize) -> Scenario {
    Scenario::new(7).nodes(2).networks(networks).run_for(Duration::from_secs(10))
}

/// The moments at which node 0's data returned to network 0.
fn returns(report: &SimReport, scenario: &Scenario) -> Vec<Time> {
    let best = Some(scenario.route_id(0, 1, 0));
    report
        .events
        .iter()
        .filter_map(|(node, event)| match event.kind {
            EventKind::Moved { to, reason: Reason::Failback, .. } if *node == 0 && to == best => {
                Some(event.at)
            }
            _ => None,
        })
        .collect()
}

#[test]
fn data_returns_when_the_hold_is_over_and_not_before() {
    for hold in [100, 1000, 3000].map(Duration::from_millis) {
        let healed = ms(3000);
        let scenario = two(2)
            .hold(hold)
            .with_fault(ms(2000), FaultAction::Cut { network: 0 })
            .with_fault(healed, FaultAction::Heal { network: 0 });
        let report = run(&scenario);
        let ups = report.times_entered(0, scenario.route_id(0, 1, 0), RouteState::Up);
        let up = *ups.last().unwrap();
        assert!(up >= healed && up.since(healed) <= PROOF_TIME, "up {:?}", up.since(healed));
        assert_eq!(returns(&report, &scenario), [up + hold]);
    }
}

#[test]
fn the_hold_grows_with_every_flap() {
    let mut scenario = two(2).run_for(Duration::from_secs(60));
    let heals: Vec<Time> = (1..=4).map(|flap| ms(flap * 12_000)).collect();
    for healed in &heals {
        scenario = scenario
            .with_fault(
                Time::from_nanos(healed.as_nanos() - 1_000_000_000),
                FaultAction::Cut { network: 0 },
            )
            .with_fault(*healed, FaultAction::Heal { network: 0 });
    }
    let report = run(&scenario);
    let waits: Vec<Duration> = returns(&report, &scenario)
        .iter()
        .zip(&heals)
        .map(|(returned, healed)| returned.since(*healed))
        .collect();
    for (wait, seconds) in waits.iter().zip([1, 2, 4, 8]) {
        let hold = Duration::from_secs(seconds);
        assert!(*wait >= hold && *wait <= hold + PROOF_TIME, "{waits:?}");
    }
    assert_eq!(waits.len(), heals.len());
}

#[test]
fn a_failover_does_not_wait_for_a_hold() {
    // Network 0 flaps until it is held for long; then network 1 dies.
    let mut scenario = two(2);
    for flap in 1..6 {
        scenario = scenario
            .with_fault(ms(flap * 1000), FaultAction::Cut { network: 0 })
            .with_fault(ms(flap * 1000 + 400), FaultAction::Heal { network: 0 });
    }
    let dead = ms(6500);
    let scenario = scenario.with_fault(dead, FaultAction::Cut { network: 1 });
    let report = run(&scenario);
    let (moved, to) = report.data_moves(0).pop().unwrap();
    assert_eq!(to, Some(scenario.route_id(0, 1, 0)));
    assert!(moved.since(dead) <= Duration::from_millis(151), "{:?}", moved.since(dead));
}

#[test]
fn a_node_paused_for_ten_seconds_misses_no_heartbeats() {
    let length = Duration::from_secs(10);
    let stopped = ms(3000);
    let scenario = Scenario::new(3)
        .nodes(3)
        .networks(2)
        .run_for(Duration::from_secs(20))
        .with_fault(stopped, FaultAction::Pause { node: 0, length })
        .then_converge();
    let report = run(&scenario);
    let missed = report.events.iter().filter(|(node, event)| {
        *node == 0
            && matches!(
                event.kind,
                EventKind::StateChanged { reason: Reason::HeartbeatsMissed, .. }
            )
    });
    assert_eq!(missed.count(), 0);
    let stalls: Vec<_> = report
        .events
        .iter()
        .filter_map(|(node, event)| match event.kind {
            EventKind::Stalled { length } => Some((*node, event.at, length)),
            _ => None,
        })
        .collect();
    assert_eq!(stalls.len(), 1, "reported more than once");
    assert_eq!((stalls[0].0, stalls[0].1), (0, stopped + length));
    assert!(stalls[0].2 + Duration::from_millis(30) >= length);
    // Its peers took their routes to it down; the routes between the others stayed up.
    assert!(report.first_left_up(1, scenario.route_id(1, 0, 0), stopped).is_some());
    for network in 0..2 {
        assert_eq!(report.first_left_up(1, scenario.route_id(1, 2, network), stopped), None);
    }
}

#[test]
fn a_frozen_virtual_machine_misses_no_heartbeats() {
    let stopped = ms(3000);
    for length in [200, 1000, 4000].map(Duration::from_millis) {
        let scenario = two(2)
            .with_fault(stopped, FaultAction::PauseDroppingPackets { node: 0, length })
            .then_converge();
        let report = run(&scenario);
        let missed = report.events.iter().filter(|(node, event)| {
            *node == 0
                && matches!(
                    event.kind,
                    EventKind::StateChanged { reason: Reason::HeartbeatsMissed, .. }
                )
        });
        assert_eq!(missed.count(), 0, "{length:?}");
    }
}

#[test]
fn a_pause_shorter_than_the_detection_time_changes_nothing() {
    let length = Duration::from_millis(90);
    let scenario = two(2).with_fault(ms(3000), FaultAction::Pause { node: 0, length });
    let report = run(&scenario);
    for (node, peer) in [(0, 1), (1, 0)] {
        for network in 0..2 {
            let route = scenario.route_id(node, peer, network);
            assert_eq!(report.first_left_up(node, route, ms(1000)), None);
        }
    }
}

#[test]
fn a_node_that_restarts_is_a_new_session_and_comes_back_without_hold() {
    let back = ms(4000);
    let scenario = two(2)
        .with_fault(ms(3000), FaultAction::Crash { node: 1 })
        .with_fault(back, FaultAction::Restart { node: 1 })
        .then_converge();
    let report = run(&scenario);
    let sessions: Vec<u64> = report
        .events
        .iter()
        .filter_map(|(node, event)| match event.kind {
            EventKind::SessionEstablished { boot_id, .. } if *node == 0 => Some(boot_id),
            _ => None,
        })
        .collect();
    assert_eq!(sessions, [1, 2]);
    let sent: Vec<_> = report.packets_between((0, 1), ms(4100)..ms(9900)).collect();
    assert!(sent.len() > 500);
    assert!(sent.iter().all(|packet| packet.arrived_at.is_some()));
}

#[test]
fn the_session_with_a_node_that_stays_dead_ends() {
    let scenario = two(2).with_fault(ms(2000), FaultAction::Crash { node: 1 });
    let report = run(&scenario);
    let ended = report.events.iter().find_map(|(node, event)| {
        (*node == 0 && matches!(event.kind, EventKind::SessionEnded { .. })).then_some(event.at)
    });
    assert_eq!(ended, Some(ms(7000)));
    assert!(report.routes[0].iter().all(|route| route.state == RouteState::Down));
    assert!(!report.peers[0][0].session);
}
