//! Whether the ledger can be used, as all of its threads know it and tell the rest of the daemon.

use rusqlite::ErrorCode;
use tokio::sync::watch;

use super::mark::Mark;
use super::{Health, LedgerError};
use crate::log::events;

/// Shared by everybody who holds a connection.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    health: watch::Sender<Health>,
    mark: Mark,
}

impl Condition {
    /// Of a ledger that was opened.
    pub(super) fn new(mark: Mark) -> (Condition, watch::Receiver<Health>) {
        let (health, seen) = watch::channel(Health { ok: true, last_error: None, failed: None });
        (Condition { health, mark }, seen)
    }

    pub(super) fn is_well(&self) -> bool {
        self.health.borrow().ok
    }

    /// It can't be written at present.
    pub(super) fn set_unwell(&self, why: &str) {
        self.health.send_if_modified(|health| {
            if health.failed.is_some() {
                return false;
            }
            let changed = health.ok;
            if changed {
                tracing::error!(name: events::LEDGER_UNWELL, why, "the ledger can't be written: intake stops, the hub keeps the messages");
            }
            *health = Health { ok: false, last_error: Some(why.to_owned()), failed: None };
            changed
        });
    }

    /// It can be written again.
    pub(super) fn set_well(&self) {
        self.health.send_if_modified(|health| {
            let changes = health.failed.is_none();
            if changes {
                *health = Health { ok: true, last_error: None, failed: None };
            }
            changes
        });
    }

    /// The process must end, and the next one must prove the whole file first.
    pub(super) fn give_up(&self, error: &LedgerError) {
        self.mark.take_away();
        let why = error.to_string();
        tracing::error!(name: events::LEDGER_LOST, error = %why, "the ledger can't be trusted any more");
        self.health.send_replace(Health { ok: false, last_error: Some(why.clone()), failed: Some(why) });
    }

    /// What an error means for the ledger, and tells it.
    pub(super) fn tell(&self, error: &LedgerError) {
        match error {
            LedgerError::Full(why) | LedgerError::Locked(why) => self.set_unwell(why),
            error => self.give_up(error),
        }
    }
}

/// What an error of SQLite's means for the ledger.
pub(super) fn classify(doing: &str, error: &rusqlite::Error) -> LedgerError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            LedgerError::Full("the disk is full; free some space, and the daemon goes on by itself".into())
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerError::Locked(
            "another program holds the ledger locked; end it, and the daemon goes on by itself".into(),
        ),
        _ => unusable(doing, error),
    }
}

/// Of an error behind which no attempt gets. SQLite finds a page that is damaged; a row whose words are, only who reads
/// it does.
pub(super) fn unusable(doing: &str, error: &rusqlite::Error) -> LedgerError {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    LedgerError::Failed(match error {
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..) => format!(
            "{doing} the ledger failed: a row of it is damaged ({error}). Restore a backup (fieldbridge ledger restore FILE)"
        ),
        _ => format!("{doing} the ledger failed: {error}"),
    })
}
