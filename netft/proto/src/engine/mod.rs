//! The route engine: every input in, every decision out. Pure.
//!
//! The driver (or the simulator) calls [`Engine::on_input`] with what happened and
//! [`Engine::on_timer`] when [`Engine::next_wake`] is due, and drains [`Engine::poll_output`] after
//! each. Bounds: work per call is linear in the routes of the peers concerned, however many others
//! there are (a table that changes is copied, and a stall concerns everyone); outputs of one call
//! are at most a few per route of those peers.

mod brownouts;
mod context;
mod failover_cost;
mod heartbeat;
mod inputs;
mod peer;
mod probe;
mod reevaluate;
mod reply_template;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

#[cfg(feature = "sim")]
pub use crate::engine::context::InjectedBug;
use crate::{
    engine::{context::EngineContext, peer::Peer},
    failover::{cost::LossCounters, stall_histogram::StallHistogram},
    ids::{PeerId, RouteId},
    route::{
        event::{Event, EventKind, Reason},
        route_fsm::Route,
        spec::{RouteChange, RouteSpec},
        status::{PeerStatus, RouteStatus},
        table::ForwardingTable,
    },
    time::Time,
    wire::{DropReason, heartbeat::Heartbeat, probe::Probe},
};

/// Waking up this much late is no stall: every scheduler does it.
const MIN_SELF_STALL: Duration = Duration::from_millis(50);

/// Room for more outputs than this is given back once they are taken.
const MAX_RETAINED_OUTPUTS: usize = 64;

/// What the engine is told once.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// How long a route that failed once must stay up before data returns to it.
    pub hold: Duration,
    /// Heartbeats kept per route for the dump at its death.
    pub history: usize,
    /// Seed of the heartbeat jitter.
    pub seed: u64,
    /// How long after a path turned out to be narrow a larger size is probed.
    pub mtu_raise: Duration,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EngineInput {
    /// A peer was configured.
    AddPeer(PeerId),
    /// A peer and its routes are gone.
    RemovePeer(PeerId),
    /// A route should be used.
    AddRoute {
        /// Its number, never used before.
        id: RouteId,
        /// What it is.
        spec: RouteSpec,
    },
    /// A route should not be used.
    RemoveRoute(RouteId),
    /// A route's knobs changed.
    ChangeRoute {
        /// The route.
        id: RouteId,
        /// What changed.
        change: RouteChange,
    },
    /// Keys with the peer exist.
    SessionUp {
        /// The peer.
        peer: PeerId,
        /// Tells a restart of the peer from a fresh handshake.
        boot_id: u64,
    },
    /// No keys with the peer exist.
    SessionDown(PeerId),
    /// An authentic heartbeat of `peer` came on `route` (by socket and source address).
    Heartbeat {
        /// Who sent it.
        peer: PeerId,
        /// Where it came.
        route: RouteId,
        /// What it says.
        heartbeat: Heartbeat,
    },
    /// Data sent on a route stays unacknowledged although it should not.
    Suspect(RouteId),
    /// Something that arrived on a route has not been read yet.
    UnreadData(RouteId),
    /// A fault of this end of a route began; several may hold at once.
    Fault {
        /// The route.
        route: RouteId,
        /// The fault.
        reason: Reason,
    },
    /// A fault of this end of a route is over.
    FaultCleared {
        /// The route.
        route: RouteId,
        /// The fault.
        reason: Reason,
    },
    /// The configuration of the node changed.
    Configure {
        /// As [`EngineConfig::hold`].
        hold: Duration,
        /// As [`EngineConfig::history`]; routes that exist follow.
        history: usize,
        /// As [`EngineConfig::mtu_raise`].
        mtu_raise: Duration,
    },
    /// The configuration describes a route differently. Its ends are the same.
    ReplaceSpec {
        /// The route.
        id: RouteId,
        /// What it is from here on.
        spec: RouteSpec,
    },
    /// The interface of a route takes datagrams of this size; told when it is known or changes.
    DatagramLimit {
        /// The route.
        route: RouteId,
        /// The largest frame, bytes.
        datagram: usize,
        /// What the route's carrier adds to a frame below UDP, bytes.
        transport_overhead: usize,
    },
    /// The kernel refused data on a route as too large.
    DataTooBig(RouteId),
    /// An authentic path MTU probe of `peer` came on `route` (by socket and source address).
    Probe {
        /// Who sent it.
        peer: PeerId,
        /// Where it came.
        route: RouteId,
        /// What it says.
        probe: Probe,
    },
    /// The kernel refused a probe of this node as too large.
    ProbeRefused {
        /// The route.
        route: RouteId,
        /// The probe.
        probe: Probe,
    },
    /// What was in flight on a route was sent again on another one.
    Resent {
        /// The peer.
        peer: PeerId,
        /// The route that may have swallowed it.
        from: RouteId,
        /// Where it was sent again.
        to: RouteId,
        /// Frames.
        frames: u64,
        /// How long the oldest had waited.
        waited: Duration,
    },
    /// Frames sent twice and given up towards a peer, since the start.
    LossCounters {
        /// The peer.
        peer: PeerId,
        /// The counts.
        counters: LossCounters,
    },
    /// As [`Heartbeat`](Self::Heartbeat), of one that waited since it arrived: what follows from
    /// having heard it counts from then.
    DeferredHeartbeat {
        /// Who sent it.
        peer: PeerId,
        /// Where it came.
        route: RouteId,
        /// What it says.
        heartbeat: Heartbeat,
        /// When it arrived.
        arrived_at: Time,
        /// It was answered by a [`ReplyTemplate`](crate::cadence::reply_template::ReplyTemplate) of
        /// this engine.
        answered: bool,
    },
    /// An operator wants to know the path MTU of a route as it is: it is probed anew.
    RecheckPathMtu(RouteId),
    /// The peer proved that a route leads to it at another address.
    RemoteLearned {
        /// The route.
        route: RouteId,
        /// Its remote end from here on.
        remote: SocketAddr,
    },
}

