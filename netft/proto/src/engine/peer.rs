//! One peer and its routes: all that one input or one timer has to look at.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    cadence::reply_template::{Form, Voice},
    engine::Context,
    failover::cost::{Account, Tally},
    ids::{PeerId, RouteId},
    route::{
        event::{EventKind, Reason},
        params::Attributes,
        route_fsm::Route,
        routes::Routes,
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
    pub(crate) routes: Routes,
    /// The peer's boot id, while there is a session.
    pub(crate) session: Option<u64>,
    /// The boot id of the last session.
    last_boot: Option<u64>,
    pub(crate) session_at: Time,
    /// Ready and established were told for this session.
    pub(crate) told: bool,
    pub(crate) active: Option<RouteId>,
    pub(crate) failovers: u64,
    /// Serial of the newest verdicts taken in.
    pub(crate) heard_serial: Option<u32>,
    /// What numbers heartbeats to the peer.
    pub(crate) voice: Arc<Voice>,
    /// What may be answered without the engine.
    pub(crate) form: Option<Arc<Form>>,
    /// The peer is heard on some route.
    pub(crate) heard: bool,
    /// What leaving a route costs, while it grows.
    pub(crate) account: Option<Account>,
    pub(crate) tally: Tally,
    /// Since when no route carries data, if one did.
    pub(crate) dark: Option<Time>,
    /// When everything was brought up to date last.
    pub(crate) settled: Time,
    /// Since when heartbeats wait that nothing has followed from yet.
    pub(crate) unsettled: Option<Time>,
}

impl Peer {
    pub(crate) fn new(id: PeerId, now: Time) -> Self {
        Self {
            id,
            routes: Routes::default(),
            session: None,
            last_boot: None,
            session_at: now,
            told: false,
            active: None,
            failovers: 0,
            heard_serial: None,
            voice: Arc::default(),
            form: None,
            heard: false,
            account: None,
            tally: Tally::default(),
            dark: None,
            settled: now,
            unsettled: None,
        }
    }

    pub(crate) fn add(&mut self, context: &mut Context, now: Time, id: RouteId, spec: RouteSpec) {
        let route = Route::new(id, spec.clone(), now, context.config.history);
        self.routes.insert(route);
        let (adopted, to) = (spec.attributes.0 & Attributes::ADOPTED != 0, spec.real_remote);
        context.event(now, EventKind::RouteAdded { route: id, spec });
        if adopted {
            let (peer, from) = (self.id, None);
            context.event(now, EventKind::AddressAdopted { route: id, peer, from, to });
        }
        self.start(now, id);
    }

    pub(crate) fn remove(&mut self, context: &mut Context, now: Time, id: RouteId) {
        let Some(route) = self.routes.remove(&id) else { return };
        context.event(now, EventKind::RouteRemoved { route: id, spec: route.spec });
        self.tell_others(now, None);
    }

