//! The text under construction. Pure.

use std::fmt::{Display, Write};

/// The type of a family.
#[derive(Clone, Copy)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// The page under construction.
#[derive(Default)]
pub(super) struct MetricsPage {
    pub(super) text: String,
    /// The family that samples are written for.
    family: &'static str,
}

impl MetricsPage {
    /// Begins a family of samples, which follow directly.
    pub(super) fn begin_family(&mut self, name: &'static str, kind: MetricKind, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // Writing into a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.family = name;
    }

    /// Writes a sample of the current family; the parts of a histogram have a `suffix`.
    pub(super) fn write_sample(
        &mut self,
        suffix: &str,
        labels: &[(&str, &dyn Display)],
        value: impl Display,
    ) {
        self.text += self.family;
        self.text += suffix;
        for (place, (label, text)) in labels.iter().enumerate() {
            let before = if place == 0 { "{" } else { "," };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escape_label(&text.to_string()));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// Writes a family of one sample without labels.
    pub(super) fn write_single_sample(
        &mut self,
        name: &'static str,
        kind: MetricKind,
        help: &str,
        value: impl Display,
    ) {
        self.begin_family(name, kind, help);
        self.write_sample("", &[], value);
    }
}

/// Escapes backslash, quote and line feed in a label's value.
fn escape_label(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
