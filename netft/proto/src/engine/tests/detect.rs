//! Timing: detection, early warning, requests, stalls, hold-down.

use super::*;

const NANO: Duration = Duration::from_nanos(1);

#[test]
fn a_route_is_up_a_nanosecond_before_the_detection_time_and_down_with_it() {
    for (delay, threshold) in [(5, 2), (30, 5), (60_000, 120)] {
        let timing = timing(delay, threshold);
        let mut rig = Rig::new(1);
        rig.change(1, RouteChange { timing: Some(timing), ..RouteChange::default() });
        rig.hear(1, &[1]);
        rig.pass(timing.detection_time() - NANO);
        assert_eq!(rig.state(1), RouteState::Up, "{timing:?}");
        rig.pass(NANO);
        assert_eq!(rig.state(1), RouteState::Down, "{timing:?}");
        assert_eq!(rig.status(1).heartbeats.missed, threshold);
        assert_eq!(rig.status(1).reason, Reason::HeartbeatsMissed);
    }
}

#[test]
fn a_deferred_heartbeat_counts_from_its_arrival() {
    let mut rig = Rig::up(1);
    rig.pass(DELAY * 2);
    let (arrived, waited) = (rig.now, DELAY / 2);
    rig.pass(waited);
    let is_request = |(_, one): &&(RouteId, Heartbeat)| one.message == HeartbeatMessage::Request;
    let sequence = rig.sent.iter().rfind(is_request).unwrap().1.sequence;
    let mut heartbeat = rig.heartbeat(1, &[1]);
    heartbeat.message = HeartbeatMessage::Reply;
    heartbeat.sequence = sequence;
    heartbeat.sent_at = arrived.as_nanos();
    let (peer, route, answered) = (PEER, RouteId(1), false);
    let late = |at| EngineInput::DeferredHeartbeat {
        peer,
        route,
        heartbeat: heartbeat.clone(),
        arrived_at: at,
        answered,
    };
    rig.input(late(arrived));
    assert_eq!(rig.status(1).quality.rtt, Some(Duration::ZERO), "waiting is no round-trip time");
    rig.pass(DETECTION - waited - NANO);
    assert_eq!(rig.state(1), RouteState::Up);
    rig.pass(NANO);
    assert_eq!(rig.state(1), RouteState::Down);
    // An arrival in the future counts as now, one before the last is ignored.
    let mut rig = Rig::up(1);
    rig.pass(DELAY);
    rig.input(late(rig.now + DETECTION));
    rig.pass(DETECTION - NANO);
    assert_eq!(rig.state(1), RouteState::Up);
    rig.pass(NANO);
    assert_eq!(rig.state(1), RouteState::Down);
}

#[test]
fn one_early_warning_at_two_fifths_of_the_threshold() {
    let mut rig = Rig::up(1);
    rig.pass(DELAY * 2 - NANO);
    assert_eq!(rig.warnings(), 0);
    rig.pass(NANO);
    let warning = EventKind::EarlyWarning {
        route: RouteId(1),
        peer: PEER,
        missed: 2,
        threshold: 5,
        withheld: 0,
    };
    assert!(rig.events.contains(&warning), "{:?}", rig.events);
    rig.pass(DELAY * 2);
    assert_eq!(rig.warnings(), 1);
    rig.hear(1, &[1]);
    rig.pass(DELAY * 2);
    assert_eq!(rig.warnings(), 2, "the next silence");
}

#[test]
fn requests_come_every_75_to_100_percent_of_the_delay_while_one_may_send() {
    let mut rig = Rig::new(2);
    rig.hear_all(2);
    rig.forget();
    rig.pass(DELAY * 300);
    for route in 1..=2 {
        assert!((300..=401).contains(&rig.requests(route)), "{}", rig.requests(route));
    }
    rig.fault(1);
    rig.forget();
    rig.pass(DELAY * 10);
    assert_eq!(rig.requests(1), 0);
    rig.input(EngineInput::SessionDown(PEER, SessionEndCause::PeerStopped));
    assert_eq!(rig.engine.next_wake(), None);
}