/// What to do.
#[derive(Clone, Debug)]
pub enum EngineOutput {
    /// Send a heartbeat.
    Send {
        /// To whom.
        peer: PeerId,
        /// On which route.
        route: RouteId,
        /// What it says.
        heartbeat: Heartbeat,
    },
    /// Forward by this table.
    PublishTable(Arc<ForwardingTable>),
    /// Tell the world.
    Event(Event),
    /// Send a path MTU probe, or the answer to one, never fragmented.
    Probe {
        /// To whom.
        peer: PeerId,
        /// On which route.
        route: RouteId,
        /// What it says.
        probe: Probe,
    },
    /// Send no larger datagrams on a route, whatever its interface takes.
    PathMtu {
        /// The route.
        route: RouteId,
        /// The largest UDP payload, bytes.
        datagram: usize,
    },
    /// There is a new [`Engine::reply_template`] for this peer.
    ReplyTemplateReady(PeerId),
}

/// The decisions of one node.
#[derive(Debug)]
pub struct Engine {
    context: EngineContext,
    peers: BTreeMap<PeerId, Peer>,
    /// Whose each route is.
    route_owners: BTreeMap<RouteId, PeerId>,
    /// The next wake of every peer that has one, and the same by peer.
    timers: BTreeSet<(Time, PeerId)>,
    peer_wakes: BTreeMap<PeerId, Time>,
    table: Arc<ForwardingTable>,
    /// What the last call promised as its next wake: waking later means this node was stalled.
    promised_wake: Option<Time>,
    /// The moment of the last call.
    now: Time,
}

