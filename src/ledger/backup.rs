//! The ledger's life as a file: a copy of it, its replacement by a copy or by an empty one.
//!
//! Invariants
//! - A replacement is complete, synced and proven under a temporary name before anything of the present ledger is
//!   touched. A plan then says so, and whoever comes next, a tool or the daemon, ends what was cut short: at no moment
//!   does a ledger stand without its log, or with another's.
//! - What is replaced stays, beside, as `ledger.db.old-TIME`.
//! - A ledger that was restored or made anew distrusts what it does not know (G15).

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};
use rustix::fs::{renameat_with, RenameFlags, CWD};

use super::disk::{beside, Disk, SystemDisk};
use super::replacement::{finish, PARTS};
use super::{schema, store, LedgerError};
use crate::complaint::Complaint;
use crate::proof::crash::{self, Point};
use crate::time::Timestamp;

/// Numbers that a restored ledger leaves out for its events: those that its lost successor may have used. So many times
/// a random number, for one backup can be restored more than once.
const EVENTS_LEFT_OUT: i64 = 1_000_000_000;
/// Longest that a peripheral may owe an answer by default, ms.
const LATE_WINDOW: i64 = 10_000;
/// What follows the name of a copy that is being made, before the number of the process.
const COPYING: &str = ".copying-";

/// Copies the ledger to a new file, beside a running daemon or without one. On return the copy is proven and on the
/// disk, under its name only then.
///
/// # Errors
/// [`LedgerError::Refused`] if the copy can't be written; what else is wrong is the ledger's.
pub fn backup(ledger: &Path, to: &Path) -> Result<(), LedgerError> {
    if to.symlink_metadata().is_ok() {
        return Err(refused(format!("{} exists; a backup overwrites nothing", to.display())));
    }
    let db = schema::open_to_copy(ledger)?;
    remove_cut_short(to);
    let new = beside(to, &format!("{COPYING}{}", std::process::id()));
    let copied = copy(&db, &new).and_then(|()| {
        crash::point(Point::BackupCopied);
        let copy = schema::open_to_copy(&new)?;
        schema::prove_all(&copy).map_err(|why| failed(&new, &why))
    });
    let named = copied.and_then(|()| name(&new, to).map_err(|error| not_written(to, &error)));
    if named.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    named
}

