//! The receiving half of a worker: from a socket to the adapter, the driver or QUIC.

use bytes::Bytes;
use netft_proto::{
    packet::{gro::GroCoalescer, handshake_limit::HandshakeLimiter},
    wire::DropReason,
};

use crate::io::{
    counters::Counters,
    datapath::{
        acks::ReplyDestination,
        adapter_writer::AdapterWriter,
        relay,
        rx_batch::RxBatch,
        rx_context::{RxContext, RxSource},
    },
    socket::{SocketId, UdpSocket},
    sys::udp::ReceivedBatch,
};

/// Limit of receives on one socket in a turn, so that the adapter is served too.
const MAX_RECEIVES_PER_TURN: usize = 4;
/// Bytes of one receive: a whole merged batch, whatever the path MTU.
const RECEIVE_BUFFER_LEN: usize = 65_536;

/// The receiving half of a worker.
pub(super) struct RxPipeline {
    input: Box<[u8]>,
    coalescer: GroCoalescer,
    handshake_limiter: HandshakeLimiter,
    /// The frames of QUIC packets of one receive; empty between receives, kept for its memory.
    quic_frames: Vec<Bytes>,
    /// The frame to a relay under construction; empty before the first.
    relay_frame: Vec<u8>,
    /// A turn since the last [`take_drained`](Self::take_drained) may have left datagrams in its
    /// socket.
    may_have_unread: bool,
}

/// The effects of a batch on the turn.
struct BatchOutcome {
    /// The adapter's queue is dead.
    queue_dead: bool,
    /// The batch was one heartbeat and nothing else.
    lone_heartbeat: bool,
}

impl RxPipeline {
    pub(super) fn new() -> Self {
        let input = vec![0; RECEIVE_BUFFER_LEN].into_boxed_slice();
        Self {
            input,
            coalescer: GroCoalescer::new(true),
            handshake_limiter: HandshakeLimiter::default(),
            quic_frames: Vec::new(),
            relay_frame: Vec::new(),
            may_have_unread: false,
        }
    }

    /// Reads the socket, within the bounds of a turn. `overflow` is the socket's last count of lost
    /// datagrams. Returns whether the adapter's queue turned out to be dead.
    pub(super) fn read_socket(
        &mut self,
        socket: &UdpSocket,
        overflow: &mut u32,
        context: &mut RxContext<'_>,
    ) -> bool {
        let mut queue_dead = false;
        for _ in 0..MAX_RECEIVES_PER_TURN {
            match socket.receive(&mut self.input) {
                Ok(None) => return queue_dead,
                Ok(Some(received)) => {
                    if let Some(total) = received.dropped_total {
                        let lost = total.wrapping_sub(*overflow);
                        *overflow = total;
                        Counters::add(&context.counters.socket_overflow, u64::from(lost));
                    }
                    let outcome = self.process_batch(socket.id, &received, context);
                    queue_dead |= outcome.queue_dead;
                    // Heartbeats arrive one at a time: another receive would find nothing, and
                    // epoll is level-triggered.
                    if outcome.lone_heartbeat {
                        break;
                    }
                }
                // A truncated batch: where its datagrams end is unknown.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    context.counters.count_drop(DropReason::Malformed);
                }
                // Reading the error has cleared it.
                Err(_) => {}
            }
        }
        self.may_have_unread = true;
        queue_dead
    }

    /// Returns whether the turns since the last call left nothing in their sockets.
    pub(super) fn take_drained(&mut self) -> bool {
        !std::mem::take(&mut self.may_have_unread)
    }

    fn process_batch(
        &mut self,
        socket: SocketId,
        received: &ReceivedBatch,
        context: &mut RxContext<'_>,
    ) -> BatchOutcome {
        let (fib, from) = (context.fib, received.from);
        let input = &mut self.input[..received.len];
        if let Some(relays) = &fib.relays
            && let Some(endpoint) = relays.by_outer_socket.get(&socket)
        {
            relay::send_to_relay(endpoint, received, input, &mut self.relay_frame, context);
            return BatchOutcome { queue_dead: false, lone_heartbeat: false };
        }
        let source = RxSource::new(socket, from);
        let mut batch =
            RxBatch::new(context, source, &mut self.coalescer, &mut self.handshake_limiter);
        if fib.transports.is_empty() {
            batch.process_datagrams(input, received.segment);
        } else {
            batch.process_with_quic(input, received.segment, &mut self.quic_frames);
        }
        Counters::add(&batch.context.counters.rx_frames, batch.frame_count);
        let lone_heartbeat = batch.is_lone_heartbeat();
        let RxBatch { mut source, received, delivery, data_frames, data_bytes, .. } = batch;
        let AdapterWriter { queue_dead, rejects_udp_gso, .. } = delivery.writer;
        if data_frames > 0
            && let Some(found) = source.look_up_route(fib)
        {
            found.received.count_frames(data_frames, data_bytes);
        }
        if !received.is_empty() {
            let route = source.look_up_route(fib).map(|found| found.route);
            context.acks.on_received(received, ReplyDestination { route, socket, to: from });
        }
        if rejects_udp_gso {
            tracing::debug!("UDP GRO off: the kernel refuses merged datagrams on the adapter");
            self.coalescer.set_merge_udp(false);
        }
        BatchOutcome { queue_dead, lone_heartbeat }
    }
}
