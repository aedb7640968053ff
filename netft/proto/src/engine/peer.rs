//! One peer and its routes: all that one input or one timer has to look at.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    cadence::reply_template::{HeartbeatSerial, ReplyTemplate},
    engine::EngineContext,
    failover::cost::{CostAccumulator, LossCounters},
    ids::{PeerId, RouteId},
    route::{
        event::{EventKind, Reason},
        params::Attributes,
        route_fsm::Route,
        routes::RouteMap,
        select,
        spec::{RouteChange, RouteSpec},
        status::{PeerStatus, RouteState, RouteStatus},
        table::PeerForwarding,
    },
    time::Time,
};

/// A peer.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) routes: RouteMap,
    /// The peer's boot id, while there is a session.
    pub(crate) session: Option<u64>,
    /// The boot id of the last session.
    last_boot: Option<u64>,
    pub(crate) session_at: Time,
    /// Ready and established were told for this session.
    pub(crate) established_reported: bool,
    pub(crate) active: Option<RouteId>,
    pub(crate) failovers: u64,
    /// Serial of the newest verdicts taken in.
    pub(crate) newest_serial: Option<u32>,
    /// What numbers heartbeats to the peer.
    pub(crate) serial: Arc<HeartbeatSerial>,
    /// What may be answered without the engine.
    pub(crate) reply_template: Option<Arc<ReplyTemplate>>,
    /// The peer is heard on some route.
    pub(crate) heard_on_any_route: bool,
    /// What leaving a route costs, while it grows.
    pub(crate) open_cost: Option<CostAccumulator>,
    pub(crate) loss_counters: LossCounters,
    /// Since when no route carries data, if one did.
    pub(crate) outage_since: Option<Time>,
    /// When everything was brought up to date last.
    pub(crate) reevaluated_at: Time,
    /// Since when heartbeats wait that nothing has followed from yet.
    pub(crate) reevaluation_due: Option<Time>,
}

impl Peer {
    pub(crate) fn new(id: PeerId, now: Time) -> Self {
        Self {
            id,
            routes: RouteMap::default(),
            session: None,
            last_boot: None,
            session_at: now,
            established_reported: false,
            active: None,
            failovers: 0,
            newest_serial: None,
            serial: Arc::default(),
            reply_template: None,
            heard_on_any_route: false,
            open_cost: None,
            loss_counters: LossCounters::default(),
            outage_since: None,
            reevaluated_at: now,
            reevaluation_due: None,
        }
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
        let (adopted, to) = (spec.attributes.0 & Attributes::LEARNED != 0, spec.real_remote);
        context.push_event(now, EventKind::RouteAdded { route: id, spec });
        if adopted {
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
            route.request_by(now);
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
            // The peer learns it on every route, this one too: a single route has no other.
            self.report_change_soon(now, None);
        }
    }

    /// Takes over another description of a route: what is the same in both stays undisturbed.
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

