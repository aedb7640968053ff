//! `netft report`: one archive for support, without secrets.
//!
//! Bounds: [`COMMAND_TIMEOUT`] for a program, 16 MiB of its output, [`MAX_PART_BYTES`] for a part.

use std::{
    fs,
    fs::OpenOptions,
    io,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    archive::ArchiveWriter,
    args::{DaemonTarget, ReportArgs},
    config_secrets::collect_secrets,
    output::StandardOutput,
    scrub::SecretScrubber,
    validate as validate_command,
};
use crate::{
    clock::format_rfc3339,
    config,
    control::{client::DaemonClient, schema::VersionedBody},
    exit::ExitError,
    validate,
};

/// Time limit of a program.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest part, bytes; the end of a larger one is left out.
const MAX_PART_BYTES: usize = 16 << 20;
/// Lines of the journal.
const JOURNAL_LINES: &str = "20000";

/// Answers of the daemon: name in the archive, request, meaning.
const DAEMON_PARTS: [(&str, &str, &str); 7] = [
    ("daemon/status.json", "/v1/status", "verdict, adapter, counters, drops by reason"),
    ("daemon/peers.json", "/v1/peers", "peers, and why a session does not work"),
    ("daemon/routes.json", "/v1/routes", "routes with state, RTT, loss, path MTU"),
    ("daemon/networks.json", "/v1/networks", "networks that the interfaces form"),
    ("daemon/vips.json", "/v1/vips", "floating addresses"),
    ("daemon/events.json", "/v1/events", "events that the daemon keeps"),
    ("daemon/metrics.txt", "/metrics", "every figure"),
];

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

/// A file of the archive.
#[derive(Debug, Serialize)]
struct ReportPart {
    /// Name in the archive's folder.
    name: String,
    /// Bytes.
    bytes: usize,
    /// Meaning of its content.
    what: String,
}

/// A part that could not be collected.
#[derive(Debug, Serialize)]
struct MissingPart {
    /// Name in the archive's folder.
    name: String,
    /// Why it is not there.
    reason: String,
}

/// Answer of `netft report --json`.
#[derive(Debug, Serialize)]
struct ReportAnswer {
    /// The archive.
    file: String,
    /// Its files.
    parts: Vec<ReportPart>,
    /// Parts that could not be collected.
    missing: Vec<MissingPart>,
}

/// The parts so far.
struct ReportBuilder {
    scrubber: SecretScrubber,
    contents: Vec<(ReportPart, String)>,
    missing: Vec<MissingPart>,
}

impl ReportBuilder {
    fn add(&mut self, name: &str, what: &str, collected: Result<Vec<u8>, String>) {
        match collected {
            Ok(bytes) => {
                let kept = &bytes[..bytes.len().min(MAX_PART_BYTES)];
                let text = self.scrubber.scrub_text(&String::from_utf8_lossy(kept));
                let cut = if kept.len() < bytes.len() { " (the end is left out)" } else { "" };
                let what = format!("{what}{cut}");
                let part = ReportPart { name: name.to_owned(), bytes: text.len(), what };
                self.contents.push((part, text));
            }
            Err(reason) => {
                let reason = self.scrubber.scrub_text(reason.trim());
                self.missing.push(MissingPart { name: name.to_owned(), reason });
            }
        }
    }

    /// The list of what is inside.
    fn index_text(&self, head: &str) -> String {
        let mut text = format!(
            "{head}\n\nKeys, tokens and passwords that netft knows of are replaced by [removed]. \
             Names and addresses are\nin it: look through it before you pass it on.\n\n"
        );
        for (part, _) in &self.contents {
            text += &format!("{:<28} {:>9} bytes  {}\n", part.name, part.bytes, part.what);
        }
        if !self.missing.is_empty() {
            text += "\nnot collected:\n";
        }
        for MissingPart { name, reason } in &self.missing {
            let reason = reason.lines().next().unwrap_or_default();
            text += &format!("{name:<28} {reason}\n");
        }
        text
    }
}

/// Writes the archive and lists what is in it.
///
/// # Errors
/// The archive cannot be written. What cannot be collected is listed as missing.
pub(super) fn run_report(
    args: &ReportArgs,
    target: &DaemonTarget,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let config = config::load_config(&args.config, &target.runtime_dir).ok();
    let mut report = ReportBuilder {
        scrubber: collect_secrets(&args.config),
        contents: Vec::new(),
        missing: Vec::new(),
    };
    let file = fs::read(&args.config).map_err(|error| error.to_string());
    let file =
        file.map(|file| report.scrubber.scrub_config(&String::from_utf8_lossy(&file)).into_bytes());
    report.add("config/netft.toml", "the configuration", file);
    collect_daemon(&mut report, &DaemonClient::new(target.resolve_socket()));
    collect_findings(&mut report, args, target);
    for (path, what) in SYSTEM_FILES {
        let name = format!("system{}", path.replace("/proc/net/", "/proc-net/"));
        report.add(&name, what, read_bounded(Path::new(path)));
    }
    report.add("system/settings.txt", "network settings of the kernel", Ok(read_settings()));
    for (name, command, what) in SYSTEM_COMMANDS {
        report.add(&format!("system/{name}"), what, run_program(command));
    }
    let now = SystemTime::now();
    let at = format_rfc3339(now);
    let node = config.map_or_else(|| "unknown".to_owned(), |config| config.name);
    let stamp: String = at.chars().filter(char::is_ascii_alphanumeric).take(15).collect();
    let folder = format!("netft-report-{node}-{stamp}");
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{folder}.tar")));
    let version = env!("CARGO_PKG_VERSION");
    let index = report.index_text(&format!("Report of netft {version} on node {node}, {at}."));
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut archive = ArchiveWriter::new(folder, seconds);
    archive.add_file("INDEX.txt", index.as_bytes());
    for (part, text) in &report.contents {
        archive.add_file(&part.name, text.as_bytes());
    }
    write_new(&path, &archive.finish())?;
    let answer = VersionedBody::new(ReportAnswer {
        file: path.display().to_string(),
        parts: report.contents.into_iter().map(|(part, _)| part).collect(),
        missing: report.missing,
    });
    let text = serde_json::to_string(&answer).map_err(ExitError::other_error)?;
    out.print_response(target.json, &text, || format!("{index}\nwritten: {}\n", path.display()))
}

fn collect_daemon(report: &mut ReportBuilder, client: &DaemonClient) {
    for (name, target, what) in DAEMON_PARTS {
        let answer = client.get_text(target).map(String::into_bytes);
        report.add(name, what, answer.map_err(|failure| failure.text));
    }
}

/// Findings of this node and, by the control sessions, of its peers.
fn collect_findings(report: &mut ReportBuilder, args: &ReportArgs, target: &DaemonTarget) {
    let found = validate_command::collect_findings(&args.config, args.local, target);
    let text = found.and_then(|found| {
        serde_json::to_vec(&VersionedBody::new(found)).map_err(ExitError::other_error)
    });
    let what = match args.local {
        true => "findings of `netft validate` on this node",
        false => "findings of `netft validate` on this node and on every peer that answered",
    };
    report.add("validate.json", what, text.map_err(|failure| failure.text));
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
fn run_program(command: &[&str]) -> Result<Vec<u8>, String> {
    let [program, args @ ..] = command else { return Ok(Vec::new()) };
    let output = validate::run_within(Command::new(program).args(args), COMMAND_TIMEOUT);
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.stdout.is_empty() && !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(output.stdout)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), ExitError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| {
        let path = path.display();
        ExitError::bad_environment(format!("cannot write {path}: {error}; name another --output"))
    })
}
