//! How a command fails: one line, what to do, and the exit code.

use std::{fmt, process::ExitCode};

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed: no answer from netftd, or it refused
  2  wrong input: arguments, config, key
  3  wrong environment: permissions, missing device or capability";

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitError {
    /// The exit code: 1, 2 or 3.
    pub code: u8,
    /// What is wrong and what to do.
    pub text: String,
}

impl ExitError {
    /// Wrong input.
    pub fn invalid_input(text: impl ToString) -> Self {
        Self { code: 2, text: text.to_string() }
    }

    /// Wrong environment.
    pub fn bad_environment(text: impl ToString) -> Self {
        Self { code: 3, text: text.to_string() }
    }

    /// Anything else.
    pub fn other_error(text: impl ToString) -> Self {
        Self { code: 1, text: text.to_string() }
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A rendered config error already says what it is.
        if self.text.starts_with("error: ") {
            f.write_str(&self.text)
        } else {
            write!(f, "error: {}", self.text)
        }
    }
}

/// Ends a program: the failure on standard error, its code to the caller.
pub fn report_exit(result: Result<(), ExitError>) -> ExitCode {
    use std::io::Write;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.code)
        }
    }
}