/// Removes what copies to this file have left that were cut short: their processes are gone.
fn remove_cut_short(to: &Path) {
    let start = format!("{}{COPYING}", to.file_name().unwrap_or_default().to_string_lossy());
    for entry in std::fs::read_dir(folder_of(to)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(&start).and_then(|number| number.parse::<u32>().ok());
        if process.is_some_and(|number| !Path::new("/proc").join(number.to_string()).exists()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn name(new: &Path, to: &Path) -> std::io::Result<()> {
    SystemDisk.sync(new)?;
    match renameat_with(CWD, new, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        // A file system that does not know how.
        Err(rustix::io::Errno::INVAL) if to.symlink_metadata().is_err() => std::fs::rename(new, to)?,
        Err(error) => return Err(error.into()),
    }
    sync_folder(to)
}

/// Replaces the ledger by a copy that [`backup`] has made. What is there is moved aside: where to is told, if anything
/// was.
///
/// # Errors
/// [`LedgerError::InUse`] while a daemon runs, [`LedgerError::Untrusted`] if the copy is not a sound ledger,
/// [`LedgerError::Refused`] if the new one can't be written.
pub fn restore(ledger: &Path, from: &Path, home: &str) -> Result<Option<PathBuf>, LedgerError> {
    let (ledger, _lock) = hold(ledger)?;
    let source = schema::open_to_copy(from)?;
    schema::prove_all(&source).map_err(|why| LedgerError::Untrusted {
        path: from.to_owned(),
        why: Complaint::bare(format!("is not a sound backup: {why}. The ledger is as it was")),
    })?;
    let late_window = late_window_of(&ledger);
    let left_out = EVENTS_LEFT_OUT * fastrand::i64(1..1_000_000);
    replace(&ledger, |new| {
        copy(&source, new)?;
        crash::point(Point::RestoreCopied);
        schema::finish_new(new, home, |db| store::distrust(db, left_out, late_window))
            .map_err(|error| sqlite(new, &error))
    })
}

/// Makes an empty ledger that distrusts what it does not know. One that is there is moved aside: where to is told.
///
/// # Errors
/// [`LedgerError::InUse`] while a daemon runs, [`LedgerError::Refused`] if the new one can't be written.
pub fn renew(ledger: &Path, home: &str) -> Result<Option<PathBuf>, LedgerError> {
    let (ledger, _lock) = hold(ledger)?;
    let late_window = late_window_of(&ledger);
    replace(&ledger, |new| {
        schema::make(&SystemDisk, new, home, true, late_window).map_err(|error| not_written(new, &*error))
    })
}

/// Ends the distrust of the ledger; makes a trusted one if there is none. Tells whether one was made.
///
/// # Errors
/// [`LedgerError::InUse`] while a daemon runs, [`LedgerError::Untrusted`] if what is there is not a sound ledger.
pub fn trust(ledger: &Path, home: &str) -> Result<bool, LedgerError> {
    let (ledger, _lock) = hold(ledger)?;
    if SystemDisk.look(&ledger).is_err() && SystemDisk.look(&beside(&ledger, "-wal")).is_err() {
        let made =
            |new: &Path| schema::make(&SystemDisk, new, home, false, 0).map_err(|error| not_written(new, &*error));
        replace(&ledger, made)?;
        return Ok(true);
    }
    let db = schema::open(&SystemDisk, &ledger, home, true)?;
    db.execute_batch("UPDATE ledger SET distrusted = 0").map_err(|error| sqlite(&ledger, &error))?;
    db.close().map_err(|(_, error)| sqlite(&ledger, &error))?;
    Ok(false)
}

/// For how long peripherals may still answer daemons on the ledger that is there, ms. What can't be read may have been
/// left by one with the defaults.
fn late_window_of(ledger: &Path) -> i64 {
    if SystemDisk.look(ledger).is_err() {
        return 0;
    }
    let read = schema::open_to_copy(ledger).ok().and_then(|db| store::late_window(&db).ok());
    read.unwrap_or(LATE_WINDOW)
}

/// Makes a new ledger, and gives it its name. If that fails before anything was moved, nothing of it is left.
fn replace(ledger: &Path, make: impl FnOnce(&Path) -> Result<(), LedgerError>) -> Result<Option<PathBuf>, LedgerError> {
    let (new, plan) = (beside(ledger, ".new"), beside(ledger, ".replace"));
    remove_leftovers(&new)?;
    let write_plan = || {
        give_to_the_daemon(&new, ledger)?;
        SystemDisk.sync(&new)?;
        sync_folder(&new)?;
        let time = Timestamp::now().to_string().replace([':', '.'], "-");
        crash::point(Point::ReplacementComplete);
        SystemDisk.write(&plan, format!("{time}\n").as_bytes())?;
        give_to_the_daemon(&plan, ledger)?;
        sync_folder(&new)
    };
    let planned = make(&new).and_then(|()| write_plan().map_err(|error| not_written(ledger, &error)));
    if planned.is_err() {
        // The plan first: without a new ledger it would be a plan to have none.
        let _ = SystemDisk.remove(&plan);
        let _ = remove_leftovers(&new);
        planned?;
    }
    crash::point(Point::ReplacementPlanned);
    finish(&SystemDisk, ledger).map_err(|error| not_written(ledger, &error))
}

/// The daemon runs as a user of its own, and this may be another.
fn give_to_the_daemon(file: &Path, ledger: &Path) -> std::io::Result<()> {
    let like = ledger.metadata().or_else(|_| folder_of(ledger).metadata())?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        std::os::unix::fs::chown(file, Some(like.uid()), Some(like.gid()))?;
    }
    Ok(())
}

/// Keeps daemons from beginning on a ledger, which may not be there yet, for as long as the answer is kept. Nothing of
/// the ledger is touched.
///
/// # Errors
/// [`LedgerError::InUse`] while a daemon runs, [`LedgerError::Untrusted`] if that can't be known.
pub fn keep_daemons_away(ledger: &Path) -> Result<impl Sized, LedgerError> {
    hold_only(ledger)
}

fn hold_only(ledger: &Path) -> Result<(PathBuf, schema::Lock), LedgerError> {
    let held = schema::lock_only(&SystemDisk, ledger)?;
    let lock = beside(&held.0, ".lock");
    give_to_the_daemon(&lock, &held.0).map_err(|error| not_written(&lock, &error))?;
    Ok(held)
}

fn hold(ledger: &Path) -> Result<(PathBuf, schema::Lock), LedgerError> {
    let held = hold_only(ledger)?;
    finish(&SystemDisk, &held.0).map_err(|error| not_written(&held.0, &error))?;
    Ok(held)
}

fn copy(db: &Connection, to: &Path) -> Result<(), LedgerError> {
    let Some(name) = to.to_str() else { return Err(refused(format!("{} is not UTF-8", to.display()))) };
    // SQLite takes an empty file, which has the mode that it is to have.
    use std::os::unix::fs::OpenOptionsExt as _;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(to);
    made.map_err(|error| not_written(to, &error))?;
    db.execute("VACUUM INTO ?1", [name]).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => failed(to, &error.to_string()),
        _ => not_written(to, &error),
    })?;
    SystemDisk.sync(to).map_err(|error| not_written(to, &error))
}

fn remove_leftovers(new: &Path) -> Result<(), LedgerError> {
    for part in PARTS {
        match std::fs::remove_file(beside(new, part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(not_written(new, &error)),
            _ => {}
        }
    }
    Ok(())
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_folder(file: &Path) -> std::io::Result<()> {
    SystemDisk.sync(folder_of(file))
}

fn refused(why: String) -> LedgerError {
    LedgerError::Refused(why)
}

fn not_written(file: &Path, error: &dyn std::fmt::Display) -> LedgerError {
    refused(format!("{} can't be written: {error}. Nothing was changed", file.display()))
}

fn sqlite(file: &Path, error: &rusqlite::Error) -> LedgerError {
    not_written(file, error)
}

fn failed(file: &Path, why: &str) -> LedgerError {
    LedgerError::Failed(format!("the ledger can't be copied to {}: {why}", file.display()))
}
