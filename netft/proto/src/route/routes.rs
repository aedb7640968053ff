//! The routes to one peer, by number. Each is boxed: a node of a `BTreeMap` has room for eleven,
//! and most peers have one to three.

use std::collections::BTreeMap;

use crate::{ids::RouteId, route::peer_route::Route};

/// A map that takes little more memory than its routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteMap(BTreeMap<RouteId, Box<Route>>);

impl RouteMap {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, id: &RouteId) -> Option<&Route> {
        self.0.get(id).map(|route| &**route)
    }

    pub(crate) fn get_mut(&mut self, id: &RouteId) -> Option<&mut Route> {
        self.0.get_mut(id).map(|route| &mut **route)
    }

    pub(crate) fn insert(&mut self, route: Route) {
        self.0.insert(route.id, Box::new(route));
    }

    pub(crate) fn remove(&mut self, id: &RouteId) -> Option<Box<Route>> {
        self.0.remove(id)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &RouteId> {
        self.0.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Route> {
        self.0.values().map(|route| &**route)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Route> {
        self.0.values_mut().map(|route| &mut **route)
    }
}
