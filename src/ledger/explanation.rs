//! What the ledger knows around a row: what was in hand when it came, and whether the hub has its event.
//!
//! Invariant: what is looked through is bounded (G16).

use rusqlite::{params, Connection, OptionalExtension};

use super::row::{Record, RowId};
use crate::time::Timestamp;

/// Rows before one that are looked through for those that it waited behind. A hub keeps at most 50 messages for a
/// device; other devices' rows lie between.
const LOOKED_THROUGH: i64 = 2_000;
/// Of those, so many are told.
const BEHIND_MAX: u32 = 50;

/// What is around a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Around {
    /// Commands of the same device that were not at their end when it came, and ended before it; oldest first.
    pub behind: Vec<Behind>,
    /// The hub does not have its result event yet.
    pub event_waits: bool,
}

/// A command that another waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Its row.
    pub row: RowId,
    /// Its name.
    pub command: Option<String>,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// Every row of one message id, oldest first.
pub(super) fn all_of(db: &Connection, device: &str, message_id: &str, limit: u32) -> rusqlite::Result<Vec<Record>> {
    let sql = format!(
        "SELECT {} FROM command WHERE id IN (SELECT command.id FROM hub CROSS JOIN command
            WHERE command.hub = hub.id AND device = ?1 AND message_id = ?2 ORDER BY 1 LIMIT ?3) ORDER BY id",
        Record::COLUMNS
    );
    db.prepare(&sql)?.query_map(params![device, message_id, limit], Record::from_row)?.collect()
}

/// What is around a row.
pub(super) fn around(db: &Connection, row: &Record) -> rusqlite::Result<Around> {
    let mut around = Around::default();
    let number = row.row.number();
    if let Some(received) = row.received_at.known() {
        // Under a row of its own from the beginning, or made at its end: either is before it.
        let until = row.finished_at.map_or(i64::MAX, |at| at.0);
        let sql = "SELECT id, name, finished_at FROM command
            WHERE id BETWEEN ?1 AND ?2 AND id <> ?3 AND device = ?4
                AND received_at <= ?5 AND finished_at > ?5 AND finished_at <= ?6
            ORDER BY finished_at LIMIT ?7";
        let (first, last) = (number - LOOKED_THROUGH, number + LOOKED_THROUGH);
        let of = params![first, last, number, row.device, received.0, until, BEHIND_MAX];
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Behind { row: RowId(row.get(0)?), command: row.get(1)?, finished_at: Timestamp(row.get(2)?) })
        };
        around.behind = db.prepare(sql)?.query_map(of, read)?.collect::<Result<_, _>>()?;
    }
    if let Some(message_id) = &row.message_id {
        let sql = "SELECT 1 FROM outbox WHERE device = ?1 AND message_id = ?2 LIMIT 1";
        let waits: Option<i64> = db.query_row(sql, params![row.device, message_id], |row| row.get(0)).optional()?;
        around.event_waits = waits.is_some();
    }
    Ok(around)
}
