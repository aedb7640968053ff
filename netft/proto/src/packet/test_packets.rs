//! Super-packets for tests of this crate and of the packet path, and their check by `etherparse`.

#![allow(clippy::unwrap_used)]

use etherparse::{
    IpNumber, Ipv6Header, NetHeaders, PacketHeaders, TcpHeader, TcpOptionElement, TransportHeader,
    UdpHeader,
};
use proptest::prelude::*;

use crate::{
    packet::{
        checksum,
        gso::GsoPlan,
        ip::InnerHeaders,
        virtio_net::{
            GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_TUNNEL_V4, GSO_TUNNEL_V6, GSO_UDP_L4,
            NEEDS_CSUM, TUNNEL_CSUM, VnetHdr,
        },
    },
    wire::DropReason,
};

/// Parameters of a generated packet.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) v6: bool,
    pub(crate) udp: bool,
    pub(crate) flow: u8,
    pub(crate) timestamps: bool,
    pub(crate) dont_fragment: bool,
    /// FIN, PSH, CWR and friends on top of ACK.
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) payload: usize,
    pub(crate) gso_size: u16,
}

/// A super-packet as the kernel hands it over: one header, partial checksum.
pub(crate) fn build(shape: &Shape) -> (VnetHdr, Vec<u8>) {
    let payload: Vec<u8> = (0..shape.payload).map(|i| (i * 7 + i / 251) as u8).collect();
    let ports = (1000 + u16::from(shape.flow), 2000);
    let mut l4 = Vec::new();
    let (number, csum_offset, header) = if shape.udp {
        let header = UdpHeader {
            source_port: ports.0,
            destination_port: ports.1,
            length: (8 + payload.len()) as u16,
            checksum: 0,
        };
        header.write(&mut l4).unwrap();
        (IpNumber::UDP, 6, 8)
    } else {
        let mut header = TcpHeader::new(ports.0, ports.1, shape.sequence, 1234);
        header.ack = true;
        header.acknowledgment_number = 99;
        if shape.timestamps {
            header
                .set_options(&[
                    TcpOptionElement::Noop,
                    TcpOptionElement::Noop,
                    TcpOptionElement::Timestamp(5, 6),
                ])
                .unwrap();
        }
        header.write(&mut l4).unwrap();
        l4[13] |= shape.flags;
        (IpNumber::TCP, 16, l4.len())
    };
    l4.extend_from_slice(&payload);
    let mut packet = ip_header((shape.v6, shape.dont_fragment), number, l4.len());
    let csum_start = packet.len();
    packet.extend_from_slice(&l4);
    let inner = InnerHeaders::parse(&packet).unwrap();
    checksum::set_partial_checksum(&mut packet, &inner).unwrap();
    let gso_type = match (shape.payload > usize::from(shape.gso_size), shape.udp, shape.v6) {
        (false, ..) => GSO_NONE,
        (_, true, _) => GSO_UDP_L4,
        (_, _, false) => GSO_TCPV4 | if shape.flags & 0x80 != 0 { GSO_ECN } else { 0 },
        (_, _, true) => GSO_TCPV6,
    };
    let hdr = VnetHdr {
        flags: NEEDS_CSUM,
        gso_type,
        hdr_len: (csum_start + header) as u16,
        gso_size: if gso_type == GSO_NONE { 0 } else { shape.gso_size },
        csum_start: csum_start as u16,
        csum_offset,
        ..VnetHdr::default()
    };
    (hdr, packet)
}

/// Parameters of a UDP tunnel around a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TunnelShape {
    pub(crate) v6: bool,
    pub(crate) checksum: bool,
    /// Bytes of the tunnel's own header and of what follows it up to the inner IP header.
    pub(crate) between: usize,
}

/// VXLAN over IPv4: its header and an Ethernet header.
pub(crate) const VXLAN_SHAPE: TunnelShape =
    TunnelShape { v6: false, checksum: true, between: 8 + 14 };

