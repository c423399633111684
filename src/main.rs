//! From the command line to the exit status.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use fieldbridge::cli::Cli;

fn main() -> ExitCode {
    match fieldbridge::cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            let why = exit.to_string();
            // What was asked for says it already. Nobody is left to tell if standard error is gone too.
            if !why.is_empty() {
                let _ = writeln!(std::io::stderr(), "fieldbridge: {why}");
            }
            ExitCode::from(exit.exit_status())
        }
    }
}
