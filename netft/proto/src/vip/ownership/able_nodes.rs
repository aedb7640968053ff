//! The leader's knowledge of the nodes, from their reports and from netft's routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    time::Time,
    vip::ownership::messages::{LeaseReport, RoleReport},
};

/// Reports that a node may miss.
const MISSED_REPORTS: u32 = 3;
/// Longest promise of a next report that is believed.
const MAX_PROMISE: Duration = Duration::from_secs(5);

/// How much later a check must have begun to pass to count as later: moments of two nodes are known
/// to the difference of their messages' delays.
pub(super) const ROLE_TOLERANCE: Duration = Duration::from_millis(100);

/// One node.
#[derive(Clone, Debug, Default)]
struct ReportedNode {
    /// End of the time for which its last report speaks; `None`: none was heard.
    alive_until: Option<Time>,
    able: BTreeSet<String>,
    /// When the checks that addresses follow began to pass there: on the node's clock, and on this
    /// one.
    roles: BTreeMap<String, (u64, Time)>,
    is_unreachable: bool,
}

/// All nodes that were heard of.
#[derive(Clone, Debug)]
pub(super) struct AbleNodes {
    nodes: BTreeMap<String, ReportedNode>,
    /// Until then a node that was not heard yet counts as alive: a leader begins without knowledge.
    unheard_until: Time,
    /// Reachable nodes that were asked to report, and until when they are waited for.
    awaited: BTreeSet<String>,
    awaited_until: Time,
}

impl AbleNodes {
    pub(super) fn new(unheard_until: Time) -> Self {
        Self {
            nodes: BTreeMap::new(),
            unheard_until,
            awaited: BTreeSet::new(),
            awaited_until: Time::ZERO,
        }
    }

    /// These nodes were asked to report.
    pub(super) fn await_reports(&mut self, nodes: BTreeSet<String>, until: Time) {
        (self.awaited, self.awaited_until) = (nodes, until);
    }

    /// A node that was asked to report may do so any moment.
    pub(super) fn is_awaiting(&self, now: Time) -> bool {
        !self.awaited.is_empty() && now < self.awaited_until
    }

    /// The nodes of a directory that names only nodes that are alive, with what each can carry.
    pub(super) fn from_directory(
        now: Time,
        is_settled: bool,
        nodes: &BTreeMap<String, BTreeSet<String>>,
    ) -> Self {
        let heard = |able: &BTreeSet<String>| ReportedNode {
            alive_until: Some(now + MAX_PROMISE),
            able: able.clone(),
            roles: BTreeMap::new(),
            is_unreachable: false,
        };
        let nodes = nodes.iter().map(|(name, able)| (name.clone(), heard(able)));
        let unheard_until = if is_settled { now } else { now + MAX_PROMISE };
        Self {
            nodes: nodes.collect(),
            unheard_until,
            awaited: BTreeSet::new(),
            awaited_until: Time::ZERO,
        }
    }

    pub(super) fn on_report(&mut self, now: Time, report: &LeaseReport) {
        self.awaited.remove(&report.node);
        let node = self.nodes.entry(report.node.clone()).or_default();
        node.alive_until = Some(now + report.next_within.min(MAX_PROMISE) * MISSED_REPORTS);
        node.able = report.able.iter().cloned().collect();
        let known = std::mem::take(&mut node.roles);
        for RoleReport { vip, began_ns, age } in &report.roles {
            let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
            let moment = Time::from_nanos(now.as_nanos().saturating_sub(nanos));
            // A report that was long under way, and a clock that drifts, make a moment look later.
            let known = known.get(vip).filter(|(began, _)| began == began_ns);
            let moment = known.map_or(moment, |(_, known)| moment.min(*known));
            node.roles.insert(vip.clone(), (*began_ns, moment));
        }
        // A node that is heard is reachable.
        node.is_unreachable = false;
    }

    /// netft says that no route to the node works, or that one does again.
    pub(super) fn set_reachable(&mut self, node: &str, is_reachable: bool) {
        let view = self.nodes.entry(node.to_owned()).or_default();
        view.is_unreachable = !is_reachable;
        if !is_reachable {
            view.alive_until = None;
            self.awaited.remove(node);
        }
    }

    /// The node may still renew its leases.
    pub(super) fn is_alive(&self, node: &str, now: Time) -> bool {
        match self.nodes.get(node) {
            Some(view) if view.is_unreachable => false,
            Some(ReportedNode { alive_until: Some(until), .. }) => now < *until,
            _ => now < self.unheard_until,
        }
    }

    /// The node was heard and is alive: what it said of itself holds.
    pub(super) fn is_heard(&self, node: &str, now: Time) -> bool {
        self.nodes.get(node).is_some_and(|view| view.alive_until.is_some_and(|until| now < until))
    }

    /// The node is alive, and can carry the address.
    pub(super) fn is_eligible(&self, node: &str, vip: &str, now: Time) -> bool {
        self.is_heard(node, now) && self.nodes.get(node).is_some_and(|view| view.able.contains(vip))
    }

    /// Nodes that are alive and can carry the address.
    pub(super) fn eligible_nodes<'a>(
        &'a self,
        vip: &'a str,
        now: Time,
    ) -> impl Iterator<Item = &'a str> {
        let names = self.nodes.keys().map(String::as_str);
        names.filter(move |node| self.is_eligible(node, vip, now))
    }

    /// When the check that the address follows began to pass on the node.
    pub(super) fn role_since(&self, node: &str, vip: &str) -> Time {
        let moment = self.nodes.get(node).and_then(|view| view.roles.get(vip));
        moment.map_or(Time::ZERO, |(_, moment)| *moment)
    }

    pub(super) fn is_settled(&self, now: Time) -> bool {
        now >= self.unheard_until
    }

    /// The next moment at which a node's silence changes something.
    pub(super) fn next_wake(&self, now: Time) -> Option<Time> {
        let ends = self.nodes.values().filter_map(|node| node.alive_until);
        let waits = [self.unheard_until, self.awaited_until];
        ends.chain(waits).filter(|at| *at > now).min()
    }
}
