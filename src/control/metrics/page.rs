//! The text under construction. Pure.

use std::fmt::{Display, Write};

/// The type of a family.
#[derive(Clone, Copy)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// Form of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageFormat {
    /// Prometheus text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl PageFormat {
    /// The format that a client asks for, by its `Accept` header.
    pub fn from_accept(accept: &str) -> Self {
        let is_accepted = accept.contains("application/openmetrics-text");
        if is_accepted { Self::OpenMetrics } else { Self::Text }
    }

    /// Its content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The page under construction.
pub(super) struct MetricsPage {
    text: String,
    format: PageFormat,
    /// The family that samples are written for.
    family: &'static str,
}

impl MetricsPage {
    pub(super) const fn new(format: PageFormat) -> Self {
        Self { text: String::new(), format, family: "" }
    }

    /// The whole page.
    pub(super) fn finish(mut self) -> String {
        if self.format == PageFormat::OpenMetrics {
            self.text += "# EOF\n";
        }
        self.text
    }

    /// Begins a family of samples, which follow directly.
    pub(super) fn begin_family(&mut self, name: &'static str, kind: MetricKind, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // OpenMetrics names the family of a counter without the ending of its samples.
        let family = match self.format {
            PageFormat::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
            PageFormat::Text => name,
        };
        // Writing into a string cannot fail.
        let _ = write!(self.text, "# HELP {family} {help}\n# TYPE {family} {kind}\n");
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
