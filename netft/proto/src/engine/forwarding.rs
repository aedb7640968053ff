//! A peer's row of the forwarding table.

use crate::{
    engine::peer::Peer,
    ids::RouteId,
    route::{forwarding::PeerForwarding, peer_route::Route, select::route_rank, state::RouteState},
    time::Time,
};

/// Builds the row: the route that carries data, the one that duplicates it while that is suspect,
/// the backups for retransmission, and the candidates for handshakes.
pub(crate) fn forwarding_row(peer: &Peer) -> PeerForwarding {
    let usable = peer.routes.values().filter(|r| r.can_carry_control() && !r.admin_down);
    let mut candidates: Vec<&Route> = usable.collect();
    candidates.sort_by_key(|route| (state_preference(route), route_rank(route)));
    let ids_of = |wanted: &dyn Fn(&Route) -> bool| -> Vec<RouteId> {
        candidates.iter().filter(|route| wanted(route)).map(|route| route.id).collect()
    };
    let backups = ids_of(&|route| route.is_up() && Some(route.id) != peer.active);
    let active = peer.active.and_then(|id| peer.routes.get(&id));
    let is_suspect = active.is_some_and(|route| route.suspicion.is_suspect());
    let suspects = ids_of(&|route| route.is_up() && route.suspicion.is_suspect());
    // Two routes may die together.
    let duplicate = backups.iter().find(|id| !suspects.contains(id)).or(backups.first()).copied();
    PeerForwarding {
        peer: peer.id,
        active: peer.active,
        duplicate: duplicate
            .filter(|_| is_suspect)
            .or_else(|| peer.comparison.copy_route(peer.active)),
        balance_set: ids_of(&|route| is_in_balance_set(route, peer.reevaluated_at)),
        suspects,
        candidates: ids_of(&|_| true),
        backups,
    }
}

/// Returns whether flows may be balanced over the route.
pub(crate) fn is_in_balance_set(route: &Route, now: Time) -> bool {
    route.is_up()
        && route.hold_down.is_over(now)
        && !route.is_drained()
        && !route.path_quality.browned_out
}

fn state_preference(route: &Route) -> u8 {
    match route.state() {
        RouteState::Up => 0,
        RouteState::Init => 1,
        RouteState::Down | RouteState::AdminDown => 2,
    }
}
