//! `netft`: asks and steers a running `netftd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    netftd::cli::main()
}
