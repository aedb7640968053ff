//! A large full mesh on a virtual clock: a real engine in every node, all pairs over all networks,
//! and nothing else, so that hundreds of nodes fit.
//!
//! [`run`](crate::sim::run) checks every rule after every step and is meant for a few nodes; this one
//! keeps only what changed, for a test to compare with its bounds. Networks have one delay each, so
//! whatever is under way on one arrives in order. Sessions are given, not negotiated.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use crate::{
    engine::{Engine, EngineConfig, Input, Output},
    ids::{PeerId, RouteId},
    route::{EventKind, RouteState},
    sim::{
        rng::Rng,
        scenario::{peer_id, route_spec, timing},
    },
    time::Time,
    wire::heartbeat::Heartbeat,
};

/// Most nodes of a mesh; [`Mesh::new`] clamps to it.
pub const MAX_MESH: usize = 256;
/// A node's sessions begin within this time of its start.
const SESSIONS: Duration = Duration::from_millis(100);

/// What a mesh is made of.
#[derive(Clone, Copy, Debug)]
pub struct MeshPlan {
    /// Nodes, 2–[`MAX_MESH`].
    pub nodes: usize,
    /// Networks between all of them.
    pub networks: usize,
    /// Heartbeat delay of every route, milliseconds.
    pub delay: u64,
    /// Heartbeats missed in a row until a route is down.
    pub threshold: u64,
    /// How long a packet is under way.
    pub travel: Duration,
    /// How many of a thousand packets are lost.
    pub loss_permille: u16,
    /// Everything random follows from it.
    pub seed: u64,
}

/// A route changed its state, or data moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
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

struct Flying {
    at: Time,
    from: usize,
    to: usize,
    heartbeat: Heartbeat,
}

struct Wire {
    flying: VecDeque<Flying>,
    cut: bool,
    /// Per node.
    unplugged: Vec<bool>,
}

/// A mesh that runs.
pub struct Mesh {
    plan: MeshPlan,
    now: Time,
    rng: Rng,
    engines: Vec<Engine>,
    wires: Vec<Wire>,
    /// When each node is woken next, if it is.
    wakes: Vec<Option<Time>>,
    timers: BinaryHeap<Reverse<(Time, usize)>>,
    /// Sessions to come, the last one first.
    sessions: Vec<(Time, usize, usize)>,
    changes: Vec<Change>,
    heartbeats: u64,
    up: usize,
}

