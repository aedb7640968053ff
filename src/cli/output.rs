//! Standard output, which its reader may close at any time.

use std::{io, io::Write};

use crate::{exit::ExitError, text::escape_lines};

/// Standard output.
#[derive(Default)]
pub(super) struct StandardOutput {
    closed: bool,
}

impl StandardOutput {
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
            self.write_text(&escape_lines(&show()))
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
