//! Output of the demo: text on the screen, or JSON.

use std::{
    io::{IsTerminal, Write as _, stdout},
    process::Output,
    time::Duration,
};

use netft_lab::{
    Lab, LabError,
    daemon::{ADAPTER_NAME, EventLine, Site},
};
use serde::Serialize;

use super::{
    demo_run::{DemoRun, FaultKind, FaultRecord},
    vip_run::{Takeover, VipDemoRun},
};
use crate::{
    control::{schema::VersionedBody, why::EventExplanation},
    render::event::cost_text,
};

/// Prints the progress of a run, unless silent.
#[derive(Debug)]
pub(super) struct Narrator {
    verbose: bool,
    use_colour: bool,
}

/// Select graphic rendition (ECMA-48).
const STYLE_BOLD: &str = "1";
const STYLE_FAINT: &str = "2";
const STYLE_RED: &str = "31";
const STYLE_GREEN: &str = "32";
const STYLE_YELLOW: &str = "33";
const STYLE_CYAN: &str = "36";

impl Narrator {
    pub(super) fn new(verbose: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { verbose, use_colour: verbose && !plain && stdout().is_terminal() }
    }

    /// Prints a line, silent or not.
    pub(super) fn print_line(&self, line: &str) {
        // A closed standard output does not end the run.
        let _ = stdout().write_all(format!("{line}\n").as_bytes());
    }

    fn print_if_verbose(&self, line: &str) {
        if self.verbose {
            self.print_line(line);
        }
    }

