//! Segments of tunnels against a naive segmentation, every checksum by `etherparse`.

#![allow(clippy::unwrap_used)]

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
use proptest::prelude::*;

use crate::{
    packet::{
        checksum,
        gro::{GroCoalescer, TunWrite},
        gso::GsoPlan,
        ip::{InnerHeaders, L4Header},
        test_packets::{
            Shape, TunnelShape, VXLAN_SHAPE, build_tunnel, check, plain, segment_packet,
        },
        virtio_net::{
            GSO_NONE, GSO_TCPV4, GSO_TUNNEL_V4, GSO_TUNNEL_V6, GSO_UDP_L4, TUNNEL_VNET_HDR_LEN,
            VnetFormat, VnetHdr,
        },
    },
    wire::DropReason,
};

/// Largest packet of the default adapter, bytes.
const ADAPTER_MTU: usize = 1420;

/// Place of a segment: its number, their count, and the offset of its payload.
#[derive(Clone, Copy)]
struct Place {
    number: usize,
    count: usize,
    offset: usize,
}

/// The packet of `payload` with the headers at the start of `headers`, as the kernel segments
/// (`inet_gso_segment`, `tcp_gso_segment`). Every length and checksum comes from `etherparse`.
fn naive_segment(headers: &[u8], payload: &[u8], place: Place, has_checksum: bool) -> Vec<u8> {
    let mut packet = Vec::new();
    if headers[0] >> 4 == 4 {
        let (mut ip, rest) = Ipv4Header::from_slice(headers).unwrap();
        ip.identification = ip.identification.wrapping_add(place.number as u16);
        let mut l4 = naive_l4(ip.protocol, rest, payload, place);
        ip.set_payload_len(l4.len() + payload.len()).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        ip.write(&mut packet).unwrap();
        if has_checksum {
            match &mut l4 {
                NaiveL4::Tcp(tcp) => {
                    tcp.checksum = not_zero(tcp.calc_checksum_ipv4(&ip, payload).unwrap());
                }
                NaiveL4::Udp(udp) => {
                    udp.checksum = not_zero(udp.calc_checksum_ipv4(&ip, payload).unwrap());
                }
            }
        }
        l4.write(&mut packet);
    } else {
        let (mut ip, rest) = Ipv6Header::from_slice(headers).unwrap();
        let mut l4 = naive_l4(ip.next_header, rest, payload, place);
        ip.set_payload_length(l4.len() + payload.len()).unwrap();
        ip.write(&mut packet).unwrap();
        if has_checksum {
            match &mut l4 {
                NaiveL4::Tcp(tcp) => {
                    tcp.checksum = not_zero(tcp.calc_checksum_ipv6(&ip, payload).unwrap());
                }
                NaiveL4::Udp(udp) => {
                    udp.checksum = not_zero(udp.calc_checksum_ipv6(&ip, payload).unwrap());
                }
            }
        }
        l4.write(&mut packet);
    }
    packet.extend_from_slice(payload);
    packet
}

/// Zero is sent as all ones (RFC 768; RFC 1624 for TCP, to which both mean the same).
fn not_zero(checksum: u16) -> u16 {
    if checksum == 0 { u16::MAX } else { checksum }
}

enum NaiveL4 {
    Tcp(TcpHeader),
    Udp(UdpHeader),
}

impl NaiveL4 {
    fn len(&self) -> usize {
        match self {
            Self::Tcp(tcp) => tcp.header_len(),
            Self::Udp(udp) => udp.header_len(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Tcp(tcp) => tcp.write(out).unwrap(),
            Self::Udp(udp) => udp.write(out).unwrap(),
        }
    }
}

fn naive_l4(protocol: IpNumber, bytes: &[u8], payload: &[u8], place: Place) -> NaiveL4 {
    if protocol == IpNumber::UDP {
        let (mut udp, _) = UdpHeader::from_slice(bytes).unwrap();
        (udp.length, udp.checksum) = ((8 + payload.len()) as u16, 0);
        return NaiveL4::Udp(udp);
    }
    let (mut tcp, _) = TcpHeader::from_slice(bytes).unwrap();
    tcp.sequence_number = tcp.sequence_number.wrapping_add(place.offset as u32);
    if place.number + 1 < place.count {
        (tcp.fin, tcp.psh) = (false, false);
    }
    tcp.cwr &= place.number == 0;
    NaiveL4::Tcp(tcp)
}

/// Every segment of a tunnel's super-packet, made naively, every checksum complete.
fn naive_segments(hdr: &VnetHdr, packet: &[u8], has_checksum: bool) -> Vec<Vec<u8>> {
    let offset = usize::from(hdr.inner_l3);
    let inner = InnerHeaders::parse(&packet[offset..]).unwrap();
    let payload = &packet[offset + inner.header_len()..];
    let size = usize::from(hdr.gso_size);
    let count = payload.len().div_ceil(size);
    let segment = |(number, chunk): (usize, &[u8])| {
        let place = Place { number, count, offset: number * size };
        let inside = naive_segment(&packet[offset..], chunk, place, true);
        let between = &packet[usize::from(hdr.outer_l4) + 8..offset];
        naive_segment(packet, &[between, &inside].concat(), place, has_checksum)
    };
    payload.chunks(size).enumerate().map(segment).collect()
}

/// The packet with its outer checksum complete, as the receiver's kernel leaves it.
fn completed(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let outer = InnerHeaders::parse(&packet).unwrap();
    checksum::complete_checksum(&mut packet, &outer);
    packet
}

fn tunnel() -> impl Strategy<Value = TunnelShape> {
    let between = prop::sample::select(vec![0, 4, 8, 8 + 14, 8 + 40 + 14, 8 + 18]);
    (any::<bool>(), any::<bool>(), between).prop_map(|(v6, checksum, between)| TunnelShape {
        v6,
        checksum,
        between,
    })
}

/// A packet that needs segmentation.
fn super_packet() -> impl Strategy<Value = Shape> {
    let kind = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let flags = prop::sample::select(vec![0u8, 0, 0x08, 0x01, 0x09, 0x80, 0x89]);
    (kind, flags, any::<u32>(), 200u16..1300, 1usize..9000).prop_map(
        |((v6, udp, timestamps, dont_fragment), flags, sequence, gso_size, more)| Shape {
            v6,
            udp,
            flow: 0,
            timestamps,
            dont_fragment,
            flags,
            sequence,
            payload: usize::from(gso_size) + more,
            gso_size,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(128)
    })]

