//! Route planning: pairs the addresses of peers with local ones. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use crate::{
    config::{Config, DEFAULT_METRIC, PeerConfig, RouteOverride},
    ids::PeerId,
    route::{Attributes, Priority, RouteClass, RouteSpec, Timing, Transport},
    topology::{
        advertisement::build_advertisement,
        faults,
        names::ResolvedAddresses,
        networks,
        networks::{can_carry_routes, is_listed, is_overlay_or_bridge, is_role_none, is_virtual},
        types::{
            Advertisements, Interface, KernelWays, LocalAddr, PlanInputs, PlannedRoute,
            RouteActivities, RoutePlan, SourceAddresses, UnroutedAddress, UnroutedReason,
            prefix_contains,
        },
    },
    wire::interfaces::{AdvertisedEndpoint, Advertisement},
};

/// The remote addresses that are on no interface's subnet: [`plan_routes`] needs the kernel's
/// source address for each.
pub fn off_subnet_remotes(
    config: &Config,
    interfaces: &[Interface],
    resolved: &ResolvedAddresses,
) -> BTreeSet<IpAddr> {
    let planner = RoutePlanner {
        config,
        interfaces,
        sources: &SourceAddresses::new(),
        running: &[],
        activities: &RouteActivities::new(),
        own_advertisement: None,
    };
    config
        .peers
        .iter()
        .flat_map(|peer| remote_addresses(peer, resolved))
        .filter(|remote| planner.check_remote(*remote).is_ok())
        .filter(|remote| planner.same_subnet_addresses(*remote).next().is_none())
        .map(|remote| remote.ip())
        .collect()
}

/// The most pairs that the kernel is asked about. With more, the last addresses of the last peers
/// are left to what those peers try.
pub const MAX_WAY_QUERIES: usize = 4096;

/// The pairs of addresses on different subnets, with the interface of the local one:
/// [`plan_routes`] needs the kernel's way between them, out of that very interface.
pub fn cross_subnet_pairs(
    config: &Config,
    interfaces: &[Interface],
    advertisements: &Advertisements,
    resolved: &ResolvedAddresses,
) -> Vec<(IpAddr, u32, IpAddr)> {
    let own = build_advertisement(config, interfaces, &[], &KernelWays::new());
    let owner_of = |addr| interfaces.iter().find(|interface| interface.owns_address(addr));
    let near_ends = own.endpoints.iter().filter_map(|near| Some((near, owner_of(near.addr)?)));
    let near_ends: Vec<_> = near_ends.filter(|(_, owner)| owner.is_healthy()).collect();
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for peer in &config.peers {
        let advertised = advertisements.get(&peer.id).into_iter();
        let advertised = advertised
            .flat_map(|far| &far.endpoints)
            .map(|endpoint| (endpoint.addr, Some(endpoint.subnet_prefix())));
        let named = remote_addresses(peer, resolved).map(|remote| (remote.ip(), None));
        let remotes: Vec<_> = advertised.chain(named).collect();
        // Every interface here asks for a remote address before the next one.
        for (remote, subnet) in &remotes {
            for (near, owner) in &near_ends {
                let is_neighbour = match subnet {
                    Some(subnet) => *subnet == near.subnet_prefix(),
                    None => near.subnet_prefix().contains(remote),
                };
                let pair = (near.addr, owner.index, *remote);
                if remote.is_ipv4() == near.addr.is_ipv4() && !is_neighbour && seen.insert(pair) {
                    found.push(pair);
                }
            }
        }
        if found.len() >= MAX_WAY_QUERIES {
            break;
        }
    }
    found.truncate(MAX_WAY_QUERIES);
    found
}