    fn styled_text(&self, style: &str, text: &str) -> String {
        if self.use_colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn print_heading(&self, text: &str) {
        self.print_if_verbose(&format!("\n{}", self.styled_text(STYLE_BOLD, text)));
    }

    /// Draws the two nodes and their networks.
    pub(super) fn print_networks(&self, lab: &Lab) {
        self.print_if_verbose(
            &self.styled_text(STYLE_BOLD, "Two nodes, a and b, and three networks between them"),
        );
        self.print_if_verbose(&self.styled_text(
            STYLE_FAINT,
            "in namespaces of their own; this machine's network is not changed",
        ));
        self.print_if_verbose("");
        let last = lab.network_count() - 1;
        for network in 0..=last {
            let (a, left, right, b) = match network {
                0 => ("a ─", "┬", "┬", "─ b"),
                n if n == last => ("   ", "└", "┘", ""),
                _ => ("   ", "├", "┤", ""),
            };
            let prefix = self.styled_text(STYLE_CYAN, &network_name(network));
            self.print_if_verbose(&format!("   {a}{left}──── {prefix} ────{right}{b}"));
        }
    }

    /// Shows the adapter and the routes of the first node.
    pub(super) fn print_adapter(&self, lab: &Lab, site: &Site) -> Result<(), LabError> {
        if !self.verbose {
            return Ok(());
        }
        self.print_heading(&format!("a$ ip addr show {ADAPTER_NAME}"));
        let mut ip = lab.node_netns(0).command_inside("ip")?;
        let shown = ip.args(["addr", "show", ADAPTER_NAME]).output().ok().and_then(stdout_text);
        self.print_block(&shown.unwrap_or_else(|| {
            let addrs = site.virtual_addrs(0);
            format!("{ADAPTER_NAME}: inet {}, inet6 {}", addrs.v4, addrs.v6)
        }));
        self.print_heading("a$ netft routes");
        let routes =
            site.operator_command(lab, 0)?.arg("routes").output().ok().and_then(stdout_text);
        self.print_block(&routes.unwrap_or_default());
        Ok(())
    }

    fn print_block(&self, text: &str) {
        for line in text.lines() {
            self.print_if_verbose(&format!("   {}", line.trim_end()));
        }
    }

    /// Before the first fault.
    pub(super) fn print_introduction(&self, rate: u64) {
        let rate = rate * 8 / 1_000_000;
        self.print_heading("The active route fails three times, each time differently");
        self.print_if_verbose(&self.styled_text(
            STYLE_FAINT,
            &format!(
                "while one TCP flow runs at {rate} Mbit/s, hashed at both ends,\n\
                 and numbered datagrams run in both directions, one each millisecond"
            ),
        ));
        self.print_if_verbose("");
    }

    /// A fault was injected.
    pub(super) fn print_fault(&self, at: Duration, kind: FaultKind, network: usize) {
        let line = format!("{} {}", network_name(network), kind.description());
        self.print_if_verbose(&format!(
            "{} {} {}",
            format_seconds(at),
            self.styled_text(STYLE_RED, "✗"),
            self.styled_text(STYLE_BOLD, &line)
        ));
    }

    /// A node reported an event of the broken route.
    pub(super) fn print_event(
        &self,
        at: Duration,
        after: Duration,
        node: usize,
        event: &EventLine,
        to: Option<usize>,
    ) {
        let who = ["a", "b"][node.min(1)];
        let reason = event.str_field("reason").unwrap_or_default();
        let what = if event.name == "moved" {
            let to = to.map_or("no route".to_owned(), network_name);
            format!("{who} moves its data to {to}")
        } else {
            let [from, to] = ["from", "to"].map(|key| event.str_field(key).unwrap_or("?"));
            format!("{who} sees the route go {from} → {to}")
        };
        let after = self.styled_text(STYLE_YELLOW, &format!("+{:>4} ms", after.as_millis()));
        let reason = self.styled_text(STYLE_FAINT, reason);
        self.print_if_verbose(&format!("{}   {after}  {what:<42} {reason}", format_seconds(at)));
    }

    /// The fault was repaired.
    pub(super) fn print_repair(&self, at: Duration) {
        self.print_if_verbose(&format!(
            "{} {} repaired",
            format_seconds(at),
            self.styled_text(STYLE_GREEN, "✓")
        ));
    }

    /// Data is back, or is not; the cost from `netft why`.
    pub(super) fn print_fault_result(&self, fault: &FaultRecord, why: Option<&EventExplanation>) {
        match fault.failed_back_at {
            Some(at) => {
                let what = format!("data is back on {}", network_name(fault.network));
                self.print_if_verbose(&format!(
                    "{} {} {what}",
                    format_seconds(at),
                    self.styled_text(STYLE_GREEN, "✓")
                ));
            }
            None => self
                .print_if_verbose(&self.styled_text(STYLE_RED, "            data did not return")),
        }
        if let Some(cost_of) = why.and_then(|why| why.cost.as_ref()) {
            self.print_if_verbose(&self.styled_text(
                STYLE_FAINT,
                &format!("            netft why: {}", cost_text(cost_of)),
            ));
        }
        let [lost, sent] = [fault.probes_lost, fault.probes_sent].map(group_thousands);
        self.print_if_verbose(&format!(
            "            {lost} of {sent} datagrams lost, TCP stalled for at most {} ms\n",
            fault.longest_stall.as_millis()
        ));
    }

    /// The table at the end.
    pub(super) fn print_summary(&self, run: &DemoRun) {
        let head = "fault          detected      moved   datagrams lost   longest TCP stall";
        self.print_if_verbose(&self.styled_text(STYLE_BOLD, head));
        for fault in &run.faults {
            self.print_if_verbose(&format!(
                "{:<13} {:>6} ms  {:>6} ms {:>16} {:>16} ms",
                fault.kind.name(),
                fault.detected_after.as_millis(),
                fault.moved_after.as_millis(),
                group_thousands(fault.probes_lost),
                fault.longest_stall.as_millis(),
            ));
        }
        let hash = if run.hash_equal { "equal at both ends" } else { "DIFFERENT" };
        self.print_if_verbose(&format!(
            "\nTCP: {} MB, {} resets, SHA-256 {hash}",
            group_thousands(run.bytes / 1_000_000),
            run.resets
        ));
        let verdict = if run.all_passed() {
            self.styled_text(
                STYLE_GREEN,
                "No fault broke the flow, and data returned to every repaired route.",
            )
        } else {
            self.styled_text(STYLE_RED, "A check failed: see above.")
        };
        self.print_if_verbose(&verdict);
    }
}

/// Lines of the demo of an address that moves.
impl Narrator {
    pub(super) fn print_vip_introduction(&self, address: std::net::Ipv4Addr) {
        self.print_heading(&format!("Three nodes, a, b and c, and the address {address}"));
        self.print_if_verbose(&self.styled_text(
            STYLE_FAINT,
            "in namespaces of their own; a client asks the address once a millisecond who has it",
        ));
        self.print_if_verbose("");
    }

