//! The invariants about data: exactly once (rule 13), nothing in flight lost (rule 14), copies only
//! where they may go (rule 15).
//!
//! Rule 14 in full: a packet that was sent while a network between the two nodes was good is
//! delivered within the ring's age. *Good*: everything passes both ways, both nodes run, use the
//! network and share the session, since long enough before the sending for every engine to know it
//! ([`Bounds::prove`](crate::sim::bounds::Bounds::prove)) and until the age is over. Two things are
//! excepted, both by what was really so:
//!
//! * *Lost alone*: while one of its copies waited for its acknowledgement, another packet got
//!   through on that copy's network. Such loss is TCP's business; but not what was sent after the
//!   network was found silent, and before anything got through there again.
//! * *Out of time*: the last copy was lost so late, or on a network so slow, that its timeout ends
//!   after the ring's age.

use std::collections::VecDeque;

use crate::{
    loss_detection::{DEFAULT_AGE, Move},
    route::{RouteState, RouteStatus},
    sim::{
        check::{Checks, Verdict},
        report::{Packet, Report},
        truth::Truth,
    },
    time::Time,
};

/// One sending of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub(crate) network: usize,
    pub(crate) at: Time,
    /// When silence about it ends the patience.
    pub(crate) until: Time,
    /// The network let it pass.
    pub(crate) through: bool,
    /// The packet went here first, and nowhere else by then.
    pub(crate) alone: bool,
    /// The network had been found silent, and nothing had got through since.
    pub(crate) doubted: bool,
}

/// What is remembered of the data.
pub(crate) struct Delivery {
    nodes: usize,
    networks: usize,
    /// Per packet: its counter.
    counters: Vec<u64>,
    /// Per packet: how it was sent.
    copies: Vec<Vec<Copy>>,
    /// Per pair of nodes and network: when a packet that went nowhere else got through.
    passed: Vec<Vec<Time>>,
    /// Per pair of nodes and network: found silent, and nothing got through since.
    doubted: Vec<bool>,
    /// Packets not judged yet, in the order of sending.
    open: VecDeque<usize>,
}

impl Delivery {
    pub(crate) fn new(nodes: usize, networks: usize) -> Self {
        Self {
            nodes,
            networks,
            counters: Vec::new(),
            copies: Vec::new(),
            passed: vec![Vec::new(); nodes * nodes * networks],
            doubted: vec![false; nodes * nodes * networks],
            open: VecDeque::new(),
        }
    }

    /// A packet exists.
    pub(crate) fn sent(&mut self, index: usize, counter: u64) {
        debug_assert_eq!(index, self.counters.len());
        self.counters.push(counter);
        self.copies.push(Vec::new());
        self.open.push_back(index);
    }

    pub(crate) fn counters(&self) -> &[u64] {
        &self.counters
    }

    /// A packet goes out.
    pub(crate) fn copied(&mut self, index: usize, (from, to): (usize, usize), copy: Copy) {
        let place = self.place(from, to, copy.network);
        self.copies[index].push(Copy { doubted: self.doubted[place], ..copy });
        if copy.through && copy.alone {
            self.passed[place].push(copy.at);
            self.doubted[place] = false;
        }
    }

    /// Rule 13: a packet reaches the far adapter.
    pub(crate) fn delivered(&mut self, index: usize, report: &mut Report, now: Time) -> Verdict {
        let packet = &mut report.packets[index];
        if let Some(before) = packet.arrived.replace(now) {
            let Packet { from, to, sent, .. } = packet;
            return Err(format!(
                "rule 13: node {from} to {to}: the packet of {sent} is delivered again, after \
                 {before}"
            ));
        }
        Ok(())
    }

    /// Rule 15: what is sent again leaves its route for another one that is up.
    /// `left`: the network that is left for its silence.
    pub(crate) fn moved(
        &mut self,
        (node, peer, left): (usize, usize, Option<usize>),
        moved: &Move,
        routes: &[RouteStatus],
    ) -> Verdict {
        if let Some(left) = left {
            let place = self.place(node, peer, left);
            self.doubted[place] = true;
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
    pub(crate) fn judge(
        &mut self,
        now: Time,
        checks: &Checks,
        truth: &Truth,
        report: &mut Report,
    ) -> Verdict {
        let bounds = &checks.bounds;
        let most = DEFAULT_AGE + bounds.longest + bounds.slack;
        while let Some(index) = self.open.front().copied() {
            let packet = report.packets[index];
            if packet.sent + most >= now {
                break;
            }
            self.open.pop_front();
            let copies = std::mem::take(&mut self.copies[index]);
            let again = copies.iter().filter(|copy| !copy.alone).count() > 0;
            report.recovered += u64::from(again && packet.arrived.is_some());
            if packet.network.is_none() || packet.arrived.is_some() {
                continue;
            }
            let (from, to) = (packet.from, packet.to);
            let good = |network: &usize| {
                let since = truth.clean(*network, from, to);
                since.is_some_and(|since| since + bounds.prove() <= packet.sent)
            };
            let Some(good) = (0..self.networks).find(good) else { continue };
            report.missed += 1;
            let end = packet.sent + DEFAULT_AGE;
            let late = copies.last().is_none_or(|last| last.until + bounds.slack >= end);
            if late || copies.iter().any(|copy| self.lost_alone((from, to), copy)) {
                continue;
            }
            return Err(format!(
                "rule 14: node {from} to {to}: the packet of {} is lost, network {good} was good; \
                 {copies:?}",
                packet.sent
            ));
        }
        Ok(())
    }

    fn lost_alone(&self, (from, to): (usize, usize), copy: &Copy) -> bool {
        if copy.doubted {
            return false;
        }
        let passed = &self.passed[self.place(from, to, copy.network)];
        let first = passed.partition_point(|at| *at < copy.at);
        passed.get(first).is_some_and(|at| *at <= copy.until)
    }

    fn place(&self, from: usize, to: usize, network: usize) -> usize {
        (from * self.nodes + to) * self.networks + network
    }
}
