//! A large full mesh on a virtual clock: a real engine in every node, all pairs over all networks,
//! and nothing else, so that hundreds of nodes fit.
//!
//! [`run_scenario`](crate::sim::run_scenario) checks every rule after every step and is meant for a
//! few nodes; this one keeps only what changed, for a test to compare with its bounds. Networks
//! have one delay each, so whatever is under way on one arrives in order. Sessions are given, not
//! negotiated.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use crate::{
    engine::{Engine, EngineConfig, EngineInput, EngineOutput},
    ids::{PeerId, RouteId},
    route::{EventKind, RouteState},
    sim::{
        rng::SplitMix64,
        scenario::{clamped_timing, peer_id, route_spec},
    },
    time::Time,
    wire::heartbeat::Heartbeat,
};

/// Most nodes of a mesh; [`Mesh::new`] clamps to it.
pub const MAX_MESH_NODES: usize = 256;
/// A node's sessions begin within this time of its start.
const SESSION_START_SPREAD: Duration = Duration::from_millis(100);

/// What a mesh is made of.
#[derive(Clone, Copy, Debug)]
pub struct MeshPlan {
    /// Nodes, 2–[`MAX_MESH_NODES`].
    pub nodes: usize,
    /// Networks between all of them.
    pub networks: usize,
    /// Heartbeat delay of every route, milliseconds.
    pub delay_ms: u64,
    /// Heartbeats missed in a row until a route is down.
    pub threshold: u64,
    /// How long a packet is under way.
    pub one_way_delay: Duration,
    /// How many of a thousand packets are lost.
    pub loss_permille: u16,
    /// Everything random follows from it.
    pub seed: u64,
}

/// A route changed its state, or data moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshChange {
    /// A node's route changed state.
    State {
        /// When.
        at: Time,
        /// Whose route.
        node: usize,
        /// To whom.
        peer: usize,
        /// Over which network.
        network: usize,
        /// The state before.
        from: RouteState,
        /// The state after.
        to: RouteState,
    },
    /// A node's data to a peer goes another way.
    Moved {
        /// When.
        at: Time,
        /// Whose data.
        node: usize,
        /// To whom.
        peer: usize,
        /// The network before.
        from: Option<usize>,
        /// The network after.
        to: Option<usize>,
    },
}

struct InFlightHeartbeat {
    at: Time,
    from: usize,
    to: usize,
    heartbeat: Heartbeat,
}

struct MeshNetwork {
    in_flight: VecDeque<InFlightHeartbeat>,
    cut: bool,
    /// Per node.
    unplugged: Vec<bool>,
}

/// A mesh that runs.
pub struct Mesh {
    plan: MeshPlan,
    now: Time,
    rng: SplitMix64,
    engines: Vec<Engine>,
    networks: Vec<MeshNetwork>,
    /// When each node is woken next, if it is.
    wakes: Vec<Option<Time>>,
    timers: BinaryHeap<Reverse<(Time, usize)>>,
    /// Sessions to come, the last one first.
    pending_sessions: Vec<(Time, usize, usize)>,
    changes: Vec<MeshChange>,
    heartbeats_sent: u64,
    routes_up: usize,
}

