//! The driver's state and its four doors: workers, messages, carriers, timers.

use std::{collections::BTreeMap, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

use netft_proto::{
    config::Config,
    engine::{Engine, EngineConfig, EngineInput, EngineOutput},
    failover::cost::LossCounters,
    ids::{PeerId, RouteId},
    packet::token_bucket::TokenBucket,
    route::{
        Attributes, Event, EventKind, ForwardingTable, PeerPolicies, Priority, Reason, RouteChange,
        Timing,
    },
    session::Session,
    time::Time,
    topology::{Advertisements, NetworkCache, PlannedRoute, UnroutedAddress},
    wire::{
        DropReason,
        header::{DEFER_REPLY, FrameKind},
        heartbeat::{Heartbeat, HeartbeatMessage},
        interfaces::Advertisement,
    },
};
use tokio::sync::{broadcast, watch};

use crate::{
    api::{error::RouteError, snapshot::Snapshot},
    io::{
        adapter::reconciler::DesiredState,
        carrier_monitor::CarrierMonitor,
        clock,
        control::{
            DriverParts, carrier_poll::CarrierPoll, deferred_replies::DeferredReplies, forwarding,
            mailbox::Mailbox, nat::NatState, quic_connections::QuicConnections,
            redial::RedialState, relay::RelayRoutes, snapshot, sockets::Sockets,
        },
        counters::{Counters, RouteCounters},
        datapath::{report::FromWorker, workers::Workers},
        fib::SharedFib,
        host_state::HostState,
        messages::{DriverMessage, DriverRequest},
        quic::{FromQuic, session::manager::SessionManager, transport::CidTag},
        socket::TunQueue,
        sys::{udp, udp::SendFault},
    },
};

/// What the workers counted is summed up no more often than this: a cost is told 1.5 s later.
const LOSS_REPORT_INTERVAL: Duration = Duration::from_millis(20);

/// What the driver knows of a route beside the engine.
pub(super) struct RouteEntry {
    pub(super) plan: PlannedRoute,
    /// The remote end it was planned with, while it leads to another one its peer proved.
    pub(super) configured_remote: Option<SocketAddr>,
    /// When its peer proved where it leads.
    pub(super) learned_at: Option<Time>,
    /// Timing and priority as planned last; an operator may have changed them since.
    pub(super) planned_params: (Timing, Priority),
    /// The local fault the engine was told of.
    pub(super) reported_fault: Option<Reason>,
    /// The kernel refused to send here; told to the engine until this moment.
    pub(super) send_error_until: Option<Time>,
    /// Its socket did not open; it is tried again at this moment.
    pub(super) socket_retry_at: Option<Time>,
    /// The largest frame its interface takes, and what its carrier adds, as the engine was told.
    pub(super) reported_limit: Option<(usize, usize)>,
    /// The largest datagram its path takes, as the engine found.
    pub(super) path_mtu: Option<usize>,
    /// What the workers sent here.
    pub(super) counters: Arc<RouteCounters>,
}

impl RouteEntry {
    /// Whether the route leads over a third node: it is none that interfaces make.
    pub(super) fn is_relayed(&self) -> bool {
        self.plan.spec.attributes.0 & Attributes::RELAYED != 0
    }

    pub(super) fn new(plan: PlannedRoute) -> Self {
        Self {
            planned_params: (plan.spec.timing, plan.spec.priority),
            plan,
            configured_remote: None,
            learned_at: None,
            reported_fault: None,
            send_error_until: None,
            socket_retry_at: None,
            reported_limit: None,
            path_mtu: None,
            counters: Arc::default(),
        }
    }
}

/// What the driver knows of a peer beside the engine.
#[derive(Default)]
pub(super) struct PeerEntry {
    /// Every live session; frames on any of them are accepted.
    pub(super) live: Vec<Arc<Session>>,
    /// The one to seal with.
    pub(super) preferred: Option<u32>,
    /// Whether the peer said last that it takes slices. Outlives its sessions: a peer that is
    /// away for a moment does not make packets smaller.
    pub(super) accepts_fragments: bool,
    /// The boot id the engine was told last, while it has a session.
    pub(super) reported_boot_id: Option<u64>,
    /// The same, with or without a session.
    pub(super) last_boot_id: Option<u64>,
    /// What the peer said of its adapter at the last handshake; `None` without a session.
    pub(super) adapter_up: Option<bool>,
    /// What the sessions that ended had counted, and the sum the engine was told.
    pub(super) ended_loss: LossCounters,
    pub(super) reported_loss: LossCounters,
    /// The policies the config says, where an operator has changed them since.
    pub(super) configured_policies: Option<PeerPolicies>,
}

impl PeerEntry {
    pub(super) fn preferred_session(&self) -> Option<&Arc<Session>> {
        let number = self.preferred?;
        self.live.iter().find(|session| session.local_id() == number)
    }

    /// What all sessions have counted.
    fn total_loss(&self) -> LossCounters {
        self.live.iter().fold(self.ended_loss, |sum, session| add_loss_counters(sum, session))
    }
}

fn add_loss_counters(sum: LossCounters, session: &Session) -> LossCounters {
    let (duplicated, lost) = session.loss_counts();
    LossCounters { duplicated: sum.duplicated + duplicated, lost: sum.lost + lost }
}

pub(super) struct Driver {
    pub(super) config: Config,
    pub(super) fib: SharedFib,
    pub(super) workers: Workers,
    pub(super) queues: Vec<Arc<TunQueue>>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) engine: Engine,
    pub(super) table: Arc<ForwardingTable>,
    pub(super) sockets: Sockets,
    /// Replies that are read when the driver is awake.
    pub(super) deferred_replies: DeferredReplies,
    pub(super) connections: QuicConnections,
    /// How packets for QUIC connections of routes are told.
    pub(super) cid_tag: Option<CidTag>,
    pub(super) routes: BTreeMap<RouteId, RouteEntry>,
    /// Routes an embedder removed: planning does not bring them back.
    pub(super) removed_routes: Vec<(PeerId, SocketAddr, SocketAddr)>,
    /// Addresses of peers no route leads to, as last told.
    pub(super) unrouted: Vec<UnroutedAddress>,
    pub(super) carrier_monitor: CarrierMonitor,
    pub(super) manager: Arc<SessionManager>,
    pub(super) desired_state: watch::Sender<DesiredState>,
    /// What the peers tell of their addresses; the keeper reads along.
    pub(super) advertisements: watch::Sender<Advertisements>,
    /// What the peers were told last.
    pub(super) advertisement: Advertisement,
    /// What bounds multicast and broadcast; kept over tables, so that it is one bound.
    pub(super) multicast_limit: Option<Arc<TokenBucket>>,
    /// What bounds what this node passes on for others.
    pub(super) relay_limit: Option<Arc<TokenBucket>>,
    /// Role and metric of the networks this node was in.
    pub(super) network_cache: NetworkCache,
    /// Addresses of peers behind a NAT.
    pub(super) nat: NatState,
    /// Peers that are heard nowhere.
    pub(super) redial: RedialState,
    /// Ways over relays.
    pub(super) relay_routes: RelayRoutes,
    pub(super) peers: BTreeMap<PeerId, PeerEntry>,
    pub(super) host_state: HostState,
    pub(super) dirty: bool,
    /// When the interfaces are asked for their carrier.
    pub(super) carrier_poll: CarrierPoll,
    /// When something is tried again at the earliest.
    pub(super) retry_at: Option<Time>,
    loss_reported_at: Time,
    pub(super) boot_id: u64,
    pub(super) started_at: Time,
    last_route_id: u32,
    is_closing: bool,
}

