//! The exchange of rosters among many nodes: nodes that are away, splits, lost messages, documents
//! rolled back by hand, replayed or forged, and a cluster's key in two places.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use netft_proto::{
    NodeKey, Time,
    config::PrivateKey,
    roster::{
        ClusterId, ExchangeOutput, ExchangeProblem, NodeEntry, Roster, RosterExchange,
        RosterRequest, SignedRoster,
    },
};
use ring::{rand::SystemRandom, signature::Ed25519KeyPair};

const STEP: Duration = Duration::from_millis(5);
/// A request without an answer is given up after this.
const REPLY_TIMEOUT: Duration = Duration::from_secs(4);

struct Key(PrivateKey, ClusterId);

impl Key {
    fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = PrivateKey(document.as_ref().to_vec().into());
        let id = ClusterId(key.public_key().unwrap().0);
        Self(key, id)
    }

    fn sign(&self, roster: &Roster) -> Arc<SignedRoster> {
        Arc::new(SignedRoster::sign(roster, &self.0).unwrap())
    }
}

fn key_of(node: usize) -> NodeKey {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&(node as u64).to_be_bytes());
    NodeKey(key)
}

fn grown(roster: &Roster, name: &str, node: usize) -> Roster {
    let entry = NodeEntry {
        name: name.to_owned(),
        key: key_of(node),
        addresses: Vec::new(),
        site: String::new(),
        roles: Vec::new(),
    };
    roster.with_node(entry).unwrap()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

enum Message {
    Request(u64, Vec<u8>),
    Reply(u64, Option<Vec<u8>>),
}

struct World {
    now: Time,
    nodes: Vec<RosterExchange>,
    /// Pairs that have a session, the smaller first.
    sessions: BTreeSet<(usize, usize)>,
    /// Arrival, sender, receiver.
    wire: BTreeMap<(Time, u64), (usize, usize, Message)>,
    sent: u64,
    /// Messages lost, per thousand.
    loss: u64,
    random: Random,
    highest: Vec<u64>,
    problems: Vec<(usize, NodeKey, ExchangeProblem)>,
}

impl World {
    fn new(count: usize, first: &Arc<SignedRoster>, seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            nodes: (0..count).map(|_| RosterExchange::new(Some(first.clone()))).collect(),
            sessions: BTreeSet::new(),
            wire: BTreeMap::new(),
            sent: 0,
            loss: 0,
            random: Random(seed | 1),
            highest: vec![0; count],
            problems: Vec::new(),
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if a != b && self.sessions.insert((a.min(b), a.max(b))) {
            self.nodes[a].on_session_up(self.now, key_of(b));
            self.nodes[b].on_session_up(self.now, key_of(a));
        }
    }

    fn connect_all(&mut self, nodes: std::ops::Range<usize>) {
        nodes.clone().for_each(|a| nodes.clone().for_each(|b| self.connect(a, b)));
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        if self.sessions.remove(&(a.min(b), a.max(b))) {
            self.nodes[a].on_session_down(key_of(b));
            self.nodes[b].on_session_down(key_of(a));
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        self.sent += 1;
        let number = match &message {
            Message::Request(number, _) | Message::Reply(number, _) => *number,
        };
        if self.random.below(1000) < self.loss {
            // Whoever asked gets no answer in time.
            let asker = if matches!(message, Message::Request(..)) { from } else { to };
            let other = if asker == from { to } else { from };
            let at = self.now + REPLY_TIMEOUT;
            let lost = Message::Reply(number, None);
            self.wire.insert((at, self.sent), (other, asker, lost));
            return;
        }
        let delay = Duration::from_millis(1 + self.random.below(40));
        self.wire.insert((self.now + delay, self.sent), (from, to, message));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
            self.now = self.now + STEP;
        }
    }

    fn step(&mut self) {
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, message) = entry.remove();
            let is_up = self.sessions.contains(&(from.min(to), from.max(to)));
            match message {
                Message::Request(number, request) if is_up => {
                    let reply = self.nodes[to].on_request(self.now, key_of(from), &request);
                    self.send(to, from, Message::Reply(number, Some(reply)));
                }
                Message::Request(number, _) => {
                    self.nodes[from].on_reply(self.now, key_of(to), number, None);
                }
                Message::Reply(number, reply) => {
                    let reply = reply.filter(|_| is_up);
                    self.nodes[to].on_reply(self.now, key_of(from), number, reply.as_deref());
                }
            }
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].on_timer(self.now);
            let mut outputs = VecDeque::new();
            while let Some(output) = self.nodes[node].poll_output() {
                outputs.push_back(output);
            }
            for output in outputs {
                match output {
                    ExchangeOutput::Send { peer, number, request } => {
                        let to = (0..self.nodes.len()).find(|to| key_of(*to) == peer).unwrap();
                        self.send(node, to, Message::Request(number, request));
                    }
                    ExchangeOutput::Adopt { roster, .. } => {
                        let serial = roster.version().serial;
                        assert!(serial > self.highest[node], "node {node} goes back to {serial}");
                        self.highest[node] = serial;
                    }
                    ExchangeOutput::Problem { peer, problem } => {
                        self.problems.push((node, peer, problem));
                    }
                }
            }
        }
    }

    fn set_own(&mut self, node: usize, roster: &Arc<SignedRoster>) {
        self.highest[node] = roster.version().serial;
        self.nodes[node].set_own(self.now, roster.clone());
    }

    fn serials(&self) -> BTreeSet<u64> {
        self.nodes.iter().map(|node| node.own().unwrap().version().serial).collect()
    }
}

