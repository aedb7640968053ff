#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::{
    Time,
    failover::{
        cost::FailoverCost,
        stall_histogram::{FailoverStall, StallSource},
    },
    ids::{PeerId, RouteId},
    route::{Event, EventKind, Reason, RouteState},
};

const ONE_MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// Two routes to each of two peers: odd ones over `eth0` in 10.1.0.0/24, even ones over `eth1`.
fn routes() -> Vec<DrillRoute> {
    let route = |id: u32| DrillRoute {
        id: RouteId(id),
        peer: PeerId((id as u16 - 1) / 2),
        local: format!("10.{}.0.1", 2 - id % 2).parse().unwrap(),
        interface: format!("eth{}", (id - 1) % 2),
        is_relayed: false,
        state: RouteState::Up,
        is_suspect: false,
    };
    (1..=4).map(route).collect()
}

fn order(target: DrillTarget, fault: DrillFault) -> DrillOrder {
    DrillOrder { target, fault, length: Duration::from_secs(5) }
}

fn network() -> DrillTarget {
    DrillTarget::Network("10.1.0.7/24".parse().unwrap())
}

#[test]
fn a_target_is_a_route_a_network_or_an_interface() {
    let planned = |target| {
        let ids = plan_drill(&order(target, DrillFault::Blackhole), &routes(), false).unwrap();
        ids.into_iter().map(|id| id.0).collect::<Vec<_>>()
    };
    assert_eq!(planned(DrillTarget::Route(RouteId(2))), [2]);
    assert_eq!(planned(network()), [1, 3]);
    assert_eq!(planned(DrillTarget::Interface("eth1".into())), [2, 4]);
    let carrier = order(DrillTarget::Route(RouteId(2)), DrillFault::Carrier);
    let ids = plan_drill(&carrier, &routes(), false).unwrap();
    assert_eq!(ids, [RouteId(2), RouteId(4)], "a carrier is lost for all routes over it");
}

#[test]
fn what_would_cut_a_peer_off_is_refused() {
    let blackhole = order(network(), DrillFault::Blackhole);
    for spoil in [
        |route: &mut DrillRoute| route.state = RouteState::Down,
        |route: &mut DrillRoute| route.is_suspect = true,
        |route: &mut DrillRoute| route.is_relayed = true,
    ] {
        let mut routes = routes();
        spoil(&mut routes[3]);
        let refused = plan_drill(&blackhole, &routes, false);
        assert_eq!(refused, Err(DrillRefusal::CutsOff(PeerId(1))));
    }
    let mut routes = routes();
    (routes[2].state, routes[3].state) = (RouteState::Down, RouteState::Down);
    assert!(plan_drill(&blackhole, &routes, false).is_ok(), "that peer is cut off already");
}

#[test]
fn what_is_out_of_range_or_shows_nothing_is_refused() {
    let refusal = |order: &DrillOrder, running| plan_drill(order, &routes(), running).unwrap_err();
    let blackhole = order(network(), DrillFault::Blackhole);
    assert_eq!(refusal(&blackhole, true), DrillRefusal::Running);
    for length in [Duration::ZERO, MAX_DRILL_LENGTH + ONE_MS] {
        let long = DrillOrder { length, ..blackhole.clone() };
        assert_eq!(refusal(&long, false), DrillRefusal::Length);
    }
    for percent in [0, 101] {
        let fault = DrillFault::Loss(percent);
        assert_eq!(refusal(&order(network(), fault), false), DrillRefusal::Loss);
    }
    for by in [Duration::ZERO, MAX_INJECTED_DELAY + ONE_MS] {
        let fault = DrillFault::Delay(by);
        assert_eq!(refusal(&order(network(), fault), false), DrillRefusal::Delay);
    }
    let nowhere = DrillTarget::Interface("eth9".into());
    let missing = refusal(&order(nowhere.clone(), DrillFault::OneWay), false);
    assert_eq!(missing, DrillRefusal::NothingThere(nowhere));
    let mut down = routes();
    down.iter_mut().for_each(|route| route.state = RouteState::Init);
    assert_eq!(plan_drill(&blackhole, &down, false), Err(DrillRefusal::NotUp(network())));
    let mut relayed = routes();
    relayed[0].is_relayed = true;
    let one = order(DrillTarget::Route(RouteId(1)), DrillFault::Blackhole);
    assert_eq!(plan_drill(&one, &relayed, false), Err(DrillRefusal::Relayed(RouteId(1))));
}

fn suspect(ms: u64, route: u32) -> Event {
    Event { at: at(ms), kind: EventKind::Suspect { route: RouteId(route), peer: PeerId(0) } }
}

fn went_down(ms: u64, route: u32) -> Event {
    let (from, to) = (RouteState::Up, RouteState::Down);
    let kind = EventKind::StateChanged {
        route: RouteId(route),
        peer: PeerId(0),
        from,
        to,
        reason: Reason::HeartbeatsMissed,
        last_heard: None,
        history: Vec::new(),
    };
    Event { at: at(ms), kind }
}

fn cost_of(from: u32, lost: u64, stall: u64) -> Event {
    let length = Duration::from_millis(stall);
    let stall = Some(FailoverStall { length, source: StallSource::Data });
    let cost = FailoverCost { resent: 7, duplicated: 1, lost, stall };
    let (from, peer) = (RouteId(from), PeerId(0));
    Event { at: at(3000), kind: EventKind::FailoverCost { peer, from, to: None, cost } }
}

