//! Faults taking effect on the world.

use std::time::Duration;

use crate::{
    engine::{Engine, EngineConfig, EngineInput},
    ids::RouteId,
    route::{Priority, Reason, RouteChange},
    sim::{
        node::Arrival,
        scenario::{FaultAction, peer_id, route_spec},
        simulation::{SimStep, Simulation},
    },
};

/// Heartbeats every route remembers.
const HEARTBEAT_HISTORY: usize = 10;

impl Simulation<'_> {
    pub(crate) fn apply_fault(&mut self, fault: FaultAction) {
        self.trace.add_step(self.now, format_args!("{fault:?}"));
        match fault {
            FaultAction::Cut { network } => {
                if let Some(network) = self.networks.get_mut(network) {
                    network.cut_all();
                }
            }
            FaultAction::CutOneWay { network, from, to }
                if self.has_network_and_nodes(network, from, to) =>
            {
                self.networks[network].cut_direction(from, to);
            }
            FaultAction::Loss { network, from, to, permille }
                if self.has_network_and_nodes(network, from, to) =>
            {
                self.networks[network].set_loss(from, to, permille);
            }
            FaultAction::ExtraDelay { network, by } if network < self.networks.len() => {
                self.networks[network].set_extra_delay(by);
            }
            FaultAction::Heal { network } if network < self.networks.len() => {
                self.heal_network(network)
            }
            FaultAction::CarrierLost { network, node }
                if self.has_network_and_nodes(network, node, node) =>
            {
                self.set_node_carrier(network, node, false);
            }
            FaultAction::CarrierRestored { network, node }
                if self.has_network_and_nodes(network, node, node) =>
            {
                self.set_node_carrier(network, node, true);
            }
            FaultAction::Admin { network, node, down }
                if self.has_network_and_nodes(network, node, node) =>
            {
                self.set_admin_down(network, node, down);
            }
            FaultAction::Drain { network, node, on }
                if self.has_network_and_nodes(network, node, node) =>
            {
                self.drain_routes(network, node, on);
            }
            FaultAction::Priority { network, priority } if network < self.networks.len() => {
                self.networks[network].priority = priority;
                let priority = Some(Priority(priority));
                for node in 0..self.nodes.len() {
                    self.change_routes(
                        network,
                        node,
                        RouteChange { priority, ..RouteChange::default() },
                    );
                }
            }
            FaultAction::Pause { node, length } if node < self.nodes.len() => {
                self.pause_node(node, length, false);
            }
            FaultAction::PauseDroppingPackets { node, length } if node < self.nodes.len() => {
                self.pause_node(node, length, true);
            }
            FaultAction::Crash { node } if node < self.nodes.len() => self.crash_node(node),
            FaultAction::Restart { node } if self.is_dead(node) => self.start_node(node),
            FaultAction::HealAll => self.heal_all(),
            _ => {}
        }
        self.ground_truth.refresh(self.now, &self.networks, &self.nodes);
    }

    /// Starts a dead node with an empty engine and its whole configuration.
    pub(crate) fn start_node(&mut self, node: usize) {
        let seed = self.rng.next();
        let hold = self.scenario.hold;
        let mut engine =
            Engine::new(EngineConfig { hold, history: HEARTBEAT_HISTORY, seed, mtu_raise: hold });
        if let Some(bug) = self.scenario.bug {
            engine.inject_bug(bug);
        }
        self.nodes[node].start_engine(engine);
        for network in &mut self.networks {
            network.set_out_of_use(node, false);
            network.set_drained(node, self.now, false);
        }
        self.checker.reset_node(node);
        self.ground_truth.refresh(self.now, &self.networks, &self.nodes);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.feed_engine(node, EngineInput::AddPeer(peer_id(peer)));
            for network in 0..self.networks.len() {
                let id = self.scenario.route_id(node, peer, network);
                let timing = self.scenario.networks[network].timing;
                let priority = self.networks[network].priority;
                let spec = route_spec((node, peer), network, timing, priority);
                self.feed_engine(node, EngineInput::AddRoute { id, spec });
                if !self.networks[network].has_carrier(node) {
                    let fault = EngineInput::Fault { route: id, reason: Reason::CarrierLost };
                    self.process_arrival(node, Arrival::Local(fault));
                }
            }
            let wait = Duration::from_millis(1) + self.rng.duration_up_to(Duration::from_millis(9));
            let (a, b) = (node.min(peer), node.max(peer));
            self.schedule_step(self.now + wait, SimStep::Handshake { a, b });
        }
        self.after_step(node, false);
    }

    fn is_dead(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.engine.is_none())
    }

    fn has_network_and_nodes(&self, network: usize, a: usize, b: usize) -> bool {
        network < self.networks.len() && a < self.nodes.len() && b < self.nodes.len()
    }

    fn heal_network(&mut self, network: usize) {
        self.networks[network].heal_directions();
        for node in 0..self.nodes.len() {
            self.set_node_carrier(network, node, true);
        }
    }

    fn heal_all(&mut self) {
        for network in 0..self.networks.len() {
            self.heal_network(network);
            for node in 0..self.nodes.len() {
                self.set_admin_down(network, node, false);
                self.drain_routes(network, node, false);
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].engine.is_none() {
                self.start_node(node);
            } else if self.nodes[node].paused {
                self.nodes[node].resume_at = self.now;
                self.resume_node(node);
            }
        }
    }

    fn set_node_carrier(&mut self, network: usize, node: usize, present: bool) {
        if self.networks[network].has_carrier(node) == present {
            return;
        }
        self.networks[network].set_carrier(node, present);
        self.ground_truth.refresh(self.now, &self.networks, &self.nodes);
        let reason = Reason::CarrierLost;
        self.send_local_inputs(network, node, |route| match present {
            true => EngineInput::FaultCleared { route, reason },
            false => EngineInput::Fault { route, reason },
        });
    }

    fn set_admin_down(&mut self, network: usize, node: usize, down: bool) {
        if self.networks[network].set_out_of_use(node, down) {
            let admin_down = Some(down);
            self.change_routes(network, node, RouteChange { admin_down, ..RouteChange::default() });
        }
    }

    fn drain_routes(&mut self, network: usize, node: usize, on: bool) {
        if self.networks[network].set_drained(node, self.now, on) {
            self.change_routes(
                network,
                node,
                RouteChange { drain: Some(on), ..RouteChange::default() },
            );
        }
    }

    fn change_routes(&mut self, network: usize, node: usize, change: RouteChange) {
        self.send_local_inputs(network, node, |id| EngineInput::ChangeRoute { id, change });
    }

    /// Tells a node something about each of its routes over a network.
    fn send_local_inputs(
        &mut self,
        network: usize,
        node: usize,
        input: impl Fn(RouteId) -> EngineInput,
    ) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            let arrival = Arrival::Local(input(self.scenario.route_id(node, peer, network)));
            self.schedule_step(self.now, SimStep::Arrive { to: node, arrival });
        }
    }

    fn pause_node(&mut self, node: usize, length: Duration, frozen: bool) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        if !self.nodes[node].paused {
            self.nodes[node].paused_at = self.now;
        }
        self.nodes[node].paused = true;
        self.nodes[node].drops_while_paused = frozen;
        self.nodes[node].resume_at = self.now + length;
        self.schedule_step(self.now + length, SimStep::Resume { node });
    }

    /// A paused node runs again: first it reads its sockets, then its timers fire.
    pub(crate) fn resume_node(&mut self, node: usize) {
        if !self.nodes[node].paused || self.nodes[node].resume_at != self.now {
            return;
        }
        self.nodes[node].paused = false;
        let length = self.now.since(self.nodes[node].paused_at);
        self.nodes[node].last_stall = Some((length, self.now));
        self.checker.note_resumed(node, self.now);
        self.ground_truth.refresh(self.now, &self.networks, &self.nodes);
        for arrival in self.nodes[node].take_inbox() {
            self.process_arrival(node, arrival);
        }
        self.tick_engine(node);
        self.run_worker_turn(node);
    }

    fn crash_node(&mut self, node: usize) {
        if self.nodes[node].engine.is_some() {
            self.nodes[node].crash_engine();
            self.schedule_session_timeouts(node);
        }
    }
}
