//! `fieldbridge profile`: the profiles that come with the program.

use clap::Subcommand;
use serde_json::json;

use super::print;
use crate::config::keys::nearest;
use crate::config::shipped::Shipped;
use crate::exit::Exit;

/// What is asked of the shipped profiles.
#[derive(Debug, Subcommand)]
pub(super) enum ProfileAction {
    /// List them: the name that a device gives as its profile, and which peripherals it is for.
    ///
    /// Example: fieldbridge profile list
    List {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Print one, as it would stand in the configuration.
    ///
    /// To change something in it, write it into conf.d and edit it there: what the configuration defines itself is not
    /// looked for elsewhere. Exit status 1 if there is none of this name. Example: fieldbridge profile show
    /// waveshare-relays
    Show {
        /// Its name.
        name: String,
    },
}

pub(super) fn profile(action: ProfileAction) -> Result<(), Exit> {
    let shipped = Shipped::of_this_process();
    match action {
        ProfileAction::List { json } => {
            list(&shipped, json);
            Ok(())
        }
        ProfileAction::Show { name } => show(&shipped, &name),
    }
}

fn list(shipped: &Shipped, json: bool) {
    let all = shipped.list();
    if json {
        let all = all.iter().map(|entry| json!({ "name": entry.name, "about": entry.about, "file": entry.path }));
        print(&json!(all.collect::<Vec<_>>()).to_string());
        return;
    }
    let width = all.iter().map(|entry| entry.name.len()).max().unwrap_or_default();
    for entry in &all {
        print(&format!("{:width$}  {}", entry.name, entry.about));
    }
    if all.is_empty() {
        print(&format!("none are shipped: there is no profile in {}", shipped.folder().display()));
    }
}

fn show(shipped: &Shipped, name: &str) -> Result<(), Exit> {
    let unreadable =
        |error| Exit::Surroundings(format!("{}/{name}.toml can't be read: {error}", shipped.folder().display()));
    if let Some(text) = shipped.text(name).map_err(unreadable)? {
        print(text.trim_end());
        return Ok(());
    }
    let names = shipped.names();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "`fieldbridge profile list` shows those that there are".to_owned(),
    };
    Err(Exit::No(format!("no shipped profile is called {name:?}; {hint}")))
}
