//! The programs as a shell sees them: exit codes, streams, files.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Output, Stdio},
};

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).env_remove("NETFT_LOG").output().unwrap()
}

fn netft(args: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_netft"), args)
}

fn netftd(args: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_netftd"), args)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn fails(output: &Output, code: i32, word: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(word), "no {word:?} in {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// A key and a config of three lines.
fn config(dir: &Path, more: &str) -> std::path::PathBuf {
    let key = dir.join("key");
    if !key.exists() {
        assert!(netft(&["keygen", text(&key)]).status.success());
    }
    let path = dir.join("n.toml");
    fs::write(&path, format!("[node]\nname = \"a\"\nkey = \"key\"\n{more}")).unwrap();
    path
}

#[test]
fn wrong_arguments_exit_2_and_help_names_the_codes() {
    for args in [
        &["frobnicate"] as &[&str],
        &["route", "set", "1"],
        &["route", "set", "1", "--delay", "4"],
        &["route", "set", "1", "--threshold", "121"],
        &["route", "set", "1", "--priority", "-1"],
        &["route", "set", "x", "--priority", "1"],
        &["--adapter", "../../x", "status"],
        &["init", "--name", "a b"],
        &[],
    ] {
        assert_eq!(netft(args).status.code(), Some(2), "{args:?}");
    }
    fails(&netft(&["route", "set", "1", "--delay", "4"]), 2, "5–60000");
    for args in [&["--bogus"] as &[&str], &[], &["--check", "x", "--config", "y"]] {
        assert_eq!(netftd(args).status.code(), Some(2), "{args:?}");
    }
    for program in [env!("CARGO_BIN_EXE_netft"), env!("CARGO_BIN_EXE_netftd")] {
        let help = run(program, &["--help"]);
        assert!(help.status.success());
        assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes:"));
    }
}

#[test]
fn a_missing_daemon_exits_1_and_names_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let output = netft(&["--runtime-dir", text(dir.path()), "--adapter", "nf7", "routes"]);
    fails(&output, 1, "nf7.sock");
    assert!(output.stdout.is_empty());
}

#[test]
fn keygen_and_pubkey_agree_and_never_overwrite() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let made = netft(&["keygen", text(&key)]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(made.stdout.len(), 45, "44 characters of base64 and a line feed");
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
    let shown = netft(&["pubkey", text(&key)]);
    assert_eq!(shown.stdout, made.stdout);
    fails(&netft(&["keygen", text(&key)]), 2, "never overwritten: move it away first");
    fails(&netft(&["pubkey", text(&dir.path().join("none"))]), 2, "netft keygen");
    let json = netft(&["pubkey", text(&key), "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["key"], String::from_utf8(made.stdout).unwrap().trim());
    assert_eq!((&json["file"], &json["schema"]), (&text(&key).into(), &2.into()));
    let other = dir.path().join("other");
    let json = netft(&["--json", "keygen", text(&other)]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["key"].as_str().unwrap().len(), 44);
    let secret = fs::read_to_string(&key).unwrap();
    assert!(!String::from_utf8_lossy(&shown.stdout).contains(&secret[..20]));
    fs::write(&key, "AAAA\n").unwrap();
    fails(&netft(&["pubkey", text(&key)]), 2, "holds no usable key");
}

#[test]
fn init_writes_a_config_that_checks_and_refuses_to_overwrite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etc/netft.toml");
    let made = netft(&["init", "--name", "node-1", "--output", text(&path)]);
    assert!(made.status.success(), "{made:?}");
    let next = String::from_utf8(made.stdout).unwrap();
    assert!(next.contains("[[peer]]") && next.contains("netftd --config"), "{next}");
    assert_eq!(fs::metadata(dir.path().join("etc/key")).unwrap().mode() & 0o7777, 0o600);
    let checked = netftd(&["--check", text(&path)]);
    let shown = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{checked:?}");
    assert!(shown.starts_with("ok: node node-1, 0 peers, "), "{shown}");

    let before = fs::read(&path).unwrap();
    fails(&netft(&["init", "--output", text(&path)]), 2, "exists");
    assert_eq!(fs::read(&path).unwrap(), before);
    // The key that is there is kept: the peers know it.
    let key = fs::read(dir.path().join("etc/key")).unwrap();
    fs::remove_file(&path).unwrap();
    let again = netft(&["init", "--name", "n", "--output", text(&path), "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&json["name"], &json["key_made"]), (&"n".into(), &false.into()), "{json}");
    assert!(json["key"].as_str().unwrap().len() == 44 && json["addresses"].is_array(), "{json}");
    assert_eq!(fs::read(dir.path().join("etc/key")).unwrap(), key);
}

#[test]
fn check_says_ok_or_exits_2_with_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let peer = "[[peer]]\nname = \"b\"\nkey = \"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\"\n\
                addresses = [\"10.1.0.2\"]\n";
    let path = config(dir.path(), peer);
    let checked = netftd(&["--check", text(&path)]);
    let shown = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{checked:?}");
    assert!(shown.starts_with("ok: node a, 1 peer, all networks, adapter netft0"), "{shown}");
    assert_eq!(shown.lines().count(), 1);
    let path = config(dir.path(), "[adapter]\nmtu = 1\n");
    fails(&netftd(&["--check", text(&path)]), 2, "n.toml:5:7");
    fails(&netftd(&["--config", text(&path)]), 2, "n.toml:5:7");
    fails(&netftd(&["--check", text(&dir.path().join("none"))]), 2, "netft init");
}

/// A file that this user may not read is no mistake of the file, and no reason for another key.
#[test]
fn what_may_not_be_read_exits_3_and_advises_no_new_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "");
    let key = dir.path().join("key");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
    }
    let run_unprivileged = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        if is_root {
            command.uid(65_534).gid(65_534);
        }
        command.args(args).output()
    };
    let (netft, netftd) = (env!("CARGO_BIN_EXE_netft"), env!("CARGO_BIN_EXE_netftd"));
    for (program, args) in [
        (netft, &["pubkey", text(&key)] as &[&str]),
        (netft, &["validate", "--config", text(&path)]),
        (netftd, &["--check", text(&path)]),
    ] {
        let Ok(output) = run_unprivileged(program, args) else {
            return eprintln!("skipped: another user cannot run {program}");
        };
        fails(&output, 3, "run as root, or as the user who owns it");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("keygen"), "{output:?}");
    }
}

