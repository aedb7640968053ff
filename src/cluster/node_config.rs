//! Config of a node: its file, and the roster of its cluster.

use std::{path::Path, sync::Arc};

use netft::{config::Config, roster::SignedRoster};

use super::store::ClusterStore;
use crate::{config, config::LoadedConfig, exit::ExitError};

/// A node's config, and where it comes from.
#[derive(Debug)]
pub struct NodeConfig {
    /// The config file.
    pub file: LoadedConfig,
    /// The roster, if the node has one.
    pub roster: Option<Arc<SignedRoster>>,
    /// The roster's files.
    pub store: ClusterStore,
    /// Both together.
    pub config: Config,
}

/// Reads the config file at `path` and the roster in `state_dir`.
///
/// # Errors
/// One of them has a mistake, or they contradict each other.
pub fn load_node_config(
    path: &Path,
    runtime_dir: &Path,
    state_dir: &Path,
) -> Result<NodeConfig, ExitError> {
    let file = config::load_config_file(path, runtime_dir)?;
    let store = ClusterStore::new(state_dir, &file.config().adapter.name);
    let roster = store.load_roster()?.map(Arc::new);
    let config = apply_roster(&file, roster.as_deref(), &store)?;
    Ok(NodeConfig { file, roster, store, config })
}

/// The config of a file with a roster.
///
/// # Errors
/// They contradict each other.
pub fn apply_roster(
    file: &LoadedConfig,
    roster: Option<&SignedRoster>,
    store: &ClusterStore,
) -> Result<Config, ExitError> {
    let Some(roster) = roster else { return Ok(file.config().clone()) };
    let (config, is_member) = file.with_roster(roster, &store.roster_path())?;
    let serial = roster.version().serial;
    if is_member {
        tracing::debug!(serial, peers = config.peers.len(), "roster applied");
    } else {
        tracing::warn!(serial, "the roster does not name this node: it has no peers from there");
    }
    Ok(config)
}
