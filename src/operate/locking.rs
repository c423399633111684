//! `lock` and `unlock`: by the daemon that runs, else by the file that the next one reads.
//!
//! Invariant: the file is not touched while a daemon has the ledger beside it.

use std::path::Path;

use serde_json::{json, Value as Json};

use crate::device::lockout::{self, file, Lock};
use crate::exit::Exit;
use crate::ledger::{backup, LedgerError};
use crate::operate::admin::{client, Request};
use crate::operate::exec;
use crate::time::trust;
use crate::time::Timestamp;

/// Locks a device, which `is_known` says is configured if the daemon does not run. Gives what the daemon answers, and
/// whether one has.
///
/// # Errors
/// [`Exit::No`], [`Exit::NotRunning`] if a daemon runs that can't be reached.
pub fn lock(
    socket: &Path,
    ledger: &Path,
    device: &str,
    reason: Option<&str>,
    is_known: impl FnOnce() -> bool,
) -> Result<(Json, bool), Exit> {
    let request = Request::Lock { device: device.to_owned(), reason: reason.map(str::to_owned) };
    by_whom_it_concerns(socket, ledger, &request, |path| {
        let mut locks = file::read(path).map_err(no)?;
        let lock = Lock::new(now().map(|now| now.to_string()), &exec::user_here(), reason);
        let locked = json!(lock.shown());
        locks.lock(device, lock).map_err(no)?;
        if !is_known() {
            return Err(no(format!("no device is called {device:?}")));
        }
        file::write(path, &locks).map_err(|error| no(not_written(path, &error)))?;
        Ok(json!({ "device": device, "locked": locked }))
    })
}

/// Unlocks a device. Gives what the daemon answers, and whether one has.
///
/// # Errors
/// [`Exit::No`], [`Exit::NotRunning`] if a daemon runs that can't be reached.
pub fn unlock(socket: &Path, ledger: &Path, device: &str) -> Result<(Json, bool), Exit> {
    by_whom_it_concerns(socket, ledger, &Request::Unlock { device: device.to_owned() }, |path| {
        let mut locks = file::read(path).map_err(no)?;
        locks.unlock(device, now()).map_err(no)?;
        file::write(path, &locks).map_err(|error| no(not_written(path, &error)))?;
        Ok(json!({ "device": device, "locked": null }))
    })
}

/// Asks the daemon, or does it without if none runs.
fn by_whom_it_concerns(
    socket: &Path,
    ledger: &Path,
    request: &Request,
    alone: impl FnOnce(&Path) -> Result<Json, Exit>,
) -> Result<(Json, bool), Exit> {
    let why = match client::ask(socket, request) {
        Err(Exit::NotRunning(why)) => why,
        answered => return answered.map(|document| (document, true)),
    };
    let _held = match backup::keep_daemons_away(ledger) {
        Ok(held) => held,
        Err(LedgerError::InUse(_)) => return Err(Exit::NotRunning(format!("a daemon runs, but {why}"))),
        Err(error) => return Err(Exit::NotRunning(format!("{why}; and it can't be known that none runs: {error}"))),
    };
    alone(&lockout::path_beside(ledger)).map(|document| (document, false))
}

/// The wall clock's time, if the system says that it is right.
fn now() -> Option<Timestamp> {
    let now = Timestamp::now();
    trust::is_synchronised(now).then_some(now)
}

fn not_written(path: &Path, error: &std::io::Error) -> String {
    format!("{} can't be written: {error}; use sudo, or look at the disk", path.display())
}

fn no(why: impl ToString) -> Exit {
    Exit::No(why.to_string())
}
