//! The virtual clock and everything that happens on it: one ordered queue of steps.
//!
//! Steps of one moment happen in the order they were planned, so a run depends on its scenario
//! and nothing else.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    engine::{Engine, EngineInput, EngineOutput},
    ids::{PeerId, RouteId},
    sim::{
        MAX_VIOLATIONS,
        check::{CheckResult, InvariantChecker},
        delivery::DeliveryChecker,
        network::SimNetwork,
        node::{Arrival, BootIdPair, SimNode},
        report::SimReport,
        rng::SplitMix64,
        rules::{ClusterView, check_new_session},
        scenario::{FaultAction, Scenario, peer_id},
        stream::DataStream,
        trace::RunTrace,
        truth::GroundTruth,
    },
    time::Time,
    wire::heartbeat::{Heartbeat, HeartbeatMessage},
};

/// How long a session outlives a peer that says nothing (QUIC's idle timeout).
const SESSION_IDLE: Duration = Duration::from_secs(5);
/// The most a handshake waits between two attempts.
pub(crate) const HANDSHAKE_RETRY: Duration = Duration::from_millis(50);
/// Steps of one run; a run that needs more is a loop.
const MAX_STEPS: u64 = 50_000_000;

/// Something planned.
#[derive(Clone, Debug)]
pub(crate) enum SimStep {
    Fault(FaultAction),
    Arrive { to: usize, arrival: Arrival },
    Wake { node: usize },
    Resume { node: usize },
    Handshake { a: usize, b: usize },
    SendData { from: usize, to: usize },
    DataWake { node: usize },
    Suspect { node: usize, route: RouteId },
}

