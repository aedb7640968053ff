//! Routed worlds: two nodes plan their routes over networks that neither knows, with real engines.
//!
//! [`run_routed_world`] draws a world and its changes from a seed. Rules, checked all the time:
//!
//! | rule | invariant |
//! |---|---|
//! | 17 | a card that the networks connect to the peer both ways has an up route within a second |
//! | 18 | a route that is up, and whose ends and path are there, is not removed |
//! | 19 | routes are bounded, and a pair that was never heard is not asked for ever |
//!
//! Simplifications: the session exists from the start; nothing but heartbeats and challenges
//! travels.

mod node;
mod world;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{
    config::{Config, PeerConfig, PrivateKey},
    engine::{Engine, EngineConfig, EngineInput, EngineOutput},
    ids::{NodeKey, RouteId},
    route::{EventKind, Reason, RouteChange, path_validation::PeerReflexive},
    sim::{
        rng::SplitMix64,
        routed::{
            node::{PEER, RoutedNode},
            world::{FIRST_INDEX, World, WorldChange},
        },
    },
    time::Time,
    topology::{MAX_ROUTES_PER_PEER, PlannedRoute},
    wire::{
        challenge::{Challenge, ChallengeMessage},
        heartbeat::{Heartbeat, HeartbeatMessage},
        interfaces::Advertisement,
    },
};

/// Length of a run.
const RUN_TIME: Duration = Duration::from_secs(20);
/// When the last change of the world happens.
const LAST_CHANGE_MS: u64 = 12_000;
/// From a pair of cards that became possible to a route that is up there.
const UP_TIME: Duration = Duration::from_secs(1);
/// Added for a card that had a route: its detection time, and the patience before it tries others.
const REPLACE_TIME: Duration = Duration::from_secs(3);
/// The time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// The most steps of one run: one that takes more does not terminate.
const MAX_STEPS: usize = 2_000_000;

/// A bug to plant, to show that the rules find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutedBug {
    /// Metrics and addresses decide which pairs exist.
    RankDecides,
    /// A pair that only the peer tries is not adopted.
    NoLearning,
    /// A route that the order does not choose is removed, though it is up.
    OrderRemoves,
}

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct RoutedReport {
    /// Broken rules, with their moments.
    pub violations: Vec<String>,
    /// Routes that were up at the end, of both nodes.
    pub up_routes: usize,
    /// Heartbeats sent.
    pub heartbeats: u64,
    /// The world, as text.
    pub world: String,
}

/// A message on the networks.
#[derive(Clone, Debug)]
enum Message {
    Heartbeat(Heartbeat),
    Challenge(Challenge),
}

#[derive(Clone, Debug)]
enum Step {
    Wake { node: usize },
    Arrive { node: usize, local: SocketAddr, from: SocketAddr, message: Message },
    Change(WorldChange),
    ReadKernel { node: usize },
    List { node: usize, list: Advertisement },
    Check,
}

/// Runs the world of a seed, with a bug or without.
pub fn run_routed_world(seed: u64, bug: Option<RoutedBug>) -> RoutedReport {
    let mut run = RoutedRun::new(seed, bug);
    for node in [0, 1] {
        run.schedule(Duration::from_micros(100 * node as u64), Step::ReadKernel { node });
        run.feed(node, EngineInput::AddPeer(PEER));
        run.feed(node, EngineInput::SessionUp { peer: PEER, boot_id: 1 });
    }
    run.schedule(CHECK_INTERVAL, Step::Check);
    run.draw_changes();
    run.refresh_pairs();
    for _ in 0..MAX_STEPS {
        let Some(entry) = run.queue.first_entry() else { break };
        let ((at, _), step) = entry.remove_entry();
        if at.since(Time::ZERO) > RUN_TIME || !run.report.violations.is_empty() {
            break;
        }
        run.now = at;
        run.take(step);
    }
    run.report.up_routes = run.nodes.iter().map(|node| node.up_routes().len()).sum();
    let routes = run.nodes.iter().map(RoutedNode::to_text);
    run.report.world = format!("{:?}\n{}", run.world, routes.collect::<String>());
    run.report
}

struct RoutedRun {
    now: Time,
    queue: BTreeMap<(Time, u64), Step>,
    sequence: u64,
    rng: SplitMix64,
    world: World,
    nodes: [RoutedNode; 2],
    /// When the nodes wake next.
    planned_wakes: [Option<Time>; 2],
    /// One-way delay of the world.
    delay: Duration,
    /// The pairs of cards that the networks connect, and since when; allowance for what no kernel
    /// reported.
    pairs: BTreeMap<[(usize, IpAddr); 2], (Time, Duration)>,
    /// When each card of each node last had a route that was up.
    last_up: BTreeMap<(usize, usize), Time>,
    report: RoutedReport,
}

