//! Node names in a hosts file while the daemon runs.

use std::path::PathBuf;

use netft::api::snapshot::Snapshot;

use crate::hosts::{file, host_entry};

/// The hosts file to maintain, if any. Errors are logged only: names are a convenience.
#[derive(Clone, Debug)]
pub(super) struct HostsFile(pub(super) Option<PathBuf>);

impl HostsFile {
    /// Writes the names of `snapshot`.
    pub(super) fn update_hosts(&self, snapshot: &Snapshot) {
        let Some(path) = &self.0 else { return };
        let adapter = &snapshot.adapter;
        let own = host_entry(&snapshot.node.name, adapter.v4, adapter.v6);
        let peers =
            snapshot.peers.iter().map(|peer| host_entry(&peer.name, peer.addrs.v4, peer.addrs.v6));
        let hosts: Vec<_> = std::iter::once(own).chain(peers).collect();
        match file::update_block(path, &adapter.name, &hosts) {
            Ok(true) => tracing::info!("{} names written to {}", hosts.len(), path.display()),
            Ok(false) => {}
            Err(error) => tracing::warn!("node names not written: {error}"),
        }
    }

    /// Removes the names.
    pub(super) fn remove_hosts(&self, adapter: &str) {
        let Some(path) = &self.0 else { return };
        match file::remove_block(path, adapter) {
            Ok(true) => tracing::info!("names removed from {}", path.display()),
            Ok(false) => {}
            Err(error) => tracing::warn!("node names not removed: {error}"),
        }
    }
}
