//! The laboratory proves itself: every fault does what it says, and heals.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use netft_lab::{
    Lab, NetworkLayout,
    capture::Capture,
    in_namespace,
    probe::{DatagramProbe, ProbeReport},
    transfer::Transfer,
};

/// Long enough for a fault to be felt, short against a test.
const WHILE: Duration = Duration::from_millis(150);

fn v4(lab: &Lab, network: usize, node: usize) -> SocketAddr {
    (lab.node_ipv4(network, node), 0).into()
}

fn v6(lab: &Lab, network: usize, node: usize) -> SocketAddr {
    (lab.node_ipv6(network, node), 0).into()
}

fn probe(lab: &Lab, network: usize, from: usize, to: usize, six: bool) -> DatagramProbe {
    let address = if six { v6 } else { v4 };
    let from = (lab.node_netns(from), address(lab, network, from));
    let to = (lab.node_netns(to), address(lab, network, to));
    DatagramProbe::start(from, to).unwrap()
}

/// Four probes (both directions, both families) while `fault` is in force; then once more healed.
/// The fault must heal without a trace.
fn under(lab: &Lab, network: usize, fault: impl FnOnce()) -> [ProbeReport; 4] {
    let probes = [(0, 1, false), (1, 0, false), (0, 1, true), (1, 0, true)]
        .map(|(from, to, six)| probe(lab, network, from, to, six));
    settle(&probes);
    let whole = Instant::now();
    thread::sleep(WHILE);
    let last = Instant::now() - WHILE / 10;
    fault();
    let broken = Instant::now();
    thread::sleep(WHILE);
    let healing = Instant::now();
    lab.heal_network(network).unwrap();
    settle(&probes);
    let healed = Instant::now();
    thread::sleep(WHILE);
    let end = Instant::now();
    probes.map(|probe| {
        let log = probe.finish();
        let before = log.report_between(whole, last);
        assert!(before.sent > 0 && before.lost == 0, "lost before the fault: {before:?}");
        let after = log.report_between(healed, end);
        assert!(after.sent > 0 && after.lost == 0, "lost after the healing: {after:?}");
        log.report_between(broken, healing)
    })
}

/// Waits until every probe arrives: the kernel may take a second to notice a carrier.
fn settle(probes: &[DatagramProbe; 4]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    for probe in probes {
        while probe.log_so_far().received.last().is_none_or(|(_, at)| at.elapsed() > WHILE / 10) {
            assert!(Instant::now() < deadline, "the network did not heal");
            thread::sleep(WHILE / 10);
        }
    }
    thread::sleep(WHILE / 3);
}

fn passes(report: ProbeReport) -> bool {
    report.sent > 20 && report.lost == 0
}

fn vanishes(report: ProbeReport) -> bool {
    report.sent > 20 && report.lost == report.sent
}

#[test]
fn nodes_hear_each_other_on_every_network() {
    in_namespace("nodes_hear_each_other_on_every_network", || {
        let lab = Lab::new(3, 2).unwrap();
        for (network, from, to) in [(0, 0, 1), (0, 2, 1), (1, 1, 0), (1, 0, 2)] {
            for six in [false, true] {
                let running = probe(&lab, network, from, to, six);
                thread::sleep(WHILE);
                let report = running.finish().full_report();
                assert!(passes(report), "{network} {from} → {to}: {report:?}");
                assert_eq!(report.duplicates, 0);
            }
        }
    });
}

#[test]
fn a_black_hole_swallows_both_directions_and_keeps_carriers() {
    in_namespace("a_black_hole_swallows_both_directions_and_keeps_carriers", || {
        let lab = Lab::new(2, 2).unwrap();
        let other = probe(&lab, 1, 0, 1, false);
        let reports = under(&lab, 0, || {
            lab.black_hole(0).unwrap();
            for node in [0, 1] {
                assert!(carrier(&lab, node, 0), "node {node} noticed");
            }
        });
        assert!(reports.into_iter().all(vanishes), "{reports:?}");
        assert!(passes(other.finish().full_report()), "the other network is untouched");
    });
}

#[test]
fn a_cut_carrier_is_seen_by_one_node_only() {
    in_namespace("a_cut_carrier_is_seen_by_one_node_only", || {
        let lab = Lab::new(2, 1).unwrap();
        let reports = under(&lab, 0, || {
            lab.cut_carrier(0, 0).unwrap();
            assert!(!carrier(&lab, 0, 0) && carrier(&lab, 1, 0));
        });
        // What the cut node sends waits in its neighbour queue: late, not always lost.
        let silent = |report: ProbeReport| report.longest_gap > WHILE * 9 / 10;
        assert!(reports.into_iter().all(silent), "{reports:?}");
        assert!(vanishes(reports[1]) && vanishes(reports[3]), "{reports:?}");
    });
}

