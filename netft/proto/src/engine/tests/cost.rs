//! The report on a move beside its reason: the candidates and the cost.

use super::*;
use crate::failover::{
    cost::{COST_SETTLE_TIME, FailoverCost, LossCounters},
    move_counts::MoveCounts,
    report::{FailoverReport, RemoteReportSummary, SelectionOutcome},
    stall_histogram::{FailoverStall, StallSource},
};

const MS: Duration = Duration::from_millis(1);

fn reports(rig: &Rig) -> Vec<FailoverReport> {
    let report = |event: &EventKind| match event {
        EventKind::Moved { report, .. } => Some((**report).clone()),
        _ => None,
    };
    rig.events.iter().filter_map(report).collect()
}

fn costs(rig: &Rig) -> Vec<(RouteId, Option<RouteId>, FailoverCost)> {
    let cost = |event: &EventKind| match event {
        EventKind::FailoverCost { from, to, cost, .. } => Some((*from, *to, *cost)),
        _ => None,
    };
    rig.events.iter().filter_map(cost).collect()
}

fn outcomes(report: &FailoverReport) -> Vec<(u32, SelectionOutcome)> {
    report.candidates.iter().map(|one| (one.route.0, one.outcome)).collect()
}

fn resent(rig: &mut Rig, from: u32, to: u32, frames: u64, waited: Duration) {
    let (from, to) = (RouteId(from), RouteId(to));
    rig.input(EngineInput::Resent { peer: PEER, from, to, frames, waited });
}

/// The peer answers the newest request on a route.
fn answer(rig: &mut Rig, route: u32, routes: &[u32]) {
    let mut reply = rig.heartbeat(route, routes);
    reply.message = HeartbeatMessage::Reply;
    reply.sent_at = rig.now.as_nanos();
    rig.input(EngineInput::Heartbeat { peer: PEER, route: RouteId(route), heartbeat: reply });
}

#[test]
fn a_move_reports_the_old_route_and_why_the_others_were_not_chosen() {
    let mut rig = Rig::up(4);
    rig.change(4, RouteChange { admin_down: Some(true), ..RouteChange::default() });
    answer(&mut rig, 1, &[1, 2, 3]);
    let answered = rig.now;
    rig.pass(MS * 20);
    // The peer stops receiving on route 1, and never did on route 3.
    rig.hear(2, &[2]);
    let report = &reports(&rig)[0];
    assert_eq!(
        outcomes(report),
        [
            (2, SelectionOutcome::Chosen),
            (3, SelectionOutcome::NotUp),
            (4, SelectionOutcome::AdminDown)
        ]
    );
    let left = report.previous.as_ref().unwrap();
    assert_eq!((left.route, left.state), (RouteId(1), RouteState::Init));
    assert_eq!((left.last_heard, left.last_answered), (Some(answered), Some(answered)));
    assert_eq!(left.remote_report, None, "a route the peer's list leaves out");
    let has = |text: &str| left.heartbeats.iter().any(|line| line.contains(text));
    assert!(has("sent") && has("received") && left.heartbeats.len() <= 4, "{left:?}");
    assert_eq!(
        report.cost.stall,
        Some(FailoverStall { length: MS * 20, source: StallSource::Heartbeats })
    );
}

#[test]
fn the_last_remote_report_is_kept_for_a_route_that_went_silent() {
    let mut rig = Rig::up(2);
    rig.pass(DETECTION - MS);
    rig.hear(2, &[1, 2]);
    rig.pass(MS);
    let report = &reports(&rig)[0];
    let expected = RemoteReportSummary { heard: true, local_down: false, admin_down: false };
    assert_eq!(report.previous.as_ref().unwrap().remote_report, Some(expected));
    assert_eq!(outcomes(report), [(2, SelectionOutcome::Chosen)]);
}

