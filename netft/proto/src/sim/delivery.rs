//! Invariants about data: delivered once (rule 13), nothing in flight lost (rule 14), retransmitted
//! only on another route that is up (rule 15).
//!
//! Rule 14 in full: a packet that was sent while a network between the two nodes was good is
//! delivered within the retransmission age. *Good*: everything passes in both directions, both
//! nodes run, use the network and share the session, since long enough before the sending for every
//! engine to know it
//! ([`TimingBounds::max_proof_time`](crate::sim::bounds::TimingBounds::max_proof_time)) and until
//! the age is over. The ground truth decides two exceptions:
//!
//! * *Isolated loss*: while one of its copies waited for its acknowledgement, another packet got
//!   through on that copy's network. Such loss is left to TCP. It does not excuse a packet sent
//!   after the network was found silent and before anything got through there again. The wait
//!   begins with the last acknowledgement of a packet sent before, if that comes after the copy was
//!   sent (RFC 9002 section 6.2.1: it restarts the timer).
//! * *Too late*: the last copy was lost so late, or on a network so slow, that its timeout ends
//!   after the retransmission age.

use std::{collections::VecDeque, time::Duration};

use crate::{
    loss_detection::{DEFAULT_AGE, Reroute, rtt_estimator::MAX_ACK_DELAY},
    route::{RouteState, RouteStatus},
    sim::{
        check::{CheckResult, InvariantChecker},
        report::{DataReport, PacketRecord},
    },
    time::Time,
};

/// One transmission of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketCopy {
    pub(crate) network: usize,
    pub(crate) sent_at: Time,
    /// When its probe timeout expires without an acknowledgement.
    pub(crate) ack_deadline: Time,
    /// The network let it pass.
    pub(crate) got_through: bool,
    /// First transmission, and on no other network at that time.
    pub(crate) is_sole_copy: bool,
    /// The network had been found silent, and nothing had got through since.
    pub(crate) path_was_silent: bool,
}

