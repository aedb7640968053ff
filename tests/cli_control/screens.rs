//! Screens of the tables at three widths, as golden files: `NETFT_WRITE_SCREENS=1 cargo test --test
//! cli_control screens` writes them anew.

use std::{env, fs};

use netft::{
    config::NetworkRole,
    topology::{InterfaceState, MetricSource, NetworkInfo, NetworkInterface, NetworkState},
};
use netftd::{
    control::{convert, networks},
    render::{style::OutputStyle, tables, views},
};

use super::*;

/// Two peers: one with a route of three that failed, the other silent.
pub(super) fn busy() -> Snapshot {
    let mut snapshot = snapshot();
    let mut failed = route(2, "10.2.0.1:3343", "10.2.0.2:3343");
    failed.state = RouteState::Down;
    (failed.tx, failed.rx, failed.quality.loss_in) = (false, false, 1.0);
    failed.reason = Reason::HeartbeatsMissed;
    let mut held = route(3, "[fd00:3::1]:3343", "[fd00:3::2]:3343");
    held.hold_down = HoldDownStatus { left: Duration::from_millis(3400), flaps: 3 };
    let mut silent = route(4, "10.1.0.1:3343", "10.1.0.3:3343");
    silent.spec.peer = PeerId(1);
    (silent.state, silent.tx, silent.rx) = (RouteState::Down, false, false);
    (silent.quality, silent.reason) = (RouteQuality::default(), Reason::HeartbeatsMissed);
    snapshot.routes = vec![snapshot.routes[1].clone(), failed, held, silent];
    let mut other = snapshot.peers[0].clone();
    other.name = "node-3.example".to_owned();
    other.status.peer = PeerId(1);
    (other.status.heard, other.status.reachable, other.status.active) = (false, false, None);
    let text = "no heartbeat for 12 s on its route: carrier lost";
    other.session_problem = Some(SessionProblem::new(SessionCause::Silent, text));
    snapshot.peers.push(other);
    let network = |prefix: &str, number: u16, name: &str, addr: &str, state| NetworkInfo {
        prefix: prefix.parse().unwrap(),
        state,
        role: NetworkRole::Cluster,
        metric: 1000 + u32::from(number),
        metric_source: MetricSource::Interface,
        interfaces: vec![NetworkInterface {
            peer: None,
            number,
            name: Some(name.to_owned()),
            addr: addr.parse().unwrap(),
            state: InterfaceState::Up,
        }],
    };
    snapshot.networks = vec![
        network("10.1.0.0/24", 2, "eth0", "10.1.0.1", NetworkState::Partitioned),
        network("10.2.0.0/24", 3, "eth1", "10.2.0.1", NetworkState::Down),
        network("fd00:3::/64", 4, "bond0.300", "fd00:3::1", NetworkState::Up),
    ];
    snapshot
}

pub(super) fn assert_screen(name: &str, width: usize, shown: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli_control/screens");
    let path = folder.join(format!("{name}-{width}.txt"));
    if env::var_os("NETFT_WRITE_SCREENS").is_some() {
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, shown).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == shown, "{} differs; it would be\n{shown}", path.display());
}

#[test]
fn screens_fit_the_terminal_and_break_no_address() {
    let (busy, clock) = (busy(), WallClock::new(Time::ZERO));
    for width in [80, 120, 200] {
        let style = OutputStyle { width: Some(width), ..OutputStyle::default() };
        let routes = tables::routes_table(&convert::to_route_list(&busy, &clock), &style);
        let peers = tables::peers_table(&convert::to_peer_list(&busy), &style);
        let networks = tables::networks_table(&networks::to_network_list(&busy), &style);
        for table in [&routes, &peers, &networks] {
            let widest = table.lines().map(|line| line.chars().count()).max();
            assert!(widest.is_some_and(|widest| widest <= width), "{width}: {table}");
        }
        for address in ["10.1.0.1:3343", "10.2.0.2:3343", "[fd00:3::2]:3343"] {
            assert!(routes.contains(address), "{address}: {routes}");
        }
        assert_screen("routes", width, &routes);
        assert_screen("peers", width, &peers);
        assert_screen("networks", width, &networks);
        let status = views::status_text(&convert::to_daemon_status(&busy), &style);
        assert_screen("status", width, &status);
    }
}

