//! Super-packets of UDP tunnels inside.

use super::{test_packets::VXLAN_SHAPE, *};

#[test]
fn a_super_packet_in_a_tunnel_arrives_as_its_segments_whatever_the_receiver() {
    for right_vnet in [true, false] {
        for (v6, checksum) in [(false, true), (true, true), (false, false)] {
            let tunnel = TunnelShape { v6, checksum, ..VXLAN_SHAPE };
            let (hdr, packet) = build_tunnel(&tunnel, &plain(false, 40_000));
            let expected = completed_tunnel(&segment_packet(&hdr, &packet, 1400).unwrap());
            let (left, right) = pair(true, right_vnet);
            left.write_packet(&hdr, &packet);
            right.start_adapter();
            left.start_adapter();
            let (mut got, mut writes) = (Vec::new(), 0);
            while got.len() < expected.len() {
                let (hdr, packet) = right.read_packet();
                got.extend(segment_packet(&hdr, &packet, 1400).unwrap());
                writes += 1;
            }
            assert!(completed_tunnel(&got) == expected, "{tunnel:?} {right_vnet}");
            // A datagram without a checksum of its own is not laid together with others.
            let merged = right_vnet && checksum;
            assert!(if merged { writes <= 2 } else { writes == 40 }, "{writes} {tunnel:?}");
        }
    }
}

/// The packets with complete outer checksums, where they have any.
fn completed_tunnel(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    packets
        .iter()
        .map(|packet| {
            let inner = InnerHeaders::parse(packet).unwrap();
            let checksum_at = inner.l4_offset + 6;
            if packet[checksum_at..checksum_at + 2] == [0, 0] {
                return packet.clone();
            }
            completed(std::slice::from_ref(packet)).remove(0)
        })
        .collect()
}