impl Mesh {
    /// All nodes started at the origin of time, no session yet.
    pub fn new(plan: MeshPlan) -> Self {
        let nodes = plan.nodes.clamp(2, MAX_MESH_NODES);
        let plan = MeshPlan { nodes, networks: plan.networks.clamp(1, 8), ..plan };
        let wire = || MeshNetwork {
            in_flight: VecDeque::new(),
            cut: false,
            unplugged: vec![false; nodes],
        };
        let mut mesh = Self {
            plan,
            now: Time::ZERO,
            rng: SplitMix64::new(plan.seed),
            engines: Vec::new(),
            networks: (0..plan.networks).map(|_| wire()).collect(),
            wakes: vec![None; nodes],
            timers: BinaryHeap::new(),
            pending_sessions: Vec::new(),
            changes: Vec::new(),
            heartbeats_sent: 0,
            routes_up: 0,
        };
        for node in 0..nodes {
            mesh.start_node(node);
        }
        for (node, peer) in (0..nodes).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let at = Time::ZERO + mesh.rng.duration_up_to(SESSION_START_SPREAD);
            mesh.pending_sessions.extend([(at, node, peer), (at, peer, node)]);
        }
        mesh.pending_sessions.sort_by_key(|(at, ..)| Reverse(*at));
        mesh
    }

    fn start_node(&mut self, node: usize) {
        let hold = Duration::from_secs(1);
        let seed = self.rng.next();
        self.engines.push(Engine::new(EngineConfig { hold, history: 4, seed, mtu_raise: hold }));
        for peer in (0..self.plan.nodes).filter(|peer| *peer != node) {
            self.feed_engine(node, EngineInput::AddPeer(peer_id(peer)));
            for network in 0..self.plan.networks {
                let id = self.route_id(peer, network);
                let timing = clamped_timing(self.plan.delay_ms, self.plan.threshold);
                let spec = route_spec((node, peer), network, timing, 10 * (network as u32 + 1));
                self.feed_engine(node, EngineInput::AddRoute { id, spec });
            }
        }
    }

    /// What every node calls its route to `peer` over `network`.
    fn route_id(&self, peer: usize, network: usize) -> RouteId {
        RouteId((1 + peer * self.plan.networks + network) as u32)
    }

    fn network_of(&self, route: RouteId) -> usize {
        (route.0 as usize - 1) % self.plan.networks
    }

    /// Plays `length` of virtual time.
    pub fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some((at, what)) = self.next_step().filter(|(at, _)| *at <= end) {
            self.now = at;
            match what {
                NextStep::Session => {
                    if let Some((_, node, peer)) = self.pending_sessions.pop() {
                        let peer = peer_id(peer);
                        self.feed_engine(node, EngineInput::SessionUp { peer, boot_id: 1 });
                    }
                }
                NextStep::Timer => self.on_timer(),
                NextStep::Arrival(network) => self.on_arrival(network),
            }
        }
        self.now = end;
    }

    fn next_step(&self) -> Option<(Time, NextStep)> {
        let session = self.pending_sessions.last().map(|(at, ..)| (*at, NextStep::Session));
        let timer = self.timers.peek().map(|Reverse((at, _))| (*at, NextStep::Timer));
        let arrivals = self.networks.iter().enumerate().filter_map(|(network, wire)| {
            wire.in_flight.front().map(|flying| (flying.at, NextStep::Arrival(network)))
        });
        arrivals.chain(timer).chain(session).min_by_key(|(at, _)| *at)
    }

    fn on_timer(&mut self) {
        let Some(Reverse((at, node))) = self.timers.pop() else { return };
        if self.wakes[node] == Some(at) {
            self.wakes[node] = None;
            self.engines[node].on_timer(at);
            self.drain_outputs(node);
        }
    }

    fn on_arrival(&mut self, network: usize) {
        let Some(InFlightHeartbeat { from, to, heartbeat, .. }) =
            self.networks[network].in_flight.pop_front()
        else {
            return;
        };
        let (peer, route) = (peer_id(from), self.route_id(from, network));
        self.feed_engine(to, EngineInput::Heartbeat { peer, route, heartbeat });
    }

    fn feed_engine(&mut self, node: usize, input: EngineInput) {
        // A heartbeat before the session is refused, as in life.
        let _ = self.engines[node].on_input(self.now, input);
        self.drain_outputs(node);
    }

    fn drain_outputs(&mut self, node: usize) {
        while let Some(output) = self.engines[node].poll_output() {
            match output {
                EngineOutput::Send { peer, route, heartbeat } => {
                    self.send_heartbeat(node, peer, route, heartbeat)
                }
                EngineOutput::Event(event) => self.record_event(node, event.at, &event.kind),
                // The networks carry every size, and there are no packets to forward.
                EngineOutput::PublishTable(_)
                | EngineOutput::Probe { .. }
                | EngineOutput::PathMtu { .. }
                | EngineOutput::ReplyTemplateReady(_) => {}
            }
        }
        let wish = self.engines[node].next_wake();
        if let Some(wish) = wish.filter(|wish| self.wakes[node].is_none_or(|at| *wish < at)) {
            self.wakes[node] = Some(wish);
            self.timers.push(Reverse((wish, node)));
        }
    }

    fn send_heartbeat(&mut self, from: usize, peer: PeerId, route: RouteId, heartbeat: Heartbeat) {
        self.heartbeats_sent += 1;
        let to = usize::from(peer.0);
        let network = self.network_of(route);
        let lost = self.rng.chance_permille(self.plan.loss_permille);
        let wire = &mut self.networks[network];
        if !lost && !wire.cut && !wire.unplugged[from] && !wire.unplugged[to] {
            let at = self.now + self.plan.one_way_delay;
            wire.in_flight.push_back(InFlightHeartbeat { at, from, to, heartbeat });
        }
    }

    fn record_event(&mut self, node: usize, at: Time, kind: &EventKind) {
        match kind {
            EventKind::StateChanged { route, peer, from, to, .. } => {
                self.routes_up += usize::from(*to == RouteState::Up);
                self.routes_up -= usize::from(*from == RouteState::Up);
                let (peer, network) = (usize::from(peer.0), self.network_of(*route));
                self.changes.push(MeshChange::State {
                    at,
                    node,
                    peer,
                    network,
                    from: *from,
                    to: *to,
                });
            }
            EventKind::Moved { peer, from, to, .. } => {
                let [from, to] = [from, to].map(|route| route.map(|route| self.network_of(route)));
                self.changes.push(MeshChange::Moved { at, node, peer: peer.0.into(), from, to });
            }
            _ => {}
        }
    }

    /// A node's cable to a network is dead, and nobody tells it.
    pub fn unplug_node(&mut self, node: usize, network: usize) {
        self.networks[network].unplugged[node] = true;
    }

    /// Nothing passes on a network.
    pub fn cut_network(&mut self, network: usize) {
        self.networks[network].cut = true;
    }

    /// Every network is whole.
    pub fn heal_networks(&mut self) {
        for wire in &mut self.networks {
            wire.cut = false;
            wire.unplugged.fill(false);
        }
    }

    /// The present moment.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Ends of routes: two per pair of nodes and network.
    pub fn route_end_count(&self) -> usize {
        self.plan.nodes * (self.plan.nodes - 1) * self.plan.networks
    }

    /// How many of them are up.
    pub fn routes_up(&self) -> usize {
        self.routes_up
    }

    /// Heartbeats all nodes have sent, requests and replies.
    pub fn heartbeats_sent(&self) -> u64 {
        self.heartbeats_sent
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Vec<MeshChange> {
        std::mem::take(&mut self.changes)
    }
}

enum NextStep {
    Session,
    Timer,
    Arrival(usize),
}
