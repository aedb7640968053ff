//! Draining: an operator's order, and the wait until both directions have left.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Adapter, EventStream, RouteError};
use crate::{
    id::RouteId,
    io::driver::Request,
    route::{
        RouteStatus,
        drain::{DrainWait, waits_for},
    },
};

/// Which routes an operator drains, or uses again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// The routes.
    pub target: DrainTarget,
    /// Drain them; else use them again.
    pub on: bool,
    /// Even if a peer is left without another route; its data then stays where it is.
    pub force: bool,
}

/// What an order is about.
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
    Last {
        /// The peer's name.
        peer: String,
    },
}

/// How an order went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// The routes it is about.
    pub routes: Vec<RouteId>,
    /// What is still waited for; nothing once both directions have left every route. A forced
    /// order does not wait for data that has nowhere to go.
    pub waits: Vec<(RouteId, DrainWait)>,
}

impl Adapter {
    /// Drains routes, or uses them again: make before break. All of them, or none when refused.
    ///
    /// Returns once both directions have left the routes, or after `wait` with what is missing;
    /// the order stands then, and repeating it only waits again. It ends with the route: neither
    /// a restart nor a new interface keeps it.
    ///
    /// # Errors
    /// [`DrainError`] says why nothing changed.
    pub async fn drain(
        &self,
        order: DrainOrder,
        wait: Duration,
    ) -> Result<DrainReport, DrainError> {
        // Before the order, so that no stage of it is missed.
        let mut events = EventStream(self.events.subscribe());
        let (on, force) = (order.on, order.force);
        let (answer, done) = oneshot::channel();
        self.send(Request::Drain(order, answer)).await.ok_or(RouteError::Closed)?;
        let routes = done.await.map_err(|_| RouteError::Closed)??;
        let deadline = Instant::now() + wait;
        loop {
            let snapshot = self.snapshot().await.ok_or(RouteError::Closed)?;
            let waits = if on { left(&snapshot.routes, &routes, force) } else { Vec::new() };
            if waits.is_empty() {
                return Ok(DrainReport { routes, waits });
            }
            match timeout_at(deadline, events.next()).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Ok(DrainReport { routes, waits }),
            }
        }
    }
}

fn left(all: &[RouteStatus], wanted: &[RouteId], force: bool) -> Vec<(RouteId, DrainWait)> {
    let waits = wanted.iter().filter_map(|id| Some((*id, waits_for(all, *id)?)));
    waits.filter(|(_, wait)| !(force && *wait == DrainWait::NowhereToGo)).collect()
}
