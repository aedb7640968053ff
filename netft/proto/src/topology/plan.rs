//! Pairs the addresses of peers with addresses here. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use crate::{
    config::{Config, DEFAULT_METRIC, Peer, RouteOverride},
    ids::PeerId,
    route::{Attributes, Carrier, Class, Priority, RouteSpec, Timing},
    topology::{
        Interface, LocalAddr, Plan, Planned, Skipped, Why,
        advertisement::offer,
        faults, holds,
        names::Resolved,
        networks,
        networks::{is_container_bridge, is_virtual, listed, refused, usable},
        pairs::{Pair, pairs},
    },
    wire::interfaces::{Endpoint, Interfaces},
};

/// The kernel's answer for remote addresses on no subnet of ours: source address and interface.
pub type Sources = BTreeMap<IpAddr, (IpAddr, u32)>;
/// Pairs of a local and a remote address between which the kernel has a way out of the local
/// address's own interface.
pub type Ways = BTreeSet<(IpAddr, IpAddr)>;
/// What the peers told of their addresses.
pub type Offers = BTreeMap<PeerId, Interfaces>;

/// What routes are planned from, beside the config.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Every interface of this node.
    pub interfaces: &'a [Interface],
    /// The answers to [`unpaired`].
    pub sources: &'a Sources,
    /// The answers to [`crossings`].
    pub ways: &'a Ways,
    /// What the peers told.
    pub offers: &'a Offers,
    /// The addresses behind the peers' names.
    pub resolved: &'a Resolved,
}

/// The remote addresses that no interface shares a prefix with: [`plan`] wants the kernel's
/// source address for each.
pub fn unpaired(
    config: &Config,
    interfaces: &[Interface],
    resolved: &Resolved,
) -> BTreeSet<IpAddr> {
    let planner = Planner { config, interfaces, sources: &Sources::new(), known: &[], own: None };
    config
        .peers
        .iter()
        .flat_map(|peer| remotes(peer, resolved))
        .filter(|remote| planner.admissible(*remote).is_ok())
        .filter(|remote| planner.neighbours(*remote).next().is_none())
        .map(|remote| remote.ip())
        .collect()
}

/// The pairs of addresses a router would have to join, with the interface of the local one:
/// [`plan`] uses those of them the kernel has a way for. None when all shall be used anyway.
pub fn crossings(
    config: &Config,
    interfaces: &[Interface],
    offers: &Offers,
) -> Vec<(IpAddr, u32, IpAddr)> {
    let own = offer(config, interfaces);
    let wanted = offers.values().filter(|far| !(own.all_cross_subnet || far.all_cross_subnet));
    let mut found = Vec::new();
    for far in wanted {
        for pair in pairs(&own.endpoints, &far.endpoints, false) {
            let (local, remote) = (own.endpoints[pair.own].addr, far.endpoints[pair.far].addr);
            let owner = interfaces.iter().find(|interface| interface.owns(local));
            if let Some(owner) = owner.filter(|_| !pair.same_subnet) {
                found.push((local, owner.index, remote));
            }
        }
    }
    found
}

/// The routes that should exist.
///
/// Each configured address of a peer gets one route: from the address here on the same prefix,
/// else from the one the kernel would choose (`sources`). Overrides that name a local address
/// replace that choice, one route each. What the peer told of its addresses (`offers`) adds the
/// routes of [`pairs`].
///
/// `known` are the routes that run. A known route whose interface or address vanished stays, so
/// that it heals instead of being replaced by a detour over another interface: it goes only when
/// the config does not want it, or a better pair for the same remote address exists.
pub fn plan(config: &Config, around: &Surroundings<'_>, known: &[Planned]) -> Plan {
    let Surroundings { interfaces, sources, .. } = *around;
    let own = offer(config, interfaces);
    let planner = Planner { config, interfaces, sources, known, own: Some(&own) };
    let mut plan = Plan::default();
    let mut keys = BTreeSet::new();
    for peer in &config.peers {
        let id = peer.id;
        for remote in remotes(peer, around.resolved) {
            let pins: Vec<_> = overrides(peer, remote).filter_map(|entry| entry.local).collect();
            let choices = if pins.is_empty() {
                vec![planner.pair(id, remote)]
            } else {
                pins.iter().map(|local| planner.pin(id, *local, remote)).collect()
            };
            for choice in choices {
                match choice {
                    Ok(choice) => {
                        let far = around.offers.get(&id);
                        let route = planner.route(peer, remote, choice, far);
                        if keys.insert(route.key()) {
                            plan.routes.push(route);
                        }
                    }
                    Err(why) => plan.skipped.push(Skipped { peer: id, remote, why }),
                }
            }
        }
        let learnt = around.offers.get(&id).map(|far| planner.learnt(peer, far, around));
        let learnt = learnt.into_iter().flatten();
        plan.routes.extend(learnt.filter(|route| keys.insert(route.key())));
    }
    plan
}