    #[test]
    fn segments_are_those_of_a_naive_segmentation(tunnel in tunnel(), shape in super_packet()) {
        let (hdr, packet) = build_tunnel(&tunnel, &shape);
        let segments = segment_packet(&hdr, &packet, usize::MAX).unwrap();
        let expected = naive_segments(&hdr, &packet, tunnel.checksum);
        prop_assert_eq!(segments.len(), expected.len());
        for (segment, expected) in segments.iter().zip(&expected) {
            let segment = if tunnel.checksum { completed(segment) } else { segment.clone() };
            prop_assert_eq!(&segment, expected);
        }
        // The receiver lays them back as datagrams of one flow, in order.
        let writes = merge(&segments, tunnel.checksum);
        let mut again = Vec::new();
        for (hdr, packet) in &writes {
            again.extend(segment_packet(hdr, packet, usize::MAX).unwrap());
        }
        prop_assert_eq!(&again, &segments);
        if tunnel.checksum {
            let groups = segments.len().div_ceil(64);
            prop_assert!(writes.len() <= groups + 1, "{} writes", writes.len());
        }
    }

    /// A route narrower than the kernel knows carries the TCP stream in the tunnel too.
    #[test]
    fn tcp_in_a_tunnel_is_cut_to_what_the_route_carries(
        tunnel in tunnel(),
        mut shape in super_packet(),
        max_packet in 220usize..1500,
    ) {
        shape.udp = false;
        let (hdr, packet) = build_tunnel(&tunnel, &shape);
        let offset = usize::from(hdr.inner_l3);
        let inner = InnerHeaders::parse(&packet[offset..]).unwrap();
        let mut stream = Vec::new();
        for segment in segment_packet(&hdr, &packet, max_packet).unwrap() {
            prop_assert!(segment.len() <= max_packet);
            check(&segment[offset..])?;
            let at = offset + inner.l4_offset + 4;
            let sequence = u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
            prop_assert_eq!(sequence, shape.sequence.wrapping_add(stream.len() as u32));
            stream.extend_from_slice(&segment[offset + inner.header_len()..]);
        }
        prop_assert_eq!(&stream[..], &packet[offset + inner.header_len()..]);
    }

    #[test]
    fn no_header_of_a_tunnel_panics_or_asks_for_more_work_than_bytes(
        tunnel in tunnel(),
        shape in super_packet(),
        hdr in any::<[u8; TUNNEL_VNET_HDR_LEN]>(),
        keep in any::<u16>(),
        changes in prop::collection::vec((0usize..160, any::<u8>()), 0..4),
        max_packet in 0usize..1500,
    ) {
        let (good, mut packet) = build_tunnel(&tunnel, &shape);
        let random = VnetHdr::decode_tunnel(&hdr);
        let pick = |bit: u16, good: u16, random: u16| if keep & bit == 0 { good } else { random };
        let hdr = VnetHdr {
            flags: pick(1, good.flags.into(), random.flags.into()) as u8,
            gso_type: pick(2, good.gso_type.into(), random.gso_type.into()) as u8,
            gso_size: pick(4, good.gso_size, random.gso_size % 32),
            csum_start: pick(8, good.csum_start, random.csum_start % 256),
            csum_offset: pick(16, good.csum_offset, random.csum_offset % 32),
            outer_l4: pick(32, good.outer_l4, random.outer_l4 % 256),
            inner_l3: pick(64, good.inner_l3, random.inner_l3 % 256),
            ..good
        };
        for (at, byte) in changes {
            packet[at] = byte;
        }
        let Ok(outer) = InnerHeaders::parse(&packet) else { return Ok(()) };
        let Ok(plan) = GsoPlan::new(&hdr, &packet, &outer, max_packet) else { return Ok(()) };
        prop_assert!(plan.packet_count() <= packet.len().div_ceil(8).max(128));
        let mut out = vec![0; max_packet];
        for i in 0..plan.packet_count() {
            prop_assert_eq!(plan.write_packet(i, &mut out), plan.packet_len(i));
        }
    }
}

