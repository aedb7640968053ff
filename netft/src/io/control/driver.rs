//! The driver's state and its four doors: workers, messages, carriers, timers.

use std::{collections::BTreeMap, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

use netft_proto::{
    config::Config,
    engine::{Engine, EngineConfig, Input, Output},
    failover::cost::Tally,
    ids::{PeerId, RouteId},
    packet::token_bucket::Rate,
    route::{Attributes, Event, EventKind, Policies, Priority, Reason, RouteChange, Table, Timing},
    session::Session,
    time::Time,
    topology::{Memory, Offers, Planned, Skipped},
    wire::{
        DropReason,
        header::{Kind, LANE_PATIENT},
        heartbeat::Heartbeat,
        interfaces::Interfaces,
    },
};
use tokio::sync::{broadcast, watch};

use crate::{
    api::{error::RouteError, snapshot::Snapshot},
    io::{
        adapter::reconciler::Wanted,
        carrier_monitor::Lookout,
        clock,
        control::{
            DriverParts, Message, Request, carrier_poll::Pace, deferred_replies::Late, forwarding,
            mailbox::Inbox, nat::Adoptions, quic_connections::Connections, redial::Silence,
            relay::Ways, snapshot, sockets::Sockets,
        },
        counters::{Counters, RouteCounters},
        datapath::{FromWorker, Workers},
        fib::{SharedFib, TunQueue},
        netlink_watcher::World,
        quic::{FromQuic, Manager, transport::Marks},
        sys::{udp, udp::SendFault},
    },
};

/// What the workers counted is summed up no more often than this: a cost is told 1.5 s later.
const TALLY: Duration = Duration::from_millis(20);

/// What the driver knows of a route beside the engine.
pub(super) struct Known {
    pub(super) plan: Planned,
    /// The remote end it was planned with, while it leads to another one its peer proved.
    pub(super) home: Option<SocketAddr>,
    /// When its peer proved where it leads.
    pub(super) adopted_at: Option<Time>,
    /// Timing and priority as planned last; an operator may have changed them since.
    pub(super) planned: (Timing, Priority),
    /// The local fault the engine was told of.
    pub(super) fault: Option<Reason>,
    /// The kernel refused to send here; told to the engine until this moment.
    pub(super) send_error_until: Option<Time>,
    /// Its socket did not open; it is tried again at this moment.
    pub(super) unopened: Option<Time>,
    /// The largest frame its interface takes, and what its carrier adds, as the engine was told.
    pub(super) limit: Option<(usize, usize)>,
    /// The largest datagram its path takes, as the engine found.
    pub(super) datagram: Option<usize>,
    /// What the workers sent here.
    pub(super) sent: Arc<RouteCounters>,
}

impl Known {
    /// Whether the route leads over a third node: it is none that interfaces make.
    pub(super) fn relayed(&self) -> bool {
        self.plan.spec.attributes.0 & Attributes::RELAYED != 0
    }

    pub(super) fn new(plan: Planned) -> Self {
        Self {
            planned: (plan.spec.timing, plan.spec.priority),
            plan,
            home: None,
            adopted_at: None,
            fault: None,
            send_error_until: None,
            unopened: None,
            limit: None,
            datagram: None,
            sent: Arc::default(),
        }
    }
}

/// What the driver knows of a peer beside the engine.
#[derive(Default)]
pub(super) struct PeerSessions {
    /// Every live session; frames on any of them are accepted.
    pub(super) live: Vec<Arc<Session>>,
    /// The one to seal with.
    pub(super) preferred: Option<u32>,
    /// Whether the peer said last that it takes slices. Outlives its sessions: a peer that is
    /// away for a moment does not make packets smaller.
    pub(super) takes_slices: bool,
    /// The boot id the engine was told last, while it has a session.
    pub(super) boot: Option<u64>,
    /// The same, with or without a session.
    pub(super) last_boot: Option<u64>,
    /// What the peer said of its adapter at the last handshake; `None` without a session.
    pub(super) adapter_up: Option<bool>,
    /// What the sessions that ended had counted, and the sum the engine was told.
    pub(super) ended: Tally,
    pub(super) told: Tally,
    /// The policies the config says, where an operator has changed them since.
    pub(super) planned: Option<Policies>,
}

impl PeerSessions {
    pub(super) fn preferred(&self) -> Option<&Arc<Session>> {
        let number = self.preferred?;
        self.live.iter().find(|session| session.local() == number)
    }

    /// What all sessions have counted.
    fn tally(&self) -> Tally {
        self.live.iter().fold(self.ended, |sum, session| add(sum, session))
    }
}

fn add(sum: Tally, session: &Session) -> Tally {
    let (duplicated, lost) = session.tally();
    Tally { duplicated: sum.duplicated + duplicated, lost: sum.lost + lost }
}

pub(super) struct Driver {
    pub(super) config: Config,
    pub(super) fib: SharedFib,
    pub(super) workers: Workers,
    pub(super) queues: Vec<Arc<TunQueue>>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) engine: Engine,
    pub(super) table: Arc<Table>,
    pub(super) sockets: Sockets,
    /// Replies that are read when the driver is awake.
    pub(super) late: Late,
    pub(super) connections: Connections,
    /// How packets for QUIC connections of routes are told.
    pub(super) marks: Option<Marks>,
    pub(super) routes: BTreeMap<RouteId, Known>,
    /// Routes an embedder removed: planning does not bring them back.
    pub(super) removed: Vec<(PeerId, SocketAddr, SocketAddr)>,
    /// Addresses of peers no route leads to, as last told.
    pub(super) skipped: Vec<Skipped>,
    pub(super) lookout: Lookout,
    pub(super) manager: Arc<Manager>,
    pub(super) want: watch::Sender<Wanted>,
    /// What the peers tell of their addresses; the keeper reads along.
    pub(super) told: watch::Sender<Offers>,
    /// What the peers were told last.
    pub(super) offer: Interfaces,
    /// What bounds multicast and broadcast; kept over tables, so that it is one bound.
    pub(super) multicast: Option<Arc<Rate>>,
    /// What bounds what this node passes on for others.
    pub(super) passes: Option<Arc<Rate>>,
    /// Role and metric of the networks this node was in.
    pub(super) memory: Memory,
    /// Addresses of peers behind a NAT.
    pub(super) adoptions: Adoptions,
    /// Peers that are heard nowhere.
    pub(super) silence: Silence,
    /// Ways over relays.
    pub(super) ways: Ways,
    pub(super) peers: BTreeMap<PeerId, PeerSessions>,
    pub(super) world: World,
    pub(super) dirty: bool,
    /// When the interfaces are asked for their carrier.
    pub(super) pace: Pace,
    /// When something is tried again at the earliest.
    pub(super) retry_at: Option<Time>,
    tallied: Time,
    pub(super) boot_id: u64,
    pub(super) started: Time,
    last_route: u32,
    closing: bool,
}

