//! The session manager: starts the endpoint and one task per peer, adds and removes peers, stops.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use netft_proto::{
    config,
    config::Config,
    ids::{NodeKey, PeerId},
    wire::{interfaces::Advertisement, topic::Topic},
};
use quinn::Endpoint;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{Instrument, debug, error, warn};

use crate::io::{
    counters::Counters,
    fib::SharedFib,
    handover::SavedRanks,
    identity,
    quic::{
        endpoint,
        failure::{CLOSE_GOING_AWAY, EndpointError},
        join::{JoinAdmission, JoinAttempt},
        peer_address,
        session::{
            dialer::Dialer,
            event::PeerTaskEvent,
            handshake,
            hello_exchange::PeerContext,
            peer::{EVENT_QUEUE_LEN, PeerTask, PeerTaskParams},
            peer_request::{RequestQueues, RequestReceivers, request_queues},
            report_limiter::ReportLimiter,
            session_id::SessionIdAllocator,
        },
        socket::RouteSocket,
        tls::TlsIdentity,
        types::{FromQuicHandler, PeerRequest, QueryError, QuicDatagram, StartError},
        unverified_sources::UnverifiedSources,
    },
};

/// Time for the QUIC tasks to send the frames that end a session.
pub(crate) const SESSION_CLOSE_DELAY: Duration = Duration::from_millis(20);
/// Timeout of the close: a little more than QUIC's draining period.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Handshakes under way from unverified sources.
const MAX_UNVERIFIED_HANDSHAKES: usize = 8;

/// Timeout of an event for a peer's task, which is never busy for long.
const EVENT_SEND_TIMEOUT: Duration = Duration::from_millis(250);

/// Handshake context of each peer, which holds the queue of its task.
type PeerContexts = Arc<Mutex<BTreeMap<PeerId, PeerContext>>>;

/// The control sessions with all peers. Dropping it stops everything without closing connections.
pub(crate) struct SessionManager {
    endpoint: Endpoint,
    peers: PeerContexts,
    fib_changed: watch::Sender<()>,
    /// The encoded interface list of this node, sent to every peer.
    advertisement: watch::Sender<Arc<[u8]>>,
    counters: Arc<Counters>,
    /// Requests of the peers, until [`take_requests`](Self::take_requests).
    request_receivers: RequestReceivers,
    joins: JoinAdmission,
    /// Nodes that ask to join, until [`take_joins`](Self::take_joins).
    join_rx: Mutex<Option<mpsc::Receiver<JoinAttempt>>>,
    /// Strangers may ask to join.
    joining: AtomicBool,
    task_params: CommonTaskParams,
    /// Aborted when dropped.
    tasks: Mutex<JoinSet<()>>,
    /// Keeps anything from being sent.
    muted: Arc<AtomicBool>,
    /// Sessions of a predecessor process, until the peers' tasks have them.
    resumed: Mutex<SavedRanks>,
}

/// Parameters common to the tasks of all peers.
struct CommonTaskParams {
    /// Replaced when the cluster replaces this node's key.
    tls: Mutex<Arc<TlsIdentity>>,
    fib: SharedFib,
    fib_changed: watch::Receiver<()>,
    session_ids: SessionIdAllocator,
    generations: Arc<AtomicU32>,
    report: FromQuicHandler,
    boot_id: u64,
    adapter_up: Arc<AtomicBool>,
    request_queues: RequestQueues,
}

