//! `netftd`: owns the virtual network adapter of this node.

use std::process::ExitCode;

fn main() -> ExitCode {
    netftd::daemon::main(std::env::args_os())
}
