//! The networks, as the control socket tells them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// `GET /v1/networks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkList {
    /// Every network: of this node's interfaces, of its peers', and of the config; preferred
    /// first.
    pub networks: Vec<Network>,
}

/// One network: a prefix, and the interfaces in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its prefix, as `10.1.0.0/24`.
    pub prefix: String,
    /// As this node sees it: `up`, `partitioned` (not every interface of a node with a session is
    /// reached), `down` (none is, or the own one does not work) or `unavailable` (this node has
    /// no interface there, and reaches none).
    pub state: String,
    /// `none`, `cluster` or `cluster-and-client`.
    pub role: String,
    /// Lower is preferred.
    pub metric: u32,
    /// Where the metric comes from: `config`, `interface` (role and speed of the own one), `peer`
    /// (what a peer says of its own) or `remembered` (what it was while this node had an interface
    /// there).
    pub metric_from: String,
    /// The interfaces in it, this node's first.
    pub interfaces: Vec<NetworkInterface>,
}

/// One address of an interface in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// The node's name.
    pub node: String,
    /// The interface's name; null for a peer's, which does not tell it.
    pub interface: Option<String>,
    /// The interface's number on its node (the lower 16 bits of a peer's).
    pub number: u16,
    /// The address.
    pub address: IpAddr,
    /// `up`; `unreachable` (a peer's that is not reached, or the own one if it reaches some only);
    /// `failed` (the own one: it does not work, or reaches nobody); `unavailable` (no session with
    /// its node).
    pub state: String,
}
