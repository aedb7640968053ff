//! The inputs of a worker, and its messages to the driver.

use std::{net::SocketAddr, time::Duration};

use netft_proto::{
    ids::{PeerId, RouteId},
    loss_detection::{DataLoss, DeliveryCounts, RetransmitLimits},
    time::Time,
    wire::{challenge::Challenge, heartbeat::Heartbeat, probe::Probe},
};
use tokio::sync::mpsc;

use crate::io::{fib::SharedFib, quic::QuicDatagram};

/// The inputs and outputs of the workers.
#[derive(Clone)]
pub(crate) struct WorkerIo {
    /// The forwarding table.
    pub fib: SharedFib,
    /// To the driver.
    pub to_driver: mpsc::Sender<FromWorker>,
    /// To the driver, without waking it.
    pub to_driver_deferred: mpsc::Sender<FromWorker>,
    /// To the QUIC endpoint.
    pub to_quic: mpsc::Sender<QuicDatagram>,
    /// Limits of a peer's unacknowledged frames, over all workers.
    pub retransmit_limits: RetransmitLimits,
    /// How long a worker busy-polls for low-rate traffic before it blocks in epoll; zero: not at
    /// all.
    pub busy_poll: Duration,
}

/// A message from a worker to the driver.
#[derive(Debug)]
pub(crate) enum FromWorker {
    /// An authentic heartbeat, from an address that is a route of its sender.
    Heartbeat {
        /// The sender.
        peer: PeerId,
        /// The route it arrived on.
        route: RouteId,
        /// The sender's boot id, by the session it was sealed under.
        session_boot_id: u64,
        /// Its content.
        heartbeat: Heartbeat,
        /// When the worker received it from the socket.
        received_at: Time,
        /// The worker has answered it.
        answered: bool,
    },
    /// An authentic path MTU probe, from an address that is a route of its sender.
    Probe {
        /// The sender.
        peer: PeerId,
        /// The route it arrived on.
        route: RouteId,
        /// Its content.
        probe: Probe,
    },
    /// A route lost data alone: at most every 10 ms per route, peer and worker.
    DataLoss(DataLoss),
    /// Data sent on this route stays unacknowledged.
    Suspect(RouteId),
    /// Segmented sends vanish on this route, and single datagrams arrive.
    SegmentsVanish(RouteId),
    /// The kernel refused a send on this route. Repeated at most every 10 ms per route and error.
    SendError {
        /// The route.
        route: RouteId,
        /// The kernel's error number.
        errno: i32,
    },
    /// The adapter's queue is dead: the worker deregistered it and waits for another.
    AdapterError {
        /// The worker.
        worker: usize,
    },
    /// A peer uses a relay over which this node has no route.
    Relayed {
        /// The relay.
        via: PeerId,
        /// The peer.
        peer: PeerId,
    },
    /// Unacknowledged frames of a route were retransmitted on another one.
    Resent {
        /// The receiver.
        peer: PeerId,
        /// The route they were sent on first.
        from: RouteId,
        /// The route of the retransmission.
        to: RouteId,
        /// The number of frames.
        frames: u64,
        /// Age of the oldest of them.
        waited: Duration,
        /// The counts of the first route, if it was silent.
        silent: Option<DeliveryCounts>,
    },
    /// The state of a route's QUIC connection changed.
    ConnectionChanged(RouteId),
    /// A packet from the remote end of a route asks for a QUIC connection there, or belongs to one
    /// that does not exist; the sender is unverified. Not repeated once the driver has created a
    /// transport that answers.
    ConnectionRequested(RouteId),
    /// An authentic heartbeat request from an address that is no route of its sender.
    PeerReflexive {
        /// The sender.
        peer: PeerId,
        /// The sender's boot id, by the session it was sealed under.
        session_boot_id: u64,
        /// The local address it arrived at.
        local: SocketAddr,
        /// Its source address.
        from: SocketAddr,
        /// Its content.
        heartbeat: Heartbeat,
    },
    /// An authentic path challenge, or the response to one.
    Challenge {
        /// The sender.
        peer: PeerId,
        /// The sender's route it arrived on, if it arrived on one.
        route: Option<RouteId>,
        /// The local address it arrived at.
        local: SocketAddr,
        /// Its source address.
        from: SocketAddr,
        /// Its content.
        challenge: Challenge,
    },
}
