//! The SQL: one function a durable step. Each runs inside the writer's transaction; none commits.
//!
//! Invariants
//! - An outcome and its result event are written by the same call, hence the same transaction (G7).
//! - A final row is never changed again, but for counting deliveries and noting that somebody has looked at a doubt
//!   (module `doubt`).
//! - Only final rows are deleted, and only by [`prune`], which measures age by the ledger's own clock (G10).

use std::time::Duration;

use rusqlite::{params, Connection, OptionalExtension};
use serde_json::json;

use super::row::{envelope, Event, EventKind, Record, RowId, Source, Unfinished};
use super::{Finish, NewRow};
use crate::command::outcome::{Report, State};
use crate::command::Envelope;
use crate::proof::crash::{self, Point};
use crate::time::Timestamp;

/// Rows deleted in one step of pruning: each dirties a page or two of its own, and somebody may wait behind the commit.
const PRUNE_STEP: i64 = 50;
/// A history does not grow beyond this many bytes, however often the hub delivers.
const HISTORY_BYTES_MAX: i64 = 4096;

/// Noted in the place of ways while they change.
pub const CHANGING: &[u8] = &[];

/// The key of a hub, which gets one if it has none.
fn hub_key(db: &Connection, host: &str, age: i64) -> rusqlite::Result<i64> {
    let known =
        db.prepare_cached("SELECT id FROM hub WHERE host = ?1")?.query_row([host], |row| row.get(0)).optional()?;
    match known {
        Some(key) => Ok(key),
        None => {
            db.prepare_cached("INSERT INTO hub (host, since) VALUES (?1, ?2)")?.execute(params![host, age])?;
            Ok(db.last_insert_rowid())
        }
    }
}

/// The hub that is configured. One that was not before is moved to at this age.
pub fn set_home(db: &Connection, host: &str, age: i64) -> rusqlite::Result<()> {
    let key = hub_key(db, host, age)?;
    let moved = db.prepare_cached("UPDATE ledger SET home = ?1 WHERE home <> ?1")?.execute([key])?;
    if moved > 0 {
        // Nothing is before 1: 0 says that the ledger has never known another.
        db.prepare_cached("UPDATE hub SET since = max(?2, 1) WHERE id = ?1")?.execute([key, age])?;
    }
    Ok(())
}

/// Inserts a row in a state that is not final.
pub fn insert(
    db: &Connection,
    new: &NewRow,
    state: State,
    attempts: u32,
    now: Timestamp,
    age: i64,
) -> rusqlite::Result<RowId> {
    assert!(!state.is_final(), "a final state is written by finish()");
    let mut history = entry(new.received_at, "received", None);
    history.push_str(&entry(now, state.as_str(), None));
    insert_row(db, new, (state, attempts), None, age, &history)?;
    match state {
        State::Accepted => crash::in_transaction(Point::AcceptUncommitted, Point::AcceptCommitted),
        _ => crash::in_transaction(Point::ExecutingUncommitted, Point::ExecutingCommitted),
    }
    Ok(RowId(db.last_insert_rowid()))
}

/// Moves an accepted row to `executing`.
pub fn begin(db: &Connection, row: RowId, now: Timestamp) -> rusqlite::Result<()> {
    let changed = db
        .prepare_cached(
            "UPDATE command SET state = 'executing', attempts = attempts + 1, history = history || ?2
             WHERE id = ?1 AND state IN ('accepted', 'executing')",
        )?
        .execute(params![row, entry(now, "executing", None)])?;
    assert_eq!(changed, 1, "only a row without an outcome begins to execute");
    crash::in_transaction(Point::ExecutingUncommitted, Point::ExecutingCommitted);
    Ok(())
}

