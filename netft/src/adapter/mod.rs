//! A running node: the entry point of the library.
//!
//! [`Adapter::open`] creates the TUN device and everything behind it; [`Adapter::close`] takes it
//! away. In between: a consistent [`Snapshot`], a bounded [`EventStream`], and routes to add,
//! change and remove. The daemon is a thin shell around this type.

mod drain;
mod open;
mod reconfigure;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use netft_proto::{
    config::{Config, RouteOverride},
    ids::{PeerId, RouteId},
    overrides::OperatorOverrides,
    route::{Event, EventKind, PeerChange, RouteChange},
    time::Time,
    topology::{Advertisements, ResolvedAddresses},
    wire::{DropReason, topic::Topic},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::io::{
    adapter::{lock::AdapterLock, policy_rule},
    clock,
    fib::SharedFib,
    handover::{AdapterDescriptors, FrozenAdapter},
    messages::{DriverMessage, DriverRequest, FrozenState},
    netlink::Netlink,
    packet_filter,
    port_claim::PortClaim,
    quic::{
        JoinAttempt,
        session::manager::{CLOSE_TIMEOUT, SESSION_CLOSE_DELAY, SessionManager},
    },
};
pub use crate::{
    api::{
        drain::{DrainError, DrainOrder, DrainReport, DrainTarget},
        drill::{DrillError, DrillOrder, DrillStatus},
        error::{OpenError, PeerError, ReconfigureError, RouteError},
        events::{EVENT_BACKLOG, EventStream, MissedEvents},
        overrides::PublishedOverrides,
        snapshot::{AdapterInfo, CounterSnapshot, NodeInfo, PeerInfo, RouteTraffic, Snapshot},
    },
    io::quic::{PeerRequest, QueryError},
};

/// A running node: its adapter, routes and sessions.
///
/// Dropping it without [`close`](Self::close) leaves the device behind, as a crash would: TCP
/// connections over it live on, and the next start adopts it.
pub struct Adapter {
    config: watch::Sender<Arc<Config>>,
    /// The number of the next peer that a new config adds. Locked during a reconfiguration.
    next_peer: tokio::sync::Mutex<u32>,
    /// The peers' advertised addresses.
    advertisements: watch::Receiver<Advertisements>,
    /// The addresses behind the peers' names.
    resolved: watch::Receiver<ResolvedAddresses>,
    /// Peers' addresses that the kernel leads to the adapter.
    routed: watch::Receiver<BTreeSet<IpAddr>>,
    messages: mpsc::Sender<DriverMessage>,
    events: broadcast::Sender<Event>,
    /// Attached before the first route was added (NetFT attaches its event handlers first), so
    /// that the first subscriber misses nothing.
    first_stream: Mutex<Option<EventStream>>,
    overrides: watch::Receiver<PublishedOverrides>,
    manager: Arc<SessionManager>,
    /// Netlink watcher, resolver, packet filter guard, echoes, warnings of peers.
    tasks: JoinSet<()>,
    driver: Option<std::thread::JoinHandle<()>>,
    fib: SharedFib,
    lock: AdapterLock,
    port: PortClaim,
}

impl Adapter {
    /// Opens the adapter and starts everything behind it. Needs `CAP_NET_ADMIN`, and
    /// `CAP_NET_RAW` to pin sockets to interfaces; must be called within a tokio runtime, which
    /// then runs the control sessions. Adopts the device a crash left.
    ///
    /// # Errors
    /// [`OpenError`] names what is missing and how to get it; nothing is left behind.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        open::open_adapter(config, OperatorOverrides::default(), None).await
    }

    /// Opens the adapter with an operator's overrides of an earlier run, which apply to every route
    /// from its first moment, and with what another process handed over: its sessions, routes and
    /// sockets go on. The limits count from [`Time::ZERO`].
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(
        config: Config,
        overrides: OperatorOverrides,
        inherited: Option<FrozenAdapter>,
    ) -> Result<Self, OpenError> {
        open::open_adapter(config, overrides, inherited).await
    }

    /// The operator's overrides, of earlier runs and of this one. A change is there before the
    /// request that caused it returns.
    pub fn overrides(&self) -> watch::Receiver<PublishedOverrides> {
        self.overrides.clone()
    }

