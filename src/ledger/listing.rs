//! Which rows an operator is shown who asks for the newest, of a device or in a state.
//!
//! Invariant: what is looked through is bounded; what is left out is said.

use rusqlite::{Connection, OptionalExtension, ToSql};

use super::doubt;
use super::row::Record;
use crate::command::outcome::State;
use crate::time::Timestamp;

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

/// Which rows are asked for: those of which all is true that is said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Of this device.
    pub device: Option<&'a str>,
    /// In this state.
    pub state: Option<State>,
    /// In doubt, and nobody has looked: whatever state is asked for.
    pub is_open: bool,
    /// Of this command.
    pub command: Option<&'a str>,
    /// Received then or later.
    pub since: Option<Timestamp>,
    /// Received then or before.
    pub until: Option<Timestamp>,
    /// Made after the row with this number.
    pub after: i64,
    /// So many at most, the newest.
    pub limit: u32,
}

impl Wanted<'_> {
    /// Whether something is asked for that no index has.
    fn has_more(&self) -> bool {
        self.command.is_some() || self.since.is_some() || self.until.is_some()
    }

    /// Its parameters, by their names in [`SAID`].
    fn parameters(&self) -> [(&'static str, Box<dyn ToSql + '_>); 6] {
        [
            (":device", Box::new(self.device)),
            (":command", Box::new(self.command)),
            (":since", Box::new(self.since.map(|at| at.0))),
            (":until", Box::new(self.until.map(|at| at.0))),
            (":after", Box::new(self.after)),
            (":limit", Box::new(self.limit)),
        ]
    }
}

/// What is said, but for the state.
const SAID: &str = "(:device IS NULL OR device = :device) AND (:command IS NULL OR name = :command) \
                    AND (:since IS NULL OR received_at >= :since) AND (:until IS NULL OR received_at <= :until) \
                    AND id > :after ORDER BY id DESC LIMIT :limit";

/// The newest rows, newest first. No other device's rows make it cost more.
pub fn list(db: &Connection, wanted: &Wanted<'_>) -> rusqlite::Result<Listed> {
    if wanted.is_open {
        return all(db, doubt::OPEN, wanted);
    }
    // The words are ours. The further conditions let SQLite see which index has all of them.
    match (wanted.state, wanted.device) {
        (None, None) if !wanted.has_more() => all(db, "WHERE true", wanted),
        (Some(state @ (State::Accepted | State::Executing)), _) => {
            let of_state = format!("INDEXED BY command_unfinished WHERE state = '{state}' AND finished_at IS NULL");
            all(db, &of_state, wanted)
        }
        (None, _) => recent(db, "true", wanted),
        (Some(State::Succeeded), _) => recent(db, "state = 'succeeded'", wanted),
        (Some(state), device) => {
            let of_state = format!(
                "INDEXED BY command_state WHERE state = '{state}' AND finished_at IS NOT NULL AND state <> 'succeeded'"
            );
            match device.is_none() && !wanted.has_more() {
                true => all(db, &of_state, wanted),
                false => sought(db, &of_state, wanted),
            }
        }
    }
}

/// The rows of a query that has some of the parameters of [`Wanted`], and others.
fn rows(
    db: &Connection,
    sql: &str,
    wanted: &Wanted<'_>,
    others: &[(&str, &dyn ToSql)],
) -> rusqlite::Result<Vec<Record>> {
    let mut query = db.prepare(sql)?;
    let own = wanted.parameters();
    let own = own.iter().map(|(name, value)| (*name, &**value as &dyn ToSql));
    for (name, value) in own.chain(others.iter().copied()) {
        if let Some(index) = query.parameter_index(name)? {
            query.raw_bind_parameter(index, value)?;
        }
    }
    let mut found = query.raw_query();
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push(Record::from_row(row)?);
    }
    Ok(rows)
}

