//! The ledger of a daemon that may be running, or not, as the operator's tools look at it.

use std::path::Path;

use rusqlite::Connection;

use super::condition::unusable;
use super::listing::{self, Listed};
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
        listing::list(&self.0, device, state, limit).map_err(read_failed)
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
