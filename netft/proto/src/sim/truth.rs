//! What is really so, which no engine is told: which ways are blocked or clean, and since when.
//!
//! The world refreshes it after every fault and every session change; the invariants compare
//! the engines with it.

use crate::{
    sim::{network::Network, node::Node},
    time::Time,
};

/// The truth about the world.
pub(crate) struct Truth {
    nodes: usize,
    /// Per network, sender and receiver: since when nothing passes.
    blocked: Vec<Option<Time>>,
    /// Per network and pair: since when everything passes both ways between two nodes that run
    /// and share a session.
    clean: Vec<Option<Time>>,
    /// Per network and pair: since when an operator at one end drains it.
    drained: Vec<Option<Time>>,
    /// Per network and pair: since when nobody drains it.
    kept: Vec<Option<Time>>,
    /// Per node: when it last stopped or began to run.
    disturbed: Vec<Time>,
    ran: Vec<bool>,
}

impl Truth {
    pub(crate) fn new(nodes: usize, networks: usize) -> Self {
        Self {
            nodes,
            blocked: vec![None; networks * nodes * nodes],
            clean: vec![None; networks * nodes * nodes],
            drained: vec![None; networks * nodes * nodes],
            kept: vec![None; networks * nodes * nodes],
            disturbed: vec![Time::ZERO; nodes],
            ran: vec![false; nodes],
        }
    }

    pub(crate) fn refresh(&mut self, now: Time, networks: &[Network], nodes: &[Node]) {
        for (number, node) in nodes.iter().enumerate() {
            if std::mem::replace(&mut self.ran[number], node.runs()) != node.runs() {
                self.disturbed[number] = now;
            }
        }
        for (number, network) in networks.iter().enumerate() {
            for from in 0..self.nodes {
                for to in (0..self.nodes).filter(|to| *to != from) {
                    let (a, b) = (&nodes[from], &nodes[to]);
                    let run = a.runs() && b.runs();
                    let blocked = !run || network.blocked(from, to);
                    let clean = run
                        && network.clean(from, to)
                        && network.clean(to, from)
                        && a.shares_session(from, b, to);
                    let place = self.place(number, from, to);
                    since(&mut self.blocked[place], blocked, now);
                    since(&mut self.clean[place], clean, now);
                    let drained = network.drained(from, to);
                    self.drained[place] = drained;
                    since(&mut self.kept[place], drained.is_none(), now);
                }
            }
        }
    }

    pub(crate) fn blocked(&self, network: usize, from: usize, to: usize) -> Option<Time> {
        self.blocked[self.place(network, from, to)]
    }

    pub(crate) fn clean(&self, network: usize, from: usize, to: usize) -> Option<Time> {
        self.clean[self.place(network, from, to)]
    }

    pub(crate) fn drained(&self, network: usize, a: usize, b: usize) -> Option<Time> {
        self.drained[self.place(network, a, b)]
    }

    pub(crate) fn kept(&self, network: usize, a: usize, b: usize) -> Option<Time> {
        self.kept[self.place(network, a, b)]
    }

    pub(crate) fn disturbed(&self, node: usize) -> Time {
        self.disturbed[node]
    }

    fn place(&self, network: usize, from: usize, to: usize) -> usize {
        (network * self.nodes + from) * self.nodes + to
    }
}

fn since(mark: &mut Option<Time>, holds: bool, now: Time) {
    match (holds, *mark) {
        (true, None) => *mark = Some(now),
        (false, Some(_)) => *mark = None,
        _ => {}
    }
}
