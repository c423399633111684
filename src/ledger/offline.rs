//! The ledger of a daemon that may be running, or not, as the operator's tools look at it.

use std::path::Path;

use rusqlite::Connection;

use super::condition::unusable;
use super::explanation::{self, Around};
use super::listing::{self, Listed, Wanted};
use super::row::Record;
use super::{schema, store, LedgerError};
use crate::command::outcome::State;

/// The ledger of a daemon that may be running, or not, to look at.
pub struct Reader(Connection);

impl Reader {
    /// Opens the ledger for reading.
    ///
    /// # Errors
    /// [`LedgerError::Missing`] or [`LedgerError::Untrusted`].
    pub fn open(path: &Path) -> Result<Reader, LedgerError> {
        schema::open_read_only(path).map(Reader)
    }

    /// Whether the ledger can be taken up by a daemon.
    ///
    /// # Errors
    /// [`LedgerError::Missing`] or [`LedgerError::Untrusted`].
    pub fn look(path: &Path) -> Result<(), LedgerError> {
        schema::look(path)
    }

    /// The newest rows, newest first.
    ///
    /// # Errors
    /// [`LedgerError::Failed`] if the file can't be read.
    pub fn list(&self, device: Option<&str>, state: Option<State>, limit: u32) -> Result<Listed, LedgerError> {
        self.search(&Wanted { device, state, limit, ..Wanted::default() })
    }

    /// The newest rows of which all is true that is said, newest first.
    ///
    /// # Errors
    /// [`LedgerError::Failed`] if the file can't be read.
    pub fn search(&self, wanted: &Wanted<'_>) -> Result<Listed, LedgerError> {
        listing::list(&self.0, wanted).map_err(read_failed)
    }

    /// Every row of one message id, oldest first, at whichever hub and of whatever body; so many at most.
    ///
    /// # Errors
    /// [`LedgerError::Failed`] if the file can't be read.
    pub fn all_of(&self, device: &str, message_id: &str, limit: u32) -> Result<Vec<Record>, LedgerError> {
        explanation::all_of(&self.0, device, message_id, limit).map_err(read_failed)
    }

    /// What the ledger knows around a row.
    ///
    /// # Errors
    /// [`LedgerError::Failed`] if the file can't be read.
    pub fn around(&self, row: &Record) -> Result<Around, LedgerError> {
        explanation::around(&self.0, row).map_err(read_failed)
    }

    /// The row with a number.
    ///
    /// # Errors
    /// [`LedgerError::Failed`] if the file can't be read.
    pub fn show_row(&self, number: i64) -> Result<Option<Record>, LedgerError> {
        store::show_row(&self.0, number).map_err(read_failed)
    }

    /// The row of one message.
    ///
    /// # Errors
    /// [`LedgerError::Failed`] if the file can't be read.
    pub fn show(&self, device: &str, message_id: &str) -> Result<Option<Record>, LedgerError> {
        store::show(&self.0, device, message_id).map_err(read_failed)
    }
}

fn read_failed(error: rusqlite::Error) -> LedgerError {
    unusable("reading", &error)
}
