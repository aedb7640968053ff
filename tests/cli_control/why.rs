//! `netft why`, the stalls in `netft status`, and the metrics.

use std::collections::{BTreeMap, BTreeSet};

use netft::failover::{report::SelectionOutcome, stall_histogram::StallSource};
use netftd::control::{
    cause::{CandidateRoute, FailoverCostView, FailoverReportView, LeftRoute, RemoteReportView},
    schema::{EventDetail, EventView},
};

use super::*;

fn candidate(route: u32, verdict: SelectionOutcome) -> CandidateRoute {
    CandidateRoute {
        route,
        state: RouteState::Up,
        reason: "both directions proven".to_owned(),
        priority: 2000 + route,
        suspect: false,
        held_ms: (verdict == SelectionOutcome::HeldDown).then_some(400),
        verdict,
    }
}

fn moved(from: Option<u32>, to: Option<u32>) -> EventDetail {
    let left = LeftRoute {
        route: 1,
        state: RouteState::Down,
        last_heard_ms_ago: Some(151),
        last_answered_ms_ago: Some(151),
        suspect_ms: Some(139),
        remote_report: Some(RemoteReportView { heard: true, local_down: false, admin_down: false }),
        heartbeats: vec!["151.2 ms ago: received reply 41".to_owned()],
    };
    EventDetail::Moved {
        peer: "b".to_owned(),
        from,
        to,
        reason: "heartbeats missed".to_owned(),
        cause: Box::new(FailoverReportView {
            left: from.map(|_| left),
            candidates: vec![
                candidate(2, SelectionOutcome::Chosen),
                candidate(3, SelectionOutcome::HeldDown),
            ],
            more: 0,
            dark_ms: None,
            cost: FailoverCostView { resent: 2, ..FailoverCostView::default() },
        }),
    }
}

/// A first choice, a failover, what it cost, and the way back.
fn happen(daemon: &Daemon) {
    let cost = FailoverCostView {
        resent: 37,
        duplicated: 120,
        lost: 0,
        stall_us: Some(12_345),
        stall_by: Some(StallSource::Data),
    };
    let failback = EventDetail::Moved {
        peer: "b".to_owned(),
        from: Some(2),
        to: Some(1),
        reason: "failback".to_owned(),
        cause: Box::default(),
    };
    let all = [
        ("03:00:00.000", moved(None, Some(1))),
        ("03:02:11.263", EventDetail::Suspect { route: 1, peer: "b".to_owned() }),
        ("03:02:11.402", moved(Some(1), Some(2))),
        ("03:02:12.902", EventDetail::Cost { peer: "b".to_owned(), from: 1, to: Some(2), cost }),
        ("03:02:14.711", failback),
    ];
    for (time, what) in all {
        daemon.journal.push(format!("2026-11-21T{time}Z"), what);
    }
}

#[test]
fn the_story_of_a_move_is_told_in_order() {
    let daemon = Daemon::new(snapshot());
    happen(&daemon);
    let expected = "\
event 3, 2026-11-21T03:02:11.402Z
data to b moved: route 1 (10.1.0.1:3343 -> 10.1.0.2:3343) -> route 2 (10.2.0.1:3343 -> \
10.2.0.2:3343): heartbeats missed

before
     -139 ms  route 1 is suspect: unacknowledged frames retransmitted on another route  (event 2)

state of route 1 (10.1.0.1:3343 -> 10.1.0.2:3343)
  down; last heartbeat received 151 ms before, last one answered 151 ms before
  suspect for 139 ms: its data was unacknowledged
  last report of the peer: it receives from this node
  last heartbeats in both directions:
    151.2 ms ago: received reply 41

route selection
  route 2 (10.2.0.1:3343 -> 10.2.0.2:3343): chosen (up, priority 2002)
  route 3: usable, in hold-down for 400 ms more

cost
  data stalled for 12.34 ms; frames: 37 retransmitted, 120 duplicated, 0 lost

after
    +3309 ms  data to b moved: route 2 -> route 1: failback  (event 5)
";
    assert_eq!(daemon.shows(&["why", "3"]), expected);
    for args in [&["why"] as &[&str], &["why", "last"], &["why", "--route", "2"]] {
        assert!(daemon.shows(args).starts_with("event 5, "), "{args:?}");
    }
    // The number to ask for stands before the line.
    assert!(daemon.shows(&["events"]).contains("\n   3 2026-11-21T03:02:11.402Z data to b moved"));
}

