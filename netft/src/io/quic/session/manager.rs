//! The way in: starts the endpoint and one task per peer, adds and removes peers, stops.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use netft_proto::{config, config::Config, ids::PeerId, wire::interfaces::Advertisement};
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
    quic::{
        endpoint,
        failure::{CLOSE_GOING_AWAY, EndpointError},
        peer_address,
        session::{
            event::PeerTaskEvent,
            handshake,
            hello_exchange::PeerContext,
            peer::{EVENT_QUEUE_LEN, PeerTask, PeerTaskParams},
            peer_query,
            session_id::SessionIdAllocator,
        },
        socket::RouteSocket,
        tls::TlsIdentity,
        types::{FromQuicHandler, PeerQuery, QUERY_TIMEOUT, QueryError, QuicDatagram, StartError},
        unverified_sources::UnverifiedSources,
    },
};

/// How long the farewell may take: a little more than QUIC drains.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Handshakes under way from addresses that are no route's.
const MAX_UNVERIFIED_HANDSHAKES: usize = 8;

/// How long a peer's task may take to hear of a change; it is never busy for long.
const EVENT_SEND_TIMEOUT: Duration = Duration::from_millis(250);

/// What each peer's task was started with, and so the way to it.
type PeerContexts = Arc<Mutex<BTreeMap<PeerId, PeerContext>>>;

/// The control sessions with all peers. Dropping it stops everything without a farewell.
pub(crate) struct SessionManager {
    endpoint: Endpoint,
    peers: PeerContexts,
    fib_changed: watch::Sender<()>,
    /// What every peer is told of this node's interfaces, encoded.
    advertisement: watch::Sender<Arc<[u8]>>,
    counters: Arc<Counters>,
    /// What the peers ask, until somebody answers.
    query_rx: Mutex<Option<mpsc::Receiver<PeerQuery>>>,
    task_params: CommonTaskParams,
    /// Aborted when dropped.
    tasks: Mutex<JoinSet<()>>,
}

/// What every peer's task is started with.
struct CommonTaskParams {
    tls: TlsIdentity,
    fib: SharedFib,
    fib_changed: watch::Receiver<()>,
    session_ids: SessionIdAllocator,
    generations: Arc<AtomicU32>,
    report: FromQuicHandler,
    boot_id: u64,
    adapter_up: Arc<AtomicBool>,
    query_tx: mpsc::Sender<PeerQuery>,
}

impl SessionManager {
    /// Starts, inside a tokio runtime. `boot_id` is random per start of the daemon; `arrivals` is
    /// bounded to [`DATAGRAM_QUEUE_LEN`](crate::io::quic::DATAGRAM_QUEUE_LEN) and filled by the
    /// packet workers.
    ///
    /// # Errors
    /// When the keys of the config do not fit, or TLS or QUIC refuse to start.
    pub(crate) fn start(
        config: Arc<Config>,
        fib: SharedFib,
        arrivals: mpsc::Receiver<QuicDatagram>,
        report: FromQuicHandler,
        boot_id: u64,
    ) -> Result<Self, StartError> {
        check_keys(&config)?;
        let tls = TlsIdentity::new(&config.key, config.public_key).map_err(EndpointError::from)?;
        let counters = Arc::new(Counters::default());
        let socket = RouteSocket::new(fib.clone(), arrivals, counters.clone());
        let strangers = socket.unverified_sources();
        let keys = config.peers.iter().map(|peer| peer.key);
        let endpoint = endpoint::start_endpoint(&tls, &config.key, keys, socket)?;
        let (fib_changed, changes) = watch::channel(());
        let (questions, asked) = mpsc::channel(peer_query::QUERY_QUEUE_LEN);
        let start = CommonTaskParams {
            tls,
            fib,
            fib_changed: changes,
            session_ids: SessionIdAllocator::default(),
            generations: Arc::default(),
            report,
            boot_id,
            adapter_up: Arc::default(),
            query_tx: questions,
        };
        let mut tasks = JoinSet::new();
        let peers = PeerContexts::default();
        tasks.spawn(dispatch_handshakes(endpoint.clone(), peers.clone(), strangers));
        let (offer, _) = watch::channel(Arc::default());
        let (tasks, asked) = (Mutex::new(tasks), Mutex::new(Some(asked)));
        let manager = Self {
            endpoint,
            peers,
            fib_changed,
            advertisement: offer,
            counters,
            query_rx: asked,
            task_params: start,
            tasks,
        };
        for peer in &config.peers {
            manager.add_peer(peer, &config)?;
        }
        Ok(manager)
    }

