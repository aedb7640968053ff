//! Test fixture of two nodes: sockets, forwarding tables, and reported events.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use netft_proto::{
    config::{Config, PeerConfig, PrivateKey},
    ids::{NodeKey, PeerId, RouteId, virtual_addrs::VirtualAddrs},
    session::Session,
    wire::{
        header::{FRAME_OVERHEAD, FrameHeader, FrameKind, HEADER_LEN, is_quic},
        hello::{CipherSupport, Hello},
        interfaces::Advertisement,
        version::WireVersions,
    },
};
use quinn::{Connection, ConnectionError, Endpoint, VarInt};
use tokio::{sync::mpsc, task::JoinSet};
use zeroize::Zeroizing;

use crate::{
    api::session::SessionCause,
    io::{
        counters::Counters,
        fib::{Fib, FibPeer, FibRoute, SharedFib},
        handover::SavedRanks,
        identity,
        path::Path,
        quic::{
            DATAGRAM_QUEUE_LEN, FromQuic, QuicDatagram, endpoint,
            peer_address::address_of,
            session::manager::{CLOSE_TIMEOUT, SessionManager},
            socket::RouteSocket,
            tls::{CONTROL_ALPNS, SERVER_NAME, TlsIdentity},
        },
        socket,
        socket::SocketId,
    },
};

/// Timeout of a test that hangs; no test asserts on time.
const DEADLINE: Duration = Duration::from_secs(30);

/// Configuration of a node, apart from its process.
#[derive(Clone)]
pub(in crate::io) struct Plan {
    pub(in crate::io) name: &'static str,
    pub(in crate::io) key: PrivateKey,
    pub(in crate::io) public: NodeKey,
    pub(in crate::io) addrs: VirtualAddrs,
    pub(in crate::io) rekey: Duration,
    /// Index of a socket that is not read.
    pub(in crate::io) silent: Option<usize>,
    /// The key of a second configured peer, whose addresses are unknown.
    pub(in crate::io) second_peer: Option<NodeKey>,
    pub(in crate::io) sockets: Arc<Vec<UdpSocket>>,
}

impl Plan {
    pub(in crate::io) fn new(name: &'static str, sockets: usize) -> Self {
        let key = identity::generate_key().unwrap();
        let public = identity::public_key(&key).unwrap();
        let open = |_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self {
            name,
            key,
            public,
            addrs: VirtualAddrs::derive_from_key(&public),
            rekey: Duration::from_secs(3600),
            silent: None,
            second_peer: None,
            sockets: Arc::new((0..sockets).map(open).collect()),
        }
    }

    pub(in crate::io) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
    }

    fn config(&self, peer: &Self) -> Config {
        let key = PrivateKey(Zeroizing::new(self.key.0.to_vec()));
        let mut config = Config::new(self.name, key, self.public);
        config.adapter.addrs = self.addrs;
        config.session.rekey_interval = self.rekey;
        config.peers = vec![PeerConfig {
            id: PeerId(0),
            name: peer.name.to_owned(),
            key: peer.public,
            next_key: None,
            addrs: peer.addrs,
            addresses: peer.addresses(),
            names: Vec::new(),
            routes: Vec::new(),
            policies: netft_proto::route::PeerPolicies::default(),
            transport: None,
        }];
        if let Some(key) = self.second_peer {
            config.peers.push(PeerConfig { id: PeerId(1), ..PeerConfig::new("node-z", key) });
        }
        config
    }

    /// Every socket paired with the peer's of the same place, all candidates, none active.
    fn fib(&self, peer: &Self) -> Fib {
        let mut fib = Fib::default();
        let mut candidates = Vec::new();
        for ((socket, remote), n) in self.sockets.iter().zip(peer.addresses()).zip(1..) {
            let socket = Arc::new(socket::UdpSocket {
                id: SocketId(n),
                local: socket.local_addr().unwrap(),
                ifindex: 1,
                worker: 0,
                fd: socket.try_clone().unwrap().into(),
                fault: None,
            });
            let (route, received) = (RouteId(n), Arc::default());
            let route = FibRoute { peer: PeerId(0), route, received };
            fib.routes.insert((socket.id, remote), route);
            fib.sockets.insert(socket.id, socket.clone());
            let path = Path {
                route: RouteId(n),
                socket,
                remote,
                max_datagram: 1472,
                plain_sends: false,
                rtt: None,
                loss_epoch: 0,
                counters: Arc::default(),
                transport: None,
            };
            candidates.push(Arc::new(path));
        }
        fib.peers.push(FibPeer {
            is_unreachable: false,
            peer: PeerId(0),
            session: None,
            active: None,
            duplicate: None,
            backups: Vec::new(),
            steering: None,
            candidates,
        });
        fib.with_reachability()
    }

    /// Reads the sockets until dropped.
    fn readers(&self) -> (JoinSet<()>, mpsc::Receiver<QuicDatagram>) {
        let (sender, receiver) = mpsc::channel(DATAGRAM_QUEUE_LEN);
        let mut readers = JoinSet::new();
        for (place, id) in (0..self.sockets.len()).zip(1..) {
            if self.silent == Some(place) {
                continue;
            }
            let socket = self.sockets[place].try_clone().unwrap();
            let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
            let sender = sender.clone();
            readers.spawn(async move {
                let mut buffer = [0; 2048];
                loop {
                    // An ICMP answer to a datagram sent earlier is an error here; read on.
                    let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
                    assert!(is_quic(buffer[0]), "the fixed bit is missing");
                    let bytes = buffer[..len].to_vec();
                    let _ = sender.try_send(QuicDatagram { socket: SocketId(id), from, bytes });
                }
            });
        }
        (readers, receiver)
    }
}

