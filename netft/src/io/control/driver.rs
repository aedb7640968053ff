//! The driver's state: takes in messages, carries out the components' actions and the engine's
//! outputs.

use std::{net::SocketAddr, sync::Arc};

use netft_proto::{
    config::Config,
    engine::{Engine, EngineInput, EngineOutput},
    ids::{PeerId, RouteId},
    route::{EchoOutcome, Event, EventKind},
    time::Time,
    wire::{
        DropReason,
        challenge::{Challenge, ChallengeMessage},
        header::FrameKind,
        heartbeat::{Heartbeat, HeartbeatMessage},
        probe::{Probe, ProbeMessage},
    },
};
use tokio::sync::{broadcast, mpsc};

use crate::api::session::SessionCause;
use crate::io::{
    carrier_monitor::CarrierMonitor,
    clock,
    control::{
        component::{Action, Actions, Input, View},
        components::{COMPONENT_COUNT, Components},
        control_sessions::ControlSessions,
        peer_table::{PeerTable, SessionEnd},
        route_planner::RouteReplanner,
        route_table::RouteTable,
        session_problem::small_mtu_problem,
        sockets::Sockets,
        table_publisher::{REPLY_TEMPLATE_READY, TablePublisher},
    },
    counters::Counters,
    datapath::{report::FromWorker, workers::Workers},
    messages::DriverMessage,
    overlay_echo::EchoRequest,
    quic::{
        FromQuic,
        transport::{FrameClass, SendOutcome},
    },
    socket::{TunQueue, UdpSocket},
    sys::{udp, udp::SendFault},
};

/// The node's state, read-only; borrows those fields alone.
macro_rules! view_of {
    ($driver:ident) => {
        View {
            config: &$driver.config,
            engine: &$driver.engine,
            planner: &$driver.planner,
            routes: &$driver.routes,
            peers: &$driver.peers,
            sockets: &$driver.sockets,
            table_dirty: $driver.publisher.is_dirty(),
        }
    };
}

/// The driver. Its parts decide nothing about each other: they meet here.
pub(super) struct Driver {
    pub(super) config: Config,
    pub(super) engine: Engine,
    pub(super) planner: RouteReplanner,
    pub(super) routes: RouteTable,
    pub(super) peers: PeerTable,
    pub(super) components: Components,
    pub(super) sockets: Sockets,
    pub(super) workers: Workers,
    pub(super) publisher: TablePublisher,
    pub(super) sessions: ControlSessions,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) carrier_monitor: CarrierMonitor,
    pub(super) echoes: mpsc::Sender<EchoRequest>,
}

impl Driver {
    /// The earliest deadline of the engine and the components.
    pub(super) fn next_wake(&mut self) -> Time {
        let wakes = [self.engine.next_wake(), self.components.next_wake()];
        // Carrier polls are always due at some time.
        wakes.into_iter().flatten().min().unwrap_or_else(clock::now)
    }

