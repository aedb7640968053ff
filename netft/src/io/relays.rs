//! The relay part of the forwarding table: the peers this node relays for, and its own routes over
//! a relay.
//!
//! A route over a relay is an ordinary route to everything else: its socket (*inner*) and its
//! remote address (*outer*) are two UDP sockets of this process on the loopback interface. A
//! datagram sent from the inner socket arrives at the outer one, and leaves from there in a frame
//! to the relay; a datagram from the relay goes from the outer socket to the inner one. So
//! heartbeats, data, acknowledgements, probes and the handshake need no code for relays.

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
    path::Path,
    socket::{SocketId, UdpSocket},
};

/// The relay part of the forwarding table.
#[derive(Default)]
pub struct FibRelays {
    /// Rate limit of datagrams relayed for other nodes; `None`: none are relayed.
    pub relay_limit: Option<Arc<TokenBucket>>,
    /// This node accepts datagrams over a relay.
    pub uses: bool,
    /// The peers by tag, each with its index in the table.
    pub peers: HashMap<NodeTag, (PeerId, usize)>,
    /// The tags of the peers.
    pub tags: HashMap<PeerId, NodeTag>,
    /// Relay and peer → this node's route there.
    pub endpoints: HashMap<(PeerId, PeerId), Arc<RelayEndpoint>>,
    /// The same by outer socket.
    pub by_outer_socket: HashMap<SocketId, Arc<RelayEndpoint>>,
    /// Their inner sockets.
    pub inner_sockets: HashSet<SocketId>,
    /// Their routes.
    pub relay_routes: BTreeSet<RouteId>,
}

/// The endpoint of a route to a peer over a relay.
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
    /// The first of a peer's usable paths that does not lead over a relay: a datagram is relayed
    /// once at most.
    pub fn direct_path<'a>(
        &self,
        mut usable: impl Iterator<Item = &'a Arc<Path>>,
    ) -> Option<&'a Arc<Path>> {
        usable.find(|path| !self.relay_routes.contains(&path.route))
    }
}
