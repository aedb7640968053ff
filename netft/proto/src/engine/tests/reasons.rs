//! Events: order, reasons, and inputs in unexpected states.

use super::*;
use crate::route::RouteState::{Down, Init, Up};

fn names(events: &[EventKind]) -> Vec<&'static str> {
    events
        .iter()
        .filter_map(|event| match event {
            EventKind::RouteAdded { .. } => Some("added"),
            EventKind::RouteRemoved { .. } => Some("removed"),
            EventKind::RemoteReachable { .. } => Some("reachable"),
            EventKind::RemoteUnreachable { .. } => Some("unreachable"),
            EventKind::StateChanged { to: Up, .. } => Some("up"),
            EventKind::StateChanged { .. } => Some("not up"),
            EventKind::Ready { .. } => Some("ready"),
            EventKind::SessionEstablished { .. } => Some("established"),
            EventKind::SessionEnded { .. } => Some("ended"),
            EventKind::Moved { .. } => Some("moved"),
            _ => None,
        })
        .collect()
}

#[test]
fn events_come_in_the_order_of_the_original() {
    let mut rig = Rig::new(1);
    rig.hear(1, &[1]);
    assert_eq!(names(&rig.events), ["added", "reachable", "up", "moved", "ready", "established"]);
    assert_eq!(rig.moves(), [(None, Some(1), Reason::BothWays)]);
    rig.forget();
    rig.hear(1, &[1]);
    assert!(rig.events.is_empty());
}

#[test]
fn a_route_that_merely_gains_a_direction_does_not_repeat_why_it_was_lost() {
    let mut rig = Rig::up(2);
    rig.pass(DETECTION);
    assert_eq!([rig.state(1), rig.state(2)], [Down, Down]);
    rig.forget();
    // The peer receives on route 1 only, and is received on route 2 only.
    rig.hear(2, &[1]);
    rig.hear(2, &[1]);
    assert_eq!((rig.state(1), rig.status(1).reason), (Init, Reason::PeerHears));
    assert_eq!((rig.state(2), rig.status(2).reason), (Init, Reason::Heard));
    assert_eq!(rig.moves(), [(None, Some(1), Reason::PeerHears)], "a half-route carries");
    rig.pass(DELAY);
    rig.hear(2, &[1, 2]);
    assert_eq!(rig.moves()[1], (Some(1), Some(2), Reason::BetterRoute), "a whole one is better");
}

#[test]
fn data_moves_for_the_reason_the_old_route_was_left() {
    let admin = RouteChange { admin_down: Some(true), ..RouteChange::default() };
    type Cut = Box<dyn Fn(&mut Rig)>;
    let cuts: [(Reason, Cut); 6] = [
        (Reason::CarrierLost, Box::new(|rig| rig.fault(1))),
        (Reason::Admin, Box::new(move |rig| rig.change(1, admin))),
        (Reason::Removed, Box::new(|rig| rig.input(EngineInput::RemoveRoute(RouteId(1))))),
        (Reason::PeerDoesNotHear, Box::new(|rig| rig.hear(2, &[2]))),
        (Reason::HeartbeatsMissed, {
            Box::new(|rig| {
                rig.pass(DETECTION / 2);
                rig.hear(2, &[1, 2]);
                rig.pass(DETECTION / 2);
            })
        }),
        (Reason::PeerAdmin, {
            Box::new(|rig| {
                let mut heartbeat = rig.heartbeat(2, &[1, 2]);
                heartbeat.reports[0].admin_down = true;
                rig.input(EngineInput::Heartbeat { peer: PEER, route: RouteId(2), heartbeat });
            })
        }),
    ];
    for (reason, cut) in cuts {
        let mut rig = Rig::up(2);
        cut(&mut rig);
        assert_eq!(rig.moves(), [(Some(1), Some(2), reason)]);
    }
}

#[test]
fn a_better_priority_is_a_better_route_and_no_failback() {
    let mut rig = Rig::up(2);
    rig.change(2, RouteChange { priority: Some(Priority(1)), ..RouteChange::default() });
    assert_eq!(rig.moves(), [(Some(1), Some(2), Reason::BetterRoute)]);
}