/// State of the invariants about data.
pub(crate) struct DeliveryChecker {
    nodes: usize,
    networks: usize,
    /// Per packet: its counter.
    counters: Vec<u64>,
    /// Per packet: its transmissions.
    copies: Vec<Vec<PacketCopy>>,
    /// Per pair of nodes and network: when sole copies that got through were sent.
    sole_copies_delivered: Vec<Vec<Time>>,
    /// Per pair of nodes and network: when packets were sent, and their probe timeouts.
    probe_timeouts: Vec<Vec<(Time, Duration)>>,
    /// Per pair of nodes and network: found silent, and nothing got through since.
    path_silent: Vec<bool>,
    /// Packets whose time is not over, in the order of sending.
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
            probe_timeouts: vec![Vec::new(); nodes * nodes * networks],
            path_silent: vec![false; nodes * nodes * networks],
            unchecked: VecDeque::new(),
        }
    }

    /// Adds a packet that is about to be sent.
    pub(crate) fn add_packet(&mut self, index: usize, counter: u64) {
        debug_assert_eq!(index, self.counters.len());
        self.counters.push(counter);
        self.copies.push(Vec::new());
        self.unchecked.push_back(index);
    }

    pub(crate) fn counters(&self) -> &[u64] {
        &self.counters
    }

    /// Adds a transmission of a packet.
    pub(crate) fn add_copy(&mut self, index: usize, (from, to): (usize, usize), copy: PacketCopy) {
        let slot = self.slot_index(from, to, copy.network);
        self.probe_timeouts[slot].push((copy.sent_at, copy.ack_deadline.since(copy.sent_at)));
        self.copies[index].push(PacketCopy { path_was_silent: self.path_silent[slot], ..copy });
        if copy.got_through && copy.is_sole_copy {
            self.sole_copies_delivered[slot].push(copy.sent_at);
            self.path_silent[slot] = false;
        }
    }

    /// Rule 13: a packet reaches the far adapter once.
    pub(crate) fn check_delivered(&self, packet: &mut PacketRecord, now: Time) -> CheckResult {
        if let Some(before) = packet.arrived_at.replace(now) {
            let PacketRecord { from, to, sent_at, .. } = packet;
            return Err(format!(
                "rule 13: node {from} to {to}: the packet of {sent_at} is delivered again, after \
                 {before}"
            ));
        }
        Ok(())
    }

    /// Rule 15: a retransmission leaves its route for another one that is up. `silent` is the
    /// network it leaves because nothing is acknowledged there.
    pub(crate) fn check_reroute(
        &mut self,
        (node, peer, silent): (usize, usize, Option<usize>),
        reroute: &Reroute,
        routes: &[RouteStatus],
    ) -> CheckResult {
        if let Some(network) = silent {
            let slot = self.slot_index(node, peer, network);
            self.path_silent[slot] = true;
        }
        let to = routes.iter().find(|route| route.id == reroute.to);
        let usable =
            |to: &RouteStatus| to.state == RouteState::Up || (to.active && !reroute.suspect);
        if to.is_some_and(usable) && reroute.from != reroute.to {
            return Ok(());
        }
        let state = to.map(|to| to.state);
        Err(format!(
            "rule 15: node {node} retransmits from route {} on route {}, which is {state:?}",
            reroute.from, reroute.to
        ))
    }

    /// Rule 14, for every packet whose time is over.
    pub(crate) fn check_overdue(
        &mut self,
        now: Time,
        checker: &InvariantChecker,
        report: &mut DataReport,
    ) -> CheckResult {
        let bounds = &checker.bounds;
        let most = DEFAULT_AGE + bounds.max_travel + bounds.slack;
        while let Some(index) = self.unchecked.front().copied() {
            let packet = report.packets[index];
            if packet.sent_at + most >= now {
                break;
            }
            self.unchecked.pop_front();
            let copies = std::mem::take(&mut self.copies[index]);
            let sent_again = copies.iter().any(|copy| !copy.is_sole_copy);
            report.recovered += u64::from(sent_again && packet.arrived_at.is_some());
            if packet.network.is_none() || packet.arrived_at.is_some() {
                continue;
            }
            let (from, to) = (packet.from, packet.to);
            let good = |network: &usize| {
                let since = checker.truth.clean_since(*network, from, to);
                since.is_some_and(|since| since + bounds.max_proof_time() <= packet.sent_at)
            };
            let Some(good) = (0..self.networks).find(good) else { continue };
            report.undelivered += 1;
            let end = packet.sent_at + DEFAULT_AGE;
            let too_late = copies.last().is_none_or(|last| last.ack_deadline + bounds.slack >= end);
            let restarts = bounds.max_travel * 2 + MAX_ACK_DELAY;
            let is_isolated = |copy| self.is_isolated_loss((from, to), copy, restarts);
            if too_late || copies.iter().any(is_isolated) {
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

    /// `restarts`: how long after a copy an acknowledgement of earlier packets may arrive.
    fn is_isolated_loss(
        &self,
        (from, to): (usize, usize),
        copy: &PacketCopy,
        restarts: Duration,
    ) -> bool {
        if copy.path_was_silent {
            return false;
        }
        let slot = self.slot_index(from, to, copy.network);
        // Acknowledgements that arrive meanwhile may raise the timeout (RFC 9002 section 6.2.1).
        let timeouts = &self.probe_timeouts[slot];
        let later = &timeouts[timeouts.partition_point(|(at, _)| *at < copy.sent_at)..];
        let mut end = copy.ack_deadline + restarts;
        for (at, timeout) in later {
            if *at > end {
                break;
            }
            end = end.max(copy.sent_at + *timeout + restarts);
        }
        let delivered = &self.sole_copies_delivered[slot];
        let first = delivered.partition_point(|at| *at < copy.sent_at);
        delivered.get(first).is_some_and(|at| *at <= end)
    }

    fn slot_index(&self, from: usize, to: usize, network: usize) -> usize {
        (from * self.nodes + to) * self.networks + network
    }
}
