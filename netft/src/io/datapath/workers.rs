//! The worker threads, and the registration of descriptors with them.

use std::{io, sync::Arc, thread, thread::JoinHandle};

use netft_proto::{
    loss_detection::{RetransmitLimits, rtt_estimator},
    packet::virtio_net::VnetFormat,
    time::Time,
};

use crate::io::{
    counters::Counters,
    datapath::{registration::WorkerShared, report::WorkerIo, tx::TxPipeline, worker_loop::Worker},
    handover::{ResumedSend, UnackedSend},
    socket::{TunQueue, UdpSocket},
    sys::scheduling::try_shorten_slice,
};

/// The running workers.
pub(crate) struct Workers {
    shared: Vec<Arc<WorkerShared>>,
    threads: Vec<JoinHandle<TxPipeline>>,
    counters: Vec<Arc<Counters>>,
}

impl Workers {
    /// Starts `count` workers (at least one), with nothing registered. `unacked`: what each worker
    /// of a predecessor process left unacknowledged.
    ///
    /// # Errors
    /// No descriptor or thread is left.
    pub(crate) fn start(
        count: usize,
        io: WorkerIo,
        unacked: &[Vec<ResumedSend>],
    ) -> io::Result<Self> {
        if cfg!(netft_null_cipher) {
            tracing::error!("built to measure: nothing is encrypted or authenticated");
        }
        let mut workers = Self { shared: Vec::new(), threads: Vec::new(), counters: Vec::new() };
        // Every worker may send to every peer, so each gets a share of the peer's limit.
        let share = RetransmitLimits {
            bytes: io.retransmit_limits.bytes.div_ceil(count.max(1)),
            ..io.retransmit_limits
        };
        let io = WorkerIo { retransmit_limits: share, ..io };
        for index in 0..count.max(1) {
            let shared = Arc::new(WorkerShared::new()?);
            let counters = Arc::new(Counters::default());
            let mut worker = Worker::new(index, shared.clone(), counters.clone(), io.clone());
            worker.resume_sends(unacked.get(index).map_or(&[], Vec::as_slice));
            workers.shared.push(shared);
            workers.counters.push(counters);
            let name = format!("netft-worker-{index}");
            let run_worker = || {
                try_shorten_slice();
                worker.run()
            };
            workers.threads.push(thread::Builder::new().name(name).spawn(run_worker)?);
        }
        Ok(workers)
    }

    /// Registers a socket with its worker, which receives on it from then on.
    ///
    /// # Errors
    /// The kernel refused it (no memory, or registered already).
    pub(crate) fn register_socket(&self, socket: &Arc<UdpSocket>) -> io::Result<()> {
        let UdpSocket { id, local, worker, .. } = &**socket;
        tracing::debug!(socket = id.0, %local, worker, "socket registered");
        self.shared_of(*worker).register_socket(socket)
    }

    /// Has a worker receive on a socket as this one does: with a fault, or without.
    ///
    /// # Errors
    /// The kernel refused its timer.
    pub(crate) fn replace_socket(&self, socket: &Arc<UdpSocket>) -> io::Result<()> {
        self.shared_of(socket.worker).replace_socket(socket)
    }

    /// Deregisters a socket. It is closed once the worker has finished its turn and every table
    /// that names it is gone, so its address may stay in use for some microseconds.
    pub(crate) fn deregister_socket(&self, socket: &UdpSocket) {
        let UdpSocket { id, local, worker, .. } = socket;
        tracing::debug!(socket = id.0, %local, worker, "socket deregistered");
        self.shared_of(*worker).deregister_socket(*id);
    }

    /// Registers a worker's queue of the adapter, in place of the one it had.
    ///
    /// # Errors
    /// The kernel refused it.
    pub(crate) fn register_queue(&self, worker: usize, queue: &Arc<TunQueue>) -> io::Result<()> {
        tracing::debug!(worker, format = ?queue.format, "adapter queue registered");
        self.shared_of(worker).register_queue(queue)
    }

    /// Returns whether the adapter's queues take super-packets of UDP tunnels.
    pub(crate) fn has_tunnel_offload(&self) -> bool {
        let queue = self.shared.iter().find_map(|shared| shared.registered_queue());
        queue.is_some_and(|queue| queue.format == VnetFormat::Tunnel)
    }

    /// The number of workers.
    pub(crate) fn worker_count(&self) -> usize {
        self.shared.len()
    }

    /// Returns whether a worker was interrupted in its turn: what it received before may not have
    /// come to the driver yet.
    pub(crate) fn is_any_interrupted(&self, now: Time) -> bool {
        let lengths = self.shared.iter().filter_map(|shared| shared.turn_length(now));
        lengths.max().is_some_and(|length| length >= rtt_estimator::MIN_PTO)
    }

    /// The counters, one block per worker.
    pub(crate) fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// Stops the workers after their current turn.
    pub(crate) fn stop(self) {
        drop(self);
    }

    /// Stops the workers after their current turn. Returns what each left unacknowledged; none of
    /// them sends or receives from here on.
    pub(crate) fn stop_and_save(&mut self) -> Vec<Vec<UnackedSend>> {
        self.join_all().iter().map(TxPipeline::to_unacked).collect()
    }

    fn join_all(&mut self) -> Vec<TxPipeline> {
        for shared in &self.shared {
            shared.request_stop();
        }
        // The panic of a worker has been printed.
        self.threads.drain(..).filter_map(|thread| thread.join().ok()).collect()
    }

    fn shared_of(&self, index: usize) -> &WorkerShared {
        &self.shared[index % self.shared.len()]
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.join_all();
    }
}
