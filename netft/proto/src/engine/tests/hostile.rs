//! Authentic heartbeats with absurd contents: a peer can only harm itself.

use super::*;
use crate::wire::heartbeat::MAX_REPORTS;

fn refused(rig: &mut Rig, on: u32, heartbeat: Heartbeat) -> Option<DropReason> {
    rig.try_input(EngineInput::Heartbeat { peer: PEER, route: RouteId(on), heartbeat }).err()
}

#[test]
fn a_heartbeat_cannot_speak_for_another_route() {
    let mut rig = Rig::up(2);
    rig.pass(DELAY);
    let before = rig.status(2).last_change;
    let heartbeat = rig.heartbeat(1, &[]);
    assert_eq!(refused(&mut rig, 2, heartbeat), Some(DropReason::Misrouted));
    assert!(rig.status(1).tx, "its reports are ignored");
    // It extended no deadline: route 2 was heard a delay ago.
    rig.pass(DETECTION - DELAY);
    assert_eq!(rig.state(2), RouteState::Down);
    assert!(rig.status(2).last_change > before);
}

#[test]
fn a_heartbeat_on_a_route_of_another_peer_or_none_is_misrouted() {
    let mut rig = Rig::up(1);
    rig.input(EngineInput::AddPeer(PeerId(1)));
    rig.input(EngineInput::AddRoute { id: RouteId(50), spec: spec(PeerId(1), 50) });
    for on in [50, 77] {
        let mut heartbeat = rig.heartbeat(1, &[1]);
        heartbeat.your_route = 0;
        assert_eq!(refused(&mut rig, on, heartbeat), Some(DropReason::Misrouted));
    }
    rig.input(EngineInput::SessionDown(PEER, SessionEndCause::PeerStopped));
    let heartbeat = rig.heartbeat(1, &[1]);
    assert_eq!(refused(&mut rig, 1, heartbeat), Some(DropReason::NoSession));
}

#[test]
fn only_the_newest_report_counts_across_the_wrap() {
    let mut rig = Rig::up(1);
    let mut report = |serial: u32, heard: bool| {
        let mut heartbeat = rig.heartbeat(1, &[1]);
        heartbeat.serial = serial;
        heartbeat.reports[0].heard = heard;
        assert_eq!(refused(&mut rig, 1, heartbeat), None);
        rig.status(1).tx
    };
    assert!(report(u32::MAX / 2, true));
    assert!(report(u32::MAX - 1, true));
    assert!(report(u32::MAX - 1, false), "the same serial");
    assert!(report(u32::MAX - 7, false), "an older one");
    assert!(!report(1, false), "a newer one, after the wrap");
    assert!(!report(u32::MAX, true), "an older one, before the wrap");
    assert!(!report(1 + (1 << 31), true), "neither newer nor older");
    assert!(report(2, true));
}

#[test]
fn absurd_numbers_neither_panic_nor_change_what_is_known() {
    let mut rig = Rig::up(2);
    let rtt = rig.status(1).quality.rtt;
    let absurd = [0, 1, u32::MAX / 2, u32::MAX];
    for (n, sequence) in absurd.into_iter().enumerate() {
        for sent_at in [u64::MAX, u64::MAX / 2, rig.now.as_nanos() + 1] {
            for message in [HeartbeatMessage::Request, HeartbeatMessage::Reply] {
                let mut heartbeat = rig.heartbeat(1, &[1, 2]);
                heartbeat.message = message;
                heartbeat.sequence = sequence;
                heartbeat.sent_at = sent_at;
                heartbeat.held_us = if message == HeartbeatMessage::Reply { absurd[n] } else { 0 };
                heartbeat.stalled_ms = u16::MAX;
                rig.forget();
                assert_eq!(refused(&mut rig, 1, heartbeat), None);
                let replies = rig.sent.len();
                assert_eq!(replies, usize::from(message == HeartbeatMessage::Request));
                // A request is echoed as it came.
                assert!(
                    rig.sent.iter().all(|(_, h)| (h.sequence, h.sent_at) == (sequence, sent_at))
                );
            }
        }
    }
    assert_eq!(rig.status(1).quality.rtt, rtt);
    assert_eq!([rig.state(1), rig.state(2)], [RouteState::Up; 2]);
}

#[test]
fn reports_on_other_peers_routes_and_unknown_ones_are_ignored() {
    let mut rig = Rig::up(1);
    let other = PeerId(1);
    rig.input(EngineInput::AddPeer(other));
    rig.input(EngineInput::AddRoute { id: RouteId(50), spec: spec(other, 50) });
    rig.input(EngineInput::SessionUp { peer: other, boot_id: 3 });
    rig.hear(1, &[1, 50, 0, u32::MAX]);
    assert!(!rig.status(50).tx && !rig.status(50).rx);
    assert_eq!(rig.engine.peer_statuses()[1].active, None);
    assert_eq!(rig.state(1), RouteState::Up);
}

#[test]
fn a_full_list_of_verdicts_leaves_out_what_it_has_no_room_for() {
    let mut rig = Rig::up(2);
    let many: Vec<u32> = (100..100 + MAX_REPORTS as u32).collect();
    rig.hear(1, &many);
    assert!(rig.status(1).tx && rig.status(2).tx);
    rig.hear(1, &many[1..]);
    assert!(!rig.status(1).tx && !rig.status(2).tx, "a list with room left is complete");
}

#[test]
fn the_last_of_two_verdicts_on_one_route_counts() {
    let mut rig = Rig::up(1);
    let mut heartbeat = rig.heartbeat(1, &[1, 1]);
    heartbeat.reports[0].heard = false;
    rig.forget();
    assert_eq!(refused(&mut rig, 1, heartbeat), None);
    assert!(rig.events.is_empty() && rig.status(1).tx);
}

#[test]
fn a_peer_that_changes_its_number_every_time_is_called_by_the_last() {
    let mut rig = Rig::up(1);
    for number in [1, 2, u32::MAX] {
        let mut heartbeat = rig.heartbeat(1, &[1]);
        heartbeat.route = number;
        rig.forget();
        assert_eq!(refused(&mut rig, 1, heartbeat), None);
        let (_, reply) = &rig.sent[0];
        assert_eq!(reply.your_route, number);
        assert_eq!(reply.reports.len(), 1);
        assert_eq!(reply.reports[0].your_route, number);
    }
}

#[test]
fn a_flood_of_requests_makes_one_reply_each_and_nothing_else() {
    let mut rig = Rig::up(2);
    rig.pass(Duration::ZERO);
    rig.forget();
    (0..1000).for_each(|_| rig.hear(1, &[1, 2]));
    assert_eq!(rig.sent.len(), 1000);
    assert!(rig.sent.iter().all(|(route, h)| route.0 == 1 && h.message == HeartbeatMessage::Reply));
    assert!(rig.events.is_empty());
}
