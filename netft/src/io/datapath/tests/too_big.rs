//! Packets larger than the path MTU, and path MTU probes.

use netft_proto::wire::probe::{Probe, ProbeMessage};

use super::*;

/// RFC 1191: type 3, code 4, with the path MTU less the overhead of a frame.
#[test]
fn the_local_stack_gets_an_icmp_message_with_the_mtu() {
    for vnet in [true, false] {
        let (left, _right) = pair(vnet, true);
        let packet = build(&plain(true, 1413)).1;
        left.write_packet(&VnetHdr::default(), &packet);
        left.start_adapter();
        let (hdr, answer) = left.read_packet();
        assert_eq!(hdr, VnetHdr::default());
        let inner = InnerHeaders::parse(&answer).unwrap();
        assert_eq!((inner.src, inner.dst), (RIGHT.v4.into(), LEFT.v4.into()));
        let icmp = &answer[IPV4_HEADER_LEN..];
        assert_eq!(icmp[..2], [3, 4]);
        let fits = MAX_DATAGRAM - HEADER_LEN - TAG_LEN;
        assert_eq!(icmp[6..8], (fits as u16).to_be_bytes());
        assert_eq!(icmp[8..], packet[..icmp.len() - 8]);
        left.await_drops(DropReason::TooBig, 1);
    }
}

#[test]
fn probes_reach_the_driver_without_padding_and_only_over_a_route_of_their_sender() {
    let (left, mut right) = pair(true, true);
    let to = right.socket.local;
    let probe =
        Probe { message: ProbeMessage::Request, size: 9000, route: 1, your_route: 2, sequence: 3 };
    let mut payload = Vec::new();
    probe.encode(&mut payload);
    let frame = left.seal_frame(FrameKind::Probe, &payload);
    assert_eq!(frame.len(), 9000);
    udp::send_control(left.socket.fd.as_fd(), &to, &frame, Some(udp::TOS_CONTROL)).unwrap();
    let received = right.driver.blocking_recv().unwrap();
    let FromWorker::Probe { peer, route, probe: got } = received else { panic!("{received:?}") };
    assert_eq!((peer, route, got), (PEER, ROUTE, probe));

    let odd = left.seal_frame(FrameKind::Probe, &payload[..payload.len() - 1]);
    udp::send_control(left.socket.fd.as_fd(), &to, &odd, None).unwrap();
    right.await_drops(DropReason::Malformed, 1);
    let mut forged = left.seal_frame(FrameKind::Probe, &payload);
    forged[HEADER_LEN] ^= 1;
    udp::send_control(left.socket.fd.as_fd(), &to, &forged, None).unwrap();
    right.await_drops(DropReason::NotAuthentic, 1);
    let stolen = left.seal_frame(FrameKind::Probe, &payload);
    udp::send_control(socket().fd.as_fd(), &to, &stolen, None).unwrap();
    right.await_drops(DropReason::Misrouted, 1);
    assert!(right.driver.try_recv().is_err());
}
