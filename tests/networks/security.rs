//! An attacker on the wire learns and achieves nothing.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    NodePair, TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_flow_alive, programs, wait_until,
};
use netft_lab::{
    Lab, Moment, NetworkLayout,
    capture::Capture,
    daemon::{EventLine, Site, SiteSettings},
    in_namespace,
    transfer::Transfer,
};

/// Bytes before the payload of an Ethernet frame with IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;

#[test]
fn w_13_a_node_with_another_key_never_comes_up() {
    in_namespace("w_13_a_node_with_another_key_never_comes_up", || {
        let mut pair = NodePair::prepared(&[NetworkLayout::Flat; 2], SiteSettings::default());
        pair.site.replace_peer_key(0, 1).unwrap();
        pair.start(0);
        pair.start(1);
        wait_until("both daemons to answer", || {
            pair.daemons.iter().flatten().all(|daemon| daemon.routes().is_ok())
        });
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            for daemon in pair.daemons.iter().flatten() {
                let routes = daemon.routes().unwrap();
                assert!(routes.iter().all(|r| r.state != "up" && !r.active), "{routes:#?}");
            }
            thread::sleep(TRAFFIC_CHECK_TIME / 5);
        }
        let status = pair.daemon(1).get_json("/v1/status").unwrap();
        assert_eq!(status["peers"]["sessions"], 0, "{status}");
    });
}

/// Frames from node 0 to node 1 that carry netft's own packets, small enough to be sent again.
fn own_packets(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let to = Lab::nic_mac(0, 1);
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
        let mut pair = NodePair::start_up(2);
        let tap = Capture::start(pair.lab.switch_netns(0), &Lab::port_name(1)).unwrap();
        let probe = pair.probe(0, false);
        let flow = pair.transfer(0, Some(TEST_RATE / 5), false);
        thread::sleep(2 * TRAFFIC_CHECK_TIME);
        let packets = own_packets(&tap.frames());
        assert!(packets.len() > 100, "{} packets seen", packets.len());
        let before = pair.drops(1, "replayed");
        for packet in packets.iter().take(200).chain(packets.iter().rev().take(200)) {
            tap.inject_frame(packet).unwrap();
        }
        thread::sleep(TRAFFIC_CHECK_TIME);
        let counted = pair.drops(1, "replayed") - before;
        assert!(counted >= packets.len().min(200) as u64, "{counted} counted");
        assert_flow_alive(flow);
        let report = probe.finish().full_report();
        assert_eq!((report.lost, report.duplicates), (0, 0), "{report:?}");
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
    });
}

/// Packets of node 0 that node 1 never received: caught at the sender's end of network 0 while it
/// delivers nothing that way. Data travels over network 1 when this returns.
fn undelivered(pair: &mut NodePair) -> Vec<Vec<u8>> {
    let tap = Capture::start(pair.lab.switch_netns(0), &Lab::port_name(0)).unwrap();
    let flow = pair.transfer(0, Some(TEST_RATE / 5), false);
    pair.lab.drop_one_way(0, 0, 1).unwrap();
    pair.wait_active(0, 1);
    assert_flow_alive(flow);
    let before = own_packets(&tap.frames()).len();
    wait_until("requests on the broken route", || own_packets(&tap.frames()).len() > before + 5);
    let (frames, _) = tap.finish();
    // Frames from before the fault were delivered, those of the later half were not.
    let packets = own_packets(&frames);
    packets[packets.len() / 2..].to_vec()
}

/// The frame with the first `length` bytes of its UDP payload.
fn cut(frame: &[u8], length: usize) -> Vec<u8> {
    let mut frame = frame[..HEADERS + length].to_vec();
    let [ip, udp] = [28 + length, 8 + length].map(|length| u16::try_from(length).unwrap());
    frame[16..18].copy_from_slice(&ip.to_be_bytes());
    frame[38..40].copy_from_slice(&udp.to_be_bytes());
    finish(frame)
}

