//! Grey faults and long outages in a real kernel: what a flow survives, and that no route is
//! called down that is merely bad. Names begin with the row of the reliability table they hold.
//!
//! `NETFT_SECONDS` makes the outages and the grey times long, for figures.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{
    HOLD_CONFIG, NodePair, TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_flow_alive,
    number_from_env,
};
use netft_lab::{
    Moment,
    daemon::{EventFollower, EventLine, SiteSettings},
    in_namespace_for,
    probe::ProbeLog,
    scheduling,
    wire::{ImpairedWire, WireImpairments},
};
use rustix::process::Signal;

const MS: Duration = Duration::from_millis(1);

/// How long a fault lasts.
fn lasts(short: u64) -> Duration {
    Duration::from_secs(number_from_env("NETFT_SECONDS", short))
}

fn within(name: &str, body: impl FnOnce()) {
    in_namespace_for(name, lasts(0) * 4 + Duration::from_secs(90), body);
}

/// A pair whose network 0 is a wire.
fn wired(networks: usize, common: &str) -> (NodePair, ImpairedWire) {
    let pair = NodePair::prepared_for(networks, SiteSettings { common, ..SiteSettings::default() });
    let wire = ImpairedWire::insert(&pair.lab, 0, number_from_env("NETFT_SEED", 1)).unwrap();
    (pair.start_and_wait(), wire)
}

/// Route events since `start`, of both nodes.
struct Story(Vec<EventLine>);

impl Story {
    fn since(events: &[EventFollower; 2], start: Moment) -> Self {
        let seen = events.iter().flat_map(EventFollower::events_so_far);
        Self(seen.filter(|event| event.is_at_or_after(start.wall)).collect())
    }

    /// Asserts that the peer was reachable since `start`.
    fn assert_reachable(&self, start: Moment, why: &str) {
        let lost = self.count("remote-unreachable");
        scheduling::assert_timely(lost == 0, start.monotonic, || format!("{lost} times: {why}"));
    }

    fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|event| event.name == name).count()
    }

    /// Routes called down for want of heartbeats, but for the time after a node's own stall.
    fn missed(&self) -> Vec<&EventLine> {
        let stalled = |event: &EventLine| {
            let near = |other: &EventLine| {
                let apart =
                    event.at.duration_since(other.at).or_else(|e| Ok::<_, ()>(e.duration()));
                apart.is_ok_and(|apart| apart < Duration::from_secs(1))
            };
            self.0.iter().any(|other| other.name == "stalled" && near(other))
        };
        let down = |event: &&EventLine| event.str_field("reason") == Some("heartbeats missed");
        self.0.iter().filter(down).filter(|event| !stalled(event)).collect()
    }
}

/// The lost share of a probe, in percent.
fn lost(log: &ProbeLog) -> f64 {
    let report = log.full_report();
    report.lost as f64 * 100.0 / report.sent.max(1) as f64
}

#[test]
fn f_05_a_lossy_network_makes_data_move_seldom() {
    within("f_05_a_lossy_network_makes_data_move_seldom", || {
        let (mut pair, wire) = wired(2, "");
        let events = [0, 1].map(|node| pair.events(node));
        let start = Moment::now();
        wire.set_both_impairments(WireImpairments { loss: 0.05, ..WireImpairments::default() });
        let probe = pair.probe(0, false);
        let flow = pair.transfer(1, Some(TEST_RATE / 50), false);
        thread::sleep(lasts(5));
        let story = Story::since(&events, start);
        println!(
            "{} moves, {} suspicions, {:.2} % of the datagrams lost",
            story.count("moved"),
            story.count("suspect"),
            lost(&probe.finish()),
        );
        // Away once at each end, and perhaps back.
        scheduling::assert_timely(story.count("moved") <= 4, start.monotonic, || {
            "data moves to and fro".to_owned()
        });
        let down = story.missed();
        scheduling::assert_timely(down.is_empty(), start.monotonic, || {
            format!("a lossy network is no dead one: {down:#?}")
        });
        wire.set_both_impairments(WireImpairments::default());
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
        assert_flow_alive(flow);
    });
}

#[test]
fn f_06_bursts_of_loss_are_ridden_out() {
    within("f_06_bursts_of_loss_are_ridden_out", || {
        let (mut pair, wire) = wired(2, "");
        let events = [0, 1].map(|node| pair.events(node));
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        let (start, begun) = (Moment::now(), Instant::now());
        wire.set_both_impairments(WireImpairments {
            burst: Some((2000 * MS, 50 * MS)),
            ..WireImpairments::default()
        });
        thread::sleep(lasts(5));
        wire.set_both_impairments(WireImpairments::default());
        let story = Story::since(&events, start);
        let stall = flow.longest_stall(begun, Instant::now());
        println!(
            "{} moves, {} suspicions, stall {stall:?}",
            story.count("moved"),
            story.count("suspect")
        );
        let down = story.missed();
        scheduling::assert_timely(down.is_empty(), start.monotonic, || {
            format!("50 ms without heartbeats are no failure: {down:#?}")
        });
        assert_flow_alive(flow);
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
    });
}

