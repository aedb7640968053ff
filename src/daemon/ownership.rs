//! Starts the engines that decide on the owners of floating addresses, and connects them with the
//! node: requests of peers, and who can be reached.

use std::{collections::BTreeSet, sync::Arc};

use netft::{
    api::query::{PeerRequest, Topic},
    config::{Config, VipConfig, VipFailback, VipOwnership},
    ids::virtual_addrs::VirtualAddrs,
    route::EventKind,
    vip::ownership::{Failback, VipPolicy},
};
use tokio::{sync::mpsc, task::JoinSet};

use super::node::{EtcdHandle, OwnershipHandle, RunningNode, peer_name};
use crate::{
    ownership::{
        OWNERSHIP_QUEUE_LEN, OwnershipRequest, OwnershipUpdate,
        etcd::{EtcdEngine, EtcdSettings},
        raft::{
            EngineChannels, OwnershipNode, OwnershipTransport, PeerMessage, RaftEngine,
            RaftSettings,
        },
    },
    vip::VipPeers,
};

/// Requests of peers, and changes of who can be reached, on their way to the engine.
const ENGINE_QUEUE_LEN: usize = 64;

/// The tasks of the engines, which end with them.
pub(super) struct RunningOwnership {
    _tasks: JoinSet<()>,
}

/// The ends of the channels between the address service and the engine that the engine reads and
/// writes.
pub(super) struct ServiceChannels {
    pub(super) updates: mpsc::Sender<OwnershipUpdate>,
    /// A sender to `request_rx`.
    pub(super) requests: mpsc::Sender<OwnershipRequest>,
    pub(super) request_rx: mpsc::Receiver<OwnershipRequest>,
}

impl RunningOwnership {
    /// Starts each engine once an address of the config needs it; raft also if this node votes.
    pub(super) fn start(node: &Arc<RunningNode>, channels: ServiceChannels) -> Self {
        let ServiceChannels { updates, requests, request_rx } = channels;
        let (raft_tx, raft_requests) = mpsc::channel(OWNERSHIP_QUEUE_LEN);
        let (etcd_tx, etcd_requests) = mpsc::channel(OWNERSHIP_QUEUE_LEN);
        let etcd = ServiceChannels {
            updates: updates.clone(),
            requests: requests.clone(),
            request_rx: etcd_requests,
        };
        let raft = ServiceChannels { updates, requests, request_rx: raft_requests };
        let mut tasks = JoinSet::new();
        tasks.spawn(route_requests(Arc::clone(node), request_rx, etcd_tx, raft_tx));
        tasks.spawn(run_etcd(Arc::clone(node), etcd));
        tasks.spawn(run_ownership(Arc::clone(node), raft));
        Self { _tasks: tasks }
    }
}

/// Passes each request on to the engine of its address. A full queue makes the sender wait.
async fn route_requests(
    node: Arc<RunningNode>,
    mut requests: mpsc::Receiver<OwnershipRequest>,
    etcd: mpsc::Sender<OwnershipRequest>,
    raft: mpsc::Sender<OwnershipRequest>,
) {
    let mut by_etcd = BTreeSet::new();
    while let Some(request) = requests.recv().await {
        let Some(config) = node.config().await else { return };
        let (OwnershipRequest::Able { vip, .. }
        | OwnershipRequest::Released { vip, .. }
        | OwnershipRequest::Move { vip, .. }) = &request;
        // The engine of an address that the config does not name any more lets it go.
        let known = config.floating.vips.iter().find(|one| one.name == **vip);
        match known.map(|one| one.ownership) {
            Some(VipOwnership::Etcd) => drop(by_etcd.insert(Arc::clone(vip))),
            Some(_) => drop(by_etcd.remove(vip)),
            None => {}
        }
        let engine = if by_etcd.contains(vip) { &etcd } else { &raft };
        // Without this engine nobody asks for the address.
        let _ = engine.send(request).await;
    }
}

/// Runs the etcd engine, and tells it what reloads change.
async fn run_etcd(node: Arc<RunningNode>, service: ServiceChannels) {
    let mut reloads = node.reloads();
    let (policies_tx, policies_rx) = mpsc::channel(1);
    let mut channels = Some((service, policies_rx));
    let mut known = Vec::new();
    let mut engine = None;
    loop {
        reloads.borrow_and_update();
        let Some(config) = node.config().await else { return };
        let policies = policies_of(&config, VipOwnership::Etcd);
        if policies != known {
            known.clone_from(&policies);
            if let Some((service, policies_rx)) = channels.take() {
                let cluster = config.floating.ownership.etcd.clone();
                let servers = &cluster.endpoints;
                tracing::info!(?servers, "ownership: etcd decides on {} addresses", known.len());
                let (name, node_id) = (config.name.clone(), node_id(&config.adapter.addrs));
                let settings = EtcdSettings { node: name, node_id, cluster };
                let ServiceChannels { updates, requests, request_rx } = service;
                let started = EtcdEngine::start(settings, updates, request_rx, policies_rx);
                node.set_etcd(EtcdHandle { requests, status: started.status() });
                engine = Some(started);
            }
            if policies_tx.send(policies).await.is_err() {
                return;
            }
        }
        if reloads.changed().await.is_err() {
            return drop(engine);
        }
    }
}

