//! Relayed datagrams: this node's own on their way out and in, and those of others passing
//! through.

use std::os::fd::AsFd;

use netft_proto::{
    ids::PeerId,
    session::Session,
    wire::{
        DropReason,
        header::{HEADER_LEN, Kind, TAG_LEN},
        relay::{Hop, RELAY_LEN, Relay},
    },
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        FromWorker,
        reply_path::Way,
        rx::{Batch, Lent},
    },
    fib::{Fib, Path, SocketId},
    quic::transport::Class,
    relays::Port,
    sys::{udp, udp::Received},
};

/// Sends what arrived at the back of a way over a relay to that relay.
#[cold]
pub(super) fn leave(
    port: &Port,
    received: &Received,
    input: &[u8],
    frame: &mut Vec<u8>,
    lent: &Lent<'_>,
) {
    // Anyone on this host can send here.
    if received.from != port.front.local {
        return lent.counters.count(DropReason::UnknownSource);
    }
    for datagram in input.chunks(received.segment.max(1)) {
        if let Err(reason) = wrap(port, datagram, frame, lent) {
            lent.counters.count(reason);
        }
    }
}

fn wrap(
    port: &Port,
    datagram: &[u8],
    frame: &mut Vec<u8>,
    lent: &Lent<'_>,
) -> Result<(), DropReason> {
    let relays = lent.fib.relays.as_ref().ok_or(DropReason::RelayRefused)?;
    let node = *relays.tags.get(&port.peer).ok_or(DropReason::NoPeer)?;
    let via = lent.fib.peers.iter().find(|entry| entry.peer == port.via);
    let via = via.ok_or(DropReason::NoPeer)?;
    let session = via.session.as_ref().ok_or(DropReason::NoSession)?;
    let path = relays.direct(via).ok_or(DropReason::NoRoute)?;
    frame.clear();
    frame.resize(HEADER_LEN, 0);
    frame.extend_from_slice(&Relay { hop: Hop::First, node }.encode());
    frame.extend_from_slice(datagram);
    frame.resize(frame.len() + TAG_LEN, 0);
    send(session, path, frame, lent.counters)
}

/// Seals and sends a relay frame whose payload is in place.
fn send(
    session: &Session,
    path: &Path,
    frame: &mut [u8],
    counters: &Counters,
) -> Result<(), DropReason> {
    if frame.len() > path.max_datagram {
        return Err(DropReason::TooBig);
    }
    let inner = frame.get(HEADER_LEN + RELAY_LEN);
    // The only datagrams that no route's life depends on.
    let class = match inner.and_then(|first| Kind::of(*first)) {
        Some(Kind::Data) => Class::Bulk,
        _ => Class::Control,
    };
    session.seal(Kind::Relay, 0, session.reserve(1)?, frame)?;
    Way::of(path).send(frame, class)?;
    Counters::add(&counters.tx_frames, 1);
    Ok(())
}

/// What becomes of a frame of kind [`Kind::Relay`].
enum Fate<'f> {
    /// It goes on to a peer, with this before the datagram.
    Onward { session: &'f Session, path: &'f Path, head: Relay },
    /// The datagram is for this node, and goes to the front of this way.
    Home(&'f Port),
    /// It is for this node, which has no way over that relay to its sender.
    New(PeerId),
}

/// Decides on a relay frame of `sender` that came in on `socket`.
fn fate(fib: &Fib, socket: SocketId, sender: PeerId, relay: Relay) -> Result<Fate<'_>, DropReason> {
    let relays = fib.relays.as_ref().ok_or(DropReason::RelayRefused)?;
    // What came over a relay is never relayed again.
    if relays.fronts.contains(&socket) {
        return Err(DropReason::RelayRefused);
    }
    let other = relays.peers.get(&relay.node).filter(|(peer, _)| *peer != sender);
    match relay.hop {
        Hop::First => {
            let rate = relays.passes.as_ref().ok_or(DropReason::RelayRefused)?;
            let (_, place) = *other.ok_or(DropReason::NoPeer)?;
            let node = *relays.tags.get(&sender).ok_or(DropReason::NoPeer)?;
            let entry = fib.peers.get(place).ok_or(DropReason::NoPeer)?;
            let session = entry.session.as_ref().ok_or(DropReason::NoSession)?;
            let path = relays.direct(entry).ok_or(DropReason::NoRoute)?;
            if !rate.take(clock::now(), 1) {
                return Err(DropReason::RelayRate);
            }
            Ok(Fate::Onward { session, path, head: Relay { hop: Hop::Last, node } })
        }
        Hop::Last if !relays.uses => Err(DropReason::RelayRefused),
        Hop::Last => {
            let (peer, _) = *other.ok_or(DropReason::NoPeer)?;
            Ok(relays.ports.get(&(sender, peer)).map_or(Fate::New(peer), |port| Fate::Home(port)))
        }
    }
}

