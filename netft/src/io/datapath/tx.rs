//! The sending half of a worker: from the adapter to a path.

use std::{
    io::IoSlice,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use netft_proto::{
    loss_detection::RetransmitLimits,
    packet::{
        gso::GsoPlan,
        icmp_error::{self, IcmpError},
        ip::InnerHeaders,
        token_bucket::TokenBucket,
        virtio_net::{TUNNEL_VNET_HDR_LEN, VnetHdr},
    },
    route::policy::PacketFields,
    session::{Session, fragment::FragmentLayout},
    wire::{
        DropReason,
        header::{FLAG_PARTIAL_CHECKSUM, FRAME_OVERHEAD},
    },
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        acks::AckSender,
        classify::classify_packet,
        driver_queue::DriverQueue,
        fragment_tx,
        tx_batch::{TxBatch, TxTarget},
        tx_context::TxContext,
    },
    fib::{Fib, FibPeer},
    handover::UnackedSend,
    socket::TunQueue,
    steering::Forwarding,
    sys::udp::MAX_SEND,
};

/// Limit of packets read from the adapter in a turn, so that the sockets are served too.
const MAX_READS_PER_TURN: usize = 64;
/// Limit of bytes read from the adapter in a turn, exceeded by the last packet at most.
const MAX_BYTES_PER_TURN: usize = 256 << 10;
/// The largest packet of the adapter, with its header.
const ADAPTER_BUFFER_LEN: usize = TUNNEL_VNET_HDR_LEN + 65_535;

/// The end of a turn with the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TxOutcome {
    /// The queue is empty, or the limit of the turn is reached.
    Fine,
    /// A read failed in a way that may be temporary.
    Failed,
    /// The device is gone.
    Dead,
}

/// The sending half of a worker.
pub(super) struct TxPipeline {
    /// The queue number in the frames it seals: the worker's.
    queue_id: u8,
    input: Box<[u8]>,
    batch: TxBatch,
    /// Rate limit of ICMP errors to the local stack.
    icmp_limit: TokenBucket,
    /// A datagram of a super-packet that is to be fragmented; empty before the first.
    scratch: Vec<u8>,
}

/// The state of one turn.
pub(super) struct TxTurn<'a> {
    pub(super) queue_id: u8,
    pub(super) fib: &'a Fib,
    pub(super) batch: &'a mut TxBatch,
    queue: &'a TunQueue,
    icmp_limit: &'a TokenBucket,
    pub(super) scratch: &'a mut Vec<u8>,
    pub(super) context: TxContext<'a>,
    /// The target of the frames in `batch`, by the address that was looked up.
    target: Option<(IpAddr, TxTarget<'a>)>,
}

impl TxPipeline {
    /// `limits`: what a peer's unacknowledged frames may occupy in this worker.
    pub(super) fn new(queue_id: u8, limits: RetransmitLimits) -> Self {
        let input = vec![0; ADAPTER_BUFFER_LEN].into_boxed_slice();
        let batch = TxBatch::new(&input, limits);
        Self {
            queue_id,
            input,
            batch,
            icmp_limit: icmp_error::icmp_rate_limit(),
            scratch: Vec::new(),
        }
    }

    /// Takes over a send that a predecessor process left unacknowledged.
    pub(super) fn resume_send(&mut self, session: &Arc<Session>, send: &UnackedSend) {
        self.batch.resume_send(session, send);
    }

    /// The unacknowledged sends, for a successor process.
    pub(super) fn to_unacked(&self) -> Vec<UnackedSend> {
        self.batch.to_unacked()
    }

    /// Processes acknowledgements and retransmits, once per turn.
    pub(super) fn poll_loss_detection(
        &mut self,
        fib: &Fib,
        context: &mut TxContext<'_>,
        acks: &mut AckSender,
        can_judge_silence: bool,
    ) {
        self.batch.poll_loss_detection(fib, context, acks, can_judge_silence);
    }

    /// Time until [`poll_loss_detection`](Self::poll_loss_detection) has something to do without an
    /// acknowledgement.
    pub(super) fn loss_timeout(&self) -> Option<Duration> {
        self.batch.loss_timeout()
    }

