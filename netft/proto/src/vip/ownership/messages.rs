//! Messages between a node and the leader.

use std::time::Duration;

use crate::vip::FencingToken;

/// A check that an address follows passes on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RoleReport {
    /// The address.
    pub vip: String,
    /// When the check began to pass, nanoseconds of the node's clock: the same in every report
    /// until it passes anew.
    pub began_ns: u64,
    /// For how long it has passed.
    pub age: Duration,
}

/// From a node to the leader: what it holds and can carry. Asks for its leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeaseReport {
    /// Number of the report, which the reply repeats.
    pub serial: u64,
    /// The node.
    pub node: String,
    /// Addresses that it can carry.
    pub able: Vec<String>,
    /// Addresses that follow a check which passes here.
    #[cfg_attr(feature = "serde", serde(default))]
    pub roles: Vec<RoleReport>,
    /// Addresses with the tokens under which it has been granted them.
    pub holds: Vec<(String, FencingToken)>,
    /// Addresses that it held under this token and has let go: its kernel does not answer.
    pub released: Vec<(String, FencingToken)>,
    /// The next report follows within this time.
    pub next_within: Duration,
    /// The node knows this decision, and of each earlier one that it or its successor was made. A
    /// reply leaves out what follows from that; zero: nothing is left out.
    #[cfg_attr(feature = "serde", serde(default))]
    pub known: FencingToken,
}

/// The leader's word on one address for one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum LeaseVerdict {
    /// The node may answer for this time, counted from its request.
    Granted(Duration),
    /// The node owns the address and asks again after this time: a former owner's lease may run.
    Wait(Duration),
    /// The node is not the owner, and lets go what it holds.
    NotOwner,
}

/// The leader's word on one address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VipVerdict {
    /// The address.
    pub vip: String,
    /// Its owner.
    pub owner: Option<String>,
    /// The decision.
    pub token: FencingToken,
    /// Consequence for the node that asked.
    pub verdict: LeaseVerdict,
    /// Why the owner is the owner.
    pub reason: String,
}

/// From the leader to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeaseReply {
    /// Number of the report.
    pub serial: u64,
    /// The addresses of which the node does not know the word.
    pub vips: Vec<VipVerdict>,
    /// Lease of every address that the report holds and that `vips` does not name.
    #[cfg_attr(feature = "serde", serde(default))]
    pub renewed: Option<Duration>,
    /// The newest decision that the reply speaks of, in words or by leaving them out.
    #[cfg_attr(feature = "serde", serde(default))]
    pub latest: FencingToken,
}
