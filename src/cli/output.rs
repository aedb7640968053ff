//! Standard output, which the reader may close at any time.

use std::{io, io::Write};

use super::failure::Failure;

/// Standard output.
#[derive(Default)]
pub(super) struct Output {
    closed: bool,
}

impl Output {
    /// Writes an answer: as it came, or as `show` renders it.
    ///
    /// # Errors
    /// The disk is full, or the like. A reader that is gone is none.
    pub(super) fn answer(
        &mut self,
        json: bool,
        text: &str,
        show: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        self.answer_more(json, text, show).map(drop)
    }

    /// The same; says whether anybody still reads.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub(super) fn answer_more(
        &mut self,
        json: bool,
        text: &str,
        show: impl FnOnce() -> String,
    ) -> Result<bool, Failure> {
        if json { self.text(&format!("{}\n", text.trim_end())) } else { self.text(&show()) }?;
        Ok(!self.closed)
    }

    /// Writes text.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::other(format!("cannot write: {error}"))),
            Ok(()) => Ok(()),
        }
    }
}
