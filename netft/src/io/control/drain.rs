//! An operator's order to drain routes: checked as a whole, then given to the engine.

use netft_proto::{
    engine::EngineInput,
    ids::RouteId,
    route::{RouteChange, drain::would_strand_peer},
};

use crate::{
    api::{
        drain::{DrainError, DrainOrder, DrainTarget},
        error::RouteError,
    },
    io::control::driver::Driver,
};

impl Driver {
    /// Drains every route the order names, or uses them again; none when it is refused.
    pub(super) fn drain_routes(&mut self, order: &DrainOrder) -> Result<Vec<RouteId>, DrainError> {
        let wanted = self.resolve_drain_target(&order.target)?;
        if order.on
            && !order.force
            && let Some(peer) = would_strand_peer(&self.engine.route_statuses(), &wanted)
        {
            let config = self.config.peers.get(usize::from(peer.0));
            let peer = config.map_or_else(|| peer.to_string(), |peer| peer.name.clone());
            return Err(DrainError::LastRoute { peer });
        }
        let change = RouteChange { drain: Some(order.on), ..RouteChange::default() };
        for id in &wanted {
            self.feed_engine(EngineInput::ChangeRoute { id: *id, change });
        }
        Ok(wanted)
    }

    fn resolve_drain_target(&self, target: &DrainTarget) -> Result<Vec<RouteId>, DrainError> {
        match target {
            DrainTarget::Route(id) if self.routes.contains_key(id) => Ok(vec![*id]),
            DrainTarget::Route(id) => Err(RouteError::Unknown(*id).into()),
            DrainTarget::Interface(name) => {
                let over = self.routes.iter().filter(|(_, known)| known.plan.ifname == *name);
                let ids: Vec<_> = over.map(|(id, _)| *id).collect();
                if ids.is_empty() {
                    return Err(DrainError::NoInterface(name.clone()));
                }
                Ok(ids)
            }
        }
    }
}