    /// Starts the task of one more peer.
    fn add_peer(&self, peer: &config::PeerConfig, config: &Arc<Config>) -> Result<(), StartError> {
        let (events, inbox) = mpsc::channel(EVENT_QUEUE_LEN);
        let start = &self.task_params;
        let client = endpoint::client_config(&start.tls, peer.key)?;
        let terms = PeerContext {
            config: config.clone(),
            peer: peer.id,
            peer_addrs: peer.addrs,
            peer_key: peer.key,
            boot_id: start.boot_id,
            session_ids: start.session_ids.clone(),
            generations: start.generations.clone(),
            adapter_up: Arc::clone(&start.adapter_up),
            query_tx: start.query_tx.clone(),
            events,
        };
        let parts = PeerTaskParams {
            terms: terms.clone(),
            name: peer.name.clone(),
            endpoint: self.endpoint.clone(),
            client,
            fib: start.fib.clone(),
            fib_changed: start.fib_changed.clone(),
            report: start.report.clone(),
            advertisement: self.advertisement.subscribe(),
            mailbox: inbox,
        };
        lock_unpoisoned(&self.peers).insert(peer.id, terms);
        let mut tasks = lock_unpoisoned(&self.tasks);
        // Tasks of peers that are gone have ended; their results would pile up.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(PeerTask::new(parts).run());
        Ok(())
    }

    /// Whether the keys of `config` fit each other and this node's.
    ///
    /// # Errors
    /// They do not; nothing changed.
    pub(crate) fn check_config(&self, config: &Config) -> Result<(), StartError> {
        check_keys(config)?;
        endpoint::server_config(&self.task_params.tls, config.peers.iter().map(|peer| peer.key))?;
        Ok(())
    }

    /// First half of going over to a [checked](Self::check_config) config: ends the sessions with
    /// the peers it does not know, while the routes that carry the farewell still exist. One that
    /// misses the farewell learns by silence.
    pub(crate) async fn remove_absent_peers(&self, config: &Arc<Config>) {
        let keys = config.peers.iter().map(|peer| peer.key);
        match endpoint::server_config(&self.task_params.tls, keys) {
            Ok(server) => self.endpoint.set_server_config(Some(server)),
            Err(error) => tracing::error!(%error, "new peers cannot dial this node"),
        }
        let peers: Vec<_> = {
            let mut peers = lock_unpoisoned(&self.peers);
            let all = peers.iter().map(|(id, terms)| (*id, terms.events.clone())).collect();
            peers.retain(|id, _| config.peer_of(*id).is_some());
            peers.values_mut().for_each(|terms| terms.config = config.clone());
            all
        };
        for (id, events) in peers {
            let stays = config.peer_of(id).is_some();
            let event =
                if stays { PeerTaskEvent::Config(config.clone()) } else { PeerTaskEvent::Forget };
            if timeout(EVENT_SEND_TIMEOUT, events.send(event)).await.is_err() {
                tracing::warn!(peer = %id, "a control session does not listen");
            }
        }
    }

    /// Second half, once the driver knows the new peers: sessions with them.
    ///
    /// # Errors
    /// TLS refuses a key.
    pub(crate) fn add_new_peers(&self, config: &Arc<Config>) -> Result<(), StartError> {
        for peer in &config.peers {
            let known = lock_unpoisoned(&self.peers).contains_key(&peer.id);
            if !known {
                self.add_peer(peer, config)?;
            }
        }
        Ok(())
    }

    /// Says that the forwarding table changed, so that a waiting dial uses a new route at once.
    pub(crate) fn notify_fib_changed(&self) {
        self.fib_changed.send_replace(());
    }