fn port(addr: IpAddr) -> SocketAddr {
    SocketAddr::new(addr, 3343)
}

impl RoutedRun {
    fn new(seed: u64, bug: Option<RoutedBug>) -> Self {
        let mut rng = SplitMix64::new(seed ^ 0x0070_7ed0_0000_0000);
        let world = World::random(&mut rng);
        let delay = Duration::from_micros(rng.pick_one(&[100, 500, 5000, 20_000]));
        let nodes = [0, 1].map(|node| {
            let key = |node: usize| NodeKey([node as u8 + 1; 32]);
            let mut config = Config::new("n", PrivateKey(Vec::new().into()), key(node));
            let mut peer = PeerConfig::new("m", key(1 - node));
            // The first node knows some address of the second, which may know none.
            let far: Vec<_> =
                world.hosts[1 - node].cards.iter().flat_map(|card| &card.addrs).collect();
            if node == 0 || rng.chance_permille(300) {
                let place = rng.next_below(far.len() as u64) as usize;
                peer.addresses = vec![port(far[place].addr())];
            }
            config.peers = vec![peer];
            config.assign_ids();
            let settings = EngineConfig {
                hold: Duration::from_millis(500),
                history: 0,
                seed: rng.next(),
                mtu_raise: Duration::from_secs(600),
            };
            RoutedNode::new(config, Engine::new(settings), bug)
        });
        Self {
            now: Time::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            rng,
            world,
            nodes,
            planned_wakes: [None, None],
            delay,
            pairs: BTreeMap::new(),
            last_up: BTreeMap::new(),
            report: RoutedReport::default(),
        }
    }

    fn schedule(&mut self, after: Duration, step: Step) {
        self.schedule_at(self.now + after, step);
    }

