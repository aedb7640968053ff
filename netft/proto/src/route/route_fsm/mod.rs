//! The state machine of one route. Pure; the engine feeds it and reads it.
//!
//! ```text
//!                 rx = this node hears the peer here
//!                 tx = the peer says it hears this node here, and its end works
//!
//!          ┌── admin ──▶ admin-down          (a local fault, or no session: down)
//!    rx, tx │
//!    no no ─┴─▶ down      yes no / no yes ──▶ init      yes yes ──▶ up
//! ```

use std::time::Duration;

use crate::{
    cadence::alternation::RequestAlternation,
    ids::RouteId,
    route::{
        brownout::PathQuality,
        drain::DrainState,
        event::Reason,
        history::HeartbeatHistory,
        hold_down::HoldDown,
        mtu::PathMtu,
        params::Timing,
        route_stats::{InboundLoss, RequestStats},
        spec::RouteSpec,
        status::RouteState,
    },
    time::Time,
};

/// Heartbeats a route that was lost must be heard with before it counts again (knet's
/// pong_count): one stray packet of a dying path proves nothing.
const HEARTBEATS_TO_RECOVER: u8 = 2;

/// What the peer last said of its end of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemoteReport {
    pub(crate) heard: bool,
    pub(crate) local_down: bool,
    pub(crate) admin_down: bool,
    pub(crate) draining: bool,
    pub(crate) carries: bool,
}

/// One route.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) id: RouteId,
    pub(crate) spec: RouteSpec,
    /// The peer's number of it; 0 until heard.
    pub(crate) remote_route: u32,
    pub(crate) admin_down: bool,
    pub(crate) drain: DrainState,
    /// The local faults that hold.
    faults: Vec<Reason>,
    pub(crate) rx: bool,
    pub(crate) last_heard: Option<Time>,
    /// When a heartbeat of ours was last answered here: both directions worked.
    pub(crate) last_answered: Option<Time>,
    /// When rx ends unless something is heard.
    pub(crate) deadline: Option<Time>,
    /// When to warn that 40 % of the threshold are missed; `None` once warned.
    pub(crate) early_warning_at: Option<Time>,
    consecutive_heard: u8,
    /// Serial of the heartbeat heard last: a copy of it proves nothing more.
    last_serial: Option<u32>,
    was_lost: bool,
    pub(crate) report: Option<RemoteReport>,
    pub(crate) tx: bool,
    /// rx and tx as they were settled last.
    last_directions: (bool, bool),
    /// Since when data stays unacknowledged here, while the route is up.
    pub(crate) suspect_since: Option<Time>,
    pub(crate) suspect_end: Option<Time>,
    pub(crate) next_request: Option<Time>,
    pub(crate) last_request: Option<Time>,
    pub(crate) alternation: RequestAlternation,
    pub(crate) state: RouteState,
    pub(crate) last_change: Time,
    pub(crate) reason: Reason,
    /// Why rx ended, or never began.
    rx_loss_reason: Reason,
    /// Why the route lost a direction, or was taken out of use, last.
    pub(crate) loss_reason: Reason,
    pub(crate) hold_down: HoldDown,
    pub(crate) request_stats: RequestStats,
    pub(crate) inbound_loss: InboundLoss,
    pub(crate) path_quality: PathQuality,
    pub(crate) history: HeartbeatHistory,
    pub(crate) requests_sent: u64,
    pub(crate) heartbeats_missed: u64,
    pub(crate) mtu: PathMtu,
}

