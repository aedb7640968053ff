//! The leader: grants leases, and decides what to write to the log.
//!
//! The engine gives it every report, and asks for the reply once a majority has confirmed the
//! leadership since the report arrived. One instance serves one term.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    time::Time,
    vip::{
        FencingToken,
        ownership::{
            able_nodes::AbleNodes,
            lease::LeaseRules,
            messages::{LeaseReply, LeaseReport, LeaseVerdict, VipVerdict},
            placement::{Owners, Placement, best_node, place_address},
            policy::{Failback, VipPolicy},
            state::{OwnershipCommand, OwnershipState, VipRecord},
        },
    },
};

/// Time for which a new leader takes a node that was not heard yet for alive.
const UNHEARD_TIME: Duration = Duration::from_millis(700);
/// Time for which a new leader that was elected because an owner is lost waits for the nodes that
/// it asked to report, before it gives an address to a node that its rules do not prefer most. The
/// owner's lease runs on meanwhile.
const AWAITED_TIME: Duration = Duration::from_millis(60);
/// Part of a lease for which the leader answers a report once more when it can grant at last: what
/// is left then outlasts the next renewal.
const WAITING_SHARE: u32 = 2;
/// Time after which a command that did not reach the log is proposed again.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The last lease that this leader granted on an address.
#[derive(Clone, Debug)]
struct LastGrant {
    token: FencingToken,
    owner: String,
    lease: Duration,
    /// No lease on the address that was granted so far runs after this.
    ended_by: Time,
    /// Of those, none that is longer than `lease` runs after this.
    longer_ended_by: Time,
}

/// The leader of one term.
#[derive(Clone, Debug)]
pub struct OwnershipLeader {
    rules: LeaseRules,
    /// No earlier leader granted a lease that was asked for after this.
    last_foreign_grant: Time,
    /// The state was complete once: nothing that earlier leaders committed is missing in it.
    is_state_complete: bool,
    nodes: AbleNodes,
    grants: BTreeMap<String, LastGrant>,
    /// Tokens under which nothing is held: their holder let go.
    released: BTreeSet<(String, FencingToken)>,
    /// Commands on their way to the log: the token each replaces, and since when.
    proposed: BTreeMap<String, (FencingToken, Time)>,
    /// Moves that the operator asked for.
    moves: BTreeMap<String, String>,
    /// Nodes that an address would return to, and since when.
    returns: BTreeMap<String, (String, Time)>,
    /// Bounds of leases on their way to the log, and since when. Nothing longer is granted from
    /// then on.
    lease_changes: BTreeMap<String, (Duration, Time)>,
    /// Nodes that should report at once.
    nudges: BTreeSet<String>,
    /// The last report of each node that was told to wait, and when it was.
    waiting: BTreeMap<String, (Time, LeaseReport)>,
    /// Nodes whose wait ended, because the former owner let go.
    released_for: BTreeSet<String>,
}

impl OwnershipLeader {
    /// A leader elected at `now`. `last_ack` is the newest acknowledgement of an earlier leader
    /// that the votes told, if they told it; otherwise it may have been until `now`.
    pub fn new(now: Time, last_ack: Option<Time>, rules: LeaseRules) -> Self {
        Self {
            rules,
            last_foreign_grant: last_ack.map_or(now, |ack| ack.min(now)),
            is_state_complete: false,
            nodes: AbleNodes::new(now + UNHEARD_TIME),
            grants: BTreeMap::new(),
            released: BTreeSet::new(),
            proposed: BTreeMap::new(),
            moves: BTreeMap::new(),
            returns: BTreeMap::new(),
            lease_changes: BTreeMap::new(),
            nudges: BTreeSet::new(),
            waiting: BTreeMap::new(),
            released_for: BTreeSet::new(),
        }
    }

    /// Asks these nodes to report: the decisions of a new leader wait for them a moment.
    pub fn ask_nodes(&mut self, now: Time, nodes: BTreeSet<String>) {
        self.nudges.extend(nodes.iter().cloned());
        self.nodes.await_reports(nodes, now + AWAITED_TIME);
    }

