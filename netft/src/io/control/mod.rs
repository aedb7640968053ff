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

use netft_proto::{config::Config, route::Event, topology::Advertisements};
use tokio::sync::{broadcast, mpsc, watch};

use crate::io::{
    adapter::reconciler::DesiredState,
    carrier_monitor::CarrierMonitor,
    clock,
    control::{driver::Driver, mailbox::Wakeup},
    datapath::{report::FromWorker, workers::Workers},
    fib::SharedFib,
    host_state::HostState,
    messages::{DriverMessage, DriverRequest},
    quic::session::manager::SessionManager,
    socket::TunQueue,
};

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