/// Runs the engine, and tells it what reloads change.
async fn run_ownership(node: Arc<RunningNode>, service: ServiceChannels) {
    let mut reloads = node.reloads();
    let settings = loop {
        reloads.borrow_and_update();
        let Some(config) = node.config().await else { return };
        if let Some(settings) = engine_settings(&config) {
            break settings;
        }
        if reloads.changed().await.is_err() {
            return;
        }
    };
    let voters: Vec<_> =
        settings.nodes.iter().filter(|one| one.is_voter).map(|one| &one.name).collect();
    tracing::info!(?voters, "ownership: raft decides on {} addresses", settings.policies.len());
    let (peers_tx, peers) = mpsc::channel(ENGINE_QUEUE_LEN);
    let (policies_tx, policies) = mpsc::channel(1);
    let (reachability_tx, reachability) = mpsc::channel(ENGINE_QUEUE_LEN);
    let ServiceChannels { updates, requests, request_rx } = service;
    let channels = EngineChannels { updates, requests: request_rx, peers, policies, reachability };
    let transport = Arc::new(NodeTransport(Arc::clone(&node)));
    let mut known = settings.policies.clone();
    let engine = match RaftEngine::start(settings, transport, channels).await {
        Ok(engine) => engine,
        Err(error) => return tracing::error!("ownership: {error}"),
    };
    node.set_ownership(OwnershipHandle { requests, status: engine.status() });
    let mut tasks = JoinSet::new();
    tasks.spawn(forward_requests(Arc::clone(&node), peers_tx));
    tasks.spawn(forward_reachability(Arc::clone(&node), reachability_tx));
    loop {
        if reloads.changed().await.is_err() {
            return;
        }
        let Some(config) = node.config().await else { return };
        let policies = policies_of(&config, VipOwnership::Raft);
        if policies != known {
            known.clone_from(&policies);
            if policies_tx.send(policies).await.is_err() {
                return;
            }
        }
    }
}

/// Rules of the addresses that an engine decides on.
fn policies_of(config: &Config, engine: VipOwnership) -> Vec<VipPolicy> {
    let vips = config.floating.vips.iter();
    vips.filter(|vip| vip.ownership == engine).map(to_policy).collect()
}

/// Settings of the engine; `None` without a need for one.
fn engine_settings(config: &Config) -> Option<RaftSettings> {
    let policies = policies_of(config, VipOwnership::Raft);
    let voters = &config.floating.ownership.voters;
    if policies.is_empty() && !voters.contains(&config.name) {
        return None;
    }
    let own = (&config.name, &config.adapter.addrs);
    let peers = config.peers.iter().map(|peer| (&peer.name, &peer.addrs));
    let nodes = [own].into_iter().chain(peers).map(|(name, addrs)| OwnershipNode {
        name: name.clone(),
        id: node_id(addrs),
        is_voter: voters.is_empty() || voters.contains(name),
    });
    Some(RaftSettings {
        node: config.name.clone(),
        nodes: nodes.collect(),
        policies,
        store: config.floating.ownership.store_path(&config.adapter.name),
    })
}

/// A node's number in the log: of its virtual IPv6 address, which no other node has, and which
/// outlives the node's key.
fn node_id(addrs: &VirtualAddrs) -> u64 {
    let bits = addrs.v6.to_bits();
    // Derived addresses share the upper half, chosen ones may share the lower.
    bits as u64 ^ ((bits >> 64) as u64).rotate_left(32)
}

fn to_policy(vip: &VipConfig) -> VipPolicy {
    VipPolicy {
        preferred: vip.preferred.clone(),
        failback: match vip.failback {
            VipFailback::Never => Failback::Never,
            VipFailback::After(hold) => Failback::After(hold),
        },
        together_with: vip.together_with.clone(),
        apart_from: vip.apart_from.clone(),
        follow: vip.follow,
        ..VipPolicy::new(&vip.name, vip.lease)
    }
}

/// Requests over the control sessions.
struct NodeTransport(Arc<RunningNode>);

impl OwnershipTransport for NodeTransport {
    async fn request(&self, node: &str, payload: Vec<u8>) -> Result<Vec<u8>, String> {
        self.0.ask_on(node, Topic::Ownership, payload).await
    }
}

async fn forward_requests(node: Arc<RunningNode>, to: mpsc::Sender<PeerMessage>) {
    let Some(mut requests) = node.requests(Topic::Ownership).await else { return };
    while let Some(PeerRequest { payload, reply_tx, .. }) = requests.recv().await {
        if to.send(PeerMessage { payload, reply_tx }).await.is_err() {
            return;
        }
    }
}

/// Tells the engine whom netft reaches.
async fn forward_reachability(node: Arc<RunningNode>, to: mpsc::Sender<(Arc<str>, bool)>) {
    let Some(mut events) = node.new_events().await else { return };
    while let Some(event) = events.next().await {
        let changes = match event.map(|event| event.kind) {
            Ok(EventKind::RemoteReachable { peer, .. }) => {
                vec![(peer_name(&node, peer).await, true)]
            }
            Ok(EventKind::RemoteUnreachable { peer }) => {
                vec![(peer_name(&node, peer).await, false)]
            }
            Ok(_) => continue,
            // Who became unreachable meanwhile shows by its silence.
            Err(_) => {
                let (_, peers) = node.node_names().await;
                peers.into_iter().map(|name| (Some(name), true)).collect()
            }
        };
        for (name, is_reachable) in changes {
            let Some(name) = name else { continue };
            if to.send((name.into(), is_reachable)).await.is_err() {
                return;
            }
        }
    }
}
