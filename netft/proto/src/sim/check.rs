//! What the invariants remember between two looks, and the rules about single outputs: request
//! cadence, downs that come too early, wakes.

use std::time::Duration;

use crate::{
    engine::Input,
    ids::RouteId,
    route::{Event, EventKind, Reason, RouteStatus},
    sim::{bounds::Bounds, node::Node, scenario::Scenario},
    time::Time,
    wire::heartbeat::{Heartbeat, Message},
};

/// A rule that was broken, in words.
pub(crate) type Verdict = Result<(), String>;

/// What is remembered of one route of one node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// When a heartbeat was given to the engine last.
    pub(crate) heard: Option<Time>,
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
    pub(crate) differ: Option<Time>,
    /// Since when the engine holds the route for suspect.
    pub(crate) suspect: Option<Time>,
}

impl Memory {
    /// The cadence starts afresh.
    fn disturbed(&mut self) {
        (self.last_request, self.last_sent) = (None, None);
    }
}

/// The memory of all invariants.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    pub(crate) bounds: Bounds,
    nodes: usize,
    networks: usize,
    memory: Vec<Memory>,
    /// Per node and peer: when the node's word to the peer changed last. It is told at once, so
    /// the next requests come early.
    news: Vec<Option<Time>>,
    /// Per node: when it was resumed, until it tells.
    stall: Vec<Option<Time>>,
    /// Per node: when it told of a stall last.
    granted: Vec<Option<Time>>,
}