    /// Takes in a report; the reply follows by [`answer_report`](Self::answer_report).
    pub fn on_report(&mut self, now: Time, state: &OwnershipState, report: &LeaseReport) {
        self.nodes.on_report(now, report);
        for (vip, token) in &report.released {
            let Some(record) = state.record_of(vip) else { continue };
            let is_news = self.released.insert((vip.clone(), *token));
            // The new owner has been waiting for this.
            if is_news && *token == record.previous {
                self.released_for.extend(record.owner.clone());
            }
        }
        // A release matters until the address has its next owner.
        self.released.retain(|(vip, token)| {
            state.record_of(vip).is_some_and(|record| *token >= record.previous)
        });
    }

    /// netft says that no route to the node works, or that one does again.
    pub fn set_reachable(&mut self, node: &str, is_reachable: bool) {
        self.nodes.set_reachable(node, is_reachable);
    }

    /// Grants leases. A majority has acknowledged this leader since the report arrived, and `state`
    /// holds everything that was committed by then.
    pub fn answer_report(
        &mut self,
        now: Time,
        state: &OwnershipState,
        policies: &[VipPolicy],
        report: &LeaseReport,
    ) -> LeaseReply {
        self.is_state_complete = true;
        let holds: BTreeMap<&str, FencingToken> =
            report.holds.iter().map(|(vip, token)| (vip.as_str(), *token)).collect();
        let policies: BTreeMap<&str, &VipPolicy> =
            policies.iter().map(|policy| (policy.name.as_str(), policy)).collect();
        let mut reply = LeaseReply { serial: report.serial, ..LeaseReply::default() };
        let mut is_waiting = false;
        for (vip, record) in state.records() {
            reply.latest = reply.latest.max(record.token);
            let held = holds.get(vip).copied();
            let policy = policies.get(vip);
            let verdict = match policy {
                Some(policy) => self.judge_lease(now, policy, record, &report.node, held),
                // An address without rules here has no leases.
                None => LeaseVerdict::NotOwner,
            };
            is_waiting |= matches!(verdict, LeaseVerdict::Wait(_));
            if record.token <= report.known {
                match verdict {
                    LeaseVerdict::NotOwner if held.is_none() => continue,
                    LeaseVerdict::Granted(lease) if held == Some(record.token) => {
                        if *reply.renewed.get_or_insert(lease) == lease {
                            continue;
                        }
                    }
                    LeaseVerdict::Granted(_) | LeaseVerdict::Wait(_) | LeaseVerdict::NotOwner => {}
                }
            }
            let unknown = || "the leader's config does not have it".to_owned();
            reply.vips.push(VipVerdict {
                vip: vip.to_owned(),
                owner: record.owner.clone(),
                token: record.token,
                verdict,
                reason: policy.map_or_else(unknown, |_| record.reason.clone()),
            });
        }
        // The holder takes every address that it holds and that is not named for renewed.
        if reply.renewed.is_some() {
            for (vip, token) in &report.holds {
                if state.record_of(vip).is_none() {
                    reply.vips.push(VipVerdict {
                        vip: vip.clone(),
                        owner: None,
                        token: *token,
                        verdict: LeaseVerdict::NotOwner,
                        reason: "the address was forgotten".to_owned(),
                    });
                }
            }
        }
        if is_waiting {
            self.waiting.insert(report.node.clone(), (now, report.clone()));
        } else {
            self.waiting.remove(&report.node);
        }
        reply
    }

    /// Second replies to nodes that wait for an address which its former owner let go meanwhile. A
    /// majority acknowledged this leader after their reports, and their leases count from those.
    pub fn take_grants(
        &mut self,
        now: Time,
        state: &OwnershipState,
        policies: &[VipPolicy],
    ) -> Vec<(String, LeaseReply)> {
        let lease = policies.iter().map(|policy| policy.lease).min().unwrap_or_default();
        let mut grants = Vec::new();
        for node in std::mem::take(&mut self.released_for) {
            match self.waiting.remove(&node) {
                Some((since, report)) if now < since + lease / WAITING_SHARE => {
                    let reply = self.answer_report(now, state, policies, &report);
                    grants.push((node, reply));
                }
                _ => drop(self.nudges.insert(node)),
            }
        }
        grants
    }

