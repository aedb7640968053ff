//! The interface of the engine: its configuration, its inputs and its outputs.

use std::{net::SocketAddr, time::Duration};

use crate::{
    engine::data_comparison::RouteTally,
    failover::cost::LossCounters,
    ids::{PeerId, RouteId},
    loss_detection::{DataLoss, DeliveryCounts},
    route::{
        event::Event,
        session_end::SessionEndCause,
        spec::{RouteChange, RouteSpec},
        state::Reason,
    },
    time::Time,
    wire::{heartbeat::Heartbeat, probe::Probe},
};

/// Configuration of the engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Hold-down after a first failure: how long a route has to stay up before data returns to it.
    pub hold: Duration,
    /// Heartbeats kept per route for the event when it goes down.
    pub history: usize,
    /// Seed of the heartbeat jitter.
    pub seed: u64,
    /// The PMTU raise timer: when a larger size is probed after a reduction.
    pub mtu_raise: Duration,
}

/// Inputs of the engine.
#[derive(Clone, Debug)]
pub enum EngineInput {
    /// A peer was configured.
    AddPeer(PeerId),
    /// A peer and its routes are gone.
    RemovePeer(PeerId),
    /// A route should exist.
    AddRoute {
        /// Its number, never used before.
        id: RouteId,
        /// Its description.
        spec: RouteSpec,
    },
    /// A route should not exist.
    RemoveRoute(RouteId),
    /// The parameters of a route changed.
    ChangeRoute {
        /// The route.
        id: RouteId,
        /// The change.
        change: RouteChange,
    },
    /// A session with the peer exists.
    SessionUp {
        /// The peer.
        peer: PeerId,
        /// The peer's boot id: it distinguishes a restart from a new handshake.
        boot_id: u64,
    },
    /// No session with the peer exists; why the last one ended.
    SessionDown(PeerId, SessionEndCause),
    /// An authentic heartbeat of `peer` arrived on `route` (by socket and source address).
    Heartbeat {
        /// Its sender.
        peer: PeerId,
        /// The route it arrived on.
        route: RouteId,
        /// The heartbeat.
        heartbeat: Heartbeat,
    },
    /// The path PTO of a route expired: data on it stays unacknowledged.
    Suspect(RouteId),
    /// Data on a route stayed unacknowledged and was retransmitted on another one.
    Silence {
        /// The route.
        route: RouteId,
        /// Its counts at the retransmission.
        counts: DeliveryCounts,
    },
    /// A route lost data alone: later frames arrived.
    DataLoss(DataLoss),
    /// Data frames sent on one of [`Engine::counted_routes`](crate::engine::Engine), and arrived.
    Tally {
        /// The route.
        route: RouteId,
        /// The counts.
        tally: RouteTally,
    },
    /// A datagram that arrived on a route may not have been read, or handed over, yet.
    UnreadData(RouteId),
    /// A local fault of a route began; several may hold at once.
    Fault {
        /// The route.
        route: RouteId,
        /// The fault.
        reason: Reason,
    },
    /// A local fault of a route ended.
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
    /// The configuration describes a route differently, with the same ends.
    ReplaceSpec {
        /// The route.
        id: RouteId,
        /// The new description.
        spec: RouteSpec,
    },
    /// The largest datagram of a route's interface became known or changed.
    DatagramLimit {
        /// The route.
        route: RouteId,
        /// The largest frame, bytes.
        datagram: usize,
        /// The transport's overhead per frame, bytes.
        transport_overhead: usize,
    },
    /// The kernel refused data on a route as too large.
    DataTooBig(RouteId),
    /// The frames of a route leave one by one, or in segmented sends again.
    SegmentationChanged(RouteId),
    /// An authentic path MTU probe of `peer` arrived on `route` (by socket and source address).
    Probe {
        /// Its sender.
        peer: PeerId,
        /// The route it arrived on.
        route: RouteId,
        /// The probe.
        probe: Probe,
    },
    /// The kernel refused a probe of this node as too large.
    ProbeRefused {
        /// The route.
        route: RouteId,
        /// The probe.
        probe: Probe,
    },
    /// Frames outstanding on a route were retransmitted on another one.
    Resent {
        /// The peer.
        peer: PeerId,
        /// The route they were outstanding on.
        from: RouteId,
        /// The route of the retransmission.
        to: RouteId,
        /// Number of frames.
        frames: u64,
        /// Time since the first transmission of the oldest.
        waited: Duration,
    },
    /// Frames duplicated and lost towards a peer, since the start.
    LossCounters {
        /// The peer.
        peer: PeerId,
        /// The counts.
        counters: LossCounters,
    },
    /// As [`Heartbeat`](Self::Heartbeat), for one that was queued: liveness counts from its
    /// arrival.
    DeferredHeartbeat {
        /// Its sender.
        peer: PeerId,
        /// The route it arrived on.
        route: RouteId,
        /// The heartbeat.
        heartbeat: Heartbeat,
        /// When it arrived.
        arrived_at: Time,
        /// It was answered by a [`ReplyTemplate`](crate::cadence::reply_template::ReplyTemplate) of
        /// this engine.
        answered: bool,
    },
    /// The networks of this node or of a peer changed: routes on which the peer was never heard
    /// are tried at full rate again.
    RetryUnheard,
    /// An operator requests a check of the path MTU of a route.
    RecheckPathMtu(RouteId),
    /// Path validation proved another remote address of a route.
    RemoteLearned {
        /// The route.
        route: RouteId,
        /// The new remote address.
        remote: SocketAddr,
    },
}

/// Outputs of the engine.
#[derive(Clone, Debug)]
pub enum EngineOutput {
    /// Send a heartbeat.
    Send {
        /// The receiver.
        peer: PeerId,
        /// The route.
        route: RouteId,
        /// The heartbeat.
        heartbeat: Heartbeat,
    },
    /// Publish the [`Engine::forwarding`](crate::engine::Engine::forwarding) of a peer: it changed.
    ForwardingChanged(PeerId),
    /// Publish an event.
    Event(Event),
    /// Send a path MTU probe, or the answer to one, without fragmentation.
    Probe {
        /// The receiver.
        peer: PeerId,
        /// The route.
        route: RouteId,
        /// The probe.
        probe: Probe,
    },
    /// Limit the datagrams of a route, whatever its interface takes.
    PathMtu {
        /// The route.
        route: RouteId,
        /// The largest UDP payload, bytes.
        datagram: usize,
    },
    /// The [`Engine::reply_template`](crate::engine::Engine::reply_template) of a peer changed.
    ReplyTemplateReady(PeerId),
}