fn first_roster(key: &Key) -> Roster {
    grown(&Roster::new("prod", key.1), "n0", 0)
}

#[test]
fn a_change_reaches_64_nodes_at_once_and_those_that_were_away_later() {
    let key = Key::new();
    let first = first_roster(&key);
    let mut world = World::new(64, &key.sign(&first), 11);
    world.connect_all(0..60);
    world.run(Duration::from_secs(1));
    let before = world.sent;
    let second = grown(&first, "n1", 1);
    world.set_own(5, &key.sign(&second));
    world.run(Duration::from_millis(250));
    let reached = |world: &World, serial| {
        world.nodes.iter().filter(|node| node.own().unwrap().version().serial == serial).count()
    };
    assert_eq!(reached(&world, second.serial), 60);
    world.run(Duration::from_secs(2));
    // An offer and its reply per pair and direction, and one document a node.
    let messages = world.sent - before;
    assert!(messages <= 60 * 59 * 2 + 60 * 4, "{messages}");
    // Four nodes come back, each to one node only.
    for node in 60..64 {
        world.connect(node, node - 60);
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.serials(), BTreeSet::from([second.serial]));
    assert_eq!(world.problems, []);
}

#[test]
fn lost_messages_and_sessions_that_come_and_go_only_delay() {
    for seed in 1..=12 {
        let key = Key::new();
        let mut roster = first_roster(&key);
        let mut world = World::new(16, &key.sign(&roster), seed * 7919);
        world.loss = 300;
        for change in 1..6 {
            for _ in 0..60 {
                let (a, b) = (world.random.below(16) as usize, world.random.below(16) as usize);
                if world.random.below(2) == 0 {
                    world.connect(a, b)
                } else {
                    world.disconnect(a, b)
                }
            }
            roster = grown(&roster, &format!("n{change}"), change);
            let writer = world.random.below(16) as usize;
            world.set_own(writer, &key.sign(&roster));
            world.run(Duration::from_secs(2));
        }
        world.connect_all(0..16);
        world.loss = 100;
        world.run(Duration::from_secs(120));
        assert_eq!(world.serials(), BTreeSet::from([roster.serial]), "seed {seed}");
        assert_eq!(world.problems, [], "seed {seed}");
    }
}

#[test]
fn a_split_during_an_add_heals_on_both_sides() {
    let key = Key::new();
    let first = first_roster(&key);
    let mut world = World::new(64, &key.sign(&first), 3);
    world.connect_all(0..64);
    world.run(Duration::from_secs(1));
    let second = grown(&first, "n1", 1);
    world.set_own(0, &key.sign(&second));
    // The first messages are on their way when the network splits.
    world.run(Duration::from_millis(10));
    for a in 0..32 {
        (32..64).for_each(|b| world.disconnect(a, b));
    }
    world.run(Duration::from_secs(2));
    for node in 0..32 {
        assert_eq!(world.nodes[node].own().unwrap().version().serial, second.serial, "{node}");
    }
    world.connect_all(0..64);
    world.run(Duration::from_secs(2));
    assert_eq!(world.serials(), BTreeSet::from([second.serial]));
    assert_eq!(world.problems, []);
}

