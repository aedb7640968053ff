//! The names of nodes, peers and routes. Pure.

mod node_key;
pub mod virtual_addrs;

use std::fmt;

pub use node_key::{NodeKey, NodeKeyError};

/// A peer of this node: its place in the first configuration, or the next free number if it came
/// with a later one. Never reused while the process lives; local to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u16);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A route of this node. Never 0, never reused while the process lives; the peer has its own
/// number for the same route, and heartbeats carry both (as BFD's discriminators, RFC 5880
/// section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
