//! `fieldbridge ledger`: its rows, its copies, a new one.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{environment, print, print_error, status};
use crate::command::outcome::State;
use crate::config;
use crate::exit::Exit;
use crate::ledger::row::Record;
use crate::ledger::{backup, LedgerError, Reader, Wanted};
use crate::operate::resolving;
use crate::operate::text::{self, Columns};
use crate::time::{local, Timestamp};

/// What is asked of the ledger.
#[derive(Debug, Subcommand)]
pub(super) enum LedgerAction {
    /// List rows, newest first.
    ///
    /// For one device's, or for those that succeeded, it looks through the newest 20,000 rows, or ten for each that
    /// --limit asks for if that is more; a device's older ones are found by their message ids, or because they are not
    /// over. For one device's in another final state, it looks through the newest 1,000 in that state, or ten for each.
    /// It says what it has not looked through. What waits for its turn has a row only where it is settled when it is
    /// accepted; `status` counts the rest. A time is how long ago (2h), RFC 3339, or by the local clock ("2026-11-30
    /// 10:00"). Example: fieldbridge ledger list --device pump-7 --since 2h
    List(ListOptions),
    /// Show one row with its whole history.
    ///
    /// One argument is the number of a row, as `list` shows it; two are a device and a message's id. Exit status 1 if
    /// there is no such row. Example: fieldbridge ledger show 12
    Show {
        /// Number of the row, or device id at the hub.
        #[arg(value_name = "ROW|DEVICE")]
        row_or_device: String,
        /// The message's id.
        #[arg(allow_hyphen_values = true, value_parser = message_id)]
        message_id: Option<String>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Note that somebody has looked at what a command in doubt has done: it needs nobody any more.
    ///
    /// Its state stays in_doubt, and what you have found stands beside it. The daemon writes it where one runs. Exit
    /// status 1 if there is no such row, or it is not in doubt, or was resolved before. Example: fieldbridge ledger
    /// resolve 12 --note "the valve was open, closed it by hand"
    Resolve {
        /// Number of the row, or device id at the hub.
        #[arg(value_name = "ROW|DEVICE")]
        row_or_device: String,
        /// The message's id.
        #[arg(allow_hyphen_values = true, value_parser = message_id)]
        message_id: Option<String>,
        /// What you have found.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
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
    /// The backup is proven first; exit status 74 if it is not a sound backup. What is there is moved aside to
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

/// Which rows are listed, and how.
#[derive(Debug, Args)]
pub(super) struct ListOptions {
    /// Only this device's.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Only rows in this state.
    #[arg(long, value_name = "S")]
    state: Option<StateName>,
    /// Only commands in doubt that nobody has resolved.
    #[arg(long, conflicts_with = "state")]
    open: bool,
    /// Only of this command.
    #[arg(long, value_name = "NAME")]
    command: Option<String>,
    /// Only what was received then or later.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was received then or before.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// How rows are printed.
    #[arg(long, value_name = "F", default_value = "table", conflicts_with = "json")]
    format: Format,
    /// Print one JSON object a line: --format json.
    #[arg(long)]
    json: bool,
    /// Go on with new rows as they are made, and with the end of those that were not at theirs, until Ctrl-C.
    #[arg(long, conflicts_with_all = ["until", "state", "open"])]
    follow: bool,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A table.
    Table,
    /// Comma-separated values, with a line of heads.
    Csv,
    /// One JSON object a line.
    Json,
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

/// A message's id. Some begin with a hyphen; one with two is a slip of the pen in an option.
pub(super) fn message_id(text: &str) -> Result<String, String> {
    match text.starts_with("--") {
        true => Err("there is no such option; a row whose id begins so is named by its number".into()),
        false => Ok(text.to_owned()),
    }
}

pub(super) fn ledger(path: &Path, action: LedgerAction) -> Result<(), Exit> {
    let place = || -> Result<PathBuf, Exit> { Ok(config::places(path, environment()).map_err(Exit::Config)?.ledger) };
    let open = || -> Result<Reader, Exit> { Ok(Reader::open(&place()?)?) };
    let whole = || config::load(path, environment()).map(|loaded| loaded.config).map_err(Exit::Config);
    match action {
        LedgerAction::List(options) => list(&open, &options),
        LedgerAction::Resolve { row_or_device, message_id, note } => {
            let places = config::places(path, environment()).map_err(Exit::Config)?;
            let row = match message_id {
                Some(id) => in_doubt(&open()?, &row_or_device, &id)?,
                None => row_number(&row_or_device)?,
            };
            resolving::resolve(&places.admin_socket, &places.ledger, row, note.as_deref())?;
            print(&format!("row {row} is resolved"));
            Ok(())
        }
        LedgerAction::Show { row_or_device, message_id, json } => {
            let row = row(&open, &row_or_device, message_id.as_deref())?;
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

/// Rows of one message id that are told.
const SAME_ID_MAX: u32 = 20;
/// How often it is looked for new rows; how many are taken at a time, and waited for to come to their end.
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);
const FOLLOWED_MAX: u32 = 1000;

/// The row that a person names, by its number or by its device and message.
fn row(
    open: &impl Fn() -> Result<Reader, Exit>,
    row_or_device: &str,
    message_id: Option<&str>,
) -> Result<Record, Exit> {
    let Some(id) = message_id else {
        let number = row_number(row_or_device)?;
        return open()?.show_row(number)?.ok_or_else(|| Exit::No(format!("the ledger has no row {number}")));
    };
    let mut rows = open()?.all_of(row_or_device, id, SAME_ID_MAX)?;
    if rows.len() > 1 {
        let numbers: Vec<String> = rows.iter().map(|row| row.row.number().to_string()).collect();
        print_error(&format!("note: this id has {} rows: {}; this is the first", rows.len(), numbers.join(", ")));
    }
    if rows.is_empty() {
        return Err(Exit::No(format!("the ledger has no message {id:?} of device {row_or_device:?}")));
    }
    Ok(rows.swap_remove(0))
}

/// The number of the one row of a message that is in doubt.
fn in_doubt(reader: &Reader, device: &str, id: &str) -> Result<i64, Exit> {
    let rows = reader.all_of(device, id, SAME_ID_MAX)?;
    let open: Vec<i64> = rows
        .iter()
        .filter(|row| row.state == State::InDoubt && row.resolved.is_none())
        .map(|row| row.row.number())
        .collect();
    match open[..] {
        [one] => Ok(one),
        // Why not is told by whoever is to note it.
        [] => rows
            .first()
            .map(|row| row.row.number())
            .ok_or_else(|| Exit::No(format!("the ledger has no message {id:?} of device {device:?}"))),
        [..] => {
            let numbers = open.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
            Err(Exit::No(format!("this id has several rows in doubt: {numbers}; resolve each by its number")))
        }
    }
}

fn list(open: &impl Fn() -> Result<Reader, Exit>, options: &ListOptions) -> Result<(), Exit> {
    let time = |text: &Option<String>| {
        let said = |text: &String| local::said(text, Timestamp::now(), local::offset);
        text.as_ref().map(said).transpose().map_err(Exit::Usage)
    };
    let wanted = Wanted {
        device: options.device.as_deref(),
        state: options.state.map(|name| name.0),
        is_open: options.open,
        command: options.command.as_deref(),
        since: time(&options.since)?,
        until: time(&options.until)?,
        after: 0,
        limit: options.limit,
    };
    let format = if options.json { Format::Json } else { options.format };
    let mut listed = open()?.search(&wanted)?;
    if options.follow {
        listed.rows.reverse();
    }
    let mut columns = Columns { is_continued: false, ahead: local::offset(Timestamp::now()) };
    // A reader that goes away early, like `head`, is no error.
    let is_read = shown(&listed.rows, format, columns).is_ok();
    if let Some(last) = listed.not_looked_through {
        print_error(&text::not_looked_through(last, wanted.device));
    }
    if !options.follow || !is_read {
        return Ok(());
    }
    columns.is_continued = true;
    follow(open, wanted, listed.rows, |rows| shown(rows, format, columns))
}

/// Prints rows. An error: nobody reads it any more.
fn shown(rows: &[Record], format: Format, columns: Columns) -> std::io::Result<()> {
    let lines = match format {
        Format::Table => text::rows(rows, columns, status::page()),
        Format::Csv => {
            let head = (!columns.is_continued).then(text::csv_head);
            head.into_iter().chain(rows.iter().map(text::csv)).map(|line| line + "\n").collect()
        }
        Format::Json => rows.iter().map(|row| format!("{}\n", row.to_json())).collect(),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    out.flush()
}

/// Goes on with what comes, for as long as somebody reads it. The ledger is opened anew each time: it may be replaced.
fn follow(
    open: &impl Fn() -> Result<Reader, Exit>,
    wanted: Wanted<'_>,
    before: Vec<Record>,
    tell: impl Fn(&[Record]) -> std::io::Result<()>,
) -> Result<(), Exit> {
    let mut last = before.iter().map(|row| row.row.number()).max().unwrap_or(0);
    let mut unfinished: Vec<i64> =
        before.iter().filter(|row| !row.state.is_final()).map(|row| row.row.number()).collect();
    loop {
        std::thread::sleep(FOLLOW_PERIOD);
        let reader = open()?;
        let mut news = Vec::new();
        let mut wait = Vec::new();
        for number in unfinished.drain(..) {
            match reader.show_row(number)? {
                Some(row) if row.state.is_final() => news.push(row),
                Some(_) => wait.push(number),
                None => {}
            }
        }
        let mut new = reader.search(&Wanted { after: last, limit: FOLLOWED_MAX, ..wanted })?.rows;
        new.reverse();
        last = new.iter().map(|row| row.row.number()).max().unwrap_or(last);
        wait.extend(new.iter().filter(|row| !row.state.is_final()).map(|row| row.row.number()));
        wait.truncate(FOLLOWED_MAX as usize);
        unfinished = wait;
        news.extend(new);
        if !news.is_empty() && tell(&news).is_err() {
            return Ok(());
        }
    }
}

pub(super) fn explain(path: &Path, row_or_device: &str, message_id: Option<&str>, json: bool) -> Result<(), Exit> {
    let open = || -> Result<Reader, Exit> {
        Ok(Reader::open(&config::places(path, environment()).map_err(Exit::Config)?.ledger)?)
    };
    let row = row(&open, row_or_device, message_id)?;
    let story = text::story(&row, &open()?.around(&row)?);
    if json {
        let mut document = row.to_json();
        let told = |(at, said): &(Option<String>, String)| serde_json::json!({ "at": at, "said": said });
        document["story"] = story.iter().map(told).collect();
        print(&document.to_string());
        return Ok(());
    }
    let page = status::page();
    let lines: String =
        story.iter().map(|(at, said)| page.wrap(26, &format!("{:24}  {said}", at.as_deref().unwrap_or("-")))).collect();
    print(&lines);
    Ok(())
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
