//! The log, on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::exit::ExitError;

/// Starts logging at `level`, else at `$NETFT_LOG`, else at `info`. Under systemd the journal
/// adds the time itself.
///
/// # Errors
/// `level` is not a filter.
pub(super) fn start_logging(level: Option<&str>) -> Result<(), ExitError> {
    let variable = std::env::var("NETFT_LOG").ok();
    let level = level.or(variable.as_deref()).unwrap_or("info");
    let filter = EnvFilter::builder().parse(level).map_err(|error| {
        let help = "use error, warn, info, debug, trace, or per module: info,netft=debug";
        ExitError::invalid_input(format!(
            "{level:?} is not a log filter ({error})\n  = help: {help}"
        ))
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_target(false)
        .with_ansi(stderr().is_terminal());
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let started = if journal { log.without_time().try_init() } else { log.try_init() };
    started.map_err(ExitError::other_error)
}
