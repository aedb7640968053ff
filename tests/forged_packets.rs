//! Floods of forged packets that need no key: no route goes down, no packet is lost, nothing is
//! answered.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{net::IpAddr, thread, time::Duration};

use common::{NodePair, TEST_RATE, assert_flow_alive};
use netft_lab::{
    Lab, Moment,
    daemon::{EventFollower, SiteSettings},
    flood::FrameFlood,
    in_namespace,
    transfer::Transfer,
};
use ring::{aead, aead::quic, hkdf};

/// No route goes down because the machine is busy: a refused send does not look at the threshold.
const COMMON: &str = "[heartbeat]\nthreshold = 40\n";
/// Forged packets per second and network.
const FLOOD_RATE: u32 = 50_000;
const FLOOD_TIME: Duration = Duration::from_millis(1500);

/// The ones' complement sum of RFC 1071.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|bytes| bytes.chunks(2));
    let sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

/// An IP header in front of `len` bytes of `protocol`.
fn ip_header(protocol: u8, len: u16, from: IpAddr, to: IpAddr) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + len).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum);
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(len.to_be_bytes());
            header.extend([protocol, 255]);
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        _ => panic!("two families"),
    }
}

/// A frame to node 0 on a network, as from node 1.
fn frame_to_node(network: usize, packet: &[&[u8]]) -> Vec<u8> {
    let ether_type = if packet[0][0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    let (to, from) = (Lab::nic_mac(network, 0), Lab::nic_mac(network, 1));
    [&to[..], &from, &ether_type, &packet.concat()].concat()
}

/// ICMP messages of every type and code that tells of an error, to node 0 about its datagrams to
/// node 1. With `valid` false their checksums are wrong.
fn forged_icmp(lab: &Lab, network: usize, ipv6: bool, valid: bool) -> Vec<Vec<u8>> {
    let [here, there] = [0, 1].map(|node| lab.node_address(network, node, ipv6));
    // Anyone can send them: this host is nobody's.
    let stranger = match here {
        IpAddr::V4(_) => "192.0.2.7".parse().unwrap(),
        IpAddr::V6(_) => "2001:db8::7".parse().unwrap(),
    };
    // The datagram that each is about, cut behind its UDP header.
    let mut cause = ip_header(17, 1380, here, there);
    cause.extend([13, 15, 13, 15, 5, 100, 0, 0]);
    let (protocol, types): (u8, &[u8]) =
        if ipv6 { (58, &[1, 2, 3, 4, 137]) } else { (1, &[3, 4, 5, 11, 12]) };
    let mut frames = Vec::new();
    for (kind, code) in types.iter().flat_map(|kind| (0..16u8).map(move |code| (*kind, code))) {
        for from in [stranger, there] {
            // As the next hop's MTU in "fragmentation needed" and "packet too big".
            let mut icmp = vec![kind, code, 0, 0, 0, 0, 5, 0];
            icmp.extend(&cause);
            let length = icmp.len() as u16;
            let pseudo = match (from, here) {
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    let length = u32::from(length).to_be_bytes();
                    [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, 58]].concat()
                }
                _ => Vec::new(),
            };
            let sum = checksum(&[&pseudo, &icmp]);
            icmp[2..4].copy_from_slice(&sum);
            if !valid {
                icmp[3] ^= 0xff;
            }
            let header = ip_header(protocol, length, from, here);
            frames.push(frame_to_node(network, &[&header, &icmp]));
        }
    }
    frames
}

/// Floods node 0 on every network while both nodes ping each other, node 0 so densely that many an
/// error would meet a send; returns the lost pings.
fn lost_pings(pair: &NodePair, frames: impl Fn(usize) -> Vec<Vec<u8>>) -> u64 {
    let floods: Vec<_> = (0..pair.lab.network_count())
        .map(|network| {
            let (netns, port) = (pair.lab.switch_netns(network), Lab::port_name(0));
            FrameFlood::start(netns, &port, frames(network), FLOOD_RATE).unwrap()
        })
        .collect();
    let probes = [pair.dense_probe(0), pair.probe(1, false)];
    thread::sleep(FLOOD_TIME);
    let lost = probes.map(|probe| {
        let report = probe.finish().full_report();
        assert!(report.sent > 0);
        report.lost
    });
    let sent: Vec<_> = floods.into_iter().map(FrameFlood::finish).collect();
    println!("{sent:?} forged in {FLOOD_TIME:?} and a little: {lost:?} pings lost");
    lost.iter().sum()
}

/// No route of a node changed its state or its size, and no data moved, since `since`.
fn assert_nothing_changed(events: &EventFollower, since: Moment) {
    let loud =
        ["state-changed", "moved", "remote-unreachable", "session-ended", "path-mtu-changed"];
    let seen = events.events_so_far();
    let others: Vec<_> =
        seen.iter().filter(|e| e.is_at_or_after(since.wall) && loud.contains(&&*e.name)).collect();
    assert!(others.is_empty(), "{others:#?}");
}

/// Forged ICMP on both networks at once, against a control of messages that the kernel drops.
fn icmp_flood(ipv6: bool) {
    let settings = SiteSettings { common: COMMON, ipv6, ..SiteSettings::default() };
    let mut pair = NodePair::start_with(2, settings);
    pair.wait_active(0, 0);
    thread::sleep(Duration::from_millis(500));
    let control = lost_pings(&pair, |network| forged_icmp(&pair.lab, network, ipv6, false));
    let events = [0, 1].map(|node| pair.events(node));
    let start = Moment::now();
    let flow = pair.transfer(0, Some(TEST_RATE), false);
    let lost = lost_pings(&pair, |network| forged_icmp(&pair.lab, network, ipv6, true));
    assert!(lost <= control, "{lost} pings lost, {control} in the control");
    events.iter().for_each(|events| assert_nothing_changed(events, start));
    for reason in ["too_big", "send_failed"] {
        assert_eq!(pair.drops(0, reason), 0, "a forged message costs no packet: {reason}");
    }
    assert_flow_alive(flow);
}

