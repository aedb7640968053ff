//! Split and coalesce against each other and against `etherparse`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    checksum,
    gro::{GroCoalescer, MAX_SEGMENTS, TunWrite},
    gso::GsoPlan,
    ip::{InnerHeaders, IpVersion, L4Header},
    test_packets::{Shape, build, check, plain, segment_packet},
    virtio_net::{GSO_NONE, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET_HDR_LEN, VnetHdr},
};
use crate::wire::DropReason;

const ANY_LENGTH: usize = usize::MAX;

/// Merges packets that stand one after another in one buffer.
fn merge(packets: &[(bool, Vec<u8>)]) -> Vec<(VnetHdr, Vec<u8>)> {
    let mut buf = Vec::new();
    let mut starts = Vec::new();
    for (_, packet) in packets {
        buf.extend_from_slice(&[0xbb; 5]);
        starts.push(buf.len());
        buf.extend_from_slice(packet);
    }
    let mut writes = Vec::new();
    let mut sink = |write: &TunWrite<'_>| {
        assert_eq!(&*write.slices[0], &write.hdr.encode()[..VNET_HDR_LEN]);
        let whole: Vec<u8> = write.slices[1..].iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(whole.len(), write.bytes);
        assert!(write.packets <= MAX_SEGMENTS);
        writes.push((write.hdr, whole));
    };
    let mut coalescer = GroCoalescer::new(true);
    for ((partial, _), start) in packets.iter().zip(starts) {
        let inner = InnerHeaders::parse(&buf[start..]).unwrap();
        coalescer.push_packet(&mut buf, start, &inner, *partial, &mut sink);
    }
    coalescer.flush_all(&mut buf, &mut sink);
    writes
}

fn shape() -> impl Strategy<Value = Shape> {
    let kind = (any::<bool>(), any::<bool>(), 0u8..3, any::<bool>(), any::<bool>());
    let flags = prop::sample::select(vec![0u8, 0, 0, 0x08, 0x01, 0x09, 0x80, 0x02, 0x04, 0x20]);
    (kind, flags, any::<u32>(), 0usize..20_000, 200u16..1500).prop_map(
        |((v6, udp, flow, timestamps, dont_fragment), flags, sequence, payload, gso_size)| {
            // The kernel never requests segmentation of SYN, RST or URG: those are single packets.
            let gso_size = if flags & 0x26 != 0 { u16::MAX } else { gso_size };
            let payload =
                if udp { payload.min(usize::from(gso_size) * MAX_SEGMENTS) } else { payload };
            Shape { v6, udp, flow, timestamps, dont_fragment, flags, sequence, payload, gso_size }
        },
    )
}

fn complete(packet: &mut [u8]) {
    let inner = InnerHeaders::parse(packet).unwrap();
    checksum::complete_checksum(packet, &inner);
}

type FlowKey = (bool, bool, u16);

