//! Input from the wire that is forged, repeated, misrouted or from strangers.

use super::*;
use crate::io::quic::transport::{CidTag, CidTags};

#[test]
fn only_authentic_packets_between_the_two_nodes_reach_the_adapter() {
    let (left, right) = pair(true, true);
    right.start_adapter();
    let send = |bytes: &[u8]| {
        let fd = left.socket.fd.as_fd();
        udp::send_control(fd, &right.socket.local, bytes, None).unwrap();
    };
    let mut forged = left.seal_frame(FrameKind::Data, &[]);
    *forged.last_mut().unwrap() ^= 1;
    send(&forged);
    right.await_drops(DropReason::NotAuthentic, 1);
    send(&[0x11; 20]);
    right.await_drops(DropReason::Malformed, 1);
    send(&[0x01; 60]);
    right.await_drops(DropReason::Unsupported, 1);
    let mut unknown = left.seal_frame(FrameKind::Data, &[]);
    unknown[7] ^= 1;
    send(&unknown);
    right.await_drops(DropReason::UnknownSession, 1);

    let good = build(&plain(true, 30)).1;
    let (mut from, mut to) = (good.clone(), good.clone());
    from[15] ^= 1;
    to[19] ^= 1;
    let bundle = [from, to, good.clone()].concat();
    let frame = left.seal_frame(FrameKind::Data, &bundle);
    send(&frame);
    assert_eq!(right.read_packet().1, good);
    right.await_drops(DropReason::InnerSource, 1);
    right.await_drops(DropReason::InnerDestination, 1);
    send(&frame);
    right.await_drops(DropReason::Replayed, 1);
    send(&left.seal_frame(FrameKind::Data, &[0x45, 0, 0, 200]));
    right.await_drops(DropReason::InnerMalformed, 1);
}

/// S-06. A counter that was seen before needs no key.
#[test]
fn a_forged_repeat_of_a_seen_header_earns_no_acknowledgement() {
    let (left, right) = pair(true, true);
    right.start_adapter();
    let send = |frame: &[u8]| {
        udp::send_control(left.socket.fd.as_fd(), &right.socket.local, frame, None).unwrap();
    };
    let counters = &right.workers.counters()[0];
    let acks = || counters.acks_sent.load(Relaxed);
    let genuine = left.seal_frame(FrameKind::Data, &build(&plain(true, 30)).1);
    send(&genuine);
    await_until(|| acks() == 1);
    let forged = [&genuine[..HEADER_LEN], &[0; TAG_LEN]].concat();
    (0..20).for_each(|_| send(&forged));
    right.await_drops(DropReason::NotAuthentic, 20);
    assert_eq!(right.drop_count(DropReason::Replayed), 0);
    // Several times the delay of an acknowledgement.
    thread::sleep(Duration::from_millis(50));
    assert_eq!(acks(), 1);
    send(&genuine);
    right.await_drops(DropReason::Replayed, 1);
    await_until(|| acks() == 2);
}

#[test]
fn control_frames_reach_the_driver_only_over_a_route_of_their_sender() {
    let (left, mut right) = pair(true, true);
    let to = right.socket.local;
    let request = heartbeat_bytes(HeartbeatMessage::Request);
    let heartbeat = left.seal_frame(FrameKind::Heartbeat, &request);
    udp::send_control(left.socket.fd.as_fd(), &to, &heartbeat, Some(udp::TOS_CONTROL)).unwrap();
    let received = right.driver.blocking_recv().unwrap();
    let FromWorker::Heartbeat { peer, route, session_boot_id, heartbeat, received_at, .. } =
        received
    else {
        panic!("{received:?}");
    };
    assert_eq!((peer, route, session_boot_id), (PEER, ROUTE, 77));
    assert_eq!((heartbeat.message, heartbeat.route), (HeartbeatMessage::Request, 9));
    assert!(received_at > Time::ZERO);
    let ack = left.seal_frame(FrameKind::Ack, b"ack");
    udp::send_control(left.socket.fd.as_fd(), &to, &ack, None).unwrap();
    right.await_drops(DropReason::Malformed, 1);

    let other_source = socket();
    let stolen = left.seal_frame(FrameKind::Heartbeat, &request);
    udp::send_control(other_source.fd.as_fd(), &to, &stolen, None).unwrap();
    right.await_drops(DropReason::Misrouted, 1);
    // It is reported with its source address.
    let FromWorker::PeerReflexive { peer, local, from, .. } = right.driver.try_recv().unwrap()
    else {
        panic!("accepted as a heartbeat of the route");
    };
    assert_eq!((peer, local, from), (PEER, to, other_source.local));
    assert!(right.driver.try_recv().is_err());
}

