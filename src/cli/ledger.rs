//! `fieldbridge ledger`: its rows, its copies, a new one.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{environment, print, print_error};
use crate::command::outcome::State;
use crate::config;
use crate::exit::Exit;
use crate::ledger::row::Record;
use crate::ledger::{backup, LedgerError, Reader};
use crate::operate::text;

/// What is asked of the ledger.
#[derive(Debug, Subcommand)]
pub(super) enum LedgerAction {
    /// List rows, newest first.
    ///
    /// For one device's, or for those that succeeded, it looks through the newest 20,000 rows, or ten for each that
    /// --limit asks for if that is more; a device's older ones are found by their message ids, or because they are not
    /// over. For one device's in another final state, it looks through the newest 1,000 in that state, or ten for each.
    /// It says what it has not looked through. Example: fieldbridge ledger list --device pump-7 --limit 20
    List {
        /// Only this device's.
        #[arg(long, value_name = "ID")]
        device: Option<String>,
        /// Only rows in this state.
        #[arg(long, value_name = "S")]
        state: Option<StateName>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show one row with its whole history.
    ///
    /// One argument is the number of a row, as `list` shows it; two are a device and a message's id. Exit status 1 if
    /// there is no such row. Example: fieldbridge ledger show 12
    Show {
        /// Number of the row, or device id at the hub.
        #[arg(value_name = "ROW|DEVICE")]
        row_or_device: String,
        /// The message's id.
        message_id: Option<String>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Copy the ledger to a new file, while the daemon runs or without it.
    ///
    /// The copy is proven, and has its name only when it is whole and on the disk. A file that is there is not
    /// overwritten. Example: fieldbridge ledger backup /media/usb/ledger-2026-11-28.db
    Backup {
        /// The new file.
        file: PathBuf,
    },
    /// Replace the ledger by a backup, while the daemon does not run.
    ///
    /// The backup is proven first; exit status 74 if it is no sound backup. What is there is moved aside to
    /// ledger.db.old-TIME. Commands that must not be repeated end in doubt until nothing of before can be left.
    /// Example: fieldbridge ledger restore /media/usb/ledger-2026-11-28.db
    Restore {
        /// The backup.
        file: PathBuf,
    },
    /// Make an empty ledger, while the daemon does not run. One that is there is moved aside to ledger.db.old-TIME.
    ///
    /// It knows that an earlier ledger may have executed what the hub still holds: commands that must not be repeated
    /// end in doubt until nothing of before can be left. Example: fieldbridge ledger new
    New {
        /// Say that nothing of before is left. A ledger that is there keeps its rows, and is trusted.
        #[arg(long)]
        trust: bool,
    },
}

/// A state, by its name in the ledger.
#[derive(Debug, Clone, Copy)]
pub(super) struct StateName(State);

impl clap::ValueEnum for StateName {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [StateName; State::ALL.len()] = {
            let mut names = [StateName(State::Accepted); State::ALL.len()];
            let mut i = 0;
            while i < names.len() {
                names[i] = StateName(State::ALL[i]);
                i += 1;
            }
            names
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.as_str()))
    }
}

pub(super) fn ledger(path: &Path, action: LedgerAction) -> Result<(), Exit> {
    let place = || -> Result<PathBuf, Exit> { Ok(config::places(path, environment()).map_err(Exit::Config)?.ledger) };
    let open = || -> Result<Reader, Exit> { Ok(Reader::open(&place()?)?) };
    let whole = || config::load(path, environment()).map(|loaded| loaded.config).map_err(Exit::Config);
    match action {
        LedgerAction::List { device, state, limit, json } => {
            let listed = open()?.list(device.as_deref(), state.map(|name| name.0), limit)?;
            match json {
                true => listed.rows.iter().map(Record::to_json).for_each(|row| print(&row.to_string())),
                false => print(&text::rows(&listed.rows)),
            }
            if let Some(last) = listed.not_looked_through {
                print_error(&text::not_looked_through(last, device.as_deref()));
            }
            Ok(())
        }
        LedgerAction::Show { row_or_device, message_id, json } => {
            let row = match message_id {
                Some(id) => open()?
                    .show(&row_or_device, &id)?
                    .ok_or_else(|| Exit::No(format!("the ledger has no message {id:?} of device {row_or_device:?}")))?,
                None => {
                    let number = row_number(&row_or_device)?;
                    let none = || Exit::No(format!("the ledger has no row {number}"));
                    open()?.show_row(number)?.ok_or_else(none)?
                }
            };
            print(&if json { row.to_json_with_history().to_string() } else { text::row(&row) });
            Ok(())
        }
        LedgerAction::Backup { file } => {
            backup::backup(&place()?, &file)?;
            print(&format!("the ledger is copied to {}", file.display()));
            Ok(())
        }
        LedgerAction::Restore { file } => {
            let config = whole()?;
            let old = backup::restore(&config.ledger.path, &file, &config.hub.host).map_err(while_stopped)?;
            print(&moved(&config.ledger.path, old, "restored; commands that must not be repeated end in doubt"));
            Ok(())
        }
        LedgerAction::New { trust: false } => {
            let config = whole()?;
            let old = backup::renew(&config.ledger.path, &config.hub.host).map_err(while_stopped)?;
            print(&moved(&config.ledger.path, old, "empty; commands that must not be repeated end in doubt"));
            Ok(())
        }
        LedgerAction::New { trust: true } => {
            let config = whole()?;
            let made = backup::trust(&config.ledger.path, &config.hub.host).map_err(while_stopped)?;
            let what = if made { "is made, empty, and trusted" } else { "keeps its rows, and is trusted" };
            print(&format!("the ledger {} {what}", config.ledger.path.display()));
            Ok(())
        }
    }
}

/// A row as a person names it: `12` or `#12`.
fn row_number(text: &str) -> Result<i64, Exit> {
    let usage = || {
        Exit::Usage(format!("{text:?} is not the number of a row; give that, or a device and a message's id (see `fieldbridge ledger show --help`)"))
    };
    text.strip_prefix('#').unwrap_or(text).parse().map_err(|_| usage())
}

/// A daemon that runs is no fault of the ledger's here.
fn while_stopped(error: LedgerError) -> Exit {
    match error {
        LedgerError::InUse(path) => Exit::No(format!(
            "the ledger {} is in use: stop the daemon first (sudo systemctl stop fieldbridge)",
            path.display()
        )),
        error => error.into(),
    }
}

fn moved(ledger: &Path, old: Option<PathBuf>, what: &str) -> String {
    let until = "until nothing of before can be left (`ledger new --trust` says that nothing is)";
    let old = old.map_or_else(String::new, |old| format!("; the one that was there is {}", old.display()));
    format!("the ledger {} is {what} {until}{old}", ledger.display())
}