    /// The config in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// A consistent snapshot of the node; `None` after the adapter closed.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, snapshot) = oneshot::channel();
        self.send_request(DriverRequest::Snapshot(answer)).await?;
        snapshot.await.ok()
    }

    /// Everything that happens from here on; the first stream starts with the first event.
    pub fn events(&self) -> EventStream {
        let first = self.first_stream.lock().ok().and_then(|mut first| first.take());
        first.unwrap_or_else(|| EventStream::new(self.events.subscribe()))
    }

    /// Changes a route while it runs.
    ///
    /// # Errors
    /// [`RouteError::UnknownPeer`], [`RouteError::Closed`].
    pub async fn change_route(&self, id: RouteId, change: RouteChange) -> Result<(), RouteError> {
        let (answer, done) = oneshot::channel();
        self.send_request(DriverRequest::Change(id, change, answer))
            .await
            .ok_or(RouteError::Closed)?;
        done.await.map_err(|_| RouteError::Closed)?
    }

    /// Changes how data to a peer uses its routes. Each flow keeps its packets' order, but for
    /// flows that this change moves to another route.
    ///
    /// # Errors
    /// [`PeerError`]; nothing changed then.
    pub async fn change_peer(&self, peer: PeerId, change: PeerChange) -> Result<(), PeerError> {
        let (answer, done) = oneshot::channel();
        self.send_request(DriverRequest::ChangePeer(peer, change, answer))
            .await
            .ok_or(PeerError::Closed)?;
        done.await.map_err(|_| PeerError::Closed)?
    }

    /// Adds a route to a peer, as if the config had named it.
    ///
    /// # Errors
    /// [`RouteError::UnknownPeer`], [`RouteError::NoLocalAddress`], [`RouteError::Exists`],
    /// [`RouteError::Closed`].
    pub async fn add_route(
        &self,
        peer: PeerId,
        route: RouteOverride,
    ) -> Result<RouteId, RouteError> {
        let (answer, done) = oneshot::channel();
        self.send_request(DriverRequest::Add(peer, route, answer))
            .await
            .ok_or(RouteError::Closed)?;
        done.await.map_err(|_| RouteError::Closed)?
    }

    /// Removes a route until it is added again.
    ///
    /// # Errors
    /// [`RouteError::UnknownPeer`], [`RouteError::Closed`].
    pub async fn remove_route(&self, id: RouteId) -> Result<(), RouteError> {
        let (answer, done) = oneshot::channel();
        self.send_request(DriverRequest::Remove(id, answer)).await.ok_or(RouteError::Closed)?;
        done.await.map_err(|_| RouteError::Closed)?
    }

    /// Rehearses a failure: its fault is there from now on for the time ordered, in this process's
    /// memory alone, and is undone by itself. [`drill`](Self::drill) tells how it goes.
    ///
    /// # Errors
    /// [`DrillError`] gives the reason; nothing changed then.
    pub async fn start_drill(&self, order: DrillOrder) -> Result<DrillStatus, DrillError> {
        let (answer, begun) = oneshot::channel();
        self.send_request(DriverRequest::Drill(order, answer)).await.ok_or(RouteError::Closed)?;
        begun.await.map_err(|_| RouteError::Closed)?
    }

    /// The drill that runs, or the last one; `None` before the first.
    pub async fn drill(&self) -> Option<DrillStatus> {
        let (answer, status) = oneshot::channel();
        self.send_request(DriverRequest::DrillStatus(answer)).await?;
        status.await.ok()?
    }

    /// Sends a peer a request on its control session, within the bounds of its topic
    /// ([`Topic::limits`]); the bytes' meaning is up to the two programs.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn request(
        &self,
        peer: PeerId,
        topic: Topic,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, QueryError> {
        self.manager.request(peer, topic, payload).await
    }

    /// The requests of the peers on a topic, at most 16 of them waiting; `None` the second time.
    /// Requests are refused once the receiver is dropped, and get no answer before it is taken.
    pub fn requests(&self, topic: Topic) -> Option<mpsc::Receiver<PeerRequest>> {
        self.manager.take_requests(topic)
    }

    /// Tells the subscribers of an event that the program caused.
    pub async fn report_event(&self, event: EventKind) {
        // Only a closed adapter has no subscribers.
        let _ = self.messages.send(DriverMessage::Event(event)).await;
    }

    /// Adds packets that something outside the packet path dropped to the counters.
    pub fn count_drops(&self, reason: DropReason, packets: u64) {
        self.manager.counters().count_drops(reason, packets);
    }

    /// Lets nodes that no peer entry names ask to [join](Self::joins), or stops that. Off at the
    /// start.
    pub async fn set_joining(&self, joining: bool) {
        // A reconfiguration under way would be undone with the former keys.
        let _reconfiguring = self.next_peer.lock().await;
        self.manager.set_joining(joining, &self.config());
        // An adapter that is closed lets nobody join.
        let _ = self.send_request(DriverRequest::Joining(joining)).await;
    }

    /// The nodes that ask to join, at most 8 of them waiting; `None` the second time.
    pub fn joins(&self) -> Option<mpsc::Receiver<JoinAttempt>> {
        self.manager.take_joins()
    }

    /// Has the path MTU of every route probed anew, each with its next heartbeat, and returns the
    /// moment: a snapshot has the time of each proof. `None` after the adapter closed.
    pub async fn reprobe_path_mtu(&self) -> Option<Time> {
        let (answer, moment) = oneshot::channel();
        self.send_request(DriverRequest::Recheck(answer)).await?;
        moment.await.ok()
    }

    /// Checks that the adapter could be handed over at this moment.
    ///
    /// # Errors
    /// The device is gone, or no descriptor is left.
    pub fn check_freezable(&self) -> io::Result<()> {
        self.descriptors().map(drop)
    }

    /// Second descriptors of the adapter.
    fn descriptors(&self) -> io::Result<AdapterDescriptors> {
        let fib = self.fib.load();
        let queues = fib.queues.iter().map(|queue| queue.fd.try_clone());
        let queues = queues.collect::<io::Result<Vec<_>>>()?;
        if queues.is_empty() {
            let reason = match self.config().adapter.backend.has_device() {
                true => "the adapter is gone at this moment",
                false => "a witness has no adapter to hand over: restart netftd instead",
            };
            return Err(io::Error::other(reason));
        }
        Ok(AdapterDescriptors { lock: self.lock.duplicate()?, queues })
    }

    /// Stops every thread without a word to the peers. The device stays with its addresses and
    /// rules, and the sessions, routes and sockets go on in the process that opens what this
    /// returns.
    ///
    /// # Errors
    /// The device is gone, or no descriptor is left; the sessions are lost then.
    pub async fn freeze(mut self) -> io::Result<FrozenAdapter> {
        let adapter = self.descriptors()?;
        let port = match self.port.duplicate()? {
            Some(port) => port,
            None => self.lock.duplicate()?,
        };
        self.tasks.shutdown().await;
        let ranks = self.manager.save_sessions().await;
        let began = clock::now();
        let (answer, frozen) = oneshot::channel();
        let closed = || io::Error::other("the driver has stopped");
        self.send_request(DriverRequest::Freeze(ranks, answer)).await.ok_or_else(closed)?;
        let FrozenState { mut state, sockets } = frozen.await.map_err(|_| closed())??;
        let state = state.write_sealed()?;
        tracing::debug!(took = ?clock::now().since(began), "frozen for a successor");
        self.port.release().await;
        Ok(FrozenAdapter { adapter, state, port, sockets })
    }

    /// Ends the sessions and stops every thread; the device stays with its addresses and rules, for
    /// the process that handed it over. The port is free after it.
    pub async fn release(mut self) {
        self.stop_threads(SESSION_CLOSE_DELAY).await;
        self.port.release().await;
    }

    /// Ends the sessions, stops every thread and removes the device.
    pub async fn close(mut self) {
        self.stop_threads(CLOSE_TIMEOUT).await;
        let config = self.config();
        if !config.adapter.backend.has_device() {
            return;
        }
        let name = &config.adapter.name;
        let removed = match Netlink::open() {
            Ok(netlink) => {
                let rules = policy_rule::remove_rules(&netlink, name).await;
                netlink.remove_adapter(name).await.and(rules)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(adapter = %name, %error, "cannot remove the adapter");
        }
        // Last: while the adapter has its addresses they are closed.
        if let Err(error) = packet_filter::remove_tables(name).await {
            tracing::warn!(adapter = %name, %error, "cannot remove the packet filter");
        }
    }

    /// `close_wait`: the longest time for the peers to confirm the end of their sessions.
    async fn stop_threads(&mut self, close_wait: Duration) {
        // What a task restores at its end is restored before the process ends.
        self.tasks.shutdown().await;
        self.send_request(DriverRequest::Closing).await;
        self.manager.close(close_wait).await;
        let (answer, stopped) = oneshot::channel();
        if self.send_request(DriverRequest::Stop(answer)).await.is_some() {
            // A driver that is gone has stopped.
            let _ = stopped.await;
        }
        if let Some(driver) = self.driver.take() {
            let _ = tokio::task::spawn_blocking(move || driver.join()).await;
        }
    }

    async fn send_request(&self, request: DriverRequest) -> Option<()> {
        self.messages.send(DriverMessage::Request(request)).await.ok()
    }
}
