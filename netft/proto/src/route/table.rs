//! The forwarding table: an immutable value the packet path reads.

use crate::ids::{PeerId, RouteId};

/// Which route carries data to each peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardingTable {
    /// Counts up with every table the engine publishes.
    pub generation: u64,
    /// One row per peer, in the order of their ids.
    pub peers: Vec<PeerForwarding>,
}

/// One peer's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerForwarding {
    /// The peer.
    pub peer: PeerId,
    /// The route that carries data to it; `None` while no route is usable.
    pub active: Option<RouteId>,
    /// A copy of the data goes here while the active route is suspect.
    pub duplicate: Option<RouteId>,
    /// The other routes that are up, best first: where unacknowledged data is sent again.
    pub backups: Vec<RouteId>,
    /// The routes flows may be spread over: up, and their hold is over. Best first; the active
    /// route is among them unless it is held or a half-route.
    pub balance_set: Vec<RouteId>,
    /// The routes on which data stays unacknowledged.
    pub suspects: Vec<RouteId>,
    /// Every route worth racing a handshake over while no route is active, best first.
    pub candidates: Vec<RouteId>,
}
