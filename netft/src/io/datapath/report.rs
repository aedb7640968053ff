//! What a worker is given, and what it reports to the driver.

use std::{net::SocketAddr, time::Duration};

use netft_proto::{
    ids::{PeerId, RouteId},
    loss_detection::RetransmitLimits,
    time::Time,
    wire::{challenge::Challenge, heartbeat::Heartbeat, probe::Probe},
};
use tokio::sync::mpsc;

use crate::io::{fib::SharedFib, quic::QuicDatagram};

/// What the workers read and where they report to.
#[derive(Clone)]
pub struct WorkerIo {
    /// The forwarding table.
    pub fib: SharedFib,
    /// To the driver.
    pub to_driver: mpsc::Sender<FromWorker>,
    /// To the driver, who need not wake up for it.
    pub to_driver_deferred: mpsc::Sender<FromWorker>,
    /// To the QUIC endpoint.
    pub to_quic: mpsc::Sender<QuicDatagram>,
    /// What a peer's unacknowledged frames may hold, over all workers.
    pub retransmit_limits: RetransmitLimits,
    /// How long a worker looks for more of a thin stream before it sleeps; zero: not at all.
    pub busy_poll: Duration,
}

/// What a worker tells the driver.
#[derive(Debug)]
pub enum FromWorker {
    /// An authentic heartbeat, from an address that is a route of its sender.
    Heartbeat {
        /// The sender.
        peer: PeerId,
        /// The route it came on.
        route: RouteId,
        /// The sender's boot id, by the session it was sealed under.
        session_boot_id: u64,
        /// Its content.
        heartbeat: Heartbeat,
        /// When the worker took it from the socket.
        received_at: Time,
        /// The worker has answered it.
        answered: bool,
    },
    /// An authentic path MTU probe, from an address that is a route of its sender.
    Probe {
        /// The sender.
        peer: PeerId,
        /// The route it came on.
        route: RouteId,
        /// What it says.
        probe: Probe,
    },
    /// Data sent on this route stays unacknowledged.
    Suspect(RouteId),
    /// A send on this route failed, or the error queue blames it. A hint; repeated at most every
    /// 10 ms per route and error.
    SendError {
        /// The route.
        route: RouteId,
        /// What the kernel said.
        errno: i32,
    },
    /// The adapter's queue is dead: the worker stopped watching it and waits for another.
    AdapterError {
        /// The worker.
        worker: usize,
    },
    /// A peer uses a relay this node has no way over.
    Relayed {
        /// The relay.
        via: PeerId,
        /// The peer.
        peer: PeerId,
    },
    /// What was in flight on a route was sent again on another one.
    Resent {
        /// To whom.
        peer: PeerId,
        /// The route it was sent on.
        from: RouteId,
        /// The route it went out on again.
        to: RouteId,
        /// How many frames.
        frames: u64,
        /// How long the oldest of them had waited.
        waited: Duration,
    },
    /// The state of a route's QUIC connection changed.
    ConnectionChanged(RouteId),
    /// Somebody at the far end of a route asks for a QUIC connection there, or believes that there
    /// is one; nothing is proven yet. Comes no more once the driver has made one ready to answer.
    ConnectionRequested(RouteId),
    /// An authentic heartbeat request from an address that is no route of its sender.
    PeerReflexive {
        /// The sender.
        peer: PeerId,
        /// The sender's boot id, by the session it was sealed under.
        session_boot_id: u64,
        /// The address here it came to.
        local: SocketAddr,
        /// Where it came from.
        from: SocketAddr,
        /// Its content.
        heartbeat: Heartbeat,
    },
    /// An authentic challenge, or an answer to one.
    Challenge {
        /// The sender.
        peer: PeerId,
        /// The sender's route it came on, if it came on one.
        route: Option<RouteId>,
        /// The address here it came to.
        local: SocketAddr,
        /// Where it came from.
        from: SocketAddr,
        /// What it says.
        challenge: Challenge,
    },
}
