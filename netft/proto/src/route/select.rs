//! Which route carries data to a peer. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::{
    ids::RouteId,
    route::{
        event::Reason, params::Priority, route_fsm::Route, routes::RouteMap, status::RouteState,
    },
    time::Time,
};

/// Order of preference, the same at both ends: drained routes last, browned-out ones before them,
/// then by priority, then by the pair of ends whatever side they are seen from, then by the number.
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

/// The choice, and why it differs from the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteChoice {
    pub(crate) route: Option<RouteId>,
    pub(crate) reason: Reason,
}

/// Chooses among a peer's routes.
///
/// A route that works is left only for a better one whose hold time is over, and a drained one for
/// any that is not: an operator's order does not wait. A route that does not work is left at once:
/// for the best one that is up (those not held first), else for one proven in our direction, which
/// keeps a pair of opposite half-routes alive.
pub(crate) fn choose_route(routes: &RouteMap, active: Option<RouteId>, now: Time) -> RouteChoice {
    let up = |route: &&Route| route.state == RouteState::Up;
    let order =
        |route: &&Route| (route.is_drained(), !route.hold_down.is_over(now), route_rank(route));
    let best_up = routes.values().filter(up).min_by_key(order);
    let present = active.and_then(|id| routes.get(&id));
    if let Some(present) = present.filter(up) {
        let emptied = |best: &Route| present.is_drained() && !best.is_drained();
        let better = |best: &&Route| {
            route_rank(best) < route_rank(present) && (best.hold_down.is_over(now) || emptied(best))
        };
        return match best_up.filter(better) {
            Some(better) => {
                let reason = if emptied(better) {
                    present.drain_reason()
                } else if present.path_quality.browned_out && !better.path_quality.browned_out {
                    Reason::BrownOut
                } else if better.hold_down.hold_end().is_some() {
                    Reason::Failback
                } else {
                    Reason::BetterRoute
                };
                RouteChoice { route: Some(better.id), reason }
            }
            None => RouteChoice { route: active, reason: present.reason },
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
        // A half-route that still works is left because a whole one came up.
        (Some(present), Some(chosen))
            if present.can_carry_data() && chosen.last_change > present.last_change =>
        {
            Reason::BetterRoute
        }
        (Some(present), _) => present.loss_reason,
        (None, Some(chosen)) if active.is_none() => chosen.reason,
        (None, _) => Reason::Removed,
    };
    RouteChoice { route: chosen.map(|route| route.id), reason }
}

/// When a held route may take over, if that is what is waited for.
pub(crate) fn next_failback(routes: &RouteMap, active: Option<RouteId>) -> Option<Time> {
    let present = routes.get(&active?)?;
    routes
        .values()
        .filter(|route| route.state == RouteState::Up && route_rank(route) < route_rank(present))
        .filter_map(|route| route.hold_down.hold_end())
        .min()
}