#[test]
fn colours_show_states_and_change_no_text() {
    let (busy, clock) = (busy(), WallClock::new(Time::ZERO));
    let routes = convert::to_route_list(&busy, &clock);
    let plain = tables::routes_table(&routes, &OutputStyle::default());
    let style = OutputStyle { is_coloured: true, ..OutputStyle::default() };
    let mut coloured = tables::routes_table(&routes, &style);
    assert!(coloured.contains("\x1b[32mup\x1b[0m") && coloured.contains("\x1b[31mdown\x1b[0m"));
    for sequence in ["\x1b[0m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[2m"] {
        coloured = coloured.replace(sequence, "");
    }
    assert_eq!(coloured, plain);
}

/// On a real terminal: its width and colours; with `NO_COLOR` none.
#[test]
fn a_terminal_gets_its_width_and_colours() {
    let daemon = Daemon::new(busy());
    let netft = env!("CARGO_BIN_EXE_netft");
    let in_terminal = |variable: &str| {
        let command = format!(
            "stty cols 80 rows 24; exec {netft} --socket {} routes",
            daemon.path().display()
        );
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
        if !variable.is_empty() {
            script.env(variable, "1");
        }
        let output = script.stdin(std::process::Stdio::null()).output();
        output.map(|output| String::from_utf8(output.stdout).unwrap().replace('\r', ""))
    };
    let Ok(shown) = in_terminal("") else {
        return eprintln!("skipped: there is no `script` (util-linux)");
    };
    assert!(shown.contains("\x1b[32mup\x1b[0m"), "{shown:?}");
    assert!(shown.contains("hidden (see --wide): "), "{shown:?}");
    let plain = in_terminal("NO_COLOR").unwrap();
    assert_screen("routes", 80, &plain);
}

