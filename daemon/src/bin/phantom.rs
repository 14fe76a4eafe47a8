//! `phantom`, the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    phantom_daemon::cli::main()
}