#[test]
fn f_35_a_flood_of_forged_icmp_changes_nothing() {
    in_namespace("f_35_a_flood_of_forged_icmp_changes_nothing", || icmp_flood(false));
}

#[test]
fn f_35_a_flood_of_forged_icmpv6_changes_nothing() {
    in_namespace("f_35_a_flood_of_forged_icmpv6_changes_nothing", || icmp_flood(true));
}

/// HKDF-Expand-Label (RFC 8446 section 7.1) of 12, 16 or 32 bytes.
fn expand_label(secret: &hkdf::Prk, label: &str, out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let label = format!("tls13 {label}");
    let length = [0, out.len() as u8, label.len() as u8];
    let info = [&length[..], label.as_bytes(), &[0]];
    secret.expand(&info, Length(out.len())).unwrap().fill(out).unwrap();
}

/// A valid Initial of 1200 bytes (RFC 9001 section 5.2): a PING of a client that `number` names.
fn initial(number: u32) -> Vec<u8> {
    const SALT: [u8; 20] = [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c,
        0xad, 0xcc, 0xbb, 0x7f, 0x0a,
    ];
    let mut cid = [0x5a; 20];
    cid[..4].copy_from_slice(&number.to_be_bytes());
    let mut client = [0; 32];
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &SALT);
    expand_label(&salt.extract(&cid), "client in", &mut client);
    let client = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &client);
    let (mut key, mut nonce, mut mask_key) = ([0; 16], [0; 12], [0; 16]);
    expand_label(&client, "quic key", &mut key);
    expand_label(&client, "quic iv", &mut nonce);
    expand_label(&client, "quic hp", &mut mask_key);
    // Header: destination and source id, no token, length, packet number 0 of four bytes.
    let mut header = [&[0xc3, 0, 0, 0, 1, 20][..], &cid, &[8], &cid[..8], &[0]].concat();
    let length = 1200 - header.len() - 2;
    header.extend((0x4000 | length as u16).to_be_bytes());
    let number_at = header.len();
    header.extend([0; 4]);
    let mut payload = vec![0; length - 4 - 16];
    payload[0] = 1;
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, &key).unwrap();
    let (key, nonce) = (aead::LessSafeKey::new(key), aead::Nonce::assume_unique_for_key(nonce));
    key.seal_in_place_append_tag(nonce, aead::Aad::from(&header), &mut payload).unwrap();
    let mask_key = quic::HeaderProtectionKey::new(&quic::AES_128, &mask_key).unwrap();
    let mask = mask_key.new_mask(&payload[..16]).unwrap();
    header[0] ^= mask[0] & 0x0f;
    header[number_at..].iter_mut().zip(&mask[1..]).for_each(|(byte, mask)| *byte ^= mask);
    [header, payload].concat()
}

/// The UDP datagram as a frame to node 0, as from node 1's socket.
fn from_peer(lab: &Lab, payload: &[u8]) -> Vec<u8> {
    let [here, there] = [0, 1].map(|node| lab.node_address(0, node, false));
    let length = 8 + payload.len() as u16;
    // No checksum (RFC 768).
    let udp = [&[13, 15, 13, 15][..], &length.to_be_bytes(), &[0, 0]].concat();
    frame_to_node(0, &[&ip_header(17, length, there, here), &udp, payload])
}

/// Bytes that a flow delivers in a while under a flood.
fn delivered(lab: &Lab, flow: &Transfer, frames: &[Vec<u8>]) -> u64 {
    let (netns, port) = (lab.switch_netns(0), Lab::port_name(0));
    let flood = FrameFlood::start(netns, &port, frames.to_vec(), FLOOD_RATE).unwrap();
    thread::sleep(FLOOD_TIME / 10);
    let before = flow.bytes_received();
    thread::sleep(FLOOD_TIME / 2);
    let delivered = flow.bytes_received() - before;
    flood.finish();
    delivered
}

/// Valid Initials with the peer's address, against a control of datagrams of the same size that are
/// no QUIC. Other work on the machine hits either, so one good round of a few suffices; without the
/// limit of handshake packets it was 0.52 to 0.65.
#[test]
fn f_51_a_flood_of_quic_initials_leaves_the_throughput() {
    in_namespace("f_51_a_flood_of_quic_initials_leaves_the_throughput", || {
        let settings = SiteSettings { common: COMMON, ..SiteSettings::default() };
        let mut pair = NodePair::start_with(1, settings);
        pair.wait_active(0, 0);
        let initials: Vec<_> =
            (0..2048).map(|number| from_peer(&pair.lab, &initial(number))).collect();
        let control = [from_peer(&pair.lab, &[0; 1200])];
        let flow = pair.transfer(1, None, false);
        thread::sleep(FLOOD_TIME / 2);
        let mut best = 0.0f64;
        for _ in 0..5 {
            let control = delivered(&pair.lab, &flow, &control);
            let flooded = delivered(&pair.lab, &flow, &initials);
            best = best.max(flooded as f64 / control as f64);
            println!("{flooded} bytes under Initials, {control} in the control: best {best:.2}");
            if best >= 0.8 {
                break;
            }
        }
        let refused = pair.drops(0, "handshake_rate");
        assert!(best >= 0.8 && refused > 0, "{best:.2} of the control, {refused} refused");
        assert_flow_alive(flow);
    });
}