#[test]
fn one_way_loss_swallows_one_direction_only() {
    in_namespace("one_way_loss_swallows_one_direction_only", || {
        let lab = Lab::new(2, 1).unwrap();
        for (from, to) in [(0, 1), (1, 0)] {
            let reports = under(&lab, 0, || {
                lab.drop_one_way(0, from, to).unwrap();
            });
            let [forth, back, forth6, back6] = reports;
            let (gone, kept) = if from == 0 {
                ([forth, forth6], [back, back6])
            } else {
                ([back, back6], [forth, forth6])
            };
            assert!(gone.into_iter().all(vanishes), "{from} → {to}: {reports:?}");
            assert!(kept.into_iter().all(passes), "{from} → {to}: {reports:?}");
        }
    });
}

#[test]
fn a_card_can_be_pulled_and_put_back() {
    in_namespace("a_card_can_be_pulled_and_put_back", || {
        let lab = Lab::new(2, 1).unwrap();
        lab.delete_nic(0, 0).unwrap();
        assert!(
            lab.node_netns(0).run_inside(|| std::net::UdpSocket::bind(v4(&lab, 0, 0))).is_err()
        );
        lab.add_nic(0, 0).unwrap();
        let running = probe(&lab, 0, 0, 1, false);
        thread::sleep(WHILE);
        assert!(passes(running.finish().full_report()));
    });
}

#[test]
fn an_address_can_move_to_another_card() {
    in_namespace("an_address_can_move_to_another_card", || {
        let lab = Lab::new(2, 1).unwrap();
        lab.move_address(0, 0).unwrap();
        for six in [false, true] {
            let running = probe(&lab, 0, 0, 1, six);
            thread::sleep(WHILE);
            let report = running.finish().full_report();
            assert!(passes(report), "{report:?}");
        }
    });
}

#[test]
fn a_router_joins_two_subnets_and_can_go_silent() {
    in_namespace("a_router_joins_two_subnets_and_can_go_silent", || {
        let lab = Lab::with_layouts(2, &[NetworkLayout::Routed]).unwrap();
        assert_ne!(subnet(lab.node_ipv4(0, 0).into()), subnet(lab.node_ipv4(0, 1).into()));
        let reports = under(&lab, 0, || {
            lab.black_hole(0).unwrap();
        });
        assert!(reports.into_iter().all(vanishes), "{reports:?}");
    });
}

#[test]
fn a_transfer_keeps_its_pace_and_its_hash_through_a_short_fault() {
    in_namespace("a_transfer_keeps_its_pace_and_its_hash_through_a_short_fault", || {
        let lab = Lab::new(2, 1).unwrap();
        let rate = 10_000_000;
        let ends = ((lab.node_netns(0), v4(&lab, 0, 0)), (lab.node_netns(1), v4(&lab, 0, 1)));
        let transfer = Transfer::start(ends.0, ends.1, Some(rate)).unwrap();
        thread::sleep(WHILE);
        let start = lab.black_hole(0).unwrap().monotonic;
        thread::sleep(WHILE);
        let end = lab.heal_network(0).unwrap().monotonic;
        thread::sleep(4 * WHILE);
        assert!(!transfer.is_broken());
        let outcome = transfer.finish();
        let stall = outcome.longest_stall(start, end);
        assert!(stall >= WHILE / 2, "the fault was not felt: {stall:?}");
        assert_eq!(outcome.errors, Vec::<String>::new());
        assert!(outcome.hash_equal && outcome.received == outcome.bytes, "{}", outcome.bytes);
        assert!(outcome.bytes < 2 * rate, "faster than asked: {}", outcome.bytes);
    });
}

#[test]
fn a_tap_sees_what_passes_and_can_repeat_it() {
    in_namespace("a_tap_sees_what_passes_and_can_repeat_it", || {
        let lab = Lab::new(2, 1).unwrap();
        let tap = Capture::start(lab.switch_netns(0), &Lab::port_name(1)).unwrap();
        let running = probe(&lab, 0, 0, 1, false);
        thread::sleep(WHILE);
        // An IPv4 packet with a zero UDP checksum is taken as it is (RFC 768).
        let mut frame = tap.frames().into_iter().find(|f| f.len() == 14 + 28 + 64).unwrap();
        frame[40..42].fill(0);
        for _ in 0..5 {
            tap.inject_frame(&frame).unwrap();
        }
        let report = running.finish().full_report();
        assert_eq!((report.lost, report.duplicates), (0, 5), "{report:?}");
        let (frames, missed) = tap.finish();
        assert!(missed == 0 && frames.len() as u64 >= report.sent);
    });
}

fn carrier(lab: &Lab, node: usize, network: usize) -> bool {
    use netft_lab::interface_index;
    use rtnetlink::packet_route::link::LinkFlags;
    let nic = Lab::nic_name(network);
    lab.node_netns(node)
        .run_netlink("look at a carrier", |netlink| async move {
            use futures_util::TryStreamExt;
            let index = interface_index(&netlink, &nic).await?;
            let found = netlink.link().get().match_index(index).execute().try_next().await?;
            Ok(found.unwrap().header.flags.contains(LinkFlags::LowerUp))
        })
        .unwrap()
}

fn subnet(address: IpAddr) -> [u8; 3] {
    let IpAddr::V4(v4) = address else { unreachable!() };
    let [a, b, c, _] = v4.octets();
    [a, b, c]
}
