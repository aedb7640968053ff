//! HTTP and JSON on a Unix socket, for `netft` and `curl --unix-socket`: schema, server, client.

pub mod backend;
pub mod cause;
pub mod client;
pub mod cluster;
pub mod convert;
mod drain;
pub mod drill;
pub mod event_limiter;
pub mod journal;
pub mod listener;
mod local_interface;
pub mod log_counts;
pub mod metrics;
pub mod metrics_server;
pub mod networks;
#[cfg(test)]
mod openapi;
pub mod overrides;
pub mod peer_report;
pub(crate) mod policies;
pub mod rate_limit;
pub mod report;
pub mod schema;
pub mod server;
mod session_state;
pub mod validate;
pub mod verdict;
mod vips;
pub mod why;
pub mod words;

use std::path::{Path, PathBuf};

/// Control socket of an adapter's daemon.
pub fn socket_path(runtime_dir: &Path, adapter: &str) -> PathBuf {
    runtime_dir.join(format!("{adapter}.sock"))
}
