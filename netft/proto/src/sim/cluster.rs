//! State that every part of a simulation shares: clock, event queue, nodes, networks, invariants.
//!
//! Steps of the same moment run in the order they were scheduled, so a run depends on its scenario
//! alone.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    engine::EngineInput,
    ids::RouteId,
    loss_detection::DeliveryCounts,
    sim::{
        bounds::HANDSHAKE_RETRY,
        check::{CheckResult, InvariantChecker},
        network::SimNetwork,
        node::{Arrival, BootIdPair, SimNode},
        report::{MAX_VIOLATIONS, SimReport},
        rng::SplitMix64,
        scenario::{FaultAction, Scenario},
        trace::RunTrace,
    },
    time::Time,
};

/// Idle timeout of a session whose peer died (QUIC's).
const SESSION_IDLE: Duration = Duration::from_secs(5);
/// The two ends of a handshake finish it within this time of each other.
const HANDSHAKE_SKEW: Duration = Duration::from_millis(5);

/// A scheduled step.
#[derive(Clone, Debug)]
pub(crate) enum SimStep {
    Fault(FaultAction),
    Arrive { to: usize, arrival: Arrival },
    Wake { node: usize },
    Resume { node: usize },
    HandOver { node: usize, is_last: bool },
    Handshake { a: usize, b: usize },
    SendData { from: usize, to: usize },
    DataWake { node: usize },
    Suspect { node: usize, route: RouteId, counts: DeliveryCounts },
    WorkerReport { node: usize, input: EngineInput },
}

/// Nodes, networks and the clock of one run.
pub(crate) struct ClusterState<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) now: Time,
    queue: BTreeMap<(Time, u64), SimStep>,
    sequence: u64,
    pub(crate) rng: SplitMix64,
    pub(crate) networks: Vec<SimNetwork>,
    pub(crate) nodes: Vec<SimNode>,
    /// `None` when the scenario runs without invariants.
    pub(crate) checker: Option<InvariantChecker>,
    pub(crate) trace: RunTrace,
    pub(crate) report: SimReport,
}

impl<'a> ClusterState<'a> {
    pub(crate) fn new(scenario: &'a Scenario) -> Self {
        let nodes = scenario.nodes;
        Self {
            scenario,
            now: Time::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            rng: SplitMix64::new(scenario.seed),
            networks: scenario.networks.iter().map(|plan| SimNetwork::new(plan, nodes)).collect(),
            nodes: (0..nodes).map(|_| SimNode::new(nodes)).collect(),
            checker: scenario.check_invariants.then(|| InvariantChecker::new(scenario)),
            trace: RunTrace::new(scenario.keep_text),
            report: SimReport::new(scenario),
        }
    }

    pub(crate) fn schedule_step(&mut self, at: Time, step: SimStep) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), step);
    }

    /// Takes the next step that is due by `end`, and advances the clock to it.
    pub(crate) fn take_step(&mut self, end: Time) -> Option<SimStep> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= end)?;
        let ((at, _), step) = entry.remove_entry();
        self.now = at;
        Some(step)
    }

    /// Updates the ground truth after a change of networks, nodes or sessions.
    pub(crate) fn refresh_truth(&mut self) {
        if let Some(checker) = &mut self.checker {
            checker.truth.refresh(self.now, &self.networks, &self.nodes);
        }
    }

    /// Passes an observation to the invariants, if they are checked.
    pub(crate) fn observe(&mut self, note: impl FnOnce(&mut InvariantChecker)) {
        if let Some(checker) = &mut self.checker {
            note(checker);
        }
    }

    /// Applies a rule, if invariants are checked, and records its violation.
    pub(crate) fn check_rule(
        &mut self,
        rule: impl FnOnce(&mut InvariantChecker, &[SimNode]) -> CheckResult,
    ) {
        let Some(checker) = &mut self.checker else { return };
        let result = rule(checker, &self.nodes);
        self.record_result(result);
    }

    pub(crate) fn record_result(&mut self, result: CheckResult) {
        if let Err(violation) = result {
            self.record_violation(&violation);
        }
    }

    pub(crate) fn record_violation(&mut self, violation: &str) {
        if !self.has_failed() {
            self.trace.add_step(self.now, format_args!("VIOLATION {violation}"));
            self.report.violations.push(format!("{}: {violation}", self.now));
        }
    }

    /// So many rules are broken that the run ends.
    pub(crate) fn has_failed(&self) -> bool {
        self.report.violations.len() >= MAX_VIOLATIONS
    }

    /// Establishes the session of two nodes, or retries later.
    pub(crate) fn attempt_handshake(&mut self, a: usize, b: usize) {
        let sessions = [
            BootIdPair { own: self.nodes[a].boot_id, peer: self.nodes[b].boot_id },
            BootIdPair { own: self.nodes[b].boot_id, peer: self.nodes[a].boot_id },
        ];
        let dead = self.nodes[a].engine.is_none() || self.nodes[b].engine.is_none();
        let established = self.nodes[a].sessions[b] == Some(sessions[0])
            && self.nodes[b].sessions[a] == Some(sessions[1]);
        if dead || established {
            return;
        }
        let passes = |from, to| self.networks.iter().any(|network| !network.is_blocked(from, to));
        let running = self.nodes[a].is_running() && self.nodes[b].is_running();
        if running && passes(a, b) && passes(b, a) {
            for (to, peer, session) in [(a, b, sessions[0]), (b, a, sessions[1])] {
                let at = self.now + self.rng.duration_up_to(HANDSHAKE_SKEW);
                let arrival = Arrival::SessionAgreed { peer, session };
                self.schedule_step(at, SimStep::Arrive { to, arrival });
            }
        } else {
            let wait = HANDSHAKE_RETRY / 2 + self.rng.duration_up_to(HANDSHAKE_RETRY / 2);
            self.schedule_step(self.now + wait, SimStep::Handshake { a, b });
        }
    }

    /// Schedules the idle timeout of every session with a node that just died.
    pub(crate) fn schedule_session_timeouts(&mut self, dead: usize) {
        for to in (0..self.nodes.len()).filter(|to| *to != dead) {
            if let Some(session) = self.nodes[to].sessions[dead] {
                let arrival = Arrival::SessionTimeout { peer: dead, session };
                self.schedule_step(self.now + SESSION_IDLE, SimStep::Arrive { to, arrival });
            }
        }
    }
}
