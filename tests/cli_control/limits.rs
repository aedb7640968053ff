//! Authorization and limits of the control socket, and errors of `netft` without an answer.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
        process::CommandExt,
    },
    time::Instant,
};

use netftd::control::schema::EventDetail;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::*;

#[test]
fn c_09_garbage_and_oversize_are_refused_and_the_next_client_is_served() {
    let daemon = Daemon::new(snapshot());
    assert_eq!(daemon.raw(b"\x16\x03\x01\x02garbage\r\n\r\n").0, 400);
    assert_eq!(daemon.raw(b"\0\0\0\0\r\n\r\n").0, 400);
    let huge = vec![b'a'; 1 << 20];
    let mut line = b"GET /".to_vec();
    line.extend(&huge);
    let (code, _) = daemon.raw(&line);
    assert!(code == 0 || code >= 400, "{code}");
    let mut body =
        b"PATCH /v1/routes/1 HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n".to_vec();
    body.extend(&huge);
    let (code, _) = daemon.raw(&body);
    assert!(code == 0 || code == 413, "{code}");
    let just_over = format!("{{{}}}", " ".repeat(64 << 10));
    assert_eq!(daemon.ask("PATCH", "/v1/routes/1", &just_over).0, 413);
    let endless = b"PATCH /v1/routes/1 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut chunked = endless.to_vec();
    for _ in 0..100 {
        chunked.extend(b"1000\r\n");
        chunked.extend(&huge[..0x1000]);
        chunked.extend(b"\r\n");
    }
    let (code, _) = daemon.raw(&chunked);
    assert!(code == 0 || code == 413, "{code}");
    drop(daemon.connect());
    assert_eq!(daemon.ask("GET", "/v1/status", "").0, 200);
}

#[test]
fn c_09_forty_stalled_clients_block_nobody_and_are_cut() {
    let daemon = Daemon::new(snapshot());
    let mut stalled: Vec<_> = (0..40)
        .map(|number| {
            let mut stream = daemon.connect();
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost:");
            }
            stream
        })
        .collect();
    // It waits two seconds at most: less than the stalled ones are given.
    let output = daemon.netft(&["status"]);
    assert!(output.status.success(), "{output:?}");
    for stream in &mut stalled {
        let (code, _) = read_answer(stream);
        assert!(code == 0 || code == 400 || code == 408, "{code}");
    }
}

#[test]
fn c_09_slow_followers_leave_room_for_questions() {
    let daemon = Daemon::new(snapshot());
    let request = b"GET /v1/events?follow=true HTTP/1.0\r\n\r\n";
    daemon.journal.push(String::new(), EventDetail::Stalled { length_ms: 1 });
    let mut followers = Vec::new();
    let mut refused = 0;
    for _ in 0..30 {
        let mut stream = daemon.connect();
        stream.write_all(request).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        match &head[9..] {
            b"200" => followers.push(stream),
            b"503" => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((followers.len(), refused), (24, 6));
    assert_eq!(daemon.ask("GET", "/v1/status", "").0, 200);
    // Nobody reads 1024 events of 60 kB: every follower falls behind, none is waited for.
    let history = vec!["x".repeat(60_000)];
    for _ in 0..100 {
        let what = EventDetail::StateChanged {
            route: 1,
            peer: "b".to_owned(),
            from: RouteState::Up,
            to: RouteState::Down,
            reason: String::new(),
            last_heard_ms_ago: None,
            history: history.clone(),
        };
        daemon.journal.push(String::new(), what);
    }
    assert_eq!(daemon.ask("GET", "/v1/status", "").0, 200);
    // A reader that takes nothing for five seconds is cut; its stream then ends.
    let mut stream = followers.remove(0);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut asked = [PollFd::new(&stream, PollFlags::empty())];
        rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
        if asked[0].revents().contains(PollFlags::HUP) {
            break;
        }
        assert!(Instant::now() < deadline, "a reader that takes nothing is never cut");
    }
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 100 * 60_000, "{}", rest.len());
}

#[test]
fn c_10_the_socket_is_for_its_owner_and_root_only() {
    let daemon = Daemon::new(snapshot());
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&daemon.path()), 0o600);
    assert_eq!(mode(daemon.path().parent().unwrap()), 0o700);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Even where the modes would let another user in, the daemon does not answer.
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let ask = || {
        let copy = daemon.dir.path().join("netft");
        fs::copy(env!("CARGO_BIN_EXE_netft"), &copy).unwrap();
        let mut command = Command::new(copy);
        command.arg("--socket").arg(daemon.path()).arg("status").uid(65_534).output()
    };
    open(daemon.dir.path(), 0o755);
    let Ok(output) = ask() else { return };
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    open(daemon.path().parent().unwrap(), 0o755);
    open(&daemon.path(), 0o666);
    let output = ask().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("only root"), "{output:?}");
    assert!(daemon.netft(&["status"]).status.success());
}