/// The routes that should exist.
///
/// Each configured address of a peer gets one route: from the address here on the same prefix,
/// else from the one the kernel would choose (`sources`). Overrides that name a local address
/// replace that choice, one route each. What the peers advertise, and what else the kernel has ways
/// to, adds the routes of [`reachable`](crate::topology::reachable).
///
/// `running` are the routes that exist. A running route whose interface or address vanished stays,
/// so that it recovers instead of being replaced by a detour over another interface. One on which
/// the peer is heard (`activities`) is removed only when the config does not want it or one of its
/// ends is gone.
pub fn plan_routes(
    config: &Config,
    inputs: &PlanInputs<'_>,
    running: &[PlannedRoute],
) -> RoutePlan {
    let PlanInputs { interfaces, sources, activities, .. } = *inputs;
    let own = build_advertisement(config, interfaces, running, inputs.ways);
    let own_advertisement = Some(&own);
    let planner =
        RoutePlanner { config, interfaces, sources, running, activities, own_advertisement };
    let mut plan = RoutePlan::default();
    let mut keys = BTreeSet::new();
    for peer in &config.peers {
        let id = peer.id;
        let first = plan.routes.len();
        for remote in remote_addresses(peer, inputs.resolved) {
            let pins: Vec<_> =
                matching_overrides(peer, remote).filter_map(|entry| entry.local).collect();
            let choices = if pins.is_empty() {
                vec![planner.choose_local_end(id, remote)]
            } else {
                pins.iter().map(|local| planner.pinned_local_end(id, *local, remote)).collect()
            };
            for choice in choices {
                match choice {
                    Ok(choice) => {
                        let far = inputs.advertisements.get(&id);
                        let route = planner.build_route(peer, remote, choice, far);
                        if keys.insert(route.route_key()) {
                            plan.routes.push(route);
                        }
                    }
                    Err(why) => {
                        plan.unrouted.push(UnroutedAddress { peer: id, remote, reason: why })
                    }
                }
            }
        }
        let reachable = planner.reachable_routes(peer, inputs, &plan.routes[first..]);
        plan.routes.extend(reachable.into_iter().filter(|route| keys.insert(route.route_key())));
    }
    plan
}

/// The addresses of a peer, each once, in the order of the config; those of host names last.
pub(crate) fn remote_addresses<'a>(
    peer: &'a PeerConfig,
    resolved: &'a ResolvedAddresses,
) -> impl Iterator<Item = SocketAddr> + use<'a> {
    let mut seen = BTreeSet::new();
    let behind = resolved.get(&peer.id).into_iter().flatten().copied();
    let given = peer.routes.iter().map(|entry| entry.remote);
    peer.addresses
        .iter()
        .copied()
        .chain(given)
        .chain(behind)
        .filter(move |remote| seen.insert(*remote))
}

pub(crate) fn matching_overrides(
    peer: &PeerConfig,
    remote: SocketAddr,
) -> impl Iterator<Item = &RouteOverride> {
    peer.routes.iter().filter(move |entry| entry.remote == remote)
}

pub(crate) struct RoutePlanner<'a> {
    pub(crate) config: &'a Config,
    pub(crate) interfaces: &'a [Interface],
    pub(crate) sources: &'a SourceAddresses,
    pub(crate) running: &'a [PlannedRoute],
    /// The activity of those.
    pub(crate) activities: &'a RouteActivities,
    /// The interface list of this node.
    pub(crate) own_advertisement: Option<&'a Advertisement>,
}

impl<'a> RoutePlanner<'a> {
    /// A planner of single routes, whatever else runs.
    pub(crate) const fn without_routes(config: &'a Config, inputs: &PlanInputs<'a>) -> Self {
        let PlanInputs { interfaces, sources, activities, .. } = *inputs;
        Self { config, interfaces, sources, running: &[], activities, own_advertisement: None }
    }
}

/// The local end of a route.
pub(crate) struct LocalEnd {
    local: IpAddr,
    ifindex: u32,
    ifname: String,
    class: RouteClass,
}

impl LocalEnd {
    pub(crate) fn on_interface(interface: &Interface, local: IpAddr, class: RouteClass) -> Self {
        Self { local, ifindex: interface.index, ifname: interface.name.clone(), class }
    }

    pub(crate) fn from_planned(known: &PlannedRoute) -> Self {
        let same_subnet = known.spec.attributes.0 & Attributes::SAME_SUBNET != 0;
        Self {
            local: known.spec.real_local.ip(),
            ifindex: known.ifindex,
            ifname: known.ifname.clone(),
            class: if same_subnet { RouteClass::SameSubnet } else { RouteClass::CrossSubnet },
        }
    }

    pub(crate) fn class(&self) -> RouteClass {
        self.class
    }
}

