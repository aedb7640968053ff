//! A floating address as the API shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One floating address, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// Permission to answer for it.
    #[serde(flatten)]
    pub lease: VipLeaseView,
    /// Lease of the address itself; null for an address of the config file.
    #[serde(default)]
    pub dhcp: Option<DhcpView>,
    /// `nftables` or `none`; else why the fence is missing.
    pub fence: String,
    /// The operator wants it on this node (`manual` only).
    pub wanted: bool,
    /// Its events on this node, oldest first.
    #[serde(default)]
    pub history: Vec<VipHistoryLine>,
}

/// Permission of a node to answer for a floating address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VipLeaseView {
    /// Length of a lease.
    pub lease_ms: u64,
    /// Milliseconds until the lease in force ends.
    pub lease_left_ms: Option<u64>,
}

/// The lease of an address that a DHCP server assigns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DhcpView {
    /// State of the client (RFC 2131): `stopped` on a node that does not have the address,
    /// `waiting`, `selecting`, `requesting`, `rebooting`, `bound`, `renewing` or `rebinding`.
    pub state: String,
    /// Client identifier, hexadecimal: the same on every node.
    pub client_id: String,
    /// Server that assigned the address; null without a lease.
    pub server: Option<String>,
    /// Milliseconds since the lease was asked for.
    pub obtained_ms: Option<u64>,
    /// Milliseconds until its server is asked to renew it (T1); null for an infinite lease.
    pub renew_ms: Option<u64>,
    /// Milliseconds until any server is asked to (T2).
    pub rebind_ms: Option<u64>,
    /// Milliseconds until it ends.
    pub expires_ms: Option<u64>,
    /// Why there is no address, or why the last one is gone.
    pub problem: Option<String>,
    /// Messages of servers that were ignored, by reason.
    pub ignored: BTreeMap<String, u64>,
}

/// A name in DNS that stands for floating addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NameView {
    /// The whole name.
    pub name: String,
    /// `online`: this node answers for a member; `elsewhere`: other nodes do; `offline`.
    pub state: String,
    /// Names of its floating addresses.
    pub members: Vec<String>,
    /// Every member is registered, online or not.
    pub register_all: bool,
    /// Server that is updated.
    pub server: String,
    /// Milliseconds since the last update that the server confirmed to this node.
    pub updated_ms: Option<u64>,
    /// Why the last update failed; null if it did not.
    pub error: Option<String>,
    /// Updates that failed one after the other.
    pub failures: u32,
    /// Its records.
    pub records: Vec<NameRecordView>,
}

/// A record of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NameRecordView {
    /// Name of the floating address.
    pub vip: String,
    /// The address.
    pub address: String,
    /// `registered`, `registering`, `removing`, `removed`, or `unmanaged`: another node sees to it.
    pub state: String,
}

/// One thing that happened to a floating address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VipHistoryLine {
    /// Milliseconds since then.
    pub ago_ms: u64,
    /// Description.
    pub what: String,
}

/// Another node, as far as floating addresses are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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

impl VipLeaseView {
    /// Milliseconds since the lease in force was asked for; `None` without one.
    pub fn renewed_ms(&self) -> Option<u64> {
        Some(self.lease_ms.saturating_sub(self.lease_left_ms?))
    }
}
