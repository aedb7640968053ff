//! The virtual clock and everything that happens on it: one ordered queue of steps.
//!
//! Steps of one moment happen in the order they were planned, so a run depends on its scenario
//! and nothing else.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    engine::{Engine, Input, Output},
    ids::{PeerId, RouteId},
    sim::{
        MAX_VIOLATIONS,
        check::{Checks, Verdict},
        delivery::Delivery,
        network::Network,
        node::{Arrival, Node, Session},
        report::Report,
        rng::Rng,
        rules::{View, begins_afresh},
        scenario::{Fault, Scenario, peer_id},
        stream::Stream,
        trace::Trace,
        truth::Truth,
    },
    time::Time,
    wire::heartbeat::{Heartbeat, Message},
};

/// How long a session outlives a peer that says nothing (QUIC's idle timeout).
const SESSION_IDLE: Duration = Duration::from_secs(5);
/// The most a handshake waits between two attempts.
pub(crate) const HANDSHAKE_RETRY: Duration = Duration::from_millis(50);
/// Steps of one run; a run that needs more is a loop.
const MAX_STEPS: u64 = 50_000_000;

/// Something planned.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Fault(Fault),
    Arrive { to: usize, arrival: Arrival },
    Wake { node: usize },
    Resume { node: usize },
    Handshake { a: usize, b: usize },
    SendData { from: usize, to: usize },
    DataWake { node: usize },
    Suspect { node: usize, route: RouteId },
}

