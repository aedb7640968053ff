//! The physical networks of a config.

use ipnet::IpNet;

use crate::route::Transport;

/// A physical network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Its prefix.
    pub prefix: IpNet,
    /// Its role.
    pub role: NetworkRole,
    /// Lower is preferred; `None`: by role.
    pub metric: Option<u32>,
    /// Capacity, Mbit/s, at least 1: the share of flows its routes get by
    /// [`Policy::Balance`](crate::route::Policy::Balance). `None`: the interface's link speed.
    pub capacity: Option<u32>,
    /// How packets travel on routes that end here. `None`: UDP, unless the peer, the route or the
    /// other end says QUIC.
    pub transport: Option<Transport>,
}

impl NetworkConfig {
    /// A cluster network with the default metric, capacity and transport.
    pub const fn new(prefix: IpNet) -> Self {
        let role = NetworkRole::Cluster;
        Self { prefix, role, metric: None, capacity: None, transport: None }
    }
}

/// Use of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkRole {
    /// Never used.
    None,
    /// For traffic between nodes.
    #[default]
    Cluster,
    /// For traffic between nodes and of clients; preferred last.
    ClusterAndClient,
}

impl NetworkRole {
    /// The word in the config file and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cluster => "cluster",
            Self::ClusterAndClient => "cluster-and-client",
        }
    }
}
