//! What an attacker on the wire can see and do: nothing.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use common::{Pair, RATE, WHILE, alive, eventually};
use netftd::lab::{Lab, Shape, capture::Capture, daemon::Settings, in_namespace};

/// Bytes before the payload of an Ethernet frame with IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;

#[test]
fn w_13_a_node_with_another_key_never_comes_up() {
    in_namespace("w_13_a_node_with_another_key_never_comes_up", || {
        let mut pair = Pair::prepared(&[Shape::Flat; 2], Settings::default());
        pair.site.distrust(0, 1).unwrap();
        pair.start(0);
        pair.start(1);
        eventually("both daemons to answer", || {
            pair.daemons.iter().flatten().all(|daemon| daemon.routes().is_ok())
        });
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            for daemon in pair.daemons.iter().flatten() {
                let routes = daemon.routes().unwrap();
                assert!(routes.iter().all(|r| r.state != "up" && !r.active), "{routes:#?}");
            }
            thread::sleep(WHILE / 5);
        }
        let status = pair.daemon(1).get("/v1/status").unwrap();
        assert_eq!(status["peers"]["sessions"], 0, "{status}");
    });
}

/// Frames from node 0 to node 1 that carry netft's own packets, small enough to be sent again.
fn own_packets(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let to = Lab::mac(0, 1);
    let ours = |frame: &&Vec<u8>| {
        let udp4 = frame.len() > HEADERS && frame[12..14] == [8, 0] && frame[14] == 0x45;
        // RFC 9000 section 17: QUIC sets the second bit of the first byte.
        udp4 && frame[..6] == to && frame[23] == 17 && frame[HEADERS] & 0x40 == 0
    };
    let mut found: Vec<Vec<u8>> =
        frames.iter().filter(ours).filter(|frame| frame.len() <= 1514).cloned().collect();
    for frame in &mut found {
        // RFC 768: zero means no checksum; the captured one may be unfinished.
        frame[40..42].fill(0);
    }
    found
}

#[test]
fn w_07_replayed_packets_are_counted_and_never_delivered() {
    in_namespace("w_07_replayed_packets_are_counted_and_never_delivered", || {
        let mut pair = Pair::up(2);
        let tap = Capture::start(pair.lab.switch(0), &Lab::port(1)).unwrap();
        let probe = pair.probe(0, false);
        let flow = pair.transfer(0, Some(RATE / 5), false);
        thread::sleep(2 * WHILE);
        let packets = own_packets(&tap.frames());
        assert!(packets.len() > 100, "{} packets seen", packets.len());
        let before = pair.drops(1, "replayed");
        for packet in packets.iter().take(200).chain(packets.iter().rev().take(200)) {
            tap.inject(packet).unwrap();
        }
        thread::sleep(WHILE);
        let counted = pair.drops(1, "replayed") - before;
        assert!(counted >= packets.len().min(200) as u64, "{counted} counted");
        alive(flow);
        let report = probe.finish().report();
        assert_eq!((report.lost, report.duplicates), (0, 0), "{report:?}");
        for node in [0, 1] {
            pair.ready(node);
        }
    });
}

#[test]
fn w_02_packets_with_a_flipped_bit_are_counted_and_never_delivered() {
    in_namespace("w_02_packets_with_a_flipped_bit_are_counted_and_never_delivered", || {
        let mut pair = Pair::up(2);
        let tap = Capture::start(pair.lab.switch(0), &Lab::port(1)).unwrap();
        let probe = pair.probe(0, false);
        let flow = pair.transfer(0, Some(RATE / 5), false);
        thread::sleep(2 * WHILE);
        let packets = own_packets(&tap.frames());
        assert!(packets.len() > 100, "{} packets seen", packets.len());
        let total = |pair: &mut Pair| {
            let status = pair.daemon(1).get("/v1/status").unwrap();
            let drops = status["counters"]["drops"].as_object().unwrap().clone();
            drops.values().filter_map(serde_json::Value::as_u64).sum::<u64>()
        };
        let (before, forged) = (total(&mut pair), pair.drops(1, "not_authentic"));
        let mut sent = 0;
        for (turn, packet) in packets.iter().cycle().take(600).enumerate() {
            let mut damaged = packet.clone();
            let payload = damaged.len() - HEADERS;
            // Every other flip hits the tag; the rest walk through the packet.
            let place = if turn % 2 == 0 { payload - 1 } else { turn * 7 % payload };
            damaged[HEADERS + place] ^= 1 << (turn % 8);
            tap.inject(&damaged).unwrap();
            sent += 1;
        }
        thread::sleep(WHILE);
        assert!(pair.drops(1, "not_authentic") - forged >= sent / 4);
        assert!(total(&mut pair) - before >= sent / 2, "damage is counted somewhere");
        alive(flow);
        let report = probe.finish().report();
        assert_eq!((report.lost, report.duplicates), (0, 0), "{report:?}");
        for node in [0, 1] {
            pair.ready(node);
        }
    });
}

#[test]
fn s_01_no_plaintext_is_on_any_wire() {
    in_namespace("s_01_no_plaintext_is_on_any_wire", || {
        let marker = b"netft-plaintext-marker-0123456789";
        let pair = Pair::up(3);
        let taps: Vec<Capture> = (0..3)
            .map(|network| Capture::start(pair.lab.switch(network), &Lab::port(0)).unwrap())
            .collect();
        let bind = |node| {
            let address = pair.endpoint(node, false);
            pair.lab.node(node).run(|| UdpSocket::bind(address)).unwrap()
        };
        let (output, input) = (bind(0), bind(1));
        input.set_read_timeout(Some(8 * WHILE)).unwrap();
        let target = input.local_addr().unwrap();
        let mut buffer = [0; 64];
        for network in 0..3 {
            for _ in 0..200 {
                output.send_to(marker, target).unwrap();
                let length = input.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], marker);
            }
            // The next ones travel over the next network.
            if network < 2 {
                let flow = pair.transfer(0, Some(RATE / 10), false);
                pair.lab.black_hole(network).unwrap();
                thread::sleep(2 * WHILE);
                alive(flow);
            }
        }
        for (network, tap) in taps.into_iter().enumerate() {
            let (frames, missed) = tap.finish();
            assert!(missed == 0 && frames.len() > 200, "network {network}: {}", frames.len());
            let leaks = frames.iter().filter(|f| f.windows(16).any(|w| w == &marker[..16]));
            assert_eq!(leaks.count(), 0, "network {network} shows what it carries");
        }
    });
}