impl Driver {
    /// The driver, and what it listens to. For the thread that will.
    pub(super) fn new(parts: DriverParts) -> (Self, Inbox) {
        let config = parts.config;
        let engine = EngineConfig {
            hold: config.hold,
            history: config.history,
            seed: parts.seed,
            mtu_raise: config.mtu_raise,
        };
        let mut connections = Connections::default();
        let marks = connections.marks(&config);
        let mut driver = Self {
            engine: Engine::new(engine),
            config,
            fib: parts.fib,
            workers: parts.workers,
            queues: Vec::new(),
            events: parts.events,
            table: Arc::default(),
            sockets: Sockets::default(),
            late: Late::default(),
            marks,
            connections,
            routes: BTreeMap::new(),
            removed: Vec::new(),
            skipped: Vec::new(),
            lookout: parts.lookout,
            manager: parts.manager,
            want: parts.want,
            told: parts.told,
            offer: Interfaces::default(),
            multicast: None,
            passes: None,
            memory: Memory::default(),
            adoptions: Adoptions::default(),
            silence: Silence::default(),
            ways: Ways::default(),
            peers: BTreeMap::new(),
            world: World::default(),
            dirty: true,
            pace: Pace::default(),
            retry_at: None,
            tallied: Time::ZERO,
            boot_id: parts.boot_id,
            started: clock::now(),
            last_route: 0,
            closing: false,
        };
        let peers: Vec<_> = driver.config.peers.iter().map(|peer| peer.id).collect();
        peers.into_iter().for_each(|peer| driver.add_peer(peer));
        driver.bound_rates();
        driver.set_queues(parts.queues);
        driver.set_world(parts.world);
        driver.turn();
        let inbox = Inbox::new(parts.from_workers, parts.left, parts.messages);
        (driver, inbox)
    }

