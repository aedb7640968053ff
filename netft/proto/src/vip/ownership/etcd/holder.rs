//! A node's leases in etcd.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::view::{EtcdServer, EtcdView, EtcdWrite, OwnerEntry};
use crate::{
    time::Time,
    vip::{
        FencingToken,
        ownership::{
            able_nodes::AbleNodes,
            holder::HolderUpdate,
            lease::LeaseRules,
            placement::{Owners, Placement, best_node, place_address},
            policy::{Failback, VipPolicy},
            state::VipRecord,
        },
    },
};

/// Time for which a new node waits for a preferred one before it takes an address of nobody.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// Renewals in one lease.
const RENEWALS_PER_LEASE: u32 = 5;
/// Longest time between two looks at the keys.
const MAX_INTERVAL: Duration = Duration::from_millis(500);

/// A lease that a server renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseProof {
    /// When the request left, on this node's clock.
    pub asked: Time,
    /// Time that the server then waits before it ends the lease.
    pub ttl: Duration,
}

/// An address that this node owns.
#[derive(Clone, Copy, Debug)]
struct OwnedKey {
    created: u64,
    /// End of the last lease that was given to the address service.
    until: Time,
    /// The address service was told to let it go.
    is_revoked: bool,
    /// It did.
    is_released: bool,
}

/// A node's leases.
#[derive(Clone, Debug)]
pub struct EtcdHolder {
    node: String,
    /// The node in an owner's value: its name, and what no other node of that name has.
    identity: String,
    policies: Vec<VipPolicy>,
    rules: LeaseRules,
    able: BTreeSet<String>,
    /// The node's lease in etcd.
    lease: Option<(i64, Duration)>,
    held: BTreeMap<String, OwnedKey>,
    /// Owner and token as last told.
    told: BTreeMap<String, (Option<String>, FencingToken)>,
    /// Server of the last read, whose term the next proof must share.
    server: Option<EtcdServer>,
    /// Nodes that an address would return to, and since when.
    returns: BTreeMap<String, (String, Time)>,
    settled_at: Time,
}

impl EtcdHolder {
    /// A node without a lease. `id` is what no other node has, in printable characters.
    pub fn new(
        node: &str,
        id: &str,
        policies: Vec<VipPolicy>,
        rules: LeaseRules,
        now: Time,
    ) -> Self {
        Self {
            node: node.to_owned(),
            identity: format!("{node} {id}"),
            policies,
            rules,
            able: BTreeSet::new(),
            lease: None,
            held: BTreeMap::new(),
            told: BTreeMap::new(),
            server: None,
            returns: BTreeMap::new(),
            settled_at: now + SETTLE_TIME,
        }
    }

    /// The node's lease in etcd.
    pub fn lease_id(&self) -> Option<i64> {
        self.lease.map(|(id, _)| id)
    }

    /// Length of the node's lease.
    pub fn lease_ttl(&self) -> Option<Duration> {
        self.lease.map(|(_, ttl)| ttl)
    }

    /// False if the node neither has an address nor can carry one: then its lease is to be given
    /// back, so that nobody waits for its end.
    pub fn needs_lease(&self) -> bool {
        !self.able.is_empty() || !self.held.is_empty()
    }

    /// True if a read must come before the next renewal, for it to prove anything.
    pub const fn needs_baseline(&self) -> bool {
        self.server.is_none()
    }

    /// Time from one renewal to the next.
    pub fn interval(&self) -> Duration {
        let ttl = self.lease.map_or(MAX_INTERVAL, |(_, ttl)| ttl / RENEWALS_PER_LEASE);
        ttl.min(MAX_INTERVAL)
    }

    /// Rules of all addresses, from here on.
    pub fn set_policies(&mut self, policies: Vec<VipPolicy>) {
        self.policies = policies;
    }

    /// The node can, or cannot, carry the address.
    pub fn set_able(&mut self, vip: &str, is_able: bool) {
        if is_able {
            self.able.insert(vip.to_owned());
        } else {
            self.able.remove(vip);
        }
    }

    /// The address service let the address go. By itself it does so because the node cannot carry
    /// it, or stops (no token): it says when the node can carry it again.
    pub fn on_released(&mut self, vip: &str, token: FencingToken) {
        let held = self.held.get_mut(vip).filter(|held| token_of(held.created) == token);
        let is_own_will = held.as_ref().is_some_and(|held| !held.is_revoked);
        if let Some(held) = held {
            held.is_released = true;
        }
        if is_own_will || token == FencingToken::default() {
            self.able.remove(vip);
        }
    }

    /// The node got a lease.
    pub fn on_lease(&mut self, id: i64, ttl: Duration) {
        self.lease = Some((id, ttl));
    }

    /// The node's lease ended in etcd, and its keys with it.
    pub fn on_lease_lost(&mut self) -> Vec<HolderUpdate> {
        self.lease = None;
        let held = std::mem::take(&mut self.held);
        held.into_iter().filter_map(|(vip, held)| revoke(&vip, held)).collect()
    }