/// A route that leaves less than the smallest segment gets none: one byte each would be the work of
/// a thousand packets.
#[test]
fn a_route_too_narrow_for_a_segment_gets_none() {
    let tunnel = TunnelShape { v6: false, checksum: false, between: 0 };
    let shape = Shape {
        v6: false,
        udp: false,
        flow: 0,
        timestamps: false,
        dont_fragment: false,
        flags: 0,
        sequence: 0,
        payload: 1000,
        gso_size: 200,
    };
    let (hdr, packet) = build_tunnel(&tunnel, &shape);
    let outer = InnerHeaders::parse(&packet).unwrap();
    let header_len = packet.len() - shape.payload;
    for room in 0..16 {
        let plan = GsoPlan::new(&hdr, &packet, &outer, header_len + room);
        assert_eq!(plan.is_ok(), room >= 8, "{room}");
    }
}

/// Returns the writes to the adapter when `packets` arrive together.
fn merge(packets: &[Vec<u8>], partial: bool) -> Vec<(VnetHdr, Vec<u8>)> {
    let mut buf = packets.concat();
    let mut writes = Vec::new();
    let mut sink = |write: &TunWrite<'_>| {
        assert_eq!(&*write.slices[0], &write.hdr.encode());
        writes.push((write.hdr, write.slices[1..].iter().flat_map(|it| it.to_vec()).collect()));
    };
    let mut coalescer = GroCoalescer::new(true);
    coalescer.set_format(VnetFormat::Tunnel);
    let mut start = 0;
    for packet in packets {
        let inner = InnerHeaders::parse(&buf[start..]).unwrap();
        coalescer.push_packet(&mut buf, start, &inner, partial, &mut sink);
        start += packet.len();
    }
    coalescer.flush_all(&mut buf, &mut sink);
    writes
}

#[test]
fn a_super_packet_of_vxlan_fills_frames_and_comes_back_as_one_write() {
    let shape = Shape { gso_size: 1318, ..plain(false, 40 * 1318) };
    let (hdr, packet) = build_tunnel(&VXLAN_SHAPE, &shape);
    let segments = segment_packet(&hdr, &packet, ADAPTER_MTU).unwrap();
    assert_eq!(segments.len(), 40);
    assert!(segments.iter().all(|segment| segment.len() == ADAPTER_MTU), "{}", segments[0].len());
    let writes = merge(&segments, true);
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].0.gso_type, GSO_UDP_L4);
}

#[test]
fn a_header_that_contradicts_the_tunnel_is_refused() {
    let (good, packet) = build_tunnel(&VXLAN_SHAPE, &plain(false, 5000));
    assert!(segment_packet(&good, &packet, usize::MAX).is_ok());
    let inside = usize::from(good.inner_l3);
    for bad in [
        VnetHdr { gso_type: GSO_TCPV4 | GSO_TUNNEL_V6, ..good },
        VnetHdr { gso_type: GSO_TCPV4 | GSO_TUNNEL_V4 | GSO_TUNNEL_V6, ..good },
        VnetHdr { gso_type: GSO_UDP_L4 | GSO_TUNNEL_V4, ..good },
        VnetHdr { gso_type: GSO_NONE | GSO_TUNNEL_V4, ..good },
        VnetHdr { gso_size: 0, ..good },
        VnetHdr { gso_size: 7, ..good },
        VnetHdr { flags: 0, ..good },
        VnetHdr { outer_l4: 24, ..good },
        VnetHdr { inner_l3: 27, ..good },
        VnetHdr { inner_l3: u16::MAX, ..good },
        VnetHdr { csum_start: good.csum_start + 2, ..good },
        VnetHdr { csum_offset: 6, ..good },
    ] {
        let refused = segment_packet(&bad, &packet, usize::MAX);
        assert_eq!(refused, Err(DropReason::InnerMalformed), "{bad:?}");
    }
    // The inner packet is shorter than what follows the tunnel's header.
    let mut short = packet.clone();
    short[inside + 3] ^= 1;
    assert_eq!(segment_packet(&good, &short, usize::MAX), Err(DropReason::InnerMalformed));
    let outer = InnerHeaders::parse(&packet).unwrap();
    assert_eq!(outer.l4, L4Header::Udp);
}

#[test]
fn datagrams_in_a_tunnel_stay_whole() {
    let (hdr, packet) = build_tunnel(&VXLAN_SHAPE, &plain(true, 5000));
    let headers = 20 + 8 + 22 + 28;
    assert_eq!(segment_packet(&hdr, &packet, headers + 999), Err(DropReason::TooBig));
    assert_eq!(segment_packet(&hdr, &packet, headers + 1000).unwrap().len(), 5);
}
