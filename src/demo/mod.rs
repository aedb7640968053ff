//! `netft demo`: failovers in one command, without root.
//!
//! [`run_demo`]: two nodes with three networks, two real daemons, one TCP flow and a datagram in
//! each direction every millisecond; the active route fails three times, each time differently, and
//! is repaired. [`run_vip_demo`]: an address that moves between three nodes. Both run in namespaces
//! of their own ([`netft_lab`]).

mod chart;
mod demo_run;
mod narrator;
mod runner;
mod vip_demo;
mod vip_run;

use std::{io, io::Write, path::Path, process::ExitCode};

use netft_lab::{EnterOutcome, LabError, daemon::ProgramPaths, enter_namespaces};

/// Exit code of a run in which a check failed.
const EXIT_FAILED: u8 = 1;
/// Exit code where the system refuses what a run needs.
const EXIT_REFUSED: u8 = 3;

/// Runs the demo and draws it into the file `svg`; with `json` it prints one object and nothing
/// else.
///
/// The exit code is 0 when every check holds, 1 when one fails, 3 when this system refuses
/// namespaces or TUN devices.
pub fn run_demo(svg: Option<&Path>, json: bool) -> ExitCode {
    match enter_namespaces() {
        Ok(EnterOutcome::Outside(code)) => code,
        Ok(EnterOutcome::Inside) => {
            run_inside(svg, json).unwrap_or_else(|error| report_error(&error))
        }
        Err(error) => report_error(&error),
    }
}

/// Runs the demo of an address that moves; with `json` it prints one object and nothing else.
///
/// The exit codes are those of [`run_demo`].
pub fn run_vip_demo(json: bool) -> ExitCode {
    match enter_namespaces() {
        Ok(EnterOutcome::Outside(code)) => code,
        Ok(EnterOutcome::Inside) => {
            run_vip_inside(json).unwrap_or_else(|error| report_error(&error))
        }
        Err(error) => report_error(&error),
    }
}

fn run_vip_inside(json: bool) -> Result<ExitCode, LabError> {
    let narrator = narrator::Narrator::new(!json);
    let run = vip_demo::run_vip_demo(&narrator, ProgramPaths::current_program())?;
    if json {
        let text = vip_run::run_json(&run)
            .map_err(|error| LabError::Daemon(format!("cannot write JSON: {error}")))?;
        narrator.print_line(&text);
    }
    Ok(ExitCode::from(if run.all_passed() { 0 } else { EXIT_FAILED }))
}

fn report_error(error: &LabError) -> ExitCode {
    // A closed standard error leaves the exit code.
    let _ = writeln!(io::stderr(), "netft demo: {error}");
    ExitCode::from(if error.is_refusal() { EXIT_REFUSED } else { EXIT_FAILED })
}

fn run_inside(svg: Option<&Path>, json: bool) -> Result<ExitCode, LabError> {
    let narrator = narrator::Narrator::new(!json);
    let run = runner::run_and_record(&narrator, ProgramPaths::current_program())?;
    if json {
        let summary = narrator::summary_json(&run)
            .map_err(|error| LabError::Daemon(format!("cannot write JSON: {error}")))?;
        narrator.print_line(&summary);
    }
    if let Some(file) = svg {
        let drawn = chart::draw_svg(&run);
        std::fs::write(file, drawn)
            .map_err(LabError::io_error(format!("write {}", file.display())))?;
        if !json {
            narrator.print_line(&format!("The run as a picture: {}", file.display()));
        }
    }
    Ok(ExitCode::from(if run.all_passed() { 0 } else { EXIT_FAILED }))
}