impl Route {
    pub(crate) fn new(id: RouteId, spec: RouteSpec, now: Time, history: usize) -> Self {
        let mtu = PathMtu::new(if spec.real_remote.is_ipv4() { 28 } else { 48 });
        Self {
            id,
            spec,
            remote_route: 0,
            admin_down: false,
            drain: DrainState::default(),
            faults: Vec::new(),
            rx: false,
            last_heard: None,
            last_answered: None,
            deadline: None,
            early_warning_at: None,
            consecutive_heard: 0,
            last_serial: None,
            was_lost: false,
            report: None,
            tx: false,
            suspect_since: None,
            suspect_end: None,
            last_directions: (false, false),
            next_request: None,
            last_request: None,
            alternation: RequestAlternation::default(),
            state: RouteState::Down,
            last_change: now,
            reason: Reason::Added,
            rx_loss_reason: Reason::Added,
            loss_reason: Reason::Added,
            hold_down: HoldDown::default(),
            request_stats: RequestStats::default(),
            inbound_loss: InboundLoss::default(),
            path_quality: PathQuality::default(),
            history: HeartbeatHistory::new(history),
            requests_sent: 0,
            heartbeats_missed: 0,
            mtu,
        }
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

    /// Asks at `at` at the latest, whoever's turn it is.
    pub(crate) fn request_by(&mut self, at: Time) {
        self.next_request = self.next_request.map(|planned| planned.min(at));
        self.alternation.force_next_request();
    }

    /// Asks as soon as may be without what it asks becoming a flood: four times per delay.
    pub(crate) fn request_soon(&mut self, now: Time) {
        let soonest = self.last_request.map_or(now, |last| last + self.delay() / 4);
        self.request_by(soonest.max(now));
    }

    /// Whether it may be asked now because it is this end's turn on another route.
    pub(crate) fn can_request_early(&self, now: Time) -> bool {
        let soonest =
            self.last_request.map(|last| RequestAlternation::earliest_request(last, self.delay()));
        self.alternation.is_peers_turn() && soonest.is_some_and(|soonest| soonest <= now)
    }

    /// Whether the ends may ask in turn: a silence of two delays is far from the detection time,
    /// and a reply comes long before the peer's next request.
    pub(crate) fn can_alternate(&self) -> bool {
        let near = self.request_stats.rtt().is_some_and(|rtt| rtt * 4 <= self.delay());
        near && self.spec.timing.threshold.get() >= 4 && self.is_undisturbed()
    }

    /// Asks within the delay after all where something is amiss.
    pub(crate) fn enforce_cadence(&mut self, now: Time) {
        if !self.is_undisturbed() {
            self.alternation.reset_steady();
        }
        if self.alternation.take_back_turn() {
            let latest = self.last_request.map_or(now, |last| last + self.delay()).max(now);
            self.next_request = self.next_request.map(|planned| planned.min(latest));
        }
    }

    /// Nothing is amiss that both ends had better look at every delay.
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.state == RouteState::Up
            && self.suspect_since.is_none()
            && !self.drain.is_ordered()
            && !self.mtu.is_probing()
            && self.inbound_loss.loss_permille() == 0
    }

    /// Whether the control session may use it: that is QUIC whatever the carrier, and needs no
    /// connection of the route's own.
    pub(crate) fn can_carry_control(&self) -> bool {
        self.faults.iter().all(|fault| *fault == Reason::NoConnection)
    }

    /// When to wake up for the warning. Where this end asks soon anyway it can wait until then.
    pub(crate) fn early_warning_wake(&self) -> Option<Time> {
        self.early_warning_at.filter(|_| !self.alternation.is_peers_turn())
    }

    /// Whether a timer of the heartbeats, or of a suspicion, is due.
    pub(crate) fn has_timer_due(&self, now: Time) -> bool {
        let timers = [self.deadline, self.early_warning_at, self.suspect_until()];
        timers.into_iter().flatten().any(|at| at <= now)
    }

    /// When a suspicion ends at the latest.
    pub(crate) fn suspect_until(&self) -> Option<Time> {
        self.suspect_since.and(self.suspect_end)
    }

    /// May carry data: both ways proven, or at least ours.
    pub(crate) fn can_carry_data(&self) -> bool {
        self.tx && !self.has_fault() && !self.admin_down
    }

