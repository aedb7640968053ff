//! The invariants about data: exactly once (rule 13), nothing in flight lost (rule 14), copies only
//! where they may go (rule 15).
//!
//! Rule 14 in full: a packet that was sent while a network between the two nodes was good is
//! delivered within the ring's age. *Good*: everything passes both ways, both nodes run, use the
//! network and share the session, since long enough before the sending for every engine to know it
//! ([`TimingBounds::max_proof_time`](crate::sim::bounds::TimingBounds::max_proof_time)) and until
//! the age is over. Two things are excepted, both by what was really so:
//!
//! * *Lost alone*: while one of its copies waited for its acknowledgement, another packet got
//!   through on that copy's network. Such loss is TCP's business; but not what was sent after the
//!   network was found silent, and before anything got through there again.
//! * *Out of time*: the last copy was lost so late, or on a network so slow, that its timeout ends
//!   after the ring's age.

use std::collections::VecDeque;

use crate::{
    loss_detection::{DEFAULT_AGE, Reroute},
    route::{RouteState, RouteStatus},
    sim::{
        check::{CheckResult, InvariantChecker},
        report::{PacketRecord, SimReport},
        truth::GroundTruth,
    },
    time::Time,
};

/// One sending of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketCopy {
    pub(crate) network: usize,
    pub(crate) sent_at: Time,
    /// When silence about it ends the patience.
    pub(crate) ack_deadline: Time,
    /// The network let it pass.
    pub(crate) got_through: bool,
    /// The packet went here first, and nowhere else by then.
    pub(crate) is_sole_copy: bool,
    /// The network had been found silent, and nothing had got through since.
    pub(crate) path_was_silent: bool,
}

/// What is remembered of the data.
pub(crate) struct DeliveryChecker {
    nodes: usize,
    networks: usize,
    /// Per packet: its counter.
    counters: Vec<u64>,
    /// Per packet: how it was sent.
    copies: Vec<Vec<PacketCopy>>,
    /// Per pair of nodes and network: when a packet that went nowhere else got through.
    sole_copies_delivered: Vec<Vec<Time>>,
    /// Per pair of nodes and network: found silent, and nothing got through since.
    path_silent: Vec<bool>,
    /// Packets not judged yet, in the order of sending.
    unchecked: VecDeque<usize>,
}

impl DeliveryChecker {
    pub(crate) fn new(nodes: usize, networks: usize) -> Self {
        Self {
            nodes,
            networks,
            counters: Vec::new(),
            copies: Vec::new(),
            sole_copies_delivered: vec![Vec::new(); nodes * nodes * networks],
            path_silent: vec![false; nodes * nodes * networks],
            unchecked: VecDeque::new(),
        }
    }

    /// A packet exists.
    pub(crate) fn add_packet(&mut self, index: usize, counter: u64) {
        debug_assert_eq!(index, self.counters.len());
        self.counters.push(counter);
        self.copies.push(Vec::new());
        self.unchecked.push_back(index);
    }

    pub(crate) fn counters(&self) -> &[u64] {
        &self.counters
    }

    /// A packet goes out.
    pub(crate) fn add_copy(&mut self, index: usize, (from, to): (usize, usize), copy: PacketCopy) {
        let place = self.slot_index(from, to, copy.network);
        self.copies[index].push(PacketCopy { path_was_silent: self.path_silent[place], ..copy });
        if copy.got_through && copy.is_sole_copy {
            self.sole_copies_delivered[place].push(copy.sent_at);
            self.path_silent[place] = false;
        }
    }

    /// Rule 13: a packet reaches the far adapter.
    pub(crate) fn check_delivered(
        &mut self,
        index: usize,
        report: &mut SimReport,
        now: Time,
    ) -> CheckResult {
        let packet = &mut report.packets[index];
        if let Some(before) = packet.arrived_at.replace(now) {
            let PacketRecord { from, to, sent_at: sent, .. } = packet;
            return Err(format!(
                "rule 13: node {from} to {to}: the packet of {sent} is delivered again, after \
                 {before}"
            ));
        }
        Ok(())
    }

    /// Rule 15: what is sent again leaves its route for another one that is up.
    /// `left`: the network that is left for its silence.
    pub(crate) fn check_reroute(
        &mut self,
        (node, peer, left): (usize, usize, Option<usize>),
        moved: &Reroute,
        routes: &[RouteStatus],
    ) -> CheckResult {
        if let Some(left) = left {
            let place = self.slot_index(node, peer, left);
            self.path_silent[place] = true;
        }
        let to = routes.iter().find(|route| route.id == moved.to);
        let fit = to.is_some_and(|to| to.state == RouteState::Up || (to.active && !moved.suspect));
        if fit && moved.from != moved.to {
            return Ok(());
        }
        let state = to.map(|to| to.state);
        Err(format!(
            "rule 15: node {node} sends again from route {} on route {}, which is {state:?}",
            moved.from, moved.to
        ))
    }

    /// Rule 14, for every packet whose time is over.
    pub(crate) fn check_overdue(
        &mut self,
        now: Time,
        checks: &InvariantChecker,
        truth: &GroundTruth,
        report: &mut SimReport,
    ) -> CheckResult {
        let bounds = &checks.bounds;
        let most = DEFAULT_AGE + bounds.max_travel + bounds.slack;
        while let Some(index) = self.unchecked.front().copied() {
            let packet = report.packets[index];
            if packet.sent_at + most >= now {
                break;
            }
            self.unchecked.pop_front();
            let copies = std::mem::take(&mut self.copies[index]);
            let again = copies.iter().filter(|copy| !copy.is_sole_copy).count() > 0;
            report.recovered += u64::from(again && packet.arrived_at.is_some());
            if packet.network.is_none() || packet.arrived_at.is_some() {
                continue;
            }
            let (from, to) = (packet.from, packet.to);
            let good = |network: &usize| {
                let since = truth.clean_since(*network, from, to);
                since.is_some_and(|since| since + bounds.max_proof_time() <= packet.sent_at)
            };
            let Some(good) = (0..self.networks).find(good) else { continue };
            report.undelivered += 1;
            let end = packet.sent_at + DEFAULT_AGE;
            let late = copies.last().is_none_or(|last| last.ack_deadline + bounds.slack >= end);
            if late || copies.iter().any(|copy| self.is_lost_alone((from, to), copy)) {
                continue;
            }
            return Err(format!(
                "rule 14: node {from} to {to}: the packet of {} is lost, network {good} was good; \
                 {copies:?}",
                packet.sent_at
            ));
        }
        Ok(())
    }

    fn is_lost_alone(&self, (from, to): (usize, usize), copy: &PacketCopy) -> bool {
        if copy.path_was_silent {
            return false;
        }
        let passed = &self.sole_copies_delivered[self.slot_index(from, to, copy.network)];
        let first = passed.partition_point(|at| *at < copy.sent_at);
        passed.get(first).is_some_and(|at| *at <= copy.ack_deadline)
    }

    fn slot_index(&self, from: usize, to: usize, network: usize) -> usize {
        (from * self.nodes + to) * self.networks + network
    }
}
