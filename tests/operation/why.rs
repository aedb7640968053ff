//! A route is cut under traffic in a real kernel: `netft why` names the route, the reason, the
//! alternative and what it cost.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    NodePair, TEST_RATE, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_flow_alive, assert_left_in_time,
    max_failover_time,
};
use netft_lab::{Moment, in_namespace, scheduling};
use serde_json::Value;

/// Output of `netft why` on node 0 with these arguments.
fn why(pair: &NodePair, words: &[&str]) -> String {
    let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
    let output = command.arg("why").args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The story of an event of node 0, once nothing can be added to its cost.
fn whole(pair: &NodePair, seq: u64) -> Value {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let story: Value = serde_json::from_str(&why(pair, &[&seq.to_string(), "--json"])).unwrap();
        if story["cost_final"] == true {
            return story;
        }
        crate::common::assert_before(deadline, || format!("the cost stays open: {story}"));
        thread::sleep(TRAFFIC_CHECK_TIME);
    }
}

/// The value of an unlabelled sample of the metrics of node 0.
fn metric(pair: &NodePair, name: &str) -> f64 {
    let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
    let text = String::from_utf8(command.arg("metrics").output().unwrap().stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn why_names_route_reason_alternative_and_cost_of_a_failover_under_traffic() {
    in_namespace("why_names_route_reason_alternative_and_cost_of_a_failover_under_traffic", || {
        let mut pair = NodePair::start_up(2);
        let events = [0, 1].map(|node| pair.events(node));
        let flow = pair.transfer(0, Some(TEST_RATE), false);
        thread::sleep(TRAFFIC_CHECK_TIME);
        let (network, route) = pair.active(0);
        let other = pair.daemon(0).routes().unwrap().into_iter().find(|it| it.id != route.id);
        let other = other.unwrap();
        let broken: Moment = pair.lab.drop_one_way(network, 0, 1).unwrap();
        let moved = events[0]
            .wait_for("a move", broken.wall, TEST_TIMEOUT, |event| {
                event.name == "moved" && event.u64_field("from") == Some(route.id)
            })
            .unwrap();
        let story = whole(&pair, moved.seq);
        let (event, cost) = (&story["event"], &story["cost"]);
        assert_eq!((&event["from"], &event["to"]), (&route.id.into(), &other.id.into()));
        assert_eq!(event["reason"], "peer does not hear us");
        let chosen = &event["cause"]["candidates"][0];
        assert_eq!((&chosen["route"], &chosen["verdict"]), (&other.id.into(), &"chosen".into()));
        assert_eq!(chosen["priority"], other.priority);
        let left = &event["cause"]["left"];
        assert_eq!(
            (&left["route"], &left["remote_report"]["heard"]),
            (&route.id.into(), &false.into())
        );
        let heartbeats = left["heartbeats"].to_string();
        assert!(heartbeats.contains("sent") && heartbeats.contains("received"), "{heartbeats}");
        // The flow never pauses, so something was under way when the route went silent.
        assert!(cost["resent"].as_u64() > Some(0), "{story}");
        assert_eq!(cost["stall_by"], "data");
        let stall = Duration::from_micros(cost["stall_us"].as_u64().unwrap());
        assert!(!stall.is_zero());
        assert_left_in_time(stall, &route, &events, broken);
        let named = |list: &str, name: &str| {
            story[list].as_array().unwrap().iter().any(|event| event["event"] == name)
        };
        assert!(named("before", "suspect") && named("after", "cost"), "{story}");

        let text = why(&pair, &["--route", &route.id.to_string()]);
        for word in ["state of", "does not receive from this node", "chosen (up", "retransmitted"] {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
        let status = pair.daemon(0).get_json("/v1/status").unwrap();
        assert!(status["stalls"]["count"].as_u64() >= Some(1), "{status}");
        assert!(metric(&pair, "netft_failover_stall_seconds_count") >= 1.0);
        let resent = metric(&pair, "netft_resent_frames_total");
        assert!(resent >= cost["resent"].as_f64().unwrap(), "{resent} {story}");
        println!("{text}");
        pair.lab.heal_network(network).unwrap();
        assert_flow_alive(flow);
    });
}

#[test]
fn a_cut_while_idle_is_measured_by_heartbeats_and_peers_know_each_others_adapters() {
    const NAME: &str =
        "a_cut_while_idle_is_measured_by_heartbeats_and_peers_know_each_others_adapters";
    in_namespace(NAME, || {
        let mut pair = NodePair::start_up(2);
        let events = [0, 1].map(|node| pair.events(node));
        for node in [0, 1] {
            let peers = pair.daemon(node).get_json("/v1/peers").unwrap();
            assert_eq!(peers["peers"][0]["adapter_up"], true, "{peers}");
        }
        let (network, route) = pair.active(0);
        let broken = pair.lab.black_hole(network).unwrap();
        pair.time_to_move(&events[0], route.id, broken);
        let moved = events[0]
            .events_so_far()
            .into_iter()
            .rev()
            .find(|event| event.name == "moved")
            .unwrap();
        let story = whole(&pair, moved.seq);
        assert_eq!(story["event"]["from"], route.id);
        assert_eq!(story["cost"]["stall_by"], "heartbeats", "{story}");
        // A heartbeat answered before the cut, and at most a detection time and what delays it.
        let stall = Duration::from_micros(story["cost"]["stall_us"].as_u64().unwrap());
        let most =
            max_failover_time(&route, &events, broken) + Duration::from_millis(2 * route.delay_ms);
        assert!(!stall.is_zero());
        scheduling::assert_within("the stall", stall, most, broken.monotonic);
        assert_eq!(story["cost"]["resent"], 0);
        println!("{}", why(&pair, &[]));
    });
}

/// After a crash the events and their story are there, told as those of an earlier run.
#[test]
fn f_126_events_and_why_survive_a_crash() {
    in_namespace("f_126_events_and_why_survive_a_crash", || {
        let mut pair = NodePair::start_up(2);
        let events = pair.events(0);
        let (network, route) = pair.active(0);
        let broken: Moment = pair.lab.drop_one_way(network, 0, 1).unwrap();
        let moved = events
            .wait_for("a move", broken.wall, TEST_TIMEOUT, |event| {
                event.name == "moved" && event.u64_field("from") == Some(route.id)
            })
            .unwrap();
        let told = whole(&pair, moved.seq);
        pair.lab.heal_network(network).unwrap();
        let list = |pair: &mut NodePair| {
            let answer = pair.daemon(0).get_json("/v1/events").unwrap();
            answer["events"].as_array().unwrap().clone()
        };
        let before = list(&mut pair);
        pair.daemons[0].take().unwrap().kill().unwrap();
        pair.start(0);
        pair.wait_routes_up(0);
        let after = list(&mut pair);
        assert_eq!(after[..before.len()], before[..]);
        let sequence: Vec<_> = after.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(sequence, (1..=after.len() as u64).collect::<Vec<_>>());
        let started = after.iter().filter(|event| event["event"] == "restarted").count();
        assert_eq!(started, 1, "{after:#?}");
        let seq = moved.seq.to_string();
        let again: Value = serde_json::from_str(&why(&pair, &[&seq, "--json"])).unwrap();
        for part in ["event", "before", "after", "cost"] {
            assert_eq!(again[part], told[part], "{part}");
        }
        assert_eq!((&again["earlier_run"], &told["earlier_run"]), (&true.into(), &false.into()));
        assert_eq!(again["routes"], Value::Array(Vec::new()), "numbers of another run");
        assert!(why(&pair, &[&seq]).contains("in an earlier run of netftd"));
    });
}
