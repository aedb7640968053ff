//! The forwarding table of the packet path: immutable, replaced as a whole.
//!
//! The driver builds it from the engine's [rows](netft_proto::engine::Engine::forwarding), the open
//! sockets, the live sessions and the adapter's queues; workers load it once per turn.

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
    route::policy::PacketFields,
    session::Session,
    wire::DropReason,
};

use crate::io::{
    counters::RouteCounters,
    path::Path,
    quic::transport::{CidTags, QuicTransport},
    relays::FibRelays,
    socket::{SocketId, TunQueue, UdpSocket},
    steering::{Forwarding, TrafficSteering},
};

/// The current table, shared with the workers.
pub type SharedFib = Arc<ArcSwap<Fib>>;

/// One version of the forwarding state.
#[derive(Default)]
pub struct Fib {
    /// This node's own virtual addresses.
    pub local_addrs: Option<VirtualAddrs>,
    /// The adapter's queues, one per worker; empty while the adapter is gone.
    pub queues: Vec<Arc<TunQueue>>,
    /// The open sockets by id.
    pub sockets: HashMap<SocketId, Arc<UdpSocket>>,
    /// The peers, by index.
    pub peers: Vec<FibPeer>,
    /// Virtual IPv4 address → index in `peers`.
    pub by_v4: HashMap<Ipv4Addr, usize>,
    /// Virtual IPv6 address → index in `peers`.
    pub by_v6: HashMap<Ipv6Addr, usize>,
    /// This node's session number → session.
    pub sessions: HashMap<u32, Arc<Session>>,
    /// Rate limit of multicast and broadcast packets to all peers; `None`: none are sent or
    /// accepted.
    pub multicast_limit: Option<Arc<TokenBucket>>,
    /// Routes over a relay, and datagrams relayed for others; `None`: neither.
    pub relays: Option<FibRelays>,
    /// Socket and remote address → their route.
    pub routes: HashMap<(SocketId, SocketAddr), FibRoute>,
    /// The QUIC transports of routes that use one, or where the peer requests one.
    pub transports: HashMap<RouteId, Arc<QuicTransport>>,
    /// Mark the connection ids that this node issues, to recognize packets of such transports where
    /// none exists, and first flights.
    pub cid_tags: Option<CidTags>,
    /// Some peer has no active route, or nodes may ask to join. Set by
    /// [`with_reachability`](Self::with_reachability), so that no datagram costs a search through
    /// all peers.
    pub has_unreachable_peer: bool,
    /// Peers whose routes are all up and healthy: their replies need not wake the driver.
    pub healthy_peers: HashSet<PeerId>,
    /// Reply templates of healthy peers, and their indexes in `peers`.
    pub reply_templates: HashMap<PeerId, (usize, Arc<ReplyTemplate>)>,
}

/// A route, as the receiving half looks it up.
#[derive(Clone)]
pub struct FibRoute {
    /// The peer it leads to.
    pub peer: PeerId,
    /// Its number.
    pub route: RouteId,
    /// Counters of the data received on it.
    pub received: Arc<RouteCounters>,
}

/// One peer.
pub struct FibPeer {
    /// The peer.
    pub peer: PeerId,
    /// The session to seal with.
    pub session: Option<Arc<Session>>,
    /// The path of data; `None` while no route is usable.
    pub active: Option<Arc<Path>>,
    /// No path has been usable for `failover.unreachable`.
    pub is_unreachable: bool,
    /// The path of copies while the active one is suspect.
    pub duplicate: Option<Arc<Path>>,
    /// The other usable paths, best first: unacknowledged data is retransmitted on them.
    pub backups: Vec<Arc<Path>>,
    /// Policies that use more than the active path; `None` with failover alone.
    pub steering: Option<Box<TrafficSteering>>,
    /// The paths that a handshake is tried on at once while no route is active.
    pub candidates: Vec<Arc<Path>>,
}

impl FibPeer {
    /// The usable paths, the active one first, then the best others.
    #[inline]
    pub fn usable_paths(&self) -> impl Iterator<Item = &Arc<Path>> + Clone {
        self.active.iter().chain(&self.backups)
    }

    /// Selects the paths of a packet; `None` while no route is usable. `fields` is called only for
    /// a peer with policies.
    #[inline]
    pub fn select_forwarding(
        &self,
        fields: impl FnOnce() -> PacketFields,
    ) -> Option<Forwarding<'_>> {
        let path = self.active.as_deref()?;
        let failover = Forwarding { path, duplicate: self.duplicate.as_deref() };
        let Some(steering) = &self.steering else { return Some(failover) };
        Some(steering.select_forwarding(failover, &fields()))
    }

    /// The reason of a drop, once the peer is unreachable for longer than its time.
    #[cold]
    pub fn explain_drop(&self, reason: DropReason) -> DropReason {
        match reason {
            DropReason::NoRoute | DropReason::NoSession if self.is_unreachable => {
                DropReason::Unreachable
            }
            reason => reason,
        }
    }

    /// The largest frame that every usable path carries, so that each frame can be retransmitted on
    /// any of them; 0 without a route.
    #[inline]
    pub fn max_frame(&self) -> usize {
        let paths = self.active.iter().chain(&self.duplicate).chain(&self.backups);
        paths.map(|path| path.max_datagram).min().unwrap_or_default()
    }
}

impl Fib {
    /// The table with `has_unreachable_peer` set from its peers.
    pub fn with_reachability(mut self) -> Self {
        self.has_unreachable_peer = self.peers.iter().any(|entry| entry.active.is_none());
        self
    }

    /// QUIC packets are accepted from addresses of no route: some peer has no active one, and may
    /// dial from a new address.
    #[inline]
    pub fn expects_unverified_sources(&self) -> bool {
        self.has_unreachable_peer
    }

    /// The QUIC transport that frames on this route are sent in.
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
