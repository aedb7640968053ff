//! The running adapter as the programs see it: the library's types, and the trait the control
//! socket is written against (so that it is tested without a network).

use std::{future::Future, sync::Arc, time::Duration};

use netft::{
    PeerId, RouteId, Time,
    config::{Config, ConfigChange},
    io::adapter::types::LockError,
    route::{PeerChange, RouteChange},
};
pub use netft::{
    adapter::Adapter,
    api::{
        drain::{DrainError, DrainOrder, DrainReport},
        error::{OpenError, PeerError, RouteError},
        events::{EventStream, MissedEvents},
        snapshot::{AdapterInfo, CounterSnapshot, NodeInfo, PeerInfo, RouteSent, Snapshot},
    },
    io::quic::{PeerQuery, QueryError},
};
use tokio::sync::{RwLock, mpsc};

use super::{reload, reload::ConfigSource};
use crate::cli::failure::ExitError;

/// A running node.
pub trait ControlBackend: Send + Sync + 'static {
    /// Its state; `None` once it is closed.
    fn take_snapshot(&self) -> impl Future<Output = Option<Snapshot>> + Send;

    /// Changes a route.
    ///
    /// # Errors
    /// See [`RouteError`].
    fn change_route(
        &self,
        route: RouteId,
        change: RouteChange,
    ) -> impl Future<Output = Result<(), RouteError>> + Send;

    /// Reads the config file again and goes over to it, unless that is only tried. Says what
    /// changes; await it to its end.
    ///
    /// # Errors
    /// The file is wrong, or says what cannot change while the node runs (2); nothing changed.
    fn reload_config(
        &self,
        dry_run: bool,
    ) -> impl Future<Output = Result<Vec<ConfigChange>, ExitError>> + Send;

    /// Changes how data to a peer uses its routes.
    ///
    /// # Errors
    /// See [`PeerError`].
    fn change_peer(
        &self,
        peer: PeerId,
        change: PeerChange,
    ) -> impl Future<Output = Result<(), PeerError>> + Send;

    /// Drains routes, or uses them again; waits at most `wait` until both directions have left.
    ///
    /// # Errors
    /// See [`DrainError`].
    fn drain_routes(
        &self,
        order: DrainOrder,
        wait: Duration,
    ) -> impl Future<Output = Result<DrainReport, DrainError>> + Send;

    /// Asks a peer a question on its control session.
    ///
    /// # Errors
    /// See [`QueryError`].
    fn query_peer(
        &self,
        peer: PeerId,
        question: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, QueryError>> + Send;

    /// Has the path MTU of every route probed anew; the moment, or `None` once it is closed.
    fn recheck_paths(&self) -> impl Future<Output = Option<Time>> + Send;
}

/// The adapter of this process, until it is closed under those who still ask.
pub struct RunningNode {
    adapter: RwLock<Option<Adapter>>,
    source: ConfigSource,
}

impl RunningNode {
    /// Opens the adapter; its events from the first one on.
    ///
    /// # Errors
    /// Another daemon has the adapter (exit code 1), or the environment refuses (3).
    pub(super) async fn open_adapter(
        config: Config,
        source: ConfigSource,
    ) -> Result<(Self, EventStream), ExitError> {
        let adapter = Adapter::open(config).await.map_err(|error| match error {
            OpenError::Lock(LockError::AlreadyLocked { .. }) => ExitError::other_error(error),
            _ => ExitError::bad_environment(error),
        })?;
        let events = adapter.events();
        Ok((Self { adapter: RwLock::new(Some(adapter)), source }, events))
    }

    /// What it was told last; `None` once it is closed.
    pub(super) async fn config(&self) -> Option<Arc<Config>> {
        Some(self.adapter.read().await.as_ref()?.config())
    }

    /// What the peers ask; `None` the second time, and once it is closed.
    pub(super) async fn peer_queries(&self) -> Option<mpsc::Receiver<PeerQuery>> {
        self.adapter.read().await.as_ref()?.peer_queries()
    }

    /// Tells the peers and takes everything down.
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
        reload::reload_config(adapter, &self.source, dry_run).await
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

    async fn query_peer(&self, peer: PeerId, question: Vec<u8>) -> Result<Vec<u8>, QueryError> {
        match self.adapter.read().await.as_ref() {
            Some(adapter) => adapter.query_peer(peer, question).await,
            None => Err(QueryError::NoSession),
        }
    }

    async fn recheck_paths(&self) -> Option<Time> {
        self.adapter.read().await.as_ref()?.reprobe_path_mtu().await
    }
}
