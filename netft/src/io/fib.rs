//! What the packet path reads: one immutable table, swapped whole.
//!
//! The driver builds it from the engine's [`ForwardingTable`](netft_proto::route::ForwardingTable),
//! the open sockets, the live sessions and the adapter's queues; workers load it once per batch.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use netft_proto::{
    cadence::reply_template::ReplyTemplate,
    ids::{PeerId, RouteId, virtual_addrs::VirtualAddrs},
    packet::token_bucket::TokenBucket,
    session::Session,
};

use crate::io::{
    path::Path,
    quic::transport::{CidTag, QuicTransport},
    relays::FibRelays,
    socket::{SocketId, TunQueue, UdpSocket},
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
