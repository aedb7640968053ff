//! The end of a run: rule 5, and the report.

use std::time::Duration;

use crate::{
    route::RouteState,
    sim::{
        MAX_VIOLATIONS,
        report::SimReport,
        rules::routes_to_peer,
        scenario::{FaultAction, Scenario},
        simulation::{Simulation, node_pairs},
    },
    time::Time,
};

/// How often convergence is looked at.
const CONVERGENCE_CHECK_INTERVAL: Duration = Duration::from_millis(20);

impl Simulation<'_> {
    /// Repairs everything and runs until every pair has been on its best route for two
    /// detection times.
    pub(crate) fn run_to_convergence(&mut self) {
        if self.report.violations.len() >= MAX_VIOLATIONS {
            return;
        }
        self.apply_fault(FaultAction::HealAll);
        let healed = self.now;
        let deadline = healed + self.checker.bounds.max_convergence_time();
        let mut good_since: Option<Time> = None;
        while self.report.violations.len() < MAX_VIOLATIONS {
            self.run_until(self.now + CONVERGENCE_CHECK_INTERVAL);
            let Err(words) = self.check_converged() else {
                let since = *good_since.get_or_insert(self.now);
                if self.now.since(since) >= self.checker.bounds.max_detection_time * 2 {
                    self.report.converged_after = Some(since.since(healed));
                    return;
                }
                continue;
            };
            good_since = None;
            if self.now > deadline {
                self.record_violation(&format!("rule 5: repaired at {healed}, and {words}"));
                return;
            }
        }
    }

    fn check_converged(&self) -> Result<(), String> {
        for (node, peer) in node_pairs(self.nodes.len()) {
            let routes = routes_to_peer(&self.nodes, node, peer);
            let best = routes.iter().map(|route| route.spec.priority).min();
            if let Some(low) = routes.iter().position(|route| route.state != RouteState::Up) {
                let state = routes[low].state;
                return Err(format!("node {node} to {peer} over network {low} is {state}"));
            }
            let active = routes.iter().find(|route| route.active);
            if active.map(|route| route.spec.priority) != best || best.is_none() {
                return Err(format!("node {node} to {peer} is not on its best route"));
            }
        }
        Ok(())
    }

    pub(crate) fn into_report(self) -> SimReport {
        let (trace_hash, text) = self.trace.into_parts();
        SimReport {
            trace_hash,
            text,
            virtual_time: self.now.since(Time::ZERO),
            routes: self.nodes.iter().map(|node| node.routes.clone()).collect(),
            peers: self.nodes.iter().map(|node| node.peers.clone()).collect(),
            ..self.report
        }
    }
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
            packets: Vec::new(),
            retransmissions: 0,
            recovered: 0,
            undelivered: 0,
            converged_after: None,
            routes: Vec::new(),
            peers: Vec::new(),
            text: None,
        }
    }
}
