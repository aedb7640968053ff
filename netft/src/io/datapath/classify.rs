//! The fields of an inner packet that policies select on.

use netft_proto::{
    packet::{ip::InnerHeaders, virtio_net::VnetHdr},
    route::policy::PacketFields,
};

/// Reads the fields from `packet`, the bytes that `inner` was parsed from.
#[inline]
pub(super) fn classify_packet(inner: &InnerHeaders, hdr: &VnetHdr, packet: &[u8]) -> PacketFields {
    let segment = inner.header_len() + usize::from(hdr.gso_size);
    PacketFields {
        src: inner.src,
        dst: inner.dst,
        protocol: inner.protocol(packet),
        ports: inner.ports(packet),
        dscp: inner.dscp(packet),
        size: if hdr.gso_size == 0 { inner.len } else { segment.min(inner.len) },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use etherparse::{IpDscp, PacketBuilder};
    use proptest::prelude::*;

    use super::*;

    fn fields_of(hdr: VnetHdr, packet: &[u8]) -> PacketFields {
        classify_packet(&InnerHeaders::parse(packet).unwrap(), &hdr, packet)
    }

    #[test]
    fn ports_protocol_code_point_and_size_are_read() {
        let mut header = etherparse::Ipv4Header::new(0, 64, 17.into(), [1; 4], [2; 4]).unwrap();
        header.dscp = IpDscp::try_new(46).unwrap();
        let mut udp = Vec::new();
        PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
            .udp(5000, 53)
            .write(&mut udp, b"12345")
            .unwrap();
        let found = fields_of(VnetHdr::default(), &udp);
        assert_eq!((found.protocol, found.ports), (Some(17), Some((5000, 53))));
        assert_eq!((found.dscp, found.size), (46, 33));
        udp[6] = 0x20;
        let fragment = fields_of(VnetHdr::default(), &udp);
        assert_eq!((fragment.protocol, fragment.ports), (Some(17), None));

        let mut icmp = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64)
            .icmpv6_echo_request(1, 2)
            .write(&mut icmp, &[])
            .unwrap();
        icmp[0] |= 0x0b;
        icmp[1] |= 0x80;
        let found = fields_of(VnetHdr::default(), &icmp);
        assert_eq!((found.protocol, found.ports, found.dscp), (Some(58), None, 46));
    }

    #[test]
    fn a_super_packet_is_as_large_as_one_of_its_segments() {
        let mut tcp = Vec::new();
        PacketBuilder::ipv4([1; 4], [2; 4], 64)
            .tcp(1, 2, 3, 4)
            .write(&mut tcp, &[0; 4000])
            .unwrap();
        let hdr = VnetHdr { gso_size: 1000, ..VnetHdr::default() };
        assert_eq!(fields_of(hdr, &tcp).size, 1040);
    }

    proptest! {
        #[test]
        fn no_packet_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..120), v6: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            if bytes.len() >= 40 {
                let len = bytes.len() as u16 - if v6 { 40 } else { 0 };
                let at = if v6 { 4 } else { 2 };
                bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
            }
            if let Ok(inner) = InnerHeaders::parse(&bytes) {
                prop_assert!(classify_packet(&inner, &VnetHdr::default(), &bytes).dscp < 64);
            }
        }
    }
}
