//! The node's network interfaces as the kernel reports them: the inputs of the route plan.

use std::net::{Ipv4Addr, Ipv6Addr};

use netft_proto::{
    config::Config,
    topology,
    topology::{
        Advertisements, Interface, PlanInputs, ResolvedAddresses, RoutablePairs, SourceAddresses,
    },
};

use crate::io::{
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
    /// The pairs of addresses the kernel routes between.
    pub routable_pairs: RoutablePairs,
    /// The addresses behind the peers' names.
    pub resolved: ResolvedAddresses,
}

impl HostState {
    /// The inputs of the route plan: this state and the addresses that peers advertise.
    pub(crate) fn plan_inputs<'a>(&'a self, advertisements: &'a Advertisements) -> PlanInputs<'a> {
        let Self { interfaces, sources, routable_pairs, resolved } = self;
        PlanInputs { interfaces, sources, routable_pairs, advertisements, resolved }
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
        let mut interfaces = match netlink.list_interfaces().await {
            Ok(interfaces) => interfaces,
            Err(error) => {
                tracing::warn!(%error, "cannot list the interfaces");
                return None;
            }
        };
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
        let mut routable_pairs = RoutablePairs::new();
        let pairs = topology::cross_subnet_pairs(config, &interfaces, advertisements);
        for (local, ifindex, remote) in pairs {
            let found = netlink.egress_interface(local, remote).await;
            if matches!(found, Ok(Some(out)) if out == ifindex) {
                routable_pairs.insert((local, remote));
            }
        }
        Some(Self { interfaces, sources, routable_pairs, resolved })
    }
}

/// Lists the interfaces as route planning takes them.
pub(crate) async fn list_interfaces(netlink: &Netlink) -> Result<Vec<Interface>, NetlinkError> {
    let mut interfaces = netlink.list_interfaces().await?;
    fill_gateway_and_speed(netlink, &mut interfaces, &[]).await;
    Ok(interfaces)
}

/// Fills in what metrics follow from: the default routes and the link speeds. Some network drivers
/// take long to report the speed, so it is read only where something may have changed.
async fn fill_gateway_and_speed(
    netlink: &Netlink,
    interfaces: &mut [Interface],
    before: &[Interface],
) {
    // TEST-NET-1 (RFC 5737) and the documentation prefix (RFC 3849): nothing but a default route
    // leads there.
    for anywhere in [Ipv4Addr::new(192, 0, 2, 1).into(), DOCUMENTATION_ADDR.into()] {
        if let Ok(Some((_, out))) = netlink.source_for(anywhere).await {
            let way_out = interfaces.iter_mut().filter(|interface| interface.index == out);
            way_out.for_each(|interface| interface.has_default_route = true);
        }
    }
    let socket = glink::open_socket();
    for interface in interfaces {
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
