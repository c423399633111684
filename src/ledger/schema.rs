//! The ledger's file: where it lies, what it must look like, and what is checked before it is believed.
//!
//! Invariants
//! - A file that is not a sound fieldbridge ledger of a known version is refused, never repaired or replaced.
//! - A new ledger appears under its name only when it is complete and synced, so an empty file is never ours.
//! - `journal_mode=WAL` and `synchronous=FULL` are set and read back: what is committed survives a power cut.
//!
//! The tables, as all migrations leave them
//! - `command`: one row a message, or a command of an operator's (`source` is `local`, `user` says whose, and there
//!   is no message id). `id` is the order of recording, `hub` a key of table `hub`, `digest` the SHA-256 of the
//!   property `command` and the body, `requested` the value asked for, `value` the result (JSON), `seen` the age of
//!   the ledger when it was last delivered (s), `history` a JSON object a line. Times are wall clock, ms since 1970.
//!   What sender and hub have told (`correlation_id`, `sequence_number`, `enqueued_at`, `delivery_count`) is of the
//!   delivery that the row was made for, NULL where they have not. Unique: hub, device, message id and digest; the
//!   same id with another digest is a row of its own, `rejected` with `message-id-reused`. Partial indexes: what is
//!   not finished, what may be pruned (by `seen`), what did not succeed, what is in doubt and was not `resolved_at`
//!   any time, what a direct method was the first to ask for under its id.
//! - `outbox`: result events that the hub has not acknowledged.
//! - `hub`: each hub that was ever configured, and since which age of the ledger it is, or was last.
//! - `trusted`: devices of which a new ledger knows enough.
//! - `ledger`: one row. `uuid` is a part of the events' ids, `age` the seconds that daemons have run on it;
//!   `ended_well` is 0 while a daemon runs, after a crash, and while peripherals may owe answers, and `let_go` says
//!   the same of messages that the hub may keep locked, or with 2 that only those devices need wait that are reached by
//!   another transport than before; `late_window` is the longest that peripherals may owe answers
//!   by any configuration since the last life that ended well (ms); `ways` is a digest of the transport of each device
//!   that is not reached by MQTT, empty while that changes; `wall` is the latest wall time that was believed, `home`
//!   the hub that is configured; `pruned` and `published` count rows and events that ever left, so that what is there
//!   need not be counted; `distrusted`, `epoch` and `epoch_age` say since when it knows everything; rows up to
//!   `restored` are as a backup had them.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{params, Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::disk::beside;
use super::disk::{Disk, Held, Making, SystemDisk};
use super::error::{not_sound, untrusted};
use super::{progress, replacement, LedgerError};
use crate::complaint::Complaint;
use crate::proof::crash::{self, Point};

/// "fbr1": marks the file as ours (SQLite file format, application id at offset 68).
const APPLICATION_ID: i32 = 0x6662_7231;

