//! Replies nobody waits for.
//!
//! While all is well a reply changes nothing, and is what an idle node's worker wakes up for two
//! times of three. So while no data flows, requests say that their reply may wait
//! ([`DEFER_REPLY`]); it comes to a socket that nobody watches, with the moment of its arrival,
//! and is read here when the driver wakes up: at the latest to ask again, and before it judges who
//! is silent.
//!
//! [`DEFER_REPLY`]: netft_proto::wire::header::DEFER_REPLY

use std::{collections::BTreeMap, io::ErrorKind, net::SocketAddr, os::fd::AsFd};

use netft_proto::{
    ids::PeerId,
    time::Time,
    wire::{
        DropReason,
        header::{FRAME_OVERHEAD, FrameHeader, FrameKind},
        heartbeat::{Heartbeat, HeartbeatMessage, MAX_HEARTBEAT_LEN},
    },
};

use crate::io::{
    clock,
    control::driver::{Driver, RouteEntry},
    datapath::report::FromWorker,
    fib::Fib,
    socket::SocketId,
    sys::{udp, udp::ReceivedBatch},
};

/// The most datagrams read from one socket at a time; the others come with the next wake-up.
const MAX_DEFERRED_READS: u32 = 1024;
/// Bytes of the longest heartbeat, sealed, and more: what is longer is none.
const READ_BUFFER_LEN: usize = 1024;
const _: () = assert!(READ_BUFFER_LEN > FRAME_OVERHEAD + MAX_HEARTBEAT_LEN);

/// Where replies may wait.
#[derive(Default)]
pub(super) struct DeferredReplies {
    /// How many replies to each local address are not read. One that was lost stays counted, and
    /// costs a look into an empty socket.
    expected: BTreeMap<SocketAddr, u32>,
    /// When was looked last: what waits came since, whatever the wall clock says.
    last_read_at: Time,
}

impl DeferredReplies {
    /// A patient request left from `local`.
    pub(super) fn expect_reply(&mut self, local: SocketAddr) {
        let expected = self.expected.entry(local).or_default();
        *expected = (*expected + 1).min(MAX_DEFERRED_READS);
    }
}

impl Driver {
    /// Whether the reply to a heartbeat may wait until the driver is awake.
    pub(super) fn can_defer_reply(
        &self,
        peer: PeerId,
        route: &RouteEntry,
        heartbeat: &Heartbeat,
    ) -> bool {
        heartbeat.message == HeartbeatMessage::Request
            && self.carrier_poll.is_idle()
            && self.engine.reply_template(peer).is_some()
            && self.sockets.deferred_at(route.plan.spec.real_local).is_some()
    }

    /// Takes in the replies that wait.
    pub(super) fn read_deferred_replies(&mut self) {
        if self.deferred_replies.expected.is_empty() {
            return;
        }
        let last_read_at = std::mem::replace(&mut self.deferred_replies.last_read_at, clock::now());
        let fib = self.fib.load_full();
        for (local, expected) in std::mem::take(&mut self.deferred_replies.expected) {
            let left = self.read_deferred_at(local, expected, last_read_at, &fib);
            if left > 0 {
                self.deferred_replies.expected.insert(local, left);
            }
        }
    }

    /// Reads what waits at a local address, where so many replies are expected. Returns how many
    /// are still.
    fn read_deferred_at(
        &mut self,
        local: SocketAddr,
        mut expected: u32,
        last_read_at: Time,
        fib: &Fib,
    ) -> u32 {
        let mut input = [0; READ_BUFFER_LEN];
        for _ in 0..MAX_DEFERRED_READS {
            let first = self.sockets.sockets_at(local).first().map(|first| first.id);
            let (Some(socket), Some(first)) = (self.sockets.deferred_at(local), first) else {
                return 0;
            };
            let heard = match udp::recv_batch(socket.as_fd(), &mut input) {
                Ok(None) => break,
                Ok(Some(received)) => {
                    let at = received
                        .arrived_at
                        .map_or_else(clock::now, clock::from_wall_clock)
                        .max(last_read_at);
                    open_heartbeat(fib, first, &received, &mut input, at)
                }
                Err(error) if error.kind() == ErrorKind::InvalidData => Err(DropReason::Malformed),
                Err(_) => break,
            };
            match heard {
                Ok(heard) => {
                    self.count_rx_frame();
                    self.on_worker_message(heard);
                    expected -= 1;
                }
                Err(reason) => self.count_drop(reason),
            }
            if expected == 0 {
                break;
            }
        }
        expected
    }
}

/// What a datagram says that came to the address of the socket `first`.
fn open_heartbeat(
    fib: &Fib,
    first: SocketId,
    received: &ReceivedBatch,
    input: &mut [u8],
    received_at: Time,
) -> Result<FromWorker, DropReason> {
    let frame = &mut input[..received.len];
    let header = FrameHeader::decode(frame)?;
    if header.kind != FrameKind::Heartbeat {
        return Err(DropReason::Unsupported);
    }
    let session = fib.sessions.get(&header.session_id).ok_or(DropReason::UnknownSession)?;
    let heartbeat = Heartbeat::decode(session.open_frame(&header, frame)?)?;
    let peer = session.peer();
    match fib.routes.get(&(first, received.from)) {
        Some((owner, route)) if *owner == peer => Ok(FromWorker::Heartbeat {
            peer,
            route: *route,
            session_boot_id: session.boot_id(),
            heartbeat,
            received_at,
            answered: false,
        }),
        _ => Err(DropReason::Misrouted),
    }
}
