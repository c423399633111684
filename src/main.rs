//! From the command line to the exit status.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use fieldbridge::cli::Cli;

fn main() -> ExitCode {
    match fieldbridge::cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            // Nobody is left to tell if standard error is gone too.
            let _ = writeln!(std::io::stderr(), "fieldbridge: {exit}");
            ExitCode::from(exit.exit_status())
        }
    }
}