/// The world of one run.
pub(crate) struct Simulation<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) now: Time,
    queue: BTreeMap<(Time, u64), SimStep>,
    sequence: u64,
    pub(crate) rng: SplitMix64,
    /// Of the data alone, so that it changes nothing about the heartbeats' travels.
    pub(crate) data_rng: SplitMix64,
    pub(crate) networks: Vec<SimNetwork>,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) ground_truth: GroundTruth,
    pub(crate) checker: InvariantChecker,
    pub(crate) delivery_checker: DeliveryChecker,
    pub(crate) trace: RunTrace,
    pub(crate) report: SimReport,
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(scenario: &'a Scenario) -> Self {
        let nodes = scenario.nodes;
        let mut world = Self {
            scenario,
            now: Time::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            rng: SplitMix64::new(scenario.seed),
            data_rng: SplitMix64::new(scenario.seed ^ 0x00da_7a00_0000_0000),
            networks: scenario.networks.iter().map(|plan| SimNetwork::new(plan, nodes)).collect(),
            nodes: (0..nodes).map(|_| SimNode::new(nodes)).collect(),
            ground_truth: GroundTruth::new(nodes, scenario.networks.len()),
            checker: InvariantChecker::new(scenario),
            delivery_checker: DeliveryChecker::new(nodes, scenario.networks.len()),
            trace: RunTrace::new(scenario.keep_text),
            report: SimReport::new(scenario),
        };
        for (at, fault) in &scenario.faults {
            world.schedule_step(*at, SimStep::Fault(*fault));
        }
        for node in 0..nodes {
            world.start_node(node);
        }
        for (from, to) in node_pairs(nodes).filter(|_| !scenario.data_every.is_zero()) {
            let first = Time::ZERO + world.rng.duration_up_to(scenario.data_every);
            world.schedule_step(first, SimStep::SendData { from, to });
        }
        world
    }

    /// Takes every step up to `end`, unless too many rules are broken by then.
    pub(crate) fn run_until(&mut self, end: Time) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), step) = entry.remove_entry();
            self.now = at;
            self.execute_step(step);
            self.report.steps += 1;
            if self.report.steps > MAX_STEPS {
                // Each one more, until the run is over.
                self.record_violation("the run does not end");
            }
            if self.report.violations.len() >= MAX_VIOLATIONS {
                return;
            }
        }
        self.now = end;
    }

    pub(crate) fn schedule_step(&mut self, at: Time, step: SimStep) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), step);
    }

    fn execute_step(&mut self, step: SimStep) {
        match step {
            SimStep::Fault(fault) => self.apply_fault(fault),
            SimStep::Arrive { to, arrival } => self.on_arrival(to, arrival),
            SimStep::Wake { node } => self.on_wake(node),
            SimStep::Resume { node } => self.resume_node(node),
            SimStep::Handshake { a, b } => self.attempt_handshake(a, b),
            SimStep::SendData { from, to } => self.send_data(from, to),
            SimStep::DataWake { node } => self.on_data_wake(node),
            SimStep::Suspect { node, route } => self.on_suspect(node, route),
        }
    }

    fn on_arrival(&mut self, to: usize, arrival: Arrival) {
        if self.nodes[to].engine.is_none() {
            return;
        }
        if self.nodes[to].paused {
            if !self.nodes[to].drops_while_paused || !arrival.is_frame() {
                self.nodes[to].queue_arrival(arrival);
            }
        } else {
            // Data changes nothing the engine knows.
            let data = matches!(arrival, Arrival::Data { .. } | Arrival::Ack { .. });
            self.process_arrival(to, arrival);
            if data {
                self.run_worker_turn(to);
            } else {
                self.after_step(to, false);
            }
        }
    }

    /// Gives a running node what arrived for it.
    pub(crate) fn process_arrival(&mut self, to: usize, arrival: Arrival) {
        if !arrival.is_frame() {
            self.handle_deferred_inputs(to);
        }
        match arrival {
            Arrival::Heartbeat { from, network, sender_session: sealed, heartbeat } => {
                // Sealed under other keys than the receiver's: not authentic.
                let here = BootIdPair { own: sealed.peer, peer: sealed.own };
                if self.nodes[to].sessions[from] != Some(here) {
                    return;
                }
                let route = self.scenario.route_id(to, from, network);
                self.trace.add_number(u64::from(heartbeat.sequence) << 32 | u64::from(route.0));
                self.report.heartbeats_delivered += 1;
                let asked =
                    (heartbeat.message == HeartbeatMessage::Request).then_some(heartbeat.sequence);
                if self.try_defer_heartbeat((from, to), network, here, &heartbeat) {
                    self.checker.note_heartbeat(to, from, network, self.now);
                    return;
                }
                self.handle_deferred_inputs(to);
                let input = EngineInput::Heartbeat { peer: peer_id(from), route, heartbeat };
                if self.feed_engine(to, input) {
                    self.checker.note_heartbeat(to, from, network, self.now);
                    let place = (to, from, network);
                    let found =
                        asked.map(|asked| self.checker.check_answered(place, self.now, asked));
                    self.record_result(found.unwrap_or(Ok(())));
                }
            }
            Arrival::Data {
                from,
                network,
                sender_session: sealed,
                counter,
                index,
                is_retransmission: again,
            } => {
                self.on_data((from, to), network, (sealed, counter), (index, again));
            }
            Arrival::Ack { from, network, sender_session: sealed, counter, ack } => {
                self.on_ack((from, to), network, (sealed, counter), &ack);
            }
            Arrival::SessionAgreed { peer, session } => {
                if self.nodes[to].boot_id != session.own {
                    return;
                }
                let new = self.nodes[to].sessions[peer].replace(session) != Some(session);
                let known = self.nodes[to].streams[peer].as_ref();
                if known.is_none_or(|stream| stream.session != session) {
                    self.nodes[to].streams[peer] = Some(DataStream::new(session));
                }
                self.checker.reset_peer_cadence(to, peer);
                self.feed_engine(
                    to,
                    EngineInput::SessionUp { peer: peer_id(peer), boot_id: session.peer },
                );
                if let Some(engine) = self.nodes[to].engine.as_ref().filter(|_| new) {
                    let found = check_new_session(to, peer, &engine.route_statuses());
                    self.record_result(found);
                }
                self.ground_truth.refresh(self.now, &self.networks, &self.nodes);
            }
            Arrival::SessionTimeout { peer, session } => {
                // A session agreed since then is alive.
                if self.nodes[to].sessions[peer] == Some(session) {
                    self.nodes[to].sessions[peer] = None;
                    self.checker.reset_peer_cadence(to, peer);
                    self.feed_engine(to, EngineInput::SessionDown(peer_id(peer)));
                    self.ground_truth.refresh(self.now, &self.networks, &self.nodes);
                }
            }
            Arrival::Local(input) => {
                self.checker.note_local_input(self.scenario, to, self.now, &input);
                self.feed_engine(to, input);
            }
        }
    }

    fn on_wake(&mut self, node: usize) {
        let due = self.nodes[node].planned_wake.is_some_and(|(_, fires)| fires == self.now);
        if due && self.nodes[node].is_running() {
            self.tick_engine(node);
        }
    }

    pub(crate) fn tick_engine(&mut self, node: usize) {
        let now = self.now;
        self.trace.add_number(now.as_nanos() ^ node as u64);
        self.handle_deferred_inputs(node);
        if let Some(engine) = &mut self.nodes[node].engine {
            engine.on_timer(now);
        }
        self.drain_outputs(node);
        self.after_step(node, true);
    }

    /// Whether the engine took the input.
    pub(crate) fn feed_engine(&mut self, node: usize, input: EngineInput) -> bool {
        let now = self.now;
        let taken =
            self.nodes[node].engine.as_mut().is_some_and(|e| e.on_input(now, input).is_ok());
        self.drain_outputs(node);
        taken
    }

    fn drain_outputs(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].engine.as_mut().and_then(Engine::poll_output) {
            match output {
                EngineOutput::Send { peer, route, heartbeat } => {
                    self.send_heartbeat(node, (peer, route), heartbeat);
                }
                EngineOutput::PublishTable(table) => self.nodes[node].table = table,
                // Its networks carry every size; no interface was told of.
                EngineOutput::Probe { .. }
                | EngineOutput::PathMtu { .. }
                | EngineOutput::ReplyTemplateReady(_) => {}
                EngineOutput::Event(event) => {
                    self.trace.add_step(self.now, format_args!("node {node}: {:?}", event.kind));
                    let found = self.checker.check_event(
                        self.scenario,
                        node,
                        &event,
                        &self.nodes[node].routes,
                    );
                    self.report.events.push((node, event));
                    self.record_result(found);
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
        let place = self.scenario.peer_and_network(node, route);
        let Some((to, network)) = place.filter(|(to, _)| peer_id(*to) == peer) else {
            return self.record_violation(&format!("node {node}: sends on unknown route {route}"));
        };
        self.report.heartbeats += 1;
        let found = self.checker.check_sent((node, to, network), self.now, &heartbeat);
        self.record_result(found);
        let Some(sealed) = self.nodes[node].sessions[to] else { return };
        for travel in self.networks[network].send_packet(node, to, &mut self.rng) {
            let Some(travel) = travel else { continue };
            let heartbeat = heartbeat.clone();
            let arrival =
                Arrival::Heartbeat { from: node, network, sender_session: sealed, heartbeat };
            self.schedule_step(self.now + travel, SimStep::Arrive { to, arrival });
        }
    }

    /// A node took a step: look at its state, set its timer, check every rule.
    pub(crate) fn after_step(&mut self, number: usize, ticked: bool) {
        let node = &mut self.nodes[number];
        let Some(engine) = &node.engine else { return };
        node.routes = engine.route_statuses();
        node.peers = engine.peer_statuses();
        let wish = engine.next_wake();
        if let Some(wish) = wish.filter(|wish| node.planned_wake.map(|(w, _)| w) != Some(*wish)) {
            let fires = wish.max(self.now) + self.rng.duration_up_to(self.scenario.timer_slack);
            node.planned_wake = Some((wish, fires));
            self.schedule_step(fires, SimStep::Wake { node: number });
        }
        let found =
            self.checker.check_next_wake(number, self.now, wish, ticked, &self.nodes[number]);
        let view =
            ClusterView { now: self.now, nodes: &self.nodes, truth: &self.ground_truth, ticked };
        let found = found.and_then(|()| self.checker.check_node(number, &view));
        self.record_result(found);
    }

    pub(crate) fn record_result(&mut self, found: CheckResult) {
        if let Err(words) = found {
            self.record_violation(&words);
        }
    }

    pub(crate) fn record_violation(&mut self, words: &str) {
        if self.report.violations.len() < MAX_VIOLATIONS {
            self.trace.add_step(self.now, format_args!("VIOLATION {words}"));
            self.report.violations.push(format!("{}: {words}", self.now));
        }
    }

    fn attempt_handshake(&mut self, a: usize, b: usize) {
        let sessions = [
            BootIdPair { own: self.nodes[a].boot_id, peer: self.nodes[b].boot_id },
            BootIdPair { own: self.nodes[b].boot_id, peer: self.nodes[a].boot_id },
        ];
        let [dead, agreed] = [
            self.nodes[a].engine.is_none() || self.nodes[b].engine.is_none(),
            self.nodes[a].sessions[b] == Some(sessions[0])
                && self.nodes[b].sessions[a] == Some(sessions[1]),
        ];
        if dead || agreed {
            return;
        }
        let passes = |from, to| self.networks.iter().any(|network| !network.is_blocked(from, to));
        let runs = self.nodes[a].is_running() && self.nodes[b].is_running();
        if runs && passes(a, b) && passes(b, a) {
            for (to, peer, session) in [(a, b, sessions[0]), (b, a, sessions[1])] {
                let at = self.now + self.rng.duration_up_to(Duration::from_millis(5));
                self.schedule_step(
                    at,
                    SimStep::Arrive { to, arrival: Arrival::SessionAgreed { peer, session } },
                );
            }
        } else {
            let wait = HANDSHAKE_RETRY / 2 + self.rng.duration_up_to(HANDSHAKE_RETRY / 2);
            self.schedule_step(self.now + wait, SimStep::Handshake { a, b });
        }
    }

    /// Plans the end of every session with a node that just died.
    pub(crate) fn schedule_session_timeouts(&mut self, dead: usize) {
        for to in (0..self.nodes.len()).filter(|to| *to != dead) {
            if let Some(session) = self.nodes[to].sessions[dead] {
                let arrival = Arrival::SessionTimeout { peer: dead, session };
                self.schedule_step(self.now + SESSION_IDLE, SimStep::Arrive { to, arrival });
            }
        }
    }
}

/// Every ordered pair of nodes.
pub(crate) fn node_pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |a| (0..nodes).map(move |b| (a, b))).filter(|(a, b)| a != b)
}