impl Driver {
    /// The driver, and what it listens to. For the thread that will.
    pub(super) fn new(parts: DriverParts) -> (Self, Mailbox) {
        let config = parts.config;
        let engine = EngineConfig {
            hold: config.failover.hold_down,
            history: config.heartbeat.history,
            seed: parts.seed,
            mtu_raise: config.failover.pmtu_raise_timer,
        };
        let mut connections = QuicConnections::default();
        let cid_tag = connections.cid_tag(&config);
        let mut driver = Self {
            engine: Engine::new(engine),
            config,
            fib: parts.fib,
            workers: parts.workers,
            queues: Vec::new(),
            events: parts.events,
            table: Arc::default(),
            sockets: Sockets::default(),
            deferred_replies: DeferredReplies::default(),
            cid_tag,
            connections,
            routes: BTreeMap::new(),
            removed_routes: Vec::new(),
            unrouted: Vec::new(),
            carrier_monitor: parts.carrier_monitor,
            manager: parts.manager,
            desired_state: parts.desired_state,
            advertisements: parts.advertisements,
            advertisement: Advertisement::default(),
            multicast_limit: None,
            relay_limit: None,
            network_cache: NetworkCache::default(),
            nat: NatState::default(),
            redial: RedialState::default(),
            relay_routes: RelayRoutes::default(),
            peers: BTreeMap::new(),
            host_state: HostState::default(),
            dirty: true,
            carrier_poll: CarrierPoll::default(),
            retry_at: None,
            loss_reported_at: Time::ZERO,
            boot_id: parts.boot_id,
            started_at: clock::now(),
            last_route_id: 0,
            is_closing: false,
        };
        let peers: Vec<_> = driver.config.peers.iter().map(|peer| peer.id).collect();
        peers.into_iter().for_each(|peer| driver.add_peer(peer));
        driver.update_rate_limits();
        driver.set_queues(parts.queues);
        driver.set_host_state(parts.host_state);
        driver.poll_engine();
        let inbox = Mailbox::new(parts.from_workers, parts.deferred, parts.messages);
        (driver, inbox)
    }

