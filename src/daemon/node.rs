//! The running adapter, as the control socket and the daemon's tasks share it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError},
    time::Duration,
};

use netft::{
    Adapter, PeerId, RouteId, Time,
    api::{
        drain::{DrainError, DrainOrder, DrainReport},
        drill::{DrillError, DrillOrder, DrillStatus},
        error::{OpenError, PeerError, RouteError},
        events::EventStream,
        handover::FrozenAdapter,
        host::LockError,
        join::JoinAttempt,
        query::{PeerRequest, QueryError, Topic},
        snapshot::Snapshot,
    },
    config::{Config, ConfigChange, VipOwnership},
    roster::SignedRoster,
    route::{EventKind, PeerChange, RouteChange},
    wire::DropReason,
};
use tokio::sync::{RwLock, mpsc, oneshot, watch};

use super::{
    handover::predecessor::PendingUpgrade,
    overrides::{OverrideStore, SavedOverrides},
    reload,
    reload::ConfigSource,
};
use crate::{
    cluster::service::ClusterNode,
    control::{
        backend::{ControlBackend, UpgradeOrder},
        cluster::ClusterHandle,
        schema::{OwnershipView, VoterView},
    },
    exit::ExitError,
    ownership::{
        OwnershipRequest, clock,
        etcd::EtcdStatus,
        raft::{EngineRole, EngineStatus},
    },
    vip,
    vip::{
        AgentOrder, NameBoard, NameView, PartnerBook, PartnerView, VipError, VipHandle, VipPeers,
        VipReport,
    },
};

/// The running engine, for those who ask it.
#[derive(Debug)]
pub(super) struct OwnershipHandle {
    pub(super) requests: mpsc::Sender<OwnershipRequest>,
    pub(super) status: watch::Receiver<EngineStatus>,
}

/// The running etcd engine, for those who ask it.
#[derive(Debug)]
pub(super) struct EtcdHandle {
    pub(super) requests: mpsc::Sender<OwnershipRequest>,
    pub(super) status: watch::Receiver<EtcdStatus>,
}

/// The adapter of this process; requests after `close` get an error.
pub struct RunningNode {
    adapter: RwLock<Option<Adapter>>,
    source: ConfigSource,
    saved_overrides: SavedOverrides,
    /// Set once the floating addresses are served.
    vips: OnceLock<VipHandle>,
    /// Set with `vips`.
    partners: OnceLock<Arc<PartnerBook>>,
    names: OnceLock<Arc<NameBoard>>,
    /// Set once an engine decides on owners.
    ownership: OnceLock<OwnershipHandle>,
    /// Set once etcd decides on owners.
    etcd: OnceLock<EtcdHandle>,
    cluster: OnceLock<ClusterHandle>,
    /// Changed by every reload that took effect.
    reloaded: watch::Sender<()>,
    /// Set once a successor can take over.
    upgrades: OnceLock<mpsc::Sender<PendingUpgrade>>,
}

impl RunningNode {
    /// Opens the adapter; returns its events from the first one on.
    ///
    /// # Errors
    /// Another daemon owns the adapter (exit code 1), or the environment is unusable (3).
    pub(super) async fn open_adapter(
        source: ConfigSource,
        overrides: OverrideStore,
        inherited: Option<FrozenAdapter>,
    ) -> Result<(Self, EventStream), ExitError> {
        let opened =
            Adapter::open_with(source.config(), overrides.overrides.clone(), inherited).await;
        let adapter = opened.map_err(|error| match error {
            OpenError::Lock(LockError::AlreadyLocked { .. }) => ExitError::other_error(error),
            _ => ExitError::bad_environment(error),
        })?;
        let events = adapter.events();
        let saved_overrides = overrides.keep_saved(adapter.overrides());
        let adapter = RwLock::new(Some(adapter));
        let node = Self {
            adapter,
            source,
            saved_overrides,
            vips: OnceLock::new(),
            partners: OnceLock::new(),
            names: OnceLock::new(),
            ownership: OnceLock::new(),
            etcd: OnceLock::new(),
            cluster: OnceLock::new(),
            reloaded: watch::Sender::new(()),
            upgrades: OnceLock::new(),
        };
        Ok((node, events))
    }

    /// Sets the cluster service; the first one stays.
    pub(super) fn set_cluster(&self, cluster: ClusterHandle) {
        let _ = self.cluster.set(cluster);
    }

    /// Path of its configuration file.
    pub(super) fn config_path(&self) -> &Path {
        self.source.path()
    }

    /// Its configuration; `None` once closed.
    pub(super) async fn config(&self) -> Option<Arc<Config>> {
        Some(self.adapter.read().await.as_ref()?.config())
    }

