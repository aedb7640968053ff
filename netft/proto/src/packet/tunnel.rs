//! The packet in a UDP tunnel (VXLAN, Geneve) whose super-packet the kernel hands over whole.
//!
//! The tunnel's own header, between the outer UDP header and the inner IP header, is opaque: the
//! `virtio_net_hdr` says where the inner packet begins, as the kernel's tunnel device does, and
//! every segment gets a copy of all bytes before it.

use crate::{
    packet::{
        ip::{InnerHeaders, IpVersion, L4Header, UDP_HEADER_LEN},
        virtio_net::{
            GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_TUNNEL_V4, GSO_TUNNEL_V6, GSO_UDP_L4, VnetHdr,
        },
    },
    wire::DropReason,
};

#[cfg(test)]
mod tests;

/// The packet inside a tunnel's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TunnelPacket {
    /// Offset of its IP header.
    pub(super) offset: usize,
    /// Its headers, offsets from there.
    pub(super) inner: InnerHeaders,
}

impl TunnelPacket {
    /// Finds the packet inside `packet`, which was parsed as `outer`, where `hdr` says it is, and
    /// checks that everything `hdr` says agrees with the bytes.
    ///
    /// # Errors
    /// [`DropReason::InnerMalformed`] when it does not.
    pub(super) fn parse(
        hdr: &VnetHdr,
        packet: &[u8],
        outer: &InnerHeaders,
    ) -> Result<Self, DropReason> {
        let offset = usize::from(hdr.inner_l3);
        let is_outer = match hdr.gso_type & (GSO_TUNNEL_V4 | GSO_TUNNEL_V6) {
            GSO_TUNNEL_V4 => outer.version == IpVersion::V4,
            GSO_TUNNEL_V6 => outer.version == IpVersion::V6,
            _ => false,
        };
        if !is_outer
            || outer.l4 != L4Header::Udp
            || usize::from(hdr.outer_l4) != outer.l4_offset
            || offset < outer.l4_offset + UDP_HEADER_LEN
        {
            return Err(DropReason::InnerMalformed);
        }
        let bytes = packet.get(offset..).ok_or(DropReason::InnerMalformed)?;
        let inner = InnerHeaders::parse(bytes)?;
        let fits_type = matches!(
            (hdr.gso_type & !(GSO_ECN | GSO_TUNNEL_V4 | GSO_TUNNEL_V6), inner.version, inner.l4),
            (GSO_TCPV4, IpVersion::V4, L4Header::Tcp { .. })
                | (GSO_TCPV6, IpVersion::V6, L4Header::Tcp { .. })
                | (GSO_UDP_L4, _, L4Header::Udp)
        );
        if !fits_type
            || inner.len != bytes.len()
            || usize::from(hdr.csum_start) != offset + inner.l4_offset
        {
            return Err(DropReason::InnerMalformed);
        }
        Ok(Self { offset, inner })
    }
}
