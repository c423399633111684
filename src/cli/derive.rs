//! `fieldbridge derive-keys`: the keys of devices that enrol as a group, on the PC of whoever has the group's key.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{print, print_error};
use crate::certificate::pem;
use crate::config::{group_key, registration_id};
use crate::exit::Exit;
use crate::provisioning::group::device_key;
use crate::systemd;

/// What `derive-keys` takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file that holds the enrollment group's key, in base64.
    #[arg(long, value_name = "FILE")]
    group_key_file: PathBuf,
    /// Write each key into a file of its own in this folder, ID.key, which only its owner can read; nothing is printed
    /// then.
    #[arg(long, value_name = "FOLDER", conflicts_with = "json")]
    output: Option<PathBuf>,
    /// Print the keys as one JSON document.
    #[arg(long)]
    json: bool,
    /// Registration ids of the devices, as they will be enrolled.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

pub(super) fn run(options: &Options) -> Result<(), Exit> {
    systemd::seclude();
    let shown = options.group_key_file.display();
    let read = pem::read(&options.group_key_file).and_then(|bytes| group_key(&bytes));
    let (group, odd) = read.map_err(|why| Exit::No(why.of(&shown).to_string()))?;
    if let Some(why) = odd {
        print_error(&why.of(&shown).to_string());
    }
    // All of them first: half of a list of keys helps nobody.
    for id in &options.ids {
        registration_id(id).map_err(|why| Exit::Usage(why.of(format!("{id:?}")).to_string()))?;
    }
    let keys = options.ids.iter().map(|id| (id, device_key(&group, id)));
    match &options.output {
        Some(folder) => {
            for (id, key) in keys {
                write(&folder.join(format!("{id}.key")), &key)?;
            }
        }
        None if options.json => {
            let keys = keys.map(|(id, key)| json!({ "registrationId": id, "key": key }));
            print(&json!(keys.collect::<Vec<_>>()).to_string());
        }
        None => keys.for_each(|(id, key)| print(&format!("{id} {key}"))),
    }
    Ok(())
}

fn write(path: &Path, key: &str) -> Result<(), Exit> {
    let shown = path.display();
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
        writeln!(file, "{key}")?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Exit::No(format!("{shown} is there already, and is not overwritten; give another folder, or remove it"))
        }
        _ => Exit::Surroundings(format!("{shown} can't be written: {error}")),
    })
}
