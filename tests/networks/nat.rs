//! A node behind a NAT dials out; where it answers a challenge, the other one's route leads
//! (S-09, F-27).

use std::{net::Ipv4Addr, process::Command, thread};

use crate::common::{NodePair, TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_flow_alive};
use netft_lab::{
    Lab, Moment, NetworkLayout,
    capture::Capture,
    daemon::{EventFollower, RouteRow, SiteSettings},
    in_namespace,
};

/// The node behind the router, and the one outside.
const INSIDE: usize = 0;
const OUTSIDE: usize = 1;
/// Bytes before the payload of an Ethernet frame with IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;

/// Two nodes with a router between that hides the first; `known`: the other one's config has the
/// address that leads nowhere.
fn hidden(known: bool) -> Option<NodePair> {
    hidden_with(|line| if known { line.to_owned() } else { String::new() })
}

/// The same; `other` stands in the other one's config instead of that address.
fn hidden_with(other: impl Fn(&str) -> String) -> Option<NodePair> {
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("skipped: nft is not installed");
        return None;
    }
    let mut pair = NodePair::prepared(&[NetworkLayout::Routed], SiteSettings::default());
    pair.lab.enable_nat(0, 40_000..=40_099).unwrap();
    let line = format!("addresses = [\"{}\"]\n", pair.lab.node_ipv4(0, INSIDE));
    pair.rewrite_config(OUTSIDE, &line, &other(&line));
    for node in [OUTSIDE, INSIDE] {
        pair.start(node);
    }
    for node in [OUTSIDE, INSIDE] {
        let up =
            |routes: &[RouteRow]| routes.iter().any(|route| route.active && route.state == "up");
        pair.daemon(node).wait_for("a route through the router", TEST_TIMEOUT, up).unwrap();
    }
    Some(pair)
}

/// The route to the mapped address at the node outside.
fn mapped(pair: &mut NodePair) -> RouteRow {
    let routes = pair.daemon(OUTSIDE).routes().unwrap();
    routes.into_iter().find(|route| route.active).unwrap()
}

fn ends(route: &RouteRow) -> (Ipv4Addr, u16) {
    let (address, port) = route.real_remote.rsplit_once(':').unwrap();
    (address.parse().unwrap(), port.parse().unwrap())
}

/// Waits until a route leads to another address of the peer, and says which.
fn adopted(events: &EventFollower, since: Moment) -> (u64, String) {
    let learned = |event: &netft_lab::daemon::EventLine| event.name == "address-learned";
    let event = events.wait_for("an adopted address", since.wall, TEST_TIMEOUT, learned).unwrap();
    let after = event.at.duration_since(since.wall).unwrap_or_default();
    println!("adopted {after:?} after the mapping changed");
    (event.u64_field("route").unwrap(), event.str_field("to").unwrap().to_owned())
}

fn counter(pair: &mut NodePair, name: &str) -> u64 {
    pair.daemon(OUTSIDE).get_json("/v1/status").unwrap()["counters"][name].as_u64().unwrap()
}

#[test]
fn a_node_behind_a_nat_dials_out_and_data_goes_both_ways() {
    in_namespace("a_node_behind_a_nat_dials_out_and_data_goes_both_ways", || {
        for known in [false, true] {
            let Some(mut pair) = hidden(known) else { return };
            let route = mapped(&mut pair);
            let (address, port) = ends(&route);
            assert_eq!(address, pair.lab.outer_address(0));
            assert!((40_000..40_100).contains(&port), "{route:?}");
            assert_flow_alive(pair.transfer(INSIDE, Some(TEST_RATE), false));
            assert_flow_alive(pair.transfer(OUTSIDE, Some(TEST_RATE), false));
            let mut shown = pair.site.operator_command(&pair.lab, OUTSIDE).unwrap();
            let shown = shown.args(["routes", "--json"]).output().unwrap();
            let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
            let rows = shown["routes"].as_array().unwrap();
            // The other one leads where the peer says it is, and nothing comes back from there.
            let up: Vec<_> = rows.iter().filter(|row| row["state"] == "up").collect();
            assert_eq!((rows.len(), up.len()), (2, 1), "{shown}");
            assert_eq!(up[0]["real_remote"], route.real_remote, "{shown}");
            assert_eq!(up[0]["attributes"], 0x8000_0010_u32, "cross-subnet, learned: {shown}");
            assert_eq!(pair.daemon(INSIDE).routes().unwrap().len(), 1);
        }
    });
}

