//! Brown-outs of a peer's routes: which one is left for it, and which ones are good again.

use std::time::Duration;

use crate::{
    engine::{EngineContext, peer::Peer},
    ids::RouteId,
    route::{route_fsm::Route, select::route_rank, status::RouteState},
    time::Time,
};

impl Peer {
    /// Takes in what is measured, before a route is chosen.
    pub(crate) fn judge_path_quality(&mut self, context: &EngineContext, now: Time) {
        self.clear_brown_outs(context.config.hold, now);
        if let Some(better) = self.better_than_active(now) {
            self.mark_browned_out(better, now);
        }
    }

    /// Routes that are as good as the active one again may be used after their hold.
    fn clear_brown_outs(&mut self, hold: Duration, now: Time) {
        if !self.routes.values().any(|route| route.path_quality.browned_out) {
            return;
        }
        let active = self.active.and_then(|id| self.routes.get(&id)).filter(|route| is_up(route));
        let active = active.map(|route| (route.id, route.path_quality));
        for route in self.routes.values_mut().filter(|r| r.path_quality.browned_out && is_up(r)) {
            let other = active.as_ref().filter(|(id, _)| *id != route.id);
            if route.path_quality.is_as_good_as(other.map(|(_, health)| health), now) {
                route.hold_down.on_up(now, hold);
                route.path_quality.browned_out = !route.hold_down.is_over(now);
            } else {
                route.hold_down.restart_hold();
            }
        }
    }

    /// The best route that is clearly better than the active one.
    fn better_than_active(&self, now: Time) -> Option<RouteId> {
        let active = self.routes.get(&self.active?).filter(|route| is_up(route))?;
        let others = self.routes.values().filter(|route| {
            let fit = route.id != active.id && is_up(route) && route.hold_down.is_over(now);
            fit && (!route.is_drained() || active.is_drained()) && is_worse_than(active, route, now)
        });
        others.min_by_key(|route| route_rank(route)).map(|route| route.id)
    }

    /// Data leaves the active route for one that is better than it, and does not stop at others
    /// that are as bad.
    fn mark_browned_out(&mut self, better: RouteId, now: Time) {
        let Some(best) = self.routes.get(&better).cloned() else { return };
        let active = self.active;
        for route in self.routes.values_mut().filter(|route| is_up(route)) {
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
}

fn is_up(route: &Route) -> bool {
    route.state == RouteState::Up
}

fn is_worse_than(route: &Route, other: &Route, now: Time) -> bool {
    let jitter = route.request_stats.jitter().max(other.request_stats.jitter()).unwrap_or_default();
    route.path_quality.is_worse_than(&other.path_quality, now, route.delay(), jitter)
}
