//! Ground truth, which no engine sees: which directions are blocked or clean, and since when.
//!
//! Refreshed after every fault and every session change; the invariants compare the engines with
//! it.

use crate::{
    sim::{network::SimNetwork, node::SimNode},
    time::Time,
};

/// Ground truth of one run.
#[derive(Clone, Debug)]
pub(crate) struct GroundTruth {
    nodes: usize,
    /// Per network, sender and receiver: since when nothing passes.
    blocked_since: Vec<Option<Time>>,
    /// Per network and pair: since when everything passes both ways between two nodes that run,
    /// heed heartbeats and share a session.
    clean_since: Vec<Option<Time>>,
    /// Per network, sender and receiver: since when it loses full-size frames so that it shows.
    lossy_since: Vec<Option<Time>>,
    /// Per network and pair: since when an operator at one end drains it.
    drained_since: Vec<Option<Time>>,
    /// Per network and pair: since when nobody drains it.
    undrained_since: Vec<Option<Time>>,
    /// Per node: when it last stopped or began to run, or to heed heartbeats.
    last_disturbed: Vec<Time>,
    was_running: Vec<bool>,
}

impl GroundTruth {
    pub(crate) fn new(nodes: usize, networks: usize) -> Self {
        Self {
            nodes,
            blocked_since: vec![None; networks * nodes * nodes],
            clean_since: vec![None; networks * nodes * nodes],
            lossy_since: vec![None; networks * nodes * nodes],
            drained_since: vec![None; networks * nodes * nodes],
            undrained_since: vec![None; networks * nodes * nodes],
            last_disturbed: vec![Time::ZERO; nodes],
            was_running: vec![false; nodes],
        }
    }

    pub(crate) fn refresh(&mut self, now: Time, networks: &[SimNetwork], nodes: &[SimNode]) {
        for (number, node) in nodes.iter().enumerate() {
            if std::mem::replace(&mut self.was_running[number], node.is_attentive())
                != node.is_attentive()
            {
                self.last_disturbed[number] = now;
            }
        }
        for (number, network) in networks.iter().enumerate() {
            for from in 0..self.nodes {
                for to in (0..self.nodes).filter(|to| *to != from) {
                    let (a, b) = (&nodes[from], &nodes[to]);
                    let running = a.is_running() && b.is_running();
                    let attentive = a.is_attentive() && b.is_attentive();
                    let blocked = !running || network.is_blocked(from, to);
                    let clean = attentive
                        && network.is_clean(from, to)
                        && network.is_clean(to, from)
                        && a.shares_session(from, b, to);
                    let slot = self.slot_index(number, from, to);
                    update_since(&mut self.blocked_since[slot], blocked, now);
                    update_since(&mut self.clean_since[slot], clean, now);
                    let lossy = network.loses_data(from, to);
                    let found = now + network.loss_rarity(from, to);
                    update_since(&mut self.lossy_since[slot], lossy, found);
                    let drained = network.pair_drained_since(from, to);
                    self.drained_since[slot] = drained;
                    update_since(&mut self.undrained_since[slot], drained.is_none(), now);
                }
            }
        }
    }

    pub(crate) fn blocked_since(&self, network: usize, from: usize, to: usize) -> Option<Time> {
        self.blocked_since[self.slot_index(network, from, to)]
    }

    pub(crate) fn clean_since(&self, network: usize, from: usize, to: usize) -> Option<Time> {
        self.clean_since[self.slot_index(network, from, to)]
    }

    pub(crate) fn lossy_since(&self, network: usize, from: usize, to: usize) -> Option<Time> {
        self.lossy_since[self.slot_index(network, from, to)]
    }

    pub(crate) fn drained_since(&self, network: usize, a: usize, b: usize) -> Option<Time> {
        self.drained_since[self.slot_index(network, a, b)]
    }

    pub(crate) fn undrained_since(&self, network: usize, a: usize, b: usize) -> Option<Time> {
        self.undrained_since[self.slot_index(network, a, b)]
    }

    pub(crate) fn last_disturbed(&self, node: usize) -> Time {
        self.last_disturbed[node]
    }

    fn slot_index(&self, network: usize, from: usize, to: usize) -> usize {
        (network * self.nodes + from) * self.nodes + to
    }
}

fn update_since(since: &mut Option<Time>, holds: bool, now: Time) {
    *since = since.filter(|_| holds).or(holds.then_some(now));
}
