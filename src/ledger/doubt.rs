//! Commands in doubt: how many wait for somebody to look at their machines, and that somebody has.
//!
//! Invariants
//! - An outcome stays what it is: that it was looked at is noted beside it, once.
//! - What nobody confirms, such as a broadcast, is in doubt by its nature, and is nobody's to look at.
//! - Counting is bounded, however many there are (G16).

use std::path::Path;

use rusqlite::{params, Connection, OptionalExtension};

use super::condition::classify;
use super::disk::SystemDisk;
use super::row::Resolution;
use super::writer::Kind;
use super::{backup, schema, store, Ledger, LedgerError};
use crate::command::outcome::State;

/// Open doubts that are counted at most, over all devices.
pub const COUNTED_MAX: u32 = 10_000;

/// What [`schema`]'s index has, in the words that let SQLite see it.
pub(super) const OPEN: &str =
    "INDEXED BY command_open_doubt WHERE state = 'in_doubt' AND resolved_at IS NULL AND error_code IS NOT 'unconfirmed'";

/// Of each device that has some, how many of its commands are in doubt that nobody has looked at.
pub type OpenDoubts = Vec<(String, u64)>;

/// Counts them.
fn open(db: &Connection) -> rusqlite::Result<OpenDoubts> {
    let sql = format!(
        "SELECT device, count(*) FROM (SELECT device FROM command {OPEN} ORDER BY device LIMIT ?1) GROUP BY device"
    );
    let counted = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()));
    db.prepare_cached(&sql)?.query_map([COUNTED_MAX], counted)?.collect()
}

/// Why a row can't be resolved, in a sentence; `None`: it can.
type Obstacle = Option<String>;

/// Notes it in the row's history, too. What is given keeps it from that.
fn resolve(db: &Connection, row: i64, resolution: &Resolution) -> rusqlite::Result<Obstacle> {
    let found: Option<(String, bool)> = db
        .prepare_cached("SELECT state, resolved_at IS NOT NULL FROM command WHERE id = ?1")?
        .query_row([row], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((state, is_resolved)) = found else { return Ok(Some(format!("the ledger has no row {row}"))) };
    if state != State::InDoubt.as_str() {
        return Ok(Some(format!("row {row} is {state}, not in_doubt: there is nothing to resolve")));
    }
    if is_resolved {
        let look = format!("see `fieldbridge ledger show {row}`");
        return Ok(Some(format!("row {row} was resolved before; {look}")));
    }
    let told = match &resolution.note {
        Some(note) => format!("by {}: {note}", resolution.by),
        None => format!("by {}", resolution.by),
    };
    db.prepare_cached(
        "UPDATE command SET resolved_at = ?2, resolved_by = ?3, resolution = ?4, history = history || ?5 WHERE id = ?1",
    )?
    .execute(params![
        row,
        resolution.at.0,
        resolution.by,
        resolution.note,
        store::entry(resolution.at, "resolved", Some(&told))
    ])?;
    Ok(None)
}

impl Ledger {
    /// Of each device that has some, how many of its commands are in doubt that nobody has looked at; of all together
    /// at most [`COUNTED_MAX`] are counted.
    ///
    /// # Errors
    /// Whatever keeps the ledger from being read.
    pub async fn open_doubts(&self) -> Result<OpenDoubts, LedgerError> {
        self.look(open).await
    }

    /// On return it is durable that somebody has looked at what a command in doubt has done.
    ///
    /// # Errors
    /// [`LedgerError::Refused`]: there is nothing to resolve; else what keeps the ledger from being written.
    pub async fn resolve(&self, row: i64, resolution: Resolution) -> Result<(), LedgerError> {
        match self.ask(Kind::Write, move |db| resolve(db, row, &resolution)).await? {
            None => Ok(()),
            Some(why) => Err(LedgerError::Refused(why)),
        }
    }
}

/// The same while no daemon runs.
///
/// # Errors
/// [`LedgerError::InUse`] while one does; else as those of [`Ledger::resolve`].
pub fn resolve_alone(ledger: &Path, row: i64, resolution: &Resolution) -> Result<(), LedgerError> {
    schema::is_readable(ledger)?;
    let _held = backup::keep_daemons_away(ledger)?;
    let failed = |error: rusqlite::Error| classify("writing", &error);
    let db = schema::open_to_note(&SystemDisk, ledger)?;
    let begun = db.unchecked_transaction().map_err(failed)?;
    let obstacle = resolve(&begun, row, resolution).map_err(failed)?;
    begun.commit().map_err(failed)?;
    db.close().map_err(|(_, error)| failed(error))?;
    match obstacle {
        None => Ok(()),
        Some(why) => Err(LedgerError::Refused(why)),
    }
}
