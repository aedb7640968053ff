//! The driver: the one thread that feeds the engine and carries out what it says.
//!
//! It owns the engine, the sockets, the sessions and the forwarding state, and is a thread of its
//! own, so that neither a handshake nor an operator's request delays a heartbeat. It
//! decides nothing: inputs go to [`Engine`](netft_proto::engine::Engine), outputs become frames,
//! tables and events.
//!
//! ```text
//! workers ──heartbeats──▶ ┌────────┐ ──heartbeat frames──▶ sockets
//! keeper ───interfaces──▶ │ driver │ ──Fib───────────────▶ workers, QUIC
//! QUIC ─────sessions────▶ │ engine │ ──events────────────▶ subscribers
//! API ──────requests────▶ └────────┘
//! ```

mod carrier_poll;
mod deferred_replies;
mod drain;
mod driver;
mod former_boot;
mod forwarding;
mod mailbox;
mod nat;
mod path_mtu;
mod quic_connections;
mod reconfigure;
mod redial;
mod relay;
mod retries;
mod routes;
mod snapshot;
mod sockets;
mod steering;

use std::sync::Arc;

use netft_proto::{
    config::{Config, ConfigChange, RouteOverride},
    ids::{PeerId, RouteId},
    route::{Event, EventKind, PeerChange, RouteChange},
    time::Time,
    topology::Advertisements,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    api::{
        drain::{DrainError, DrainOrder},
        error::{PeerError, RouteError},
        snapshot::Snapshot,
    },
    io::{
        adapter::reconciler::DesiredState,
        carrier_monitor::{CarrierMonitor, CarrierStates},
        clock,
        control::{driver::Driver, mailbox::Wakeup},
        datapath::{FromWorker, Workers},
        fib::SharedFib,
        netlink_watcher::HostState,
        quic::{FromQuic, session::manager::SessionManager},
        socket::TunQueue,
    },
};

/// What everything but the packet path tells the driver.
pub(crate) enum DriverMessage {
    /// The interfaces of this node changed.
    HostState(HostState),
    /// What the lookout saw.
    Carriers(CarrierStates),
    /// The adapter has new queues (it was deleted and made again).
    Queues(Vec<Arc<TunQueue>>),
    /// Something the adapter's keeper saw or did.
    Event(EventKind),
    /// The control sessions changed.
    Quic(FromQuic),
    /// An operator or embedder asks.
    Request(DriverRequest),
}

/// What an operator or embedder asks.
pub(crate) enum DriverRequest {
    Snapshot(oneshot::Sender<Snapshot>),
    Change(RouteId, RouteChange, oneshot::Sender<Result<(), RouteError>>),
    Add(PeerId, RouteOverride, oneshot::Sender<Result<RouteId, RouteError>>),
    Remove(RouteId, oneshot::Sender<Result<(), RouteError>>),
    Reconfigure(Box<NewConfig>, oneshot::Sender<Vec<ConfigChange>>),
    ChangePeer(PeerId, PeerChange, oneshot::Sender<Result<(), PeerError>>),
    Drain(DrainOrder, oneshot::Sender<Result<Vec<RouteId>, DrainError>>),
    /// Probe the path MTU of every route anew; answered with the moment.
    Recheck(oneshot::Sender<Time>),
    /// The sessions are about to end because this node closes: that is no news.
    Closing,
    Stop(oneshot::Sender<()>),
}

/// Another config for a running node.
pub(crate) struct NewConfig {
    /// With numbered peers.
    pub config: Config,
    /// How the node's interfaces are, seen with that config.
    pub host_state: HostState,
    /// Whether to apply it, not only to say what becomes of the routes.
    pub apply: bool,
}

/// What the driver is given.
pub(crate) struct DriverParts {
    pub config: Config,
    pub fib: SharedFib,
    pub workers: Workers,
    pub queues: Vec<Arc<TunQueue>>,
    pub from_workers: mpsc::Receiver<FromWorker>,
    /// What the workers left for when the driver is awake.
    pub deferred: mpsc::Receiver<FromWorker>,
    pub messages: mpsc::Receiver<DriverMessage>,
    pub events: broadcast::Sender<Event>,
    pub boot_id: u64,
    pub seed: u64,
    pub carrier_monitor: CarrierMonitor,
    pub manager: Arc<SessionManager>,
    pub desired_state: watch::Sender<DesiredState>,
    /// To the keeper: what the peers tell of their addresses.
    pub advertisements: watch::Sender<Advertisements>,
    pub host_state: HostState,
}

/// Runs the driver on a thread of its own until it is stopped.
pub(crate) fn spawn_driver(parts: DriverParts) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("netft-driver".into()).spawn(move || run_driver(parts))
}

fn run_driver(parts: DriverParts) {
    let (mut driver, mut mailbox) = Driver::new(parts);
    let done = loop {
        let wakeup = mailbox.wait_until(driver.next_wake());
        driver.read_deferred_replies();
        match wakeup {
            Wakeup::Worker(heard) => driver.on_worker_message(heard),
            Wakeup::Message(DriverMessage::Request(DriverRequest::Stop(done))) => break Some(done),
            Wakeup::Message(message) => driver.on_message(message),
            Wakeup::Timer => {}
            Wakeup::Closed => break None,
        }
        while let Some(heard) = mailbox.next_worker_message() {
            driver.on_worker_message(heard);
        }
        driver.poll_carriers(clock::now());
        driver.poll_relays(clock::now());
        driver.poll_nat(clock::now());
        driver.poll_redial(clock::now());
        driver.poll_engine();
    };
    driver.shut_down();
    if let Some(done) = done {
        // The caller may have gone away; it does not matter then.
        let _ = done.send(());
    }
}
