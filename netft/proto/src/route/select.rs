//! Which route carries data to a peer. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::{
    ids::RouteId,
    route::{params::Priority, peer_route::Route, routes::RouteMap, state::Reason},
    time::Time,
};

/// Order of preference, the same at both ends: drained routes last, browned-out ones before them,
/// then by priority, then by the unordered pair of addresses, then by the number.
pub(crate) fn route_rank(route: &Route) -> RouteRank {
    let (here, there) = (route.spec.real_local, route.spec.real_remote);
    let (low, high) = ordered_ends(here, there);
    let ends = (low.ip(), high.ip(), low.port(), high.port());
    (route.is_drained(), route.path_quality.browned_out, route.spec.priority, ends, route.id)
}

type RouteRank = (bool, bool, Priority, (IpAddr, IpAddr, u16, u16), RouteId);

fn ordered_ends(here: SocketAddr, there: SocketAddr) -> (SocketAddr, SocketAddr) {
    if (here.ip(), here.port()) <= (there.ip(), there.port()) {
        (here, there)
    } else {
        (there, here)
    }
}

/// The selected route, and why it differs from the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteChoice {
    pub(crate) route: Option<RouteId>,
    pub(crate) reason: Reason,
}

/// Selects among the routes of a peer.
///
/// Data leaves a route that is up only for a better one, not browned out, whose hold-down is over,
/// or for any that is not drained when it is: an operator's order does not wait. It leaves one that
/// is not up at once: for the best one that is (those not held down first), else for one proven in
/// this node's direction, which keeps a pair of opposite half-routes in use.
pub(crate) fn choose_route(routes: &RouteMap, active: Option<RouteId>, now: Time) -> RouteChoice {
    let up = |route: &&Route| route.is_up();
    let order =
        |route: &&Route| (route.is_drained(), !route.hold_down.is_over(now), route_rank(route));
    let best_up = routes.values().filter(up).min_by_key(order);
    let present = active.and_then(|id| routes.get(&id));
    if let Some(present) = present.filter(up) {
        let emptied = |best: &Route| present.is_drained() && !best.is_drained();
        let better = |best: &&Route| {
            let is_proven = best.hold_down.is_over(now) && !best.path_quality.browned_out;
            route_rank(best) < route_rank(present) && (is_proven || emptied(best))
        };
        return match best_up.filter(better) {
            Some(better) => {
                let reason = if emptied(better) {
                    present.drain.drain_reason()
                } else if present.path_quality.browned_out && !better.path_quality.browned_out {
                    present.path_quality.leave_reason()
                } else if better.hold_down.hold_end().is_some() {
                    Reason::Failback
                } else {
                    Reason::BetterRoute
                };
                RouteChoice { route: Some(better.id), reason }
            }
            None => RouteChoice { route: active, reason: present.derived.reason },
        };
    }
    let half = || {
        routes
            .values()
            .filter(|r| r.can_carry_data())
            .min_by_key(|r| (Some(r.id) != active, route_rank(r)))
    };
    let chosen = best_up.or_else(half);
    let reason = match (present, chosen) {
        // The half-route still works: data leaves it because a whole one came up.
        (Some(present), Some(chosen))
            if present.can_carry_data() && chosen.derived.since > present.derived.since =>
        {
            Reason::BetterRoute
        }
        (Some(present), _) => present.derived.loss_reason,
        (None, Some(chosen)) if active.is_none() => chosen.derived.reason,
        (None, _) => Reason::Removed,
    };
    RouteChoice { route: chosen.map(|route| route.id), reason }
}

/// When the hold-down of a preferred route ends: the next failback.
pub(crate) fn next_failback(routes: &RouteMap, active: Option<RouteId>) -> Option<Time> {
    let present = routes.get(&active?)?;
    routes
        .values()
        .filter(|route| route.is_up() && route_rank(route) < route_rank(present))
        .filter_map(|route| route.hold_down.hold_end())
        .min()
}
