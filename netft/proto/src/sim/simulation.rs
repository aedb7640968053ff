//! The simulation loop: takes steps off the event queue and drives the engines with them.

use crate::{
    engine::{Engine, EngineInput, EngineOutput},
    ids::{PeerId, RouteId},
    route::SessionEndCause,
    sim::{
        cluster::{ClusterState, SimStep},
        converge::ConvergenceCheck,
        data::DataTraffic,
        node::{Arrival, ArrivalClass, BootIdPair},
        report::SimReport,
        rules::{NodeView, check_new_session},
        scenario::{FaultAction, Scenario, peer_id},
    },
    time::Time,
    wire::{
        heartbeat::{Heartbeat, HeartbeatMessage},
        probe::{Probe, ProbeMessage},
    },
};

/// Steps of one run per node. A run that needs more does not terminate.
const MAX_STEPS_PER_NODE: u64 = 25_000_000;

/// Runs a scenario to its end.
pub fn run_scenario(scenario: &Scenario) -> SimReport {
    let mut simulation = Simulation::new(scenario);
    simulation.run_until(Time::ZERO + scenario.length);
    if scenario.then_converge {
        simulation.run_to_convergence();
    }
    simulation.into_report()
}

/// A scenario in progress, for tests that measure or inject faults between two moments.
/// [`run_scenario`] is the whole run in one call.
pub struct Simulation<'a> {
    pub(crate) cluster: ClusterState<'a>,
    pub(crate) data: DataTraffic,
}

impl<'a> Simulation<'a> {
    /// All nodes started at [`Time::ZERO`], no session established yet.
    pub fn new(scenario: &'a Scenario) -> Self {
        let mut simulation =
            Self { cluster: ClusterState::new(scenario), data: DataTraffic::new(scenario) };
        let cluster = &mut simulation.cluster;
        for (at, fault) in &scenario.faults {
            cluster.schedule_step(*at, SimStep::Fault(*fault));
        }
        for node in 0..scenario.nodes {
            simulation.start_node(node);
        }
        simulation.data.schedule_first_packets(&mut simulation.cluster);
        simulation
    }

    /// Runs every step up to `end`, or until
    /// [`MAX_VIOLATIONS`](crate::sim::MAX_VIOLATIONS) rules are broken.
    pub fn run_until(&mut self, end: Time) {
        let max_steps = MAX_STEPS_PER_NODE * self.cluster.nodes.len() as u64;
        while let Some(step) = self.cluster.take_step(end) {
            self.execute_step(step);
            self.cluster.report.steps += 1;
            if self.cluster.report.steps > max_steps {
                // One violation per further step soon ends the run.
                self.cluster.record_violation("the run does not end");
            }
            if self.cluster.has_failed() {
                return;
            }
        }
        self.cluster.now = end;
    }

    /// The present moment.
    pub fn now(&self) -> Time {
        self.cluster.now
    }

    /// Events, violations and counts so far. Data, the trace and the final states are in
    /// [`Simulation::into_report`] only.
    pub fn report(&self) -> &SimReport {
        &self.cluster.report
    }

    /// Ends the run.
    pub fn into_report(mut self) -> SimReport {
        self.cluster.nodes.iter_mut().for_each(|node| node.refresh_statuses());
        let ClusterState { now, nodes, trace, report, .. } = self.cluster;
        let (trace_hash, text) = trace.into_parts();
        let (routes, peers) = nodes.into_iter().map(|node| (node.routes, node.peers)).unzip();
        SimReport {
            trace_hash,
            text,
            virtual_time: now.since(Time::ZERO),
            data: self.data.into_report(),
            routes,
            peers,
            ..report
        }
    }

    /// Repairs everything and runs until every pair has been on its best route for two detection
    /// times (rule 5).
    fn run_to_convergence(&mut self) {
        if self.cluster.has_failed() {
            return;
        }
        self.apply_fault(FaultAction::HealAll);
        let mut check = ConvergenceCheck::new(self.cluster.scenario, self.cluster.now);
        while !self.cluster.has_failed() && self.cluster.report.converged_after.is_none() {
            self.run_until(check.next_check());
            self.cluster.nodes.iter_mut().for_each(|node| node.refresh_statuses());
            match check.observe(&self.cluster.nodes) {
                Ok(converged_after) => self.cluster.report.converged_after = converged_after,
                Err(violation) => return self.cluster.record_violation(&violation),
            }
        }
    }