/// Writes an outcome and its result event. What an operator at the gateway asked for has no event: it was answered.
pub fn finish(db: &Connection, finish: &Finish, uuid: &str, age: i64) -> rusqlite::Result<Option<Event>> {
    let (new, outcome) = (&finish.new, &finish.outcome);
    assert!(outcome.state.is_final(), "an outcome is a final state");
    let kept = match finish.row {
        Some(row) => end_row(db, row, finish)?,
        None => {
            let mut history = entry(new.received_at, "received", None);
            history.push_str(&last_entry(finish));
            insert_row(db, new, (outcome.state, finish.attempts), Some(finish), age, &history)?;
            new.envelope.clone()
        }
    };
    crash::point(Point::OutcomeWithoutEvent);
    let mut event = None;
    if !matches!(new.source, Source::Local { .. }) {
        let report = Report {
            message_id: new.message_id.as_deref(),
            command: new.command.as_deref(),
            requested: new.value.as_ref(),
            envelope: &kept,
            attempts: finish.attempts,
            received_at: new.received_at,
            finished_at: finish.finished_at,
        };
        let body = report.to_event(outcome).to_string();
        db.prepare_cached("INSERT INTO outbox (device, message_id, body) VALUES (?1, ?2, ?3)")?.execute(params![
            new.device,
            new.message_id,
            body
        ])?;
        let seq = db.last_insert_rowid();
        event = Some(Event {
            kind: EventKind::Result,
            seq,
            id: event_id(uuid, seq),
            message_id: new.message_id.clone(),
            body,
        });
    }
    crash::in_transaction(Point::OutcomeUncommitted, Point::OutcomeCommitted);
    Ok(event)
}

/// Ends a row that is not final, and tells what its message says of itself: that of the delivery that the row was made
/// for, whichever has brought the end.
fn end_row(db: &Connection, row: RowId, finish: &Finish) -> rusqlite::Result<Envelope> {
    let fault = finish.outcome.fault.as_ref();
    let ended = db
        .prepare_cached(
            "UPDATE command SET state = ?2, attempts = ?3, finished_at = ?4, value = ?5, error_code = ?6,
                error_message = ?7, modbus_exception = ?8, history = history || ?9
             WHERE id = ?1 AND finished_at IS NULL
             RETURNING correlation_id, sequence_number, enqueued_at, delivery_count",
        )?
        .query_row(
            params![
                row,
                finish.outcome.state.as_str(),
                finish.attempts,
                finish.finished_at.0,
                finish.outcome.value.as_ref().map(|value| value.to_string()),
                fault.map(|fault| fault.code.as_str()),
                fault.map(|fault| fault.message.as_str()),
                fault.and_then(|fault| fault.modbus_exception),
                last_entry(finish),
            ],
            |row| envelope(row, 0),
        )
        .optional()?;
    Ok(ended.expect("a row ends once"))
}

fn last_entry(finish: &Finish) -> String {
    let message = finish.outcome.fault.as_ref().map(|fault| fault.message.as_str());
    entry(finish.finished_at, finish.outcome.state.as_str(), message)
}

/// Counts one more delivery of a message, and starts its retention anew.
pub fn count_delivery(db: &Connection, row: RowId, at: Timestamp, age: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE command SET deliveries = deliveries + 1, seen = ?2,
            history = CASE WHEN length(history) < ?3 THEN history || ?4 ELSE history END
         WHERE id = ?1",
    )?
    .execute(params![row, age, HISTORY_BYTES_MAX, entry(at, "delivered-again", None)])?;
    crash::in_transaction(Point::DuplicateUncommitted, Point::DuplicateCommitted);
    Ok(())
}

/// The hub has acknowledged an event.
pub fn remove_event(db: &Connection, seq: i64) -> rusqlite::Result<()> {
    let removed = db.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?.execute([seq])?;
    db.prepare_cached("UPDATE ledger SET published = published + ?1")?.execute([removed as i64])?;
    crash::in_transaction(Point::EventRemovalUncommitted, Point::EventRemovalCommitted);
    Ok(())
}

/// Events of a device after `after`, oldest first.
pub fn events(db: &Connection, uuid: &str, device: &str, after: i64, limit: usize) -> rusqlite::Result<Vec<Event>> {
    db.prepare_cached("SELECT seq, message_id, body FROM outbox WHERE device = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")?
        .query_map(params![device, after, limit as i64], |row| {
            let seq = row.get(0)?;
            Ok(Event {
                kind: EventKind::Result,
                seq,
                id: event_id(uuid, seq),
                message_id: row.get(1)?,
                body: row.get(2)?,
            })
        })?
        .collect()
}

/// The id under which an event is published.
fn event_id(uuid: &str, seq: i64) -> String {
    format!("{uuid}-{seq}")
}

/// Every command that is not final, of one device or of all, in the order of receipt.
pub fn unfinished(db: &Connection, device: Option<&str>) -> rusqlite::Result<Vec<Unfinished>> {
    // Ordered by `id`, SQLite would rather look at every row than sort the few.
    let (columns, select) =
        (Unfinished::COLUMNS, "FROM command INDEXED BY command_unfinished WHERE finished_at IS NULL");
    match device {
        None => db
            .prepare_cached(&format!("SELECT {columns} {select} ORDER BY id"))?
            .query_map([], Unfinished::from_row)?
            .collect(),
        Some(device) => db
            .prepare_cached(&format!("SELECT {columns} {select} AND device = ?1 ORDER BY id"))?
            .query_map([device], Unfinished::from_row)?
            .collect(),
    }
}