/// Nobody may be there: somebody else's address, or one that nothing leads to.
#[test]
fn a_peer_that_was_never_heard_on_a_route_is_asked_less_and_less_often() {
    let (second, mut rig) = (Duration::from_secs(1), Rig::new(2));
    rig.hear(2, &[2]);
    rig.pass(second * 8);
    assert!((20..60).contains(&rig.requests(1)), "{}", rig.requests(1));
    assert_eq!(rig.status(1).reason, Reason::NeverHeard);
    rig.pass(second * 592);
    assert!(rig.requests(1) < 100, "{}", rig.requests(1));
    rig.forget();
    rig.pass(second * 600);
    assert!((10..=14).contains(&rig.requests(1)), "once a minute: {}", rig.requests(1));
    assert!(rig.requests(2) > 6000, "one that was heard is asked all the time");

    // A new session, a repaired fault and another network give hope; a refused send does not.
    let refused = |rig: &mut Rig| {
        let (route, reason) = (RouteId(1), Reason::SendError);
        rig.input(EngineInput::Fault { route, reason });
        rig.input(EngineInput::FaultCleared { route, reason });
    };
    let repaired = |rig: &mut Rig| {
        rig.fault(1);
        let (route, reason) = (RouteId(1), Reason::CarrierLost);
        rig.input(EngineInput::FaultCleared { route, reason });
    };
    let renewed = |rig: &mut Rig| rig.input(EngineInput::SessionUp { peer: PEER, boot_id: 77 });
    let changed = |rig: &mut Rig| rig.input(EngineInput::RetryUnheard);
    let acts: [&dyn Fn(&mut Rig); 4] = [&refused, &repaired, &renewed, &changed];
    for (act, hopeful) in acts.into_iter().zip([false, true, true, true]) {
        rig.pass(second * 1200);
        rig.forget();
        act(&mut rig);
        rig.pass(second * 2);
        assert_eq!(rig.requests(1) > 9, hopeful, "{}", rig.requests(1));
    }

    // It hears this node there, as it says elsewhere: half a route.
    rig.pass(second * 1200);
    rig.hear(2, &[1, 2]);
    rig.forget();
    rig.pass(DELAY * 20);
    assert!(rig.requests(1) >= 20, "{}", rig.requests(1));
}

#[test]
fn a_new_timing_takes_effect_at_once_without_misses_at_the_old_interval() {
    let mut rig = Rig::new(1);
    let slow = RouteChange { timing: Some(timing(1000, 5)), ..RouteChange::default() };
    rig.change(1, slow);
    rig.hear(1, &[1]);
    rig.pass(Duration::from_millis(900));
    rig.forget();
    let fast = RouteChange { timing: Some(timing(30, 5)), ..RouteChange::default() };
    rig.change(1, fast);
    rig.pass(DETECTION - NANO);
    assert!(rig.requests(1) >= 5, "{}", rig.requests(1));
    assert_eq!(rig.state(1), RouteState::Up);
    rig.pass(NANO);
    assert_eq!(rig.state(1), RouteState::Down);
}

#[test]
fn a_stall_extends_deadlines_by_one_detection_time_and_is_reported_once() {
    let mut rig = Rig::up(2);
    rig.now = rig.now + Duration::from_secs(10);
    rig.tick();
    rig.tick();
    let stalls = rig.events.iter().filter(|e| matches!(e, EventKind::Stalled { .. })).count();
    assert_eq!(stalls, 1, "{:?}", rig.events);
    assert_eq!(rig.state(1), RouteState::Up);
    assert!(rig.sent.iter().all(|(_, heartbeat)| heartbeat.stalled_ms > 9000));
    rig.pass(DETECTION - NANO);
    assert_eq!(rig.state(1), RouteState::Up);
    rig.pass(NANO);
    assert_eq!(rig.state(1), RouteState::Down);
}

#[test]
fn a_stall_that_costs_a_threshold_of_two_is_noticed() {
    let mut rig = Rig::new(1);
    rig.change(1, RouteChange { timing: Some(timing(100, 2)), ..RouteChange::default() });
    rig.hear(1, &[1]);
    rig.pass(Duration::from_millis(90));
    // Both heartbeats of the detection time fall into a stall of less than two delays.
    rig.now = rig.now + Duration::from_millis(190);
    rig.tick();
    assert_eq!(rig.state(1), RouteState::Up, "{:?}", rig.events);
}

#[test]
fn heartbeats_that_arrived_during_a_stall_are_read_before_a_route_goes_down() {
    let mut rig = Rig::up(1);
    rig.now = rig.now + DETECTION * 3;
    rig.hear(1, &[1]);
    rig.tick();
    assert_eq!(rig.state(1), RouteState::Up);
    assert!(!rig.events.iter().any(|e| matches!(e, EventKind::StateChanged { .. })));
}

