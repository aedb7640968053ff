//! One route to a peer: the composition of its state machine, liveness, suspicion, hold-down,
//! measurements and path MTU. Pure.

use std::time::Duration;

use crate::{
    cadence::request_schedule::RequestSchedule,
    ids::RouteId,
    route::{
        brownout::PathQuality,
        drain_state::{DrainState, DrainStatus},
        history::HeartbeatHistory,
        hold_down::HoldDown,
        liveness::Liveness,
        mtu::PathMtu,
        params::Timing,
        report::RemoteEnd,
        route_fsm::{DerivedState, RouteFacts},
        route_stats::{InboundLoss, RouteStats},
        spec::RouteSpec,
        state::{Reason, RouteState},
        suspicion::Suspicion,
    },
    time::Time,
};

/// One route.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) id: RouteId,
    pub(crate) spec: RouteSpec,
    pub(crate) remote: RemoteEnd,
    pub(crate) admin_down: bool,
    /// The local faults that hold.
    faults: Vec<Reason>,
    pub(crate) liveness: Liveness,
    pub(crate) derived: DerivedState,
    pub(crate) suspicion: Suspicion,
    pub(crate) drain: DrainState,
    pub(crate) hold_down: HoldDown,
    pub(crate) requests: RequestSchedule,
    pub(crate) stats: RouteStats,
    pub(crate) path_quality: PathQuality,
    pub(crate) history: HeartbeatHistory,
    pub(crate) mtu: PathMtu,
}

impl Route {
    pub(crate) fn new(id: RouteId, spec: RouteSpec, now: Time, history: usize) -> Self {
        let mtu = PathMtu::new(if spec.real_remote.is_ipv4() { 28 } else { 48 });
        Self {
            id,
            spec,
            remote: RemoteEnd::default(),
            admin_down: false,
            faults: Vec::new(),
            liveness: Liveness::new(),
            derived: DerivedState::new(now),
            suspicion: Suspicion::default(),
            drain: DrainState::default(),
            hold_down: HoldDown::default(),
            requests: RequestSchedule::default(),
            stats: RouteStats::default(),
            path_quality: PathQuality::default(),
            history: HeartbeatHistory::new(history),
            mtu,
        }
    }

    pub(crate) fn state(&self) -> RouteState {
        self.derived.state
    }

    pub(crate) fn is_up(&self) -> bool {
        self.derived.state == RouteState::Up
    }

    pub(crate) fn detection_time(&self) -> Duration {
        self.spec.timing.detection_time()
    }

    pub(crate) fn delay(&self) -> Duration {
        self.spec.timing.delay.as_duration()
    }

    pub(crate) fn has_fault(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Returns whether data may leave on the route: up, or only this node's direction proven.
    pub(crate) fn can_carry_data(&self) -> bool {
        self.derived.tx && !self.has_fault() && !self.admin_down
    }

    /// Returns whether the control session may use it. That is QUIC whatever the transport, and
    /// needs no connection of the route's own.
    pub(crate) fn can_carry_control(&self) -> bool {
        self.faults.iter().all(|fault| *fault == Reason::NoConnection)
    }

    /// Drained by an operator at either end: it carries data only as the last resort.
    pub(crate) fn is_drained(&self) -> bool {
        self.drain.is_ordered() || self.remote.is_draining()
    }

    /// Progress of a drain. `active`: data leaves on the route; `heard`: the peer is heard on some
    /// route.
    pub(crate) fn drain_status(&self, active: bool, heard: bool) -> Option<DrainStatus> {
        self.is_drained().then_some(DrainStatus {
            here: self.drain.is_ordered(),
            at_peer: self.remote.is_draining(),
            left_here: !active,
            left_at_peer: !heard || (self.drain.is_peer_informed() && !self.remote.carries_data()),
        })
    }

    /// Returns whether nothing about the route needs a heartbeat every delay.
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.is_up()
            && !self.suspicion.is_suspect()
            && !self.drain.is_ordered()
            && !self.mtu.is_probing()
            && self.stats.inbound_loss.loss_permille() == 0
    }

    /// Returns whether the ends may alternate in sending requests: a silence of two delays is then
    /// far from the detection time, and a reply arrives long before the peer's next request.
    pub(crate) fn can_alternate(&self) -> bool {
        let near = self.stats.requests.rtt().is_some_and(|rtt| rtt * 4 <= self.delay());
        near && self.spec.timing.threshold.get() >= 4 && self.is_undisturbed()
    }

    /// Returns whether a deadline, an early warning or a suspicion is due.
    pub(crate) fn has_timer_due(&self, now: Time) -> bool {
        let liveness = &self.liveness;
        let timers = [liveness.deadline, liveness.early_warning_at, self.suspicion.expiry()];
        timers.into_iter().flatten().any(|at| at <= now)
    }

