//! The node's network interfaces as the kernel reports them: the inputs of the route plan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netft_proto::{
    config::Config,
    topology,
    topology::{
        Advertisements, Interface, KernelWays, PlanInputs, ResolvedAddresses, RouteActivities,
        SourceAddresses,
    },
};

use crate::io::{
    handover::SavedHost,
    netlink::{Netlink, NetlinkError},
    sys::{glink, speed},
};

/// An address of the documentation prefix (RFC 3849).
const DOCUMENTATION_ADDR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The node's interfaces, and what the kernel says of the ways to its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostState {
    /// Every interface of the node.
    pub interfaces: Vec<Interface>,
    /// The kernel's choice of source for remote addresses on no subnet of ours.
    pub sources: SourceAddresses,
    /// The kernel's ways between addresses on different subnets.
    pub ways: KernelWays,
    /// The addresses behind the peers' names.
    pub resolved: ResolvedAddresses,
    /// The adapter's transmit queue length, packets; `None` while it is gone.
    pub adapter_queue_len: Option<u32>,
}

impl HostState {
    /// The inputs of the route plan: this state, the addresses that peers advertise, and the
    /// activity of the running routes.
    pub(crate) fn plan_inputs<'a>(
        &'a self,
        advertisements: &'a Advertisements,
        activities: &'a RouteActivities,
    ) -> PlanInputs<'a> {
        let Self { interfaces, sources, ways, resolved, .. } = self;
        PlanInputs { interfaces, sources, ways, activities, advertisements, resolved }
    }

    /// The state for a successor process, but for the names.
    pub(crate) fn to_saved(&self) -> SavedHost {
        let sources = self.sources.iter();
        let ways = self.ways.iter();
        SavedHost {
            interfaces: self.interfaces.clone(),
            sources: sources.map(|(remote, (local, index))| (*remote, *local, *index)).collect(),
            ways: ways.map(|((local, remote), metric)| (*local, *remote, *metric)).collect(),
            adapter_queue_len: self.adapter_queue_len,
        }
    }

    /// The state that a predecessor process read last, with the addresses behind the names.
    pub(crate) fn from_saved(saved: SavedHost, resolved: ResolvedAddresses) -> Self {
        let sources = saved.sources.into_iter();
        let ways = saved.ways.into_iter();
        Self {
            interfaces: saved.interfaces,
            sources: sources.map(|(remote, local, index)| (remote, (local, index))).collect(),
            ways: ways.map(|(local, remote, metric)| ((local, remote), metric)).collect(),
            resolved,
            adapter_queue_len: saved.adapter_queue_len,
        }
    }

    /// The interface of number `index`.
    pub(crate) fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// Reads the state from the kernel; `None` if it does not list its interfaces. `before` is the
    /// last state's list, for what is slow to read and has not changed.
    pub(crate) async fn read_kernel(
        netlink: &Netlink,
        config: &Config,
        (advertisements, resolved): (&Advertisements, &ResolvedAddresses),
        before: &[Interface],
    ) -> Option<Self> {
        let links = match netlink.list_links().await {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!(%error, "cannot list the interfaces");
                return None;
            }
        };
        let adapter = links.iter().find(|link| link.interface.name == config.adapter.name);
        let adapter_queue_len = adapter.map(|link| link.queue_len);
        let mut interfaces: Vec<_> = links.into_iter().map(|link| link.interface).collect();
        fill_gateway_and_speed(netlink, &mut interfaces, before).await;
        let mut resolved = resolved.clone();
        for (peer, addrs) in topology::link_local_addresses(config, &interfaces) {
            resolved.entry(peer).or_default().extend(addrs);
        }
        let mut sources = SourceAddresses::new();
        for remote in topology::off_subnet_remotes(config, &interfaces, &resolved) {
            if let Ok(Some(source)) = netlink.source_for(remote).await {
                sources.insert(remote, source);
            }
        }
        let mut ways = KernelWays::new();
        let pairs = topology::cross_subnet_pairs(config, &interfaces, advertisements, &resolved);
        for (local, ifindex, remote) in pairs {
            if let Ok(Some(metric)) = netlink.way_metric(local, remote, ifindex).await {
                ways.insert((local, remote), metric);
            }
        }
        Some(Self { interfaces, sources, ways, resolved, adapter_queue_len })
    }
}

/// Lists the interfaces as route planning takes them.
pub(crate) async fn list_interfaces(netlink: &Netlink) -> Result<Vec<Interface>, NetlinkError> {
    let mut interfaces = netlink.list_interfaces().await?;
    fill_gateway_and_speed(netlink, &mut interfaces, &[]).await;
    Ok(interfaces)
}

/// The metric of the best default route out of an interface: every interface has its own, whichever
/// of them the kernel prefers.
async fn default_route_metric(netlink: &Netlink, interface: &Interface) -> Option<u32> {
    if !interface.is_healthy() || interface.loopback {
        return None;
    }
    // TEST-NET-1 (RFC 5737) and the documentation prefix (RFC 3849): nothing but a default route
    // leads there.
    let anywhere: [IpAddr; 2] = [Ipv4Addr::new(192, 0, 2, 1).into(), DOCUMENTATION_ADDR.into()];
    let mut best = None;
    for remote in anywhere {
        let is_source = |addr: IpAddr| {
            addr.is_ipv4() == remote.is_ipv4()
                && !matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
        };
        let source = interface.addrs.iter().find(|local| is_source(local.addr));
        if let Some(source) = source
            && let Ok(Some(metric)) = netlink.way_metric(source.addr, remote, interface.index).await
        {
            best = Some(best.unwrap_or(metric).min(metric));
        }
    }
    best
}

/// Fills in what metrics follow from: the default routes and the link speeds. Some network drivers
/// take long to report the speed, so it is read only where something may have changed.
async fn fill_gateway_and_speed(
    netlink: &Netlink,
    interfaces: &mut [Interface],
    before: &[Interface],
) {
    let socket = glink::open_socket();
    for interface in interfaces {
        interface.default_route = default_route_metric(netlink, interface).await;
        let same = |old: &&Interface| {
            (old.index, &old.name, old.carrier)
                == (interface.index, &interface.name, interface.carrier)
        };
        interface.speed = match (before.iter().find(same), &socket) {
            (Some(old), _) => old.speed,
            (None, Ok(socket)) => speed::link_speed(socket, &interface.name),
            (None, Err(_)) => None,
        };
    }
}
