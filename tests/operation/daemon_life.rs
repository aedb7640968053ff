//! The daemon among hostile surroundings: a log nobody takes, a second instance, a stop at any
//! moment, a runtime directory that is removed.

use std::{
    fs,
    fs::OpenOptions,
    io,
    io::{PipeReader, PipeWriter, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::common::{NodePair, TEST_TIMEOUT, wait_until};
use netft_lab::{
    daemon::{EventLine, SiteSettings},
    in_namespace,
};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;

/// A process that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    fn wait(&mut self, what: &str) -> ExitStatus {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{what}: the daemon runs on");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn set_nonblocking(pipe: &PipeWriter, on: bool) {
    let flags = fcntl_getfl(pipe).unwrap();
    fcntl_setfl(pipe, if on { flags | OFlags::NONBLOCK } else { flags - OFlags::NONBLOCK })
        .unwrap();
}

/// A pipe without room.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    set_nonblocking(&writer, true);
    while writer.write(b"x").is_ok() {}
    (reader, writer)
}

fn pair() -> NodePair {
    NodePair::prepared_for(2, SiteSettings::default())
}

fn status(pair: &NodePair) -> Option<Value> {
    let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
    let output = command.args(["status", "--json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).ok()
}

fn lost_lines(pair: &NodePair) -> u64 {
    status(pair).and_then(|status| status["log"]["lost_lines"].as_u64()).unwrap_or_default()
}

/// Has the daemon log long lines until it loses some: each request is logged with its path.
fn overflow_log(pair: &NodePair, what: &str) {
    let request = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(8000));
    wait_until(what, || {
        if let Ok(mut stream) = UnixStream::connect(pair.site.runtime_dir(0).join("netft0.sock")) {
            stream.write_all(request.as_bytes()).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
        lost_lines(pair) > 0
    });
}

/// F-81.
#[test]
fn f_81_a_log_that_takes_nothing_stops_neither_sessions_nor_the_end() {
    in_namespace("f_81_a_log_that_takes_nothing_stops_neither_sessions_nor_the_end", || {
        let mut pair = pair();
        pair.start(1);
        for sink in ["full disk", "reader gone", "reader stopped", "non-blocking"] {
            let mut kept = None;
            let log: Stdio = match sink {
                "full disk" => OpenOptions::new().write(true).open("/dev/full").unwrap().into(),
                "reader gone" => io::pipe().unwrap().1.into(),
                _ => {
                    let (reader, writer) = full_pipe();
                    kept = Some(reader);
                    set_nonblocking(&writer, sink == "non-blocking");
                    writer.into()
                }
            };
            let mut command = pair.site.daemon_command(&pair.lab, 0).unwrap();
            let mut daemon = Running::start(command.args(["--log", "debug"]).stderr(log));
            pair.wait_routes_up(1);
            overflow_log(&pair, sink);
            assert!(daemon.is_running(), "{sink}");
            daemon.signal(Signal::TERM);
            let status = daemon.wait(sink);
            assert!(status.success(), "{sink}: {status}");
            drop(kept);
            pair.daemon(1)
                .wait_for("no route up", TEST_TIMEOUT, |r| r.iter().all(|r| r.state != "up"))
                .unwrap();
        }
    });
}

/// F-81: what was lost is told when a reader is back.
#[test]
fn lost_lines_are_told_when_the_log_is_read_again() {
    in_namespace("lost_lines_are_told_when_the_log_is_read_again", || {
        let pair = pair();
        let (mut reader, writer) = full_pipe();
        set_nonblocking(&writer, false);
        let mut command = pair.site.daemon_command(&pair.lab, 0).unwrap();
        let mut daemon = Running::start(command.args(["--log", "debug"]).stderr(writer));
        // The command holds the write end, too: the end of the log is to be seen below.
        drop(command);
        overflow_log(&pair, "the queue is full");
        let text = thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        thread::sleep(crate::common::TRAFFIC_CHECK_TIME);
        daemon.signal(Signal::TERM);
        assert!(daemon.wait("stop").success());
        let text = text.join().unwrap();
        assert!(text.contains("log lines were lost: nobody read the log in time"), "{text}");
        assert!(text.contains("netftd stopped"), "{text}");
    });
}

/// F-82.
#[test]
fn f_82_a_second_instance_on_the_port_is_refused_with_the_owner_and_the_remedy() {
    in_namespace(
        "f_82_a_second_instance_on_the_port_is_refused_with_the_owner_and_the_remedy",
        || {
            let mut pair = pair();
            pair.start(0);
            pair.start(1);
            pair.wait_routes_up(0);
            let folder = pair.site.config_path(0).with_file_name("second");
            fs::create_dir(&folder).unwrap();
            let key = folder.join("key");
            let mut keygen = Command::new(env!("CARGO_BIN_EXE_netft"));
            assert!(keygen.arg("keygen").arg(&key).output().unwrap().status.success());
            let config = fs::read_to_string(pair.site.config_path(0)).unwrap();
            let config =
                config.replacen("[[network]]", "[adapter]\nname = \"netft1\"\n[[network]]", 1);
            fs::write(folder.join("n.toml"), config).unwrap();
            let second = || {
                let program = env!("CARGO_BIN_EXE_netftd");
                let mut command = pair.lab.node_netns(0).command_inside(program).unwrap();
                command.arg("--config").arg(folder.join("n.toml"));
                command.arg("--runtime-dir").arg(folder.join("run")).env_remove("NETFT_LOG");
                command
            };
            let log =
                OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
            let mut refused = Running::start(second().stderr(log));
            let status = refused.wait("second instance");
            let text = fs::read_to_string(folder.join("log")).unwrap();
            assert_eq!(status.code(), Some(3), "{text}");
            for word in ["port 3343", "pid ", "session.port"] {
                assert!(text.contains(word), "no {word:?} in {text}");
            }
            // A crash frees the claim.
            pair.daemons[0].take().unwrap().kill().unwrap();
            pair.start(0);
            pair.wait_routes_up(0);
        },
    );
}

/// Signal sets of a process, from /proc/pid/status.
fn has_signal(process: u32, set: &str, signal: Signal) -> bool {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(set));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default();
    bits >> (signal.as_raw() - 1) & 1 == 1
}

/// F-83.
#[test]
fn f_83_a_stop_signal_before_the_daemon_can_answer_is_answered_later() {
    in_namespace("f_83_a_stop_signal_before_the_daemon_can_answer_is_answered_later", || {
        let pair = pair();
        let mut seen_held = 0;
        for attempt in 0..30 {
            let mut command = pair.site.daemon_command(&pair.lab, 0).unwrap();
            let mut daemon = Running::start(command.stderr(Stdio::null()));
            let process = daemon.0.id();
            let (mut is_held, deadline) = (false, Instant::now() + TEST_TIMEOUT);
            // From the start of `main` it is held, then it is caught.
            while !is_held && !has_signal(process, "SigCgt:", Signal::TERM) {
                is_held = has_signal(process, "SigBlk:", Signal::TERM);
                assert!(Instant::now() < deadline, "neither held nor caught");
            }
            daemon.signal(Signal::TERM);
            let status = daemon.wait("stop");
            assert!(status.success(), "attempt {attempt}: {status}");
            seen_held += u32::from(is_held);
            if seen_held >= 3 {
                return;
            }
        }
        assert!(seen_held > 0, "the signal is never held");
    });
}

/// A thread with the ordinary slice waits some milliseconds for a busy processor, for each packet.
#[test]
fn f_89_packets_do_not_wait_for_busy_processors() {
    in_namespace("f_89_packets_do_not_wait_for_busy_processors", || {
        let pair = NodePair::start_up(1);
        let threads = pair.daemons[0].as_ref().unwrap().thread_slices().unwrap();
        if threads.is_empty() {
            return println!("SKIP: the kernel shows no slice in /proc/PID/task/TID/sched");
        }
        for prefix in ["netft-worker", "netft-driver", "tokio"] {
            let mut named = threads.iter().filter(|(name, _)| name.starts_with(prefix)).peekable();
            assert!(named.peek().is_some(), "no {prefix} in {threads:?}");
            assert!(named.all(|(_, slice)| *slice == 100_000), "{threads:?}");
        }
    });
}

/// F-84.
#[test]
fn f_84_a_removed_runtime_directory_comes_back() {
    in_namespace("f_84_a_removed_runtime_directory_comes_back", || {
        let mut pair = pair();
        pair.start(0);
        wait_until("the first answer", || status(&pair).is_some());
        for signal in [Some(Signal::HUP), None] {
            fs::remove_dir_all(pair.site.runtime_dir(0)).unwrap();
            assert!(status(&pair).is_none());
            if let Some(signal) = signal {
                pair.daemon(0).send_signal(signal).unwrap();
            }
            wait_until("an answer on the new socket", || status(&pair).is_some());
        }
        let status = pair.daemons[0].take().unwrap().stop().unwrap();
        assert!(status.success(), "{status}");
        assert!(!pair.site.runtime_dir(0).join("netft0.sock").exists());
    });
}

/// U27: data leaves at once, that the node is dead is decided calmly, and it may come back before.
#[test]
fn u_27_a_silent_peer_is_unreachable_at_once_and_gone_after_its_time() {
    in_namespace("u_27_a_silent_peer_is_unreachable_at_once_and_gone_after_its_time", || {
        let common = "[failover]\ngone = 1500\n";
        let settings = SiteSettings { common, ..SiteSettings::default() };
        let mut pair = NodePair::prepared_for(2, settings).start_and_wait();
        let events = pair.events(0);
        let since = SystemTime::now();
        pair.daemons[1].take().unwrap().kill().unwrap();
        let wait = |kind: &str| {
            let what = |event: &EventLine| event.str_field("event") == Some(kind);
            events.wait_for(kind, since, TEST_TIMEOUT, what).unwrap()
        };
        let unreachable = wait("remote-unreachable");
        let gone = wait("remote-gone");
        assert_eq!(gone.u64_field("after_ms"), Some(1500));
        // Two thresholds: between the events lies the time that was asked for.
        let between = gone.at.duration_since(unreachable.at).unwrap_or_default();
        assert!(between >= Duration::from_millis(1300), "{between:?}");
        let is_gone =
            |pair: &NodePair| pair.daemons[0].as_ref().unwrap().get_json("/v1/peers").unwrap();
        assert_eq!(is_gone(&pair)["peers"][0]["gone"], true);
        pair.start(1);
        pair.wait_routes_up(0);
        wait_until("the peer is back", || is_gone(&pair)["peers"][0]["gone"] == false);
    });
}

/// D3, D12.
#[test]
fn packets_to_a_dead_peer_are_answered_and_its_session_says_who_ended_it() {
    in_namespace("packets_to_a_dead_peer_are_answered_and_its_session_says_who_ended_it", || {
        let settings =
            SiteSettings { common: "[failover]\nunreachable = 500\n", ..SiteSettings::default() };
        let mut pair = NodePair::prepared_for(2, settings).start_and_wait();
        let events = pair.events(0);
        let peer = |pair: &NodePair| {
            let peers = pair.daemons[0].as_ref().unwrap().get_json("/v1/peers").unwrap();
            peers["peers"][0].clone()
        };
        let connect = |pair: &NodePair, six: bool| {
            let at = pair.endpoint(1, six);
            let connected = pair
                .lab
                .node_netns(0)
                .run_inside(|| TcpStream::connect_timeout(&at, 2 * TEST_TIMEOUT));
            connected.unwrap_err().kind()
        };
        // Nobody listens there: the peer's own stack answers.
        assert_eq!(connect(&pair, false), io::ErrorKind::ConnectionRefused);

        // Killed, it says nothing: the keys stay, and the session is marked.
        pair.daemons[1].take().unwrap().kill().unwrap();
        for six in [false, true] {
            assert_eq!(connect(&pair, six), io::ErrorKind::HostUnreachable, "IPv6: {six}");
        }
        let silent = peer(&pair);
        assert_eq!(silent["session_state"], "silent", "{silent}");
        assert_eq!((&silent["adapter_up"], &silent["reachable"]), (&Value::Null, &false.into()));
        assert_eq!(silent["session_end_cause"], Value::Null, "{silent}");
        assert!(pair.drops(0, "unreachable") >= 2);

        pair.start(1);
        pair.wait_routes_up(0);
        wait_until("the adapter carries again", || {
            connect(&pair, false) == io::ErrorKind::ConnectionRefused
        });

        // Stopped, it says so.
        let since = SystemTime::now();
        pair.daemons[1].take().unwrap().stop().unwrap();
        let is_end = |event: &EventLine| event.name == "session-ended";
        let ended = events.wait_for("the end", since, TEST_TIMEOUT, is_end).unwrap();
        assert_eq!(ended.str_field("by"), Some("peer"));
        assert_eq!(ended.str_field("cause"), Some("peer-stopped"));
        wait_until("the peer's state to say so", || {
            let stopped = peer(&pair);
            stopped["session_ended_by"] == "peer" && stopped["session_state"] == "none"
        });
        // Without a session too.
        assert_eq!(connect(&pair, false), io::ErrorKind::HostUnreachable);
    });
}
