//! The difference between two sets of routes. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{ids::PeerId, topology::types::PlannedRoute};

/// The difference between two sets of routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteDiff {
    /// Only in the new set.
    pub added: Vec<PlannedRoute>,
    /// Only in the old set.
    pub removed: Vec<PlannedRoute>,
    /// In both, with the same ends but other fields: (old, new). Another interface means that the
    /// address moved: the socket has to be reopened.
    pub changed: Vec<(PlannedRoute, PlannedRoute)>,
}

impl RouteDiff {
    /// Returns whether both sets are equal.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Compares two sets of routes; routes are the same when peer, local and remote end are.
///
/// A route whose interface vanished is in both sets:
/// [`plan_routes()`](crate::topology::plan_routes()) keeps it, and
/// [`detect_faults`](crate::topology::detect_faults) says what is wrong with it.
pub fn diff_routes(old: &[PlannedRoute], new: &[PlannedRoute]) -> RouteDiff {
    let before = by_key(old);
    let after = by_key(new);
    let mut diff = RouteDiff::default();
    for (key, route) in &after {
        match before.get(key) {
            None => diff.added.push((*route).clone()),
            Some(was) if was != route => diff.changed.push(((*was).clone(), (*route).clone())),
            Some(_) => {}
        }
    }
    diff.removed = before
        .iter()
        .filter(|(key, _)| !after.contains_key(*key))
        .map(|(_, route)| (*route).clone())
        .collect();
    diff
}

fn by_key(routes: &[PlannedRoute]) -> BTreeMap<(PeerId, SocketAddr, SocketAddr), &PlannedRoute> {
    routes.iter().map(|route| (route.route_key(), route)).collect()
}
