//! Frames on routes whose carrier is QUIC: into their connection, and out of it.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use bytes::Bytes;
use netft_proto::{
    packet::gro::Coalescer,
    wire::{DropReason, header},
};

use crate::io::{
    counters::Counters,
    datapath::{FromWorker, rx::Batch, tx_batch, tx_batch::Context},
    fib::Path,
    quic::transport::{Carrier, Class, Outcome},
    sys::udp,
};

/// Sends data frames of one length (the last may be shorter). What the connection has no room for
/// is dropped, the newest first.
pub(super) fn put(
    path: &Path,
    carrier: &Carrier,
    bytes: &[u8],
    stride: usize,
    context: &mut Context<'_>,
) {
    let outcome = carrier.send(bytes, stride, path.max_datagram, Class::Bulk);
    tx_batch::sent(path, context, outcome.bytes as usize, outcome.sent);
    let lost = [
        (DropReason::QueueFull, outcome.full),
        (DropReason::TooBig, outcome.too_big),
        (DropReason::SendFailed, outcome.unconnected),
    ];
    for (reason, frames) in lost.into_iter().filter(|(_, frames)| *frames > 0) {
        Counters::add(&context.counters.drops[reason as usize], frames);
    }
    if let Some(fault) = outcome.fault {
        // How many of them the kernel refused, QUIC does not say.
        tx_batch::failed(path, context, 1, fault);
    }
}

/// How one frame leaves: in the route's QUIC connection, or from its socket.
pub(super) struct Way<'a> {
    pub(super) carrier: Option<&'a Arc<Carrier>>,
    pub(super) socket: &'a OwnedFd,
    pub(super) to: SocketAddr,
}

impl<'a> Way<'a> {
    /// The way of a path.
    pub(super) fn of(path: &'a Path) -> Self {
        Self { carrier: path.carrier.as_ref(), socket: &path.socket.fd, to: path.remote }
    }

    /// Sends one sealed frame.
    pub(super) fn send(&self, frame: &[u8], class: Class) -> Result<(), DropReason> {
        if let Some(carrier) = self.carrier {
            let outcome = carrier.send(frame, frame.len(), usize::MAX, class);
            return match outcome {
                Outcome { sent: 1.., .. } => Ok(()),
                Outcome { full: 1.., .. } => Err(DropReason::QueueFull),
                _ => Err(DropReason::SendFailed),
            };
        }
        let tos = (class == Class::Control).then_some(udp::TOS_CONTROL);
        let sent = udp::send_one(self.socket.as_fd(), &self.to, frame, tos);
        sent.map_err(|_| DropReason::SendFailed)
    }
}

impl Batch<'_, '_> {
    /// One receive on a node where some route's carrier is QUIC.
    pub(super) fn run_carried(
        &mut self,
        input: &mut [u8],
        segment: usize,
        mut merge: Option<&mut Coalescer>,
        frames: &mut Vec<Bytes>,
    ) {
        let route = self.route().map(|(_, route)| route);
        let fib = self.fib;
        let carrier = route.and_then(|route| Some((route, fib.carriers.get(&route)?)));
        let Some((route, carrier)) = carrier else { return self.run(input, segment, merge) };
        if input.is_empty() {
            return self.drop(DropReason::Malformed);
        }
        // Plain frames stand between QUIC packets while the peer goes over to QUIC.
        let mut start = 0;
        while start < input.len() {
            let end = stretch(input, start, segment, true);
            let packets = input[start..end].chunks(segment);
            let mut others = Vec::new();
            carrier.receive(packets, frames, |packet| others.push(packet));
            others.into_iter().for_each(|packet| self.quic(packet));
            if carrier.take_news() {
                self.lent.reports.send(FromWorker::Carrier(route), self.lent.counters);
            }
            self.open_all(&mut input[start..end], frames, merge.as_deref_mut());
            start = stretch(input, end, segment, false);
            if end < start {
                self.run(&mut input[end..start], segment, merge.as_deref_mut());
            }
        }
    }

    /// The frames QUIC packets brought, opened where those packets stood: they were larger.
    fn open_all(
        &mut self,
        input: &mut [u8],
        frames: &mut Vec<Bytes>,
        mut merge: Option<&mut Coalescer>,
    ) {
        let mut at = 0;
        for frame in frames.drain(..) {
            if at + frame.len() > input.len() {
                self.finish(input, merge.as_deref_mut());
                at = 0;
            }
            let Some(place) = input.get_mut(at..at + frame.len()) else {
                self.drop(DropReason::TooBig);
                continue;
            };
            place.copy_from_slice(&frame);
            let place = (at, at + frame.len(), frame.len());
            if let Err(reason) = self.frame(input, place, merge.as_deref_mut()) {
                self.drop(reason);
            }
            at += frame.len();
        }
        self.finish(input, merge);
    }
}

/// Where the datagrams from `start` on that are QUIC's, or are not, end.
fn stretch(input: &[u8], start: usize, segment: usize, quic: bool) -> usize {
    let mut end = start;
    while input.get(end).is_some_and(|first| header::is_quic(*first) == quic) {
        end += segment;
    }
    end.min(input.len())
}