    fn judge_lease(
        &mut self,
        now: Time,
        policy: &VipPolicy,
        record: &VipRecord,
        node: &str,
        held: Option<FencingToken>,
    ) -> LeaseVerdict {
        if record.owner.as_deref() != Some(node) {
            return LeaseVerdict::NotOwner;
        }
        let free_at = self.free_at(&policy.name, record, held);
        if now < free_at {
            return LeaseVerdict::Wait(free_at.since(now));
        }
        let bound = self.lease_changes.get(&policy.name).map_or(record.lease, |(bound, _)| *bound);
        // A later leader waits for the lease that the log has, not for that of its own config.
        let lease = policy.lease.min(record.lease).min(bound);
        let known = self.grants.get(&policy.name);
        let end = now + self.rules.wait_after_grant(lease);
        let longer_ended_by = match known {
            Some(grant) if grant.lease > lease => grant.ended_by,
            Some(grant) => grant.longer_ended_by,
            None => Time::ZERO,
        };
        // The reply with a shorter lease may be lost: the longer one runs on then.
        let ended_by = known.map_or(end, |grant| grant.ended_by.max(end));
        let token = record.token;
        match self.grants.get_mut(&policy.name) {
            Some(grant) if grant.token == token => {
                (grant.lease, grant.ended_by) = (lease, ended_by);
                grant.longer_ended_by = longer_ended_by;
            }
            _ => {
                let owner = node.to_owned();
                let grant = LastGrant { token, owner, lease, ended_by, longer_ended_by };
                self.grants.insert(policy.name.clone(), grant);
            }
        }
        LeaseVerdict::Granted(lease)
    }

    /// From when on no other lease on the address can run.
    fn free_at(&self, vip: &str, record: &VipRecord, held: Option<FencingToken>) -> Time {
        let is_released =
            |token| self.released.contains(&(vip.to_owned(), token)) && token != record.token;
        match self.grants.get(vip) {
            Some(grant) if grant.token == record.token => Time::ZERO,
            Some(grant) if is_released(grant.token) => Time::ZERO,
            Some(grant) => grant.ended_by,
            // It was granted this token before, when no other lease could run.
            None if held == Some(record.token) => Time::ZERO,
            // The holder of the token just before has let go; it held it, so nobody else did.
            None if is_released(record.previous) => Time::ZERO,
            None => self.foreign_end(record),
        }
    }

    /// No lease on the address that an earlier leader granted runs after this.
    fn foreign_end(&self, record: &VipRecord) -> Time {
        self.last_foreign_grant + self.rules.wait_after_grant(record.lease)
    }

    /// No lease on the address longer than `lease` runs after this; `None`: not known yet.
    fn longer_end(&self, vip: &str, record: &VipRecord, lease: Duration) -> Option<Time> {
        let own = self.grants.get(vip).map_or(Time::ZERO, |grant| {
            if grant.lease > lease { grant.ended_by } else { grant.longer_ended_by }
        });
        self.is_state_complete.then(|| own.max(self.foreign_end(record)))
    }

    /// No lease on the address longer than `lease` runs.
    fn has_no_longer(&self, now: Time, vip: &str, record: &VipRecord, lease: Duration) -> bool {
        self.longer_end(vip, record, lease).is_some_and(|end| now >= end)
    }

