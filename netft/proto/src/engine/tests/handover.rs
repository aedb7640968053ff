//! Hand-over to another process: nothing of a peer changes by it.

use super::*;

/// The rig of the next process, `gap` later.
fn succeeded(rig: &mut Rig, gap: Duration) {
    rig.now = rig.now + gap;
    let saved = rig.engine.save_peer(PEER).unwrap();
    rig.engine = engine(4, 2);
    rig.engine.restore_peer(rig.now, PEER, saved).unwrap();
    rig.drain();
}

#[test]
fn f_115_no_route_changes_its_state_and_the_peer_is_told_of_all_of_them() {
    let mut rig = Rig::up(3);
    rig.change(3, RouteChange { admin_down: Some(true), ..RouteChange::default() });
    rig.change(2, RouteChange { drain: Some(true), ..RouteChange::default() });
    rig.forget();
    let states = |rig: &Rig| [1, 2, 3].map(|id| (rig.state(id), rig.status(id).last_change));
    let before = states(&rig);
    let active = rig.active();
    succeeded(&mut rig, DETECTION * 3);
    assert_eq!((states(&rig), rig.active()), (before, active));
    rig.tick();
    for route in [1, 2, 3] {
        assert_eq!(rig.requests(route), 1, "the first request leaves at once");
    }
    let first = &rig.sent[0].1;
    assert!(first.serial > 64, "no serial is used twice");
    assert_eq!(first.your_route, remote(first.route));
    assert_eq!(first.reports.len(), 3);
    assert!(first.reports.iter().all(|report| report.heard));
    // Heartbeats go on in time: no event at all but that of the drain's stage.
    for _ in 0..10 {
        rig.pass(DELAY);
        rig.hear_all(3);
    }
    let news = |event: &&EventKind| !matches!(event, EventKind::Drain { .. });
    assert_eq!(rig.events.iter().filter(news).count(), 0, "{:?}", rig.events);
}

#[test]
fn f_115_a_route_that_dies_meanwhile_is_left_after_one_detection_time() {
    let mut rig = Rig::up(2);
    succeeded(&mut rig, Duration::from_millis(40));
    let begin = rig.now;
    while rig.state(1) == RouteState::Up {
        rig.pass(DELAY);
        rig.hear(2, &[1, 2]);
        assert!(rig.now.since(begin) < DETECTION * 2);
    }
    assert!(rig.now.since(begin) >= DETECTION);
    assert_eq!((rig.state(2), rig.active()), (RouteState::Up, Some(2)));
}

#[test]
fn f_115_measurements_hold_downs_and_the_path_mtu_go_along() {
    let mut rig = Rig::up(2);
    let limit = |datagram| EngineInput::DatagramLimit {
        route: RouteId(1),
        datagram,
        transport_overhead: 0,
    };
    rig.input(limit(1400));
    rig.fault(2);
    rig.input(EngineInput::FaultCleared { route: RouteId(2), reason: Reason::CarrierLost });
    rig.hear_all(2);
    rig.hear_all(2);
    rig.hear_all(2);
    let before = rig.status(2);
    assert_eq!((before.state, before.hold_down.flaps), (RouteState::Up, 1));
    rig.sizes.clear();
    succeeded(&mut rig, Duration::ZERO);
    let after = rig.status(2);
    assert_eq!((after.state, after.hold_down), (before.state, before.hold_down));
    assert_eq!(rig.sizes, [(RouteId(1), 1400)], "the packet path is told again");
    rig.sizes.clear();
    rig.input(limit(1400));
    assert!(rig.sizes.is_empty(), "the same");
}
