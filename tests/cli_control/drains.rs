//! `netft drain` and its kin: what is ordered, what is refused, and what is missing.

use netft::{
    api::{
        drain::DrainTarget,
        overrides::{NamedRoute, OperatorOverrides, TimeLimit},
    },
    route::{DrainStage, DrainStatus},
};
use netftd::control::schema::EventDetail;

use super::*;

fn order(target: DrainTarget, on: bool, force: bool) -> DrainOrder {
    DrainOrder { target, on, force, limit: None }
}

fn eth(name: &str) -> DrainTarget {
    DrainTarget::Interface(name.to_owned())
}

fn fails(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty());
    text
}

#[test]
fn each_word_is_the_order_it_says() {
    let mut drained = snapshot();
    let there = DrainStatus { here: true, at_peer: false, left_here: true, left_at_peer: true };
    drained.routes[1].drain = Some(there);
    let daemon = Daemon::new(drained);
    assert_eq!(daemon.shows(&["route", "drain", "1"]), "route 1 to b: drained\n");
    daemon.shows(&["route", "undrain", "1"]);
    daemon.shows(&["drain", "eth1", "--force"]);
    daemon.shows(&["undrain", "eth1"]);
    let one = DrainTarget::Route(RouteId(1));
    let overrides = [
        order(one.clone(), true, false),
        order(one, false, false),
        order(eth("eth1"), true, true),
        order(eth("eth1"), false, false),
    ];
    assert_eq!(*daemon.node.drains.lock().unwrap(), overrides);

    let json = daemon.shows(&["route", "drain", "1", "--json"]);
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&answer["schema"], &answer["done"]), (&2.into(), &true.into()));
    let route = &answer["routes"][0];
    assert_eq!((&route["drain"], &route["drain_by"]), (&"drained".into(), &"here".into()));
    assert_eq!(route["state"], "up");
    assert!(daemon.shows(&["routes"]).contains("10.1.0.2:3343  drained"));
    assert!(daemon.shows(&["route", "show", "1"]).contains("drained, by here"));
}

#[test]
fn a_refusal_names_the_peer_and_changes_nothing() {
    let daemon = Daemon::new(snapshot());
    let last = DrainError::LastRoute { peer: "b".to_owned() };
    *daemon.node.waits.lock().unwrap() = Err(last);
    let text = fails(&daemon.netft(&["route", "drain", "1"]), 1);
    assert!(text.contains("b would be left without") && text.contains("--force"), "{text}");
    let none = DrainError::NoInterface("eth9".to_owned());
    *daemon.node.waits.lock().unwrap() = Err(none);
    assert!(fails(&daemon.netft(&["drain", "eth9"]), 2).contains("no route goes over eth9"));
    let unknown = DrainError::Route(RouteError::Unknown(RouteId(7)));
    *daemon.node.waits.lock().unwrap() = Err(unknown);
    assert!(fails(&daemon.netft(&["route", "drain", "7"]), 2).contains("no route 7"));
    for body in [
        "{}",
        r#"{"on":true}"#,
        r#"{"on":true,"route":1,"interface":"eth0"}"#,
        r#"{"on":true,"route":1,"wait_ms":4001}"#,
        r#"{"on":true,"route":1,"color":1}"#,
    ] {
        assert_eq!(daemon.ask("POST", "/v1/drain", body).0, 400, "{body}");
    }
    assert_eq!(daemon.ask("GET", "/v1/drain", "").0, 405);
    assert!(daemon.node.drains.lock().unwrap().is_empty());
}

#[test]
fn what_is_missing_is_told_when_the_time_is_over() {
    let daemon = Daemon::new(snapshot());
    *daemon.node.waits.lock().unwrap() = Ok(Some(DrainWait::Peer));
    let text = fails(&daemon.netft(&["route", "drain", "1", "--timeout", "1"]), 1);
    assert!(text.contains("route 1 to b: the peer has not said"), "{text}");
    assert!(!daemon.node.drains.lock().unwrap().is_empty());
    // Without time to wait, the order is all that is wanted.
    assert!(daemon.netft(&["route", "drain", "1", "--timeout", "0"]).status.success());
}

