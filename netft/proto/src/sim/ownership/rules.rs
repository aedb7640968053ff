//! The rules of a run, checked where something happens and at its end.

use super::{
    OWNER_BOUND, OwnershipWorld, ROLE_RESOLUTION, SETTLED_MS, TAKEOVER_HEIR, node::node_name,
};
use crate::{
    time::Time,
    vip::{
        FencingToken,
        ownership::{Failback, LeaseRules},
    },
};

impl OwnershipWorld {
    /// Rules 20 and 22.
    pub(super) fn set_fence(
        &mut self,
        index: usize,
        vip: String,
        token: FencingToken,
        until: Time,
    ) {
        let late = self.rng.duration_up_to(LeaseRules::DEFAULT.fence_delay / 2);
        let end = self.nodes[index].real(until) + late;
        self.report.grants += 1;
        for (other, node) in self.nodes.iter().enumerate() {
            let rival = node.fences.get(&vip).filter(|(_, ends)| *ends > self.now);
            if let Some((held, ends)) = rival.filter(|_| other != index && end > self.now) {
                let text = format!(
                    "rule 20: n{index} gets {vip} under {token} until {end}, n{other} has it under \
                     {held} until {ends}"
                );
                return self.violate(text);
            }
        }
        let newest = self.newest_token.entry(vip.clone()).or_default();
        if token < *newest {
            let text = format!("rule 22: n{index} gets {vip} under {token}, after {newest}");
            return self.violate(text);
        }
        if token > *newest {
            *newest = token;
            self.report.takeovers += 1;
            if self.now >= Time::from_millis(SETTLED_MS) {
                let process = self.nodes[index].process.as_ref();
                let record = process.and_then(|process| process.raft.state.record_of(&vip));
                let text = format!("rule 23: {vip} moves though nothing changes: {record:?}");
                return self.violate(text);
            }
            self.note(format!("n{index} gets {vip} under {token}"));
        }
        self.nodes[index].fences.insert(vip, (token, end));
    }

    /// Rule 24, [`TAKEOVER_BOUND`](super::TAKEOVER_BOUND) after the owner of all addresses crashed.
    pub(super) fn check_takeover(&mut self) {
        let heir = &self.nodes[TAKEOVER_HEIR];
        let is_owned = |name: &str| heir.fences.get(name).is_some_and(|(_, end)| *end > self.now);
        let missing = self.policies.iter().filter(|policy| !is_owned(&policy.name)).count();
        if missing > 0 {
            let all = self.policies.len();
            self.violate(format!("rule 24: n{TAKEOVER_HEIR} lacks {missing} of {all}"));
        }
    }

    /// Rule 23: every node is up, connected and able since the last fault was undone.
    pub(super) fn check_placements(&mut self) {
        let mut processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let Some(leader) = processes.find(|process| process.leader.is_some()) else {
            return self.violate("rule 23: there is no leader".to_owned());
        };
        let record = |vip: &str| leader.raft.state.record_of(vip).cloned().unwrap_or_default();
        let mut wrong = Vec::new();
        for (vip, record) in leader.raft.state.records() {
            for (index, node) in self.nodes.iter().enumerate() {
                let known = node.process.as_ref().map(|one| one.holder.newest_decision(vip));
                if known != Some(record.token) {
                    wrong.push(format!("rule 23: n{index} knows {known:?} of {vip}: {record:?}"));
                }
            }
        }
        // A stopped process may learn of its service after the last fault.
        let is_able = |vip: usize| self.nodes.iter().all(|node| node.able[vip]);
        for (vip, policy) in self.policies.iter().enumerate() {
            let own = record(&policy.name);
            let owner_of = |other: &String| record(other).owner;
            let is_right = if policy.follow {
                let newest = self.nodes.iter().map(|node| node.able_since[vip]).max();
                let owner =
                    self.nodes.iter().zip(0..).find(|(_, n)| own.owner == Some(node_name(*n)));
                let since = owner.map(|(node, _)| node.able_since[vip] + ROLE_RESOLUTION);
                own.is_pinned || since >= newest
            } else if !policy.together_with.is_empty() || !policy.apart_from.is_empty() {
                policy.together_with.iter().all(|other| owner_of(other) == own.owner)
                    && policy.apart_from.iter().all(|other| owner_of(other) != own.owner)
            } else {
                let returns = policy.failback != Failback::Never && !own.is_pinned;
                !returns
                    || policy.preferred.first().is_none_or(|node| own.owner.as_ref() == Some(node))
            };
            if !is_right && (0..self.policies.len()).all(is_able) {
                wrong.push(format!("rule 23: {policy:?} is at {own:?}"));
            }
        }
        wrong.into_iter().for_each(|text| self.violate(text));
    }

    /// Rule 21.
    pub(super) fn check_owners(&mut self) {
        let count = self.nodes.len();
        let alive: Vec<usize> = (0..count)
            .filter(|node| self.nodes[*node].process.is_some() && !self.is_paused(*node))
            .collect();
        let group = (0..2)
            .map(|g| alive.iter().copied().filter(|n| self.groups[*n] == g).collect::<Vec<_>>());
        let majority = group.into_iter().find(|members| members.len() > count / 2);
        let is_calm = self.loss == 0 && self.late <= 10;
        let Some(members) = majority.filter(|_| is_calm) else {
            self.calm_since = self.now;
            return;
        };
        for vip in 0..self.policies.len() {
            let name = self.policies[vip].name.clone();
            let can_own = members.iter().any(|node| self.nodes[*node].able[vip]);
            let is_owned = self
                .nodes
                .iter()
                .any(|node| node.fences.get(&name).is_some_and(|(_, end)| *end > self.now));
            if is_owned || !can_own {
                self.ownerless_since[vip] = self.now;
            }
            let since = self.ownerless_since[vip].max(self.calm_since);
            if self.now.since(since) > OWNER_BOUND {
                self.violate(format!("rule 21: {name} has no owner since {since}"));
            }
        }
    }
}
