//! Packets larger than a frame, between two workers.

use netft_proto::{
    packet::gso::GsoPlan,
    session::fragment::{FRAGMENT_HEADER_LEN, reassembly::MAX_PARTIAL_PACKETS},
    wire::header::FRAME_OVERHEAD,
};

use super::*;

/// A session whose peer accepts fragments.
fn fragmenting_session(addrs: VirtualAddrs, secrets: (u8, u8)) -> Arc<Session> {
    let session = Arc::into_inner(session(addrs, secrets)).unwrap();
    Arc::new(session.with_fragments(true))
}

/// As `pair`, with fragments. `active`: the remote end of the left node's active route, if not the
/// right node.
fn fragmenting_pair(left: bool, right: bool, active: Option<SocketAddr>) -> (Node, Node) {
    let (one, two) = (socket(), socket());
    let (a, b) = (one.local, two.local);
    let session = fragmenting_session(RIGHT, (1, 2));
    let left = node(one, b, LEFT, session, left_format(left), active);
    let session = fragmenting_session(LEFT, (2, 1));
    let right = node(two, a, RIGHT, session, right_format(right), None);
    (left, right)
}

/// As `fragmenting_pair`, but the left node's frames go to `hole` and are not retransmitted: the
/// test delivers them.
fn intercepted_pair(right: bool, hole: SocketAddr) -> (Node, Node) {
    let (one, two) = (socket(), socket());
    let (a, b) = (one.local, two.local);
    let disabled = RetransmitLimits { bytes: 0, ..RetransmitLimits::default() };
    let session = fragmenting_session(RIGHT, (1, 2));
    let left = node_with_limits(disabled, one, (b, Some(hole)), LEFT, session, VnetFormat::Tunnel);
    let session = fragmenting_session(LEFT, (2, 1));
    let right = node(two, a, RIGHT, session, right_format(right), None);
    (left, right)
}

fn unsegmented(udp: bool, v6: bool, payload: usize) -> AdapterPacket {
    build(&Shape { v6, udp, gso_size: 65_000, ..plain(udp, payload) })
}

/// An ICMP echo of `payload` bytes, which cannot be segmented.
fn icmp_echo(payload: usize) -> AdapterPacket {
    let (_, mut packet) = unsegmented(true, false, payload);
    packet[9] = 1;
    checksum::set_ipv4_checksum(&mut packet[..IPV4_HEADER_LEN]);
    (VnetHdr::default(), packet)
}

/// The packets as an adapter without offload gets them: segmented, with complete checksums.
fn segmented((hdr, packet): &AdapterPacket) -> Vec<Vec<u8>> {
    let inner = InnerHeaders::parse(packet).unwrap();
    let plan = GsoPlan::new_unlimited(hdr, packet, &inner).unwrap();
    (0..plan.packet_count())
        .map(|i| {
            let mut single = vec![0; plan.packet_len(i)];
            plan.write_packet(i, &mut single);
            let inner = InnerHeaders::parse(&single).unwrap();
            if plan.has_partial_checksum() {
                checksum::complete_checksum(&mut single, &inner);
            }
            single
        })
        .collect()
}

fn large_packets() -> Vec<AdapterPacket> {
    let mut packets = vec![icmp_echo(60_000), icmp_echo(1408), icmp_echo(1413)];
    for v6 in [false, true] {
        // One frame; two fragments, the last of one byte or more; one send; two sends.
        for payload in [1300, 1413, 1433, 2800, 9000, 60_000, 65_400] {
            packets.push(unsegmented(true, v6, payload));
        }
        let datagrams = Shape { v6, gso_size: 20_000, ..plain(true, 45_000) };
        packets.push(build(&datagrams));
        let last_fits = Shape { v6, gso_size: 20_000, ..plain(true, 40_900) };
        packets.push(build(&last_fits));
    }
    // A forwarded segment: its complete checksum must not be replaced, so it is not segmented.
    let forwarded = segmented(&unsegmented(false, false, 30_000)).remove(0);
    packets.push((VnetHdr::default(), forwarded));
    packets
}

#[test]
fn a_packet_larger_than_a_frame_arrives_complete() {
    let packets = large_packets();
    let expected: Vec<Vec<u8>> = packets.iter().flat_map(segmented).collect();
    for (left_vnet, right_vnet) in [(true, true), (true, false), (false, true), (false, false)] {
        let (left, right) = fragmenting_pair(left_vnet, right_vnet, None);
        if left_vnet {
            packets.iter().for_each(|(hdr, packet)| left.write_packet(hdr, packet));
        } else {
            expected.iter().for_each(|packet| left.write_packet(&VnetHdr::default(), packet));
        }
        right.start_adapter();
        left.start_adapter();
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.extend(segmented(&right.read_packet()));
        }
        assert!(got == expected, "{left_vnet} {right_vnet}");
        for reason in DropReason::ALL {
            assert_eq!(
                (left.drop_count(reason), right.drop_count(reason)),
                (0, 0),
                "{}",
                reason.as_str()
            );
        }
    }
}

/// TCP with a partial checksum is segmented, not fragmented: a lost datagram costs one segment.
#[test]
fn tcp_is_segmented_and_coalesced_again() {
    let (left, right) = fragmenting_pair(true, true, None);
    let (hdr, packet) = unsegmented(false, false, 60_000);
    left.write_packet(&hdr, &packet);
    right.start_adapter();
    left.start_adapter();
    let (hdr, got) = right.read_packet();
    let header = InnerHeaders::parse(&packet).unwrap().header_len();
    let room = MAX_DATAGRAM - FRAME_OVERHEAD - header;
    assert_eq!((got.len(), usize::from(hdr.gso_size)), (packet.len(), room));
    assert_eq!(got[header..], packet[header..]);
}

