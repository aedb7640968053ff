//! One node: a real engine, and around it what its driver would hold.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    engine::{Engine, EngineInput},
    route::{ForwardingTable, PeerStatus, RouteStatus},
    sim::stream::DataStream,
    time::Time,
    wire::{ack::Ack, heartbeat::Heartbeat},
};

/// What a paused node's sockets hold; more is lost, as in a full socket buffer. It is more than
/// a peer sends in the longest detection time, so a stalled node always finds news in it.
const INBOX_CAPACITY: usize = 1024;

/// The boot ids a session was agreed under: the holder's and the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootIdPair {
    pub(crate) own: u64,
    pub(crate) peer: u64,
}

/// Something that reaches a node.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    /// A heartbeat, sealed under the sender's view of the session.
    Heartbeat { from: usize, network: usize, sender_session: BootIdPair, heartbeat: Heartbeat },
    /// A data frame; `again`: a copy that was sent later.
    Data {
        from: usize,
        network: usize,
        sender_session: BootIdPair,
        counter: u64,
        index: usize,
        is_retransmission: bool,
    },
    /// An acknowledgement.
    Ack { from: usize, network: usize, sender_session: BootIdPair, counter: u64, ack: Ack },
    /// A handshake that is complete for this node.
    SessionAgreed { peer: usize, session: BootIdPair },
    /// The session's idle timeout.
    SessionTimeout { peer: usize, session: BootIdPair },
    /// What the node's own kernel says.
    Local(EngineInput),
}

impl Arrival {
    /// Whether it comes over a network.
    pub(crate) fn is_frame(&self) -> bool {
        matches!(self, Self::Heartbeat { .. } | Self::Data { .. } | Self::Ack { .. })
    }
}

/// One node.
pub(crate) struct SimNode {
    /// `None` while the node is dead.
    pub(crate) engine: Option<Engine>,
    pub(crate) boot_id: u64,
    pub(crate) paused: bool,
    /// What comes while the node is paused is lost.
    pub(crate) drops_while_paused: bool,
    /// When the pause in progress began.
    pub(crate) paused_at: Time,
    /// When the pause in progress ends; a later pause moves it.
    pub(crate) resume_at: Time,
    inbox: VecDeque<Arrival>,
    /// Heartbeats, and others, in the inbox.
    queued: [usize; 2],
    pub(crate) sessions: Vec<Option<BootIdPair>>,
    /// The data with every peer there was a session with.
    pub(crate) streams: Vec<Option<DataStream>>,
    /// What the engine hears when it is awake.
    pub(crate) deferred_inputs: Vec<EngineInput>,
    /// When the packet path has something to do.
    pub(crate) data_wake: Option<Time>,
    /// How long the node was not scheduled last, and when it was again.
    pub(crate) last_stall: Option<(Duration, Time)>,
    pub(crate) table: Arc<ForwardingTable>,
    /// The engine's last wish, and when the timer fires for it.
    pub(crate) planned_wake: Option<(Time, Time)>,
    /// The engine's state after its last step.
    pub(crate) routes: Vec<RouteStatus>,
    pub(crate) peers: Vec<PeerStatus>,
}

impl SimNode {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            engine: None,
            boot_id: 0,
            paused: false,
            drops_while_paused: false,
            paused_at: Time::ZERO,
            resume_at: Time::ZERO,
            inbox: VecDeque::new(),
            queued: [0; 2],
            sessions: vec![None; nodes],
            streams: (0..nodes).map(|_| None).collect(),
            deferred_inputs: Vec::new(),
            data_wake: None,
            last_stall: None,
            table: Arc::default(),
            planned_wake: None,
            routes: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// Alive and scheduled.
    pub(crate) fn is_running(&self) -> bool {
        self.engine.is_some() && !self.paused
    }

    pub(crate) fn start_engine(&mut self, engine: Engine) {
        let nodes = self.sessions.len();
        *self = Self { engine: Some(engine), boot_id: self.boot_id + 1, ..Self::new(nodes) };
    }

    pub(crate) fn crash_engine(&mut self) {
        let nodes = self.sessions.len();
        *self = Self { boot_id: self.boot_id, ..Self::new(nodes) };
    }

    /// Keeps something for a node that does not run. Only frames fill a socket buffer; data does
    /// not push out heartbeats, so that both kinds are there after a pause.
    pub(crate) fn queue_arrival(&mut self, arrival: Arrival) {
        if arrival.is_frame() {
            let kind = usize::from(matches!(arrival, Arrival::Heartbeat { .. }));
            if self.queued[kind] == INBOX_CAPACITY {
                return;
            }
            self.queued[kind] += 1;
        }
        self.inbox.push_back(arrival);
    }

    pub(crate) fn take_inbox(&mut self) -> VecDeque<Arrival> {
        self.queued = [0; 2];
        std::mem::take(&mut self.inbox)
    }

    /// The session is the one both this node and `peer` hold.
    pub(crate) fn shares_session(&self, node: usize, peer: &Self, peer_number: usize) -> bool {
        match (self.sessions[peer_number], peer.sessions[node]) {
            (Some(here), Some(there)) => here.own == there.peer && here.peer == there.own,
            _ => false,
        }
    }
}
