//! State of the invariants between steps, and the rules about single outputs: request cadence,
//! early downs, wakes.

use std::time::Duration;

use crate::{
    ids::RouteId,
    route::{Event, EventKind, Reason, RouteStatus},
    sim::{
        bounds::TimingBounds,
        node::{LocalInput, SimNode},
        scenario::Scenario,
        truth::GroundTruth,
    },
    time::Time,
    wire::heartbeat::{Heartbeat, HeartbeatMessage},
};

/// Shortest time between two moves of data off one route for its loss.
const MIN_LEAVE_INTERVAL: Duration = Duration::from_secs(5);

/// A broken rule as text.
pub(crate) type CheckResult = Result<(), String>;

/// Observations of one route of one node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RouteObservation {
    /// When the engine last received a heartbeat.
    pub(crate) last_heard: Option<Time>,
    /// When a heartbeat last arrived that an interrupted worker held.
    last_held: Option<Time>,
    /// When the last request was sent; `None` after a disturbance of the cadence.
    pub(crate) last_request: Option<Time>,
    /// When the last request or reply was sent; `None` after a disturbance of the cadence.
    pub(crate) last_sent: Option<Time>,
    /// The last reply sent: the request's sequence, and when.
    pub(crate) last_reply: Option<(u32, Time)>,
    /// The engine has a fault of this end.
    pub(crate) faulted: bool,
    /// The engine has the route admin-down.
    admin_down: bool,
    /// Since when the route is up at one end only (kept at the lower node).
    pub(crate) disagree_since: Option<Time>,
    /// Since when the route is suspect.
    pub(crate) suspect_since: Option<Time>,
    /// Since when it is active.
    pub(crate) active_since: Option<Time>,
    /// When data last left it for its loss.
    left_for_loss: Option<Time>,
}

impl RouteObservation {
    /// Restarts the cadence.
    pub(crate) fn reset_cadence(&mut self) {
        (self.last_request, self.last_sent) = (None, None);
    }
}

/// State of the invariants about engines.
#[derive(Clone, Debug)]
pub(crate) struct InvariantChecker {
    pub(crate) bounds: TimingBounds,
    pub(crate) truth: GroundTruth,
    nodes: usize,
    networks: usize,
    observations: Vec<RouteObservation>,
    /// Per node and peer: when the node's report to the peer last changed. It is sent at once, so
    /// the next requests come early.
    report_changed_at: Vec<Option<Time>>,
    /// Per node: when it was resumed, until it reports the stall.
    resumed_at: Vec<Option<Time>>,
    /// Per node: when it last reported a stall.
    stall_reported_at: Vec<Option<Time>>,
}

