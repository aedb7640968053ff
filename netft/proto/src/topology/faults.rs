//! Local faults of routes, by the state of their interfaces. Pure.

use crate::{
    route::state::Reason,
    topology::types::{Interface, PlannedRoute},
};

/// The local end of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalEndStatus {
    /// The interface that has the local address. It differs from the planned one when the address
    /// moved (the socket has to be reopened), and is 0 when no interface has it.
    pub ifindex: u32,
    /// The local fault of the route, if any.
    pub fault: Option<Reason>,
}

/// Returns the local end of each of `routes`, in their order. The fault is one of
/// [`Reason::InterfaceGone`], [`Reason::InterfaceDown`], [`Reason::CarrierLost`] and
/// [`Reason::AddressGone`].
pub fn detect_faults(routes: &[PlannedRoute], interfaces: &[Interface]) -> Vec<LocalEndStatus> {
    routes.iter().map(|route| local_end_status(route, interfaces)).collect()
}

fn local_end_status(route: &PlannedRoute, interfaces: &[Interface]) -> LocalEndStatus {
    if let Some(owner) = owning_interface(route, interfaces) {
        let fault = if !owner.up {
            Some(Reason::InterfaceDown)
        } else if !owner.carrier {
            Some(Reason::CarrierLost)
        } else {
            None
        };
        return LocalEndStatus { ifindex: owner.index, fault };
    }
    let fault = match planned_interface(route, interfaces) {
        // The kernel removes the IPv6 addresses of an interface that is set down.
        Some(interface) if !interface.up => Reason::InterfaceDown,
        Some(_) => Reason::AddressGone,
        None if route.ifindex == 0 => Reason::AddressGone,
        None => Reason::InterfaceGone,
    };
    LocalEndStatus { ifindex: 0, fault: Some(fault) }
}

/// The interface that has the local address: the planned one if possible, else a healthy one, else
/// any.
pub(crate) fn owning_interface<'a>(
    route: &PlannedRoute,
    interfaces: &'a [Interface],
) -> Option<&'a Interface> {
    let addr = route.spec.real_local.ip();
    interfaces.iter().filter(|interface| interface.owns_address(addr)).min_by_key(|interface| {
        (interface.index != route.ifindex, !interface.is_healthy(), interface.index)
    })
}

/// The interface the route was planned on: by index, else by name (it was recreated).
pub(crate) fn planned_interface<'a>(
    route: &PlannedRoute,
    interfaces: &'a [Interface],
) -> Option<&'a Interface> {
    interfaces
        .iter()
        .find(|interface| interface.index == route.ifindex)
        .or_else(|| interfaces.iter().find(|interface| interface.name == route.ifname))
}
