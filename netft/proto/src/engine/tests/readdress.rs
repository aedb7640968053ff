//! Routes with another remote address, learned by path validation.

use std::net::SocketAddr;

use super::*;

#[test]
fn a_route_leads_elsewhere_and_loses_nothing_it_knows() {
    let mut rig = Rig::up(2);
    let (before, to): (_, SocketAddr) = (rig.status(1), ([192, 0, 2, 9], 41_000).into());
    rig.input(EngineInput::RemoteLearned { route: RouteId(1), remote: to });
    let after = rig.status(1);
    assert_eq!(after.spec.real_remote, to);
    assert_ne!(after.spec.attributes.0 & Attributes::LEARNED, 0);
    assert_eq!(
        (after.state, after.active, after.hold_down.flaps),
        (RouteState::Up, before.active, 0)
    );
    let from = Some(before.spec.real_remote);
    let expected = EventKind::AddressLearned { route: RouteId(1), peer: PEER, from, to };
    assert_eq!(rig.events, [expected]);
    // The peer has received nothing since its address changed: a heartbeat leaves at once.
    rig.forget();
    rig.pass(Duration::ZERO);
    assert!(rig.sent.iter().any(|(route, _)| *route == RouteId(1)), "{:?}", rig.sent);
    rig.forget();
    let mut adopted = spec(PEER, 3);
    adopted.attributes.0 |= Attributes::LEARNED;
    let at = adopted.real_remote;
    rig.input(EngineInput::AddRoute { id: RouteId(3), spec: adopted });
    let new = EventKind::AddressLearned { route: RouteId(3), peer: PEER, from: None, to: at };
    assert_eq!(rig.events.get(1), Some(&new));
    rig.forget();
    rig.input(EngineInput::RemoteLearned { route: RouteId(7), remote: to });
    assert_eq!(rig.events, [], "there is no such route");
}
