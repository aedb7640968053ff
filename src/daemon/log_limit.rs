//! Log lines within the rate limit of their cause: place in the code and peer.
//!
//! Lines at `debug` and `trace` are not limited: who asks for them wants all. The event pump limits
//! events itself, by peer, as they stand in the event history too.

use std::{
    collections::HashMap,
    fmt,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use netft::Time;
use tracing::{
    Event, Level, Subscriber, callsite,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

use super::{log_format::LineStyle, log_queue::LogQueue};
use crate::{
    control::{
        log_counts::LogCounts,
        rate_limit::{CauseLimiter, MAX_CAUSES},
    },
    text::{escape_lines, escape_styled},
};

/// Target of the events, which are limited before they are logged.
pub(super) const EVENT_TARGET: &str = "netftd::event";
/// Name of the span that names a peer.
const PEER_SPAN: &str = "peer";

/// Cause of log lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LogCause {
    callsite: callsite::Identifier,
    peer: String,
}

/// Decision on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineVerdict {
    Pass,
    LeftOut,
    /// Nothing of this cause was left out before: the writer has a notice to wait for.
    FirstLeftOut,
}

/// The limits of all causes.
#[derive(Debug)]
pub(super) struct LogLimits {
    start: Instant,
    state: Mutex<LimitState>,
}

#[derive(Debug, Default)]
struct LimitState {
    limiter: CauseLimiter<LogCause>,
    /// Message of the last line left out, by cause.
    messages: HashMap<LogCause, String>,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { start: Instant::now(), state: Mutex::default() }
    }
}

impl LogLimits {
    fn lock_state(&self) -> MutexGuard<'_, LimitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Decides on one line.
    fn admit(&self, cause: LogCause, message: String) -> LineVerdict {
        let mut state = self.lock_state();
        if state.limiter.admit(&cause, self.now()) {
            return LineVerdict::Pass;
        }
        let known = state.messages.contains_key(&cause) || state.messages.len() >= MAX_CAUSES;
        if known {
            return LineVerdict::LeftOut;
        }
        state.messages.insert(cause, message);
        LineVerdict::FirstLeftOut
    }

    /// Texts about what was left out, of those that are due.
    pub(super) fn take_notices(&self) -> Vec<String> {
        let mut state = self.lock_state();
        let due = state.limiter.take_notices(self.now());
        let texts = due.into_iter().map(|(cause, count)| {
            let message = cause.as_ref().and_then(|cause| state.messages.remove(cause));
            let message = message.map_or_else(String::new, |text| format!(": {text}"));
            let Some(cause) = cause else {
                return format!("{count} log lines of further causes were left out");
            };
            let peer = match &cause.peer[..] {
                "" => String::new(),
                peer => format!(" of peer {peer}"),
            };
            escape_lines(&format!("{count} more log lines{peer} like this were left out{message}"))
        });
        let texts = texts.collect();
        if state.limiter.next_notice().is_none() {
            state.messages.clear();
        }
        texts
    }

    /// When the next text is due.
    pub(super) fn next_notice(&self) -> Option<Instant> {
        let at = self.lock_state().limiter.next_notice()?;
        Some(self.start + at.since(Time::ZERO))
    }
}

/// Formats the lines that pass.
pub(super) struct LimitedFormat<F> {
    pub(super) format: F,
    pub(super) style: LineStyle,
    pub(super) limiter: LineLimiter,
}

/// Decides on lines, and counts those left out.
pub(super) struct LineLimiter {
    pub(super) limits: Arc<LogLimits>,
    pub(super) queue: Arc<LogQueue>,
    pub(super) counts: Arc<LogCounts>,
}

impl LineLimiter {
    fn admit(&self, cause: LogCause, message: String) -> bool {
        let verdict = self.limits.admit(cause, message);
        if verdict == LineVerdict::Pass {
            return true;
        }
        self.counts.add_limited(1);
        if verdict == LineVerdict::FirstLeftOut {
            self.queue.wake_writer();
        }
        false
    }
}

impl<S, N, F> FormatEvent<S, N> for LimitedFormat<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if *metadata.level() <= Level::INFO && metadata.target() != EVENT_TARGET {
            let mut fields = CauseFields::default();
            event.record(&mut fields);
            if fields.peer.is_empty() {
                fields.peer = span_peer(context);
            }
            let cause = LogCause { callsite: metadata.callsite(), peer: fields.peer };
            if !self.limiter.admit(cause, fields.message) {
                return Ok(());
            }
        }
        writer.write_str(self.style.priority_prefix(*metadata.level()))?;
        self.format.format_event(context, writer, event)
    }
}

