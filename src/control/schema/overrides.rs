//! Overrides in JSON.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// An operator's override at run time. It stays over a restart until it is taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OverrideView {
    /// `drain`, `in-use` (a route of a drained interface), `admin-down`, `priority`, `timing` or
    /// `policies`.
    pub kind: String,
    /// The interface, of the drain of one.
    pub interface: Option<String>,
    /// The peer, of an override for a route or a peer.
    pub peer: Option<String>,
    /// Physical address and port on this node, of an override for a route.
    pub real_local: Option<SocketAddr>,
    /// Physical address and port on the peer, of an override for a route.
    pub real_remote: Option<SocketAddr>,
    /// Value that was set, in words; null where the kind says it.
    pub value: Option<String>,
    /// The priority that was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The delay that was set, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u32>,
    /// The threshold that was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u16>,
    /// End of the override, RFC 3339; null where an operator has to end it.
    pub until: Option<String>,
    /// Numbers of the present routes that it applies to.
    pub routes: Vec<u32>,
}
