//! Faults taking effect on the world.

use std::time::Duration;

use crate::{
    engine::{Engine, EngineConfig, Input},
    ids::RouteId,
    route::{Priority, Reason, RouteChange},
    sim::{
        node::Arrival,
        scenario::{Fault, peer_id, route_spec},
        world::{Step, World},
    },
};

/// Heartbeats every route remembers.
const HISTORY: usize = 10;

impl World<'_> {
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.trace.step(self.now, format_args!("{fault:?}"));
        match fault {
            Fault::Cut { network } => {
                if let Some(network) = self.networks.get_mut(network) {
                    network.cut_all();
                }
            }
            Fault::CutOneWay { network, from, to } if self.known(network, from, to) => {
                self.networks[network].cut(from, to);
            }
            Fault::Loss { network, from, to, permille } if self.known(network, from, to) => {
                self.networks[network].lose(from, to, permille);
            }
            Fault::Slow { network, by } if network < self.networks.len() => {
                self.networks[network].slow(by);
            }
            Fault::Heal { network } if network < self.networks.len() => self.heal(network),
            Fault::CarrierLost { network, node } if self.known(network, node, node) => {
                self.carrier(network, node, false);
            }
            Fault::CarrierBack { network, node } if self.known(network, node, node) => {
                self.carrier(network, node, true);
            }
            Fault::Admin { network, node, down } if self.known(network, node, node) => {
                self.admin(network, node, down);
            }
            Fault::Drain { network, node, on } if self.known(network, node, node) => {
                self.drain_routes(network, node, on);
            }
            Fault::Priority { network, priority } if network < self.networks.len() => {
                self.networks[network].priority = priority;
                let priority = Some(Priority(priority));
                for node in 0..self.nodes.len() {
                    self.change(network, node, RouteChange { priority, ..RouteChange::default() });
                }
            }
            Fault::Pause { node, length } if node < self.nodes.len() => {
                self.pause(node, length, false);
            }
            Fault::Freeze { node, length } if node < self.nodes.len() => {
                self.pause(node, length, true);
            }
            Fault::Crash { node } if node < self.nodes.len() => self.crash(node),
            Fault::Restart { node } if self.dead(node) => self.start(node),
            Fault::HealAll => self.heal_all(),
            _ => {}
        }
        self.truth.refresh(self.now, &self.networks, &self.nodes);
    }

    /// Starts a dead node with an empty engine and its whole configuration.
    pub(crate) fn start(&mut self, node: usize) {
        let seed = self.rng.next();
        let hold = self.scenario.hold;
        let mut engine =
            Engine::new(EngineConfig { hold, history: HISTORY, seed, mtu_raise: hold });
        if let Some(bug) = self.scenario.bug {
            engine.plant(bug);
        }
        self.nodes[node].start(engine);
        for network in &mut self.networks {
            network.set_out_of_use(node, false);
            network.set_drained(node, self.now, false);
        }
        self.checks.restart(node);
        self.truth.refresh(self.now, &self.networks, &self.nodes);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.handle(node, Input::AddPeer(peer_id(peer)));
            for network in 0..self.networks.len() {
                let id = self.scenario.route(node, peer, network);
                let timing = self.scenario.networks[network].timing;
                let priority = self.networks[network].priority;
                let spec = route_spec((node, peer), network, timing, priority);
                self.handle(node, Input::AddRoute { id, spec });
                if !self.networks[network].carrier(node) {
                    let fault = Input::Fault { route: id, reason: Reason::CarrierLost };
                    self.hand_over(node, Arrival::Local(fault));
                }
            }
            let wait = Duration::from_millis(1) + self.rng.upto(Duration::from_millis(9));
            let (a, b) = (node.min(peer), node.max(peer));
            self.plan(self.now + wait, Step::Handshake { a, b });
        }
        self.settled(node, false);
    }

    fn dead(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.engine.is_none())
    }

    fn known(&self, network: usize, a: usize, b: usize) -> bool {
        network < self.networks.len() && a < self.nodes.len() && b < self.nodes.len()
    }

    fn heal(&mut self, network: usize) {
        self.networks[network].heal();
        for node in 0..self.nodes.len() {
            self.carrier(network, node, true);
        }
    }

    fn heal_all(&mut self) {
        for network in 0..self.networks.len() {
            self.heal(network);
            for node in 0..self.nodes.len() {
                self.admin(network, node, false);
                self.drain_routes(network, node, false);
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].engine.is_none() {
                self.start(node);
            } else if self.nodes[node].paused {
                self.nodes[node].resume_at = self.now;
                self.resume(node);
            }
        }
    }

    fn carrier(&mut self, network: usize, node: usize, present: bool) {
        if self.networks[network].carrier(node) == present {
            return;
        }
        self.networks[network].set_carrier(node, present);
        self.truth.refresh(self.now, &self.networks, &self.nodes);
        let reason = Reason::CarrierLost;
        self.tell(network, node, |route| match present {
            true => Input::FaultCleared { route, reason },
            false => Input::Fault { route, reason },
        });
    }

    fn admin(&mut self, network: usize, node: usize, down: bool) {
        if self.networks[network].set_out_of_use(node, down) {
            let admin_down = Some(down);
            self.change(network, node, RouteChange { admin_down, ..RouteChange::default() });
        }
    }

    fn drain_routes(&mut self, network: usize, node: usize, on: bool) {
        if self.networks[network].set_drained(node, self.now, on) {
            self.change(network, node, RouteChange { drain: Some(on), ..RouteChange::default() });
        }
    }

    fn change(&mut self, network: usize, node: usize, change: RouteChange) {
        self.tell(network, node, |id| Input::ChangeRoute { id, change });
    }

    /// Tells a node something about each of its routes over a network.
    fn tell(&mut self, network: usize, node: usize, input: impl Fn(RouteId) -> Input) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            let arrival = Arrival::Local(input(self.scenario.route(node, peer, network)));
            self.plan(self.now, Step::Arrive { to: node, arrival });
        }
    }

    fn pause(&mut self, node: usize, length: Duration, frozen: bool) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        if !self.nodes[node].paused {
            self.nodes[node].paused_at = self.now;
        }
        self.nodes[node].paused = true;
        self.nodes[node].frozen = frozen;
        self.nodes[node].resume_at = self.now + length;
        self.plan(self.now + length, Step::Resume { node });
    }

    /// A paused node runs again: first it reads its sockets, then its timers fire.
    pub(crate) fn resume(&mut self, node: usize) {
        if !self.nodes[node].paused || self.nodes[node].resume_at != self.now {
            return;
        }
        self.nodes[node].paused = false;
        let length = self.now.since(self.nodes[node].paused_at);
        self.nodes[node].stalled = Some((length, self.now));
        self.checks.resumed(node, self.now);
        self.truth.refresh(self.now, &self.networks, &self.nodes);
        for arrival in self.nodes[node].take_inbox() {
            self.hand_over(node, arrival);
        }
        self.tick(node);
        self.service(node);
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].engine.is_some() {
            self.nodes[node].crash();
            self.let_sessions_idle(node);
        }
    }
}
