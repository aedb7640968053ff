//! From the adapter to a route.

use std::{
    io::IoSlice,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use netft_proto::{
    loss_detection::RetransmitLimits,
    packet::{
        gso::GsoPlan,
        ip::InnerHeaders,
        token_bucket::TokenBucket,
        too_big,
        virtio_net::{VNET_HDR_LEN, VnetHdr},
    },
    route::policy::PacketFields,
    session::fragment::FragmentLayout,
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
        fragments,
        tx_batch::{TxBatch, TxContext, TxTarget},
    },
    fib::{Fib, FibPeer},
    socket::TunQueue,
    steering::Forwarding,
    sys::udp::MAX_SEND,
};

/// The most packets taken from the adapter in a turn, so that sockets get theirs.
const MAX_READS_PER_TURN: usize = 64;
/// The most bytes taken from the adapter in a turn, but for the last packet.
const MAX_BYTES_PER_TURN: usize = 256 << 10;
/// The largest packet of the adapter, with its header.
const ADAPTER_BUFFER_LEN: usize = VNET_HDR_LEN + 65_535;

/// How a turn with the adapter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TxOutcome {
    /// Nothing more is there, or it is the sockets' turn.
    Fine,
    /// The queue refuses to be read in a way that may pass.
    Failed,
    /// The device is gone.
    Dead,
}

/// The sending half of a worker.
pub(super) struct TxPipeline {
    /// The lane of what it seals: the worker's number.
    queue_id: u8,
    input: Box<[u8]>,
    batch: TxBatch,
    /// Bounds what the local stack is told of packets that are too big.
    too_big_limit: TokenBucket,
    /// Where a datagram that is to be sliced out of a super-packet is made; empty before the first.
    scratch: Vec<u8>,
}

/// What one turn knows.
pub(super) struct TxTurn<'a> {
    pub(super) queue_id: u8,
    pub(super) fib: &'a Fib,
    pub(super) batch: &'a mut TxBatch,
    queue: &'a TunQueue,
    too_big_limit: &'a TokenBucket,
    pub(super) scratch: &'a mut Vec<u8>,
    pub(super) context: TxContext<'a>,
    /// The peer of the frames in `out`, by the address that was looked up.
    target: Option<(IpAddr, TxTarget<'a>)>,
}

impl TxPipeline {
    /// `resend`: what a peer's unacknowledged frames may hold here.
    pub(super) fn new(queue_id: u8, resend: RetransmitLimits) -> Self {
        let input = vec![0; ADAPTER_BUFFER_LEN].into_boxed_slice();
        let batch = TxBatch::new(&input, resend);
        Self {
            queue_id,
            input,
            batch,
            too_big_limit: too_big::icmp_rate_limit(),
            scratch: Vec::new(),
        }
    }

    /// Acknowledgements, resends, and what is done with: once per turn.
    pub(super) fn poll_loss_detection(
        &mut self,
        fib: &Fib,
        context: &mut TxContext<'_>,
        acks: &mut AckSender,
        can_judge_silence: bool,
    ) {
        self.batch.poll_loss_detection(fib, context, acks, can_judge_silence);
    }

    /// How long until [`poll_loss_detection`](Self::poll_loss_detection) has something to do by
    /// itself.
    pub(super) fn loss_timeout(&self) -> Option<Duration> {
        self.batch.loss_timeout()
    }