    pub(crate) fn change(&mut self, now: Time, id: RouteId, change: RouteChange) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        if let Some(timing) = change.timing {
            route.retime(now, timing);
            route.ask_by(now);
        }
        let admin_down = change.admin_down.filter(|down| *down != route.admin_down);
        if let Some(down) = admin_down {
            route.admin_down = down;
        }
        let drained = change.drain.is_some_and(|on| route.drain.order(now, on));
        if let Some(priority) = change.priority {
            route.spec.priority = priority;
        }
        if drained || change.priority.is_some() {
            self.routes.values_mut().for_each(|route| route.hold.settled(now));
        }
        if drained || admin_down.is_some() {
            // The peer learns it on every route, this one too: a single route has no other.
            self.tell_others(now, None);
        }
    }

    /// Takes over another description of a route: what is the same in both stays undisturbed.
    pub(crate) fn describe(&mut self, now: Time, id: RouteId, spec: RouteSpec) {
        let Some(route) = self.routes.get(&id) else { return };
        let old = &route.spec;
        let change = RouteChange {
            timing: (old.timing != spec.timing).then_some(spec.timing),
            priority: (old.priority != spec.priority).then_some(spec.priority),
            admin_down: None,
            drain: None,
        };
        self.change(now, id, change);
        if let Some(route) = self.routes.get_mut(&id) {
            route.spec = spec;
        }
    }

    /// A route leads to another address of the peer. What was heard of it stays: the peer has not
    /// moved, a NAT between has. How large a datagram passes there is asked anew.
    pub(crate) fn readdress(
        &mut self,
        context: &mut Context,
        now: Time,
        id: RouteId,
        remote: SocketAddr,
    ) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        let from = std::mem::replace(&mut route.spec.real_remote, remote);
        route.spec.attributes.0 |= Attributes::ADOPTED;
        route.mtu.doubt(now);
        // The peer has waited for one since its address changed.
        route.ask_by(now);
        let (peer, from) = (self.id, Some(from));
        context.event(now, EventKind::AddressAdopted { route: id, peer, from, to: remote });
    }

    pub(crate) fn fault(&mut self, now: Time, id: RouteId, reason: Reason) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.fault(reason);
        route.next_request = None;
        self.tell_others(now, Some(id));
    }

    /// The packet path waits in vain for acknowledgements on a route. A heartbeat asks at once;
    /// its reply clears the suspicion, its absence is the detection time's business. Data goes
    /// both ways meanwhile, so at most for a detection time: on a route that loses many packets
    /// neither may come.
    pub(crate) fn suspect(&mut self, context: &mut Context, now: Time, id: RouteId) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        if route.state != RouteState::Up || route.suspect.is_some() {
            return;
        }
        let end = now + route.detection_time();
        route.suspect = Some(now);
        // Perhaps only what is large vanishes there.
        route.mtu.doubt(now);
        route.suspect_end = (!context.suspects_for_ever()).then_some(end);
        route.ask_soon(now);
        self.open(context, now, id).suspect = Some(now);
        context.event(now, EventKind::Suspect { route: id, peer: self.id });
    }

    pub(crate) fn clear(&mut self, now: Time, id: RouteId, reason: Reason) {
        if self.routes.get_mut(&id).is_some_and(|route| route.clear(reason)) {
            self.start(now, id);
            self.tell_others(now, None);
        }
    }

    pub(crate) fn session_up(&mut self, now: Time, boot_id: u64) {
        if self.session == Some(boot_id) {
            return;
        }
        let restarted = self.last_boot.replace(boot_id).is_some_and(|last| last != boot_id);
        self.session = Some(boot_id);
        self.withdraw();
        self.session_at = now;
        self.told = false;
        self.heard_serial = None;
        for route in self.routes.values_mut() {
            route.reset(Reason::NewSession);
            if restarted {
                route.hold.excuse();
            }
            route.next_request = (!route.faulty()).then_some(now);
        }
    }

    pub(crate) fn session_down(&mut self, context: &mut Context, now: Time) {
        if self.session.take().is_none() {
            return;
        }
        self.withdraw();
        self.close(context, now);
        for route in self.routes.values_mut() {
            route.reset(Reason::SessionLost);
            route.next_request = None;
        }
        context.event(now, EventKind::SessionEnded { peer: self.id });
    }

    /// Begins to send requests on a route, if it may.
    fn start(&mut self, now: Time, id: RouteId) {
        let session = self.session.is_some();
        if let Some(route) = self.routes.get_mut(&id) {
            route.next_request = (session && !route.faulty()).then_some(now);
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, context: &mut Context, now: Time) {
        let due: Vec<_> = self.routes.values().filter(|r| r.due(now)).map(|r| r.id).collect();
        for id in due {
            self.expire(context, now, id);
        }
        self.settle(context, now);
        self.close_due(context, now);
        self.send_due(context, now);
        self.probe(context, now);
    }

    /// The timers of one route.
    fn expire(&mut self, context: &mut Context, now: Time, id: RouteId) {
        let early = context.gives_up_early();
        let Some(route) = self.routes.get_mut(&id) else { return };
        if route.suspect_until().is_some_and(|until| until <= now) {
            route.suspect = None;
        }
        let deadline = if early { route.warning.or(route.deadline) } else { route.deadline };
        if deadline.is_some_and(|deadline| deadline <= now) {
            route.miss();
            self.tell_others(now, Some(id));
        } else if route.warning.take_if(|warning| *warning <= now).is_some()
            && matches!(route.state, RouteState::Up | RouteState::Init)
        {
            let (missed, threshold) = (route.early(), route.spec.timing.threshold.get());
            let peer = self.id;
            context.event(now, EventKind::EarlyWarning { route: id, peer, missed, threshold });
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn wake(&self) -> Option<Time> {
        let timers = self
            .routes
            .values()
            .flat_map(|r| [r.next_request, r.deadline, r.early_warning(), r.suspect_until()]);
        let account = self.account.map(|account| account.due);
        let others = [select::next_return(&self.routes, self.active), account, self.unsettled];
        timers.chain(others).flatten().min()
    }

    /// The peer's row of the forwarding table.
    pub(crate) fn row(&self) -> PeerForwarding {
        let mut candidates: Vec<_> =
            self.routes.values().filter(|route| route.reaches() && !route.admin_down).collect();
        candidates.sort_by_key(|route| (preference(route), select::rank(route)));
        let backups: Vec<_> = candidates
            .iter()
            .filter(|route| route.state == RouteState::Up && Some(route.id) != self.active)
            .map(|route| route.id)
            .collect();
        let up = |route: &&&Route| route.state == RouteState::Up;
        let fit = |route: &&&Route| spreads(route, self.settled);
        let spread = candidates.iter().filter(up).filter(fit);
        let suspects = candidates.iter().filter(up).filter(|route| route.suspect.is_some());
        let (spread, suspects) =
            (spread.map(|route| route.id).collect(), suspects.map(|route| route.id).collect());
        let active = self.active.and_then(|id| self.routes.get(&id));
        let suspect = active.is_some_and(|route| route.suspect.is_some());
        PeerForwarding {
            peer: self.id,
            active: self.active,
            duplicate: if suspect { backups.first().copied() } else { None },
            backups,
            spread,
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

    pub(crate) fn route_status(&self, now: Time) -> impl Iterator<Item = RouteStatus> {
        self.routes.values().map(move |route| RouteStatus {
            id: route.id,
            spec: route.spec.clone(),
            state: route.state,
            tx: route.tx,
            rx: route.rx,
            active: self.active == Some(route.id),
            suspect: route.suspect.is_some(),
            hold: route.hold.left(now),
            flaps: route.hold.flaps(now),
            brown_out: route.health.brown,
            drain: route.drain_status(self.active == Some(route.id), self.heard),
            rtt: route.quality.rtt(),
            jitter: route.quality.jitter(),
            loss: f32::from(route.inbound.loss_permille()) / 1000.0,
            loss_out: f32::from(route.health.loss()) / 1000.0,
            heartbeats_sent: route.sent,
            heartbeats_missed: route.missed,
            last_change: route.last_change,
            reason: route.reason,
            path_mtu: route.mtu.packet(),
            path_mtu_status: route.mtu.status(),
        })
    }
}

/// Whether a policy of several routes may use this one too.
pub(crate) fn spreads(route: &Route, now: Time) -> bool {
    route.state == RouteState::Up && route.hold.over(now) && !route.drained() && !route.health.brown
}

fn preference(route: &Route) -> u8 {
    match route.state {
        RouteState::Up => 0,
        RouteState::Init => 1,
        RouteState::Down | RouteState::AdminDown => 2,
    }
}