    /// Requests of peers on a topic; `None` the second time, and once closed.
    pub(super) async fn requests(&self, topic: Topic) -> Option<mpsc::Receiver<PeerRequest>> {
        self.adapter.read().await.as_ref()?.requests(topic)
    }

    /// Events from here on; `None` once closed.
    pub(super) async fn new_events(&self) -> Option<EventStream> {
        Some(self.adapter.read().await.as_ref()?.events())
    }

    /// Serves the floating addresses by `handle` from here on.
    pub(super) fn set_vips(
        &self,
        handle: VipHandle,
        partners: Arc<PartnerBook>,
        names: Arc<NameBoard>,
    ) {
        let _ = self.names.set(names);
        let _ = self.partners.set(partners);
        let _ = self.vips.set(handle);
    }

    /// Names of the peers; true: a route to the peer works.
    pub(super) async fn reachable_peers(&self) -> Vec<(String, bool)> {
        let snapshot = self.take_snapshot().await;
        let peers = snapshot.map(|snapshot| snapshot.peers).unwrap_or_default();
        peers.into_iter().map(|peer| (peer.name, peer.status.reachable)).collect()
    }

    /// An engine decides on owners from here on.
    pub(super) fn set_ownership(&self, engine: OwnershipHandle) {
        let _ = self.ownership.set(engine);
    }

    /// Etcd decides on owners from here on.
    pub(super) fn set_etcd(&self, engine: EtcdHandle) {
        let _ = self.etcd.set(engine);
    }

    /// An engine decides on owners.
    pub(super) fn has_engine(&self) -> bool {
        self.ownership.get().is_some() || self.etcd.get().is_some()
    }

    /// Changes with every reload of the config.
    pub(super) fn reloads(&self) -> watch::Receiver<()> {
        self.reloaded.subscribe()
    }

    /// Sends a request on a topic to a node; its answer.
    ///
    /// # Errors
    /// The node is unreachable or does not answer.
    pub(super) async fn ask_on(
        &self,
        node: &str,
        topic: Topic,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, String> {
        let adapter = self.adapter.read().await;
        let adapter = adapter.as_ref().ok_or("netftd is stopping")?;
        let config = adapter.config();
        let peer = config.peers.iter().find(|peer| peer.name == node);
        let peer = peer.ok_or("there is no such peer")?.id;
        adapter.request(peer, topic, request).await.map_err(|error| error.to_string())
    }

    /// Has the engine move an address.
    async fn request_move(
        &self,
        requests: &mpsc::Sender<OwnershipRequest>,
        name: &str,
        to: Option<&str>,
    ) -> Result<String, VipError> {
        let (reply, moved) = oneshot::channel();
        let order = OwnershipRequest::Move { vip: name.into(), to: to.map(Into::into), reply };
        requests.send(order).await.map_err(|_| VipError::Closed)?;
        match moved.await {
            Ok(Ok(())) => Ok(to.unwrap_or("another node").to_owned()),
            Ok(Err(refusal)) => Err(VipError::Refused(refusal)),
            Err(_) => Err(VipError::Closed),
        }
    }

    /// Tells the subscribers of an event that the daemon caused.
    pub(super) async fn report_event(&self, event: EventKind) {
        if let Some(adapter) = self.adapter.read().await.as_ref() {
            adapter.report_event(event).await;
        }
    }

    /// Passes on what the address service reports.
    pub(super) async fn take_vip_report(&self, report: VipReport) {
        let adapter = self.adapter.read().await;
        match (adapter.as_ref(), report) {
            (Some(adapter), VipReport::Event(event)) => adapter.report_event(event).await,
            (Some(adapter), VipReport::Drops(packets)) => {
                adapter.count_drops(DropReason::LeaseEnded, packets);
            }
            (None, _) => {}
        }
    }

    /// Passes requests for a successor to `upgrades` from here on.
    pub(super) fn set_upgrades(&self, upgrades: mpsc::Sender<PendingUpgrade>) {
        let _ = self.upgrades.set(upgrades);
    }

    /// Checks that a successor could take over at this moment.
    ///
    /// # Errors
    /// The adapter is gone or closed, or the config has a change that only a restart applies.
    pub(super) async fn check_freezable(&self) -> Result<(), String> {
        let adapter = self.adapter.read().await;
        let adapter = adapter.as_ref().ok_or_else(|| RouteError::Closed.to_string())?;
        adapter.check_freezable().map_err(|error| error.to_string())?;
        reload::check_successor_config(adapter, &self.source).await
    }

    /// Stops without a word to the peers, for a successor.
    ///
    /// # Errors
    /// The device is gone; the sessions are lost then.
    pub(super) async fn freeze(&self) -> io::Result<FrozenAdapter> {
        match self.adapter.write().await.take() {
            Some(adapter) => adapter.freeze().await,
            None => Err(io::Error::other(RouteError::Closed)),
        }
    }

    /// Notifies the peers and stops; the device stays for whoever has its descriptors.
    pub(super) async fn release(&self) {
        let adapter = self.adapter.write().await.take();
        if let Some(adapter) = adapter {
            adapter.release().await;
        }
    }

    /// Notifies the peers and closes the adapter.
    pub async fn close(&self) {
        let adapter = self.adapter.write().await.take();
        if let Some(adapter) = adapter {
            adapter.close().await;
        }
    }
}

impl ControlBackend for RunningNode {
    async fn take_snapshot(&self) -> Option<Snapshot> {
        self.adapter.read().await.as_ref()?.snapshot().await
    }