#[test]
fn f_07_loss_on_every_network_makes_no_peer_unreachable() {
    within("f_07_loss_on_every_network_makes_no_peer_unreachable", || {
        let mut pair = NodePair::prepared_for(3, SiteSettings::default());
        let wires = [0, 1, 2]
            .map(|network| ImpairedWire::insert(&pair.lab, network, 1 + network as u64).unwrap());
        pair = pair.start_and_wait();
        let events = [0, 1].map(|node| pair.events(node));
        let start = Moment::now();
        wires.iter().for_each(|wire| {
            wire.set_both_impairments(WireImpairments { loss: 0.05, ..WireImpairments::default() })
        });
        let probe = pair.probe(0, false);
        let flow = pair.transfer(1, Some(TEST_RATE / 50), false);
        thread::sleep(lasts(5));
        let story = Story::since(&events, start);
        println!(
            "{} moves, {} suspicions, {:.2} % of the datagrams lost",
            story.count("moved"),
            story.count("suspect"),
            lost(&probe.finish()),
        );
        story.assert_reachable(start, "the peer is there all the time");
        assert_flow_alive(flow);
    });
}

#[test]
fn f_08_a_flapping_route_is_held_back_and_returns() {
    within("f_08_a_flapping_route_is_held_back_and_returns", || {
        let mut pair = NodePair::start_with(
            2,
            SiteSettings { common: HOLD_CONFIG, ..SiteSettings::default() },
        );
        let events = [0, 1].map(|node| pair.events(node));
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        let start = Moment::now();
        let deadline = Instant::now() + lasts(4);
        let mut flaps = 0;
        while Instant::now() < deadline {
            pair.lab.black_hole(0).unwrap();
            thread::sleep(400 * MS);
            pair.lab.heal_network(0).unwrap();
            thread::sleep(100 * MS);
            flaps += 1;
        }
        let story = Story::since(&events, start);
        println!("{flaps} flaps, {} moves at both ends", story.count("moved"));
        // Each end leaves once, and may come back before the hold has grown.
        scheduling::assert_timely(story.count("moved") <= 2 * 4, start.monotonic, || {
            format!("the hold does not hold: {flaps} flaps")
        });
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
        assert!(flow.bytes_received() > 0);
        assert_flow_alive(flow);
    });
}

#[test]
fn f_09_a_later_network_is_not_a_dead_one() {
    within("f_09_a_later_network_is_not_a_dead_one", || {
        let (mut pair, wire) = wired(2, "");
        let events = [0, 1].map(|node| pair.events(node));
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        thread::sleep(TRAFFIC_CHECK_TIME);
        let start = Moment::now();
        // In steps: with the interval, 100 ms at once are all but the detection time, and what is
        // left of it is less than a busy machine's own pauses.
        for step in 1..=4 {
            wire.set_both_impairments(WireImpairments {
                delay: step * 25 * MS,
                ..WireImpairments::default()
            });
            thread::sleep(TRAFFIC_CHECK_TIME);
        }
        thread::sleep(lasts(3));
        let story = Story::since(&events, start);
        println!("{} moves, {} suspicions", story.count("moved"), story.count("suspect"));
        let down = story.missed();
        scheduling::assert_timely(down.is_empty(), start.monotonic, || {
            format!("100 ms more is no failure: {down:#?}")
        });
        wire.set_both_impairments(WireImpairments::default());
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
        assert_flow_alive(flow);
    });
}

#[test]
fn f_14_congestion_is_no_failure() {
    within("f_14_congestion_is_no_failure", || {
        let (mut pair, wire) = wired(2, "");
        // With one network only, what is offered has nowhere else to go.
        pair.lab.black_hole(1).unwrap();
        pair.wait_active(0, 0);
        let what = "the other network to be down";
        for node in [0, 1] {
            let down = |routes: &[netft_lab::daemon::RouteRow]| {
                routes.iter().filter(|route| route.state == "up").count() == 1
            };
            pair.daemon(node).wait_for(what, TEST_TIMEOUT, down).unwrap();
        }
        let events = [0, 1].map(|node| pair.events(node));
        let start = Moment::now();
        // 10 Mbit/s, where TCP asks for all it can get. Heartbeats are marked CS6.
        wire.set_both_impairments(WireImpairments {
            rate: Some(1_250_000),
            prioritise_control: true,
            ..WireImpairments::default()
        });
        let flows = [pair.transfer(0, None, false), pair.transfer(1, None, false)];
        thread::sleep(lasts(5));
        let story = Story::since(&events, start);
        let (dropped, relayed) = wire.lost_and_relayed(0);
        println!(
            "{dropped} of {} frames lost at the bottleneck, {} suspicions",
            relayed + dropped,
            story.count("suspect")
        );
        assert!(dropped > 0, "nothing was congested");
        story.assert_reachable(start, "congestion is no failure");
        let down = story.missed();
        scheduling::assert_timely(down.is_empty(), start.monotonic, || {
            format!("congestion is no failure: {down:#?}")
        });
        wire.set_both_impairments(WireImpairments::default());
        flows.into_iter().for_each(assert_flow_alive);
    });
}

