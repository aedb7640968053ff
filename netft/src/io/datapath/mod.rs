//! The packet path: plain threads, one epoll set each, no lock and no hand-off between reading a
//! packet and sending it.
//!
//! ```text
//! adapter queue ─read→ parse → peer → segment, fragment or bundle → seal ─one send (GSO)→ socket
//! socket ─receive (GRO)→ session → open → check addresses → coalesce ─one write→ adapter queue
//! ```
//!
//! The driver registers descriptors and publishes [`Fib`](crate::io::fib::Fib)s; a worker loads the
//! table once per turn. What a worker cannot do itself goes to the driver or to QUIC through
//! bounded queues; what does not fit is dropped and counted as
//! [`QueueFull`](netft_proto::wire::DropReason::QueueFull). About 210 KiB of buffers per worker.

mod acks;
mod adapter_writer;
mod classify;
mod control_rx;
mod driver_queue;
mod fragment_rx;
mod fragment_tx;
mod frame_arena;
mod multicast;
mod quic_rx;
mod quic_tx;
mod registration;
mod relay;
mod reply_path;
pub(crate) mod report;
mod retransmit_buffer;
mod rx;
mod rx_batch;
mod rx_context;
mod template_replies;
mod transmit;
mod tx;
mod tx_batch;
mod tx_context;
mod worker_loop;
pub(crate) mod workers;

#[cfg(test)]
mod tests;