    async fn change_route(&self, id: RouteId, change: RouteChange) -> Result<(), RouteError> {
        match self.adapter.read().await.as_ref() {
            Some(adapter) => adapter.change_route(id, change).await,
            None => Err(RouteError::Closed),
        }
    }

    async fn reload_config(&self, dry_run: bool) -> Result<Vec<ConfigChange>, ExitError> {
        let adapter = self.adapter.read().await;
        let Some(adapter) = adapter.as_ref() else {
            return Err(ExitError::other_error(RouteError::Closed));
        };
        let changes = reload::reload_config(adapter, &self.source, dry_run).await?;
        if let (false, Some(vips)) = (dry_run, self.vips.get()) {
            vips.configure(&adapter.config()).await;
            self.reloaded.send_replace(());
        }
        Ok(changes)
    }

    fn config_file(&self) -> Option<PathBuf> {
        self.source.file_path()
    }

    async fn change_peer(&self, id: PeerId, change: PeerChange) -> Result<(), PeerError> {
        match self.adapter.read().await.as_ref() {
            Some(adapter) => adapter.change_peer(id, change).await,
            None => Err(PeerError::Closed),
        }
    }

    async fn drain_routes(
        &self,
        order: DrainOrder,
        wait: Duration,
    ) -> Result<DrainReport, DrainError> {
        match self.adapter.read().await.as_ref() {
            Some(adapter) => adapter.drain_routes(order, wait).await,
            None => Err(RouteError::Closed.into()),
        }
    }

    async fn start_drill(&self, order: DrillOrder) -> Result<DrillStatus, DrillError> {
        match self.adapter.read().await.as_ref() {
            Some(adapter) => adapter.start_drill(order).await,
            None => Err(RouteError::Closed.into()),
        }
    }

    async fn drill_status(&self) -> Option<DrillStatus> {
        self.adapter.read().await.as_ref()?.drill().await
    }

    async fn query_peer(&self, peer: PeerId, question: Vec<u8>) -> Result<Vec<u8>, QueryError> {
        match self.adapter.read().await.as_ref() {
            Some(adapter) => adapter.request(peer, Topic::Validate, question).await,
            None => Err(QueryError::NoSession),
        }
    }

    async fn unsaved_overrides(&self, wait: Duration) -> Option<String> {
        self.saved_overrides.wait_saved(wait).await
    }

    async fn start_upgrade(&self, order: UpgradeOrder) -> Result<u32, String> {
        let stopping = || "netftd is starting or stopping".to_owned();
        let upgrades = self.upgrades.get().ok_or_else(stopping)?;
        let (reply, ready) = oneshot::channel();
        let busy = |_| "a hand-over is under way".to_owned();
        upgrades.try_send(PendingUpgrade { order, reply }).map_err(busy)?;
        ready.await.map_err(|_| stopping())?
    }

    async fn vip_handle(&self) -> Option<VipHandle> {
        self.vips.get().cloned()
    }

    fn name_views(&self) -> Vec<NameView> {
        let names =
            self.names.get().map(|board| board.lock().unwrap_or_else(PoisonError::into_inner));
        names.map(|names| names.clone()).unwrap_or_default()
    }

    fn partner_views(&self) -> Vec<PartnerView> {
        self.partners.get().map(|book| book.to_views(clock::now())).unwrap_or_default()
    }

