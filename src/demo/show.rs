//! What a person sees on the screen, and what a program reads.

use std::{
    io::{IsTerminal, Write as _, stdout},
    process::Output,
    time::Duration,
};

use netft_lab::{
    Lab, LabError,
    daemon::{ADAPTER, Event, Site},
};
use serde_json::{Value, json};

use super::story::{Fault, Kind, Story};
use crate::{control::why::Story as Why, render::event::cost};

/// Tells a person what happens while it happens, or keeps quiet.
#[derive(Debug)]
pub(super) struct Narrator {
    speak: bool,
    colour: bool,
}

/// Select graphic rendition (ECMA-48): the few we use.
const BOLD: &str = "1";
const FAINT: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

impl Narrator {
    pub(super) fn new(speak: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { speak, colour: speak && !plain && stdout().is_terminal() }
    }

    /// Prints a line whether or not it speaks.
    pub(super) fn print(&self, line: &str) {
        // A reader that went away ends the telling, not the run.
        let _ = stdout().write_all(format!("{line}\n").as_bytes());
    }

    fn say(&self, line: &str) {
        if self.speak {
            self.print(line);
        }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn heading(&self, text: &str) {
        self.say(&format!("\n{}", self.paint(BOLD, text)));
    }

    /// Draws the two nodes and their networks.
    pub(super) fn networks(&self, lab: &Lab) {
        self.say(&self.paint(BOLD, "Two nodes, a and b, and three networks between them"));
        self.say(
            &self.paint(FAINT, "in namespaces of their own; this machine's network is not touched"),
        );
        self.say("");
        let last = lab.networks() - 1;
        for network in 0..=last {
            let (a, left, right, b) = match network {
                0 => ("a ─", "┬", "┬", "─ b"),
                n if n == last => ("   ", "└", "┘", ""),
                _ => ("   ", "├", "┤", ""),
            };
            let prefix = self.paint(CYAN, &network_name(network));
            self.say(&format!("   {a}{left}──── {prefix} ────{right}{b}"));
        }
    }

    /// Shows the adapter and the routes of the first node.
    pub(super) fn adapter(&self, lab: &Lab, site: &Site) -> Result<(), LabError> {
        if !self.speak {
            return Ok(());
        }
        self.heading(&format!("a$ ip addr show {ADAPTER}"));
        let mut ip = lab.node(0).command("ip")?;
        let shown = ip.args(["addr", "show", ADAPTER]).output().ok().and_then(text);
        self.block(&shown.unwrap_or_else(|| {
            let addrs = site.addrs(0);
            format!("{ADAPTER}: inet {}, inet6 {}", addrs.v4, addrs.v6)
        }));
        self.heading("a$ netft routes");
        let routes = site.operator(lab, 0)?.arg("routes").output().ok().and_then(text);
        self.block(&routes.unwrap_or_default());
        Ok(())
    }

    fn block(&self, text: &str) {
        for line in text.lines() {
            self.say(&format!("   {}", line.trim_end()));
        }
    }

    /// Before the first fault.
    pub(super) fn curtain(&self, rate: u64) {
        let rate = rate * 8 / 1_000_000;
        self.heading("Now the active route breaks, three times, each time differently");
        self.say(&self.paint(
            FAINT,
            &format!(
                "while one TCP flow runs at {rate} Mbit/s, hashed at both ends,\n\
                 and numbered datagrams run both ways, one each millisecond"
            ),
        ));
        self.say("");
    }

    /// A fault was made.
    pub(super) fn broken(&self, at: Duration, kind: Kind, lane: usize) {
        let line = format!("{} {}", network_name(lane), kind.words());
        self.say(&format!("{} {} {}", clock(at), self.paint(RED, "✗"), self.paint(BOLD, &line)));
    }

    /// A node said something about the broken route.
    pub(super) fn event(
        &self,
        at: Duration,
        after: Duration,
        node: usize,
        event: &Event,
        to: Option<usize>,
    ) {
        let who = ["a", "b"][node.min(1)];
        let reason = event.text("reason").unwrap_or_default();
        let what = if event.name == "moved" {
            let to = to.map_or("no route".to_owned(), network_name);
            format!("{who} moves its data to {to}")
        } else {
            let [from, to] = ["from", "to"].map(|key| event.text(key).unwrap_or("?"));
            format!("{who} sees the route go {from} → {to}")
        };
        let after = self.paint(YELLOW, &format!("+{:>4} ms", after.as_millis()));
        let reason = self.paint(FAINT, reason);
        self.say(&format!("{}   {after}  {what:<42} {reason}", clock(at)));
    }

    /// The fault was repaired.
    pub(super) fn healed(&self, at: Duration) {
        self.say(&format!("{} {} repaired", clock(at), self.paint(GREEN, "✓")));
    }

    /// Data is back, or is not; what `netft why` says the failover cost.
    pub(super) fn after(&self, fault: &Fault, why: Option<&Why>) {
        match fault.back {
            Some(at) => {
                let what = format!("data is back on {}", network_name(fault.lane));
                self.say(&format!("{} {} {what}", clock(at), self.paint(GREEN, "✓")));
            }
            None => self.say(&self.paint(RED, "            data did not return")),
        }
        if let Some(cost_of) = why.and_then(|why| why.cost.as_ref()) {
            self.say(&self.paint(FAINT, &format!("            netft why: {}", cost(cost_of))));
        }
        let [lost, sent] = [fault.probes_lost, fault.probes_sent].map(grouped);
        self.say(&format!(
            "            {lost} of {sent} datagrams lost, TCP stood still for at most {} ms\n",
            fault.stall.as_millis()
        ));
    }

    /// The table at the end.
    pub(super) fn epilogue(&self, story: &Story) {
        let head = "fault          detected      moved   datagrams lost   longest TCP stall";
        self.say(&self.paint(BOLD, head));
        for fault in &story.faults {
            self.say(&format!(
                "{:<13} {:>6} ms  {:>6} ms {:>16} {:>16} ms",
                fault.kind.name(),
                fault.detected.as_millis(),
                fault.moved.as_millis(),
                grouped(fault.probes_lost),
                fault.stall.as_millis(),
            ));
        }
        let hash = if story.hash_equal { "equal at both ends" } else { "DIFFERENT" };
        self.say(&format!(
            "\nTCP: {} MB, {} resets, SHA-256 {hash}",
            grouped(story.bytes / 1_000_000),
            story.resets
        ));
        let verdict = if story.passed() {
            self.paint(GREEN, "No fault broke the flow, and every repaired route was taken back.")
        } else {
            self.paint(RED, "A check failed: see above.")
        };
        self.say(&verdict);
    }
}

/// The run as one JSON object.
pub(super) fn summary(story: &Story) -> Value {
    let ms = |time: Duration| (time.as_micros() as f64 / 100.0).round() / 10.0;
    let faults: Vec<Value> = story
        .faults
        .iter()
        .map(|fault| {
            json!({
                "kind": fault.kind.name(),
                "detected_ms": ms(fault.detected),
                "moved_ms": ms(fault.moved),
                "probes_sent": fault.probes_sent,
                "probes_lost": fault.probes_lost,
                "tcp_stall_ms": ms(fault.stall),
            })
        })
        .collect();
    json!({
        "schema": 1,
        "adapter": story.adapter,
        "faults": faults,
        "tcp_bytes": story.bytes,
        "tcp_resets": story.resets,
        "hash_equal": story.hash_equal,
        "failback_ok": story.failback_ok(),
    })
}

fn network_name(network: usize) -> String {
    format!("10.{}.0.0/24", network + 1)
}

fn text(output: Output) -> Option<String> {
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn clock(at: Duration) -> String {
    format!("{:>8.3} s", at.as_secs_f64())
}

/// 1234567 as `1,234,567`.
fn grouped(number: u64) -> String {
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
            [0, 12, 999, 1000, 1_234_567].map(grouped).join(" "),
            "0 12 999 1,000 1,234,567"
        );
    }

    #[test]
    fn the_summary_has_every_field_a_script_reads() {
        let summary = summary(&super::super::chart::tests::sample());
        for key in
            ["schema", "adapter", "faults", "tcp_bytes", "tcp_resets", "hash_equal", "failback_ok"]
        {
            assert!(!summary[key].is_null(), "{key}");
        }
        assert_eq!(summary["faults"][0]["kind"], "black-hole");
        assert_eq!(summary["faults"][0]["detected_ms"], 152.3);
    }
}