    /// When the engine, the carriers or something to be tried again want to be looked at.
    pub(super) fn next_wake(&self) -> Time {
        let relays = self.ways.wake(self.config.relay.uses);
        let quic = self.connections.next_wake();
        let adopted = self.adoptions.next_wake();
        let others = [self.engine.next_wake(), self.retry_at, relays, quic, adopted];
        let others = others.into_iter().flatten();
        others.fold(self.pace.wake(), Time::min)
    }

    /// A heartbeat, or a complaint, of a worker.
    pub(super) fn on_worker(&mut self, heard: FromWorker) {
        match heard {
            FromWorker::Heartbeat {
                peer,
                route,
                session_boot_id,
                plaintext,
                received_at: at,
                answered,
            } => {
                let former =
                    self.peers.get(&peer).is_some_and(|known| known.is_former(session_boot_id));
                let refused = match Heartbeat::decode(&plaintext) {
                    Ok(_) if former => Err(DropReason::FormerBoot),
                    Ok(heartbeat) => {
                        self.found(peer, &heartbeat);
                        self.try_input(Input::Late { peer, route, heartbeat, at, answered })
                    }
                    Err(reason) => Err(reason),
                };
                if let Err(reason) = refused {
                    self.count(reason);
                }
            }
            FromWorker::Probe { peer, route, probe } => {
                self.input(Input::Probe { peer, route, probe });
            }
            FromWorker::Suspect(route) => {
                self.pace.doubt();
                self.input(Input::Suspect(route));
            }
            FromWorker::Resent { peer, from, to, frames, waited } => {
                self.pace.doubt();
                self.input(Input::Resent { peer, from, to, frames, waited });
            }
            FromWorker::SendError { route, errno } => {
                let error = std::io::Error::from_raw_os_error(errno);
                match udp::classify(&error, false) {
                    SendFault::Route => self.send_failed(route),
                    // A packet too large for the interface is no fault of the route.
                    SendFault::TooBig => self.input(Input::TooBig(route)),
                    SendFault::Transient | SendFault::Refused | SendFault::NoOffload => {}
                }
            }
            FromWorker::Relayed { via, peer } => self.relayed(via, peer),
            FromWorker::AdapterError { .. } => {}
            FromWorker::Carrier(route) => self.carrier_news(route, clock::now()),
            FromWorker::CarrierAsked(route) => self.carrier_asked(route, clock::now()),
            FromWorker::Stray { peer, session_boot_id, local, from, plaintext } => {
                let former =
                    self.peers.get(&peer).is_none_or(|known| known.is_former(session_boot_id));
                if let Ok(heartbeat) = Heartbeat::decode(&plaintext)
                    && !former
                {
                    self.strayed(clock::now(), peer, (local, from), &heartbeat);
                }
            }
            FromWorker::Challenge { peer, route, local, from, challenge } => {
                self.challenged(clock::now(), (peer, route), (local, from), challenge);
            }
        }
    }

    pub(super) fn on_message(&mut self, message: Message) {
        match message {
            Message::World(world) => self.set_world(world),
            Message::Carriers(seen) => self.on_carriers(&seen),
            Message::Queues(queues) => self.set_queues(queues),
            Message::Event(kind) => self.announce(kind),
            Message::Quic(_) if self.closing => {}
            Message::Quic(news) => self.on_quic(news),
            Message::Request(request) => self.on_request(request),
        }
    }

