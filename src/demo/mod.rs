//! `fieldbridge demo`: the whole story on one machine, with no cloud and no hardware.
//!
//! A simulated hub over TLS runs in this process. The peripherals are processes of their own, so that they outlive
//! the daemon and count by themselves what reaches them; the daemon is a child process that can be killed. The demo
//! fails if a count is wrong.

pub mod hub;
mod peripherals;
mod stage;
mod story;
mod tally;

use clap::{Args, Subcommand};

use crate::exit::Exit;

/// What `demo` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// A part of the demo, as a process of its own.
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The simulated hub alone, with a control channel on standard input and output.
    ///
    /// Example: fieldbridge demo hub --plain
    Hub(hub::cli::HubArgs),
    /// A simulated peripheral.
    #[command(hide = true)]
    Peripheral(peripherals::Args),
}

/// Runs the demo, or a part of it.
///
/// # Errors
/// [`Exit::No`] if something did not come out as it must.
pub fn run(options: Options) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Exit::Internal(format!("no runtime: {error}")))?;
    let ended = match options.part {
        Some(Part::Hub(args)) => runtime.block_on(hub::cli::run(args)).map_err(|error| error.to_string()),
        Some(Part::Peripheral(args)) => runtime.block_on(peripherals::run(args)).map_err(|error| error.to_string()),
        None => runtime.block_on(story::tell()),
    };
    ended.map_err(Exit::No)
}