    /// Reads the adapter, within the limits of a turn, and sends the packets.
    pub(super) fn read_adapter(
        &mut self,
        fib: &Fib,
        queue: &TunQueue,
        counters: &Counters,
        driver_queue: &mut DriverQueue,
    ) -> TxOutcome {
        let context = TxContext { counters, driver_queue };
        let Self { queue_id, input, batch, icmp_limit, scratch } = self;
        let mut turn = TxTurn {
            queue_id: *queue_id,
            fib,
            batch,
            queue,
            icmp_limit,
            scratch,
            context,
            target: None,
        };
        let (mut bytes, mut outcome) = (0, TxOutcome::Fine);
        for _ in 0..MAX_READS_PER_TURN {
            let len = match rustix::io::read(queue.fd.as_fd(), &mut **input) {
                // A TUN device has no end of file: the queue is not one.
                Ok(0) => {
                    outcome = TxOutcome::Dead;
                    break;
                }
                Ok(len) => len,
                Err(error) => {
                    outcome = outcome_of(error);
                    break;
                }
            };
            turn.process_read(&input[..len]);
            bytes += len;
            if bytes >= MAX_BYTES_PER_TURN {
                break;
            }
        }
        turn.flush();
        outcome
    }
}

fn outcome_of(error: rustix::io::Errno) -> TxOutcome {
    use rustix::io::Errno;
    match error {
        Errno::AGAIN | Errno::INTR => TxOutcome::Fine,
        Errno::BADFD | Errno::BADF | Errno::NODEV => TxOutcome::Dead,
        _ => TxOutcome::Failed,
    }
}

impl<'a> TxTurn<'a> {
    #[inline]
    fn process_read(&mut self, bytes: &[u8]) {
        Counters::add(&self.context.counters.adapter_reads, 1);
        let Some((hdr, packet)) = self.queue.format.split_header(bytes) else {
            return self.context.counters.count_drop(DropReason::InnerMalformed);
        };
        match self.process_packet(&hdr, packet) {
            Ok(()) => Counters::add(&self.context.counters.tx_bytes, packet.len() as u64),
            Err(reason) => {
                self.context.counters.count_drop(reason);
                match reason {
                    DropReason::TooBig => self.send_too_big(packet),
                    DropReason::Unreachable => self.send_icmp_error(packet, IcmpError::Unreachable),
                    _ => {}
                }
            }
        }
    }

    /// Tells the local stack the MTU to that peer.
    #[cold]
    fn send_too_big(&mut self, packet: &[u8]) {
        let Some((_, to)) = &self.target else { return };
        let room = to.max_frame - FRAME_OVERHEAD;
        let carried = if to.session.peer_accepts_fragments() {
            FragmentLayout::max_packet_len(room)
        } else {
            room
        };
        self.send_icmp_error(packet, IcmpError::TooBig(carried));
    }

    /// Sends the local stack an ICMP error through the adapter.
    #[cold]
    fn send_icmp_error(&self, packet: &[u8], error: IcmpError) {
        let Ok(inner) = InnerHeaders::parse(packet) else { return };
        let mut answer = [0; icmp_error::MAX_ICMP_LEN];
        let len = icmp_error::write_icmp_error(packet, &inner, error, &mut answer);
        let Some(answer) = len.and_then(|len| answer.get(..len)) else { return };
        if !self.icmp_limit.try_take(clock::now(), 1) {
            return;
        }
        // An all-zero `virtio_net_hdr`: neither segmentation nor checksum is left to do.
        let header = [0; TUNNEL_VNET_HDR_LEN];
        let header = &header[..self.queue.format.header_len()];
        let slices = [IoSlice::new(header), IoSlice::new(answer)];
        if rustix::io::writev(self.queue.fd.as_fd(), &slices).is_err() {
            self.context.counters.count_drop(DropReason::AdapterFailed);
        }
    }

    #[inline]
    fn process_packet(&mut self, hdr: &VnetHdr, packet: &[u8]) -> Result<(), DropReason> {
        let inner = InnerHeaders::parse(packet)?;
        let port = inner.udp_destination_port(packet);
        let traffic = || classify_packet(&inner, hdr, packet);
        match self.select_target(&inner, port, traffic) {
            Err(DropReason::NoPeer) => return self.send_multicast(hdr, packet, &inner, traffic),
            aimed => aimed?,
        }
        let Self { batch, context, target, scratch, .. } = self;
        let Some((_, to)) = target else { return Err(DropReason::NoPeer) };
        if port.is_some_and(|port| to.path.remote == SocketAddr::new(inner.dst, port)) {
            return Err(DropReason::Loop);
        }
        pack_frames(batch, to, context, (hdr, packet, &inner), scratch)
    }

