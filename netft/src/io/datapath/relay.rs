//! Relayed datagrams: those of this node's routes over a relay, and those relayed for other nodes.

use std::os::fd::AsFd;

use netft_proto::{
    ids::PeerId,
    session::Session,
    wire::{
        DropReason,
        header::{FrameKind, HEADER_LEN, TAG_LEN},
        relay::{RELAY_HEADER_LEN, RelayHeader, RelayHop},
    },
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{reply_path::ReplyPath, report::FromWorker, rx_context::RxContext},
    fib::Fib,
    path::Path,
    quic::transport::FrameClass,
    relays::RelayEndpoint,
    socket::SocketId,
    sys::{udp, udp::ReceivedBatch},
};

/// Sends datagrams from the outer socket of a route over a relay to that relay.
#[cold]
pub(super) fn send_to_relay(
    endpoint: &RelayEndpoint,
    received: &ReceivedBatch,
    input: &[u8],
    frame: &mut Vec<u8>,
    context: &RxContext<'_>,
) {
    // The socket is on the loopback interface: any process of this host can send to it.
    if received.from != endpoint.inner.local {
        return context.counters.count_drop(DropReason::UnknownSource);
    }
    for datagram in input.chunks(received.segment.max(1)) {
        if let Err(reason) = send_wrapped(endpoint, datagram, frame, context) {
            context.counters.count_drop(reason);
        }
    }
}

fn send_wrapped(
    endpoint: &RelayEndpoint,
    datagram: &[u8],
    frame: &mut Vec<u8>,
    context: &RxContext<'_>,
) -> Result<(), DropReason> {
    let relays = context.fib.relays.as_ref().ok_or(DropReason::RelayRefused)?;
    let node = *relays.tags.get(&endpoint.peer).ok_or(DropReason::NoPeer)?;
    let via = context.fib.peers.iter().find(|entry| entry.peer == endpoint.via);
    let via = via.ok_or(DropReason::NoPeer)?;
    let session = via.session.as_ref().ok_or(DropReason::NoSession)?;
    let path = relays.direct_path(via.usable_paths()).ok_or(DropReason::NoRoute)?;
    frame.clear();
    frame.resize(HEADER_LEN, 0);
    frame.extend_from_slice(&RelayHeader { hop: RelayHop::First, node }.encode());
    frame.extend_from_slice(datagram);
    frame.resize(frame.len() + TAG_LEN, 0);
    send_relay_frame(session, path, frame, context.counters)
}

/// Seals and sends a relay frame whose payload is in place.
fn send_relay_frame(
    session: &Session,
    path: &Path,
    frame: &mut [u8],
    counters: &Counters,
) -> Result<(), DropReason> {
    if frame.len() > path.max_datagram {
        return Err(DropReason::TooBig);
    }
    let inner = frame.get(HEADER_LEN + RELAY_HEADER_LEN);
    // All but data is control traffic of the relayed route.
    let class = match inner.and_then(|first| FrameKind::from_first_byte(*first)) {
        Some(FrameKind::Data) => FrameClass::Bulk,
        _ => FrameClass::Control,
    };
    session.seal_frame(FrameKind::Relay, 0, session.reserve_counters(1)?, frame)?;
    ReplyPath::from_path(path).send_frame(frame, class)?;
    Counters::add(&counters.tx_frames, 1);
    Ok(())
}

/// The action on a frame of kind [`FrameKind::Relay`].
enum RelayAction<'f> {
    /// Forward it to a peer, with this header before the datagram.
    Forward { session: &'f Session, path: &'f Path, head: RelayHeader },
    /// Deliver the datagram, which is for this node, to the inner socket of this endpoint.
    DeliverLocally(&'f RelayEndpoint),
    /// Drop it: it is for this node, which has no route over that relay to its sender.
    UnknownEndpoint(PeerId),
}