fn begin(fault: DrillFault) -> Drill {
    let order = order(network(), fault);
    let planned = plan_drill(&order, &routes(), false).unwrap();
    Drill::begin(at(1000), order, &planned, &routes())
}

#[test]
fn a_drill_ends_by_itself_and_reports_what_it_saw() {
    let mut drill = begin(DrillFault::Blackhole);
    assert_eq!(drill.next_wake(), Some(at(6000)));
    drill.on_event(&suspect(1012, 1));
    drill.on_event(&went_down(1150, 1));
    drill.on_event(&went_down(1160, 3));
    drill.on_event(&went_down(1001, 2));
    drill.on_event(&cost_of(1, 0, 12));
    drill.on_event(&cost_of(3, 2, 160));
    drill.on_event(&cost_of(2, 99, 999));
    assert_eq!(drill.poll(at(5999), &routes()), None);
    assert_eq!(drill.report(at(2000), 5).outcome, DrillOutcome::Running);
    assert_eq!(drill.poll(at(6000), &routes()), Some(DrillStep::Lift));
    drill.on_event(&went_down(6100, 1));
    let mut down = routes();
    down[0].state = RouteState::Down;
    assert_eq!(drill.poll(at(8600), &down), None, "a route is not up again");
    assert_eq!(drill.report(at(8600), 5).outcome, DrillOutcome::Settling);
    assert_eq!(drill.poll(at(9000), &routes()), Some(DrillStep::Finish));
    assert_eq!(drill.poll(at(9001), &routes()), None);
    assert_eq!(drill.next_wake(), None);
    let report = drill.report(at(9001), 5);
    assert_eq!((report.outcome, report.dropped), (DrillOutcome::Completed, 5));
    assert_eq!(report.lasted, Duration::from_secs(5));
    assert_eq!(report.detection(), Some(160 * ONE_MS));
    let signs: Vec<_> = report.routes.iter().map(|route| route.sign).collect();
    assert_eq!(signs, [Some(DetectionSign::DataUnacknowledged), Some(DetectionSign::RouteDown)]);
    assert_eq!(report.routes[0].recovery, Some(3000 * ONE_MS));
    assert_eq!((report.cost.resent, report.cost.lost), (14, 2));
    assert_eq!(report.cost.stall.unwrap().length, 160 * ONE_MS);
    let objective =
        DrillObjective { detection: Some(160 * ONE_MS), stall: Some(159 * ONE_MS), lost: None };
    let verdict = objective.judge(&report);
    assert_eq!((verdict.detection, verdict.stall, verdict.lost), (Some(true), Some(false), None));
    assert!(!verdict.is_met());
}

#[test]
fn a_route_that_never_returns_is_told_after_a_while() {
    let mut drill = begin(DrillFault::Blackhole);
    let mut down = routes();
    down[0].state = RouteState::Down;
    assert_eq!(drill.poll(at(6000), &down), Some(DrillStep::Lift));
    assert_eq!(drill.poll(at(15_999), &down), None);
    assert_eq!(drill.next_wake(), Some(at(16_000)));
    assert_eq!(drill.poll(at(16_000), &down), Some(DrillStep::Finish));
    assert!(!drill.report(at(16_000), 0).is_recovered());
}

#[test]
fn a_real_failure_meanwhile_lifts_the_fault_at_once() {
    let mut drill = begin(DrillFault::Blackhole);
    let mut routes = routes();
    // The drilled routes are down, as they must be; then the last other one fails.
    (routes[0].state, routes[2].state) = (RouteState::Down, RouteState::Down);
    assert_eq!(drill.poll(at(1200), &routes), None);
    routes[1].state = RouteState::Down;
    assert_eq!(drill.poll(at(1300), &routes), Some(DrillStep::Lift));
    assert!(drill.is_lifted());
    let end = at(1300) + RECOVERY_TIMEOUT;
    assert_eq!(drill.poll(end, &routes), Some(DrillStep::Finish));
    let report = drill.report(end, 0);
    assert_eq!(report.outcome, DrillOutcome::Aborted(AbortCause::PeerAtRisk(PeerId(0))));
    assert_eq!(report.lasted, 300 * ONE_MS);
}

#[test]
fn loss_and_delay_need_not_be_noticed() {
    let objective = DrillObjective { detection: Some(ONE_MS), ..DrillObjective::default() };
    for (fault, verdict) in [
        (DrillFault::Loss(5), None),
        (DrillFault::Delay(20 * ONE_MS), None),
        (DrillFault::Loss(100), Some(false)),
        (DrillFault::OneWay, Some(false)),
    ] {
        let report = begin(fault).report(at(2000), 0);
        assert_eq!(objective.judge(&report).detection, verdict, "{fault}");
    }
}

#[test]
fn dice_lose_the_share_they_are_told() {
    let mut dice = DatagramDice::new(7);
    for percent in [0, 1, 5, 50, 100] {
        let lost = (0..100_000).filter(|_| dice.loses(percent)).count() as i64;
        let expected = i64::from(percent) * 1000;
        assert!((lost - expected).abs() <= 600, "{lost} of 100,000 at {percent} %");
        assert!(percent % 100 != 0 || lost == expected);
    }
}
