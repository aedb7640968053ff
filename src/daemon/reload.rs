//! Reloads the configuration file at run time: on SIGHUP and for `netft reload`.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use netft::{
    Adapter,
    api::error::ReconfigureError,
    config::{Config, ConfigChange},
    roster::SignedRoster,
};
use tokio::{signal::unix::Signal, sync::Notify};

use super::witness::run_as;
use crate::{
    cluster::{node_config, node_config::NodeConfig, store::ClusterStore},
    config,
    control::backend::ControlBackend,
    exit::ExitError,
};

/// Least time between two reloads by signal, so that a storm of signals stays cheap (F-42).
const MIN_RELOAD_INTERVAL: Duration = Duration::from_millis(250);

/// Source of the configuration: the file, and the roster of the cluster.
#[derive(Debug)]
pub(super) struct ConfigSource {
    path: PathBuf,
    runtime_dir: PathBuf,
    /// The file as it was last loaded, and the roster in force.
    loaded: Mutex<NodeConfig>,
}

impl ConfigSource {
    /// The source of a configuration that is `loaded`.
    pub(super) fn new(path: &Path, runtime_dir: &Path, loaded: NodeConfig) -> Self {
        let loaded = Mutex::new(loaded);
        Self { path: path.to_owned(), runtime_dir: runtime_dir.to_owned(), loaded }
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// The file, wherever another process stands.
    pub(super) fn file_path(&self) -> Option<PathBuf> {
        std::path::absolute(&self.path).ok()
    }

    /// The roster's files, and the roster.
    pub(super) fn cluster(&self) -> (ClusterStore, Option<Arc<SignedRoster>>) {
        let loaded = self.lock();
        (loaded.store.clone(), loaded.roster.clone())
    }

    fn lock(&self) -> MutexGuard<'_, NodeConfig> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file read anew, with the roster in force.
    fn load_config(&self) -> Result<NodeConfig, ExitError> {
        let file = config::load_config_file(&self.path, &self.runtime_dir)?;
        let (store, roster) = self.cluster();
        let uses_next_key = self.lock().uses_next_key;
        let config = node_config::apply_roster(&file, roster.as_deref(), &store, uses_next_key)?;
        let config = run_as(&self.config(), config)?;
        Ok(NodeConfig { file, roster, store, uses_next_key, config })
    }
}

/// Applies the file, unless `dry_run`, and logs the changes.
pub(super) async fn reload_config(
    adapter: &Adapter,
    source: &ConfigSource,
    dry_run: bool,
) -> Result<Vec<ConfigChange>, ExitError> {
    let loaded = source.load_config()?;
    let config = loaded.config.clone();
    let changes = match dry_run {
        true => adapter.preview_reconfigure(config).await,
        false => adapter.reconfigure(config).await,
    };
    let changes = changes.map_err(reconfigure_exit_error)?;
    if dry_run {
        tracing::debug!(changes = changes.len(), "reload: dry run");
    } else {
        *source.lock() = loaded;
        let path = source.path.display();
        tracing::info!("configuration reloaded from {path}: {} changes", changes.len());
        changes.iter().for_each(|change| tracing::info!("reload: {change}"));
    }
    Ok(changes)
}

/// Checks that a successor can go on with the file as it is. One that only the successor's version
/// understands is left to it.
///
/// # Errors
/// It has changes that only a restart applies, named one a line.
pub(super) async fn check_successor_config(
    adapter: &Adapter,
    source: &ConfigSource,
) -> Result<(), String> {
    let Ok(loaded) = source.load_config() else { return Ok(()) };
    match adapter.preview_reconfigure(loaded.config).await {
        Err(error @ ReconfigureError::RestartRequired(_)) => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Applies a roster to the file as it was last loaded: what an operator is writing there meanwhile
/// waits for a reload.
pub(super) async fn apply_roster(
    adapter: &Adapter,
    source: &ConfigSource,
    roster: Arc<SignedRoster>,
    uses_next_key: bool,
) -> Result<Vec<ConfigChange>, ExitError> {
    let config = {
        let mut loaded = source.lock();
        // In force for every later load, also when this one is refused.
        loaded.roster = Some(Arc::clone(&roster));
        loaded.uses_next_key = uses_next_key;
        let (file, store) = (&loaded.file, &loaded.store);
        let config = node_config::apply_roster(file, Some(&roster), store, uses_next_key)?;
        let config = run_as(&loaded.config, config)?;
        loaded.config = config.clone();
        config
    };
    adapter.replace_key(config).await.map_err(reconfigure_exit_error)
}

fn reconfigure_exit_error(error: ReconfigureError) -> ExitError {
    match error {
        ReconfigureError::RestartRequired(_) | ReconfigureError::Keys(_) => {
            ExitError::invalid_input(error)
        }
        _ => ExitError::other_error(error),
    }
}

/// Reloads on every signal until it is aborted; `check_socket` is notified as well.
pub(super) async fn reload_on_hangup<N: ControlBackend>(
    mut hangups: Signal,
    node: Arc<N>,
    check_socket: Arc<Notify>,
) {
    while hangups.recv().await.is_some() {
        check_socket.notify_one();
        tracing::info!("SIGHUP: reloading the configuration");
        let reloading = Arc::clone(&node);
        // A task of its own: this one may be aborted in the middle.
        let done = tokio::spawn(async move { reloading.reload_config(false).await }).await;
        match done {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => {
                tracing::error!(
                    "reload failed, the former configuration stays in force\n{failure}"
                );
            }
            Err(error) => tracing::error!(%error, "reload failed"),
        }
        // Signals that arrive meanwhile count as one.
        tokio::time::sleep(MIN_RELOAD_INTERVAL).await;
    }
}
