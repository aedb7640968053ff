//! The way in: starts the endpoint and one task per peer, adds and removes peers, stops.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quinn::Endpoint;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    QuicDatagram, Report,
    endpoint::{self, EndpointError},
    exchange::Terms,
    failure::GOING_AWAY,
    number::Numbers,
    peer::{EVENTS, Event, Parts, Peer},
    socket::{self, RouteSocket},
    tls::Tls,
};
use crate::{
    config::{self, Config},
    id::PeerId,
    io::{
        counters::Counters,
        fib::SharedFib,
        identity::{self, KeyError},
    },
};

/// How long the farewell may take: a little more than QUIC drains.
const FAREWELL: Duration = Duration::from_millis(500);

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

/// The ways to the peers' tasks.
type Peers = Arc<Mutex<BTreeMap<PeerId, mpsc::Sender<Event>>>>;

/// The control sessions with all peers. Dropping it stops everything without a farewell.
pub struct Manager {
    endpoint: Endpoint,
    peers: Peers,
    fib_changed: watch::Sender<()>,
    counters: Arc<Counters>,
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
    report: Report,
    boot_id: u64,
}

impl Manager {
    /// Starts, inside a tokio runtime. `boot_id` is random per start of the daemon; `arrivals` is
    /// bounded to [`QUEUE`](super::QUEUE) and filled by the packet workers.
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
        let keys = config.peers.iter().map(|peer| peer.key);
        let endpoint = endpoint::start(&tls, &config.key, keys, socket)?;
        let (fib_changed, changes) = watch::channel(());
        let start = Starter { tls, fib, changes, numbers: Numbers::default(), report, boot_id };
        let mut tasks = JoinSet::new();
        let peers = Peers::default();
        tasks.spawn(accept(endpoint.clone(), peers.clone()));
        let manager =
            Self { endpoint, peers, fib_changed, counters, start, tasks: Mutex::new(tasks) };
        for peer in &config.peers {
            manager.welcome(peer, &config)?;
        }
        Ok(manager)
    }

    /// Starts the task of one more peer.
    fn welcome(&self, peer: &config::Peer, config: &Arc<Config>) -> Result<(), StartError> {
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
            events: events.clone(),
        };
        let parts = Parts {
            terms,
            name: peer.name.clone(),
            endpoint: self.endpoint.clone(),
            client,
            fib: start.fib.clone(),
            fib_changed: start.changes.clone(),
            report: start.report.clone(),
            inbox,
        };
        locked(&self.peers).insert(peer.id, events);
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
        let peers: Vec<_> =
            locked(&self.peers).iter().map(|(id, events)| (*id, events.clone())).collect();
        for (id, events) in peers {
            let stays = config.peer_of(id).is_some();
            if !stays {
                locked(&self.peers).remove(&id);
            }
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
                self.welcome(peer, config)?;
            }
        }
        Ok(())
    }

    /// Says that the forwarding table changed, so that a waiting dial uses a new route at once.
    pub fn fib_changed(&self) {
        self.fib_changed.send_replace(());
    }

    /// Asks for a fresh session with `peer`: its keys are nearly used up, or nothing authentic has
    /// come from it for long although its routes look alive. The present session serves until the
    /// fresh one does. Asking again meanwhile is harmless.
    pub fn renew(&self, peer: PeerId) {
        if let Some(events) = locked(&self.peers).get(&peer) {
            // A full queue means that the peer's task is busy with handshakes already.
            let _ = events.try_send(Event::Renew);
        }
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
async fn accept(endpoint: Endpoint, peers: Peers) {
    while let Some(incoming) = endpoint.accept().await {
        let peer = socket::peer_of(incoming.remote_address());
        let events = peer.and_then(|peer| locked(&peers).get(&peer).cloned());
        match events.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => place.send(Event::Incoming(Box::new(incoming))),
            // Silence costs least; a genuine peer sends its first datagram again.
            _ => incoming.ignore(),
        }
    }
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
