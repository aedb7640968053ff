//! The node behind the control socket: what the server needs of it, so that the server is tested
//! without a network.

use std::{future::Future, time::Duration};

use netft::{
    PeerId, RouteId, Time,
    api::{
        drain::{DrainError, DrainOrder, DrainReport},
        error::{PeerError, RouteError},
        query::QueryError,
        snapshot::Snapshot,
    },
    config::ConfigChange,
    route::{PeerChange, RouteChange},
};

use crate::exit::ExitError;

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