#[test]
fn a_route_that_is_held_down_or_ranks_lower_is_reported_so() {
    let mut rig = Rig::up(3);
    rig.fault(1);
    let clear = EngineInput::FaultCleared { route: RouteId(1), reason: Reason::CarrierLost };
    rig.input(clear);
    (0..3).for_each(|_| rig.hear_all(3));
    assert_eq!(rig.active(), Some(2));
    rig.forget();
    rig.fault(2);
    let report = &reports(&rig)[0];
    assert_eq!(outcomes(report), [(3, SelectionOutcome::Chosen), (1, SelectionOutcome::HeldDown)]);
    assert_eq!(report.candidates[1].hold_down_left, Some(HOLD));
    let mut rig = Rig::up(3);
    rig.fault(1);
    assert_eq!(
        outcomes(&reports(&rig)[0]),
        [(2, SelectionOutcome::Chosen), (3, SelectionOutcome::LowerRank)]
    );
}

#[test]
fn many_routes_are_counted_and_not_listed() {
    let mut rig = Rig::up(12);
    rig.fault(1);
    let report = &reports(&rig)[0];
    assert_eq!((report.candidates.len(), report.omitted), (8, 3));
    assert_eq!(report.candidates[0].outcome, SelectionOutcome::Chosen);
}

#[test]
fn the_cost_of_a_failover_is_reported_once_when_it_is_final() {
    let mut rig = Rig::up(2);
    rig.input(EngineInput::LossCounters {
        peer: PEER,
        counters: LossCounters { duplicated: 100, lost: 10 },
    });
    rig.input(EngineInput::Suspect(RouteId(1)));
    let since = rig.now;
    resent(&mut rig, 1, 2, 30, MS * 12);
    rig.input(EngineInput::LossCounters {
        peer: PEER,
        counters: LossCounters { duplicated: 140, lost: 10 },
    });
    rig.pass(MS * 20);
    rig.fault(1);
    let report = &reports(&rig)[0];
    assert_eq!(report.previous.as_ref().unwrap().suspect_since, Some(since));
    assert_eq!((report.cost.resent, report.cost.duplicated), (30, 40));
    resent(&mut rig, 1, 2, 4, MS * 3);
    rig.input(EngineInput::LossCounters {
        peer: PEER,
        counters: LossCounters { duplicated: 140, lost: 11 },
    });
    let end = rig.now + COST_SETTLE_TIME;
    while rig.now + MS * 50 < end {
        rig.pass(MS * 50);
        answer(&mut rig, 2, &[2]);
    }
    assert_eq!((costs(&rig), rig.engine.stall_histogram().count()), (Vec::new(), 0));
    rig.pass(MS * 50);
    let stall = Some(FailoverStall { length: MS * 12, source: StallSource::Data });
    let cost = FailoverCost { resent: 34, duplicated: 40, lost: 1, stall };
    assert_eq!(costs(&rig), [(RouteId(1), Some(RouteId(2)), cost)]);
    let stalls = rig.engine.stall_histogram();
    assert_eq!((stalls.count(), stalls.max), (1, MS * 12));
    rig.pass(COST_SETTLE_TIME * 2);
    assert_eq!(costs(&rig).iter().filter(|cost| cost.0 == RouteId(1)).count(), 1);
}

#[test]
fn the_next_move_closes_the_cost_of_the_one_before() {
    let mut rig = Rig::up(3);
    rig.fault(1);
    resent(&mut rig, 1, 2, 5, MS);
    rig.fault(2);
    resent(&mut rig, 2, 3, 7, MS * 2);
    assert_eq!(costs(&rig).iter().map(|cost| cost.2.resent).collect::<Vec<_>>(), [5]);
    rig.pass(COST_SETTLE_TIME);
    let counted: Vec<_> = costs(&rig).iter().map(|cost| (cost.0.0, cost.2.resent)).collect();
    assert_eq!(counted, [(1, 5), (2, 7)]);
    assert_eq!(rig.engine.stall_histogram().count(), 2);
}

#[test]
fn a_false_suspicion_is_reported_and_is_no_failover() {
    let mut rig = Rig::up(2);
    rig.input(EngineInput::Suspect(RouteId(1)));
    resent(&mut rig, 1, 2, 3, MS * 11);
    for _ in 0..200 {
        answer(&mut rig, 1, &[1, 2]);
        answer(&mut rig, 2, &[1, 2]);
        rig.pass(MS * 10);
    }
    assert_eq!(rig.moves(), []);
    let cost = costs(&rig);
    assert_eq!((cost.len(), cost[0].2.resent, cost[0].1), (1, 3, Some(RouteId(2))));
    assert_eq!(rig.engine.stall_histogram().count(), 0);
}