fn by_flow<'a>(packets: impl Iterator<Item = &'a [u8]>) -> BTreeMap<FlowKey, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<FlowKey, Vec<Vec<u8>>> = BTreeMap::new();
    for packet in packets {
        let inner = InnerHeaders::parse(packet).unwrap();
        let port = super::ip::read_be16(packet, inner.l4_offset).unwrap();
        let key = (inner.version == IpVersion::V6, inner.l4 == L4Header::Udp, port);
        let mut packet = packet.to_vec();
        if inner.version == IpVersion::V4 && packet[6] & 0x40 != 0 {
            // With DF set the identification means nothing (RFC 6864 section 4.1).
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        flows.entry(key).or_default().push(packet);
    }
    flows
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(128)
    })]

    /// Segmenting the writes again yields exactly the packets that survived, per flow in
    /// order, byte for byte.
    #[test]
    fn splitting_the_merged_packets_gives_back_every_survivor(
        shapes in prop::collection::vec(shape(), 1..5),
        fates in prop::collection::vec((0u8..20, any::<bool>()), 1..64),
        interleave in any::<bool>(),
        finished in any::<bool>(),
    ) {
        let mut streams = Vec::new();
        for shape in &shapes {
            let (hdr, packet) = build(shape);
            let segments = segment_packet(&hdr, &packet, ANY_LENGTH).unwrap();
            let expected = if hdr.gso_type == GSO_NONE { 1 } else {
                shape.payload.div_ceil(usize::from(shape.gso_size))
            };
            prop_assert_eq!(segments.len(), expected);
            for segment in &segments {
                check(segment)?;
            }
            streams.push(segments);
        }
        let mut sent: Vec<Vec<u8>> = Vec::new();
        if interleave {
            let longest = streams.iter().map(Vec::len).max().unwrap();
            for i in 0..longest {
                sent.extend(streams.iter().filter_map(|stream| stream.get(i).cloned()));
            }
        } else {
            sent = streams.concat();
        }
        let mut survivors: Vec<(bool, Vec<u8>)> = Vec::new();
        for (i, packet) in sent.into_iter().enumerate() {
            match fates[i % fates.len()] {
                (0, _) => {}
                (1, _) if !survivors.is_empty() => {
                    survivors.insert(survivors.len() - 1, (true, packet));
                }
                _ => survivors.push((true, packet)),
            }
        }
        if finished {
            for (partial, packet) in &mut survivors {
                *partial = false;
                complete(packet);
            }
        }
        let mut again = Vec::new();
        for (hdr, packet) in merge(&survivors) {
            check(&packet)?;
            prop_assert!(hdr.needs_csum() || (finished && hdr.gso_type == GSO_NONE));
            prop_assert_eq!(VnetHdr::decode(hdr.encode().first_chunk().unwrap()), hdr);
            again.extend(segment_packet(&hdr, &packet, ANY_LENGTH).unwrap());
        }
        if finished {
            again.iter_mut().for_each(|packet| complete(packet));
        }
        let expected = by_flow(survivors.iter().map(|(_, packet)| packet.as_slice()));
        prop_assert_eq!(by_flow(again.iter().map(Vec::as_slice)), expected);
    }

    /// A route narrower than the kernel knows still carries the whole stream.
    #[test]
    fn tcp_is_cut_to_what_the_route_carries(mut shape in shape(), max_packet in 120usize..1500) {
        shape.udp = false;
        shape.flags &= 0x09;
        let (hdr, packet) = build(&shape);
        let inner = InnerHeaders::parse(&packet).unwrap();
        let header = inner.header_len();
        let mut stream = Vec::new();
        for segment in segment_packet(&hdr, &packet, max_packet).unwrap() {
            prop_assert!(segment.len() <= max_packet);
            check(&segment)?;
            let sequence = super::ip::read_be32(&segment, inner.l4_offset + 4).unwrap();
            prop_assert_eq!(sequence, shape.sequence.wrapping_add(stream.len() as u32));
            stream.extend_from_slice(&segment[header..]);
        }
        prop_assert_eq!(&stream[..], &packet[header..]);
    }

    #[test]
    fn no_header_and_no_packet_panics(
        first in prop::sample::select(vec![0x45u8, 0x47, 0x60]),
        kind in prop::sample::select(vec![0u8, 1, 3, 4, 5, 0x81, 9]),
        hdr in any::<[u8; VNET_HDR_LEN]>(),
        mut bytes in prop::collection::vec(any::<u8>(), 60..300),
        protocol in prop::sample::select(vec![6u8, 17, 0, 44]),
        max_packet in 0usize..400,
        aligned in any::<bool>(),
        partial in any::<bool>(),
    ) {
        bytes[0] = first;
        let len = bytes.len();
        if first == 0x60 {
            (bytes[4], bytes[5], bytes[6]) = (0, (len - 40).min(255) as u8, protocol);
        } else {
            let len = len as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            (bytes[6], bytes[7], bytes[9]) = (0, 0, protocol);
        }
        let Ok(inner) = InnerHeaders::parse(&bytes) else { return Ok(()) };
        let mut hdr = VnetHdr::decode(&hdr);
        hdr.gso_type = kind;
        if aligned {
            hdr.flags = NEEDS_CSUM;
            hdr.csum_start = inner.l4_offset as u16;
            hdr.csum_offset = if inner.l4 == L4Header::Udp { 6 } else { 16 };
        }
        if let Ok(packets) = segment_packet(&hdr, &bytes, max_packet) {
            for packet in packets {
                prop_assert!(packet.len() <= max_packet);
            }
        }
        merge(&[(partial, bytes[..inner.len].to_vec()), (true, bytes[..inner.len].to_vec())]);
    }
}

