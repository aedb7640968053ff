//! The task that keeps a session with one peer: dials, accepts, chooses, retires, reports.
//!
//! It alone changes the peer's state; everything that waits runs in child tasks that report back
//! through one bounded queue and end with it. At most [`MAX_HANDSHAKES`] handshakes the peer began
//! and one this node began are under way.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use netft_proto::{ids::RouteId, wire::interfaces::Advertisement};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::{sleep_until, timeout},
};
use tracing::{debug, info, warn};

use crate::io::{
    fib::SharedFib,
    quic::{
        failure::{
            CLOSE_ABANDONED, CLOSE_GOING_AWAY, CLOSE_SUPERSEDED, HandshakeError, RefusalReason,
            sanitize_reason,
        },
        session::{
            control::{AdvertisementReceiver, ControlStream, LivenessCheck},
            event::{EstablishedSession, HandshakeRole, PeerTaskEvent},
            handshake,
            handshake::DIAL_TIMEOUT,
            hello_exchange::PeerContext,
            peer_query,
            session_id::{SessionId, random_u32},
            session_set::{SessionChange, SessionEntry, SessionSet},
        },
        tls,
        types::{FromQuic, FromQuicHandler, QueryError},
    },
};

/// The most events that wait for the task; senders wait, they are few and bounded themselves.
pub(in crate::io) const EVENT_QUEUE_LEN: usize = 64;
/// The pause after a refusal that will most likely come again.
const REDIAL_DELAY_AFTER_REFUSAL: Duration = Duration::from_secs(2);
/// How long an attempt gets before a new candidate route starts it anew.
const MIN_DIAL_TIME: Duration = Duration::from_millis(200);
/// How often to look for a route when nobody says that one appeared.
const ROUTE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The most handshakes of the peer under way.
const MAX_HANDSHAKES: usize = 4;
/// Of these, how many without proof that the source address is not forged (RFC 9000 section 8.1).
const MAX_UNVALIDATED_HANDSHAKES: usize = 2;
/// The shortest and longest wait for a sign of life of a process another one wants to replace.
const LIVENESS_TIMEOUT_RANGE: (Duration, Duration) =
    (Duration::from_millis(250), Duration::from_secs(1));
/// When a rekey has led to nothing usable, the next.
const REKEY_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// At most one message of a kind in this time.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// A session in use.
struct LiveSession {
    /// Held so that no other session gets it.
    _session_id: SessionId,
    connection: Connection,
    liveness_checks: mpsc::Sender<LivenessCheck>,
}

/// An attempt to dial under way.
struct DialAttempt {
    task: AbortHandle,
    started_at: Instant,
    /// The routes it started on.
    routes: Vec<RouteId>,
}

/// Everything known of one peer.
pub(in crate::io) struct PeerTask {
    terms: PeerContext,
    name: String,
    endpoint: Endpoint,
    client: ClientConfig,
    fib: SharedFib,
    fib_changed: watch::Receiver<()>,
    report: FromQuicHandler,
    advertisement: AdvertisementReceiver,
    /// The boot id and serial of the interface list the peer told last.
    last_advertised: Option<(u64, u32)>,
    mailbox: mpsc::Receiver<PeerTaskEvent>,
    /// This node holds the smaller key: it rekeys, and its dials win.
    has_smaller_key: bool,
    sessions: SessionSet,
    live_sessions: BTreeMap<u32, LiveSession>,
    /// The highest generation announced by either side.
    generation: u32,
    dial: Option<DialAttempt>,
    next_dial: Instant,
    rekey_at: Option<Instant>,
    is_renewal_wanted: bool,
    handshakes: Arc<Semaphore>,
    /// When a message of a kind was last given.
    last_reported: BTreeMap<&'static str, Instant>,
    tasks: JoinSet<()>,
}

