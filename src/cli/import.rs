//! `fieldbridge import`: profiles from what others have written of a peripheral.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{print, print_error};
use crate::exit::Exit;
use crate::import::{import, Imported, Kind, FILE_BYTES_MAX};

/// What kind of file a profile is made of.
#[derive(Debug, Subcommand)]
pub(super) enum ImportAction {
    /// From a SunSpec model, in the JSON in which it is published.
    ///
    /// Where the model lies in the peripheral is not in the file: --base says it. `fieldbridge read DEVICE holding
    /// 40000 4` shows "SunS" (21365, 28243), then the first model's number and its length; the next one begins behind
    /// so many registers. Example: fieldbridge import sunspec model_123.json --base 40122 --output inverter.toml
    Sunspec {
        #[command(flatten)]
        options: Options,
        /// Protocol address, from 0, of the register that holds the model's number.
        #[arg(long, value_name = "ADDRESS")]
        base: Option<u16>,
    },
    /// From a Thing Description of the W3C with the Modbus binding.
    ///
    /// Its terms begin with modv: or modbus:. Addresses count from 1 there, unless a form says that they count from 0.
    /// Example: fieldbridge import wot cold-store.td.json --output cold-store.toml
    Wot(Options),
    /// From a device profile of EdgeX for its Modbus service, in YAML or JSON.
    ///
    /// Example: fieldbridge import edgex cold-store.yaml --output cold-store.toml
    Edgex(Options),
}

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file, at most 2 MiB.
    file: PathBuf,
    /// Where the profile goes, in place of standard output. A file that is there is not overwritten.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The profile's name, in place of one from the file.
    #[arg(long)]
    name: Option<String>,
}

pub(super) fn run(action: ImportAction) -> Result<(), Exit> {
    match action {
        ImportAction::Sunspec { options, base: Some(base) } => made(Kind::Sunspec { base }, &options),
        ImportAction::Sunspec { base: None, .. } => Err(Exit::Usage(
            "--base is missing: the protocol address of the register that holds the model's number, such as 40122; \
             `fieldbridge import sunspec --help` says how to find it"
                .to_owned(),
        )),
        ImportAction::Wot(options) => made(Kind::Wot, &options),
        ImportAction::Edgex(options) => made(Kind::Edgex, &options),
    }
}

fn made(kind: Kind, options: &Options) -> Result<(), Exit> {
    let shown = options.file.display();
    let text = read(&options.file)?;
    let profile =
        import(kind, &text, options.name.as_deref()).map_err(|fault| Exit::No(format!("{shown}: {fault}")))?;
    match &options.output {
        Some(output) => write(output, &profile.text)?,
        None => print(&profile.text),
    }
    tell(&profile);
    Ok(())
}

/// Says on standard error what a person has to know of what was made.
fn tell(profile: &Imported) {
    let Imported { name, commands, undecided, left_out, .. } = profile;
    for line in left_out {
        print_error(&format!("left out: {line}"));
    }
    let s = if *commands == 1 { "" } else { "s" };
    print_error(&format!("the profile {name} has {commands} command{s}; compare it with the manual of the peripheral"));
    if !undecided.is_empty() {
        print_error(&format!(
            "without idempotent: {}; whoever knows the machine must say of each whether doing it twice is the same as \
             doing it once (true) or not (false), and `fieldbridge check` refuses the profile until then",
            undecided.join(", ")
        ));
    }
}

fn read(path: &Path) -> Result<String, Exit> {
    let shown = path.display();
    let unreadable = |error| Exit::Surroundings(format!("{shown} can't be read: {error}"));
    let mut bytes = Vec::new();
    let most = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
    // One more than is taken, so that a larger file is seen to be one.
    File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    let wrong = "is not text in UTF-8; is it the right file?";
    String::from_utf8(bytes).map_err(|_| Exit::No(format!("{shown} {wrong}")))
}

fn write(path: &Path, text: &str) -> Result<(), Exit> {
    let shown = path.display();
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Exit::No(format!("{shown} is there already, and is not overwritten; give another name, or remove it"))
        }
        _ => Exit::Surroundings(format!("{shown} can't be written: {error}")),
    })
}
