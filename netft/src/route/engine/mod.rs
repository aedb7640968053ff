//! The route engine: every input in, every decision out. Pure.
//!
//! The driver (or the simulator) calls [`Engine::handle`] with what happened and
//! [`Engine::tick`] when [`Engine::next_wake`] is due, and drains [`Engine::poll`] after each.
//! Bounds: work per call is linear in the routes of the peers concerned; outputs of one call are
//! at most a few per route.

mod apply;
mod beat;
mod settle;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    event::{Event, EventKind, Reason},
    jitter::Jitter,
    machine::Route,
    select,
    spec::{RouteChange, RouteSpec},
    status::{PeerStatus, RouteStatus},
    table::Table,
};
use crate::{
    id::{PeerId, RouteId},
    time::Time,
    wire::{DropReason, heartbeat::Heartbeat},
};

/// What the engine is told once.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// How long a route that failed once must stay up before data returns to it.
    pub hold: Duration,
    /// Heartbeats kept per route for the dump at its death.
    pub history: usize,
    /// Seed of the heartbeat jitter.
    pub seed: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
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
}

/// What to do.
#[derive(Clone, Debug)]
pub enum Output {
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
    Publish(Arc<Table>),
    /// Tell the world.
    Event(Event),
}

/// A deliberate mistake, to show that the simulator finds it.
#[cfg(feature = "sim")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Selection believes a route works when the peer does not hear us there.
    IgnorePeerVerdict,
    /// Data never leaves the first route.
    NeverFailOver,
    /// A route is down after half its detection time.
    EarlyDown,
}

/// A peer, apart from its routes.
#[derive(Clone, Debug)]
struct Peer {
    session: Option<u64>,
    session_at: Time,
    /// Ready and established were told for this session.
    told: bool,
    active: Option<RouteId>,
    failovers: u64,
    /// Serial of the newest verdicts taken in.
    heard_serial: Option<u32>,
    /// Serial of the next heartbeat out.
    serial: u32,
    reachable: bool,
}

/// The decisions of one node.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    jitter: Jitter,
    peers: BTreeMap<PeerId, Peer>,
    routes: BTreeMap<RouteId, Route>,
    table: Arc<Table>,
    outputs: VecDeque<Output>,
    /// What the last call promised as its next wake: waking later means this node was stalled.
    promised: Option<Time>,
    /// The last stall and when it ended.
    stalled: Option<(Duration, Time)>,
    #[cfg(feature = "sim")]
    bug: Option<Bug>,
}

impl Engine {
    /// An engine that knows no peer.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            config,
            jitter: Jitter::new(config.seed),
            peers: BTreeMap::new(),
            routes: BTreeMap::new(),
            table: Arc::default(),
            outputs: VecDeque::new(),
            promised: None,
            stalled: None,
            #[cfg(feature = "sim")]
            bug: None,
        }
    }

    /// Makes a deliberate mistake from here on.
    #[cfg(feature = "sim")]
    pub fn plant(&mut self, bug: Bug) {
        self.bug = Some(bug);
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// A heartbeat that is refused, with the reason; nothing changed then.
    pub fn handle(&mut self, now: Time, input: Input) -> Result<(), DropReason> {
        self.notice_stall(now);
        let outcome = self.apply(now, input);
        // What is overdue is for the next tick: it is no new stall.
        self.promised = self.next_wake().map(|wake| wake.max(now));
        outcome
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time) {
        self.notice_stall(now);
        let due: Vec<_> = self.routes.values().filter(|r| due(r, now)).map(|r| r.id).collect();
        let mut peers = Vec::new();
        for id in due {
            peers.extend(self.expire(now, id));
        }
        for (id, peer) in &self.peers {
            let waiting = select::next_return(&self.routes_of(*id), peer.active);
            if waiting.is_some_and(|at| at <= now) {
                peers.push(*id);
            }
        }
        peers.sort_unstable();
        peers.dedup();
        for peer in peers {
            self.settle(now, peer);
        }
        self.send_due(now);
        self.promised = self.next_wake();
    }

    /// When [`tick`](Self::tick) has something to do; finite while a route may send.
    pub fn next_wake(&self) -> Option<Time> {
        let timers = self.routes.values().flat_map(|route| {
            [route.next_request, route.deadline, route.warning].into_iter().flatten()
        });
        let returns = self
            .peers
            .iter()
            .filter_map(|(id, peer)| select::next_return(&self.routes_of(*id), peer.active));
        timers.chain(returns).min()
    }

    /// The next thing to do; drain it after every call.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Every route, by number.
    pub fn routes(&self) -> Vec<RouteStatus> {
        self.routes
            .values()
            .map(|route| RouteStatus {
                id: route.id,
                spec: route.spec.clone(),
                state: route.state,
                tx: route.tx,
                rx: route.rx,
                active: self.peers.get(&route.spec.peer).and_then(|p| p.active) == Some(route.id),
                suspect: route.suspect.is_some(),
                rtt: route.quality.rtt(),
                loss: f32::from(route.quality.loss_permille()) / 1000.0,
                heartbeats_sent: route.sent,
                heartbeats_missed: route.missed,
                last_change: route.last_change,
                reason: route.reason,
            })
            .collect()
    }

    /// Every peer, by number.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.peers
            .iter()
            .map(|(id, peer)| PeerStatus {
                peer: *id,
                session: peer.session.is_some(),
                reachable: peer.active.is_some(),
                active: peer.active,
                failovers: peer.failovers,
            })
            .collect()
    }

    fn routes_of(&self, peer: PeerId) -> Vec<&Route> {
        self.routes.values().filter(|route| route.spec.peer == peer).collect()
    }

    fn event(&mut self, at: Time, kind: EventKind) {
        self.outputs.push_back(Output::Event(Event { at, kind }));
    }

    /// The self-stall guard (reliability F-20, R-14): a node that was not scheduled for a while
    /// has heard nobody, and that is nobody's fault. Everyone gets one more detection time.
    fn notice_stall(&mut self, now: Time) {
        let Some(promised) = self.promised else { return };
        let late = now.since(promised);
        let delay = self.routes.values().map(Route::delay).min().unwrap_or_default();
        if late <= (delay * 2).max(Duration::from_millis(50)) {
            return;
        }
        for route in self.routes.values_mut().filter(|route| route.rx) {
            route.arm(now);
        }
        self.stalled = Some((late, now));
        self.event(now, EventKind::Stalled { length: late });
    }

    #[cfg(feature = "sim")]
    fn planted(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

fn due(route: &Route, now: Time) -> bool {
    [route.deadline, route.warning].into_iter().flatten().any(|at| at <= now)
}
