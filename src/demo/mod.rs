//! `netft demo`: the adapter's whole promise in one command, without root.
//!
//! Two nodes joined by three networks, two real daemons, one TCP flow and a datagram each way
//! every millisecond; then the active route breaks three times, each time differently, and heals.
//! Called by the `demo` subcommand; it runs in namespaces of its own ([`crate::lab`]).

mod chart;
mod run;
mod show;
mod story;

use std::{path::PathBuf, process::ExitCode};

use crate::lab::{Entered, LabError, daemon::Programs, enter};

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Print one JSON object and nothing else.
    pub json: bool,
    /// Draw the run into this file.
    pub svg: Option<PathBuf>,
}

/// The exit code of a run in which a check failed.
const FAILED: u8 = 1;
/// The exit code where the system refuses what a run needs.
const REFUSED: u8 = 3;

/// Runs the demo: exit code 0 when every check holds, 1 when one fails, 3 when this system
/// refuses namespaces or TUN devices.
pub fn main(options: &Options) -> ExitCode {
    match enter() {
        Ok(Entered::Outside(code)) => code,
        Ok(Entered::Inside) => inside(options).unwrap_or_else(|error| report(&error)),
        Err(error) => report(&error),
    }
}

fn report(error: &LabError) -> ExitCode {
    eprintln!("netft demo: {error}");
    ExitCode::from(if error.is_refusal() { REFUSED } else { FAILED })
}

fn inside(options: &Options) -> Result<ExitCode, LabError> {
    let narrator = show::Narrator::new(!options.json);
    let story = run::run(&narrator, Programs::own())?;
    if options.json {
        narrator.print(&show::summary(&story).to_string());
    }
    if let Some(file) = &options.svg {
        let drawn = chart::draw(&story);
        std::fs::write(file, drawn).map_err(LabError::io(format!("write {}", file.display())))?;
        if !options.json {
            narrator.print(&format!("The run as a picture: {}", file.display()));
        }
    }
    Ok(ExitCode::from(if story.passed() { 0 } else { FAILED }))
}
