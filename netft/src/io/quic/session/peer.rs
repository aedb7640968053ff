//! The task of one peer: dials, accepts, selects, retires and reports its sessions.
//!
//! It alone changes the peer's session state. Whatever waits for the network runs in child tasks,
//! which report through one bounded queue and end with this task. At most [`MAX_HANDSHAKES`]
//! handshakes of the peer and one dial of this node are under way.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use netft_proto::{
    route::SessionEndCause,
    wire::{
        interfaces::Advertisement,
        topic::{Topic, WARNING_KEY_COPIED},
    },
};
use quinn::{Connection, ConnectionError};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep_until, timeout},
};
use tracing::{Instrument, debug, debug_span};

use crate::{
    api::session::SessionProblem,
    io::handover::SessionRank,
    io::quic::{
        failure::{
            CLOSE_ABANDONED, CLOSE_GOING_AWAY, CLOSE_SUPERSEDED, HandshakeError, RefusalReason,
        },
        session::{
            control::{AdvertisementReceiver, ControlStream, LivenessCheck},
            dialer::{DialPoll, Dialer},
            event::{EstablishedSession, HandshakeRole, PeerTaskEvent, RequestReply},
            handshake,
            hello_exchange::PeerContext,
            newest_advertisement::NewestAdvertisement,
            peer_request,
            rekey::RekeySchedule,
            report_limiter::ReportLimiter,
            session_id::SessionId,
            session_set::{SessionChange, SessionEntry, SessionSet},
        },
        tls,
        tls::RequestSupport,
        types::{FromQuic, FromQuicHandler, QueryError},
    },
};

/// Events that wait for the task at most; senders wait, they are few and bounded themselves.
pub(in crate::io) const EVENT_QUEUE_LEN: usize = 64;
/// Handshakes of the peer under way at once.
const MAX_HANDSHAKES: usize = 4;
/// Of these, how many without a validated source address (RFC 9000 section 8.1).
const MAX_UNVALIDATED_HANDSHAKES: usize = 2;
/// Shortest and longest wait for the liveness reply of a process that another one would replace.
const LIVENESS_TIMEOUT_RANGE: (Duration, Duration) =
    (Duration::from_millis(250), Duration::from_secs(1));
/// Longest wait for the handshakes under way before the sessions go to a successor process.
const MAX_SAVE_DELAY: Duration = Duration::from_secs(1);
/// Longest sleep of a task that has nothing to do.
const MAX_IDLE_SLEEP: Duration = Duration::from_secs(900);
/// Interval of the reports of one kind of failure.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Interval of the debug lines about one kind of event that the network can cause at any rate.
const DEBUG_INTERVAL: Duration = Duration::from_secs(1);

/// A session in use.
struct LiveSession {
    /// Keeps the id from being allocated again.
    _session_id: SessionId,
    /// `None` for a session of a predecessor process: its keys outlive the connection.
    connection: Option<Connection>,
    liveness_checks: mpsc::Sender<LivenessCheck>,
}

/// Sessions with one peer, and the tasks that establish them.
pub(in crate::io) struct PeerTask {
    context: PeerContext,
    dialer: Dialer,
    rekey: RekeySchedule,
    fib_changed: watch::Receiver<()>,
    report: FromQuicHandler,
    advertisement: AdvertisementReceiver,
    newest_advertisement: NewestAdvertisement,
    mailbox: mpsc::Receiver<PeerTaskEvent>,
    sessions: SessionSet,
    live_sessions: BTreeMap<u32, LiveSession>,
    /// The highest generation announced by either end.
    generation: u32,
    /// One permit per handshake of the peer under way.
    handshakes: Arc<Semaphore>,
    limiter: ReportLimiter,
    tasks: JoinSet<()>,
    /// A successor process waits for the sessions, until this time at most.
    saving: Option<(oneshot::Sender<Vec<SessionRank>>, Instant)>,
}

/// Parameters of a peer's task.
pub(in crate::io) struct PeerTaskParams {
    pub(in crate::io) context: PeerContext,
    pub(in crate::io) dialer: Dialer,
    pub(in crate::io) fib_changed: watch::Receiver<()>,
    pub(in crate::io) report: FromQuicHandler,
    pub(in crate::io) advertisement: AdvertisementReceiver,
    pub(in crate::io) mailbox: mpsc::Receiver<PeerTaskEvent>,
    /// The sessions of a predecessor process, the one in use first.
    pub(in crate::io) resumed: Vec<SessionRank>,
}

