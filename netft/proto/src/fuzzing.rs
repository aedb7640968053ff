//! The bodies of the fuzz targets, shared with the tests that replay their corpora. Not part of
//! the API.
//!
//! Each takes arbitrary bytes and panics when a property of the codec does not hold: no decoder
//! may panic, and what decodes has exactly one encoding.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    ids::{PeerId, virtual_addrs::VirtualAddrs},
    session::{
        Cipher, Session, SessionParams,
        fragment::{Added, Assembly, SLICE_LEN, Slice},
    },
    time::Time,
    wire::{
        DropReason,
        ack::Ack,
        challenge::Challenge,
        header::{HEADER_LEN, Header, Kind, OVERHEAD, TAG_LEN, is_quic},
        heartbeat::Heartbeat,
        hello::Hello,
        interfaces::Interfaces,
        probe::Probe,
        relay::{RELAY_LEN, Relay},
    },
};

/// What decodes has one encoding.
fn same(bytes: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    encode(&mut out);
    assert_eq!(out, bytes);
}

/// A frame's header.
pub fn header(bytes: &[u8]) {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(header.encode(), bytes[..HEADER_LEN]);
        assert!(!is_quic(bytes[0]));
    }
}

/// A heartbeat.
pub fn heartbeat(bytes: &[u8]) {
    if let Ok(heartbeat) = Heartbeat::decode(bytes) {
        same(bytes, |out| heartbeat.encode(out));
    }
}

/// An acknowledgement.
pub fn ack(bytes: &[u8]) {
    if let Ok(ack) = Ack::decode(bytes) {
        same(bytes, |out| ack.encode(out));
    }
}

/// A path MTU probe.
pub fn probe(bytes: &[u8]) {
    if let Ok(probe) = Probe::decode(bytes) {
        same(bytes, |out| probe.encode(out));
    }
}

/// A challenge or its answer.
pub fn challenge(bytes: &[u8]) {
    if let Ok(challenge) = Challenge::decode(bytes) {
        same(bytes, |out| challenge.encode(out));
    }
}

/// What stands before a relayed datagram.
pub fn relay(bytes: &[u8]) {
    if let Ok(relay) = Relay::decode(bytes) {
        assert_eq!(relay.encode(), bytes[..RELAY_LEN]);
    }
}

/// A list of interfaces.
pub fn interfaces(bytes: &[u8]) {
    if let Ok(interfaces) = Interfaces::decode(bytes) {
        same(bytes, |out| interfaces.encode(out));
    }
}

/// A slice: the counter of its frame, then its payload.
pub fn slice(bytes: &[u8]) {
    let Some((counter, payload)) = bytes.split_first_chunk() else { return };
    let counter = u64::from_be_bytes(*counter);
    let Ok(slice) = Slice::decode(counter, payload) else { return };
    let body = &payload[SLICE_LEN..];
    let mut whole = vec![0; slice.cut.total()];
    whole[slice.cut.range(slice.index)].copy_from_slice(body);
    let mut again = vec![0; payload.len()];
    slice.cut.write(slice.index, &whole, &mut again);
    assert_eq!(again, payload);
    let mut assembly = Assembly::default();
    let added = assembly.add(Time::ZERO, &slice, 0, body);
    assert_eq!(added, Ok(Added::default()), "there are at least two");
    assert_eq!(assembly.add(Time::ZERO, &slice, 0, body), Err(DropReason::Malformed), "twice");
}

/// A hello.
pub fn hello(bytes: &[u8]) {
    if let Ok(hello) = Hello::decode(bytes) {
        same(bytes, |out| hello.encode(out));
    }
}

/// A frame for a session with fixed keys: only [`genuine_frame`] may open, and once.
pub fn open_frame(bytes: &[u8]) {
    let Ok(header) = Header::decode(bytes) else { return };
    let session = Session::new(params(2));
    let result = session.open(&header, &mut bytes.to_vec()).map(|payload| payload.to_vec());
    let genuine = genuine_frame();
    if bytes == genuine {
        assert_eq!(result.as_deref(), Ok(PAYLOAD));
    } else {
        let refusal = result.expect_err("only the genuine frame is authentic");
        assert_eq!(refusal, DropReason::NotAuthentic);
    }
    // Whatever was refused changed nothing: the genuine frame opens exactly once.
    let header = Header::decode(&genuine).expect("sealed here");
    let again = session.open(&header, &mut genuine.clone()).is_ok();
    assert_eq!(again, bytes != genuine);
    let replayed = session.open(&header, &mut genuine.clone()).err();
    assert_eq!(replayed, Some(DropReason::Replayed));
}

const PAYLOAD: &[u8] = b"genuine";

/// The one frame the session of [`open_frame`] accepts.
pub fn genuine_frame() -> Vec<u8> {
    let mut frame = vec![0; OVERHEAD + PAYLOAD.len()];
    let end = frame.len() - TAG_LEN;
    frame[HEADER_LEN..end].copy_from_slice(PAYLOAD);
    Session::new(params(1)).seal(Kind::Data, 0, 7, &mut frame).expect("in the first epoch");
    frame
}

/// One end of the fixed session: 1 seals, 2 opens.
fn params(end: u8) -> SessionParams {
    let other = 3 - end;
    SessionParams {
        peer: PeerId(other.into()),
        peer_addrs: VirtualAddrs {
            v4: Ipv4Addr::new(169, 254, 1, other),
            v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, other.into()),
        },
        local: end.into(),
        remote: other.into(),
        boot_id: 0,
        cipher: Cipher::ChaCha20Poly1305,
        tx_secret: [end; 32],
        rx_secret: [other; 32],
    }
}
