//! The running adapter as the programs see it: the library's types, and the trait the control
//! socket is written against (so that it is tested without a network).

use std::future::Future;

use netft::{
    PeerId, RouteId,
    config::Config,
    io::lock::LockError,
    route::{PeerChange, RouteChange},
};
use tokio::sync::RwLock;

pub use netft::adapter::{
    Adapter, AdapterInfo, CounterSnapshot, EventStream, NodeInfo, OpenError, PeerError, PeerInfo,
    RouteError, RouteSent, Skipped, Snapshot,
};

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

    /// Changes how data to a peer uses its routes.
    ///
    /// # Errors
    /// See [`PeerError`].
    fn change_peer(
        &self,
        peer: PeerId,
        change: PeerChange,
    ) -> impl Future<Output = Result<(), PeerError>> + Send;
}

/// The adapter of this process, until it is closed under those who still ask.
pub struct Running(RwLock<Option<Adapter>>);

impl Running {
    /// Opens the adapter; its events from the first one on.
    ///
    /// # Errors
    /// Another daemon has the adapter (exit code 1), or the environment refuses (3).
    pub async fn open(config: Config) -> Result<(Self, EventStream), Failure> {
        let adapter = Adapter::open(config).await.map_err(|error| match error {
            OpenError::Lock(LockError::Held { .. }) => Failure::other(error),
            _ => Failure::environment(error),
        })?;
        let events = adapter.events();
        Ok((Self(RwLock::new(Some(adapter))), events))
    }

    /// Tells the peers and takes everything down.
    pub async fn close(&self) {
        let adapter = self.0.write().await.take();
        if let Some(adapter) = adapter {
            adapter.close().await;
        }
    }
}

impl Node for Running {
    async fn snapshot(&self) -> Option<Snapshot> {
        self.0.read().await.as_ref()?.snapshot().await
    }

    async fn change_route(&self, id: RouteId, change: RouteChange) -> Result<(), RouteError> {
        match self.0.read().await.as_ref() {
            Some(adapter) => adapter.change_route(id, change).await,
            None => Err(RouteError::Closed),
        }
    }

    async fn change_peer(&self, id: PeerId, change: PeerChange) -> Result<(), PeerError> {
        match self.0.read().await.as_ref() {
            Some(adapter) => adapter.change_peer(id, change).await,
            None => Err(PeerError::Closed),
        }
    }
}
