//! `netft top`: golden screens at three widths, its keys, and a run in a real terminal.

use std::{
    env, fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use netftd::{
    control::{
        convert,
        schema::{EventDetail, EventView},
    },
    render::{
        style::OutputStyle,
        top,
        top::{TopKey, TopModel, TopOrder, TopSample},
    },
};
use ratatui::{Terminal, backend::TestBackend};

use super::{
    screens::{assert_screen, busy},
    *,
};

/// Longest wait for the terminal; it bounds the test and is not asserted.
const TERMINAL_TIMEOUT: Duration = Duration::from_secs(20);

fn sample_of(snapshot: &Snapshot, second: u64) -> TopSample {
    let clock = WallClock::new(Time::ZERO);
    let peers = convert::to_peer_list(snapshot).peers;
    TopSample {
        at: format!("2026-11-30T14:05:{second:02}.000Z"),
        elapsed_ms: second * 1000,
        status: convert::to_daemon_status(snapshot),
        peers,
        routes: convert::to_route_list(snapshot, &clock).routes,
        events: Vec::new(),
    }
}

/// A minute of a busy node: traffic both ways, a round-trip time that swings, and three events.
fn busy_model() -> TopModel {
    let mut model = TopModel::new(OutputStyle::default());
    let mut snapshot = busy();
    for second in 0..60u64 {
        let traffic = |bytes| RouteTraffic { frames: second, bytes: second * bytes };
        snapshot.sent_by_route = [(RouteId(1), traffic(12_900_000))].into();
        snapshot.received_by_route =
            [(RouteId(1), traffic(1_300)), (RouteId(3), traffic(80))].into();
        snapshot.routes[0].quality.rtt = Some(Duration::from_micros(200 + second % 10 * 50));
        let mut sample = sample_of(&snapshot, second);
        let event = |seq, detail| EventView { seq, at: sample.at.clone(), detail };
        sample.events = match second {
            10 => vec![event(1, EventDetail::Suspect { route: 2, peer: "b".to_owned() })],
            11 => vec![
                event(2, EventDetail::Stalled { length_ms: 60 }),
                event(3, EventDetail::RemoteGone { peer: "c\x1b[31m".to_owned(), after_ms: 1000 }),
            ],
            _ => Vec::new(),
        };
        model.on_sample(sample);
    }
    model
}

/// The screen as text, without blanks at the ends of its lines.
fn screen_text(model: &TopModel, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| top::draw_screen(model, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let symbols = (0..width).map(|x| buffer[(x, y)].symbol());
        format!("{}\n", symbols.collect::<String>().trim_end())
    };
    (0..height).map(line).collect()
}

#[test]
fn the_screen_of_top_fits_every_terminal() {
    let mut model = busy_model();
    for (width, height) in [(80, 24), (120, 30), (200, 50)] {
        let shown = screen_text(&model, width, height);
        for what in ["cut off", "10.2.0.0/24", "fd00:3::/64", "*up", "12M", "held 4 s"] {
            assert!(shown.contains(what), "{width}: no {what}\n{shown}");
        }
        assert!(!shown.contains('\x1b'), "a hostile name reaches the terminal");
        assert_screen("top", usize::from(width), &shown);
    }
    model.on_key(TopKey::Down);
    model.on_key(TopKey::Drain);
    assert_screen("top-drain", 80, &screen_text(&model, 80, 24));
    // Smaller than the layout is made for: nothing panics.
    for (width, height) in [(1, 1), (10, 3), (40, 8), (79, 12)] {
        screen_text(&model, width, height);
    }
    screen_text(&TopModel::new(OutputStyle::default()), 80, 24);
}

#[test]
fn more_rows_and_columns_than_fit_are_scrolled_to_the_selection() {
    let mut snapshot = busy();
    let (peer, pattern) = (snapshot.peers[0].clone(), snapshot.routes[0].clone());
    (snapshot.peers, snapshot.routes) = (Vec::new(), Vec::new());
    for number in 0..40u16 {
        let mut peer = peer.clone();
        (peer.name, peer.status.peer) = (format!("peer-{number}"), PeerId(number));
        snapshot.peers.push(peer);
        for path in 0..3 {
            let mut route = pattern.clone();
            (route.id, route.spec.peer) = (RouteId(u32::from(number) * 3 + path), PeerId(number));
            route.spec.real_local =
                ["10.1.0.1:1", "10.2.0.1:1", "[fd00:3::1]:1"][path as usize].parse().unwrap();
            snapshot.routes.push(route);
        }
    }
    let mut model = TopModel::new(OutputStyle::default());
    model.on_sample(sample_of(&snapshot, 0));
    assert!(screen_text(&model, 80, 24).contains("peer 1-5/40"));
    for _ in 0..500 {
        model.on_key(TopKey::Down);
    }
    let shown = screen_text(&model, 80, 24);
    assert!(shown.contains("peer 36-40/40") && shown.contains("routes 113-120/120"), "{shown}");
    assert_eq!(model.on_key(TopKey::Drain), None);
    assert_eq!(model.on_key(TopKey::Confirm), Some(TopOrder::Drain { route: 119, on: true }));
    // The selection stays on its route while others come and go, and goes with it.
    snapshot.routes.remove(0);
    model.on_sample(sample_of(&snapshot, 1));
    model.on_key(TopKey::Undrain);
    assert_eq!(model.on_key(TopKey::Confirm), Some(TopOrder::Drain { route: 119, on: false }));
    snapshot.routes.pop();
    model.on_sample(sample_of(&snapshot, 2));
    model.on_key(TopKey::Drain);
    assert_eq!(model.on_key(TopKey::Confirm), Some(TopOrder::Drain { route: 1, on: true }));
}

#[test]
fn nothing_is_drained_without_a_confirmation() {
    let mut model = busy_model();
    assert_eq!(model.on_key(TopKey::Confirm), None, "nothing is asked");
    for answer in [TopKey::Other, TopKey::Quit, TopKey::Drain, TopKey::Down] {
        assert_eq!(model.on_key(TopKey::Drain), None);
        assert!(screen_text(&model, 80, 24).contains("drain route 1 to b (eth0): its data moves"));
        assert_eq!(model.on_key(answer), None, "{answer:?}");
        assert!(screen_text(&model, 80, 24).contains("nothing was changed"));
        assert_eq!(model.on_key(TopKey::Confirm), None);
    }
    model.on_drained(Err("error: the last route to b\x1b\nmore".to_owned()));
    assert!(screen_text(&model, 80, 24).contains("the last route to b\\u{1b}"));
    model.on_failure("no netftd listens");
    let shown = screen_text(&model, 80, 24);
    assert!(shown.contains("no netftd listens") && shown.contains("*up"), "the last sample stays");
    assert_eq!(model.on_key(TopKey::Quit), Some(TopOrder::Quit));
}

/// A terminal emulator (tmux) with a program in it; ended when dropped.
struct Emulator<'a> {
    socket: &'a str,
    folder: &'a Path,
}

