//! Content of the log: the state that every node reaches from the same commands.

use std::collections::BTreeMap;

use crate::vip::FencingToken;

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
    },
    /// Forgets an address that nobody owns.
    Forget {
        /// The address.
        vip: String,
        /// Its token. Without effect if the address has another one.
        expected: FencingToken,
    },
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
            OwnershipCommand::Assign { vip, owner, expected, is_pinned, reason } => {
                let record = self.vips.get(vip).cloned().unwrap_or_default();
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
                };
                self.vips.insert(vip.clone(), next);
                true
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