    /// Counts a heartbeat as heard. Returns whether rx began with it.
    pub(crate) fn on_heartbeat(&mut self, now: Time, serial: u32) -> bool {
        let gap = self.last_heard.map(|last| now.since(last));
        let delay = self.delay();
        self.alternation.on_heartbeat(gap, delay);
        if let Some(gap) = gap.filter(|gap| self.rx && *gap >= delay * 2) {
            // The heartbeat that ended the gap was not missed.
            self.heartbeats_missed += (gap.as_nanos() / delay.as_nanos()) as u64 - 1;
        }
        let recent = gap.is_some_and(|gap| gap < self.detection_time());
        let copy = self.last_serial.replace(serial) == Some(serial);
        self.consecutive_heard = match (recent, copy) {
            (true, true) => self.consecutive_heard.max(1),
            (true, false) => self.consecutive_heard.saturating_add(1),
            (false, _) => 1,
        };
        self.last_heard = Some(now);
        let needed = if self.was_lost { HEARTBEATS_TO_RECOVER } else { 1 };
        let begins = !self.rx && self.consecutive_heard >= needed && !self.has_fault();
        if begins {
            self.rx = true;
            self.inbound_loss = InboundLoss::default();
            self.path_quality.reset_measurements();
        }
        if self.rx {
            // What was granted beyond the last heartbeat stays granted.
            let granted = [self.deadline, self.early_warning_at].map(|at| at.filter(|_| !begins));
            self.arm_deadlines(now);
            self.deadline = self.deadline.max(granted[0]);
            self.early_warning_at = self.early_warning_at.max(granted[1]);
        }
        begins
    }

    /// The peer says that it was not scheduled for `stalled` just before what is about to be
    /// heard: what it did not send meanwhile was not lost here (reliability F-20).
    pub(crate) fn excuse_peer_stall(&mut self, now: Time, stalled: Duration) {
        let Some(last) = self.last_heard else { return };
        // It says so for a second: only a silence that spans the stall is excused by it.
        let silence = now.since(last);
        if silence + self.delay() * 2 < stalled {
            return;
        }
        self.last_heard = Some((last + stalled).min(now));
        self.suspect_since = None;
        if !self.rx && silence <= stalled + self.detection_time() {
            self.hold_down.forgive_loss();
        }
    }

    /// Sets the deadline and the warning from `since`, when something was heard last.
    pub(crate) fn arm_deadlines(&mut self, since: Time) {
        self.deadline = Some(since + self.detection_time());
        self.early_warning_at = Some(since + self.delay() * u32::from(self.early_warning_misses()));
    }

    /// Missed heartbeats to warn at: two fifths of the threshold, rounded up (NetFT's
    /// NetftTwoFifthMissedHeartbeats).
    pub(crate) fn early_warning_misses(&self) -> u16 {
        (self.spec.timing.threshold.get() * 2).div_ceil(5)
    }

    /// Takes over a new timing. A shorter detection time begins when it is agreed on: what the
    /// peer sent at the old pace was in time (RFC 5880 section 6.8.3 has the same rule).
    pub(crate) fn set_timing(&mut self, now: Time, timing: Timing) {
        self.spec.timing = timing;
        let (Some(heard), Some(deadline)) = (self.last_heard, self.deadline) else { return };
        let warned = self.early_warning_at.is_none();
        let longer = heard + timing.detection_time() >= deadline;
        self.arm_deadlines(if longer { heard } else { now });
        if !longer {
            self.deadline = self.deadline.min(Some(deadline));
        }
        if warned {
            self.early_warning_at = None;
        }
    }

    /// Something unread waits where heartbeats arrive: whoever reads there was not scheduled. The
    /// route gets a delay more, again and again, for one more detection time at most (F-20).
    pub(crate) fn extend_for_unread(&mut self, now: Time) {
        let (Some(heard), Some(deadline)) = (self.last_heard, self.deadline) else { return };
        let most = heard + self.detection_time() * 2;
        self.deadline = Some(deadline.max((now + self.delay()).min(most)));
    }