    /// The bound of the address's leases that should go to the log. A longer one at once, and a
    /// shorter one when no longer lease runs: so the log's is never too short.
    fn next_lease(
        &mut self,
        now: Time,
        policy: &VipPolicy,
        record: &VipRecord,
    ) -> Option<Duration> {
        let vip = policy.name.as_str();
        let lease = match self.lease_changes.get(vip) {
            Some((lease, _)) if *lease == record.lease => {
                self.lease_changes.remove(vip);
                policy.lease
            }
            // The same again: whichever reaches the log, nothing longer was granted.
            Some((lease, since)) if now >= *since + PROPOSAL_TIMEOUT => *lease,
            Some(_) => return None,
            None => policy.lease,
        };
        let is_due = lease > record.lease
            || lease < record.lease && self.has_no_longer(now, vip, record, lease);
        if is_due {
            self.lease_changes.insert(vip.to_owned(), (lease, now));
        }
        is_due.then_some(lease)
    }

    /// Asks for a move; `None`: to any other node. Returns the new owner.
    ///
    /// # Errors
    /// The node cannot carry it now, in words for the operator.
    pub fn request_move(
        &mut self,
        now: Time,
        state: &OwnershipState,
        vip: &str,
        to: Option<&str>,
    ) -> Result<String, String> {
        let record = state.record_of(vip).ok_or_else(|| format!("there is no address {vip}"))?;
        let owner = record.owner.as_deref();
        let target = match to {
            Some(to) if owner == Some(to) => return Ok(to.to_owned()),
            Some(to) => to.to_owned(),
            None => {
                let others = self.nodes.eligible_nodes(vip, now).find(|node| Some(*node) != owner);
                others.ok_or_else(|| format!("no other node can carry {vip} now"))?.to_owned()
            }
        };
        if !self.nodes.is_eligible(&target, vip, now) {
            return Err(format!("{target} cannot carry {vip} now: `netft vip why {vip}` there"));
        }
        self.moves.insert(vip.to_owned(), target.clone());
        Ok(target)
    }

    /// True once the node was granted the address.
    pub fn has_granted(&self, vip: &str, node: &str) -> bool {
        let is_other_move = self.moves.contains_key(vip);
        !is_other_move && self.grants.get(vip).is_some_and(|grant| grant.owner == node)
    }

    /// Commands to write to the log now.
    pub fn poll_commands(
        &mut self,
        now: Time,
        state: &OwnershipState,
        policies: &[VipPolicy],
    ) -> Vec<OwnershipCommand> {
        let current = |vip: &str| state.record_of(vip).map(|r| r.token).unwrap_or_default();
        let proposed = std::mem::take(&mut self.proposed);
        let mut done = Vec::new();
        for (vip, (token, since)) in proposed {
            if current(&vip) != token {
                done.push(vip);
            } else if now < since + PROPOSAL_TIMEOUT {
                self.proposed.insert(vip, (token, since));
            }
        }
        // Both ends of a change that reached the log learn of it at once.
        for vip in done {
            let Some(record) = state.record_of(&vip) else { continue };
            self.nudges.extend(record.owner.clone());
            self.nudges.extend(record.former_owner.clone());
        }
        let mut owners: Owners =
            state.records().map(|(vip, record)| (vip.to_owned(), record.owner.clone())).collect();
        let unknown = VipRecord::default();
        let mut commands = Vec::new();
        for policy in policies {
            if let Some(record) = state.record_of(&policy.name)
                && let Some(lease) = self.next_lease(now, policy, record)
            {
                let (vip, expected) = (policy.name.clone(), Some(record.lease_token));
                commands.push(OwnershipCommand::SetLease { vip, lease, expected });
            }
            let record = state.record_of(&policy.name).unwrap_or(&unknown);
            if self.proposed.contains_key(&policy.name) {
                continue;
            }
            if let Some((owner, is_pinned, reason)) = self.next_owner(now, policy, record, &owners)
            {
                owners.set_owner(&policy.name, owner.clone());
                self.proposed.insert(policy.name.clone(), (record.token, now));
                commands.push(OwnershipCommand::Assign {
                    vip: policy.name.clone(),
                    owner,
                    expected: record.token,
                    is_pinned,
                    reason: reason.to_owned(),
                    lease: policy.lease,
                });
            }
        }
        self.remove_unknown(now, state, policies, &mut commands);
        commands
    }

