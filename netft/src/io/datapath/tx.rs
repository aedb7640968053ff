//! From the adapter to a route.

use std::{
    io::IoSlice,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use netft_proto::{
    loss_detection::Limits,
    packet::{
        gso::Split,
        ip::Inner,
        token_bucket::Rate,
        too_big,
        virtio_net::{VNET_LEN, VnetHdr},
    },
    route::policy::Traffic,
    session::fragment::Cut,
    wire::{
        DropReason,
        header::{FLAG_PARTIAL_CHECKSUM, OVERHEAD},
    },
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        acks::Acks,
        classify::traffic,
        driver_queue::Reports,
        fragments,
        tx_batch::{Context, Out, Target},
    },
    fib::{Fib, PeerEntry, TunQueue},
    steering::Course,
    sys::udp::MAX_SEND,
};

/// The most packets taken from the adapter in a turn, so that sockets get theirs.
const MAX_READS: usize = 64;
/// The most bytes taken from the adapter in a turn, but for the last packet.
const MAX_BYTES: usize = 256 << 10;
/// The largest packet of the adapter, with its header.
const INPUT_LEN: usize = VNET_LEN + 65_535;

/// How a turn with the adapter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing more is there, or it is the sockets' turn.
    Fine,
    /// The queue refuses to be read in a way that may pass.
    Failed,
    /// The device is gone.
    Dead,
}

/// The sending half of a worker.
pub(super) struct Tx {
    /// The lane of what it seals: the worker's number.
    lane: u8,
    input: Box<[u8]>,
    out: Out,
    /// Bounds what the local stack is told of packets that are too big.
    too_big: Rate,
    /// Where a datagram that is to be sliced out of a super-packet is made; empty before the first.
    scratch: Vec<u8>,
}

/// What one turn knows.
pub(super) struct Turn<'a> {
    pub(super) lane: u8,
    pub(super) fib: &'a Fib,
    pub(super) out: &'a mut Out,
    queue: &'a TunQueue,
    too_big: &'a Rate,
    pub(super) scratch: &'a mut Vec<u8>,
    pub(super) context: Context<'a>,
    /// The peer of the frames in `out`, by the address that was looked up.
    target: Option<(IpAddr, Target<'a>)>,
}

impl Tx {
    /// `resend`: what a peer's unacknowledged frames may hold here.
    pub(super) fn new(lane: u8, resend: Limits) -> Self {
        let input = vec![0; INPUT_LEN].into_boxed_slice();
        let out = Out::new(&input, resend);
        Self { lane, input, out, too_big: too_big::limit(), scratch: Vec::new() }
    }

    /// Acknowledgements, resends, and what is done with: once per turn.
    pub(super) fn service(
        &mut self,
        fib: &Fib,
        context: &mut Context<'_>,
        acks: &mut Acks,
        quiet: bool,
    ) {
        self.out.service(fib, context, acks, quiet);
    }

    /// How long until [`service`](Self::service) has something to do by itself.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.out.wait()
    }

    /// Takes what the adapter has, within bounds, and sends it.
    pub(super) fn turn(
        &mut self,
        fib: &Fib,
        queue: &TunQueue,
        counters: &Counters,
        reports: &mut Reports,
    ) -> Outcome {
        let context = Context { counters, reports };
        let Self { lane, input, out, too_big, scratch } = self;
        let mut turn =
            Turn { lane: *lane, fib, out, queue, too_big, scratch, context, target: None };
        let (mut bytes, mut outcome) = (0, Outcome::Fine);
        for _ in 0..MAX_READS {
            let len = match rustix::io::read(queue.fd.as_fd(), &mut **input) {
                // No TUN device ends; a stream that does is no adapter any more.
                Ok(0) => {
                    outcome = Outcome::Dead;
                    break;
                }
                Ok(len) => len,
                Err(error) => {
                    outcome = outcome_of(error);
                    break;
                }
            };
            turn.read(&input[..len], queue.vnet_hdr);
            bytes += len;
            if bytes >= MAX_BYTES {
                break;
            }
        }
        turn.flush();
        outcome
    }
}

fn outcome_of(error: rustix::io::Errno) -> Outcome {
    use rustix::io::Errno;
    match error {
        Errno::AGAIN | Errno::INTR => Outcome::Fine,
        Errno::BADFD | Errno::BADF | Errno::NODEV => Outcome::Dead,
        _ => Outcome::Failed,
    }
}

impl<'a> Turn<'a> {
    #[inline]
    fn read(&mut self, bytes: &[u8], vnet_hdr: bool) {
        Counters::add(&self.context.counters.adapter_reads, 1);
        let (hdr, packet) = if vnet_hdr {
            let Some((hdr, packet)) = bytes.split_first_chunk() else {
                return self.context.counters.count(DropReason::InnerMalformed);
            };
            (VnetHdr::decode(hdr), packet)
        } else {
            (VnetHdr::default(), bytes)
        };
        match self.packet(&hdr, packet) {
            Ok(()) => Counters::add(&self.context.counters.tx_bytes, packet.len() as u64),
            Err(reason) => {
                self.context.counters.count(reason);
                if reason == DropReason::TooBig {
                    self.tell_too_big(packet);
                }
            }
        }
    }