/// An address is a route of one peer: what another sends from there, with keys of its own, counts
/// on no route.
#[test]
fn control_frames_of_another_peer_count_on_no_route() {
    let (left, mut right) = pair(true, true);
    let other = |secrets: (u8, u8)| {
        let params = SessionParams {
            peer: PeerId(1),
            peer_addrs: LEFT,
            local_id: 6,
            remote_id: 6,
            boot_id: 78,
            cipher: Cipher::Aes256Gcm,
            tx_secret: [secrets.0; 32],
            rx_secret: [secrets.1; 32],
        };
        Arc::new(Session::new(params))
    };
    let (there, here) = (other((3, 4)), other((4, 3)));
    let known = right.fib.load_full();
    let mut fib = Fib { sockets: known.sockets.clone(), ..Fib::default() };
    fib.routes = known.routes.clone();
    fib.sessions.insert(6, here);
    fib.healthy_peers.insert(PeerId(1));
    right.fib.store(Arc::new(fib));
    let send = |kind: FrameKind, payload: &[u8]| {
        let mut frame = Vec::new();
        there.seal_message(kind, 0, &mut frame, |frame| frame.extend_from_slice(payload)).unwrap();
        udp::send_control(left.socket.fd.as_fd(), &right.socket.local, &frame, None).unwrap();
    };
    send(FrameKind::Heartbeat, &heartbeat_bytes(HeartbeatMessage::Reply));
    let mut probe = Vec::new();
    Probe { message: ProbeMessage::Answer, size: 1400, route: 9, your_route: 0, sequence: 1 }
        .encode(&mut probe);
    send(FrameKind::Probe, &probe);
    send(FrameKind::Heartbeat, &heartbeat_bytes(HeartbeatMessage::Request));
    right.await_drops(DropReason::Misrouted, 3);
    // Only the request is reported, as one from an address to be validated.
    let first = right.driver.try_recv().unwrap();
    assert!(matches!(first, FromWorker::PeerReflexive { peer: PeerId(1), .. }), "{first:?}");
    assert!(right.driver.try_recv().is_err() && right.deferred.try_recv().is_err());
}

#[test]
fn quic_packets_of_routes_are_passed_on_and_others_are_not() {
    let (left, mut right) = pair(true, true);
    let to = right.socket.local;
    udp::send_control(left.socket.fd.as_fd(), &to, &[0xc0, 1, 2], None).unwrap();
    let got = right.quic.blocking_recv().unwrap();
    assert_eq!((got.socket, got.from), (SocketId(3), left.socket.local));
    assert_eq!(got.bytes, [0xc0, 1, 2]);
    udp::send_control(socket().fd.as_fd(), &to, &[0xc0, 1, 2], None).unwrap();
    right.await_drops(DropReason::UnknownSource, 1);
    for _ in 0..70 {
        udp::send_control(left.socket.fd.as_fd(), &to, &[0x40], None).unwrap();
    }
    right.await_drops(DropReason::QueueFull, 6);
}

/// Valid Initials need no key: a flood of them, with the peer's address or another, is dropped
/// before it is copied.
#[test]
fn floods_of_handshake_packets_are_limited_and_established_connections_are_not() {
    let (left, mut right) = pair(true, true);
    // A peer without a route: QUIC is taken from any source.
    let known = right.fib.load_full();
    let (sockets, routes) = (known.sockets.clone(), known.routes.clone());
    let tags = CidTags { transport: CidTag::new(1), session: CidTag::new(2) };
    right.fib.store(Arc::new(Fib {
        has_unreachable_peer: true,
        cid_tags: Some(tags),
        sockets,
        routes,
        ..Fib::default()
    }));
    let stranger = socket();
    // A forger may choose ids as long as those that this node issues.
    let initial = [&[0xc0, 0, 0, 0, 1, 8][..], &[7; 60]].concat();
    let start = std::time::Instant::now();
    let count = 500;
    let mut passed = 0;
    for n in 1..=count {
        for from in [&left.socket, &stranger] {
            udp::send_control(from.fd.as_fd(), &right.socket.local, &initial, None).unwrap();
        }
        // Each pair is accounted for before the next, so that no socket buffer overflows.
        await_until(|| {
            while right.quic.try_recv().is_ok() {
                passed += 1;
            }
            passed + right.drop_count(DropReason::HandshakeRate) == 2 * n
        });
    }
    let refilled = start.elapsed().as_millis() as u64 / 5 + 1;
    assert!((2 * 64..=2 * (64 + refilled)).contains(&passed), "{passed} passed");
    // A handshake that this node began goes on.
    let issued = tags.session.cid_generator().generate_cid();
    let later = [&[0xe0, 0, 0, 0, 1, 8][..], &issued, &[7; 60]].concat();
    udp::send_control(left.socket.fd.as_fd(), &right.socket.local, &later, None).unwrap();
    await_until(|| right.quic.try_recv().is_ok());
    for _ in 0..70 {
        udp::send_control(left.socket.fd.as_fd(), &right.socket.local, &[0x40; 40], None).unwrap();
        right.quic.blocking_recv().unwrap();
    }
}
