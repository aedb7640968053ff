//! Wakes the engine when a key changes.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use netft::config::EtcdConfig;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::gateway::EtcdGateway;

/// Pause before a watch is opened again.
const WATCH_RETRY: Duration = Duration::from_millis(500);
/// A watch without an event for that long is opened again: its server may be gone.
const WATCH_SILENCE: Duration = Duration::from_secs(30);

/// Wakes whoever waits for `changed` for as long as it runs. What it misses the engine finds by
/// itself at its next look.
pub(super) async fn watch_changes(config: EtcdConfig, changed: Arc<Notify>) {
    let mut gateway = EtcdGateway::new(config);
    loop {
        match gateway.watch_keys().await {
            Ok(mut body) => {
                // The content does not matter: the engine reads all keys.
                while let Ok(Some(Ok(_))) = timeout(WATCH_SILENCE, body.frame()).await {
                    changed.notify_one();
                }
            }
            Err(error) => tracing::debug!(%error, "ownership: no watch"),
        }
        gateway.next_server();
        sleep(WATCH_RETRY).await;
    }
}
