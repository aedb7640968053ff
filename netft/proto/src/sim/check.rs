//! What the invariants remember between two looks, and the rules about single outputs: request
//! cadence, downs that come too early, wakes.

use std::time::Duration;

use crate::{
    engine::EngineInput,
    ids::RouteId,
    route::{Event, EventKind, Reason, RouteStatus},
    sim::{bounds::TimingBounds, node::SimNode, scenario::Scenario},
    time::Time,
    wire::heartbeat::{Heartbeat, HeartbeatMessage},
};

/// A rule that was broken, in words.
pub(crate) type CheckResult = Result<(), String>;

/// What is remembered of one route of one node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RouteObservation {
    /// When a heartbeat was given to the engine last.
    pub(crate) last_heard: Option<Time>,
    /// When the last request was sent, while nothing disturbed the cadence.
    pub(crate) last_request: Option<Time>,
    /// When the last request or reply was sent, as long.
    pub(crate) last_sent: Option<Time>,
    /// The last reply sent: the request's sequence, and when.
    pub(crate) last_reply: Option<(u32, Time)>,
    /// The engine was told of a fault of this end.
    pub(crate) faulted: bool,
    /// The engine was told that the route is out of use.
    out_of_use: bool,
    /// Since when one end says up and the other does not (kept at the lower node).
    pub(crate) disagree_since: Option<Time>,
    /// Since when the engine holds the route for suspect.
    pub(crate) suspect_since: Option<Time>,
}

impl RouteObservation {
    /// The cadence starts afresh.
    fn reset_cadence(&mut self) {
        (self.last_request, self.last_sent) = (None, None);
    }
}

/// The memory of all invariants.
#[derive(Clone, Debug)]
pub(crate) struct InvariantChecker {
    pub(crate) bounds: TimingBounds,
    nodes: usize,
    networks: usize,
    observations: Vec<RouteObservation>,
    /// Per node and peer: when the node's word to the peer changed last. It is told at once, so
    /// the next requests come early.
    last_news: Vec<Option<Time>>,
    /// Per node: when it was resumed, until it tells.
    resumed_at: Vec<Option<Time>>,
    /// Per node: when it told of a stall last.
    stall_reported_at: Vec<Option<Time>>,
}

