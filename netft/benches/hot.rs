//! What every packet passes: seal, open, split, coalesce, parse, look-up, replay window.
//!
//!     cargo bench -p netft --bench hot              nanoseconds of each, the median of many rounds
//!     HOT NAME COUNT                                 runs one case COUNT times and says nothing
//!
//! The second form is for `scripts/instructions`, which counts instructions instead of time. Input
//! is fixed, so both repeat exactly.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    env,
    hint::black_box,
    net::{Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use netft::{
    PeerId,
    addr::VirtualAddrs,
    io::fib::{Fib, PeerEntry},
    packet::{
        coalesce::Coalescer,
        ip::Inner,
        split::Split,
        vnet::{GSO_TCPV4, NEEDS_CSUM, VnetHdr},
    },
    wire::{
        header::{Header, Kind, OVERHEAD},
        replay::ReplayWindow,
        session::{Cipher, Session, SessionParams},
    },
};

/// The largest inner packet of the default adapter.
const PACKET: usize = 1420;
/// Segments of one super-packet.
const SEGMENTS: usize = 44;
/// IP and TCP header.
const HEADERS: usize = 40;
const ROUNDS: usize = 31;
const PER_ROUND: u64 = 2000;

const LEFT: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 2);

/// A case: prepares itself, then is run over and over with the number of the run.
type Case = Box<dyn FnMut(u64)>;
type Prepare = fn() -> Case;
const CASES: [(&str, Prepare); 9] = [
    ("seal", seal),
    ("seal_open", seal_open),
    ("seal_open_small", seal_open_small),
    ("header", header),
    ("replay", replay),
    ("parse", parse),
    ("split", split),
    ("coalesce", coalesce),
    ("look_up", look_up),
];

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let chosen = words.first().cloned().unwrap_or_default();
    if let Some(count) = words.get(1) {
        let (_, prepare) = CASES.iter().find(|(name, _)| *name == chosen).expect("a case's name");
        let mut case = prepare();
        (0..count.parse().expect("a count")).for_each(&mut case);
        return;
    }
    for (name, prepare) in CASES.iter().filter(|(name, _)| name.contains(&chosen)) {
        println!("{name:16} {:9.1} ns", nanoseconds(prepare()));
    }
}

fn nanoseconds(mut case: Case) -> f64 {
    let mut number = 0;
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..PER_ROUND {
                case(number);
                number += 1;
            }
            start.elapsed().as_nanos() as f64 / PER_ROUND as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn session(tx: u8, rx: u8) -> Session {
    Session::new(SessionParams {
        peer: PeerId(0),
        peer_addrs: VirtualAddrs { v4: RIGHT, v6: Ipv6Addr::LOCALHOST },
        local: 1,
        remote: 1,
        boot_id: 1,
        cipher: Cipher::Aes256Gcm,
        tx_secret: [tx; 32],
        rx_secret: [rx; 32],
    })
}

fn seal() -> Case {
    let session = session(1, 2);
    let mut frame = vec![7; PACKET + OVERHEAD];
    Box::new(move |number| session.seal(Kind::Data, 0, number, black_box(&mut frame)).unwrap())
}

fn seal_open() -> Case {
    both(PACKET)
}

fn seal_open_small() -> Case {
    both(64 + 28)
}

fn both(len: usize) -> Case {
    let (left, right) = (session(1, 2), session(2, 1));
    let mut frame = vec![7; len + OVERHEAD];
    Box::new(move |number| {
        left.seal(Kind::Data, 0, number, &mut frame).unwrap();
        let header = Header::decode(black_box(&frame)).unwrap();
        black_box(right.open(&header, &mut frame).unwrap());
    })
}

fn header() -> Case {
    let mut frame = [0; OVERHEAD];
    Box::new(move |counter| {
        let header = Header { kind: Kind::Data, flags: 1, session: 5, counter };
        frame[..16].copy_from_slice(&header.encode());
        black_box(Header::decode(black_box(&frame)).unwrap());
    })
}

fn replay() -> Case {
    let window = ReplayWindow::new();
    Box::new(move |counter| assert!(window.accept(black_box(counter))))
}

/// A TCP packet with `payload` bytes, its checksum unfinished, as the kernel hands it over.
fn tcp(payload: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; HEADERS + payload];
    packet[..HEADERS].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&((HEADERS + payload) as u16).to_be_bytes());
    (packet[6], packet[8], packet[9]) = (0x40, 64, 6);
    packet[12..16].copy_from_slice(&LEFT.octets());
    packet[16..20].copy_from_slice(&RIGHT.octets());
    (packet[32], packet[33]) = (0x50, 0x10);
    packet
}

fn super_packet() -> (VnetHdr, Vec<u8>) {
    let hdr = VnetHdr {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: HEADERS as u16,
        gso_size: (PACKET - HEADERS) as u16,
        csum_start: 20,
        csum_offset: 16,
    };
    (hdr, tcp(SEGMENTS * (PACKET - HEADERS)))
}

fn parse() -> Case {
    let packet = tcp(PACKET - HEADERS);
    Box::new(move |_| {
        black_box(Inner::parse(black_box(&packet)).unwrap());
    })
}

fn cut(hdr: &VnetHdr, packet: &[u8], out: &mut [u8]) {
    let inner = Inner::parse(packet).unwrap();
    let split = Split::new(hdr, packet, &inner, PACKET).unwrap();
    for (i, slot) in (0..split.count()).zip(out.chunks_mut(PACKET)) {
        split.write(i, slot);
    }
}

fn split() -> Case {
    let (hdr, packet) = super_packet();
    let mut out = vec![0; SEGMENTS * PACKET];
    Box::new(move |_| cut(&hdr, black_box(&packet), black_box(&mut out)))
}

fn coalesce() -> Case {
    let (hdr, packet) = super_packet();
    let mut original = vec![0; SEGMENTS * PACKET];
    cut(&hdr, &packet, &mut original);
    let mut batch = original.clone();
    let mut coalescer = Coalescer::new(true);
    Box::new(move |_| {
        // The first packet's headers become those of the merged one.
        batch[..HEADERS].copy_from_slice(&original[..HEADERS]);
        let mut writes = 0;
        for start in (0..batch.len()).step_by(PACKET) {
            let inner = Inner::parse(&batch[start..]).unwrap();
            coalescer.push(&mut batch, start, &inner, true, &mut |_| writes += 1);
        }
        coalescer.flush(&mut batch, &mut |write| writes += black_box(write).packets);
        assert_eq!(writes, SEGMENTS);
    })
}

fn look_up() -> Case {
    let mut fib = Fib::default();
    for place in 0..16 {
        fib.by_v4.insert(Ipv4Addr::new(169, 254, 2, place), usize::from(place));
        let peer = PeerId(place.into());
        fib.peers.push(PeerEntry {
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