    fn schedule_at(&mut self, at: Time, step: Step) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), step);
    }

    fn draw_changes(&mut self) {
        for _ in 0..self.rng.pick_one(&[0, 1, 2, 4]) {
            let node = self.rng.next_below(2) as usize;
            let card = self.rng.next_below(self.world.hosts[node].cards.len() as u64) as usize;
            let fabric = self.rng.next_below(self.world.is_fabric_cut.len() as u64) as usize;
            let segment = self.rng.next_below(self.world.segments.len() as u64) as usize;
            let metric = self.rng.pick_one(&[0, 50, 700]);
            let (change, repair) = match self.rng.next_below(6) {
                0 => (WorldChange::MoveDefault { node, card }, None),
                1 => (WorldChange::AddDefault { node, card, metric }, None),
                2 => (WorldChange::RemoveDefault { node, card }, None),
                3 => {
                    let cut = |is_cut| WorldChange::CutFabric { fabric, is_cut };
                    (cut(true), Some(cut(false)))
                }
                4 => {
                    let cut = |is_cut| WorldChange::CutSegment { segment, node, is_cut };
                    (cut(true), Some(cut(false)))
                }
                _ => {
                    let set = |has_carrier| WorldChange::SetCarrier { node, card, has_carrier };
                    (set(false), Some(set(true)))
                }
            };
            // Some begin before the first heartbeat.
            let at = self.rng.pick_one(&[0, 3000, 6000]) + self.rng.next_below(2000);
            self.schedule(Duration::from_millis(at), Step::Change(change));
            if let Some(repair) = repair {
                let after = at + self.rng.next_in_range(1, LAST_CHANGE_MS - at);
                self.schedule(Duration::from_millis(after), Step::Change(repair));
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wake { node } if self.planned_wakes[node] != Some(self.now) => {}
            Step::Wake { node } => {
                self.planned_wakes[node] = None;
                if self.nodes[node].trials_due.is_some_and(|due| due <= self.now) {
                    self.nodes[node].schedule_trials(self.now, None);
                    self.apply_plan(node);
                }
                self.nodes[node].engine.on_timer(self.now);
                self.drain(node);
            }
            Step::Arrive { node, local, from, message } => {
                self.receive(node, (local, from), message);
                self.drain(node);
            }
            Step::Change(change) => {
                let reporting = change.reporting_node();
                self.world.apply(&change);
                self.refresh_pairs_after(reporting.is_some());
                if let Some(node) = reporting {
                    let notice = self.rng.duration_up_to(Duration::from_millis(10));
                    self.schedule(notice, Step::ReadKernel { node });
                }
            }
            Step::ReadKernel { node } => self.read_kernel(node, false),
            Step::List { node, list } => {
                self.nodes[node].set_far(list);
                self.read_kernel(node, true);
            }
            Step::Check => {
                self.check_cards();
                self.schedule(CHECK_INTERVAL, Step::Check);
            }
        }
    }

    /// Takes in the kernel's state, and makes the routes those of the plan.
    fn read_kernel(&mut self, node: usize, has_news: bool) {
        let is_changed = self.nodes[node].read_kernel(&self.world.hosts[node]);
        if let Some(list) = self.nodes[node].next_advertisement() {
            let travel = self.delay + self.rng.duration_up_to(Duration::from_millis(20));
            self.schedule(travel, Step::List { node: 1 - node, list });
        }
        if is_changed || has_news {
            self.apply_plan(node);
            self.report_faults(node);
            self.feed(node, EngineInput::RetryUnheard);
        }
    }

    fn report_faults(&mut self, node: usize) {
        let routes: Vec<_> = self.nodes[node].routes.clone().into_iter().collect();
        for (route, plan) in routes {
            let card = &self.world.hosts[node].cards[(plan.ifindex - FIRST_INDEX) as usize];
            let reason = Reason::CarrierLost;
            let input = match card.has_carrier {
                true => EngineInput::FaultCleared { route, reason },
                false => EngineInput::Fault { route, reason },
            };
            self.feed(node, input);
        }
    }

    /// Makes the routes those of the plan. Rules 18 and 19.
    fn apply_plan(&mut self, node: usize) {
        let diff = self.nodes[node].plan(self.now);
        let up = self.nodes[node].up_routes();
        for gone in diff.removed {
            let ends = (gone.spec.real_local, gone.spec.real_remote);
            let Some(id) = self.nodes[node].route_between(ends) else { continue };
            self.nodes[node].routes.remove(&id);
            self.feed(node, EngineInput::RemoveRoute(id));
            if up.iter().any(|status| status.id == id) && self.is_connected(node, ends) {
                self.violate(&format!("rule 18: node {node} removed {ends:?}, which is up"));
            }
        }
        for plan in diff.added {
            self.add_route(node, plan);
        }
        for (_, plan) in diff.changed {
            let ends = (plan.spec.real_local, plan.spec.real_remote);
            let Some(id) = self.nodes[node].route_between(ends) else { continue };
            let priority = Some(plan.spec.priority);
            self.nodes[node].routes.insert(id, plan);
            let change = RouteChange { priority, ..RouteChange::default() };
            self.feed(node, EngineInput::ChangeRoute { id, change });
        }
        if self.nodes[node].routes.len() > MAX_ROUTES_PER_PEER + 2 {
            self.violate(&format!("rule 19: node {node} has too many routes"));
        }
        self.nodes[node].schedule_trials(self.now, None);
        self.drain(node);
    }

    fn add_route(&mut self, node: usize, plan: PlannedRoute) {
        let (_, input) = self.nodes[node].add_route(plan);
        self.feed(node, input);
    }

    fn feed(&mut self, node: usize, input: EngineInput) {
        // A refused heartbeat is no violation.
        let _ = self.nodes[node].engine.on_input(self.now, input);
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        let mut state_changed = false;
        while let Some(output) = self.nodes[node].engine.poll_output() {
            match output {
                EngineOutput::Send { route, heartbeat, .. } => {
                    self.report.heartbeats += 1;
                    self.send_on(node, route, Message::Heartbeat(heartbeat));
                }
                EngineOutput::Event(event) => {
                    state_changed |= matches!(event.kind, EventKind::StateChanged { .. });
                }
                EngineOutput::ForwardingChanged(_)
                | EngineOutput::Probe { .. }
                | EngineOutput::PathMtu { .. }
                | EngineOutput::ReplyTemplateReady(_) => {}
            }
        }
        if state_changed {
            let soon = self.now + Duration::from_millis(20);
            self.nodes[node].schedule_trials(self.now, Some(soon));
        }
        let wakes = [self.nodes[node].engine.next_wake(), self.nodes[node].trials_due];
        if let Some(wake) = wakes.into_iter().flatten().min() {
            let at = wake.max(self.now);
            if self.planned_wakes[node].replace(at) != Some(at) {
                self.schedule_at(at, Step::Wake { node });
            }
        }
    }

    fn send_on(&mut self, node: usize, route: RouteId, message: Message) {
        let Some(plan) = self.nodes[node].routes.get(&route) else { return };
        let (spec, card) = (&plan.spec, (plan.ifindex - FIRST_INDEX) as usize);
        self.send((node, card), (spec.real_local, spec.real_remote), message);
    }

    fn send(
        &mut self,
        (node, card): (usize, usize),
        (local, remote): (SocketAddr, SocketAddr),
        message: Message,
    ) {
        if self.world.deliver((node, card), local.ip(), remote.ip()).is_some() {
            let travel = self.delay + self.rng.duration_up_to(self.delay / 4);
            let step = Step::Arrive { node: 1 - node, local: remote, from: local, message };
            self.schedule(travel, step);
        }
    }

    fn receive(&mut self, node: usize, ends: (SocketAddr, SocketAddr), message: Message) {
        let route = self.nodes[node].route_between(ends);
        match message {
            Message::Heartbeat(heartbeat) => match route {
                Some(route) => {
                    let (remote_route, sequence) = (heartbeat.route, heartbeat.sequence);
                    let input = EngineInput::Heartbeat { peer: PEER, route, heartbeat };
                    self.feed(node, input);
                    let validator = &mut self.nodes[node].validator;
                    validator.on_configured_path_heartbeat(PEER, remote_route, sequence);
                }
                None if heartbeat.message == HeartbeatMessage::Request => {
                    self.challenge(node, ends, &heartbeat);
                }
                None => {}
            },
            Message::Challenge(challenge) => match challenge.message {
                ChallengeMessage::Challenge => {
                    if route == Some(RouteId(challenge.route)) {
                        self.answer_from(node, ends, challenge.to_response());
                    }
                }
                ChallengeMessage::Response => {
                    let key = (PEER, ends.0, ends.1);
                    let now = self.now;
                    let validator = &mut self.nodes[node].validator;
                    let proven = validator.on_challenge_response(now, key, &challenge).is_some();
                    if proven
                        && route.is_none()
                        && let Some(plan) = self.nodes[node].plan_adopted(ends)
                    {
                        self.add_route(node, plan);
                    }
                }
            },
        }
    }

    fn challenge(&mut self, node: usize, ends: (SocketAddr, SocketAddr), heartbeat: &Heartbeat) {
        if self.nodes[node].plan_adopted(ends).is_none() {
            return;
        }
        let candidate = PeerReflexive {
            peer: PEER,
            remote_route: heartbeat.route,
            local_route: None,
            sequence: heartbeat.sequence,
            local: ends.0,
            from: ends.1,
        };
        let (now, token) = (self.now, self.rng.next());
        let validator = &mut self.nodes[node].validator;
        if let Some(challenge) = validator.on_peer_reflexive(now, candidate, || Some(token)) {
            self.answer_from(node, ends, challenge);
        }
    }

    fn answer_from(&mut self, node: usize, ends: (SocketAddr, SocketAddr), challenge: Challenge) {
        if let Some(card) = self.card_of(node, ends.0.ip()) {
            self.send((node, card), ends, Message::Challenge(challenge));
        }
    }

    fn card_of(&self, node: usize, addr: IpAddr) -> Option<usize> {
        let mut cards = self.world.hosts[node].cards.iter();
        cards.position(|card| card.addrs.iter().any(|net| net.addr() == addr))
    }

    fn is_connected(&self, node: usize, (local, remote): (SocketAddr, SocketAddr)) -> bool {
        let ends = if node == 0 { (local, remote) } else { (remote, local) };
        self.pairs.keys().any(|[own, far]| (own.1, far.1) == (ends.0.ip(), ends.1.ip()))
    }

    fn refresh_pairs(&mut self) {
        self.refresh_pairs_after(true);
    }

    fn refresh_pairs_after(&mut self, is_reported: bool) {
        // A pair that was never heard is asked every eighth of the time since it was tried.
        let unnoticed = if is_reported { Duration::ZERO } else { self.now.since(Time::ZERO) / 8 };
        for pair in self.world.address_pairs() {
            if !self.world.connects(pair) {
                self.pairs.remove(&pair);
            } else {
                self.pairs.entry(pair).or_insert((self.now, unnoticed));
            }
        }
    }

    /// Rule 17.
    fn check_cards(&mut self) {
        for node in [0, 1] {
            for status in self.nodes[node].up_routes() {
                if let Some(card) = self.card_of(node, status.spec.real_local.ip()) {
                    self.last_up.insert((node, card), self.now);
                }
            }
        }
        // What a silent kernel hides from the other end is not tried while some route works.
        let is_blind = self.world.hosts.iter().any(|host| host.is_blind);
        if is_blind && self.last_up.values().any(|at| *at == self.now) {
            return;
        }
        let any_up = self.last_up.values().copied().max().unwrap_or_default();
        for node in [0, 1] {
            for card in 0..self.world.hosts[node].cards.len() {
                let of_card = self.pairs.iter().filter(|(pair, _)| pair[node].0 == card);
                let Some((since, unnoticed)) = of_card.map(|(_, since)| *since).min() else {
                    continue;
                };
                let allowed = match self.last_up.get(&(node, card)) {
                    Some(at) if *at >= since => (*at, UP_TIME + REPLACE_TIME + unnoticed),
                    _ if is_blind => (since.max(any_up), UP_TIME * 3 + REPLACE_TIME + unnoticed),
                    _ => (since, UP_TIME + unnoticed),
                };
                if self.now.since(allowed.0) > allowed.1 {
                    let text = format!("rule 17: card {card} of node {node} has no route up");
                    return self.violate(&text);
                }
            }
        }
    }

    fn violate(&mut self, text: &str) {
        self.report.violations.push(format!("{}: {text}", self.now));
    }
}
