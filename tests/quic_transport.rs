//! Routes with QUIC transport, alone and beside UDP, in a real kernel.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use common::{
    HOLD_CONFIG, NodePair, TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_flow_alive,
    assert_left_in_time, assert_nothing_lost,
    commands::{has_programs, run_nft},
};
use netft::{
    Adapter,
    api::{error::RouteError, host::identity},
    config::{Config, NetworkConfig, PeerConfig, RouteOverride},
    route::Transport,
};
use netft_lab::{
    Lab, Moment, ScratchDir,
    capture::Capture,
    daemon::{EventFollower, SiteSettings},
    in_namespace,
};
use rustix::process::Signal;

const QUIC: &str = "transport = \"quic\"\n";

/// Two nodes whose routes on `networks` of two are QUIC's, as the nodes of `asking` want.
fn prepared(networks: &[usize], asking: &[usize]) -> NodePair {
    let pair =
        NodePair::prepared_for(2, SiteSettings { common: HOLD_CONFIG, ..SiteSettings::default() });
    for node in asking {
        for network in networks {
            let from = format!("metric = {}\n", 1000 + 100 * network);
            pair.rewrite_config(*node, &from, &format!("{from}{}", QUIC));
        }
    }
    pair
}

fn transports(pair: &mut NodePair, node: usize) -> Vec<String> {
    let routes = pair.daemon(node).get_json("/v1/routes").unwrap();
    let routes = routes["routes"].as_array().unwrap();
    routes.iter().map(|route| route["transport"].as_str().unwrap().to_owned()).collect()
}

/// UDP datagrams among `frames`, and how many of them are not QUIC's by their fixed bit.
fn datagrams(frames: &[Vec<u8>]) -> (usize, usize) {
    let udp = frames.iter().filter(|frame| {
        frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17) && frame.len() > 42
    });
    let first: Vec<u8> = udp.map(|frame| frame[42]).collect();
    (first.len(), first.iter().filter(|first| *first & 0x40 == 0).count())
}

/// True if a daemon was not scheduled since `since`: its events do not count then.
fn starved(events: &[EventFollower; 2], since: Moment) -> bool {
    let seen = events.iter().flat_map(EventFollower::events_so_far);
    seen.into_iter().any(|event| event.name == "stalled" && event.is_at_or_after(since.wall))
}

#[test]
fn a_black_hole_moves_quic_to_quic_and_nothing_is_lost() {
    in_namespace("a_black_hole_moves_quic_to_quic_and_nothing_is_lost", || {
        let pair = prepared(&[0, 1], &[0, 1]);
        let taps =
            [0, 1].map(|n| Capture::start(pair.lab.switch_netns(n), &Lab::port_name(0)).unwrap());
        let mut pair = pair.start_and_wait();
        for node in [0, 1] {
            assert_eq!(transports(&mut pair, node), ["quic", "quic"]);
        }
        let events = [0, 1].map(|node| pair.events(node));
        let flows =
            [pair.transfer(0, Some(TEST_RATE), false), pair.transfer(1, Some(TEST_RATE), true)];
        let probe = pair.probe(0, false);
        thread::sleep(TRAFFIC_CHECK_TIME);
        let (network, route) = pair.active(0);
        let broken = pair.lab.black_hole(network).unwrap();
        let took = pair.time_to_move(&events[0], route.id, broken);
        assert_left_in_time(took, &route, &events, broken);
        thread::sleep(TRAFFIC_CHECK_TIME);
        pair.lab.heal_network(network).unwrap();
        for node in [0, 1] {
            pair.wait_active(node, network);
        }
        thread::sleep(TRAFFIC_CHECK_TIME);
        flows.into_iter().for_each(assert_flow_alive);
        let log = probe.finish();
        if !starved(&events, broken) {
            assert_nothing_lost(&log);
        }
        for tap in taps {
            let (frames, missed) = tap.finish();
            let (seen, strange) = datagrams(&frames);
            assert!(seen > 100 && strange == 0, "{strange} of {seen} are not QUIC's, {missed}");
        }
    });
}