/// One entry a schema version, applied in order; `user_version` counts how many a file has seen.
const MIGRATIONS: [&str; 8] = [
    "
    CREATE TABLE command (
        id               INTEGER PRIMARY KEY AUTOINCREMENT, -- order of first receipt
        device           TEXT NOT NULL,
        message_id       TEXT,                              -- NULL: came without one
        digest           BLOB NOT NULL,                     -- of the property `command` and the body
        name             TEXT,                              -- the command, as the message named it
        state            TEXT NOT NULL,
        attempts         INTEGER NOT NULL,
        deliveries       INTEGER NOT NULL,
        received_at      INTEGER NOT NULL,                  -- wall clock, ms since 1970
        finished_at      INTEGER,                           -- likewise; NULL until final
        expires_at       INTEGER,                           -- `$.exp`, likewise
        input            TEXT,                              -- the value, JSON; kept until final
        value            TEXT,                              -- the result, JSON
        error_code       TEXT,
        error_message    TEXT,
        modbus_exception INTEGER,
        seen             INTEGER NOT NULL,                  -- ledger age in s when last delivered
        history          TEXT NOT NULL                      -- one JSON object a line
    ) STRICT;
    CREATE UNIQUE INDEX command_identity ON command (device, message_id, digest);
    CREATE TABLE outbox (
        seq        INTEGER PRIMARY KEY AUTOINCREMENT,
        device     TEXT NOT NULL,
        message_id TEXT,                                    -- of the command, for the correlation id
        body       TEXT NOT NULL
    ) STRICT;
    CREATE INDEX outbox_device ON outbox (device, seq);
    CREATE TABLE ledger (
        one  INTEGER PRIMARY KEY CHECK (one = 1),
        uuid TEXT NOT NULL,                                 -- names the ledger in result events' ids
        age  INTEGER NOT NULL,                              -- seconds that a daemon has run on it
        ended_well INTEGER NOT NULL                         -- 0 while a daemon runs on it, and after a crash
    ) STRICT;
",
    // The latest wall time that was witnessed, ms since 1970; saved with the age.
    "ALTER TABLE ledger ADD COLUMN wall INTEGER NOT NULL DEFAULT 0;",
    // A row belongs to a hub: those of before to the one that is configured now, whose key is the default, so that no
    // row is rewritten. What is looked for often is found without a scan; numbers are never skipped or used twice, so
    // the rows that are there are those that were ever made less those that were pruned, and so with events.
    "
    CREATE TABLE hub (
        id    INTEGER PRIMARY KEY,
        host  TEXT NOT NULL UNIQUE,                         -- lower case
        since INTEGER NOT NULL                              -- ledger age in s when the gateway last moved to it
    ) STRICT;
    ALTER TABLE command RENAME COLUMN input TO requested;
    ALTER TABLE command ADD COLUMN hub INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE command ADD COLUMN source TEXT NOT NULL DEFAULT 'hub';
    ALTER TABLE command ADD COLUMN user TEXT;               -- of source `local`
    DROP INDEX command_identity;
    CREATE UNIQUE INDEX command_identity ON command (hub, device, message_id, digest) WHERE message_id IS NOT NULL;
    CREATE INDEX command_seen ON command (seen) WHERE finished_at IS NOT NULL;
    CREATE INDEX command_unfinished ON command (device) WHERE finished_at IS NULL;
    CREATE INDEX command_state ON command (state) WHERE finished_at IS NOT NULL AND state <> 'succeeded';
    CREATE TABLE trusted (                                  -- devices of which a new ledger knows that it knows enough
        hub    INTEGER NOT NULL,
        device TEXT NOT NULL,
        PRIMARY KEY (hub, device)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE ledger ADD COLUMN home INTEGER NOT NULL DEFAULT 1;       -- the hub that is configured
    ALTER TABLE ledger ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;     -- rows ever deleted
    ALTER TABLE ledger ADD COLUMN published INTEGER NOT NULL DEFAULT 0;  -- events ever removed
    ALTER TABLE ledger ADD COLUMN distrusted INTEGER NOT NULL DEFAULT 0; -- an earlier ledger may know what this does not
    ALTER TABLE ledger ADD COLUMN epoch INTEGER;            -- first believable time since it was made, ms since 1970
    ALTER TABLE ledger ADD COLUMN epoch_age INTEGER;        -- its age in s then
    UPDATE ledger SET
        pruned = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'command'), 0) - (SELECT count(*) FROM command),
        published = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0) - (SELECT count(*) FROM outbox);
",
    // What a message says of itself: NULL where nobody has told it, as in all rows of before.
    "
    ALTER TABLE command ADD COLUMN correlation_id TEXT;     -- the sender's
    ALTER TABLE command ADD COLUMN sequence_number INTEGER; -- the hub's
    ALTER TABLE command ADD COLUMN enqueued_at INTEGER;     -- when the hub took it, ms since 1970
    ALTER TABLE command ADD COLUMN delivery_count INTEGER;  -- deliveries before the one that the row was made for
