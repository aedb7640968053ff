//! The other nodes of a config.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use crate::{
    ids::{NodeKey, PeerId, virtual_addrs::VirtualAddrs},
    route::{Delay, PeerPolicies, Priority, Threshold, Transport},
};

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its number in this process, given by the adapter: what stands here before is replaced.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// Its public key.
    pub key: NodeKey,
    /// The key that replaces it, accepted beside it.
    pub next_key: Option<NodeKey>,
    /// Its virtual addresses.
    pub addrs: VirtualAddrs,
    /// Its physical addresses, with port.
    pub addresses: Vec<SocketAddr>,
    /// Names of more of them: looked up at the start, every minute, and when no route is usable.
    pub names: Vec<HostName>,
    /// Routes that differ from what pairing gives.
    pub routes: Vec<RouteOverride>,
    /// How data to it uses its routes.
    pub policies: PeerPolicies,
    /// How packets travel on routes to it; `None`: as their network says.
    pub transport: Option<Transport>,
}

impl PeerConfig {
    /// A peer with link-local addresses from its key, and no physical address yet.
    pub fn new(name: impl Into<String>, key: NodeKey) -> Self {
        Self {
            id: PeerId(0),
            name: name.into(),
            key,
            next_key: None,
            addrs: VirtualAddrs::derive_from_key(&key),
            addresses: Vec::new(),
            names: Vec::new(),
            routes: Vec::new(),
            policies: PeerPolicies::default(),
            transport: None,
        }
    }

    /// The keys it may prove: its own, and the one that replaces it.
    pub fn accepted_keys(&self) -> impl Iterator<Item = NodeKey> + use<> {
        [Some(self.key), self.next_key].into_iter().flatten()
    }

    /// Adds a physical address of the peer, with its port.
    #[must_use]
    pub fn with_address(mut self, address: SocketAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// Adds a name of physical addresses of the peer, with their port.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>, port: u16) -> Self {
        self.names.push(HostName { host: host.into(), port });
        self
    }

    /// Adds a route that differs from what pairing gives.
    #[must_use]
    pub fn with_route(mut self, route: RouteOverride) -> Self {
        self.routes.push(route);
        self
    }

    /// Sets how packets travel on routes to the peer.
    #[must_use]
    pub fn with_transport(mut self, carrier: Transport) -> Self {
        self.transport = Some(carrier);
        self
    }

    /// Sets how data to the peer uses its routes.
    #[must_use]
    pub fn with_policies(mut self, policies: PeerPolicies) -> Self {
        self.policies = policies;
        self
    }
}

/// A name of physical addresses, and their port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName {
    /// The name, as the system's resolver takes it; or an IPv6 link-local address with its
    /// interface, `fe80::1%eth0`, which is none for the resolver.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostName {
    /// The IPv6 link-local address and the name of its interface, if it is written so.
    pub fn link_local(&self) -> Option<(Ipv6Addr, &str)> {
        let (addr, interface) = self.host.split_once('%')?;
        let addr: Ipv6Addr = addr.parse().ok()?;
        (addr.is_unicast_link_local() && !interface.is_empty()).then_some((addr, interface))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link_local() {
            Some(_) => write!(f, "[{}]:{}", self.host, self.port),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A route given in the config. Fields left out come from pairing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOverride {
    /// The physical address here; `None`: by pairing.
    pub local: Option<IpAddr>,
    /// The physical address there.
    pub remote: SocketAddr,
    /// Time between heartbeats.
    pub delay: Option<Delay>,
    /// Heartbeats missed before the route is down.
    pub threshold: Option<Threshold>,
    /// Lower is preferred.
    pub priority: Option<Priority>,
    /// How packets travel; `None`: as the peer says.
    pub transport: Option<Transport>,
}

impl RouteOverride {
    /// A route to `remote` that is as pairing would make it.
    pub fn to_remote(remote: SocketAddr) -> Self {
        Self { local: None, remote, delay: None, threshold: None, priority: None, transport: None }
    }

    /// Pins the physical address here.
    #[must_use]
    pub fn with_local(mut self, local: IpAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// Sets the priority; lower is preferred.
    #[must_use]
    pub fn with_priority(mut self, priority: u32) -> Self {
        self.priority = Some(Priority(priority));
        self
    }
}