impl Checks {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let (nodes, networks) = (scenario.nodes, scenario.networks.len());
        Self {
            bounds: Bounds::new(scenario),
            nodes,
            networks,
            memory: vec![Memory::default(); nodes * nodes * networks],
            news: vec![None; nodes * nodes],
            stall: vec![None; nodes],
            granted: vec![None; nodes],
        }
    }

    pub(crate) fn memory(&mut self, node: usize, peer: usize, network: usize) -> &mut Memory {
        &mut self.memory[(node * self.nodes + peer) * self.networks + network]
    }

    pub(crate) fn heard(&mut self, node: usize, peer: usize, network: usize, now: Time) {
        self.memory(node, peer, network).heard = Some(now);
    }

    /// A session began or ended: the cadence starts afresh.
    pub(crate) fn session(&mut self, node: usize, peer: usize) {
        for network in 0..self.networks {
            self.memory(node, peer, network).disturbed();
        }
    }

    /// A new engine.
    pub(crate) fn restart(&mut self, node: usize) {
        self.stall[node] = None;
        self.granted[node] = None;
        for peer in 0..self.nodes {
            for network in 0..self.networks {
                *self.memory(node, peer, network) = Memory::default();
            }
        }
    }

    /// The node was not scheduled: its requests are late.
    pub(crate) fn resumed(&mut self, node: usize, now: Time) {
        self.stall[node] = Some(now);
        for peer in 0..self.nodes {
            self.session(node, peer);
        }
    }

    /// The node's kernel, or its operator, told it something.
    pub(crate) fn told(&mut self, scenario: &Scenario, node: usize, now: Time, input: &Input) {
        if let Input::ChangeRoute { id, change } = input
            && let Some(place) = scenario.route_place(node, *id)
        {
            if let Some(down) = change.admin_down {
                self.memory(node, place.0, place.1).out_of_use = down;
            }
            if change.admin_down.or(change.drain).is_some() {
                self.news[node * self.nodes + place.0] = Some(now);
            }
        }
        let (route, faulted) = match input {
            Input::Fault { route, .. } => (*route, true),
            Input::FaultCleared { route, .. } => (*route, false),
            _ => return,
        };
        if let Some((peer, network)) = scenario.route_place(node, route) {
            let memory = self.memory(node, peer, network);
            memory.faulted = faulted;
            memory.disturbed();
            self.news[node * self.nodes + peer] = Some(now);
        }
    }

    /// Rule 6: a request or a reply goes out at least every 190 % of the delay. Requests of one
    /// end are 75 % of it apart; less, but never within a quarter of it, only to tell news.
    pub(crate) fn sent(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        now: Time,
        heartbeat: &Heartbeat,
    ) -> Verdict {
        if heartbeat.message == Message::Reply {
            let memory = self.memory(node, peer, network);
            memory.last_reply = Some((heartbeat.sequence, now));
            memory.last_sent = memory.last_sent.map(|_| now);
            return Ok(());
        }
        let (delay, slack) = (self.bounds.delay_of(network), self.bounds.slack);
        let news = self.news[node * self.nodes + peer];
        // What is heard on a route out of use is told too, and no event shows it.
        let unseen = (0..self.networks).any(|n| self.memory(node, peer, n).out_of_use);
        let memory = self.memory(node, peer, network);
        let quiet = memory.last_sent.replace(now).map(|last| now.since(last)).unwrap_or_default();
        let Some(last) = memory.last_request.replace(now) else { return Ok(()) };
        let gap = now.since(last);
        let told = unseen || news.is_some_and(|at| at >= last);
        let least = if told { delay / 4 } else { delay * 3 / 4 };
        if gap < least || quiet > delay * 19 / 10 + slack {
            return Err(format!(
                "rule 6: node {node} to {peer} over network {network}: a request {gap:?} after \
                 the last, {quiet:?} after the last heartbeat, at delay {delay:?}"
            ));
        }
        Ok(())
    }

    /// Rule 11: the engine took a request in, and has answered unless its end is broken.
    pub(crate) fn answered(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        now: Time,
        sequence: u32,
    ) -> Verdict {
        let memory = self.memory(node, peer, network);
        if memory.faulted || memory.last_reply == Some((sequence, now)) {
            return Ok(());
        }
        Err(format!(
            "rule 11: node {node} to {peer} over network {network}: request {sequence} not answered"
        ))
    }

    /// Rule 4, and news. `before` is the node's state before the step: a route that was not
    /// heard cannot be lost by silence.
    pub(crate) fn event(
        &mut self,
        scenario: &Scenario,
        node: usize,
        event: &Event,
        before: &[RouteStatus],
    ) -> Verdict {
        match event.kind {
            EventKind::StateChanged { route, reason, from, to, .. } => {
                let Some(place) = self.place(scenario, node, route, event.at) else {
                    return Ok(());
                };
                let rx = before.iter().any(|status| status.id == route && status.rx);
                if reason == Reason::HeartbeatsMissed && rx && to < from {
                    let least = self.bounds.detection_of(place.1);
                    return self.silent_for(node, place, least, event.at, "down");
                }
            }
            EventKind::RemoteReachable { route, .. } | EventKind::Suspect { route, .. } => {
                self.place(scenario, node, route, event.at);
            }
            EventKind::EarlyWarning { route, missed, .. } => {
                if let Some(place) = scenario.route_place(node, route) {
                    let least = self.bounds.delay_of(place.1) * u32::from(missed);
                    return self.silent_for(node, place, least, event.at, "warned of");
                }
            }
            EventKind::Stalled { length } => return self.stalled(node, event.at, length),
            _ => {}
        }
        Ok(())
    }

    /// Rule 10.
    fn stalled(&mut self, node: usize, at: Time, length: Duration) -> Verdict {
        if self.stall[node].take() == Some(at) {
            self.granted[node] = Some(at);
            return Ok(());
        }
        Err(format!("rule 10: node {node} tells of a stall of {length:?} that was none, or again"))
    }

    /// Where a route with news leads; its peer is told.
    fn place(
        &mut self,
        scenario: &Scenario,
        node: usize,
        route: RouteId,
        at: Time,
    ) -> Option<(usize, usize)> {
        let place = scenario.route_place(node, route)?;
        self.news[node * self.nodes + place.0] = Some(at);
        Some(place)
    }

    fn silent_for(
        &mut self,
        node: usize,
        (peer, network): (usize, usize),
        least: Duration,
        at: Time,
        what: &str,
    ) -> Verdict {
        let Some(heard) = self.memory(node, peer, network).heard else { return Ok(()) };
        // A node that was stalled grants everyone the whole time again.
        let silence = at.since(self.granted[node].map_or(heard, |told| told.max(heard)));
        if silence >= least {
            return Ok(());
        }
        Err(format!(
            "rule 4: node {node} to {peer} over network {network}: {what} after {silence:?} of \
             silence, before {least:?}"
        ))
    }

    /// Rule 3: while a route may send there is a next wake, and a tick leaves nothing due.
    pub(crate) fn wake(
        &mut self,
        number: usize,
        now: Time,
        wish: Option<Time>,
        ticked: bool,
        node: &Node,
    ) -> Verdict {
        let sends = (0..self.nodes).filter(|peer| node.sessions[*peer].is_some()).any(|peer| {
            let first = (number * self.nodes + peer) * self.networks;
            self.memory[first..first + self.networks].iter().any(|memory| !memory.faulted)
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
