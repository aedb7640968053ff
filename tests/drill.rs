//! `netft drill` on running nodes: each kind of fault under 10,000 datagrams a second each way,
//! what is refused, and the end of a fault with the process.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs,
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{NodePair, TEST_TIMEOUT, TRAFFIC_CHECK_TIME, assert_before};
use netft_lab::{Lab, Moment, daemon::SiteSettings, in_namespace, in_namespace_for, scheduling};
use serde_json::Value;

/// Longest time of a test with several drills: each waits for the figures and the routes.
const DRILLS_TIMEOUT: Duration = Duration::from_secs(120);
/// An objective that a drill meets on a busy machine, and one that it misses.
const OBJECTIVE: &str = "[failover]\nhold = 300\n\n[slo]\ndetection_ms = 5000\nlost = 0\n";

/// A pair over three networks, so that two remain.
fn start_pair(common: &str) -> NodePair {
    let mut pair = NodePair::start_with(3, SiteSettings { common, ..SiteSettings::default() });
    pair.wait_active(0, 0);
    pair
}

fn drill(pair: &NodePair, args: &[&str]) -> Output {
    let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
    command.args(["drill", "--json"]).args(args).output().unwrap()
}

fn error_of(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// Runs a drill of network 0 on node 0 under traffic. Returns its report and the datagrams lost.
fn drill_under_traffic(pair: &mut NodePair, fault: &[&str]) -> (Value, u64) {
    let probes = [pair.dense_probe(0), pair.dense_probe(1)];
    thread::sleep(TRAFFIC_CHECK_TIME);
    let start = Instant::now();
    let nic = Lab::nic_name(0);
    let mut args = vec!["--interface", &nic, "--for", "1s", "--fault"];
    args.extend(fault);
    let output = drill(pair, &args);
    assert!(output.status.success(), "{fault:?}: {output:?}");
    let body: Value = serde_json::from_slice(&output.stdout).unwrap();
    thread::sleep(TRAFFIC_CHECK_TIME);
    let lost: Vec<u64> = probes.map(|probe| probe.finish().full_report().lost).to_vec();
    println!("{fault:?}: lost {lost:?} in {:?}: {body}", start.elapsed());
    (body["drill"].clone(), lost.iter().sum())
}

#[test]
fn f_130_each_fault_loses_nothing_and_is_undone() {
    in_namespace_for("f_130_each_fault_loses_nothing_and_is_undone", DRILLS_TIMEOUT, || {
        let mut pair = start_pair(OBJECTIVE);
        let events = pair.events(0);
        for fault in [&["blackhole"][..], &["one-way"], &["carrier"], &["delay", "20ms"]] {
            pair.wait_active(0, 0);
            let start = Moment::now();
            let before = pair.drops(0, "drill_fault");
            let (report, lost) = drill_under_traffic(&mut pair, fault);
            scheduling::assert_timely(lost == 0, start.monotonic, || format!("{fault:?}: {lost}"));
            assert_eq!(report["outcome"], "completed", "{report}");
            assert_eq!(report["recovered"], true, "{report}");
            let dropped = report["dropped"].as_u64().unwrap();
            assert_eq!(dropped > 0, fault[0] != "delay", "{report}");
            assert_eq!(pair.drops(0, "drill_fault") - before, dropped, "{report}");
            if fault[0] != "delay" {
                assert!(report["detection_us"].as_u64().is_some(), "{report}");
                assert_eq!(report["verdict"]["detection"], true, "{report}");
            }
            let named = |name: &'static str| {
                let is_it = move |event: &netft_lab::daemon::EventLine| event.name == name;
                events.wait_for(name, start.wall, TEST_TIMEOUT, is_it).unwrap()
            };
            let (begun, ended) = (named("drill-started"), named("drill-ended"));
            assert_eq!(begun.str_field("target"), Some("interface eth0"), "{begun:?}");
            assert_eq!(ended.str_field("outcome"), Some("completed"), "{ended:?}");
            pair.wait_routes_up(0);
            pair.wait_routes_up(1);
        }
    });
}

/// A lone hole is left to the application: what is shown is that the loss is there, and ends.
#[test]
fn f_130_a_lossy_drill_ends_and_data_goes_on() {
    in_namespace_for("f_130_a_lossy_drill_ends_and_data_goes_on", DRILLS_TIMEOUT, || {
        let mut pair = start_pair(OBJECTIVE);
        let flow = pair.transfer(0, Some(common::TEST_RATE), false);
        let output =
            drill(&pair, &["--interface", "eth0", "--for", "2s", "--fault", "loss", "10%"]);
        let body: Value = serde_json::from_slice(&output.stdout).unwrap();
        let report = &body["drill"];
        assert_eq!(report["outcome"], "completed", "{output:?}");
        assert_eq!(report["fault"], "loss 10 %");
        assert!(report["dropped"].as_u64() > Some(0), "{report}");
        pair.wait_routes_up(0);
        common::assert_flow_alive(flow);
    });
}

