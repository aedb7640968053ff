//! A floating address as the API shows it.

use serde::{Deserialize, Serialize};

/// One floating address, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipView {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// `offline`, `starting`, `online`, `failed` or `unknown` on this node.
    pub state: String,
    /// Reason; null where the state needs none.
    pub reason: Option<String>,
    /// Milliseconds in this state.
    pub state_ms: u64,
    /// Interface that carries it on this node; null without one.
    pub interface: Option<String>,
    /// Name of the node that owns it, as far as this node knows.
    pub owner: Option<String>,
    /// Why its owner is the owner, in the words of the engine that decided.
    #[serde(default)]
    pub cause: Option<String>,
    /// Who decides on the owner.
    pub ownership: String,
    /// Decision that gave the lease in force: term and index.
    pub token: Option<String>,
    /// Length of a lease.
    pub lease_ms: u64,
    /// Milliseconds until the lease in force ends.
    pub lease_left_ms: Option<u64>,
    /// `nftables` or `none`; else why the fence is missing.
    pub fence: String,
    /// The operator wants it on this node (`manual` only).
    pub wanted: bool,
    /// Its events on this node, oldest first.
    #[serde(default)]
    pub history: Vec<VipHistoryLine>,
}

/// One thing that happened to a floating address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipHistoryLine {
    /// Milliseconds since then.
    pub ago_ms: u64,
    /// Description.
    pub what: String,
}

/// Another node, as far as floating addresses are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartnerView {
    /// Its name.
    pub name: String,
    /// `normal`; `recover`: reachable, not compared yet; `interrupted`: not reachable, its leases
    /// may run; `partner-down`: not reachable, its leases have ended.
    pub state: String,
    /// Milliseconds in this state.
    pub state_ms: u64,
    /// `same`, `different` or `unknown`.
    pub definitions: String,
    /// Differences, one an address.
    pub differences: Vec<String>,
}