    fn ownership_view(&self) -> Option<OwnershipView> {
        let status = self.ownership.get()?.status.borrow();
        let voter =
            |(name, reached): &(String, bool)| VoterView { name: name.clone(), reached: *reached };
        let last_error = status.last_error.as_ref();
        Some(OwnershipView {
            engine: VipOwnership::Raft.as_str().to_owned(),
            role: status.role.as_str().to_owned(),
            leader: status.leader.clone(),
            term: status.term,
            voters: status.voters.iter().map(voter).collect(),
            problem: status.problem.clone(),
            last_error: last_error.map(|(_, what)| what.clone()),
            last_error_ms: last_error.map(|(at, _)| clock::now().since(*at).as_millis() as u64),
            ..OwnershipView::default()
        })
    }

    async fn order_vip(&self, name: &str, order: AgentOrder) -> Result<String, VipError> {
        let handle = self.vips.get().ok_or(VipError::Closed)?;
        vip::carry_out_agent_order(handle, self, name, order).await
    }

    fn etcd_view(&self) -> Option<OwnershipView> {
        let status = self.etcd.get()?.status.borrow();
        let since = |at: Time| clock::now().since(at).as_millis() as u64;
        let last_error = status.last_error.as_ref();
        Some(OwnershipView {
            engine: VipOwnership::Etcd.as_str().to_owned(),
            role: EngineRole::Holder.as_str().to_owned(),
            problem: status.problem.clone(),
            last_error: last_error.map(|(_, what)| what.clone()),
            last_error_ms: last_error.map(|(at, _)| since(*at)),
            server: Some(status.server.clone()).filter(|server| !server.is_empty()),
            answered_ms: status.answered.map(since),
            lease_ms: status.ttl.map(|ttl| ttl.as_millis() as u64),
            ..OwnershipView::default()
        })
    }

    async fn move_vip(&self, name: &str, to: Option<&str>) -> Result<String, VipError> {
        let config = self.config().await.ok_or(VipError::Closed)?;
        let vip = config.floating.vips.iter().find(|vip| vip.name == name);
        let engine = match vip.map(|vip| vip.ownership) {
            Some(VipOwnership::Raft) => self.ownership.get().map(|engine| &engine.requests),
            Some(VipOwnership::Etcd) => self.etcd.get().map(|engine| &engine.requests),
            Some(VipOwnership::Manual | VipOwnership::External) | None => None,
        };
        if let Some(requests) = engine {
            return self.request_move(requests, name, to).await;
        }
        let handle = self.vips.get().ok_or(VipError::Closed)?;
        vip::move_address(handle, self, name, to).await
    }

    fn cluster(&self) -> Option<ClusterHandle> {
        self.cluster.get().cloned()
    }

    async fn recheck_paths(&self) -> Option<Time> {
        self.adapter.read().await.as_ref()?.reprobe_path_mtu().await
    }
}

impl VipPeers for RunningNode {
    async fn node_names(&self) -> (String, Vec<String>) {
        let Some(config) = self.config().await else { return Default::default() };
        let peers = config.peers.iter().map(|peer| peer.name.clone());
        (config.name.clone(), peers.collect())
    }

    async fn ask(&self, node: &str, request: Vec<u8>) -> Result<Vec<u8>, String> {
        self.ask_on(node, Topic::HandOver, request).await
    }
}

impl ClusterNode for RunningNode {
    async fn config(&self) -> Option<Arc<Config>> {
        Self::config(self).await
    }

    async fn subscribe(&self) -> Option<EventStream> {
        Some(self.adapter.read().await.as_ref()?.events())
    }

    async fn roster_requests(&self) -> Option<mpsc::Receiver<PeerRequest>> {
        self.requests(Topic::Roster).await
    }

    async fn request_roster(&self, peer: PeerId, request: Vec<u8>) -> Option<Vec<u8>> {
        let adapter = self.adapter.read().await;
        adapter.as_ref()?.request(peer, Topic::Roster, request).await.ok()
    }

    async fn joins(&self) -> Option<mpsc::Receiver<JoinAttempt>> {
        self.adapter.read().await.as_ref()?.joins()
    }

    async fn set_joining(&self, joining: bool) {
        if let Some(adapter) = self.adapter.read().await.as_ref() {
            adapter.set_joining(joining).await;
        }
    }

    async fn apply_roster(
        &self,
        roster: Arc<SignedRoster>,
        uses_next_key: bool,
    ) -> Result<Vec<ConfigChange>, ExitError> {
        let adapter = self.adapter.read().await;
        let Some(adapter) = adapter.as_ref() else {
            return Err(ExitError::other_error(RouteError::Closed));
        };
        reload::apply_roster(adapter, &self.source, roster, uses_next_key).await
    }
}

/// Name of a peer; `None` if the config does not have it.
pub(super) async fn peer_name(node: &RunningNode, peer: PeerId) -> Option<String> {
    node.config().await?.peer_of(peer).map(|peer| peer.name.clone())
}
