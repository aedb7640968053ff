//! A peer's row of the forwarding table, by route number. The driver resolves it to sockets and
//! sessions.

use crate::ids::{PeerId, RouteId};

/// The routes that carry data to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerForwarding {
    /// The peer.
    pub peer: PeerId,
    /// The route that carries data to it; `None` while no route is usable.
    pub active: Option<RouteId>,
    /// The route that duplicates the data while the active one is suspect.
    pub duplicate: Option<RouteId>,
    /// The other routes that are up, best first: they carry retransmissions.
    pub backups: Vec<RouteId>,
    /// The routes that flows may be balanced over: up, and not held down. Best first; the active
    /// route is among them unless it is held down or a half-route.
    pub balance_set: Vec<RouteId>,
    /// The routes on which data stays unacknowledged.
    pub suspects: Vec<RouteId>,
    /// Every route that a handshake may be raced over while none is active, best first.
    pub candidates: Vec<RouteId>,
}
