//! Content of the log: the state that every node reaches from the same commands.

use std::{collections::BTreeMap, time::Duration};

use crate::vip::FencingToken;

/// The lease of an entry that does not tell it.
#[cfg(feature = "serde")]
const fn longest_lease() -> Duration {
    crate::config::MAX_LEASE
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OwnershipCommand {
    /// Gives an address to a node.
    Assign {
        /// The address.
        vip: String,
        /// Its owner; `None`: nobody.
        owner: Option<String>,
        /// The token that this replaces. Without effect if the address has another one.
        expected: FencingToken,
        /// The operator chose the node: it keeps the address against the preferred ones.
        is_pinned: bool,
        /// Why, for those who ask.
        reason: String,
        /// The longest lease on an address that the log does not have yet.
        #[cfg_attr(feature = "serde", serde(default = "longest_lease"))]
        lease: Duration,
    },
    /// Bounds the leases on an address. Longer before the first longer lease is granted; shorter
    /// after the last longer one has ended.
    SetLease {
        /// The address.
        vip: String,
        /// The longest lease.
        lease: Duration,
        /// The bound that this replaces, by its entry. Without effect if the address has another
        /// one: a proposal that reaches the log twice must not undo one in between.
        #[cfg_attr(feature = "serde", serde(default))]
        expected: Option<FencingToken>,
    },
    /// Several decisions of one moment: one write of the log for all.
    Batch(Vec<Self>),
    /// Forgets an address that nobody owns, and on which no lease runs.
    Forget {
        /// The address.
        vip: String,
        /// Its token. Without effect if the address has another one.
        expected: FencingToken,
    },
}

/// Decisions in one entry, at most: entries have a bound on the wire.
const COMMANDS_PER_ENTRY: usize = 32;

impl OwnershipCommand {
    /// The fewest entries of the log that hold these decisions, in their order.
    pub fn into_entries(commands: Vec<Self>) -> Vec<Self> {
        let to_entry = |part: &[Self]| match part {
            [one] => one.clone(),
            several => Self::Batch(several.to_vec()),
        };
        commands.chunks(COMMANDS_PER_ENTRY).map(to_entry).collect()
    }
}

/// One address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VipRecord {
    /// Its owner.
    pub owner: Option<String>,
    /// The decision that made it so.
    pub token: FencingToken,
    /// The decision before.
    pub previous: FencingToken,
    /// The owner before.
    pub former_owner: Option<String>,
    /// The operator chose the owner.
    pub is_pinned: bool,
    /// Why.
    pub reason: String,
    /// No lease on it that runs, by whichever leader, is longer than this.
    #[cfg_attr(feature = "serde", serde(default = "longest_lease"))]
    pub lease: Duration,
    /// The entry that bounded the leases so.
    #[cfg_attr(feature = "serde", serde(default))]
    pub lease_token: FencingToken,
}

/// All addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OwnershipState {
    vips: BTreeMap<String, VipRecord>,
}

impl OwnershipState {
    /// Applies the entry at `token` of the log; returns whether it had an effect.
    pub fn apply_command(&mut self, token: FencingToken, command: &OwnershipCommand) -> bool {
        match command {
            OwnershipCommand::Assign { vip, owner, expected, is_pinned, reason, lease } => {
                let unknown =
                    || VipRecord { lease: *lease, lease_token: token, ..VipRecord::default() };
                let record = self.vips.get(vip).cloned().unwrap_or_else(unknown);
                if record.token != *expected {
                    return false;
                }
                let next = VipRecord {
                    owner: owner.clone(),
                    token,
                    previous: record.token,
                    former_owner: record.owner,
                    is_pinned: *is_pinned,
                    reason: reason.clone(),
                    lease: record.lease,
                    lease_token: record.lease_token,
                };
                self.vips.insert(vip.clone(), next);
                true
            }
            OwnershipCommand::SetLease { vip, lease, expected } => {
                let Some(record) = self.vips.get_mut(vip) else { return false };
                if expected.is_some_and(|expected| expected != record.lease_token) {
                    return false;
                }
                (record.lease, record.lease_token) = (*lease, token);
                true
            }
            OwnershipCommand::Batch(commands) => {
                let effects = commands.iter().map(|command| self.apply_command(token, command));
                effects.fold(false, |any, effect| any | effect)
            }
            OwnershipCommand::Forget { vip, expected } => {
                let is_free =
                    |record: &VipRecord| record.owner.is_none() && record.token == *expected;
                if !self.vips.get(vip).is_some_and(is_free) {
                    return false;
                }
                self.vips.remove(vip);
                true
            }
        }
    }

    /// The address of this name.
    pub fn record_of(&self, vip: &str) -> Option<&VipRecord> {
        self.vips.get(vip)
    }

    /// Every address with its name.
    pub fn records(&self) -> impl Iterator<Item = (&str, &VipRecord)> {
        self.vips.iter().map(|(name, record)| (name.as_str(), record))
    }
}
