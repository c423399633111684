//! The SQLite file of what waits for the hub. Only the keeper's thread touches it.
//!
//! Invariants
//! - It commits without a flush (`synchronous=NORMAL` in WAL mode): the file is sound after a power cut, and may lack
//!   the last commits. No commit of the ledger waits for it.
//! - Its pages in use are no more than `max_size`: the oldest batches go, in the transaction that would pass it. Beside
//!   it lies a log of a few MiB.
//! - One daemon has it: a lock on a file beside it says so, which no tool that looks into it needs.
//! - Nothing is written while the file system has less room than [`RESERVE`]: what is left is the ledger's.

use std::collections::BTreeSet;
use std::fs::{self, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{params, Connection, ErrorCode, Row, TransactionBehavior};

use super::batch::{Batch, Gap, Kind};
use super::shelf::{Load, Plan, Stored};
use crate::proof::crash::{self, Point};

/// Room that is left to others: the ledger's ballast, a checkpoint, and some.
const RESERVE: u64 = 16 << 20;
/// Says that a file is one of these ("FBte").
const APPLICATION: i32 = 0x4642_7465;
const VERSION: i32 = 1;
/// Batches that are dropped at a time, the oldest.
const DROP_STEP: i64 = 16;
/// How long a tool that looks into it may keep it, at a time. What finds it locked then is tried again.
const BUSY_PATIENCE: Duration = Duration::from_millis(500);

const SCHEMA: &str = "
    CREATE TABLE batch (
        number INTEGER PRIMARY KEY, device TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
        samples INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL
    );
    CREATE INDEX by_device ON batch (device, number);
    CREATE TABLE gap (
        device TEXT PRIMARY KEY, samples INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL
    ) WITHOUT ROWID;";

/// Why something can't be done with it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is damaged, or not one of these: it is to be moved aside.
    Damaged(String),
    /// The disk is full, or nearly so.
    Full(String),
    /// Another daemon has it.
    InUse,
    /// Something that may pass.
    Passing(String),
}

impl Trouble {
    /// What is wrong, and what to do.
    pub(super) fn told(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Trouble::Damaged(why) => format!("{path} is damaged ({why})"),
            Trouble::Full(why) => format!("{path} can't be written ({why}); free some space"),
            Trouble::InUse => {
                format!("{path} is another daemon's, which uses it; stop that, or name another file as telemetry.path")
            }
            Trouble::Passing(why) => {
                format!("{path} can't be used ({why}); check its folder, its owner and telemetry.path")
            }
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Trouble {
        let why = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Damaged(why),
            Some(ErrorCode::DiskFull) => Trouble::Full(why),
            // What an earlier program of another kind has made there has other tables.
            None => Trouble::Damaged(why),
            Some(ErrorCode::Unknown) => Trouble::Damaged(why),
            Some(_) => Trouble::Passing(why),
        }
    }
}

/// The file, open.
pub(super) struct File {
    db: Connection,
    folder: PathBuf,
    /// Given up when the database is closed.
    _lock: Lock,
}

