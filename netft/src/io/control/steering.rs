//! The routes that a peer's policies choose from, and their weights.

use std::{collections::HashMap, sync::Arc};

use netft_proto::{config::PeerConfig, ids::RouteId, route::PeerForwarding, topology};

use crate::io::{
    control::component::View,
    path::Path,
    steering::{TrafficSteering, WeightedPath},
};

/// Builds the steering of a peer's traffic; `None` when all of it fails over.
pub(super) fn build_steering(
    view: &View<'_>,
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
        capacity_weights(&order.iter().map(|id| route_capacity(view, *id)).collect::<Vec<_>>());
    let weighted_path = |(id, weight): (&RouteId, u32)| {
        let path = paths.get(id)?.clone();
        let (in_balance_set, suspect) = (row.balance_set.contains(id), row.suspects.contains(id));
        Some(WeightedPath { path, weight, in_balance_set, suspect })
    };
    // Without the path of the active route, nothing is sent at all.
    paths.get(&row.active?)?;
    let weighted_paths: Vec<_> = order.iter().zip(weights).filter_map(weighted_path).collect();
    Some(Box::new(TrafficSteering::new(config.policies.clone(), &weighted_paths)))
}

/// Capacities as weights. If some are unknown they cannot be compared: all weigh the same then.
fn capacity_weights(capacities: &[Option<u32>]) -> Vec<u32> {
    let known: Option<Vec<u32>> = capacities.iter().copied().collect();
    known.unwrap_or_else(|| vec![1; capacities.len()])
}

/// Capacity of a route, Mbit/s: as configured for its network, else its interface's speed.
fn route_capacity(view: &View<'_>, id: RouteId) -> Option<u32> {
    let plan = &view.routes.get(id)?.plan;
    let interface = view.planner.host_state().interface(plan.ifindex)?;
    topology::network_capacity(view.config, interface, plan.spec.real_local.ip())
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
