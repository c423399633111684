//! `fieldbridge config`: the configuration as the files, the drop-ins and the environment make it together.

use std::path::Path;

use clap::Subcommand;

use super::{environment, print};
use crate::config::show;
use crate::exit::Exit;

/// What is asked of the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigAction {
    /// Print the configuration in force: the files merged, and what holds where they say nothing.
    ///
    /// Defaults begin with #, as in the reference configuration. Nothing is judged: that is for `check`. Of files with
    /// keys and passwords the paths are shown, and never what stands in them; what looks like a secret itself, or is
    /// the value of an unknown key, is shown as "…". Exit status 78 if a file can't be read, or is no TOML: what stands
    /// in the others is printed all the same. Example: fieldbridge config show --origin
    Show {
        /// Also say of each value where it comes from: file and line, the environment, or "default".
        #[arg(long)]
        origin: bool,
        /// Print one JSON document: a list of key, value, file and line.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn show(main: &Path, origin: bool, json: bool) -> Result<(), Exit> {
    let shown = show::show(main, environment());
    print(&if json { shown.to_json().to_string() } else { shown.to_toml(origin) });
    match shown.problems.is_empty() {
        true => Ok(()),
        false => Err(Exit::Config(shown.problems)),
    }
}