#[test]
fn a_whole_super_packet_comes_back_as_one_write() {
    for udp in [false, true] {
        for v6 in [false, true] {
            let (hdr, packet) = build(&Shape { v6, flags: 0x08, ..plain(udp, 40_500) });
            let segments = segment_packet(&hdr, &packet, 1100).unwrap();
            assert_eq!(segments.len(), 41);
            let packets: Vec<_> = segments.into_iter().map(|packet| (true, packet)).collect();
            let writes = merge(&packets);
            assert_eq!(writes.len(), 1, "udp {udp}, v6 {v6}");
            assert_eq!(writes[0], (hdr, packet));
        }
    }
}

/// Segments of 1000 bytes, their checksums complete.
fn finished_segments(shape: &Shape) -> Vec<(bool, Vec<u8>)> {
    let (hdr, packet) = build(shape);
    let mut segments = segment_packet(&hdr, &packet, 1100).unwrap();
    segments.iter_mut().for_each(|packet| complete(packet));
    segments.into_iter().map(|packet| (false, packet)).collect()
}

#[test]
fn packets_with_finished_checksums_are_verified_and_merged() {
    for (udp, v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let shape = Shape { v6, ..plain(udp, 5000) };
        let writes = merge(&finished_segments(&shape));
        assert_eq!(writes.len(), 1, "udp {udp}, v6 {v6}");
        assert_eq!(writes[0], build(&shape), "the kernel is to complete it");
    }
}

#[test]
fn a_wrong_checksum_is_not_merged_and_not_touched() {
    for udp in [false, true] {
        for broken in 0..5 {
            let mut packets = finished_segments(&plain(udp, 5000));
            let at = packets[broken].1.len() - 1;
            packets[broken].1[at] ^= 1;
            let writes = merge(&packets);
            let found = writes.iter().filter(|write| write.1 == packets[broken].1);
            assert_eq!(found.map(|write| write.0).collect::<Vec<_>>(), [VnetHdr::default()]);
            // Those before it and those behind it are merged.
            let groups = if (1..4).contains(&broken) { 3 } else { 2 };
            assert_eq!(writes.len(), groups, "broken {broken}");
        }
    }
}

#[test]
fn a_datagram_without_a_checksum_keeps_none() {
    let mut packets = finished_segments(&plain(true, 3000));
    packets.iter_mut().for_each(|(_, packet)| packet[26..28].fill(0));
    let writes = merge(&packets);
    let expected: Vec<_> =
        packets.into_iter().map(|(_, packet)| (VnetHdr::default(), packet)).collect();
    assert_eq!(writes, expected);
}

#[test]
fn a_lone_packet_is_written_as_it_came() {
    let packets = finished_segments(&plain(true, 900));
    assert_eq!(merge(&packets), [(VnetHdr::default(), packets[0].1.clone())]);
}

#[test]
fn a_finished_packet_does_not_overtake_its_flow() {
    let (hdr, packet) = build(&plain(false, 3000));
    let mut packets: Vec<_> = segment_packet(&hdr, &packet, 1100)
        .unwrap()
        .into_iter()
        .map(|packet| (true, packet))
        .collect();
    packets[1].0 = false;
    let sequences: Vec<_> = merge(&packets)
        .iter()
        .map(|(_, packet)| super::ip::read_be32(packet, 24).unwrap())
        .collect();
    let first = u32::MAX - 1000;
    let expected: Vec<_> = [0, 1000, 2000].map(|by| first.wrapping_add(by)).into();
    assert_eq!(sequences, expected);
}