    fn execute_step(&mut self, step: SimStep) {
        let Self { cluster, data } = self;
        match step {
            SimStep::Fault(fault) => self.apply_fault(fault),
            SimStep::Arrive { to, arrival } => self.on_arrival(to, arrival),
            SimStep::Wake { node } => self.on_wake(node),
            SimStep::Resume { node } => self.resume_node(node),
            SimStep::HandOver { node, is_last } => self.hand_over(node, is_last),
            SimStep::Handshake { a, b } => cluster.attempt_handshake(a, b),
            SimStep::SendData { from, to } => data.send_data(cluster, from, to),
            SimStep::DataWake { node } => data.on_wake(cluster, node),
            SimStep::Suspect { node, route, counts } => {
                self.on_worker_report(node, EngineInput::Suspect(route));
                self.on_worker_report(node, EngineInput::Silence { route, counts });
            }
            SimStep::WorkerReport { node, input } => self.on_worker_report(node, input),
        }
    }

    fn on_arrival(&mut self, to: usize, arrival: Arrival) {
        let node = &mut self.cluster.nodes[to];
        if node.engine.is_none() {
            return;
        }
        let class = arrival.class();
        if let Some(pause) = &node.pause {
            if !pause.drops_packets || class == ArrivalClass::Internal {
                node.queue_arrival(arrival);
            }
            return;
        }
        if self.try_hold_heartbeat(to, &arrival) {
            return;
        }
        self.process_arrival(to, arrival);
        match class {
            // The engine does not see data.
            ArrivalClass::Data => self.data.run_worker_turn(&mut self.cluster, to),
            ArrivalClass::Heartbeat | ArrivalClass::Internal => self.after_step(to, false),
        }
    }

    /// Delivers an arrival to a running node.
    pub(crate) fn process_arrival(&mut self, to: usize, arrival: Arrival) {
        if arrival.class() == ArrivalClass::Internal {
            self.handle_deferred_inputs(to);
        }
        match arrival {
            Arrival::Heartbeat { from, network, sender_session, heartbeat } => {
                self.on_heartbeat((from, to), network, sender_session, heartbeat);
            }
            Arrival::Probe { from, network, sender_session, probe } => {
                self.on_probe((from, to), network, sender_session, probe);
            }
            Arrival::Data { from, network, frame } => {
                self.data.on_data(&mut self.cluster, (from, to), network, frame);
            }
            Arrival::Ack { from, network, frame } => {
                self.data.on_ack(&mut self.cluster, (from, to), network, &frame);
            }
            Arrival::SessionAgreed { peer, session } => self.on_session_agreed(to, peer, session),
            Arrival::SessionTimeout { peer, session } => {
                // A session established since then is alive.
                if self.cluster.nodes[to].sessions[peer] == Some(session) {
                    self.cluster.nodes[to].sessions[peer] = None;
                    self.cluster.observe(|checker| checker.reset_peer_cadence(to, peer));
                    self.feed_engine(
                        to,
                        EngineInput::SessionDown(peer_id(peer), SessionEndCause::PeerStopped),
                    );
                    self.cluster.refresh_truth();
                }
            }
            Arrival::Local(input) => {
                let (scenario, now) = (self.cluster.scenario, self.cluster.now);
                self.cluster.observe(|checker| checker.note_local_input(scenario, to, now, &input));
                self.feed_engine(to, input.into());
            }
        }
    }

    fn on_heartbeat(
        &mut self,
        (from, to): (usize, usize),
        network: usize,
        sender_session: BootIdPair,
        heartbeat: Heartbeat,
    ) {
        // Encrypted under other keys than the receiver's: not authentic.
        let session = sender_session.reversed();
        if self.cluster.nodes[to].sessions[from] != Some(session) {
            return;
        }
        let now = self.cluster.now;
        let route = self.cluster.scenario.route_id(to, from, network);
        self.cluster.trace.add_number(u64::from(heartbeat.sequence) << 32 | u64::from(route.0));
        self.cluster.report.heartbeats_delivered += 1;
        let request =
            (heartbeat.message == HeartbeatMessage::Request).then_some(heartbeat.sequence);
        if self.try_defer_heartbeat((from, to), network, session, &heartbeat) {
            self.cluster.observe(|checker| checker.note_heartbeat(to, from, network, now));
            return;
        }
        self.handle_deferred_inputs(to);
        if self.feed_engine(to, EngineInput::Heartbeat { peer: peer_id(from), route, heartbeat }) {
            self.cluster.observe(|checker| checker.note_heartbeat(to, from, network, now));
            if let Some(sequence) = request {
                self.cluster.check_rule(|checker, _| {
                    checker.check_answered((to, from, network), now, sequence)
                });
            }
        }
    }

