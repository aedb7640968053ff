//! `netft demo`: the adapter at work inside namespaces of its own.

use std::process::ExitCode;

/// The arguments of `netft demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {}

/// Runs the demo.
pub fn run(_: DemoArgs) -> ExitCode {
    ExitCode::FAILURE
}