impl Engine {
    /// An engine that knows no peer.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            context: EngineContext::new(config),
            peers: BTreeMap::new(),
            route_owners: BTreeMap::new(),
            timers: BTreeSet::new(),
            peer_wakes: BTreeMap::new(),
            table: Arc::default(),
            promised_wake: None,
            now: Time::ZERO,
        }
    }

    /// Makes a deliberate mistake from here on.
    #[cfg(feature = "sim")]
    pub fn inject_bug(&mut self, bug: InjectedBug) {
        self.context.inject_bug(bug);
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// A heartbeat that is refused, with the reason; nothing changed then.
    pub fn on_input(&mut self, now: Time, input: EngineInput) -> Result<(), DropReason> {
        self.now = now;
        self.guard_self_stall(now);
        let outcome = self.apply_input(now, input);
        // What is overdue is for the next tick: it is no new stall.
        self.promised_wake = self.next_wake().map(|wake| wake.max(now));
        outcome
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Time) {
        self.now = now;
        self.guard_self_stall(now);
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<_> = due.map(|(_, peer)| *peer).collect();
        for id in due {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.on_timer(&mut self.context, now);
            }
            self.on_peer_changed(id);
        }
        self.promised_wake = self.next_wake();
    }

    /// The routes that go down with the next [`on_timer`](Self::on_timer) because nothing was heard
    /// on them: time to look whether something waits there unread ([`EngineInput::UnreadData`]).
    pub fn overdue_routes(&self, now: Time) -> Vec<RouteId> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, peer)| self.peers.get(peer))
            .flat_map(|peer| peer.routes.values())
            .filter(|route| route.deadline.is_some_and(|deadline| deadline <= now))
            .map(|route| route.id)
            .collect()
    }

    /// When [`on_timer`](Self::on_timer) has something to do; finite while a route may send.
    pub fn next_wake(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next thing to do; drain it after every call.
    pub fn poll_output(&mut self) -> Option<EngineOutput> {
        let outputs = &mut self.context.outputs;
        let next = outputs.pop_front();
        // All routes of a large mesh had something to say at once; that is rare.
        if next.is_none() && outputs.capacity() > MAX_RETAINED_OUTPUTS {
            outputs.shrink_to(0);
        }
        next
    }

    /// Every route, by number, as of the last call.
    pub fn route_statuses(&self) -> Vec<RouteStatus> {
        let peers = self.peers.values();
        let mut routes: Vec<_> = peers.flat_map(|peer| peer.route_statuses(self.now)).collect();
        routes.sort_by_key(|route| route.id);
        routes
    }

    /// Every peer, by number.
    pub fn peer_statuses(&self) -> Vec<PeerStatus> {
        self.peers.values().map(Peer::status).collect()
    }

    /// How long data stood still at failovers, over all peers.
    pub fn stall_histogram(&self) -> StallHistogram {
        self.context.stall_histogram
    }

    /// Does something to a peer, if it exists, and all that follows.
    fn update_peer(
        &mut self,
        now: Time,
        id: PeerId,
        act: impl FnOnce(&mut Peer, &mut EngineContext),
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        act(peer, &mut self.context);
        peer.reevaluate(&mut self.context, now);
        self.on_peer_changed(id);
    }

    /// As [`update_peer`](Self::update_peer), for the peer of a route.
    fn update_peer_of_route(
        &mut self,
        now: Time,
        id: RouteId,
        act: impl FnOnce(&mut Peer, &mut EngineContext),
    ) {
        if let Some(peer) = self.route_owners.get(&id) {
            self.update_peer(now, *peer, act);
        }
    }

    /// Timer and table follow what one peer became.
    fn on_peer_changed(&mut self, id: PeerId) {
        self.schedule_peer_wake(id);
        self.publish_table(id);
        self.refresh_reply_template(id);
    }

    fn schedule_peer_wake(&mut self, id: PeerId) {
        let wake = self.peers.get(&id).and_then(Peer::next_wake);
        let before = match wake {
            Some(wake) => self.peer_wakes.insert(id, wake),
            None => self.peer_wakes.remove(&id),
        };
        if before == wake {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, id));
        }
        self.timers.extend(wake.map(|wake| (wake, id)));
    }

    /// Publishes the table if one peer's row says something new.
    fn publish_table(&mut self, id: PeerId) {
        let row = self.peers.get(&id).map(Peer::forwarding_row);
        let place = self.table.peers.binary_search_by_key(&id, |row| row.peer);
        if row.as_ref() == place.ok().map(|place| &self.table.peers[place]) {
            return;
        }
        let mut peers = self.table.peers.clone();
        match (place, row) {
            (Ok(place), Some(row)) => peers[place] = row,
            (Err(place), Some(row)) => peers.insert(place, row),
            (Ok(place), None) => drop(peers.remove(place)),
            (Err(_), None) => {}
        }
        let generation = self.table.generation + 1;
        self.table = Arc::new(ForwardingTable { generation, peers });
        self.context.outputs.push_back(EngineOutput::PublishTable(self.table.clone()));
    }

    /// The self-stall guard (reliability F-20, R-14): a node that was not scheduled for a while
    /// has heard nobody, and that is nobody's fault. Everyone gets one more detection time.
    fn guard_self_stall(&mut self, now: Time) {
        let Some(late) = self.promised_wake.map(|promised| now.since(promised)) else { return };
        if late <= MIN_SELF_STALL {
            return;
        }
        // A route that works was heard within a delay, at most half its detection time.
        let routes = || self.peers.values().flat_map(|peer| peer.routes.values());
        let shortest = routes().map(Route::detection_time).min().unwrap_or_default();
        let delay = routes().map(Route::delay).min().unwrap_or_default();
        if late <= (shortest / 2).min(delay * 2) {
            return;
        }
        for peer in self.peers.values_mut() {
            peer.revoke_reply_template();
            peer.routes
                .values_mut()
                .filter(|route| route.rx)
                .for_each(|route| route.arm_deadlines(now));
        }
        let ids: Vec<_> = self.peers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.schedule_peer_wake(id));
        self.context.last_stall = Some((late, now));
        self.context.push_event(now, EventKind::Stalled { length: late });
    }
}

#[cfg(test)]
mod tests;
