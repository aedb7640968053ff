//! The node behind the control socket: what the server needs of it, so that the server is tested
//! without a network.

use std::{future::Future, path::PathBuf, time::Duration};

use netft::{
    PeerId, RouteId, Time,
    api::{
        drain::{DrainError, DrainOrder, DrainReport},
        drill::{DrillError, DrillOrder, DrillStatus},
        error::{PeerError, RouteError},
        query::QueryError,
        snapshot::Snapshot,
    },
    config::ConfigChange,
    route::{PeerChange, RouteChange},
};

use super::{
    cluster::ClusterHandle,
    schema::{NameView, OwnershipView, PartnerView},
};
use crate::{
    exit::ExitError,
    vip::{AgentOrder, VipError, VipHandle},
};

/// An order to hand the adapter over to a successor process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeOrder {
    /// The successor's program; `None`: the file of the running one.
    pub binary: Option<PathBuf>,
    /// Time for the successor to be ready.
    pub timeout: Duration,
}

/// A running node.
pub trait ControlBackend: Send + Sync + 'static {
    /// State of the node; `None` once closed.
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

    /// Reloads the configuration file and applies it, unless `dry_run`. Returns the changes;
    /// must be awaited to its end.
    ///
    /// # Errors
    /// Invalid file, or a change that needs a restart (exit code 2); nothing changed.
    fn reload_config(
        &self,
        dry_run: bool,
    ) -> impl Future<Output = Result<Vec<ConfigChange>, ExitError>> + Send;

    /// The configuration file.
    fn config_file(&self) -> Option<PathBuf> {
        None
    }

    /// Changes the traffic policies of a peer.
    ///
    /// # Errors
    /// See [`PeerError`].
    fn change_peer(
        &self,
        peer: PeerId,
        change: PeerChange,
    ) -> impl Future<Output = Result<(), PeerError>> + Send;

    /// Starts or ends a drain; waits at most `wait` until both directions have moved.
    ///
    /// # Errors
    /// See [`DrainError`].
    fn drain_routes(
        &self,
        order: DrainOrder,
        wait: Duration,
    ) -> impl Future<Output = Result<DrainReport, DrainError>> + Send;

    /// Begins a drill.
    ///
    /// # Errors
    /// See [`DrillError`].
    fn start_drill(
        &self,
        _order: DrillOrder,
    ) -> impl Future<Output = Result<DrillStatus, DrillError>> + Send {
        std::future::ready(Err(RouteError::Closed.into()))
    }

    /// The drill that runs, or the last one; `None` before the first.
    fn drill_status(&self) -> impl Future<Output = Option<DrillStatus>> + Send {
        std::future::ready(None)
    }

    /// Sends a query to a peer on its control session.
    ///
    /// # Errors
    /// See [`QueryError`].
    fn query_peer(
        &self,
        peer: PeerId,
        question: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, QueryError>> + Send;

    /// Why the overrides will not survive a restart: waits at most `wait` for the disk;
    /// `None` once it is there.
    fn unsaved_overrides(&self, _wait: Duration) -> impl Future<Output = Option<String>> + Send {
        std::future::ready(None)
    }

    /// Starts a successor and, once it is ready, hands the adapter over to it. Returns its process
    /// id when it is ready.
    ///
    /// # Errors
    /// There is none that is ready in time: this process serves on, and nothing has changed.
    fn start_upgrade(
        &self,
        _order: UpgradeOrder,
    ) -> impl Future<Output = Result<u32, String>> + Send {
        std::future::ready(Err("this node has no successor".to_owned()))
    }

    /// The service of the floating addresses; `None` while there is none.
    fn vip_handle(&self) -> impl Future<Output = Option<VipHandle>> + Send {
        std::future::ready(None)
    }

    /// The other nodes, as far as floating addresses are concerned.
    fn partner_views(&self) -> Vec<PartnerView> {
        Vec::new()
    }

    /// Names of floating addresses in DNS.
    fn name_views(&self) -> Vec<NameView> {
        Vec::new()
    }

    /// The engine that decides on owners; `None` without one.
    fn ownership_view(&self) -> Option<OwnershipView> {
        None
    }

    /// The etcd engine; `None` without one.
    fn etcd_view(&self) -> Option<OwnershipView> {
        None
    }

    /// Carries out an order of a cluster manager's agent; what came of it.
    ///
    /// # Errors
    /// See [`VipError`]: the order is void.
    fn order_vip(
        &self,
        _name: &str,
        _order: AgentOrder,
    ) -> impl Future<Output = Result<String, VipError>> + Send {
        std::future::ready(Err(VipError::Closed))
    }

    /// Moves a floating address to a node, or to any; returns its name.
    ///
    /// # Errors
    /// See [`VipError`]: it stays where it was.
    fn move_vip(
        &self,
        _name: &str,
        _to: Option<&str>,
    ) -> impl Future<Output = Result<String, VipError>> + Send {
        std::future::ready(Err(VipError::Closed))
    }

    /// The cluster service; `None` without one.
    fn cluster(&self) -> Option<ClusterHandle> {
        None
    }

    /// Starts new path MTU probes on every route; returns the time, `None` once closed.
    fn recheck_paths(&self) -> impl Future<Output = Option<Time>> + Send;
}
