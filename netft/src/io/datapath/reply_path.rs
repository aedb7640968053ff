//! Frames on routes whose carrier is QUIC: into their connection, and out of it.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use bytes::Bytes;
use netft_proto::{
    packet::gro::GroCoalescer,
    wire::{DropReason, header},
};

use crate::io::{
    counters::Counters,
    datapath::{report::FromWorker, rx::RxBatch, tx_batch, tx_batch::TxContext},
    path::Path,
    quic::transport::{FrameClass, QuicTransport, SendOutcome},
    sys::udp,
};

/// Sends data frames of one length (the last may be shorter). What the connection has no room for
/// is dropped, the newest first.
pub(super) fn transmit_over_quic(
    path: &Path,
    transport: &QuicTransport,
    bytes: &[u8],
    stride: usize,
    context: &mut TxContext<'_>,
) {
    let outcome = transport.send_frames(bytes, stride, path.max_datagram, FrameClass::Bulk);
    tx_batch::count_sent(path, context, outcome.bytes as usize, outcome.sent);
    let lost = [
        (DropReason::QueueFull, outcome.window_full),
        (DropReason::TooBig, outcome.too_big),
        (DropReason::SendFailed, outcome.unconnected),
    ];
    for (reason, frames) in lost.into_iter().filter(|(_, frames)| *frames > 0) {
        Counters::add(&context.counters.drops[reason as usize], frames);
    }
    if let Some(fault) = outcome.fault {
        // How many of them the kernel refused, QUIC does not say.
        tx_batch::on_send_failed(path, context, 1, fault);
    }
}

/// How one frame leaves: in the route's QUIC connection, or from its socket.
pub(super) struct ReplyPath<'a> {
    pub(super) transport: Option<&'a Arc<QuicTransport>>,
    pub(super) socket: &'a OwnedFd,
    pub(super) to: SocketAddr,
}

impl<'a> ReplyPath<'a> {
    /// The way of a path.
    pub(super) fn from_path(path: &'a Path) -> Self {
        Self { transport: path.transport.as_ref(), socket: &path.socket.fd, to: path.remote }
    }

    /// Sends one sealed frame.
    pub(super) fn send_frame(&self, frame: &[u8], class: FrameClass) -> Result<(), DropReason> {
        if let Some(transport) = self.transport {
            let outcome = transport.send_frames(frame, frame.len(), usize::MAX, class);
            return match outcome {
                SendOutcome { sent: 1.., .. } => Ok(()),
                SendOutcome { window_full: 1.., .. } => Err(DropReason::QueueFull),
                _ => Err(DropReason::SendFailed),
            };
        }
        let tos = (class == FrameClass::Control).then_some(udp::TOS_CONTROL);
        let sent = udp::send_control(self.socket.as_fd(), &self.to, frame, tos);
        sent.map_err(|_| DropReason::SendFailed)
    }
}

impl RxBatch<'_, '_> {
    /// One receive on a node where some route's carrier is QUIC.
    pub(super) fn process_with_quic(
        &mut self,
        input: &mut [u8],
        segment: usize,
        mut merge: Option<&mut GroCoalescer>,
        frames: &mut Vec<Bytes>,
    ) {
        let route = self.look_up_route().map(|(_, route)| route);
        let fib = self.fib;
        let transport = route.and_then(|route| Some((route, fib.transports.get(&route)?)));
        let Some((route, transport)) = transport else {
            return self.process_datagrams(input, segment, merge);
        };
        if input.is_empty() {
            return self.count_drop(DropReason::Malformed);
        }
        // Plain frames stand between QUIC packets while the peer goes over to QUIC.
        let mut start = 0;
        while start < input.len() {
            let end = same_kind_end(input, start, segment, true);
            let packets = input[start..end].chunks(segment);
            let mut others = Vec::new();
            transport.receive_packets(packets, frames, |packet| others.push(packet));
            others.into_iter().for_each(|packet| self.process_quic(packet));
            if transport.take_changed() {
                self.context
                    .driver_queue
                    .send(FromWorker::ConnectionChanged(route), self.context.counters);
            }
            self.open_quic_frames(&mut input[start..end], frames, merge.as_deref_mut());
            start = same_kind_end(input, end, segment, false);
            if end < start {
                self.process_datagrams(&mut input[end..start], segment, merge.as_deref_mut());
            }
        }
    }

    /// The frames QUIC packets brought, opened where those packets stood: they were larger.
    fn open_quic_frames(
        &mut self,
        input: &mut [u8],
        frames: &mut Vec<Bytes>,
        mut merge: Option<&mut GroCoalescer>,
    ) {
        let mut at = 0;
        for frame in frames.drain(..) {
            if at + frame.len() > input.len() {
                self.flush_opened(input, merge.as_deref_mut());
                at = 0;
            }
            let Some(place) = input.get_mut(at..at + frame.len()) else {
                self.count_drop(DropReason::TooBig);
                continue;
            };
            place.copy_from_slice(&frame);
            let place = (at, at + frame.len(), frame.len());
            if let Err(reason) = self.process_frame(input, place, merge.as_deref_mut()) {
                self.count_drop(reason);
            }
            at += frame.len();
        }
        self.flush_opened(input, merge);
    }
}

/// Where the datagrams from `start` on that are QUIC's, or are not, end.
fn same_kind_end(input: &[u8], start: usize, segment: usize, quic: bool) -> usize {
    let mut end = start;
    while input.get(end).is_some_and(|first| header::is_quic(*first) == quic) {
        end += segment;
    }
    end.min(input.len())
}