/// Data cannot both wait and not stand still.
#[test]
fn t_02_an_outage_has_a_length_and_no_cost() {
    let daemon = Daemon::new(snapshot());
    let back = || EventDetail::Moved {
        peer: "b".to_owned(),
        from: None,
        to: Some(2),
        reason: "both directions proven".to_owned(),
        cause: Box::new(FailoverReportView { dark_ms: Some(4321), ..Default::default() }),
    };
    let cost = FailoverCostView { lost: 3, ..FailoverCostView::default() };
    daemon.journal.push("2026-11-21T03:02:11.402Z".to_owned(), moved(Some(1), None));
    let waits = "it waits in the applications, or is lost";
    let text = daemon.shows(&["why"]);
    assert!(text.contains(&format!("{waits}; no route has been usable since")), "{text}");
    let lost = EventDetail::Cost { peer: "b".to_owned(), from: 1, to: None, cost };
    daemon.journal.push("2026-11-21T03:02:12.902Z".to_owned(), lost);
    daemon.journal.push("2026-11-21T03:02:15.723Z".to_owned(), back());
    let text = daemon.shows(&["why", "1"]);
    assert!(text.contains(&format!("{waits}, for 4321 ms")), "{text}");
    assert!(!text.contains("no data stall") && !text.contains("\ncost\n"), "{text}");
    let story: Value = serde_json::from_str(&daemon.shows(&["why", "1", "--json"])).unwrap();
    assert_eq!((&story["cost"], &story["outage_ms"]), (&Value::Null, &4321.into()));
    assert!(daemon.shows(&["why", "3"]).contains("no route had carried data for 4321 ms before"));
}

#[test]
fn the_story_in_json_keeps_its_fields() {
    let daemon = Daemon::new(snapshot());
    happen(&daemon);
    let story: Value = serde_json::from_str(&daemon.shows(&["why", "3", "--json"])).unwrap();
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let top = [
        "schema",
        "event",
        "before",
        "after",
        "cost",
        "outage_ms",
        "cost_final",
        "routes",
        "earlier_run",
        "oldest",
        "newest",
    ];
    assert_eq!(keys(&story), names(&top));
    let cause = &story["event"]["cause"];
    assert_eq!(keys(cause), names(&["left", "candidates", "more", "dark_ms", "cost"]));
    let candidate = ["route", "state", "reason", "priority", "suspect", "held_ms", "verdict"];
    assert_eq!(keys(&cause["candidates"][0]), names(&candidate));
    let cost = ["resent", "duplicated", "lost", "stall_us", "stall_by"];
    assert_eq!(keys(&story["cost"]), names(&cost));
    assert_eq!((&story["cost"]["resent"], &story["cost_final"]), (&37.into(), &true.into()));
    assert_eq!(story["routes"][0]["real_local"], "10.1.0.1:3343");
    // A line of the event stream reads back as what it was.
    let event: EventView = serde_json::from_value(story["after"][0].clone()).unwrap();
    assert!(matches!(
        event.detail,
        EventDetail::Cost { cost: FailoverCostView { lost: 0, .. }, .. }
    ));
}

#[test]
fn what_cannot_be_told_is_said_with_what_can() {
    let daemon = Daemon::new(snapshot());
    let refused = |args: &[&str], words: &str| {
        let output = daemon.netft(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(words), "{args:?}: {text}");
    };
    refused(&["why"], "error: no events yet");
    daemon
        .journal
        .push("2026-11-21T03:00:00.000Z".to_owned(), EventDetail::Stalled { length_ms: 1 });
    refused(&["why"], "no data has moved yet: events 1 to 1 are kept");
    refused(&["why", "2"], "there is no event 2 yet: events 1 to 1 are kept");
    refused(&["why", "--route", "9"], "no event about route 9");
    refused(&["why", "first"], "not `last`");
    refused(&["why", "1", "--route", "9"], "cannot be used with");
    assert!(daemon.shows(&["why", "1"]).contains("no preceding event"));
    for _ in 0..1100 {
        daemon
            .journal
            .push("2026-11-21T03:00:00.000Z".to_owned(), EventDetail::Stalled { length_ms: 1 });
    }
    refused(&["why", "5"], "event 5 is discarded: events 78 to 1101 are kept");
    assert!(daemon.shows(&["why", "78"]).contains("(events before 78 are not kept)"));
    assert_eq!(daemon.ask("GET", "/v1/why?event=1&route=1", "").0, 400);
    assert_eq!(daemon.ask("GET", "/v1/why?what=1", "").0, 400);
}

#[test]
fn status_shows_how_long_data_stood_still() {
    let mut stalled = snapshot();
    let daemon = Daemon::new(stalled.clone());
    assert!(daemon.shows(&["status"]).contains("\nstalls    none\n"));
    for ms in [3, 12, 12, 15] {
        stalled.stalls.record(Duration::from_millis(ms));
    }
    *daemon.node.snapshot.lock().unwrap() = stalled;
    let line = "\nstalls    4, p50 15.00 ms, p99 15.00 ms, max 15.00 ms\n";
    let text = daemon.shows(&["status"]);
    assert!(text.contains(line), "{text}");
    let (_, status) = daemon.ask("GET", "/v1/status", "");
    assert_eq!(status["stalls"]["buckets"], serde_json::json!([0, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0]));
    assert_eq!(status["stalls"]["max_us"], 15_000);
}

