//! Comparisons of routes by data that have no evidence, or of others than the active one (F-40).

use super::*;
use crate::{
    engine::RouteTally,
    loss_detection::{DataLoss, DeliveryCounts, LossShare},
    route::{peer_route::Route, routes::RouteMap, select::choose_route},
};

fn data_loss(route: u32, permille: u16) -> EngineInput {
    let share = LossShare { permille, burst: 1 };
    EngineInput::DataLoss(DataLoss { route: RouteId(route), share })
}

/// Two routes, of which the active one loses a tenth of its data.
fn losing_pair() -> Rig {
    let mut rig = Rig::up(2);
    for _ in 0..4 {
        rig.pass(Duration::from_millis(20));
        rig.hear_all(2);
        rig.input(data_loss(1, 100));
    }
    assert_eq!(rig.active(), Some(1));
    assert_eq!(compared(&rig), [(PEER, RouteId(2))]);
    rig
}

/// F-10 and other changes: each of these explains what a route lost before.
#[test]
fn a_change_that_explains_losses_voids_the_evidence() {
    let limit = |route: u32, datagram: usize| {
        let route = RouteId(route);
        EngineInput::DatagramLimit { route, datagram, transport_overhead: 0 }
    };
    let remote = "10.9.9.9:3343".parse().unwrap();
    let fault = |route| EngineInput::Fault { route, reason: Reason::CarrierLost };
    for route in [1, 2] {
        let id = RouteId(route);
        let changes = [
            limit(route, 1400),
            EngineInput::SegmentationChanged(id),
            EngineInput::RemoteLearned { route: id, remote },
            EngineInput::ReplaceSpec {
                id,
                spec: RouteSpec { transport: Transport::Quic, ..spec(PEER, route) },
            },
            fault(id),
        ];
        for change in changes {
            let mut rig = losing_pair();
            [1, 2].into_iter().for_each(|route| rig.input(limit(route, 1472)));
            let voided = format!("{change:?}");
            let epoch = rig.engine.loss_epoch(id);
            rig.input(change);
            assert_ne!(rig.engine.loss_epoch(id), epoch, "{voided}");
            for _ in 0..5 {
                rig.pass(Duration::from_millis(1));
            }
            assert_eq!(compared(&rig), [], "{voided}");
            // Evidence of the active route counts anew.
            rig.input(data_loss(1, 100));
            let again = if route == 1 { vec![] } else { vec![(PEER, RouteId(2))] };
            let is_fault = voided.starts_with("Fault");
            assert_eq!(compared(&rig), if is_fault { vec![] } else { again }, "{voided}");
        }
    }
}

/// A larger size proves nothing about losses.
#[test]
fn a_path_mtu_that_rises_voids_nothing() {
    let mut rig = losing_pair();
    let epoch = rig.engine.loss_epoch(RouteId(1));
    for datagram in [1400, 1472] {
        rig.input(EngineInput::DatagramLimit {
            route: RouteId(1),
            datagram,
            transport_overhead: 0,
        });
    }
    assert_eq!(rig.engine.loss_epoch(RouteId(1)), epoch);
    assert_eq!(compared(&rig), [(PEER, RouteId(2))]);
}

fn compared(rig: &Rig) -> Vec<(PeerId, RouteId)> {
    let counted = rig.engine.counted_routes(rig.now + Duration::from_secs(60));
    counted.into_iter().filter(|(_, route)| Some(route.0) != rig.active()).collect()
}

#[test]
fn a_comparison_without_data_ends() {
    let mut rig = losing_pair();
    for _ in 0..250 {
        rig.pass(Duration::from_millis(20));
        rig.hear_all(2);
    }
    assert_eq!(compared(&rig), []);
    assert_eq!((rig.active(), rig.moves()), (Some(1), Vec::new()));
}

#[test]
fn a_route_whose_data_the_peer_does_not_count_is_not_lossy() {
    let mut rig = losing_pair();
    let mut tally = RouteTally::default();
    for _ in 0..250 {
        rig.pass(Duration::from_millis(2));
        rig.hear_all(2);
        if compared(&rig).is_empty() {
            break;
        }
        if rig.engine.forwarding(PEER).unwrap().duplicate == Some(RouteId(2)) {
            tally.sent += 100;
        }
        rig.input(EngineInput::Tally { route: RouteId(2), tally });
    }
    assert_eq!(compared(&rig), []);
    assert_eq!((rig.active(), rig.moves()), (Some(1), Vec::new()));
    assert!(rig.status(2).quality.data_loss < 0.001, "{:?}", rig.status(2));
}

/// Route 2, over which flows are balanced as well, loses a tenth of its data.
fn losing_member() -> Rig {
    let mut rig = Rig::up(2);
    let balanced = |rig: &Rig| rig.engine.forwarding(PEER).unwrap().balance_set.clone();
    // A new route is held back at first.
    for _ in 0..100 {
        rig.pass(Duration::from_millis(20));
        rig.hear_all(2);
    }
    assert_eq!(balanced(&rig), [RouteId(1), RouteId(2)]);
    for _ in 0..4 {
        rig.pass(Duration::from_millis(20));
        rig.hear_all(2);
        assert_eq!(balanced(&rig), [RouteId(1), RouteId(2)]);
        rig.input(data_loss(2, 100));
    }
    assert_eq!(balanced(&rig), [RouteId(1)], "its data leaves at once");
    rig
}