/// The fields that tell causes apart.
#[derive(Default)]
struct CauseFields {
    peer: String,
    message: String,
}

impl Visit for CauseFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let place = match field.name() {
            "peer" => &mut self.peer,
            "message" => &mut self.message,
            _ => return,
        };
        // Writing into a string cannot fail.
        let _ = write!(place, "{value:?}");
    }
}

/// The peer that the current span names.
fn span_peer<S, N>(context: &FmtContext<'_, S, N>) -> String
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    let mut spans = context.event_scope().into_iter().flatten();
    let Some(span) = spans.find(|span| span.name() == PEER_SPAN) else { return String::new() };
    let extensions = span.extensions();
    let fields = extensions.get::<FormattedFields<N>>();
    fields.map_or_else(String::new, |fields| unstyled_value(&fields.fields))
}

/// The value of a formatted field (`name=b`, with or without colours).
fn unstyled_value(field: &str) -> String {
    let mut parts = field.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    // A colour is ESC, `[`, numbers and `m` (ECMA-48).
    plain.extend(parts.map(|part| part.split_once('m').map_or("", |(_, text)| text)));
    plain.split_once('=').map_or_else(|| plain.clone(), |(_, value)| value.to_owned())
}

/// Passes formatted lines to the queue, with nothing in them that a terminal acts on but colours.
pub(super) struct QueuedLines {
    pub(super) queue: Arc<LogQueue>,
    pub(super) styled: bool,
}

impl std::io::Write for &QueuedLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = if self.styled { escape_styled(&text) } else { escape_lines(&text) };
        self.queue.push_line(line.into_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::fmt::{format, layer};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::control::rate_limit::{CAUSE_BURST, CAUSE_INTERVAL};

    #[test]
    fn the_peer_of_a_span_is_named_without_its_field_and_colours() {
        for field in ["name=b", "\x1b[3mname\x1b[0m\x1b[2m=\x1b[0mb"] {
            assert_eq!(unstyled_value(field), "b");
        }
    }

    #[test]
    fn a_flood_of_one_peer_is_limited_and_counted_and_other_causes_are_heard() {
        const FLOOD: u64 = 50_000;
        let counts = Arc::new(LogCounts::default());
        let queue = Arc::new(LogQueue::new(Arc::clone(&counts), LineStyle::default()));
        let limits = Arc::new(LogLimits::default());
        let limiter = LineLimiter {
            limits: Arc::clone(&limits),
            queue: Arc::clone(&queue),
            counts: Arc::clone(&counts),
        };
        let format = LimitedFormat {
            format: format().with_target(false),
            style: LineStyle::default(),
            limiter,
        };
        let lines = Arc::new(QueuedLines { queue: Arc::clone(&queue), styled: false });
        let layer = layer().event_format(format).with_writer(lines).with_ansi(false);
        let began = Instant::now();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for peer in std::iter::repeat_n("b", FLOOD as usize).chain(["c"]) {
                tracing::info!(peer, "no connection");
            }
            tracing::error_span!("peer", name = "d").in_scope(|| {
                (0..FLOOD).for_each(|_| tracing::warn!("in its span"));
            });
            tracing::info!("other \x1b[31m\r\u{202e}");
        });
        let refills = began.elapsed().as_nanos() / CAUSE_INTERVAL.as_nanos();
        let lines = queue.take_all();
        let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count() as u64;
        let most = CAUSE_BURST + refills as u64 + 1;
        for (word, passed) in [("peer=\"b\"", most), ("in its span", most)] {
            let lines = count(word);
            assert!((CAUSE_BURST..=passed).contains(&lines), "{lines} lines of {word}");
        }
        assert_eq!(count("peer=\"c\""), 1);
        assert_eq!(count(r"other \x1b[31m\u{d}\u{202e}"), 1, "{:?}", lines.last());
        let passed = count("no connection") + count("in its span");
        assert_eq!(counts.read_counts().limited_lines, 2 * FLOOD + 1 - passed);
        assert!(limits.next_notice().is_some() && limits.take_notices().is_empty());
    }
}