/// Two nodes configured as peers, over `routes` routes.
pub(in crate::io) fn pair(routes: usize) -> (Plan, Plan) {
    (Plan::new("node-a", routes), Plan::new("node-b", routes))
}

/// Events that a node's driver received.
#[derive(Default)]
pub(in crate::io) struct ReportedEvents {
    pub(in crate::io) live: BTreeMap<u32, Arc<Session>>,
    pub(in crate::io) preferred: Option<u32>,
    pub(in crate::io) ups: usize,
    pub(in crate::io) duplicates: usize,
    pub(in crate::io) reasons: Vec<String>,
    pub(in crate::io) problems: Vec<SessionCause>,
    pub(in crate::io) names: BTreeSet<String>,
    pub(in crate::io) boots: BTreeSet<u64>,
    /// State of the peer's adapter in the last hello.
    pub(in crate::io) adapter_up: Option<bool>,
    pub(in crate::io) lists: Vec<Advertisement>,
}

impl ReportedEvents {
    fn take(&mut self, message: FromQuic) {
        match message {
            FromQuic::SessionUp { session, boot_id, peer_name, preferred, adapter_up, .. } => {
                self.adapter_up = Some(adapter_up);
                let local = session.local_id();
                assert_eq!(session.boot_id(), boot_id);
                assert!(self.live.insert(local, session).is_none(), "{local} is up twice");
                self.ups += 1;
                self.names.insert(peer_name);
                self.boots.insert(boot_id);
                if preferred {
                    self.preferred = Some(local);
                }
            }
            FromQuic::Interfaces { list, .. } => self.lists.push(list),
            FromQuic::SessionPreferred { local_session, .. } => {
                assert!(self.live.contains_key(&local_session), "{local_session} is not up");
                self.preferred = Some(local_session);
            }
            FromQuic::SessionDown { local_session, .. } => {
                assert!(self.live.remove(&local_session).is_some(), "{local_session} is not up");
                if self.preferred == Some(local_session) {
                    self.preferred = None;
                }
            }
            FromQuic::DuplicateNode { .. } => self.duplicates += 1,
            FromQuic::Refused { reason, .. } => self.reasons.push(reason),
            FromQuic::HandshakeFailed { problem, .. } => self.problems.push(problem.cause),
        }
    }

    pub(in crate::io) fn never_up(&self) -> bool {
        self.ups == 0
    }

    pub(in crate::io) fn live_boots(&self) -> BTreeSet<u64> {
        self.live.values().map(|session| session.boot_id()).collect()
    }

    fn sending(&self) -> Option<Arc<Session>> {
        self.live.get(&self.preferred?).cloned()
    }
}

