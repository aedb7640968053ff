//! Draining: an operator's order, and the wait until both directions have left.

use netft_proto::{
    ids::RouteId,
    overrides::{MAX_OVERRIDES, TimeLimit},
    route::drain::DrainWait,
};

use crate::api::error::RouteError;

/// Which routes an operator drains, or uses again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// The routes.
    pub target: DrainTarget,
    /// Drain them; else use them again.
    pub on: bool,
    /// Even if a peer is left without another route; its data then stays where it is.
    pub force: bool,
    /// When the drain ends by itself, counted from [`Time::ZERO`](netft_proto::Time::ZERO).
    pub limit: Option<TimeLimit>,
}

/// The routes of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrainTarget {
    /// One route.
    Route(RouteId),
    /// Every route over an interface of this node.
    Interface(String),
}

/// Why an order is refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    /// The route, or the adapter, is not there.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// No route goes over the interface.
    #[error("no route goes over {0}: `netft routes` lists them")]
    NoInterface(String),
    /// Data to a peer would have nowhere to go.
    #[error(
        "{peer} would be left without another route that is up: see `netft routes`, or use --force"
    )]
    LastRoute {
        /// The peer's name.
        peer: String,
    },
    /// The overrides fill their table.
    #[error(
        "{MAX_OVERRIDES} routes and interfaces have overrides already: end some with `netft \
         undrain`"
    )]
    TooMany,
}

/// How an order went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// The routes it is about.
    pub routes: Vec<RouteId>,
    /// The directions that are still waited for; none once both directions have left every route. A
    /// forced order does not wait for data that has nowhere to go.
    pub waits: Vec<(RouteId, DrainWait)>,
}