",
    // A digest of the transport of each device but for those by MQTT. NULL where none was ever reached, and as before
    // nobody noted it; empty where what was taken by one may be locked for another.
    "
    ALTER TABLE ledger ADD COLUMN ways BLOB;
    ALTER TABLE ledger ADD COLUMN let_go INTEGER NOT NULL DEFAULT 1;     -- as ended_well: nothing is locked at the hub
    UPDATE ledger SET let_go = ended_well;
",
    // What may have gone on behind the ledger's back.
    "
    -- Rows up to this number are as a backup had them: what is accepted among them may have been executed since.
    ALTER TABLE ledger ADD COLUMN restored INTEGER NOT NULL DEFAULT 0;
    -- For how long a peripheral may owe an answer to a daemon that did not end well, ms; that of a version that did not
    -- note it by its defaults.
    ALTER TABLE ledger ADD COLUMN late_window INTEGER NOT NULL DEFAULT 10000;
",
    // That somebody has looked at what a command in doubt has done; until then it is found without a scan. What nobody
    // confirms is in doubt by its nature.
    "
    ALTER TABLE command ADD COLUMN resolved_at INTEGER;     -- wall clock, ms since 1970
    ALTER TABLE command ADD COLUMN resolved_by TEXT;
    ALTER TABLE command ADD COLUMN resolution TEXT;         -- what was found
    CREATE INDEX command_open_doubt ON command (device)
        WHERE state = 'in_doubt' AND resolved_at IS NULL AND error_code IS NOT 'unconfirmed';
",
    // Messages and calls share their ids: whether a call made the first row of one is seen without looking at others.
    "
    CREATE INDEX command_called ON command (hub, device, message_id)
        WHERE source = 'method' AND error_code IS NOT 'message-id-reused';
",
];

/// Newest rows that are read before anything connects.
const NEWEST: i64 = 256;

/// How long a statement waits for another process's lock.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the ledger for the daemon that holds it, proves it, and brings its schema up to date. Of a file that
/// `is_sound` the log is proven, and what a start stands on; else the whole file.
///
/// # Errors
/// [`LedgerError::Untrusted`] with what to do, for anything that is not a sound ledger.
pub fn open(disk: &dyn Disk, path: &Path, home: &str, is_sound: bool) -> Result<Connection, LedgerError> {
    refuse_empty(disk, path)?;
    let log = log_bytes(disk, path);
    progress::with_log(log, || settle_log(disk, path)).map_err(|e| untrusted(path, &e))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = connect(disk, path, flags).map_err(|e| untrusted(path, &e))?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(|e| untrusted(path, &e))?;
    let version = check_ours(path, &db)?;
    crash::point(Point::LedgerOpened);
    progress::with_log(log, || settle(&db)).map_err(|e| not_sound(path, &e))?;
    if !is_sound {
        prove(&mut db).map_err(|e| not_sound(path, &e))?;
    }
    if version < MIGRATIONS.len() {
        migrate(&mut db, version, home).map_err(|e| untrusted(path, &e))?;
        // What a migration leaves in the log is as big as the indexes that it makes. Nobody waits for it yet.
        progress::with_log(log_bytes(disk, path), || empty_log(&db)).map_err(|e| not_sound(path, &e))?;
    }
    prove_newest(&db).map_err(|e| not_sound(path, &e))?;
    Ok(db)
}