#[test]
fn f_131_a_fault_ends_with_its_process() {
    in_namespace("f_131_a_fault_ends_with_its_process", || {
        let mut pair = start_pair(OBJECTIVE);
        let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
        command.args(["drill", "--interface", "eth0", "--for", "60s", "--fault", "blackhole"]);
        let mut operator = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let is_down = |routes: &[netft_lab::daemon::RouteRow]| {
            routes.iter().filter(|route| route.state == "up").count() == 2
        };
        pair.daemon(0).wait_for("the drilled route down", TEST_TIMEOUT, is_down).unwrap();
        // Nobody tells the process that it ends.
        pair.daemons[0].take().unwrap().kill().unwrap();
        pair.start(0);
        pair.wait_routes_up(0);
        pair.wait_routes_up(1);
        pair.wait_active(0, 0);
        let deadline = Instant::now() + TEST_TIMEOUT;
        while operator.try_wait().unwrap().is_none() {
            assert_before(deadline, || "the operator's program waits on".to_owned());
            thread::sleep(TRAFFIC_CHECK_TIME / 10);
        }
        let status = operator.wait().unwrap();
        assert!(!status.success(), "it reports no success");
    });
}

#[test]
fn f_130_what_would_cut_a_peer_off_and_a_second_drill_are_refused() {
    in_namespace("f_130_what_would_cut_a_peer_off_and_a_second_drill_are_refused", || {
        let mut pair = NodePair::start_up(2);
        let events = pair.events(0);
        let start = Moment::now();
        pair.lab.black_hole(1).unwrap();
        let one_up = |routes: &[netft_lab::daemon::RouteRow]| {
            routes.iter().filter(|route| route.state == "up").count() == 1
        };
        pair.daemon(0).wait_for("one route up", TEST_TIMEOUT, one_up).unwrap();
        let text = error_of(&drill(&pair, &["--interface", "eth0"]), 1);
        assert!(text.contains("would be cut off"), "{text}");
        let text = error_of(&drill(&pair, &["--interface", "eth1"]), 1);
        assert!(text.contains("no route of interface eth1 is up"), "{text}");
        error_of(&drill(&pair, &["--interface", "eth7"]), 2);
        error_of(&drill(&pair, &["--interface", "eth0", "--for", "61s"]), 2);
        let begun = events.events_so_far().into_iter().any(|event| event.name == "drill-started");
        assert!(!begun && start.monotonic.elapsed() > Duration::ZERO);
        pair.lab.heal_network(1).unwrap();
        pair.wait_routes_up(0);
        let first = serde_json::json!({
            "interface": "eth0", "fault": "one-way", "length_ms": 60_000,
        });
        let socket = pair.site.runtime_dir(0).join("netft0.sock");
        let client = netftd::control::client::DaemonClient::new(socket);
        let post = |body: &Value| {
            client.request_json::<netftd::control::schema::DrillBody>(
                "POST",
                "/v1/drill",
                &body.to_string(),
            )
        };
        post(&first).unwrap();
        let text = post(&first).unwrap_err().text;
        assert!(text.contains("runs already"), "{text}");
        // The other network fails for real: the drill ends at once, and the peer stays reachable.
        pair.lab.black_hole(1).unwrap();
        let ended = events
            .wait_for("an early end", start.wall, TEST_TIMEOUT * 2, |event| {
                event.name == "drill-ended"
            })
            .unwrap();
        assert_eq!(ended.str_field("outcome"), Some("aborted"), "{ended:?}");
        pair.wait_active(0, 0);
    });
}

#[test]
fn f_130_a_schedule_rehearses_each_network_and_writes_a_page() {
    let name = "f_130_a_schedule_rehearses_each_network_and_writes_a_page";
    in_namespace_for(name, DRILLS_TIMEOUT, || {
        let strict = "[failover]\nhold = 300\n\n[slo]\ndetection_ms = 1\n";
        let pair = start_pair(strict);
        let page = pair.site.runtime_dir(0).join("drill.html");
        let path = page.to_str().unwrap();
        let output = drill(&pair, &["--schedule", "--for", "1s", "--html", path]);
        let body: Value = serde_json::from_slice(&output.stdout).unwrap();
        let drills = body["drills"].as_array().unwrap();
        let targets: Vec<_> = drills.iter().filter_map(|one| one["target"].as_str()).collect();
        assert_eq!(targets.len(), 3, "{body}");
        // Without data and carriers a blackhole takes heartbeats to be seen: more than 1 ms.
        assert!(error_of(&output, 1).contains("missed the objective"), "{output:?}");
        let html = fs::read_to_string(&page).unwrap();
        for part in targets.iter().copied().chain(["missed", "≤ 1 ms", "Up again after"]) {
            assert!(html.contains(part), "{part} is not in {html}");
        }
        assert!(!html.contains("<script") && !html.contains("http://"), "{html}");
    });
}
