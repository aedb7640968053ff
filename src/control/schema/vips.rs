//! Floating addresses in JSON.

use serde::{Deserialize, Serialize};

pub use crate::vip::{
    DhcpView, NameRecordView, NameView, PartnerView, VipHistoryLine, VipLeaseView, VipView,
};

/// `GET /v1/vips`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VipList {
    /// Every floating address, by name.
    pub vips: Vec<VipView>,
    /// The engine that decides on owners, of several the first; null without one.
    #[serde(default)]
    pub ownership: Option<OwnershipView>,
    /// Every engine that decides on owners.
    #[serde(default)]
    pub engines: Vec<OwnershipView>,
    /// The other nodes, by name.
    #[serde(default)]
    pub partners: Vec<PartnerView>,
    /// Their names in DNS.
    #[serde(default)]
    pub names: Vec<NameView>,
}

/// `netft vip show --json` and `netft vip why --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VipBody {
    /// The address.
    #[serde(flatten)]
    pub vip: VipView,
    /// The engine that decides on its owner; null without one.
    pub engine: Option<OwnershipView>,
    /// Names in DNS that lead to it.
    #[serde(default)]
    pub names: Vec<NameView>,
}

/// The engine that decides on the owners of floating addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OwnershipView {
    /// `raft` or `etcd`.
    pub engine: String,
    /// Part of this node: `leader`, `follower`, `candidate`, or `holder` if it does not vote.
    pub role: String,
    /// Name of the leader, if known.
    pub leader: Option<String>,
    /// The term; 0 on a node that does not vote.
    pub term: u64,
    /// The voters, by name.
    pub voters: Vec<VoterView>,
    /// Reason why this node does not vote though it should, or that no etcd server answers.
    pub problem: Option<String>,
    /// The last error.
    pub last_error: Option<String>,
    /// Milliseconds since the last error.
    pub last_error_ms: Option<u64>,
    /// The server that is asked (`etcd`).
    #[serde(default)]
    pub server: Option<String>,
    /// Milliseconds since a server answered (`etcd`); null if none did.
    #[serde(default)]
    pub answered_ms: Option<u64>,
    /// Length of this node's lease (`etcd`); null without one.
    #[serde(default)]
    pub lease_ms: Option<u64>,
}

/// A node that votes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VoterView {
    /// Its name.
    pub name: String,
    /// This node, or one that it reaches.
    pub reached: bool,
}

impl OwnershipView {
    /// Number of voters that are reached.
    pub fn reached_count(&self) -> usize {
        self.voters.iter().filter(|voter| voter.reached).count()
    }

    /// A majority of the voters is reached.
    pub fn has_majority(&self) -> bool {
        self.reached_count() > self.voters.len() / 2
    }
}

/// `POST /v1/vips/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VipOrder {
    /// `online`, `renew`, `offline`, `move`, `announce`, `add` or `remove`.
    pub action: String,
    /// Node that shall have it (`move`).
    #[serde(default)]
    pub to: Option<String>,
    /// Moment before a cluster manager's agent asked it, in milliseconds since the start of the
    /// machine (`online` and `renew` with `ownership = "external"`).
    #[serde(default)]
    pub asked_ms: Option<u64>,
    /// Its addresses (`add`).
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Its interface (`add`); null: by network.
    #[serde(default)]
    pub interface: Option<String>,
}

/// Answer to a [`VipOrder`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VipOrderDone {
    /// Description of what was done.
    pub done: String,
    /// The address afterwards; null if it was removed.
    pub vip: Option<VipView>,
}

/// Number of floating addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VipCounts {
    /// All that this node knows.
    pub total: usize,
    /// Those that this node answers for.
    pub online: usize,
    /// Those that this node should have and cannot.
    pub failed: usize,
}

impl VipCounts {
    /// Counts these.
    pub fn of(vips: &[VipView]) -> Self {
        let count = |state: &str| vips.iter().filter(|vip| vip.state == state).count();
        Self { total: vips.len(), online: count("online"), failed: count("failed") }
    }
}
