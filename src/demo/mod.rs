//! `netft demo`: the adapter's whole promise in one command, without root.
//!
//! Two nodes joined by three networks, two real daemons, one TCP flow and a datagram each way
//! every millisecond; then the active route breaks three times, each time differently, and heals.
//! Called by the `demo` subcommand; it runs in namespaces of its own ([`netft_lab`]).

mod chart;
mod play;
mod show;
mod story;

use std::{path::PathBuf, process::ExitCode};

use netft_lab::{Entered, LabError, daemon::Programs, enter};

/// The arguments of `netft demo`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DemoArgs {
    /// Draws the run into this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// The exit code of a run in which a check failed.
const FAILED: u8 = 1;
/// The exit code where the system refuses what a run needs.
const REFUSED: u8 = 3;

/// Runs the demo; with `json` it prints one object and nothing else.
///
/// The exit code is 0 when every check holds, 1 when one fails, 3 when this system refuses
/// namespaces or TUN devices.
pub fn run(args: &DemoArgs, json: bool) -> ExitCode {
    match enter() {
        Ok(Entered::Outside(code)) => code,
        Ok(Entered::Inside) => inside(args, json).unwrap_or_else(|error| report(&error)),
        Err(error) => report(&error),
    }
}

fn report(error: &LabError) -> ExitCode {
    eprintln!("netft demo: {error}");
    ExitCode::from(if error.is_refusal() { REFUSED } else { FAILED })
}

fn inside(args: &DemoArgs, json: bool) -> Result<ExitCode, LabError> {
    let narrator = show::Narrator::new(!json);
    let story = play::play(&narrator, Programs::own())?;
    if json {
        narrator.print(&show::summary(&story).to_string());
    }
    if let Some(file) = &args.svg {
        let drawn = chart::draw(&story);
        std::fs::write(file, drawn).map_err(LabError::io(format!("write {}", file.display())))?;
        if !json {
            narrator.print(&format!("The run as a picture: {}", file.display()));
        }
    }
    Ok(ExitCode::from(if story.passed() { 0 } else { FAILED }))
}