/// The row with a number.
pub fn show_row(db: &Connection, row: i64) -> rusqlite::Result<Option<Record>> {
    let sql = format!("SELECT {} FROM command WHERE id = ?1", Record::COLUMNS);
    db.query_row(&sql, [row], Record::from_row).optional()
}

/// The row of one message: the first one that came under this id, at whichever hub.
pub fn show(db: &Connection, device: &str, message_id: &str) -> rusqlite::Result<Option<Record>> {
    let sql = format!(
        "SELECT {} FROM command WHERE id = (SELECT min(command.id) FROM hub CROSS JOIN command
            WHERE command.hub = hub.id AND device = ?1 AND message_id = ?2)",
        Record::COLUMNS
    );
    db.query_row(&sql, params![device, message_id], Record::from_row).optional()
}

/// Number of rows, and of events in the outbox. Numbers are given out without gaps, so nothing is counted.
pub fn counts(db: &Connection) -> rusqlite::Result<(i64, i64)> {
    db.prepare_cached(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'command'), 0) - pruned,
                coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0) - published FROM ledger",
    )?
    .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Number of events of devices that are none of these, which are in order. Only those are counted one by one.
pub fn events_of_others(db: &Connection, devices: &[String]) -> rusqlite::Result<i64> {
    let mut next = db.prepare_cached("SELECT device FROM outbox WHERE device > ?1 ORDER BY device LIMIT 1")?;
    let mut count = db.prepare_cached("SELECT count(*) FROM outbox WHERE device = ?1")?;
    let (mut last, mut sum) = (String::new(), 0);
    while let Some(device) = next.query_row([&last], |row| row.get::<_, String>(0)).optional()? {
        if devices.binary_search(&device).is_err() {
            sum += count.query_row([&device], |row| row.get::<_, i64>(0))?;
        }
        last = device;
    }
    Ok(sum)
}

/// What the ledger knows of itself.
pub struct Identity {
    /// Its name.
    pub uuid: String,
    /// Its age in seconds. A row may be younger than the age that was saved last; the age never runs backwards.
    pub age: i64,
    /// The latest wall time that was witnessed.
    pub wall: Timestamp,
    /// The last daemon on it has stopped in order, and no peripheral owes it an answer.
    pub ended_well: bool,
    /// For how long one may owe it to a daemon that did not.
    pub late_window: Duration,
    /// What the hub may keep locked for it.
    pub locked: Locked,
    /// The number of the last row that was ever made.
    pub last_row: i64,
    /// By which transports devices were reached, as a digest; [`CHANGING`] where that was about to change.
    pub ways: Option<Vec<u8>>,
}

/// What a daemon begins with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Life<'a> {
    /// A digest of the transports by which devices are reached.
    pub ways: &'a [u8],
    /// The longest that a peripheral may owe an answer, by the configuration.
    pub late_window: Duration,
}

/// What the hub may keep locked for a daemon that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Locked {
    /// Nothing.
    #[default]
    Nothing,
    /// Only what goes at once to those that are reached as before.
    ForOthers,
    /// Anything.
    Something,
}

impl Locked {
    /// As the ledger has it.
    fn let_go(self) -> i64 {
        match self {
            Locked::Something => 0,
            Locked::Nothing => 1,
            Locked::ForOthers => 2,
        }
    }

    fn of(let_go: i64) -> Locked {
        match let_go {
            1 => Locked::Nothing,
            2 => Locked::ForOthers,
            _ => Locked::Something,
        }
    }
}

/// What a daemon that has stopped in order leaves to the next one to wait for, as after a crash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Legacy {
    /// Peripherals owe it answers.
    pub owed: bool,
    /// The hub may keep messages locked that were handed out to it.
    pub locked: Locked,
    /// They are locked for whatever transport the next daemon reaches the hub by, also for the same.
    pub by_any_way: bool,
}