    /// When the engine, the carriers or something to be tried again want to be looked at.
    pub(super) fn next_wake(&self) -> Time {
        let relays = self.relay_routes.next_wake(self.config.relay.use_relays);
        let quic = self.connections.next_wake();
        let adopted = self.nat.next_wake();
        let others = [self.engine.next_wake(), self.retry_at, relays, quic, adopted];
        let others = others.into_iter().flatten();
        others.fold(self.carrier_poll.next_wake(), Time::min)
    }

    /// A heartbeat, or a complaint, of a worker.
    pub(super) fn on_worker_message(&mut self, message: FromWorker) {
        match message {
            FromWorker::Heartbeat {
                peer,
                route,
                session_boot_id,
                heartbeat,
                received_at: arrived_at,
                answered,
            } => {
                let known = self.peers.get(&peer);
                if known.is_some_and(|known| known.is_previous_boot(session_boot_id)) {
                    return self.count_drop(DropReason::FormerBoot);
                }
                let (message, remote_route, sequence) =
                    (heartbeat.message, heartbeat.route, heartbeat.sequence);
                let input =
                    EngineInput::DeferredHeartbeat { peer, route, heartbeat, arrived_at, answered };
                match self.try_feed_engine(input) {
                    Ok(()) if message == HeartbeatMessage::Request => {
                        self.on_heartbeat_from_route(peer, remote_route, sequence);
                    }
                    Ok(()) => {}
                    Err(reason) => self.count_drop(reason),
                }
            }
            FromWorker::Probe { peer, route, probe } => {
                self.feed_engine(EngineInput::Probe { peer, route, probe });
            }
            FromWorker::Suspect(route) => {
                self.carrier_poll.poll_immediately();
                self.feed_engine(EngineInput::Suspect(route));
            }
            FromWorker::Resent { peer, from, to, frames, waited } => {
                self.carrier_poll.poll_immediately();
                self.feed_engine(EngineInput::Resent { peer, from, to, frames, waited });
            }
            FromWorker::SendError { route, errno } => {
                let error = std::io::Error::from_raw_os_error(errno);
                match udp::classify_send_error(&error, false) {
                    SendFault::Route => self.on_send_failed(route),
                    // A packet too large for the interface is no fault of the route.
                    SendFault::TooBig => self.feed_engine(EngineInput::DataTooBig(route)),
                    SendFault::Transient | SendFault::Refused | SendFault::NoOffload => {}
                }
            }
            FromWorker::Relayed { via, peer } => self.on_relayed_peer(via, peer),
            FromWorker::AdapterError { .. } => {}
            FromWorker::ConnectionChanged(route) => self.on_connection_event(route, clock::now()),
            FromWorker::ConnectionRequested(route) => {
                self.on_connection_request(route, clock::now())
            }
            FromWorker::PeerReflexive { peer, session_boot_id, local, from, heartbeat } => {
                let former = self
                    .peers
                    .get(&peer)
                    .is_none_or(|known| known.is_previous_boot(session_boot_id));
                if !former {
                    self.on_peer_reflexive(clock::now(), peer, (local, from), &heartbeat);
                }
            }
            FromWorker::Challenge { peer, route, local, from, challenge } => {
                self.on_challenge(clock::now(), (peer, route), (local, from), challenge);
            }
        }
    }

    pub(super) fn on_message(&mut self, message: DriverMessage) {
        match message {
            DriverMessage::HostState(world) => self.set_host_state(world),
            DriverMessage::Carriers(seen) => self.on_carrier_states(&seen),
            DriverMessage::Queues(queues) => self.set_queues(queues),
            DriverMessage::Event(kind) => self.emit_event(kind),
            DriverMessage::Quic(_) if self.is_closing => {}
            DriverMessage::Quic(news) => self.on_quic_event(news),
            DriverMessage::Request(request) => self.on_request(request),
        }
    }