impl Batch<'_, '_> {
    /// An opened frame of kind [`Kind::Relay`] of the peer behind `session`.
    #[cold]
    pub(super) fn relayed(
        &self,
        relay: Relay,
        frame: &mut [u8],
        session: &Session,
    ) -> Result<(), DropReason> {
        let (sender, counters) = (session.peer(), self.lent.counters);
        match fate(self.fib, self.socket(), sender, relay)? {
            Fate::Onward { session, path, head } => {
                let slot = frame.get_mut(HEADER_LEN..HEADER_LEN + RELAY_LEN);
                slot.ok_or(DropReason::Malformed)?.copy_from_slice(&head.encode());
                send(session, path, frame, counters)?;
                Counters::add(&counters.relayed_frames, 1);
                Ok(())
            }
            Fate::Home(port) => {
                let datagram = HEADER_LEN + RELAY_LEN..frame.len().saturating_sub(TAG_LEN);
                let datagram = frame.get(datagram).ok_or(DropReason::Malformed)?;
                udp::send_one(port.back.fd.as_fd(), &port.front.local, datagram, None)
                    .map_err(|_| DropReason::SendFailed)
            }
            Fate::New(peer) => {
                self.lent.reports.send(FromWorker::Relayed { via: sender, peer }, counters);
                Err(DropReason::NoRoute)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use netft_proto::{
        ids::{NodeKey, RouteId},
        packet::token_bucket::Rate,
        wire::relay::Tag,
    };

    use super::*;
    use crate::io::{
        datapath::tests::{LEFT, session, socket},
        fib::PeerEntry,
        relays::Relays,
    };

    const LAN: SocketId = SocketId(1);

    fn tag(peer: u16) -> Tag {
        Tag::of(&NodeKey([peer as u8; 32]))
    }

    /// A node with two peers, 0 and 1, each with one route of its own; 1 has one over 0 too.
    fn fib() -> Fib {
        let mut fib = Fib::default();
        let mut relays =
            Relays { uses: true, passes: Rate::new(1).map(Arc::new), ..Relays::default() };
        for peer in [0, 1] {
            let path = Path {
                route: RouteId(peer.into()),
                socket: socket(),
                remote: ([127, 0, 0, 1], 9).into(),
                max_datagram: 1400,
                rtt: None,
                sent: Arc::default(),
                carrier: None,
            };
            fib.peers.push(PeerEntry {
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
        let (front, back) = (socket(), socket());
        relays.fronts.insert(front.id);
        let port = Port { via: PeerId(0), peer: PeerId(1), front, back };
        relays.ports.insert((PeerId(0), PeerId(1)), Arc::new(port));
        fib.relays = Some(relays);
        fib
    }

    fn judged(fib: &Fib, socket: SocketId, hop: Hop, node: Tag) -> Result<Fate<'_>, DropReason> {
        fate(fib, socket, PeerId(0), Relay { hop, node })
    }

    #[test]
    fn a_datagram_goes_on_to_a_peer_and_comes_home_to_its_way() {
        let fib = fib();
        let onward = judged(&fib, LAN, Hop::First, tag(1)).unwrap();
        let Fate::Onward { path, head, .. } = onward else { panic!("it goes on") };
        assert_eq!((path.route, head), (RouteId(1), Relay { hop: Hop::Last, node: tag(0) }));
        assert!(matches!(judged(&fib, LAN, Hop::Last, tag(1)), Ok(Fate::Home(_))));
        let back = fate(&fib, LAN, PeerId(1), Relay { hop: Hop::Last, node: tag(0) });
        assert!(matches!(back, Ok(Fate::New(PeerId(0)))));
    }

    #[test]
    fn what_must_not_be_relayed_is_refused() {
        use DropReason::{NoPeer, NoRoute, NoSession, RelayRate, RelayRefused};
        let refused = |change: &dyn Fn(&mut Fib), socket, hop, node, why| {
            let mut fib = fib();
            change(&mut fib);
            assert_eq!(judged(&fib, socket, hop, node).err(), Some(why));
        };
        fn relays(fib: &mut Fib) -> &mut Relays {
            fib.relays.as_mut().unwrap()
        }
        let asis = |_: &mut Fib| {};
        // The socket of the tests is the front.
        let front = SocketId(3);
        refused(&asis, front, Hop::First, tag(1), RelayRefused);
        refused(&asis, front, Hop::Last, tag(1), RelayRefused);
        refused(&asis, LAN, Hop::First, tag(7), NoPeer);
        refused(&asis, LAN, Hop::First, tag(0), NoPeer);
        refused(&asis, LAN, Hop::Last, tag(7), NoPeer);
        refused(&|fib| fib.relays = None, LAN, Hop::First, tag(1), RelayRefused);
        refused(&|fib| relays(fib).passes = None, LAN, Hop::First, tag(1), RelayRefused);
        refused(&|fib| relays(fib).uses = false, LAN, Hop::Last, tag(1), RelayRefused);
        refused(&|fib| fib.peers[1].session = None, LAN, Hop::First, tag(1), NoSession);
        refused(&|fib| fib.peers[1].active = None, LAN, Hop::First, tag(1), NoRoute);
        // A route over a relay is no way on.
        let over = |fib: &mut Fib| relays(fib).routes.extend([RouteId(1)]);
        refused(&over, LAN, Hop::First, tag(1), NoRoute);
        let spend = |fib: &mut Fib| {
            assert!(relays(fib).passes.as_ref().unwrap().take(clock::now(), Rate::MIN_BURST));
        };
        refused(&spend, LAN, Hop::First, tag(1), RelayRate);
    }
}