impl SessionManager {
    /// Starts, inside a tokio runtime. `boot_id` is random per start of the daemon; `arrivals` is
    /// bounded to [`DATAGRAM_QUEUE_LEN`](crate::io::quic::DATAGRAM_QUEUE_LEN) and filled by the
    /// packet workers. `resumed`: the sessions of a predecessor process, whose boot id it is then.
    ///
    /// # Errors
    /// The keys of the configuration contradict each other, or TLS or QUIC cannot start.
    pub(crate) fn start(
        config: Arc<Config>,
        (fib, arrivals): (SharedFib, mpsc::Receiver<QuicDatagram>),
        report: FromQuicHandler,
        boot_id: u64,
        resumed: SavedRanks,
    ) -> Result<Self, StartError> {
        check_keys(&config)?;
        let tls = TlsIdentity::new(&config.key, config.public_key).map_err(EndpointError::from)?;
        let counters = Arc::new(Counters::default());
        let socket = RouteSocket::new(fib.clone(), arrivals, counters.clone());
        let (unverified_sources, muted) = (socket.unverified_sources(), socket.mute_switch());
        let keys = accepted_keys(&config);
        let endpoint = endpoint::start_endpoint(&tls, &config.key, keys, socket)?;
        let (fib_changed, changes) = watch::channel(());
        let (request_queues, request_receivers) = request_queues();
        let task_params = CommonTaskParams {
            tls: Mutex::new(Arc::new(tls)),
            fib,
            fib_changed: changes,
            session_ids: SessionIdAllocator::default(),
            generations: Arc::new(AtomicU32::new(resumed.generation)),
            report,
            boot_id,
            adapter_up: Arc::default(),
            request_queues,
        };
        let mut tasks = JoinSet::new();
        let peers = PeerContexts::default();
        let (joins, join_rx) = JoinAdmission::new(config.public_key);
        let sources = unverified_sources;
        let admission = joins.clone();
        tasks.spawn(dispatch_handshakes(endpoint.clone(), peers.clone(), sources, admission));
        let (advertisement, _) = watch::channel(Arc::default());
        let manager = Self {
            endpoint,
            peers,
            fib_changed,
            advertisement,
            counters,
            request_receivers,
            joins,
            join_rx: Mutex::new(Some(join_rx)),
            joining: AtomicBool::new(false),
            task_params,
            tasks: Mutex::new(tasks),
            muted,
            resumed: Mutex::new(resumed),
        };
        for peer in &config.peers {
            manager.add_peer(peer, &config)?;
        }
        Ok(manager)
    }

    /// Starts the task of one more peer.
    fn add_peer(&self, peer: &config::PeerConfig, config: &Arc<Config>) -> Result<(), StartError> {
        let (events, mailbox) = mpsc::channel(EVENT_QUEUE_LEN);
        let common = &self.task_params;
        let client = endpoint::client_config(&self.identity(), peer.accepted_keys())?;
        let context = PeerContext {
            config: config.clone(),
            peer: peer.id,
            peer_name: peer.name.as_str().into(),
            peer_addrs: peer.addrs,
            boot_id: common.boot_id,
            session_ids: common.session_ids.clone(),
            generations: common.generations.clone(),
            adapter_up: Arc::clone(&common.adapter_up),
            request_queues: common.request_queues.clone(),
            request_permits: Arc::default(),
            events,
        };
        let params = PeerTaskParams {
            context: context.clone(),
            dialer: Dialer::new(peer.id, self.endpoint.clone(), client, common.fib.clone()),
            fib_changed: common.fib_changed.clone(),
            report: common.report.clone(),
            advertisement: self.advertisement.subscribe(),
            mailbox,
            resumed: lock_unpoisoned(&self.resumed).by_peer.remove(&peer.id).unwrap_or_default(),
        };
        let span = context.log_span();
        lock_unpoisoned(&self.peers).insert(peer.id, context);
        let mut tasks = lock_unpoisoned(&self.tasks);
        // Frees the results of tasks whose peers were removed.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(PeerTask::new(params).run().instrument(span));
        Ok(())
    }

    /// Checks that the keys of `config` fit each other and this node's.
    ///
    /// # Errors
    /// They do not; nothing changed.
    pub(crate) fn check_config(&self, config: &Config) -> Result<(), StartError> {
        check_keys(config)?;
        endpoint::server_config(&self.identity(), accepted_keys(config), false)?;
        Ok(())
    }

    /// First half of a change to a [checked](Self::check_config) configuration: closes the sessions
    /// with the peers it does not name, while the routes that carry the close still exist. A peer
    /// that misses the close detects the missing heartbeats.
    pub(crate) async fn remove_absent_peers(&self, config: &Arc<Config>) {
        self.adopt_key(config);
        self.set_server_config(config);
        let peers: Vec<_> = {
            let mut peers = lock_unpoisoned(&self.peers);
            let all = peers.iter().map(|(id, peer)| (*id, peer.events.clone())).collect();
            peers.retain(|id, _| config.peer_of(*id).is_some());
            peers.values_mut().for_each(|peer| peer.config = config.clone());
            all
        };
        for (id, events) in peers {
            let client = config
                .peer_of(id)
                .map(|peer| endpoint::client_config(&self.identity(), peer.accepted_keys()));
            let event = match client {
                Some(Ok(client)) => PeerTaskEvent::Config(config.clone(), Box::new(client)),
                Some(Err(error)) => {
                    error!(peer = %id, %error, "its control session keeps its former settings");
                    continue;
                }
                None => PeerTaskEvent::Forget,
            };
            if timeout(EVENT_SEND_TIMEOUT, events.send(event)).await.is_err() {
                warn!(peer = %id, "the task of a control session does not respond");
            }
        }
    }

