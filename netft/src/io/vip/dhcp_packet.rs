//! DHCP messages of floating addresses, by `dhcproto` and `etherparse`. Pure.

use std::net::Ipv4Addr;

use dhcproto::{
    Encodable,
    v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, borrowed},
};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use netft_proto::vip::{
    MacAddress,
    dhcp::{ClientIdentifier, DhcpReply, DhcpReplyKind, DhcpRequest, DhcpRequestKind},
};

const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;
const BROADCAST_MAC: [u8; 6] = [0xff; 6];
/// The default of hosts, RFC 1700.
const TIME_TO_LIVE: u8 = 64;
/// Length of a hardware address of Ethernet.
const MAC_LEN: u8 = 6;

/// The frame of a message. It goes through no rule and no route of the host: the address may not
/// be configured yet.
pub(super) fn dhcp_frame(
    request: &DhcpRequest,
    mac: MacAddress,
    identifier: &ClientIdentifier,
) -> Vec<u8> {
    let body = encode_message(request, mac, identifier);
    let (to_mac, to) = match request.to {
        Some((server_mac, server)) => (server_mac.0, server),
        None => (BROADCAST_MAC, Ipv4Addr::BROADCAST),
    };
    let builder = PacketBuilder::ethernet2(mac.0, to_mac)
        .ipv4(request.client_addr.octets(), to.octets(), TIME_TO_LIVE)
        .udp(CLIENT_PORT, SERVER_PORT);
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    // Writing to memory cannot fail.
    let _ = builder.write(&mut frame, &body);
    frame
}

fn encode_message(
    request: &DhcpRequest,
    mac: MacAddress,
    identifier: &ClientIdentifier,
) -> Vec<u8> {
    let unset = Ipv4Addr::UNSPECIFIED;
    let mut message =
        Message::new_with_id(request.xid, request.client_addr, unset, unset, unset, &mac.0);
    message.set_opcode(Opcode::BootRequest);
    message.set_secs(request.secs);
    if request.client_addr.is_unspecified() {
        // RFC 2131 section 4.1: the address is not configured, a unicast answer would be lost.
        message.set_flags(Flags::default().set_broadcast());
    }
    let kind = match request.kind {
        DhcpRequestKind::Discover => MessageType::Discover,
        DhcpRequestKind::Request => MessageType::Request,
        DhcpRequestKind::Decline => MessageType::Decline,
        DhcpRequestKind::Release => MessageType::Release,
    };
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ClientIdentifier(identifier.to_vec()));
    if let Some(addr) = request.requested {
        options.insert(DhcpOption::RequestedIpAddress(addr));
    }
    if let Some(server) = request.server {
        options.insert(DhcpOption::ServerIdentifier(server));
    }
    // RFC 2131 section 4.4.1, table 5: neither DECLINE nor RELEASE asks for parameters.
    if matches!(request.kind, DhcpRequestKind::Discover | DhcpRequestKind::Request) {
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            OptionCode::AddressLeaseTime,
            OptionCode::ServerIdentifier,
            OptionCode::Renewal,
            OptionCode::Rebinding,
        ]));
    }
    // It fails on texts that are too long only, and there are none.
    message.to_vec().unwrap_or_default()
}

/// Reads a frame; `None` if it is no server's message to this hardware address.
///
/// The checksum of UDP is not compared: a server on the same host leaves it to the hardware.
pub(super) fn read_dhcp_frame(frame: &[u8], mac: MacAddress) -> Option<DhcpReply> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(NetSlice::Ipv4(_)), Some(TransportSlice::Udp(udp))) =
        (&packet.net, &packet.transport)
    else {
        return None;
    };
    if udp.destination_port() != CLIENT_PORT || udp.source_port() != SERVER_PORT {
        return None;
    }
    let from = MacAddress(frame.get(6..12)?.try_into().ok()?);
    read_message(udp.payload(), mac, from)
}

