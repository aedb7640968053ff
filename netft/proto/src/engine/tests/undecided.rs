//! Comparisons of routes by data that have no evidence (F-40).

use super::*;
use crate::engine::RouteTally;

/// Two routes, of which the active one loses a tenth of its data.
fn losing_pair() -> Rig {
    let mut rig = Rig::up(2);
    for _ in 0..4 {
        rig.pass(Duration::from_millis(20));
        rig.hear_all(2);
        rig.input(EngineInput::DataLoss { route: RouteId(1), permille: 100 });
    }
    assert_eq!(rig.active(), Some(1));
    assert_eq!(compared(&rig), [(PEER, RouteId(2))]);
    rig
}

fn compared(rig: &Rig) -> Vec<(PeerId, RouteId)> {
    rig.engine.compared_routes(rig.now + Duration::from_secs(60))
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
    for step in 0..250 {
        rig.pass(Duration::from_millis(2));
        rig.hear_all(2);
        if compared(&rig).is_empty() {
            break;
        }
        let tally = RouteTally { sent: 100 * step, arrived: 0 };
        rig.input(EngineInput::Tally { route: RouteId(2), tally });
    }
    assert_eq!(compared(&rig), []);
    assert_eq!((rig.active(), rig.moves()), (Some(1), Vec::new()));
    assert!(rig.status(2).quality.data_loss < 0.001, "{:?}", rig.status(2));
}
