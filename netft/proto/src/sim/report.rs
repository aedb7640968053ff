//! The result of a run.

use std::{fmt::Write, time::Duration};

use crate::{
    ids::RouteId,
    route::{Event, EventKind, PeerStatus, Reason, RouteState, RouteStatus},
    sim::scenario::Scenario,
    time::Time,
};

/// Violations a run collects before it stops.
pub const MAX_VIOLATIONS: usize = 10;

/// One data packet of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRecord {
    /// The sending node.
    pub from: usize,
    /// The receiving node.
    pub to: usize,
    /// The network the sender's forwarding table chose; `None` when no route was usable.
    pub network: Option<usize>,
    /// Time of sending.
    pub sent_at: Time,
    /// Time of arrival; `None` when it was lost.
    pub arrived_at: Option<Time>,
}

/// Data of a run.
#[derive(Clone, Debug, Default)]
pub struct DataReport {
    /// Every data packet, in the order of sending.
    pub packets: Vec<PacketRecord>,
    /// Frames retransmitted on another route.
    pub retransmissions: u64,
    /// Packets that were sent more than once and arrived.
    pub recovered: u64,
    /// Packets lost although a network was good: isolated losses, or past the retransmission age.
    pub undelivered: u64,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct SimReport {
    /// The scenario's seed.
    pub seed: u64,
    /// Hash of every step: equal for equal scenarios and one build.
    pub trace_hash: u64,
    /// Every broken invariant with its moment and place, at most [`MAX_VIOLATIONS`]; then the run
    /// stops.
    pub violations: Vec<String>,
    /// Every event of every node, in order.
    pub events: Vec<(usize, Event)>,
    /// Length of the run on the virtual clock.
    pub virtual_time: Duration,
    /// Steps of the event queue.
    pub steps: u64,
    /// Heartbeats sent by all nodes, requests and replies.
    pub heartbeats: u64,
    /// Heartbeats that reached a node and were authentic.
    pub heartbeats_delivered: u64,
    /// Data packets and their retransmissions.
    pub data: DataReport,
    /// From the final repair to every pair on its best route; `None` when the scenario does not
    /// ask for it or it did not happen.
    pub converged_after: Option<Duration>,
    /// The routes of every node at the end; none for a dead node.
    pub routes: Vec<Vec<RouteStatus>>,
    /// The peers of every node at the end; none for a dead node.
    pub peers: Vec<Vec<PeerStatus>>,
    /// Every step as a line, with [`Scenario::keep_text`].
    pub text: Option<String>,
}

impl SimReport {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            seed: scenario.seed,
            trace_hash: 0,
            violations: Vec::new(),
            events: Vec::new(),
            virtual_time: Duration::ZERO,
            steps: 0,
            heartbeats: 0,
            heartbeats_delivered: 0,
            data: DataReport::default(),
            converged_after: None,
            routes: Vec::new(),
            peers: Vec::new(),
            text: None,
        }
    }

    fn events_of(&self, node: usize) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |(at_node, _)| *at_node == node).map(|(_, event)| event)
    }

    /// State changes of a route of a node: when, from which state, to which.
    fn state_changes(
        &self,
        node: usize,
        id: RouteId,
    ) -> impl Iterator<Item = (Time, RouteState, RouteState)> {
        self.events_of(node).filter_map(move |event| {
            let EventKind::StateChanged { route, from, to, .. } = event.kind else { return None };
            (route == id).then_some((event.at, from, to))
        })
    }

    /// The moments at which a route of a node entered a state.
    pub fn times_entered(&self, node: usize, route: RouteId, state: RouteState) -> Vec<Time> {
        let entered = self.state_changes(node, route).filter(|(_, _, to)| *to == state);
        entered.map(|(at, ..)| at).collect()
    }

    /// The first moment not before `after` at which a route of a node stopped being up.
    pub fn first_left_up(&self, node: usize, route: RouteId, after: Time) -> Option<Time> {
        let mut left = self.state_changes(node, route);
        left.find(|(at, from, _)| *from == RouteState::Up && *at >= after).map(|(at, ..)| at)
    }

    /// Moves of a node's data not before `since`: when, to which network and why.
    pub fn network_moves(
        &self,
        scenario: &Scenario,
        node: usize,
        since: Time,
    ) -> Vec<(Time, usize, Reason)> {
        let moves = self.events_of(node).filter(|event| event.at >= since);
        let moves = moves.filter_map(|event| {
            let EventKind::Moved { to: Some(to), reason, .. } = event.kind else { return None };
            Some((event.at, scenario.network_of(node, to)?, reason))
        });
        moves.collect()
    }

    /// The moves of a node's data, with the route it moved to.
    pub fn data_moves(&self, node: usize) -> Vec<(Time, Option<RouteId>)> {
        let moves = self.events_of(node).filter_map(|event| {
            let EventKind::Moved { to, .. } = event.kind else { return None };
            Some((event.at, to))
        });
        moves.collect()
    }

    /// The data packets from one node to another sent in a span of time.
    pub fn packets_between(
        &self,
        (from, to): (usize, usize),
        span: std::ops::Range<Time>,
    ) -> impl Iterator<Item = &PacketRecord> {
        let packets = self.data.packets.iter();
        packets.filter(move |p| (p.from, p.to) == (from, to) && span.contains(&p.sent_at))
    }

    /// The violations as text, with the scenario's faults before them and the command that
    /// repeats the run after them.
    pub fn failure_text(&self, scenario: &Scenario) -> String {
        let mut text = format!("seed {} broke {} rules\n", self.seed, self.violations.len());
        // Writing into a string cannot fail.
        for (at, fault) in scenario.faults() {
            let _ = writeln!(text, "  {at} {fault:?}");
        }
        for violation in &self.violations {
            let _ = writeln!(text, "  {violation}");
        }
        let _ = write!(
            text,
            "  replay: NETFT_SEED={} cargo test -p netft-proto --test sim seeds -- --nocapture",
            self.seed
        );
        text
    }
}
