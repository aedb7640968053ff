//! What a run showed.

use std::{fmt::Write, time::Duration};

use crate::{
    ids::RouteId,
    route::{Event, EventKind, PeerStatus, RouteState, RouteStatus},
    sim::scenario::Scenario,
    time::Time,
};

/// One data packet of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRecord {
    /// The sending node.
    pub from: usize,
    /// The node it was for.
    pub to: usize,
    /// The network the sender's forwarding table chose; `None` when no route was usable.
    pub network: Option<usize>,
    /// When it was sent.
    pub sent_at: Time,
    /// When it arrived, if it did.
    pub arrived_at: Option<Time>,
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct SimReport {
    /// The scenario's seed.
    pub seed: u64,
    /// A fingerprint of every step: equal for equal scenarios and one build.
    pub trace_hash: u64,
    /// Every invariant broken, with the moment and the place; at most
    /// [`MAX_VIOLATIONS`](crate::sim::MAX_VIOLATIONS), then the run stops.
    pub violations: Vec<String>,
    /// Every event of every node, in order.
    pub events: Vec<(usize, Event)>,
    /// How long the run was on the virtual clock.
    pub virtual_time: Duration,
    /// How many steps the run took.
    pub steps: u64,
    /// Heartbeats the nodes sent.
    pub heartbeats: u64,
    /// Heartbeats that reached an engine.
    pub heartbeats_delivered: u64,
    /// Every data packet, in the order of sending.
    pub packets: Vec<PacketRecord>,
    /// Frames sent again on another route.
    pub retransmissions: u64,
    /// Packets that went out more than once and arrived.
    pub recovered: u64,
    /// Packets that did not arrive although a network was good: lost alone, or out of time.
    pub undelivered: u64,
    /// From the final repair to every pair on its best route; `None` when that was not asked for
    /// or did not happen.
    pub converged_after: Option<Duration>,
    /// The routes of every node at the end; none for a dead node.
    pub routes: Vec<Vec<RouteStatus>>,
    /// The peers of every node at the end; none for a dead node.
    pub peers: Vec<Vec<PeerStatus>>,
    /// Every step as a line, when the scenario asked for it.
    pub text: Option<String>,
}

impl SimReport {
    /// The moments at which a route of a node entered a state.
    pub fn times_entered(&self, node: usize, route: RouteId, state: RouteState) -> Vec<Time> {
        self.events
            .iter()
            .filter_map(|(at_node, event)| match event.kind {
                EventKind::StateChanged { route: changed, to, .. }
                    if *at_node == node && changed == route && to == state =>
                {
                    Some(event.at)
                }
                _ => None,
            })
            .collect()
    }

    /// The first moment not before `after` at which a route of a node stopped being up.
    pub fn first_left_up(&self, node: usize, route: RouteId, after: Time) -> Option<Time> {
        self.events.iter().find_map(|(at_node, event)| match event.kind {
            EventKind::StateChanged { route: changed, from: RouteState::Up, .. }
                if *at_node == node && changed == route && event.at >= after =>
            {
                Some(event.at)
            }
            _ => None,
        })
    }

    /// The moves of a node's data, with the route it moved to.
    pub fn data_moves(&self, node: usize) -> Vec<(Time, Option<RouteId>)> {
        self.events
            .iter()
            .filter_map(|(at_node, event)| match event.kind {
                EventKind::Moved { to, .. } if *at_node == node => Some((event.at, to)),
                _ => None,
            })
            .collect()
    }

    /// The data packets from one node to another sent in a span of time.
    pub fn packets_between(
        &self,
        (from, to): (usize, usize),
        span: std::ops::Range<Time>,
    ) -> impl Iterator<Item = &PacketRecord> {
        self.packets
            .iter()
            .filter(move |p| (p.from, p.to) == (from, to) && span.contains(&p.sent_at))
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
            "  replay: NETFT_SEED={} cargo test -p netft --test sim seeds -- --nocapture",
            self.seed
        );
        text
    }
}