/// Decides on a relay frame of `sender` that arrived on `socket`.
fn relay_action(
    fib: &Fib,
    socket: SocketId,
    sender: PeerId,
    relay: RelayHeader,
) -> Result<RelayAction<'_>, DropReason> {
    let relays = fib.relays.as_ref().ok_or(DropReason::RelayRefused)?;
    // A frame that arrived over a relay is never relayed again.
    if relays.inner_sockets.contains(&socket) {
        return Err(DropReason::RelayRefused);
    }
    let other = relays.peers.get(&relay.node).filter(|(peer, _)| *peer != sender);
    match relay.hop {
        RelayHop::First => {
            let rate = relays.relay_limit.as_ref().ok_or(DropReason::RelayRefused)?;
            let (_, place) = *other.ok_or(DropReason::NoPeer)?;
            let node = *relays.tags.get(&sender).ok_or(DropReason::NoPeer)?;
            let entry = fib.peers.get(place).ok_or(DropReason::NoPeer)?;
            let session = entry.session.as_ref().ok_or(DropReason::NoSession)?;
            let path = relays.direct_path(entry.usable_paths()).ok_or(DropReason::NoRoute)?;
            if !rate.try_take(clock::now(), 1) {
                return Err(DropReason::RelayRate);
            }
            Ok(RelayAction::Forward {
                session,
                path,
                head: RelayHeader { hop: RelayHop::Last, node },
            })
        }
        RelayHop::Last if !relays.uses => Err(DropReason::RelayRefused),
        RelayHop::Last => {
            let (peer, _) = *other.ok_or(DropReason::NoPeer)?;
            Ok(relays
                .endpoints
                .get(&(sender, peer))
                .map_or(RelayAction::UnknownEndpoint(peer), |endpoint| {
                    RelayAction::DeliverLocally(endpoint)
                }))
        }
    }
}