/// The addresses of a peer, each once, in the order of the config; those behind names last.
fn remotes<'a>(
    peer: &'a Peer,
    resolved: &'a Resolved,
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

fn overrides(peer: &Peer, remote: SocketAddr) -> impl Iterator<Item = &RouteOverride> {
    peer.routes.iter().filter(move |entry| entry.remote == remote)
}

pub(crate) struct Planner<'a> {
    pub(crate) config: &'a Config,
    pub(crate) interfaces: &'a [Interface],
    pub(crate) sources: &'a Sources,
    pub(crate) known: &'a [Planned],
    /// What this node tells its peers.
    pub(crate) own: Option<&'a Interfaces>,
}

/// The local end of a route.
pub(crate) struct Choice {
    local: IpAddr,
    ifindex: u32,
    ifname: String,
    class: Class,
}

impl Choice {
    pub(crate) fn on(interface: &Interface, local: IpAddr, class: Class) -> Self {
        Self { local, ifindex: interface.index, ifname: interface.name.clone(), class }
    }

    pub(crate) fn keep(known: &Planned) -> Self {
        let same_subnet = known.spec.attributes.0 & Attributes::SAME_SUBNET != 0;
        Self {
            local: known.spec.real_local.ip(),
            ifindex: known.ifindex,
            ifname: known.ifname.clone(),
            class: if same_subnet { Class::SameSubnet } else { Class::CrossSubnet },
        }
    }
}

impl<'a> Planner<'a> {
    /// Whether any route may lead to `remote`.
    pub(crate) fn admissible(&self, remote: SocketAddr) -> Result<(), Why> {
        let addr = remote.ip();
        if addr.is_unspecified() || addr.is_multicast() || is_broadcast(addr) {
            Err(Why::NotUnicast)
        } else if is_virtual(self.config, addr) {
            Err(Why::Virtual)
        } else if refused(self.config, addr) {
            Err(Why::NetworkNotUsed)
        } else if addr.is_loopback() && !listed(self.config, addr) {
            Err(Why::Loopback)
        } else if scope_of(remote) == Some(0) {
            Err(Why::NoScope)
        } else if !addr.is_loopback() && self.is_own(addr) {
            Err(Why::Own)
        } else {
            Ok(())
        }
    }

    /// A packet to an own address never leaves the host.
    fn is_own(&self, addr: IpAddr) -> bool {
        self.interfaces.iter().flat_map(|interface| &interface.addrs).any(|own| own.addr == addr)
    }

    /// Two nodes may share a loopback address under two ports; the socket's own address is no
    /// remote end.
    fn is_self(&self, local: IpAddr, remote: SocketAddr) -> bool {
        local == remote.ip() && remote.port() == self.config.port
    }

    /// Whether routes to `remote` may start from `addr` on `interface`.
    pub(crate) fn eligible(&self, interface: &Interface, addr: IpAddr, remote: IpAddr) -> bool {
        interface.name != self.config.adapter
            && addr.is_ipv4() == remote.is_ipv4()
            && !is_virtual(self.config, addr)
            && !self.config.excludes(&interface.name, addr)
            && interface.loopback == remote.is_loopback()
            && addr.is_loopback() == remote.is_loopback()
            && usable(self.config, addr)
            && (!is_container_bridge(interface) || listed(self.config, addr))
    }

    /// The addresses here on a prefix that holds `remote`.
    fn neighbours(
        &self,
        remote: SocketAddr,
    ) -> impl Iterator<Item = (&'a Interface, &'a LocalAddr)> {
        let scope = scope_of(remote);
        self.interfaces
            .iter()
            .filter(move |interface| scope.is_none_or(|scope| scope == interface.index))
            .flat_map(|interface| interface.addrs.iter().map(move |local| (interface, local)))
            .filter(move |(interface, local)| {
                holds(local, remote.ip())
                    && !self.is_self(local.addr, remote)
                    && self.eligible(interface, local.addr, remote.ip())
            })
    }

