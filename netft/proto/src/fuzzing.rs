//! Bodies of the fuzz targets, shared with the tests that replay their corpora. Not part of the
//! API.
//!
//! Each takes arbitrary bytes and panics when a property of the codec does not hold: no decoder
//! may panic, and what decodes has exactly one encoding.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    ids::{PeerId, virtual_addrs::VirtualAddrs},
    packet::{
        gro::{GroCoalescer, TunWrite},
        gso::GsoPlan,
        ip::InnerHeaders,
        virtio_net::{GSO_NONE, VnetFormat},
    },
    roster::{JoinReply, JoinRequest, JoinToken, Roster, RosterReply, RosterRequest},
    session::{
        Cipher, Session, SessionParams,
        fragment::{
            FRAGMENT_HEADER_LEN, Fragment,
            reassembly::{FragmentOutcome, ReassemblyBuffer},
        },
    },
    time::Time,
    wire::{
        DropReason,
        ack::Ack,
        challenge::Challenge,
        header::{FRAME_OVERHEAD, FrameHeader, FrameKind, HEADER_LEN, TAG_LEN, is_quic},
        heartbeat::Heartbeat,
        hello::Hello,
        interfaces::Advertisement,
        probe::Probe,
        relay::{RELAY_HEADER_LEN, RelayHeader},
    },
};

/// Asserts that encoding restores the decoded bytes.
fn assert_same_encoding(bytes: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    encode(&mut out);
    assert_eq!(out, bytes);
}

/// A frame's header.
pub fn header(bytes: &[u8]) {
    if let Ok(header) = FrameHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..HEADER_LEN]);
        assert!(!is_quic(bytes[0]));
    }
}

/// A heartbeat.
pub fn heartbeat(bytes: &[u8]) {
    if let Ok(heartbeat) = Heartbeat::decode(bytes) {
        assert_same_encoding(bytes, |out| heartbeat.encode(out));
    }
}

/// An acknowledgement.
pub fn ack(bytes: &[u8]) {
    if let Ok(ack) = Ack::decode(bytes) {
        assert_same_encoding(bytes, |out| ack.encode(out));
    }
}

/// A path MTU probe.
pub fn probe(bytes: &[u8]) {
    if let Ok(probe) = Probe::decode(bytes) {
        assert_same_encoding(bytes, |out| probe.encode(out));
    }
}

/// A path challenge or its response.
pub fn challenge(bytes: &[u8]) {
    if let Ok(challenge) = Challenge::decode(bytes) {
        assert_same_encoding(bytes, |out| challenge.encode(out));
    }
}

/// The header of a relayed datagram.
pub fn relay(bytes: &[u8]) {
    if let Ok(relay) = RelayHeader::decode(bytes) {
        assert_eq!(relay.encode(), bytes[..RELAY_HEADER_LEN]);
    }
}

/// An interface list.
pub fn interfaces(bytes: &[u8]) {
    if let Ok(interfaces) = Advertisement::decode(bytes) {
        assert_same_encoding(bytes, |out| interfaces.encode(out));
    }
}

/// A fragment: the counter of its frame, then its payload.
pub fn fragment(bytes: &[u8]) {
    let Some((counter, payload)) = bytes.split_first_chunk() else { return };
    let counter = u64::from_be_bytes(*counter);
    let Ok(fragment) = Fragment::decode(counter, payload) else { return };
    let body = &payload[FRAGMENT_HEADER_LEN..];
    let mut whole = vec![0; fragment.layout.packet_len()];
    whole[fragment.layout.byte_range(fragment.index)].copy_from_slice(body);
    let mut again = vec![0; payload.len()];
    fragment.layout.write_fragment(fragment.index, &whole, &mut again);
    assert_eq!(again, payload);
    let mut buffer = ReassemblyBuffer::default();
    let added = buffer.add_fragment(Time::ZERO, &fragment, 0, body);
    assert_eq!(added, Ok(FragmentOutcome::default()), "there are at least two");
    assert_eq!(
        buffer.add_fragment(Time::ZERO, &fragment, 0, body),
        Err(DropReason::Malformed),
        "twice"
    );
}

