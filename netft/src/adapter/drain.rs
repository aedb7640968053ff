//! Draining routes: the order, and the wait until both directions have left them.

use std::time::Duration;

use netft_proto::{
    ids::RouteId,
    route::{
        RouteStatus,
        drain::{DrainWait, drain_wait},
    },
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    adapter::Adapter,
    api::{
        drain::{DrainError, DrainOrder, DrainReport},
        error::RouteError,
        events::EventStream,
    },
    io::messages::DriverRequest,
};

impl Adapter {
    /// Drains routes, or uses them again: make before break. All of them, or none when refused.
    ///
    /// Returns once both directions have left the routes, or after `wait` with what is missing;
    /// the drain stands then, and repeating it only waits again. It also holds for routes of
    /// the interface that come later; [`overrides`](Self::overrides) has it for the next run.
    ///
    /// # Errors
    /// [`DrainError`] gives the reason; nothing changed then.
    pub async fn drain_routes(
        &self,
        order: DrainOrder,
        wait: Duration,
    ) -> Result<DrainReport, DrainError> {
        // Before the order, so that no stage of it is missed.
        let mut events = EventStream::new(self.events.subscribe());
        let (on, force) = (order.on, order.force);
        let (answer, done) = oneshot::channel();
        self.send_request(DriverRequest::Drain(order, answer)).await.ok_or(RouteError::Closed)?;
        let routes = done.await.map_err(|_| RouteError::Closed)??;
        let deadline = Instant::now() + wait;
        loop {
            let snapshot = self.snapshot().await.ok_or(RouteError::Closed)?;
            let waits =
                if on { remaining_waits(&snapshot.routes, &routes, force) } else { Vec::new() };
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

fn remaining_waits(
    all: &[RouteStatus],
    wanted: &[RouteId],
    force: bool,
) -> Vec<(RouteId, DrainWait)> {
    let waits = wanted.iter().filter_map(|id| Some((*id, drain_wait(all, *id)?)));
    waits.filter(|(_, wait)| !(force && *wait == DrainWait::NowhereToGo)).collect()
}