/// One sample of the text format: name, labels, value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads the text format 0.0.4, strictly: every family is announced with HELP and TYPE, and its
/// samples follow at once. Returns the type of every family and the samples.
fn parse(text: &str) -> (BTreeMap<String, String>, Vec<Sample>) {
    assert!(text.ends_with('\n'));
    let (mut types, mut samples, mut family) = (BTreeMap::new(), Vec::new(), String::new());
    let mut help = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap();
            assert!(!words.is_empty() && is_name(name, true), "{line}");
            help = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name, help, "TYPE follows its HELP");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {name}");
            family = name.to_owned();
        } else {
            let sample = sample(line);
            let suffix = sample.0.strip_prefix(&family).unwrap_or_else(|| panic!("{line}"));
            let suffixes: &[&str] = match types[&family].as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            samples.push(sample);
        }
    }
    (types, samples)
}

fn is_name(name: &str, colon: bool) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    !name.is_empty() && name.chars().all(inner) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(is_name(label, false), "{line}");
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let close = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        other => panic!("\\{other} in {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = &after[close + 1..];
            match rest.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap();
    assert!(!value.contains(' '), "no time stamp: {line}");
    (name.to_owned(), labels, value.parse().unwrap())
}

#[test]
fn the_metrics_are_in_the_text_format_and_counters_only_grow() {
    let mut later = snapshot();
    later.peers[0].name = "b\"\\\n".to_owned();
    let daemon = Daemon::new(later.clone());
    let (types, before) = parse(&daemon.shows(&["metrics"]));
    for (name, kind) in &types {
        let is_own = name.starts_with("netft_") || name.starts_with("process_");
        assert!(is_own, "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
    }
    // Every drop reason, and the escaped name of a hostile peer.
    let reasons = before.iter().filter(|sample| sample.0 == "netft_dropped_packets_total");
    assert_eq!(reasons.count(), DropReason::ALL.len());
    let hostile = |sample: &&Sample| sample.1.get("peer").is_some_and(|name| name == "b\"\\\n");
    assert!(before.iter().filter(hostile).count() > 10);
    let value = |samples: &[Sample], name: &str, label: (&str, &str)| {
        let is = |it: &&Sample| it.0 == name && it.1.get(label.0).is_none_or(|v| v == label.1);
        samples.iter().find(is).unwrap_or_else(|| panic!("no {name}")).2
    };
    assert_eq!(value(&before, "netft_route_rtt_seconds", ("local", "10.1.0.1:3343")), 0.000_215);
    assert_eq!(value(&before, "netft_route_state", ("state", "up")), 1.0);
    assert_eq!(value(&before, "netft_route_state", ("state", "down")), 0.0);
    assert_eq!(value(&before, "netft_sent_bytes_total", ("", "")), (1u64 << 40) as f64);
    assert_eq!(value(&before, "netft_route_received_bytes_total", ("", "")), 2900.0);

    for ms in [3, 12, 700] {
        later.stalls.record(Duration::from_millis(ms));
    }
    later.counters.resent_frames += 5;
    later.routes[0].heartbeats.sent += 1;
    later.peers[0].status.moves.failovers += 1;
    later.routes[1].quality.rtt = None;
    *daemon.node.snapshot.lock().unwrap() = later;
    let (_, after) = parse(&daemon.shows(&["metrics"]));
    let bucket = |le| value(&after, "netft_failover_stall_seconds_bucket", ("le", le));
    assert_eq!([bucket("0.002"), bucket("0.005"), bucket("0.02")], [0.0, 1.0, 2.0]);
    assert_eq!([bucket("0.64"), bucket("+Inf")], [2.0, 3.0]);
    assert_eq!(value(&after, "netft_failover_stall_seconds_count", ("", "")), 3.0);
    assert_eq!(value(&after, "netft_failover_stall_seconds_sum", ("", "")), 0.715);
    let mut grown = 0;
    // The figures of the process are those of this test.
    for (name, labels, was) in before.iter().filter(|it| !it.0.starts_with("process_")) {
        let counts = name.ends_with("_total") || name.contains("_stall_seconds");
        let now = after.iter().find(|sample| (&sample.0, &sample.1) == (name, labels));
        if let Some(now) = now.filter(|_| counts) {
            assert!(now.2 >= *was, "{name} {labels:?}: {was} then {}", now.2);
            grown += usize::from(now.2 > *was);
        } else {
            assert!(!counts, "{name} {labels:?} is gone");
        }
    }
    // Resent, a heartbeat, a failover and a move, nine buckets from 5 ms on, count and sum.
    assert_eq!(grown, 4 + 9 + 2);

    let (code, _) = daemon.raw(b"GET /metrics HTTP/1.0\r\n\r\n");
    assert_eq!(code, 200);
    let output = daemon.netft(&["metrics", "--json"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
