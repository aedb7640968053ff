//! One peer and its routes: the scope of every input and every timer.

use std::net::SocketAddr;

use crate::{
    cadence::reply_template::ReplyTemplates,
    engine::{
        context::EngineContext,
        failover_costs::FailoverCosts,
        peer_session::{PeerSession, SessionStart},
        probes::send_due_probes,
    },
    ids::{PeerId, RouteId},
    route::{
        event::EventKind,
        params::Attributes,
        route_fsm::Route,
        routes::RouteMap,
        select::next_failback,
        spec::{RouteChange, RouteSpec},
        state::{Reason, RouteState},
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
    /// How often data moved to another route.
    pub(crate) failovers: u64,
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
}

impl Peer {
    pub(crate) fn new(id: PeerId, now: Time) -> Self {
        Self {
            id,
            routes: RouteMap::default(),
            session: PeerSession::new(now),
            active: None,
            failovers: 0,
            costs: FailoverCosts::default(),
            newest_serial: None,
            replies: ReplyTemplates::default(),
            heard_on_any_route: false,
            reevaluated_at: now,
            reevaluation_due: None,
        }
    }

    /// Runs every timer that is due.
    pub(crate) fn on_timer(&mut self, context: &mut EngineContext, now: Time) {
        let due: Vec<_> =
            self.routes.values().filter(|r| r.has_timer_due(now)).map(|r| r.id).collect();
        for id in due {
            self.expire_route_timers(context, now, id);
        }
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
            let (missed, threshold) = (timing.early_warning_misses(), timing.threshold.get());
            let peer = self.id;
            context.push_event(now, EventKind::EarlyWarning { route: id, peer, missed, threshold });
        }
    }

    /// When [`on_timer`](Self::on_timer) is due.
    pub(crate) fn next_wake(&self) -> Option<Time> {
        let timers = self.routes.values().map(Route::next_wake);
        let failback = next_failback(&self.routes, self.active);
        timers.chain([failback, self.costs.next_close(), self.reevaluation_due]).flatten().min()
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

    pub(crate) fn add_fault(&mut self, now: Time, id: RouteId, reason: Reason) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.add_fault(reason);
        route.requests.next = None;
        self.report_change_soon(now, Some(id));
    }

    pub(crate) fn clear_fault(&mut self, now: Time, id: RouteId, reason: Reason) {
        if self.routes.get_mut(&id).is_some_and(|route| route.clear_fault(reason)) {
            self.start_requests(now, id);
            self.report_change_soon(now, None);
        }
    }

    /// Starts to send requests on a route, unless a fault or a missing session prevents it.
    fn start_requests(&mut self, now: Time, id: RouteId) {
        let has_session = self.session.is_up();
        if let Some(route) = self.routes.get_mut(&id) {
            route.requests.next = (has_session && !route.has_fault()).then_some(now);
        }
    }

    pub(crate) fn session_up(&mut self, now: Time, boot_id: u64) {
        let Some(start) = self.session.begin(now, boot_id) else { return };
        self.replies.revoke();
        self.newest_serial = None;
        for route in self.routes.values_mut() {
            route.reset_session(Reason::NewSession);
            match start {
                SessionStart::Restarted => route.hold_down.forgive_loss(),
                SessionStart::Rekeyed => {}
            }
            route.requests.next = (!route.has_fault()).then_some(now);
        }
    }

    pub(crate) fn session_down(&mut self, context: &mut EngineContext, now: Time) {
        if !self.session.end() {
            return;
        }
        self.replies.revoke();
        self.costs.close(context, now, self.id);
        for route in self.routes.values_mut() {
            route.reset_session(Reason::SessionLost);
            route.requests.next = None;
        }
        context.push_event(now, EventKind::SessionEnded { peer: self.id });
    }

    pub(crate) fn add_route(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        id: RouteId,
        spec: RouteSpec,
    ) {
        let route = Route::new(id, spec.clone(), now, context.config.history);
        self.routes.insert(route);
        let (learned, to) = (spec.attributes.0 & Attributes::LEARNED != 0, spec.real_remote);
        context.push_event(now, EventKind::RouteAdded { route: id, spec });
        if learned {
            let (peer, from) = (self.id, None);
            context.push_event(now, EventKind::AddressLearned { route: id, peer, from, to });
        }
        self.start_requests(now, id);
    }

    pub(crate) fn remove_route(&mut self, context: &mut EngineContext, now: Time, id: RouteId) {
        let Some(route) = self.routes.remove(&id) else { return };
        context.push_event(now, EventKind::RouteRemoved { route: id, spec: route.spec });
        self.report_change_soon(now, None);
    }

    pub(crate) fn change_route(&mut self, now: Time, id: RouteId, change: RouteChange) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        if let Some(timing) = change.timing {
            route.set_timing(now, timing);
            route.requests.request_by(now);
        }
        let admin_down = change.admin_down.filter(|down| *down != route.admin_down);
        if let Some(down) = admin_down {
            route.admin_down = down;
        }
        let drained = change.drain.is_some_and(|on| route.drain.set_ordered(now, on));
        if let Some(priority) = change.priority {
            route.spec.priority = priority;
        }
        if drained || change.priority.is_some() {
            self.routes.values_mut().for_each(|route| route.hold_down.clear_elapsed(now));
        }
        if drained || admin_down.is_some() {
            // The peer learns of it on every route, this one too: it may be the only one.
            self.report_change_soon(now, None);
        }
    }

    /// Replaces the description of a route; fields that are equal in both stay undisturbed.
    pub(crate) fn replace_spec(&mut self, now: Time, id: RouteId, spec: RouteSpec) {
        let Some(route) = self.routes.get(&id) else { return };
        let old = &route.spec;
        let change = RouteChange {
            timing: (old.timing != spec.timing).then_some(spec.timing),
            priority: (old.priority != spec.priority).then_some(spec.priority),
            admin_down: None,
            drain: None,
        };
        self.change_route(now, id, change);
        if let Some(route) = self.routes.get_mut(&id) {
            route.spec = spec;
        }
    }

    /// Points a route at another address of the peer. Its state stays: a NAT between changed its
    /// mapping, the peer did not move. Its path MTU is confirmed anew.
    pub(crate) fn set_learned_remote(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        id: RouteId,
        remote: SocketAddr,
    ) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        let from = std::mem::replace(&mut route.spec.real_remote, remote);
        route.spec.attributes.0 |= Attributes::LEARNED;
        route.mtu.suspect_black_hole(now);
        // The peer has received nothing since its address changed.
        route.requests.request_by(now);
        let (peer, from) = (self.id, Some(from));
        context.push_event(now, EventKind::AddressLearned { route: id, peer, from, to: remote });
    }
}