#[test]
fn a_config_without_peers_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "");
    let checked = netftd(&["--check", text(&path)]);
    assert!(checked.status.success() && checked.stdout.starts_with(b"ok: "), "{checked:?}");
    fails(&checked, 0, "warning: no peers");
    let found = netft(&["validate", "--local", "--config", text(&path)]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(String::from_utf8_lossy(&found.stdout).contains("names no peer"), "{found:?}");
}

#[test]
fn a_bad_log_level_exits_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "");
    fails(&netftd(&["--config", text(&path), "--log", "a=b=c"]), 2, "error, warn, info");
}

#[test]
fn cleanup_removes_a_stale_socket_and_never_a_living_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nf-test9.sock");
    let cleanup =
        || netftd(&["--cleanup", "--adapter", "nf-test9", "--runtime-dir", text(dir.path())]);
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fails(&cleanup(), 1, "stop it first");
    assert!(socket.exists());
    drop(listener);
    let output = cleanup();
    assert!(output.status.success(), "{output:?}");
    assert!(!socket.exists());
    assert!(cleanup().status.success(), "nothing left is fine too");
}

#[test]
fn c_13_few_descriptors_are_one_line_and_exit_3() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "");
    let script =
        format!("ulimit -n 16 && exec {} --config {}", env!("CARGO_BIN_EXE_netftd"), text(&path));
    let output = run("sh", &["-c", &script]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("= help: "), "{stderr}");
}

#[test]
fn c_08_a_closed_output_is_no_error() {
    for args in [&["--help"] as &[&str], &["--version"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_netft"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let script = format!("{} keygen {} | true", env!("CARGO_BIN_EXE_netft"), text(&key));
    let output = run("sh", &["-c", &script]);
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn c_14_a_path_with_terminal_escapes_is_shown_escaped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("\x1b[31m\u{202e}\x07.toml");
    let hostile = text(&path);
    for output in [
        netftd(&["--check", hostile]),
        netftd(&["--config", hostile]),
        netft(&["--runtime-dir", hostile, "status"]),
        netft(&["pubkey", hostile]),
        netft(&["validate", "--config", hostile]),
    ] {
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains(r"\u{1b}[31m\u{202e}\u{7}"), "{shown:?}");
        assert!(!shown.contains(['\x1b', '\x07', '\u{202e}']), "{shown:?}");
    }
}

/// F-85.
#[test]
fn f_85_a_log_filter_with_a_typing_error_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "");
    for filter in ["infoo", "debug,nteft=trace"] {
        let output = netftd(&["--config", text(&path), "--log", filter]);
        fails(&output, 2, "error, warn, info, debug, trace");
    }
}

/// A log for machines: every line is an object, also the error that ends the daemon.
#[test]
fn a_json_log_is_objects_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "[adapter]\nmtu = 1\n");
    let output = netftd(&["--config", text(&path), "--log-format", "json"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let lines = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "error");
    assert!(last["message"].as_str().unwrap().contains("n.toml:5:7"), "{last}");
    assert!(last["time"].as_str().unwrap().ends_with('Z'), "{last}");
    let refused = netftd(&["--config", text(&path), "--log-format", "xml"]);
    assert_eq!(refused.status.code(), Some(2));
}

/// The journal reads the priority of a line, if it is the journal that reads standard error.
#[test]
fn the_journal_gets_priorities_and_a_file_none() {
    use std::{io::Read, os::fd::AsFd};
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "[adapter]\nmtu = 1\n");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let stat = rustix::fs::fstat(writer.as_fd()).unwrap();
    let run_with = |stream: String, stderr: Stdio| {
        let mut netftd = Command::new(env!("CARGO_BIN_EXE_netftd"));
        netftd.args(["--config", text(&path)]).env("JOURNAL_STREAM", stream).stderr(stderr);
        netftd.output().unwrap()
    };
    let journal = format!("{}:{}", stat.st_dev, stat.st_ino);
    run_with(journal.clone(), writer.into());
    let mut shown = String::new();
    reader.read_to_string(&mut shown).unwrap();
    assert!(shown.starts_with("<3>error: "), "{shown}");
    let elsewhere = run_with(journal, Stdio::piped());
    assert!(elsewhere.stderr.starts_with(b"error: "), "{elsewhere:?}");
}
