//! The proof of the whole file, beside the service, and the mark that says that it may be there.
//!
//! What a start stands on, when it does not prove the whole file first:
//! - The log. Each of its frames has a checksum, and what is not whole is not taken ([`super::schema`]).
//! - The ledger's own row, every row that is not final, and the newest rows with their entries in the index by which a
//!   redelivery is known: what was written when the power went. They are read before anything connects.
//! - Each page that a look-up goes through. SQLite refuses a page that is no page of its tree, and the process ends.
//!
//! Invariants
//! - The mark is there only for a file that a process has proven, or made, and has had no I/O error with since. It is
//!   taken away before such a process ends; within one boot of the machine that is seen by the next one even if the
//!   disk does not take it. After another boot what can be read is what is on the disk.
//! - Without the mark, the whole file is proven before anything connects.
//! - The first fault that is found beside the service ends the process.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
#[cfg(feature = "proof")]
use std::time::Duration;

use rusqlite::{params, Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::condition::{classify, Condition};
use super::disk::{beside, Disk};
use super::filter::{Bits, Filter};
use super::{schema, store, LedgerError};

/// The log must not grow beyond this while one state of the file is looked at: until then it can't be emptied.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Steps of SQLite's between two looks at whether to go on.
const STEPS: i32 = 50_000;
/// Ids that are read at a time.
const CHUNK: usize = 2000;

/// Something to do.
pub(super) enum ProofTask {
    /// Prove what is not proven, and make the filter if it is wanted.
    Look,
    /// End.
    Stop(oneshot::Sender<()>),
}

/// The prover and its queue.
pub(super) struct Proving {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) proof_tasks: mpsc::Receiver<ProofTask>,
    pub(super) condition: Condition,
    pub(super) filter: Arc<Filter>,
    /// Set when it is to end.
    pub(super) stop: Arc<AtomicBool>,
    /// The whole file was not proven in this life yet.
    pub(super) is_due: bool,
}

/// How a look ended that found no fault.
enum Looked {
    Done,
    /// It is to be taken up again.
    PutOff,
}

impl Proving {
    /// Serves on this thread until it is told to stop, or a fault is found.
    pub(super) fn run(mut self) {
        while let Some(task) = self.proof_tasks.blocking_recv() {
            if !self.serve(task) {
                return;
            }
        }
    }

    /// The same among the other tasks of a simulation.
    #[cfg(feature = "proof")]
    pub(super) async fn run_among_tasks(mut self, latency: impl Fn() -> Duration) {
        while let Some(task) = self.proof_tasks.recv().await {
            tokio::time::sleep(latency()).await;
            if !self.serve(task) {
                return;
            }
        }
    }

    fn serve(&mut self, task: ProofTask) -> bool {
        match task {
            ProofTask::Stop(done) => {
                let _ = done.send(());
                return false;
            }
            ProofTask::Look if !self.is_due && !self.filter.is_wanted() => return true,
            ProofTask::Look => {}
        }
        let mut db = match schema::open_beside(&*self.disk, &self.path) {
            Ok(db) => db,
            // Nothing was read yet: there may be no handle, or no memory, for this.
            Err(error) => {
                tracing::debug!(%error, "the ledger can't be opened once more to be proven; that is put off");
                return true;
            }
        };
        match self.look(&mut db) {
            Ok(()) => true,
            // It is tried again when it is asked for again.
            Err(LedgerError::Full(_) | LedgerError::Locked(_)) => true,
            Err(error) => {
                self.condition.give_up(&error);
                false
            }
        }
    }

    fn look(&mut self, db: &mut Connection) -> Result<(), LedgerError> {
        if self.is_due {
            match self.prove(db)? {
                Looked::PutOff => return Ok(()),
                // The mark is there since the start, or was taken away meanwhile for what has gone wrong.
                Looked::Done => self.is_due = false,
            }
        }
        if self.filter.is_wanted() {
            match self.fill(db) {
                Ok(Looked::Done) => {}
                Ok(Looked::PutOff) => self.filter.give_up(),
                Err(error) => {
                    self.filter.give_up();
                    return Err(classify("reading", &error));
                }
            }
        }
        Ok(())
    }

    fn prove(&self, db: &mut Connection) -> Result<Looked, LedgerError> {
        let (stop, disk, log) = (self.stop.clone(), self.disk.clone(), beside(&self.path, "-wal"));
        let must_end = move || {
            let is_long = disk.look(&log).is_ok_and(|found| found.length > LOG_BYTES_MAX);
            stop.load(Ordering::Relaxed) || is_long
        };
        let failed = |error: rusqlite::Error| classify("proving", &error);
        db.progress_handler(STEPS, Some(must_end)).map_err(failed)?;
        let begun = tokio::time::Instant::now();
        let verdict = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        db.progress_handler(0, None::<fn() -> bool>).map_err(failed)?;
        match verdict {
            Ok(verdict) if verdict == "ok" => {
                tracing::debug!(seconds = begun.elapsed().as_secs(), "the whole ledger is proven");
                Ok(Looked::Done)
            }
            Ok(verdict) => Err(LedgerError::Failed(format!(
                "the ledger {} is damaged: {verdict}. Restore a backup (fieldbridge ledger restore FILE)",
                self.path.display()
            ))),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(Looked::PutOff),
            Err(error) => Err(failed(error)),
        }
    }

    /// Adds every id that stands in the ledger to the filter, a few at a time: each look at the file is short.
    fn fill(&self, db: &Connection) -> rusqlite::Result<Looked> {
        let (rows, _) = store::counts(db)?;
        let bits = self.filter.begin(u64::try_from(rows).unwrap_or(0));
        let mut after = Some(RowKey::default());
        while let Some(last) = after {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Looked::PutOff);
            }
            after = add_chunk(db, &bits, &last)?;
        }
        self.filter.is_complete();
        Ok(Looked::Done)
    }
}

/// What a row is known by.
#[derive(Default)]
struct RowKey {
    hub: i64,
    device: String,
    message_id: String,
    digest: Vec<u8>,
}

/// Adds the ids that come after one. Gives the last of them, if there may be more.
fn add_chunk(db: &Connection, bits: &Bits, after: &RowKey) -> rusqlite::Result<Option<RowKey>> {
    let mut statement = db.prepare_cached(
        "SELECT hub, device, message_id, digest FROM command INDEXED BY command_identity
         WHERE message_id IS NOT NULL AND (hub, device, message_id, digest) > (?1, ?2, ?3, ?4)
         ORDER BY hub, device, message_id, digest LIMIT ?5",
    )?;
    let RowKey { hub, device, message_id, digest } = after;
    let mut rows = statement.query(params![hub, device, message_id, digest, CHUNK as i64])?;
    let (mut found, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        bits.add(row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
        found += 1;
        if found == CHUNK {
            let (hub, device) = (row.get(0)?, row.get(1)?);
            last = Some(RowKey { hub, device, message_id: row.get(2)?, digest: row.get(3)? });
        }
    }
    Ok(last)
}