/// What the ledger knows of itself.
pub fn identity(db: &Connection) -> rusqlite::Result<Identity> {
    db.query_row(
        "SELECT uuid, max(age,
                coalesce((SELECT max(seen) FROM command WHERE finished_at IS NOT NULL), 0),
                coalesce((SELECT max(seen) FROM command WHERE finished_at IS NULL), 0)),
            wall, ended_well, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'command'), 0), ways, let_go,
            late_window FROM ledger",
        [],
        |row| {
            let wall = Timestamp(row.get(2)?);
            let (ended_well, last_row, ways, locked) = (row.get(3)?, row.get(4)?, row.get(5)?, Locked::of(row.get(6)?));
            let late_window = Duration::from_millis(row.get::<_, i64>(7)?.unsigned_abs());
            Ok(Identity { uuid: row.get(0)?, age: row.get(1)?, wall, ended_well, late_window, locked, last_row, ways })
        },
    )
}

/// A daemon begins to run on the ledger, which reaches devices by these ways. They are noted unless the daemon before
/// may have locked something by others that these have to wait for: then the ways are changing, as these will lock
/// something, too. Its peripherals may owe answers for as long as it says, or as those before it have said that did not
/// end well.
pub fn begin_life(db: &Connection, life: Life<'_>) -> rusqlite::Result<()> {
    let sql = "UPDATE ledger SET ended_well = 0, let_go = 0,
        ways = iif(let_go = 1 OR ways IS NULL OR ways = ?1, ?1, ?3),
        late_window = iif(ended_well, ?2, max(late_window, ?2))";
    db.execute(sql, params![life.ways, milliseconds(life.late_window), CHANGING]).map(drop)
}

/// From now on peripherals may owe answers for as long as this, or longer.
pub fn grow_late_window(db: &Connection, late_window: Duration) -> rusqlite::Result<()> {
    let sql = "UPDATE ledger SET late_window = max(late_window, ?1)";
    db.prepare_cached(sql)?.execute([milliseconds(late_window)])?;
    Ok(())
}

/// For how long a peripheral may owe an answer to a daemon on this ledger, ms, if it is of this version.
pub fn late_window(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT late_window FROM ledger", [], |row| row.get(0))
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// A daemon has stopped, and has left this.
pub fn end_life(db: &Connection, left: Legacy) -> rusqlite::Result<()> {
    let sql = "UPDATE ledger SET ended_well = ?1, let_go = ?2, ways = iif(?3, ?4, ways)";
    let ended = params![!left.owed, left.locked.let_go(), left.by_any_way, CHANGING];
    db.prepare_cached(sql)?.execute(ended)?;
    crash::in_transaction(Point::EndedWellUncommitted, Point::EndedWellCommitted);
    Ok(())
}

/// By which transports devices are reached.
pub fn set_ways(db: &Connection, ways: &[u8]) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE ledger SET ways = ?1")?.execute([ways])?;
    Ok(())
}

/// Saves the ledger's age and the latest wall time that was witnessed, which may have turned out to be an earlier one.
pub fn save_age(db: &Connection, age: i64, wall: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE ledger SET age = max(age, ?1), wall = ?2")?.execute([age, wall.0])?;
    Ok(())
}

/// Makes of a ledger one that was restored: it distrusts what it does not know, and remembers which rows it has from
/// its backup. It leaves out so many numbers for events, and peripherals may still answer for so long (ms).
pub fn distrust(db: &Connection, left_out: i64, late_window: i64) -> rusqlite::Result<()> {
    db.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         UPDATE ledger SET distrusted = 1, epoch = NULL, epoch_age = NULL, ended_well = 0, let_go = 0,
            late_window = max(late_window, {late_window}),
            restored = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'command'), 0),
            published = published + {left_out};
         DELETE FROM trusted;
         INSERT INTO sqlite_sequence (name, seq)
            SELECT 'outbox', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'outbox');
         UPDATE sqlite_sequence SET seq = seq + {left_out} WHERE name = 'outbox';
         COMMIT;"
    ))
}

/// Deletes a few final rows that were last delivered longer ago than `retention`, those first that were longest ago.
/// Tells whether there may be more.
pub fn prune(db: &Connection, age: i64, retention: Duration) -> rusqlite::Result<bool> {
    let before = oldest_kept(age, retention);
    let deleted = db
        .prepare_cached(
            "DELETE FROM command WHERE id IN (SELECT id FROM command
                WHERE finished_at IS NOT NULL AND seen < ?1 ORDER BY seen LIMIT ?2)",
        )?
        .execute([before, PRUNE_STEP])?;
    if deleted > 0 {
        db.prepare_cached("UPDATE ledger SET pruned = pruned + ?1")?.execute([deleted as i64])?;
    }
    crash::in_transaction(Point::PruneUncommitted, Point::PruneCommitted);
    Ok(deleted as i64 == PRUNE_STEP)
}

