//! An adapter whose MTU is above what its networks carry, and networks that carry more than others.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use common::{
    HOLD_CONFIG, NodePair, TEST_TIMEOUT, assert_flow_alive, assert_left_in_time, wait_until,
};
use netft_lab::{NetworkLayout, daemon::SiteSettings, in_namespace};
use rustix::net::sockopt;

/// The adapter's MTU in these tests.
const MTU: u32 = 62_000;
const LARGE: &str = "[failover]\nhold = 300\n[adapter]\nmtu = 62000\n";
const PLAIN: &str = "[failover]\nhold = 300\n[adapter]\nmtu = 62000\nbackend = \"plain\"\n";
/// Payload sizes around every limit: one frame, one fragment more, one send, the
/// adapter's largest packet.
const SIZES: [usize; 16] = [
    0, 1, 1200, 1390, 1412, 1413, 1420, 1440, 2850, 4096, 8900, 9000, 20_000, 44_000, 61_000,
    61_952,
];

/// Two sockets on the adapters that send each other datagrams.
struct Talk {
    ends: [UdpSocket; 2],
}

impl Talk {
    fn new(pair: &NodePair, six: bool) -> Self {
        let ends = [0, 1].map(|node| {
            let endpoint = pair.endpoint(node, six);
            pair.lab.node_netns(node).run_inside(|| UdpSocket::bind(endpoint)).unwrap()
        });
        for (node, end) in ends.iter().enumerate() {
            let mut to = pair.endpoint(1 - node, six);
            to.set_port(ends[1 - node].local_addr().unwrap().port());
            if let std::net::SocketAddr::V6(v6) = &mut to {
                let std::net::SocketAddr::V6(here) = end.local_addr().unwrap() else { panic!() };
                v6.set_scope_id(here.scope_id());
            }
            end.connect(to).unwrap();
            end.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        }
        Self { ends }
    }

    /// The kernel's path MTU to the other end.
    fn mtu(&self, node: usize) -> u32 {
        let end = &self.ends[node];
        if end.local_addr().unwrap().is_ipv4() {
            sockopt::ip_mtu(end).unwrap()
        } else {
            sockopt::ipv6_mtu(end).unwrap()
        }
    }

    /// Sends a datagram each way and asserts that it arrives as it was.
    fn exchange(&self, len: usize, mark: u8) {
        let mut buffer = vec![0; 65_536];
        for node in [0, 1] {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 131 % 251) as u8 ^ mark).collect();
            assert_eq!(self.ends[node].send(&bytes).unwrap(), len);
            let got = self.ends[1 - node].recv(&mut buffer).unwrap();
            assert!(buffer[..got] == bytes, "{len} bytes from {node} came as {got}, or changed");
        }
    }
}

/// Both families; returns them when the kernel knows how large packets may be.
fn talks(pair: &NodePair, mtu: u32) -> [Talk; 2] {
    [false, true].map(|six| {
        // A socket keeps the route it was connected with.
        wait_until("the host route's MTU", || {
            let talk = Talk::new(pair, six);
            [0, 1].map(|node| talk.mtu(node)) == [mtu; 2]
        });
        Talk::new(pair, six)
    })
}

fn frames_sent(pair: &mut NodePair, node: usize) -> u64 {
    pair.daemon(node).get_json("/v1/status").unwrap()["counters"]["tx_frames"].as_u64().unwrap()
}

#[test]
fn datagrams_of_every_size_arrive_over_1500_byte_networks() {
    in_namespace("datagrams_of_every_size_arrive_over_1500_byte_networks", || {
        for each in [[LARGE, LARGE], [LARGE, PLAIN], [PLAIN, PLAIN]] {
            let mut pair = NodePair::start_with(
                2,
                SiteSettings { per_node: &each, ..SiteSettings::default() },
            );
            let talks = talks(&pair, MTU);
            let before = [0, 1].map(|node| frames_sent(&mut pair, node));
            for (mark, len) in (0..).zip(SIZES) {
                talks.iter().for_each(|talk| talk.exchange(len, mark));
            }
            for node in [0, 1] {
                let bytes = 2 * SIZES.iter().sum::<usize>() as u64;
                let sent = frames_sent(&mut pair, node) - before[node];
                assert!(sent > bytes / 1500, "{sent} frames cannot have carried it");
                assert_eq!(pair.drops(node, "incomplete"), 0);
                assert_eq!(pair.drops(node, "malformed"), 0);
            }
        }
    });
}

#[test]
fn a_stream_over_a_dying_route_arrives_unchanged() {
    in_namespace("a_stream_over_a_dying_route_arrives_unchanged", || {
        for each in [[LARGE, LARGE], [LARGE, PLAIN]] {
            let mut pair = NodePair::start_with(
                2,
                SiteSettings { per_node: &each, ..SiteSettings::default() },
            );
            talks(&pair, MTU);
            let flows = [(0, false), (1, true)].map(|(from, six)| pair.transfer(from, None, six));
            for _ in 0..2 {
                thread::sleep(Duration::from_millis(300));
                let (network, _) = pair.active(0);
                pair.lab.black_hole(network).unwrap();
                pair.wait_active(0, 1 - network);
                pair.lab.heal_network(network).unwrap();
                for node in [0, 1] {
                    pair.wait_routes_up(node);
                }
            }
            flows.into_iter().for_each(assert_flow_alive);
        }
    });
}