impl PeerTask {
    pub(in crate::io) fn new(params: PeerTaskParams) -> Self {
        let PeerTaskParams {
            context,
            dialer,
            fib_changed,
            report,
            advertisement,
            mailbox,
            resumed,
        } = params;
        let mut task = Self {
            dialer,
            rekey: RekeySchedule::new(context.has_smaller_key()),
            generation: context.generations.load(Relaxed),
            context,
            fib_changed,
            report,
            advertisement,
            newest_advertisement: NewestAdvertisement::default(),
            mailbox,
            sessions: SessionSet::default(),
            live_sessions: BTreeMap::new(),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            limiter: ReportLimiter::default(),
            tasks: JoinSet::new(),
            saving: None,
        };
        task.resume_sessions(&resumed);
        task
    }

    /// Goes on with the sessions of a predecessor process, and agrees on a fresh one at once: their
    /// QUIC connections ended with that process.
    fn resume_sessions(&mut self, resumed: &[SessionRank]) {
        let now = Instant::now();
        for rank in resumed {
            let SessionRank { local_id, boot_id, generation, dialled_by_smaller_key } = *rank;
            let entry =
                SessionEntry::new(local_id, boot_id, generation, dialled_by_smaller_key, now);
            self.sessions.resume_session(entry, now);
            let (liveness_checks, _) = mpsc::channel(1);
            let live = LiveSession {
                _session_id: self.context.session_ids.reserve_id(local_id),
                connection: None,
                liveness_checks,
            };
            self.live_sessions.insert(local_id, live);
            self.generation = self.generation.max(generation);
            debug!(session = local_id, generation, "session taken over");
        }
        if !resumed.is_empty() {
            self.rekey.request_rekey();
        }
    }

    /// The sessions for a successor process, the one in use first.
    fn session_ranks(&self) -> Vec<SessionRank> {
        let preferred = self.sessions.preferred().map(|entry| entry.local_session);
        let mut entries: Vec<_> = self.sessions.entries().iter().collect();
        entries.sort_by_key(|entry| Some(entry.local_session) != preferred);
        let rank = |entry: &SessionEntry| SessionRank {
            local_id: entry.local_session,
            boot_id: entry.boot_id,
            generation: entry.generation,
            dialled_by_smaller_key: entry.dialled_by_smaller_key,
        };
        entries.into_iter().map(rank).collect()
    }

    /// Hands the sessions over if a successor waits for them and no handshake is under way: the
    /// peer might use a session that this process would not know.
    fn is_saved(&mut self, now: Instant) -> bool {
        let is_idle = self.handshakes.available_permits() == MAX_HANDSHAKES
            && self.dialer.is_idle()
            && self.mailbox.is_empty();
        match self.saving.take() {
            Some((reply, deadline)) if is_idle || deadline <= now => {
                // The manager may have given up.
                let _ = reply.send(self.session_ranks());
                true
            }
            saving => {
                self.saving = saving;
                false
            }
        }
    }

