//! Answers peers' questions for parts of a report for support, for `netft report` on another node.

use std::{fs, path::PathBuf, time::Duration};

use netft::api::query::PeerRequest;
use tokio::task::spawn_blocking;

use crate::{
    control::{
        client::DaemonClient,
        peer_report::{KeptItems, MAX_PART_BYTES, PeerPart, fit_answer, fit_lines},
    },
    support::{scrub::SecretScrubber, secrets::collect_secrets, system},
};

/// Time limit of a program: the asking node waits for 4 s.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(1500);
/// Largest fact of the kernel, bytes: all of them share one reply.
const MAX_FACT_BYTES: usize = 4096;
/// Facts of the kernel that a peer gets.
const KERNEL_FACTS: [&str; 14] = [
    "etc/os-release",
    "proc/version",
    "proc/uptime",
    "proc/loadavg",
    "proc-net/dev",
    "settings.txt",
    "ip-link.txt",
    "ip-address.txt",
    "ip-route.txt",
    "ip-route6.txt",
    "ip-rule.txt",
    "ip-rule6.txt",
    "ip-neighbour.txt",
    "nft.txt",
];

/// Source of the parts: the configuration file, and this daemon's own control socket.
#[derive(Clone, Debug)]
pub(super) struct ReportResponder {
    /// The configuration file.
    pub(super) config: PathBuf,
    /// The control socket.
    pub(super) socket: PathBuf,
}

impl ReportResponder {
    /// Answers one question; a part that this node does not have is answered with the reason.
    pub(super) async fn answer_part(&self, part: PeerPart, question: PeerRequest) {
        let sources = self.clone();
        tracing::debug!(peer = %question.peer, part = part.as_str(), "report asked for by a peer");
        if let Ok(text) = spawn_blocking(move || sources.part_text(part)).await {
            // The peer may have timed out.
            let _ = question.reply_tx.send(text.into_bytes());
        }
    }

    fn part_text(&self, part: PeerPart) -> String {
        let scrubber = collect_secrets(&self.config);
        if let Some(target) = part.control_target() {
            let answer = DaemonClient::new(self.socket.clone()).get_text(target);
            let answer = answer.unwrap_or_else(|failure| failure.text);
            return fit_answer(&scrubber.scrub_text(&answer));
        }
        match part {
            PeerPart::Config => {
                let text = fs::read_to_string(&self.config);
                let text = text.unwrap_or_else(|error| error.to_string());
                fit_lines(&scrubber.scrub_config(&text), KeptItems::First, MAX_PART_BYTES)
            }
            PeerPart::Journal => {
                let text = facts_text(&scrubber, &["journal.txt"], usize::MAX);
                fit_lines(&text, KeptItems::Last, MAX_PART_BYTES)
            }
            _ => {
                let text = facts_text(&scrubber, &KERNEL_FACTS, MAX_FACT_BYTES);
                fit_lines(&text, KeptItems::First, MAX_PART_BYTES)
            }
        }
    }
}

/// Facts of this machine, each under its name.
fn facts_text(scrubber: &SecretScrubber, names: &[&str], max: usize) -> String {
    let mut text = String::new();
    for fact in system::collect_facts(names, COMMAND_TIMEOUT) {
        let collected = fact.collected.map_or_else(
            |reason| format!("({})\n", reason.trim()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        );
        let collected = fit_lines(&scrubber.scrub_text(&collected), KeptItems::First, max);
        text += &format!("== {}: {}\n{collected}\n", fact.name, fact.what);
    }
    text
}
