//! The log, on standard error. It never blocks a thread of the daemon, and never ends it.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{IsTerminal, stderr},
    panic,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::EnvFilter;

use super::{
    log_format::{JsonFormat, LineStyle, LogFormat},
    log_limit::{LimitedFormat, LineLimiter, LogLimits, QueuedLines},
    log_queue::{LineWriter, LogQueue, StandardError},
    privileges,
};
use crate::{control::log_counts::LogCounts, exit::ExitError};

/// Time for the last lines at the end of the daemon.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// Crates whose log a filter can name.
const LOGGING_CRATES: [&str; 8] =
    ["netft", "netftd", "netft_proto", "quinn", "quinn_proto", "quinn_udp", "rustls", "tokio"];

/// The running log.
pub(super) struct DaemonLog {
    queue: Arc<LogQueue>,
    style: LineStyle,
    /// Lines that were lost or left out.
    pub(super) counts: Arc<LogCounts>,
}

impl DaemonLog {
    /// Logs the error that ends the daemon, waits a moment for the last lines to be written, and
    /// returns the exit code.
    pub(super) fn report_exit(&self, result: Result<(), ExitError>) -> ExitCode {
        let code = match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                match self.style.format {
                    LogFormat::Text => {
                        let prefix = self.style.priority_prefix(Level::ERROR);
                        self.queue.push_line(format!("{prefix}{failure}\n").into_bytes());
                    }
                    LogFormat::Json => self.queue.push_notice(Level::ERROR, &failure.to_string()),
                }
                ExitCode::from(failure.code)
            }
        };
        self.queue.flush_lines(FLUSH_TIMEOUT);
        code
    }
}

/// Starts logging in `format` at `level`, else at `$NETFT_LOG`, else at `info`.
///
/// # Errors
/// `level` is not a filter, or no thread can be started.
pub(super) fn start_logging(
    level: Option<&str>,
    format: LogFormat,
) -> Result<DaemonLog, ExitError> {
    let variable = std::env::var("NETFT_LOG").ok();
    let level = level.or(variable.as_deref()).unwrap_or("info");
    let filter = parse_filter(level).map_err(ExitError::invalid_input)?;
    let style = LineStyle::for_stderr(format);
    let counts = Arc::new(LogCounts::default());
    let queue = Arc::new(LogQueue::new(Arc::clone(&counts), style));
    let limits = Arc::new(LogLimits::default());
    let styled = stderr().is_terminal() && format == LogFormat::Text;
    let lines = Arc::new(QueuedLines { queue: Arc::clone(&queue), styled });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
    let log = log.log_internal_errors(false).with_ansi(styled);
    let limiter = LineLimiter {
        limits: Arc::clone(&limits),
        queue: Arc::clone(&queue),
        counts: counts.clone(),
    };
    let text = tracing_subscriber::fmt::format().with_target(false);
    let started = match format {
        LogFormat::Json => {
            log.event_format(LimitedFormat { format: JsonFormat, style, limiter }).try_init()
        }
        LogFormat::Text if style.is_journal => {
            let format = text.without_time();
            log.event_format(LimitedFormat { format, style, limiter }).try_init()
        }
        LogFormat::Text => {
            log.event_format(LimitedFormat { format: text, style, limiter }).try_init()
        }
    };
    started.map_err(ExitError::other_error)?;
    let writer = LineWriter::new(Arc::clone(&queue), StandardError);
    let running = Arc::clone(&queue);
    thread::Builder::new()
        .name("netft-log".into())
        .spawn(move || run_writer(writer, &running, &limits))
        .map_err(|error| ExitError::bad_environment(format!("no log thread: {error}")))?;
    panic::set_hook(Box::new(log_panic));
    Ok(DaemonLog { queue, style, counts })
}

/// Writes lines as long as the process runs.
fn run_writer(mut writer: LineWriter<StandardError>, queue: &LogQueue, limits: &LogLimits) {
    privileges::drop_all_capabilities();
    loop {
        writer.write_next(limits.next_notice());
        for text in limits.take_notices() {
            queue.push_notice(Level::WARN, &text);
        }
    }
}

/// Logs a panic: the default hook writes to standard error itself, and would wait for its reader.
fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        tracing::error!("thread {thread} {info}\n{trace}");
    } else {
        tracing::error!("thread {thread} {info}");
    }
}

/// Parses a filter. A word that is neither a level nor a part of netftd silences the log, so it is
/// refused.
fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    let help = "use error, warn, info, debug, trace or off, or per part: info,netft=debug";
    let refused =
        |reason: &str| format!("{text:?} is not a log filter ({reason})\n  = help: {help}");
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    for directive in directives.iter().filter(|directive| !directive.is_empty()) {
        let (target, level) = match directive.split_once('=') {
            Some((target, _)) if !directive.contains('[') => (target, None),
            _ => (directive.split('[').next().unwrap_or_default(), Some(directive)),
        };
        let is_level = level.is_some_and(|level| level.parse::<LevelFilter>().is_ok());
        if !is_level && !is_known_target(target.trim()) {
            let reason = format!("{target:?} is no level and no part of netftd");
            return Err(refused(&reason));
        }
    }
    let parsed = EnvFilter::builder().parse(directives.join(","));
    parsed.map_err(|error| refused(&error.to_string()))
}

/// True for a target that some log line may have, and for the empty one before a span.
fn is_known_target(target: &str) -> bool {
    let first = target.split("::").next().unwrap_or_default();
    target.is_empty() || LOGGING_CRATES.contains(&first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_filter_that_would_silence_the_log_by_mistake_is_refused() {
        for good in [
            "info",
            "WARN",
            "off",
            "netft",
            "info,netft=debug",
            "info, netft::io::control=trace , quinn=warn",
            "info,[peer{name=b}]=debug",
            "netft[peer]=trace",
            "",
        ] {
            parse_filter(good).unwrap();
        }
        for bad in ["infoo", "debugg,netft=info", "netfft=debug", "info,nteft", "netft=infoo"] {
            let error = parse_filter(bad).unwrap_err();
            assert!(error.contains(bad) && error.contains("error, warn, info, debug"), "{error}");
        }
    }
}
