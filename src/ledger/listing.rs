//! Which rows an operator is shown who asks for the newest, of a device or in a state.
//!
//! Invariant: what is looked through is bounded; what is left out is said.

use rusqlite::{params, Connection};

use super::row::Record;
use crate::command::outcome::State;

/// Rows that are looked through at least for those of a device, or that have succeeded: somebody waits for the answer.
const LOOKED_THROUGH: i64 = 20_000;
/// The same where they don't lie side by side, and each may be a page of its own.
const SOUGHT: i64 = 1_000;
/// And for each row that is asked for.
const FOR_EACH: i64 = 10;

/// Some rows, newest first.
pub struct Listed {
    /// The rows.
    pub rows: Vec<Record>,
    /// There may be more among the rows up to this number, of which not all were looked at.
    pub not_looked_through: Option<i64>,
}

/// The newest rows, newest first. No other device's rows make it cost more.
pub fn list(db: &Connection, device: Option<&str>, state: Option<State>, limit: u32) -> rusqlite::Result<Listed> {
    // The words are ours. The further conditions let SQLite see which index has all of them.
    match (state, device) {
        (None, None) => all(db, "", device, limit),
        (Some(state @ (State::Accepted | State::Executing)), _) => {
            let of_state = format!("INDEXED BY command_unfinished WHERE state = '{state}' AND finished_at IS NULL");
            all(db, &of_state, device, limit)
        }
        (None, Some(device)) => recent(db, "", Some(device), limit),
        (Some(State::Succeeded), _) => recent(db, "AND state = 'succeeded'", device, limit),
        (Some(state), _) => {
            let of_state = format!(
                "INDEXED BY command_state WHERE state = '{state}' AND finished_at IS NOT NULL AND state <> 'succeeded'"
            );
            match device {
                None => all(db, &of_state, None, limit),
                Some(device) => sought(db, &of_state, device, limit),
            }
        }
    }
}

/// Rows of an index, of which all may be looked at, or which is in the order that is asked for.
fn all(db: &Connection, index: &str, device: Option<&str>, limit: u32) -> rusqlite::Result<Listed> {
    let and = if index.is_empty() { "WHERE" } else { "AND" };
    let sql = format!(
        "SELECT {} FROM command {index} {and} (?1 IS NULL OR device = ?1) ORDER BY id DESC LIMIT ?2",
        Record::COLUMNS
    );
    let rows = db.prepare(&sql)?.query_map(params![device, limit], Record::from_row)?.collect::<Result<_, _>>()?;
    Ok(Listed { rows, not_looked_through: None })
}

/// A device's among the newest of a state.
fn sought(db: &Connection, of_state: &str, device: &str, limit: u32) -> rusqlite::Result<Listed> {
    let most = SOUGHT.max(FOR_EACH * i64::from(limit));
    let newest = format!("SELECT id FROM command {of_state} ORDER BY id DESC LIMIT {most}");
    let sql = format!(
        "SELECT {} FROM command WHERE id IN ({newest}) AND device = ?1 ORDER BY id DESC LIMIT ?2",
        Record::COLUMNS
    );
    let rows: Vec<Record> =
        db.prepare(&sql)?.query_map(params![device, limit], Record::from_row)?.collect::<Result<_, _>>()?;
    if rows.len() as i64 >= i64::from(limit) {
        return Ok(Listed { rows, not_looked_through: None });
    }
    let (looked_at, oldest): (i64, Option<i64>) =
        db.query_row(&format!("SELECT count(*), min(id) FROM ({newest})"), [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rest = oldest.filter(|_| looked_at == most).map(|oldest| oldest - 1);
    Ok(Listed { rows, not_looked_through: rest })
}

/// Among the newest rows, of a device also what is older and is found by its message id, or as it is not over.
fn recent(db: &Connection, condition: &str, device: Option<&str>, limit: u32) -> rusqlite::Result<Listed> {
    let columns = Record::COLUMNS;
    let newest: i64 = db.query_row("SELECT coalesce(max(id), 0) FROM command", [], |row| row.get(0))?;
    let most = LOOKED_THROUGH.max(FOR_EACH * i64::from(limit));
    let last = (newest - most).max(0);
    let sql = format!(
        "SELECT {columns} FROM command WHERE (?1 IS NULL OR device = ?1) {condition} AND id > ?3 ORDER BY id DESC LIMIT ?2"
    );
    let mut rows: Vec<Record> =
        db.prepare(&sql)?.query_map(params![device, limit, last], Record::from_row)?.collect::<Result<_, _>>()?;
    let left = i64::from(limit) - rows.len() as i64;
    if left <= 0 || last == 0 {
        return Ok(Listed { rows, not_looked_through: None });
    }
    if device.is_some() {
        // From the indexes alone; of their rows no more are looked at than before.
        let sql = format!(
            "SELECT {columns} FROM command WHERE id IN (
                SELECT command.id FROM hub CROSS JOIN command INDEXED BY command_identity
                    WHERE command.hub = hub.id AND device = ?1 AND message_id IS NOT NULL AND command.id <= ?3
                UNION SELECT id FROM command INDEXED BY command_unfinished
                    WHERE finished_at IS NULL AND device = ?1 AND id <= ?3
                ORDER BY 1 DESC LIMIT ?4) {condition}
             ORDER BY id DESC LIMIT ?2"
        );
        let older = db
            .prepare(&sql)?
            .query_map(params![device, left, last, most], Record::from_row)?
            .collect::<Result<Vec<_>, _>>();
        rows.extend(older?);
    }
    let is_rest = db.prepare("SELECT 1 FROM command WHERE id <= ?1 LIMIT 1")?.exists([last])?;
    Ok(Listed { rows, not_looked_through: is_rest.then_some(last) })
}
