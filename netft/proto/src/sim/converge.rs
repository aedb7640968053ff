//! Rule 5: after the final repair, every route comes up and data returns to the best one.

use std::time::Duration;

use crate::{
    route::RouteState,
    sim::{
        bounds::TimingBounds,
        node::SimNode,
        rules::routes_to_peer,
        scenario::{Scenario, node_pairs},
    },
    time::Time,
};

/// Interval between two checks.
const CONVERGENCE_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Progress of a repaired cluster.
pub(crate) struct ConvergenceCheck {
    healed_at: Time,
    deadline: Time,
    /// How long the cluster must stay converged.
    stable_for: Duration,
    now: Time,
    converged_since: Option<Time>,
}

impl ConvergenceCheck {
    pub(crate) fn new(scenario: &Scenario, healed_at: Time) -> Self {
        let bounds = TimingBounds::new(scenario);
        Self {
            healed_at,
            deadline: healed_at + bounds.max_convergence_time(),
            stable_for: bounds.max_detection_time * 2,
            now: healed_at,
            converged_since: None,
        }
    }

    /// The moment of the next check.
    pub(crate) fn next_check(&mut self) -> Time {
        self.now = self.now + CONVERGENCE_CHECK_INTERVAL;
        self.now
    }

    /// Returns the time from the repair to convergence, once it has lasted long enough.
    pub(crate) fn observe(&mut self, nodes: &[SimNode]) -> Result<Option<Duration>, String> {
        match check_converged(nodes) {
            Ok(()) => {
                let since = *self.converged_since.get_or_insert(self.now);
                let is_stable = self.now.since(since) >= self.stable_for;
                Ok(is_stable.then(|| since.since(self.healed_at)))
            }
            Err(difference) if self.now > self.deadline => {
                Err(format!("rule 5: repaired at {}, and {difference}", self.healed_at))
            }
            Err(_) => {
                self.converged_since = None;
                Ok(None)
            }
        }
    }
}

fn check_converged(nodes: &[SimNode]) -> Result<(), String> {
    for (node, peer) in node_pairs(nodes.len()) {
        let routes = routes_to_peer(nodes, node, peer);
        let best = routes.iter().map(|route| route.spec.priority).min();
        if let Some(network) = routes.iter().position(|route| route.state != RouteState::Up) {
            let state = routes[network].state;
            return Err(format!("node {node} to {peer} over network {network} is {state}"));
        }
        let active = routes.iter().find(|route| route.active);
        if active.map(|route| route.spec.priority) != best || best.is_none() {
            return Err(format!("node {node} to {peer} is not on its best route"));
        }
    }
    Ok(())
}