#[test]
fn the_verdict_sets_the_exit_code() {
    let daemon = Daemon::new(snapshot());
    let status = daemon.netft(&["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(0), "{text}");
    assert!(text.starts_with("redundant: every peer has at least two routes"), "{text}");
    let check = daemon.shows(&["check"]);
    let expected = "NETFT OK - redundant: 1 of 1 peers reachable, 2 of 2 routes up | \
                    peers_reachable=1;;;0;1 routes_up=2;;;0;2 failovers=3c\n";
    assert_eq!(check, expected);

    daemon.node.snapshot.lock().unwrap().routes[1].state = RouteState::Down;
    let status = daemon.netft(&["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(1), "{text}");
    assert!(text.contains("b has 1 of 2 routes up: the next failure cuts it off\n"), "{text}");
    assert!(text.contains("route 1 to b is down: "), "{text}");
    assert_eq!(daemon.netft(&["check"]).status.code(), Some(1));

    daemon.node.snapshot.lock().unwrap().peers[0].status.reachable = false;
    let status = daemon.netft(&["status", "--json"]);
    let answer: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((status.status.code(), &answer["verdict"]["state"]), (Some(2), &"cut-off".into()));
    let check = daemon.netft(&["check"]);
    let text = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.code() == Some(2) && text.starts_with("NETFT CRITICAL - "), "{text}");
    assert!(text.ends_with("\nb is unreachable: no route to it is usable\n"), "{text}");

    // A drained route is no redundancy: its cable is about to go.
    let mut drained = snapshot();
    drained.routes[0].drain = Some(netft::route::DrainStatus {
        here: true,
        at_peer: false,
        left_here: true,
        left_at_peer: true,
    });
    *daemon.node.snapshot.lock().unwrap() = drained;
    assert_eq!(daemon.netft(&["status"]).status.code(), Some(1));
}

#[test]
fn a_wait_ends_with_the_peer_or_the_time() {
    let daemon = Daemon::new(busy());
    assert!(daemon.netft(&["wait", "--peer", "b", "--timeout", "0"]).status.success());
    let late = daemon.netft(&["wait", "--timeout", "0"]);
    let text = String::from_utf8(late.stderr).unwrap();
    assert_eq!(late.status.code(), Some(1), "{text}");
    assert!(text.contains("node-3.example is not reachable (no heartbeat for 12 s"), "{text}");
    assert_eq!(daemon.netft(&["wait", "--peer", "z"]).status.code(), Some(2));
    let waiting = Command::new(env!("CARGO_BIN_EXE_netft"))
        .arg("--socket")
        .arg(daemon.path())
        .args(["wait", "--peer", "node-3.example", "--timeout", "600"])
        .spawn();
    let mut waiting = waiting.unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none(), "it waits");
    daemon.node.snapshot.lock().unwrap().peers[1].status.reachable = true;
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn tables_are_filtered_in_text_and_json() {
    let daemon = Daemon::new(busy());
    let ids = |args: &[&str]| {
        let shown = daemon.shows(&[args, &["--json"]].concat());
        let answer: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(answer["schema"], 2);
        let rows = answer["routes"].as_array().unwrap();
        rows.iter().map(|row| row["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&["routes"]), [1, 2, 3, 4]);
    assert_eq!(ids(&["routes", "--peer", "b"]), [1, 2, 3]);
    assert_eq!(ids(&["routes", "--state", "down"]), [2, 4]);
    assert_eq!(ids(&["routes", "--state", "down", "--peer", "b"]), [2]);
    assert_eq!(ids(&["routes", "--network", "10.1.0.0/24"]), [1, 4]);
    assert_eq!(ids(&["routes", "--network", "fd00:3::/64"]), [3]);
    assert_eq!(daemon.shows(&["routes", "--network", "10.9.0.0/24"]), "no routes\n");
    assert_eq!(daemon.netft(&["routes", "--state", "sideways"]).status.code(), Some(2));
    let silent = daemon.shows(&["peers", "--state", "silent"]);
    assert!(silent.contains("node-3.example") && !silent.contains("\nb "), "{silent}");
    assert!(silent.contains("0/1"), "{silent}");
    // A peer without routes has none; one that is not there is a mistake.
    daemon.node.snapshot.lock().unwrap().routes.truncate(3);
    assert_eq!(daemon.shows(&["routes", "--peer", "node-3.example"]), "no routes\n");
    for command in ["peers", "routes", "tune", "wait"] {
        let refused = daemon.netft(&[command, "--peer", "z"]);
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && text.contains("no peer \"z\""), "{text}");
    }
}

#[test]
fn events_are_filtered_by_time_count_peer_and_kind() {
    use netftd::control::schema::EventDetail;
    let daemon = Daemon::new(busy());
    let ended = |peer: &str| EventDetail::SessionEnded {
        peer: peer.to_owned(),
        by: "peer".to_owned(),
        cause: "peer-stopped".to_owned(),
    };
    for (at, what) in [
        ("2026-01-01T00:00:00.000Z", ended("b")),
        ("2026-01-01T00:00:01.000Z", EventDetail::Stalled { length_ms: 60 }),
        ("2026-01-01T00:00:02.000Z", ended("c")),
        ("2026-01-01T00:00:03.000Z", ended("b")),
    ] {
        daemon.journal.push(at.to_owned(), what);
    }
    let numbers = |args: &[&str]| {
        let shown = daemon.shows(&[&["events"], args, &["--json"]].concat());
        let answer: Value = serde_json::from_str(&shown).unwrap();
        let text = daemon.shows(&[&["events"], args].concat());
        let events = answer["events"].as_array().unwrap();
        assert_eq!(text.lines().count(), events.len(), "{text}");
        events.iter().map(|event| event["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&[]), [1, 2, 3, 4]);
    assert_eq!(numbers(&["-n", "2"]), [3, 4]);
    assert_eq!(numbers(&["--peer", "b"]), [1, 4]);
    assert_eq!(numbers(&["--peer", "b", "-n", "1"]), [4]);
    assert_eq!(numbers(&["--id", "stalled"]), [2]);
    assert_eq!(numbers(&["--id", "stalled", "--id", "session-ended"]), [1, 2, 3, 4]);
    assert_eq!(numbers(&["--since", "2026-01-01T00:00:02Z"]), [3, 4]);
    assert_eq!(numbers(&["--since", "1s"]), [] as [u64; 0]);
    let unknown = daemon.netft(&["events", "--id", "stall"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("`session-ended`"));
}