    /// The local end by pairing.
    fn pair(&self, peer: PeerId, remote: SocketAddr) -> Result<Choice, Why> {
        self.admissible(remote)?;
        let known = self.known(peer, remote);
        let kept = known.map(|route| route.spec.real_local.ip());
        // What runs stays; then the order the kernel would take, then the lowest address.
        let neighbour = self.neighbours(remote).min_by_key(|(interface, local)| {
            (
                kept != Some(local.addr),
                local.secondary,
                u8::MAX - local.prefix.prefix_len(),
                local.addr,
                interface.index,
            )
        });
        if let Some((interface, local)) = neighbour {
            return Ok(Choice::on(interface, local.addr, Class::SameSubnet));
        }
        if let Some(route) = known
            && route.spec.attributes.0 & Attributes::SAME_SUBNET != 0
        {
            return Ok(Choice::keep(route));
        }
        match (self.routed(remote), known) {
            (Ok(choice), Some(route)) if choice.local != route.spec.real_local.ip() => {
                if self.may_heal(route) { Ok(Choice::keep(route)) } else { Ok(choice) }
            }
            (Err(_), Some(route)) => Ok(Choice::keep(route)),
            (routed, _) => routed,
        }
    }

    /// The local end the kernel would choose.
    fn routed(&self, remote: SocketAddr) -> Result<Choice, Why> {
        if scope_of(remote).is_some() {
            return Err(Why::NoWay);
        }
        let (source, ifindex) = *self.sources.get(&remote.ip()).ok_or(Why::NoWay)?;
        let interface = self
            .interfaces
            .iter()
            .find(|interface| interface.index == ifindex)
            .ok_or(Why::NoWay)?;
        if !usable(self.config, source) {
            Err(Why::NetworkNotUsed)
        } else if interface.owns(source) && self.eligible(interface, source, remote.ip()) {
            Ok(Choice::on(interface, source, Class::CrossSubnet))
        } else {
            Err(Why::Excluded)
        }
    }

    /// The local end that an override names. It need not exist at the moment.
    fn pin(&self, peer: PeerId, local: IpAddr, remote: SocketAddr) -> Result<Choice, Why> {
        self.admissible(remote)?;
        if is_virtual(self.config, local) {
            return Err(Why::Virtual);
        }
        if self.is_self(local, remote) {
            return Err(Why::Own);
        }
        if local.is_ipv4() != remote.ip().is_ipv4() {
            return Err(Why::Families);
        }
        if refused(self.config, local) {
            return Err(Why::NetworkNotUsed);
        }
        let scope = scope_of(remote);
        let owner = self
            .interfaces
            .iter()
            .filter(|interface| interface.name != self.config.adapter && interface.owns(local))
            .filter(|interface| scope.is_none_or(|scope| scope == interface.index))
            .min_by_key(|interface| (!interface.healthy(), interface.index));
        if let Some(interface) = owner {
            let near = interface
                .addrs
                .iter()
                .any(|own| (own.addr == local || interface.loopback) && holds(own, remote.ip()));
            let class = if near { Class::SameSubnet } else { Class::CrossSubnet };
            return Ok(Choice::on(interface, local, class));
        }
        let known = self.known.iter().find(|route| {
            route.spec.peer == peer
                && route.spec.real_remote == remote
                && route.spec.real_local.ip() == local
        });
        Ok(known.map_or_else(
            || Choice { local, ifindex: 0, ifname: String::new(), class: Class::CrossSubnet },
            Choice::keep,
        ))
    }

