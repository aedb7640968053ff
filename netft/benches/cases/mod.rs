//! Steps of the packet path, one case each, with fixed input, so that runs repeat exactly.

use std::{
    hint::black_box,
    net::{Ipv4Addr, Ipv6Addr},
};

use netft::{
    PeerId,
    ids::virtual_addrs::VirtualAddrs,
    packet::{
        gro::GroCoalescer,
        gso::GsoPlan,
        ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, InnerHeaders, IpVersion, TCP_HEADER_LEN},
        virtio_net::{GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, VnetHdr},
    },
    session::{Cipher, Session, SessionParams, replay::ReplayWindow},
    test_support::fib::{Fib, FibPeer},
    wire::{
        ack::{Ack, AckRange, MAX_RANGES},
        header::{FRAME_OVERHEAD, FrameHeader, FrameKind},
        heartbeat::{Heartbeat, HeartbeatMessage, RouteReport},
    },
};

/// Largest inner packet of the default adapter, bytes.
const PACKET: usize = 1420;
/// Segments of one super-packet.
const SEGMENTS: usize = 44;
/// Bytes of a packet with 64 bytes of UDP payload.
const SMALL: usize = 64 + 28;
/// Routes of a peer in heartbeats and acknowledgements.
const ROUTES: u32 = 3;

const LEFT: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 2);

/// Body of a case, called with the number of the run.
pub type Case = Box<dyn FnMut(u64)>;
type Prepare = fn() -> Case;

/// Every case: its name, how it is prepared, and the bytes of packets one run handles (0: no
/// packet).
pub const CASES: [(&str, Prepare, usize); 13] = [
    ("seal", seal, PACKET),
    ("seal_open", seal_open, PACKET),
    ("seal_open_small", seal_open_small, SMALL),
    ("header", header, 0),
    ("heartbeat", heartbeat, 0),
    ("ack", ack, 0),
    ("acknowledge", acknowledge, 0),
    ("replay", replay, 0),
    ("parse", parse, 0),
    ("split", split, SEGMENTS * PACKET),
    ("coalesce", coalesce, SEGMENTS * PACKET),
    ("coalesce_v6", coalesce_v6, SEGMENTS * PACKET),
    ("look_up", look_up, 0),
];

fn session(tx: u8, rx: u8) -> Session {
    Session::new(SessionParams {
        peer: PeerId(0),
        peer_addrs: VirtualAddrs { v4: RIGHT, v6: Ipv6Addr::LOCALHOST },
        local_id: 1,
        remote_id: 1,
        boot_id: 1,
        cipher: Cipher::Aes256Gcm,
        tx_secret: [tx; 32],
        rx_secret: [rx; 32],
    })
}

fn seal() -> Case {
    let session = session(1, 2);
    let mut frame = vec![7; PACKET + FRAME_OVERHEAD];
    Box::new(move |number| {
        session.seal_frame(FrameKind::Data, 0, number, black_box(&mut frame)).unwrap()
    })
}

fn seal_open() -> Case {
    both(PACKET)
}

fn seal_open_small() -> Case {
    both(SMALL)
}

fn both(len: usize) -> Case {
    let (left, right) = (session(1, 2), session(2, 1));
    let mut frame = vec![7; len + FRAME_OVERHEAD];
    Box::new(move |number| {
        left.seal_frame(FrameKind::Data, 0, number, &mut frame).unwrap();
        let header = FrameHeader::decode(black_box(&frame)).unwrap();
        black_box(right.open_frame(&header, &mut frame).unwrap());
    })
}

fn header() -> Case {
    let mut frame = [0; FRAME_OVERHEAD];
    Box::new(move |counter| {
        let header =
            FrameHeader { kind: FrameKind::Data, flags: 1, queue: 0, session_id: 5, counter };
        frame[..16].copy_from_slice(&header.encode());
        black_box(FrameHeader::decode(black_box(&frame)).unwrap());
    })
}

fn heartbeat() -> Case {
    let verdict = |your_route| RouteReport {
        your_route,
        heard: true,
        local_down: false,
        admin_down: false,
        draining: false,
        carries_data: your_route == 1,
        loss_permille: 0,
    };
    let mut heartbeat = Heartbeat {
        message: HeartbeatMessage::Request,
        route: 1,
        your_route: 1,
        sequence: 0,
        sent_at: 1 << 40,
        held_us: 0,
        stalled_ms: 0,
        serial: 0,
        reports: (1..=ROUTES).map(verdict).collect(),
    };
    let mut out = Vec::with_capacity(256);
    Box::new(move |number| {
        heartbeat.sequence = number as u32;
        out.clear();
        black_box(&heartbeat).encode(&mut out);
        black_box(Heartbeat::decode(black_box(&out)).unwrap());
    })
}

fn ack() -> Case {
    // A lost frame in each of the last ranges.
    let range = |place: u64| AckRange { first: 990 - place * 100, last: 999 - place * 100 };
    let ranges = (0..4).map(range).collect();
    let mut ack = Ack { highest: 999, ranges, ..Ack::default() };
    let mut out = Vec::with_capacity(256);
    Box::new(move |number| {
        ack.stalled_ms = number as u16;
        out.clear();
        black_box(&ack).encode(&mut out);
        black_box(Ack::decode(black_box(&out)).unwrap());
    })
}

