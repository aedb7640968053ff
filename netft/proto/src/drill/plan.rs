//! The faults of a drill, and the orders that are refused.

use std::net::IpAddr;

use crate::{
    drill::order::{
        DrillFault, DrillOrder, DrillTarget, MAX_DRILL_LENGTH, MAX_INJECTED_DELAY, MIN_DRILL_LENGTH,
    },
    ids::{PeerId, RouteId},
    route::state::RouteState,
};

/// A route as a drill sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillRoute {
    /// Its number.
    pub id: RouteId,
    /// The peer it leads to.
    pub peer: PeerId,
    /// Its address on this node.
    pub local: IpAddr,
    /// The interface that has it.
    pub interface: String,
    /// It leads over a third node, by the routes to that one.
    pub is_relayed: bool,
    /// Its state.
    pub state: RouteState,
    /// Its data stays unacknowledged.
    pub is_suspect: bool,
}

impl DrillRoute {
    /// Returns whether it is up, by interfaces of this node.
    pub(super) fn is_up(&self) -> bool {
        self.state == RouteState::Up && !self.is_relayed
    }

    fn is_in(&self, target: &DrillTarget) -> bool {
        match target {
            DrillTarget::Route(id) => self.id == *id,
            DrillTarget::Network(prefix) => !self.is_relayed && prefix.contains(&self.local),
            DrillTarget::Interface(name) => !self.is_relayed && self.interface == *name,
        }
    }
}

/// Why a drill is refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrillRefusal {
    /// One runs already.
    #[error("a drill runs already: `netft drill --show` shows it")]
    Running,
    /// It would last too long, or too short.
    #[error(
        "a drill lasts {}–{} s", MIN_DRILL_LENGTH.as_secs(), MAX_DRILL_LENGTH.as_secs()
    )]
    Length,
    /// A share of loss out of range.
    #[error("loss is 1–100 %")]
    Loss,
    /// A delay out of range.
    #[error("a delay is 1–{} ms", MAX_INJECTED_DELAY.as_millis())]
    Delay,
    /// No route is meant.
    #[error("there is no {0} with a route: `netft routes` lists them")]
    NothingThere(DrillTarget),
    /// The route leads over a third node.
    #[error("route {0} leads over a relay: rehearse the failure of a route to the relay")]
    Relayed(RouteId),
    /// None of the routes is up.
    #[error("no route of {0} is up: a drill would show nothing")]
    NotUp(DrillTarget),
    /// A peer would be cut off.
    #[error("peer {0} would be cut off: it has no other route that is up")]
    CutsOff(PeerId),
}

/// The routes that the order makes fail, in the order given.
///
/// # Errors
/// See [`DrillRefusal`].
pub fn plan_drill(
    order: &DrillOrder,
    routes: &[DrillRoute],
    is_running: bool,
) -> Result<Vec<RouteId>, DrillRefusal> {
    if is_running {
        return Err(DrillRefusal::Running);
    }
    if !(MIN_DRILL_LENGTH..=MAX_DRILL_LENGTH).contains(&order.length) {
        return Err(DrillRefusal::Length);
    }
    match order.fault {
        DrillFault::Loss(percent) if !(1..=100).contains(&percent) => {
            return Err(DrillRefusal::Loss);
        }
        DrillFault::Delay(by) if by.as_millis() == 0 || by > MAX_INJECTED_DELAY => {
            return Err(DrillRefusal::Delay);
        }
        DrillFault::Blackhole
        | DrillFault::OneWay
        | DrillFault::Carrier
        | DrillFault::Loss(_)
        | DrillFault::Delay(_) => {}
    }
    let mut meant: Vec<_> = routes.iter().filter(|route| route.is_in(&order.target)).collect();
    if let Some(relayed) = meant.iter().find(|route| route.is_relayed) {
        return Err(DrillRefusal::Relayed(relayed.id));
    }
    if order.fault == DrillFault::Carrier {
        // An interface loses its carrier for all of its routes.
        let shares = |route: &DrillRoute| meant.iter().any(|it| it.interface == route.interface);
        meant = routes.iter().filter(|route| !route.is_relayed && shares(route)).collect();
    }
    if meant.is_empty() {
        return Err(DrillRefusal::NothingThere(order.target.clone()));
    }
    if !meant.iter().any(|route| route.is_up()) {
        return Err(DrillRefusal::NotUp(order.target.clone()));
    }
    let ids: Vec<_> = meant.iter().map(|route| route.id).collect();
    let is_other = |route: &DrillRoute| !ids.contains(&route.id) && !route.is_suspect;
    for peer in meant.iter().filter(|route| route.is_up()).map(|route| route.peer) {
        if !has_route_up(routes, peer, is_other) {
            return Err(DrillRefusal::CutsOff(peer));
        }
    }
    Ok(ids)
}

/// Returns whether a route to the peer that meets the condition is up.
pub(super) fn has_route_up(
    routes: &[DrillRoute],
    peer: PeerId,
    is_wanted: impl Fn(&DrillRoute) -> bool,
) -> bool {
    routes.iter().any(|route| route.peer == peer && route.is_up() && is_wanted(route))
}
