//! Reports of peers in JSON.

use serde::{Deserialize, Serialize};

/// `POST /v1/report?part=NAME`: this part of the report of every peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerReports {
    /// Every peer of the configuration.
    pub peers: Vec<PeerReport>,
}

/// Part of the report of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerReport {
    /// Name in this node's configuration.
    pub peer: String,
    /// Reason for a missing answer, else null.
    pub error: Option<String>,
    /// The part, without secrets of the peer; control characters are escaped. Null without an
    /// answer.
    pub text: Option<String>,
}
