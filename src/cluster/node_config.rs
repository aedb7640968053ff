//! Config of a node: its file, and the roster of its cluster.

use std::{path::Path, sync::Arc};

use netft::{
    NodeKey,
    api::host::identity,
    config::{Config, PrivateKey},
    roster::{Roster, SignedRoster},
};

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
    /// Of this node's keys, the next one is proven already: peers refuse the present one.
    pub uses_next_key: bool,
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
    let config = apply_roster(&file, roster.as_deref(), &store, false)?;
    Ok(NodeConfig { file, roster, store, uses_next_key: false, config })
}

/// The config of a file with a roster.
///
/// # Errors
/// They contradict each other.
pub fn apply_roster(
    file: &LoadedConfig,
    roster: Option<&SignedRoster>,
    store: &ClusterStore,
    uses_next_key: bool,
) -> Result<Config, ExitError> {
    let Some(roster) = roster else { return Ok(file.config().clone()) };
    let key = select_node_key(file.config(), roster.roster(), store, uses_next_key)?;
    let (config, is_member) = file.with_roster(roster, &store.roster_path(), key)?;
    let serial = roster.version().serial;
    if is_member {
        tracing::debug!(serial, peers = config.peers.len(), "roster applied");
    } else {
        tracing::warn!(serial, "the roster does not name this node: it has no peers from there");
    }
    Ok(config)
}

/// The key in the state directory that the roster names as this node's; `None`: that of the config
/// file counts. The next key is used once the roster names it as the key, or with `uses_next_key`.
fn select_node_key(
    config: &Config,
    roster: &Roster,
    store: &ClusterStore,
    uses_next_key: bool,
) -> Result<Option<(PrivateKey, NodeKey)>, ExitError> {
    let mut keys = Vec::new();
    for key in store.load_node_keys()? {
        let public = identity::public_key(&key).map_err(ExitError::invalid_input)?;
        keys.push((key, public));
    }
    let mut all = keys.iter().map(|(_, public)| *public).chain([config.public_key]);
    let Some(node) = all.find_map(|key| roster.node_with_key(&key)) else {
        return Ok(None);
    };
    let wanted = node.next_key.filter(|_| uses_next_key).unwrap_or(node.key);
    Ok(keys.into_iter().find(|(_, public)| *public == wanted))
}
