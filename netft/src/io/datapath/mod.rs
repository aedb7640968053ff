//! The packet path: plain threads, one epoll set each, no lock and no hand-over between reading a
//! packet and sending it.
//!
//! ```text
//! adapter queue ─read→ parse → peer → split, slice or bundle → seal ─one segmented send→ socket
//! socket ─receive (merged)→ session → open → check addresses → coalesce ─one write→ adapter queue
//! ```
//!
//! The driver watches and unwatches descriptors and publishes [`Fib`](crate::io::fib::Fib)s; a
//! worker reads the table once per turn. Everything a worker cannot do itself goes to the driver or
//! to QUIC through bounded queues; what does not fit is dropped and counted as
//! [`QueueFull`](netft_proto::wire::DropReason::QueueFull). About 210 KiB of buffers per worker.

mod acks;
mod classify;
mod driver_queue;
mod fragments;
mod frame_arena;
mod multicast;
mod peer_reflexive;
mod registration;
mod relay;
mod reply_path;
mod retransmit_buffer;
mod rx;
mod template_replies;
mod tx;
mod tx_batch;
mod worker_loop;

use std::{io, net::SocketAddr, sync::Arc, thread, thread::JoinHandle, time::Duration};

use netft_proto::{
    ids::{PeerId, RouteId},
    loss_detection::RetransmitLimits,
    time::Time,
    wire::{challenge::Challenge, probe::Probe},
};
use tokio::sync::mpsc;

use crate::io::{
    counters::Counters,
    datapath::{registration::WorkerShared, worker_loop::Worker},
    fib::{SharedFib, TunQueue, UdpSocket},
    quic::QuicDatagram,
};

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
        /// The opened bytes.
        plaintext: Vec<u8>,
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
        /// The opened bytes.
        plaintext: Vec<u8>,
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

/// The running workers.
pub struct Workers {
    shared: Vec<Arc<WorkerShared>>,
    threads: Vec<JoinHandle<()>>,
    counters: Vec<Arc<Counters>>,
}

impl Workers {
    /// Starts `count` workers (at least one), which watch nothing yet.
    ///
    /// # Errors
    /// No descriptor or thread is left.
    pub fn start(count: usize, io: WorkerIo) -> io::Result<Self> {
        if cfg!(netft_null_cipher) {
            tracing::error!("built to measure: nothing is encrypted or authenticated");
        }
        let mut workers = Self { shared: Vec::new(), threads: Vec::new(), counters: Vec::new() };
        // Any of them may send to any peer.
        let share = RetransmitLimits {
            bytes: io.retransmit_limits.bytes.div_ceil(count.max(1)),
            ..io.retransmit_limits
        };
        let io = WorkerIo { retransmit_limits: share, ..io };
        for index in 0..count.max(1) {
            let shared = Arc::new(WorkerShared::new()?);
            let counters = Arc::new(Counters::default());
            let worker = Worker::new(index, shared.clone(), counters.clone(), io.clone());
            workers.shared.push(shared);
            workers.counters.push(counters);
            let name = format!("netft-worker-{index}");
            workers.threads.push(thread::Builder::new().name(name).spawn(|| worker.run())?);
        }
        Ok(workers)
    }

    /// Makes the socket's worker receive on it.
    ///
    /// # Errors
    /// The kernel refused it (no memory, or watched already).
    pub fn register_socket(&self, socket: &Arc<UdpSocket>) -> io::Result<()> {
        self.shared_of(socket.worker).register_socket(socket)
    }

    /// Makes the socket's worker forget it. It is closed once the worker has finished its turn and
    /// every table that names it is gone, so its address may stay busy for some microseconds.
    pub fn deregister_socket(&self, socket: &UdpSocket) {
        self.shared_of(socket.worker).deregister_socket(socket.id);
    }

    /// Gives a worker its queue of the adapter, in place of the one it had.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn register_queue(&self, worker: usize, queue: &Arc<TunQueue>) -> io::Result<()> {
        self.shared_of(worker).register_queue(queue)
    }

    /// Takes a worker's queue away.
    pub fn deregister_queue(&self, worker: usize) {
        self.shared_of(worker).deregister_queue();
    }

    /// How many there are.
    pub fn worker_count(&self) -> usize {
        self.shared.len()
    }

    /// The counters, one block per worker.
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// Stops the workers after the turn they are in.
    pub fn stop(self) {
        drop(self);
    }

    fn shared_of(&self, index: usize) -> &WorkerShared {
        &self.shared[index % self.shared.len()]
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for shared in &self.shared {
            shared.request_stop();
        }
        for thread in self.threads.drain(..) {
            // A worker that panicked has printed why.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