#[test]
fn f_12_a_move_to_a_faster_network_makes_tcp_believe_in_no_loss() {
    within("f_12_a_move_to_a_faster_network_makes_tcp_believe_in_no_loss", || {
        let (mut pair, wire) = wired(2, HOLD_CONFIG);
        wire.set_both_impairments(WireImpairments { delay: 20 * MS, ..WireImpairments::default() });
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        thread::sleep(4 * TRAFFIC_CHECK_TIME);
        let (before, start) = (pair.lab.node_netns(0).kernel_counters(), Instant::now());
        let moves = number_from_env("NETFT_MOVES", 4);
        for _ in 0..moves / 2 {
            // 40 ms round trip, then none, and back.
            for network in [1, 0] {
                for node in [0, 1] {
                    pair.prefer_network(node, network);
                }
                thread::sleep(2 * TRAFFIC_CHECK_TIME);
            }
        }
        let after = pair.lab.node_netns(0).kernel_counters().since(&before);
        let [spurious, twice, again] =
            ["TcpExtTCPSpuriousRTOs", "TcpExtTCPDSACKRecv", "TcpRetransSegs"]
                .map(|name| after.get(name));
        println!(
            "{moves} moves: {spurious} spurious time-outs, {twice} DSACKs, {again} sent again"
        );
        // An acknowledgement that waits for a core is late on any network.
        scheduling::assert_timely(spurious == 0, start, || format!("{spurious} time-outs"));
        assert_flow_alive(flow);
    });
}

#[test]
fn f_21_a_flow_outlives_a_stopped_peer() {
    within("f_21_a_flow_outlives_a_stopped_peer", || {
        let mut pair = NodePair::start_up(2);
        let flows =
            [pair.transfer(0, Some(TEST_RATE), false), pair.transfer(1, Some(TEST_RATE), false)];
        thread::sleep(TRAFFIC_CHECK_TIME);
        pair.daemon(1).send_signal(Signal::STOP).unwrap();
        pair.daemon(0)
            .wait_for("the peer's verdict", TEST_TIMEOUT, |r| r.iter().all(|r| r.state != "up"))
            .unwrap();
        thread::sleep(lasts(3));
        pair.daemon(1).send_signal(Signal::CONT).unwrap();
        for node in [0, 1] {
            pair.wait_routes_up(node);
        }
        flows.into_iter().for_each(assert_flow_alive);
    });
}

#[test]
fn f_37_all_routes_lost_then_one_returns() {
    within("f_37_all_routes_lost_then_one_returns", || {
        let mut pair = NodePair::start_up(3);
        let events = [0, 1].map(|node| pair.events(node));
        let flows =
            [pair.transfer(0, Some(TEST_RATE), false), pair.transfer(1, Some(TEST_RATE), false)];
        thread::sleep(TRAFFIC_CHECK_TIME);
        for network in [0, 1, 2] {
            pair.lab.black_hole(network).unwrap();
        }
        for node in [0, 1] {
            pair.daemon(node)
                .wait_for("no route", TEST_TIMEOUT, |r| r.iter().all(|r| r.state != "up"))
                .unwrap();
        }
        thread::sleep(lasts(4));
        let healed = pair.lab.heal_network(2).unwrap();
        for node in [0, 1] {
            pair.wait_active(node, 2);
            let moved =
                |event: &EventLine| event.name == "moved" && event.u64_field("to").is_some();
            let event = events[node].wait_for("a route", healed.wall, TEST_TIMEOUT, moved).unwrap();
            let took = event.at.duration_since(healed.wall).unwrap_or_default();
            println!("{} uses the route {took:?} after its return", pair.site.name(node));
            // Heartbeats go out all the time: a detection time, and the machine's own pauses.
            let bound = common::max_failover_time(&pair.active(node).1, &events, healed);
            let bound = bound.max(Duration::from_secs(1));
            scheduling::assert_within("the return", took, bound, healed.monotonic);
        }
        flows.into_iter().for_each(assert_flow_alive);
    });
}