#[test]
fn a_boot_id_seen_before_changes_nothing_and_a_new_one_begins_afresh() {
    let mut rig = Rig::up(2);
    rig.input(EngineInput::SessionUp { peer: PEER, boot_id: 1 });
    assert!(rig.events.is_empty());
    rig.input(EngineInput::SessionUp { peer: PEER, boot_id: 2 });
    assert_eq!(rig.moves(), [(Some(1), None, Reason::NewSession)]);
    assert_eq!(rig.status(1).reason, Reason::NewSession);
    // The peer counts from one again.
    rig.serial = 0;
    rig.forget();
    rig.hear_all(2);
    assert_eq!(rig.active(), Some(1), "no hold after a restart");
    assert!(rig.events.contains(&EventKind::SessionEstablished { peer: PEER, boot_id: 2 }));
}

#[test]
fn a_restart_that_was_seen_as_silence_first_is_not_held_against_the_routes() {
    let mut rig = Rig::up(2);
    rig.pass(DETECTION);
    rig.input(EngineInput::SessionUp { peer: PEER, boot_id: 2 });
    rig.serial = 0;
    rig.hear(2, &[1, 2]);
    assert_eq!(rig.active(), Some(2));
    rig.hear(1, &[1, 2]);
    assert_eq!(rig.active(), Some(1));
}

#[test]
fn a_session_that_ended_and_came_back_is_not_held_against_the_routes() {
    let mut rig = Rig::up(2);
    rig.input(EngineInput::SessionDown(PEER, SessionEndCause::PeerStopped));
    rig.input(EngineInput::SessionUp { peer: PEER, boot_id: 1 });
    rig.hear(2, &[1, 2]);
    rig.hear(1, &[1, 2]);
    assert_eq!(rig.active(), Some(1));
}

#[test]
fn a_session_that_ends_takes_every_route_down_and_is_reported_once() {
    let mut rig = Rig::up(2);
    rig.input(EngineInput::SessionDown(PEER, SessionEndCause::PeerStopped));
    rig.input(EngineInput::SessionDown(PEER, SessionEndCause::PeerStopped));
    assert_eq!(names(&rig.events), ["ended", "not up", "not up", "moved", "unreachable"]);
    assert_eq!(rig.moves(), [(Some(1), None, Reason::SessionLost)]);
}

#[test]
fn a_route_the_peer_has_removed_is_not_sent_on() {
    let mut rig = Rig::up(2);
    rig.hear(2, &[2]);
    assert!(!rig.status(1).tx);
    rig.hear(2, &[1, 2]);
    assert!(rig.status(1).tx);
}

#[test]
fn a_peer_is_removed_with_everything_it_had() {
    let mut rig = Rig::up(3);
    rig.input(EngineInput::RemovePeer(PEER));
    let expected = ["removed", "removed", "removed", "moved", "unreachable", "ended"];
    assert_eq!(names(&rig.events), expected);
    assert_eq!(rig.moves(), [(Some(1), None, Reason::Removed)]);
    assert!(rig.engine.route_statuses().is_empty() && rig.engine.peer_statuses().is_empty());
    assert_eq!(rig.engine.next_wake(), None);
    let heartbeat = rig.heartbeat(1, &[1]);
    let late = EngineInput::Heartbeat { peer: PEER, route: RouteId(1), heartbeat };
    assert_eq!(rig.try_input(late), Err(DropReason::Misrouted));
}

#[test]
fn inputs_about_what_does_not_exist_do_nothing() {
    let mut rig = Rig::up(1);
    let (route, reason) = (RouteId(99), Reason::CarrierLost);
    for input in [
        EngineInput::AddPeer(PEER),
        EngineInput::AddRoute { id: RouteId(1), spec: spec(PEER, 5) },
        EngineInput::AddRoute { id: RouteId(5), spec: spec(PeerId(9), 5) },
        EngineInput::RemovePeer(PeerId(9)),
        EngineInput::RemoveRoute(route),
        EngineInput::ChangeRoute { id: route, change: RouteChange::default() },
        EngineInput::SessionUp { peer: PeerId(9), boot_id: 1 },
        EngineInput::SessionDown(PeerId(9), SessionEndCause::PeerStopped),
        EngineInput::Fault { route, reason },
        EngineInput::FaultCleared { route, reason },
        EngineInput::FaultCleared { route: RouteId(1), reason },
    ] {
        rig.input(input);
    }
    assert!(rig.events.is_empty() && rig.sent.is_empty(), "{:?}", rig.events);
    assert_eq!(rig.engine.route_statuses().len(), 1);
}