/// A super-packet in a tunnel as the kernel hands it over: both headers once, the inner checksum
/// partial, the outer one too or none. `shape` must need segmentation.
pub(crate) fn build_tunnel(tunnel: &TunnelShape, shape: &Shape) -> (VnetHdr, Vec<u8>) {
    let (hdr, inner) = build(shape);
    assert_ne!(hdr.gso_type, GSO_NONE);
    let udp_len = 8 + tunnel.between + inner.len();
    let mut packet = ip_header((tunnel.v6, false), IpNumber::UDP, udp_len);
    let outer_l4 = packet.len();
    UdpHeader {
        source_port: 50_000 + u16::from(shape.flow),
        destination_port: 4789,
        length: udp_len as u16,
        checksum: 0,
    }
    .write(&mut packet)
    .unwrap();
    packet.extend((0..tunnel.between).map(|at| at as u8 ^ 0x5a));
    let offset = packet.len();
    packet.extend_from_slice(&inner);
    let outer = InnerHeaders::parse(&packet).unwrap();
    if tunnel.checksum {
        checksum::set_partial_checksum(&mut packet, &outer).unwrap();
    }
    let hdr = VnetHdr {
        flags: NEEDS_CSUM | if tunnel.checksum { TUNNEL_CSUM } else { 0 },
        gso_type: hdr.gso_type | if tunnel.v6 { GSO_TUNNEL_V6 } else { GSO_TUNNEL_V4 },
        hdr_len: offset as u16 + hdr.hdr_len,
        csum_start: offset as u16 + hdr.csum_start,
        outer_l4: outer_l4 as u16,
        inner_l3: offset as u16,
        ..hdr
    };
    (hdr, packet)
}

fn ip_header((v6, dont_fragment): (bool, bool), number: IpNumber, l4_len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    if v6 {
        let mut header = Ipv6Header {
            hop_limit: 64,
            next_header: number,
            payload_length: l4_len as u16,
            ..Ipv6Header::default()
        };
        (header.source, header.destination) = ([0xfe; 16], [0xfd; 16]);
        header.write(&mut packet).unwrap();
    } else {
        let (from, to) = ([169, 254, 1, 1], [169, 254, 2, 2]);
        let mut header = etherparse::Ipv4Header::new(l4_len as u16, 64, number, from, to).unwrap();
        header.identification = 0xfff0;
        header.dont_fragment = dont_fragment;
        header.write(&mut packet).unwrap();
    }
    packet
}

pub(crate) fn segment_packet(
    hdr: &VnetHdr,
    packet: &[u8],
    max_packet: usize,
) -> Result<Vec<Vec<u8>>, DropReason> {
    let inner = InnerHeaders::parse(packet)?;
    let split = GsoPlan::new(hdr, packet, &inner, max_packet)?;
    let mut out = vec![0xaa; packet.len() + 1];
    Ok((0..split.packet_count())
        .map(|i| {
            let len = split.write_packet(i, &mut out);
            assert_eq!(len, split.packet_len(i));
            out[..len].to_vec()
        })
        .collect())
}

/// Every header valid, every length right, and the finished checksum as `etherparse` computes it.
pub(crate) fn check(packet: &[u8]) -> Result<(), TestCaseError> {
    let mut packet = packet.to_vec();
    let inner = InnerHeaders::parse(&packet).unwrap();
    prop_assert_eq!(inner.len, packet.len());
    checksum::complete_checksum(&mut packet, &inner);
    let parsed = PacketHeaders::from_ip_slice(&packet).unwrap();
    let payload = parsed.payload.slice();
    if let Some(NetHeaders::Ipv4(header, _)) = &parsed.net {
        prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
    }
    let (found, computed) = match (&parsed.net, &parsed.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            (tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).unwrap())
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            (tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).unwrap())
        }
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) => {
            prop_assert_eq!(usize::from(udp.length), inner.l4_len());
            (udp.checksum, udp.calc_checksum_ipv4(ip, payload).unwrap())
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(udp))) => {
            prop_assert_eq!(usize::from(udp.length), inner.l4_len());
            (udp.checksum, udp.calc_checksum_ipv6(ip, payload).unwrap())
        }
        other => return Err(TestCaseError::fail(format!("{other:?}"))),
    };
    prop_assert!(found == computed || (found == 0xffff && computed == 0), "{found} {computed}");
    Ok(())
}

pub(crate) fn plain(udp: bool, payload: usize) -> Shape {
    Shape {
        v6: false,
        udp,
        flow: 0,
        timestamps: true,
        dont_fragment: true,
        flags: 0,
        sequence: u32::MAX - 1000,
        payload,
        gso_size: 1000,
    }
}