    /// The time to the next request while the peer gives no sign on the route, if it is longer than
    /// the delay: it was never heard there, and does not report that it hears this node.
    pub(crate) fn backoff(&self, now: Time) -> Option<Duration> {
        let is_heard = self.remote.report.is_some_and(|report| report.heard);
        if self.liveness.last_heard.is_some() || is_heard {
            return None;
        }
        self.requests.backoff(now).filter(|pause| *pause > self.delay())
    }

    /// Returns to the full rate of requests once the peer gives a sign.
    pub(crate) fn end_backoff(&mut self, now: Time) {
        if self.requests.backs_off() && self.backoff(now).is_none() && !self.has_fault() {
            self.requests.start(now);
        }
    }

    /// Why the route is in its state, as an operator sees it.
    pub(crate) fn status_reason(&self, now: Time) -> Reason {
        match self.derived.reason {
            Reason::Added if self.backoff(now).is_some() => Reason::NeverHeard,
            reason => reason,
        }
    }

    /// When the next timer of the route is due. In the peer's turn the early warning can wait for
    /// the next request.
    pub(crate) fn next_wake(&self) -> Option<Time> {
        let Liveness { deadline, early_warning_at, .. } = self.liveness;
        let warning = early_warning_at.filter(|_| !self.requests.alternation.is_peers_turn());
        let timers = [self.requests.next, deadline, warning, self.suspicion.expiry()];
        timers.into_iter().flatten().min()
    }

    /// Counts a heartbeat received at `now`. Returns whether rx began with it.
    pub(crate) fn on_heartbeat(&mut self, (now, at): (Time, Time), serial: u32) -> bool {
        let (timing, has_fault) = (self.spec.timing, self.has_fault());
        // One that waited for a whole detection time inside this node says nothing of the present:
        // receipt that began with it would end at once (F-20).
        if !self.liveness.rx && now.since(at) >= timing.detection_time() {
            return false;
        }
        let (now, gap) = (at, self.liveness.last_heard.map(|last| at.since(last)));
        self.requests.alternation.on_heartbeat(gap, timing.delay.as_duration());
        let begins = self.liveness.on_heartbeat(now, serial, timing, has_fault);
        if begins {
            self.stats.inbound_loss = InboundLoss::default();
            self.path_quality.reset_measurements();
        }
        begins
    }

    /// Excuses the silence before a heartbeat whose sender reports a scheduling stall.
    pub(crate) fn excuse_peer_stall(&mut self, now: Time, stalled: Duration) {
        let Some(silence) = self.liveness.excuse_peer_stall(now, stalled, self.delay()) else {
            return;
        };
        self.suspicion.clear();
        if !self.liveness.rx && silence <= stalled + self.detection_time() {
            self.hold_down.forgive_loss();
        }
    }

    /// Adopts a new timing.
    pub(crate) fn set_timing(&mut self, now: Time, timing: Timing) {
        self.spec.timing = timing;
        self.liveness.on_timing_changed(now, timing);
    }

    /// A local fault begins.
    pub(crate) fn add_fault(&mut self, reason: Reason) {
        if !self.faults.contains(&reason) {
            self.faults.push(reason);
        }
        self.liveness.end_rx(reason);
    }

    /// A local fault ends. Returns whether it was the last one.
    pub(crate) fn clear_fault(&mut self, reason: Reason) -> bool {
        let before = self.faults.len();
        self.faults.retain(|fault| *fault != reason);
        before > 0 && self.faults.is_empty()
    }

    /// Discards everything a session proved.
    pub(crate) fn reset_session(&mut self, reason: Reason) {
        self.liveness.reset_session(reason);
        self.remote = RemoteEnd::default();
    }

    /// Updates the derived state; `tx`: this node may send there. Returns the previous state if it
    /// changed. A change ends a suspicion: heartbeats have decided about the route.
    pub(crate) fn update_state(&mut self, now: Time, tx: bool) -> Option<RouteState> {
        let rx_loss_reason = self.liveness.loss_reason;
        let facts = RouteFacts {
            admin_down: self.admin_down,
            fault: self.faults.last().copied(),
            rx: self.liveness.rx,
            tx: tx && !self.has_fault(),
            rx_loss_reason,
            tx_loss_reason: self.remote.tx_loss_reason().unwrap_or(rx_loss_reason),
        };
        let from = self.derived.update(now, &facts)?;
        self.suspicion.clear();
        if from == RouteState::Up || self.is_up() {
            self.path_quality.data.void_evidence(now);
        }
        Some(from)
    }
}