impl Emulator<'_> {
    fn tmux(&self, args: &[&str]) -> std::io::Result<Output> {
        let mut tmux = Command::new("tmux");
        tmux.args(["-f", "/dev/null", "-L", self.socket]).args(args);
        tmux.env("TMUX_TMPDIR", self.folder).env("LC_ALL", "C.UTF-8").env("TERM", "xterm");
        tmux.env_remove("TMUX").stdin(Stdio::null()).output()
    }

    fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p", "-t", "top"]).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn await_screen(&self, what: &str) -> String {
        let deadline = Instant::now() + TERMINAL_TIMEOUT;
        loop {
            let shown = self.screen();
            if shown.contains(what) {
                return shown;
            }
            assert!(Instant::now() < deadline, "no {what:?} on the screen:\n{shown}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn press(&self, key: &str) {
        assert!(self.tmux(&["send-keys", "-t", "top", key]).unwrap().status.success());
    }
}

impl Drop for Emulator<'_> {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

/// In a terminal of 80 × 24: the screen, a drain by the keyboard, the record, and the terminal
/// after the end.
#[test]
fn top_runs_in_a_terminal_and_drains_by_the_keyboard() {
    let daemon = Daemon::new(busy());
    let record = daemon.dir.path().join("record.jsonl");
    let emulator = Emulator { socket: "netft-top", folder: daemon.dir.path() };
    let command = format!(
        "{} --socket {} --utc top --record {}; echo ended $?; exec cat",
        env!("CARGO_BIN_EXE_netft"),
        daemon.path().display(),
        record.display()
    );
    let start = ["new-session", "-d", "-s", "top", "-x", "80", "-y", "24", &command];
    if emulator.tmux(&start).is_err() {
        let required = env::var_os("NETFT_REQUIRE_SERVERS").is_some_and(|it| it == "1");
        assert!(!required, "there is no tmux");
        return eprintln!("skipped: there is no tmux");
    }
    let shown = emulator.await_screen("q quit");
    assert!(shown.starts_with("a  netft0  cut off"), "{shown}");
    // What a sample holds stands where the golden screen has it.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli_control/screens/top-80.txt");
    let golden = fs::read_to_string(golden).unwrap();
    for line in 1..6 {
        assert_eq!(shown.lines().nth(line), golden.lines().nth(line), "{shown}");
    }
    emulator.press("Down");
    emulator.press("d");
    emulator.await_screen("drain route 2 to b (eth1)");
    emulator.press("n");
    emulator.await_screen("nothing was changed");
    assert!(daemon.node.drains.lock().unwrap().is_empty());
    emulator.press("d");
    emulator.await_screen("drain route 2 to b (eth1)");
    emulator.press("y");
    emulator.await_screen("route 1 to b: in use");
    let overrides = daemon.node.drains.lock().unwrap().clone();
    assert_eq!(overrides.len(), 1, "{overrides:?}");
    emulator.press("q");
    let ended = emulator.await_screen("ended 0");
    assert!(!ended.contains("q quit"), "the terminal was not put back:\n{ended}");
    let lines = fs::read_to_string(&record).unwrap();
    for line in lines.lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&sample["schema"], &sample["routes"][0]["id"]), (&2.into(), &1.into()));
    }
    assert!(lines.lines().count() >= 2, "{lines}");
}

#[test]
fn top_without_a_terminal_says_what_to_do_and_streams_json() {
    let daemon = Daemon::new(busy());
    let refused = daemon.netft(&["top"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("netft top --json"), "{refused:?}");
    let program = Command::new(env!("CARGO_BIN_EXE_netft"))
        .arg("--socket")
        .arg(daemon.path())
        .args(["top", "--json"])
        .stdout(Stdio::piped())
        .spawn();
    let mut program = program.unwrap();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(program.stdout.take().unwrap()));
    let samples: Vec<Value> =
        (0..2).map(|_| serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()).collect();
    assert!(samples[0]["elapsed_ms"].as_u64() < samples[1]["elapsed_ms"].as_u64());
    assert_eq!(samples[1]["status"]["node"]["name"], "a");
    // A reader that closes the pipe ends it.
    drop(lines);
    assert!(program.wait().unwrap().success());
}
