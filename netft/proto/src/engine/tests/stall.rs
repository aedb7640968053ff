//! Scheduling stalls that are excused: the peer's, and this node's own.

use super::*;

const PAUSE: Duration = Duration::from_millis(400);

impl Rig {
    /// The peer's request arrives on `route` after a stall of `stalled`.
    fn hear_stalled(&mut self, route: u32, routes: u32, stalled: Duration) {
        let all: Vec<_> = (1..=routes).collect();
        let mut heartbeat = self.heartbeat(route, &all);
        heartbeat.stalled_ms = stalled.as_millis() as u16;
        self.input(EngineInput::Heartbeat { peer: PEER, route: RouteId(route), heartbeat });
    }
}

/// Both routes lost by silence and received again; the peer reports a stall of `stalled`.
fn after_silence(stalled: Duration) -> Rig {
    let mut rig = Rig::up(2);
    rig.pass(PAUSE);
    assert_eq!([rig.state(1), rig.state(2)], [RouteState::Down; 2]);
    for route in [2, 1, 2, 1] {
        rig.hear_stalled(route, 2, stalled);
    }
    assert_eq!([rig.state(1), rig.state(2)], [RouteState::Up; 2]);
    rig
}

#[test]
fn a_peer_that_was_paused_costs_its_routes_no_hold_and_no_flap() {
    let rig = after_silence(PAUSE);
    assert_eq!((rig.status(1).hold_down.left, rig.status(1).hold_down.flaps), (Duration::ZERO, 0));
    assert_eq!(rig.active(), Some(1), "back at once");
    let without_stall = after_silence(Duration::ZERO);
    assert_eq!(
        (without_stall.status(1).hold_down.left, without_stall.status(1).hold_down.flaps),
        (HOLD, 1)
    );
    assert_eq!(without_stall.active(), Some(2), "the first one back");
}

#[test]
fn a_heartbeat_from_before_a_stall_that_is_read_after_it_warns_of_nothing() {
    let mut rig = Rig::up(1);
    let (peer, route, at) = (PEER, RouteId(1), rig.now);
    let heartbeat = rig.heartbeat(1, &[1]);
    rig.now = rig.now + PAUSE;
    rig.input(EngineInput::DeferredHeartbeat {
        peer,
        route,
        heartbeat,
        arrived_at: at,
        answered: true,
    });
    rig.pass(DELAY / 2);
    assert_eq!(rig.state(1), RouteState::Up);
    let warned = |kind: &EventKind| matches!(kind, EventKind::EarlyWarning { .. });
    assert!(!rig.events.iter().any(warned), "{:?}", rig.events);
}

#[test]
fn a_pause_excuses_the_silence_it_was_in_and_no_other() {
    let mut rig = after_silence(PAUSE);
    rig.pass(DETECTION);
    assert_eq!(rig.state(1), RouteState::Down);
    for _ in 0..2 {
        // The report is repeated for a second.
        rig.hear_stalled(1, 2, PAUSE);
    }
    assert_eq!(rig.status(1).hold_down.flaps, 1);
    let long = after_silence(PAUSE / 4);
    assert_eq!(long.status(1).hold_down.flaps, 1, "silent for much longer than it was paused");
}

#[test]
fn heartbeats_a_paused_peer_did_not_send_were_not_missed_and_suspicion_ends() {
    let mut rig = Rig::up(2);
    rig.input(EngineInput::Suspect(RouteId(1)));
    rig.pass(DELAY * 4);
    assert!(rig.status(1).suspect);
    rig.hear_stalled(1, 2, DELAY * 4);
    rig.hear(2, &[1, 2]);
    assert!(!rig.status(1).suspect);
    assert_eq!((rig.status(1).heartbeats.missed, rig.status(2).heartbeats.missed), (0, 3));
}

#[test]
fn a_route_the_peer_gave_up_while_this_node_was_paused_is_not_held() {
    let mut rig = Rig::up(2);
    rig.now = rig.now + PAUSE;
    rig.hear(2, &[]);
    assert_eq!(rig.status(1).reason, Reason::PeerDoesNotHear);
    rig.hear(1, &[1, 2]);
    assert_eq!([rig.state(1), rig.state(2)], [RouteState::Up; 2]);
    assert_eq!((rig.status(1).hold_down.left, rig.active()), (Duration::ZERO, Some(1)));
}

/// A worker was not scheduled between the socket and the driver's queue, and hands over what it
/// read before, in turns.
#[test]
fn f_20_heartbeats_that_waited_for_a_detection_time_bring_no_route_up_for_a_moment() {
    let mut rig = Rig::up(2);
    let start = rig.now;
    rig.pass(PAUSE);
    assert_eq!([rig.state(1), rig.state(2)], [RouteState::Down; 2]);
    rig.events.clear();
    for late in [DELAY / 4, DELAY / 2] {
        for route in [1, 2] {
            let heartbeat = rig.heartbeat(route, &[1, 2]);
            rig.input(EngineInput::DeferredHeartbeat {
                peer: PEER,
                route: RouteId(route),
                heartbeat,
                arrived_at: start + late,
                answered: false,
            });
        }
        rig.pass(DELAY / 10);
    }
    let flaps = |kind: &EventKind| {
        matches!(kind, EventKind::RemoteReachable { .. } | EventKind::RemoteUnreachable { .. })
    };
    assert!(!rig.events.iter().any(flaps), "{:?}", rig.events);
    for route in [1, 2, 1, 2] {
        rig.hear(route, &[1, 2]);
    }
    assert_eq!([rig.state(1), rig.state(2)], [RouteState::Up; 2]);
}
