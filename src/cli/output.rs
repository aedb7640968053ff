//! Standard output, which its reader may close at any time.

use std::{
    env, io,
    io::{IsTerminal, Write},
};

use jiff::tz::TimeZone;
use rustix::termios;

use crate::{
    exit::ExitError,
    render::style::OutputStyle,
    text::{escape, escape_lines, escape_styled},
};

/// Style of standard output: as wide as its terminal, in colours unless `NO_COLOR` is set
/// (no-color.org) or the terminal is dumb; plain for a pipe or a file.
pub(super) fn detect_style(is_wide: bool, is_utc: bool) -> OutputStyle {
    let is_terminal = io::stdout().is_terminal();
    let size = termios::tcgetwinsize(io::stdout()).ok().filter(|_| is_terminal && !is_wide);
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    OutputStyle {
        width: size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0),
        is_coloured: is_terminal && !is_set("NO_COLOR") && !is_dumb,
        zone: if is_utc { TimeZone::UTC } else { TimeZone::system() },
    }
}

/// Tells on standard error that an operator's order will not survive a restart.
pub(super) fn warn_unsaved(reason: Option<&str>) {
    if let Some(reason) = reason {
        let reason = escape(reason);
        let _ = writeln!(io::stderr(), "warning: in force until netftd stops only: {reason}");
    }
}

/// Standard output.
#[derive(Default)]
pub(super) struct StandardOutput {
    closed: bool,
    /// Rendered text has colours.
    is_coloured: bool,
}

impl StandardOutput {
    /// Standard output for text of this style.
    pub(super) const fn new(style: &OutputStyle) -> Self {
        Self { closed: false, is_coloured: style.is_coloured }
    }

    /// Writes an answer: as JSON text, or as `show` renders it.
    ///
    /// # Errors
    /// Write errors, but for a reader that closed the pipe.
    pub(super) fn print_response(
        &mut self,
        json: bool,
        text: &str,
        show: impl FnOnce() -> String,
    ) -> Result<(), ExitError> {
        self.print_streamed(json, text, show).map(drop)
    }

    /// The same; false once the reader closed the pipe.
    ///
    /// # Errors
    /// As [`print_response`](Self::print_response).
    pub(super) fn print_streamed(
        &mut self,
        json: bool,
        text: &str,
        show: impl FnOnce() -> String,
    ) -> Result<bool, ExitError> {
        if json {
            self.write_text(&format!("{}\n", text.trim_end()))
        } else {
            let escape = if self.is_coloured { escape_styled } else { escape_lines };
            self.write_text(&escape(&show()))
        }?;
        Ok(!self.closed)
    }

    /// Writes text.
    ///
    /// # Errors
    /// As [`print_response`](Self::print_response).
    pub(super) fn write_text(&mut self, text: &str) -> Result<(), ExitError> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(ExitError::other_error(format!("cannot write: {error}"))),
            Ok(()) => Ok(()),
        }
    }
}
