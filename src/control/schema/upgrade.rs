//! Hand-over to a successor process in JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `POST /v1/upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// Program of the successor; null: the file of the running one.
    #[serde(default)]
    pub binary: Option<PathBuf>,
    /// Milliseconds for the successor to be ready: 0–4000; null: 4000.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// The answer to `POST /v1/upgrade`, once the successor is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UpgradeStarted {
    /// Process id of the successor, which takes the adapter over.
    pub pid: u32,
}
