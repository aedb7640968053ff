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

use netft_proto::{config::Config, ids::RouteId, wire::interfaces::Interfaces};
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
        FromQuic, Report,
        failure::{ABANDONED, Failure, GOING_AWAY, Refusal, SUPERSEDED, printable},
        session::{
            control::{Control, Offer, Probe},
            handshake,
            handshake::ATTEMPT,
            hello_exchange::{Agreed, Side, Terms},
            peer_query,
            peer_query::AskError,
            session_id::{Number, random_u32},
            session_set::{Change, Entry, Standing},
        },
        tls,
    },
};

/// The most events that wait for the task; senders wait, they are few and bounded themselves.
pub(in crate::io) const EVENTS: usize = 64;
/// The pause after a refusal that will most likely come again.
const REFUSED: Duration = Duration::from_secs(2);
/// How long an attempt gets before a new candidate route starts it anew.
const FRESH: Duration = Duration::from_millis(200);
/// How often to look for a route when nobody says that one appeared.
const LOOK: Duration = Duration::from_millis(250);
/// The most handshakes of the peer under way.
const MAX_HANDSHAKES: usize = 4;
/// Of these, how many without proof that the source address is not forged (RFC 9000 section 8.1).
const UNPROVEN: usize = 2;
/// The shortest and longest wait for a sign of life of a process another one wants to replace.
const PROBE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
/// When a rekey has led to nothing usable, the next.
const REKEY_AGAIN: Duration = Duration::from_secs(10);
/// At most one message of a kind in this time.
const QUIET: Duration = Duration::from_secs(60);

/// What happens to a peer.
pub(in crate::io) enum Event {
    /// The peer dials.
    Incoming(Box<quinn::Incoming>),
    /// May a process with this boot id join?
    Judge { boot_id: u64, reply: oneshot::Sender<Result<(), Refusal>> },
    /// Both ends have accepted each other.
    Agreed(Box<Agreed>),
    /// An attempt came to nothing.
    Failed { dialled: bool, failure: Failure },
    /// The peer receives on this session.
    Usable(u32),
    /// The peer knows that this node receives on this session.
    Settled(u32),
    /// The QUIC connection of this session has ended.
    Lost { local: u32, error: ConnectionError },
    /// A fresh session is wanted.
    Renew,
    /// The peer told of its interfaces on this session.
    Interfaces { local: u32, list: Box<Interfaces> },
    /// The peer is to be asked something.
    Ask { question: Vec<u8>, answer: oneshot::Sender<Result<Vec<u8>, AskError>> },
    /// The config changed, but not what it says of this peer.
    Config(Arc<Config>),
    /// The config does not know the peer any more.
    Forget,
}

/// A session in use.
struct Live {
    /// Held so that no other session gets it.
    _number: Number,
    connection: Connection,
    probes: mpsc::Sender<Probe>,
}

/// An attempt to dial under way.
struct Dial {
    task: AbortHandle,
    began: Instant,
    /// The routes it started on.
    routes: Vec<RouteId>,
}

/// Everything known of one peer.
pub(in crate::io) struct Peer {
    terms: Terms,
    name: String,
    endpoint: Endpoint,
    client: ClientConfig,
    fib: SharedFib,
    fib_changed: watch::Receiver<()>,
    report: Report,
    offer: Offer,
    /// The boot id and serial of the interface list the peer told last.
    told: Option<(u64, u32)>,
    inbox: mpsc::Receiver<Event>,
    /// This node holds the smaller key: it rekeys, and its dials win.
    smaller: bool,
    standing: Standing,
    live: BTreeMap<u32, Live>,
    /// The highest generation announced by either side.
    generation: u32,
    dial: Option<Dial>,
    next_dial: Instant,
    rekey_at: Option<Instant>,
    renew: bool,
    handshakes: Arc<Semaphore>,
    /// When a message of a kind was last given.
    said: BTreeMap<&'static str, Instant>,
    tasks: JoinSet<()>,
}

/// What a peer's task needs from the manager.
pub(in crate::io) struct Parts {
    pub(in crate::io) terms: Terms,
    pub(in crate::io) name: String,
    pub(in crate::io) endpoint: Endpoint,
    pub(in crate::io) client: ClientConfig,
    pub(in crate::io) fib: SharedFib,
    pub(in crate::io) fib_changed: watch::Receiver<()>,
    pub(in crate::io) report: Report,
    pub(in crate::io) offer: Offer,
    pub(in crate::io) inbox: mpsc::Receiver<Event>,
}