/// The right to use it. It is given up by name: a process that is being started elsewhere in the program has a copy of
/// the handle for a moment, which would keep it.
struct Lock(fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// What an opened file holds.
pub(super) struct Contents {
    /// The highest number.
    pub(super) last: i64,
    pub(super) stored: Stored,
    pub(super) gaps: Vec<(Arc<str>, Gap)>,
}

/// What was dropped for want of room: device, number, what it held.
pub(super) type Dropped = Vec<(Arc<str>, i64, Gap)>;

impl File {
    /// Opens or makes it, and proves it.
    pub(super) fn open(path: &Path) -> Result<File, Trouble> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_new = !path.exists();
        if is_new {
            has_room(folder)?;
        }
        let lock = hold(path, folder)?;
        let db = Connection::open(path)?;
        db.busy_timeout(BUSY_PATIENCE)?;
        let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        // Also one that was begun and not finished.
        let is_empty = db.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
        let (application, version) = (pragma("application_id")?, pragma("user_version")?);
        // Somebody else's is neither changed nor moved.
        if application != APPLICATION && !(is_empty && application == 0) {
            return Err(Trouble::Passing("it is a database of another program".into()));
        }
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "synchronous", "normal")?;
        db.pragma_update(None, "journal_size_limit", 4 << 20)?;
        match version {
            0 if is_empty => {
                db.execute_batch(&format!(
                    "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
                ))?;
            }
            VERSION => {}
            _ => return Err(Trouble::Damaged(format!("its version {version} is not known"))),
        }
        let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        match verdict.as_str() {
            "ok" => Ok(File { db, folder: folder.to_owned(), _lock: lock }),
            _ => Err(Trouble::Damaged(verdict)),
        }
    }

    /// What it holds.
    pub(super) fn contents(&self) -> Result<Contents, Trouble> {
        let last = self.db.query_row("SELECT coalesce(max(number), 0) FROM batch", [], |row| row.get(0))?;
        let mut gaps = self.db.prepare("SELECT device, samples, first, last FROM gap")?;
        let gaps = gaps.query_map([], |row| Ok((row.get::<_, String>(0)?.into(), gap(row, 1)?)))?;
        Ok(Contents { last, stored: self.stored()?, gaps: gaps.collect::<Result<_, _>>()? })
    }

    /// Batches of a device, the oldest or the newest first.
    pub(super) fn load(&self, load: &Load) -> Result<Vec<Batch>, Trouble> {
        let order = if load.newest_first { "DESC" } else { "ASC" };
        let mut find = self.db.prepare_cached(&format!(
            "SELECT number, id, body, samples, first, last FROM batch WHERE device = ?1 ORDER BY number {order} LIMIT ?2"
        ))?;
        let most = i64::try_from(load.most).unwrap_or(i64::MAX);
        let found = find.query_map(params![&*load.device, most], |row| {
            Ok(Batch {
                number: row.get(0)?,
                id: row.get(1)?,
                kind: Kind::Samples,
                device: load.device.clone(),
                body: row.get(2)?,
                holds: gap(row, 3)?,
                tries: 0,
                is_stored: true,
            })
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Does what is planned, all of it or nothing.
    pub(super) fn write(&mut self, plan: &Plan, max_size: u64) -> Result<Dropped, Trouble> {
        has_room(&self.folder)?;
        let transaction = self.db.transaction()?;
        for number in &plan.delete {
            transaction.prepare_cached("DELETE FROM batch WHERE number = ?1")?.execute([number])?;
        }
        for (device, gap) in &plan.gaps {
            let (samples, first, last) = columns(gap);
            match samples {
                0 => transaction.prepare_cached("DELETE FROM gap WHERE device = ?1")?.execute([&**device])?,
                _ => transaction
                    .prepare_cached("INSERT OR REPLACE INTO gap VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![&**device, samples, first, last])?,
            };
        }
        for batch in &plan.insert {
            let (samples, first, last) = columns(&batch.holds);
            transaction
                .prepare_cached("INSERT OR REPLACE INTO batch VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![batch.number, &*batch.device, batch.id, batch.body, samples, first, last])?;
        }
        let mut dropped = Dropped::new();
        while used(&transaction)? > max_size {
            let more = drop_the_oldest(&transaction, &plan.taken)?;
            if more.is_empty() {
                break;
            }
            dropped.extend(more);
        }
        crash::point(Point::TelemetryUncommitted);
        transaction.commit()?;
        crash::point(Point::TelemetryCommitted);
        Ok(dropped)
    }

    /// Whether it could be written now. Nothing is.
    pub(super) fn try_out(&mut self) -> Result<(), Trouble> {
        has_room(&self.folder)?;
        self.db.transaction_with_behavior(TransactionBehavior::Immediate)?.commit()?;
        Ok(())
    }

    /// What it holds, in numbers.
    pub(super) fn stored(&self) -> Result<Stored, Trouble> {
        let mut counts = self.db.prepare_cached("SELECT device, count(*) FROM batch GROUP BY device")?;
        let counts = counts.query_map([], |row| {
            let count = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
            Ok((Arc::<str>::from(row.get::<_, String>(0)?), count))
        })?;
        Ok(Stored { batches: counts.collect::<Result<_, _>>()?, bytes: used(&self.db)? })
    }
}

/// What the columns from there on say.
fn gap(row: &Row, at: usize) -> rusqlite::Result<Gap> {
    let samples = row.get::<_, i64>(at)?;
    Ok(Gap { samples: u64::try_from(samples).unwrap_or_default(), first: row.get(at + 1)?, last: row.get(at + 2)? })
}

/// The same as it is written.
fn columns(gap: &Gap) -> (i64, i64, i64) {
    (i64::try_from(gap.samples).unwrap_or(i64::MAX), gap.first, gap.last)
}

/// Bytes of its pages that are in use.
fn used(db: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let bytes = (pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?;
    Ok(u64::try_from(bytes).unwrap_or_default())
}

fn drop_the_oldest(db: &Connection, taken: &BTreeSet<i64>) -> rusqlite::Result<Dropped> {
    let mut find =
        db.prepare_cached("SELECT device, number, samples, first, last FROM batch ORDER BY number LIMIT ?1")?;
    let oldest =
        find.query_map([DROP_STEP], |row| Ok((Arc::from(row.get::<_, String>(0)?), row.get(1)?, gap(row, 2)?)))?;
    let oldest = oldest.collect::<rusqlite::Result<Dropped>>()?;
    for (device, number, gap) in &oldest {
        db.prepare_cached("DELETE FROM batch WHERE number = ?1")?.execute([number])?;
        if !taken.contains(number) {
            let (samples, first, last) = columns(gap);
            db.prepare_cached(
                "INSERT INTO gap VALUES (?1, ?2, ?3, ?4) ON CONFLICT (device) DO UPDATE SET samples = samples + ?2,
                    first = min(first, ?3), last = max(last, ?4)",
            )?
            .execute(params![&**device, samples, first, last])?;
        }
    }
    Ok(oldest)
}

/// Takes the right to use it, or finds that another daemon has it.
fn hold(path: &Path, folder: &Path) -> Result<Lock, Trouble> {
    let passing = |error: std::io::Error| Trouble::Passing(error.to_string());
    // One file by two names is one.
    let real = path.canonicalize().or_else(|_| {
        let name = path.file_name().ok_or_else(|| std::io::Error::other("it is not a file's path"))?;
        folder.canonicalize().map(|folder| folder.join(name))
    });
    let lock = beside(&real.map_err(passing)?, ".lock");
    let file = fs::File::options().create(true).truncate(false).write(true).open(lock).map_err(passing)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(Trouble::InUse),
        Err(TryLockError::Error(error)) => Err(passing(error)),
    }
}

/// What lies beside it under its name and this.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether there is more room than is left to others.
fn has_room(folder: &Path) -> Result<(), Trouble> {
    let found = rustix::fs::statvfs(folder).map_err(|error| Trouble::Passing(error.to_string()))?;
    match found.f_bavail.saturating_mul(found.f_frsize) {
        room if room < RESERVE => {
            let (room, reserve) = (room >> 20, RESERVE >> 20);
            Err(Trouble::Full(format!("{room} MiB are free, and {reserve} MiB are left to the ledger")))
        }
        _ => Ok(()),
    }
}

/// Moves a damaged file aside, in the place of one before it, with what SQLite has beside it. Gives where it is.
pub(super) fn move_aside(path: &Path) -> std::io::Result<PathBuf> {
    let aside = beside(path, ".damaged");
    fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        match fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}