/// A running node. Dropping it ends it without closing its connections.
pub(in crate::io) struct Node {
    pub(in crate::io) manager: SessionManager,
    reported: Arc<Mutex<ReportedEvents>>,
    fib: SharedFib,
    plan: Plan,
    peer: Plan,
    _readers: JoinSet<()>,
}

impl Node {
    pub(in crate::io) fn start(plan: &Plan, peer: &Plan, boot_id: u64) -> Self {
        let node = Self::start_without_routes(plan, peer, boot_id);
        node.give_routes();
        node
    }

    pub(in crate::io) fn start_without_routes(plan: &Plan, peer: &Plan, boot_id: u64) -> Self {
        let fib: SharedFib = Arc::new(ArcSwap::from_pointee(Fib::default()));
        let (readers, arrivals) = plan.readers();
        let reported = Arc::new(Mutex::new(ReportedEvents::default()));
        let events = reported.clone();
        let report = Arc::new(move |message| events.lock().unwrap().take(message));
        let config = Arc::new(plan.config(peer));
        let manager = SessionManager::start(
            config,
            (fib.clone(), arrivals),
            report,
            boot_id,
            SavedRanks::default(),
        )
        .unwrap();
        let (plan, peer) = (plan.clone(), peer.clone());
        Self { manager, reported, fib, plan, peer, _readers: readers }
    }

    pub(in crate::io) fn give_routes(&self) {
        self.fib.store(Arc::new(self.plan.fib(&self.peer)));
        self.manager.notify_fib_changed();
    }

    pub(in crate::io) fn set_joining(&self, joining: bool) {
        self.manager.set_joining(joining, &self.plan.config(&self.peer));
    }

    /// Activates one route, as the driver does once it is usable.
    pub(in crate::io) fn activate(&self) {
        let mut fib = self.plan.fib(&self.peer);
        fib.peers[0].active = Some(fib.peers[0].candidates[0].clone());
        self.fib.store(Arc::new(fib.with_reachability()));
        self.manager.notify_fib_changed();
    }

    pub(in crate::io) fn reported(&self) -> MutexGuard<'_, ReportedEvents> {
        self.reported.lock().unwrap()
    }

    pub(in crate::io) fn preferred(&self) -> Option<u32> {
        self.reported().preferred
    }

    /// The boot id of the peer's process data goes to.
    pub(in crate::io) fn boot(&self) -> Option<u64> {
        self.reported().sending().map(|session| session.boot_id())
    }

    pub(in crate::io) fn complains(&self, what: &str) -> bool {
        self.reported().reasons.iter().any(|reason| reason.contains(what))
    }

    /// Returns whether both send on the same session.
    pub(in crate::io) fn same_session(&self, other: &Self) -> bool {
        let number = self.reported().sending().map(|session| sealed(&session).1.session_id);
        number.is_some() && number == other.preferred()
    }

    pub(in crate::io) async fn close(self) {
        self.manager.close(CLOSE_TIMEOUT).await;
    }
}

/// A frame of `session`.
fn sealed(session: &Session) -> (Vec<u8>, FrameHeader) {
    let mut frame = vec![0; FRAME_OVERHEAD + 5];
    frame[HEADER_LEN..HEADER_LEN + 5].copy_from_slice(b"netft");
    let _ =
        session.seal_frame(FrameKind::Data, 0, session.reserve_counters(1).unwrap(), &mut frame);
    let header = FrameHeader::decode(&frame).unwrap();
    (frame, header)
}

/// Returns whether what `from` sends now is opened by `to`.
pub(in crate::io) fn carries(from: &Node, to: &Node) -> bool {
    let Some(session) = from.reported().sending() else { return false };
    let (mut frame, header) = sealed(&session);
    let Some(session) = to.reported().live.get(&header.session_id).cloned() else { return false };
    session.open_frame(&header, &mut frame).is_ok_and(|payload| payload == b"netft")
}

/// Waits for `condition`.
pub(in crate::io) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < DEADLINE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until both have a session to send on.
pub(in crate::io) async fn both_up(a: &Node, b: &Node) {
    until("both are up", || a.preferred().is_some() && b.preferred().is_some()).await;
}

/// A peer with the right key whose messages the test chooses.
pub(in crate::io) struct Raw {
    endpoint: Endpoint,
    tls: TlsIdentity,
    plan: Plan,
    peer: NodeKey,
    _readers: JoinSet<()>,
}