/// What a peer's task needs from the manager.
pub(in crate::io) struct PeerTaskParams {
    pub(in crate::io) terms: PeerContext,
    pub(in crate::io) name: String,
    pub(in crate::io) endpoint: Endpoint,
    pub(in crate::io) client: ClientConfig,
    pub(in crate::io) fib: SharedFib,
    pub(in crate::io) fib_changed: watch::Receiver<()>,
    pub(in crate::io) report: FromQuicHandler,
    pub(in crate::io) advertisement: AdvertisementReceiver,
    pub(in crate::io) mailbox: mpsc::Receiver<PeerTaskEvent>,
}

impl PeerTask {
    pub(in crate::io) fn new(parts: PeerTaskParams) -> Self {
        let PeerTaskParams {
            terms,
            name,
            endpoint,
            client,
            fib,
            fib_changed,
            report,
            advertisement,
            mailbox,
        } = parts;
        let generation = terms.generations.load(Relaxed);
        Self {
            has_smaller_key: terms.config.public_key < terms.peer_key,
            terms,
            name,
            endpoint,
            client,
            fib,
            fib_changed,
            report,
            advertisement,
            last_advertised: None,
            mailbox,
            sessions: SessionSet::default(),
            live_sessions: BTreeMap::new(),
            generation,
            dial: None,
            next_dial: Instant::now(),
            rekey_at: None,
            is_renewal_wanted: false,
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            last_reported: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs until the manager drops it.
    pub(in crate::io) async fn run(mut self) {
        loop {
            let now = Instant::now();
            let due = self.sessions.poll_changes(now);
            self.apply_changes(due, now);
            let wake = self.dial_if_due(now);
            tokio::select! {
                // What happened comes before what is due.
                biased;
                event = self.mailbox.recv() => match event {
                    Some(PeerTaskEvent::Forget) => return self.close_connections(),
                    Some(event) => self.handle_event(event),
                    None => return,
                },
                changed = self.fib_changed.changed() => match changed {
                    Ok(()) => self.redial_on_new_routes(),
                    Err(_) => return,
                },
                Some(_) = self.tasks.join_next() => {}
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    fn handle_event(&mut self, event: PeerTaskEvent) {
        match event {
            PeerTaskEvent::Incoming(incoming) => self.accept_handshake(*incoming),
            PeerTaskEvent::CheckBootId { boot_id, reply } => self.check_boot_id(boot_id, reply),
            PeerTaskEvent::Established(agreed) => self.install_session(*agreed),
            PeerTaskEvent::Failed { dialled, failure } => {
                self.on_handshake_failed(dialled, &failure)
            }
            PeerTaskEvent::Usable(local) => {
                self.sessions.mark_usable(local, Instant::now());
                self.sessions.mark_confirmed(local);
            }
            PeerTaskEvent::Confirmed(local) => self.sessions.mark_confirmed(local),
            PeerTaskEvent::Lost { local_session: local, error } => {
                self.on_connection_lost(local, &error)
            }
            PeerTaskEvent::Renew => self.is_renewal_wanted = true,
            PeerTaskEvent::Interfaces { local_session: local, list } => {
                self.on_interfaces(local, *list)
            }
            PeerTaskEvent::Query { query: question, reply: answer } => {
                self.send_query(question, answer)
            }
            PeerTaskEvent::Config(config) => {
                let other =
                    self.terms.config.session.rekey_interval != config.session.rekey_interval;
                self.terms.config = config;
                if other && self.rekey_at.is_some() {
                    self.schedule_rekey(Instant::now());
                }
            }
            PeerTaskEvent::Forget => {}
        }
    }

    /// Tells the peer; what this node knew of it goes with the task.
    fn close_connections(&self) {
        for live in self.live_sessions.values() {
            live.connection.close(CLOSE_GOING_AWAY, b"this node's config has no such peer");
        }
    }

    /// Starts a dial if one is due; returns when to look again.
    fn dial_if_due(&mut self, now: Instant) -> Instant {
        let idle_wake = now + 3600 * ROUTE_POLL_INTERVAL;
        let mut wake = self.sessions.next_wake(now).unwrap_or(idle_wake);
        if let Some(at) = self.rekey_at {
            if at <= now {
                self.rekey_at = Some(now + REKEY_RETRY_INTERVAL);
                self.is_renewal_wanted = true;
            }
            wake = wake.min(at.max(now));
        }
        // The child's report clears this; a child that ended without one must not block for ever.
        if self.dial.as_ref().is_some_and(|dial| dial.task.is_finished()) && self.mailbox.is_empty()
        {
            self.dial = None;
        }
        let wanted = self.is_renewal_wanted || self.sessions.wants_session(now);
        if !wanted || self.dial.is_some() {
            return wake;
        }
        if self.next_dial > now {
            return wake.min(self.next_dial);
        }
        let routes = self.dialable_routes();
        if routes.is_empty() {
            return wake.min(now + ROUTE_POLL_INTERVAL);
        }
        self.start_dial(now, routes);
        wake
    }

    /// The routes a datagram to the peer would take.
    fn dialable_routes(&self) -> Vec<RouteId> {
        let fib = self.fib.load();
        let entry = fib.peers.iter().find(|entry| entry.peer == self.terms.peer);
        entry.map_or_else(Vec::new, |entry| match &entry.active {
            Some(path) => vec![path.route],
            None => entry.candidates.iter().map(|path| path.route).collect(),
        })
    }

    fn start_dial(&mut self, began: Instant, routes: Vec<RouteId>) {
        self.generation = self.generation.saturating_add(1);
        self.terms.generations.fetch_max(self.generation, Relaxed);
        self.next_dial = began + DIAL_TIMEOUT;
        let (endpoint, client) = (self.endpoint.clone(), self.client.clone());
        let dial = handshake::dial_peer(self.terms.clone(), endpoint, client, self.generation);
        let task = self.tasks.spawn(dial);
        self.dial = Some(DialAttempt { task, started_at: began, routes });
    }

    /// An attempt that began before a route was there would only reach it with a retransmission.
    fn redial_on_new_routes(&mut self) {
        let now = Instant::now();
        let Some(dial) = &self.dial else { return };
        let new = self.dialable_routes().iter().any(|route| !dial.routes.contains(route));
        if new && dial.started_at + MIN_DIAL_TIME <= now {
            dial.task.abort();
            self.dial = None;
            self.next_dial = now;
        }
    }

    /// The peer's dial led to a session first, and this node's would only be a second one beside
    /// it. Of two dials one always stays: the peer has ended its own by being the dialer.
    fn abort_dial(&mut self) {
        if let Some(dial) = self.dial.take() {
            dial.task.abort();
        }
    }

    fn accept_handshake(&mut self, incoming: quinn::Incoming) {
        let busy = MAX_HANDSHAKES - self.handshakes.available_permits();
        if busy >= MAX_UNVALIDATED_HANDSHAKES
            && incoming.may_retry()
            && !incoming.remote_address_validated()
        {
            // A forger of source addresses gets no further, and takes no place.
            if let Err(error) = incoming.retry() {
                debug!(peer = %self.name, %error, "no retry sent");
            }
            return;
        }
        let Ok(place) = self.handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            return;
        };
        self.tasks.spawn(handshake::accept_handshake(self.terms.clone(), incoming, place));
    }

    /// Decides whether a process with `boot_id` may join. When another process of the same key has
    /// a session, it is asked for a sign of life: a restarted node answers for its former process
    /// with a reset, or nobody answers; only a clone leaves the former one alive (F-28).
    fn check_boot_id(&mut self, boot_id: u64, reply: oneshot::Sender<Result<(), RefusalReason>>) {
        let rivals = self.sessions.entries().iter().rev().filter(|e| e.boot_id != boot_id);
        let rival = rivals
            .filter_map(|entry| self.live_sessions.get(&entry.local_session))
            .find(|live| live.connection.close_reason().is_none());
        let (asked, answer) = oneshot::channel();
        let Some(rival) = rival.filter(|rival| rival.liveness_checks.try_send(asked).is_ok())
        else {
            // Whoever asked may have given up.
            let _ = reply.send(Ok(()));
            return;
        };
        let liveness_timeout =
            (3 * rival.connection.rtt()).clamp(LIVENESS_TIMEOUT_RANGE.0, LIVENESS_TIMEOUT_RANGE.1);
        let former = rival.connection.clone();
        self.tasks.spawn(async move {
            let alive = tokio::select! {
                answer = timeout(liveness_timeout, answer) => matches!(answer, Ok(Ok(()))),
                _ = former.closed() => false,
            };
            // Whoever asked may have given up.
            let _ = reply.send(if alive { Err(RefusalReason::Duplicate) } else { Ok(()) });
        });
    }

    fn install_session(&mut self, agreed: EstablishedSession) {
        let now = Instant::now();
        let EstablishedSession { connection, send, recv, session_id: number, session, .. } = agreed;
        let (local, boot_id, generation) = (number.get(), agreed.boot_id, agreed.generation);
        let dialer = agreed.role == HandshakeRole::Dialer;
        if dialer {
            self.dial = None;
        } else if generation >= self.generation {
            self.abort_dial();
        }
        self.is_renewal_wanted = false;
        self.generation = self.generation.max(generation);
        self.terms.generations.fetch_max(generation, Relaxed);
        self.rekey_at.get_or_insert(now + REKEY_RETRY_INTERVAL);
        let entry =
            SessionEntry::new(local, boot_id, generation, dialer == self.has_smaller_key, now);
        let changes = self.sessions.add_session(entry);
        if !dialer {
            // The dialer has put the session into its tables before it said so.
            self.sessions.mark_usable(local, now);
        }
        let mut due = self.sessions.poll_changes(now);
        let preferred = due.contains(&SessionChange::Prefer(local));
        due.retain(|change| *change != SessionChange::Prefer(local));
        info!(peer = %self.name, session = local, generation, dialer, "session established");
        (self.report)(FromQuic::SessionUp {
            peer: self.terms.peer,
            session,
            boot_id,
            dialer,
            peer_name: agreed.peer_name,
            adapter_up: agreed.adapter_up,
            preferred,
        });
        if preferred {
            self.schedule_rekey(now);
        }
        let (liveness_tx, liveness_rx) = mpsc::channel(1);
        self.live_sessions.insert(
            local,
            LiveSession {
                _session_id: number,
                connection: connection.clone(),
                liveness_checks: liveness_tx,
            },
        );
        self.apply_changes(changes, now);
        self.apply_changes(due, now);
        if tls::supports_queries(&connection) {
            let (peer, query_tx) = (self.terms.peer, self.terms.query_tx.clone());
            self.tasks.spawn(peer_query::serve_queries(connection.clone(), peer, query_tx));
        }
        let control = ControlStream {
            connection,
            send,
            recv,
            local_session: local,
            role: agreed.role,
            generation,
            liveness_checks: liveness_rx,
            advertisement: self.advertisement.clone(),
            events: self.terms.events.clone(),
        };
        self.tasks.spawn(control.serve());
    }

    /// Asks on the session data goes on.
    fn send_query(
        &mut self,
        question: Vec<u8>,
        answer: oneshot::Sender<Result<Vec<u8>, QueryError>>,
    ) {
        let preferred = self
            .sessions
            .preferred()
            .and_then(|entry| self.live_sessions.get(&entry.local_session));
        let connection = preferred.map(|live| live.connection.clone());
        self.tasks.spawn(async move {
            let asked = match connection {
                Some(connection) => peer_query::send_query(&connection, &question).await,
                None => Err(QueryError::NoSession),
            };
            // Whoever asked may have stopped waiting.
            let _ = answer.send(asked);
        });
    }

    /// Passes on what the peer tells of its interfaces, unless a newer list came before it on
    /// another session.
    fn on_interfaces(&mut self, local: u32, list: Advertisement) {
        let entry = self.sessions.entries().iter().find(|entry| entry.local_session == local);
        let Some(boot_id) = entry.map(|entry| entry.boot_id) else { return };
        let age = |serial: u32| list.serial.wrapping_sub(serial);
        if self
            .last_advertised
            .is_some_and(|(boot, serial)| boot == boot_id && age(serial) > u32::MAX / 2)
        {
            return;
        }
        self.last_advertised = Some((boot_id, list.serial));
        (self.report)(FromQuic::Interfaces { peer: self.terms.peer, list });
    }

    fn apply_changes(&mut self, changes: Vec<SessionChange>, now: Instant) {
        for change in changes {
            match change {
                SessionChange::Prefer(local) => {
                    self.schedule_rekey(now);
                    (self.report)(FromQuic::SessionPreferred {
                        peer: self.terms.peer,
                        local_session: local,
                    });
                }
                SessionChange::End(local) => self.end_session(local, "superseded"),
            }
        }
    }

    fn end_session(&mut self, local: u32, why: &str) {
        let Some(live) = self.live_sessions.remove(&local) else { return };
        live.connection.close(CLOSE_SUPERSEDED, b"a newer session has taken over");
        info!(peer = %self.name, session = local, why, "session ended");
        (self.report)(FromQuic::SessionDown { peer: self.terms.peer, local_session: local });
    }

    /// The node with the smaller key rekeys; the other one only when that did not happen.
    fn schedule_rekey(&mut self, now: Instant) {
        let jitter =
            self.terms.config.session.rekey_interval.mul_f64(0.9 + 0.2 * random_fraction());
        self.rekey_at = Some(now + if self.has_smaller_key { jitter } else { jitter.mul_f64(1.5) });
    }

    fn on_connection_lost(&mut self, local: u32, error: &ConnectionError) {
        if !self.live_sessions.contains_key(&local) {
            return;
        }
        match error {
            ConnectionError::ApplicationClosed(close) => {
                self.sessions.remove_session(local);
                match close.error_code {
                    CLOSE_GOING_AWAY => self.end_session(local, "the peer is going away"),
                    CLOSE_SUPERSEDED | CLOSE_ABANDONED => {
                        self.end_session(local, "superseded by the peer")
                    }
                    _ => {
                        self.end_session(local, "refused by the peer");
                        let reason = sanitize_reason(&close.reason);
                        self.report_failure(&HandshakeError::RefusedByPeer(reason));
                    }
                }
            }
            // The peer broke the rules, or this node is stopping.
            ConnectionError::LocallyClosed => {
                self.sessions.remove_session(local);
                self.end_session(local, "closed here");
            }
            // The keys still fit. The peer has forgotten this connection, so it cannot say when
            // they end: agree on new ones.
            ConnectionError::Reset => self.is_renewal_wanted = true,
            _ => debug!(peer = %self.name, session = local, %error, "control stream lost"),
        }
    }

    fn on_handshake_failed(&mut self, dialled: bool, failure: &HandshakeError) {
        let now = Instant::now();
        if dialled {
            self.dial = None;
            let pause = if failure.is_permanent() {
                now + REDIAL_DELAY_AFTER_REFUSAL
            } else {
                now.max(self.next_dial)
            };
            self.next_dial = pause + Duration::from_millis(50).mul_f64(random_fraction());
        }
        if failure.is_permanent() {
            self.report_failure(failure);
        } else {
            debug!(peer = %self.name, %failure, "no session yet");
        }
    }

    /// Says what is wrong, at most once a minute per kind.
    fn report_failure(&mut self, failure: &HandshakeError) {
        let now = Instant::now();
        if self.last_reported.get(failure.kind_name()).is_some_and(|at| now < *at + REPORT_INTERVAL)
        {
            return;
        }
        self.last_reported.insert(failure.kind_name(), now);
        warn!(peer = %self.name, reason = %failure, "no session");
        let peer = self.terms.peer;
        (self.report)(match failure {
            HandshakeError::Refused(RefusalReason::Duplicate) => FromQuic::DuplicateNode { peer },
            _ => FromQuic::Refused { peer, reason: failure.to_string() },
        });
    }
}

/// A random number of [0, 1); one half when the kernel has no random bytes, as only spreading
/// depends on it.
fn random_fraction() -> f64 {
    random_u32().map_or(0.5, |n| f64::from(n) / (f64::from(u32::MAX) + 1.0))
}
