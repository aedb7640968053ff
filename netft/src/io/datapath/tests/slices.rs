//! Packets that no frame holds, between two workers.

use netft_proto::{
    packet::gso::GsoPlan,
    session::fragment::{FRAGMENT_HEADER_LEN, reassembly::MAX_PARTIAL_PACKETS},
    wire::header::FRAME_OVERHEAD,
};

use super::*;

/// A session whose peer takes slices.
fn slicing(addrs: VirtualAddrs, secrets: (u8, u8)) -> Arc<Session> {
    let session = Arc::into_inner(session(addrs, secrets)).unwrap();
    Arc::new(session.with_fragments(true))
}

/// As `pair`. `first`: where the left one's active route leads, if not to the right one.
fn slicing_pair(left: bool, right: bool, first: Option<SocketAddr>) -> (Node, Node) {
    let (one, two) = (socket(), socket());
    let (a, b) = (one.local, two.local);
    let left = node(one, b, LEFT, slicing(RIGHT, (1, 2)), left, first);
    let right = node(two, a, RIGHT, slicing(LEFT, (2, 1)), right, None);
    (left, right)
}

/// As `slicing_pair`, but the left one's frames get lost in `hole` and are not sent again: the test
/// alone says what arrives.
fn holed_pair(right: bool, hole: SocketAddr) -> (Node, Node) {
    let (one, two) = (socket(), socket());
    let (a, b) = (one.local, two.local);
    let off = RetransmitLimits { bytes: 0, ..RetransmitLimits::default() };
    let left = node_that_keeps(off, one, (b, Some(hole)), LEFT, slicing(RIGHT, (1, 2)), true);
    let right = node(two, a, RIGHT, slicing(LEFT, (2, 1)), right, None);
    (left, right)
}

fn whole(udp: bool, v6: bool, payload: usize) -> Given {
    build(&Shape { v6, udp, gso_size: 65_000, ..plain(udp, payload) })
}

/// An ICMP echo of `payload` bytes, which nothing can cut.
fn icmp(payload: usize) -> Given {
    let (_, mut packet) = whole(true, false, payload);
    packet[9] = 1;
    checksum::set_ipv4_checksum(&mut packet[..IPV4_HEADER_LEN]);
    (VnetHdr::default(), packet)
}

/// What an adapter without offload reads: every datagram alone, with a finished checksum.
fn finished((hdr, packet): &Given) -> Vec<Vec<u8>> {
    let inner = InnerHeaders::parse(packet).unwrap();
    let split = GsoPlan::new_unlimited(hdr, packet, &inner).unwrap();
    (0..split.packet_count())
        .map(|i| {
            let mut single = vec![0; split.packet_len(i)];
            split.write_packet(i, &mut single);
            let inner = InnerHeaders::parse(&single).unwrap();
            if split.has_partial_checksum() {
                checksum::complete_checksum(&mut single, &inner);
            }
            single
        })
        .collect()
}

fn large() -> Vec<Given> {
    let mut given = vec![icmp(60_000), icmp(1408), icmp(1413)];
    for v6 in [false, true] {
        // One frame, two slices with a last one of a byte and more, one send, two sends.
        for payload in [1300, 1413, 1433, 2800, 9000, 60_000, 65_400] {
            given.push(whole(true, v6, payload));
        }
        let datagrams = Shape { v6, gso_size: 20_000, ..plain(true, 45_000) };
        given.push(build(&datagrams));
        let last_fits = Shape { v6, gso_size: 20_000, ..plain(true, 40_900) };
        given.push(build(&last_fits));
    }
    // A forwarded segment: its finished checksum must not be replaced, so it is not cut.
    let forwarded = finished(&whole(false, false, 30_000)).remove(0);
    given.push((VnetHdr::default(), forwarded));
    given
}

#[test]
fn a_packet_larger_than_a_frame_arrives_whole() {
    let given = large();
    let expected: Vec<Vec<u8>> = given.iter().flat_map(finished).collect();
    for (left_vnet, right_vnet) in [(true, true), (true, false), (false, true), (false, false)] {
        let (left, right) = slicing_pair(left_vnet, right_vnet, None);
        if left_vnet {
            given.iter().for_each(|(hdr, packet)| left.give(hdr, packet));
        } else {
            expected.iter().for_each(|packet| left.give(&VnetHdr::default(), packet));
        }
        right.go();
        left.go();
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.extend(finished(&right.take()));
        }
        assert!(got == expected, "{left_vnet} {right_vnet}");
        for reason in DropReason::ALL {
            assert_eq!(
                (left.dropped(reason), right.dropped(reason)),
                (0, 0),
                "{}",
                reason.as_str()
            );
        }
    }
}

