//! Starts the address service and connects it with the node: events, hand-overs, drops.

use std::{sync::Arc, time::Duration};

use netft::{api::query::Topic, route::EventKind};
use tokio::{sync::mpsc, task::JoinSet};

use super::{node::RunningNode, ownership::RunningOwnership};
use crate::{
    ownership::OWNERSHIP_QUEUE_LEN,
    vip::{VipHandle, VipReport, VipService, VipServiceParts, answer_hand_over},
};

/// Reports of the service on their way to the node; beyond it the newest is logged and lost.
const REPORT_QUEUE_LEN: usize = 512;

/// Time in which the engine tells the leader what this node let go.
const RELEASE_TIME: Duration = Duration::from_millis(150);

/// The running service; its tasks end with it.
pub(super) struct RunningVips {
    handle: VipHandle,
    tasks: JoinSet<()>,
    ownership: Option<RunningOwnership>,
}

impl RunningVips {
    /// Starts the service; `None` if the kernel refuses it, which is logged.
    pub(super) async fn start(node: &Arc<RunningNode>) -> Option<Self> {
        let config = node.config().await?;
        let (updates, update_rx) = mpsc::channel(OWNERSHIP_QUEUE_LEN);
        let (requests, request_rx) = mpsc::channel(OWNERSHIP_QUEUE_LEN);
        let mover = requests.clone();
        let (reports, report_rx) = mpsc::channel(REPORT_QUEUE_LEN);
        let parts = VipServiceParts {
            node: config.name.clone(),
            adapter: config.adapter.name.clone(),
            runtime_dir: config.access.runtime_dir.clone(),
            vips: config.floating.vips.clone(),
            updates: update_rx,
            requests,
            reports,
        };
        let (service, handle) = match VipService::open(parts).await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(%error, "the floating addresses cannot be served");
                return None;
            }
        };
        tracing::debug!(vips = config.floating.vips.len(), "floating addresses served");
        node.set_vips(handle.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(service.run());
        tasks.spawn(forward_reports(Arc::clone(node), report_rx));
        tasks.spawn(answer_peers(Arc::clone(node), handle.clone()));
        tasks.spawn(announce_after_outages(Arc::clone(node), handle.clone()));
        let ownership = RunningOwnership::start(node, updates, request_rx).await;
        if ownership.is_some() {
            node.set_ownership(mover);
        }
        Some(Self { handle, tasks, ownership })
    }

    /// Lets every address go and removes the fence.
    pub(super) async fn stop(mut self) {
        self.handle.stop().await;
        if self.ownership.is_some() {
            // The others take the addresses at once if they hear that this node let them go.
            tokio::time::sleep(RELEASE_TIME).await;
        }
        self.tasks.shutdown().await;
    }
}

async fn forward_reports(node: Arc<RunningNode>, mut reports: mpsc::Receiver<VipReport>) {
    while let Some(report) = reports.recv().await {
        node.take_vip_report(report).await;
    }
}

/// Answers the hand-overs that peers ask for.
async fn answer_peers(node: Arc<RunningNode>, handle: VipHandle) {
    let Some(mut requests) = node.requests(Topic::HandOver).await else { return };
    while let Some(request) = requests.recv().await {
        tracing::info!(peer = %request.peer, "a peer hands over a floating address");
        // Dropping a request refuses it.
        if let Some(answer) = answer_hand_over(&handle, &request.payload).await {
            let _ = request.reply_tx.send(answer);
        }
    }
}

/// Announces again when a peer is back: while the nodes did not hear each other, neighbors may have
/// heard the former owner.
async fn announce_after_outages(node: Arc<RunningNode>, handle: VipHandle) {
    let Some(mut events) = node.new_events().await else { return };
    while let Some(event) = events.next().await {
        let Ok(event) = event else { continue };
        if matches!(event.kind, EventKind::RemoteReachable { .. }) {
            handle.announce_all().await;
        }
    }
}
