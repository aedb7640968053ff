//! The nodes' names in a hosts file.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Stdio},
};

use crate::common::{NodePair, wait_until};
use netft_lab::{NetworkLayout, daemon::SiteSettings, in_namespace};
use rustix::process::{Pid, Signal, kill_process};

const FORMER: &str = "127.0.0.1 localhost\n";

/// A daemon that is killed when the test fails.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

#[test]
fn u18_the_command_writes_and_removes_the_block() {
    in_namespace("u18_the_command_writes_and_removes_the_block", || {
        let pair = NodePair::start_up(1);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        fs::write(&file, FORMER).unwrap();
        let netft = |args: &[&str]| {
            let mut command = pair.site.operator_command(&pair.lab, 0).unwrap();
            command.args(args).arg("--file").arg(&file).output().unwrap()
        };
        let printed = String::from_utf8(netft(&["hosts"]).stdout).unwrap();
        for (node, name) in ["a.netft", "b.netft"].into_iter().enumerate() {
            let addrs = pair.site.virtual_addrs(node);
            assert!(printed.contains(&format!("{}\t{name}\n", addrs.v4)), "{printed}");
            // A link-local address needs an interface, which no hosts file can name.
            assert!(!printed.contains(&addrs.v6.to_string()), "{printed}");
        }
        assert_eq!(read(&file), FORMER);
        let synced = netft(&["hosts", "--sync"]);
        assert!(synced.status.success(), "{synced:?}");
        assert_eq!(read(&file), format!("{FORMER}{printed}"));
        assert!(netft(&["hosts", "--remove"]).status.success());
        assert_eq!(read(&file), FORMER);
        fs::write(&file, "# BEGIN netft netft0\n").unwrap();
        let refused = netft(&["hosts", "--sync"]);
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), text.contains("line 1")), (Some(2), true), "{text}");
    });
}

#[test]
fn the_daemon_keeps_the_block_while_it_runs() {
    in_namespace("the_daemon_keeps_the_block_while_it_runs", || {
        let pair = NodePair::prepared(&[NetworkLayout::Flat], SiteSettings::default());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        fs::write(&file, FORMER).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let mut command = pair.site.daemon_command(&pair.lab, 0).unwrap();
        command.arg(format!("--hosts={}", file.display())).stdin(Stdio::null());
        let mut daemon = Guard(command.spawn().unwrap());
        let signal = |signal| {
            let pid = Pid::from_raw(i32::try_from(daemon.0.id()).unwrap()).unwrap();
            kill_process(pid, signal).unwrap();
        };
        wait_until("the name of b", || read(&file).contains("\tb.netft\n"));
        pair.rewrite_config(0, "name = \"b\"", "name = \"bee\"");
        signal(Signal::HUP);
        wait_until("the other name of b", || read(&file).contains("\tbee.netft\n"));
        assert!(!read(&file).contains("\tb.netft\n"));
        signal(Signal::TERM);
        assert!(daemon.0.wait().unwrap().success());
        assert_eq!(read(&file), FORMER);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
    });
}
