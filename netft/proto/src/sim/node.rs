//! One node: a real engine, and the state its driver would hold around it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    engine::{Engine, EngineInput},
    ids::{PeerId, RouteId},
    route::{PeerForwarding, PeerStatus, Reason, RouteChange, RouteStatus},
    time::Time,
    wire::{ack::Ack, heartbeat::Heartbeat, probe::Probe},
};

/// Frames of one class that a paused node's socket buffers hold; more are dropped. A peer sends
/// fewer in the longest detection time, so a resumed node always finds recent heartbeats there.
const INBOX_CAPACITY: usize = 1024;

/// Heartbeats that an interrupted worker holds.
#[derive(Debug, Default)]
pub(crate) struct InterruptedWorker {
    /// Each with the session it was received under.
    pub(crate) held: Vec<(BootIdPair, EngineInput)>,
}

/// The boot ids a session was established under: the holder's and the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootIdPair {
    pub(crate) own: u64,
    pub(crate) peer: u64,
}

impl BootIdPair {
    /// The same session as its other end holds it.
    pub(crate) fn reversed(self) -> Self {
        Self { own: self.peer, peer: self.own }
    }
}

/// A data frame on a network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataFrame {
    /// The session the sender encrypts for.
    pub(crate) sender_session: BootIdPair,
    pub(crate) counter: u64,
    /// Index of the packet in the report.
    pub(crate) index: usize,
    /// Bytes.
    pub(crate) size: usize,
    pub(crate) is_retransmission: bool,
}

/// An acknowledgement on a network.
#[derive(Clone, Debug)]
pub(crate) struct AckFrame {
    pub(crate) sender_session: BootIdPair,
    pub(crate) counter: u64,
    pub(crate) ack: Ack,
}

/// An input from the node's own kernel or operator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LocalInput {
    Fault { route: RouteId, reason: Reason },
    FaultCleared { route: RouteId, reason: Reason },
    ChangeRoute { route: RouteId, change: RouteChange },
}

impl From<LocalInput> for EngineInput {
    fn from(input: LocalInput) -> Self {
        match input {
            LocalInput::Fault { route, reason } => Self::Fault { route, reason },
            LocalInput::FaultCleared { route, reason } => Self::FaultCleared { route, reason },
            LocalInput::ChangeRoute { route, change } => Self::ChangeRoute { id: route, change },
        }
    }
}

/// An input that reaches a node.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    /// A heartbeat, encrypted for the session as its sender holds it.
    Heartbeat {
        from: usize,
        network: usize,
        sender_session: BootIdPair,
        heartbeat: Heartbeat,
    },
    /// A path MTU probe or the answer to one.
    Probe {
        from: usize,
        network: usize,
        sender_session: BootIdPair,
        probe: Probe,
    },
    Data {
        from: usize,
        network: usize,
        frame: DataFrame,
    },
    Ack {
        from: usize,
        network: usize,
        frame: AckFrame,
    },
    /// The handshake is complete at this node.
    SessionAgreed {
        peer: usize,
        session: BootIdPair,
    },
    /// The idle timeout of a session.
    SessionTimeout {
        peer: usize,
        session: BootIdPair,
    },
    Local(LocalInput),
}

/// Treatment of an arrival by a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArrivalClass {
    /// A frame for the engine.
    Heartbeat,
    /// A frame for the packet path.
    Data,
    /// Not a frame: it comes over no network and cannot be lost.
    Internal,
}

impl Arrival {
    pub(crate) fn class(&self) -> ArrivalClass {
        match self {
            Self::Heartbeat { .. } | Self::Probe { .. } => ArrivalClass::Heartbeat,
            Self::Data { .. } | Self::Ack { .. } => ArrivalClass::Data,
            Self::SessionAgreed { .. } | Self::SessionTimeout { .. } | Self::Local(_) => {
                ArrivalClass::Internal
            }
        }
    }
}

/// A pause in progress: the node is not scheduled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodePause {
    pub(crate) began: Time,
    /// A later pause moves it.
    pub(crate) ends: Time,
    /// Frames that arrive meanwhile are lost, as in a stopped virtual machine.
    pub(crate) drops_packets: bool,
}

