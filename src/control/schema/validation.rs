//! What `netft validate` finds, here and on the peers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `netft validate --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidationResult {
    /// What is wrong on this node, and between it and its peers, the worst first.
    pub findings: Vec<Finding>,
    /// A daemon was asked, too; without one only this machine was looked at.
    pub daemon: bool,
    /// What each peer says of itself, in the order of the config; empty without a daemon, and
    /// with `--local`.
    #[serde(default)]
    pub peers: Vec<PeerValidation>,
}

/// `POST /v1/validate`: every path of this node is probed anew, and every peer is asked unless
/// `?local=true`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerValidations {
    /// Every peer of the config.
    pub peers: Vec<PeerValidation>,
}

/// What a peer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerValidation {
    /// Its name in the config here.
    pub peer: String,
    /// Why it gave no answer; null when it did. The rest is empty then.
    pub error: Option<String>,
    /// Milliseconds its clock is ahead of this node's, less than zero for behind; off by what the
    /// answer took to get here.
    pub clock_skew_ms: Option<i64>,
    /// What is wrong on it, the worst first; at most 64. Control characters are written out.
    pub findings: Vec<Finding>,
    /// Findings it left out, less bad than these.
    pub left_off: usize,
    /// Its routes to this node that are up.
    pub paths: Vec<PeerPath>,
}

/// A route of a peer to this node, as the peer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPath {
    /// The peer's physical address and port.
    pub real_local: SocketAddr,
    /// This node's, as the peer knows it.
    pub real_remote: SocketAddr,
    /// The largest IP packet the route carries to this node, bytes.
    pub path_mtu: usize,
    /// The largest the peer's interface would take, bytes.
    pub path_mtu_limit: usize,
    /// Probes are under way that may find another size.
    #[serde(default)]
    pub path_mtu_probing: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of mistake it is: `firewall`, `one-network`, …; such words keep their meaning.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// Where it is: a peer, a route, an interface.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
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

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// It works, until something else fails.
    Warning,
    /// It does not work.
    Error,
}
