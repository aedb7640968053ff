//! Which node should own an address: a function of the rules, the owners and the nodes.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    time::Time,
    vip::ownership::{
        able_nodes::{AbleNodes, ROLE_TOLERANCE},
        policy::VipPolicy,
        state::VipRecord,
    },
};

/// Owners of all addresses while placements are decided one after another.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners {
    owners: BTreeMap<String, Option<String>>,
    /// Addresses of each node.
    loads: BTreeMap<String, usize>,
}

impl Owners {
    /// The address is, or is about to be, the owner's.
    pub(super) fn set_owner(&mut self, vip: &str, owner: Option<String>) {
        if let Some(owner) = &owner {
            *self.loads.entry(owner.clone()).or_default() += 1;
        }
        let former = self.owners.insert(vip.to_owned(), owner).flatten();
        if let Some(load) = former.and_then(|former| self.loads.get_mut(&former)) {
            *load -= 1;
        }
    }

    fn owner_of(&self, vip: &str) -> Option<&str> {
        self.owners.get(vip)?.as_deref()
    }

    /// Addresses of a node other than this one.
    fn load_without(&self, vip: &str, node: &str) -> usize {
        let load = self.loads.get(node).copied().unwrap_or_default();
        load - usize::from(self.owner_of(vip) == Some(node))
    }
}

impl FromIterator<(String, Option<String>)> for Owners {
    fn from_iter<I: IntoIterator<Item = (String, Option<String>)>>(owners: I) -> Self {
        let mut this = Self::default();
        owners.into_iter().for_each(|(vip, owner)| this.set_owner(&vip, owner));
        this
    }
}

/// A placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// The owner stays.
    Keep,
    /// It should go to this node, or to nobody.
    Change { owner: Option<String>, reason: &'static str },
    /// It would return to this node, if that stays able.
    Return { owner: String },
}

/// Places an address. `owners` are those of all addresses, with the changes decided so far.
pub(super) fn place_address(
    policy: &VipPolicy,
    record: &VipRecord,
    owners: &Owners,
    nodes: &AbleNodes,
    now: Time,
) -> Placement {
    let vip = policy.name.as_str();
    let best = best_node(policy, owners, nodes, now);
    let Some(current) = record.owner.as_deref() else {
        // At the start every node has its time to report, so that the preferred one is known.
        let is_decided = policy.follow
            || nodes.is_settled(now)
            || best.as_deref().is_some_and(|best| policy.rank_of(best) == 0);
        return match best {
            Some(best) if is_decided => change_to(best, "no node owned it"),
            _ => Placement::Keep,
        };
    };
    if !nodes.is_eligible(current, vip, now) {
        let is_heard = nodes.is_heard(current, now);
        if !is_heard && nodes.is_alive(current, now) {
            return Placement::Keep;
        }
        let reason = if is_heard { "its owner cannot carry it" } else { "its owner is silent" };
        let is_decided =
            best.as_deref().is_some_and(|best| !policy.follow && policy.rank_of(best) == 0);
        if nodes.is_awaiting(now) && !is_decided {
            // A better node may be about to report to this leader; the wait for the silent owner's
            // lease runs meanwhile.
            return Placement::Keep;
        }
        return match best {
            Some(best) => change_to(best, reason),
            // A silent owner may come back; one that cannot carry it lets it go.
            None if is_heard => Placement::Change { owner: None, reason },
            None => Placement::Keep,
        };
    }
    let Some(best) = best.filter(|best| best != current) else { return Placement::Keep };
    if policy.follow {
        let [newest, own] = [&best, current].map(|node| nodes.role_since(node, vip));
        let is_later = !record.is_pinned && newest > own + ROLE_TOLERANCE;
        return match is_later {
            true => change_to(best, "its check began to pass there"),
            false => Placement::Keep,
        };
    }
    let order = |node: &str| grouping(policy, owners, node);
    if order(&best) < order(current) {
        return change_to(best, "it belongs with or apart from another address");
    }
    if !record.is_pinned && policy.rank_of(&best) < policy.rank_of(current) {
        return Placement::Return { owner: best };
    }
    Placement::Keep
}

fn change_to(owner: String, reason: &'static str) -> Placement {
    Placement::Change { owner: Some(owner), reason }
}

/// The best of the eligible nodes: by the check that it follows; else by the company of other
/// addresses, by preference, by the number of addresses that it owns, by name.
pub(super) fn best_node(
    policy: &VipPolicy,
    owners: &Owners,
    nodes: &AbleNodes,
    now: Time,
) -> Option<String> {
    let nodes_of = || nodes.eligible_nodes(&policy.name, now);
    if policy.follow {
        let since = |node: &&str| nodes.role_since(node, &policy.name);
        return nodes_of().max_by_key(|node| (since(node), Reverse(*node))).map(str::to_owned);
    }
    let load = |node: &str| owners.load_without(&policy.name, node);
    let key = |node: &str| (grouping(policy, owners, node), policy.rank_of(node), load(node));
    let best = nodes_of().min_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.cmp(b)));
    best.map(str::to_owned)
}

/// Wishes about other addresses that a node would disappoint.
fn grouping(policy: &VipPolicy, owners: &Owners, node: &str) -> usize {
    let owner_of = |vip: &String| owners.owner_of(vip);
    let misses = policy.together_with.iter().filter_map(owner_of).filter(|owner| *owner != node);
    let meets = policy.apart_from.iter().filter_map(owner_of).filter(|owner| *owner == node);
    misses.count() + meets.count()
}