/// One end asks, for one network. Data moves from QUIC to UDP and back: by order, and by a fault
/// of either.
#[test]
fn quic_and_udp_back_each_other_up_and_nothing_is_lost() {
    in_namespace("quic_and_udp_back_each_other_up_and_nothing_is_lost", || {
        for asking in [0, 1] {
            let mut pair = prepared(&[0], &[asking]).start_and_wait();
            for node in [0, 1] {
                let mut transports = transports(&mut pair, node);
                transports.sort();
                assert_eq!(transports, ["quic", "udp"]);
            }
            let events = [0, 1].map(|node| pair.events(node));
            let since = Moment::now();
            let flows = [
                pair.transfer(0, Some(TEST_RATE), false),
                pair.transfer(1, Some(TEST_RATE), false),
            ];
            let probes = [pair.probe(0, false), pair.probe(1, false)];
            thread::sleep(TRAFFIC_CHECK_TIME);
            assert_eq!(pair.active(0).0, 0);
            pair.prefer_network(0, 1);
            thread::sleep(TRAFFIC_CHECK_TIME);
            pair.prefer_network(0, 0);
            thread::sleep(TRAFFIC_CHECK_TIME);
            for network in [0, 1] {
                pair.lab.black_hole(network).unwrap();
                for node in [0, 1] {
                    pair.wait_active(node, 1 - network);
                }
                thread::sleep(TRAFFIC_CHECK_TIME);
                pair.lab.heal_network(network).unwrap();
                for node in [0, 1] {
                    pair.wait_routes_up(node);
                }
                thread::sleep(4 * TRAFFIC_CHECK_TIME);
            }
            flows.into_iter().for_each(assert_flow_alive);
            for probe in probes {
                let log = probe.finish();
                if !starved(&events, since) {
                    assert_nothing_lost(&log);
                }
            }
        }
    });
}

/// Rules for a node: of UDP, only port 443 with QUIC's fixed bit comes in.
const ONLY_QUIC: &str = "add table inet guard; add chain inet guard entry { type filter hook input \
     priority 0; }; add rule inet guard entry iifname eth* meta l4proto udp udp dport != 443 drop; \
     add rule inet guard entry iifname eth* meta l4proto udp @th,65,1 0 drop";

#[test]
fn a_firewall_that_passes_only_quic_on_port_443_is_enough() {
    in_namespace("a_firewall_that_passes_only_quic_on_port_443_is_enough", || {
        if !has_programs(&["nft"]) {
            return;
        }
        let common = "[failover]\nhold = 300\n[session]\nport = 443\n";
        let pair = NodePair::prepared_for(2, SiteSettings { common, ..SiteSettings::default() });
        for node in [0, 1] {
            for network in [0, 1] {
                let from = format!("metric = {}\n", 1000 + 100 * network);
                pair.rewrite_config(node, &from, &format!("{from}{}", QUIC));
            }
            run_nft(pair.lab.node_netns(node), ONLY_QUIC);
        }
        let pair = pair.start_and_wait();
        let flows =
            [pair.transfer(0, Some(TEST_RATE), false), pair.transfer(1, Some(TEST_RATE), true)];
        thread::sleep(TRAFFIC_CHECK_TIME);
        flows.into_iter().for_each(assert_flow_alive);
    });
}

#[test]
fn heartbeats_survive_saturation() {
    in_namespace("heartbeats_survive_saturation", || {
        let mut pair = prepared(&[0, 1], &[0, 1]).start_and_wait();
        let events = [0, 1].map(|node| pair.events(node));
        let since = Moment::now();
        let flows = [pair.transfer(0, None, false), pair.transfer(1, None, false)];
        thread::sleep(Duration::from_secs(3));
        let blamed: Vec<_> = events
            .iter()
            .flat_map(EventFollower::events_so_far)
            .filter(|e| e.is_at_or_after(since.wall) && e.name == "state-changed")
            .collect();
        if !starved(&events, since) {
            assert!(blamed.is_empty(), "{blamed:#?}");
        }
        for node in [0, 1] {
            println!("node {node}: {} bulk frames refused", pair.drops(node, "queue_full"));
        }
        flows.into_iter().for_each(assert_flow_alive);
    });
}

#[test]
fn a_restarted_daemon_has_its_quic_routes_again() {
    in_namespace("a_restarted_daemon_has_its_quic_routes_again", || {
        for asking in [0, 1] {
            let mut pair = prepared(&[0, 1], &[asking]).start_and_wait();
            let flow = pair.transfer(0, Some(TEST_RATE), false);
            for node in [0, 1] {
                pair.daemons[node].take().unwrap().kill().unwrap();
                pair.start(node);
                for node in [0, 1] {
                    pair.wait_routes_up(node);
                    let quic = |pair: &mut NodePair| transports(pair, node) == ["quic", "quic"];
                    let tries = TEST_TIMEOUT.as_millis() / TRAFFIC_CHECK_TIME.as_millis();
                    let mut tries = 0..tries;
                    while !quic(&mut pair) {
                        assert!(tries.next().is_some(), "no QUIC after a restart");
                        thread::sleep(TRAFFIC_CHECK_TIME);
                    }
                }
            }
            assert_flow_alive(flow);
        }
    });
}

