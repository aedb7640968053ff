//! Re-evaluation of one peer after every input and timer: states, selection, events.

use crate::{
    engine::{
        brown_outs::update_brown_outs,
        context::EngineContext,
        peer::Peer,
        progress_events::{report_drain_stages, report_established},
    },
    failover::report::failover_report,
    route::{
        event::EventKind,
        peer_route::Route,
        select,
        state::{Reason, RouteState},
    },
    time::Time,
};

impl Peer {
    /// Brings everything about the peer up to date.
    pub(crate) fn reevaluate(&mut self, context: &mut EngineContext, now: Time) {
        self.reevaluated_at = now;
        self.reevaluation_due = None;
        let heard = self.routes.values().any(|route| route.liveness.rx);
        let mut came_up = false;
        for route in self.routes.values_mut() {
            came_up |= reevaluate_route(context, now, route, heard);
        }
        update_brown_outs(&mut self.routes, self.active, context.config.hold, now);
        self.reselect_route(context, now);
        report_drain_stages(self, context, now, heard);
        for route in self.routes.values_mut() {
            route.end_backoff(now);
            let undisturbed = route.is_undisturbed();
            route.requests.enforce_cadence(now, route.delay(), undisturbed);
        }
        if came_up {
            report_established(self, context, now);
        }
        if std::mem::replace(&mut self.heard_on_any_route, heard) && !heard {
            context.push_event(now, EventKind::RemoteUnreachable { peer: self.id });
        }
    }

    /// Moves data to the route selected from the new states.
    fn reselect_route(&mut self, context: &mut EngineContext, now: Time) {
        let choice = select::choose_route(&self.routes, self.active, now);
        let (from, to, reason) = (self.active, choice.route, choice.reason);
        if to == from || (from.is_some() && context.never_fails_over()) {
            return;
        }
        self.active = to;
        self.moves.on_moved(from, to, reason);
        let (peer, mut report) = (self.id, failover_report(&self.routes, from, to, now));
        let session = (peer, self.session.is_up());
        self.costs.on_moved(context, now, session, (from, to), reason, &mut report);
        let report = Box::new(report);
        context.push_event(now, EventKind::Moved { peer, from, to, reason, report });
    }
}

/// Derives the state of one route. Returns whether it came up.
fn reevaluate_route(
    context: &mut EngineContext,
    now: Time,
    route: &mut Route,
    heard: bool,
) -> bool {
    let tx = is_tx_proven(context, route, heard);
    let Some(from) = route.update_state(now, tx) else { return false };
    let (to, reason) = (route.state(), route.derived.reason);
    let lost = from == RouteState::Up;
    // The peer received nothing because this node was not scheduled: the route is not at fault.
    let stalled = context.stalled_ms(now) > 0 && reason == Reason::PeerDoesNotHear;
    // Nor is it when a session ends or an operator takes it out of use.
    let planned = matches!(
        reason,
        Reason::NewSession | Reason::SessionLost | Reason::Admin | Reason::PeerAdmin
    );
    if lost && !planned && !stalled {
        route.hold_down.on_lost(now);
    }
    if route.is_up() {
        route.hold_down.on_up(now, context.config.hold);
    }
    let history =
        if lost || to == RouteState::Down { route.history.to_lines(now) } else { Vec::new() };
    let (peer, last_heard) = (route.spec.peer, route.liveness.last_heard);
    let kind =
        EventKind::StateChanged { route: route.id, peer, from, to, reason, last_heard, history };
    context.push_event(now, kind);
    route.is_up()
}

/// Returns whether this node may send on the route. The peer's report counts only while the peer is
/// heard on some route.
fn is_tx_proven(context: &EngineContext, route: &Route, heard: bool) -> bool {
    if context.ignores_peer_reports() {
        return route.liveness.rx || (heard && route.remote.report.is_some());
    }
    heard && route.remote.confirms_tx()
}
