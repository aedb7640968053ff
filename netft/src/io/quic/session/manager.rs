//! The way in: starts the endpoint and one task per peer, adds and removes peers, stops.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use netft_proto::{config, config::Config, ids::PeerId, wire::interfaces::Interfaces};
use quinn::Endpoint;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use crate::io::{
    counters::Counters,
    fib::SharedFib,
    identity,
    identity::KeyError,
    quic::{
        QuicDatagram, Report, endpoint,
        endpoint::EndpointError,
        failure::GOING_AWAY,
        session::{
            handshake,
            hello_exchange::Terms,
            peer::{EVENTS, Event, Parts, Peer},
            peer_query,
            peer_query::{AskError, Question},
            session_id::Numbers,
        },
        socket,
        socket::RouteSocket,
        tls::Tls,
        unverified_sources::Strangers,
    },
};

/// How long the farewell may take: a little more than QUIC drains.
const FAREWELL: Duration = Duration::from_millis(500);

/// Handshakes under way from addresses that are no route's.
const MAX_STRANGERS: usize = 8;

/// Why the control session could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node's key is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The config names another public key than the private key has.
    #[error("the public key in the config is not that of the private key; remove or correct it")]
    PublicKey,
    /// A peer has this node's own key.
    #[error("peer {name} has this node's own key; give it its own with `netft keygen`")]
    OwnKey {
        /// The peer.
        name: String,
    },
    /// Two peers have one key.
    #[error("peers {one} and {other} have the same key; give each its own with `netft keygen`")]
    SameKey {
        /// The first.
        one: String,
        /// The second.
        other: String,
    },
    /// More peers than can be numbered.
    #[error("{0} peers are configured; at most 65536 can be")]
    TooMany(usize),
    /// TLS or QUIC would not start.
    #[error("the control session cannot start: {0}")]
    Start(String),
}

impl From<EndpointError> for StartError {
    fn from(error: EndpointError) -> Self {
        Self::Start(error.to_string())
    }
}

/// How long a peer's task may take to hear of a change; it is never busy for long.
const HEAR: Duration = Duration::from_millis(250);

/// What each peer's task was started with, and so the way to it.
type Peers = Arc<Mutex<BTreeMap<PeerId, Terms>>>;

/// The control sessions with all peers. Dropping it stops everything without a farewell.
pub struct Manager {
    endpoint: Endpoint,
    peers: Peers,
    fib_changed: watch::Sender<()>,
    /// What every peer is told of this node's interfaces, encoded.
    offer: watch::Sender<Arc<[u8]>>,
    counters: Arc<Counters>,
    /// What the peers ask, until somebody answers.
    asked: Mutex<Option<mpsc::Receiver<Question>>>,
    start: Starter,
    /// Aborted when dropped.
    tasks: Mutex<JoinSet<()>>,
}

/// What every peer's task is started with.
struct Starter {
    tls: Tls,
    fib: SharedFib,
    changes: watch::Receiver<()>,
    numbers: Numbers,
    generations: Arc<AtomicU32>,
    report: Report,
    boot_id: u64,
    adapter_up: Arc<AtomicBool>,
    questions: mpsc::Sender<Question>,
}

impl Manager {
    /// Starts, inside a tokio runtime. `boot_id` is random per start of the daemon; `arrivals` is
    /// bounded to [`QUEUE`](crate::io::quic::QUEUE) and filled by the packet workers.
    ///
    /// # Errors
    /// When the keys of the config do not fit, or TLS or QUIC refuse to start.
    pub fn start(
        config: Arc<Config>,
        fib: SharedFib,
        arrivals: mpsc::Receiver<QuicDatagram>,
        report: Report,
        boot_id: u64,
    ) -> Result<Self, StartError> {
        check_keys(&config)?;
        let tls = Tls::new(&config.key, config.public_key).map_err(EndpointError::from)?;
        let counters = Arc::new(Counters::default());
        let socket = RouteSocket::new(fib.clone(), arrivals, counters.clone());
        let strangers = socket.strangers();
        let keys = config.peers.iter().map(|peer| peer.key);
        let endpoint = endpoint::start(&tls, &config.key, keys, socket)?;
        let (fib_changed, changes) = watch::channel(());
        let (questions, asked) = mpsc::channel(peer_query::QUESTIONS);
        let start = Starter {
            tls,
            fib,
            changes,
            numbers: Numbers::default(),
            generations: Arc::default(),
            report,
            boot_id,
            adapter_up: Arc::default(),
            questions,
        };
        let mut tasks = JoinSet::new();
        let peers = Peers::default();
        tasks.spawn(accept(endpoint.clone(), peers.clone(), strangers));
        let (offer, _) = watch::channel(Arc::default());
        let (tasks, asked) = (Mutex::new(tasks), Mutex::new(Some(asked)));
        let manager = Self { endpoint, peers, fib_changed, offer, counters, asked, start, tasks };
        for peer in &config.peers {
            manager.add(peer, &config)?;
        }
        Ok(manager)
    }

