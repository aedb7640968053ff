//! Form of log lines: text or JSON, with the priority that the journal reads.

use std::{env, fmt, io::stderr, os::fd::AsFd, time::SystemTime};

use clap::ValueEnum;
use rustix::fs::fstat;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

use crate::{
    clock::format_rfc3339,
    text::{escape, escape_lines},
};

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A line of text.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Form of the lines of this log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LineStyle {
    pub(super) format: LogFormat,
    /// Standard error is the journal's: it adds the time, and takes a priority from the line.
    pub(super) is_journal: bool,
}

impl LineStyle {
    /// Style for standard error.
    pub(super) fn for_stderr(format: LogFormat) -> Self {
        Self { format, is_journal: is_journal_stream() }
    }

    /// Priority before a line (sd-daemon(3)); empty where nobody reads it.
    pub(super) const fn priority_prefix(self, level: Level) -> &'static str {
        match (self.is_journal, level) {
            (false, _) => "",
            (true, Level::ERROR) => "<3>",
            (true, Level::WARN) => "<4>",
            (true, Level::INFO) => "<6>",
            (true, _) => "<7>",
        }
    }

    /// A line of the log about itself, which no filter removes.
    pub(super) fn notice_line(self, level: Level, text: &str) -> Vec<u8> {
        let prefix = self.priority_prefix(level);
        let line = match (self.format, self.is_journal) {
            (LogFormat::Json, _) => json_line(level, "netftd::log", text, Map::new()),
            (LogFormat::Text, true) => format!("{level:>5} {text}"),
            (LogFormat::Text, false) => {
                format!("{} {level:>5} {text}", format_rfc3339(SystemTime::now()))
            }
        };
        format!("{prefix}{line}\n").into_bytes()
    }
}

/// True if standard error is the stream that `JOURNAL_STREAM` names (systemd.exec(5)).
fn is_journal_stream() -> bool {
    let named = env::var("JOURNAL_STREAM").unwrap_or_default();
    let Some((device, inode)) = named.split_once(':') else { return false };
    let Ok(stat) = fstat(stderr().as_fd()) else { return false };
    device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino)
}

fn json_line(level: Level, target: &str, message: &str, fields: Map<String, Value>) -> String {
    let mut line = Map::new();
    line.insert("time".to_owned(), format_rfc3339(SystemTime::now()).into());
    line.insert("level".to_owned(), level.as_str().to_ascii_lowercase().into());
    line.insert("target".to_owned(), target.into());
    line.insert("message".to_owned(), escape_lines(message).into());
    for (name, value) in fields {
        // A field of the event never replaces the four above.
        line.entry(name).or_insert(value);
    }
    Value::Object(line).to_string()
}

/// Formats events as JSON objects: time, level, target, message, the event's fields, and those of
/// its spans as text.
pub(super) struct JsonFormat;

impl<S, N> FormatEvent<S, N> for JsonFormat
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = JsonFields::default();
        event.record(&mut fields);
        let spans = context.event_scope().into_iter().flat_map(|scope| scope.from_root());
        let spans: Vec<Value> = spans
            .map(|span| {
                let extensions = span.extensions();
                let shown = extensions.get::<FormattedFields<N>>().map(|it| it.fields.as_str());
                format!("{}{{{}}}", span.name(), escape(shown.unwrap_or_default())).into()
            })
            .collect();
        if !spans.is_empty() {
            fields.others.insert("spans".to_owned(), spans.into());
        }
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        writeln!(writer, "{}", json_line(level, target, &fields.message, fields.others))
    }
}

/// Fields of an event; texts are escaped as in the text format.
#[derive(Default)]
struct JsonFields {
    message: String,
    others: Map<String, Value>,
}

impl Visit for JsonFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.others.insert(field.name().to_owned(), escape_lines(value).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => {
                let text = escape_lines(&format!("{value:?}"));
                self.others.insert(name.to_owned(), text.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_journal_gets_a_priority_and_nobody_else() {
        let journal = LineStyle { format: LogFormat::Text, is_journal: true };
        for (level, prefix) in [
            (Level::ERROR, "<3>"),
            (Level::WARN, "<4>"),
            (Level::INFO, "<6>"),
            (Level::TRACE, "<7>"),
        ] {
            assert_eq!(journal.priority_prefix(level), prefix);
            assert_eq!(LineStyle::default().priority_prefix(level), "");
        }
        let line = String::from_utf8(journal.notice_line(Level::WARN, "lost")).unwrap();
        assert_eq!(line, "<4> WARN lost\n");
    }

    #[test]
    fn a_json_line_is_one_object_whatever_the_text() {
        let style = LineStyle { format: LogFormat::Json, is_journal: false };
        let line = style.notice_line(Level::WARN, "a \"b\"\n\u{202e}\x1b[31m");
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line.lines().count(), 1);
        // The queue escapes what a terminal acts on: nothing is left to escape.
        assert_eq!(escape_lines(&line), line);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["level"], &value["target"]), (&"warn".into(), &"netftd::log".into()));
        assert_eq!(value["message"], "a \"b\"\n\\u{202e}\\u{1b}[31m");
    }
}
