//! Messages to the driver from everything but the packet path.

use std::{io, os::fd::OwnedFd, sync::Arc};

use netft_proto::{
    config::{Config, ConfigChange, RouteOverride},
    ids::{PeerId, RouteId},
    route::{EchoOutcome, EventKind, PeerChange, RouteChange},
    time::Time,
};
use tokio::sync::oneshot;

use crate::{
    api::{
        drain::{DrainError, DrainOrder},
        drill::{DrillError, DrillOrder, DrillStatus},
        error::{PeerError, RouteError},
        snapshot::Snapshot,
    },
    io::{
        carrier_monitor::CarrierStates,
        handover::{SavedAdapter, SavedRanks},
        host_state::HostState,
        quic::FromQuic,
        socket::TunQueue,
    },
};

/// A message to the driver.
pub(crate) enum DriverMessage {
    /// The interfaces of this node changed.
    HostState(HostState),
    /// Interfaces whose carrier changed.
    Carriers(CarrierStates),
    /// The adapter has new queues: it was deleted and created anew.
    Queues(Vec<Arc<TunQueue>>),
    /// An event of the netlink watcher or the resolver, for the subscribers.
    Event(EventKind),
    /// A name of a peer that failed resolves again.
    NameResolved {
        /// The peer.
        peer: PeerId,
        name: String,
    },
    /// An echo through the adapter ended.
    EchoDone {
        /// The peer it was sent to.
        peer: PeerId,
        outcome: EchoOutcome,
    },
    /// Another program changed nftables rules of this node.
    RulesetChanged,
    /// The control sessions changed.
    Quic(FromQuic),
    /// A request through the API.
    Request(DriverRequest),
}

/// A request through the API, with the channel of its answer.
pub(crate) enum DriverRequest {
    /// A consistent picture of the node.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Change a route's timing, priority or admin state.
    Change(RouteId, RouteChange, oneshot::Sender<Result<(), RouteError>>),
    /// Add a route, as if the config had named it.
    Add(PeerId, RouteOverride, oneshot::Sender<Result<RouteId, RouteError>>),
    /// Remove a route until it is added again.
    Remove(RouteId, oneshot::Sender<Result<(), RouteError>>),
    /// Go over to another config, or say what that would change.
    Reconfigure(Box<NewConfig>, oneshot::Sender<Vec<ConfigChange>>),
    /// Change how data to a peer uses its routes.
    ChangePeer(PeerId, PeerChange, oneshot::Sender<Result<(), PeerError>>),
    /// Drain routes, or use them again.
    Drain(DrainOrder, oneshot::Sender<Result<Vec<RouteId>, DrainError>>),
    /// Rehearse a failure.
    Drill(DrillOrder, oneshot::Sender<Result<DrillStatus, DrillError>>),
    /// The drill that runs, or the last one.
    DrillStatus(oneshot::Sender<Option<DrillStatus>>),
    /// Probe the path MTU of every route anew; answered with the moment.
    Recheck(oneshot::Sender<Time>),
    /// Take datagrams of unknown sources for QUIC, since nodes may ask to join; or stop that.
    Joining(bool),
    /// The sessions are about to end because this node closes: their end is no event.
    Closing,
    /// Stop the workers and end the driver's thread.
    Stop(oneshot::Sender<()>),
    /// The same, answered with everything a successor process needs to go on.
    Freeze(SavedRanks, oneshot::Sender<io::Result<FrozenState>>),
}

/// The state of a node that nobody serves, and its sockets.
pub(crate) struct FrozenState {
    pub state: SavedAdapter,
    pub sockets: Vec<OwnedFd>,
}

/// Another config for a running node.
pub(crate) struct NewConfig {
    /// With numbered peers.
    pub config: Config,
    /// The node's interfaces, read with that config.
    pub host_state: HostState,
    /// Apply it; otherwise only report what would become of the routes.
    pub apply: bool,
}
