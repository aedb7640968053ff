//! Facts of the kernel and the system: files, settings, and what programs print.
//!
//! Bounds: the caller's time limit for a program, 16 MiB of its output, [`MAX_PART_BYTES`] for a
//! file.

use std::{fs, io, io::Read, path::Path, process::Command, time::Duration};

use crate::validate;

/// Largest part, bytes; the end of a larger one is left out.
pub const MAX_PART_BYTES: usize = 16 << 20;
/// Name of the kernel's settings.
const SETTINGS_NAME: &str = "settings.txt";
/// Lines of the journal.
const JOURNAL_LINES: &str = "20000";

/// Files of the kernel and the system.
const SYSTEM_FILES: [(&str, &str); 11] = [
    ("/etc/os-release", "the distribution"),
    ("/proc/version", "the kernel"),
    ("/proc/uptime", "time since the boot"),
    ("/proc/loadavg", "load"),
    ("/proc/meminfo", "memory"),
    ("/proc/modules", "modules"),
    ("/proc/net/dev", "counters of the interfaces"),
    ("/proc/net/snmp", "counters of IP, ICMP, TCP and UDP"),
    ("/proc/net/netstat", "further counters of IP and TCP"),
    ("/proc/net/snmp6", "counters of IPv6"),
    ("/proc/net/softnet_stat", "packets dropped before a socket, by core"),
];

/// Programs that list what the kernel has. None of them prints a key: `wg`, `ip xfrm` and
/// `sysctl -a` would.
const SYSTEM_COMMANDS: [(&str, &[&str], &str); 12] = [
    (
        "journal.txt",
        &[
            "journalctl",
            "--unit=netftd",
            "--no-pager",
            "--output=short-iso-precise",
            "--lines",
            JOURNAL_LINES,
        ],
        "log of netftd",
    ),
    ("unit.txt", &["systemctl", "status", "--no-pager", "--lines=0", "netftd"], "the unit"),
    ("ip-link.txt", &["ip", "-s", "-d", "link"], "interfaces"),
    ("ip-address.txt", &["ip", "address"], "addresses"),
    ("ip-route.txt", &["ip", "route", "show", "table", "all"], "IPv4 routes"),
    ("ip-route6.txt", &["ip", "-6", "route", "show", "table", "all"], "IPv6 routes"),
    ("ip-rule.txt", &["ip", "rule"], "IPv4 policy rules"),
    ("ip-rule6.txt", &["ip", "-6", "rule"], "IPv6 policy rules"),
    ("ip-neighbour.txt", &["ip", "neighbour"], "neighbours"),
    ("nft.txt", &["nft", "--stateless", "list", "ruleset"], "firewall"),
    ("udp-sockets.txt", &["ss", "--udp", "--all", "--numeric", "--memory"], "UDP sockets"),
    ("qdisc.txt", &["tc", "-s", "qdisc"], "queues of the interfaces"),
];

/// Settings below `/proc/sys/net`. Secrets stand there, too (`tcp_fastopen_key`, `stable_secret`):
/// only these are read.
const KERNEL_SETTINGS: [&str; 9] = [
    "core/rmem_max",
    "core/rmem_default",
    "core/wmem_max",
    "core/netdev_max_backlog",
    "core/netdev_budget",
    "ipv4/ip_forward",
    "ipv4/tcp_congestion_control",
    "ipv4/tcp_mtu_probing",
    "ipv6/conf/all/forwarding",
];
/// Settings of each interface, of the families that have them.
const INTERFACE_SETTINGS: [(&str, &str); 9] = [
    ("ipv4", "rp_filter"),
    ("ipv4", "arp_ignore"),
    ("ipv4", "arp_announce"),
    ("ipv4", "arp_filter"),
    ("ipv4", "forwarding"),
    ("ipv6", "disable_ipv6"),
    ("ipv6", "accept_ra"),
    ("ipv6", "forwarding"),
    ("ipv6", "addr_gen_mode"),
];

/// One fact: its name below `system/`, its meaning, and its text or why there is none.
pub struct SystemFact {
    /// Name of its file.
    pub name: String,
    /// Meaning.
    pub what: &'static str,
    /// Text, or the reason why it is missing.
    pub collected: Result<Vec<u8>, String>,
}

/// Facts of this machine, one after the other: those of these names, or all without any. A program
/// may take `timeout`.
pub fn collect_facts(names: &[&str], timeout: Duration) -> impl Iterator<Item = SystemFact> {
    let is_wanted = move |name: &str| names.is_empty() || names.contains(&name);
    let files = SYSTEM_FILES.into_iter().map(|(path, what)| {
        let name = path.replace("/proc/net/", "/proc-net/");
        (name.trim_start_matches('/').to_owned(), path, what)
    });
    let files = files.filter(move |(name, ..)| is_wanted(name)).map(|(name, path, what)| {
        SystemFact { name, what, collected: read_bounded(Path::new(path)) }
    });
    let settings = [SETTINGS_NAME].into_iter().filter(move |name| is_wanted(name));
    let settings = settings.map(|name| SystemFact {
        name: name.to_owned(),
        what: "network settings of the kernel",
        collected: Ok(read_settings()),
    });
    let printed = SYSTEM_COMMANDS.into_iter().filter(move |(name, ..)| is_wanted(name));
    let printed = printed.map(move |(name, command, what)| SystemFact {
        name: name.to_owned(),
        what,
        collected: run_program(command, timeout),
    });
    files.chain(settings).chain(printed)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_PART_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| error.to_string())
}

/// Settings of the kernel, one a line; those that this kernel lacks are left out.
fn read_settings() -> Vec<u8> {
    let root = Path::new("/proc/sys/net");
    let mut names: Vec<String> = KERNEL_SETTINGS.map(str::to_owned).to_vec();
    for (family, setting) in INTERFACE_SETTINGS {
        let entries = fs::read_dir(root.join(family).join("conf")).into_iter().flatten().flatten();
        let interfaces = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut of_family: Vec<_> =
            interfaces.map(|name| format!("{family}/conf/{name}/{setting}")).collect();
        of_family.sort();
        names.extend(of_family);
    }
    let line = |name: &String| {
        let value = fs::read_to_string(root.join(name)).ok()?;
        Some(format!("net/{name} = {}\n", value.trim()))
    };
    names.iter().filter_map(line).collect::<String>().into_bytes()
}

/// Standard output of a program; one that fails is told by what it said.
fn run_program(command: &[&str], timeout: Duration) -> Result<Vec<u8>, String> {
    let [program, args @ ..] = command else { return Ok(Vec::new()) };
    let output = validate::run_within(Command::new(program).args(args), timeout);
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.stdout.is_empty() && !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(output.stdout)
}