/// Copies of the active route's data on route 2, of which `lost` in ten are lost, for four seconds.
/// Returns when route 2 carries balanced flows again.
fn copy_data(rig: &mut Rig, lost: u64) -> Option<Time> {
    let counts = |arrived| DeliveryCounts { acknowledged: arrived, arrived };
    let mut tally = RouteTally { sent: 100, counts: counts(90) };
    let mut back = None;
    for _ in 0..2000 {
        rig.pass(Duration::from_millis(2));
        rig.hear_all(2);
        let row = rig.engine.forwarding(PEER).unwrap().clone();
        if row.duplicate == Some(RouteId(2)) {
            let arrived = tally.counts.arrived + 10 - lost;
            tally = RouteTally { sent: tally.sent + 10, counts: counts(arrived) };
        }
        if compared(rig) == [(PEER, RouteId(2))] {
            rig.input(EngineInput::Tally { route: RouteId(2), tally });
        }
        if row.balance_set.contains(&RouteId(2)) {
            back = back.or(Some(rig.now));
        }
    }
    back
}

#[test]
fn balanced_flows_leave_a_route_that_loses_data_and_return_once_it_is_acquitted() {
    let mut rig = losing_member();
    let start = rig.now;
    let back = copy_data(&mut rig, 0).expect("acquitted");
    assert!(back.since(start) >= Duration::from_secs(1), "after the copies");
    assert_eq!(rig.moves(), Vec::new(), "data of the active route stays");
}

#[test]
fn a_route_that_loses_the_copies_too_stays_out_of_the_balance_set() {
    let mut rig = losing_member();
    assert_eq!(copy_data(&mut rig, 1), None);
    assert_eq!(rig.active(), Some(1));
    let quality = rig.status(2).quality;
    assert!(quality.data_loss >= 0.05, "{quality:?}");
}

#[test]
fn a_route_that_loses_no_more_than_the_active_one_stays() {
    let mut rig = Rig::up(2);
    for _ in 0..100 {
        rig.pass(Duration::from_millis(20));
        rig.hear_all(2);
    }
    for _ in 0..20 {
        rig.pass(Duration::from_millis(20));
        rig.hear_all(2);
        for route in [1, 2] {
            rig.input(data_loss(route, 30));
        }
    }
    let row = rig.engine.forwarding(PEER).unwrap();
    assert_eq!(row.balance_set, [RouteId(1), RouteId(2)]);
}

/// Soon after a void the loss of the active route is unknown, and proves the other one no worse.
#[test]
fn a_void_of_the_active_route_proves_it_no_better() {
    let mut rig = Rig::up(2);
    let balanced = |rig: &Rig| rig.engine.forwarding(PEER).unwrap().balance_set.clone();
    let lose = |rig: &mut Rig, routes: &[u32], rounds: u32| {
        for _ in 0..rounds {
            rig.pass(Duration::from_millis(20));
            rig.hear_all(2);
            routes.iter().for_each(|route| rig.input(data_loss(*route, 30)));
        }
    };
    lose(&mut rig, &[], 100);
    lose(&mut rig, &[1, 2], 20);
    assert_eq!(balanced(&rig), [RouteId(1), RouteId(2)], "they lose alike");
    rig.input(EngineInput::SegmentationChanged(RouteId(1)));
    lose(&mut rig, &[2], 40);
    assert_eq!(balanced(&rig), [RouteId(1), RouteId(2)], "0.8 s prove nothing");
    lose(&mut rig, &[2], 20);
    assert_eq!(balanced(&rig), [RouteId(1)], "a second without loss does");
}

/// A route goes down and comes up at once.
fn flap(rig: &mut Rig, route: u32) {
    rig.pass(Duration::from_millis(10));
    rig.fault(route);
    let cleared = EngineInput::FaultCleared { route: RouteId(route), reason: Reason::CarrierLost };
    rig.input(cleared);
    (0..2).for_each(|_| rig.hear_all(2));
    assert_eq!(rig.state(route), RouteState::Up);
}

/// Without a hold-down nothing else keeps it from being compared, and from carrying copies, again.
#[test]
fn a_candidate_that_flaps_rests() {
    let mut rig = losing_pair();
    let mtu_raise = HOLD;
    rig.input(EngineInput::Configure { hold: Duration::ZERO, history: 4, mtu_raise });
    for rest in [1000, 2000] {
        flap(&mut rig, 2);
        let again = (20..10_000).step_by(20).find(|_| {
            rig.pass(Duration::from_millis(20));
            rig.hear_all(2);
            rig.input(data_loss(1, 100));
            !compared(&rig).is_empty()
        });
        let again = again.expect("compared again");
        assert!((rest..=rest + 40).contains(&again), "{again} ms after the flap, rest {rest} ms");
    }
}

#[test]
fn a_convicted_route_that_flaps_is_compared_later() {
    let mut rig = losing_member();
    rig.pass(Duration::from_millis(20));
    assert_eq!(compared(&rig), [(PEER, RouteId(2))]);
    flap(&mut rig, 2);
    for ms in (20..9000).step_by(20) {
        rig.pass(Duration::from_millis(20));
        rig.hear_all(2);
        // A return looks at its routes every 250 ms.
        assert!(ms <= 300 || compared(&rig).is_empty(), "{ms} ms after the flap");
    }
}

/// Data left routes 2 and 3 for what they lose, and route 1 is held down after a loss.
#[test]
fn data_does_not_go_back_for_its_rank_to_a_route_that_it_left() {
    let now = Time::from_millis(5000);
    let mut routes = RouteMap::default();
    for number in 1..=3 {
        let mut route = Route::new(RouteId(number), spec(PEER, number), now, 0);
        route.derived.state = RouteState::Up;
        route.path_quality.browned_out = number > 1;
        if number == 1 {
            route.hold_down.on_lost(now);
            route.hold_down.on_up(now, HOLD);
        }
        routes.insert(route);
    }
    let chosen = |at| choose_route(&routes, Some(RouteId(3)), at).route;
    assert_eq!(chosen(now), Some(RouteId(3)));
    assert_eq!(chosen(now + HOLD), Some(RouteId(1)));
}
