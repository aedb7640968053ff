#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    ids::{PeerId, RouteId},
    route::{
        params::{Attributes, Priority, RouteClass, Timing, Transport},
        peer_route::Route,
        report::RemoteReport,
        spec::RouteSpec,
    },
};

const ORIGIN: Time = Time::from_millis(1000);

fn spec() -> RouteSpec {
    let here = ([10, 0, 0, 1], 3343).into();
    RouteSpec {
        peer: PeerId(0),
        real_local: here,
        real_remote: ([10, 0, 0, 2], 3343).into(),
        virtual_local: here.ip(),
        virtual_remote: here.ip(),
        timing: RouteClass::SameSubnet.default_timing(),
        priority: Priority(10),
        attributes: Attributes(Attributes::SAME_SUBNET),
        transport: Transport::Udp,
    }
}

fn route() -> Route {
    Route::new(RouteId(1), spec(), ORIGIN, 0)
}

fn detection_timeout(route: &mut Route) {
    route.liveness.on_detection_timeout(route.spec.timing);
}

/// A route in the state that follows from four facts.
fn in_state(rx: bool, tx: bool, fault: bool, admin: bool) -> Route {
    let mut route = route();
    if rx {
        route.on_heartbeat((ORIGIN, ORIGIN), 1);
    }
    if fault {
        route.add_fault(Reason::CarrierLost);
    }
    route.admin_down = admin;
    route.update_state(ORIGIN, tx);
    route
}

fn every_state() -> impl Iterator<Item = Route> {
    (0..16).map(|bits| in_state(bits & 1 > 0, bits & 2 > 0, bits & 4 > 0, bits & 8 > 0))
}

#[test]
fn the_state_follows_from_rx_tx_fault_and_admin() {
    use RouteState::{AdminDown, Down, Init, Up};
    let table = [
        // rx, tx, fault, admin
        ((false, false, false, false), Down),
        ((true, false, false, false), Init),
        ((false, true, false, false), Init),
        ((true, true, false, false), Up),
    ];
    for ((rx, tx, ..), whole) in table {
        assert_eq!(in_state(rx, tx, false, false).state(), whole, "rx {rx} tx {tx}");
        assert_eq!(in_state(rx, tx, true, false).state(), Down, "rx {rx} tx {tx} fault");
        for fault in [false, true] {
            assert_eq!(in_state(rx, tx, fault, true).state(), AdminDown, "rx {rx} tx {tx} admin");
        }
    }
}

#[test]
fn every_input_in_every_state_leaves_a_state_that_fits_what_is_proven() {
    type Change = fn(&mut Route);
    let inputs: [(&str, Change); 10] = [
        ("hear", |route| {
            route.on_heartbeat((ORIGIN, ORIGIN), 7);
        }),
        ("miss", detection_timeout),
        ("fault", |route| {
            route.add_fault(Reason::AddressGone);
        }),
        ("same fault", |route| {
            route.add_fault(Reason::CarrierLost);
        }),
        ("clear", |route| {
            route.clear_fault(Reason::CarrierLost);
        }),
        ("clear another", |route| {
            route.clear_fault(Reason::SendError);
        }),
        ("reset", |route| route.reset_session(Reason::NewSession)),
        ("admin down", |route| route.admin_down = true),
        ("admin up", |route| route.admin_down = false),
        ("retime", |route| route.set_timing(ORIGIN, Timing::WINDOWS_PROFILE)),
    ];
    for before in every_state() {
        for (name, change) in inputs {
            for tx in [false, true] {
                let mut route = before.clone();
                change(&mut route);
                let from = route.update_state(ORIGIN, tx);
                let context = format!("{name} in {}: {route:?}", before.state());
                assert_eq!(
                    from,
                    (before.state() != route.state()).then_some(before.state()),
                    "{context}"
                );
                assert_eq!(route.state() == RouteState::AdminDown, route.admin_down, "{context}");
                let up = route.liveness.rx
                    && route.derived.tx
                    && !route.has_fault()
                    && !route.admin_down;
                assert_eq!(route.state() == RouteState::Up, up, "{context}");
                assert!(
                    !route.has_fault()
                        || (!route.liveness.rx && !route.derived.tx && !route.can_carry_data()),
                    "{context}"
                );
                // A deadline exists exactly while heartbeats are received.
                assert_eq!(route.liveness.deadline.is_some(), route.liveness.rx, "{context}");
                assert_eq!(route.update_state(ORIGIN, tx), None, "updated twice: {context}");
            }
        }
    }
}