#[test]
fn a_drain_is_an_event_in_words() {
    let daemon = Daemon::new(snapshot());
    for stage in [DrainStage::Draining, DrainStage::Drained, DrainStage::Undrained] {
        daemon
            .journal
            .push(String::new(), EventDetail::Drain { route: 1, peer: "b".to_owned(), stage });
    }
    let text = daemon.shows(&["events"]);
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let stages = [(1, "draining"), (2, "drained"), (3, "undrained")];
    let expected = stages.map(|(number, stage)| format!("{number}  route 1 to b: {stage}"));
    assert_eq!(lines, expected);
}

#[test]
fn a_limit_is_a_time_with_bounds_and_only_for_a_drain_that_begins() {
    let daemon = Daemon::new(snapshot());
    daemon.shows(&["drain", "eth0", "--until", "2h"]);
    let limit = daemon.node.drains.lock().unwrap()[0].limit.unwrap();
    let (hour, given) = (Duration::from_secs(3600), limit.lasts);
    assert!(given <= 2 * hour && given > hour, "{given:?}");
    for bad in ["2", "soon", "-2h", "0s", "91d"] {
        let output = daemon.netft(&["drain", "eth0", &format!("--until={bad}")]);
        assert_eq!(output.status.code(), Some(2), "{bad}");
    }
    for body in [
        r#"{"on":false,"interface":"eth0","limit_ms":5000}"#,
        r#"{"on":true,"interface":"eth0","limit_ms":999}"#,
        r#"{"on":true,"interface":"eth0","limit_ms":7776000001}"#,
    ] {
        let (code, answer) = daemon.ask("POST", "/v1/drain", body);
        assert_eq!(code, 400, "{body}: {answer}");
    }
}

#[test]
fn overrides_are_listed_wherever_an_operator_looks() {
    let mut node = snapshot();
    let mut overrides = OperatorOverrides::default();
    let hour = Duration::from_secs(3600);
    overrides.drain_interface("eth\x1b1", Some(TimeLimit::new(Time::ZERO, 0, hour)), &[]).unwrap();
    let (local, remote) = ("10.1.0.1:3343".parse().unwrap(), "10.1.0.2:3343".parse().unwrap());
    let ends = NamedRoute { peer: "b".to_owned(), local, remote };
    let change = RouteChange {
        admin_down: Some(true),
        priority: Some(Priority(7)),
        ..RouteChange::default()
    };
    overrides.change_route(&ends, &change).unwrap();
    node.overrides = overrides;
    let daemon = Daemon::new(node);
    *daemon.node.unsaved.lock().unwrap() = Some("cannot write x: no space".to_owned());
    let text = daemon.shows(&["--utc", "status"]);
    for line in [
        "overrides interface eth\\u{1b}1: drained until 1970-01-01T01:00:00.000Z (no such route at \
         present)\n",
        "          route 10.1.0.1:3343 → 10.1.0.2:3343 (peer b): admin-down\n",
        "          route 10.1.0.1:3343 → 10.1.0.2:3343 (peer b): priority 7\n",
        "          until netftd stops only: cannot write x: no space\n",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let (_, status) = daemon.ask("GET", "/v1/status", "");
    let first = json!({
        "kind": "drain", "interface": "eth\x1b1", "peer": null, "real_local": null,
        "real_remote": null, "value": null, "until": "1970-01-01T01:00:00.000Z", "routes": [],
    });
    assert_eq!(status["overrides"][0], first);
    assert_eq!(status["overrides"][1]["routes"], json!([1]));
    assert_eq!(status["overrides"][2]["priority"], 7);
    for command in [&["reload", "--dry-run"][..], &["diff"]] {
        let text = daemon.shows(command);
        assert!(text.contains("= set beside the file: route 10.1.0.1:3343"), "{text}");
    }
    // The file has a change that would come into force with what is saved.
    let output = daemon.netft(&["diff", "--save"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("`netft reload` first") && error.contains("+ peer c"), "{error}");
    let output = daemon.netft(&["drain", "eth0"]);
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && warning.starts_with("warning: in force until"), "{warning}");
}
