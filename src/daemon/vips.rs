//! Starts the address service and connects it with the node: events, hand-overs, drops.

use std::{sync::Arc, time::Duration};

use netft::{api::query::Topic, config::Config, route::EventKind};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    dns::keep_names,
    node::{RunningNode, peer_name},
    ownership::{RunningOwnership, ServiceChannels},
    partners::follow_partners,
};
use crate::{
    ownership::{OWNERSHIP_QUEUE_LEN, clock},
    vip::{
        HAND_OVER_TIMEOUT, LeaseNews, NameBoard, PartnerBook, VipHandle, VipPeers, VipReport,
        VipService, VipServiceParts, answer_hand_over, peer_addrs_of,
    },
};

/// Reports of the service on their way to the node; beyond it the newest is logged and lost.
const REPORT_QUEUE_LEN: usize = 512;

/// Nodes whose definitions are to be compared; those that find it full are compared when they are
/// back after an outage.
const COMPARE_QUEUE_LEN: usize = 256;

/// Messages for every peer on their way to the task that sends them.
const PEER_QUEUE_LEN: usize = 256;

/// Time in which the engine tells the leader what this node let go.
const RELEASE_TIME: Duration = Duration::from_millis(150);

/// The running service; its tasks end with it.
pub(super) struct RunningVips {
    node: Arc<RunningNode>,
    /// `None` on a witness.
    handle: Option<VipHandle>,
    tasks: JoinSet<()>,
    ownership: RunningOwnership,
}

impl RunningVips {
    /// Starts the service; `None` if the kernel refuses it, which is logged.
    pub(super) async fn start(node: &Arc<RunningNode>) -> Option<Self> {
        let config = node.config().await?;
        if !config.adapter.backend.has_device() {
            return Some(Self::start_witness(node));
        }
        let (updates, update_rx) = mpsc::channel(OWNERSHIP_QUEUE_LEN);
        let (requests, request_rx) = mpsc::channel(OWNERSHIP_QUEUE_LEN);
        let channels = ServiceChannels { updates, requests: requests.clone(), request_rx };
        let (reports, report_rx) = mpsc::channel(REPORT_QUEUE_LEN);
        let (peers_tx, for_peers) = mpsc::channel(PEER_QUEUE_LEN);
        let parts = VipServiceParts {
            node: config.name.clone(),
            adapter: config.adapter.name.clone(),
            runtime_dir: config.access.runtime_dir.clone(),
            vips: config.floating.vips.clone(),
            updates: update_rx,
            cluster: cluster_of(&config),
            peers: peers_tx,
            peer_addrs: peer_addrs_of(&config),
            requests,
            reports: reports.clone(),
        };
        let (service, handle) = match VipService::open(parts).await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(%error, "the floating addresses cannot be served");
                return None;
            }
        };
        tracing::debug!(vips = config.floating.vips.len(), "floating addresses served");
        let book = Arc::new(PartnerBook::default());
        let peers: Vec<_> = config.peers.iter().map(|peer| peer.name.clone()).collect();
        book.configure(clock::now(), &config.floating.vips, &peers);
        let names = Arc::new(NameBoard::default());
        node.set_vips(handle.clone(), Arc::clone(&book), Arc::clone(&names));
        let (ask, asked) = mpsc::channel(COMPARE_QUEUE_LEN);
        let mut tasks = JoinSet::new();
        tasks.spawn(service.run());
        tasks.spawn(forward_reports(Arc::clone(node), report_rx));
        let desk = (Arc::clone(&book), names);
        tasks.spawn(keep_names(Arc::clone(node), handle.clone(), desk, reports.clone()));
        tasks.spawn(tell_peers(Arc::clone(node), for_peers));
        tasks.spawn(answer_peers(Arc::clone(node), handle.clone(), Arc::clone(&book), ask));
        tasks.spawn(follow_partners(Arc::clone(node), book, asked, reports));
        tasks.spawn(announce_after_outages(Arc::clone(node), handle.clone()));
        let ownership = RunningOwnership::start(node, channels);
        Some(Self { node: Arc::clone(node), handle: Some(handle), tasks, ownership })
    }

    /// The engine alone: a witness votes, and has no address that a decision could concern.
    fn start_witness(node: &Arc<RunningNode>) -> Self {
        let (updates, mut update_rx) = mpsc::channel(OWNERSHIP_QUEUE_LEN);
        let (requests, request_rx) = mpsc::channel(OWNERSHIP_QUEUE_LEN);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { while update_rx.recv().await.is_some() {} });
        let channels = ServiceChannels { updates, requests, request_rx };
        let ownership = RunningOwnership::start(node, channels);
        Self { node: Arc::clone(node), handle: None, tasks, ownership }
    }

    /// Lets every address go and removes the fence.
    pub(super) async fn stop(mut self) {
        if let Some(handle) = &self.handle {
            handle.stop().await;
        }
        if self.handle.is_some() && self.node.has_engine() {
            // The others take the addresses at once if they hear that this node let them go.
            tokio::time::sleep(RELEASE_TIME).await;
        }
        drop(self.ownership);
        self.tasks.shutdown().await;
    }
}

async fn forward_reports(node: Arc<RunningNode>, mut reports: mpsc::Receiver<VipReport>) {
    while let Some(report) = reports.recv().await {
        node.take_vip_report(report).await;
    }
}

/// Tells this cluster from others: the least of its nodes' keys. It stays while that node does.
fn cluster_of(config: &Config) -> [u8; 32] {
    let keys = config.peers.iter().map(|peer| peer.key).chain([config.public_key]);
    keys.map(|key| key.0).min().unwrap_or_default()
}

/// Tells every peer the news, one after the other: what it tells last is true. Peers that do not
/// answer make the others wait, so what is replaced meanwhile is left out.
async fn tell_peers(node: Arc<RunningNode>, mut waiting: mpsc::Receiver<LeaseNews>) {
    while let Some(first) = waiting.recv().await {
        for news in first.take_newest(&mut waiting) {
            let (_, peers) = node.node_names().await;
            let message = news.to_message(clock::now());
            let mut asked = JoinSet::new();
            for peer in peers {
                let (node, message) = (Arc::clone(&node), message.clone());
                asked.spawn(async move {
                    // A peer that is away is told when it is back.
                    let _ = tokio::time::timeout(HAND_OVER_TIMEOUT, node.ask(&peer, message)).await;
                });
            }
            asked.join_all().await;
        }
    }
}

/// Answers the hand-overs and comparisons that peers ask for.
async fn answer_peers(
    node: Arc<RunningNode>,
    handle: VipHandle,
    book: Arc<PartnerBook>,
    compare: mpsc::Sender<String>,
) {
    let Some(mut requests) = node.requests(Topic::HandOver).await else { return };
    while let Some(request) = requests.recv().await {
        let Some(peer) = peer_name(&node, request.peer).await else { continue };
        // Dropping a request refuses it.
        let answered = answer_hand_over(&handle, &book, &peer, &request.payload).await;
        let Some(answered) = answered else { continue };
        // The peer may have timed out.
        let _ = request.reply_tx.send(answered.answer);
        if answered.is_news {
            let _ = compare.try_send(peer);
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
