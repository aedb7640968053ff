//! Brown-outs of a peer's routes: which one is left for it, and which ones are good again.

use std::time::Duration;

use crate::{
    engine::{Context, peer::Peer},
    ids::RouteId,
    route::{route_fsm::Route, select::rank, status::RouteState},
    time::Time,
};

impl Peer {
    /// Takes in what is measured, before a route is chosen.
    pub(crate) fn judge_health(&mut self, context: &Context, now: Time) {
        self.recover(context.config.hold, now);
        if let Some(better) = self.better_than_active(now) {
            self.brown_out(better, now);
        }
    }

    /// Routes that are as good as the active one again may be used after their hold.
    fn recover(&mut self, hold: Duration, now: Time) {
        if !self.routes.values().any(|route| route.health.brown) {
            return;
        }
        let active = self.active.and_then(|id| self.routes.get(&id)).filter(|route| up(route));
        let active = active.map(|route| (route.id, route.health));
        for route in self.routes.values_mut().filter(|r| r.health.brown && up(r)) {
            let other = active.as_ref().filter(|(id, _)| *id != route.id);
            if route.health.as_good_as(other.map(|(_, health)| health), now) {
                route.hold.up(now, hold);
                route.health.brown = !route.hold.over(now);
            } else {
                route.hold.again();
            }
        }
    }

    /// The best route that is clearly better than the active one.
    fn better_than_active(&self, now: Time) -> Option<RouteId> {
        let active = self.routes.get(&self.active?).filter(|route| up(route))?;
        let others = self.routes.values().filter(|route| {
            let fit = route.id != active.id && up(route) && route.hold.over(now);
            fit && (!route.drained() || active.drained()) && worse(active, route, now)
        });
        others.min_by_key(|route| rank(route)).map(|route| route.id)
    }

    /// Data leaves the active route for one that is better than it, and does not stop at others
    /// that are as bad.
    fn brown_out(&mut self, better: RouteId, now: Time) {
        let Some(best) = self.routes.get(&better).cloned() else { return };
        let active = self.active;
        for route in self.routes.values_mut().filter(|route| up(route)) {
            if route.id == better {
                route.health.brown = false;
            } else if !route.health.brown && worse(route, &best, now) {
                route.health.brown = true;
                if Some(route.id) == active {
                    route.hold.lost(now);
                } else {
                    route.hold.again();
                }
            }
        }
    }
}

fn up(route: &Route) -> bool {
    route.state == RouteState::Up
}

fn worse(route: &Route, other: &Route, now: Time) -> bool {
    let jitter = route.quality.jitter().max(other.quality.jitter()).unwrap_or_default();
    route.health.worse_than(&other.health, now, route.delay(), jitter)
}
