//! One peer and its routes: the scope of every input and every timer.

use crate::{
    cadence::reply_template::ReplyTemplates,
    engine::{
        context::EngineContext, data_comparison::DataComparison, failover_costs::FailoverCosts,
        peer_session::PeerSession, probes::send_due_probes,
    },
    failover::move_counts::MoveRecorder,
    ids::{PeerId, RouteId},
    route::{
        event::EventKind, peer_route::Route, routes::RouteMap, select::next_failback,
        state::RouteState,
    },
    time::Time,
};

/// A peer.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) routes: RouteMap,
    pub(crate) session: PeerSession,
    /// The route that carries data.
    pub(crate) active: Option<RouteId>,
    /// Moves of data to another route.
    pub(crate) moves: MoveRecorder,
    pub(crate) costs: FailoverCosts,
    /// Serial of the newest route reports applied.
    pub(crate) newest_serial: Option<u32>,
    /// Serial numbers of heartbeats to the peer, and the replies given without the engine.
    pub(crate) replies: ReplyTemplates,
    /// The peer is heard on some route.
    pub(crate) heard_on_any_route: bool,
    /// When everything was last brought up to date.
    pub(crate) reevaluated_at: Time,
    /// When the oldest heartbeat arrived that was applied and not yet evaluated.
    pub(crate) reevaluation_due: Option<Time>,
    pub(crate) comparison: DataComparison,
}

impl Peer {
    pub(crate) fn new(id: PeerId, now: Time) -> Self {
        Self {
            id,
            routes: RouteMap::default(),
            session: PeerSession::new(now),
            active: None,
            moves: MoveRecorder::default(),
            costs: FailoverCosts::default(),
            newest_serial: None,
            replies: ReplyTemplates::default(),
            heard_on_any_route: false,
            reevaluated_at: now,
            reevaluation_due: None,
            comparison: DataComparison::default(),
        }
    }

    /// Runs every timer that is due.
    pub(crate) fn on_timer(&mut self, context: &mut EngineContext, now: Time) {
        let due: Vec<_> =
            self.routes.values().filter(|r| r.has_timer_due(now)).map(|r| r.id).collect();
        for id in due {
            self.expire_route_timers(context, now, id);
        }
        self.comparison.poll(&mut self.routes, self.active, now);
        self.reevaluate(context, now);
        let routes = &self.routes;
        self.costs.close_due(context, now, self.id, |id| {
            routes.get(&id).is_some_and(|route| route.suspicion.is_suspect())
        });
        self.send_due_requests(context, now);
        send_due_probes(&mut self.routes, self.active, context, now);
    }

    fn expire_route_timers(&mut self, context: &mut EngineContext, now: Time, id: RouteId) {
        let early = context.gives_up_early();
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.suspicion.expire(now);
        let (timing, liveness) = (route.spec.timing, &mut route.liveness);
        let deadline = liveness.early_warning_at.filter(|_| early).or(liveness.deadline);
        if deadline.is_some_and(|deadline| deadline <= now) {
            liveness.on_detection_timeout(timing);
            self.report_change_soon(now, Some(id));
        } else if liveness.take_due_warning(now)
            && matches!(route.state(), RouteState::Up | RouteState::Init)
        {
            context.push_early_warning(now, (self.id, id), timing);
        }
    }

    /// When [`on_timer`](Self::on_timer) is due.
    pub(crate) fn next_wake(&self) -> Option<Time> {
        let timers = self.routes.values().map(Route::next_wake);
        let failback = next_failback(&self.routes, self.active);
        let comparison = self.comparison.next_wake(&self.routes, self.active);
        let others = [failback, comparison, self.costs.next_close(), self.reevaluation_due];
        timers.chain(others).flatten().min()
    }

    /// Marks a route as suspect: loss detection awaits acknowledgements there in vain. A heartbeat
    /// is sent at once. Its reply clears the suspicion; its loss is left to the detection time.
    /// Data is duplicated meanwhile, for one detection time at most: on a route with heavy loss
    /// neither may come.
    pub(crate) fn mark_suspect(&mut self, context: &mut EngineContext, now: Time, id: RouteId) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        if !route.is_up() || route.suspicion.is_suspect() {
            return;
        }
        let expiry = now + route.detection_time();
        route.suspicion.begin(now, (!context.never_clears_suspicion()).then_some(expiry));
        // The cause may be a black hole for large datagrams.
        route.mtu.suspect_black_hole(now);
        route.requests.request_soon(now, route.delay());
        self.costs.on_suspect(context, now, self.id, id);
        context.push_event(now, EventKind::Suspect { route: id, peer: self.id });
    }

    /// Schedules a heartbeat with a changed report on every route but `except`, within the rate
    /// limit of four per delay.
    pub(crate) fn report_change_soon(&mut self, now: Time, except: Option<RouteId>) {
        for route in self.routes.values_mut().filter(|route| Some(route.id) != except) {
            route.requests.request_soon(now, route.delay());
        }
    }
}