    /// Another server is asked from here on.
    pub fn on_server_changed(&mut self) {
        self.server = None;
    }

    /// Takes in a read that only sets the baseline of the next proof.
    pub fn on_baseline(&mut self, view: &EtcdView) {
        self.server = Some(view.server);
    }

    /// Takes in a read; `proof`: the renewal that it came after. The renewal proves the lease if
    /// the same server had the same term at the read before it and at this one: then a leader that
    /// was still one at this read renewed it, and a later one begins its count later.
    pub fn on_view(
        &mut self,
        now: Time,
        proof: Option<LeaseProof>,
        view: &EtcdView,
    ) -> (Vec<HolderUpdate>, Vec<EtcdWrite>) {
        let is_proven = self.server == Some(view.server);
        self.server = Some(view.server);
        let (mut updates, mut writes) = (Vec::new(), Vec::new());
        let (Some((lease, _)), Some(proof)) = (self.lease, proof) else {
            for policy in self.policies.clone() {
                self.tell_owner(&policy.name, view, &mut updates);
            }
            return (updates, writes);
        };
        let until = LeaseRules::lease_end(proof.asked, self.rules.lease_within(proof.ttl));
        let until = is_proven.then_some(until).filter(|until| now < *until);
        self.publish(lease, view, &mut writes);
        let nodes = AbleNodes::from_directory(now, now >= self.settled_at, &view.able);
        let mut owners: Owners = self
            .policies
            .iter()
            .map(|policy| (policy.name.clone(), view.owner_name(&policy.name).map(str::to_owned)))
            .collect();
        for policy in self.policies.clone() {
            let vip = policy.name.as_str();
            self.tell_owner(vip, view, &mut updates);
            let target = self.place(now, &policy, view, &owners, &nodes);
            let key = format!("vip/{vip}");
            match view.owners.get(vip) {
                Some(entry) if self.is_ours(entry, lease) => {
                    let write = self.keep(now, vip, entry, until, target.as_deref(), &mut updates);
                    writes.extend(write);
                }
                Some(entry) => {
                    updates.extend(self.drop_held(vip));
                    // An earlier process of this node left it, and no other node can have it.
                    if entry.owner == self.identity && self.able.contains(vip) && entry.lease != 0 {
                        let (created, old_lease) = (entry.created, entry.lease);
                        let value = self.identity.clone();
                        writes.push(EtcdWrite::Adopt { key, value, created, old_lease, lease });
                    }
                }
                None => {
                    updates.extend(self.drop_held(vip));
                    if target.as_deref() == Some(&self.node) && self.able.contains(vip) {
                        // The next address is placed as if this claim were through.
                        owners.set_owner(vip, target);
                        writes.push(EtcdWrite::Create { key, value: self.identity.clone(), lease });
                    }
                }
            }
        }
        self.drop_unknown(now, view, &mut writes);
        (updates, writes)
    }

    /// Deletes the keys of addresses that the config does not name, once they are let go.
    fn drop_unknown(&mut self, now: Time, view: &EtcdView, writes: &mut Vec<EtcdWrite>) {
        let policies = &self.policies;
        let delay = self.rules.fence_delay;
        self.held.retain(|vip, held| {
            let is_known = policies.iter().any(|policy| policy.name == *vip);
            if !is_known && (held.is_released || now > held.until + delay) {
                let key = format!("vip/{vip}");
                writes.push(EtcdWrite::Delete { key, created: held.created });
            }
            is_known || view.owners.contains_key(vip)
        });
    }

    fn is_ours(&self, entry: &OwnerEntry, lease: i64) -> bool {
        entry.owner == self.identity && entry.lease == lease
    }

    /// Says to the other nodes what this one can carry.
    fn publish(&self, lease: i64, view: &EtcdView, writes: &mut Vec<EtcdWrite>) {
        let is_known = view.able.get(&self.node) == Some(&self.able)
            && view.leases.get(&self.node) == Some(&lease);
        if !is_known {
            let able: Vec<&str> = self.able.iter().map(String::as_str).collect();
            let (key, value) = (format!("node/{}", self.node), able.join(" "));
            writes.push(EtcdWrite::Put { key, value, lease });
        }
    }

    fn tell_owner(&mut self, vip: &str, view: &EtcdView, updates: &mut Vec<HolderUpdate>) {
        let owner = view.owner_name(vip).map(str::to_owned);
        let last = self.told.get(vip).map(|(_, token)| *token).unwrap_or_default();
        let token = view.owners.get(vip).map_or(last, |entry| token_of(entry.created));
        if self.told.get(vip) != Some(&(owner.clone(), token)) {
            self.told.insert(vip.to_owned(), (owner.clone(), token));
            let reason = match &owner {
                Some(_) => "its key in etcd says so",
                None => "it has no key in etcd",
            };
            let (vip, reason) = (vip.to_owned(), reason.to_owned());
            updates.push(HolderUpdate::Owner { vip, owner, token, reason });
        }
    }

