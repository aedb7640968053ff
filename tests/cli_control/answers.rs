//! Answers of the control socket, and the output of `netft`.

use std::{collections::BTreeSet, process::Stdio};

use netftd::control::schema::{EventDetail, RouteFields};

use super::*;

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_route_in_json_has_exactly_these_fields() {
    let daemon = Daemon::new(snapshot());
    let (code, answer) = daemon.ask("GET", "/v1/routes", "");
    assert_eq!(code, 200);
    let expected = BTreeSet::from([
        "id",
        "peer",
        "real_local",
        "real_remote",
        "interface",
        "network",
        "virtual_local",
        "virtual_remote",
        "delay_ms",
        "threshold",
        "priority",
        "attributes",
        "transport",
        "state",
        "tx",
        "rx",
        "active",
        "suspect",
        "hold_ms",
        "flaps",
        "drain",
        "drain_by",
        "rtt_us",
        "jitter_us",
        "loss",
        "loss_out",
        "data_loss",
        "brown_out",
        "heartbeats_sent",
        "heartbeats_missed",
        "last_change",
        "reason",
        "path_mtu",
        "path_mtu_limit",
        "path_mtu_age_ms",
        "path_mtu_probing",
        "plain_sends",
        "tx_frames",
        "tx_bytes",
        "rx_frames",
        "rx_bytes",
        "via",
    ]);
    assert_eq!(keys(&answer), BTreeSet::from(["schema", "routes"]));
    for route in answer["routes"].as_array().unwrap() {
        assert_eq!(keys(route), expected);
    }
    let first = &answer["routes"][0];
    assert_eq!(first["id"], 1);
    assert_eq!(first["peer"], "b");
    assert_eq!(first["real_local"], "10.1.0.1:3343");
    assert_eq!((&first["tx_bytes"], &first["rx_bytes"]), (&4000.into(), &2900.into()));
    assert_eq!(first["virtual_remote"], "169.254.1.2");
    assert_eq!((&first["delay_ms"], &first["threshold"]), (&30.into(), &5.into()));
    assert_eq!((&first["attributes"], &first["transport"]), (&1.into(), &"udp".into()));
    assert_eq!((&first["rtt_us"], &first["loss"]), (&215.into(), &0.125.into()));
    assert_eq!(
        (&first["state"], &first["reason"]),
        (&"up".into(), &"both directions proven".into())
    );
    let time = first["last_change"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z') && time.contains('.'), "{time}");

    let mut unknown = snapshot();
    unknown.routes[0].quality.rtt = None;
    *daemon.node.snapshot.lock().unwrap() = unknown;
    let (_, one) = daemon.ask("GET", "/v1/routes/2", "");
    assert_eq!(keys(&one["route"]), expected);
    assert_eq!(one["route"]["rtt_us"], Value::Null);
}

#[test]
fn status_and_peers_in_json_have_exactly_these_fields() {
    let daemon = Daemon::new(snapshot());
    let (_, status) = daemon.ask("GET", "/v1/status", "");
    let top = [
        "schema",
        "version",
        "verdict",
        "node",
        "adapter",
        "peers",
        "routes",
        "failovers",
        "moves",
        "stalls",
        "policies",
        "counters",
        "vips",
        "names",
        "ownership",
        "engines",
        "log",
        "overrides",
        "overrides_unsaved",
    ];
    assert_eq!(keys(&status), BTreeSet::from(top));
    assert_eq!(status["node"]["boot_id"], "ffffffffffffffff");
    assert_eq!(status["failovers"], 3);
    let moves = serde_json::json!({"failover": 3, "failback": 0, "drain": 0, "start-up": 0});
    assert_eq!(status["moves"], moves);
    assert_eq!(status["policies"], serde_json::json!({"failover": 1}));
    let drops = &status["counters"]["drops"];
    assert_eq!(keys(drops), DropReason::ALL.iter().map(|reason| reason.as_str()).collect());
    let (_, peers) = daemon.ask("GET", "/v1/peers", "");
    let fields = [
        "name",
        "key",
        "v4",
        "v6",
        "addresses",
        "session",
        "session_state",
        "partner_state",
        "session_cause",
        "session_reason",
        "session_ended_by",
        "session_end_cause",
        "routes_up",
        "routes_total",
        "reachable",
        "gone",
        "active",
        "failovers",
        "moves",
        "adapter_up",
        "cipher",
        "overlay_problem",
        "release",
        "wire_versions",
        "policy",
        "classes",
    ];
    assert_eq!(keys(&peers["peers"][0]), BTreeSet::from(fields));
    let addresses: Value = serde_json::json!(["10.1.0.2:3343", "10.2.0.2:3343"]);
    assert_eq!(peers["peers"][0]["addresses"], addresses);
}

#[test]
fn a_change_reaches_the_node_with_what_it_leaves_alone() {
    let daemon = Daemon::new(snapshot());
    let (code, answer) =
        daemon.ask("PATCH", "/v1/routes/1", r#"{"delay_ms":50,"priority":7,"admin":"down"}"#);
    assert_eq!((code, &answer["route"]["id"]), (200, &1.into()));
    let (id, change) = daemon.node.changes.lock().unwrap()[0];
    assert_eq!(id, RouteId(1));
    let timing = change.timing.unwrap();
    assert_eq!((timing.delay.as_millis(), timing.threshold.get()), (50, 5));
    assert_eq!((change.priority, change.admin_down), (Some(Priority(7)), Some(true)));

    for (target, body, code, word) in [
        ("/v1/routes/1", "{}", 400, "nothing to change"),
        ("/v1/routes/1", "", 400, "EOF"),
        ("/v1/routes/1", "[]]", 400, ""),
        ("/v1/routes/1", r#"{"delay_ms":4}"#, 400, "5–60000 ms"),
        ("/v1/routes/1", r#"{"delay_ms":-1}"#, 400, "-1"),
        ("/v1/routes/1", r#"{"threshold":121}"#, 400, "2–120"),
        ("/v1/routes/1", r#"{"priority":4294967296}"#, 400, "u32"),
        ("/v1/routes/1", r#"{"admin":"sideways"}"#, 400, "sideways"),
        ("/v1/routes/1", r#"{"color":1}"#, 400, "color"),
        ("/v1/routes/9", r#"{"priority":1}"#, 404, "no route 9"),
        ("/v1/routes/x", r#"{"priority":1}"#, 400, "number"),
        ("/v1/nothing", "{}", 404, "no such resource"),
        ("/v1/status", "{}", 405, "not allowed"),
    ] {
        let (got, answer) = daemon.ask("PATCH", target, body);
        let error = answer["error"].as_str().unwrap();
        assert!(got == code && error.contains(word), "{target} {body}: {got} {error}");
    }
    assert_eq!(daemon.node.changes.lock().unwrap().len(), 1);
}

#[test]
fn a_policy_and_classes_are_changed_whole_or_not_at_all() {
    let daemon = Daemon::new(snapshot());
    let class = serde_json::json!(
        {"policy": "duplicate", "dscp": 46, "protocol": "udp", "port": "5-9", "max_size": 300}
    );
    let body = serde_json::json!({"policy": "balance", "classes": [class]}).to_string();
    let (code, answer) = daemon.ask("PATCH", "/v1/peers/b", &body);
    assert_eq!((code, &answer["peer"]["policy"]), (200, &"balance".into()), "{answer}");
    assert_eq!(answer["peer"]["classes"], serde_json::json!([class]));
    let (_, status) = daemon.ask("GET", "/v1/status", "");
    assert_eq!(status["policies"], serde_json::json!({"balance": 1}));

    let with = |class: &str| format!(r#"{{"policy":"failover","classes":[{class}]}}"#);
    for (target, body, code, word) in [
        ("/v1/peers/b", "{}".to_owned(), 400, "nothing to change"),
        ("/v1/peers/b", r#"{"policy":"fast"}"#.to_owned(), 400, "a policy is"),
        ("/v1/peers/b", r#"{"colour":1}"#.to_owned(), 400, "colour"),
        ("/v1/peers/b", with(r#"{"policy":"balance"}"#), 400, "matches everything"),
        ("/v1/peers/b", with(r#"{"policy":"balance","dscp":64}"#), 400, "0–63"),
        ("/v1/peers/b", with(r#"{"policy":"balance","port":"0"}"#), 400, "a port"),
        ("/v1/peers/b", with(r#"{"dscp":1}"#), 400, "policy"),
        ("/v1/peers/z", r#"{"policy":"balance"}"#.to_owned(), 404, "no peer \"z\""),
    ] {
        let (got, answer) = daemon.ask("PATCH", target, &body);
        let error = answer["error"].as_str().unwrap();
        assert!(got == code && error.contains(word), "{target} {body}: {got} {error}");
    }
    let shown = daemon.shows(&["peer", "show", "b"]);
    let line = "class      policy=duplicate,dscp=46,protocol=udp,port=5-9,max_size=300\n";
    assert!(shown.contains("policy     balance\n") && shown.ends_with(line), "{shown}");
    assert!(daemon.shows(&["peers"]).contains("balance +1"));

    let set = ["peer", "set", "b", "--class", "policy=balance,dscp=af41", "--policy", "failover"];
    assert!(daemon.shows(&set).ends_with("class      policy=balance,dscp=34\n"));
    let shown = daemon.shows(&["--json", "peer", "set", "b", "--no-classes"]);
    let peer: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(peer["peer"]["classes"], serde_json::json!([]));
    assert_eq!(daemon.netft(&["peer", "set", "b"]).status.code(), Some(2));
    assert_eq!(daemon.netft(&["peer", "set", "b", "--policy", "fast"]).status.code(), Some(2));
}

pub(super) fn added(peer: &str) -> EventDetail {
    EventDetail::RouteAdded {
        route: 1,
        peer: peer.to_owned(),
        transport: Transport::Udp,
        fields: RouteFields {
            real_local: "10.1.0.1:3343".parse().unwrap(),
            real_remote: "10.1.0.2:3343".parse().unwrap(),
            virtual_local: "169.254.1.1".parse().unwrap(),
            virtual_remote: "169.254.1.2".parse().unwrap(),
            delay_ms: 30,
            threshold: 5,
            priority: 2000,
            attributes: 1,
        },
    }
}

#[test]
fn events_are_numbered_typed_and_streamed() {
    let daemon = Daemon::new(snapshot());
    daemon.journal.push("2026-01-01T00:00:00.000Z".to_owned(), added("b"));
    let down = EventDetail::StateChanged {
        route: 1,
        peer: "b".to_owned(),
        from: RouteState::Up,
        to: RouteState::Down,
        reason: "heartbeats missed".to_owned(),
        last_heard_ms_ago: Some(151),
        history: vec!["41 lost".to_owned()],
    };
    daemon.journal.push("2026-01-01T00:00:01.000Z".to_owned(), down);
    let (_, answer) = daemon.ask("GET", "/v1/events", "");
    let events = answer["events"].as_array().unwrap();
    let fields = [
        "seq",
        "at",
        "event",
        "route",
        "peer",
        "real_local",
        "real_remote",
        "virtual_local",
        "virtual_remote",
        "delay_ms",
        "threshold",
        "priority",
        "attributes",
        "transport",
    ];
    assert_eq!(keys(&events[0]), BTreeSet::from(fields));
    assert_eq!((&events[0]["event"], &events[0]["seq"]), (&"route-added".into(), &1.into()));
    let fields = [
        "seq",
        "at",
        "event",
        "route",
        "peer",
        "from",
        "to",
        "reason",
        "last_heard_ms_ago",
        "history",
    ];
    assert_eq!(keys(&events[1]), BTreeSet::from(fields));
    assert_eq!(events[1]["event"], "state-changed");
    let (_, later) = daemon.ask("GET", "/v1/events?after=1", "");
    assert_eq!(later["events"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.ask("GET", "/v1/events?after=x", "").0, 400);

    let text = daemon.shows(&["events"]);
    let expected = "2026-01-01T00:00:01.000Z route 1 (10.1.0.1:3343 -> 10.1.0.2:3343) to b: \
                    up -> down: heartbeats missed, last heartbeat 151 ms ago\n  41 lost\n";
    assert!(text.ends_with(expected), "{text}");

    // A follower gets the old ones, then what happens, a line each; it ends with its reader.
    let mut follower = Command::new(env!("CARGO_BIN_EXE_netft"))
        .arg("--socket")
        .arg(daemon.path())
        .args(["events", "-f", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = std::io::BufReader::new(follower.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    assert_eq!((&next()["seq"], &next()["seq"]), (&1.into(), &2.into()));
    daemon.journal.push(String::new(), EventDetail::Stalled { length_ms: 7 });
    let third = next();
    assert_eq!((&third["schema"], &third["event"]), (&2.into(), &"stalled".into()));
    drop(stdout);
    // It notices when it has something to say.
    for _ in 0..1000 {
        daemon.journal.push(String::new(), EventDetail::Stalled { length_ms: 8 });
        if let Some(status) = follower.try_wait().unwrap() {
            assert!(status.success());
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the follower outlives its reader");
}

#[test]
fn tables_in_a_pipe_are_whole_and_mark_the_active_route() {
    let daemon = Daemon::new(snapshot());
    let table = daemon.shows(&["routes"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].contains("real_local") && lines[0].contains("attributes"), "{table}");
    assert!(lines[1].starts_with("*   1  b     -          10.1.0.1:3343"), "{table}");
    assert!(lines[1].contains("same-subnet"), "{table}");
    assert!(lines[2].starts_with("    2  b"), "{table}");
    *daemon.node.snapshot.lock().unwrap() = worst();
    // One line a row, nothing cut off, no colour.
    for args in ["routes", "peers"] {
        let table = daemon.shows(&[args]);
        assert_eq!((table.lines().count(), table.matches('Q').count()), (2, 64), "{table}");
        assert!(!table.contains('\x1b'));
    }
}

#[test]
fn flaps_holds_and_suspicion_are_shown() {
    let mut flapped = snapshot();
    let route = &mut flapped.routes[1];
    route.suspect = true;
    route.hold_down = HoldDownStatus { left: Duration::from_millis(3400), flaps: 3 };
    let daemon = Daemon::new(flapped);
    let (_, one) = daemon.ask("GET", "/v1/routes/1", "");
    let shown = ["suspect", "hold_ms", "flaps"].map(|field| one["route"][field].clone());
    assert_eq!(shown, [Value::from(true), 3400.into(), 3.into()]);
    assert!(daemon.shows(&["routes"]).contains("10.1.0.2:3343  suspect"));
    let text = daemon.shows(&["route", "show", "1"]);
    assert!(text.contains("hold               4 s (3 flaps)"), "{text}");
    assert!(text.contains("suspect            yes"), "{text}");
    assert!(text.contains("loss               12.5 % in, 3.0 % out"), "{text}");
    assert!(daemon.shows(&["route", "show", "2"]).contains("hold               - (0 flaps)"));
    daemon.node.snapshot.lock().unwrap().routes[1].suspect = false;
    assert!(daemon.shows(&["routes"]).contains("10.1.0.2:3343  held 4 s"));
    daemon.node.snapshot.lock().unwrap().routes[1].brown_out = true;
    assert!(daemon.shows(&["routes"]).contains("10.1.0.2:3343  brown-out"));
}

#[test]
fn c_14_escapes_in_names_reach_the_terminal_written_out() {
    let mut hostile = snapshot();
    hostile.peers[0].name = "b\x1b[2J\u{202e}".to_owned();
    hostile.node.name = "\x1b]0;x\x07".to_owned();
    let daemon = Daemon::new(hostile);
    daemon.journal.push("\x1b[1m".to_owned(), added("\x1b[31m\n"));
    for args in
        [&["routes"] as &[&str], &["peers"], &["status"], &["route", "show", "1"], &["events"]]
    {
        let text = daemon.shows(args);
        assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text:?}");
        assert!(text.contains(r"\u{1b}"), "{text}");
    }
}

#[test]
fn a_reload_prints_its_changes_and_a_wrong_file_its_reason_over_several_lines() {
    let daemon = Daemon::new(snapshot());
    let output = daemon.netft(&["reload", "--dry-run"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "+ peer c\\u{1b}: 10.1.0.3\n");
    let (code, answer) = daemon.ask("POST", "/v1/reload?dry_run=true", "");
    assert_eq!((code, &answer["applied"]), (200, &false.into()));
    let output = daemon.netft(&["reload"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "error: line 1\n  --> netft.toml:1:2\\u{1b}\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    let (code, _) = daemon.ask("POST", "/v1/reload?dryrun=true", "");
    assert_eq!(code, 400);
}

/// A session outlives every route; a dead peer is no peer with a session that works.
#[test]
fn t_03_a_silent_peer_is_shown_as_such_and_why_there_is_no_session() {
    let mut silent = snapshot();
    silent.peers[0].status.heard = false;
    silent.peers[0].status.reachable = false;
    let text = "no heartbeat for 12 s on any of its 2 routes: carrier lost";
    let problem = SessionProblem::new(SessionCause::Silent, text);
    silent.peers[0].session_problem = Some(problem);
    let daemon = Daemon::new(silent.clone());
    let (_, peers) = daemon.ask("GET", "/v1/peers", "");
    let peer = &peers["peers"][0];
    assert_eq!((&peer["session"], &peer["session_state"]), (&true.into(), &"silent".into()));
    assert_eq!((&peer["session_cause"], &peer["adapter_up"]), (&"silent".into(), &Value::Null));
    assert_eq!(peer["session_reason"], text);
    assert!(daemon.shows(&["peers"]).ends_with(&format!("\nb: session silent: {text}\n")));
    let status = String::from_utf8(daemon.netft(&["status"]).stdout).unwrap();
    assert!(status.contains("1 configured, 1 with a session (1 silent), 0 reachable"), "{status}");
    silent.peers[0].status.session = false;
    let text = "the peer does not accept this node's key";
    silent.peers[0].session_problem = Some(SessionProblem::new(SessionCause::KeyRefused, text));
    *daemon.node.snapshot.lock().unwrap() = silent;
    let shown = daemon.shows(&["peer", "show", "b"]);
    assert!(shown.contains(&format!("session    no: {text}\n")), "{shown}");
    let (_, peers) = daemon.ask("GET", "/v1/peers", "");
    assert_eq!(peers["peers"][0]["session_cause"], "key-refused");
    let metrics = daemon.shows(&["metrics"]);
    assert!(metrics.contains("netft_peer_heard{peer=\"b\"} 0"), "{metrics}");
}
