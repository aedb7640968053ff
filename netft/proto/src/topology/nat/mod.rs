//! Routes to addresses that peers proved, and nobody listed: behind a NAT. Pure.

use std::net::SocketAddr;

use crate::{
    config::Config,
    ids::PeerId,
    route::{Attributes, Class},
    topology::{
        Planned, Surroundings,
        advertisement::offer,
        plan::{Choice, Planner},
    },
};

/// The route from `local` here to an address a peer proved to be at, which neither the config nor
/// the peer itself names; `None` when no route may lead there.
///
/// `known` is that route while it runs: it stays while its interface or address is gone, as every
/// route does.
pub fn adopted(
    config: &Config,
    around: &Surroundings<'_>,
    (peer, local, remote): (PeerId, SocketAddr, SocketAddr),
    known: Option<&Planned>,
) -> Option<Planned> {
    let entry = config.peer_of(peer)?;
    let Surroundings { interfaces, sources, offers, .. } = *around;
    let own = offer(config, interfaces);
    let planner = Planner { config, interfaces, sources, known: &[], own: Some(&own) };
    planner.admissible(remote).ok()?;
    let owner = interfaces.iter().find(|interface| {
        interface.owns(local.ip()) && planner.eligible(interface, local.ip(), remote.ip())
    });
    let choice = match (owner, known) {
        // A router is between, even where it is on this node's subnet.
        (Some(owner), _) => Choice::on(owner, local.ip(), Class::CrossSubnet),
        (None, Some(known)) => Choice::keep(known),
        (None, None) => return None,
    };
    let mut planned = planner.route(entry, remote, choice, offers.get(&peer));
    planned.spec.attributes.0 |= Attributes::ADOPTED;
    Some(planned)
}

/// Whether a peer may be behind a NAT: a heartbeat of its came from an address it does not have.
/// Before it told its addresses nothing is known; what comes from one of them is the business of
/// [`plan()`](crate::topology::plan()).
pub fn is_mapped(around: &Surroundings<'_>, peer: PeerId, from: SocketAddr) -> bool {
    let told = around.offers.get(&peer);
    told.is_some_and(|far| far.endpoints.iter().all(|endpoint| endpoint.addr != from.ip()))
}

#[cfg(test)]
mod tests;
