//! Exit codes and the errors that carry them.

use std::{fmt, process::ExitCode};

use crate::text::escape_lines;

/// Exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0  success
  1  failure: no answer from netftd, or it refused
  2  invalid input: arguments, configuration, key
  3  unusable environment: permissions, missing device or capability";

/// Error that ends a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitError {
    /// The exit code: 1, 2 or 3.
    pub code: u8,
    /// Cause and remedy.
    pub text: String,
}

impl ExitError {
    /// Invalid input (2).
    pub fn invalid_input(text: impl ToString) -> Self {
        Self { code: 2, text: text.to_string() }
    }

    /// Unusable environment (3).
    pub fn bad_environment(text: impl ToString) -> Self {
        Self { code: 3, text: text.to_string() }
    }

    /// Any other failure (1).
    pub fn other_error(text: impl ToString) -> Self {
        Self { code: 1, text: text.to_string() }
    }
}

/// Paths, names and answers of others in the text are escaped: it is read on terminals.
impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A rendered configuration error has its prefix already.
        if self.text.starts_with("error: ") {
            f.write_str(&escape_lines(&self.text))
        } else {
            write!(f, "error: {}", escape_lines(&self.text))
        }
    }
}

/// Reports an error on standard error and returns its exit code.
pub fn report_exit(result: Result<(), ExitError>) -> ExitCode {
    use std::io::Write;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A closed standard error leaves the exit code.
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.code)
        }
    }
}