impl<'a> RoutePlanner<'a> {
    /// Checks that a route may lead to `remote`.
    pub(crate) fn check_remote(&self, remote: SocketAddr) -> Result<(), UnroutedReason> {
        let addr = remote.ip();
        if addr.is_unspecified() || addr.is_multicast() || is_broadcast(addr) {
            Err(UnroutedReason::NotUnicast)
        } else if is_virtual(self.config, addr) {
            Err(UnroutedReason::VirtualAddress)
        } else if is_role_none(self.config, addr) {
            Err(UnroutedReason::NetworkNotUsed)
        } else if addr.is_loopback() && !is_listed(self.config, addr) {
            Err(UnroutedReason::Loopback)
        } else if scope_of(remote) == Some(0) {
            Err(UnroutedReason::NoScope)
        } else if !addr.is_loopback() && self.is_own(addr) {
            Err(UnroutedReason::OwnAddress)
        } else {
            Ok(())
        }
    }

    /// Returns whether a packet to `addr` never leaves the host.
    fn is_own(&self, addr: IpAddr) -> bool {
        self.interfaces.iter().flat_map(|interface| &interface.addrs).any(|own| own.addr == addr)
    }

    /// Two nodes may share a loopback address under two ports; the socket's own address is no
    /// remote end.
    fn is_self(&self, local: IpAddr, remote: SocketAddr) -> bool {
        local == remote.ip() && remote.port() == self.config.session.port
    }

    /// Returns whether routes to `remote` may start from `addr` on `interface`.
    pub(crate) fn is_eligible_source(
        &self,
        interface: &Interface,
        addr: IpAddr,
        remote: IpAddr,
    ) -> bool {
        interface.name != self.config.adapter.name
            && addr.is_ipv4() == remote.is_ipv4()
            && !is_virtual(self.config, addr)
            && !self.config.is_excluded(&interface.name, addr)
            && interface.loopback == remote.is_loopback()
            && addr.is_loopback() == remote.is_loopback()
            && can_carry_routes(self.config, addr)
            && (!is_overlay_or_bridge(interface) || is_listed(self.config, addr))
    }

    /// The addresses here on a prefix that holds `remote`.
    fn same_subnet_addresses(
        &self,
        remote: SocketAddr,
    ) -> impl Iterator<Item = (&'a Interface, &'a LocalAddr)> {
        let scope = scope_of(remote);
        self.interfaces
            .iter()
            .filter(move |interface| scope.is_none_or(|scope| scope == interface.index))
            .flat_map(|interface| interface.addrs.iter().map(move |local| (interface, local)))
            .filter(move |(interface, local)| {
                prefix_contains(local, remote.ip())
                    && !self.is_self(local.addr, remote)
                    && self.is_eligible_source(interface, local.addr, remote.ip())
            })
    }

    /// The local end by pairing.
    fn choose_local_end(
        &self,
        peer: PeerId,
        remote: SocketAddr,
    ) -> Result<LocalEnd, UnroutedReason> {
        self.check_remote(remote)?;
        let known = self.running_route(peer, remote);
        let kept = known.map(|route| route.spec.real_local.ip());
        // A running route stays; then the kernel's order, then the lowest address.
        let neighbour = self.same_subnet_addresses(remote).min_by_key(|(interface, local)| {
            (
                kept != Some(local.addr),
                local.is_secondary,
                u8::MAX - local.prefix.prefix_len(),
                local.addr,
                interface.index,
            )
        });
        if let Some((interface, local)) = neighbour {
            return Ok(LocalEnd::on_interface(interface, local.addr, RouteClass::SameSubnet));
        }
        if let Some(route) = known
            && route.spec.attributes.0 & Attributes::SAME_SUBNET != 0
        {
            return Ok(LocalEnd::from_planned(route));
        }
        match (self.kernel_local_end(remote), known) {
            (_, Some(route)) if self.is_heard(route) => Ok(LocalEnd::from_planned(route)),
            (Ok(choice), Some(route)) if choice.local != route.spec.real_local.ip() => {
                if self.may_heal(route) { Ok(LocalEnd::from_planned(route)) } else { Ok(choice) }
            }
            (Err(_), Some(route)) => Ok(LocalEnd::from_planned(route)),
            (routed, _) => routed,
        }
    }

