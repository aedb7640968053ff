//! A drill under way: what it notes, when its fault ends, and when its report is final.

use std::time::Duration;

use crate::{
    drill::{
        order::DrillOrder,
        plan::{DrillRoute, has_route_up},
        report::{AbortCause, DetectionSign, DrillOutcome, DrillReport, DrilledRoute},
    },
    failover::cost::{COST_SETTLE_TIME, FailoverCost},
    ids::RouteId,
    route::{
        event::{Event, EventKind},
        state::RouteState,
    },
    time::Time,
};

/// Time from the end of the fault until costs are final: a suspicion that begins with its last
/// datagrams ends within a detection time.
pub const SETTLE_TIME: Duration = COST_SETTLE_TIME.saturating_add(Duration::from_millis(1000));
/// Longest wait for the routes to be up again.
pub const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// A step that the caller has to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillStep {
    /// Lift the fault.
    Lift,
    /// Put the sockets back, and report: the drill is over.
    Finish,
}

/// A drill.
#[derive(Clone, Debug)]
pub struct Drill {
    order: DrillOrder,
    routes: Vec<DrilledRoute>,
    began_at: Time,
    lifted_at: Option<Time>,
    finished: bool,
    abort: Option<AbortCause>,
    cost: FailoverCost,
}

impl Drill {
    /// The fault of `order` is there from `now` on, on these routes.
    pub fn begin(now: Time, order: DrillOrder, planned: &[RouteId], routes: &[DrillRoute]) -> Self {
        let planned = routes.iter().filter(|route| planned.contains(&route.id));
        let observed = planned.map(|route| DrilledRoute {
            route: route.id,
            peer: route.peer,
            was_up: route.is_up(),
            detection: None,
            sign: None,
            recovery: None,
        });
        Self {
            order,
            routes: observed.collect(),
            began_at: now,
            lifted_at: None,
            finished: false,
            abort: None,
            cost: FailoverCost::default(),
        }
    }

    /// The order.
    pub const fn order(&self) -> &DrillOrder {
        &self.order
    }

    /// The routes, by number.
    pub fn route_ids(&self) -> impl Iterator<Item = RouteId> {
        self.routes.iter().map(|route| route.route)
    }

    /// Returns whether the fault is lifted.
    pub const fn is_lifted(&self) -> bool {
        self.lifted_at.is_some()
    }

    /// When [`poll`](Self::poll) has something to do though no event comes.
    pub fn next_wake(&self) -> Option<Time> {
        match self.lifted_at {
            _ if self.finished => None,
            None => Some(self.began_at + self.order.length),
            Some(lifted_at) if self.is_recovered() => Some(lifted_at + SETTLE_TIME),
            Some(lifted_at) => Some(lifted_at + RECOVERY_TIMEOUT),
        }
    }

    /// Notes an event of the node.
    pub fn on_event(&mut self, event: &Event) {
        if let EventKind::FailoverCost { from, cost, .. } = &event.kind {
            if self.routes.iter().any(|route| route.route == *from) && !self.finished {
                self.add_cost(*cost);
            }
            return;
        }
        if self.is_lifted() {
            return;
        }
        if let EventKind::Suspect { route, .. } = event.kind {
            self.record_sign(event.at, route, DetectionSign::DataUnacknowledged);
        } else if let EventKind::StateChanged { route, from: RouteState::Up, .. } = event.kind {
            self.record_sign(event.at, route, DetectionSign::RouteDown);
        } else if let EventKind::Moved { from: Some(route), .. } = event.kind {
            self.record_sign(event.at, route, DetectionSign::DataMoved);
        }
    }

    fn record_sign(&mut self, at: Time, id: RouteId, sign: DetectionSign) {
        let began_at = self.began_at;
        for route in self.routes.iter_mut().filter(|route| route.route == id) {
            if route.was_up && route.detection.is_none() {
                route.detection = Some(at.since(began_at));
                route.sign = Some(sign);
            }
        }
    }

    fn add_cost(&mut self, cost: FailoverCost) {
        let total = &mut self.cost;
        total.resent += cost.resent;
        total.duplicated += cost.duplicated;
        total.lost += cost.lost;
        let is_longer = |stall| total.stall.is_none_or(|before| before.length < stall);
        if let Some(stall) = cost.stall
            && is_longer(stall.length)
        {
            total.stall = Some(stall);
        }
    }

    /// Ends the fault early.
    pub fn abort(&mut self, now: Time, cause: AbortCause) {
        if self.lifted_at.is_none() {
            self.abort = Some(cause);
            self.lifted_at = Some(now);
        }
    }

    /// The next step that is due, each once, given the node's routes.
    pub fn poll(&mut self, now: Time, routes: &[DrillRoute]) -> Option<DrillStep> {
        let Some(lifted_at) = self.lifted_at else {
            if let Some(cause) = self.find_peer_at_risk(routes) {
                self.abort(now, cause);
                return Some(DrillStep::Lift);
            }
            if now.since(self.began_at) < self.order.length {
                return None;
            }
            self.lifted_at = Some(now);
            return Some(DrillStep::Lift);
        };
        let waited = now.since(lifted_at);
        for drilled in self.routes.iter_mut().filter(|route| route.recovery.is_none()) {
            let route = routes.iter().find(|route| route.id == drilled.route);
            if route.is_some_and(|route| route.is_up() && !route.is_suspect) {
                drilled.recovery = Some(waited);
            }
        }
        let is_over = waited >= RECOVERY_TIMEOUT || waited >= SETTLE_TIME && self.is_recovered();
        if self.finished || !is_over {
            return None;
        }
        self.finished = true;
        Some(DrillStep::Finish)
    }

    /// A peer that the drill's fault leaves without a route, because its others failed.
    fn find_peer_at_risk(&self, routes: &[DrillRoute]) -> Option<AbortCause> {
        let is_other = |route: &DrillRoute| self.route_ids().all(|id| id != route.id);
        let mut peers = self.routes.iter().filter(|route| route.was_up).map(|route| route.peer);
        peers.find(|peer| !has_route_up(routes, *peer, is_other)).map(AbortCause::PeerAtRisk)
    }

    fn is_recovered(&self) -> bool {
        self.routes.iter().all(|route| !route.was_up || route.recovery.is_some())
    }

    /// The report until `now`. `dropped`: datagrams that the fault dropped.
    pub fn report(&self, now: Time, dropped: u64) -> DrillReport {
        let outcome = match (self.abort, self.lifted_at) {
            (_, None) => DrillOutcome::Running,
            (_, Some(_)) if !self.finished => DrillOutcome::Settling,
            (Some(cause), Some(_)) => DrillOutcome::Aborted(cause),
            (None, Some(_)) => DrillOutcome::Completed,
        };
        DrillReport {
            order: self.order.clone(),
            outcome,
            lasted: self.lifted_at.unwrap_or(now).since(self.began_at),
            routes: self.routes.clone(),
            cost: self.cost,
            dropped,
        }
    }

    /// Ends it without waiting for costs and recovery.
    pub fn cut_short(&mut self, now: Time, cause: AbortCause) {
        self.abort(now, cause);
        self.finished = true;
    }
}