impl Mesh {
    /// All nodes started at the origin of time, no session yet.
    pub fn new(plan: MeshPlan) -> Self {
        let nodes = plan.nodes.clamp(2, MAX_MESH);
        let plan = MeshPlan { nodes, networks: plan.networks.clamp(1, 8), ..plan };
        let wire = || Wire { flying: VecDeque::new(), cut: false, unplugged: vec![false; nodes] };
        let mut mesh = Self {
            plan,
            now: Time::ZERO,
            rng: Rng::new(plan.seed),
            engines: Vec::new(),
            wires: (0..plan.networks).map(|_| wire()).collect(),
            wakes: vec![None; nodes],
            timers: BinaryHeap::new(),
            sessions: Vec::new(),
            changes: Vec::new(),
            heartbeats: 0,
            up: 0,
        };
        for node in 0..nodes {
            mesh.start(node);
        }
        for (node, peer) in (0..nodes).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let at = Time::ZERO + mesh.rng.upto(SESSIONS);
            mesh.sessions.extend([(at, node, peer), (at, peer, node)]);
        }
        mesh.sessions.sort_by_key(|(at, ..)| Reverse(*at));
        mesh
    }

    fn start(&mut self, node: usize) {
        let hold = Duration::from_secs(1);
        let seed = self.rng.next();
        self.engines.push(Engine::new(EngineConfig { hold, history: 4, seed, mtu_raise: hold }));
        for peer in (0..self.plan.nodes).filter(|peer| *peer != node) {
            self.input(node, Input::AddPeer(peer_id(peer)));
            for network in 0..self.plan.networks {
                let id = self.route(peer, network);
                let timing = timing(self.plan.delay, self.plan.threshold);
                let spec = route_spec((node, peer), network, timing, 10 * (network as u32 + 1));
                self.input(node, Input::AddRoute { id, spec });
            }
        }
    }

    /// What every node calls its route to `peer` over `network`.
    fn route(&self, peer: usize, network: usize) -> RouteId {
        RouteId((1 + peer * self.plan.networks + network) as u32)
    }

    fn network_of(&self, route: RouteId) -> usize {
        (route.0 as usize - 1) % self.plan.networks
    }

    /// Plays `length` of virtual time.
    pub fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some((at, what)) = self.next().filter(|(at, _)| *at <= end) {
            self.now = at;
            match what {
                Next::Session => {
                    if let Some((_, node, peer)) = self.sessions.pop() {
                        let peer = peer_id(peer);
                        self.input(node, Input::SessionUp { peer, boot_id: 1 });
                    }
                }
                Next::Timer => self.wake(),
                Next::Arrival(network) => self.arrive(network),
            }
        }
        self.now = end;
    }

    fn next(&self) -> Option<(Time, Next)> {
        let session = self.sessions.last().map(|(at, ..)| (*at, Next::Session));
        let timer = self.timers.peek().map(|Reverse((at, _))| (*at, Next::Timer));
        let arrivals = self.wires.iter().enumerate().filter_map(|(network, wire)| {
            wire.flying.front().map(|flying| (flying.at, Next::Arrival(network)))
        });
        arrivals.chain(timer).chain(session).min_by_key(|(at, _)| *at)
    }

    fn wake(&mut self) {
        let Some(Reverse((at, node))) = self.timers.pop() else { return };
        if self.wakes[node] == Some(at) {
            self.wakes[node] = None;
            self.engines[node].tick(at);
            self.drain(node);
        }
    }

    fn arrive(&mut self, network: usize) {
        let Some(Flying { from, to, heartbeat, .. }) = self.wires[network].flying.pop_front()
        else {
            return;
        };
        let (peer, route) = (peer_id(from), self.route(from, network));
        self.input(to, Input::Heartbeat { peer, route, heartbeat });
    }

    fn input(&mut self, node: usize, input: Input) {
        // A heartbeat before the session is refused, as in life.
        let _ = self.engines[node].handle(self.now, input);
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.engines[node].poll() {
            match output {
                Output::Send { peer, route, heartbeat } => self.send(node, peer, route, heartbeat),
                Output::Event(event) => self.note(node, event.at, &event.kind),
                // The networks carry every size, and there are no packets to forward.
                Output::Publish(_)
                | Output::Probe { .. }
                | Output::PathMtu { .. }
                | Output::Answers(_) => {}
            }
        }
        let wish = self.engines[node].next_wake();
        if let Some(wish) = wish.filter(|wish| self.wakes[node].is_none_or(|at| *wish < at)) {
            self.wakes[node] = Some(wish);
            self.timers.push(Reverse((wish, node)));
        }
    }

    fn send(&mut self, from: usize, peer: PeerId, route: RouteId, heartbeat: Heartbeat) {
        self.heartbeats += 1;
        let to = usize::from(peer.0);
        let network = self.network_of(route);
        let lost = self.rng.chance(self.plan.loss_permille);
        let wire = &mut self.wires[network];
        if !lost && !wire.cut && !wire.unplugged[from] && !wire.unplugged[to] {
            let at = self.now + self.plan.travel;
            wire.flying.push_back(Flying { at, from, to, heartbeat });
        }
    }

    fn note(&mut self, node: usize, at: Time, kind: &EventKind) {
        match kind {
            EventKind::StateChanged { route, peer, from, to, .. } => {
                self.up += usize::from(*to == RouteState::Up);
                self.up -= usize::from(*from == RouteState::Up);
                let (peer, network) = (usize::from(peer.0), self.network_of(*route));
                self.changes.push(Change::State { at, node, peer, network, from: *from, to: *to });
            }
            EventKind::Moved { peer, from, to, .. } => {
                let [from, to] = [from, to].map(|route| route.map(|route| self.network_of(route)));
                self.changes.push(Change::Moved { at, node, peer: peer.0.into(), from, to });
            }
            _ => {}
        }
    }

    /// A node's cable to a network is dead, and nobody tells it.
    pub fn unplug(&mut self, node: usize, network: usize) {
        self.wires[network].unplugged[node] = true;
    }

    /// Nothing passes on a network.
    pub fn cut(&mut self, network: usize) {
        self.wires[network].cut = true;
    }

    /// Every network is whole.
    pub fn heal(&mut self) {
        for wire in &mut self.wires {
            wire.cut = false;
            wire.unplugged.fill(false);
        }
    }

    /// The present moment.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Ends of routes: two per pair of nodes and network.
    pub fn ends(&self) -> usize {
        self.plan.nodes * (self.plan.nodes - 1) * self.plan.networks
    }

    /// How many of them are up.
    pub fn up(&self) -> usize {
        self.up
    }

    /// Heartbeats all nodes have sent, requests and replies.
    pub fn heartbeats(&self) -> u64 {
        self.heartbeats
    }

    /// What changed since the last call.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

enum Next {
    Session,
    Timer,
    Arrival(usize),
}
