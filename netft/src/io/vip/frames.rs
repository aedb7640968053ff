//! ARP packets and neighbor messages about floating addresses, by `etherparse`. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
    icmpv6::{Icmpv6PayloadSlice, NeighborAdvertisementHeader},
};
use netft_proto::vip::{MacAddress, NeighborKind, NeighborMessage};

const BROADCAST_MAC: [u8; 6] = [0xff; 6];
/// RFC 4861 section 7.1: neighbor messages that crossed a router are invalid.
const NEIGHBOR_HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Shortest Ethernet frame without its checksum; shorter ones are padded.
const MIN_FRAME_LEN: usize = 60;
/// Options of neighbor messages (RFC 4861 section 4.6.1): one unit of 8 bytes.
const OPTION_TARGET_ADDRESS: u8 = 2;

/// The question whether anybody has an address, from nobody: RFC 5227 section 2.1.1 and RFC 4862
/// section 5.4.2. It changes no neighbor's table.
pub(super) fn probe_frame(mac: MacAddress, addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => arp_frame(ArpOperation::REQUEST, mac, Ipv4Addr::UNSPECIFIED, [0; 6], v4),
        IpAddr::V6(v6) => {
            let group = solicited_node(v6);
            let ip = PacketBuilder::ethernet2(mac.0, multicast_mac(group)).ipv6(
                Ipv6Addr::UNSPECIFIED.octets(),
                group.octets(),
                NEIGHBOR_HOP_LIMIT,
            );
            build_frame(ip.icmpv6(Icmpv6Type::NeighborSolicitation), &v6.octets())
        }
    }
}

/// The announcements of an address: an ARP request and a reply, since some hosts heed only one of
/// them (RFC 5944 section 4.6), or an unsolicited neighbor advertisement with Override (RFC 4861
/// section 7.2.6).
pub(super) fn announcement_frames(mac: MacAddress, addr: IpAddr) -> Vec<Vec<u8>> {
    match addr {
        IpAddr::V4(v4) => vec![
            arp_frame(ArpOperation::REQUEST, mac, v4, [0; 6], v4),
            arp_frame(ArpOperation::REPLY, mac, v4, mac.0, v4),
        ],
        IpAddr::V6(v6) => {
            let flags =
                NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
            let ip = PacketBuilder::ethernet2(mac.0, multicast_mac(ALL_NODES)).ipv6(
                v6.octets(),
                ALL_NODES.octets(),
                NEIGHBOR_HOP_LIMIT,
            );
            let mut body = v6.octets().to_vec();
            body.extend_from_slice(&[OPTION_TARGET_ADDRESS, 1]);
            body.extend_from_slice(&mac.0);
            vec![build_frame(ip.icmpv6(Icmpv6Type::NeighborAdvertisement(flags)), &body)]
        }
    }
}

fn arp_frame(
    operation: ArpOperation,
    mac: MacAddress,
    sender: Ipv4Addr,
    target_mac: [u8; 6],
    target: Ipv4Addr,
) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: mac.0,
        sender_ipv4: sender.octets(),
        target_mac,
        target_ipv4: target.octets(),
    };
    let builder = PacketBuilder::ethernet2(mac.0, BROADCAST_MAC).arp(packet.into());
    let mut frame = Vec::with_capacity(MIN_FRAME_LEN);
    // Writing to memory cannot fail.
    let _ = builder.write(&mut frame);
    frame.resize(frame.len().max(MIN_FRAME_LEN), 0);
    frame
}

fn build_frame(
    builder: etherparse::PacketBuilderStep<etherparse::Icmpv6Header>,
    body: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    // Writing to memory cannot fail.
    let _ = builder.write(&mut frame, body);
    frame
}

/// The multicast group of an address (RFC 4291 section 2.7.1).
fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[a, b, c]);
    group.into()
}

/// The hardware address of a multicast group (RFC 2464 section 7).
fn multicast_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// Hardware address of the group that probes for `addr` go to.
pub(super) fn probe_group(addr: IpAddr) -> Option<[u8; 6]> {
    match addr {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(multicast_mac(solicited_node(v6))),
    }
}

