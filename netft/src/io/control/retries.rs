//! What failed here and is tried again after a while: sends the kernel refused, sockets that did
//! not open. Most of the time there is none, and nothing is looked through.

use std::time::Duration;

use netft_proto::{engine::EngineInput, ids::RouteId, route::Reason, time::Time};

use crate::io::{clock, control::driver::Driver};

/// A route that failed to send is tried again after this long.
const SEND_RETRY_INTERVAL: Duration = Duration::from_millis(200);

impl Driver {
    /// Something is to be tried again at `at`.
    pub(super) fn schedule_retry(&mut self, at: Time) {
        self.retry_at = Some(self.retry_at.map_or(at, |before| before.min(at)));
    }

    /// The kernel refused: the route is broken here until a retry shows otherwise.
    pub(super) fn on_send_failed(&mut self, route: RouteId) {
        self.carrier_poll.poll_immediately();
        let until = clock::now() + SEND_RETRY_INTERVAL;
        let Some(known) = self.routes.get_mut(&route) else { return };
        let first = known.send_error_until.replace(until).is_none();
        self.schedule_retry(until);
        if first {
            self.feed_engine(EngineInput::Fault { route, reason: Reason::SendError });
        }
    }

    /// Tries what is due.
    pub(super) fn poll_retries(&mut self, now: Time) {
        if self.retry_at.is_none_or(|at| at > now) {
            return;
        }
        self.retry_at = None;
        let mut due = Vec::new();
        for (id, known) in &mut self.routes {
            if known.send_error_until.take_if(|until| *until <= now).is_some() {
                due.push(*id);
            }
        }
        for route in due {
            self.feed_engine(EngineInput::FaultCleared { route, reason: Reason::SendError });
        }
        if self.routes.values().any(|known| known.socket_retry_at.is_some_and(|at| at <= now)) {
            self.sync_sockets();
        }
        let left =
            self.routes.values().flat_map(|known| [known.send_error_until, known.socket_retry_at]);
        self.retry_at = left.flatten().min();
    }
}
