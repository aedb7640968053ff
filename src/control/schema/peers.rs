//! Peers in JSON.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use netft::api::session::SessionCause;
use serde::{Deserialize, Serialize};

use crate::control::{session_state::SessionState, words};

/// `GET /v1/peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerList {
    /// Every peer, in the config's order.
    pub peers: Vec<PeerView>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// Its public key, base64.
    pub key: String,
    /// Its virtual IPv4 address.
    pub v4: Ipv4Addr,
    /// Its virtual IPv6 address.
    pub v6: Ipv6Addr,
    /// Physical addresses of its routes.
    pub addresses: Vec<SocketAddr>,
    /// There are keys of a session with it; they outlive every route.
    pub session: bool,
    /// `up`, `silent` (no heartbeat of it within a detection time on any route) or `none`.
    #[serde(default, with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<SessionState>"))]
    pub session_state: SessionState,
    /// Kind of the problem of a session that is not up.
    #[serde(default, with = "words::optional")]
    #[cfg_attr(test, schemars(with = "Option<words::WordSchema<SessionCause>>"))]
    pub session_cause: Option<SessionCause>,
    /// The problem of a session that is not up, in one line.
    #[serde(default)]
    pub session_reason: Option<String>,
    /// The end that closed the last session: `peer` or `this-node`; null while there is one, and
    /// before the first.
    #[serde(default)]
    pub session_ended_by: Option<String>,
    /// Why the last session ended: `peer-stopped`, `peer-replaced`, `peer-refused`, `replaced`,
    /// `violation` or `peer-removed`.
    #[serde(default)]
    pub session_end_cause: Option<String>,
    /// Why nothing comes back from it through the adapter, while a route to it is usable.
    #[serde(default)]
    pub overlay_problem: Option<String>,
    /// Routes to it that are up and not drained, without relayed ones.
    #[serde(default)]
    pub routes_up: usize,
    /// Routes to it, without relayed ones.
    #[serde(default)]
    pub routes_total: usize,
    /// At least one route to it is usable.
    pub reachable: bool,
    /// It has been silent on every route for `failover.gone`.
    #[serde(default)]
    pub gone: bool,
    /// The route that carries data to it.
    pub active: Option<u32>,
    /// Moves of data away from a route that failed or carried badly.
    pub failovers: u64,
    /// Moves of data by cause.
    #[serde(default)]
    pub moves: MoveCountsView,
    /// Its adapter was up at the last handshake; null without a session, or while it is silent.
    pub adapter_up: Option<bool>,
    /// Cipher of its frames: `AEGIS-256X4`, `AES-256-GCM` or `ChaCha20-Poly1305`; null without a
    /// session.
    #[serde(default)]
    pub cipher: Option<String>,
    /// Its release, by its last hello; null before the first one of this run.
    #[serde(default)]
    pub release: Option<String>,
    /// The lowest and the highest wire version that it speaks, by its last hello.
    #[serde(default)]
    pub wire_versions: Option<[u8; 2]>,
    /// Policy of unclassified traffic: `failover`, `duplicate` or `balance`.
    pub policy: String,
    /// Traffic classes with a policy of their own; the first match decides.
    pub classes: Vec<TrafficClassSpec>,
    /// Its state as far as floating addresses are concerned: `normal`, `recover`, `interrupted` or
    /// `partner-down`; null without floating addresses.
    #[serde(default)]
    pub partner_state: Option<String>,
}

/// A traffic class. Absent criteria match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TrafficClassSpec {
    /// `failover`, `duplicate` or `balance`.
    pub policy: String,
    /// The code point, 0–63.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u64>,
    /// `tcp`, `udp` or `icmp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The TCP or UDP port at either end: `5060`, or `5060-5070`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Smallest packet with its IP header, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u32>,
    /// Largest packet with its IP header, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u32>,
}

/// `GET /v1/peers/{name}`, and the answer to a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerBody {
    /// The peer.
    pub peer: PeerView,
    /// Why the change will not survive a restart; left out where it will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides_unsaved: Option<String>,
}

/// `PATCH /v1/peers/{name}`. Fields left out stay as they are; at least one is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PeerPatch {
    /// Policy of unclassified traffic: `failover`, `duplicate` or `balance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// At most 16 classes; they replace the present ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<TrafficClassSpec>>,
}

/// Moves of data to another route, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct MoveCountsView {
    /// A route failed, or carried data badly.
    pub failover: u64,
    /// A preferred route was good again.
    pub failback: u64,
    /// An operator's order at either end.
    pub drain: u64,
    /// First routes of sessions, and better ones as they came up.
    pub start_up: u64,
}
