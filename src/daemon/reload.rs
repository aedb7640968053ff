//! Reloads the configuration file at run time: on SIGHUP and for `netft reload`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use netft::{
    Adapter,
    api::error::ReconfigureError,
    config::{Config, ConfigChange},
};
use tokio::{signal::unix::Signal, sync::Notify};

use crate::{config, control::backend::ControlBackend, exit::ExitError};

/// Least time between two reloads by signal, so that a storm of signals stays cheap (F-42).
const MIN_RELOAD_INTERVAL: Duration = Duration::from_millis(250);

/// Source of the configuration.
#[derive(Debug)]
pub(super) struct ConfigSource {
    path: PathBuf,
    runtime_dir: PathBuf,
}

impl ConfigSource {
    pub(super) fn new(path: &Path, runtime_dir: &Path) -> Self {
        Self { path: path.to_owned(), runtime_dir: runtime_dir.to_owned() }
    }

    fn load_config(&self) -> Result<Config, ExitError> {
        Ok(config::load_config(&self.path, &self.runtime_dir)?)
    }
}

/// Applies the file, unless `dry_run`, and logs the changes.
pub(super) async fn reload_config(
    adapter: &Adapter,
    source: &ConfigSource,
    dry_run: bool,
) -> Result<Vec<ConfigChange>, ExitError> {
    let config = source.load_config()?;
    let changes = match dry_run {
        true => adapter.preview_reconfigure(config).await,
        false => adapter.reconfigure(config).await,
    };
    let changes = changes.map_err(|error| match error {
        ReconfigureError::RestartRequired(_) | ReconfigureError::Keys(_) => {
            ExitError::invalid_input(error)
        }
        _ => ExitError::other_error(error),
    })?;
    if dry_run {
        tracing::debug!(changes = changes.len(), "reload: dry run");
    } else {
        let path = source.path.display();
        tracing::info!("configuration reloaded from {path}: {} changes", changes.len());
        changes.iter().for_each(|change| tracing::info!("reload: {change}"));
    }
    Ok(changes)
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