    /// Starts the task of one more peer.
    fn add(&self, peer: &config::Peer, config: &Arc<Config>) -> Result<(), StartError> {
        let (events, inbox) = mpsc::channel(EVENTS);
        let start = &self.start;
        let client = endpoint::client(&start.tls, peer.key)?;
        let terms = Terms {
            config: config.clone(),
            peer: peer.id,
            peer_addrs: peer.addrs,
            peer_key: peer.key,
            boot_id: start.boot_id,
            numbers: start.numbers.clone(),
            generations: start.generations.clone(),
            adapter_up: Arc::clone(&start.adapter_up),
            questions: start.questions.clone(),
            events,
        };
        let parts = Parts {
            terms: terms.clone(),
            name: peer.name.clone(),
            endpoint: self.endpoint.clone(),
            client,
            fib: start.fib.clone(),
            fib_changed: start.changes.clone(),
            report: start.report.clone(),
            offer: self.offer.subscribe(),
            inbox,
        };
        locked(&self.peers).insert(peer.id, terms);
        let mut tasks = locked(&self.tasks);
        // Tasks of peers that are gone have ended; their results would pile up.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(Peer::new(parts).run());
        Ok(())
    }

    /// Whether the keys of `config` fit each other and this node's.
    ///
    /// # Errors
    /// They do not; nothing changed.
    pub fn check(&self, config: &Config) -> Result<(), StartError> {
        check_keys(config)?;
        endpoint::server(&self.start.tls, config.peers.iter().map(|peer| peer.key))?;
        Ok(())
    }

    /// First half of going over to a [checked](Self::check) config: ends the sessions with the
    /// peers it does not know, while the routes that carry the farewell still exist. One that
    /// misses the farewell learns by silence.
    pub async fn part(&self, config: &Arc<Config>) {
        let keys = config.peers.iter().map(|peer| peer.key);
        match endpoint::server(&self.start.tls, keys) {
            Ok(server) => self.endpoint.set_server_config(Some(server)),
            Err(error) => tracing::error!(%error, "new peers cannot dial this node"),
        }
        let peers: Vec<_> = {
            let mut peers = locked(&self.peers);
            let all = peers.iter().map(|(id, terms)| (*id, terms.events.clone())).collect();
            peers.retain(|id, _| config.peer_of(*id).is_some());
            peers.values_mut().for_each(|terms| terms.config = config.clone());
            all
        };
        for (id, events) in peers {
            let stays = config.peer_of(id).is_some();
            let event = if stays { Event::Config(config.clone()) } else { Event::Forget };
            if timeout(HEAR, events.send(event)).await.is_err() {
                tracing::warn!(peer = %id, "a control session does not listen");
            }
        }
    }

    /// Second half, once the driver knows the new peers: sessions with them.
    ///
    /// # Errors
    /// TLS refuses a key.
    pub fn meet(&self, config: &Arc<Config>) -> Result<(), StartError> {
        for peer in &config.peers {
            let known = locked(&self.peers).contains_key(&peer.id);
            if !known {
                self.add(peer, config)?;
            }
        }
        Ok(())
    }

    /// Says that the forwarding table changed, so that a waiting dial uses a new route at once.
    pub fn fib_changed(&self) {
        self.fib_changed.send_replace(());
    }

    /// Takes in whether the adapter is up, for the hellos from here on: a peer learns of a change
    /// with the next handshake.
    pub fn adapter_up(&self, up: bool) {
        self.start.adapter_up.store(up, Relaxed);
    }

