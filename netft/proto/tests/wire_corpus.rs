//! Replays the committed fuzz corpora with the stable compiler: every file, every truncation of
//! it (W-01) and every single-bit flip (W-02), through the bodies of the fuzz targets.
//!
//! The handmade files come out of [`seeds`]; after a change of a layout write them anew with
//! `cargo test -p netft-proto --test wire_corpus -- --ignored`.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use netft_proto::{
    fuzzing,
    ids::NodeKey,
    packet::{
        checksum,
        gso::GsoPlan,
        ip::InnerHeaders,
        virtio_net::{
            GSO_TCPV4, GSO_TUNNEL_V4, GSO_TUNNEL_V6, GSO_UDP_L4, NEEDS_CSUM, TUNNEL_CSUM,
            VnetFormat, VnetHdr,
        },
    },
    roster::{
        ClusterId, InviteId, InviteSecret, JoinReply, JoinRequest, JoinToken, Roster, RosterReply,
        RosterRequest, RosterVersion,
    },
    session::fragment::{FRAGMENT_HEADER_LEN, Fragment, FragmentLayout, MAX_PACKET_LEN},
    wire::{
        ack::{Ack, AckRange, MAX_ACK_ROUTES, MAX_RANGES, RouteHeard},
        challenge::{Challenge, ChallengeMessage},
        header::{
            COUNTER_LIMIT, FLAG_FRAGMENT, FLAG_PARTIAL_CHECKSUM, FRAME_OVERHEAD, FrameHeader,
            FrameKind, HEADER_LEN, WIRE_VERSION,
        },
        heartbeat::{HEARTBEAT_FIXED_LEN, Heartbeat, HeartbeatMessage, MAX_REPORTS, RouteReport},
        hello::{CipherSupport, Hello, MAX_NAME_LEN},
        interfaces::{AdvertisedEndpoint, Advertisement},
        probe::{MIN_PROBE_SIZE, Probe, ProbeMessage},
        relay::{NodeTag, RELAY_HEADER_LEN, RelayHeader, RelayHop},
        version::WireVersions,
    },
};

