//! Servers of Debian that tests run inside a node's namespace.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use netft_lab::Netns;

use super::commands::skip_without_server;

/// Debian's package of each server.
const SERVER_PACKAGES: [(&str, &str); 6] = [
    ("dnsmasq", "dnsmasq-base"),
    ("dhcpd", "isc-dhcp-server"),
    ("named", "bind9"),
    ("dhclient", "isc-dhcp-client"),
    ("dig", "bind9-dnsutils"),
    ("named-checkzone", "bind9-utils"),
];

fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// False, with a line that says so, where one of `programs` is missing. In CI that is a failure.
pub fn has_servers(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let package = SERVER_PACKAGES.iter().find(|(name, _)| name == program);
        let package = package.map_or(*program, |(_, of)| of);
        !skip_without_server(find_program(program).is_some(), package)
    })
}

/// A server that runs until the value is dropped.
pub struct ServerProcess {
    child: Child,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts it in the foreground; what it says goes to the end of `log`.
    pub fn start(netns: &Netns, program: &str, arguments: &[&str], log: &Path) -> Self {
        let file = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = netns.command_inside(find_program(program).unwrap()).unwrap();
        command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log: log.to_owned() }
    }

    /// Everything that it, and those before it with the same log, said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