impl Peer {
    pub(in crate::io) fn new(parts: Parts) -> Self {
        let Parts { terms, name, endpoint, client, fib, fib_changed, report, offer, inbox } = parts;
        let generation = terms.generations.load(Relaxed);
        Self {
            smaller: terms.config.public_key < terms.peer_key,
            terms,
            name,
            endpoint,
            client,
            fib,
            fib_changed,
            report,
            offer,
            told: None,
            inbox,
            standing: Standing::default(),
            live: BTreeMap::new(),
            generation,
            dial: None,
            next_dial: Instant::now(),
            rekey_at: None,
            renew: false,
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            said: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs until the manager drops it.
    pub(in crate::io) async fn run(mut self) {
        loop {
            let now = Instant::now();
            let due = self.standing.review(now);
            self.apply(due, now);
            let wake = self.dial_when_due(now);
            tokio::select! {
                // What happened comes before what is due.
                biased;
                event = self.inbox.recv() => match event {
                    Some(Event::Forget) => return self.part(),
                    Some(event) => self.handle(event),
                    None => return,
                },
                changed = self.fib_changed.changed() => match changed {
                    Ok(()) => self.dial_anew_on_new_routes(),
                    Err(_) => return,
                },
                Some(_) = self.tasks.join_next() => {}
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Incoming(incoming) => self.accept(*incoming),
            Event::Judge { boot_id, reply } => self.judge(boot_id, reply),
            Event::Agreed(agreed) => self.install(*agreed),
            Event::Failed { dialled, failure } => self.failed(dialled, &failure),
            Event::Usable(local) => {
                self.standing.usable(local, Instant::now());
                self.standing.settled(local);
            }
            Event::Settled(local) => self.standing.settled(local),
            Event::Lost { local, error } => self.lost(local, &error),
            Event::Renew => self.renew = true,
            Event::Interfaces { local, list } => self.interfaces(local, *list),
            Event::Ask { question, answer } => self.ask(question, answer),
            Event::Config(config) => {
                let other = self.terms.config.rekey != config.rekey;
                self.terms.config = config;
                if other && self.rekey_at.is_some() {
                    self.schedule_rekey(Instant::now());
                }
            }
            Event::Forget => {}
        }
    }

    /// Tells the peer; what this node knew of it goes with the task.
    fn part(&self) {
        for live in self.live.values() {
            live.connection.close(GOING_AWAY, b"this node's config has no such peer");
        }
    }

    /// Starts a dial if one is due; returns when to look again.
    fn dial_when_due(&mut self, now: Instant) -> Instant {
        let idle = now + 3600 * LOOK;
        let mut wake = self.standing.next(now).unwrap_or(idle);
        if let Some(at) = self.rekey_at {
            if at <= now {
                self.rekey_at = Some(now + REKEY_AGAIN);
                self.renew = true;
            }
            wake = wake.min(at.max(now));
        }
        // The child's report clears this; a child that ended without one must not block for ever.
        if self.dial.as_ref().is_some_and(|dial| dial.task.is_finished()) && self.inbox.is_empty() {
            self.dial = None;
        }
        let wanted = self.renew || self.standing.wants_session(now);
        if !wanted || self.dial.is_some() {
            return wake;
        }
        if self.next_dial > now {
            return wake.min(self.next_dial);
        }
        let routes = self.routes();
        if routes.is_empty() {
            return wake.min(now + LOOK);
        }
        self.start_dial(now, routes);
        wake
    }

    /// The routes a datagram to the peer would take.
    fn routes(&self) -> Vec<RouteId> {
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
        self.next_dial = began + ATTEMPT;
        let (endpoint, client) = (self.endpoint.clone(), self.client.clone());
        let dial = handshake::dial(self.terms.clone(), endpoint, client, self.generation);
        let task = self.tasks.spawn(dial);
        self.dial = Some(Dial { task, began, routes });
    }

    /// An attempt that began before a route was there would only reach it with a retransmission.
    fn dial_anew_on_new_routes(&mut self) {
        let now = Instant::now();
        let Some(dial) = &self.dial else { return };
        let new = self.routes().iter().any(|route| !dial.routes.contains(route));
        if new && dial.began + FRESH <= now {
            dial.task.abort();
            self.dial = None;
            self.next_dial = now;
        }
    }

    /// The peer's dial led to a session first, and this node's would only be a second one beside
    /// it. Of two dials one always stays: the peer has ended its own by being the dialer.
    fn give_up_dial(&mut self) {
        if let Some(dial) = self.dial.take() {
            dial.task.abort();
        }
    }

    fn accept(&mut self, incoming: quinn::Incoming) {
        let busy = MAX_HANDSHAKES - self.handshakes.available_permits();
        if busy >= UNPROVEN && incoming.may_retry() && !incoming.remote_address_validated() {
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
        self.tasks.spawn(handshake::accept(self.terms.clone(), incoming, place));
    }

    /// Decides whether a process with `boot_id` may join. When another process of the same key has
    /// a session, it is asked for a sign of life: a restarted node answers for its former process
    /// with a reset, or nobody answers; only a clone leaves the former one alive (F-28).
    fn judge(&mut self, boot_id: u64, reply: oneshot::Sender<Result<(), Refusal>>) {
        let rivals = self.standing.entries().iter().rev().filter(|e| e.boot_id != boot_id);
        let rival = rivals
            .filter_map(|entry| self.live.get(&entry.local))
            .find(|live| live.connection.close_reason().is_none());
        let (asked, answer) = oneshot::channel();
        let Some(rival) = rival.filter(|rival| rival.probes.try_send(asked).is_ok()) else {
            // Whoever asked may have given up.
            let _ = reply.send(Ok(()));
            return;
        };
        let patience = (3 * rival.connection.rtt()).clamp(PROBE.0, PROBE.1);
        let former = rival.connection.clone();
        self.tasks.spawn(async move {
            let alive = tokio::select! {
                answer = timeout(patience, answer) => matches!(answer, Ok(Ok(()))),
                _ = former.closed() => false,
            };
            // Whoever asked may have given up.
            let _ = reply.send(if alive { Err(Refusal::Duplicate) } else { Ok(()) });
        });
    }

    fn install(&mut self, agreed: Agreed) {
        let now = Instant::now();
        let Agreed { connection, send, recv, number, session, .. } = agreed;
        let (local, boot_id, generation) = (number.get(), agreed.boot_id, agreed.generation);
        let dialer = agreed.side == Side::Dialer;
        if dialer {
            self.dial = None;
        } else if generation >= self.generation {
            self.give_up_dial();
        }
        self.renew = false;
        self.generation = self.generation.max(generation);
        self.terms.generations.fetch_max(generation, Relaxed);
        self.rekey_at.get_or_insert(now + REKEY_AGAIN);
        let entry = Entry::new(local, boot_id, generation, dialer == self.smaller, now);
        let changes = self.standing.add(entry);
        if !dialer {
            // The dialer has put the session into its tables before it said so.
            self.standing.usable(local, now);
        }
        let mut due = self.standing.review(now);
        let preferred = due.contains(&Change::Prefer(local));
        due.retain(|change| *change != Change::Prefer(local));
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
        let (probes, questions) = mpsc::channel(1);
        self.live.insert(local, Live { _number: number, connection: connection.clone(), probes });
        self.apply(changes, now);
        self.apply(due, now);
        if tls::takes_questions(&connection) {
            let (peer, questions) = (self.terms.peer, self.terms.questions.clone());
            self.tasks.spawn(peer_query::answer(connection.clone(), peer, questions));
        }
        let control = Control {
            connection,
            send,
            recv,
            local,
            side: agreed.side,
            generation,
            probes: questions,
            offer: self.offer.clone(),
            events: self.terms.events.clone(),
        };
        self.tasks.spawn(control.serve());
    }

    /// Asks on the session data goes on.
    fn ask(&mut self, question: Vec<u8>, answer: oneshot::Sender<Result<Vec<u8>, AskError>>) {
        let preferred = self.standing.preferred().and_then(|entry| self.live.get(&entry.local));
        let connection = preferred.map(|live| live.connection.clone());
        self.tasks.spawn(async move {
            let asked = match connection {
                Some(connection) => peer_query::ask(&connection, &question).await,
                None => Err(AskError::NoSession),
            };
            // Whoever asked may have stopped waiting.
            let _ = answer.send(asked);
        });
    }

    /// Passes on what the peer tells of its interfaces, unless a newer list came before it on
    /// another session.
    fn interfaces(&mut self, local: u32, list: Interfaces) {
        let entry = self.standing.entries().iter().find(|entry| entry.local == local);
        let Some(boot_id) = entry.map(|entry| entry.boot_id) else { return };
        let age = |serial: u32| list.serial.wrapping_sub(serial);
        if self.told.is_some_and(|(boot, serial)| boot == boot_id && age(serial) > u32::MAX / 2) {
            return;
        }
        self.told = Some((boot_id, list.serial));
        (self.report)(FromQuic::Interfaces { peer: self.terms.peer, list });
    }

    fn apply(&mut self, changes: Vec<Change>, now: Instant) {
        for change in changes {
            match change {
                Change::Prefer(local) => {
                    self.schedule_rekey(now);
                    (self.report)(FromQuic::SessionPreferred {
                        peer: self.terms.peer,
                        local_session: local,
                    });
                }
                Change::End(local) => self.end(local, "superseded"),
            }
        }
    }

    fn end(&mut self, local: u32, why: &str) {
        let Some(live) = self.live.remove(&local) else { return };
        live.connection.close(SUPERSEDED, b"a newer session has taken over");
        info!(peer = %self.name, session = local, why, "session ended");
        (self.report)(FromQuic::SessionDown { peer: self.terms.peer, local_session: local });
    }

    /// The node with the smaller key rekeys; the other one only when that did not happen.
    fn schedule_rekey(&mut self, now: Instant) {
        let jitter = self.terms.config.rekey.mul_f64(0.9 + 0.2 * fraction());
        self.rekey_at = Some(now + if self.smaller { jitter } else { jitter.mul_f64(1.5) });
    }

    fn lost(&mut self, local: u32, error: &ConnectionError) {
        if !self.live.contains_key(&local) {
            return;
        }
        match error {
            ConnectionError::ApplicationClosed(close) => {
                self.standing.remove(local);
                match close.error_code {
                    GOING_AWAY => self.end(local, "the peer is going away"),
                    SUPERSEDED | ABANDONED => self.end(local, "superseded by the peer"),
                    _ => {
                        self.end(local, "refused by the peer");
                        let reason = printable(&close.reason);
                        self.complain(&Failure::RefusedByPeer(reason));
                    }
                }
            }
            // The peer broke the rules, or this node is stopping.
            ConnectionError::LocallyClosed => {
                self.standing.remove(local);
                self.end(local, "closed here");
            }
            // The keys still fit. The peer has forgotten this connection, so it cannot say when
            // they end: agree on new ones.
            ConnectionError::Reset => self.renew = true,
            _ => debug!(peer = %self.name, session = local, %error, "control stream lost"),
        }
    }

    fn failed(&mut self, dialled: bool, failure: &Failure) {
        let now = Instant::now();
        if dialled {
            self.dial = None;
            let pause = if failure.lasts() { now + REFUSED } else { now.max(self.next_dial) };
            self.next_dial = pause + Duration::from_millis(50).mul_f64(fraction());
        }
        if failure.lasts() {
            self.complain(failure);
        } else {
            debug!(peer = %self.name, %failure, "no session yet");
        }
    }

    /// Says what is wrong, at most once a minute per kind.
    fn complain(&mut self, failure: &Failure) {
        let now = Instant::now();
        if self.said.get(failure.kind()).is_some_and(|at| now < *at + QUIET) {
            return;
        }
        self.said.insert(failure.kind(), now);
        warn!(peer = %self.name, reason = %failure, "no session");
        let peer = self.terms.peer;
        (self.report)(match failure {
            Failure::Refused(Refusal::Duplicate) => FromQuic::DuplicateNode { peer },
            _ => FromQuic::Refused { peer, reason: failure.to_string() },
        });
    }
}

/// A random number of [0, 1); one half when the kernel has no random bytes, as only spreading
/// depends on it.
fn fraction() -> f64 {
    random_u32().map_or(0.5, |n| f64::from(n) / (f64::from(u32::MAX) + 1.0))
}
