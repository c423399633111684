//! The SQL: one function a durable step. Each runs inside the writer's transaction; none commits.
//!
//! Invariants
//! - An outcome and its result event are written by the same call, hence the same transaction (G7).
//! - A final row is never changed again, but for counting deliveries.
//! - Only final rows are deleted, and only by [`prune`], which measures age by the ledger's own clock (G10).

use std::time::Duration;

use rusqlite::{params, Connection, OptionalExtension};
use serde_json::json;

use super::row::{Event, Record, RowId, Unfinished};
use super::{Finish, Lookup, NewRow};
use crate::clock::Timestamp;
use crate::command::decide::Known;
use crate::command::message::Digest;
use crate::command::outcome::{Report, State};
use crate::crash::{self, Point};

/// Rows looked at in one step of pruning.
const PRUNE_WINDOW: i64 = 500;
/// A history does not grow beyond this many bytes, however often the hub delivers.
const HISTORY_BYTES_MAX: i64 = 4096;

/// What the ledger knows of a message. A message without an id is always new.
pub fn lookup(db: &Connection, device: &str, message_id: Option<&str>, digest: &Digest) -> rusqlite::Result<Lookup> {
    let mut statement =
        db.prepare_cached("SELECT id, state, digest FROM command WHERE device = ?1 AND message_id = ?2")?;
    let mut rows = statement.query(params![device, message_id])?;
    let mut known = Lookup { known: Known::New, row: None };
    while let Some(row) = rows.next()? {
        if row.get_ref(2)?.as_blob()? == digest {
            let name: String = row.get(1)?;
            let state = State::from_name(&name).ok_or_else(|| {
                let why = format!("no state is called {name:?}");
                rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, why.into())
            })?;
            return Ok(Lookup { known: Known::Row(state), row: Some(RowId(row.get(0)?)) });
        }
        known.known = Known::OtherBody;
    }
    Ok(known)
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
    insert_row(db, new, state, attempts, age, &history)?;
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
             WHERE id = ?1 AND state = 'accepted'",
        )?
        .execute(params![row, entry(now, "executing", None)])?;
    assert_eq!(changed, 1, "only an accepted row begins to execute");
    crash::in_transaction(Point::ExecutingUncommitted, Point::ExecutingCommitted);
    Ok(())
}

/// Writes an outcome and its result event.
pub fn finish(db: &Connection, finish: &Finish, age: i64) -> rusqlite::Result<()> {
    let new = &finish.new;
    let outcome = &finish.outcome;
    assert!(outcome.state.is_final(), "an outcome is a final state");
    let row = match finish.row {
        Some(row) => row,
        None => {
            let received = entry(new.received_at, "received", None);
            insert_row(db, new, State::Accepted, 0, age, &received)?;
            RowId(db.last_insert_rowid())
        }
    };
    let fault = outcome.fault.as_ref();
    let changed = db
        .prepare_cached(
            "UPDATE command SET state = ?2, attempts = ?3, finished_at = ?4, value = ?5, error_code = ?6,
                error_message = ?7, modbus_exception = ?8, input = NULL, history = history || ?9
             WHERE id = ?1 AND finished_at IS NULL",
        )?
        .execute(params![
            row,
            outcome.state.as_str(),
            finish.attempts,
            finish.finished_at.0,
            outcome.value.as_ref().map(|value| value.to_string()),
            fault.map(|fault| fault.code.as_str()),
            fault.map(|fault| fault.message.as_str()),
            fault.and_then(|fault| fault.modbus_exception),
            entry(finish.finished_at, outcome.state.as_str(), fault.map(|fault| fault.message.as_str())),
        ])?;
    assert_eq!(changed, 1, "a row ends once");
    crash::point(Point::OutcomeWithoutEvent);
    let report = Report {
        message_id: new.message_id.as_deref(),
        command: new.command.as_deref(),
        attempts: finish.attempts,
        received_at: new.received_at,
        finished_at: finish.finished_at,
    };
    db.prepare_cached("INSERT INTO outbox (device, message_id, body) VALUES (?1, ?2, ?3)")?.execute(params![
        new.device,
        new.message_id,
        report.to_event(outcome).to_string()
    ])?;
    crash::in_transaction(Point::OutcomeUncommitted, Point::OutcomeCommitted);
    Ok(())
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
    db.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?.execute([seq])?;
    crash::in_transaction(Point::EventRemovalUncommitted, Point::EventRemovalCommitted);
    Ok(())
}

/// Events of a device after `after`, oldest first.
pub fn events(db: &Connection, uuid: &str, device: &str, after: i64, limit: usize) -> rusqlite::Result<Vec<Event>> {
    db.prepare_cached("SELECT seq, message_id, body FROM outbox WHERE device = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")?
        .query_map(params![device, after, limit as i64], |row| {
            let seq = row.get(0)?;
            Ok(Event { seq, id: format!("{uuid}-{seq}"), message_id: row.get(1)?, body: row.get(2)? })
        })?
        .collect()
}

