//! The running adapter as the programs see it: the library's types, and the trait the control
//! socket is written against (so that it is tested without a network).

use std::{future::Future, sync::Arc, time::Duration};

use netft::{
    PeerId, RouteId, Time,
    config::{Change, Config},
    io::adapter::lock::LockError,
    route::{PeerChange, RouteChange},
};
pub use netft::{
    adapter::Adapter,
    api::{
        drain::{DrainError, DrainOrder, DrainReport},
        error::{OpenError, PeerError, RouteError},
        events::{EventStream, Skipped},
        snapshot::{AdapterInfo, CounterSnapshot, NodeInfo, PeerInfo, RouteSent, Snapshot},
    },
    io::quic::{AskError, Question},
};
use tokio::sync::{RwLock, mpsc};

use super::{reload, reload::Source};
use crate::cli::failure::Failure;

/// A running node.
pub trait Node: Send + Sync + 'static {
    /// Its state; `None` once it is closed.
    fn snapshot(&self) -> impl Future<Output = Option<Snapshot>> + Send;

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
    fn reload(&self, dry_run: bool) -> impl Future<Output = Result<Vec<Change>, Failure>> + Send;

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
    fn drain(
        &self,
        order: DrainOrder,
        wait: Duration,
    ) -> impl Future<Output = Result<DrainReport, DrainError>> + Send;

    /// Asks a peer a question on its control session.
    ///
    /// # Errors
    /// See [`AskError`].
    fn ask(
        &self,
        peer: PeerId,
        question: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, AskError>> + Send;

    /// Has the path MTU of every route probed anew; the moment, or `None` once it is closed.
    fn recheck_paths(&self) -> impl Future<Output = Option<Time>> + Send;
}

/// The adapter of this process, until it is closed under those who still ask.
pub struct Running {
    adapter: RwLock<Option<Adapter>>,
    source: Source,
}

impl Running {
    /// Opens the adapter; its events from the first one on.
    ///
    /// # Errors
    /// Another daemon has the adapter (exit code 1), or the environment refuses (3).
    pub(super) async fn open(
        config: Config,
        source: Source,
    ) -> Result<(Self, EventStream), Failure> {
        let adapter = Adapter::open(config).await.map_err(|error| match error {
            OpenError::Lock(LockError::Held { .. }) => Failure::other(error),
            _ => Failure::environment(error),
        })?;
        let events = adapter.events();
        Ok((Self { adapter: RwLock::new(Some(adapter)), source }, events))
    }

    /// What it was told last; `None` once it is closed.
    pub(super) async fn config(&self) -> Option<Arc<Config>> {
        Some(self.adapter.read().await.as_ref()?.config())
    }

    /// What the peers ask; `None` the second time, and once it is closed.
    pub(super) async fn questions(&self) -> Option<mpsc::Receiver<Question>> {
        self.adapter.read().await.as_ref()?.questions()
    }

    /// Tells the peers and takes everything down.
    pub async fn close(&self) {
        let adapter = self.adapter.write().await.take();
        if let Some(adapter) = adapter {
            adapter.close().await;
        }
    }
}

impl Node for Running {
    async fn snapshot(&self) -> Option<Snapshot> {
        self.adapter.read().await.as_ref()?.snapshot().await
    }

    async fn change_route(&self, id: RouteId, change: RouteChange) -> Result<(), RouteError> {
        match self.adapter.read().await.as_ref() {
            Some(adapter) => adapter.change_route(id, change).await,
            None => Err(RouteError::Closed),
        }
    }

    async fn reload(&self, dry_run: bool) -> Result<Vec<Change>, Failure> {
        let adapter = self.adapter.read().await;
        let Some(adapter) = adapter.as_ref() else {
            return Err(Failure::other(RouteError::Closed));
        };
        reload::reload(adapter, &self.source, dry_run).await
    }

    async fn change_peer(&self, id: PeerId, change: PeerChange) -> Result<(), PeerError> {
        match self.adapter.read().await.as_ref() {
            Some(adapter) => adapter.change_peer(id, change).await,
            None => Err(PeerError::Closed),
        }
    }

    async fn drain(&self, order: DrainOrder, wait: Duration) -> Result<DrainReport, DrainError> {
        match self.adapter.read().await.as_ref() {
            Some(adapter) => adapter.drain(order, wait).await,
            None => Err(RouteError::Closed.into()),
        }
    }

    async fn ask(&self, peer: PeerId, question: Vec<u8>) -> Result<Vec<u8>, AskError> {
        match self.adapter.read().await.as_ref() {
            Some(adapter) => adapter.ask(peer, question).await,
            None => Err(AskError::NoSession),
        }
    }

    async fn recheck_paths(&self) -> Option<Time> {
        self.adapter.read().await.as_ref()?.recheck_paths().await
    }
}