    /// Takes what the adapter has, within bounds, and sends it.
    pub(super) fn read_adapter(
        &mut self,
        fib: &Fib,
        queue: &TunQueue,
        counters: &Counters,
        reports: &mut DriverQueue,
    ) -> TxOutcome {
        let context = TxContext { counters, driver_queue: reports };
        let Self { queue_id: lane, input, batch: out, too_big_limit: too_big, scratch } = self;
        let mut turn = TxTurn {
            queue_id: *lane,
            fib,
            batch: out,
            queue,
            too_big_limit: too_big,
            scratch,
            context,
            target: None,
        };
        let (mut bytes, mut outcome) = (0, TxOutcome::Fine);
        for _ in 0..MAX_READS_PER_TURN {
            let len = match rustix::io::read(queue.fd.as_fd(), &mut **input) {
                // No TUN device ends; a stream that does is no adapter any more.
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
            turn.process_read(&input[..len], queue.vnet_hdr);
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
    fn process_read(&mut self, bytes: &[u8], vnet_hdr: bool) {
        Counters::add(&self.context.counters.adapter_reads, 1);
        let (hdr, packet) = if vnet_hdr {
            let Some((hdr, packet)) = bytes.split_first_chunk() else {
                return self.context.counters.count_drop(DropReason::InnerMalformed);
            };
            (VnetHdr::decode(hdr), packet)
        } else {
            (VnetHdr::default(), bytes)
        };
        match self.process_packet(&hdr, packet) {
            Ok(()) => Counters::add(&self.context.counters.tx_bytes, packet.len() as u64),
            Err(reason) => {
                self.context.counters.count_drop(reason);
                if reason == DropReason::TooBig {
                    self.send_too_big(packet);
                }
            }
        }
    }

    /// Tells the local stack, through the adapter, how large a packet to that peer may be.
    #[cold]
    fn send_too_big(&mut self, packet: &[u8]) {
        let Some((_, to)) = &self.target else { return };
        let Ok(inner) = InnerHeaders::parse(packet) else { return };
        let mut answer = [0; too_big::MAX_ICMP_LEN];
        let room = to.max_frame - FRAME_OVERHEAD;
        let carried = if to.session.peer_accepts_fragments() {
            FragmentLayout::max_packet_len(room)
        } else {
            room
        };
        let len = too_big::write_too_big_reply(packet, &inner, carried, &mut answer);
        let Some(answer) = len.and_then(|len| answer.get(..len)) else { return };
        if !self.too_big_limit.try_take(clock::now(), 1) {
            return;
        }
        // Zeroes: nothing is left to be done to the packet.
        let header = [0; VNET_HDR_LEN];
        let header = if self.queue.vnet_hdr { &header[..] } else { &[] };
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
        let Self { batch: out, context, target, scratch, .. } = self;
        let Some((_, to)) = target else { return Err(DropReason::NoPeer) };
        if port.is_some_and(|port| to.path.remote == SocketAddr::new(inner.dst, port)) {
            return Err(DropReason::Loop);
        }
        pack_frames(out, to, context, (hdr, packet, &inner), scratch)
    }

    /// Points `target` to where a packet goes. Frames that go elsewhere are sent before.
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
            let same = |course: Forwarding<'_>| course.is_same_path(to.path, to.duplicate);
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
        target_for_peer(entry, self.queue_id, traffic)
    }

    /// Whether a packet goes to the remote end of a route: one of our own frames, sent here by a
    /// routing table that leads the networks below into the adapter.
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

/// Where the packets of a flow to a peer go.
#[inline]
pub(super) fn target_for_peer(
    entry: &FibPeer,
    queue_id: u8,
    traffic: impl Fn() -> PacketFields,
) -> Result<TxTarget<'_>, DropReason> {
    let session = entry.session.as_ref().ok_or(DropReason::NoSession)?;
    let Forwarding { path, duplicate: copy } =
        entry.select_forwarding(traffic).ok_or(DropReason::NoRoute)?;
    // A policy's route may carry data beside the others.
    let smallest = copy.map_or(usize::MAX, |copy| copy.max_datagram).min(path.max_datagram);
    let max_frame = smallest.min(entry.max_frame()).min(MAX_SEND);
    if max_frame <= FRAME_OVERHEAD {
        return Err(DropReason::TooBig);
    }
    let steered = entry.steering.is_some().then_some(entry);
    let sealer = session.frame_sealer(queue_id);
    Ok(TxTarget { session, sealer, path, duplicate: copy, steered_peer: steered, max_frame })
}

/// Puts a packet of the adapter, split where it must be, into frames.
#[inline]
pub(super) fn pack_frames(
    out: &mut TxBatch,
    to: &mut TxTarget<'_>,
    context: &mut TxContext<'_>,
    (hdr, packet, inner): (&VnetHdr, &[u8], &InnerHeaders),
    scratch: &mut Vec<u8>,
) -> Result<(), DropReason> {
    let split = match GsoPlan::new(hdr, packet, inner, to.max_frame - FRAME_OVERHEAD) {
        // What cannot be made of smaller packets goes in pieces.
        Err(DropReason::TooBig) if to.session.peer_accepts_fragments() => {
            return fragments::send_fragmented(
                out,
                to,
                context,
                &GsoPlan::new_unlimited(hdr, packet, inner)?,
                scratch,
            );
        }
        planned => planned?,
    };
    let flags = if split.has_partial_checksum() { FLAG_PARTIAL_CHECKSUM } else { 0 };
    let count = split.packet_count();
    // Segments of one stream get a frame each: one lost datagram costs one segment.
    if count > 1 && split.is_tcp() {
        let first = to.sealer.session().reserve_counters(count as u64)?;
        out.keep_together(to, context, count, split.packet_len(0));
        for i in 0..count {
            out.push_frame(to, context, (flags, first + i as u64), split.packet_len(i), |slot| {
                split.write_packet(i, slot);
            });
        }
    } else {
        for i in 0..count {
            out.push_bundled(to, context, flags, split.packet_len(i), |slot| {
                split.write_packet(i, slot);
            });
        }
    }
    Ok(())
}
