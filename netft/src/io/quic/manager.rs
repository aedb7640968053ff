//! The way in: starts the endpoint and one task per peer, and stops them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quinn::Endpoint;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    QuicDatagram, Report, attempt,
    endpoint::{self, EndpointError},
    exchange::Terms,
    failure::GOING_AWAY,
    number::Numbers,
    peer::{EVENTS, Event, Parts, Peer},
    socket::{self, RouteSocket},
    strangers::Strangers,
    tls::Tls,
};
use crate::{
    config::Config,
    id::PeerId,
    io::{
        counters::Counters,
        fib::SharedFib,
        identity::{self, KeyError},
    },
    wire::interfaces::Interfaces,
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

/// The control sessions with all peers. Dropping it stops everything without a farewell.
pub struct Manager {
    endpoint: Endpoint,
    /// By place, as peers are numbered.
    peers: Vec<mpsc::Sender<Event>>,
    fib_changed: watch::Sender<()>,
    /// What every peer is told of this node's interfaces, encoded.
    offer: watch::Sender<Arc<[u8]>>,
    counters: Arc<Counters>,
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
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
        let strangers = socket.strangers();
        let keys = config.peers.iter().map(|peer| peer.key);
        let endpoint = endpoint::start(&tls, &config.key, keys, socket)?;
        let (fib_changed, changes) = watch::channel(());
        let (offer, offers) = watch::channel(Arc::default());
        let numbers = Numbers::default();
        let mut tasks = JoinSet::new();
        let mut peers = Vec::with_capacity(config.peers.len());
        let mut all = Vec::with_capacity(config.peers.len());
        for (peer, place) in config.peers.iter().zip(0..=u16::MAX) {
            let (events, inbox) = mpsc::channel(EVENTS);
            peers.push(events.clone());
            let terms = Terms {
                config: config.clone(),
                peer: PeerId(place),
                peer_addrs: peer.addrs,
                peer_key: peer.key,
                boot_id,
                numbers: numbers.clone(),
                events,
            };
            all.push(terms.clone());
            let parts = Parts {
                terms,
                name: peer.name.clone(),
                endpoint: endpoint.clone(),
                client: endpoint::client(&tls, peer.key)?,
                fib: fib.clone(),
                fib_changed: changes.clone(),
                report: report.clone(),
                offer: offers.clone(),
                inbox,
            };
            tasks.spawn(Peer::new(parts).run());
        }
        tasks.spawn(accept(endpoint.clone(), all, strangers));
        Ok(Self { endpoint, peers, fib_changed, offer, counters, _tasks: tasks })
    }

    /// Says that the forwarding table changed, so that a waiting dial uses a new route at once.
    pub fn fib_changed(&self) {
        self.fib_changed.send_replace(());
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
        if let Some(events) = self.peers.get(usize::from(peer.0)) {
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
async fn accept(endpoint: Endpoint, peers: Vec<Terms>, strangers: Arc<Mutex<Strangers>>) {
    let places = Arc::new(Semaphore::new(MAX_STRANGERS));
    let peers = Arc::new(peers);
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let from = incoming.remote_address();
        let Some(peer) = socket::peer_of(from) else {
            welcome(incoming, &peers, &strangers, &places, &mut tasks);
            continue;
        };
        let events = peers.get(usize::from(peer.0)).map(|terms| &terms.events);
        match events.map(mpsc::Sender::try_reserve) {
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
    peers: &Arc<Vec<Terms>>,
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
        let terms = peers.iter().find(|terms| terms.peer_key == key)?;
        let mut strangers = strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.identify(from, terms.peer);
        Some(terms.clone())
    };
    tasks.spawn(attempt::accept_stranger(terms, incoming, place));
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
