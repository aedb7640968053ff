//! The driver's thread: it waits for messages and deadlines, and has the driver handle them.

use std::{sync::Arc, thread};

use netft_proto::{
    config::Config,
    engine::{Engine, EngineConfig},
    route::Event,
    topology::Advertisements,
};
use tokio::sync::{broadcast, mpsc, watch};

use crate::io::{
    adapter::reconciler::DesiredState,
    carrier_monitor::CarrierMonitor,
    control::{
        components::Components,
        control_sessions::ControlSessions,
        driver::Driver,
        mailbox::{Mailbox, Wakeup},
        peer_table::PeerTable,
        route_planner::RouteReplanner,
        route_table::RouteTable,
        sockets::Sockets,
        table_publisher::TablePublisher,
    },
    datapath::{report::FromWorker, workers::Workers},
    fib::SharedFib,
    host_state::HostState,
    messages::{DriverMessage, DriverRequest},
    quic::session::manager::SessionManager,
    socket::TunQueue,
};

/// The node that the driver runs, and its connections to the other threads.
pub(crate) struct DriverParts {
    pub config: Config,
    pub fib: SharedFib,
    pub workers: Workers,
    pub queues: Vec<Arc<TunQueue>>,
    pub from_workers: mpsc::Receiver<FromWorker>,
    /// Messages of the workers that are read when the driver is awake.
    pub deferred: mpsc::Receiver<FromWorker>,
    pub messages: mpsc::Receiver<DriverMessage>,
    pub events: broadcast::Sender<Event>,
    pub boot_id: u64,
    pub seed: u64,
    pub carrier_monitor: CarrierMonitor,
    pub manager: Arc<SessionManager>,
    pub desired_state: watch::Sender<DesiredState>,
    /// The peers' advertised addresses, for the netlink watcher.
    pub advertisements: watch::Sender<Advertisements>,
    pub host_state: HostState,
}

/// Runs the driver on a thread of its own until it is stopped.
///
/// # Errors
/// Of starting a thread.
pub(crate) fn spawn_driver(parts: DriverParts) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("netft-driver".into()).spawn(move || run_driver(parts))
}

fn run_driver(parts: DriverParts) {
    let (mut driver, mut mailbox) = build_driver(parts);
    let done = loop {
        let wakeup = mailbox.wait_until(driver.next_wake());
        match wakeup {
            Wakeup::Worker(message) => driver.on_worker_message(message),
            Wakeup::Message(DriverMessage::Request(DriverRequest::Stop(done))) => break Some(done),
            Wakeup::Message(message) => driver.on_message(message),
            Wakeup::Timer => {}
            Wakeup::Closed => break None,
        }
        while let Some(message) = mailbox.next_worker_message() {
            driver.on_worker_message(message);
        }
        driver.poll();
    };
    driver.shut_down();
    if let Some(done) = done {
        // The caller may have gone away; it does not matter then.
        let _ = done.send(());
    }
}

/// The driver, and the mailbox of the thread that calls this.
fn build_driver(parts: DriverParts) -> (Driver, Mailbox) {
    let config = parts.config;
    let engine = EngineConfig {
        hold: config.failover.hold_down,
        history: config.heartbeat.history,
        seed: parts.seed,
        mtu_raise: config.failover.pmtu_raise_timer,
    };
    let mut components = Components::default();
    let cid_tag = components.connections.cid_tag(&config);
    let mut driver = Driver {
        engine: Engine::new(engine),
        config,
        planner: RouteReplanner::new(parts.advertisements),
        routes: RouteTable::default(),
        peers: PeerTable::default(),
        components,
        sockets: Sockets::default(),
        workers: parts.workers,
        publisher: TablePublisher::new(parts.fib, parts.desired_state, cid_tag),
        sessions: ControlSessions::new(parts.manager, parts.boot_id),
        events: parts.events,
        carrier_monitor: parts.carrier_monitor,
    };
    let peers: Vec<_> = driver.config.peers.iter().map(|peer| peer.id).collect();
    peers.into_iter().for_each(|peer| driver.add_peer(peer));
    driver.publisher.set_rate_limits(&driver.config);
    driver.set_queues(parts.queues);
    driver.set_host_state(parts.host_state, "start");
    driver.poll();
    let mailbox = Mailbox::new(parts.from_workers, parts.deferred, parts.messages);
    (driver, mailbox)
}