    /// The node's state, read-only.
    pub(super) fn view(&self) -> View<'_> {
        view_of!(self)
    }

    /// The components, and the state they see.
    fn split(&mut self) -> (&mut Components, View<'_>) {
        (&mut self.components, view_of!(self))
    }

    /// Gives an input to the components and carries out what follows.
    pub(super) fn dispatch(&mut self, input: &Input<'_>) {
        let (now, mut actions) = (clock::now(), Actions::default());
        let (components, view) = self.split();
        components.on_input(now, input, &view, &mut actions);
        self.apply(now, actions);
    }

    /// Timers, outputs, and the table if it changed: after every input.
    pub(super) fn poll(&mut self) {
        let now = clock::now();
        for place in 0..COMPONENT_COUNT {
            let mut actions = Actions::default();
            let (components, view) = self.split();
            components.poll(place, now, &view, &mut actions);
            self.apply(now, actions);
        }
        self.poll_engine(clock::now());
        self.publish_table();
    }

    /// Publishes a new forwarding table, if something it depends on changed.
    fn publish_table(&mut self) {
        if !self.publisher.is_dirty() {
            return;
        }
        let view = view_of!(self);
        self.publisher.publish(&view, &self.components);
        self.sessions.manager.notify_fib_changed();
    }

    fn poll_engine(&mut self, now: Time) {
        for input in self.peers.take_changed_loss(now) {
            self.feed_engine(input);
        }
        self.check_unread_sockets(now);
        self.feed_tallies(now);
        self.engine.on_timer(now);
        while let Some(output) = self.engine.poll_output() {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: EngineOutput) {
        match output {
            EngineOutput::Send { peer, route, heartbeat } => {
                self.send_heartbeat(peer, route, &heartbeat);
            }
            EngineOutput::ForwardingChanged(_) => {
                self.publisher.mark_dirty("the engine's table changed");
            }
            EngineOutput::Probe { peer, route, probe } => self.send_probe(peer, route, probe),
            EngineOutput::PathMtu { route, datagram } => {
                if self.routes.contains(route) {
                    self.components.frame_limits.set_path_mtu(route, datagram);
                    self.publisher.mark_dirty("a path MTU changed");
                }
            }
            EngineOutput::ReplyTemplateReady(_) => self.publisher.mark_dirty(REPLY_TEMPLATE_READY),
            EngineOutput::Event(event) => {
                if is_network_news(&event.kind) {
                    self.components.network_watch.mark_changed(event.at);
                }
                self.components.drill.on_event(&event);
                let is_state = matches!(event.kind, EventKind::StateChanged { .. });
                // Nobody listening is no error.
                let _ = self.events.send(event);
                if is_state {
                    self.dispatch(&Input::RouteStateChanged);
                }
            }
        }
    }

    fn apply(&mut self, now: Time, actions: Actions) {
        for action in actions.into_actions() {
            match action {
                Action::Engine(input) => self.feed_engine(input),
                Action::Emit(kind) => self.emit_event(kind),
                Action::RebuildTable(reason) => self.publisher.mark_dirty(reason),
                Action::RenewSession(peer) => self.sessions.renew(peer),
                Action::SendChallenge { peer, local, to, challenge } => {
                    self.send_challenge(peer, (local, to), challenge);
                }
                Action::CountDrop(reason) => self.count_drop(reason),
                Action::PollCarriers(known) => self.carrier_monitor.request_poll(known),
                Action::SyncSockets => self.sync_sockets(),
                Action::UpdateFrameLimits => self.update_frame_limits(),
                Action::AddLearnedRoute(plan) => {
                    self.add_route(plan, Some(now), "its address was learned");
                    self.dispatch(&Input::RoutesChanged);
                    self.sync_sockets();
                    self.publisher.mark_dirty("an address was learned");
                }
                Action::ReleaseHeld => self.sockets.release_held(),
                Action::RemoveFaults => {
                    self.sockets.remove_faults(&self.workers);
                    self.publisher.mark_dirty("a drill is over");
                }
                Action::UpdateTrials => self.update_trials(),
                Action::SendEcho(peer) => self.send_echo(peer),
                Action::RepeatAdvertisement => {
                    if let Some(advertisement) = self.planner.repeat_advertisement() {
                        self.sessions.manager.advertise_interfaces(advertisement);
                    }
                }
                Action::LearnRemote { route, remote } => self.learn_remote(now, route, remote),
                Action::RemoveRoute(id) => {
                    self.remove_route(id, "its learned address expired");
                    self.sync_sockets();
                    self.publisher.mark_dirty("a learned address expired");
                }
                Action::OpenRelay { via, peer } => self.open_relay(via, peer),
                Action::CloseRelay { route, sockets } => {
                    self.remove_route(route, "its relay was left");
                    for local in sockets {
                        self.sockets.close_sockets(local, &self.workers);
                    }
                    self.publisher.mark_dirty("a relay was left");
                }
            }
        }
    }

    fn send_echo(&mut self, peer: PeerId) {
        let Some(config) = self.config.peer_of(peer) else { return };
        let (own, remote) = (self.config.adapter.addrs.v4, config.addrs.v4);
        if self.echoes.try_send(EchoRequest { peer, own, remote }).is_err() {
            self.dispatch(&Input::EchoDone { peer, outcome: EchoOutcome::Failed });
        }
    }

    fn learn_remote(&mut self, now: Time, route: RouteId, remote: SocketAddr) {
        if !self.routes.contains(route) {
            return;
        }
        self.publisher.mark_dirty("an address was learned");
        if self.routes.learn_remote(now, route, remote) {
            tracing::debug!(%route, %remote, "the peer proved another address");
            self.feed_engine(EngineInput::RemoteLearned { route, remote });
            self.dispatch(&Input::RemoteLearned(route));
        }
    }

    /// Takes in a heartbeat or a report of a worker.
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
                let known = self.peers.get(peer);
                if known.is_some_and(|known| known.is_previous_boot(session_boot_id)) {
                    return self.count_drop(DropReason::FormerBoot);
                }
                let (message, remote_route, sequence) =
                    (heartbeat.message, heartbeat.route, heartbeat.sequence);
                let input =
                    EngineInput::DeferredHeartbeat { peer, route, heartbeat, arrived_at, answered };
                match self.engine.on_input(clock::now(), input) {
                    Ok(()) if message == HeartbeatMessage::Request => {
                        self.dispatch(&Input::RequestAccepted { peer, remote_route, sequence });
                    }
                    Ok(()) => {}
                    Err(reason) => self.count_drop(reason),
                }
            }
            FromWorker::Probe { peer, route, probe } => {
                self.feed_engine(EngineInput::Probe { peer, route, probe });
            }
            FromWorker::SegmentsVanish(route) => self.dispatch(&Input::SegmentsVanish(route)),
            FromWorker::Suspect(route) => {
                self.dispatch(&Input::RouteSuspect);
                self.feed_engine(EngineInput::Suspect(route));
            }
            FromWorker::DataLoss(loss) => {
                tracing::debug!(?loss, "data lost alone");
                self.feed_engine(EngineInput::DataLoss(loss));
            }
            FromWorker::Resent { peer, from, to, frames, waited, silent } => {
                self.dispatch(&Input::RouteSuspect);
                self.feed_engine(EngineInput::Resent { peer, from, to, frames, waited });
                if let Some(counts) = silent {
                    self.feed_engine(EngineInput::Silence { route: from, counts });
                }
            }
            FromWorker::SendError { route, errno } => {
                let error = std::io::Error::from_raw_os_error(errno);
                match udp::classify_send_error(&error, false) {
                    SendFault::Route => self.dispatch(&Input::SendFailed(route)),
                    // A packet too large for the interface is no fault of the route.
                    SendFault::TooBig => self.feed_engine(EngineInput::DataTooBig(route)),
                    SendFault::Transient | SendFault::NoOffload | SendFault::SegmentsRefused => {}
                }
            }
            FromWorker::Relayed { via, peer } => self.dispatch(&Input::RelayedPeer { via, peer }),
            FromWorker::AdapterError { worker } => {
                tracing::debug!(worker, "the adapter's queue is gone");
            }
            FromWorker::ConnectionChanged(route) => {
                self.dispatch(&Input::ConnectionChanged(route));
            }
            FromWorker::ConnectionRequested(route) => {
                self.dispatch(&Input::ConnectionRequested(route));
            }
            FromWorker::PeerReflexive { peer, session_boot_id, local, from, heartbeat } => {
                let known = self.peers.get(peer);
                if known.is_some_and(|known| !known.is_previous_boot(session_boot_id)) {
                    let heartbeat = &heartbeat;
                    self.dispatch(&Input::PeerReflexive { peer, local, from, heartbeat });
                }
            }
            FromWorker::Challenge { peer, route, local, from, challenge } => {
                self.dispatch(&Input::Challenge { peer, route, local, from, challenge });
            }
        }
    }

    pub(super) fn on_message(&mut self, message: DriverMessage) {
        match message {
            DriverMessage::HostState(host_state) => {
                self.set_host_state(host_state, "the interfaces changed");
            }
            DriverMessage::Carriers(mut seen) => {
                self.components.drill.mask_carriers(&mut seen);
                tracing::debug!(?seen, "L1 carriers changed");
                if self.planner.set_carriers(&seen) {
                    self.sync_sockets();
                }
            }
            DriverMessage::Queues(queues) => self.set_queues(queues),
            DriverMessage::Event(kind) => {
                if let EventKind::NameFailed { peer, name, reason } = &kind
                    && let Some(entry) = self.peers.get_mut(*peer)
                {
                    let problem = format!("cannot resolve {name}: {reason}");
                    entry.name_problems.insert(name.clone(), problem);
                }
                self.emit_event(kind);
            }
            DriverMessage::NameResolved { peer, name } => {
                if let Some(entry) = self.peers.get_mut(peer) {
                    entry.name_problems.remove(&name);
                }
            }
            DriverMessage::EchoDone { peer, outcome } => {
                self.dispatch(&Input::EchoDone { peer, outcome });
            }
            DriverMessage::RulesetChanged => self.dispatch(&Input::RulesetChanged),
            DriverMessage::Quic(_) if self.sessions.is_closing() => {}
            DriverMessage::Quic(event) => self.on_quic_event(event),
            DriverMessage::Request(request) => self.on_request(request),
        }
    }

    fn on_quic_event(&mut self, event: FromQuic) {
        match event {
            FromQuic::SessionUp {
                peer,
                session,
                boot_id,
                peer_name,
                peer_version,
                preferred,
                adapter_up,
            } => {
                tracing::debug!(%peer, name = peer_name, preferred, "session keys installed");
                let Some(entry) = self.peers.get_mut(peer) else { return };
                entry.add_session(session, preferred, adapter_up);
                entry.version = Some(peer_version);
                self.publisher.mark_dirty("a session is up");
                if preferred {
                    self.on_session_up(peer, boot_id);
                }
            }
            FromQuic::SessionPreferred { peer, local_session } => {
                let Some(entry) = self.peers.get_mut(peer) else { return };
                let boot_id = entry.prefer_session(local_session);
                tracing::debug!(%peer, session = local_session, "data moves to another session");
                self.publisher.mark_dirty("another session is preferred");
                if let Some(boot_id) = boot_id {
                    self.on_session_up(peer, boot_id);
                }
            }
            FromQuic::SessionDown { peer, local_session, cause } => {
                let Some(entry) = self.peers.get_mut(peer) else { return };
                let end = entry.remove_session(local_session, cause);
                tracing::debug!(%peer, session = local_session, ?end, %cause, "keys removed");
                self.publisher.mark_dirty("a session is over");
                if end == SessionEnd::Last {
                    self.feed_engine(EngineInput::SessionDown(peer, cause));
                }
            }
            FromQuic::Interfaces { peer, list } => {
                self.dispatch(&Input::PeerAdvertised(peer));
                if self.peers.contains(peer) && self.planner.on_advertisement(peer, &list) {
                    let endpoints = list.endpoints.len();
                    tracing::debug!(%peer, endpoints, "addresses advertised");
                    self.replan_routes("a peer advertised other addresses");
                }
            }
            FromQuic::HandshakeFailed { peer, problem } => {
                tracing::debug!(%peer, cause = problem.cause.as_str(), "no session yet");
                let is_vague = problem.cause == SessionCause::NoAnswer;
                let small = small_mtu_problem(&self.view(), peer).filter(|_| is_vague);
                let Some(entry) = self.peers.get_mut(peer) else { return };
                let reason = small.as_ref().map(|problem| problem.text.clone());
                let is_new = entry.note_handshake_problem(clock::now(), small.unwrap_or(problem));
                if let Some(reason) = reason.filter(|_| is_new) {
                    self.emit_event(EventKind::SessionRefused { peer, reason });
                }
            }
            FromQuic::DuplicateNode { peer } => self.emit_event(EventKind::DuplicateNode { peer }),
            FromQuic::Refused { peer, reason } => {
                self.emit_event(EventKind::SessionRefused { peer, reason });
            }
        }
    }

    fn on_session_up(&mut self, peer: PeerId, boot_id: u64) {
        let restarted = self.peers.get_mut(peer).is_some_and(|entry| entry.record_boot_id(boot_id));
        if restarted {
            tracing::debug!(%peer, "the peer was restarted");
            self.dispatch(&Input::PeerRestarted(peer));
        }
        self.feed_engine(EngineInput::SessionUp { peer, boot_id });
    }

    pub(super) fn set_queues(&mut self, queues: Vec<Arc<TunQueue>>) {
        for (worker, queue) in queues.iter().enumerate() {
            if let Err(error) = self.workers.register_queue(worker, queue) {
                tracing::error!(worker, %error, "a worker cannot read its queue of the adapter");
            }
        }
        self.publisher.set_queues(queues);
    }

    pub(super) fn add_peer(&mut self, peer: PeerId) {
        self.peers.add(peer);
        self.feed_engine(EngineInput::AddPeer(peer));
    }

    /// The first socket at the local end of a route, and the route's ends.
    fn route_socket(&self, route: RouteId) -> Option<(Arc<UdpSocket>, SocketAddr)> {
        let spec = &self.routes.get(route)?.plan.spec;
        let socket = self.sockets.sockets_at(spec.real_local).first()?;
        Some((socket.clone(), spec.real_remote))
    }

    fn send_heartbeat(&mut self, peer: PeerId, route: RouteId, heartbeat: &Heartbeat) {
        let Some(session) = self.peers.preferred_session(peer) else { return };
        let Some((socket, remote)) = self.route_socket(route) else { return };
        let mut frame = Vec::with_capacity(256);
        let write = |frame: &mut Vec<u8>| heartbeat.encode(frame);
        if let Err(reason) = session.seal_message(FrameKind::Heartbeat, 0, &mut frame, write) {
            return self.count_drop(reason);
        }
        if session.needs_fresh_handshake() {
            self.sessions.renew(peer);
        }
        if self.send_over_quic(route, &frame).is_some() {
            return;
        }
        match socket.send(&remote, &frame, None, Some(udp::TOS_CONTROL)) {
            Ok(()) => self.count_tx_frames(1),
            Err(error) if udp::classify_send_error(&error, false) == SendFault::Route => {
                self.dispatch(&Input::SendFailed(route));
            }
            Err(_) => {}
        }
    }

    /// Sends a probe, or the answer to one.
    fn send_probe(&mut self, peer: PeerId, route: RouteId, probe: Probe) {
        let Some(session) = self.peers.preferred_session(peer) else { return };
        let Some((socket, remote)) = self.route_socket(route) else { return };
        let mut frame = Vec::with_capacity(usize::from(probe.size));
        let write = |frame: &mut Vec<u8>| probe.encode(frame);
        if let Err(reason) = session.seal_message(FrameKind::Probe, 0, &mut frame, write) {
            return self.count_drop(reason);
        }
        let refused = if let Some(outcome) = self.send_over_quic(route, &frame) {
            outcome.too_big > 0 || matches!(outcome.fault, Some((SendFault::TooBig, _)))
        } else {
            match socket.send(&remote, &frame, None, Some(udp::TOS_CONTROL)) {
                Ok(()) => {
                    self.count_tx_frames(1);
                    false
                }
                // Other errors show in the route's heartbeats.
                Err(error) => udp::classify_send_error(&error, false) == SendFault::TooBig,
            }
        };
        if refused && probe.message == ProbeMessage::Request {
            self.feed_engine(EngineInput::ProbeRefused { route, probe });
        }
    }

    fn send_challenge(
        &self,
        peer: PeerId,
        (local, to): (SocketAddr, SocketAddr),
        challenge: Challenge,
    ) {
        if challenge.message == ChallengeMessage::Challenge {
            self.add_to_counter(|counters| Counters::add(&counters.challenges_sent, 1));
        }
        let Some(session) = self.peers.preferred_session(peer) else { return };
        let Some(socket) = self.sockets.sockets_at(local).first() else { return };
        let mut frame = Vec::new();
        let write = |frame: &mut Vec<u8>| challenge.encode(frame);
        if let Err(reason) = session.seal_message(FrameKind::Challenge, 0, &mut frame, write) {
            return self.count_drop(reason);
        }
        match socket.send(&to, &frame, None, Some(udp::TOS_CONTROL)) {
            Ok(()) => self.count_tx_frames(1),
            // The next peer-reflexive heartbeat leads to another challenge.
            Err(error) if udp::classify_send_error(&error, false) == SendFault::Transient => {}
            Err(_) => self.count_drop(DropReason::SendFailed),
        }
    }

    /// Sends a control frame on a route whose transport is QUIC; `None` if it is not.
    fn send_over_quic(&mut self, route: RouteId, frame: &[u8]) -> Option<SendOutcome> {
        let transport = self.components.connections.transport_of(route)?;
        let outcome = transport.send_frames(frame, frame.len(), usize::MAX, FrameClass::Control);
        self.count_tx_frames(outcome.sent);
        if let Some((SendFault::Route, _)) = outcome.fault {
            self.dispatch(&Input::SendFailed(route));
        }
        Some(outcome)
    }

    pub(super) fn emit_event(&self, kind: EventKind) {
        let _ = self.events.send(Event { at: clock::now(), kind });
    }

    pub(super) fn feed_engine(&mut self, input: EngineInput) {
        if let Err(reason) = self.engine.on_input(clock::now(), input) {
            self.count_drop(reason);
        }
    }

    /// Frames and drops of the driver are counted with the first worker's.
    fn add_to_counter(&self, add: impl FnOnce(&Counters)) {
        if let Some(counters) = self.workers.counters().first() {
            add(counters);
        }
    }

    fn count_drop(&self, reason: DropReason) {
        self.add_to_counter(|counters| counters.count_drop(reason));
    }

    fn count_tx_frames(&self, frames: u64) {
        self.add_to_counter(|counters| Counters::add(&counters.tx_frames, frames));
    }

    /// Stops the workers and closes everything.
    pub(super) fn shut_down(self) {
        self.components.connections.close_all();
        self.workers.stop();
        self.publisher.withdraw();
    }
}

/// Returns whether an event may change the state of a network.
const fn is_network_news(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::StateChanged { .. }
            | EventKind::SessionEstablished { .. }
            | EventKind::SessionEnded { .. }
    )
}
