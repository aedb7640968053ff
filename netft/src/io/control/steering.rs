//! Which routes a peer's policies may choose from, with which shares.

use std::{collections::HashMap, sync::Arc};

use netft_proto::{
    config::{Config, Peer},
    ids::{PeerId, RouteId},
    route::{PeerChange, PeerForwarding},
    topology,
};

use crate::{
    api::error::PeerError,
    io::{
        control::driver::Driver,
        fib::Path,
        steering::{Lane, Steering},
    },
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
        let peer = self.config.peer_of_mut(id).ok_or(PeerError::Unknown(id))?;
        let changed = peer.policies.changed(change)?;
        let before = std::mem::replace(&mut peer.policies, changed);
        if let Some(sessions) = self.peers.get_mut(&id) {
            sessions.planned.get_or_insert(before);
        }
        self.dirty = true;
        Ok(())
    }

    /// Takes policies changed by hand over to `config`, where it says what the config before did:
    /// what an operator made of a peer stays until the config says otherwise.
    pub(super) fn keep_policies(&mut self, config: &mut Config) {
        for old in &self.config.peers {
            let (Some(new), Some(sessions)) =
                (config.peer_of_mut(old.id), self.peers.get_mut(&old.id))
            else {
                continue;
            };
            match &sessions.planned {
                Some(planned) if *planned == new.policies => {
                    new.policies.clone_from(&old.policies);
                }
                _ => sessions.planned = None,
            }
        }
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
