//! The ledger as a crash has left it, read by SQLite alone from a copy, so that looking changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::support::disk::copy_of_ledger;
use crate::table::Durable;

/// The device of rows that are old enough to be pruned.
const OLD: &str = "old";
/// More than one window of pruning.
const OLD_ROWS: i64 = 600;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub state: String,
    pub code: Option<String>,
    pub value: Option<String>,
    pub finished_at: Option<i64>,
}

/// What stands in a ledger.
#[derive(Debug, Default)]
pub struct Books {
    /// By message id.
    pub rows: BTreeMap<String, Row>,
    /// Message ids of events that wait.
    pub outbox: BTreeSet<String>,
    pub ended_well: bool,
}

impl Row {
    pub fn durable(&self) -> Durable {
        match self.state.as_str() {
            "accepted" => Durable::Accepted,
            "executing" => Durable::Executing,
            _ => Durable::Final,
        }
    }
}

impl Books {
    /// What a daemon that is dead has left. Without a ledger, nothing.
    pub fn left_in(ledger: &Path) -> Books {
        if !ledger.exists() {
            return Books::default();
        }
        let folder = copy_of_ledger(ledger);
        let db = Connection::open(folder.path().join("ledger.db")).expect("the copy can be opened");
        let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it can be checked");
        assert_eq!(verdict, "ok", "the ledger is whole");
        Books::read(&db)
    }

    fn read(db: &Connection) -> Books {
        let mut statement = db
            .prepare("SELECT message_id, state, error_code, value, finished_at FROM command WHERE device <> ?1")
            .unwrap();
        let row = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(String, Row)> {
            let (state, code, value, finished_at) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            Ok((row.get(0)?, Row { state, code, value, finished_at }))
        };
        let read: Vec<_> = statement.query_map([OLD], row).unwrap().map(Result::unwrap).collect();
        let count = read.len();
        let rows: BTreeMap<_, _> = read.into_iter().collect();
        assert_eq!(rows.len(), count, "one row a message");
        let mut statement = db.prepare("SELECT message_id FROM outbox").unwrap();
        let outbox: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let count = outbox.len();
        let outbox: BTreeSet<_> = outbox.into_iter().collect();
        assert_eq!(outbox.len(), count, "one event a message");
        let ended_well = db.query_row("SELECT ended_well FROM ledger", [], |row| row.get(0)).expect("it knows itself");
        Books { rows, outbox, ended_well }
    }

    pub fn durable(&self, message_id: &str) -> Durable {
        self.rows.get(message_id).map_or(Durable::Nothing, Row::durable)
    }
}

/// Whether a ledger, a daemon running on it or not, has no events that wait and no old rows.
pub fn is_settled(ledger: &Path) -> bool {
    let db =
        Connection::open_with_flags(ledger, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the ledger can be looked at");
    let count = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM command WHERE device = ?1)";
    // It may be locked for a moment.
    db.query_row(count, [OLD], |row| row.get(0)).is_ok_and(|left: i64| left == 0)
}

/// Lets the ledger of a dead daemon grow old, and gives it rows from its youth, beside those that it may have still
/// from the last time.
pub fn grow_old(ledger: &Path) {
    let db = Connection::open(ledger).expect("the ledger can be opened");
    db.execute_batch(&format!(
        "BEGIN;
         UPDATE ledger SET age = age + 30 * 86400;
         UPDATE command SET seen = seen + 30 * 86400;
         WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {OLD_ROWS})
         INSERT INTO command (device, message_id, digest, state, attempts, deliveries, received_at, finished_at, seen, history)
         SELECT '{OLD}', 'old-' || n || '-' || (SELECT age FROM ledger), x'00', 'succeeded', 1, 1, 0, 0, 0, '' FROM number;
         COMMIT;"
    ))
    .expect("rows can be added");
}
