//! Findings of `netft validate`, on this node and on its peers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `netft validate --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ValidationResult {
    /// Findings on this node and between it and its peers, most severe first.
    pub findings: Vec<Finding>,
    /// A daemon was queried; without one only this machine was checked.
    pub daemon: bool,
    /// Findings of each peer on itself, in the order of the configuration; empty without a daemon
    /// and with `--local`.
    #[serde(default)]
    pub peers: Vec<PeerValidation>,
}

/// `POST /v1/validate`: probes every path of this node again, and queries every peer unless
/// `?local=true`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerValidations {
    /// Every peer of the config.
    pub peers: Vec<PeerValidation>,
}

/// Findings of a peer on itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerValidation {
    /// Name in this node's configuration.
    pub peer: String,
    /// Reason for a missing answer, else null; the other fields are empty then.
    pub error: Option<String>,
    /// Milliseconds its clock is ahead of this node's, negative for behind; includes the time
    /// the answer took.
    pub clock_skew_ms: Option<i64>,
    /// Findings, most severe first; at most 64. Control characters are escaped.
    pub findings: Vec<Finding>,
    /// Less severe findings it left out.
    pub left_off: usize,
    /// Its routes to this node in state up.
    pub paths: Vec<PeerPath>,
}

/// A route of a peer to this node, as the peer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerPath {
    /// The peer's physical address and port.
    pub real_local: SocketAddr,
    /// This node's address, as the peer knows it.
    pub real_remote: SocketAddr,
    /// Path MTU towards this node, bytes.
    pub path_mtu: usize,
    /// MTU of the peer's interface, bytes.
    pub path_mtu_limit: usize,
    /// Probes are in flight that may find another size.
    #[serde(default)]
    pub path_mtu_probing: bool,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// Kind: `firewall`, `one-network`, …; a stable identifier.
    pub id: String,
    /// Severity.
    pub severity: Severity,
    /// Place: a peer, a route, an interface.
    pub place: String,
    /// Description.
    pub what: String,
    /// Remedy.
    pub remedy: String,
}

impl Finding {
    /// A finding of kind `id`.
    pub fn new(
        severity: Severity,
        id: &str,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (place, what, remedy) = (place.into(), what.into(), remedy.into());
        Self { id: id.to_owned(), severity, place, what, remedy }
    }
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Information.
    Note,
    /// Works until something else fails.
    Warning,
    /// Does not work.
    Error,
}
