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
mod report;
mod retransmit_buffer;
mod rx;
mod template_replies;
mod tx;
mod tx_batch;
mod worker_loop;

use std::{io, sync::Arc, thread, thread::JoinHandle};

use netft_proto::loss_detection::RetransmitLimits;

pub use crate::io::datapath::report::{FromWorker, WorkerIo};
use crate::io::{
    counters::Counters,
    datapath::{registration::WorkerShared, worker_loop::Worker},
    socket::{TunQueue, UdpSocket},
};

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