/// Every command that is not final, of one device or of all, in the order of receipt.
pub fn unfinished(db: &Connection, device: Option<&str>) -> rusqlite::Result<Vec<Unfinished>> {
    let sql = format!(
        "SELECT {} FROM command WHERE finished_at IS NULL AND (?1 IS NULL OR device = ?1) ORDER BY id",
        Unfinished::COLUMNS
    );
    db.prepare(&sql)?.query_map([device], Unfinished::from_row)?.collect()
}

/// The newest rows, newest first.
pub fn list(db: &Connection, device: Option<&str>, state: Option<State>, limit: u32) -> rusqlite::Result<Vec<Record>> {
    let sql = format!(
        "SELECT {} FROM command WHERE (?1 IS NULL OR device = ?1) AND (?2 IS NULL OR state = ?2) ORDER BY id DESC LIMIT ?3",
        Record::COLUMNS
    );
    db.prepare(&sql)?.query_map(params![device, state.map(State::as_str), limit], Record::from_row)?.collect()
}

/// The row of one message: the first one that came under this id.
pub fn show(db: &Connection, device: &str, message_id: &str) -> rusqlite::Result<Option<Record>> {
    let sql =
        format!("SELECT {} FROM command WHERE device = ?1 AND message_id = ?2 ORDER BY id LIMIT 1", Record::COLUMNS);
    db.query_row(&sql, params![device, message_id], Record::from_row).optional()
}

/// Number of rows, and of events in the outbox.
pub fn counts(db: &Connection) -> rusqlite::Result<(i64, i64)> {
    db.query_row("SELECT (SELECT count(*) FROM command), (SELECT count(*) FROM outbox)", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// What the ledger knows of itself.
pub struct Identity {
    /// Its name.
    pub uuid: String,
    /// Its age in seconds. A row may be younger than the age that was saved last; the age never runs backwards.
    pub age: i64,
    /// The latest wall time that was believed.
    pub wall: Timestamp,
    /// The last daemon on it has stopped in order.
    pub ended_well: bool,
}

/// What the ledger knows of itself.
pub fn identity(db: &Connection) -> rusqlite::Result<Identity> {
    db.query_row(
        "SELECT uuid, max(age, coalesce((SELECT max(seen) FROM command), 0)), wall, ended_well FROM ledger",
        [],
        |row| {
            let wall = Timestamp(row.get(2)?);
            Ok(Identity { uuid: row.get(0)?, age: row.get(1)?, wall, ended_well: row.get(3)? })
        },
    )
}

/// A daemon begins to run on the ledger, or has stopped in order.
pub fn set_ended_well(db: &Connection, ended_well: bool) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE ledger SET ended_well = ?1")?.execute([ended_well])?;
    if ended_well {
        crash::in_transaction(Point::EndedWellUncommitted, Point::EndedWellCommitted);
    }
    Ok(())
}

/// Saves the ledger's age and the latest wall time that was believed, which may have turned out to be an earlier one.
pub fn save_age(db: &Connection, age: i64, wall: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE ledger SET age = max(age, ?1), wall = ?2")?.execute([age, wall.0])?;
    Ok(())
}

/// Deletes final rows that were last delivered longer ago than `retention`, in a window of rows that begins after
/// `from`. Returns where the next window begins, or `None` when there is nothing more to delete. Rows lie in the
/// order of receipt, so a window in which nothing is old enough ends the search; a row that was delivered again may
/// thereby stay longer, never shorter.
pub fn prune(db: &Connection, from: i64, age: i64, retention: Duration) -> rusqlite::Result<Option<i64>> {
    let before = age.saturating_sub(i64::try_from(retention.as_secs()).unwrap_or(i64::MAX));
    let last: Option<i64> = db
        .prepare_cached("SELECT max(id) FROM (SELECT id FROM command WHERE id > ?1 AND finished_at IS NOT NULL ORDER BY id LIMIT ?2)")?
        .query_row([from, PRUNE_WINDOW], |row| row.get(0))?;
    let Some(last) = last else { return Ok(None) };
    let deleted = db
        .prepare_cached("DELETE FROM command WHERE id > ?1 AND id <= ?2 AND finished_at IS NOT NULL AND seen < ?3")?
        .execute([from, last, before])?;
    crash::in_transaction(Point::PruneUncommitted, Point::PruneCommitted);
    Ok((deleted > 0).then_some(last))
}

fn insert_row(
    db: &Connection,
    new: &NewRow,
    state: State,
    attempts: u32,
    age: i64,
    history: &str,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO command (device, message_id, digest, name, state, attempts, deliveries, received_at, expires_at, input, seen,
            history) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8, ?9, ?10, ?11)",
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
    ])?;
    Ok(())
}

fn entry(at: Timestamp, event: &str, detail: Option<&str>) -> String {
    let mut entry = json!({ "at": at.to_string(), "event": event });
    if let Some(detail) = detail {
        entry["detail"] = detail.into();
    }
    format!("{entry}\n")
}