/// The sealed frames of a packet from the left node, intercepted at `to`.
fn intercept_frames(left: &Node, to: &UdpSocket, packet: &AdapterPacket) -> Vec<Vec<u8>> {
    left.write_packet(&packet.0, &packet.1);
    left.start_adapter();
    let mut frames = Vec::new();
    let mut buf = vec![0; 70_000];
    let mut bytes = 0;
    while bytes < packet.1.len() {
        await_readable(&to.fd);
        let Some(got) = udp::recv_batch(to.fd.as_fd(), &mut buf).unwrap() else { continue };
        for frame in buf[..got.len].chunks(got.segment) {
            bytes += frame.len() - HEADER_LEN - FRAGMENT_HEADER_LEN - TAG_LEN;
            frames.push(frame.to_vec());
        }
    }
    frames
}

fn deliver_frame(left: &Node, right: &Node, frame: &[u8]) {
    udp::send_control(left.socket.fd.as_fd(), &right.socket.local, frame, None).unwrap();
}

#[test]
fn fragments_in_any_order_and_in_separate_receives_are_reassembled() {
    let hole = socket();
    for right_vnet in [true, false] {
        let (left, right) = intercepted_pair(right_vnet, hole.local);
        right.start_adapter();
        let packet = unsegmented(true, false, 20_000);
        let frames = intercept_frames(&left, &hole, &packet);
        assert_eq!(frames.len(), 14);
        // The middle one arrives last.
        let (late, others) = (&frames[7], frames.iter().enumerate().filter(|(at, _)| *at != 7));
        others.for_each(|(_, frame)| deliver_frame(&left, &right, frame));
        deliver_frame(&left, &right, &frames[3]);
        right.await_drops(DropReason::Replayed, 1);
        deliver_frame(&left, &right, late);
        assert_eq!(segmented(&right.read_packet()), segmented(&packet));
        assert_eq!(right.drop_count(DropReason::Incomplete), 0);
    }
}

#[test]
fn incomplete_packets_are_bounded_and_counted() {
    let hole = socket();
    let (left, right) = intercepted_pair(true, hole.local);
    right.start_adapter();
    let packet = unsegmented(true, false, 2000);
    for _ in 0..MAX_PARTIAL_PACKETS + 5 {
        let frames = intercept_frames(&left, &hole, &packet);
        deliver_frame(&left, &right, &frames[1]);
    }
    right.await_drops(DropReason::Incomplete, 5);
    // The next frame after their timeout drops the others.
    thread::sleep(Duration::from_millis(1050));
    let fresh = left.seal_frame(FrameKind::Heartbeat, b"beat");
    deliver_frame(&left, &right, &fresh);
    right.await_drops(DropReason::Incomplete, MAX_PARTIAL_PACKETS as u64 + 5);
}

#[test]
fn fragmented_packets_with_wrong_addresses_are_dropped() {
    let hole = socket();
    let (left, right) = intercepted_pair(true, hole.local);
    right.start_adapter();
    let good = icmp_echo(3000);
    for (at, reason) in [(15, DropReason::InnerSource), (3, DropReason::InnerMalformed)] {
        let mut bad = good.clone();
        bad.1[at] ^= 1;
        if at == 3 {
            // The sender's parser would drop it, so the frames are sealed here.
            let payload = [&[0, 2, 0, 200], &bad.1[..100]].concat();
            let counter = left.session.reserve_counters(2).unwrap();
            for index in 0..2u64 {
                let mut frame = vec![0; HEADER_LEN];
                frame.extend_from_slice(&payload);
                frame[HEADER_LEN] = index as u8;
                frame.extend_from_slice(&[0; TAG_LEN]);
                let flags = netft_proto::wire::header::FLAG_FRAGMENT;
                left.session
                    .seal_frame(FrameKind::Data, flags, counter + index, &mut frame)
                    .unwrap();
                deliver_frame(&left, &right, &frame);
            }
        } else {
            let frames = intercept_frames(&left, &hole, &bad);
            frames.iter().for_each(|frame| deliver_frame(&left, &right, frame));
        }
        right.await_drops(reason, 1);
    }
}

#[test]
fn a_peer_that_does_not_accept_fragments_gets_none() {
    let (left, right) = pair(true, true);
    left.write_packet(&unsegmented(true, false, 1413).0, &unsegmented(true, false, 1413).1);
    let (hdr, packet) = unsegmented(false, false, 60_000);
    left.write_packet(&hdr, &packet);
    right.start_adapter();
    left.start_adapter();
    assert_eq!(right.read_packet().1.len(), packet.len(), "TCP can be segmented all the same");
    left.await_drops(DropReason::TooBig, 1);
    let (_, answer) = left.read_packet();
    assert_eq!(
        answer[IPV4_HEADER_LEN..][..2],
        [3, 4],
        "the local stack gets an ICMP message instead"
    );
}

/// fragments that a silent route lost arrive over another one.
#[test]
fn unacknowledged_fragments_are_retransmitted() {
    let hole = socket();
    let (left, right) = fragmenting_pair(true, true, Some(hole.local));
    let packets = large_packets();
    packets.iter().for_each(|(hdr, packet)| left.write_packet(hdr, packet));
    right.start_adapter();
    left.start_adapter();
    let expected: Vec<Vec<u8>> = packets.iter().flat_map(segmented).collect();
    let mut got = Vec::new();
    while got.len() < expected.len() {
        got.extend(segmented(&right.read_packet()));
    }
    assert!(got == expected, "other packets, or in another order");
    assert_eq!(right.drop_count(DropReason::Incomplete), 0);
}
