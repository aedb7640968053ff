//! Brown-outs among the routes of a peer: data leaves a route that is clearly worse than another,
//! and may return once the route is as good again.

use std::time::Duration;

use crate::{
    ids::RouteId,
    route::{peer_route::Route, routes::RouteMap, select::route_rank},
    time::Time,
};

/// Updates the brown-outs from the measurements, before a route is selected.
pub(crate) fn update_brown_outs(
    routes: &mut RouteMap,
    active: Option<RouteId>,
    hold: Duration,
    now: Time,
) {
    clear_brown_outs(routes, active, hold, now);
    if let Some(better) = better_than_active(routes, active, now) {
        mark_browned_out(routes, active, better, now);
    }
}

/// Starts the hold-down of routes that are as good as the active one again.
fn clear_brown_outs(routes: &mut RouteMap, active: Option<RouteId>, hold: Duration, now: Time) {
    if !routes.values().any(|route| route.path_quality.browned_out) {
        return;
    }
    let active = active.and_then(|id| routes.get(&id)).filter(|route| route.is_up());
    let active = active.map(|route| (route.id, route.path_quality));
    for route in routes.values_mut().filter(|r| r.path_quality.browned_out && r.is_up()) {
        let other = active.as_ref().filter(|(id, _)| *id != route.id);
        if route.path_quality.is_as_good_as(other.map(|(_, quality)| quality), now) {
            route.hold_down.on_up(now, hold);
            route.path_quality.browned_out = !route.hold_down.is_over(now);
        } else {
            route.hold_down.restart_hold();
        }
    }
}

/// The best route that is clearly better than the active one.
fn better_than_active(routes: &RouteMap, active: Option<RouteId>, now: Time) -> Option<RouteId> {
    let active = routes.get(&active?).filter(|route| route.is_up())?;
    let others = routes.values().filter(|route| {
        let fit = route.id != active.id && route.is_up() && route.hold_down.is_over(now);
        let convicted = route.path_quality.data.convicted_permille().is_some();
        fit && !convicted
            && (!route.is_drained() || active.is_drained())
            && is_worse_than(active, route, now)
    });
    others.min_by_key(|route| route_rank(route)).map(|route| route.id)
}

/// Marks the active route, and every other one that is worse than `better`, so that data does not
/// move to one that is as bad.
fn mark_browned_out(routes: &mut RouteMap, active: Option<RouteId>, better: RouteId, now: Time) {
    let Some(best) = routes.get(&better).cloned() else { return };
    for route in routes.values_mut().filter(|route| route.is_up()) {
        if route.id == better {
            route.path_quality.browned_out = false;
        } else if !route.path_quality.browned_out && is_worse_than(route, &best, now) {
            route.path_quality.browned_out = true;
            if Some(route.id) == active {
                route.hold_down.on_lost(now);
            } else {
                route.hold_down.restart_hold();
            }
        }
    }
}

fn is_worse_than(route: &Route, other: &Route, now: Time) -> bool {
    let jitters = [route, other].map(|route| route.stats.requests.jitter());
    let jitter = jitters[0].max(jitters[1]).unwrap_or_default();
    route.path_quality.is_worse_than(&other.path_quality, now, route.delay(), jitter)
}