#[test]
fn f_27_a_route_follows_the_mapping_and_no_flow_breaks() {
    in_namespace("f_27_a_route_follows_the_mapping_and_no_flow_breaks", || {
        let Some(mut pair) = hidden(false) else { return };
        let events = pair.events(OUTSIDE);
        let (before, outer) = (mapped(&mut pair), pair.lab.outer_address(0));
        let flows = [INSIDE, OUTSIDE].map(|node| pair.transfer(node, Some(TEST_RATE), false));
        thread::sleep(TRAFFIC_CHECK_TIME);
        let [.., host] = outer.octets();
        let [a, b, c, _] = outer.octets();
        let other = Ipv4Addr::new(a, b, c, host - 1);
        // Another port; another address and port; and back.
        let mut last = (outer, ends(&before).1);
        for (turn, outside) in [outer, other, outer].into_iter().enumerate() {
            let first = 50_000 + 100 * u16::try_from(turn).unwrap();
            pair.lab.enable_nat(0, first..=first + 99).unwrap();
            let since = Moment::now();
            pair.lab.reset_nat_mappings(0, last.0, outside).unwrap();
            let (id, to) = adopted(&events, since);
            assert_eq!(id, before.id, "the same route, no other one");
            let route = mapped(&mut pair);
            assert_eq!((route.id, &route.real_remote), (before.id, &to));
            let (address, port) = ends(&route);
            assert_eq!(address, outside);
            assert!((first..first + 100).contains(&port), "{route:?}");
            last = (address, port);
            thread::sleep(TRAFFIC_CHECK_TIME);
        }
        for flow in flows {
            assert_flow_alive(flow);
        }
        // No route was made beside it, and it never went down.
        let routes = pair.daemon(OUTSIDE).routes().unwrap();
        assert_eq!(routes.len(), 2, "{routes:?}");
        let sent = counter(&mut pair, "challenges_sent");
        assert!((4..=40).contains(&sent), "{sent} challenges for four addresses");
    });
}

#[test]
fn the_node_outside_may_ask_for_quic() {
    in_namespace("the_node_outside_may_ask_for_quic", || {
        let Some(mut pair) = hidden_with(|_| "transport = \"quic\"\n".to_owned()) else { return };
        for node in [OUTSIDE, INSIDE] {
            let quic = |pair: &mut NodePair| {
                let answer = pair.daemon(node).get_json("/v1/routes").unwrap();
                let rows = answer["routes"].as_array().unwrap().clone();
                rows.iter().any(|row| row["active"] == true && row["transport"] == "quic")
            };
            let deadline = std::time::Instant::now() + TEST_TIMEOUT;
            while !quic(&mut pair) {
                crate::common::assert_before(deadline, || "no data over QUIC".to_owned());
                thread::sleep(TRAFFIC_CHECK_TIME / 5);
            }
        }
        assert_flow_alive(pair.transfer(INSIDE, Some(TEST_RATE), false));
        assert_flow_alive(pair.transfer(OUTSIDE, Some(TEST_RATE), false));
    });
}

#[test]
fn either_end_may_start_again() {
    in_namespace("either_end_may_start_again", || {
        let Some(mut pair) = hidden(false) else { return };
        for node in [INSIDE, OUTSIDE] {
            pair.daemons[node] = None;
            pair.start(node);
            for node in [OUTSIDE, INSIDE] {
                let up = |routes: &[RouteRow]| {
                    routes.iter().any(|route| route.active && route.state == "up")
                };
                pair.daemon(node).wait_for("a route again", TEST_TIMEOUT, up).unwrap();
            }
            assert_flow_alive(pair.transfer(INSIDE, Some(TEST_RATE), false));
            assert_flow_alive(pair.transfer(OUTSIDE, Some(TEST_RATE), false));
        }
    });
}