    fn on_quic_event(&mut self, news: FromQuic) {
        match news {
            FromQuic::SessionUp { peer, session, boot_id, preferred, adapter_up, .. } => {
                let Some(sessions) = self.peers.get_mut(&peer) else { return };
                sessions.adapter_up = Some(adapter_up);
                if preferred || sessions.preferred.is_none() {
                    sessions.preferred = Some(session.local_id());
                }
                sessions.accepts_fragments = session.peer_accepts_fragments();
                sessions.live.push(session);
                self.dirty = true;
                if preferred {
                    self.on_session_up(peer, boot_id);
                }
            }
            FromQuic::SessionPreferred { peer, local_session } => {
                let Some(sessions) = self.peers.get_mut(&peer) else { return };
                sessions.preferred = Some(local_session);
                let boot_id = sessions.preferred_session().map(|session| session.boot_id());
                self.dirty = true;
                if let Some(boot_id) = boot_id {
                    self.on_session_up(peer, boot_id);
                }
            }
            FromQuic::SessionDown { peer, local_session } => {
                let Some(sessions) = self.peers.get_mut(&peer) else { return };
                for over in sessions.live.extract_if(.., |one| one.local_id() == local_session) {
                    sessions.ended_loss = add_loss_counters(sessions.ended_loss, &over);
                }
                if sessions.preferred == Some(local_session) {
                    sessions.preferred = sessions.live.last().map(|session| session.local_id());
                }
                let gone = sessions.preferred.is_none();
                if gone {
                    sessions.adapter_up = None;
                }
                self.dirty = true;
                if gone {
                    sessions.reported_boot_id = None;
                    self.feed_engine(EngineInput::SessionDown(peer));
                }
            }
            FromQuic::Interfaces { peer, list } => self.on_advertisement(peer, list),
            FromQuic::DuplicateNode { peer } => self.emit_event(EventKind::DuplicateNode { peer }),
            FromQuic::Refused { peer, reason } => {
                self.emit_event(EventKind::SessionRefused { peer, reason });
            }
        }
    }

    fn on_session_up(&mut self, peer: PeerId, boot_id: u64) {
        if let Some(sessions) = self.peers.get_mut(&peer) {
            sessions.reported_boot_id = Some(boot_id);
            let before = sessions.last_boot_id.replace(boot_id);
            if before.is_some_and(|before| before != boot_id) {
                self.close_stale_connections(peer, clock::now());
            }
        }
        self.feed_engine(EngineInput::SessionUp { peer, boot_id });
    }

    fn on_request(&mut self, request: DriverRequest) {
        // An asker that went away is no error.
        match request {
            DriverRequest::Snapshot(answer) => {
                let _ = answer.send(self.take_snapshot());
            }
            DriverRequest::Change(id, change, answer) => {
                let _ = answer.send(self.change_route(id, change));
            }
            DriverRequest::Add(peer, route, answer) => {
                let _ = answer.send(self.add_requested_route(peer, route));
            }
            DriverRequest::Remove(id, answer) => {
                let _ = answer.send(self.remove_requested_route(id));
            }
            DriverRequest::Reconfigure(new, answer) => {
                let _ = answer.send(self.reconfigure(*new));
            }
            DriverRequest::ChangePeer(peer, change, answer) => {
                let _ = answer.send(self.change_peer(peer, change));
            }
            DriverRequest::Drain(order, answer) => {
                let _ = answer.send(self.drain_routes(&order));
            }
            DriverRequest::Recheck(answer) => {
                let _ = answer.send(clock::now());
                self.reprobe_path_mtu();
            }
            DriverRequest::Closing => self.is_closing = true,
            DriverRequest::Stop(answer) => {
                let _ = answer.send(());
            }
        }
    }

    fn take_snapshot(&self) -> Snapshot {
        snapshot::build_snapshot(self)
    }

    fn change_route(&mut self, id: RouteId, change: RouteChange) -> Result<(), RouteError> {
        let known = self.routes.get_mut(&id).ok_or(RouteError::Unknown(id))?;
        if let Some(timing) = change.timing {
            known.plan.spec.timing = timing;
        }
        if let Some(priority) = change.priority {
            known.plan.spec.priority = priority;
        }
        self.feed_engine(EngineInput::ChangeRoute { id, change });
        Ok(())
    }

    pub(super) fn next_route_id(&mut self) -> RouteId {
        self.last_route_id += 1;
        RouteId(self.last_route_id)
    }

    fn set_queues(&mut self, queues: Vec<Arc<TunQueue>>) {
        for (worker, queue) in queues.iter().enumerate() {
            if let Err(error) = self.workers.register_queue(worker, queue) {
                tracing::error!(%error, "a worker cannot watch its queue of the adapter");
            }
        }
        self.queues = queues;
        self.dirty = true;
    }

