//! The routes to one peer, by number. Each has its own memory: a node of a map has room for
//! eleven, and most peers have one to three.

use std::collections::BTreeMap;

use super::machine::Route;
use crate::id::RouteId;

/// A map that is nearly as small as what it holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes(BTreeMap<RouteId, Box<Route>>);

impl Routes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, id: &RouteId) -> Option<&Route> {
        self.0.get(id).map(|route| &**route)
    }

    pub(super) fn get_mut(&mut self, id: &RouteId) -> Option<&mut Route> {
        self.0.get_mut(id).map(|route| &mut **route)
    }

    pub(super) fn insert(&mut self, route: Route) {
        self.0.insert(route.id, Box::new(route));
    }

    pub(super) fn remove(&mut self, id: &RouteId) -> Option<Box<Route>> {
        self.0.remove(id)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &RouteId> {
        self.0.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Route> {
        self.0.values().map(|route| &**route)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Route> {
        self.0.values_mut().map(|route| &mut **route)
    }
}
