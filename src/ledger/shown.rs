//! What the page shows of the ledger: the last commands, and those in doubt that nobody has looked at.

use rusqlite::Connection;

use super::listing::{self, Wanted};
use super::row::Record;
use super::{Ledger, LedgerError};

impl Ledger {
    /// The last commands, and the last of those in doubt that nobody has looked at, so many of each at most, newest
    /// first.
    ///
    /// # Errors
    /// The ledger can't be read.
    pub async fn last_and_in_doubt(&self, most: u32) -> Result<(Vec<Record>, Vec<Record>), LedgerError> {
        let rows = move |db: &Connection, is_open: bool| {
            let wanted = Wanted { is_open, limit: most, ..Wanted::default() };
            listing::list(db, &wanted).map(|listed| listed.rows)
        };
        self.look(move |db| Ok((rows(db, false)?, rows(db, true)?))).await
    }
}