    /// Timers, outputs, and the table if it changed: after every input.
    pub(super) fn poll_engine(&mut self) {
        let now = clock::now();
        self.poll_retries(now);
        self.poll_connections(now);
        self.report_loss_counters(now);
        self.check_unread_sockets(now);
        self.engine.on_timer(now);
        while let Some(output) = self.engine.poll_output() {
            match output {
                EngineOutput::Send { peer, route, heartbeat } => {
                    self.send_heartbeat(peer, route, &heartbeat)
                }
                EngineOutput::PublishTable(table) => {
                    self.table = table;
                    self.dirty = true;
                }
                EngineOutput::Probe { peer, route, probe } => self.send_probe(peer, route, probe),
                EngineOutput::PathMtu { route, datagram } => self.set_path_mtu(route, datagram),
                EngineOutput::ReplyTemplateReady(_) => self.dirty = true,
                EngineOutput::Event(event) => {
                    // Nobody listening is no error.
                    let _ = self.events.send(event);
                }
            }
        }
        if std::mem::take(&mut self.dirty) {
            forwarding::publish_table(self);
        }
    }

    /// What the workers counted per peer, where it changed.
    fn report_loss_counters(&mut self, now: Time) {
        if now.since(self.loss_reported_at) < LOSS_REPORT_INTERVAL {
            return;
        }
        self.loss_reported_at = now;
        let mut news = Vec::new();
        for (peer, sessions) in &mut self.peers {
            let tally = sessions.total_loss();
            if std::mem::replace(&mut sessions.reported_loss, tally) != tally {
                news.push(EngineInput::LossCounters { peer: *peer, counters: tally });
            }
        }
        news.into_iter().for_each(|input| self.feed_engine(input));
    }

    pub(super) fn emit_event(&self, kind: EventKind) {
        let _ = self.events.send(Event { at: clock::now(), kind });
    }

    fn send_heartbeat(&mut self, peer: PeerId, route: RouteId, heartbeat: &Heartbeat) {
        let Some(session) = self.peers.get(&peer).and_then(PeerEntry::preferred_session) else {
            return;
        };
        let Some(known) = self.routes.get(&route) else { return };
        let Some(socket) = self.sockets.sockets_at(known.plan.spec.real_local).first() else {
            return;
        };
        let mut frame = Vec::with_capacity(256);
        let write = |frame: &mut Vec<u8>| heartbeat.encode(frame);
        let queue = if self.can_defer_reply(peer, known, heartbeat) { DEFER_REPLY } else { 0 };
        if let Err(reason) = session.seal_message(FrameKind::Heartbeat, queue, &mut frame, write) {
            return self.count_drop(reason);
        }
        if session.needs_fresh_handshake() {
            self.manager.renew_session(peer);
        }
        let (remote, socket) = (known.plan.spec.real_remote, socket.clone());
        let local = known.plan.spec.real_local;
        if self.send_over_quic(route, &frame).is_some() {
            return;
        }
        let sent = udp::send_control(socket.fd.as_fd(), &remote, &frame, Some(udp::TOS_CONTROL));
        match sent {
            Ok(()) => {
                if queue == DEFER_REPLY {
                    self.deferred_replies.expect_reply(local);
                }
                self.count_tx_frame();
            }
            Err(error) if udp::classify_send_error(&error, false) == SendFault::Route => {
                self.on_send_failed(route);
            }
            Err(_) => {}
        }
    }

    pub(super) fn feed_engine(&mut self, input: EngineInput) {
        if let Err(reason) = self.try_feed_engine(input) {
            self.count_drop(reason);
        }
    }

    fn try_feed_engine(&mut self, input: EngineInput) -> Result<(), DropReason> {
        self.engine.on_input(clock::now(), input)
    }

    /// Drops seen by the driver are counted with the first worker's.
    pub(super) fn count_drop(&self, reason: DropReason) {
        if let Some(counters) = self.workers.counters().first() {
            counters.count_drop(reason);
        }
    }

    /// A frame of the driver went out; counted there too.
    pub(super) fn count_tx_frame(&self) {
        if let Some(counters) = self.workers.counters().first() {
            Counters::add(&counters.tx_frames, 1);
        }
    }

    /// A frame the driver read itself; counted there too.
    pub(super) fn count_rx_frame(&self) {
        if let Some(counters) = self.workers.counters().first() {
            Counters::add(&counters.rx_frames, 1);
        }
    }

    /// Stops the workers and closes everything.
    pub(super) fn shut_down(self) {
        self.close_connections();
        self.workers.stop();
        self.fib.store(Arc::default());
    }
}
