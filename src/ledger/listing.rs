//! Which rows an operator is shown who asks for the newest, of a device or in a state.
//!
//! Invariant: what is looked through is bounded; what is left out is said.

use rusqlite::{params, Connection};

use super::row::Record;
use crate::command::outcome::State;

/// Rows that are looked through for those of a device, or that have succeeded: somebody waits for the answer.
const LOOKED_THROUGH: i64 = 20_000;

/// Some rows, newest first.
pub struct Listed {
    /// The rows.
    pub rows: Vec<Record>,
    /// There may be more among the rows up to this number, which were not looked through. Of a device only those are
    /// missing that are over and came without a message id.
    pub not_looked_through: Option<i64>,
}

/// The newest rows, newest first. No other device's rows make it cost more.
pub fn list(db: &Connection, device: Option<&str>, state: Option<State>, limit: u32) -> rusqlite::Result<Listed> {
    // The words are ours. The further conditions let SQLite see which index has all of them.
    let (index, condition, is_scan) = match state {
        None => ("", String::new(), device.is_some()),
        Some(State::Succeeded) => ("", "AND state = 'succeeded'".into(), true),
        Some(state @ (State::Accepted | State::Executing)) => {
            ("INDEXED BY command_unfinished", format!("AND state = '{state}' AND finished_at IS NULL"), false)
        }
        Some(state) => (
            "INDEXED BY command_state",
            format!("AND state = '{state}' AND finished_at IS NOT NULL AND state <> 'succeeded'"),
            device.is_some(),
        ),
    };
    let columns = Record::COLUMNS;
    let newest: i64 = db.query_row("SELECT coalesce(max(id), 0) FROM command", [], |row| row.get(0))?;
    let last = (newest - LOOKED_THROUGH).max(0);
    let recent = if is_scan { format!("AND id > {last}") } else { String::new() };
    let sql = format!(
        "SELECT {columns} FROM command {index} WHERE (?1 IS NULL OR device = ?1) {condition} {recent}
         ORDER BY id DESC LIMIT ?2"
    );
    let mut rows: Vec<Record> =
        db.prepare(&sql)?.query_map(params![device, limit], Record::from_row)?.collect::<Result<_, _>>()?;
    let left = i64::from(limit) - rows.len() as i64;
    if !is_scan || left <= 0 || last == 0 {
        return Ok(Listed { rows, not_looked_through: None });
    }
    if device.is_some() {
        // What has a message id is found by it, what is not over by that.
        let sql = format!(
            "SELECT {columns} FROM command WHERE id IN (
                SELECT command.id FROM hub CROSS JOIN command INDEXED BY command_identity
                    WHERE command.hub = hub.id AND device = ?1 AND message_id IS NOT NULL AND command.id <= ?3 {condition}
                UNION SELECT id FROM command INDEXED BY command_unfinished
                    WHERE finished_at IS NULL AND device = ?1 AND id <= ?3 {condition}
                ORDER BY 1 DESC LIMIT ?2)
             ORDER BY id DESC"
        );
        let older =
            db.prepare(&sql)?.query_map(params![device, left, last], Record::from_row)?.collect::<Result<Vec<_>, _>>();
        rows.extend(older?);
    }
    let is_rest = db.prepare("SELECT 1 FROM command WHERE id <= ?1 LIMIT 1")?.exists([last])?;
    Ok(Listed { rows, not_looked_through: is_rest.then_some(last) })
}
