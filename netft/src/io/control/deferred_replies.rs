//! Replies that wait until the driver is awake.
//!
//! While every route of a peer is up a reply changes nothing, and is two of three wake-ups of an
//! idle node's worker. So while no data flows, requests allow their reply to wait
//! ([`DEFER_REPLY`]): it comes to a socket that no worker reads, with its arrival time, and is read
//! here when the driver wakes up: at the latest to send the next request, and before it declares a
//! route silent.
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
    control::{component::View, sockets::Sockets},
    datapath::report::FromWorker,
    fib::Fib,
    socket::SocketId,
    sys::{udp, udp::ReceivedBatch},
};

/// The most datagrams read from one socket at a time; the others are read at the next wake-up.
const MAX_DEFERRED_READS: u32 = 1024;
/// Bytes of the longest heartbeat, sealed, and more: a longer datagram is none.
const READ_BUFFER_LEN: usize = 1024;
const _: () = assert!(READ_BUFFER_LEN > FRAME_OVERHEAD + MAX_HEARTBEAT_LEN);

/// The sockets at which replies may wait.
#[derive(Default)]
pub(super) struct DeferredReplies {
    /// Unread replies by local address. One that was lost stays counted, and costs a read of an
    /// empty socket.
    expected: BTreeMap<SocketAddr, u32>,
    /// The last read: a reply that waits came since, whatever the wall clock says.
    last_read_at: Time,
}

impl DeferredReplies {
    /// Decides if the reply to a heartbeat may wait: no data flows (`is_idle`), and the worker
    /// answers the peer's requests by itself.
    pub(super) fn can_defer(
        view: &View<'_>,
        is_idle: bool,
        (peer, local): (PeerId, SocketAddr),
        heartbeat: &Heartbeat,
    ) -> bool {
        heartbeat.message == HeartbeatMessage::Request
            && is_idle
            && view.engine.reply_template(peer).is_some()
            && view.sockets.deferred_at(local).is_some()
    }

    /// A request whose reply may wait left from `local`.
    pub(super) fn expect_reply(&mut self, local: SocketAddr) {
        let expected = self.expected.entry(local).or_default();
        *expected = (*expected + 1).min(MAX_DEFERRED_READS);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    /// Reads the replies that wait.
    pub(super) fn read(
        &mut self,
        sockets: &Sockets,
        fib: &Fib,
    ) -> Vec<Result<FromWorker, DropReason>> {
        let last_read_at = std::mem::replace(&mut self.last_read_at, clock::now());
        let mut replies = Vec::new();
        self.expected.retain(|local, expected| {
            *expected = read_socket(sockets, fib, (*local, *expected), last_read_at, &mut replies);
            *expected > 0
        });
        replies
    }
}

/// Reads the replies that wait at a local address. Returns how many are still expected.
fn read_socket(
    sockets: &Sockets,
    fib: &Fib,
    (local, mut expected): (SocketAddr, u32),
    last_read_at: Time,
    replies: &mut Vec<Result<FromWorker, DropReason>>,
) -> u32 {
    let first = sockets.sockets_at(local).first().map(|first| first.id);
    let (Some(socket), Some(first)) = (sockets.deferred_at(local), first) else { return 0 };
    let mut input = [0; READ_BUFFER_LEN];
    for _ in 0..MAX_DEFERRED_READS {
        let reply = match udp::recv_batch(socket.as_fd(), &mut input) {
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
        expected -= u32::from(reply.is_ok());
        replies.push(reply);
        if expected == 0 {
            break;
        }
    }
    expected
}

/// The heartbeat in a datagram that came to the local address of the socket `first`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::control::test_node::{LOCAL, TestNode, request};

    #[test]
    fn a_reply_does_not_wait_while_the_driver_answers_or_data_flows() {
        let mut node = TestNode::new(1);
        let route = node.add_route(PeerId(0));
        let local = LOCAL.parse().unwrap_or_else(|error| panic!("{error}"));
        let request = request(route, 1);
        for is_idle in [false, true] {
            let ends = (PeerId(0), local);
            assert!(!DeferredReplies::can_defer(&node.view(), is_idle, ends, &request));
        }
    }

    #[test]
    fn replies_to_an_address_without_a_socket_are_not_expected_any_longer() {
        let mut deferred = DeferredReplies::default();
        assert!(deferred.is_empty());
        deferred.expect_reply(LOCAL.parse().unwrap_or_else(|error| panic!("{error}")));
        assert!(!deferred.is_empty());
        assert!(deferred.read(&Sockets::default(), &Fib::default()).is_empty());
        assert!(deferred.is_empty());
    }
}