/// By the operator's command and by SIGHUP; for a network and for a peer.
#[test]
fn a_reload_changes_the_carrier_and_nobody_notices() {
    in_namespace("a_reload_changes_the_carrier_and_nobody_notices", || {
        let mut pair = prepared(&[], &[]).start_and_wait();
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        let steps = [
            ("metric = 1000\n", format!("metric = 1000\n{QUIC}"), ["quic", "udp"], false),
            ("[[peer]]\n", format!("[[peer]]\n{QUIC}"), ["quic", "quic"], true),
            (&*format!("[[peer]]\n{QUIC}"), "[[peer]]\n".to_owned(), ["quic", "udp"], false),
            (
                &*format!("metric = 1000\n{QUIC}"),
                "metric = 1000\n".to_owned(),
                ["udp", "udp"],
                true,
            ),
        ];
        for (from, to, expected, signal) in steps {
            pair.rewrite_config(0, from, &to);
            if signal {
                pair.daemon(0).send_signal(Signal::HUP).unwrap();
            } else {
                let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
                let done = command.args(["reload"]).output().unwrap();
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                let said = String::from_utf8_lossy(&done.stdout).into_owned();
                assert!(said.contains("transport"), "{said}");
            }
            for node in [0, 1] {
                let mut tries = 0..TEST_TIMEOUT.as_millis() / TRAFFIC_CHECK_TIME.as_millis();
                let over = |mut all: Vec<String>| {
                    all.sort();
                    all == expected
                };
                while !over(transports(&mut pair, node)) {
                    assert!(tries.next().is_some(), "node {node} does not go over to {expected:?}");
                    thread::sleep(TRAFFIC_CHECK_TIME);
                }
                pair.wait_routes_up(node);
            }
        }
        assert_flow_alive(flow);
    });
}

/// Through the library: a route takes its transport from its entry, and a second entry for the same
/// route changes nothing.
#[test]
fn a_route_added_by_hand_has_its_transport_and_is_refused_the_second_time() {
    in_namespace("a_route_added_by_hand_has_its_transport_and_is_refused_the_second_time", || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(added_by_hand());
    });
}

async fn added_by_hand() {
    let keys = [identity::generate_key().unwrap(), identity::generate_key().unwrap()];
    let public = keys.each_ref().map(|key| identity::public_key(key).unwrap());
    let folder = ScratchDir::new("by-hand").unwrap();
    let [first, second]: [SocketAddr; 2] = [1, 2].map(|n| ([127, n, 0, 2], 3343).into());
    let own = |to: SocketAddr| IpAddr::from([127, if to == first { 1 } else { 2 }, 0, 1]);
    let peer = PeerConfig::new("b", public[1])
        .with_route(RouteOverride::to_remote(first).with_local(own(first)));
    let mut config = Config::builder("a", keys[0].clone())
        .with_runtime_dir(folder.path().to_owned())
        .with_peer(peer);
    // Loopback addresses are used only where a network names them.
    for prefix in ["127.1.0.0/16", "127.2.0.0/16"] {
        config = config.with_network(NetworkConfig::new(prefix.parse().unwrap()));
    }
    let node = Adapter::open(config.build().unwrap()).await.unwrap();
    let routes = async || {
        let routes = node.snapshot().await.unwrap().routes;
        let all = routes.into_iter().map(|route| (route.spec.real_remote, route.spec.transport));
        all.collect::<Vec<_>>()
    };
    let peer = node.snapshot().await.unwrap().peers[0].status.peer;
    assert_eq!(routes().await, [(first, Transport::Udp)]);
    let known = node.snapshot().await.unwrap().routes[0].id;
    let quic = |to| RouteOverride {
        transport: Some(Transport::Quic),
        ..RouteOverride::to_remote(to).with_local(own(to))
    };
    assert_eq!(node.add_route(peer, quic(first)).await, Err(RouteError::Exists(known)));
    assert_eq!(routes().await, [(first, Transport::Udp)]);
    let nowhere = "203.0.113.1:3343".parse().unwrap();
    assert_eq!(
        node.add_route(peer, RouteOverride::to_remote(nowhere)).await,
        Err(RouteError::NoLocalAddress(nowhere))
    );
    node.add_route(peer, quic(second)).await.unwrap();
    assert_eq!(routes().await, [(first, Transport::Udp), (second, Transport::Quic)]);
    node.close().await;
}