/// IPv4 frames with netft's own packets from node 0, with another source, put right (RFC 1071).
fn from_elsewhere(
    frames: &[Vec<u8>],
    pair: &NodePair,
    source: Ipv4Addr,
    port: u16,
) -> Vec<Vec<u8>> {
    let (own, there) = (pair.lab.node_ipv4(0, INSIDE).octets(), Lab::nic_mac(0, OUTSIDE));
    let ours = |frame: &&Vec<u8>| {
        frame.len() > HEADERS
            && frame[12..15] == [8, 0, 0x45]
            && frame[23] == 17
            && frame[26..30] == own
            && frame[HEADERS] & 0x40 == 0
    };
    let moved = frames.iter().filter(ours).map(|frame| {
        let mut frame = frame.clone();
        frame[..6].copy_from_slice(&there);
        frame[26..30].copy_from_slice(&source.octets());
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        // RFC 768: zero means no checksum.
        frame[40..42].fill(0);
        frame[24..26].fill(0);
        let words =
            frame[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let sum = !((folded & 0xffff) + (folded >> 16)) as u16;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    });
    moved.collect()
}

#[test]
fn s_09_what_others_send_from_elsewhere_moves_no_route() {
    in_namespace("s_09_what_others_send_from_elsewhere_moves_no_route", || {
        let Some(mut pair) = hidden(false) else { return };
        let events = pair.events(OUTSIDE);
        let before = mapped(&mut pair);
        let flow = pair.transfer(OUTSIDE, Some(TEST_RATE / 5), false);
        let since = Moment::now();
        let [a, b, c, _] = pair.lab.outer_address(0).octets();
        let third = Ipv4Addr::new(a, b, c, 77);
        let door = Capture::start(pair.lab.switch_netns(0), &Lab::port_name(OUTSIDE)).unwrap();

        // Delivered frames are in the replay window.
        let inside = Capture::start(pair.lab.switch_netns(0), &Lab::port_name(INSIDE)).unwrap();
        thread::sleep(2 * TRAFFIC_CHECK_TIME);
        let (seen, _) = inside.finish();
        let copies = from_elsewhere(&seen, &pair, third, 3343);
        assert!(copies.len() > 10, "{} packets seen", copies.len());
        let (asked, replayed) =
            (counter(&mut pair, "challenges_sent"), pair.drops(OUTSIDE, "replayed"));
        copies.iter().for_each(|copy| door.inject_frame(copy).unwrap());
        eventually_counted(&mut pair, replayed + copies.len() as u64 / 2);
        assert_eq!(counter(&mut pair, "challenges_sent"), asked, "nothing strayed");

        // A frame that never arrived is new: its source address gets a path
        // challenge and does not answer.
        let inside = Capture::start(pair.lab.switch_netns(0), &Lab::port_name(INSIDE)).unwrap();
        pair.lab.set_outbound_open(0, false).unwrap();
        thread::sleep(TRAFFIC_CHECK_TIME);
        let fresh = from_elsewhere(&inside.finish().0, &pair, third, 3343);
        assert!(!fresh.is_empty());
        let mut forged = fresh.clone();
        for packet in &mut forged {
            let last = packet.len() - 1;
            packet[last] ^= 1;
        }
        let broken = pair.drops(OUTSIDE, "not_authentic");
        forged.iter().for_each(|packet| door.inject_frame(packet).unwrap());
        fresh.iter().for_each(|packet| door.inject_frame(packet).unwrap());
        thread::sleep(TRAFFIC_CHECK_TIME);
        assert!(pair.drops(OUTSIDE, "not_authentic") > broken);
        assert!(counter(&mut pair, "challenges_sent") > asked, "a question went there");
        assert_eq!(mapped_or_last(&mut pair, before.id).real_remote, before.real_remote);

        // The questions were smaller than what led to them.
        let to_third = |frame: &&Vec<u8>| frame.len() > 34 && frame[30..34] == third.octets();
        let questions: Vec<_> = door.frames();
        let questions: Vec<_> = questions.iter().filter(to_third).map(Vec::len).collect();
        let smallest = fresh.iter().map(Vec::len).min().unwrap();
        assert!(questions.iter().all(|length| *length < smallest), "{questions:?}, {smallest}");

        pair.lab.set_outbound_open(0, true).unwrap();
        assert_flow_alive(flow);
        let route = mapped(&mut pair);
        assert_eq!((route.id, &route.real_remote), (before.id, &before.real_remote));
        let seen = events.events_so_far();
        let learned = seen.iter().filter(|event| event.is_at_or_after(since.wall));
        assert_eq!(learned.filter(|event| event.name == "address-learned").count(), 0);
    });
}

/// A route at the node outside, whatever its state.
fn mapped_or_last(pair: &mut NodePair, id: u64) -> RouteRow {
    let routes = pair.daemon(OUTSIDE).routes().unwrap();
    routes.into_iter().find(|route| route.id == id).unwrap()
}

/// Waits until so many replayed packets are counted.
fn eventually_counted(pair: &mut NodePair, least: u64) {
    let deadline = std::time::Instant::now() + TEST_TIMEOUT;
    while pair.drops(OUTSIDE, "replayed") < least {
        crate::common::assert_before(deadline, || format!("waited in vain for {least} replays"));
        thread::sleep(TRAFFIC_CHECK_TIME / 25);
    }
}