    fn on_quic(&mut self, news: FromQuic) {
        match news {
            FromQuic::SessionUp { peer, session, boot_id, preferred, adapter_up, .. } => {
                let Some(sessions) = self.peers.get_mut(&peer) else { return };
                sessions.adapter_up = Some(adapter_up);
                if preferred || sessions.preferred.is_none() {
                    sessions.preferred = Some(session.local());
                }
                sessions.takes_slices = session.takes_slices();
                sessions.live.push(session);
                self.dirty = true;
                if preferred {
                    self.session_up(peer, boot_id);
                }
            }
            FromQuic::SessionPreferred { peer, local_session } => {
                let Some(sessions) = self.peers.get_mut(&peer) else { return };
                sessions.preferred = Some(local_session);
                let boot_id = sessions.preferred().map(|session| session.boot_id());
                self.dirty = true;
                if let Some(boot_id) = boot_id {
                    self.session_up(peer, boot_id);
                }
            }
            FromQuic::SessionDown { peer, local_session } => {
                let Some(sessions) = self.peers.get_mut(&peer) else { return };
                for over in sessions.live.extract_if(.., |one| one.local() == local_session) {
                    sessions.ended = add(sessions.ended, &over);
                }
                if sessions.preferred == Some(local_session) {
                    sessions.preferred = sessions.live.last().map(|session| session.local());
                }
                let gone = sessions.preferred.is_none();
                if gone {
                    sessions.adapter_up = None;
                }
                self.dirty = true;
                if gone {
                    sessions.boot = None;
                    self.input(Input::SessionDown(peer));
                }
            }
            FromQuic::Interfaces { peer, list } => self.learn(peer, list),
            FromQuic::DuplicateNode { peer } => self.announce(EventKind::DuplicateNode { peer }),
            FromQuic::Refused { peer, reason } => {
                self.announce(EventKind::SessionRefused { peer, reason });
            }
        }
    }

    fn session_up(&mut self, peer: PeerId, boot_id: u64) {
        if let Some(sessions) = self.peers.get_mut(&peer) {
            sessions.boot = Some(boot_id);
            let before = sessions.last_boot.replace(boot_id);
            if before.is_some_and(|before| before != boot_id) {
                self.renew_connections(peer, clock::now());
            }
        }
        self.input(Input::SessionUp { peer, boot_id });
    }

    fn on_request(&mut self, request: Request) {
        // An asker that went away is no error.
        match request {
            Request::Snapshot(answer) => {
                let _ = answer.send(self.snapshot());
            }
            Request::Change(id, change, answer) => {
                let _ = answer.send(self.change(id, change));
            }
            Request::Add(peer, route, answer) => {
                let _ = answer.send(self.add_by_hand(peer, route));
            }
            Request::Remove(id, answer) => {
                let _ = answer.send(self.remove_by_hand(id));
            }
            Request::Reconfigure(new, answer) => {
                let _ = answer.send(self.reconfigure(*new));
            }
            Request::ChangePeer(peer, change, answer) => {
                let _ = answer.send(self.change_peer(peer, change));
            }
            Request::Drain(order, answer) => {
                let _ = answer.send(self.drain(&order));
            }
            Request::Recheck(answer) => {
                let _ = answer.send(clock::now());
                self.recheck_paths();
            }
            Request::Closing => self.closing = true,
            Request::Stop(answer) => {
                let _ = answer.send(());
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        snapshot::take(self)
    }

    fn change(&mut self, id: RouteId, change: RouteChange) -> Result<(), RouteError> {
        let known = self.routes.get_mut(&id).ok_or(RouteError::Unknown(id))?;
        if let Some(timing) = change.timing {
            known.plan.spec.timing = timing;
        }
        if let Some(priority) = change.priority {
            known.plan.spec.priority = priority;
        }
        self.input(Input::ChangeRoute { id, change });
        Ok(())
    }

    pub(super) fn next_route(&mut self) -> RouteId {
        self.last_route += 1;
        RouteId(self.last_route)
    }

    fn set_queues(&mut self, queues: Vec<Arc<TunQueue>>) {
        for (worker, queue) in queues.iter().enumerate() {
            if let Err(error) = self.workers.watch_queue(worker, queue) {
                tracing::error!(%error, "a worker cannot watch its queue of the adapter");
            }
        }
        self.queues = queues;
        self.dirty = true;
    }

    /// Timers, outputs, and the table if it changed: after every input.
    pub(super) fn turn(&mut self) {
        let now = clock::now();
        self.retry_due(now);
        self.serve_connections(now);
        self.tell_tallies(now);
        self.look_before_blaming(now);
        self.engine.tick(now);
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Send { peer, route, heartbeat } => self.send(peer, route, &heartbeat),
                Output::Publish(table) => {
                    self.table = table;
                    self.dirty = true;
                }
                Output::Probe { peer, route, probe } => self.send_probe(peer, route, probe),
                Output::PathMtu { route, datagram } => self.set_path_mtu(route, datagram),
                Output::Answers(_) => self.dirty = true,
                Output::Event(event) => {
                    // Nobody listening is no error.
                    let _ = self.events.send(event);
                }
            }
        }
        if std::mem::take(&mut self.dirty) {
            forwarding::publish(self);
        }
    }