    /// The route that runs to `remote`, if the config still allows its local end.
    fn known(&self, peer: PeerId, remote: SocketAddr) -> Option<&'a Planned> {
        self.known.iter().find(|route| {
            route.spec.peer == peer
                && route.spec.real_remote == remote
                && usable(self.config, route.spec.real_local.ip())
                && route.ifname != self.config.adapter
                && route.ifindex != 0
        })
    }

    /// Whether a route between subnets is only broken, not superseded: its interface is gone or
    /// does not work, or lost its addresses. An interface that works under another address has
    /// been renumbered, and the route follows.
    fn may_heal(&self, route: &Planned) -> bool {
        if let Some(owner) = faults::owner(route, self.interfaces) {
            return !owner.healthy();
        }
        let remote = route.spec.real_remote.ip();
        faults::host(route, self.interfaces).is_none_or(|interface| {
            let renumbered =
                interface.addrs.iter().any(|own| self.eligible(interface, own.addr, remote));
            !interface.healthy() || !renumbered
        })
    }

    /// The routes that follow from what the peer told of its addresses.
    fn learnt(&self, peer: &Peer, far: &Interfaces, around: &Surroundings<'_>) -> Vec<Planned> {
        let Some(own) = self.own else { return Vec::new() };
        let all = own.all_cross_subnet || far.all_cross_subnet;
        let usable = |pair: &Pair| {
            let (here, there) = (own.endpoints[pair.own].addr, far.endpoints[pair.far].addr);
            pair.same_subnet || all || around.ways.contains(&(here, there)) || {
                // A way that runs is not given up while its interface is down.
                let runs = |route: &Planned| {
                    let spec = &route.spec;
                    (spec.peer, spec.real_local.ip(), spec.real_remote.ip())
                        == (peer.id, here, there)
                };
                self.known.iter().any(runs)
            }
        };
        let mut routes = Vec::new();
        for pair in pairs(&own.endpoints, &far.endpoints, all).into_iter().filter(usable) {
            let local = own.endpoints[pair.own].addr;
            let remote = SocketAddr::new(far.endpoints[pair.far].addr, far.port);
            // Whoever names the local address has chosen; so has whoever refuses the network.
            let pinned = overrides(peer, remote).any(|entry| entry.local.is_some());
            if pinned || self.admissible(remote).is_err() {
                continue;
            }
            let owner = self.interfaces.iter().find(|interface| interface.owns(local));
            let class = if pair.same_subnet { Class::SameSubnet } else { Class::CrossSubnet };
            if let Some(owner) = owner {
                let choice = Choice::on(owner, local, class);
                routes.push(self.route(peer, remote, choice, Some(far)));
            }
        }
        routes
    }

    /// The sum of the metrics of the two end networks, as NetFT's. The far one is the peer's to
    /// say; until it did, or for an address it does not know, it counts as the near one.
    fn priority(&self, choice: &Choice, remote: IpAddr, far: Option<&Interfaces>) -> u32 {
        let owner = self.interfaces.iter().find(|interface| interface.index == choice.ifindex);
        let Some(owner) = owner else { return DEFAULT_METRIC * 2 };
        let near = networks::metric(self.config, owner, choice.local);
        let told = far.and_then(|far| metric_in(&far.endpoints, remote));
        let guess = || match choice.class {
            Class::SameSubnet => near,
            _ => networks::far_metric(self.config, owner, choice.local, remote),
        };
        near.saturating_add(told.unwrap_or_else(guess))
    }

    /// How packets travel unless the route says so itself: as the peer's entry says, else QUIC if
    /// the network of either end says so.
    fn carrier(&self, peer: &Peer, local: IpAddr, remote: IpAddr) -> Carrier {
        let network = |addr| networks::carrier(self.config, addr);
        let listed = || [local, remote].map(network).contains(&Some(Carrier::Quic));
        match peer.carrier {
            Some(carrier) => carrier,
            None if listed() => Carrier::Quic,
            None => Carrier::Udp,
        }
    }

    pub(crate) fn route(
        &self,
        peer: &Peer,
        remote: SocketAddr,
        choice: Choice,
        far: Option<&Interfaces>,
    ) -> Planned {
        let same_subnet = choice.class == Class::SameSubnet;
        let mut attributes =
            if same_subnet { Attributes::SAME_SUBNET } else { Attributes::CROSS_SUBNET };
        let sites = (self.config.site.as_str(), far.map_or("", |far| far.site.as_str()));
        let apart = !sites.0.is_empty() && !sites.1.is_empty() && sites.0 != sites.1;
        let class = if apart { Class::CrossSite } else { choice.class };
        let mut timing = self.config.timings.of(class);
        let mut rank = self.priority(&choice, remote.ip(), far);
        let mut carrier = self.carrier(peer, choice.local, remote.ip());
        let matching = overrides(peer, remote)
            .filter(|entry| entry.local.is_none_or(|local| local == choice.local));
        for entry in matching {
            attributes |= Attributes::PINNED;
            timing = Timing {
                delay: entry.delay.unwrap_or(timing.delay),
                threshold: entry.threshold.unwrap_or(timing.threshold),
            };
            rank = entry.priority.map_or(rank, |Priority(rank)| rank);
            carrier = entry.carrier.unwrap_or(carrier);
        }
        Planned {
            spec: RouteSpec {
                peer: peer.id,
                real_local: local_end(choice.local, self.config.port, remote),
                real_remote: remote,
                virtual_local: IpAddr::V6(self.config.addrs.v6),
                virtual_remote: IpAddr::V6(peer.addrs.v6),
                timing,
                priority: Priority(rank),
                attributes: Attributes(attributes),
                carrier,
            },
            ifindex: choice.ifindex,
            ifname: choice.ifname,
        }
    }
}

fn metric_in(endpoints: &[Endpoint], addr: IpAddr) -> Option<u32> {
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