    /// Sets `target` for a packet. Frames for another target are sent first.
    #[inline]
    fn select_target(
        &mut self,
        inner: &InnerHeaders,
        port: Option<u16>,
        traffic: impl Fn() -> PacketFields,
    ) -> Result<(), DropReason> {
        if let Some((addr, to)) = &self.target
            && *addr == inner.dst
        {
            let same = |next: Forwarding<'_>| next.is_same_path(to.path, to.duplicate);
            if to
                .steered_peer
                .is_none_or(|entry| entry.select_forwarding(&traffic).is_some_and(same))
            {
                return Ok(());
            }
        }
        self.flush();
        self.target = Some((inner.dst, self.resolve_target(inner.dst, port, traffic)?));
        Ok(())
    }

    fn resolve_target(
        &self,
        dst: IpAddr,
        port: Option<u16>,
        traffic: impl Fn() -> PacketFields,
    ) -> Result<TxTarget<'a>, DropReason> {
        let Some(entry) = self.fib.peer_at(dst) else {
            return Err(if self.is_own_frame(dst, port) {
                DropReason::Loop
            } else {
                DropReason::NoPeer
            });
        };
        target_for_peer(entry, self.queue_id, traffic).map_err(|reason| entry.explain_drop(reason))
    }

    /// Returns whether a packet goes to the remote end of a route: it is a frame of this node,
    /// which the kernel's routing table sends into the adapter.
    #[cold]
    fn is_own_frame(&self, dst: IpAddr, port: Option<u16>) -> bool {
        let Some(port) = port else { return false };
        let to = SocketAddr::new(dst, port);
        let mut paths =
            self.fib.peers.iter().flat_map(|peer| peer.active.iter().chain(&peer.candidates));
        paths.any(|path| path.remote == to)
    }

    #[inline]
    fn flush(&mut self) {
        if let Some((_, mut target)) = self.target.take() {
            self.batch.flush(&mut target, &mut self.context);
        }
    }
}

/// The target of a flow to a peer.
#[inline]
pub(super) fn target_for_peer(
    entry: &FibPeer,
    queue_id: u8,
    traffic: impl Fn() -> PacketFields,
) -> Result<TxTarget<'_>, DropReason> {
    let session = entry.session.as_ref().ok_or(DropReason::NoSession)?;
    let Forwarding { path, duplicate } =
        entry.select_forwarding(traffic).ok_or(DropReason::NoRoute)?;
    // A policy may send on a path that is not among those of failover.
    let smallest = duplicate.map_or(usize::MAX, |copy| copy.max_datagram).min(path.max_datagram);
    let max_frame = smallest.min(entry.max_frame()).min(MAX_SEND);
    if max_frame <= FRAME_OVERHEAD {
        return Err(DropReason::TooBig);
    }
    let steered_peer = entry.steering.is_some().then_some(entry);
    let sealer = session.frame_sealer(queue_id);
    Ok(TxTarget { session, sealer, path, duplicate, steered_peer, max_frame })
}

/// Puts a packet from the adapter into frames, segmented or fragmented where necessary.
#[inline]
pub(super) fn pack_frames(
    batch: &mut TxBatch,
    to: &mut TxTarget<'_>,
    context: &mut TxContext<'_>,
    (hdr, packet, inner): (&VnetHdr, &[u8], &InnerHeaders),
    scratch: &mut Vec<u8>,
) -> Result<(), DropReason> {
    let plan = match GsoPlan::new(hdr, packet, inner, to.max_frame - FRAME_OVERHEAD) {
        // A packet that cannot be segmented is fragmented.
        Err(DropReason::TooBig) if to.session.peer_accepts_fragments() => {
            return fragment_tx::send_fragmented(
                batch,
                to,
                context,
                &GsoPlan::new_unlimited(hdr, packet, inner)?,
                scratch,
            );
        }
        planned => planned?,
    };
    let flags = if plan.has_partial_checksum() { FLAG_PARTIAL_CHECKSUM } else { 0 };
    let count = plan.packet_count();
    // Segments of a TCP stream get a frame each: one lost datagram costs one segment.
    if count > 1 && plan.is_tcp() {
        let first = to.sealer.session().reserve_counters(count as u64)?;
        batch.keep_together(to, context, count, plan.packet_len(0));
        for i in 0..count {
            batch.push_frame(to, context, (flags, first + i as u64), plan.packet_len(i), |slot| {
                plan.write_packet(i, slot);
            });
        }
    } else {
        for i in 0..count {
            batch.push_bundled(to, context, flags, plan.packet_len(i), |slot| {
                plan.write_packet(i, slot);
            });
        }
    }
    Ok(())
}