    /// A route leads to another address of the peer. What was heard of it stays: the peer has not
    /// moved, a NAT between has. How large a datagram passes there is asked anew.
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
        // The peer has waited for one since its address changed.
        route.request_by(now);
        let (peer, from) = (self.id, Some(from));
        context.push_event(now, EventKind::AddressLearned { route: id, peer, from, to: remote });
    }

    pub(crate) fn add_fault(&mut self, now: Time, id: RouteId, reason: Reason) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.add_fault(reason);
        route.next_request = None;
        self.report_change_soon(now, Some(id));
    }

    /// The packet path waits in vain for acknowledgements on a route. A heartbeat asks at once;
    /// its reply clears the suspicion, its absence is the detection time's business. Data goes
    /// both ways meanwhile, so at most for a detection time: on a route that loses many packets
    /// neither may come.
    pub(crate) fn mark_suspect(&mut self, context: &mut EngineContext, now: Time, id: RouteId) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        if route.state != RouteState::Up || route.suspect_since.is_some() {
            return;
        }
        let end = now + route.detection_time();
        route.suspect_since = Some(now);
        // Perhaps only what is large vanishes there.
        route.mtu.suspect_black_hole(now);
        route.suspect_end = (!context.never_clears_suspicion()).then_some(end);
        route.request_soon(now);
        self.open_cost(context, now, id).suspect_since = Some(now);
        context.push_event(now, EventKind::Suspect { route: id, peer: self.id });
    }

    pub(crate) fn clear_fault(&mut self, now: Time, id: RouteId, reason: Reason) {
        if self.routes.get_mut(&id).is_some_and(|route| route.clear_fault(reason)) {
            self.start_requests(now, id);
            self.report_change_soon(now, None);
        }
    }

    pub(crate) fn session_up(&mut self, now: Time, boot_id: u64) {
        if self.session == Some(boot_id) {
            return;
        }
        let restarted = self.last_boot.replace(boot_id).is_some_and(|last| last != boot_id);
        self.session = Some(boot_id);
        self.revoke_reply_template();
        self.session_at = now;
        self.established_reported = false;
        self.newest_serial = None;
        for route in self.routes.values_mut() {
            route.reset_session(Reason::NewSession);
            if restarted {
                route.hold_down.forgive_loss();
            }
            route.next_request = (!route.has_fault()).then_some(now);
        }
    }

    pub(crate) fn session_down(&mut self, context: &mut EngineContext, now: Time) {
        if self.session.take().is_none() {
            return;
        }
        self.revoke_reply_template();
        self.close_cost(context, now);
        for route in self.routes.values_mut() {
            route.reset_session(Reason::SessionLost);
            route.next_request = None;
        }
        context.push_event(now, EventKind::SessionEnded { peer: self.id });
    }

    /// Begins to send requests on a route, if it may.
    fn start_requests(&mut self, now: Time, id: RouteId) {
        let session = self.session.is_some();
        if let Some(route) = self.routes.get_mut(&id) {
            route.next_request = (session && !route.has_fault()).then_some(now);
        }
    }

    /// Does what is due.
    pub(crate) fn on_timer(&mut self, context: &mut EngineContext, now: Time) {
        let due: Vec<_> =
            self.routes.values().filter(|r| r.has_timer_due(now)).map(|r| r.id).collect();
        for id in due {
            self.expire_route_timers(context, now, id);
        }
        self.reevaluate(context, now);
        self.close_due_cost(context, now);
        self.send_due_requests(context, now);
        self.send_due_probes(context, now);
    }

    /// The timers of one route.
    fn expire_route_timers(&mut self, context: &mut EngineContext, now: Time, id: RouteId) {
        let early = context.gives_up_early();
        let Some(route) = self.routes.get_mut(&id) else { return };
        if route.suspect_until().is_some_and(|until| until <= now) {
            route.suspect_since = None;
        }
        let deadline =
            if early { route.early_warning_at.or(route.deadline) } else { route.deadline };
        if deadline.is_some_and(|deadline| deadline <= now) {
            route.on_detection_timeout();
            self.report_change_soon(now, Some(id));
        } else if route.early_warning_at.take_if(|warning| *warning <= now).is_some()
            && matches!(route.state, RouteState::Up | RouteState::Init)
        {
            let (missed, threshold) =
                (route.early_warning_misses(), route.spec.timing.threshold.get());
            let peer = self.id;
            context.push_event(now, EventKind::EarlyWarning { route: id, peer, missed, threshold });
        }
    }

    /// When [`on_timer`](Self::on_timer) has something to do.
    pub(crate) fn next_wake(&self) -> Option<Time> {
        let timers = self
            .routes
            .values()
            .flat_map(|r| [r.next_request, r.deadline, r.early_warning_wake(), r.suspect_until()]);
        let account = self.open_cost.map(|account| account.closes_at);
        let others =
            [select::next_failback(&self.routes, self.active), account, self.reevaluation_due];
        timers.chain(others).flatten().min()
    }

    /// The peer's row of the forwarding table.
    pub(crate) fn forwarding_row(&self) -> PeerForwarding {
        let mut candidates: Vec<_> = self
            .routes
            .values()
            .filter(|route| route.can_carry_control() && !route.admin_down)
            .collect();
        candidates.sort_by_key(|route| (state_preference(route), select::route_rank(route)));
        let backups: Vec<_> = candidates
            .iter()
            .filter(|route| route.state == RouteState::Up && Some(route.id) != self.active)
            .map(|route| route.id)
            .collect();
        let up = |route: &&&Route| route.state == RouteState::Up;
        let fit = |route: &&&Route| is_in_balance_set(route, self.reevaluated_at);
        let spread = candidates.iter().filter(up).filter(fit);
        let suspects = candidates.iter().filter(up).filter(|route| route.suspect_since.is_some());
        let (spread, suspects) =
            (spread.map(|route| route.id).collect(), suspects.map(|route| route.id).collect());
        let active = self.active.and_then(|id| self.routes.get(&id));
        let suspect = active.is_some_and(|route| route.suspect_since.is_some());
        PeerForwarding {
            peer: self.id,
            active: self.active,
            duplicate: if suspect { backups.first().copied() } else { None },
            backups,
            balance_set: spread,
            suspects,
            candidates: candidates.iter().map(|route| route.id).collect(),
        }
    }

    pub(crate) fn status(&self) -> PeerStatus {
        PeerStatus {
            peer: self.id,
            session: self.session.is_some(),
            reachable: self.active.is_some(),
            active: self.active,
            failovers: self.failovers,
        }
    }

    pub(crate) fn route_statuses(&self, now: Time) -> impl Iterator<Item = RouteStatus> {
        self.routes.values().map(move |route| RouteStatus {
            id: route.id,
            spec: route.spec.clone(),
            state: route.state,
            tx: route.tx,
            rx: route.rx,
            active: self.active == Some(route.id),
            suspect: route.suspect_since.is_some(),
            hold: route.hold_down.time_left(now),
            flaps: route.hold_down.flaps(now),
            brown_out: route.path_quality.browned_out,
            drain: route.drain_status(self.active == Some(route.id), self.heard_on_any_route),
            rtt: route.request_stats.rtt(),
            jitter: route.request_stats.jitter(),
            loss: f32::from(route.inbound_loss.loss_permille()) / 1000.0,
            loss_out: f32::from(route.path_quality.loss_permille()) / 1000.0,
            heartbeats_sent: route.requests_sent,
            heartbeats_missed: route.heartbeats_missed,
            last_change: route.last_change,
            reason: route.reason,
            path_mtu: route.mtu.packet_size(),
            path_mtu_status: route.mtu.status(),
        })
    }
}

/// Whether a policy of several routes may use this one too.
pub(crate) fn is_in_balance_set(route: &Route, now: Time) -> bool {
    route.state == RouteState::Up
        && route.hold_down.is_over(now)
        && !route.is_drained()
        && !route.path_quality.browned_out
}

fn state_preference(route: &Route) -> u8 {
    match route.state {
        RouteState::Up => 0,
        RouteState::Init => 1,
        RouteState::Down | RouteState::AdminDown => 2,
    }
}
