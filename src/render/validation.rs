//! Output of `netft validate`, node by node.

use std::fmt::Write;

use crate::{
    control::schema::{Finding, Severity, ValidationResult},
    text::escape,
};

/// This node first, then the peers, in the order of the config.
pub fn validation_text(validation: &ValidationResult) -> String {
    let ValidationResult { findings, peers, .. } = validation;
    let mut text = String::new();
    // Writing to a String cannot fail.
    if !peers.is_empty() {
        let _ = writeln!(text, "on this node: {}", findings_count_text(findings, 0));
    }
    findings.iter().for_each(|finding| write_finding(&mut text, finding));
    for peer in peers {
        let name = escape(&peer.peer);
        let _ = match &peer.error {
            None => writeln!(
                text,
                "\non {name}: {}",
                findings_count_text(&peer.findings, peer.left_off)
            ),
            Some(error) => writeln!(text, "\non {name}: not checked: {}", escape(error)),
        };
        peer.findings.iter().for_each(|finding| write_finding(&mut text, finding));
    }
    let all: Vec<_> = findings.iter().chain(peers.iter().flat_map(|peer| &peer.findings)).collect();
    let nodes = 1 + peers.iter().filter(|peer| peer.error.is_none()).count();
    if !peers.is_empty() {
        let _ = write!(text, "\n{nodes} of {} nodes checked: ", 1 + peers.len());
    }
    let number = |severity, noun: &str| match all
        .iter()
        .filter(|finding| finding.severity == severity)
        .count()
    {
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    };
    let (errors, warnings) =
        (number(Severity::Error, "error"), number(Severity::Warning, "warning"));
    let _ = writeln!(text, "{errors}, {warnings}");
    text
}

/// Summary after a node's name.
fn findings_count_text(findings: &[Finding], left_off: usize) -> String {
    match (findings.len(), left_off) {
        (0, 0) => "no findings".to_owned(),
        (1, 0) => "1 finding".to_owned(),
        (n, 0) => format!("{n} findings"),
        (n, more) => format!("{n} findings, {more} more omitted"),
    }
}

fn write_finding(text: &mut String, finding: &Finding) {
    let severity = match finding.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let _ = writeln!(text, "{severity} {}: {}", escape(&finding.id), escape(&finding.place));
    for line in finding.what.lines() {
        let _ = writeln!(text, "  {}", escape(line));
    }
    let _ = writeln!(text, "  = help: {}", escape(&finding.remedy));
}