/// A fuzz target: its name, and its body.
type Target = (&'static str, fn(&[u8]));

const FUZZ_TARGETS: [Target; 14] = [
    ("header", fuzzing::header),
    ("heartbeat", fuzzing::heartbeat),
    ("ack", fuzzing::ack),
    ("probe", fuzzing::probe),
    ("hello", fuzzing::hello),
    ("open_frame", fuzzing::open_frame),
    ("fragment", fuzzing::fragment),
    ("challenge", fuzzing::challenge),
    ("relay", fuzzing::relay),
    ("interfaces", fuzzing::interfaces),
    ("join_message", fuzzing::join_message),
    ("roster", fuzzing::roster),
    ("roster_message", fuzzing::roster_message),
    ("super_packet", fuzzing::super_packet),
];

/// Files larger than this are replayed whole only, so that the test stays quick.
const MAX_EXHAUSTIVE_LEN: usize = 512;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn files(target: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(corpus(target)).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn every_corpus_file_with_its_truncations_and_bit_flips_holds() {
    for (target, body) in FUZZ_TARGETS {
        let files = files(target);
        assert!(files.len() >= 3, "{target}");
        for bytes in files.values() {
            body(bytes);
            if bytes.len() > MAX_EXHAUSTIVE_LEN {
                continue;
            }
            for len in 0..bytes.len() {
                body(&bytes[..len]);
            }
            let mut flipped = bytes.clone();
            for bit in 0..bytes.len() * 8 {
                flipped[bit / 8] ^= 0x80 >> (bit % 8);
                body(&flipped);
                flipped[bit / 8] ^= 0x80 >> (bit % 8);
            }
            body(&[bytes.as_slice(), &[0]].concat());
        }
    }
}

/// A small fuzzer, so that the targets run with the stable compiler too: `NETFT_FUZZ_RUNS` inputs a
/// target, mutated from its corpus. The sequence is the same in every run.
#[test]
fn mutated_corpus_files_hold() {
    let runs = std::env::var("NETFT_FUZZ_RUNS").ok().and_then(|text| text.parse().ok());
    let runs: u64 = runs.unwrap_or(20_000);
    for (target, body) in FUZZ_TARGETS {
        let files: Vec<Vec<u8>> = files(target).into_values().collect();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        // Each opens a session, with its keys.
        let runs = if target == "open_frame" { runs / 20 } else { runs };
        for _ in 0..runs {
            let mut input = files[random.below(files.len())].clone();
            for _ in 0..=random.below(4) {
                random.mutate(&mut input, &files);
            }
            body(&input);
        }
    }
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// One change, as fuzzers make them.
    fn mutate(&mut self, input: &mut Vec<u8>, files: &[Vec<u8>]) {
        let at = self.below(input.len());
        match self.below(6) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            // A number at one of its limits.
            1 | 2 => {
                let number = match self.below(4) {
                    0 => u64::MAX.to_be_bytes(),
                    1 => [0; 8],
                    2 => (1u64 << self.below(64)).to_be_bytes(),
                    _ => self.next().to_be_bytes(),
                };
                let place = input.iter_mut().skip(at).take(1 << self.below(4));
                place.zip(number.iter().rev()).for_each(|(byte, new)| *byte = *new);
            }
            3 => input.truncate(at),
            4 => input.extend(std::iter::repeat_n(self.next() as u8, self.below(16))),
            _ => {
                let other = &files[self.below(files.len())];
                let from = self.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}

#[test]
fn the_handmade_files_are_what_the_encoders_produce() {
    let mut count = 0;
    for (target, _) in FUZZ_TARGETS {
        let files = files(target);
        for (name, bytes) in seeds(target) {
            assert_eq!(files.get(name), Some(&bytes), "{target}/{name}");
        }
        count += files.len();
    }
    assert!(count < FUZZ_TARGETS.len() * 7, "{count} files: the corpus is to stay small");
}

#[test]
fn every_valid_seed_decodes_and_every_bad_one_is_refused() {
    for (target, _) in FUZZ_TARGETS {
        let mut kinds = BTreeSet::new();
        for (name, bytes) in seeds(target) {
            let valid = match target {
                "header" | "open_frame" => FrameHeader::decode(&bytes).is_ok(),
                "heartbeat" => Heartbeat::decode(&bytes).is_ok(),
                "ack" => Ack::decode(&bytes).is_ok(),
                "probe" => Probe::decode(&bytes).is_ok(),
                "hello" => Hello::decode(&bytes).is_ok(),
                "challenge" => Challenge::decode(&bytes).is_ok(),
                "relay" => RelayHeader::decode(&bytes).is_ok(),
                "interfaces" => Advertisement::decode(&bytes).is_ok(),
                "join_message" => {
                    JoinRequest::decode(&bytes).is_ok()
                        || JoinReply::decode(&bytes).is_ok()
                        || str::from_utf8(&bytes).is_ok_and(|it| it.parse::<JoinToken>().is_ok())
                }
                "roster" => Roster::parse(str::from_utf8(&bytes).unwrap()).is_ok(),
                "roster_message" => {
                    RosterRequest::decode(&bytes).is_ok() || RosterReply::decode(&bytes).is_ok()
                }
                "fragment" => {
                    let (counter, payload) = bytes.split_first_chunk().unwrap();
                    Fragment::decode(u64::from_be_bytes(*counter), payload).is_ok()
                }
                "super_packet" => {
                    let (hdr, packet) = VnetFormat::Tunnel.split_header(&bytes).unwrap();
                    let inner = InnerHeaders::parse(packet).unwrap();
                    GsoPlan::new(&hdr, packet, &inner, usize::MAX).is_ok()
                }
                other => panic!("no decoder for {other}"),
            };
            assert_eq!(valid, !name.starts_with("bad-"), "{target}/{name}");
            kinds.insert(valid);
        }
        assert_eq!(kinds.len(), 2, "{target} has seeds of both kinds");
    }
}

#[test]
#[ignore = "writes the handmade files of fuzz/corpus"]
fn write_the_handmade_files() {
    for (target, _) in FUZZ_TARGETS {
        fs::create_dir_all(corpus(target)).unwrap();
        for (name, bytes) in seeds(target) {
            fs::write(corpus(target).join(name), bytes).unwrap();
        }
    }
}

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn seeds(target: &str) -> Seeds {
    match target {
        "header" => header_seeds(),
        "heartbeat" => heartbeat_seeds(),
        "ack" => ack_seeds(),
        "probe" => probe_seeds(),
        "hello" => hello_seeds(),
        "open_frame" => open_frame_seeds(),
        "fragment" => fragment_seeds(),
        "challenge" => challenge_seeds(),
        "relay" => relay_seeds(),
        "interfaces" => interfaces_seeds(),
        "join_message" => join_message_seeds(),
        "roster" => roster_seeds(),
        "roster_message" => roster_message_seeds(),
        "super_packet" => super_packet_seeds(),
        other => panic!("no seeds for {other}"),
    }
}

/// A copy of `bytes` with other bytes at `at`.
fn with(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

fn frame(kind: FrameKind, flags: u8, session: u32, counter: u64) -> Vec<u8> {
    let mut frame =
        FrameHeader { kind, flags, queue: 0, session_id: session, counter }.encode().to_vec();
    frame.resize(FRAME_OVERHEAD, 0);
    frame
}

fn header_seeds() -> Seeds {
    let data = frame(FrameKind::Data, FLAG_PARTIAL_CHECKSUM, 0x0102_0304, 1 << 25);
    vec![
        ("bad-quic", with(&data, 0, &[0x51])),
        ("bad-reserved", with(&data, 3, &[1])),
        ("bad-short", data[..FRAME_OVERHEAD - 1].to_vec()),
        ("bad-version", with(&data, 0, &[((WIRE_VERSION + 1) << 4) | FrameKind::Data as u8])),
        ("data", data),
        ("slice", frame(FrameKind::Data, FLAG_PARTIAL_CHECKSUM | FLAG_FRAGMENT, 5, 6)),
        ("heartbeat", frame(FrameKind::Heartbeat, 0, u32::MAX, u64::MAX)),
        ("ack", frame(FrameKind::Ack, 0, 0, 0)),
    ]
}

/// Two segments of TCP over VXLAN over IPv4, as the kernel hands them over.
fn super_packet_seeds() -> Seeds {
    const PAYLOAD: usize = 16;
    let ip = |len: usize, protocol: u8| {
        let mut header = vec![0x45, 0, 0, len as u8, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        header.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        checksum::set_ipv4_checksum(&mut header);
        header
    };
    let inside = 40 + PAYLOAD;
    let mut packet = ip(50 + inside, 17);
    packet.extend_from_slice(&[0xc3, 0x50, 0x12, 0xb5, 0, 30 + inside as u8, 0, 0]);
    packet.extend_from_slice(&[8, 0, 0, 0, 0, 0, 42, 0]);
    packet.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    packet.extend_from_slice(&ip(inside, 6));
    packet.extend_from_slice(&[0, 7, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(&[7; PAYLOAD]);
    let hdr = VnetHdr {
        flags: NEEDS_CSUM | TUNNEL_CSUM,
        gso_type: GSO_TCPV4 | GSO_TUNNEL_V4,
        hdr_len: 90,
        gso_size: 8,
        csum_start: 70,
        csum_offset: 16,
        outer_l4: 20,
        inner_l3: 50,
    };
    let seed = |hdr: VnetHdr| [&hdr.encode()[..], &packet].concat();
    let mut datagrams = packet.clone();
    datagrams[50 + 9] = 17;
    datagrams[74..76].copy_from_slice(&(20 + PAYLOAD as u16).to_be_bytes());
    let udp = VnetHdr { gso_type: GSO_UDP_L4 | GSO_TUNNEL_V4, gso_size: 14, csum_offset: 6, ..hdr };
    vec![
        ("bad-both-versions", seed(VnetHdr { gso_type: hdr.gso_type | GSO_TUNNEL_V6, ..hdr })),
        ("bad-inner-offset", seed(VnetHdr { inner_l3: 51, ..hdr })),
        ("bad-outer-offset", seed(VnetHdr { outer_l4: 24, ..hdr })),
        ("bad-size", seed(VnetHdr { gso_size: 1, ..hdr })),
        ("plain", seed(VnetHdr::default())),
        ("tunnel", seed(hdr)),
        ("datagrams", [&udp.encode()[..], &datagrams].concat()),
    ]
}

fn heartbeat_seeds() -> Seeds {
    let encode = |message, reports| {
        let heartbeat = Heartbeat {
            message,
            route: 1,
            your_route: 2,
            sequence: 3,
            sent_at: 4_000_000_000,
            held_us: 0,
            stalled_ms: 0,
            serial: 0,
            reports,
        };
        let mut out = Vec::new();
        heartbeat.encode(&mut out);
        out
    };
    let report = |n: usize| RouteReport {
        your_route: n as u32 + 1,
        heard: n.is_multiple_of(2),
        local_down: n.is_multiple_of(3),
        admin_down: n.is_multiple_of(5),
        draining: n % 4 == 1,
        carries_data: n == 2,
        loss_permille: n as u16 * 15,
    };
    let reply = encode(HeartbeatMessage::Reply, (0..3).map(report).collect());
    vec![
        ("bad-count", with(&reply, 1, &[4])),
        ("bad-empty", vec![]),
        ("bad-flag", with(&reply, HEARTBEAT_FIXED_LEN + 4, &[0x20])),
        ("bad-route", with(&reply, 4, &[0; 4])),
        ("bad-short", reply[..reply.len() - 1].to_vec()),
        ("full", encode(HeartbeatMessage::Reply, (0..MAX_REPORTS).map(report).collect())),
        ("reply", reply),
        ("request", encode(HeartbeatMessage::Request, vec![])),
    ]
}

fn ack_seeds() -> Seeds {
    let encode = |highest, ranges: u64, routes: u32| {
        let range = |n| AckRange { first: highest - 10 * n - 5, last: highest - 10 * n };
        let ack = Ack {
            highest,
            stalled_ms: 7,
            immediate_ack_request: 8,
            immediate_ack_reply: 9,
            ranges: (0..ranges).map(range).collect(),
            routes: (1..=routes).map(|n| RouteHeard { your_route: n, frames: highest }).collect(),
        };
        let mut out = Vec::new();
        ack.encode(&mut out);
        out
    };
    let some = encode(1000, 3, 2);
    vec![
        ("bad-count", with(&some, 0, &[255])),
        ("bad-overlap", with(&some, 24, &5u32.to_be_bytes())),
        ("bad-short", some[..some.len() - 1].to_vec()),
        ("empty", encode(0, 0, 0)),
        ("full", encode(COUNTER_LIMIT - 1, MAX_RANGES as u64, MAX_ACK_ROUTES as u32)),
        ("some", some),
    ]
}

fn probe_seeds() -> Seeds {
    let encode = |message, size| {
        let probe = Probe { message, size, route: 1, your_route: 2, sequence: 3 };
        let mut out = Vec::new();
        probe.encode(&mut out);
        out
    };
    let least = MIN_PROBE_SIZE as u16;
    let request = encode(ProbeMessage::Request, least + 8);
    vec![
        ("bad-padding", with(&request, request.len() - 1, &[1])),
        ("bad-route", with(&request, 4, &[0; 4])),
        ("bad-short", request[..request.len() - 1].to_vec()),
        ("bad-small", with(&request, 2, &(least - 1).to_be_bytes())),
        ("ethernet", encode(ProbeMessage::Request, 1472)),
        ("answer", encode(ProbeMessage::Answer, 1472)),
        ("request", request),
    ]
}

fn hello_seeds() -> Seeds {
    let encode = |name: &str| {
        let hello = Hello {
            versions: WireVersions::single(WIRE_VERSION),
            release: "0.1.0".to_owned(),
            boot_id: 0x0123_4567_89ab_cdef,
            session_id: 9,
            virtual_v4: Ipv4Addr::new(169, 254, 3, 4),
            virtual_v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 5, 6, 7, 8),
            ciphers: CipherSupport { aes: true, aegis: false },
            adapter_up: false,
            accepts_fragments: true,
            name: name.to_owned(),
        };
        let mut out = Vec::new();
        hello.encode(&mut out);
        out
    };
    let node = encode("node-1.rack_B");
    vec![
        ("bad-character", [node.as_slice(), b"\x1b[2J"].concat()),
        ("bad-nameless", encode("x")[..36].to_vec()),
        ("bad-session", with(&node, 4, &[0; 4])),
        ("bad-version", with(&node, 0, &[WIRE_VERSION + 1])),
        // Flags and a field of a later release, which speaks a later version, too.
        ("later", [with(&node, 0, &[2, 0xff, 1, 2]).as_slice(), &[99, 2, 1, 2]].concat()),
        ("longest", encode(&"n".repeat(MAX_NAME_LEN))),
        ("node", node),
    ]
}

fn fragment_seeds() -> Seeds {
    let fragment = |total: usize, room, index: usize| {
        let layout = FragmentLayout::new(total, room).unwrap();
        let mut payload = vec![0; FRAGMENT_HEADER_LEN + layout.byte_range(index).len()];
        layout.write_fragment(index, &vec![0x5a; total], &mut payload);
        [&(1000 + index as u64).to_be_bytes(), payload.as_slice()].concat()
    };
    let first = fragment(300, 104, 0);
    vec![
        ("bad-count", with(&first, 9, &[1])),
        ("bad-counter", with(&fragment(300, 104, 2), 0, &[0; 8])),
        ("bad-counter-limit", with(&first, 0, &[0xff; 8])),
        ("bad-index", with(&first, 8, &[3])),
        ("bad-total", with(&first, 10, &[0xff; 2])),
        ("last", fragment(290, 104, 2)),
        ("largest", fragment(MAX_PACKET_LEN, 8940, 7)),
        ("first", first),
    ]
}

fn challenge_seeds() -> Seeds {
    let question = Challenge { message: ChallengeMessage::Challenge, route: 7, token: 8 };
    let encode = |challenge: Challenge| {
        let mut out = Vec::new();
        challenge.encode(&mut out);
        out
    };
    let bytes = encode(question);
    vec![
        ("bad-message", with(&bytes, 0, &[3])),
        ("bad-route", with(&bytes, 4, &[0; 4])),
        ("bad-short", bytes[..bytes.len() - 1].to_vec()),
        ("answer", encode(question.to_response())),
        ("question", bytes),
    ]
}

fn relay_seeds() -> Seeds {
    let node = NodeTag::from_key(&NodeKey([9; 32]));
    let on = |hop| [RelayHeader { hop, node }.encode().as_slice(), b"datagram"].concat();
    let first = on(RelayHop::First);
    vec![
        ("bad-hop", with(&first, 0, &[3])),
        ("bad-reserved", with(&first, 3, &[1])),
        ("bad-empty", first[..RELAY_HEADER_LEN].to_vec()),
        ("last", on(RelayHop::Last)),
        ("first", first),
    ]
}

fn interfaces_seeds() -> Seeds {
    let encode = |site: &str, endpoints: Vec<AdvertisedEndpoint>| {
        let mut out = Vec::new();
        let (serial, port) = (5, 3343);
        let all_cross_subnet = endpoints.is_empty();
        let relays = !all_cross_subnet;
        let site = site.to_owned();
        Advertisement { serial, port, all_cross_subnet, offers_relay: relays, site, endpoints }
            .encode(&mut out);
        out
    };
    let endpoint = |addr: &str, prefix_len| {
        let addr = addr.parse().unwrap();
        let is_routed = prefix_len == 24;
        AdvertisedEndpoint { addr, prefix_len, interface: 2, metric: 1000, is_routed }
    };
    let both = encode("hq", vec![endpoint("10.1.0.1", 24), endpoint("fd00::1", 64)]);
    vec![
        ("bad-flag", with(&both, 6, &[0x80])),
        ("bad-host", with(&both, both.len() - 16, &[0xff; 16])),
        ("bad-port", with(&both, 4, &[0; 2])),
        ("bad-short", both[..both.len() - 1].to_vec()),
        ("bare", encode("", vec![])),
        ("both", both),
    ]
}

fn open_frame_seeds() -> Seeds {
    let genuine = fuzzing::genuine_frame();
    vec![
        ("bad-short", genuine[..FRAME_OVERHEAD - 1].to_vec()),
        ("empty-payload", frame(FrameKind::Data, 0, 2, 7)),
        ("far-counter", with(&genuine, 8, &[0xff; 8])),
        ("forged", with(&genuine, HEADER_LEN, &[!genuine[HEADER_LEN]])),
        ("next-epoch", with(&genuine, 8, &(1u64 << 25).to_be_bytes())),
        ("genuine", genuine),
    ]
}

fn roster_seeds() -> Seeds {
    let key = |byte: u8| NodeKey([byte; 32]).to_string();
    let head = format!("format = 1\ncluster = \"prod\"\nid = \"{}\"\nserial = 7\n", key(1));
    let node = |name: &str, byte: u8| {
        format!(
            "\n[[node]]\nname = \"{name}\"\nkey = \"{}\"\naddresses = [\"10.1.0.{byte}:3343\", \
             \"n{byte}.example.net:3343\"]\nroles = [\"member\", \"relay\"]\n\
             address = \"169.254.3.{byte}\"\naddress6 = \"fe80::{byte}\"\n",
            key(byte)
        )
    };
    let nodes = format!("{head}{}{}", node("a", 2), node("b", 3));
    vec![
        ("bad-duplicate", format!("{head}{}{}", node("a", 2), node("a", 3)).into_bytes()),
        ("bad-format", head.replace("format = 1", "format = 2").into_bytes()),
        ("bad-order", format!("{head}{}{}", node("b", 2), node("a", 3)).into_bytes()),
        ("empty", head.clone().into_bytes()),
        ("nodes", nodes.into_bytes()),
        ("unknown-keys", format!("{head}later = [\"x\"] # kept\n{}", node("a", 2)).into_bytes()),
    ]
}

fn join_message_seeds() -> Seeds {
    let request = JoinRequest {
        // No UTF-8, so that no request is a reply as well.
        invite: InviteId([0xff; 8]),
        proof: [2; 32],
        name: "b".to_owned(),
        name_chosen: true,
        addresses: vec!["10.1.0.2:3343".parse().unwrap(), "b.example.net:1".parse().unwrap()],
    };
    let bytes = request.encode();
    let token = JoinToken {
        cluster: ClusterId([1; 32]),
        inviter: NodeKey([2; 32]),
        invite: request.invite,
        secret: InviteSecret::new([3; 16]),
        addresses: vec!["10.1.0.1:3343".parse().unwrap(), "[fd01::1]:3343".parse().unwrap()],
    };
    vec![
        ("bad-address", with(&bytes, bytes.len() - 1, b"x")),
        ("bad-flags", with(&bytes, 1, &[0x80])),
        ("bad-tag", vec![9, 1]),
        ("joined", JoinReply::Joined(b"text".to_vec()).encode()),
        ("refused", JoinReply::Refused("the token has expired".to_owned()).encode()),
        ("request", bytes),
        ("token", token.to_string().into_bytes()),
    ]
}

fn roster_message_seeds() -> Seeds {
    let version = RosterVersion { serial: 7, digest: [5; 32] };
    let offer = RosterRequest::Offer(ClusterId([1; 32]), version).encode();
    vec![
        ("bad-short", RosterReply::Conflict(version).encode()[..20].to_vec()),
        ("bad-tag", vec![9, 1]),
        ("conflict", RosterReply::Conflict(version).encode()),
        ("offer", offer),
        ("push", RosterRequest::Push(b"text").encode()),
        ("refused", vec![5, 200]),
    ]
}
