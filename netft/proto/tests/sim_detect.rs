//! Failure detection and forwarding in handwritten scenarios.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use netft_proto::{
    Time,
    loss_detection::rtt_estimator,
    route::{
        Delay, EventKind, Reason, RouteState, Threshold, Timing,
        false_alarms::{PacketLoss, false_alarms_per_year},
    },
    sim,
    sim::{FaultAction, NetworkModel, Scenario, SimReport},
};

const ONE_WAY_DELAY: Duration = Duration::from_micros(200);
/// Simultaneous steps, and heartbeats in flight at the fault.
const TIMING_SLACK: Duration = Duration::from_millis(1);

fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn timing(delay: u64, threshold: u64) -> Timing {
    Timing {
        delay: Delay::from_millis(delay).unwrap(),
        threshold: Threshold::new(threshold).unwrap(),
    }
}

fn run(scenario: &Scenario) -> SimReport {
    let report = sim::run_scenario(scenario);
    assert!(report.violations.is_empty(), "{}", report.failure_text(scenario));
    report
}

fn two(networks: usize) -> Scenario {
    Scenario::new(7).nodes(2).networks(networks).run_for(Duration::from_secs(5))
}

/// Time from `at` until a node's route over a network stopped being up.
fn left_after(
    report: &SimReport,
    scenario: &Scenario,
    (node, peer, network): (usize, usize, usize),
    at: Time,
) -> Duration {
    let left = report.first_left_up(node, scenario.route_id(node, peer, network), at);
    left.expect("the route stays up").since(at)
}

#[test]
fn a_black_hole_is_seen_after_the_detection_time_and_within_one_more_delay() {
    for (delay, threshold) in [(5, 2), (30, 5), (100, 5), (250, 8), (1000, 5)] {
        let timing = timing(delay, threshold);
        let detection = timing.detection_time();
        let cut = ms(10_000);
        let scenario = two(2)
            .timing(timing)
            .run_for(Duration::from_secs(20))
            .with_fault(cut, FaultAction::Cut { network: 0 });
        let report = run(&scenario);
        for (node, peer) in [(0, 1), (1, 0)] {
            let after = left_after(&report, &scenario, (node, peer, 0), cut);
            // The last heartbeat arrived up to one delay before the cut.
            assert!(after + timing.delay.as_duration() >= detection, "early: {after:?}");
            assert!(after <= detection + ONE_WAY_DELAY + TIMING_SLACK, "late: {after:?}");
            let (moved, to) = report.data_moves(node).pop().unwrap();
            assert_eq!(to, Some(scenario.route_id(node, peer, 1)));
            assert!(moved.since(cut) <= detection + ONE_WAY_DELAY + TIMING_SLACK);
        }
    }
}

/// packets lost on the dead route are retransmitted once the peer reports them missing.
#[test]
fn a_black_hole_costs_no_packet_and_little_time() {
    let cut = ms(2000);
    let report = run(&two(2).with_fault(cut, FaultAction::Cut { network: 0 }));
    let sent: Vec<_> = report.packets_between((0, 1), ms(500)..ms(4900)).collect();
    let longest = sent.iter().map(|packet| packet.arrived_at.unwrap().since(packet.sent_at)).max();
    assert!(longest.unwrap() <= rtt_estimator::MIN_PTO * 2, "{longest:?}");
    assert!(longest.unwrap() >= rtt_estimator::MAX_ACK_DELAY, "{longest:?}");
    assert!(report.data.retransmissions > 0);
}

#[test]
fn with_a_single_network_nothing_is_retransmitted() {
    let cut = ms(2000);
    let report = run(&two(1).with_fault(cut, FaultAction::Cut { network: 0 }));
    assert_eq!(report.data.retransmissions, 0);
    assert!(
        report.packets_between((0, 1), cut..ms(4900)).all(|packet| packet.arrived_at.is_none())
    );
    assert!(report.packets_between((0, 1), ms(500)..cut).all(|packet| packet.arrived_at.is_some()));
}

#[test]
fn one_way_loss_is_left_by_both_ends_within_detection_round_trip_and_delay() {
    let timing = timing(50, 3);
    let cut = ms(2000);
    let scenario = two(2)
        .timing(timing)
        .with_fault(cut, FaultAction::CutOneWay { network: 0, from: 0, to: 1 });
    let report = run(&scenario);
    let most =
        timing.detection_time() + ONE_WAY_DELAY * 2 + timing.delay.as_duration() + TIMING_SLACK;
    for (node, peer) in [(0, 1), (1, 0)] {
        let after = left_after(&report, &scenario, (node, peer, 0), cut);
        assert!(after <= most, "node {node}: {after:?}");
        let (moved, to) = report.data_moves(node).pop().unwrap();
        assert_eq!(to, Some(scenario.route_id(node, peer, 1)));
        assert!(moved.since(cut) <= most);
    }
    // The receiving end detects silence, the sending end reads it in the peer's report.
    assert_eq!(first_reason(&report, &scenario, (1, 0, 0)), Some(Reason::HeartbeatsMissed));
    assert_eq!(first_reason(&report, &scenario, (0, 1, 0)), Some(Reason::PeerDoesNotHear));
}