    /// The local end the kernel would choose.
    fn kernel_local_end(&self, remote: SocketAddr) -> Result<LocalEnd, UnroutedReason> {
        if scope_of(remote).is_some() {
            return Err(UnroutedReason::NoKernelRoute);
        }
        let (source, ifindex) =
            *self.sources.get(&remote.ip()).ok_or(UnroutedReason::NoKernelRoute)?;
        let interface = self
            .interfaces
            .iter()
            .find(|interface| interface.index == ifindex)
            .ok_or(UnroutedReason::NoKernelRoute)?;
        let is_on_loopback = |interface: &Interface| {
            interface.loopback && interface.addrs.iter().any(|local| local.addr == source)
        };
        if !interface.loopback && self.interfaces.iter().any(is_on_loopback) {
            return Err(UnroutedReason::SourceOnLoopback);
        }
        if !can_carry_routes(self.config, source) {
            Err(UnroutedReason::NetworkNotUsed)
        } else if interface.owns_address(source)
            && self.is_eligible_source(interface, source, remote.ip())
        {
            Ok(LocalEnd::on_interface(interface, source, RouteClass::CrossSubnet))
        } else {
            Err(UnroutedReason::Excluded)
        }
    }

    /// The local end that an override names, even while it does not exist.
    fn pinned_local_end(
        &self,
        peer: PeerId,
        local: IpAddr,
        remote: SocketAddr,
    ) -> Result<LocalEnd, UnroutedReason> {
        self.check_remote(remote)?;
        if is_virtual(self.config, local) {
            return Err(UnroutedReason::VirtualAddress);
        }
        if self.is_self(local, remote) {
            return Err(UnroutedReason::OwnAddress);
        }
        if local.is_ipv4() != remote.ip().is_ipv4() {
            return Err(UnroutedReason::MixedFamilies);
        }
        if is_role_none(self.config, local) {
            return Err(UnroutedReason::NetworkNotUsed);
        }
        let scope = scope_of(remote);
        let owner = self
            .interfaces
            .iter()
            .filter(|interface| {
                interface.name != self.config.adapter.name && interface.owns_address(local)
            })
            .filter(|interface| scope.is_none_or(|scope| scope == interface.index))
            .min_by_key(|interface| (!interface.is_healthy(), interface.index));
        if let Some(interface) = owner {
            let near = interface.addrs.iter().any(|own| {
                (own.addr == local || interface.loopback) && prefix_contains(own, remote.ip())
            });
            let class = if near { RouteClass::SameSubnet } else { RouteClass::CrossSubnet };
            return Ok(LocalEnd::on_interface(interface, local, class));
        }
        let known = self.running.iter().find(|route| {
            route.spec.peer == peer
                && route.spec.real_remote == remote
                && route.spec.real_local.ip() == local
        });
        Ok(known.map_or_else(
            || LocalEnd {
                local,
                ifindex: 0,
                ifname: String::new(),
                class: RouteClass::CrossSubnet,
            },
            LocalEnd::from_planned,
        ))
    }