/// Builds what a receiver says after 100,000 frames, one of which is missing.
fn acknowledge() -> Case {
    let window = ReplayWindow::new();
    for counter in (0..100_000).filter(|counter| *counter != 99_000) {
        window.accept(counter);
    }
    Box::new(move |_| {
        black_box(window.accepted_ranges(black_box(99_999), MAX_RANGES));
    })
}

fn replay() -> Case {
    let window = ReplayWindow::new();
    Box::new(move |counter| assert!(window.accept(black_box(counter))))
}

/// A TCP packet with `payload` bytes, its checksum unfinished, as the kernel hands it over.
fn tcp(version: IpVersion, payload: usize) -> Vec<u8> {
    let ip = ip_len(version);
    let mut packet = vec![0; ip + TCP_HEADER_LEN];
    match version {
        IpVersion::V4 => {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&((ip + TCP_HEADER_LEN + payload) as u16).to_be_bytes());
            (packet[6], packet[8], packet[9]) = (0x40, 64, 6);
            packet[12..16].copy_from_slice(&LEFT.octets());
            packet[16..20].copy_from_slice(&RIGHT.octets());
        }
        IpVersion::V6 => {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&((TCP_HEADER_LEN + payload) as u16).to_be_bytes());
            (packet[6], packet[7]) = (6, 64);
            packet[8..24].copy_from_slice(&LEFT.to_ipv6_mapped().octets());
            packet[24..40].copy_from_slice(&RIGHT.to_ipv6_mapped().octets());
        }
    }
    (packet[ip + 12], packet[ip + 13]) = (0x50, 0x10);
    packet.resize(ip + TCP_HEADER_LEN + payload, 0x5a);
    packet
}

fn ip_len(version: IpVersion) -> usize {
    match version {
        IpVersion::V4 => IPV4_HEADER_LEN,
        IpVersion::V6 => IPV6_HEADER_LEN,
    }
}

fn super_packet(version: IpVersion) -> (VnetHdr, Vec<u8>) {
    let headers = ip_len(version) + TCP_HEADER_LEN;
    let hdr = VnetHdr {
        flags: NEEDS_CSUM,
        gso_type: if version == IpVersion::V4 { GSO_TCPV4 } else { GSO_TCPV6 },
        hdr_len: headers as u16,
        gso_size: (PACKET - headers) as u16,
        csum_start: ip_len(version) as u16,
        csum_offset: 16,
        ..VnetHdr::default()
    };
    (hdr, tcp(version, SEGMENTS * (PACKET - headers)))
}

fn parse() -> Case {
    let packet = tcp(IpVersion::V4, PACKET - IPV4_HEADER_LEN - TCP_HEADER_LEN);
    Box::new(move |_| {
        black_box(InnerHeaders::parse(black_box(&packet)).unwrap());
    })
}

fn segment_packet(hdr: &VnetHdr, packet: &[u8], out: &mut [u8]) {
    let inner = InnerHeaders::parse(packet).unwrap();
    let split = GsoPlan::new(hdr, packet, &inner, PACKET).unwrap();
    for (i, slot) in (0..split.packet_count()).zip(out.chunks_mut(PACKET)) {
        split.write_packet(i, slot);
    }
}

fn split() -> Case {
    let (hdr, packet) = super_packet(IpVersion::V4);
    let mut out = vec![0; SEGMENTS * PACKET];
    Box::new(move |_| segment_packet(&hdr, black_box(&packet), black_box(&mut out)))
}

fn coalesce() -> Case {
    merged(IpVersion::V4)
}

fn coalesce_v6() -> Case {
    merged(IpVersion::V6)
}

fn merged(version: IpVersion) -> Case {
    let (hdr, packet) = super_packet(version);
    let mut original = vec![0; SEGMENTS * PACKET];
    segment_packet(&hdr, &packet, &mut original);
    let mut batch = original.clone();
    let mut coalescer = GroCoalescer::new(true);
    let headers = ip_len(version) + TCP_HEADER_LEN;
    Box::new(move |_| {
        // The first packet's headers become those of the merged one.
        batch[..headers].copy_from_slice(&original[..headers]);
        let mut writes = 0;
        for start in (0..batch.len()).step_by(PACKET) {
            let inner = InnerHeaders::parse(&batch[start..]).unwrap();
            coalescer.push_packet(&mut batch, start, &inner, true, &mut |_| writes += 1);
        }
        coalescer.flush_all(&mut batch, &mut |write| writes += black_box(write).packets);
        assert_eq!(writes, SEGMENTS);
    })
}

fn look_up() -> Case {
    let mut fib = Fib::default();
    for place in 0..16 {
        fib.by_v4.insert(Ipv4Addr::new(169, 254, 2, place), usize::from(place));
        let peer = PeerId(place.into());
        fib.peers.push(FibPeer {
            is_unreachable: false,
            peer,
            session: None,
            active: None,
            duplicate: None,
            backups: Vec::new(),
            steering: None,
            candidates: Vec::new(),
        });
    }
    Box::new(move |_| {
        black_box(fib.peer_at(black_box(RIGHT.into())).unwrap());
    })
}
