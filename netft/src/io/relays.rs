//! What the packet path knows of relays: whom this node serves as one, and its own ways over one.
//!
//! A way over a relay looks like any other route to everything above: its socket, the *front*,
//! and its remote address, the *back*, are two UDP sockets of this process on the loopback
//! interface. What is sent from the front arrives at the back, and leaves from there in a frame to
//! the relay; what the relay brings goes from the back to the front. So heartbeats, data,
//! acknowledgements, probes and the handshake all pass, and none of them knows.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use netft_proto::{
    ids::{PeerId, RouteId},
    packet::token_bucket::TokenBucket,
    wire::relay::NodeTag,
};

use crate::io::{
    fib::FibPeer,
    path::Path,
    socket::{SocketId, UdpSocket},
};

/// The part of the forwarding table that is about relays.
#[derive(Default)]
pub struct FibRelays {
    /// Bounds what this node passes on for others; `None`: nothing.
    pub relay_limit: Option<Arc<TokenBucket>>,
    /// Whether this node takes what comes over a relay.
    pub uses: bool,
    /// The peers by tag, each with its place in the table.
    pub peers: HashMap<NodeTag, (PeerId, usize)>,
    /// The tags of the peers.
    pub tags: HashMap<PeerId, NodeTag>,
    /// Relay and peer → this node's way there.
    pub endpoints: HashMap<(PeerId, PeerId), Arc<RelayEndpoint>>,
    /// The same by their backs.
    pub by_outer_socket: HashMap<SocketId, Arc<RelayEndpoint>>,
    /// Their fronts.
    pub inner_sockets: HashSet<SocketId>,
    /// Their routes.
    pub relay_routes: BTreeSet<RouteId>,
}

/// A way to a peer over a relay.
pub struct RelayEndpoint {
    /// The relay.
    pub via: PeerId,
    /// The peer.
    pub peer: PeerId,
    /// The socket of the route.
    pub inner: Arc<UdpSocket>,
    /// Its remote end.
    pub outer: Arc<UdpSocket>,
}

impl FibRelays {
    /// The best usable route to a peer that is none over a relay: there is one hop only.
    pub fn direct_path<'a>(&self, entry: &'a FibPeer) -> Option<&'a Arc<Path>> {
        let mut usable = entry.active.iter().chain(&entry.backups);
        usable.find(|path| !self.relay_routes.contains(&path.route))
    }
}