/// Reads a frame; `None` if it says nothing about who has an address.
pub(super) fn read_frame(frame: &[u8]) -> Option<NeighborMessage> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match packet.net? {
        NetSlice::Arp(arp) => read_arp(&arp.to_packet().try_into().ok()?),
        NetSlice::Ipv6(ip) => {
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { return None };
            let header = ip.header();
            let is_valid = header.hop_limit() == NEIGHBOR_HOP_LIMIT
                && icmp.is_checksum_valid(header.source(), header.destination());
            if !is_valid {
                return None;
            }
            let mac = MacAddress(frame.get(6..12)?.try_into().ok()?);
            let source = Ipv6Addr::from(header.source());
            match icmp.payload_slice().ok()? {
                Icmpv6PayloadSlice::NeighborAdvertisement(payload) => {
                    let addr = payload.target_address().into();
                    Some(NeighborMessage { addr, mac, kind: NeighborKind::Claim })
                }
                Icmpv6PayloadSlice::NeighborSolicitation(payload) if source.is_unspecified() => {
                    let addr = payload.target_address().into();
                    Some(NeighborMessage { addr, mac, kind: NeighborKind::Probe })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn read_arp(packet: &ArpEthIpv4Packet) -> Option<NeighborMessage> {
    let (sender, target) = (packet.sender_ipv4_addr(), packet.target_ipv4_addr());
    let mac = MacAddress(packet.sender_mac);
    if !sender.is_unspecified() {
        return Some(NeighborMessage { addr: sender.into(), mac, kind: NeighborKind::Claim });
    }
    let is_probe = packet.operation == ArpOperation::REQUEST;
    is_probe.then_some(NeighborMessage { addr: target.into(), mac, kind: NeighborKind::Probe })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);

    fn v4() -> IpAddr {
        "10.1.0.80".parse().unwrap()
    }

    fn v6() -> IpAddr {
        "fd01::80".parse().unwrap()
    }

    #[test]
    fn a_probe_comes_from_nobody_and_an_announcement_from_the_address() {
        let probe = probe_frame(MAC, v4());
        assert_eq!(probe[..6], BROADCAST_MAC);
        // Sender 0.0.0.0 (RFC 5227): it changes nobody's table.
        assert_eq!(probe[28..32], [0, 0, 0, 0]);
        assert_eq!(probe[38..42], [10, 1, 0, 80]);
        let announced = announcement_frames(MAC, v4());
        let operations: Vec<_> = announced.iter().map(|frame| frame[21]).collect();
        assert_eq!(operations, [1, 2], "a request and a reply");
        for frame in &announced {
            assert_eq!(
                (&frame[28..32], &frame[38..42]),
                (&[10, 1, 0, 80][..], &[10, 1, 0, 80][..])
            );
            assert_eq!(frame.len(), MIN_FRAME_LEN);
        }
        let advertised = &announcement_frames(MAC, v6())[0];
        assert_eq!(advertised[..6], [0x33, 0x33, 0, 0, 0, 1]);
        // Type 136, Override and nothing else; the option holds the hardware address.
        assert_eq!((advertised[54], advertised[58]), (136, 0x20));
        assert_eq!(advertised[80..86], MAC.0);
    }

    #[test]
    fn frames_are_read_back_with_their_meaning() {
        for addr in [v4(), v6()] {
            let probe = read_frame(&probe_frame(MAC, addr));
            let expected = NeighborMessage { addr, mac: MAC, kind: NeighborKind::Probe };
            assert_eq!(probe, Some(expected));
            for frame in announcement_frames(MAC, addr) {
                let claim = NeighborMessage { addr, mac: MAC, kind: NeighborKind::Claim };
                assert_eq!(read_frame(&frame), Some(claim));
            }
        }
    }

    #[test]
    fn damaged_and_routed_messages_say_nothing() {
        let mut frame = announcement_frames(MAC, v6()).remove(0);
        // The hop limit of a message that crossed a router.
        frame[21] = 254;
        assert_eq!(read_frame(&frame), None);
        let mut frame = announcement_frames(MAC, v6()).remove(0);
        frame[70] ^= 1;
        assert_eq!(read_frame(&frame), None, "its checksum is wrong");
        for frame in [probe_frame(MAC, v4()), probe_frame(MAC, v6())] {
            for len in 0..42 {
                assert_eq!(read_frame(&frame[..len]), None);
            }
        }
    }
}