/// One node.
pub(crate) struct SimNode {
    /// `None` while the node is dead.
    pub(crate) engine: Option<Engine>,
    pub(crate) boot_id: u64,
    pub(crate) pause: Option<NodePause>,
    /// The worker that reads heartbeats, while it is interrupted.
    pub(crate) interrupted: Option<InterruptedWorker>,
    /// Arrivals during the pause, in order.
    inbox: VecDeque<Arrival>,
    /// Heartbeats in the inbox.
    queued_heartbeats: usize,
    /// Data and acknowledgements in the inbox.
    queued_data: usize,
    /// The session with every peer.
    pub(crate) sessions: Vec<Option<BootIdPair>>,
    /// Heartbeats answered without the engine.
    pub(crate) deferred_inputs: Vec<EngineInput>,
    /// Length and end of the last pause.
    pub(crate) last_stall: Option<(Duration, Time)>,
    /// The forwarding table as published.
    pub(crate) rows: BTreeMap<PeerId, PeerForwarding>,
    /// The largest frame of every route whose path MTU the engine knows.
    pub(crate) frame_limits: BTreeMap<RouteId, usize>,
    /// The wake the engine asked for last, and when the timer fires for it.
    pub(crate) planned_wake: Option<(Time, Time)>,
    /// Routes of the engine after its last step.
    pub(crate) routes: Vec<RouteStatus>,
    /// Peers of the engine after its last step.
    pub(crate) peers: Vec<PeerStatus>,
}

impl SimNode {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            engine: None,
            boot_id: 0,
            pause: None,
            interrupted: None,
            inbox: VecDeque::new(),
            queued_heartbeats: 0,
            queued_data: 0,
            sessions: vec![None; nodes],
            deferred_inputs: Vec::new(),
            last_stall: None,
            rows: BTreeMap::new(),
            frame_limits: BTreeMap::new(),
            planned_wake: None,
            routes: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// Alive and scheduled.
    pub(crate) fn is_running(&self) -> bool {
        self.engine.is_some() && self.pause.is_none()
    }

    /// Alive and scheduled, and heartbeats that arrive reach the engine.
    pub(crate) fn is_attentive(&self) -> bool {
        self.is_running() && self.interrupted.is_none()
    }

    pub(crate) fn start_engine(&mut self, engine: Engine) {
        let nodes = self.sessions.len();
        *self = Self { engine: Some(engine), boot_id: self.boot_id + 1, ..Self::new(nodes) };
    }

    pub(crate) fn crash_engine(&mut self) {
        let nodes = self.sessions.len();
        *self = Self { boot_id: self.boot_id, ..Self::new(nodes) };
    }

    pub(crate) fn publish_row(&mut self, peer: PeerId) {
        let row = self.engine.as_ref().and_then(|engine| engine.forwarding(peer));
        match row.cloned() {
            Some(row) => drop(self.rows.insert(peer, row)),
            None => drop(self.rows.remove(&peer)),
        }
    }

    /// The largest frame that every route to a peer carries.
    pub(crate) fn max_frame(&self, row: &PeerForwarding) -> Option<usize> {
        let routes = row.active.iter().chain(&row.duplicate).chain(&row.backups);
        routes.filter_map(|route| self.frame_limits.get(route)).copied().min()
    }

    pub(crate) fn refresh_statuses(&mut self) {
        if let Some(engine) = &self.engine {
            self.routes = engine.route_statuses();
            self.peers = engine.peer_statuses();
        }
    }

    /// Queues an arrival for a paused node. Data does not displace heartbeats: after a pause both
    /// are there.
    pub(crate) fn queue_arrival(&mut self, arrival: Arrival) {
        let queued = match arrival.class() {
            ArrivalClass::Heartbeat => &mut self.queued_heartbeats,
            ArrivalClass::Data => &mut self.queued_data,
            ArrivalClass::Internal => return self.inbox.push_back(arrival),
        };
        if *queued < INBOX_CAPACITY {
            *queued += 1;
            self.inbox.push_back(arrival);
        }
    }

    pub(crate) fn take_inbox(&mut self) -> VecDeque<Arrival> {
        (self.queued_heartbeats, self.queued_data) = (0, 0);
        std::mem::take(&mut self.inbox)
    }

    /// Returns true when this node and `peer` hold the same session.
    pub(crate) fn shares_session(&self, node: usize, peer: &Self, peer_number: usize) -> bool {
        let held = self.sessions[peer_number];
        held.is_some_and(|session| peer.sessions[node] == Some(session.reversed()))
    }
}