#[test]
fn failover_is_immediate_and_failback_waits_for_the_hold() {
    let mut rig = Rig::up(2);
    rig.fault(1);
    assert_eq!(rig.active(), Some(2));
    rig.input(EngineInput::FaultCleared { route: RouteId(1), reason: Reason::CarrierLost });
    rig.hear(1, &[1, 2]);
    assert_eq!(rig.state(1), RouteState::Init, "heard once after a loss");
    rig.hear(1, &[1, 2]);
    let up = rig.now;
    while rig.now.since(up) < HOLD {
        assert_eq!(rig.active(), Some(2), "after {:?}", rig.now.since(up));
        rig.pass(DELAY.min(HOLD - rig.now.since(up)));
        rig.hear_all(2);
    }
    assert_eq!(rig.active(), Some(1));
    let moves = [(Some(1), Some(2), Reason::CarrierLost), (Some(2), Some(1), Reason::Failback)];
    assert_eq!(rig.moves(), moves);
}

#[test]
fn a_held_route_is_not_left_for_a_better_one_that_is_held_too() {
    let mut rig = Rig::up(2);
    rig.pass(DETECTION);
    rig.hear_all(2);
    rig.hear(2, &[1, 2]);
    assert_eq!(rig.active(), Some(2), "the first one back");
    rig.hear(1, &[1, 2]);
    assert_eq!([rig.state(1), rig.state(2)], [RouteState::Up; 2]);
    assert_eq!(rig.active(), Some(2));
}

#[test]
fn a_half_route_that_carries_is_not_left_for_another_half_route() {
    let mut rig = Rig::new(3);
    rig.hear(3, &[2]);
    assert_eq!((rig.active(), rig.state(2)), (Some(2), RouteState::Init));
    rig.hear(3, &[1, 2]);
    assert_eq!(rig.state(1), RouteState::Init);
    assert_eq!(rig.active(), Some(2));
}

#[test]
fn a_fault_is_reported_on_the_other_routes_within_a_quarter_of_the_delay() {
    let mut rig = Rig::up(2);
    rig.pass(Duration::ZERO);
    rig.forget();
    rig.fault(1);
    rig.pass(DELAY / 4);
    let (route, heartbeat) = rig.sent.first().unwrap();
    assert_eq!(*route, RouteId(2));
    let report = heartbeat.reports.iter().find(|v| v.your_route == remote(1)).unwrap();
    assert!(report.local_down && !report.heard);
    assert_eq!(rig.requests(1), 0);
}

#[test]
fn coming_back_into_use_is_not_held() {
    let mut rig = Rig::up(2);
    let admin = |down| RouteChange { admin_down: Some(down), ..RouteChange::default() };
    rig.change(1, admin(true));
    assert_eq!(rig.active(), Some(2));
    rig.change(1, admin(false));
    assert_eq!(rig.active(), Some(1));
}

#[test]
fn two_peers_do_not_influence_each_other() {
    let other = PeerId(7);
    let run = |with_other: bool| {
        let mut rig = Rig::up(2);
        if with_other {
            rig.input(EngineInput::AddPeer(other));
            rig.input(EngineInput::AddRoute { id: RouteId(50), spec: spec(other, 50) });
            rig.input(EngineInput::SessionUp { peer: other, boot_id: 9 });
            let mut heartbeat = rig.heartbeat(50, &[1, 2, 50]);
            heartbeat.reports[0].heard = false;
            heartbeat.serial = 1_000_000;
            rig.input(EngineInput::Heartbeat { peer: other, route: RouteId(50), heartbeat });
            rig.input(EngineInput::Fault { route: RouteId(50), reason: Reason::SendError });
            rig.input(EngineInput::SessionDown(other, SessionEndCause::PeerStopped));
            rig.input(EngineInput::RemovePeer(other));
        }
        rig.forget();
        rig.hear(2, &[1, 2]);
        rig.pass(DETECTION);
        let facts: Vec<_> = (1..=2)
            .map(|route| {
                (rig.state(route), rig.status(route).reason, rig.status(route).last_change)
            })
            .collect();
        (facts, rig.moves())
    };
    assert_eq!(run(false), run(true));
}

/// F-20: the reader of the sockets was not scheduled, though the engine was.
#[test]
fn a_route_with_something_unread_gets_time_and_not_for_ever() {
    let mut rig = Rig::up(1);
    let detection = rig.status(1).spec.timing.detection_time();
    rig.pass(detection - NANO);
    assert_eq!(rig.engine.overdue_routes(rig.now + NANO), [RouteId(1)]);
    let began = rig.now;
    while rig.state(1) == RouteState::Up {
        rig.input(EngineInput::UnreadData(RouteId(1)));
        rig.pass(DELAY / 2);
        assert!(rig.now.since(began) <= detection + DELAY, "for ever");
    }
    assert!(rig.now.since(began) + DELAY >= detection);
    assert!(rig.engine.overdue_routes(rig.now).is_empty());
}