    /// Node that should own the address; `None`: any owner is good, or nobody can carry it.
    fn place(
        &mut self,
        now: Time,
        policy: &VipPolicy,
        view: &EtcdView,
        owners: &Owners,
        nodes: &AbleNodes,
    ) -> Option<String> {
        let vip = policy.name.as_str();
        let pin = view.pins.get(vip).filter(|node| nodes.is_eligible(node, vip, now));
        if let Some(node) = pin {
            return Some(node.clone());
        }
        let owner = view.owner_name(vip).map(str::to_owned);
        let record = VipRecord { owner, ..VipRecord::default() };
        match place_address(policy, &record, owners, nodes, now) {
            Placement::Keep => {
                self.returns.remove(vip);
                None
            }
            Placement::Change { owner, .. } => {
                self.returns.remove(vip);
                owner
            }
            Placement::Return { owner } => {
                let Failback::After(hold) = policy.failback else { return None };
                let since = match self.returns.get(vip) {
                    Some((node, since)) if *node == owner => *since,
                    _ => now,
                };
                self.returns.insert(vip.to_owned(), (owner.clone(), since));
                (now >= since + hold).then_some(owner)
            }
        }
    }

    /// Holds an address whose key is this node's, or gives it to `target`.
    fn keep(
        &mut self,
        now: Time,
        vip: &str,
        entry: &OwnerEntry,
        until: Option<Time>,
        target: Option<&str>,
        updates: &mut Vec<HolderUpdate>,
    ) -> Option<EtcdWrite> {
        let created = entry.created;
        if self.held.get(vip).is_some_and(|held| held.created != created) {
            updates.extend(self.drop_held(vip));
        }
        let is_able = self.able.contains(vip);
        let fresh = OwnedKey { created, until: Time::ZERO, is_revoked: false, is_released: false };
        let fence_delay = self.rules.fence_delay;
        let lease = self.lease.map_or(Duration::ZERO, |(_, ttl)| self.rules.lease_within(ttl));
        let held = self.held.entry(vip.to_owned()).or_insert(fresh);
        let token = token_of(created);
        let must_go = !is_able || target.is_some_and(|node| node != self.node);
        if !held.is_revoked && !held.is_released && must_go {
            held.is_revoked = true;
            updates.push(HolderUpdate::Revoked { vip: vip.to_owned(), token });
        }
        // An address service that does not answer has let it go once the kernel has.
        if held.is_released || (held.is_revoked && now > held.until + fence_delay) {
            return Some(EtcdWrite::Delete { key: format!("vip/{vip}"), created });
        }
        if let Some(until) = until.filter(|_| !held.is_revoked) {
            held.until = held.until.max(until);
            updates.push(HolderUpdate::Granted { vip: vip.to_owned(), token, until, lease });
        }
        None
    }

    /// The key is not this node's: what it held ends at once.
    fn drop_held(&mut self, vip: &str) -> Option<HolderUpdate> {
        self.held.remove(vip).and_then(|held| revoke(vip, held))
    }

    /// Asks for a move; `None`: to any other node. Returns the new owner, and what to write.
    ///
    /// # Errors
    /// The node cannot carry it, in words for the operator.
    pub fn plan_move(
        &self,
        now: Time,
        vip: &str,
        to: Option<&str>,
        view: &EtcdView,
    ) -> Result<(String, Option<EtcdWrite>), String> {
        let policy = self.policies.iter().find(|policy| policy.name == vip);
        let policy = policy.ok_or_else(|| format!("there is no address {vip}"))?;
        let owner = view.owner_name(vip);
        let mut able = view.able.clone();
        able.retain(|node, _| Some(node.as_str()) != owner);
        let target = match to {
            Some(to) if owner == Some(to) => return Ok((to.to_owned(), None)),
            Some(to) => to.to_owned(),
            None => {
                let nodes = AbleNodes::from_directory(now, true, &able);
                best_node(policy, &Owners::default(), &nodes, now)
                    .ok_or_else(|| format!("no other node can carry {vip} at this moment"))?
            }
        };
        let is_able = able.get(&target).is_some_and(|vips| vips.contains(vip));
        let lease = view.leases.get(&target).filter(|_| is_able);
        let Some(&lease) = lease else {
            return Err(format!(
                "{target} cannot carry {vip} at this moment: `netft vip why {vip}` there"
            ));
        };
        let (key, value) = (format!("pin/{vip}"), target.clone());
        Ok((target, Some(EtcdWrite::Put { key, value, lease })))
    }

    /// The owner of the address as last read.
    pub fn owner_of(&self, vip: &str) -> Option<&str> {
        self.told.get(vip).and_then(|(owner, _)| owner.as_deref())
    }
}

fn token_of(created: u64) -> FencingToken {
    FencingToken { term: 0, index: created }
}

fn revoke(vip: &str, held: OwnedKey) -> Option<HolderUpdate> {
    let (vip, token) = (vip.to_owned(), token_of(held.created));
    (!held.is_released).then_some(HolderUpdate::Revoked { vip, token })
}
