//! Networks in JSON.

use std::net::IpAddr;

use netft::{
    config::NetworkRole,
    topology::{InterfaceState, MetricSource, NetworkState},
};
use serde::{Deserialize, Serialize};

use crate::control::words;

/// `GET /v1/networks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NetworkList {
    /// Every network: of this node's interfaces, of its peers', and of the config; preferred
    /// first.
    pub networks: Vec<Network>,
}

/// One network: a prefix, and the interfaces in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Network {
    /// Its prefix, as `10.1.0.0/24`.
    pub prefix: String,
    /// State seen from this node: `up`, `partitioned` (some interfaces of nodes with a session are
    /// unreachable), `down` (all are, or the local one failed) or `unavailable` (this node has no
    /// interface there and reaches none).
    #[serde(with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<NetworkState>"))]
    pub state: NetworkState,
    /// `none`, `cluster` or `cluster-and-client`.
    #[serde(with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<NetworkRole>"))]
    pub role: NetworkRole,
    /// Lower is preferred.
    pub metric: u32,
    /// Source of the metric: `config`, `interface` (role and speed of the local one), `peer` (its
    /// advertisement) or `remembered` (from the time this node had an interface there).
    #[serde(with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<MetricSource>"))]
    pub metric_from: MetricSource,
    /// The interfaces in it, this node's first.
    pub interfaces: Vec<NetworkInterfaceView>,
}

/// One address of an interface in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NetworkInterfaceView {
    /// The node's name.
    pub node: String,
    /// Interface name; null for a peer's, which does not advertise it.
    pub interface: Option<String>,
    /// The interface's number on its node (the lower 16 bits of a peer's).
    pub number: u16,
    /// The address.
    pub address: IpAddr,
    /// `up`; `unreachable` (of a peer: not reached; local: reaches some peers only, or
    /// the only one not); `failed` (local: down, without carrier, or reaches none of several
    /// peers); `unavailable` (no session with its node).
    #[serde(with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<InterfaceState>"))]
    pub state: InterfaceState,
}
