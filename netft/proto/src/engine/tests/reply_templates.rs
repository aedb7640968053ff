//! Requests that are answered without the engine.

use super::*;

fn deferred(rig: &mut Rig, answered: bool) -> Heartbeat {
    let heartbeat = rig.heartbeat(1, &[1]);
    let (peer, route, at) = (PEER, RouteId(1), rig.now);
    rig.input(EngineInput::DeferredHeartbeat {
        peer,
        route,
        heartbeat: heartbeat.clone(),
        arrived_at: at,
        answered,
    });
    heartbeat
}

fn replies(rig: &Rig) -> Vec<&Heartbeat> {
    let sent = rig.sent.iter().map(|(_, heartbeat)| heartbeat);
    sent.filter(|heartbeat| heartbeat.message == HeartbeatMessage::Reply).collect()
}

#[test]
fn a_reply_template_says_what_the_engine_would() {
    let mut rig = Rig::up(1);
    let template = rig.engine.reply_template(PEER).unwrap().clone();
    let request = deferred(&mut rig, true);
    assert_eq!(replies(&rig).len(), 0, "it was answered");
    let theirs = template.build_reply(1, RouteId(1), &request).unwrap();
    deferred(&mut rig, false);
    let ours = replies(&rig)[0].clone();
    assert!(ours.serial > theirs.serial);
    assert_eq!(
        Heartbeat { serial: 0, sequence: 0, ..ours },
        Heartbeat { serial: 0, sequence: 0, ..theirs }
    );
    // A request answered by the template still counts for liveness.
    for _ in 0..20 {
        rig.pass(DELAY);
        deferred(&mut rig, true);
    }
    assert_eq!(rig.state(1), RouteState::Up);
    assert!(Arc::ptr_eq(&template, rig.engine.reply_template(PEER).unwrap()));
}

#[test]
fn a_heartbeat_with_other_reports_supersedes_every_template_reply() {
    let mut rig = Rig::up(2);
    let template = rig.engine.reply_template(PEER).unwrap().clone();
    let request = rig.heartbeat(2, &[1, 2]);
    let before = template.build_reply(1, RouteId(2), &request).unwrap().serial;
    rig.fault(1);
    rig.pass(DELAY);
    let has_fault = |(_, sent): &&(RouteId, Heartbeat)| sent.reports[0].local_down;
    let found = rig.sent.iter().find(has_fault).unwrap();
    assert!(found.1.serial > before);
    assert!(template.build_reply(1, RouteId(2), &request).is_none(), "it is revoked");
    assert!(rig.engine.reply_template(PEER).is_none());
    rig.input(EngineInput::FaultCleared { route: RouteId(1), reason: Reason::CarrierLost });
    for sequence in 5..9 {
        for route in [1, 2] {
            let heartbeat = Heartbeat { sequence, ..rig.heartbeat(route, &[1, 2]) };
            rig.input(EngineInput::Heartbeat { peer: PEER, route: RouteId(route), heartbeat });
        }
    }
    let next = rig.engine.reply_template(PEER).unwrap();
    assert!(next.build_reply(1, RouteId(2), &request).is_some());
    assert!(template.build_reply(1, RouteId(2), &request).is_none());
}

#[test]
fn a_session_that_ends_revokes_the_template() {
    let mut rig = Rig::up(1);
    let template = rig.engine.reply_template(PEER).unwrap().clone();
    let request = rig.heartbeat(1, &[1]);
    rig.input(EngineInput::SessionDown(PEER, SessionEndCause::PeerStopped));
    assert!(rig.engine.reply_template(PEER).is_none());
    assert!(template.build_reply(1, RouteId(1), &request).is_none());
}
