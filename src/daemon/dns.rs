//! Keeps the names of floating addresses in DNS.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use netft::route::EventKind;
use tokio::sync::mpsc;

use super::node::RunningNode;
use crate::{
    ownership::clock,
    vip::{NameBoard, NameDesk, VipHandle, VipReport},
};

/// Interval between two looks at the floating addresses.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Registers names as long as the node runs.
pub(super) async fn keep_names(
    node: Arc<RunningNode>,
    handle: VipHandle,
    board: Arc<NameBoard>,
    reports: mpsc::Sender<VipReport>,
) {
    let mut desk: Option<NameDesk> = None;
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(config) = node.config().await else { return };
        match (config.floating.dns.clone(), desk.as_mut()) {
            (None, _) => desk = None,
            (Some(dns), None) => {
                tracing::info!(zone = dns.zone, server = %dns.server, "names are kept in DNS");
                desk = Some(NameDesk::new(&config.name, dns));
            }
            (Some(dns), Some(desk)) if dns != *desk.config() => desk.configure(dns),
            (Some(_), Some(_)) => {}
        }
        if let Some(desk) = desk.as_mut() {
            desk.set_vips(clock::now(), &handle.list().await);
            while let Some((exchange, update)) = desk.poll_update(clock::now()) {
                let (added, removed) = (update.added.len(), update.removed.len());
                let result = exchange.send(update, unix_seconds()).await;
                tracing::debug!(added, removed, ?result, "names updated");
                if let Some(what) = desk.on_result(clock::now(), result) {
                    tracing::info!(what);
                    let vip = String::new();
                    // A full queue is a flood of other events; the log has it.
                    let _ = reports.try_send(VipReport::Event(EventKind::VipNotice { vip, what }));
                }
            }
        }
        let views = desk.as_ref().map(|desk| desk.to_views(clock::now())).unwrap_or_default();
        *board.lock().unwrap_or_else(PoisonError::into_inner) = views;
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