/// Processes a decrypted frame of kind [`FrameKind::Relay`] of the session's peer.
#[cold]
pub(super) fn process_relay_frame(
    context: &RxContext<'_>,
    socket: SocketId,
    relay: RelayHeader,
    frame: &mut [u8],
    session: &Session,
) -> Result<(), DropReason> {
    let (sender, counters) = (session.peer(), context.counters);
    match relay_action(context.fib, socket, sender, relay)? {
        RelayAction::Forward { session, path, head } => {
            let slot = frame.get_mut(HEADER_LEN..HEADER_LEN + RELAY_HEADER_LEN);
            slot.ok_or(DropReason::Malformed)?.copy_from_slice(&head.encode());
            send_relay_frame(session, path, frame, counters)?;
            Counters::add(&counters.relayed_frames, 1);
            Ok(())
        }
        RelayAction::DeliverLocally(endpoint) => {
            let datagram = HEADER_LEN + RELAY_HEADER_LEN..frame.len().saturating_sub(TAG_LEN);
            let datagram = frame.get(datagram).ok_or(DropReason::Malformed)?;
            udp::send_control(endpoint.outer.fd.as_fd(), &endpoint.inner.local, datagram, None)
                .map_err(|_| DropReason::SendFailed)
        }
        RelayAction::UnknownEndpoint(peer) => {
            context.driver_queue.send(FromWorker::Relayed { via: sender, peer }, counters);
            Err(DropReason::NoRoute)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use netft_proto::{
        ids::{NodeKey, RouteId},
        packet::token_bucket::TokenBucket,
        wire::relay::NodeTag,
    };

    use super::*;
    use crate::io::{
        datapath::tests::{LEFT, session, socket},
        fib::FibPeer,
        relays::FibRelays,
    };

    const LAN: SocketId = SocketId(1);

    fn tag(peer: u16) -> NodeTag {
        NodeTag::from_key(&NodeKey([peer as u8; 32]))
    }

    /// A node with two peers, 0 and 1, each with one direct route; 1 has one over 0 too.
    fn fib() -> Fib {
        let mut fib = Fib::default();
        let mut relays = FibRelays {
            uses: true,
            relay_limit: TokenBucket::new(1).map(Arc::new),
            ..FibRelays::default()
        };
        for peer in [0, 1] {
            let path = Path {
                route: RouteId(peer.into()),
                socket: socket(),
                remote: ([127, 0, 0, 1], 9).into(),
                max_datagram: 1400,
                plain_sends: false,
                rtt: None,
                loss_epoch: 0,
                counters: Arc::default(),
                transport: None,
            };
            fib.peers.push(FibPeer {
                is_unreachable: false,
                peer: PeerId(peer),
                session: Some(session(LEFT, (1, 2))),
                active: Some(Arc::new(path)),
                duplicate: None,
                backups: Vec::new(),
                steering: None,
                candidates: Vec::new(),
            });
            relays.peers.insert(tag(peer), (PeerId(peer), peer.into()));
            relays.tags.insert(PeerId(peer), tag(peer));
        }
        let (inner, outer) = (socket(), socket());
        relays.inner_sockets.insert(inner.id);
        let endpoint = RelayEndpoint { via: PeerId(0), peer: PeerId(1), inner, outer };
        relays.endpoints.insert((PeerId(0), PeerId(1)), Arc::new(endpoint));
        fib.relays = Some(relays);
        fib
    }

    fn action_on(
        fib: &Fib,
        socket: SocketId,
        hop: RelayHop,
        node: NodeTag,
    ) -> Result<RelayAction<'_>, DropReason> {
        relay_action(fib, socket, PeerId(0), RelayHeader { hop, node })
    }

    #[test]
    fn a_datagram_is_forwarded_to_a_peer_or_delivered_to_its_endpoint() {
        let fib = fib();
        let action = action_on(&fib, LAN, RelayHop::First, tag(1)).unwrap();
        let RelayAction::Forward { path, head, .. } = action else { panic!("not forwarded") };
        assert_eq!(
            (path.route, head),
            (RouteId(1), RelayHeader { hop: RelayHop::Last, node: tag(0) })
        );
        assert!(matches!(
            action_on(&fib, LAN, RelayHop::Last, tag(1)),
            Ok(RelayAction::DeliverLocally(_))
        ));
        let back =
            relay_action(&fib, LAN, PeerId(1), RelayHeader { hop: RelayHop::Last, node: tag(0) });
        assert!(matches!(back, Ok(RelayAction::UnknownEndpoint(PeerId(0)))));
    }

    #[test]
    fn what_must_not_be_relayed_is_refused() {
        use DropReason::{NoPeer, NoRoute, NoSession, RelayRate, RelayRefused};
        let refused = |change: &dyn Fn(&mut Fib), socket, hop, node, why| {
            let mut fib = fib();
            change(&mut fib);
            assert_eq!(action_on(&fib, socket, hop, node).err(), Some(why));
        };
        fn relays(fib: &mut Fib) -> &mut FibRelays {
            fib.relays.as_mut().unwrap()
        }
        let unchanged = |_: &mut Fib| {};
        // The number that `socket` gives every socket.
        let inner = SocketId(3);
        refused(&unchanged, inner, RelayHop::First, tag(1), RelayRefused);
        refused(&unchanged, inner, RelayHop::Last, tag(1), RelayRefused);
        refused(&unchanged, LAN, RelayHop::First, tag(7), NoPeer);
        refused(&unchanged, LAN, RelayHop::First, tag(0), NoPeer);
        refused(&unchanged, LAN, RelayHop::Last, tag(7), NoPeer);
        refused(&|fib| fib.relays = None, LAN, RelayHop::First, tag(1), RelayRefused);
        refused(&|fib| relays(fib).relay_limit = None, LAN, RelayHop::First, tag(1), RelayRefused);
        refused(&|fib| relays(fib).uses = false, LAN, RelayHop::Last, tag(1), RelayRefused);
        refused(&|fib| fib.peers[1].session = None, LAN, RelayHop::First, tag(1), NoSession);
        refused(&|fib| fib.peers[1].active = None, LAN, RelayHop::First, tag(1), NoRoute);
        // A relay forwards on direct routes only.
        let over = |fib: &mut Fib| relays(fib).relay_routes.extend([RouteId(1)]);
        refused(&over, LAN, RelayHop::First, tag(1), NoRoute);
        let spend = |fib: &mut Fib| {
            assert!(
                relays(fib)
                    .relay_limit
                    .as_ref()
                    .unwrap()
                    .try_take(clock::now(), TokenBucket::MIN_BURST)
            );
        };
        refused(&spend, LAN, RelayHop::First, tag(1), RelayRate);
    }
}