/// The world of one run.
pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) now: Time,
    queue: BTreeMap<(Time, u64), Step>,
    sequence: u64,
    pub(crate) rng: Rng,
    /// Of the data alone, so that it changes nothing about the heartbeats' travels.
    pub(crate) data_rng: Rng,
    pub(crate) networks: Vec<Network>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) truth: Truth,
    pub(crate) checks: Checks,
    pub(crate) delivery: Delivery,
    pub(crate) trace: Trace,
    pub(crate) report: Report,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario) -> Self {
        let nodes = scenario.nodes;
        let mut world = Self {
            scenario,
            now: Time::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            rng: Rng::new(scenario.seed),
            data_rng: Rng::new(scenario.seed ^ 0x00da_7a00_0000_0000),
            networks: scenario.networks.iter().map(|plan| Network::new(plan, nodes)).collect(),
            nodes: (0..nodes).map(|_| Node::new(nodes)).collect(),
            truth: Truth::new(nodes, scenario.networks.len()),
            checks: Checks::new(scenario),
            delivery: Delivery::new(nodes, scenario.networks.len()),
            trace: Trace::new(scenario.keep_text),
            report: Report::new(scenario),
        };
        for (at, fault) in &scenario.faults {
            world.plan(*at, Step::Fault(*fault));
        }
        for node in 0..nodes {
            world.start(node);
        }
        for (from, to) in pairs(nodes).filter(|_| !scenario.data_every.is_zero()) {
            let first = Time::ZERO + world.rng.upto(scenario.data_every);
            world.plan(first, Step::SendData { from, to });
        }
        world
    }

    /// Takes every step up to `end`, unless too many rules are broken by then.
    pub(crate) fn run_until(&mut self, end: Time) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), step) = entry.remove_entry();
            self.now = at;
            self.step(step);
            self.report.steps += 1;
            if self.report.steps > MAX_STEPS {
                // Each one more, until the run is over.
                self.violation("the run does not end");
            }
            if self.report.violations.len() >= MAX_VIOLATIONS {
                return;
            }
        }
        self.now = end;
    }

    pub(crate) fn plan(&mut self, at: Time, step: Step) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), step);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Fault(fault) => self.fault(fault),
            Step::Arrive { to, arrival } => self.arrive(to, arrival),
            Step::Wake { node } => self.wake(node),
            Step::Resume { node } => self.resume(node),
            Step::Handshake { a, b } => self.handshake(a, b),
            Step::SendData { from, to } => self.send_data(from, to),
            Step::DataWake { node } => self.data_wake(node),
            Step::Suspect { node, route } => self.suspect(node, route),
        }
    }

    fn arrive(&mut self, to: usize, arrival: Arrival) {
        if self.nodes[to].engine.is_none() {
            return;
        }
        if self.nodes[to].paused {
            if !self.nodes[to].frozen || !arrival.is_frame() {
                self.nodes[to].queue(arrival);
            }
        } else {
            // Data changes nothing the engine knows.
            let data = matches!(arrival, Arrival::Data { .. } | Arrival::Ack { .. });
            self.hand_over(to, arrival);
            if data {
                self.service(to);
            } else {
                self.settled(to, false);
            }
        }
    }

    /// Gives a running node what arrived for it.
    pub(crate) fn hand_over(&mut self, to: usize, arrival: Arrival) {
        if !arrival.is_frame() {
            self.catch_up(to);
        }
        match arrival {
            Arrival::Heartbeat { from, network, sealed, heartbeat } => {
                // Sealed under other keys than the receiver's: not authentic.
                let here = Session { own: sealed.peer, peer: sealed.own };
                if self.nodes[to].sessions[from] != Some(here) {
                    return;
                }
                let route = self.scenario.route(to, from, network);
                self.trace.number(u64::from(heartbeat.sequence) << 32 | u64::from(route.0));
                self.report.heartbeats_delivered += 1;
                let asked = (heartbeat.message == Message::Request).then_some(heartbeat.sequence);
                if self.leave((from, to), network, here, &heartbeat) {
                    self.checks.heard(to, from, network, self.now);
                    return;
                }
                self.catch_up(to);
                let input = Input::Heartbeat { peer: peer_id(from), route, heartbeat };
                if self.handle(to, input) {
                    self.checks.heard(to, from, network, self.now);
                    let place = (to, from, network);
                    let found = asked.map(|asked| self.checks.answered(place, self.now, asked));
                    self.judge(found.unwrap_or(Ok(())));
                }
            }
            Arrival::Data { from, network, sealed, counter, index, again } => {
                self.data_arrived((from, to), network, (sealed, counter), (index, again));
            }
            Arrival::Ack { from, network, sealed, counter, ack } => {
                self.ack_arrived((from, to), network, (sealed, counter), &ack);
            }
            Arrival::Session { peer, session } => {
                if self.nodes[to].boot != session.own {
                    return;
                }
                let new = self.nodes[to].sessions[peer].replace(session) != Some(session);
                let known = self.nodes[to].streams[peer].as_ref();
                if known.is_none_or(|stream| stream.session != session) {
                    self.nodes[to].streams[peer] = Some(Stream::new(session));
                }
                self.checks.session(to, peer);
                self.handle(to, Input::SessionUp { peer: peer_id(peer), boot_id: session.peer });
                if let Some(engine) = self.nodes[to].engine.as_ref().filter(|_| new) {
                    let found = begins_afresh(to, peer, &engine.routes());
                    self.judge(found);
                }
                self.truth.refresh(self.now, &self.networks, &self.nodes);
            }
            Arrival::SessionIdle { peer, session } => {
                // A session agreed since then is alive.
                if self.nodes[to].sessions[peer] == Some(session) {
                    self.nodes[to].sessions[peer] = None;
                    self.checks.session(to, peer);
                    self.handle(to, Input::SessionDown(peer_id(peer)));
                    self.truth.refresh(self.now, &self.networks, &self.nodes);
                }
            }
            Arrival::Local(input) => {
                self.checks.told(self.scenario, to, self.now, &input);
                self.handle(to, input);
            }
        }
    }

    fn wake(&mut self, node: usize) {
        let due = self.nodes[node].wake.is_some_and(|(_, fires)| fires == self.now);
        if due && self.nodes[node].runs() {
            self.tick(node);
        }
    }

    pub(crate) fn tick(&mut self, node: usize) {
        let now = self.now;
        self.trace.number(now.as_nanos() ^ node as u64);
        self.catch_up(node);
        if let Some(engine) = &mut self.nodes[node].engine {
            engine.tick(now);
        }
        self.drain(node);
        self.settled(node, true);
    }

    /// Whether the engine took the input.
    pub(crate) fn handle(&mut self, node: usize, input: Input) -> bool {
        let now = self.now;
        let taken = self.nodes[node].engine.as_mut().is_some_and(|e| e.handle(now, input).is_ok());
        self.drain(node);
        taken
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].engine.as_mut().and_then(Engine::poll) {
            match output {
                Output::Send { peer, route, heartbeat } => {
                    self.send_heartbeat(node, (peer, route), heartbeat);
                }
                Output::Publish(table) => self.nodes[node].table = table,
                // Its networks carry every size; no interface was told of.
                Output::Probe { .. } | Output::PathMtu { .. } | Output::Answers(_) => {}
                Output::Event(event) => {
                    self.trace.step(self.now, format_args!("node {node}: {:?}", event.kind));
                    let found =
                        self.checks.event(self.scenario, node, &event, &self.nodes[node].routes);
                    self.report.events.push((node, event));
                    self.judge(found);
                }
            }
        }
    }

    /// A heartbeat leaves.
    pub(crate) fn send_heartbeat(
        &mut self,
        node: usize,
        (peer, route): (PeerId, RouteId),
        heartbeat: Heartbeat,
    ) {
        let place = self.scenario.route_place(node, route);
        let Some((to, network)) = place.filter(|(to, _)| peer_id(*to) == peer) else {
            return self.violation(&format!("node {node}: sends on unknown route {route}"));
        };
        self.report.heartbeats += 1;
        let found = self.checks.sent((node, to, network), self.now, &heartbeat);
        self.judge(found);
        let Some(sealed) = self.nodes[node].sessions[to] else { return };
        for travel in self.networks[network].send(node, to, &mut self.rng) {
            let Some(travel) = travel else { continue };
            let heartbeat = heartbeat.clone();
            let arrival = Arrival::Heartbeat { from: node, network, sealed, heartbeat };
            self.plan(self.now + travel, Step::Arrive { to, arrival });
        }
    }

    /// A node took a step: look at its state, set its timer, check every rule.
    pub(crate) fn settled(&mut self, number: usize, ticked: bool) {
        let node = &mut self.nodes[number];
        let Some(engine) = &node.engine else { return };
        node.routes = engine.routes();
        node.peers = engine.peers();
        let wish = engine.next_wake();
        if let Some(wish) = wish.filter(|wish| node.wake.map(|(w, _)| w) != Some(*wish)) {
            let fires = wish.max(self.now) + self.rng.upto(self.scenario.timer_slack);
            node.wake = Some((wish, fires));
            self.plan(fires, Step::Wake { node: number });
        }
        let found = self.checks.wake(number, self.now, wish, ticked, &self.nodes[number]);
        let view = View { now: self.now, nodes: &self.nodes, truth: &self.truth, ticked };
        let found = found.and_then(|()| self.checks.node(number, &view));
        self.judge(found);
    }

    pub(crate) fn judge(&mut self, found: Verdict) {
        if let Err(words) = found {
            self.violation(&words);
        }
    }

    pub(crate) fn violation(&mut self, words: &str) {
        if self.report.violations.len() < MAX_VIOLATIONS {
            self.trace.step(self.now, format_args!("VIOLATION {words}"));
            self.report.violations.push(format!("{}: {words}", self.now));
        }
    }

    fn handshake(&mut self, a: usize, b: usize) {
        let sessions = [
            Session { own: self.nodes[a].boot, peer: self.nodes[b].boot },
            Session { own: self.nodes[b].boot, peer: self.nodes[a].boot },
        ];
        let [dead, agreed] = [
            self.nodes[a].engine.is_none() || self.nodes[b].engine.is_none(),
            self.nodes[a].sessions[b] == Some(sessions[0])
                && self.nodes[b].sessions[a] == Some(sessions[1]),
        ];
        if dead || agreed {
            return;
        }
        let passes = |from, to| self.networks.iter().any(|network| !network.blocked(from, to));
        let runs = self.nodes[a].runs() && self.nodes[b].runs();
        if runs && passes(a, b) && passes(b, a) {
            for (to, peer, session) in [(a, b, sessions[0]), (b, a, sessions[1])] {
                let at = self.now + self.rng.upto(Duration::from_millis(5));
                self.plan(at, Step::Arrive { to, arrival: Arrival::Session { peer, session } });
            }
        } else {
            let wait = HANDSHAKE_RETRY / 2 + self.rng.upto(HANDSHAKE_RETRY / 2);
            self.plan(self.now + wait, Step::Handshake { a, b });
        }
    }

    /// Plans the end of every session with a node that just died.
    pub(crate) fn let_sessions_idle(&mut self, dead: usize) {
        for to in (0..self.nodes.len()).filter(|to| *to != dead) {
            if let Some(session) = self.nodes[to].sessions[dead] {
                let arrival = Arrival::SessionIdle { peer: dead, session };
                self.plan(self.now + SESSION_IDLE, Step::Arrive { to, arrival });
            }
        }
    }
}

/// Every ordered pair of nodes.
pub(crate) fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |a| (0..nodes).map(move |b| (a, b))).filter(|(a, b)| a != b)
}