    fn identity(&self) -> Arc<TlsIdentity> {
        lock_unpoisoned(&self.task_params.tls).clone()
    }

    /// Proves the key of `config` in every handshake from here on.
    fn adopt_key(&self, config: &Config) {
        if self.identity().own_key() == config.public_key {
            return;
        }
        match TlsIdentity::new(&config.key, config.public_key) {
            Ok(identity) => {
                *lock_unpoisoned(&self.task_params.tls) = Arc::new(identity);
                self.joins.set_inviter(config.public_key);
            }
            Err(error) => error!(%error, "handshakes go on with the former key"),
        }
    }

    fn set_server_config(&self, config: &Config) {
        let joining = self.joining.load(Relaxed);
        match endpoint::server_config(&self.identity(), accepted_keys(config), joining) {
            Ok(server) => self.endpoint.set_server_config(Some(server)),
            Err(error) => error!(%error, "new peers cannot dial this node"),
        }
    }

    /// Lets nodes that nobody knows ask to join, or stops that.
    pub(crate) fn set_joining(&self, joining: bool, config: &Config) {
        debug!(joining, "handshakes of joining nodes");
        self.joining.store(joining, Relaxed);
        self.set_server_config(config);
    }

    /// The nodes that ask to join; `None` if it was taken.
    pub(crate) fn take_joins(&self) -> Option<mpsc::Receiver<JoinAttempt>> {
        lock_unpoisoned(&self.join_rx).take()
    }

    /// Second half, once the driver knows the new peers: starts their sessions.
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

    /// Notifies that the forwarding table changed, so that a waiting dial uses a new route at once.
    pub(crate) fn notify_fib_changed(&self) {
        self.fib_changed.send_replace(());
    }

    /// Sets the adapter's state for later hellos: a peer learns of a change with the next
    /// handshake.
    pub(crate) fn set_adapter_up(&self, up: bool) {
        self.task_params.adapter_up.store(up, Relaxed);
    }

    /// Advertises this node's interfaces to every peer, present and future.
    pub(crate) fn advertise_interfaces(&self, list: &Advertisement) {
        let mut bytes = Vec::new();
        list.encode(&mut bytes);
        self.advertisement.send_replace(bytes.into());
    }

    /// Requests a fresh session with `peer`: its keys are nearly used up, or no authentic frame
    /// arrived from it for long. The present session stays in use until the fresh one is. Repeated
    /// requests are harmless.
    pub(crate) fn renew_session(&self, peer: PeerId) {
        if let Some(context) = lock_unpoisoned(&self.peers).get(&peer) {
            // A full queue means that the peer's task is busy with handshakes already.
            let _ = context.events.try_send(PeerTaskEvent::Renew);
        }
    }

    /// Sends `peer` a request on its control session, within the bounds of its topic.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub(crate) async fn request(
        &self,
        peer: PeerId,
        topic: Topic,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, QueryError> {
        let events = lock_unpoisoned(&self.peers).get(&peer).map(|peer| peer.events.clone());
        let events = events.ok_or(QueryError::UnknownPeer)?;
        let (reply, reply_rx) = oneshot::channel();
        let exchange = async {
            events.send(PeerTaskEvent::Request { topic, payload, reply }).await.ok()?;
            reply_rx.await.ok()
        };
        // The task of a peer that is being removed drops the request.
        let limit = topic.limits().timeout;
        timeout(limit, exchange)
            .await
            .map_err(|_| QueryError::TimedOut { seconds: limit.as_secs() })?
            .ok_or(QueryError::NoSession)?
    }

    /// The queue of the peers' requests of a topic; `None` if it was taken. Requests that nobody
    /// reads are refused.
    pub(crate) fn take_requests(&self, topic: Topic) -> Option<mpsc::Receiver<PeerRequest>> {
        self.request_receivers.take_receiver(topic)
    }

