//! The interface of the engine: its configuration, its inputs and its outputs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    failover::cost::LossCounters,
    ids::{PeerId, RouteId},
    route::{
        event::Event,
        spec::{RouteChange, RouteSpec},
        state::Reason,
        table::ForwardingTable,
    },
    time::Time,
    wire::{heartbeat::Heartbeat, probe::Probe},
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