    /// Tells every peer, present and future, of this node's interfaces.
    pub fn offer(&self, list: &Interfaces) {
        let mut bytes = Vec::new();
        list.encode(&mut bytes);
        self.offer.send_replace(bytes.into());
    }

    /// Asks for a fresh session with `peer`: its keys are nearly used up, or nothing authentic has
    /// come from it for long although its routes look alive. The present session serves until the
    /// fresh one does. Asking again meanwhile is harmless.
    pub fn renew(&self, peer: PeerId) {
        if let Some(terms) = locked(&self.peers).get(&peer) {
            // A full queue means that the peer's task is busy with handshakes already.
            let _ = terms.events.try_send(Event::Renew);
        }
    }

    /// Asks `peer` a question of at most 256 bytes on its control session. Takes at most
    /// [`peer_query::PATIENCE`].
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(&self, peer: PeerId, question: Vec<u8>) -> Result<Vec<u8>, AskError> {
        let events = locked(&self.peers).get(&peer).map(|terms| terms.events.clone());
        let events = events.ok_or(AskError::Unknown)?;
        let (answer, told) = oneshot::channel();
        let asked = async {
            events.send(Event::Ask { question, answer }).await.ok()?;
            told.await.ok()
        };
        // The task of a peer that goes drops the question.
        timeout(peer_query::PATIENCE, asked)
            .await
            .map_err(|_| AskError::Late)?
            .ok_or(AskError::NoSession)?
    }

    /// What the peers ask; `None` if somebody else has it. A question nobody takes is refused.
    pub fn questions(&self) -> Option<mpsc::Receiver<Question>> {
        locked(&self.asked).take()
    }

    /// What the control sessions dropped, by reason.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Stops, and tells every peer, which then ends its sessions with this node at once. Takes at
    /// most half a second.
    pub async fn close(&self) {
        self.endpoint.close(GOING_AWAY, b"going away");
        // A peer that cannot be reached learns by its missing heartbeats.
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }
}

/// Hands every handshake to the task of the peer at whose address it came in.
async fn accept(endpoint: Endpoint, peers: Peers, strangers: Arc<Mutex<Strangers>>) {
    let places = Arc::new(Semaphore::new(MAX_STRANGERS));
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let from = incoming.remote_address();
        let Some(peer) = socket::peer_of(from) else {
            welcome(incoming, &peers, &strangers, &places, &mut tasks);
            continue;
        };
        let events = locked(&peers).get(&peer).map(|terms| terms.events.clone());
        match events.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => place.send(Event::Incoming(Box::new(incoming))),
            // Silence costs least; a genuine peer sends its first datagram again.
            _ => incoming.ignore(),
        }
    }
}

/// Takes in a handshake that came on no route: first whether its source is there at all, at no
/// cost to this node, then a few at once.
fn welcome(
    incoming: quinn::Incoming,
    peers: &Peers,
    strangers: &Arc<Mutex<Strangers>>,
    places: &Arc<Semaphore>,
    tasks: &mut JoinSet<()>,
) {
    if !incoming.remote_address_validated() {
        // Smaller than what it answers (S-06).
        let _ = incoming.retry();
        return;
    }
    let Ok(place) = places.clone().try_acquire_owned() else { return incoming.ignore() };
    let (peers, strangers, from) = (peers.clone(), strangers.clone(), incoming.remote_address());
    let terms = move |key| {
        let terms = locked(&peers).values().find(|terms| terms.peer_key == key)?.clone();
        locked(&strangers).identify(from, terms.peer);
        Some(terms)
    };
    tasks.spawn(handshake::accept_stranger(terms, incoming, place));
}

/// What the lock guards is whole whoever panicked.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_keys(config: &Config) -> Result<(), StartError> {
    if config.peers.len() > usize::from(u16::MAX) + 1 {
        return Err(StartError::TooMany(config.peers.len()));
    }
    if identity::public_key(&config.key)? != config.public_key {
        return Err(StartError::PublicKey);
    }
    for (place, peer) in config.peers.iter().enumerate() {
        if peer.key == config.public_key {
            return Err(StartError::OwnKey { name: peer.name.clone() });
        }
        if let Some(one) = config.peers[..place].iter().find(|one| one.key == peer.key) {
            let (one, other) = (one.name.clone(), peer.name.clone());
            return Err(StartError::SameKey { one, other });
        }
    }
    Ok(())
}
