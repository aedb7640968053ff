//! `netft report`: one archive for support, without secrets.
//!
//! Bounds: [`COMMAND_TIMEOUT`] for a program, 16 MiB of its output, [`MAX_PART_BYTES`] for a part.
//! Peers answer about one part a second each.

use std::{
    collections::BTreeSet,
    fs,
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    archive::ArchiveWriter,
    args::{DaemonTarget, ReportArgs},
    output::StandardOutput,
    validate as validate_command,
};
use crate::{
    clock::format_rfc3339,
    config,
    control::{
        client::DaemonClient,
        peer_report::PeerPart,
        schema::{PeerReport, PeerReports, VersionedBody},
    },
    exit::ExitError,
    support::{scrub::SecretScrubber, secrets::collect_secrets, system, system::MAX_PART_BYTES},
};

/// Time limit of a program.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for the daemon to ask every peer: it gives them 4 s.
const PEERS_TIMEOUT: Duration = Duration::from_secs(6);

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
    if !args.local {
        collect_peers(&mut report, &DaemonClient::new(target.resolve_socket()));
    }
    for fact in system::collect_facts(&[], COMMAND_TIMEOUT) {
        report.add(&format!("system/{}", fact.name), fact.what, fact.collected);
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

/// Asks the peers, by the control sessions, what they tell of themselves.
fn collect_peers(report: &mut ReportBuilder, client: &DaemonClient) {
    let client = client.with_timeout(PEERS_TIMEOUT);
    let mut silent = BTreeSet::new();
    for part in PeerPart::ALL {
        let target = format!("/v1/report?part={}", part.as_str());
        let answers = match client.request_json::<PeerReports>("POST", &target, "") {
            Ok((_, answers)) => answers.peers,
            Err(failure) => return report.add("peers", "", Err(failure.text)),
        };
        for PeerReport { peer, error, text } in answers {
            let what = format!("of {peer}: {}", part.meaning());
            let name = format!("peers/{peer}-{}", part.file_name());
            match text {
                Some(text) => report.add(&name, &what, Ok(text.into_bytes())),
                // Once is enough.
                None if silent.insert(peer) => {
                    report.add(&name, &what, Err(error.unwrap_or_default()));
                }
                None => {}
            }
        }
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

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), ExitError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| {
        let path = path.display();
        ExitError::bad_environment(format!("cannot write {path}: {error}; name another --output"))
    })
}
