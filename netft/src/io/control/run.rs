//! The driver's thread: it waits for messages and deadlines, and has the driver handle them.
//!
//! Its queues are read without a runtime: the thread parks on a futex, which costs half of an event
//! loop's wake-up and keeps its timers to the microsecond.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    thread::Thread,
};

use netft_proto::{
    config::Config,
    engine::{Engine, EngineConfig},
    route::Event,
    time::Time,
    topology::Advertisements,
};
use tokio::sync::{broadcast, mpsc, watch};

use crate::io::{
    adapter::repairs::DesiredState,
    carrier_monitor::CarrierMonitor,
    clock,
    control::{
        components::Components, control_sessions::ControlSessions, driver::Driver, handover,
        handover::ResumedState, overrides::OverrideTable, peer_table::PeerTable,
        route_planner::RouteReplanner, route_table::RouteTable, sockets::Sockets,
        table_publisher::TablePublisher,
    },
    datapath::{report::FromWorker, workers::Workers},
    fib::SharedFib,
    host_state::HostState,
    messages::{DriverMessage, DriverRequest},
    overlay_echo::EchoRequest,
    quic::session::manager::SessionManager,
    socket::TunQueue,
    sys::scheduling::try_shorten_slice,
};

/// The node that the driver runs, and its connections to the other threads.
pub(crate) struct DriverParts {
    pub config: Config,
    pub fib: SharedFib,
    pub workers: Workers,
    pub queues: Vec<Arc<TunQueue>>,
    /// Messages of the workers: those that wake the driver, and those it reads when it is awake.
    pub from_workers: (mpsc::Receiver<FromWorker>, mpsc::Receiver<FromWorker>),
    pub messages: mpsc::Receiver<DriverMessage>,
    pub events: broadcast::Sender<Event>,
    pub random: RandomSeeds,
    pub carrier_monitor: CarrierMonitor,
    /// Requests for echoes through the adapter.
    pub echoes: mpsc::Sender<EchoRequest>,
    pub manager: Arc<SessionManager>,
    pub desired_state: watch::Sender<DesiredState>,
    /// The peers' advertised addresses, for the netlink watcher.
    pub advertisements: watch::Sender<Advertisements>,
    /// The interfaces, and the state that a predecessor process left.
    pub start: (HostState, Option<ResumedState>),
    /// The operator's overrides of an earlier run.
    pub overrides: OverrideTable,
}

/// Random numbers of this run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RandomSeeds {
    pub boot_id: u64,
    /// Of the heartbeats' jitter.
    pub jitter: u64,
}

/// Runs the driver on a thread of its own until it is stopped.
///
/// # Errors
/// Of starting a thread.
pub(crate) fn spawn_driver(parts: DriverParts) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("netft-driver".into()).spawn(move || run_driver(parts))
}

fn run_driver(parts: DriverParts) {
    try_shorten_slice();
    let (mut driver, mut mailbox) = build_driver(parts);
    let end = loop {
        let wakeup = mailbox.wait_until(driver.next_wake());
        match wakeup {
            Wakeup::Worker(message) => driver.on_worker_message(message),
            Wakeup::Message(DriverMessage::Request(
                end @ (DriverRequest::Stop(_) | DriverRequest::Freeze(..)),
            )) => break Some(end),
            Wakeup::Message(message) => driver.on_message(message),
            Wakeup::Timer => {}
            Wakeup::Closed => break None,
        }
        while let Some(message) = mailbox.next_worker_message() {
            driver.on_worker_message(message);
        }
        driver.poll();
    };
    // The caller may have gone away; it does not matter then.
    match end {
        Some(DriverRequest::Freeze(ranks, frozen)) => {
            let left = || mailbox.next_worker_message();
            drop(frozen.send(handover::freeze_driver(driver, left, ranks)));
        }
        Some(DriverRequest::Stop(done)) => {
            driver.shut_down();
            let _ = done.send(());
        }
        _ => driver.shut_down(),
    }
}

/// The driver, and the mailbox of the thread that calls this.
fn build_driver(parts: DriverParts) -> (Driver, Mailbox) {
    let config = parts.config;
    let engine = EngineConfig {
        hold: config.failover.hold_down,
        history: config.heartbeat.history,
        seed: parts.random.jitter,
        mtu_raise: config.failover.pmtu_raise_timer,
    };
    let mut components = Components { overrides: parts.overrides, ..Components::default() };
    let cid_tags = components.connections.cid_tags(&config);
    let mut driver = Driver {
        engine: Engine::new(engine),
        config,
        planner: RouteReplanner::new(parts.advertisements),
        routes: RouteTable::default(),
        peers: PeerTable::default(),
        components,
        sockets: Sockets::default(),
        workers: parts.workers,
        publisher: TablePublisher::new(parts.fib, parts.desired_state, cid_tags),
        sessions: ControlSessions::new(parts.manager, parts.random.boot_id),
        events: parts.events,
        carrier_monitor: parts.carrier_monitor,
        echoes: parts.echoes,
    };
    let peers: Vec<_> = driver.config.peers.iter().map(|peer| peer.id).collect();
    peers.into_iter().for_each(|peer| driver.add_peer(peer));
    driver.apply_policy_overrides();
    driver.publisher.set_rate_limits(&driver.config);
    let (host_state, resumed) = parts.start;
    if let Some(resumed) = resumed {
        handover::resume_driver(&mut driver, resumed);
        // The workers read nothing before they have the table: what waits in the queues and in the
        // sockets would be dropped.
        driver.publisher.set_queues(parts.queues.clone());
        driver.set_host_state(host_state, "taken over");
        driver.poll();
        // A worker without its queue would drop what it receives.
        driver.set_queues(parts.queues);
        if let Err(error) = driver.sockets.register_all(&driver.workers) {
            tracing::error!(%error, "a worker cannot read its sockets");
        }
    } else {
        driver.set_queues(parts.queues);
        driver.set_host_state(host_state, "start");
    }
    driver.poll();
    let mailbox = Mailbox::new(parts.from_workers.0, parts.from_workers.1, parts.messages);
    (driver, mailbox)
}

