//! systemd hears that something long at a start goes on: a start is given more time for as long as it does.

use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::systemd;

/// Steps of SQLite's between two looks at the time.
const STEPS: i32 = 1_000_000;
/// How often systemd is told.
const TELL_PERIOD: Duration = Duration::from_secs(5);

/// Bytes of a log that is moved in no time.
const SHORT_LOG: u64 = 8 << 20;
/// Bytes of a log that the slowest card takes in a second, each at a place of its own.
const SLOWEST: u64 = 128 << 10;

/// Runs what SQLite takes many steps for.
pub(super) fn in_steps<T>(
    db: &mut Connection,
    what: &'static str,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let begun = Instant::now();
    let mut told: Option<Instant> = None;
    let tell = move || {
        if told.is_none_or(|at| at.elapsed() >= TELL_PERIOD) {
            told = Some(Instant::now());
            goes_on(what, begun);
        }
        false
    };
    db.progress_handler(STEPS, Some(tell))?;
    let done = work(db);
    db.progress_handler(0, None::<fn() -> bool>)?;
    done
}

/// Runs what writes a log of so many bytes once more, which is one step of SQLite's or none. A disk that takes longer
/// for that than the slowest hangs, and is waited for no longer.
pub(super) fn with_log<T>(bytes: u64, work: impl FnOnce() -> T) -> T {
    if bytes <= SHORT_LOG {
        return work();
    }
    let (done, is_done) = channel::<()>();
    let begun = Instant::now();
    let patience = Duration::from_secs(bytes / SLOWEST);
    let tell = move || {
        while begun.elapsed() < patience {
            goes_on("moving the ledger's log into its file", begun);
            if is_done.recv_timeout(TELL_PERIOD) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        if let Err(error) = std::thread::Builder::new().name("ledger-progress".into()).spawn_scoped(scope, tell) {
            tracing::warn!(%error, "systemd is not told that the start goes on: no thread for it");
        }
        let moved = work();
        drop(done);
        moved
    })
}

fn goes_on(what: &str, begun: Instant) {
    systemd::goes_on(&format!("{what}, for {} s", begun.elapsed().as_secs()));
}