impl Raw {
    pub(in crate::io) fn start(plan: &Plan, peer: &Plan) -> Self {
        let fib: SharedFib = Arc::new(ArcSwap::from_pointee(plan.fib(peer)));
        let (readers, arrivals) = plan.readers();
        let socket = RouteSocket::new(fib, arrivals, Arc::new(Counters::default()));
        let tls = TlsIdentity::new(&plan.key, plan.public).unwrap();
        let keys = [peer.public].into_iter();
        let endpoint = endpoint::start_endpoint(&tls, &plan.key, keys, socket).unwrap();
        Self { endpoint, tls, plan: plan.clone(), peer: peer.public, _readers: readers }
    }

    pub(in crate::io) async fn connect(&self) -> Result<Connection, ConnectionError> {
        self.connect_speaking(CONTROL_ALPNS).await
    }

    async fn connect_speaking(&self, alpn: &[&[u8]]) -> Result<Connection, ConnectionError> {
        let client =
            endpoint::client_config_with_alpn(&self.tls, [self.peer].into_iter(), alpn).unwrap();
        let address = address_of(PeerId(0));
        self.endpoint.connect_with(client, address, SERVER_NAME).unwrap().await
    }

    /// A framed hello of a process with this boot id.
    pub(in crate::io) fn hello(&self, boot_id: u64) -> Vec<u8> {
        let mut body = Vec::new();
        Hello {
            versions: WireVersions::OWN_RANGE,
            release: String::new(),
            boot_id,
            session_id: 5,
            virtual_v4: self.plan.addrs.v4,
            virtual_v6: self.plan.addrs.v6,
            ciphers: CipherSupport { aes: false, aegis: false },
            adapter_up: true,
            accepts_fragments: true,
            name: self.plan.name.to_owned(),
        }
        .encode(&mut body);
        [&u16::try_from(body.len()).unwrap().to_be_bytes(), body.as_slice()].concat()
    }

    /// Sends `bytes` and returns the code and the reason the node closes with.
    pub(in crate::io) async fn say(&self, bytes: &[u8]) -> (VarInt, String) {
        let connection = self.connect().await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        match connection.closed().await {
            ConnectionError::ApplicationClosed(close) => {
                (close.error_code, String::from_utf8(close.reason.to_vec()).unwrap())
            }
            other => panic!("not refused but {other}"),
        }
    }

    /// The reason a process with this boot id is refused with.
    pub(in crate::io) async fn refused(&self, boot_id: u64) -> String {
        self.say(&self.hello(boot_id)).await.1
    }

    /// Joins as a process with this boot id, which then answers what it is asked until dropped.
    pub(in crate::io) async fn join(&self, boot_id: u64, generation: u32) -> JoinSet<()> {
        self.join_speaking(CONTROL_ALPNS, boot_id, generation).await
    }

    /// The same, with these protocols.
    pub(in crate::io) async fn join_speaking(
        &self,
        alpn: &[&[u8]],
        boot_id: u64,
        generation: u32,
    ) -> JoinSet<()> {
        self.join_on_connection(alpn, boot_id, generation).await.1
    }

    /// The same; returns the connection too.
    pub(in crate::io) async fn join_on_connection(
        &self,
        alpn: &[&[u8]],
        boot_id: u64,
        generation: u32,
    ) -> (Connection, JoinSet<()>) {
        let connection = self.connect_speaking(alpn).await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&self.hello(boot_id)).await.unwrap();
        let mut length = [0; 2];
        recv.read_exact(&mut length).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes(length))];
        recv.read_exact(&mut hello).await.unwrap();
        send.write_all(&[1]).await.unwrap();
        send.write_all(&generation.to_be_bytes()).await.unwrap();
        let mut life = JoinSet::new();
        let held = connection.clone();
        life.spawn(async move {
            let mut tag = [0];
            // ready (1) is answered with confirmed (2), a liveness request (3) with a reply (4).
            while recv.read_exact(&mut tag).await.is_ok() {
                send.write_all(&[tag[0] + 1]).await.unwrap();
            }
            drop(held);
        });
        (connection, life)
    }
}
