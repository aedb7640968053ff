//! Which routes a peer's policies may choose from, with which shares.

use std::{collections::HashMap, sync::Arc};

use super::state::Driver;
use crate::{
    adapter::PeerError,
    config::Peer,
    id::{PeerId, RouteId},
    io::{
        fib::Path,
        steering::{Lane, Steering},
    },
    route::{PeerChange, PeerForwarding},
    topology,
};

/// For the packet path; `None` when all of the peer's traffic fails over.
pub(super) fn steering(
    driver: &Driver,
    config: &Peer,
    row: Option<&PeerForwarding>,
    paths: &HashMap<RouteId, Arc<Path>>,
) -> Option<Box<Steering>> {
    if config.policies.is_plain() {
        return None;
    }
    let row = row?;
    let order: Vec<_> = row.active.iter().chain(&row.backups).copied().collect();
    let weights = weights(&order.iter().map(|id| capacity(driver, *id)).collect::<Vec<_>>());
    let lane = |(id, weight): (&RouteId, u32)| {
        let path = paths.get(id)?.clone();
        let (spread, suspect) = (row.spread.contains(id), row.suspects.contains(id));
        Some(Lane { path, weight, spread, suspect })
    };
    // Without the path of the active route, nothing is sent at all.
    paths.get(&row.active?)?;
    let lanes: Vec<_> = order.iter().zip(weights).filter_map(lane).collect();
    Some(Box::new(Steering::new(config.policies.clone(), &lanes)))
}

/// Capacities as weights. What only some of them have cannot be compared: all count the same then.
fn weights(capacities: &[Option<u32>]) -> Vec<u32> {
    let known: Option<Vec<u32>> = capacities.iter().copied().collect();
    known.unwrap_or_else(|| vec![1; capacities.len()])
}

/// What a route carries, Mbit/s: as configured for its network, else its interface's speed.
fn capacity(driver: &Driver, id: RouteId) -> Option<u32> {
    let plan = &driver.routes.get(&id)?.plan;
    let interface = driver.world.interface(plan.ifindex)?;
    topology::capacity(&driver.config, interface, plan.spec.real_local.ip())
}

impl Driver {
    /// Changes how data to a peer uses its routes, from the next packet on.
    pub(super) fn change_peer(&mut self, id: PeerId, change: PeerChange) -> Result<(), PeerError> {
        let peer = self.config.peers.get_mut(usize::from(id.0)).ok_or(PeerError::Unknown(id))?;
        peer.policies = peer.policies.changed(change)?;
        self.dirty = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_count_when_all_are_known() {
        assert_eq!(weights(&[Some(1000), Some(25)]), [1000, 25]);
        assert_eq!(weights(&[Some(1000), None, Some(3)]), [1, 1, 1]);
        assert_eq!(weights(&[]), [0u32; 0]);
    }
}