    /// Drop counters of the control sessions, by reason.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Stops without a word to the peers, for a successor process that goes on with the sessions:
    /// waits for the handshakes under way, and sends nothing from then on.
    pub(crate) async fn save_sessions(&self) -> SavedRanks {
        let peers: Vec<_> = {
            let peers = lock_unpoisoned(&self.peers);
            peers.iter().map(|(id, peer)| (*id, peer.events.clone())).collect()
        };
        let mut waiting = Vec::new();
        for (id, events) in peers {
            let (reply, ranks) = oneshot::channel();
            let sent = timeout(EVENT_SEND_TIMEOUT, events.send(PeerTaskEvent::Save(reply))).await;
            if matches!(sent, Ok(Ok(()))) {
                waiting.push((id, ranks));
            }
        }
        let mut saved = SavedRanks::default();
        for (id, ranks) in waiting {
            if let Ok(ranks) = ranks.await {
                saved.by_peer.insert(id, ranks);
            }
        }
        self.muted.store(true, Relaxed);
        saved.generation = self.task_params.generations.load(Relaxed);
        debug!(peers = saved.by_peer.len(), "control sessions stopped for a successor");
        saved
    }

    /// Closes all connections, so that every peer ends its sessions with this node at once, and
    /// waits at most `wait` until they confirm it.
    pub(crate) async fn close(&self, wait: Duration) {
        debug!("control sessions closed: going away");
        self.endpoint.close(CLOSE_GOING_AWAY, b"going away");
        // A peer that cannot be reached detects the missing heartbeats.
        let _ = timeout(wait, self.endpoint.wait_idle()).await;
    }
}

/// Passes every handshake to the task of the peer at whose address it arrived.
async fn dispatch_handshakes(
    endpoint: Endpoint,
    peers: PeerContexts,
    unverified_sources: Arc<Mutex<UnverifiedSources>>,
    joins: JoinAdmission,
) {
    let mut unverified = UnverifiedHandshakes {
        peers: peers.clone(),
        sources: unverified_sources,
        permits: Arc::new(Semaphore::new(MAX_UNVERIFIED_HANDSHAKES)),
        limiter: Arc::default(),
        joins,
        tasks: JoinSet::new(),
    };
    while let Some(incoming) = endpoint.accept().await {
        while unverified.tasks.try_join_next().is_some() {}
        let Some(peer) = peer_address::peer_of(incoming.remote_address()) else {
            unverified.admit(incoming);
            continue;
        };
        let events = lock_unpoisoned(&peers).get(&peer).map(|peer| peer.events.clone());
        match events.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(permit)) => permit.send(PeerTaskEvent::Incoming(Box::new(incoming))),
            // Ignoring costs least; a genuine peer retransmits its first datagram.
            _ => incoming.ignore(),
        }
    }
}

/// Handshakes that arrived on no route.
struct UnverifiedHandshakes {
    peers: PeerContexts,
    sources: Arc<Mutex<UnverifiedSources>>,
    /// One permit per handshake under way.
    permits: Arc<Semaphore>,
    limiter: Arc<Mutex<ReportLimiter>>,
    joins: JoinAdmission,
    tasks: JoinSet<()>,
}

impl UnverifiedHandshakes {
    /// Accepts a handshake once its source address is validated, which costs this node no state;
    /// [`MAX_UNVERIFIED_HANDSHAKES`] at once.
    fn admit(&mut self, incoming: quinn::Incoming) {
        if !incoming.remote_address_validated() {
            // The Retry is smaller than the datagram it answers (S-06).
            let _ = incoming.retry();
            return;
        }
        let Ok(permit) = self.permits.clone().try_acquire_owned() else { return incoming.ignore() };
        let (peers, sources) = (self.peers.clone(), self.sources.clone());
        let from = incoming.remote_address();
        let find_peer = move |key| {
            let context =
                lock_unpoisoned(&peers).values().find(|peer| peer.accepts_key(key))?.clone();
            lock_unpoisoned(&sources).set_peer(from, context.peer);
            Some(context)
        };
        let source = lock_unpoisoned(&self.sources).find_source(from).map(|it| it.from.ip());
        let (limiter, joins) = (self.limiter.clone(), self.joins.clone());
        self.tasks.spawn(async move {
            let serve_join = async |connection| {
                // A source that was evicted meanwhile cannot be answered.
                if let Some(source) = source {
                    joins.serve_join(connection, source).await;
                }
            };
            handshake::accept_unverified(find_peer, incoming, permit, &limiter, serve_join).await
        });
    }
}

/// Locks; the guarded values are valid after any panic.
fn lock_unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every key that a peer may prove.
fn accepted_keys(config: &Config) -> impl Iterator<Item = NodeKey> {
    config.peers.iter().flat_map(config::PeerConfig::accepted_keys)
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
