//! The values routes are planned from, and the plan. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use crate::{
    ids::PeerId,
    route::spec::RouteSpec,
    topology::{activity::RouteActivity, names::ResolvedAddresses},
    wire::interfaces::Advertisement,
};

/// A kernel interface, as far as route planning needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Interface {
    /// Its kernel index; never 0.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link kind (`veth`, `bridge`, `tun`, …); `None` for hardware.
    pub kind: Option<String>,
    /// Set up administratively.
    pub up: bool,
    /// The link has a carrier.
    pub carrier: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// The kernel's metric of the default route that leaves through it, if one does.
    pub default_route: Option<u32>,
    /// Its speed, Mbit/s, if the driver reports one.
    pub speed: Option<u32>,
    /// Its usable addresses: neither tentative nor refused by duplicate detection.
    pub addrs: Vec<LocalAddr>,
}

impl Interface {
    /// Returns a healthy interface of hardware: `index` is not 0, its MTU is 1500 bytes, and it has
    /// neither an address nor a default route.
    pub fn healthy(index: u32, name: impl Into<String>) -> Self {
        Self {
            index,
            name: name.into(),
            kind: None,
            up: true,
            carrier: true,
            loopback: false,
            mtu: 1500,
            default_route: None,
            speed: None,
            addrs: Vec::new(),
        }
    }

    /// Returns whether it can carry packets.
    pub fn is_healthy(&self) -> bool {
        self.up && self.carrier
    }

    /// Returns whether `addr` can be bound here. The loopback interface owns its whole prefix.
    pub fn owns_address(&self, addr: IpAddr) -> bool {
        self.addrs.iter().any(|local| {
            local.addr == addr
                || (self.loopback && addr.is_loopback() && prefix_contains(local, addr))
        })
    }
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LocalAddr {
    /// The address.
    pub addr: IpAddr,
    /// The on-link prefix (for a point-to-point address: the other end).
    pub prefix: IpNet,
    /// The kernel would not choose it first: secondary, temporary or deprecated.
    pub is_secondary: bool,
}

pub(crate) fn prefix_contains(local: &LocalAddr, addr: IpAddr) -> bool {
    local.prefix.contains(&addr)
}

/// A route that should exist, and the interface that carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRoute {
    /// The eight fields.
    pub spec: RouteSpec,
    /// The interface of the local address; 0 while no interface has it.
    pub ifindex: u32,
    /// That interface's name; empty while there is none.
    pub ifname: String,
}

impl PlannedRoute {
    /// The identity of the route: peer and both ends.
    pub fn route_key(&self) -> (PeerId, SocketAddr, SocketAddr) {
        (self.spec.peer, self.spec.real_local, self.spec.real_remote)
    }
}

/// The result of [`plan_routes()`](crate::topology::plan_routes()).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePlan {
    /// The routes, in the order of the config.
    pub routes: Vec<PlannedRoute>,
    /// The addresses of peers that no route leads to.
    pub unrouted: Vec<UnroutedAddress>,
}

/// An address of a peer that no route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnroutedAddress {
    /// The peer.
    pub peer: PeerId,
    /// The address.
    pub remote: SocketAddr,
    /// Why, and so what to do about it.
    pub reason: UnroutedReason,
}

/// Why no route leads to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnroutedReason {
    /// Unspecified, multicast or broadcast.
    #[error("not the address of a host: give a unicast address")]
    NotUnicast,
    /// A virtual address of this node or of a peer.
    #[error("a virtual address: give a physical address of the peer")]
    VirtualAddress,
    /// The node's own address.
    #[error("this node's own address: give an address of the peer")]
    OwnAddress,
    /// `fe80::…` without an interface.
    #[error("an IPv6 link-local address needs its interface: write fe80::1%eth0")]
    NoScope,
    /// The network of one end has the role `none`, or is not among the networks of the config.
    #[error("its network is not used: give it a role other than none under networks")]
    NetworkNotUsed,
    /// A loopback address, without a listed loopback network.
    #[error("a loopback address: list its prefix under networks to allow it")]
    Loopback,
    /// The local address of a route override is IPv4 and the remote one IPv6, or the reverse.
    #[error("local and remote must both be IPv4 or both be IPv6")]
    MixedFamilies,
    /// No interface has the address on-link, and the kernel has no route to it.
    #[error("no interface is on its subnet and the kernel has no route to it")]
    NoKernelRoute,
    /// The kernel's route to it leaves through the adapter or an interface that is never used.
    #[error("the kernel reaches it only over the adapter, an overlay or a container bridge")]
    Excluded,
    /// The kernel's source address for it is on the loopback interface (BGP to the host).
    #[error(
        "this node's address for it is on lo, and routes start at the address of a physical \
         interface: give each interface its own"
    )]
    SourceOnLoopback,
}

/// The kernel's answer for remote addresses on no subnet of ours: source address and interface.
pub type SourceAddresses = BTreeMap<IpAddr, (IpAddr, u32)>;
/// The kernel's metric of the way from a local address to a remote one on another subnet, out of
/// the very interface that has the local address; pairs without a way are left out.
pub type KernelWays = BTreeMap<(IpAddr, IpAddr), u32>;
/// The activity of the running routes, by peer and both ends.
pub type RouteActivities = BTreeMap<(PeerId, SocketAddr, SocketAddr), RouteActivity>;
/// The interface lists that the peers advertised.
pub type Advertisements = BTreeMap<PeerId, Advertisement>;

/// The inputs of route planning beside the config.
#[derive(Clone, Copy, Debug)]
pub struct PlanInputs<'a> {
    /// Every interface of this node.
    pub interfaces: &'a [Interface],
    /// The answers to [`off_subnet_remotes`](crate::topology::off_subnet_remotes).
    pub sources: &'a SourceAddresses,
    /// The answers to [`cross_subnet_pairs`](crate::topology::cross_subnet_pairs).
    pub ways: &'a KernelWays,
    /// The activity of the running routes.
    pub activities: &'a RouteActivities,
    /// The interface lists of the peers.
    pub advertisements: &'a Advertisements,
    /// The addresses of the peers' host names.
    pub resolved: &'a ResolvedAddresses,
}