impl InvariantChecker {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let (nodes, networks) = (scenario.nodes, scenario.networks.len());
        Self {
            bounds: TimingBounds::new(scenario),
            truth: GroundTruth::new(nodes, networks),
            nodes,
            networks,
            observations: vec![RouteObservation::default(); nodes * nodes * networks],
            report_changed_at: vec![None; nodes * nodes],
            resumed_at: vec![None; nodes],
            stall_reported_at: vec![None; nodes],
        }
    }

    pub(crate) fn observation_mut(
        &mut self,
        node: usize,
        peer: usize,
        network: usize,
    ) -> &mut RouteObservation {
        &mut self.observations[(node * self.nodes + peer) * self.networks + network]
    }

    pub(crate) fn note_heartbeat(&mut self, node: usize, peer: usize, network: usize, now: Time) {
        self.observation_mut(node, peer, network).last_heard = Some(now);
    }

    /// Notes a heartbeat that an interrupted worker holds.
    pub(crate) fn note_arrival(&mut self, node: usize, peer: usize, network: usize, now: Time) {
        self.observation_mut(node, peer, network).last_held = Some(now);
    }

    /// Restarts the cadence with a peer whose session began or ended.
    pub(crate) fn reset_peer_cadence(&mut self, node: usize, peer: usize) {
        for network in 0..self.networks {
            self.observation_mut(node, peer, network).reset_cadence();
        }
    }

    /// Forgets everything of a node whose engine is new.
    pub(crate) fn reset_node(&mut self, node: usize) {
        self.resumed_at[node] = None;
        self.stall_reported_at[node] = None;
        for peer in 0..self.nodes {
            for network in 0..self.networks {
                *self.observation_mut(node, peer, network) = RouteObservation::default();
            }
        }
    }

    /// Notes that the node was not scheduled: its requests are late.
    pub(crate) fn note_resumed(&mut self, node: usize, now: Time) {
        self.resumed_at[node] = Some(now);
        for peer in 0..self.nodes {
            self.reset_peer_cadence(node, peer);
        }
    }

    /// Notes an input from the node's kernel or operator.
    pub(crate) fn note_local_input(
        &mut self,
        scenario: &Scenario,
        node: usize,
        now: Time,
        input: &LocalInput,
    ) {
        let (LocalInput::Fault { route, .. }
        | LocalInput::FaultCleared { route, .. }
        | LocalInput::ChangeRoute { route, .. }) = *input;
        let Some((peer, network)) = scenario.peer_and_network(node, route) else { return };
        let observation = self.observation_mut(node, peer, network);
        let report_changes = match input {
            LocalInput::Fault { .. } | LocalInput::FaultCleared { .. } => {
                observation.faulted = matches!(input, LocalInput::Fault { .. });
                observation.reset_cadence();
                true
            }
            LocalInput::ChangeRoute { change, .. } => {
                observation.admin_down = change.admin_down.unwrap_or(observation.admin_down);
                change.admin_down.or(change.drain).is_some()
            }
        };
        if report_changes {
            self.report_changed_at[node * self.nodes + peer] = Some(now);
        }
    }

    /// Rule 6: a request or a reply goes out at least every 190 % of the delay. Requests of one end
    /// are at least 75 % of it apart, or 25 % when the report to the peer changed.
    pub(crate) fn check_sent(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        now: Time,
        heartbeat: &Heartbeat,
    ) -> CheckResult {
        if heartbeat.message == HeartbeatMessage::Reply {
            let observation = self.observation_mut(node, peer, network);
            observation.last_reply = Some((heartbeat.sequence, now));
            observation.last_sent = observation.last_sent.map(|_| now);
            return Ok(());
        }
        let (delay, slack) = (self.bounds.delay_of(network), self.bounds.slack);
        let changed_at = self.report_changed_at[node * self.nodes + peer];
        // The report covers admin-down routes too, whose changes no event shows.
        let may_have_changed =
            (0..self.networks).any(|n| self.observation_mut(node, peer, n).admin_down);
        let observation = self.observation_mut(node, peer, network);
        let quiet =
            observation.last_sent.replace(now).map(|last| now.since(last)).unwrap_or_default();
        let Some(last) = observation.last_request.replace(now) else { return Ok(()) };
        let gap = now.since(last);
        let has_news = may_have_changed || changed_at.is_some_and(|at| at >= last);
        let least = if has_news { delay / 4 } else { delay * 3 / 4 };
        if gap < least || quiet > delay * 19 / 10 + slack {
            return Err(format!(
                "rule 6: node {node} to {peer} over network {network}: a request {gap:?} after \
                 the last, {quiet:?} after the last heartbeat, at delay {delay:?}"
            ));
        }
        Ok(())
    }

    /// Rule 11: the engine accepted a request, and has answered unless its end has a fault.
    pub(crate) fn check_answered(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        now: Time,
        sequence: u32,
    ) -> CheckResult {
        let observation = self.observation_mut(node, peer, network);
        if observation.faulted || observation.last_reply == Some((sequence, now)) {
            return Ok(());
        }
        Err(format!(
            "rule 11: node {node} to {peer} over network {network}: request {sequence} not answered"
        ))
    }

    /// Rule 4, and changes of the report to the peer. `before` is the node's state before the step:
    /// a route without rx cannot be lost by silence.
    pub(crate) fn check_event(
        &mut self,
        scenario: &Scenario,
        node: usize,
        event: &Event,
        before: &[RouteStatus],
    ) -> CheckResult {
        match event.kind {
            EventKind::StateChanged { route, reason, from, to, .. } => {
                let Some(place) = self.note_changed_report(scenario, node, route, event.at) else {
                    return Ok(());
                };
                let rx = before.iter().any(|status| status.id == route && status.rx);
                if reason == Reason::HeartbeatsMissed && rx && to < from {
                    let least = self.bounds.detection_time_of(place.1);
                    // What waits inside the node was not missed (F-20).
                    let observation = self.observation_mut(node, place.0, place.1);
                    let heard = observation.last_heard.max(observation.last_held);
                    return self.check_silence((node, place), heard, (least, event.at), "down");
                }
            }
            EventKind::RemoteReachable { route, .. } | EventKind::Suspect { route, .. } => {
                self.note_changed_report(scenario, node, route, event.at);
            }
            EventKind::EarlyWarning { route, missed, .. } => {
                if let Some(place) = scenario.peer_and_network(node, route) {
                    let least = self.bounds.delay_of(place.1) * u32::from(missed);
                    let heard = self.observation_mut(node, place.0, place.1).last_heard;
                    let at = (least, event.at);
                    return self.check_silence((node, place), heard, at, "warned of");
                }
            }
            EventKind::Stalled { length } => {
                return self.check_stall_report(node, event.at, length);
            }
            EventKind::Moved { from: Some(route), reason: Reason::DataLoss, .. } => {
                return self.check_alternation(scenario, node, route, event.at);
            }
            EventKind::Moved { to: Some(route), reason, .. } => {
                // A move for a failure or the delay leads to a route whose loss is not known, or
                // back. Alternation returns because a route is taken for better.
                if !matches!(reason, Reason::Failback | Reason::BetterRoute) {
                    self.forget_losses(scenario, node, route);
                }
            }
            EventKind::RouteAdded { .. }
            | EventKind::RouteRemoved { .. }
            | EventKind::RemoteUnreachable { .. }
            | EventKind::RemoteGone { .. }
            | EventKind::Ready { .. }
            | EventKind::SessionEstablished { .. }
            | EventKind::SessionEnded { .. }
            | EventKind::Moved { .. }
            | EventKind::AdapterRestored { .. }
            | EventKind::OverlayFault { .. }
            | EventKind::OverlayLost { .. }
            | EventKind::OverlayAnswers { .. }
            | EventKind::SessionRefused { .. }
            | EventKind::DuplicateNode { .. }
            | EventKind::KeyCopied { .. }
            | EventKind::NameFailed { .. }
            | EventKind::PathMtuChanged { .. }
            | EventKind::SegmentedSends { .. }
            | EventKind::FailoverCost { .. }
            | EventKind::Drain { .. }
            | EventKind::DrillStarted { .. }
            | EventKind::DrillEnded { .. }
            | EventKind::InterfaceListCut { .. }
            | EventKind::VipChanged { .. }
            | EventKind::VipNotice { .. }
            | EventKind::HostSettingChanged { .. }
            | EventKind::OverridesRefused { .. }
            | EventKind::Reconfigured
            | EventKind::NetworkChanged { .. }
            | EventKind::InterfaceChanged { .. }
            | EventKind::AddressLearned { .. } => {}
        }
        Ok(())
    }

    /// Data begins anew after an outage, or after a move for another reason: it takes a route whose
    /// loss is not known, and leaves it for a better one.
    fn forget_losses(&mut self, scenario: &Scenario, node: usize, route: RouteId) {
        let Some((peer, _)) = scenario.peer_and_network(node, route) else { return };
        for network in 0..scenario.networks.len() {
            self.observation_mut(node, peer, network).left_for_loss = None;
        }
    }

    /// Rule 18.
    fn check_alternation(
        &mut self,
        scenario: &Scenario,
        node: usize,
        route: RouteId,
        at: Time,
    ) -> CheckResult {
        let Some((peer, network)) = scenario.peer_and_network(node, route) else { return Ok(()) };
        let before = self.observation_mut(node, peer, network).left_for_loss.replace(at);
        match before.filter(|before| at.since(*before) < MIN_LEAVE_INTERVAL) {
            Some(before) => Err(format!(
                "rule 18: node {node} to {peer}: data left network {network} at {before} and again"
            )),
            None => Ok(()),
        }
    }

    /// Rule 10.
    fn check_stall_report(&mut self, node: usize, at: Time, length: Duration) -> CheckResult {
        if self.resumed_at[node].take() == Some(at) {
            self.stall_reported_at[node] = Some(at);
            return Ok(());
        }
        Err(format!(
            "rule 10: node {node} reports a stall of {length:?} that did not happen, or twice"
        ))
    }

    /// Notes that the report to a route's peer changed; returns the peer and the network.
    fn note_changed_report(
        &mut self,
        scenario: &Scenario,
        node: usize,
        route: RouteId,
        at: Time,
    ) -> Option<(usize, usize)> {
        let place = scenario.peer_and_network(node, route)?;
        self.report_changed_at[node * self.nodes + place.0] = Some(at);
        Some(place)
    }

    fn check_silence(
        &self,
        (node, (peer, network)): (usize, (usize, usize)),
        heard: Option<Time>,
        (least, at): (Duration, Time),
        what: &str,
    ) -> CheckResult {
        let Some(heard) = heard else { return Ok(()) };
        // A node that was stalled restarts every detection time.
        let silence =
            at.since(self.stall_reported_at[node].map_or(heard, |reported| reported.max(heard)));
        if silence >= least {
            return Ok(());
        }
        Err(format!(
            "rule 4: node {node} to {peer} over network {network}: {what} after {silence:?} of \
             silence, before {least:?}"
        ))
    }

    /// Rule 3: while a route may send there is a next wake, and a tick leaves nothing due.
    pub(crate) fn check_next_wake(
        &mut self,
        number: usize,
        now: Time,
        wish: Option<Time>,
        ticked: bool,
        node: &SimNode,
    ) -> CheckResult {
        let sends = (0..self.nodes).filter(|peer| node.sessions[*peer].is_some()).any(|peer| {
            let first = (number * self.nodes + peer) * self.networks;
            self.observations[first..first + self.networks]
                .iter()
                .any(|observation| !observation.faulted)
        });
        match wish {
            None if sends => Err(format!("rule 3: node {number} has routes and no next wake")),
            Some(wish) if ticked && wish <= now => {
                Err(format!("rule 3: node {number} ticked and wants to wake at {wish}"))
            }
            _ => Ok(()),
        }
    }
}