    /// The detection time went by in silence.
    pub(crate) fn on_detection_timeout(&mut self) {
        self.heartbeats_missed += u64::from(self.spec.timing.threshold.get());
        self.end_rx(Reason::HeartbeatsMissed);
    }

    /// Nothing is heard here any more, for `cause`.
    pub(crate) fn end_rx(&mut self, cause: Reason) {
        if self.rx {
            self.was_lost = true;
        }
        self.rx = false;
        self.consecutive_heard = 0;
        self.deadline = None;
        self.early_warning_at = None;
        self.rx_loss_reason = cause;
    }

    /// A local fault begins. Returns whether the route was whole.
    pub(crate) fn add_fault(&mut self, reason: Reason) -> bool {
        let whole = !self.has_fault();
        if !self.faults.contains(&reason) {
            self.faults.push(reason);
        }
        self.end_rx(reason);
        whole
    }

    /// A local fault is over. Returns whether the route is whole by that.
    pub(crate) fn clear_fault(&mut self, reason: Reason) -> bool {
        let before = self.faults.len();
        self.faults.retain(|fault| *fault != reason);
        before > 0 && self.faults.is_empty()
    }

    /// Forgets everything a session proved; the route starts afresh.
    pub(crate) fn reset_session(&mut self, cause: Reason) {
        self.end_rx(cause);
        self.was_lost = false;
        self.remote_route = 0;
        self.report = None;
    }

    /// Takes over whether this node may send here, and derives the state from all that is
    /// proven. Returns the state before, if it was another.
    pub(crate) fn update_state(&mut self, now: Time, tx: bool) -> Option<RouteState> {
        self.tx = tx && !self.has_fault();
        let to = self.derive_state();
        let from = std::mem::replace(&mut self.state, to);
        let (rx, tx) = std::mem::replace(&mut self.last_directions, (self.rx, self.tx));
        // Heartbeats go on out of use, so nothing is lost or gained by coming back.
        let (rx, tx) = if from == RouteState::AdminDown { (false, false) } else { (rx, tx) };
        let lost = (rx && !self.rx, tx && !self.tx);
        let reason = self.state_reason(lost);
        if lost != (false, false) || to == RouteState::AdminDown {
            self.loss_reason = reason;
        }
        if from == to {
            return None;
        }
        self.last_change = now;
        self.reason = reason;
        // The heartbeats have decided.
        self.suspect_since = None;
        Some(from)
    }

    fn derive_state(&self) -> RouteState {
        if self.admin_down {
            RouteState::AdminDown
        } else if self.has_fault() {
            RouteState::Down
        } else {
            match (self.rx, self.tx) {
                (true, true) => RouteState::Up,
                (false, false) => RouteState::Down,
                (true, false) | (false, true) => RouteState::Init,
            }
        }
    }

    /// Why the route is in its state, having lost these directions.
    fn state_reason(&self, (lost_rx, lost_tx): (bool, bool)) -> Reason {
        if let Some(fault) = self.faults.last().filter(|_| !self.admin_down) {
            return *fault;
        }
        match (self.state, self.rx) {
            (RouteState::AdminDown, _) => Reason::Admin,
            (RouteState::Up, _) => Reason::BothWays,
            _ if lost_rx => self.rx_loss_reason,
            _ if lost_tx => self.tx_loss_reason(),
            (RouteState::Init, true) => Reason::Heard,
            (RouteState::Init, false) => Reason::PeerHears,
            (RouteState::Down, _) => self.rx_loss_reason,
        }
    }

    /// Why this node may not send here.
    fn tx_loss_reason(&self) -> Reason {
        match self.report {
            None if self.remote_route == 0 => self.rx_loss_reason,
            Some(report) if report.admin_down => Reason::PeerAdmin,
            Some(report) if report.local_down => Reason::PeerLocalDown,
            Some(report) if report.heard => Reason::HeardNowhere,
            None | Some(_) => Reason::PeerDoesNotHear,
        }
    }
}

#[cfg(test)]
mod tests;