    /// The route that runs to `remote`, if the config still allows its local end.
    fn running_route(&self, peer: PeerId, remote: SocketAddr) -> Option<&'a PlannedRoute> {
        self.running.iter().find(|route| {
            route.spec.peer == peer
                && route.spec.real_remote == remote
                && can_carry_routes(self.config, route.spec.real_local.ip())
                && route.ifname != self.config.adapter.name
                && route.ifindex != 0
        })
    }

    /// Returns whether the peer is heard on a running route.
    fn is_heard(&self, route: &PlannedRoute) -> bool {
        self.activities.get(&route.route_key()).is_some_and(|activity| activity.is_heard())
    }

    /// Returns whether a cross-subnet route is only broken, not superseded: its interface is gone
    /// or faulty, or lost its addresses. A working interface with another address has been
    /// renumbered, and the route follows it.
    fn may_heal(&self, route: &PlannedRoute) -> bool {
        if let Some(owner) = faults::owning_interface(route, self.interfaces) {
            return !owner.is_healthy();
        }
        let remote = route.spec.real_remote.ip();
        faults::planned_interface(route, self.interfaces).is_none_or(|interface| {
            let renumbered = interface
                .addrs
                .iter()
                .any(|own| self.is_eligible_source(interface, own.addr, remote));
            !interface.is_healthy() || !renumbered
        })
    }

    /// The sum of the metrics of the two end networks, as NetFT's. The remote one is advertised by
    /// the peer; until then, or for an address it does not advertise, it counts as the local one.
    fn default_priority(
        &self,
        choice: &LocalEnd,
        remote: IpAddr,
        far: Option<&Advertisement>,
    ) -> u32 {
        let owner = self.interfaces.iter().find(|interface| interface.index == choice.ifindex);
        let Some(owner) = owner else { return DEFAULT_METRIC * 2 };
        let near = networks::interface_metric(self.config, owner, choice.local);
        let advertised = far.and_then(|far| metric_in(&far.endpoints, remote));
        let guess = || match choice.class {
            RouteClass::SameSubnet => near,
            _ => networks::remote_metric(self.config, owner, choice.local, remote),
        };
        near.saturating_add(advertised.unwrap_or_else(guess))
    }

    /// The transport of a route without an override: as the peer's entry says, else QUIC if the
    /// network of either end is configured so.
    fn default_transport(&self, peer: &PeerConfig, local: IpAddr, remote: IpAddr) -> Transport {
        let network = |addr| networks::network_transport(self.config, addr);
        let listed = || [local, remote].map(network).contains(&Some(Transport::Quic));
        match peer.transport {
            Some(transport) => transport,
            None if listed() => Transport::Quic,
            None => Transport::Udp,
        }
    }

    pub(crate) fn build_route(
        &self,
        peer: &PeerConfig,
        remote: SocketAddr,
        choice: LocalEnd,
        far: Option<&Advertisement>,
    ) -> PlannedRoute {
        let same_subnet = choice.class == RouteClass::SameSubnet;
        let mut attributes =
            if same_subnet { Attributes::SAME_SUBNET } else { Attributes::CROSS_SUBNET };
        let sites = (self.config.site.as_str(), far.map_or("", |far| far.site.as_str()));
        let apart = !sites.0.is_empty() && !sites.1.is_empty() && sites.0 != sites.1;
        let class = if apart { RouteClass::CrossSite } else { choice.class };
        if apart {
            attributes |= Attributes::CROSS_SITE;
        }
        let mut timing = self.config.heartbeat.timings.for_class(class);
        let mut rank = self.default_priority(&choice, remote.ip(), far);
        let mut transport = self.default_transport(peer, choice.local, remote.ip());
        let matching = matching_overrides(peer, remote)
            .filter(|entry| entry.local.is_none_or(|local| local == choice.local));
        for entry in matching {
            attributes |= Attributes::PINNED;
            timing = Timing {
                delay: entry.delay.unwrap_or(timing.delay),
                threshold: entry.threshold.unwrap_or(timing.threshold),
            };
            rank = entry.priority.map_or(rank, |Priority(rank)| rank);
            transport = entry.transport.unwrap_or(transport);
        }
        PlannedRoute {
            spec: RouteSpec {
                peer: peer.id,
                real_local: local_end(choice.local, self.config.session.port, remote),
                real_remote: remote,
                virtual_local: IpAddr::V6(self.config.adapter.addrs.v6),
                virtual_remote: IpAddr::V6(peer.addrs.v6),
                timing,
                priority: Priority(rank),
                attributes: Attributes(attributes),
                transport,
            },
            ifindex: choice.ifindex,
            ifname: choice.ifname,
        }
    }
}

fn metric_in(endpoints: &[AdvertisedEndpoint], addr: IpAddr) -> Option<u32> {
    endpoints.iter().find(|endpoint| endpoint.addr == addr).map(|endpoint| endpoint.metric)
}

/// The interface an IPv6 link-local address is meant on (0: none given); `None` for every other
/// address.
fn scope_of(addr: SocketAddr) -> Option<u32> {
    match addr {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => Some(v6.scope_id()),
        _ => None,
    }
}

fn local_end(local: IpAddr, port: u16, remote: SocketAddr) -> SocketAddr {
    match (local, scope_of(remote)) {
        (IpAddr::V6(v6), Some(scope)) => SocketAddrV6::new(v6, port, 0, scope).into(),
        _ => SocketAddr::new(local, port),
    }
}

const fn is_broadcast(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(v4) if v4.is_broadcast())
}
