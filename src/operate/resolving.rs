//! `ledger resolve`: by the daemon that runs, else in the file.
//!
//! Invariant: the file is not touched while a daemon has the ledger.

use std::path::Path;

use crate::exit::Exit;
use crate::ledger::doubt::resolve_alone;
use crate::ledger::row::Resolution;
use crate::ledger::LedgerError;
use crate::operate::admin::{client, Request};
use crate::operate::exec;
use crate::time::trust;
use crate::time::Timestamp;

/// Notes that somebody has looked at what the command in doubt of a row has done.
///
/// # Errors
/// [`Exit::No`] where there is nothing to resolve, [`Exit::NotRunning`] if a daemon runs that can't be reached,
/// [`Exit::Ledger`] if the ledger can't be written.
pub fn resolve(socket: &Path, ledger: &Path, row: i64, note: Option<&str>) -> Result<(), Exit> {
    let request = Request::Resolve { row, note: note.map(str::to_owned) };
    let why = match client::ask(socket, &request) {
        Err(Exit::NotRunning(why)) => why,
        answered => return answered.map(drop),
    };
    let now = Timestamp::now();
    let now = if trust::is_synchronised(now) { now } else { Timestamp::UNKNOWN };
    let resolution = Resolution::new(now, exec::user_here(), note.map(str::to_owned)).map_err(Exit::No)?;
    match resolve_alone(ledger, row, &resolution) {
        Err(LedgerError::InUse(_)) => Err(Exit::NotRunning(format!("a daemon runs, but {why}"))),
        done => Ok(done?),
    }
}
