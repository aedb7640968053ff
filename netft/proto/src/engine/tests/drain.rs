//! Drains: when data leaves, when both ends have left, and the last resort.

use super::*;
use crate::route::{DrainStage, DrainStatus, drain::would_strand_peer};

fn drain(on: bool) -> RouteChange {
    RouteChange { drain: Some(on), ..RouteChange::default() }
}

impl Rig {
    /// The peer answers a request sent at `sent`; its data leaves on `carries`, and it drains
    /// the routes `drains`.
    fn answer(&mut self, sent: Time, routes: u32, carries: u32, drains: &[u32]) {
        let all: Vec<_> = (1..=routes).collect();
        let mut heartbeat = self.heartbeat(routes, &all);
        heartbeat.message = HeartbeatMessage::Reply;
        heartbeat.sent_at = sent.as_nanos();
        for report in &mut heartbeat.reports {
            report.carries_data = report.your_route == carries;
            report.draining = drains.contains(&report.your_route);
        }
        self.input(EngineInput::Heartbeat { peer: PEER, route: RouteId(routes), heartbeat });
        self.pass(Duration::ZERO);
    }

    fn stages(&self) -> Vec<(u32, DrainStage)> {
        let stage = |event: &EventKind| match event {
            EventKind::Drain { route, stage, .. } => Some((route.0, *stage)),
            _ => None,
        };
        self.events.iter().filter_map(stage).collect()
    }

    fn stage(&self, route: u32) -> Option<DrainStage> {
        self.status(route).drain.map(DrainStatus::stage)
    }
}

#[test]
fn data_leaves_a_drained_route_at_once_and_its_heartbeats_go_on() {
    let mut rig = Rig::up(2);
    rig.pass(DELAY);
    rig.forget();
    rig.change(1, drain(true));
    assert_eq!(rig.moves(), [(Some(1), Some(2), Reason::Draining)]);
    assert_eq!((rig.state(1), rig.stage(1)), (RouteState::Up, Some(DrainStage::Draining)));
    rig.pass(DELAY / 4);
    let (_, heartbeat) = rig.sent.first().expect("reported at once");
    let report_on =
        |route| heartbeat.reports.iter().find(|v| v.your_route == remote(route)).unwrap();
    assert!(report_on(1).draining && !report_on(1).carries_data);
    assert!(!report_on(2).draining && report_on(2).carries_data);
    rig.pass(DELAY * 3);
    assert!(rig.requests(1) >= 3, "heartbeats go on");
    rig.forget();
    rig.change(1, drain(true));
    assert!(rig.events.is_empty() && rig.stage(1).is_some(), "ordered twice is ordered once");
}

#[test]
fn only_the_reply_to_a_request_after_the_order_proves_that_the_peer_left() {
    let mut rig = Rig::up(2);
    rig.pass(DELAY);
    rig.hear_all(2);
    let before = rig.now;
    rig.change(1, drain(true));
    rig.pass(Duration::from_millis(5));
    rig.answer(before, 2, 2, &[]);
    assert_eq!(rig.stage(1), Some(DrainStage::Draining), "the peer may not know of it yet");
    let sent = rig.now;
    rig.pass(Duration::from_millis(1));
    rig.answer(sent, 2, 1, &[]);
    assert_eq!(rig.stage(1), Some(DrainStage::Draining), "the peer still sends there");
    rig.answer(sent, 2, 2, &[]);
    assert_eq!(rig.stage(1), Some(DrainStage::Drained));
    assert_eq!(rig.stages(), [(1, DrainStage::Draining), (1, DrainStage::Drained)]);
    // After a second order the reply to an older request proves nothing.
    rig.change(1, drain(false));
    rig.change(1, drain(true));
    assert_eq!(rig.stage(1), Some(DrainStage::Draining));
}

#[test]
fn the_peers_order_moves_this_end_too() {
    let mut rig = Rig::up(2);
    rig.answer(Time::ZERO, 2, 1, &[1]);
    assert_eq!(rig.moves(), [(Some(1), Some(2), Reason::PeerDraining)]);
    let status = rig.status(1).drain.unwrap();
    assert!(!status.here && status.at_peer && status.left_here && !status.left_at_peer);
    rig.answer(Time::ZERO, 2, 2, &[1]);
    assert_eq!(rig.stage(1), Some(DrainStage::Drained));
    rig.answer(Time::ZERO, 2, 2, &[]);
    assert_eq!((rig.active(), rig.stage(1)), (Some(1), None));
    assert_eq!(rig.moves()[1], (Some(2), Some(1), Reason::BetterRoute));
    assert_eq!(rig.stages()[2], (1, DrainStage::Undrained));
}

#[test]
fn an_order_does_not_wait_for_the_hold_of_the_other_route() {
    let mut rig = Rig::up(2);
    rig.fault(2);
    rig.input(EngineInput::FaultCleared { route: RouteId(2), reason: Reason::CarrierLost });
    rig.hear_all(2);
    rig.hear_all(2);
    assert_eq!(rig.state(2), RouteState::Up);
    rig.change(1, drain(true));
    assert_eq!(rig.active(), Some(2));
}

#[test]
fn a_drained_route_carries_data_while_every_other_is_down() {
    let mut rig = Rig::up(2);
    rig.change(1, drain(true));
    let sent = rig.now + DELAY / 10;
    rig.pass(DELAY / 5);
    rig.answer(sent, 2, 2, &[]);
    assert_eq!(rig.stage(1), Some(DrainStage::Drained));
    rig.fault(2);
    assert_eq!((rig.active(), rig.stage(1)), (Some(1), Some(DrainStage::Draining)));
    rig.input(EngineInput::FaultCleared { route: RouteId(2), reason: Reason::CarrierLost });
    rig.hear_all(2);
    rig.hear_all(2);
    assert_eq!(rig.active(), Some(2), "left again, without a hold");
}

#[test]
fn a_peer_that_is_heard_nowhere_has_left() {
    let mut rig = Rig::up(2);
    rig.pass(DETECTION);
    rig.change(1, drain(true));
    assert_eq!(rig.stage(1), Some(DrainStage::Drained));
}

#[test]
fn the_last_route_that_is_up_would_strand_its_peer() {
    let mut rig = Rig::up(3);
    let strands = |rig: &Rig, ids: &[u32]| {
        let ids: Vec<_> = ids.iter().copied().map(RouteId).collect();
        would_strand_peer(&rig.engine.route_statuses(), &ids)
    };
    assert_eq!(strands(&rig, &[1, 2]), None);
    assert_eq!(strands(&rig, &[1, 2, 3]), Some(PEER));
    rig.change(2, drain(true));
    assert_eq!(strands(&rig, &[1]), None);
    assert_eq!(strands(&rig, &[1, 3]), Some(PEER));
    assert_eq!(strands(&rig, &[2]), None, "it is drained already");
    rig.fault(3);
    assert_eq!(strands(&rig, &[1]), Some(PEER), "a route that is down is no alternative");
    assert_eq!(strands(&rig, &[3]), None, "nor is its loss");
}