/// Puts the IPv4 header checksum (RFC 1071) right.
fn finish(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let words = frame[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let sum = !((folded & 0xffff) + (folded >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Waits until `count` says at least `least`.
fn counted(pair: &mut NodePair, least: u64, count: impl Fn(&mut NodePair) -> u64) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let now = count(pair);
        if now >= least {
            return;
        }
        crate::common::assert_before(deadline, || format!("{now} counted, {least} expected"));
        thread::sleep(TRAFFIC_CHECK_TIME / 25);
    }
}

#[test]
fn w_02_packets_with_a_flipped_bit_are_counted_and_never_delivered() {
    in_namespace("w_02_packets_with_a_flipped_bit_are_counted_and_never_delivered", || {
        let mut pair = NodePair::start_up(2);
        let packets = undelivered(&mut pair);
        let tap = Capture::start(pair.lab.switch_netns(0), &Lab::port_name(1)).unwrap();
        let probe = pair.probe(0, false);
        let flow = pair.transfer(0, Some(TEST_RATE / 5), false);
        let before = [pair.all_drops(1), pair.drops(1, "not_authentic")];
        let sent = 300;
        for (turn, packet) in packets.iter().cycle().take(2 * sent).enumerate() {
            let mut damaged = packet.clone();
            let payload = damaged.len() - HEADERS;
            // Every other flip hits what is sealed; the rest walk through the header, but for the
            // first byte, where one may make it a QUIC packet, which QUIC drops.
            let place = if turn % 2 == 0 { 16 + turn * 7 % (payload - 16) } else { 1 + turn % 15 };
            damaged[HEADERS + place] ^= 1 << (turn % 8);
            tap.inject_frame(&damaged).unwrap();
        }
        counted(&mut pair, before[1] + sent as u64, |pair| pair.drops(1, "not_authentic"));
        counted(&mut pair, before[0] + 2 * sent as u64, |pair| pair.all_drops(1));
        assert_flow_alive(flow);
        let report = probe.finish().full_report();
        assert_eq!((report.lost, report.duplicates), (0, 0), "{report:?}");
        pair.lab.heal_network(0).unwrap();
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
    });
}

#[test]
fn w_01_packets_cut_short_are_counted_and_never_delivered() {
    in_namespace("w_01_packets_cut_short_are_counted_and_never_delivered", || {
        let mut pair = NodePair::start_up(2);
        let packets = undelivered(&mut pair);
        let tap = Capture::start(pair.lab.switch_netns(0), &Lab::port_name(1)).unwrap();
        let probe = pair.probe(0, false);
        let before = pair.all_drops(1);
        let longest = packets.iter().max_by_key(|packet| packet.len()).unwrap();
        let whole = longest.len() - HEADERS;
        let mut sent = 0;
        for length in (0..40.min(whole)).chain((40..whole).step_by(13)) {
            tap.inject_frame(&cut(longest, length)).unwrap();
            sent += 1;
        }
        counted(&mut pair, before + sent, |pair| pair.all_drops(1));
        let report = probe.finish().full_report();
        assert_eq!((report.lost, report.duplicates), (0, 0), "{report:?}");
        pair.lab.heal_network(0).unwrap();
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
    });
}

#[test]
fn w_12_an_authentic_heartbeat_on_another_route_speaks_for_neither() {
    in_namespace("w_12_an_authentic_heartbeat_on_another_route_speaks_for_neither", || {
        let mut pair = NodePair::start_up(2);
        let packets = undelivered(&mut pair);
        let heartbeats: Vec<_> =
            packets.into_iter().filter(|packet| packet[HEADERS] == 0x12).collect();
        assert!(heartbeats.len() >= 3, "{} heartbeats caught", heartbeats.len());
        let tap = Capture::start(pair.lab.switch_netns(1), &Lab::port_name(1)).unwrap();
        let before = pair.drops(1, "misrouted");
        for packet in &heartbeats {
            let mut packet = packet.clone();
            packet[..6].copy_from_slice(&Lab::nic_mac(1, 1));
            packet[6..12].copy_from_slice(&Lab::nic_mac(1, 0));
            packet[26..30].copy_from_slice(&pair.lab.node_ipv4(1, 0).octets());
            packet[30..34].copy_from_slice(&pair.lab.node_ipv4(1, 1).octets());
            tap.inject_frame(&finish(packet)).unwrap();
        }
        let all = before + heartbeats.len() as u64;
        counted(&mut pair, all, |pair| pair.drops(1, "misrouted"));
        let routes = pair.daemon(1).routes().unwrap();
        let deaf = routes.iter().filter(|route| !route.rx).count();
        assert_eq!(deaf, 1, "only the route nothing arrives on: {routes:#?}");
    });
}

#[test]
fn f_28_a_clone_is_refused_loudly_and_the_first_goes_on() {
    in_namespace("f_28_a_clone_is_refused_loudly_and_the_first_goes_on", || {
        let lab = Lab::new(3, 1).unwrap();
        let site = Site::new(&lab, programs(), SiteSettings::default()).unwrap();
        // Node 2 is a copy of node 1 at another address, which node 0 takes for one of node 1's.
        let [one, two] = [1, 2].map(|node| lab.node_ipv4(0, node).to_string());
        let text = |node| std::fs::read_to_string(site.config_path(node)).unwrap();
        let folder = |node| site.config_path(node).parent().unwrap().to_owned();
        let keep = |text: &str, peers: usize| {
            let parts: Vec<&str> = text.split("[[peer]]").collect();
            parts[..=peers].join("[[peer]]")
        };
        let first =
            keep(&text(0), 1).replace(&format!("\"{one}\""), &format!("\"{one}\", \"{two}\""));
        std::fs::write(site.config_path(0), first).unwrap();
        let copy = keep(&text(1), 1);
        std::fs::write(site.config_path(1), &copy).unwrap();
        std::fs::write(site.config_path(2), &copy).unwrap();
        std::fs::copy(folder(1).join("key"), folder(2).join("key")).unwrap();

        let daemons = [0, 1].map(|node| site.start_daemon(&lab, node).unwrap());
        let [mut here, mut genuine] = daemons;
        here.wait_for("a route", TEST_TIMEOUT, |routes| routes.iter().any(|r| r.active)).unwrap();
        genuine.wait_ready(1).unwrap();
        let events = site.follow_events(&lab, 0).unwrap();
        let genuine_events = site.follow_events(&lab, 1).unwrap();
        let endpoint = |node| site.virtual_endpoint(&lab, node, false).unwrap();
        let (from, to) = ((lab.node_netns(0), endpoint(0)), (lab.node_netns(1), endpoint(1)));
        let flow = Transfer::start(from, to, Some(TEST_RATE)).unwrap();
        let before = Moment::now();
        let clone = site.start_daemon(&lab, 2).unwrap();
        let duplicate = |event: &EventLine| event.name == "duplicate-node";
        events.wait_for("the clone to be reported", before.wall, TEST_TIMEOUT, duplicate).unwrap();
        let copied = |event: &EventLine| event.name == "key-copied";
        genuine_events.wait_for("the original to know", before.wall, TEST_TIMEOUT, copied).unwrap();
        wait_until("the clone to be refused", || clone.log_text().contains("cloned node"));
        let lost =
            |event: &EventLine| event.is_at_or_after(before.wall) && event.name == "session-ended";
        assert!(!events.events_so_far().iter().any(lost), "the genuine node lost its session");
        assert_flow_alive(flow);
    });
}

#[test]
fn s_01_no_plaintext_is_on_any_wire() {
    in_namespace("s_01_no_plaintext_is_on_any_wire", || {
        let marker = b"netft-plaintext-marker-0123456789";
        let pair = NodePair::start_up(3);
        let taps: Vec<Capture> = (0..3)
            .map(|network| {
                Capture::start(pair.lab.switch_netns(network), &Lab::port_name(0)).unwrap()
            })
            .collect();
        let bind = |node| {
            let address = pair.endpoint(node, false);
            pair.lab.node_netns(node).run_inside(|| UdpSocket::bind(address)).unwrap()
        };
        let (output, input) = (bind(0), bind(1));
        input.set_read_timeout(Some(8 * TRAFFIC_CHECK_TIME)).unwrap();
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
                let flow = pair.transfer(0, Some(TEST_RATE / 10), false);
                pair.lab.black_hole(network).unwrap();
                thread::sleep(2 * TRAFFIC_CHECK_TIME);
                assert_flow_alive(flow);
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