/// Whether there is a row that [`prune`] would delete.
pub fn is_to_be_pruned(db: &Connection, age: i64, retention: Duration) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM command WHERE finished_at IS NOT NULL AND seen < ?1 LIMIT 1")?
        .exists([oldest_kept(age, retention)])
}

fn oldest_kept(age: i64, retention: Duration) -> i64 {
    age.saturating_sub(i64::try_from(retention.as_secs()).unwrap_or(i64::MAX))
}

/// Inserts a row in a state and after attempts; with its end, if it has one.
fn insert_row(
    db: &Connection,
    new: &NewRow,
    (state, attempts): (State, u32),
    end: Option<&Finish>,
    age: i64,
    history: &str,
) -> rusqlite::Result<()> {
    let hub = hub_key(db, &new.hub, age)?;
    let fault = end.and_then(|end| end.outcome.fault.as_ref());
    let value = end.and_then(|end| end.outcome.value.as_ref());
    db.prepare_cached(
        "INSERT INTO command (device, message_id, digest, name, state, attempts, deliveries, received_at, expires_at,
            requested, seen, history, hub, source, user, finished_at, value, error_code, error_message, modbus_exception,
            correlation_id, sequence_number, enqueued_at, delivery_count)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
            ?23)",
    )?
    .execute(params![
        new.device,
        new.message_id,
        new.digest,
        new.command,
        state.as_str(),
        attempts,
        new.received_at.0,
        new.expires_at.map(|at| at.0),
        new.value.as_ref().map(|value| value.to_string()),
        age,
        history,
        hub,
        new.source.as_str(),
        new.source.user(),
        end.map(|end| end.finished_at.0),
        value.map(|value| value.to_string()),
        fault.map(|fault| fault.code.as_str()),
        fault.map(|fault| fault.message.as_str()),
        fault.and_then(|fault| fault.modbus_exception),
        new.envelope.correlation_id,
        new.envelope.sequence_number.and_then(|number| i64::try_from(number).ok()),
        new.envelope.enqueued_at.map(|at| at.0),
        new.envelope.delivery_count,
    ])?;
    Ok(())
}

/// A line of a history.
pub(super) fn entry(at: Timestamp, event: &str, detail: Option<&str>) -> String {
    let mut entry = json!({ "at": at.known().map(|at| at.to_string()), "event": event });
    if let Some(detail) = detail {
        entry["detail"] = detail.into();
    }
    format!("{entry}\n")
}

/// What is known of a ledger's trustworthiness (G15).
pub struct Standing {
    /// An earlier ledger may know what this one does not.
    pub distrusted: bool,
    /// The first believable time after it was made or restored, and its age then.
    pub epoch: Option<(Timestamp, i64)>,
    /// Hub and device of whom nothing of before is left.
    pub trusted: Vec<(String, String)>,
}

/// What is known of the ledger's trustworthiness.
pub fn standing(db: &Connection) -> rusqlite::Result<Standing> {
    let (distrusted, epoch, age) = db.query_row("SELECT distrusted, epoch, epoch_age FROM ledger", [], |row| {
        Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, Option<i64>>(2)?))
    })?;
    let mut trusted = db.prepare("SELECT host, device FROM trusted JOIN hub ON hub.id = trusted.hub")?;
    let trusted = trusted.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    Ok(Standing { distrusted, epoch: epoch.map(Timestamp).zip(age), trusted })
}

/// The first confirmed time after the ledger was made or restored, and its age then. It only moves ahead.
pub fn set_epoch(db: &Connection, epoch: Timestamp, age: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE ledger SET epoch = ?1, epoch_age = coalesce(epoch_age, ?2) WHERE epoch IS NULL OR epoch < ?1";
    db.prepare_cached(sql)?.execute([epoch.0, age])?;
    Ok(())
}

/// Nothing of before is left of a device at a hub.
pub fn trust_device(db: &Connection, hub: &str, device: &str, age: i64) -> rusqlite::Result<()> {
    let hub = hub_key(db, hub, age)?;
    db.prepare_cached("INSERT OR IGNORE INTO trusted (hub, device) VALUES (?1, ?2)")?.execute(params![hub, device])?;
    Ok(())
}