/// Rows of an index, of which all may be looked at, or which is in the order that is asked for.
fn all(db: &Connection, index: &str, wanted: &Wanted<'_>) -> rusqlite::Result<Listed> {
    let sql = format!("SELECT {} FROM command {index} AND {SAID}", Record::COLUMNS);
    Ok(Listed { rows: rows(db, &sql, wanted, &[])?, not_looked_through: None })
}

/// Among the newest of a state.
fn sought(db: &Connection, of_state: &str, wanted: &Wanted<'_>) -> rusqlite::Result<Listed> {
    let most = SOUGHT.max(FOR_EACH * i64::from(wanted.limit));
    let newest = format!("SELECT id FROM command {of_state} ORDER BY id DESC LIMIT {most}");
    let sql = format!("SELECT {} FROM command WHERE id IN ({newest}) AND {SAID}", Record::COLUMNS);
    let rows = rows(db, &sql, wanted, &[])?;
    if rows.len() as i64 >= i64::from(wanted.limit) {
        return Ok(Listed { rows, not_looked_through: None });
    }
    let (looked_at, oldest): (i64, Option<i64>) =
        db.query_row(&format!("SELECT count(*), min(id) FROM ({newest})"), [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rest = oldest.filter(|_| looked_at == most).map(|oldest| oldest - 1);
    Ok(Listed { rows, not_looked_through: not_before(db, rest, wanted)? })
}

/// Among the newest rows, of a device also what is older and is found by its message id, or as it is not over.
fn recent(db: &Connection, condition: &str, wanted: &Wanted<'_>) -> rusqlite::Result<Listed> {
    let columns = Record::COLUMNS;
    let newest: i64 = db.query_row("SELECT coalesce(max(id), 0) FROM command", [], |row| row.get(0))?;
    let most = LOOKED_THROUGH.max(FOR_EACH * i64::from(wanted.limit));
    let last = (newest - most).max(0);
    let sql = format!("SELECT {columns} FROM command WHERE {condition} AND id > :last AND {SAID}");
    let mut found = rows(db, &sql, wanted, &[(":last", &last)])?;
    let left = i64::from(wanted.limit) - found.len() as i64;
    if left <= 0 || last == 0 {
        return Ok(Listed { rows: found, not_looked_through: None });
    }
    if wanted.device.is_some() {
        // From the indexes alone; of their rows no more are looked at than before.
        let sql = format!(
            "SELECT {columns} FROM command WHERE id IN (
                SELECT command.id FROM hub CROSS JOIN command INDEXED BY command_identity
                    WHERE command.hub = hub.id AND device = :device AND message_id IS NOT NULL AND command.id <= :last
                UNION SELECT id FROM command INDEXED BY command_unfinished
                    WHERE finished_at IS NULL AND device = :device AND id <= :last
                ORDER BY 1 DESC LIMIT :most) AND {condition} AND {SAID}"
        );
        let limit = u32::try_from(left).unwrap_or(u32::MAX);
        found.extend(rows(db, &sql, &Wanted { limit, ..*wanted }, &[(":last", &last), (":most", &most)])?);
    }
    Ok(Listed { rows: found, not_looked_through: not_before(db, Some(last), wanted)? })
}

/// The number up to which rows were not looked through, unless they are none or came before what is asked for: rows
/// are numbered in the order in which they were made.
fn not_before(db: &Connection, last: Option<i64>, wanted: &Wanted<'_>) -> rusqlite::Result<Option<i64>> {
    let Some(last) = last.filter(|last| *last > wanted.after) else { return Ok(None) };
    let newest: Option<i64> = db
        .prepare("SELECT received_at FROM command WHERE id <= ?1 ORDER BY id DESC LIMIT 1")?
        .query_row([last], |row| row.get(0))
        .optional()?;
    let is_before = |at: i64| wanted.since.is_some_and(|since| at != Timestamp::UNKNOWN.0 && at < since.0);
    Ok(newest.filter(|at| !is_before(*at)).map(|_| last))
}