/// The reason of a wake-up.
pub(super) enum Wakeup {
    /// A message of a worker.
    Worker(FromWorker),
    /// A message of any other thread.
    Message(DriverMessage),
    /// The deadline.
    Timer,
    /// Every sender is gone.
    Closed,
}

/// The queues that wake the driver, and the one (`deferred`) that it reads only when it is awake.
/// To be used by the thread that made it.
pub(super) struct Mailbox {
    from_workers: mpsc::Receiver<FromWorker>,
    deferred: mpsc::Receiver<FromWorker>,
    messages: mpsc::Receiver<DriverMessage>,
    waker: Waker,
}

impl Mailbox {
    pub(super) fn new(
        from_workers: mpsc::Receiver<FromWorker>,
        deferred: mpsc::Receiver<FromWorker>,
        messages: mpsc::Receiver<DriverMessage>,
    ) -> Self {
        Self {
            from_workers,
            deferred,
            messages,
            waker: Arc::new(UnparkWaker(thread::current())).into(),
        }
    }

    /// Sleeps until a message arrives, at most until `until`. Messages that already arrived are
    /// read before any timer declares a route down (F-20), heartbeats first.
    pub(super) fn wait_until(&mut self, until: Time) -> Wakeup {
        let mut context = Context::from_waker(&self.waker);
        loop {
            if let Poll::Ready(message) = self.from_workers.poll_recv(&mut context) {
                return message.map_or(Wakeup::Closed, Wakeup::Worker);
            }
            if let Poll::Ready(message) = self.messages.poll_recv(&mut context) {
                return message.map_or(Wakeup::Closed, Wakeup::Message);
            }
            let left = until.since(clock::now());
            if left.is_zero() {
                return Wakeup::Timer;
            }
            thread::park_timeout(left);
        }
    }

    /// The next message that the workers have sent already, deferred ones first.
    pub(super) fn next_worker_message(&mut self) -> Option<FromWorker> {
        self.deferred.try_recv().or_else(|_| self.from_workers.try_recv()).ok()
    }
}

struct UnparkWaker(Thread);

impl Wake for UnparkWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use netft_proto::{ids::RouteId, route::EventKind};

    use super::*;

    type Ends =
        (Mailbox, mpsc::Sender<FromWorker>, mpsc::Sender<FromWorker>, mpsc::Sender<DriverMessage>);

    fn inbox() -> Ends {
        let (to_driver, workers) = mpsc::channel(4);
        let (leave, left) = mpsc::channel(4);
        let (driver, messages) = mpsc::channel(4);
        (Mailbox::new(workers, left, messages), to_driver, leave, driver)
    }

    fn far() -> Time {
        clock::now() + Duration::from_secs(3600)
    }

    #[test]
    fn what_arrived_is_heard_before_the_timer_and_workers_first() {
        let (mut inbox, to_driver, leave, driver) = inbox();
        leave.try_send(FromWorker::Suspect(RouteId(3))).unwrap();
        driver.try_send(DriverMessage::Event(EventKind::Reconfigured)).unwrap();
        to_driver.try_send(FromWorker::Suspect(RouteId(1))).unwrap();
        to_driver.try_send(FromWorker::Suspect(RouteId(2))).unwrap();
        assert!(matches!(
            inbox.wait_until(Time::ZERO),
            Wakeup::Worker(FromWorker::Suspect(RouteId(1)))
        ));
        assert!(matches!(inbox.next_worker_message(), Some(FromWorker::Suspect(RouteId(3)))));
        assert!(matches!(inbox.next_worker_message(), Some(FromWorker::Suspect(RouteId(2)))));
        assert!(inbox.next_worker_message().is_none());
        assert!(matches!(inbox.wait_until(Time::ZERO), Wakeup::Message(_)));
        leave.try_send(FromWorker::Suspect(RouteId(4))).unwrap();
        assert!(matches!(inbox.wait_until(Time::ZERO), Wakeup::Timer), "nobody wakes up for that");
    }

    #[test]
    fn a_sleeper_is_woken_from_another_thread() {
        let (mut inbox, to_driver, _leave, _driver) = inbox();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            to_driver.try_send(FromWorker::Suspect(RouteId(1))).unwrap();
            to_driver
        });
        assert!(matches!(inbox.wait_until(far()), Wakeup::Worker(_)));
        drop(other.join().unwrap());
        assert!(matches!(inbox.wait_until(far()), Wakeup::Closed));
    }
}
