//! An operator's order to drain routes: checked as a whole before any of it is carried out.

use netft_proto::{ids::RouteId, route::drain::would_strand_peer};

use crate::{
    api::{
        drain::{DrainError, DrainOrder, DrainTarget},
        error::RouteError,
    },
    io::control::{component::View, route_table::RouteTable},
};

/// The routes that the order drains, or uses again. `is_interface_drained`: its interface has a
/// drain already.
///
/// # Errors
/// [`DrainError`] when the order is refused as a whole.
pub(super) fn check_order(
    view: &View<'_>,
    order: &DrainOrder,
    is_interface_drained: bool,
) -> Result<Vec<RouteId>, DrainError> {
    let routes = match resolve_target(view.routes, &order.target) {
        // The drain of an interface can outlive its routes.
        Err(DrainError::NoInterface(_)) if !order.on && is_interface_drained => Vec::new(),
        routes => routes?,
    };
    if order.on
        && !order.force
        && let Some(peer) = would_strand_peer(&view.engine.route_statuses(), &routes)
    {
        let config = view.config.peer_of(peer);
        let peer = config.map_or_else(|| peer.to_string(), |peer| peer.name.clone());
        return Err(DrainError::LastRoute { peer });
    }
    Ok(routes)
}

fn resolve_target(routes: &RouteTable, target: &DrainTarget) -> Result<Vec<RouteId>, DrainError> {
    match target {
        DrainTarget::Route(id) if routes.contains(*id) => Ok(vec![*id]),
        DrainTarget::Route(id) => Err(RouteError::Unknown(*id).into()),
        DrainTarget::Interface(name) => {
            let over = routes.iter().filter(|(_, entry)| entry.plan.ifname == *name);
            let ids: Vec<_> = over.map(|(id, _)| id).collect();
            if ids.is_empty() { Err(DrainError::NoInterface(name.clone())) } else { Ok(ids) }
        }
    }
}

#[cfg(test)]
mod tests {
    use netft_proto::{ids::PeerId, time::Time};

    use super::*;
    use crate::io::control::test_node::TestNode;

    #[test]
    fn an_order_is_refused_when_it_names_nothing_or_strands_a_peer() {
        let mut node = TestNode::new(1);
        let route = node.add_route(PeerId(0));
        node.bring_up(Time::from_millis(1), PeerId(0), route);
        let order = |target, force| DrainOrder { target, on: true, force, limit: None };
        let eth0 = || DrainTarget::Interface("eth0".into());
        let check = |order: &DrainOrder| check_order(&node.view(), order, false);
        let name = node.config.peer_of(PeerId(0)).map(|peer| peer.name.clone()).unwrap_or_default();
        let refused = check(&order(eth0(), false));
        assert_eq!(refused, Err(DrainError::LastRoute { peer: name.clone() }));
        assert!(
            refused.is_err_and(|error| error.to_string().starts_with(&format!("{name} would")))
        );
        assert_eq!(check(&order(eth0(), true)), Ok(vec![route]));
        let unknown = DrainTarget::Interface("eth9".into());
        assert!(matches!(check(&order(unknown.clone(), true)), Err(DrainError::NoInterface(_))));
        let end = DrainOrder { on: false, ..order(unknown, false) };
        assert_eq!(check_order(&node.view(), &end, true), Ok(vec![]), "its routes are gone");
        assert!(check(&end).is_err());
        let unknown = DrainTarget::Route(RouteId(99));
        assert!(matches!(check(&order(unknown, true)), Err(DrainError::Route(_))));
    }
}