    /// Runs until the manager drops it.
    pub(in crate::io) async fn run(mut self) {
        loop {
            let now = Instant::now();
            let due = self.sessions.poll_changes(now);
            self.apply_changes(due, now);
            if self.is_saved(now) {
                // The connections stay as they are: their end would end the sessions at the peer.
                return std::future::pending().await;
            }
            let wake = self.dial_if_due(now);
            tokio::select! {
                // Events first, then timers.
                biased;
                event = self.mailbox.recv() => match event {
                    Some(PeerTaskEvent::Forget) => return self.close_connections(),
                    Some(event) => self.handle_event(event),
                    None => return,
                },
                changed = self.fib_changed.changed() => match changed {
                    Ok(()) => self.dialer.restart_on_new_routes(Instant::now()),
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
            PeerTaskEvent::Established(established) => self.install_session(*established),
            PeerTaskEvent::Failed { dialled, failure } => {
                self.on_handshake_failed(dialled, &failure)
            }
            PeerTaskEvent::Usable(session) => {
                debug!(session, "ready received: the peer receives on the session");
                self.sessions.mark_usable(session, Instant::now());
                self.sessions.mark_confirmed(session);
            }
            PeerTaskEvent::Confirmed(session) => {
                debug!(session, "confirmation received: both ends send and receive");
                self.sessions.mark_confirmed(session);
            }
            PeerTaskEvent::Lost { local_session, error } => {
                self.on_connection_lost(local_session, &error)
            }
            PeerTaskEvent::Renew => {
                debug!("fresh session requested");
                self.rekey.request_rekey();
            }
            PeerTaskEvent::Interfaces { local_session, list } => {
                self.on_interfaces(local_session, *list)
            }
            PeerTaskEvent::Request { topic, payload, reply } => {
                self.send_request(topic, payload, reply)
            }
            PeerTaskEvent::Config(config, client) => {
                let interval = config.session.rekey_interval;
                let has_changed = self.context.config.session.rekey_interval != interval;
                if self.context.config.public_key != config.public_key {
                    debug!("this node's key was replaced: fresh session requested");
                    self.rekey.request_rekey();
                }
                self.context.config = config;
                self.dialer.set_client(*client);
                self.rekey.set_smaller_key(self.context.has_smaller_key());
                if has_changed {
                    self.rekey.on_interval_changed(Instant::now(), interval);
                }
            }
            PeerTaskEvent::Save(reply) => {
                self.saving = Some((reply, Instant::now() + MAX_SAVE_DELAY));
            }
            PeerTaskEvent::Forget => {}
        }
    }

    /// Closes every connection; this node's state of the peer goes with the task.
    fn close_connections(&self) {
        debug!("peer removed from the configuration: sessions closed");
        for connection in self.live_sessions.values().filter_map(|it| it.connection.as_ref()) {
            connection.close(CLOSE_GOING_AWAY, b"this node's config has no such peer");
        }
    }

    /// Starts a dial if one is due; returns when to check again.
    fn dial_if_due(&mut self, now: Instant) -> Instant {
        let mut wake = self.sessions.next_wake(now).unwrap_or(now + MAX_IDLE_SLEEP);
        if let Some(rekey_at) = self.rekey.poll(now) {
            wake = wake.min(rekey_at);
        }
        if self.mailbox.is_empty() {
            self.dialer.clear_finished();
        }
        if let Some((_, deadline)) = &self.saving {
            return wake.min(*deadline);
        }
        if !self.rekey.is_requested() && !self.sessions.wants_session(now) {
            return wake;
        }
        match self.dialer.poll(now) {
            DialPoll::InProgress => wake,
            DialPoll::WaitUntil(at) => wake.min(at),
            DialPoll::Ready(routes) => {
                self.generation = self.generation.saturating_add(1);
                self.context.generations.fetch_max(self.generation, Relaxed);
                let context = self.context.clone();
                self.dialer.start_attempt(now, routes, context, self.generation, &mut self.tasks);
                wake
            }
        }
    }

    fn accept_handshake(&mut self, incoming: quinn::Incoming) {
        if self.saving.is_some() {
            // The peer repeats it, to the successor.
            return incoming.ignore();
        }
        let under_way = MAX_HANDSHAKES - self.handshakes.available_permits();
        if under_way >= MAX_UNVALIDATED_HANDSHAKES
            && incoming.may_retry()
            && !incoming.remote_address_validated()
        {
            // A Retry validates the source address first, so that forged ones take no permit.
            if let Err(error) = incoming.retry()
                && self.limiter.try_report("incoming", "retry", DEBUG_INTERVAL, Instant::now())
            {
                debug!(%error, "cannot send a Retry");
            }
            return;
        }
        let Ok(permit) = self.handshakes.clone().try_acquire_owned() else {
            if self.limiter.try_report("incoming", "refused", DEBUG_INTERVAL, Instant::now()) {
                debug!(under_way, "handshake refused: too many under way");
            }
            incoming.refuse();
            return;
        };
        let accept = handshake::accept_handshake(self.context.clone(), incoming, permit);
        self.tasks.spawn(accept.instrument(debug_span!("accept")));
    }

    /// Decides whether a process with `boot_id` may have a session. If another process with the
    /// same key has one, that process gets a liveness request. A restarted node answers for its
    /// former process with a stateless reset, or not at all; only a cloned node leaves the other
    /// one alive (F-28).
    fn check_boot_id(&mut self, boot_id: u64, reply: oneshot::Sender<Result<(), RefusalReason>>) {
        let others = self.sessions.entries().iter().rev().filter(|e| e.boot_id != boot_id);
        let other = others
            .filter_map(|entry| self.live_sessions.get(&entry.local_session))
            .filter_map(|live| Some((live, live.connection.as_ref()?)))
            .find(|(_, connection)| connection.close_reason().is_none());
        let (check, alive) = oneshot::channel();
        let asked = other.filter(|(live, _)| live.liveness_checks.try_send(check).is_ok());
        let Some((_, other)) = asked else {
            // The handshake may have timed out meanwhile.
            let _ = reply.send(Ok(()));
            return;
        };
        let liveness_timeout =
            (3 * other.rtt()).clamp(LIVENESS_TIMEOUT_RANGE.0, LIVENESS_TIMEOUT_RANGE.1);
        let boot = format!("{boot_id:016x}");
        debug!(boot_id = boot, ?liveness_timeout, "liveness request to the former process");
        let former = other.clone();
        let check = async move {
            let is_alive = tokio::select! {
                answer = timeout(liveness_timeout, alive) => matches!(answer, Ok(Ok(()))),
                _ = former.closed() => false,
            };
            debug!(boot_id = boot, is_alive, "liveness check of the former process");
            // The handshake may have timed out meanwhile.
            let _ = reply.send(if is_alive { Err(RefusalReason::Duplicate) } else { Ok(()) });
        };
        self.tasks.spawn(check.in_current_span());
    }

    fn install_session(&mut self, established: EstablishedSession) {
        let now = Instant::now();
        let EstablishedSession { connection, send, recv, session_id, session, .. } = established;
        let local_session = session_id.get();
        let (boot_id, generation) = (established.boot_id, established.generation);
        let dialer = established.role == HandshakeRole::Dialer;
        if dialer {
            self.dialer.on_established();
        } else if generation >= self.generation {
            self.dialer.abort_attempt();
        }
        self.generation = self.generation.max(generation);
        self.context.generations.fetch_max(generation, Relaxed);
        self.rekey.on_established(now);
        let dialled_by_smaller_key = dialer == self.context.has_smaller_key();
        let entry =
            SessionEntry::new(local_session, boot_id, generation, dialled_by_smaller_key, now);
        let changes = self.sessions.add_session(entry);
        if !dialer {
            // The dialer has installed the session before it sent ready.
            self.sessions.mark_usable(local_session, now);
        }
        let mut due = self.sessions.poll_changes(now);
        let preferred = due.contains(&SessionChange::Prefer(local_session));
        due.retain(|change| *change != SessionChange::Prefer(local_session));
        let boot = format!("{boot_id:016x}");
        debug!(session = local_session, generation, boot_id = boot, dialer, "session established");
        (self.report)(FromQuic::SessionUp {
            peer: self.context.peer,
            session,
            boot_id,
            peer_name: established.peer_name,
            peer_version: established.peer_version,
            adapter_up: established.adapter_up,
            preferred,
        });
        if preferred {
            self.rekey.on_preferred(now, self.context.config.session.rekey_interval);
        }
        let (liveness_tx, liveness_rx) = mpsc::channel(1);
        self.live_sessions.insert(
            local_session,
            LiveSession {
                _session_id: session_id,
                connection: Some(connection.clone()),
                liveness_checks: liveness_tx,
            },
        );
        self.apply_changes(changes, now);
        self.apply_changes(due, now);
        if tls::request_support(&connection) != RequestSupport::None {
            let (peer, queues) = (self.context.peer, self.context.request_queues.clone());
            let serve = peer_request::serve_requests(connection.clone(), peer, queues);
            self.tasks.spawn(serve.in_current_span());
        }
        let control = ControlStream {
            connection,
            send,
            recv,
            local_session,
            role: established.role,
            generation,
            liveness_checks: liveness_rx,
            advertisement: self.advertisement.clone(),
            events: self.context.events.clone(),
        };
        let span = debug_span!("session", id = local_session);
        self.tasks.spawn(control.serve().instrument(span));
    }

    /// Sends a request on the preferred session, or on the newest one while that has no connection.
    fn send_request(&mut self, topic: Topic, payload: Vec<u8>, reply: RequestReply) {
        let newest = self.sessions.entries().iter().rev();
        let connection = self
            .sessions
            .preferred()
            .into_iter()
            .chain(newest)
            .filter_map(|entry| self.live_sessions.get(&entry.local_session))
            .find_map(|live| live.connection.clone());
        let permits = self.context.request_permits.clone();
        let exchange = async move {
            let result = match connection {
                Some(connection) => {
                    peer_request::send_request(&connection, topic, &payload, &permits).await
                }
                None => Err(QueryError::NoSession),
            };
            if let Err(error) = &result {
                debug!(?topic, %error, "request failed");
            }
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        };
        self.tasks.spawn(exchange.in_current_span());
    }

    /// Reports the peer's advertisement, unless a newer one arrived on another session.
    fn on_interfaces(&mut self, local_session: u32, list: Advertisement) {
        let mut entries = self.sessions.entries().iter();
        let Some(entry) = entries.find(|entry| entry.local_session == local_session) else {
            return;
        };
        if self.newest_advertisement.accept(entry.boot_id, list.serial) {
            debug!(session = local_session, serial = list.serial, "interface list received");
            (self.report)(FromQuic::Interfaces { peer: self.context.peer, list });
        }
    }

    fn apply_changes(&mut self, changes: Vec<SessionChange>, now: Instant) {
        for change in changes {
            match change {
                SessionChange::Prefer(local_session) => {
                    debug!(session = local_session, "data moves to the session");
                    self.rekey.on_preferred(now, self.context.config.session.rekey_interval);
                    let peer = self.context.peer;
                    (self.report)(FromQuic::SessionPreferred { peer, local_session });
                }
                SessionChange::End(local_session) => {
                    self.end_session(local_session, SessionEndCause::Replaced);
                }
            }
        }
    }

    fn end_session(&mut self, local_session: u32, cause: SessionEndCause) {
        let Some(live) = self.live_sessions.remove(&local_session) else { return };
        if let Some(connection) = &live.connection {
            connection.close(CLOSE_SUPERSEDED, b"a newer session has taken over");
        }
        debug!(session = local_session, %cause, "session ended");
        (self.report)(FromQuic::SessionDown { peer: self.context.peer, local_session, cause });
    }

    fn on_connection_lost(&mut self, local_session: u32, error: &ConnectionError) {
        if !self.live_sessions.contains_key(&local_session) {
            return;
        }
        debug!(session = local_session, %error, "QUIC connection lost");
        match error {
            ConnectionError::ApplicationClosed(close) => {
                self.sessions.remove_session(local_session);
                match close.error_code {
                    CLOSE_GOING_AWAY => {
                        self.end_session(local_session, SessionEndCause::PeerStopped);
                    }
                    CLOSE_SUPERSEDED | CLOSE_ABANDONED => {
                        self.end_session(local_session, SessionEndCause::PeerReplaced);
                    }
                    _ => {
                        self.end_session(local_session, SessionEndCause::PeerRefused);
                        let failure = HandshakeError::from_close(close);
                        self.report_problem(&failure);
                        self.report_failure(&failure);
                    }
                }
            }
            // A protocol violation of the peer, or this node is stopping.
            ConnectionError::LocallyClosed => {
                self.sessions.remove_session(local_session);
                self.end_session(local_session, SessionEndCause::Violation);
            }
            // The keys are still valid, but the peer has lost the connection that would announce
            // their end: a fresh session is due.
            ConnectionError::Reset => self.rekey.request_rekey(),
            // The keys outlive the connection.
            _ => {}
        }
    }

    fn on_handshake_failed(&mut self, dialled: bool, failure: &HandshakeError) {
        let (now, is_permanent) = (Instant::now(), failure.is_permanent());
        if dialled {
            self.dialer.on_failed(now, is_permanent);
        }
        let scope = if dialled { "dial" } else { "accept" };
        if self.limiter.try_report(scope, failure.kind_name(), DEBUG_INTERVAL, now) {
            debug!(dialled, kind = failure.kind_name(), reason = %failure, "handshake failed");
        }
        // Anybody can begin a handshake and not finish it.
        if dialled || is_permanent {
            self.report_problem(failure);
        }
        if is_permanent {
            self.report_failure(failure);
        }
    }

    /// Reports why there is no session, for those who ask.
    fn report_problem(&mut self, failure: &HandshakeError) {
        if self.limiter.try_report("problem", failure.kind_name(), DEBUG_INTERVAL, Instant::now()) {
            let problem = SessionProblem::new(failure.session_cause(), failure.to_string());
            (self.report)(FromQuic::HandshakeFailed { peer: self.context.peer, problem });
        }
    }

    /// Reports a failure to the operator, at most once a minute per kind.
    fn report_failure(&mut self, failure: &HandshakeError) {
        let (kind, now) = (failure.kind_name(), Instant::now());
        if !self.limiter.try_report("refused", kind, REPORT_INTERVAL, now) {
            return;
        }
        debug!(reason = %failure, "no session");
        let peer = self.context.peer;
        if *failure == HandshakeError::Refused(RefusalReason::Duplicate) {
            // The original would learn it from nobody else.
            let (reply, _) = oneshot::channel();
            self.send_request(Topic::Warning, vec![WARNING_KEY_COPIED], reply);
        }
        (self.report)(match failure {
            HandshakeError::Refused(RefusalReason::Duplicate) => FromQuic::DuplicateNode { peer },
            _ => FromQuic::Refused { peer, reason: failure.to_string() },
        });
    }
}