    fn on_probe(
        &mut self,
        (from, to): (usize, usize),
        network: usize,
        sender_session: BootIdPair,
        probe: Probe,
    ) {
        if self.cluster.nodes[to].sessions[from] == Some(sender_session.reversed()) {
            let route = self.cluster.scenario.route_id(to, from, network);
            self.feed_engine(to, EngineInput::Probe { peer: peer_id(from), route, probe });
        }
    }

    fn on_session_agreed(&mut self, to: usize, peer: usize, session: BootIdPair) {
        let node = &mut self.cluster.nodes[to];
        if node.boot_id != session.own {
            return;
        }
        let is_new = node.sessions[peer].replace(session) != Some(session);
        self.data.start_session(to, peer, session);
        self.cluster.observe(|checker| checker.reset_peer_cadence(to, peer));
        let boot_id = session.peer;
        self.feed_engine(to, EngineInput::SessionUp { peer: peer_id(peer), boot_id });
        if is_new {
            self.cluster.check_rule(|_, nodes| {
                let routes = nodes[to].engine.as_ref().map(Engine::route_statuses);
                check_new_session(to, peer, &routes.unwrap_or_default())
            });
        }
        self.cluster.refresh_truth();
    }

    fn on_wake(&mut self, number: usize) {
        let node = &self.cluster.nodes[number];
        let is_due = node.planned_wake.is_some_and(|(_, fires)| fires == self.cluster.now);
        if is_due && node.is_running() {
            self.tick_engine(number);
        }
    }

    /// A worker reported a route as suspect or lossy.
    fn on_worker_report(&mut self, node: usize, input: EngineInput) {
        if self.cluster.nodes[node].is_running() {
            self.handle_deferred_inputs(node);
            self.feed_engine(node, input);
            self.after_step(node, false);
        }
    }

    pub(crate) fn tick_engine(&mut self, node: usize) {
        let now = self.cluster.now;
        self.cluster.trace.add_number(now.as_nanos() ^ node as u64);
        self.handle_deferred_inputs(node);
        self.feed_tallies(node);
        self.feed_unread(node);
        if let Some(engine) = &mut self.cluster.nodes[node].engine {
            engine.on_timer(now);
        }
        self.drain_outputs(node);
        self.after_step(node, true);
    }

    /// Counts the data of routes that the engine names, as the driver does before its timers.
    fn feed_tallies(&mut self, node: usize) {
        let (engine, now) = (self.cluster.nodes[node].engine.as_ref(), self.cluster.now);
        let counted = engine.map(|engine| engine.counted_routes(now));
        for (_, route) in counted.unwrap_or_default() {
            if let Some((peer, network)) = self.cluster.scenario.peer_and_network(node, route) {
                let tally = self.data.tally_of(node, peer, network);
                self.feed_engine(node, EngineInput::Tally { route, tally });
            }
        }
    }

    /// Returns true when the engine accepted the input.
    pub(crate) fn feed_engine(&mut self, node: usize, input: EngineInput) -> bool {
        let now = self.cluster.now;
        let engine = self.cluster.nodes[node].engine.as_mut();
        let accepted = engine.is_some_and(|engine| engine.on_input(now, input).is_ok());
        self.drain_outputs(node);
        accepted
    }

