//! Injection of faults, operator actions and repairs into a running simulation.

use std::time::Duration;

use crate::{
    engine::{Engine, EngineConfig, EngineInput},
    ids::RouteId,
    route::{Priority, Reason, RouteChange},
    sim::{
        cluster::SimStep,
        node::{Arrival, LocalInput, NodePause},
        scenario::{FaultAction, peer_id, route_spec},
        simulation::Simulation,
    },
};

/// Heartbeats every route keeps for its history.
const HEARTBEAT_HISTORY: usize = 10;
/// A starting node attempts its first handshakes this long after the start.
const FIRST_HANDSHAKE: Duration = Duration::from_millis(1);
/// Random addition to [`FIRST_HANDSHAKE`].
const FIRST_HANDSHAKE_SPREAD: Duration = Duration::from_millis(9);

impl Simulation<'_> {
    /// Applies a fault, an operator action or a repair at the present moment.
    pub fn apply_fault(&mut self, fault: FaultAction) {
        let cluster = &mut self.cluster;
        cluster.trace.add_step(cluster.now, format_args!("{fault:?}"));
        if fault.exists_in(cluster.nodes.len(), cluster.networks.len()) {
            self.inject_fault(fault);
        }
        self.cluster.refresh_truth();
    }

    fn inject_fault(&mut self, fault: FaultAction) {
        let networks = &mut self.cluster.networks;
        match fault {
            FaultAction::Cut { network } => networks[network].cut_all(),
            FaultAction::CutOneWay { network, from, to } => {
                networks[network].cut_direction(from, to);
            }
            FaultAction::Loss { network, from, to, permille } => {
                networks[network].set_loss(from, to, permille);
            }
            FaultAction::DataFault { network, from, to, fault } => {
                networks[network].set_data_fault(from, to, fault);
            }
            FaultAction::ExtraDelay { network, by } => networks[network].set_extra_delay(by),
            FaultAction::Heal { network } => self.heal_network(network),
            FaultAction::CarrierLost { network, node } => {
                self.set_node_carrier(network, node, false);
            }
            FaultAction::CarrierRestored { network, node } => {
                self.set_node_carrier(network, node, true);
            }
            FaultAction::Admin { network, node, down } => self.set_admin_down(network, node, down),
            FaultAction::Drain { network, node, on } => self.drain_routes(network, node, on),
            FaultAction::Priority { network, priority } => {
                networks[network].priority = priority;
                let priority = Some(Priority(priority));
                let change = RouteChange { priority, ..RouteChange::default() };
                (0..self.cluster.nodes.len())
                    .for_each(|node| self.change_routes(network, node, change));
            }
            FaultAction::Pause { node, length } => self.pause_node(node, length, false),
            FaultAction::PauseDroppingPackets { node, length } => {
                self.pause_node(node, length, true);
            }
            FaultAction::InterruptWorker { node, length } => self.interrupt_worker(node, length),
            FaultAction::Crash { node } => self.crash_node(node),
            FaultAction::Restart { node } => {
                if self.cluster.nodes[node].engine.is_none() {
                    self.start_node(node);
                }
            }
            FaultAction::HealAll => self.heal_all(),
        }
    }

    /// Starts a dead node with an empty engine and its whole configuration.
    pub(crate) fn start_node(&mut self, node: usize) {
        let (now, scenario) = (self.cluster.now, self.cluster.scenario);
        let (seed, hold) = (self.cluster.rng.next(), scenario.hold);
        let mut engine =
            Engine::new(EngineConfig { hold, history: HEARTBEAT_HISTORY, seed, mtu_raise: hold });
        if let Some(bug) = scenario.bug {
            engine.inject_bug(bug);
        }
        self.cluster.nodes[node].start_engine(engine);
        self.data.reset_node(node);
        for network in &mut self.cluster.networks {
            network.set_out_of_use(node, false);
            network.set_drained(node, now, false);
        }
        self.cluster.observe(|checker| checker.reset_node(node));
        self.cluster.refresh_truth();
        for peer in (0..scenario.nodes).filter(|peer| *peer != node) {
            self.feed_engine(node, EngineInput::AddPeer(peer_id(peer)));
            for network in 0..scenario.networks.len() {
                self.add_route(node, peer, network);
            }
            let cluster = &mut self.cluster;
            let wait = FIRST_HANDSHAKE + cluster.rng.duration_up_to(FIRST_HANDSHAKE_SPREAD);
            let (a, b) = (node.min(peer), node.max(peer));
            cluster.schedule_step(now + wait, SimStep::Handshake { a, b });
        }
        self.after_step(node, false);
    }

    fn add_route(&mut self, node: usize, peer: usize, network: usize) {
        let scenario = self.cluster.scenario;
        let id = scenario.route_id(node, peer, network);
        let timing = scenario.networks[network].timing;
        let priority = self.cluster.networks[network].priority;
        let spec = route_spec((node, peer), network, timing, priority);
        self.feed_engine(node, EngineInput::AddRoute { id, spec });
        if let Some(datagram) = scenario.datagram_limit {
            let limit = EngineInput::DatagramLimit { route: id, datagram, transport_overhead: 0 };
            self.feed_engine(node, limit);
        }
        if !self.cluster.networks[network].has_carrier(node) {
            let fault = LocalInput::Fault { route: id, reason: Reason::CarrierLost };
            self.process_arrival(node, Arrival::Local(fault));
        }
    }

    fn heal_network(&mut self, network: usize) {
        self.cluster.networks[network].heal_directions();
        for node in 0..self.cluster.nodes.len() {
            self.set_node_carrier(network, node, true);
        }
    }

    fn heal_all(&mut self) {
        let nodes = self.cluster.nodes.len();
        for network in 0..self.cluster.networks.len() {
            self.heal_network(network);
            for node in 0..nodes {
                self.set_admin_down(network, node, false);
                self.drain_routes(network, node, false);
            }
        }
        for node in 0..nodes {
            if self.cluster.nodes[node].engine.is_none() {
                self.start_node(node);
            } else if let Some(pause) = &mut self.cluster.nodes[node].pause {
                pause.ends = self.cluster.now;
                self.resume_node(node);
            }
        }
    }

    fn set_node_carrier(&mut self, network: usize, node: usize, present: bool) {
        let state = &mut self.cluster.networks[network];
        if state.has_carrier(node) == present {
            return;
        }
        state.set_carrier(node, present);
        self.cluster.refresh_truth();
        let reason = Reason::CarrierLost;
        self.send_local_inputs(network, node, |route| match present {
            true => LocalInput::FaultCleared { route, reason },
            false => LocalInput::Fault { route, reason },
        });
    }

    fn set_admin_down(&mut self, network: usize, node: usize, down: bool) {
        if self.cluster.networks[network].set_out_of_use(node, down) {
            let admin_down = Some(down);
            self.change_routes(network, node, RouteChange { admin_down, ..RouteChange::default() });
        }
    }

    fn drain_routes(&mut self, network: usize, node: usize, on: bool) {
        let now = self.cluster.now;
        if self.cluster.networks[network].set_drained(node, now, on) {
            let drain = Some(on);
            self.change_routes(network, node, RouteChange { drain, ..RouteChange::default() });
        }
    }

    fn change_routes(&mut self, network: usize, node: usize, change: RouteChange) {
        self.send_local_inputs(network, node, |route| LocalInput::ChangeRoute { route, change });
    }

    /// Schedules a local input for each of a node's routes over a network.
    fn send_local_inputs(
        &mut self,
        network: usize,
        node: usize,
        input: impl Fn(RouteId) -> LocalInput,
    ) {
        let cluster = &mut self.cluster;
        for peer in (0..cluster.nodes.len()).filter(|peer| *peer != node) {
            let arrival = Arrival::Local(input(cluster.scenario.route_id(node, peer, network)));
            cluster.schedule_step(cluster.now, SimStep::Arrive { to: node, arrival });
        }
    }

    fn pause_node(&mut self, node: usize, length: Duration, drops_packets: bool) {
        let now = self.cluster.now;
        let paused = &mut self.cluster.nodes[node];
        if paused.engine.is_none() {
            return;
        }
        let began = paused.pause.as_ref().map_or(now, |pause| pause.began);
        paused.pause = Some(NodePause { began, ends: now + length, drops_packets });
        self.cluster.schedule_step(now + length, SimStep::Resume { node });
    }

    /// Resumes a paused node: it reads its sockets first, then its timers fire.
    pub(crate) fn resume_node(&mut self, node: usize) {
        let now = self.cluster.now;
        let resumed = &mut self.cluster.nodes[node];
        let Some(pause) = resumed.pause.take_if(|pause| pause.ends == now) else { return };
        resumed.last_stall = Some((now.since(pause.began), now));
        let arrivals = resumed.take_inbox();
        self.cluster.observe(|checker| checker.note_resumed(node, now));
        self.cluster.refresh_truth();
        for arrival in arrivals {
            self.process_arrival(node, arrival);
        }
        self.tick_engine(node);
        self.data.run_worker_turn(&mut self.cluster, node);
    }

    fn crash_node(&mut self, node: usize) {
        if self.cluster.nodes[node].engine.is_some() {
            self.cluster.nodes[node].crash_engine();
            self.data.reset_node(node);
            self.cluster.schedule_session_timeouts(node);
        }
    }
}
