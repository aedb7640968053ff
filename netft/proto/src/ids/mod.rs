//! Identifiers of nodes, peers and routes. Pure.

mod node_key;
pub mod virtual_addrs;

use std::fmt;

pub use node_key::{NodeKey, NodeKeyError};

/// Id of a peer: its index in the first configuration, or the next free number if it was added
/// later. Local to the process, and never reused in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PeerId(pub u16);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Id of a route of this node. Never 0, never reused in the process. The peer has its own id for
/// the same route, and heartbeats carry both (as BFD discriminators, RFC 5880 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RouteId(pub u32);

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