    /// What the workers counted per peer, where it changed.
    fn tell_tallies(&mut self, now: Time) {
        if now.since(self.tallied) < TALLY {
            return;
        }
        self.tallied = now;
        let mut news = Vec::new();
        for (peer, sessions) in &mut self.peers {
            let tally = sessions.tally();
            if std::mem::replace(&mut sessions.told, tally) != tally {
                news.push(Input::Tally { peer: *peer, tally });
            }
        }
        news.into_iter().for_each(|input| self.input(input));
    }

    pub(super) fn announce(&self, kind: EventKind) {
        let _ = self.events.send(Event { at: clock::now(), kind });
    }

    fn send(&mut self, peer: PeerId, route: RouteId, heartbeat: &Heartbeat) {
        let Some(session) = self.peers.get(&peer).and_then(PeerSessions::preferred) else { return };
        let Some(known) = self.routes.get(&route) else { return };
        let Some(socket) = self.sockets.at(known.plan.spec.real_local).first() else { return };
        let mut frame = Vec::with_capacity(256);
        let write = |frame: &mut Vec<u8>| heartbeat.encode(frame);
        let lane = if self.can_wait(peer, known, heartbeat) { LANE_PATIENT } else { 0 };
        if let Err(reason) = session.message(Kind::Heartbeat, lane, &mut frame, write) {
            return self.count(reason);
        }
        if session.needs_fresh_handshake() {
            self.manager.renew(peer);
        }
        let (remote, socket) = (known.plan.spec.real_remote, socket.clone());
        let local = known.plan.spec.real_local;
        if self.send_carried(route, &frame).is_some() {
            return;
        }
        let sent = udp::send_one(socket.fd.as_fd(), &remote, &frame, Some(udp::TOS_CONTROL));
        match sent {
            Ok(()) => {
                if lane == LANE_PATIENT {
                    self.late.expect(local);
                }
                self.count_sent();
            }
            Err(error) if udp::classify(&error, false) == SendFault::Route => {
                self.send_failed(route);
            }
            Err(_) => {}
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        if let Err(reason) = self.try_input(input) {
            self.count(reason);
        }
    }

    fn try_input(&mut self, input: Input) -> Result<(), DropReason> {
        self.engine.handle(clock::now(), input)
    }

    /// Drops seen by the driver are counted with the first worker's.
    pub(super) fn count(&self, reason: DropReason) {
        if let Some(counters) = self.workers.counters().first() {
            counters.count(reason);
        }
    }

    /// A frame of the driver went out; counted there too.
    pub(super) fn count_sent(&self) {
        if let Some(counters) = self.workers.counters().first() {
            Counters::add(&counters.tx_frames, 1);
        }
    }

    /// A frame the driver read itself; counted there too.
    pub(super) fn count_received(&self) {
        if let Some(counters) = self.workers.counters().first() {
            Counters::add(&counters.rx_frames, 1);
        }
    }

    /// Stops the workers and closes everything.
    pub(super) fn stop(self) {
        self.close_connections();
        self.workers.stop();
        self.fib.store(Arc::default());
    }
}