    fn drain_outputs(&mut self, node: usize) {
        let (scenario, now) = (self.cluster.scenario, self.cluster.now);
        while let Some(output) =
            self.cluster.nodes[node].engine.as_mut().and_then(Engine::poll_output)
        {
            match output {
                EngineOutput::Send { peer, route, heartbeat } => {
                    self.send_heartbeat(node, (peer, route), heartbeat);
                }
                EngineOutput::ForwardingChanged(peer) => {
                    self.cluster.nodes[node].publish_row(peer);
                }
                EngineOutput::Probe { route, probe, .. } => self.send_probe(node, route, probe),
                EngineOutput::PathMtu { route, datagram } => {
                    self.cluster.nodes[node].frame_limits.insert(route, datagram);
                }
                EngineOutput::ReplyTemplateReady(_) => {}
                EngineOutput::Event(event) => {
                    let kind = &event.kind;
                    self.cluster.trace.add_step(now, format_args!("node {node}: {kind:?}"));
                    let found = self.cluster.checker.as_mut().map(|checker| {
                        let before = &self.cluster.nodes[node].routes;
                        checker.check_event(scenario, node, &event, before)
                    });
                    self.cluster.report.events.push((node, event));
                    self.cluster.record_result(found.unwrap_or(Ok(())));
                }
            }
        }
    }

    pub(crate) fn send_heartbeat(
        &mut self,
        node: usize,
        (peer, route): (PeerId, RouteId),
        heartbeat: Heartbeat,
    ) {
        let cluster = &mut self.cluster;
        let place = cluster.scenario.peer_and_network(node, route);
        let Some((to, network)) = place.filter(|(to, _)| peer_id(*to) == peer) else {
            return cluster
                .record_violation(&format!("node {node}: sends on unknown route {route}"));
        };
        cluster.report.heartbeats += 1;
        let now = cluster.now;
        cluster.check_rule(|checker, _| checker.check_sent((node, to, network), now, &heartbeat));
        let Some(sender_session) = cluster.nodes[node].sessions[to] else { return };
        let [first, duplicate] = cluster.networks[network].send_packet(node, to, &mut cluster.rng);
        let arrival =
            |heartbeat| Arrival::Heartbeat { from: node, network, sender_session, heartbeat };
        let copy = duplicate.map(|delay| (delay, heartbeat.clone()));
        for (delay, heartbeat) in first.map(|delay| (delay, heartbeat)).into_iter().chain(copy) {
            let arrival = arrival(heartbeat);
            cluster.schedule_step(now + delay, SimStep::Arrive { to, arrival });
        }
    }

    fn send_probe(&mut self, node: usize, route: RouteId, probe: Probe) {
        let cluster = &mut self.cluster;
        let Some((to, network)) = cluster.scenario.peer_and_network(node, route) else { return };
        let Some(sender_session) = cluster.nodes[node].sessions[to] else { return };
        let (now, rng) = (cluster.now, &mut cluster.rng);
        let delays = match probe.message {
            ProbeMessage::Request => {
                let size = usize::from(probe.size);
                cluster.networks[network].send_data((node, to), (size, false), now, rng)
            }
            ProbeMessage::Answer => cluster.networks[network].send_packet(node, to, rng),
        };
        for delay in delays.into_iter().flatten() {
            let arrival = Arrival::Probe { from: node, network, sender_session, probe };
            cluster.schedule_step(now + delay, SimStep::Arrive { to, arrival });
        }
    }

    /// After a step of a node: reads its state, schedules its timer, checks every rule.
    pub(crate) fn after_step(&mut self, number: usize, ticked: bool) {
        let cluster = &mut self.cluster;
        let (now, scenario) = (cluster.now, cluster.scenario);
        let node = &mut cluster.nodes[number];
        let Some(engine) = &node.engine else { return };
        let next_wake = engine.next_wake();
        if scenario.needs_statuses() {
            node.refresh_statuses();
        }
        let planned = node.planned_wake.map(|(wake, _)| wake);
        if let Some(wake) = next_wake.filter(|wake| planned != Some(*wake)) {
            let fires = wake.max(now) + cluster.rng.duration_up_to(scenario.timer_slack);
            node.planned_wake = Some((wake, fires));
            cluster.schedule_step(fires, SimStep::Wake { node: number });
        }
        cluster.check_rule(|checker, nodes| {
            checker.check_next_wake(number, now, next_wake, ticked, &nodes[number])?;
            checker.check_node(&NodeView { now, node: number, nodes, ticked })
        });
    }
}

impl Scenario {
    /// Somebody reads the states of routes after every step.
    fn needs_statuses(&self) -> bool {
        self.check_invariants || !self.data_every.is_zero()
    }
}
