//! What follows from what is known: states, selection, events.

use crate::{
    engine::{EngineContext, peer::Peer},
    route::{
        event::{EventKind, Reason},
        route_fsm::Route,
        select,
        status::RouteState,
    },
    time::Time,
};

impl Peer {
    /// Brings everything about the peer up to date.
    pub(crate) fn reevaluate(&mut self, context: &mut EngineContext, now: Time) {
        self.reevaluated_at = now;
        self.reevaluation_due = None;
        let heard = self.routes.values().any(|route| route.rx);
        let mut came_up = false;
        for route in self.routes.values_mut() {
            came_up |= reevaluate_route(context, now, route, heard);
        }
        self.judge_path_quality(context, now);
        self.reselect_route(context, now);
        self.report_drain_stages(context, now, heard);
        self.routes.values_mut().for_each(|route| route.enforce_cadence(now));
        if came_up {
            self.report_established(context, now);
        }
        if std::mem::replace(&mut self.heard_on_any_route, heard) && !heard {
            context.push_event(now, EventKind::RemoteUnreachable { peer: self.id });
        }
    }

    fn reselect_route(&mut self, context: &mut EngineContext, now: Time) {
        let choice = select::choose_route(&self.routes, self.active, now);
        let from = self.active;
        if choice.route == from || (from.is_some() && context.never_fails_over()) {
            return;
        }
        self.active = choice.route;
        if from.is_some() && choice.route.is_some() {
            self.failovers += 1;
        }
        let (peer, to, reason) = (self.id, choice.route, choice.reason);
        let cause = Box::new(self.build_failover_report(context, now, (from, to), reason));
        context.push_event(now, EventKind::Moved { peer, from, to, reason, report: cause });
    }

    /// Tells how far every drain got, where that is news.
    fn report_drain_stages(&mut self, context: &mut EngineContext, now: Time, heard: bool) {
        let (peer, active) = (self.id, self.active);
        for route in self.routes.values_mut() {
            let status = route.drain_status(active == Some(route.id), heard);
            if let Some(stage) = route.drain.take_stage_change(status) {
                context.push_event(now, EventKind::Drain { route: route.id, peer, stage });
            }
        }
    }

    /// NetFT's order (C8): route up, ready, session established.
    fn report_established(&mut self, context: &mut EngineContext, now: Time) {
        let peer = self.id;
        let Some(boot_id) = self.session.filter(|_| !self.established_reported) else { return };
        self.established_reported = true;
        let waited = now.since(self.session_at);
        context.push_event(now, EventKind::Ready { peer, waited });
        context.push_event(now, EventKind::SessionEstablished { peer, boot_id });
    }
}

/// Derives one route's state. Returns whether it came up.
fn reevaluate_route(
    context: &mut EngineContext,
    now: Time,
    route: &mut Route,
    heard: bool,
) -> bool {
    let tx = is_tx_proven(context, route, heard);
    let Some(from) = route.update_state(now, tx) else { return false };
    let lost = from == RouteState::Up;
    // Nor is it that the peer did not hear a node that was not scheduled.
    let stalled = context.stalled_ms(now) > 0 && route.reason == Reason::PeerDoesNotHear;
    // A session that ends and an operator are no fault of the route.
    let planned = matches!(
        route.reason,
        Reason::NewSession | Reason::SessionLost | Reason::Admin | Reason::PeerAdmin
    );
    if lost && !planned && !stalled {
        route.hold_down.on_lost(now);
    }
    let up = route.state == RouteState::Up;
    if up {
        route.hold_down.on_up(now, context.config.hold);
    }
    let kind = EventKind::StateChanged {
        route: route.id,
        peer: route.spec.peer,
        from,
        to: route.state,
        reason: route.reason,
        last_heard: route.last_heard,
        history: if lost || route.state == RouteState::Down {
            route.history.to_lines(now)
        } else {
            Vec::new()
        },
    };
    context.push_event(now, kind);
    up
}

/// The peer's word counts only while the peer is heard somewhere.
fn is_tx_proven(context: &EngineContext, route: &Route, heard: bool) -> bool {
    if context.ignores_peer_reports() {
        return route.rx || (heard && route.report.is_some());
    }
    let report = route.report.unwrap_or_default();
    heard && report.heard && !report.local_down && !report.admin_down
}
