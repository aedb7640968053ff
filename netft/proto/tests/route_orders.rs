//! Operator actions in handwritten scenarios: admin-down routes, changed priorities.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use netft_proto::{
    Time,
    route::{EventKind, Reason, RouteState},
    sim,
    sim::{FaultAction, Scenario, SimReport},
};

/// Time until the peer learns of the action, by the next heartbeat on another route.
const PROPAGATION_TIME: Duration = Duration::from_millis(30 / 4 + 2);

fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn run(scenario: &Scenario) -> SimReport {
    let report = sim::run_scenario(scenario);
    assert!(report.violations.is_empty(), "{}", report.failure_text(scenario));
    report
}

fn two() -> Scenario {
    Scenario::new(11).nodes(2).networks(2).run_for(Duration::from_secs(5))
}

#[test]
fn an_admin_down_route_is_left_at_once_at_both_ends_and_returned_to_without_hold_down() {
    let (out, back) = (ms(2000), ms(3000));
    let admin = |down| FaultAction::Admin { network: 0, node: 0, down };
    let scenario = two().with_fault(out, admin(true)).with_fault(back, admin(false));
    let report = run(&scenario);
    for (node, reason) in [(0, Reason::Admin), (1, Reason::PeerAdmin)] {
        let moves = report.network_moves(&scenario, node, out);
        let [(left, to, why), (returned, home, _)] = moves[..] else { panic!("{moves:?}") };
        assert_eq!((to, why, home), (1, reason, 0));
        assert!(left.since(out) <= PROPAGATION_TIME, "{:?}", left.since(out));
        assert!(returned >= back && returned.since(back) <= PROPAGATION_TIME, "{returned}");
    }
    let states = report.events.iter().filter_map(|(node, event)| match event.kind {
        EventKind::StateChanged { to, reason, .. } if event.at >= out => Some((*node, to, reason)),
        _ => None,
    });
    use RouteState::{AdminDown, Init, Up};
    let expected = [
        (0, AdminDown, Reason::Admin),
        (1, Init, Reason::PeerAdmin),
        (0, Up, Reason::BothWays),
        (1, Up, Reason::BothWays),
    ];
    assert_eq!(states.collect::<Vec<_>>(), expected);
    assert!(report.packets_between((0, 1), out..back).all(|packet| packet.arrived_at.is_some()));
    assert!(report.packets_between((1, 0), out..back).all(|packet| packet.arrived_at.is_some()));
}

#[test]
fn admin_down_of_the_only_route_stops_data_and_not_heartbeats() {
    let (out, back) = (ms(2000), ms(3000));
    let admin = |down| FaultAction::Admin { network: 0, node: 1, down };
    let scenario = two().networks(1).with_fault(out, admin(true)).with_fault(back, admin(false));
    let report = run(&scenario);
    let sent: Vec<_> = report.packets_between((0, 1), out + PROPAGATION_TIME * 4..back).collect();
    assert!(!sent.is_empty() && sent.iter().all(|packet| packet.network.is_none()));
    let silent = report.events.iter().any(|(_, event)| {
        matches!(event.kind, EventKind::RemoteUnreachable { .. } | EventKind::EarlyWarning { .. })
    });
    assert!(!silent);
    let sent: Vec<_> =
        report.packets_between((0, 1), back + PROPAGATION_TIME * 4..ms(4900)).collect();
    assert!(!sent.is_empty() && sent.iter().all(|packet| packet.arrived_at.is_some()));
}

#[test]
fn a_better_priority_moves_both_ends_at_once_without_a_lost_packet() {
    let changed = ms(2000);
    let scenario = two().with_fault(changed, FaultAction::Priority { network: 1, priority: 1 });
    let report = run(&scenario);
    for node in 0..2 {
        let moves = report.network_moves(&scenario, node, changed);
        assert_eq!(moves, [(changed, 1, Reason::BetterRoute)]);
    }
    for pair in [(0, 1), (1, 0)] {
        let mut sent = report.packets_between(pair, ms(1000)..ms(4900));
        assert!(sent.all(|packet| packet.arrived_at.is_some()));
    }
}