#[test]
fn opposite_half_routes_carry_data_both_ways() {
    let scenario = two(2)
        .with_fault(ms(2000), FaultAction::CutOneWay { network: 0, from: 0, to: 1 })
        .with_fault(ms(2000), FaultAction::CutOneWay { network: 1, from: 1, to: 0 });
    let report = run(&scenario);
    for (from, to, network) in [(0, 1, 1), (1, 0, 0)] {
        let sent: Vec<_> = report.packets_between((from, to), ms(2500)..ms(4900)).collect();
        assert!(sent.len() > 200);
        assert!(sent.iter().all(|p| p.network == Some(network) && p.arrived_at.is_some()));
    }
    for node in 0..2 {
        assert!(report.routes[node].iter().all(|route| route.state == RouteState::Init));
    }
}

#[test]
fn a_network_that_works_one_way_is_never_up() {
    let scenario =
        two(2).with_fault(Time::ZERO, FaultAction::CutOneWay { network: 0, from: 1, to: 0 });
    let report = run(&scenario);
    for (node, peer) in [(0, 1), (1, 0)] {
        assert!(
            report.times_entered(node, scenario.route_id(node, peer, 0), RouteState::Up).is_empty()
        );
        assert!(
            !report
                .times_entered(node, scenario.route_id(node, peer, 1), RouteState::Up)
                .is_empty()
        );
    }
}

/// Reason for which a node's route over a network first stopped being up.
fn first_reason(
    report: &SimReport,
    scenario: &Scenario,
    (node, peer, network): (usize, usize, usize),
) -> Option<Reason> {
    let id = scenario.route_id(node, peer, network);
    report.events.iter().find_map(|(at, event)| match event.kind {
        EventKind::StateChanged { route, from: RouteState::Up, reason, .. }
            if (*at, route) == (node, id) =>
        {
            Some(reason)
        }
        _ => None,
    })
}

#[test]
fn a_lost_carrier_is_left_at_once_at_both_ends() {
    let timing = timing(200, 5);
    for moment in (4000..4400).step_by(23) {
        let lost = ms(moment);
        let scenario = two(2)
            .timing(timing)
            .with_fault(lost, FaultAction::CarrierLost { network: 0, node: 0 });
        let report = run(&scenario);
        assert_eq!(left_after(&report, &scenario, (0, 1, 0), lost), Duration::ZERO);
        // The peer learns of it from a heartbeat on the other route, at most a quarter of the
        // delay later.
        let there = left_after(&report, &scenario, (1, 0, 0), lost);
        assert!(
            there <= timing.delay.as_duration() / 4 + ONE_WAY_DELAY + TIMING_SLACK,
            "{moment}: {there:?}"
        );
        assert_eq!(first_reason(&report, &scenario, (0, 1, 0)), Some(Reason::CarrierLost));
        assert_eq!(first_reason(&report, &scenario, (1, 0, 0)), Some(Reason::PeerLocalDown));
    }
}

#[test]
fn a_report_overtaken_by_a_newer_one_is_ignored() {
    let far = NetworkModel { delay: Duration::from_millis(200), ..NetworkModel::default() };
    let scenario = two(2)
        .model_of(1, far)
        .with_fault(ms(2000), FaultAction::CutOneWay { network: 0, from: 0, to: 1 });
    let report = run(&scenario);
    // For 200 ms the slow network delivers reports from before the peer stopped receiving.
    let ups = report.times_entered(0, scenario.route_id(0, 1, 0), RouteState::Up);
    assert_eq!(ups.len(), 1, "{ups:?}");
}

#[test]
fn a_single_heartbeat_does_not_bring_a_lost_route_back() {
    let (opened, closed) = (ms(2000), ms(2070));
    for seed in 0..20 {
        let scenario = Scenario::new(seed)
            .timing(timing(100, 5))
            .run_for(Duration::from_secs(3))
            .with_fault(ms(1000), FaultAction::Cut { network: 0 })
            // Open for less than the time between two requests.
            .with_fault(opened, FaultAction::Heal { network: 0 })
            .with_fault(opened, FaultAction::CutOneWay { network: 0, from: 1, to: 0 })
            .with_fault(closed, FaultAction::Cut { network: 0 });
        let report = run(&scenario);
        let id = scenario.route_id(1, 0, 0);
        let reached = report.events.iter().any(|(node, event)| {
            let heard =
                matches!(event.kind, EventKind::RemoteReachable { route, .. } if route == id);
            *node == 1 && heard && event.at >= opened
        });
        assert!(!reached, "seed {seed}");
    }
}

