//! Which routes a peer's policies may choose from, with which shares.

use std::{collections::HashMap, sync::Arc};

use netft_proto::{
    config::{Config, PeerConfig},
    ids::{PeerId, RouteId},
    route::{PeerChange, PeerForwarding},
    topology,
};

use crate::{
    api::error::PeerError,
    io::{
        control::driver::Driver,
        path::Path,
        steering::{TrafficSteering, WeightedPath},
    },
};

/// For the packet path; `None` when all of the peer's traffic fails over.
pub(super) fn build_steering(
    driver: &Driver,
    config: &PeerConfig,
    row: Option<&PeerForwarding>,
    paths: &HashMap<RouteId, Arc<Path>>,
) -> Option<Box<TrafficSteering>> {
    if config.policies.is_failover_only() {
        return None;
    }
    let row = row?;
    let order: Vec<_> = row.active.iter().chain(&row.backups).copied().collect();
    let weights =
        capacity_weights(&order.iter().map(|id| route_capacity(driver, *id)).collect::<Vec<_>>());
    let weighted_path = |(id, weight): (&RouteId, u32)| {
        let path = paths.get(id)?.clone();
        let (spread, suspect) = (row.balance_set.contains(id), row.suspects.contains(id));
        Some(WeightedPath { path, weight, in_balance_set: spread, suspect })
    };
    // Without the path of the active route, nothing is sent at all.
    paths.get(&row.active?)?;
    let weighted_paths: Vec<_> = order.iter().zip(weights).filter_map(weighted_path).collect();
    Some(Box::new(TrafficSteering::new(config.policies.clone(), &weighted_paths)))
}

/// Capacities as weights. What only some of them have cannot be compared: all count the same then.
fn capacity_weights(capacities: &[Option<u32>]) -> Vec<u32> {
    let known: Option<Vec<u32>> = capacities.iter().copied().collect();
    known.unwrap_or_else(|| vec![1; capacities.len()])
}

/// What a route carries, Mbit/s: as configured for its network, else its interface's speed.
fn route_capacity(driver: &Driver, id: RouteId) -> Option<u32> {
    let plan = &driver.routes.get(&id)?.plan;
    let interface = driver.host_state.interface(plan.ifindex)?;
    topology::network_capacity(&driver.config, interface, plan.spec.real_local.ip())
}

impl Driver {
    /// Changes how data to a peer uses its routes, from the next packet on.
    pub(super) fn change_peer(&mut self, id: PeerId, change: PeerChange) -> Result<(), PeerError> {
        let peer = self.config.peer_of_mut(id).ok_or(PeerError::Unknown(id))?;
        let changed = peer.policies.with_change(change)?;
        let before = std::mem::replace(&mut peer.policies, changed);
        if let Some(sessions) = self.peers.get_mut(&id) {
            sessions.configured_policies.get_or_insert(before);
        }
        self.dirty = true;
        Ok(())
    }

    /// Takes policies changed by hand over to `config`, where it says what the config before did:
    /// what an operator made of a peer stays until the config says otherwise.
    pub(super) fn carry_over_policies(&mut self, config: &mut Config) {
        for old in &self.config.peers {
            let (Some(new), Some(sessions)) =
                (config.peer_of_mut(old.id), self.peers.get_mut(&old.id))
            else {
                continue;
            };
            match &sessions.configured_policies {
                Some(planned) if *planned == new.policies => {
                    new.policies.clone_from(&old.policies);
                }
                _ => sessions.configured_policies = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_count_when_all_are_known() {
        assert_eq!(capacity_weights(&[Some(1000), Some(25)]), [1000, 25]);
        assert_eq!(capacity_weights(&[Some(1000), None, Some(3)]), [1, 1, 1]);
        assert_eq!(capacity_weights(&[]), [0u32; 0]);
    }
}
