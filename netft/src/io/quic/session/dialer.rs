//! Dials of one peer: the attempt under way, the pause before the next, and the restart when a new
//! candidate route appears.

use std::time::{Duration, Instant};

use netft_proto::ids::{PeerId, RouteId};
use quinn::{ClientConfig, Endpoint};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{Instrument, debug, debug_span};

use crate::io::{
    fib::SharedFib,
    quic::session::{
        handshake, handshake::DIAL_TIMEOUT, hello_exchange::PeerContext,
        session_id::random_fraction,
    },
};

/// Pause after a refusal that is likely to repeat.
const REDIAL_DELAY_AFTER_REFUSAL: Duration = Duration::from_secs(2);
/// Random part of the pause after a failed dial, at most.
const REDIAL_JITTER: Duration = Duration::from_millis(50);
/// Least age of an attempt before a new candidate route restarts it.
const MIN_DIAL_TIME: Duration = Duration::from_millis(200);
/// Interval of the check for a dialable route, besides the notification of the driver.
pub(in crate::io) const ROUTE_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Dial attempts to one peer, one at a time.
pub(in crate::io) struct Dialer {
    peer: PeerId,
    endpoint: Endpoint,
    client: ClientConfig,
    fib: SharedFib,
    attempt: Option<DialAttempt>,
    next_dial: Instant,
}

/// An attempt under way.
struct DialAttempt {
    task: AbortHandle,
    started_at: Instant,
    /// The routes it started on.
    routes: Vec<RouteId>,
}

/// Result of [`Dialer::poll`].
pub(in crate::io) enum DialPoll {
    /// An attempt is under way.
    InProgress,
    /// The next attempt may start at this time, or the routes are to be checked again.
    WaitUntil(Instant),
    /// An attempt may start on these routes.
    Ready(Vec<RouteId>),
}

impl Dialer {
    pub(in crate::io) fn new(
        peer: PeerId,
        endpoint: Endpoint,
        client: ClientConfig,
        fib: SharedFib,
    ) -> Self {
        Self { peer, endpoint, client, fib, attempt: None, next_dial: Instant::now() }
    }

    /// Dials with these settings from the next attempt on.
    pub(in crate::io) fn set_client(&mut self, client: ClientConfig) {
        self.client = client;
    }

    /// Returns whether an attempt may start at `now`.
    pub(in crate::io) fn poll(&self, now: Instant) -> DialPoll {
        if self.attempt.is_some() {
            return DialPoll::InProgress;
        }
        if self.next_dial > now {
            return DialPoll::WaitUntil(self.next_dial);
        }
        let routes = self.dialable_routes();
        if routes.is_empty() {
            return DialPoll::WaitUntil(now + ROUTE_POLL_INTERVAL);
        }
        DialPoll::Ready(routes)
    }

    /// Starts an attempt on `routes` as a child task.
    pub(in crate::io) fn start_attempt(
        &mut self,
        now: Instant,
        routes: Vec<RouteId>,
        context: PeerContext,
        generation: u32,
        tasks: &mut JoinSet<()>,
    ) {
        debug!(generation, ?routes, "dialling");
        self.next_dial = now + DIAL_TIMEOUT;
        let (endpoint, client) = (self.endpoint.clone(), self.client.clone());
        let dial = handshake::dial_peer(context, endpoint, client, generation);
        let task = tasks.spawn(dial.instrument(debug_span!("dial", generation)));
        self.attempt = Some(DialAttempt { task, started_at: now, routes });
    }

    /// Restarts an attempt that began before one of the present routes existed: only a
    /// retransmission would reach that route.
    pub(in crate::io) fn restart_on_new_routes(&mut self, now: Instant) {
        let Some(attempt) = &self.attempt else { return };
        let is_new = |route: &RouteId| !attempt.routes.contains(route);
        if self.dialable_routes().iter().any(is_new) && attempt.started_at + MIN_DIAL_TIME <= now {
            debug!("dial restarted: a new candidate route");
            attempt.task.abort();
            self.attempt = None;
            self.next_dial = now;
        }
    }

    /// Ends the attempt because the peer's dial led to a session first. Of two simultaneous dials
    /// one always stays: the peer has ended its own by being the dialer.
    pub(in crate::io) fn abort_attempt(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            debug!("dial ended: the peer's dial led to a session first");
            attempt.task.abort();
        }
    }

    /// Returns whether no attempt is under way.
    pub(in crate::io) const fn is_idle(&self) -> bool {
        self.attempt.is_none()
    }

    /// The attempt led to a session.
    pub(in crate::io) fn on_established(&mut self) {
        self.attempt = None;
    }

    /// The attempt failed: a pause before the next.
    pub(in crate::io) fn on_failed(&mut self, now: Instant, is_permanent: bool) {
        self.attempt = None;
        let pause =
            if is_permanent { now + REDIAL_DELAY_AFTER_REFUSAL } else { now.max(self.next_dial) };
        self.next_dial = pause + REDIAL_JITTER.mul_f64(random_fraction());
    }

    /// Clears an attempt whose task ended without a report, so that it cannot block the next.
    pub(in crate::io) fn clear_finished(&mut self) {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.task.is_finished()) {
            self.attempt = None;
        }
    }

    /// The routes a datagram to the peer would take.
    fn dialable_routes(&self) -> Vec<RouteId> {
        let fib = self.fib.load();
        let entry = fib.peers.iter().find(|entry| entry.peer == self.peer);
        entry.map_or_else(Vec::new, |entry| match &entry.active {
            Some(path) => vec![path.route],
            None => entry.candidates.iter().map(|path| path.route).collect(),
        })
    }
}