    /// Takes in whether the adapter is up, for the hellos from here on: a peer learns of a change
    /// with the next handshake.
    pub(crate) fn set_adapter_up(&self, up: bool) {
        self.task_params.adapter_up.store(up, Relaxed);
    }

    /// Tells every peer, present and future, of this node's interfaces.
    pub(crate) fn advertise_interfaces(&self, list: &Advertisement) {
        let mut bytes = Vec::new();
        list.encode(&mut bytes);
        self.advertisement.send_replace(bytes.into());
    }

    /// Asks for a fresh session with `peer`: its keys are nearly used up, or nothing authentic has
    /// come from it for long although its routes look alive. The present session serves until the
    /// fresh one does. Asking again meanwhile is harmless.
    pub(crate) fn renew_session(&self, peer: PeerId) {
        if let Some(terms) = lock_unpoisoned(&self.peers).get(&peer) {
            // A full queue means that the peer's task is busy with handshakes already.
            let _ = terms.events.try_send(PeerTaskEvent::Renew);
        }
    }

    /// Asks `peer` a question of at most 256 bytes on its control session. Takes at most
    /// [`QUERY_TIMEOUT`].
    ///
    /// # Errors
    /// See [`QueryError`].
    pub(crate) async fn query_peer(
        &self,
        peer: PeerId,
        question: Vec<u8>,
    ) -> Result<Vec<u8>, QueryError> {
        let events = lock_unpoisoned(&self.peers).get(&peer).map(|terms| terms.events.clone());
        let events = events.ok_or(QueryError::UnknownPeer)?;
        let (answer, reply_rx) = oneshot::channel();
        let asked = async {
            events.send(PeerTaskEvent::Query { query: question, reply: answer }).await.ok()?;
            reply_rx.await.ok()
        };
        // The task of a peer that goes drops the question.
        timeout(QUERY_TIMEOUT, asked)
            .await
            .map_err(|_| QueryError::TimedOut)?
            .ok_or(QueryError::NoSession)?
    }

    /// What the peers ask; `None` if somebody else has it. A question nobody takes is refused.
    pub(crate) fn take_queries(&self) -> Option<mpsc::Receiver<PeerQuery>> {
        lock_unpoisoned(&self.query_rx).take()
    }

    /// What the control sessions dropped, by reason.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Stops, and tells every peer, which then ends its sessions with this node at once. Takes at
    /// most half a second.
    pub(crate) async fn close(&self) {
        self.endpoint.close(CLOSE_GOING_AWAY, b"going away");
        // A peer that cannot be reached learns by its missing heartbeats.
        let _ = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

/// Hands every handshake to the task of the peer at whose address it came in.
async fn dispatch_handshakes(
    endpoint: Endpoint,
    peers: PeerContexts,
    strangers: Arc<Mutex<UnverifiedSources>>,
) {
    let places = Arc::new(Semaphore::new(MAX_UNVERIFIED_HANDSHAKES));
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let from = incoming.remote_address();
        let Some(peer) = peer_address::peer_of(from) else {
            admit_unverified(incoming, &peers, &strangers, &places, &mut tasks);
            continue;
        };
        let events = lock_unpoisoned(&peers).get(&peer).map(|terms| terms.events.clone());
        match events.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => place.send(PeerTaskEvent::Incoming(Box::new(incoming))),
            // Silence costs least; a genuine peer sends its first datagram again.
            _ => incoming.ignore(),
        }
    }
}

/// Takes in a handshake that came on no route: first whether its source is there at all, at no
/// cost to this node, then a few at once.
fn admit_unverified(
    incoming: quinn::Incoming,
    peers: &PeerContexts,
    strangers: &Arc<Mutex<UnverifiedSources>>,
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
        let terms = lock_unpoisoned(&peers).values().find(|terms| terms.peer_key == key)?.clone();
        lock_unpoisoned(&strangers).set_peer(from, terms.peer);
        Some(terms)
    };
    tasks.spawn(handshake::accept_unverified(terms, incoming, place));
}

/// What the lock guards is whole whoever panicked.
fn lock_unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
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