/// A packet of an adapter queue with tunnel offload: its `virtio_net_hdr`, then its bytes. The
/// segments are of the right size, no more than the payload allows, and laid back together and
/// segmented again they are as long.
pub fn super_packet(bytes: &[u8]) {
    const MAX_PACKET: usize = 1420;
    let Some((hdr, packet)) = VnetFormat::Tunnel.split_header(bytes) else { return };
    let Ok(inner) = InnerHeaders::parse(packet) else { return };
    let Ok(plan) = GsoPlan::new(&hdr, packet, &inner, MAX_PACKET) else { return };
    assert!(plan.packet_count() <= packet.len().div_ceil(8).max(128));
    let mut segments = Vec::new();
    for i in 0..plan.packet_count() {
        let start = segments.len();
        segments.resize(start + plan.packet_len(i), 0);
        assert_eq!(plan.write_packet(i, &mut segments[start..]), plan.packet_len(i));
        assert!(plan.packet_len(i) <= MAX_PACKET);
    }
    if hdr.gso_type == GSO_NONE && hdr.needs_csum() {
        // The kernel says where a lone checksum is to be written, be it into the lengths.
        return;
    }
    let (mut buf, mut start, mut again) = (segments.clone(), 0, Vec::new());
    let mut sink = |write: &TunWrite<'_>| {
        let merged: Vec<u8> = write.slices[1..].iter().flat_map(|slice| slice.to_vec()).collect();
        let inner = InnerHeaders::parse(&merged).expect("merged of packets that were parsed");
        let plan = GsoPlan::new(&write.hdr, &merged, &inner, MAX_PACKET).expect("as it was");
        for i in 0..plan.packet_count() {
            let start = again.len();
            again.resize(start + plan.packet_len(i), 0);
            plan.write_packet(i, &mut again[start..]);
        }
    };
    let mut coalescer = GroCoalescer::new(true);
    while start < buf.len() {
        let Ok(inner) = InnerHeaders::parse(&buf[start..]) else { return };
        coalescer.push_packet(&mut buf, start, &inner, plan.has_partial_checksum(), &mut sink);
        start += inner.len;
    }
    coalescer.flush_all(&mut buf, &mut sink);
    assert_eq!(again.len(), segments.len());
}

/// A hello: without the flags and fields that this build does not know it means the same.
pub fn hello(bytes: &[u8]) {
    if let Ok(hello) = Hello::decode(bytes) {
        let mut again = Vec::new();
        hello.encode(&mut again);
        assert_eq!(Hello::decode(&again), Ok(hello));
    }
}

/// The text of a roster: what is read has one meaning, and its own text is read as the same.
pub fn roster(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(roster) = Roster::parse(text) {
        let again = Roster::parse(&roster.to_text().0).expect("its own text is valid");
        assert_eq!(again.without_lines(), roster.without_lines());
    }
}

/// The messages of a join, and a token.
pub fn join_message(bytes: &[u8]) {
    if let Ok(request) = JoinRequest::decode(bytes) {
        assert_eq!(JoinRequest::decode(&request.encode()), Ok(request));
    }
    if let Ok(reply) = JoinReply::decode(bytes) {
        assert_eq!(reply.encode(), bytes);
    }
    if let Some(token) = str::from_utf8(bytes).ok().and_then(|text| text.parse::<JoinToken>().ok())
    {
        let again = token.to_string().parse::<JoinToken>().expect("its own text is valid");
        assert_eq!(again.to_string(), token.to_string());
    }
}

/// A request or a reply about rosters.
pub fn roster_message(bytes: &[u8]) {
    if let Ok(request) = RosterRequest::decode(bytes) {
        let again = request.encode();
        assert_eq!(RosterRequest::decode(&again), Ok(request));
    }
    if let Ok(reply) = RosterReply::decode(bytes) {
        let again = reply.encode();
        assert_eq!(RosterReply::decode(&again), Ok(reply));
    }
}

/// A frame for a session with fixed keys: only [`genuine_frame`] may open, and once.
pub fn open_frame(bytes: &[u8]) {
    let Ok(header) = FrameHeader::decode(bytes) else { return };
    let session = Session::new(fixed_params(2));
    let result = session.open_frame(&header, &mut bytes.to_vec()).map(|payload| payload.to_vec());
    let genuine = genuine_frame();
    if bytes == genuine {
        assert_eq!(result.as_deref(), Ok(GENUINE_PAYLOAD));
    } else {
        let refusal = result.expect_err("only the genuine frame is authentic");
        assert_eq!(refusal, DropReason::NotAuthentic);
    }
    // Whatever was refused changed nothing: the genuine frame opens exactly once.
    let header = FrameHeader::decode(&genuine).expect("sealed here");
    let again = session.open_frame(&header, &mut genuine.clone()).is_ok();
    assert_eq!(again, bytes != genuine);
    let replayed = session.open_frame(&header, &mut genuine.clone()).err();
    assert_eq!(replayed, Some(DropReason::Replayed));
}

const GENUINE_PAYLOAD: &[u8] = b"genuine";

/// The one frame the session of [`open_frame`] accepts.
pub fn genuine_frame() -> Vec<u8> {
    let mut frame = vec![0; FRAME_OVERHEAD + GENUINE_PAYLOAD.len()];
    let end = frame.len() - TAG_LEN;
    frame[HEADER_LEN..end].copy_from_slice(GENUINE_PAYLOAD);
    Session::new(fixed_params(1))
        .seal_frame(FrameKind::Data, 0, 7, &mut frame)
        .expect("in the first epoch");
    frame
}

/// One end of the fixed session: 1 seals, 2 opens.
fn fixed_params(end: u8) -> SessionParams {
    let other = 3 - end;
    SessionParams {
        peer: PeerId(other.into()),
        peer_addrs: VirtualAddrs {
            v4: Ipv4Addr::new(169, 254, 1, other),
            v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, other.into()),
        },
        local_id: end.into(),
        remote_id: other.into(),
        boot_id: 0,
        cipher: Cipher::ChaCha20Poly1305,
        tx_secret: [end; 32],
        rx_secret: [other; 32],
    }
}
