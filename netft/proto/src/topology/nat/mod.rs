//! Routes to addresses that were learned by path validation, as behind a NAT. Pure.

use std::net::SocketAddr;

use crate::{
    config::Config,
    ids::PeerId,
    route::{Attributes, RouteClass},
    topology::{
        plan::{LocalEnd, RoutePlanner},
        types::{PlanInputs, PlannedRoute},
    },
};

/// The route from `local` to an address that path validation proved, which neither the config nor
/// the peer's interface list names; `None` when no route may lead there.
///
/// `running` is that route while it exists: it stays while its interface or address is gone, as
/// every route does.
pub fn plan_learned_route(
    config: &Config,
    inputs: &PlanInputs<'_>,
    (peer, local, remote): (PeerId, SocketAddr, SocketAddr),
    running: Option<&PlannedRoute>,
) -> Option<PlannedRoute> {
    let entry = config.peer_of(peer)?;
    let PlanInputs { interfaces, advertisements: offers, .. } = *inputs;
    let planner = RoutePlanner::without_routes(config, inputs);
    planner.check_remote(remote).ok()?;
    let owner = interfaces.iter().find(|interface| {
        interface.owns_address(local.ip())
            && planner.is_eligible_source(interface, local.ip(), remote.ip())
    });
    let choice = match (owner, running) {
        // A NAT is a router, even one on this node's subnet.
        (Some(owner), _) => LocalEnd::on_interface(owner, local.ip(), RouteClass::CrossSubnet),
        (None, Some(known)) => LocalEnd::from_planned(known),
        (None, None) => return None,
    };
    let mut planned = planner.build_route(entry, remote, choice, offers.get(&peer));
    planned.spec.attributes.0 |= Attributes::LEARNED;
    Some(planned)
}

/// The route that a peer tries and this node did not plan: from `local` to an address that the peer
/// advertised, which path validation proved; `None` when no route may lead there.
///
/// The peer's kernel has a way where this node's may have none, and the peer's cards are known to
/// it first.
pub fn plan_adopted_route(
    config: &Config,
    inputs: &PlanInputs<'_>,
    (peer, local, remote): (PeerId, SocketAddr, SocketAddr),
) -> Option<PlannedRoute> {
    let entry = config.peer_of(peer)?;
    let PlanInputs { interfaces, .. } = *inputs;
    let far = inputs.advertisements.get(&peer)?;
    let listed = far.endpoints.iter().find(|endpoint| endpoint.addr == remote.ip())?;
    let planner = RoutePlanner::without_routes(config, inputs);
    planner.check_remote(remote).ok()?;
    let has_override = entry.routes.iter().any(|it| it.remote == remote && it.local.is_some());
    let owner = interfaces.iter().find(|interface| {
        interface.owns_address(local.ip())
            && planner.is_eligible_source(interface, local.ip(), remote.ip())
    })?;
    let near = owner.addrs.iter().find(|own| own.addr == local.ip())?;
    let class = match near.prefix == listed.subnet_prefix() {
        true => RouteClass::SameSubnet,
        false => RouteClass::CrossSubnet,
    };
    if has_override || remote.port() != far.port || local.port() != config.session.port {
        return None;
    }
    let choice = LocalEnd::on_interface(owner, local.ip(), class);
    Some(planner.build_route(entry, remote, choice, Some(far)))
}

/// Returns whether a peer may be behind a NAT: its heartbeat came from an address it does not
/// advertise. Before its interface list arrives nothing is known; the addresses on that list are
/// left to [`plan_routes()`](crate::topology::plan_routes()).
pub fn is_behind_nat(inputs: &PlanInputs<'_>, peer: PeerId, from: SocketAddr) -> bool {
    let advertised = inputs.advertisements.get(&peer);
    advertised.is_some_and(|far| far.endpoints.iter().all(|endpoint| endpoint.addr != from.ip()))
}

#[cfg(test)]
mod tests;
