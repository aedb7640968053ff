//! What the packet path reads: one immutable table, swapped whole.
//!
//! The driver builds it from the engine's [`ForwardingTable`](netft_proto::route::ForwardingTable),
//! the open sockets, the live sessions and the adapter's queues; workers load it once per batch.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use netft_proto::{
    cadence::reply_template::ReplyTemplate,
    ids::{PeerId, RouteId, virtual_addrs::VirtualAddrs},
    loss_detection::UsablePath,
    packet::token_bucket::TokenBucket,
    session::Session,
};

use crate::io::{
    counters::RouteCounters,
    quic::transport::{CidTag, QuicTransport},
    relays::FibRelays,
    steering::TrafficSteering,
};

/// The table, as workers hold it.
pub type SharedFib = Arc<ArcSwap<Fib>>;

/// One whole version of the forwarding state.
#[derive(Default)]
pub struct Fib {
    /// This node's own virtual addresses.
    pub local_addrs: Option<VirtualAddrs>,
    /// The adapter's queues, one per worker; empty while the adapter is gone.
    pub queues: Vec<Arc<TunQueue>>,
    /// The open sockets by id.
    pub sockets: HashMap<SocketId, Arc<UdpSocket>>,
    /// The peers, by place.
    pub peers: Vec<FibPeer>,
    /// Virtual address → place in `peers`.
    pub by_v4: HashMap<Ipv4Addr, usize>,
    /// Virtual address → place in `peers`.
    pub by_v6: HashMap<Ipv6Addr, usize>,
    /// This node's session number → session.
    pub sessions: HashMap<u32, Arc<Session>>,
    /// How many multicast and broadcast packets go to every peer; `None`: none, and none are taken.
    pub multicast_limit: Option<Arc<TokenBucket>>,
    /// Ways over a third node, and what passes through this one; `None`: neither.
    pub relays: Option<FibRelays>,
    /// Socket and remote address → the route they make, and its peer.
    pub routes: HashMap<(SocketId, SocketAddr), (PeerId, RouteId)>,
    /// The routes with a QUIC connection of their own, or where the peer asks for one.
    pub transports: HashMap<RouteId, Arc<QuicTransport>>,
    /// How a packet for such a connection is told where there is none.
    pub cid_tag: Option<CidTag>,
    /// Some peer is not reached over any route: set by
    /// [`with_reachability`](Self::with_reachability), so that not all peers are looked through for
    /// a datagram.
    pub has_unreachable_peer: bool,
    /// Peers all of whose routes are up and well: their replies need not wake the driver.
    pub healthy_peers: HashSet<PeerId>,
    /// Of these, what may be answered to their requests, and their places in `peers`.
    pub reply_templates: HashMap<PeerId, (usize, Arc<ReplyTemplate>)>,
}

/// One peer.
pub struct FibPeer {
    /// The peer.
    pub peer: PeerId,
    /// The session to seal with.
    pub session: Option<Arc<Session>>,
    /// Where data goes; `None` while no route is usable.
    pub active: Option<Arc<Path>>,
    /// Where a copy of the data goes while the active route is suspect.
    pub duplicate: Option<Arc<Path>>,
    /// The other usable routes, best first: where unacknowledged data is sent again.
    pub backups: Vec<Arc<Path>>,
    /// How packets use more routes than the active one; `None` where all of them fail over.
    pub steering: Option<Box<TrafficSteering>>,
    /// Where a handshake races while no route is active.
    pub candidates: Vec<Arc<Path>>,
}

/// A route as the packet path sees it.
pub struct Path {
    /// The route.
    pub route: RouteId,
    /// The socket bound to its local end.
    pub socket: Arc<UdpSocket>,
    /// The remote end.
    pub remote: SocketAddr,
    /// The largest UDP payload the route carries, bytes.
    pub max_datagram: usize,
    /// Its round-trip time by its heartbeats, when the table was made.
    pub rtt: Option<Duration>,
    /// What was sent here.
    pub counters: Arc<RouteCounters>,
    /// The QUIC connection that carries the frames; `None`: they travel in UDP as they are.
    pub transport: Option<Arc<QuicTransport>>,
}

impl Path {
    /// The route, as the resend ring sees it.
    #[inline]
    pub fn route_rtt(&self) -> UsablePath {
        UsablePath { route: self.route, rtt: self.rtt }
    }
}

/// The number of a socket: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// An open UDP socket, pinned to one interface and one local address.
pub struct UdpSocket {
    /// Its number.
    pub id: SocketId,
    /// The local address.
    pub local: SocketAddr,
    /// The interface it is pinned to.
    pub ifindex: u32,
    /// The worker that receives on it (sockets of one address share the port, `SO_REUSEPORT`).
    pub worker: usize,
    /// The descriptor, non-blocking.
    pub fd: OwnedFd,
}

/// One queue of the adapter.
pub struct TunQueue {
    /// The descriptor, non-blocking.
    pub fd: OwnedFd,
    /// Whether reads and writes carry a 10-byte `virtio_net_hdr`.
    pub vnet_hdr: bool,
}

impl FibPeer {
    /// The largest frame every usable route carries: one that is in flight when its route dies can
    /// be sent again on any other. 0 without a route.
    #[inline]
    pub fn max_frame(&self) -> usize {
        let paths = self.active.iter().chain(&self.duplicate).chain(&self.backups);
        paths.map(|path| path.max_datagram).min().unwrap_or_default()
    }
}

impl Fib {
    /// The table with what follows from its peers noted.
    pub fn with_reachability(mut self) -> Self {
        self.has_unreachable_peer = self.peers.iter().any(|entry| entry.active.is_none());
        self
    }

    /// Whether QUIC may come from an address that is no route's: some peer is not reached over any.
    #[inline]
    pub fn expects_unverified_sources(&self) -> bool {
        self.has_unreachable_peer
    }

    /// The QUIC connection frames on this route are to travel in.
    #[inline]
    pub(in crate::io) fn transport_of(&self, route: RouteId) -> Option<&Arc<QuicTransport>> {
        if self.transports.is_empty() {
            return None;
        }
        self.transports.get(&route).filter(|transport| transport.is_enabled())
    }

    /// The peer that owns a virtual address.
    #[inline]
    pub fn peer_at(&self, addr: IpAddr) -> Option<&FibPeer> {
        let place = match addr {
            IpAddr::V4(v4) => self.by_v4.get(&v4),
            IpAddr::V6(v6) => self.by_v6.get(&v6),
        }?;
        self.peers.get(*place)
    }
}