/// Datagrams in slices while their route dies: what it swallowed is sent again.
#[test]
fn large_datagrams_survive_a_dying_route() {
    in_namespace("large_datagrams_survive_a_dying_route", || {
        let mut pair =
            NodePair::start_with(2, SiteSettings { common: LARGE, ..SiteSettings::default() });
        let [talk, _] = talks(&pair, MTU);
        for mark in 0..2 {
            let (network, _) = pair.active(0);
            pair.lab.black_hole(network).unwrap();
            // Nothing has noticed yet.
            talk.exchange(50_000, mark);
            pair.wait_active(0, 1 - network);
            pair.lab.heal_network(network).unwrap();
            for node in [0, 1] {
                pair.wait_routes_up(node);
            }
        }
    });
}

/// Frames are as large as every usable network takes, so that any can be sent again on another.
#[test]
fn frames_grow_on_jumbo_networks_and_shrink_beside_a_small_one() {
    in_namespace("frames_grow_on_jumbo_networks_and_shrink_beside_a_small_one", || {
        let settings = SiteSettings { common: LARGE, ..SiteSettings::default() };
        let mut pair = NodePair::prepared(&[NetworkLayout::Flat; 2], settings);
        for network in [0, 1] {
            pair.lab.set_mtu(network, 9000).unwrap();
        }
        for node in [0, 1] {
            pair.start(node);
        }
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
        let [talk, _] = talks(&pair, MTU);
        let frames = |pair: &mut NodePair| {
            let before = frames_sent(pair, 0);
            (0..50).for_each(|mark| talk.exchange(60_000, mark));
            frames_sent(pair, 0) - before
        };
        let jumbo = frames(&mut pair);
        assert!((50 * 7..50 * 12).contains(&jumbo), "{jumbo} frames of 9000 bytes");
        // The network that carries nothing now is enough.
        pair.lab.set_mtu(1, 1500).unwrap();
        let deadline = Instant::now() + TEST_TIMEOUT;
        while frames(&mut pair) < 50 * 42 {
            common::assert_before(deadline, || "frames stay large".to_owned());
        }
        let flow = pair.transfer(0, None, false);
        pair.lab.black_hole(0).unwrap();
        talk.exchange(60_000, 77);
        pair.wait_active(0, 1);
        assert_flow_alive(flow);
        assert_eq!(pair.drops(0, "too_big"), 0);
    });
}

/// Networks of 9000 bytes carry packets of their size, one to a frame, without slices.
#[test]
fn jumbo_networks_carry_jumbo_packets() {
    in_namespace("jumbo_networks_carry_jumbo_packets", || {
        let common = format!("{HOLD_CONFIG}[adapter]\nmtu = 8900\n");
        let settings = SiteSettings { common: &common, ..SiteSettings::default() };
        let mut pair = NodePair::prepared(&[NetworkLayout::Flat], settings);
        pair.lab.set_mtu(0, 9000).unwrap();
        for node in [0, 1] {
            pair.start(node);
        }
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
        let talks = talks(&pair, 8900);
        let before = frames_sent(&mut pair, 0);
        for mark in 0..50 {
            talks.iter().for_each(|talk| talk.exchange(8800, mark));
        }
        let sent = frames_sent(&mut pair, 0) - before;
        assert!((100..400).contains(&sent), "{sent} frames for 100 packets and some heartbeats");
        let flow = pair.transfer(0, None, true);
        thread::sleep(Duration::from_millis(200));
        assert_flow_alive(flow);
    });
}

/// F-11: bulk data leaves a network of 9000 bytes for one of 1280.
#[test]
fn f_11_a_move_to_a_narrower_network_keeps_the_flow() {
    in_namespace("f_11_a_move_to_a_narrower_network_keeps_the_flow", || {
        let common = "[adapter]\nmtu = 8900\n";
        let pair = NodePair::prepared(
            &[NetworkLayout::Flat; 2],
            SiteSettings { common, ..SiteSettings::default() },
        );
        pair.lab.set_mtu(0, 9000).unwrap();
        pair.lab.set_mtu(1, 1280).unwrap();
        let mut pair = pair.start_and_wait();
        let events = [0, 1].map(|node| pair.events(node));
        let (network, route) = pair.active(0);
        let flow = pair.transfer(0, None, false);
        thread::sleep(Duration::from_millis(400));
        let at = pair.lab.black_hole(network).unwrap();
        pair.wait_active(0, 1 - network);
        thread::sleep(Duration::from_millis(500));
        let stall = flow.longest_stall(at.monotonic, Instant::now());
        println!("from network {network}: a stall of {stall:?}");
        assert_left_in_time(stall, &route, &events, at);
        assert_flow_alive(flow);
    });
}