/// Reads a message option by option: the whole decoder of `dhcproto` asserts the length of an
/// option that is of no use here (80), and a server must not stop a debug build.
fn read_message(body: &[u8], mac: MacAddress, from: MacAddress) -> Option<DhcpReply> {
    let message = borrowed::Message::new(body).ok()?;
    // The length is the server's word: `chaddr` panics for one that is longer than the message.
    let is_ours = message.opcode() == Opcode::BootReply
        && message.hlen() == MAC_LEN
        && message.chaddr() == mac.0;
    if !is_ours {
        return None;
    }
    let mut kind = None;
    let mut reply = DhcpReply {
        kind: DhcpReplyKind::Nak,
        xid: message.xid(),
        addr: message.yiaddr(),
        server: None,
        lease_secs: None,
        renew_secs: None,
        rebind_secs: None,
        from,
    };
    for option in message.opts() {
        let number = option.data().try_into().ok().map(u32::from_be_bytes);
        match option.code() {
            OptionCode::MessageType => {
                kind = match option.data() {
                    [code] => read_kind((*code).into()),
                    _ => None,
                };
            }
            OptionCode::ServerIdentifier => reply.server = number.map(Ipv4Addr::from),
            OptionCode::AddressLeaseTime => reply.lease_secs = number,
            OptionCode::Renewal => reply.renew_secs = number,
            OptionCode::Rebinding => reply.rebind_secs = number,
            _ => {}
        }
    }
    Some(DhcpReply { kind: kind?, ..reply })
}