#[test]
fn a_planned_move_without_cost_is_not_reported() {
    let mut rig = Rig::up(2);
    rig.change(2, RouteChange { priority: Some(Priority(1)), ..RouteChange::default() });
    assert_eq!(rig.moves().len(), 1);
    rig.pass(DETECTION / 2);
    rig.hear_all(2);
    for _ in 0..40 {
        rig.pass(DETECTION / 2);
        rig.hear_all(2);
    }
    assert_eq!((costs(&rig), rig.engine.stall_histogram().count()), (Vec::new(), 0));
}

#[test]
fn an_outage_is_reported_and_is_no_failover() {
    let mut rig = Rig::up(1);
    rig.fault(1);
    rig.pass(COST_SETTLE_TIME * 2);
    rig.input(EngineInput::FaultCleared { route: RouteId(1), reason: Reason::CarrierLost });
    (0..3).for_each(|_| rig.hear(1, &[1]));
    let reports = reports(&rig);
    assert_eq!(reports[0].outage, None);
    assert_eq!(reports[1].outage, Some(COST_SETTLE_TIME * 2));
    assert_eq!(rig.engine.stall_histogram().count(), 0);
}

/// The peer answers on `routes` for a while: cadence, hold-down and costs settle.
fn settle(rig: &mut Rig, routes: &[u32], length: Duration) {
    let end = rig.now + length;
    while rig.now < end {
        rig.pass(MS * 20);
        routes.iter().for_each(|route| answer(rig, *route, routes));
    }
}

#[test]
fn t_01_moves_are_counted_by_cause_and_only_a_failed_route_makes_a_failover() {
    let mut rig = Rig::new(2);
    let counts = |rig: &Rig| rig.engine.peer_statuses()[0].moves;
    // The less preferred route is up first.
    (0..2).for_each(|_| rig.hear(2, &[2]));
    (0..2).for_each(|_| rig.hear_all(2));
    let started = MoveCounts { start_ups: 2, ..MoveCounts::default() };
    assert_eq!((rig.active(), counts(&rig)), (Some(1), started));
    rig.fault(1);
    let failed = MoveCounts { failovers: 1, ..started };
    assert_eq!((rig.active(), counts(&rig)), (Some(2), failed));
    rig.input(EngineInput::FaultCleared { route: RouteId(1), reason: Reason::CarrierLost });
    settle(&mut rig, &[1, 2], HOLD * 3);
    let returned = MoveCounts { failbacks: 1, ..failed };
    assert_eq!((rig.active(), counts(&rig)), (Some(1), returned));
    rig.change(1, RouteChange { drain: Some(true), ..RouteChange::default() });
    let drained = MoveCounts { drains: 1, ..returned };
    assert_eq!((rig.active(), counts(&rig)), (Some(2), drained));
    // An outage that another route ends is one failover, one that the same route ends is none.
    rig.fault(1);
    rig.fault(2);
    assert_eq!((rig.active(), counts(&rig)), (None, drained));
    rig.input(EngineInput::FaultCleared { route: RouteId(2), reason: Reason::CarrierLost });
    settle(&mut rig, &[2], DETECTION);
    assert_eq!((rig.active(), counts(&rig)), (Some(2), drained));
    rig.fault(2);
    rig.input(EngineInput::FaultCleared { route: RouteId(1), reason: Reason::CarrierLost });
    settle(&mut rig, &[1], DETECTION);
    assert_eq!((rig.active(), counts(&rig).failovers), (Some(1), 2));
}

#[test]
fn an_idle_failover_is_no_stall() {
    let mut rig = Rig::up(2);
    answer(&mut rig, 1, &[1, 2]);
    settle(&mut rig, &[2], DETECTION / 2);
    rig.fault(1);
    settle(&mut rig, &[2], COST_SETTLE_TIME * 2);
    assert_eq!(costs(&rig).len(), 1, "its bound is reported");
    assert_eq!(rig.engine.stall_histogram().count(), 0, "nothing stood still");
}