/// TCP whose checksum is unfinished is cut into segments of its own: the loss of a datagram costs
/// one of them.
#[test]
fn tcp_is_cut_into_segments_and_merged_again() {
    let (left, right) = slicing_pair(true, true, None);
    let (hdr, packet) = whole(false, false, 60_000);
    left.give(&hdr, &packet);
    right.go();
    left.go();
    let (hdr, got) = right.take();
    let header = InnerHeaders::parse(&packet).unwrap().header_len();
    let room = MAX_DATAGRAM - FRAME_OVERHEAD - header;
    assert_eq!((got.len(), usize::from(hdr.gso_size)), (packet.len(), room));
    assert_eq!(got[header..], packet[header..]);
}

/// The sealed frames of what the left node sends, as datagrams of nobody's.
fn frames(left: &Node, to: &UdpSocket, given: &Given) -> Vec<Vec<u8>> {
    left.give(&given.0, &given.1);
    left.go();
    let mut frames = Vec::new();
    let mut buf = vec![0; 70_000];
    let mut bytes = 0;
    while bytes < given.1.len() {
        wait(&to.fd);
        let Some(got) = udp::recv_batch(to.fd.as_fd(), &mut buf).unwrap() else { continue };
        for frame in buf[..got.len].chunks(got.segment) {
            bytes += frame.len() - HEADER_LEN - FRAGMENT_HEADER_LEN - TAG_LEN;
            frames.push(frame.to_vec());
        }
    }
    frames
}

fn deliver(left: &Node, right: &Node, frame: &[u8]) {
    udp::send_control(left.socket.fd.as_fd(), &right.socket.local, frame, None).unwrap();
}

#[test]
fn slices_in_any_order_in_receives_of_their_own_make_the_packet() {
    let hole = socket();
    for right_vnet in [true, false] {
        let (left, right) = holed_pair(right_vnet, hole.local);
        right.go();
        let given = whole(true, false, 20_000);
        let frames = frames(&left, &hole, &given);
        assert_eq!(frames.len(), 14);
        // The middle one last.
        let (late, others) = (&frames[7], frames.iter().enumerate().filter(|(at, _)| *at != 7));
        others.for_each(|(_, frame)| deliver(&left, &right, frame));
        deliver(&left, &right, &frames[3]);
        right.await_drops(DropReason::Replayed, 1);
        deliver(&left, &right, late);
        assert_eq!(finished(&right.take()), finished(&given));
        assert_eq!(right.dropped(DropReason::Incomplete), 0);
    }
}

#[test]
fn what_never_becomes_whole_is_bounded_and_counted() {
    let hole = socket();
    let (left, right) = holed_pair(true, hole.local);
    right.go();
    let given = whole(true, false, 2000);
    for _ in 0..MAX_PARTIAL_PACKETS + 5 {
        let frames = frames(&left, &hole, &given);
        deliver(&left, &right, &frames[1]);
    }
    right.await_drops(DropReason::Incomplete, 5);
    // The next frame after their time gives up the others.
    thread::sleep(Duration::from_millis(1050));
    let fresh = left.sealed(FrameKind::Heartbeat, b"beat");
    deliver(&left, &right, &fresh);
    right.await_drops(DropReason::Incomplete, MAX_PARTIAL_PACKETS as u64 + 5);
}

#[test]
fn sliced_packets_of_others_and_for_others_are_dropped() {
    let hole = socket();
    let (left, right) = holed_pair(true, hole.local);
    right.go();
    let good = icmp(3000);
    for (at, reason) in [(15, DropReason::InnerSource), (3, DropReason::InnerMalformed)] {
        let mut bad = good.clone();
        bad.1[at] ^= 1;
        if at == 3 {
            // The sender's own parser refuses it: sealed by hand.
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
                deliver(&left, &right, &frame);
            }
        } else {
            frames(&left, &hole, &bad).iter().for_each(|frame| deliver(&left, &right, frame));
        }
        right.await_drops(reason, 1);
    }
}

#[test]
fn a_peer_that_does_not_take_slices_gets_none() {
    let (left, right) = pair(true, true);
    left.give(&whole(true, false, 1413).0, &whole(true, false, 1413).1);
    let (hdr, packet) = whole(false, false, 60_000);
    left.give(&hdr, &packet);
    right.go();
    left.go();
    assert_eq!(right.take().1.len(), packet.len(), "a stream can be cut all the same");
    left.await_drops(DropReason::TooBig, 1);
    let (_, answer) = left.take();
    assert_eq!(answer[IPV4_HEADER_LEN..][..2], [3, 4], "the local stack is told instead");
}

/// slices that a silent route swallowed arrive over another one.
#[test]
fn unacknowledged_slices_are_sent_again() {
    let hole = socket();
    let (left, right) = slicing_pair(true, true, Some(hole.local));
    let given = large();
    given.iter().for_each(|(hdr, packet)| left.give(hdr, packet));
    right.go();
    left.go();
    let expected: Vec<Vec<u8>> = given.iter().flat_map(finished).collect();
    let mut got = Vec::new();
    while got.len() < expected.len() {
        got.extend(finished(&right.take()));
    }
    assert!(got == expected, "other packets, or in another order");
    assert_eq!(right.dropped(DropReason::Incomplete), 0);
}