    fn next_owner(
        &mut self,
        now: Time,
        policy: &VipPolicy,
        record: &VipRecord,
        owners: &Owners,
    ) -> Option<(Option<String>, bool, &'static str)> {
        let vip = policy.name.as_str();
        if let Some(target) = self.moves.remove(vip)
            && record.owner.as_ref() != Some(&target)
            && self.nodes.is_eligible(&target, vip, now)
        {
            self.returns.remove(vip);
            return Some((Some(target), true, "the operator moved it"));
        }
        // The owner let it go by itself: a new decision, also if that names the same node.
        if record.owner.is_some() && self.released.contains(&(vip.to_owned(), record.token)) {
            if self.nodes.is_awaiting(now) {
                return None;
            }
            let owner = best_node(policy, owners, &self.nodes, now);
            return Some((owner, false, "its owner let it go"));
        }
        match place_address(policy, record, owners, &self.nodes, now) {
            Placement::Keep => {
                self.returns.remove(vip);
                None
            }
            Placement::Change { owner, reason } => {
                self.returns.remove(vip);
                Some((owner, false, reason))
            }
            Placement::Return { owner } => {
                let Failback::After(hold) = policy.failback else { return None };
                let since = match self.returns.get(vip) {
                    Some((node, since)) if *node == owner => *since,
                    _ => now,
                };
                if now < since + hold {
                    self.returns.insert(vip.to_owned(), (owner, since));
                    return None;
                }
                self.returns.remove(vip);
                Some((Some(owner), false, "it returns to a preferred node"))
            }
        }
    }

    /// Takes addresses without rules from their owners, then forgets them.
    fn remove_unknown(
        &mut self,
        now: Time,
        state: &OwnershipState,
        policies: &[VipPolicy],
        commands: &mut Vec<OwnershipCommand>,
    ) {
        let known: BTreeSet<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
        for (vip, record) in state.records() {
            let is_known = known.contains(vip);
            if is_known || self.proposed.contains_key(vip) {
                continue;
            }
            // Who gives the address anew would not know of a lease that runs.
            if record.owner.is_none() && !self.has_no_longer(now, vip, record, Duration::ZERO) {
                continue;
            }
            self.proposed.insert(vip.to_owned(), (record.token, now));
            let (vip, expected) = (vip.to_owned(), record.token);
            commands.push(match record.owner {
                None => OwnershipCommand::Forget { vip, expected },
                Some(_) => OwnershipCommand::Assign {
                    vip,
                    owner: None,
                    expected,
                    is_pinned: false,
                    reason: "it was removed from the config".to_owned(),
                    lease: record.lease,
                },
            });
        }
    }

    /// Nodes that should report at once: a decision concerns them.
    pub fn take_nudges(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.nudges)
    }

    /// When to poll again.
    pub fn next_wake(
        &self,
        now: Time,
        state: &OwnershipState,
        policies: &[VipPolicy],
    ) -> Option<Time> {
        let holds = self.returns.iter().filter_map(|(vip, (_, since))| {
            let policy = policies.iter().find(|policy| policy.name == *vip)?;
            match policy.failback {
                Failback::After(hold) => Some(*since + hold),
                Failback::Never => None,
            }
        });
        let proposed = self.proposed.values().map(|(_, since)| *since);
        let proposed = proposed.chain(self.lease_changes.values().map(|(_, since)| *since));
        let retries = proposed.map(|since| since + PROPOSAL_TIMEOUT);
        // Leases whose end lets the log have a shorter one, or forget the address.
        let leases: BTreeMap<&str, Duration> =
            policies.iter().map(|policy| (policy.name.as_str(), policy.lease)).collect();
        let ends = state.records().filter_map(|(vip, record)| {
            let lease = leases.get(vip).copied().unwrap_or_default();
            let is_shorter = lease < record.lease && !self.lease_changes.contains_key(vip);
            let end = is_shorter.then(|| self.longer_end(vip, record, lease)).flatten();
            end.filter(|end| *end > now)
        });
        holds.chain(retries).chain(ends).chain(self.nodes.next_wake(now)).min()
    }
}