#[test]
fn with_every_network_dead_no_route_is_active_and_all_come_back() {
    let scenario = two(3)
        .with_fault(ms(1000), FaultAction::Cut { network: 0 })
        .with_fault(ms(1100), FaultAction::Cut { network: 1 })
        .with_fault(ms(1200), FaultAction::Cut { network: 2 })
        .with_fault(ms(2500), FaultAction::Heal { network: 2 })
        .then_converge();
    let report = run(&scenario);
    let sent: Vec<_> = report.packets_between((0, 1), ms(1500)..ms(2490)).collect();
    assert!(sent.iter().all(|p| p.network.is_none()));
    let sent: Vec<_> = report.packets_between((0, 1), ms(2700)..ms(4900)).collect();
    assert!(sent.iter().all(|p| p.network == Some(2) && p.arrived_at.is_some()));
    assert!(report.converged_after.is_some());
}

#[test]
fn single_losses_take_nothing_down() {
    let loss = |from, to| FaultAction::Loss { network: 0, from, to, permille: 50 };
    let scenario = two(1)
        .run_for(Duration::from_secs(20))
        .with_fault(ms(1000), loss(0, 1))
        .with_fault(ms(1000), loss(1, 0));
    let report = run(&scenario);
    for (node, peer) in [(0, 1), (1, 0)] {
        assert_eq!(report.first_left_up(node, scenario.route_id(node, peer, 0), ms(1000)), None);
    }
}

/// F-20: heartbeats wait with an interrupted worker while the engine's thread runs. Up to a
/// detection time nothing is lost; after it the peer is unreachable once, and back for good.
#[test]
fn f_20_a_worker_interrupted_before_it_hands_over_blames_nobody() {
    let timing = timing(50, 3);
    let at = ms(3000);
    for (detections, lost) in [(1.2, 0), (1.8, 0), (4.0, 1), (7.3, 1)] {
        let length = timing.detection_time().mul_f64(detections);
        let scenario = two(3)
            .timing(timing)
            .run_for(Duration::from_secs(10))
            .with_fault(at, FaultAction::InterruptWorker { node: 0, length })
            .without_invariants();
        let report = sim::run_scenario(&scenario);
        let of_node = |wanted: fn(&EventKind) -> bool| {
            let events = report.events.iter().filter(|(node, event)| *node == 0 && event.at >= at);
            events.filter(|(_, event)| wanted(&event.kind)).count()
        };
        let unreachable = of_node(|kind| matches!(kind, EventKind::RemoteUnreachable { .. }));
        let downs =
            of_node(|kind| matches!(kind, EventKind::StateChanged { to: RouteState::Down, .. }));
        assert_eq!((unreachable, downs), (lost, lost * 3), "{length:?}");
        assert!(report.routes[0].iter().all(|route| route.state == RouteState::Up));
    }
}

/// The estimate behind `netft tune` is above what loss alone does, and not by far.
#[test]
fn false_alarms_of_independent_loss_stay_below_their_estimate() {
    const RUN_TIME: u64 = 150;
    for (threshold, permille) in [(2, 200), (3, 400)] {
        let timing = timing(30, threshold);
        let mut alarms = 0;
        for seed in 0..3 {
            let loss = |from, to| FaultAction::Loss { network: 0, from, to, permille };
            let scenario = Scenario::new(seed)
                .nodes(2)
                .networks(1)
                .timing(timing)
                .run_for(Duration::from_secs(RUN_TIME))
                .with_fault(ms(1000), loss(0, 1))
                .with_fault(ms(1000), loss(1, 0))
                .without_invariants();
            let report = sim::run_scenario(&scenario);
            let route = scenario.route_id(0, 1, 0);
            alarms += report.times_entered(0, route, RouteState::Down).len();
        }
        let share = f64::from(permille) / 1000.0;
        let per_year =
            false_alarms_per_year(timing, PacketLoss { inbound: share, outbound: share });
        let estimate = per_year * (3 * RUN_TIME) as f64 / (365.25 * 86_400.0);
        println!("{timing:?}, {permille} per mille: {alarms} alarms, {estimate:.0} estimated");
        assert!(alarms > 0 && (alarms as f64) < estimate, "{alarms} of {estimate}");
        assert!(estimate < 20.0 * alarms as f64, "{alarms} of {estimate}");
    }
}