/// Opens the ledger that this daemon holds once more, for what only reads.
pub fn open_beside(disk: &dyn Disk, path: &Path) -> rusqlite::Result<Connection> {
    let db = connect(disk, path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    // The writer empties the log when it closes, and says what goes wrong with that.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(db)
}

/// Opens the ledger to look at it, beside a running daemon or without one.
///
/// # Errors
/// [`LedgerError::Missing`] if there is no file, else [`LedgerError::Untrusted`].
pub fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
    is_readable(path)?;
    let mut db = read_only(path, "").map_err(|e| untrusted(path, &e))?;
    let unreadable = |error: &rusqlite::Error| {
        matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen))
    };
    // Without a log the file alone is the ledger, and who may not write beside it can read it all the same.
    let probe = db.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()));
    if probe.is_err_and(|error| unreadable(&error)) && !beside(path, "-wal").exists() {
        db = read_only(path, "?immutable=1").map_err(|e| untrusted(path, &e))?;
    }
    let version = check_ours(path, &db)?;
    if version < MIGRATIONS.len() {
        let why = Complaint::new("is of an older version", "start the daemon once to bring it up to date");
        return Err(LedgerError::Untrusted { path: path.to_owned(), why });
    }
    Ok(db)
}

/// Opens a ledger of this version to note something in a row, while no daemon has it.
pub fn open_to_note(disk: &dyn Disk, path: &Path) -> Result<Connection, LedgerError> {
    let is_proven = beside(path, ".sound").exists() && !beside(path, ".replace").exists();
    if !is_proven {
        let why = Complaint::new(
            "is not proven since it was made, restored or failed",
            "start the daemon once, which does that",
        );
        return Err(LedgerError::Untrusted { path: path.to_owned(), why });
    }
    drop(open_read_only(path)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    settle_log(disk, path).map_err(|e| untrusted(path, &e))?;
    let db = connect(disk, path, flags).map_err(|e| untrusted(path, &e))?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(|e| untrusted(path, &e))?;
    settle(&db).map_err(|e| not_sound(path, &e))?;
    Ok(db)
}

/// Looks whether a file is a ledger that the daemon can take up, of this version or an earlier one. Without a log
/// beside it nothing at all is written, not even the files that SQLite shares between readers.
pub fn look(path: &Path) -> Result<(), LedgerError> {
    is_readable(path)?;
    let query = if beside(path, "-wal").exists() { "" } else { "?immutable=1" };
    let db = read_only(path, query).map_err(|e| untrusted(path, &e))?;
    check_ours(path, &db).map(|_| ())
}

fn read_only(path: &Path, query: &str) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    // The characters that mean something in an SQLite URI ("Uniform Resource Identifiers", sqlite.org).
    let name = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let db = Connection::open_with_flags(format!("file:{name}{query}"), flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    Ok(db)
}

/// Holds the ledger for one daemon until it is dropped, under whatever name the daemon knows it.
pub struct Lock {
    _named: Box<dyn Held>,
    /// The file itself, in case the lock file is deleted. SQLite's own locks would go with any file handle that is
    /// closed, so this one is kept until after the connection.
    _file: Option<Box<dyn Held>>,
}

/// Makes a ledger if there is none, and holds it. Returns its path without symbolic links.
///
/// # Errors
/// [`LedgerError::Untrusted`] if another daemon holds it, or it can't be made.
pub fn lock(disk: &dyn Disk, path: &Path, home: &str) -> Result<(PathBuf, Lock), LedgerError> {
    let (path, mut lock) = lock_only(disk, path)?;
    crash::point(Point::LockHeld);
    let finished = replacement::finish(disk, &path).map_err(|error| untrusted(&path, &error))?;
    if finished.is_some() {
        // The lock was on the file that was replaced.
        lock._file = None;
    }
    if disk.look(&path).is_err() {
        create(disk, &path, home)?;
    }
    if lock._file.is_none() {
        lock._file = Some(hold(disk, &path, &path, Making::Never)?);
    }
    let names = disk.look(&path).map_err(|error| untrusted(&path, &error))?.names;
    if names > 1 {
        let why = Complaint::new(
            "has a second name (a hard link), under which another daemon could use it",
            "remove that name",
        );
        return Err(LedgerError::Untrusted { path, why });
    }
    Ok((path, lock))
}

/// Holds the ledger, whether it is there or not. Returns its path without symbolic links.
///
/// # Errors
/// [`LedgerError::InUse`] if a daemon holds it, [`LedgerError::Untrusted`] if it can't be held.
pub fn lock_only(disk: &dyn Disk, path: &Path) -> Result<(PathBuf, Lock), LedgerError> {
    let path = disk.resolve(path).map_err(|error| untrusted(path, &error))?;
    let named = hold(disk, &path, &beside(&path, ".lock"), Making::IfMissing)?;
    let file = match disk.look(&path) {
        Ok(_) => Some(hold(disk, &path, &path, Making::Never)?),
        Err(_) => None,
    };
    Ok((path, Lock { _named: named, _file: file }))
}

fn hold(disk: &dyn Disk, path: &Path, what: &Path, making: Making) -> Result<Box<dyn Held>, LedgerError> {
    disk.hold(what, making).map_err(|error| match error {
        TryLockError::WouldBlock => LedgerError::InUse(path.to_owned()),
        TryLockError::Error(error) => untrusted(what, &error),
    })
}

fn connect(disk: &dyn Disk, path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    match disk.vfs() {
        None => Connection::open_with_flags(path, flags),
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
    }
}

/// Makes a new ledger under a temporary name, syncs it, and gives it its name.
fn create(disk: &dyn Disk, path: &Path, home: &str) -> Result<(), LedgerError> {
    if disk.look(&beside(path, "-wal")).is_ok() {
        let why = Complaint::new(
            "is missing, but its write-ahead log is there: the ledger was moved or deleted",
            "put it back, or move the files with -wal and -shm away to start with an empty ledger",
        );
        return Err(LedgerError::Untrusted { path: path.to_owned(), why });
    }
    let new = beside(path, ".new");
    let create = || -> Result<(), Box<dyn std::error::Error>> {
        for leftover in [new.clone(), beside(&new, "-wal"), beside(&new, "-shm")] {
            if disk.look(&leftover).is_ok() {
                disk.remove(&leftover)?;
            }
        }
        // An earlier ledger may have executed what the hub still holds (G15).
        make(disk, &new, home, true, 0)?;
        crash::point(Point::LedgerComplete);
        disk.sync(&new)?;
        crash::point(Point::LedgerSynced);
        disk.rename(&new, path)?;
        crash::point(Point::LedgerNamed);
        if let Some(folder) = path.parent() {
            disk.sync(folder)?;
        }
        crash::point(Point::LedgerMade);
        Ok(())
    };
    create().map_err(|error| LedgerError::Untrusted {
        path: path.to_owned(),
        why: Complaint::new(
            format!("can't be created: {error}"),
            "does its folder exist, and may this user write there?",
        ),
    })
}

/// Makes an empty ledger under this name, whole within one file; it is not synced. For so many milliseconds peripherals
/// may still answer an earlier daemon, of which it knows nothing else: it has not ended well.
pub fn make(
    disk: &dyn Disk,
    new: &Path,
    home: &str,
    distrusted: bool,
    late_window: i64,
) -> Result<(), Box<dyn std::error::Error>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = connect(disk, new, flags)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    crash::point(Point::LedgerBegun);
    migrate(&mut db, 0, home)?;
    let uuid: String = std::iter::repeat_with(|| fastrand::char('a'..='z')).take(12).collect();
    db.execute(
        "INSERT INTO ledger (one, uuid, age, ended_well, distrusted, late_window) VALUES (1, ?1, 0, 0, ?2, ?3)",
        params![uuid, distrusted, late_window],
    )?;
    // Closing would move the log into the file as well, and be silent about a failure.
    empty_log(&db)?;
    db.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// Makes of a copy a ledger of this version, changed as `change` says, whole within one file.
pub fn finish_new(
    new: &Path,
    home: &str,
    change: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), rusqlite::Error> {
    let mut db = connect(&SystemDisk, new, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    let version = db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    migrate(&mut db, usize::try_from(version).unwrap_or(0), home)?;
    change(&db)?;
    empty_log(&db)?;
    db.close().map_err(|(_, error)| error)
}

/// Opens a ledger of this version or an earlier one, or a copy of one, to copy or prove it. Nothing is written.
pub fn open_to_copy(path: &Path) -> Result<Connection, LedgerError> {
    is_readable(path)?;
    let query = if beside(path, "-wal").exists() { "" } else { "?immutable=1" };
    let db = read_only(path, query).map_err(|e| untrusted(path, &e))?;
    check_ours(path, &db)?;
    Ok(db)
}

/// Checks a whole file that nobody writes, and that each index has what its table has.
pub fn prove_all(db: &Connection) -> Result<(), String> {
    match db.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(verdict),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether there is a file that this user may read, and it has content.
pub fn is_readable(path: &Path) -> Result<(), LedgerError> {
    match std::fs::File::open(path) {
        Ok(_) => refuse_empty(&SystemDisk, path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(LedgerError::Missing(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(LedgerError::Denied(path.to_owned())),
        Err(error) => Err(untrusted(path, &error)),
    }
}

fn refuse_empty(disk: &dyn Disk, path: &Path) -> Result<(), LedgerError> {
    let length = disk.look(path).map_err(|e| untrusted(path, &e))?.length;
    if length == 0 {
        let why = Complaint::new(
            "is empty, which a ledger never is: its content was lost",
            "restore it from a backup, or move it away to start with an empty one (commands that the hub still holds may \
             then be executed again)",
        );
        return Err(LedgerError::Untrusted { path: path.to_owned(), why });
    }
    Ok(())
}

/// Checks that the file is a ledger of a version we know, and returns how many migrations it has seen.
fn check_ours(path: &Path, db: &Connection) -> Result<usize, LedgerError> {
    let refuse = |why: Complaint| LedgerError::Untrusted { path: path.to_owned(), why };
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application = pragma("application_id").map_err(|e| not_sound(path, &e))?;
    if application != APPLICATION_ID {
        return Err(refuse(Complaint::new("is an SQLite file, but not a fieldbridge ledger", "check `ledger.path`")));
    }
    let version = pragma("user_version").map_err(|e| not_sound(path, &e))?;
    match usize::try_from(version) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => Err(refuse(Complaint::new(
            format!("has version {version}, and this program knows versions up to {}", MIGRATIONS.len()),
            "it was written by a newer fieldbridge",
        ))),
    }
}

/// Makes durable what an earlier process has left in the log. Its last sync may have failed: the log that can be read
/// is then longer than the one on the disk. Moved into the file like that, a power cut could bring the shorter log back
/// over the newer file.
fn settle_log(disk: &dyn Disk, path: &Path) -> std::io::Result<()> {
    match log_bytes(disk, path) {
        0 => Ok(()),
        _ => disk.rewrite(&beside(path, "-wal")),
    }
}

/// The log's length.
fn log_bytes(disk: &dyn Disk, path: &Path) -> u64 {
    disk.look(&beside(path, "-wal")).map_or(0, |found| found.length)
}

/// Brings the file to rest. The checkpoint writes the log's pages anew into the file and syncs that.
fn settle(db: &Connection) -> Result<(), rusqlite::Error> {
    expect_pragma(db, "journal_mode", "WAL", "wal")?;
    expect_pragma(db, "synchronous", "FULL", "2")?;
    db.pragma_update(None, "journal_size_limit", 4 * 1024 * 1024)?;
    // The writer moves the log by itself, when nobody waits.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    empty_log(db)?;
    crash::point(Point::LogMoved);
    db.execute_batch("BEGIN IMMEDIATE; UPDATE ledger SET age = age; COMMIT;")
}

/// Checks the file from end to end.
fn prove(db: &mut Connection) -> Result<(), rusqlite::Error> {
    let verdict: String = progress::in_steps(db, "proving the ledger after a fault", |db| {
        db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    })?;
    match verdict.as_str() {
        "ok" => Ok(()),
        _ => Err(damaged(&verdict)),
    }
}

/// Checks what the next commands stand on: the ledger's own row, the rows that are not final, and the newest rows, each
/// of which must be found by what it is known by. They were the last to be written when the power went.
fn prove_newest(db: &Connection) -> Result<(), rusqlite::Error> {
    let own: i64 = db.query_row("SELECT count(uuid) FROM ledger JOIN hub ON hub.id = home", [], |row| row.get(0))?;
    if own != 1 {
        return Err(damaged("the row of the ledger's own is missing"));
    }
    let mut newest = db.prepare(
        "SELECT id, hub, device, message_id, digest FROM (SELECT * FROM command ORDER BY id DESC LIMIT ?1)
         UNION ALL SELECT id, hub, device, message_id, digest FROM command WHERE finished_at IS NULL",
    )?;
    let mut by_identity = db.prepare(
        "SELECT id FROM command INDEXED BY command_identity
         WHERE hub = ?1 AND device = ?2 AND message_id = ?3 AND digest = ?4",
    )?;
    let mut rows = newest.query([NEWEST])?;
    while let Some(row) = rows.next()? {
        let (id, message_id): (i64, Option<String>) = (row.get(0)?, row.get(3)?);
        let Some(message_id) = message_id else { continue };
        let known_by = params![row.get::<_, i64>(1)?, row.get::<_, String>(2)?, message_id, row.get::<_, Vec<u8>>(4)?];
        let found: Option<i64> = by_identity.query_row(known_by, |row| row.get(0)).optional()?;
        if found != Some(id) {
            return Err(damaged(&format!("row {id} is not found by its message id")));
        }
    }
    Ok(())
}

/// Pages in the log that are not moved into the file yet.
pub fn log_pages(db: &Connection) -> rusqlite::Result<i64> {
    let (log, moved): (i64, i64) =
        db.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))?;
    Ok(log - moved)
}

/// On return everything in the log stands in the file as well, synced.
fn empty_log(db: &Connection) -> Result<(), rusqlite::Error> {
    // Busy, pages in the log, pages that were moved. A reader may keep the log from being emptied, but not from being
    // moved whole, unless it looks at an older state.
    let (pages, moved): (i64, i64) =
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(1)?, row.get(2)?)))?;
    if moved < pages {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        let why = "another program reads it, and its log can't be moved into the file".to_owned();
        return Err(rusqlite::Error::SqliteFailure(busy, Some(why)));
    }
    Ok(())
}

fn expect_pragma(db: &Connection, name: &str, value: &str, read_back: &str) -> Result<(), rusqlite::Error> {
    db.pragma_update(None, name, value)?;
    let found = db.pragma_query_value(None, name, |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        })
    })?;
    if found != read_back {
        return Err(damaged(&format!("{name} is {found} instead of {read_back}")));
    }
    Ok(())
}

fn migrate(db: &mut Connection, version: usize, home: &str) -> Result<(), rusqlite::Error> {
    progress::in_steps(db, "bringing the ledger up to date", |db| apply(db, version, home))
}

/// One transaction for each version: a start that is cut short leaves the file as it was.
fn apply(db: &mut Connection, version: usize, home: &str) -> Result<(), rusqlite::Error> {
    for (seen, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = db.transaction()?;
        transaction.execute_batch(sql)?;
        if seen == 2 {
            transaction.execute("INSERT INTO hub (id, host, since) VALUES (1, ?1, 0)", [home])?;
        }
        transaction.pragma_update(None, "user_version", seen as i64 + 1)?;
        crash::point(Point::MigrationUncommitted);
        transaction.commit()?;
        crash::point(Point::MigrationCommitted);
    }
    Ok(())
}

fn damaged(what: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(what.to_owned()))
}
