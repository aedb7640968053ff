//! Standing orders in JSON.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// An operator's order at run time. It stays over a restart until it is taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    /// `drain`, `in-use` (a route of a drained interface), `admin-down`, `priority`, `timing` or
    /// `policies`.
    pub kind: String,
    /// The interface, of the drain of one.
    pub interface: Option<String>,
    /// The peer, of an order for a route or a peer.
    pub peer: Option<String>,
    /// Physical address and port on this node, of an order for a route.
    pub real_local: Option<SocketAddr>,
    /// Physical address and port on the peer, of an order for a route.
    pub real_remote: Option<SocketAddr>,
    /// Value that was ordered, in words; null where the kind says it.
    pub value: Option<String>,
    /// End of the order, RFC 3339; null where an operator has to end it.
    pub until: Option<String>,
    /// Numbers of the present routes that it applies to.
    pub routes: Vec<u32>,
}
