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
};

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