#[test]
fn an_acknowledgement_or_a_changed_header_ends_the_merge() {
    let base =
        segment_packet(&build(&plain(false, 2000)).0, &build(&plain(false, 2000)).1, 1100).unwrap();
    // TOS, TTL, acknowledgement, window, timestamp option, CWR, SYN.
    for (at, bit) in [(1, 1), (8, 1), (31, 1), (35, 1), (47, 1), (33, 0x80), (33, 2)] {
        let mut second = base[1].clone();
        second[at] ^= bit;
        checksum::set_ipv4_checksum(&mut second[..20]);
        assert_eq!(merge(&[(true, base[0].clone()), (true, second)]).len(), 2, "byte {at}");
    }
    assert_eq!(merge(&[(true, base[0].clone()), (true, base[1].clone())]).len(), 1);
    let (_, ack) = build(&plain(false, 0));
    assert_eq!(merge(&[(true, base[0].clone()), (true, ack)]).len(), 2);
}

#[test]
fn more_flows_than_groups_end_the_oldest_first() {
    let mut packets = Vec::new();
    for flow in 0..9 {
        let (_, packet) = build(&Shape { flow, ..plain(true, 100) });
        packets.push((true, packet));
    }
    let writes = merge(&packets);
    let written: Vec<_> = writes.iter().map(|(_, packet)| packet[21]).collect();
    let sent: Vec<_> = packets.iter().map(|(_, packet)| packet[21]).collect();
    assert_eq!(written, sent);
}

#[test]
fn what_must_stay_whole_is_refused_when_too_big() {
    let (hdr, packet) = build(&plain(true, 5000));
    assert_eq!(segment_packet(&hdr, &packet, 1027), Err(DropReason::TooBig));
    assert!(segment_packet(&hdr, &packet, 1028).is_ok());
    let (hdr, packet) = build(&plain(true, 900));
    assert_eq!(segment_packet(&hdr, &packet, 927), Err(DropReason::TooBig));
    let (_, packet) = build(&plain(false, 900));
    assert_eq!(segment_packet(&VnetHdr::default(), &packet, 900), Err(DropReason::TooBig));
    let (hdr, packet) = build(&Shape { flags: 2, ..plain(false, 900) });
    assert_eq!(segment_packet(&hdr, &packet, 900), Err(DropReason::TooBig));
}

#[test]
fn a_super_packet_that_contradicts_its_header_is_refused() {
    let (good, packet) = build(&plain(false, 5000));
    for bad in [
        VnetHdr { gso_type: GSO_TCPV6, ..good },
        VnetHdr { gso_type: GSO_UDP_L4, ..good },
        VnetHdr { gso_type: 3, ..good },
        VnetHdr { gso_size: 0, ..good },
        VnetHdr { gso_size: 7, ..good },
        VnetHdr { flags: 0, ..good },
        VnetHdr { csum_start: 24, ..good },
        VnetHdr { csum_offset: 6, ..good },
    ] {
        assert_eq!(
            segment_packet(&bad, &packet, ANY_LENGTH),
            Err(DropReason::InnerMalformed),
            "{bad:?}"
        );
    }
}

#[test]
fn small_datagrams_are_segmented_up_to_what_the_kernel_merges() {
    let (hdr, packet) = build(&Shape { gso_size: 1, ..plain(true, 128) });
    assert_eq!(segment_packet(&hdr, &packet, ANY_LENGTH).unwrap().len(), 128);
    let (hdr, packet) = build(&Shape { gso_size: 1, ..plain(true, 129) });
    assert_eq!(segment_packet(&hdr, &packet, ANY_LENGTH), Err(DropReason::InnerMalformed));
}

#[test]
fn a_checksum_nobody_could_finish_later_is_finished_on_the_way() {
    let (hdr, mut packet) = build(&plain(true, 500));
    let inner = InnerHeaders::parse(&packet).unwrap();
    // An unknown protocol with a UDP-like checksum.
    packet[9] = 200;
    checksum::set_ipv4_checksum(&mut packet[..20]);
    let opaque = InnerHeaders::parse(&packet).unwrap();
    let split = GsoPlan::new(&hdr, &packet, &opaque, ANY_LENGTH).unwrap();
    assert!(!split.has_partial_checksum());
    let mut out = vec![0; packet.len()];
    split.write_packet(0, &mut out);
    let sum =
        checksum::pseudo_header_sum(&packet, IpVersion::V4, 17).add_u16(inner.l4_len() as u16);
    assert_eq!(sum.add_bytes(&out[inner.l4_offset..]).to_checksum(), [0, 0]);
}