impl InvariantChecker {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let (nodes, networks) = (scenario.nodes, scenario.networks.len());
        Self {
            bounds: TimingBounds::new(scenario),
            nodes,
            networks,
            observations: vec![RouteObservation::default(); nodes * nodes * networks],
            last_news: vec![None; nodes * nodes],
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

    /// A session began or ended: the cadence starts afresh.
    pub(crate) fn reset_peer_cadence(&mut self, node: usize, peer: usize) {
        for network in 0..self.networks {
            self.observation_mut(node, peer, network).reset_cadence();
        }
    }

    /// A new engine.
    pub(crate) fn reset_node(&mut self, node: usize) {
        self.resumed_at[node] = None;
        self.stall_reported_at[node] = None;
        for peer in 0..self.nodes {
            for network in 0..self.networks {
                *self.observation_mut(node, peer, network) = RouteObservation::default();
            }
        }
    }

    /// The node was not scheduled: its requests are late.
    pub(crate) fn note_resumed(&mut self, node: usize, now: Time) {
        self.resumed_at[node] = Some(now);
        for peer in 0..self.nodes {
            self.reset_peer_cadence(node, peer);
        }
    }

    /// The node's kernel, or its operator, told it something.
    pub(crate) fn note_local_input(
        &mut self,
        scenario: &Scenario,
        node: usize,
        now: Time,
        input: &EngineInput,
    ) {
        if let EngineInput::ChangeRoute { id, change } = input
            && let Some(place) = scenario.peer_and_network(node, *id)
        {
            if let Some(down) = change.admin_down {
                self.observation_mut(node, place.0, place.1).out_of_use = down;
            }
            if change.admin_down.or(change.drain).is_some() {
                self.last_news[node * self.nodes + place.0] = Some(now);
            }
        }
        let (route, faulted) = match input {
            EngineInput::Fault { route, .. } => (*route, true),
            EngineInput::FaultCleared { route, .. } => (*route, false),
            _ => return,
        };
        if let Some((peer, network)) = scenario.peer_and_network(node, route) {
            let memory = self.observation_mut(node, peer, network);
            memory.faulted = faulted;
            memory.reset_cadence();
            self.last_news[node * self.nodes + peer] = Some(now);
        }
    }

    /// Rule 6: a request or a reply goes out at least every 190 % of the delay. Requests of one
    /// end are 75 % of it apart; less, but never within a quarter of it, only to tell news.
    pub(crate) fn check_sent(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        now: Time,
        heartbeat: &Heartbeat,
    ) -> CheckResult {
        if heartbeat.message == HeartbeatMessage::Reply {
            let memory = self.observation_mut(node, peer, network);
            memory.last_reply = Some((heartbeat.sequence, now));
            memory.last_sent = memory.last_sent.map(|_| now);
            return Ok(());
        }
        let (delay, slack) = (self.bounds.delay_of(network), self.bounds.slack);
        let news = self.last_news[node * self.nodes + peer];
        // What is heard on a route out of use is told too, and no event shows it.
        let unseen = (0..self.networks).any(|n| self.observation_mut(node, peer, n).out_of_use);
        let memory = self.observation_mut(node, peer, network);
        let quiet = memory.last_sent.replace(now).map(|last| now.since(last)).unwrap_or_default();
        let Some(last) = memory.last_request.replace(now) else { return Ok(()) };
        let gap = now.since(last);
        let has_news = unseen || news.is_some_and(|at| at >= last);
        let least = if has_news { delay / 4 } else { delay * 3 / 4 };
        if gap < least || quiet > delay * 19 / 10 + slack {
            return Err(format!(
                "rule 6: node {node} to {peer} over network {network}: a request {gap:?} after \
                 the last, {quiet:?} after the last heartbeat, at delay {delay:?}"
            ));
        }
        Ok(())
    }

    /// Rule 11: the engine took a request in, and has answered unless its end is broken.
    pub(crate) fn check_answered(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        now: Time,
        sequence: u32,
    ) -> CheckResult {
        let memory = self.observation_mut(node, peer, network);
        if memory.faulted || memory.last_reply == Some((sequence, now)) {
            return Ok(());
        }
        Err(format!(
            "rule 11: node {node} to {peer} over network {network}: request {sequence} not answered"
        ))
    }

    /// Rule 4, and news. `before` is the node's state before the step: a route that was not
    /// heard cannot be lost by silence.
    pub(crate) fn check_event(
        &mut self,
        scenario: &Scenario,
        node: usize,
        event: &Event,
        before: &[RouteStatus],
    ) -> CheckResult {
        match event.kind {
            EventKind::StateChanged { route, reason, from, to, .. } => {
                let Some(place) = self.note_route_news(scenario, node, route, event.at) else {
                    return Ok(());
                };
                let rx = before.iter().any(|status| status.id == route && status.rx);
                if reason == Reason::HeartbeatsMissed && rx && to < from {
                    let least = self.bounds.detection_time_of(place.1);
                    return self.check_silence(node, place, least, event.at, "down");
                }
            }
            EventKind::RemoteReachable { route, .. } | EventKind::Suspect { route, .. } => {
                self.note_route_news(scenario, node, route, event.at);
            }
            EventKind::EarlyWarning { route, missed, .. } => {
                if let Some(place) = scenario.peer_and_network(node, route) {
                    let least = self.bounds.delay_of(place.1) * u32::from(missed);
                    return self.check_silence(node, place, least, event.at, "warned of");
                }
            }
            EventKind::Stalled { length } => {
                return self.check_stall_report(node, event.at, length);
            }
            _ => {}
        }
        Ok(())
    }

    /// Rule 10.
    fn check_stall_report(&mut self, node: usize, at: Time, length: Duration) -> CheckResult {
        if self.resumed_at[node].take() == Some(at) {
            self.stall_reported_at[node] = Some(at);
            return Ok(());
        }
        Err(format!("rule 10: node {node} tells of a stall of {length:?} that was none, or again"))
    }

    /// Where a route with news leads; its peer is told.
    fn note_route_news(
        &mut self,
        scenario: &Scenario,
        node: usize,
        route: RouteId,
        at: Time,
    ) -> Option<(usize, usize)> {
        let place = scenario.peer_and_network(node, route)?;
        self.last_news[node * self.nodes + place.0] = Some(at);
        Some(place)
    }

    fn check_silence(
        &mut self,
        node: usize,
        (peer, network): (usize, usize),
        least: Duration,
        at: Time,
        what: &str,
    ) -> CheckResult {
        let Some(heard) = self.observation_mut(node, peer, network).last_heard else {
            return Ok(());
        };
        // A node that was stalled grants everyone the whole time again.
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
            self.observations[first..first + self.networks].iter().any(|memory| !memory.faulted)
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