const fn read_kind(kind: MessageType) -> Option<DhcpReplyKind> {
    match kind {
        MessageType::Offer => Some(DhcpReplyKind::Offer),
        MessageType::Ack => Some(DhcpReplyKind::Ack),
        MessageType::Nak => Some(DhcpReplyKind::Nak),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use dhcproto::Decodable;
    use netft_proto::vip::dhcp::client_identifier;
    use proptest::prelude::*;

    use super::*;

    const CLIENT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);
    const SERVER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const LEASED_ADDR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 80);
    const SERVER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

    fn request(kind: DhcpRequestKind) -> DhcpRequest {
        DhcpRequest {
            kind,
            xid: 0x0102_0304,
            secs: 5,
            client_addr: Ipv4Addr::UNSPECIFIED,
            requested: Some(LEASED_ADDR),
            server: Some(SERVER_ADDR),
            to: None,
        }
    }

    /// A server's frame with these options.
    fn server_frame(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let unset = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(7, unset, LEASED_ADDR, unset, unset, &CLIENT_MAC.0);
        message.set_opcode(Opcode::BootReply);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Ack));
        options.insert(DhcpOption::ServerIdentifier(SERVER_ADDR));
        options.insert(DhcpOption::AddressLeaseTime(120));
        options.insert(DhcpOption::Renewal(60));
        options.insert(DhcpOption::Rebinding(105));
        change(&mut message);
        let builder = PacketBuilder::ethernet2(SERVER_MAC.0, CLIENT_MAC.0)
            .ipv4(SERVER_ADDR.octets(), LEASED_ADDR.octets(), TIME_TO_LIVE)
            .udp(SERVER_PORT, CLIENT_PORT);
        let mut frame = Vec::new();
        builder.write(&mut frame, &message.to_vec().unwrap()).unwrap();
        frame
    }

    #[test]
    fn a_request_carries_the_resources_identifier_and_asks_for_a_broadcast() {
        let identifier = client_identifier(b"cluster", "web");
        let frame = dhcp_frame(&request(DhcpRequestKind::Request), CLIENT_MAC, &identifier);
        assert_eq!(frame[..6], BROADCAST_MAC);
        let message = Message::from_bytes(&frame[42..]).unwrap();
        assert!(message.flags().broadcast());
        let found = message.opts().get(OptionCode::ClientIdentifier);
        assert_eq!(found, Some(&DhcpOption::ClientIdentifier(identifier.to_vec())));
        let renewal = DhcpRequest {
            client_addr: LEASED_ADDR,
            requested: None,
            server: None,
            to: Some((SERVER_MAC, SERVER_ADDR)),
            ..request(DhcpRequestKind::Request)
        };
        let frame = dhcp_frame(&renewal, CLIENT_MAC, &identifier);
        assert_eq!((&frame[..6], &frame[26..30]), (&SERVER_MAC.0[..], &LEASED_ADDR.octets()[..]));
        let message = Message::from_bytes(&frame[42..]).unwrap();
        assert!(!message.flags().broadcast() && message.ciaddr() == LEASED_ADDR);
        assert_eq!(message.opts().get(OptionCode::ServerIdentifier), None);
    }

    #[test]
    fn a_servers_message_is_read_with_its_times() {
        let reply = read_dhcp_frame(&server_frame(|_| {}), CLIENT_MAC).unwrap();
        assert_eq!((reply.kind, reply.xid, reply.addr), (DhcpReplyKind::Ack, 7, LEASED_ADDR));
        assert_eq!((reply.server, reply.from), (Some(SERVER_ADDR), SERVER_MAC));
        let times = [reply.lease_secs, reply.renew_secs, reply.rebind_secs];
        assert_eq!(times, [Some(120), Some(60), Some(105)]);
        let own = dhcp_frame(&request(DhcpRequestKind::Discover), CLIENT_MAC, &[0; 23]);
        assert_eq!(read_dhcp_frame(&own, CLIENT_MAC), None, "a client's message");
        let other = MacAddress([2, 0, 0, 0, 0, 8]);
        assert_eq!(read_dhcp_frame(&server_frame(|_| {}), other), None, "another client's");
    }

    #[test]
    fn hostile_lengths_of_a_hardware_address_say_nothing() {
        for len in [0, 5, 7, 16, 17, 255] {
            let mut frame = server_frame(|_| {});
            frame[44] = len;
            assert_eq!(read_dhcp_frame(&frame, CLIENT_MAC), None, "{len}");
        }
    }

    #[test]
    fn options_of_wrong_lengths_are_missing_ones() {
        let frame = |option: &[u8]| {
            let mut frame =
                server_frame(|message| drop(message.opts_mut().remove(OptionCode::Renewal)));
            // In place of the end of the options.
            let end = frame.iter().rposition(|byte| *byte == 255).unwrap();
            frame.truncate(end);
            frame.extend_from_slice(option);
            frame.extend_from_slice(&[255]);
            read_message(&frame[42..], CLIENT_MAC, SERVER_MAC).unwrap()
        };
        assert_eq!(frame(&[58, 4, 0, 0, 0, 9]).renew_secs, Some(9));
        for option in [&[58, 3, 0, 0, 0][..], &[58, 5, 0, 0, 0, 0, 0], &[58, 0], &[80, 1, 0]] {
            assert_eq!(frame(option).renew_secs, None, "{option:?}");
        }
    }

    #[test]
    fn truncated_options_are_missing_ones() {
        let whole = server_frame(|_| {});
        for len in 0..whole.len() {
            // The frame is cut, and so is the message in a frame of the right length.
            assert_eq!(read_dhcp_frame(&whole[..len], CLIENT_MAC), None, "{len}");
            let body = &whole[42..whole.len().min(42 + len)];
            let _ = read_message(body, CLIENT_MAC, SERVER_MAC);
        }
        let without = server_frame(|message| {
            message.opts_mut().remove(OptionCode::AddressLeaseTime);
            message.opts_mut().remove(OptionCode::ServerIdentifier);
        });
        let reply = read_dhcp_frame(&without, CLIENT_MAC).unwrap();
        assert_eq!((reply.lease_secs, reply.server), (None, None));
    }

    proptest! {
        #[test]
        fn no_message_panics_the_reader(
            flips in proptest::collection::vec((0_usize..600, any::<u8>()), 0..40),
            tail in proptest::collection::vec(any::<u8>(), 0..900),
        ) {
            let mut frame = server_frame(|_| {});
            frame.extend(tail);
            for (at, bits) in flips {
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= bits;
                }
            }
            let _ = read_dhcp_frame(&frame, CLIENT_MAC);
            let _ = read_message(&frame[42..], CLIENT_MAC, SERVER_MAC);
        }

        #[test]
        fn no_bytes_panic_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let _ = read_dhcp_frame(&bytes, CLIENT_MAC);
            let _ = read_message(&bytes, CLIENT_MAC, SERVER_MAC);
        }
    }
}
