//! Reads the config file again, while the node runs: at SIGHUP, or when `netft reload` asks.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use netft::{
    Adapter,
    api::error::ReconfigureError,
    config::{Change, Config},
};
use tokio::signal::unix::Signal;

use super::node::{Node, Running};
use crate::{cli::failure::Failure, config};

/// The least time between two reloads at a signal: a storm of signals costs one per gap (F-42).
const GAP: Duration = Duration::from_millis(250);

/// Where the config came from.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    runtime_dir: PathBuf,
}

impl Source {
    pub(super) fn new(path: &Path, runtime_dir: &Path) -> Self {
        Self { path: path.to_owned(), runtime_dir: runtime_dir.to_owned() }
    }

    fn load(&self) -> Result<Config, Failure> {
        config::load(&self.path, &self.runtime_dir).map_err(Failure::input)
    }
}

/// Goes over to what the file says, unless that is only tried; logs what changed.
pub(super) async fn reload(
    adapter: &Adapter,
    source: &Source,
    dry_run: bool,
) -> Result<Vec<Change>, Failure> {
    let config = source.load()?;
    let changes = match dry_run {
        true => adapter.preview(config).await,
        false => adapter.reconfigure(config).await,
    };
    let changes = changes.map_err(|error| match error {
        ReconfigureError::Fixed(_) | ReconfigureError::Keys(_) => Failure::input(error),
        _ => Failure::other(error),
    })?;
    if !dry_run {
        changes.iter().for_each(|change| tracing::info!("reload: {change}"));
    }
    Ok(changes)
}

/// Reloads at every signal until it is aborted.
pub(super) async fn on_hangup(mut hangups: Signal, node: Arc<Running>) {
    while hangups.recv().await.is_some() {
        let reloading = Arc::clone(&node);
        // A task of its own: this one may be aborted in the middle.
        let done = tokio::spawn(async move { reloading.reload(false).await }).await;
        match done {
            Ok(Ok(changes)) if changes.is_empty() => tracing::info!("reload: nothing changes"),
            Ok(Err(failure)) => tracing::error!("reload: the former config stays\n{failure}"),
            Ok(Ok(_)) | Err(_) => {}
        }
        // Signals that come meanwhile are one signal.
        tokio::time::sleep(GAP).await;
    }
}