#[test]
fn one_serial_with_two_contents_is_reported_on_both_sides_and_a_higher_one_ends_it() {
    let key = Key::new();
    let first = first_roster(&key);
    let mut world = World::new(8, &key.sign(&first), 5);
    world.connect_all(0..4);
    world.connect_all(4..8);
    world.run(Duration::from_secs(1));
    let (left, right) = (grown(&first, "left", 1), grown(&first, "right", 2));
    world.set_own(0, &key.sign(&left));
    world.set_own(7, &key.sign(&right));
    world.run(Duration::from_secs(1));
    world.connect_all(0..8);
    world.run(Duration::from_secs(2));
    for node in 0..8 {
        let own = world.nodes[node].own().unwrap();
        let side = if node < 4 { "left" } else { "right" };
        assert!(own.roster().node_named(side).is_some(), "neither side is overwritten");
        let others = if node < 4 { 4..8 } else { 0..4 };
        for other in others {
            let count = world
                .problems
                .iter()
                .filter(|(at, peer, problem)| {
                    (*at, *peer) == (node, key_of(other))
                        && matches!(problem, ExchangeProblem::Conflict { .. })
                })
                .count();
            assert_eq!(count, 1, "{node} about {other}");
        }
    }
    let third = grown(&left, "right", 2);
    world.set_own(0, &key.sign(&third));
    world.run(Duration::from_secs(2));
    assert_eq!(world.serials(), BTreeSet::from([third.serial]));
    let open = world.nodes.iter().flat_map(RosterExchange::peers);
    assert_eq!(open.filter(|(_, peer)| peer.problem.is_some()).count(), 0);
}

#[test]
fn a_document_rolled_back_by_hand_comes_forward_again() {
    let key = Key::new();
    let first = first_roster(&key);
    let second = grown(&first, "n1", 1);
    let mut world = World::new(5, &key.sign(&second), 9);
    world.connect_all(0..5);
    world.run(Duration::from_secs(1));
    // Another file in its place, and a restart.
    (0..4).for_each(|other| world.disconnect(4, other));
    world.nodes[4] = RosterExchange::new(Some(key.sign(&first)));
    world.highest[4] = first.serial;
    world.connect_all(0..5);
    world.run(Duration::from_secs(1));
    assert_eq!(world.serials(), BTreeSet::from([second.serial]));
    // The same without a restart.
    world.set_own(3, &key.sign(&first));
    world.run(Duration::from_secs(1));
    assert_eq!(world.serials(), BTreeSet::from([second.serial]));
}

#[test]
fn forged_replayed_and_foreign_documents_change_nothing() {
    let (key, foreign) = (Key::new(), Key::new());
    let first = first_roster(&key);
    let second = key.sign(&grown(&first, "n1", 1));
    let mut node = RosterExchange::new(Some(second.clone()));
    let peer = key_of(3);
    node.on_session_up(Time::ZERO, peer);
    while node.poll_output().is_some() {}
    let third = key.sign(&grown(second.roster(), "n2", 2));
    let forged = third.text().replace("serial = 4", "serial = 9");
    let other_cluster = foreign.sign(&first_roster(&foreign));
    let replayed = key.sign(&first);
    for text in [forged.as_str(), other_cluster.text(), replayed.text(), "", second.text()] {
        let request = RosterRequest::Push(text.as_bytes()).encode();
        node.on_request(Time::ZERO, peer, &request);
        assert_eq!(node.own(), Some(&second));
    }
    let mut problems = 0;
    while let Some(output) = node.poll_output() {
        match output {
            ExchangeOutput::Problem { problem: ExchangeProblem::Invalid(_), .. } => problems += 1,
            ExchangeOutput::Send { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    // The two bad signatures are one problem; the replayed document is answered with the newer.
    assert_eq!(problems, 2);
    // Without a roster of its own a node takes none: an operator decides whom it trusts.
    let mut fresh = RosterExchange::new(None);
    fresh.on_session_up(Time::ZERO, peer);
    fresh.on_request(Time::ZERO, peer, &RosterRequest::Push(third.text().as_bytes()).encode());
    assert_eq!(fresh.poll_output(), None);
    assert_eq!(fresh.own(), None);
}

#[test]
fn a_late_reply_of_a_former_session_counts_for_nothing() {
    let key = Key::new();
    let first = first_roster(&key);
    let mut node = RosterExchange::new(Some(key.sign(&first)));
    let peer = key_of(3);
    let sent = |node: &mut RosterExchange| match node.poll_output() {
        Some(ExchangeOutput::Send { number, .. }) => number,
        other => panic!("{other:?}"),
    };
    node.on_session_up(Time::ZERO, peer);
    let former = sent(&mut node);
    node.on_session_down(peer);
    let second = key.sign(&grown(&first, "n1", 1));
    node.set_own(Time::ZERO, second.clone());
    node.on_session_up(Time::ZERO, peer);
    let current = sent(&mut node);
    // "Same", about the version before.
    node.on_reply(Time::ZERO, peer, former, Some(&[1]));
    assert_eq!(node.peers().next().unwrap().1.version, None);
    node.on_reply(Time::ZERO, peer, current, Some(&[1]));
    assert_eq!(node.peers().next().unwrap().1.version, Some(second.version()));
}
