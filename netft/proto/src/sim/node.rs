//! One node: a real engine, and around it what its driver would hold.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    engine::{Engine, Input},
    route::{PeerStatus, RouteStatus, Table},
    sim::stream::Stream,
    time::Time,
    wire::{ack::Ack, heartbeat::Heartbeat},
};

/// What a paused node's sockets hold; more is lost, as in a full socket buffer. It is more than
/// a peer sends in the longest detection time, so a stalled node always finds news in it.
const INBOX: usize = 1024;

/// The boot ids a session was agreed under: the holder's and the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) own: u64,
    pub(crate) peer: u64,
}

/// Something that reaches a node.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    /// A heartbeat, sealed under the sender's view of the session.
    Heartbeat { from: usize, network: usize, sealed: Session, heartbeat: Heartbeat },
    /// A data frame; `again`: a copy that was sent later.
    Data { from: usize, network: usize, sealed: Session, counter: u64, index: usize, again: bool },
    /// An acknowledgement.
    Ack { from: usize, network: usize, sealed: Session, counter: u64, ack: Ack },
    /// A handshake that is complete for this node.
    Session { peer: usize, session: Session },
    /// The session's idle timeout.
    SessionIdle { peer: usize, session: Session },
    /// What the node's own kernel says.
    Local(Input),
}

impl Arrival {
    /// Whether it comes over a network.
    pub(crate) fn is_frame(&self) -> bool {
        matches!(self, Self::Heartbeat { .. } | Self::Data { .. } | Self::Ack { .. })
    }
}

/// One node.
pub(crate) struct Node {
    /// `None` while the node is dead.
    pub(crate) engine: Option<Engine>,
    pub(crate) boot: u64,
    pub(crate) paused: bool,
    /// What comes while the node is paused is lost.
    pub(crate) frozen: bool,
    /// When the pause in progress began.
    pub(crate) paused_at: Time,
    /// When the pause in progress ends; a later pause moves it.
    pub(crate) resume_at: Time,
    inbox: VecDeque<Arrival>,
    /// Heartbeats, and others, in the inbox.
    waiting: [usize; 2],
    pub(crate) sessions: Vec<Option<Session>>,
    /// The data with every peer there was a session with.
    pub(crate) streams: Vec<Option<Stream>>,
    /// What the engine hears when it is awake.
    pub(crate) left: Vec<Input>,
    /// When the packet path has something to do.
    pub(crate) data_wake: Option<Time>,
    /// How long the node was not scheduled last, and when it was again.
    pub(crate) stalled: Option<(Duration, Time)>,
    pub(crate) table: Arc<Table>,
    /// The engine's last wish, and when the timer fires for it.
    pub(crate) wake: Option<(Time, Time)>,
    /// The engine's state after its last step.
    pub(crate) routes: Vec<RouteStatus>,
    pub(crate) peers: Vec<PeerStatus>,
}

impl Node {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            engine: None,
            boot: 0,
            paused: false,
            frozen: false,
            paused_at: Time::ZERO,
            resume_at: Time::ZERO,
            inbox: VecDeque::new(),
            waiting: [0; 2],
            sessions: vec![None; nodes],
            streams: (0..nodes).map(|_| None).collect(),
            left: Vec::new(),
            data_wake: None,
            stalled: None,
            table: Arc::default(),
            wake: None,
            routes: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// Alive and scheduled.
    pub(crate) fn runs(&self) -> bool {
        self.engine.is_some() && !self.paused
    }

    pub(crate) fn start(&mut self, engine: Engine) {
        let nodes = self.sessions.len();
        *self = Self { engine: Some(engine), boot: self.boot + 1, ..Self::new(nodes) };
    }

    pub(crate) fn crash(&mut self) {
        let nodes = self.sessions.len();
        *self = Self { boot: self.boot, ..Self::new(nodes) };
    }

    /// Keeps something for a node that does not run. Only frames fill a socket buffer; data does
    /// not push out heartbeats, so that both kinds are there after a pause.
    pub(crate) fn queue(&mut self, arrival: Arrival) {
        if arrival.is_frame() {
            let kind = usize::from(matches!(arrival, Arrival::Heartbeat { .. }));
            if self.waiting[kind] == INBOX {
                return;
            }
            self.waiting[kind] += 1;
        }
        self.inbox.push_back(arrival);
    }

    pub(crate) fn take_inbox(&mut self) -> VecDeque<Arrival> {
        self.waiting = [0; 2];
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