    pub(super) fn print_vip_line(&self, at: Duration, is_good: bool, text: &str) {
        let mark = match is_good {
            true => self.styled_text(STYLE_GREEN, "✓"),
            false => self.styled_text(STYLE_RED, "✗"),
        };
        self.print_if_verbose(&format!("{} {mark} {text}", format_seconds(at)));
    }

    pub(super) fn print_vip_takeover(&self, at: Duration, after: Duration, text: &str) {
        let after = self.styled_text(STYLE_YELLOW, &format!("+{:>4} ms", after.as_millis()));
        self.print_if_verbose(&format!("{}   {after}  {text}", format_seconds(at)));
    }

    pub(super) fn print_vip_result(&self, takeover: &Takeover) {
        let [answered, asked] = [takeover.answered, takeover.asked].map(group_thousands);
        self.print_if_verbose(&format!(
            "            {}'s last answer {:+.0} ms, {}'s first answer {:+.0} ms after the fault",
            takeover.owner, takeover.last_answer_ms, takeover.next_owner, takeover.first_answer_ms,
        ));
        self.print_if_verbose(&format!(
            "            {answered} of {asked} questions answered, the longest gap {:.0} ms, {} \
             answers of two owners\n",
            takeover.gap_ms, takeover.two_owners
        ));
    }

    pub(super) fn print_vip_summary(&self, run: &VipDemoRun) {
        let verdict = match run.all_passed() {
            true => self.styled_text(
                STYLE_GREEN,
                "Each time another node took the address over, and no two nodes answered for it.",
            ),
            false => self.styled_text(STYLE_RED, "Two nodes answered for the address: see above."),
        };
        self.print_if_verbose(&verdict);
    }
}

/// `netft demo --json`.
#[derive(Serialize)]
struct DemoSummary<'a> {
    adapter: &'a str,
    faults: Vec<FaultSummary>,
    tcp_bytes: u64,
    tcp_resets: u32,
    hash_equal: bool,
    failback_ok: bool,
}

/// One fault of a run; times in milliseconds.
#[derive(Serialize)]
struct FaultSummary {
    kind: FaultKind,
    detected_ms: f64,
    moved_ms: f64,
    probes_sent: u64,
    probes_lost: u64,
    tcp_stall_ms: f64,
}

/// The run as one JSON object.
///
/// # Errors
/// None: every key is text.
pub(super) fn summary_json(run: &DemoRun) -> serde_json::Result<String> {
    let ms = |time: Duration| (time.as_micros() as f64 / 100.0).round() / 10.0;
    let fault = |fault: &FaultRecord| FaultSummary {
        kind: fault.kind,
        detected_ms: ms(fault.detected_after),
        moved_ms: ms(fault.moved_after),
        probes_sent: fault.probes_sent,
        probes_lost: fault.probes_lost,
        tcp_stall_ms: ms(fault.longest_stall),
    };
    serde_json::to_string(&VersionedBody::new(DemoSummary {
        adapter: &run.adapter,
        faults: run.faults.iter().map(fault).collect(),
        tcp_bytes: run.bytes,
        tcp_resets: run.resets,
        hash_equal: run.hash_equal,
        failback_ok: run.has_failed_back(),
    }))
}

fn network_name(network: usize) -> String {
    format!("10.{}.0.0/24", network + 1)
}

fn stdout_text(output: Output) -> Option<String> {
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn format_seconds(at: Duration) -> String {
    format!("{:>8.3} s", at.as_secs_f64())
}

/// 1234567 as `1,234,567`.
fn group_thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(
            [0, 12, 999, 1000, 1_234_567].map(group_thousands).join(" "),
            "0 12 999 1,000 1,234,567"
        );
    }

    #[test]
    fn the_summary_has_every_field_a_script_reads() {
        let text = summary_json(&super::super::chart::tests::sample()).expect("text keys");
        let summary: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for key in
            ["schema", "adapter", "faults", "tcp_bytes", "tcp_resets", "hash_equal", "failback_ok"]
        {
            assert!(!summary[key].is_null(), "{key}");
        }
        assert_eq!(summary["faults"][0]["kind"], "black-hole");
        assert_eq!(summary["faults"][0]["detected_ms"], 152.3);
    }
}