    /// Tells the local stack, through the adapter, how large a packet to that peer may be.
    #[cold]
    fn tell_too_big(&mut self, packet: &[u8]) {
        let Some((_, to)) = &self.target else { return };
        let Ok(inner) = Inner::parse(packet) else { return };
        let mut answer = [0; too_big::MAX_LEN];
        let room = to.max_frame - OVERHEAD;
        let carried = if to.session.takes_slices() { Cut::reach(room) } else { room };
        let len = too_big::answer(packet, &inner, carried, &mut answer);
        let Some(answer) = len.and_then(|len| answer.get(..len)) else { return };
        if !self.too_big.take(clock::now(), 1) {
            return;
        }
        // Zeroes: nothing is left to be done to the packet.
        let header = [0; VNET_LEN];
        let header = if self.queue.vnet_hdr { &header[..] } else { &[] };
        let slices = [IoSlice::new(header), IoSlice::new(answer)];
        if rustix::io::writev(self.queue.fd.as_fd(), &slices).is_err() {
            self.context.counters.count(DropReason::AdapterFailed);
        }
    }

    #[inline]
    fn packet(&mut self, hdr: &VnetHdr, packet: &[u8]) -> Result<(), DropReason> {
        let inner = Inner::parse(packet)?;
        let port = inner.udp_port(packet);
        let traffic = || traffic(&inner, hdr, packet);
        match self.aim(&inner, port, traffic) {
            Err(DropReason::NoPeer) => return self.spread(hdr, packet, &inner, traffic),
            aimed => aimed?,
        }
        let Self { out, context, target, scratch, .. } = self;
        let Some((_, to)) = target else { return Err(DropReason::NoPeer) };
        if port.is_some_and(|port| to.path.remote == SocketAddr::new(inner.dst, port)) {
            return Err(DropReason::Loop);
        }
        pack(out, to, context, (hdr, packet, &inner), scratch)
    }

    /// Points `target` to where a packet goes. Frames that go elsewhere are sent before.
    #[inline]
    fn aim(
        &mut self,
        inner: &Inner,
        port: Option<u16>,
        traffic: impl Fn() -> Traffic,
    ) -> Result<(), DropReason> {
        if let Some((addr, to)) = &self.target
            && *addr == inner.dst
        {
            let same = |course: Course<'_>| course.is(to.path, to.duplicate);
            if to.steered.is_none_or(|entry| entry.course(&traffic).is_some_and(same)) {
                return Ok(());
            }
        }
        self.flush();
        self.target = Some((inner.dst, self.look_up(inner.dst, port, traffic)?));
        Ok(())
    }

    fn look_up(
        &self,
        dst: IpAddr,
        port: Option<u16>,
        traffic: impl Fn() -> Traffic,
    ) -> Result<Target<'a>, DropReason> {
        let Some(entry) = self.fib.peer_at(dst) else {
            return Err(if self.is_own(dst, port) { DropReason::Loop } else { DropReason::NoPeer });
        };
        target(entry, self.lane, traffic)
    }

    /// Whether a packet goes to the remote end of a route: one of our own frames, sent here by a
    /// routing table that leads the networks below into the adapter.
    #[cold]
    fn is_own(&self, dst: IpAddr, port: Option<u16>) -> bool {
        let Some(port) = port else { return false };
        let to = SocketAddr::new(dst, port);
        let mut paths =
            self.fib.peers.iter().flat_map(|peer| peer.active.iter().chain(&peer.candidates));
        paths.any(|path| path.remote == to)
    }

    #[inline]
    fn flush(&mut self) {
        if let Some((_, mut target)) = self.target.take() {
            self.out.flush(&mut target, &mut self.context);
        }
    }
}

/// Where the packets of a flow to a peer go.
#[inline]
pub(super) fn target(
    entry: &PeerEntry,
    lane: u8,
    traffic: impl Fn() -> Traffic,
) -> Result<Target<'_>, DropReason> {
    let session = entry.session.as_ref().ok_or(DropReason::NoSession)?;
    let Course { path, copy } = entry.course(traffic).ok_or(DropReason::NoRoute)?;
    // A policy's route may carry data beside the others.
    let smallest = copy.map_or(usize::MAX, |copy| copy.max_datagram).min(path.max_datagram);
    let max_frame = smallest.min(entry.max_frame()).min(MAX_SEND);
    if max_frame <= OVERHEAD {
        return Err(DropReason::TooBig);
    }
    let steered = entry.steering.is_some().then_some(entry);
    let sealer = session.sealer(lane);
    Ok(Target { session, sealer, path, duplicate: copy, steered, max_frame })
}

/// Puts a packet of the adapter, split where it must be, into frames.
#[inline]
pub(super) fn pack(
    out: &mut Out,
    to: &mut Target<'_>,
    context: &mut Context<'_>,
    (hdr, packet, inner): (&VnetHdr, &[u8], &Inner),
    scratch: &mut Vec<u8>,
) -> Result<(), DropReason> {
    let split = match Split::new(hdr, packet, inner, to.max_frame - OVERHEAD) {
        // What cannot be made of smaller packets goes in pieces.
        Err(DropReason::TooBig) if to.session.takes_slices() => {
            return fragments::send(out, to, context, &Split::whole(hdr, packet, inner)?, scratch);
        }
        planned => planned?,
    };
    let flags = if split.partial() { FLAG_PARTIAL_CHECKSUM } else { 0 };
    let count = split.count();
    // Segments of one stream get a frame each: one lost datagram costs one segment.
    if count > 1 && split.is_tcp() {
        let first = to.sealer.session().reserve(count as u64)?;
        out.keep_together(to, context, count, split.len(0));
        for i in 0..count {
            out.frame(to, context, (flags, first + i as u64), split.len(i), |slot| {
                split.write(i, slot);
            });
        }
    } else {
        for i in 0..count {
            out.bundle(to, context, flags, split.len(i), |slot| {
                split.write(i, slot);
            });
        }
    }
    Ok(())
}