/// Members of the group may look, and change nothing.
#[test]
fn c_10_a_group_of_readers_may_query_and_change_nothing() {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can run netft as another user");
    }
    let open = |readers| {
        let daemon = Daemon::for_readers(snapshot(), readers);
        fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        daemon
    };
    let as_nobody = |daemon: &Daemon, args: &[&str]| {
        let mut netft = Command::new(env!("CARGO_BIN_EXE_netft"));
        netft.arg("--socket").arg(daemon.path()).args(args).uid(NOBODY).gid(NOBODY).output()
    };
    let daemon = open(Some(NOBODY));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&daemon.path()), mode(daemon.path().parent().unwrap())), (0o660, 0o750));
    let Ok(seen) = as_nobody(&daemon, &["routes"]) else {
        return eprintln!("skipped: another user cannot run netft");
    };
    assert!(seen.status.success(), "{seen:?}");
    for change in [&["route", "down", "1"] as &[&str], &["reload"], &["drain", "eth0"]] {
        let refused = as_nobody(&daemon, change).unwrap();
        let text = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{change:?}: {text}");
        assert!(text.contains("may change the node"), "{text}");
    }
    assert!(daemon.node.changes.lock().unwrap().is_empty());
    assert!(daemon.node.drains.lock().unwrap().is_empty());
    // Without a group nobody else is let in.
    let daemon = open(None);
    assert_eq!(mode(&daemon.path()), 0o600);
    assert_eq!(as_nobody(&daemon, &["routes"]).unwrap().status.code(), Some(3));
}

#[test]
fn c_11_what_stands_at_the_path_is_replaced_only_if_it_is_a_socket_or_symlink() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.sock");
    drop(UnixListener::bind(&path).unwrap());
    drop(ControlListener::bind(&path, None).unwrap());
    assert!(!path.exists(), "a listener takes its socket with it");

    let precious = dir.path().join("precious");
    fs::write(&precious, "x").unwrap();
    symlink(&precious, &path).unwrap();
    drop(ControlListener::bind(&path, None).unwrap());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "x");

    fs::write(&path, "x").unwrap();
    let error = ControlListener::bind(&path, None).err().unwrap().to_string();
    assert!(error.contains("is not a socket"), "{error}");
    let error = ControlListener::bind(&precious.join("n.sock"), None).err().unwrap().to_string();
    assert!(error.contains("is not a directory"), "{error}");
    let long = dir.path().join("l".repeat(100)).join("n.sock");
    assert!(ControlListener::bind(&long, None).is_err());
}

#[test]
fn c_08_a_stuck_driver_and_a_stopped_daemon_are_told_within_two_seconds() {
    let daemon = Daemon::new(snapshot());
    daemon.node.stuck.store(true, SeqCst);
    let one_line = |output: &Output, word: &str| {
        let text = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.lines().count() == 1 && text.contains(word), "{text}");
    };
    one_line(&daemon.netft(&["routes"]), "driver does not answer");
    assert_eq!(daemon.netft(&["status"]).status.code(), Some(3), "no verdict");
    assert_eq!(daemon.netft(&["check"]).status.code(), Some(2), "critical");

    // Bound, never accepted: as with a stopped daemon.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.sock");
    let listener = UnixListener::bind(&path).unwrap();
    one_line(&netft(&path, &["routes"]), "did not answer within 2 s");
    one_line(&netft(&path, &["events", "-f"]), "did not answer within 2 s");
    // And one whose backlog is full, where even connecting waits.
    rustix::net::listen(&listener, 0).unwrap();
    let fill: Vec<_> = (0..2)
        .filter_map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.connect(&socket2::SockAddr::unix(&path).unwrap()).ok().map(|()| socket)
        })
        .collect();
    one_line(&netft(&path, &["peers"]), "did not answer within 2 s");
    drop((fill, listener));
    one_line(&netft(&path, &["routes"]), "no netftd listens");
    one_line(&netft(&dir.path().join("none.sock"), &["routes"]), "no netftd listens");
}

#[test]
fn c_08_another_schema_and_nonsense_are_told_apart() {
    for (answer, word) in [
        ("HTTP/1.0 200 OK\r\n\r\n{\"schema\":3,\"routes\":[]}", "uses schema 3"),
        ("HTTP/1.0 200 OK\r\n\r\n{\"schema\":2}", "malformed answer"),
        ("HTTP/1.0 200 OK\r\n\r\nhello", "malformed answer"),
        ("HTTP/1.0 500 \r\n\r\n\x1b[31m", "answered 500"),
        ("hello", "no answer"),
        ("", "no answer"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let output = netft(&path, &["routes"]);
        server.join().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.lines().count() == 1 && text.contains(word), "{answer:?}: {text}");
        assert!(!text.contains('\x1b'));
    }
}