#[test]
fn a_change_has_the_lost_or_gained_direction_as_its_reason() {
    let mut route = route();
    let mut next = |change: fn(&mut Route), tx| {
        change(&mut route);
        route.update_state(ORIGIN, tx).map(|_| (route.state(), route.derived.reason))
    };
    use RouteState::{AdminDown, Down, Init, Up};
    fn report(route: &mut Route, heard: bool, local_down: bool, admin_down: bool) {
        route.remote.route = 9;
        route.remote.report =
            Some(RemoteReport { heard, local_down, admin_down, ..RemoteReport::default() });
    }
    let hear: fn(&mut Route) = |route| {
        route.on_heartbeat((ORIGIN, ORIGIN), route.liveness.consecutive_heard.into());
    };
    assert_eq!(next(hear, false), Some((Init, Reason::Heard)));
    assert_eq!(next(|route| report(route, true, false, false), true), Some((Up, Reason::BothWays)));
    assert_eq!(next(detection_timeout, true), Some((Init, Reason::HeartbeatsMissed)));
    assert_eq!(next(|_| {}, false), Some((Down, Reason::HeardNowhere)));
    assert_eq!(next(|_| {}, true), Some((Init, Reason::PeerHears)));
    assert_eq!(next(|route| report(route, false, false, false), false).unwrap().1, {
        Reason::PeerDoesNotHear
    });
    assert_eq!(next(hear, false), None, "once is not enough after a loss");
    assert_eq!(next(hear, true), Some((Up, Reason::BothWays)));
    let peer_down: fn(&mut Route) = |route| report(route, false, true, false);
    assert_eq!(next(peer_down, false), Some((Init, Reason::PeerLocalDown)));
    assert_eq!(next(|route| report(route, true, false, false), true).unwrap().0, Up);
    let peer_admin: fn(&mut Route) = |route| report(route, true, false, true);
    assert_eq!(next(peer_admin, false), Some((Init, Reason::PeerAdmin)));
    assert_eq!(next(|route| route.remote.report = None, true).unwrap().0, Up);
    assert_eq!(next(|_| {}, false), Some((Init, Reason::PeerDoesNotHear)), "left out of the list");
    assert_eq!(next(|route| route.admin_down = true, true), Some((AdminDown, Reason::Admin)));
    assert_eq!(next(|route| route.admin_down = false, true), Some((Up, Reason::BothWays)));
    let fault: fn(&mut Route) = |route| {
        route.add_fault(Reason::CarrierLost);
    };
    assert_eq!(next(fault, true), Some((Down, Reason::CarrierLost)));
    assert_eq!(
        next(
            |route| {
                route.clear_fault(Reason::CarrierLost);
            },
            false
        ),
        None
    );
    assert_eq!(next(hear, false), None);
    assert_eq!(next(hear, true), Some((Up, Reason::BothWays)));
    let reset: fn(&mut Route) = |route| route.reset_session(Reason::SessionLost);
    assert_eq!(next(reset, false), Some((Down, Reason::SessionLost)));
}

#[test]
fn a_half_route_that_loses_its_only_direction_while_it_gains_the_other_knows_why_it_was_left() {
    let mut route = in_state(false, true, false, false);
    route.remote.route = 9;
    route.remote.report = Some(RemoteReport { local_down: true, ..RemoteReport::default() });
    route.on_heartbeat((ORIGIN, ORIGIN), 1);
    assert_eq!(route.update_state(ORIGIN, false), None, "init before and after");
    assert_eq!(route.derived.loss_reason, Reason::PeerLocalDown);
}

#[test]
fn several_faults_hold_at_once() {
    let mut route = route();
    route.add_fault(Reason::CarrierLost);
    route.add_fault(Reason::AddressGone);
    route.add_fault(Reason::CarrierLost);
    assert!(!route.clear_fault(Reason::SendError));
    assert!(!route.clear_fault(Reason::CarrierLost));
    assert!(route.has_fault());
    assert!(route.clear_fault(Reason::AddressGone));
    assert!(!route.clear_fault(Reason::AddressGone), "over already");
}
