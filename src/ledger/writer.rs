//! The thread that owns the ledger's connection.
//!
//! Invariants
//! - Whatever waits when the thread looks is one transaction (group commit); its callers are answered after COMMIT has
//!   returned, never before (G1).
//! - A full disk fails the callers and leaves the ledger usable; the writer says so, gives up its ballast once so
//!   that outcomes of commands already on the wire can still be recorded, and is well again when the ballast can be
//!   laid anew with room beside it (G9).
//! - After any other error the connection is not used again, not even to close it, and the process ends (G9).
//! - Nobody is told of a commit into a file that no longer stands where the next start will look for it.
//! - The log is moved into the file after somebody's commit, not inside of it, and what goes wrong with that is an
//!   error like any other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, Notify};

use super::condition::{classify, Condition};
use super::disk::{beside, Disk};
use super::integrity::Proving;
use super::reader::Reading;
use super::{schema, LedgerError};
use crate::health::meters::Histogram;
use crate::log::events;
use crate::proof::crash::{self, Part, Point};

/// Jobs in one transaction at most: bounds how long the first of them waits.
const BATCH_MAX: usize = 256;
/// Pages in the log from which on it is moved into the file when nobody waits, and whoever waits: 4 and 16 MiB.
const LOG_PAGES: (i64, i64) = (1000, 4000);
/// Size of the ballast file. Room for the outcomes of everything that can be in flight, and for a checkpoint.
const BALLAST_BYTES: usize = 4 * 1024 * 1024;
/// What must be free beside the ballast when it is laid. Without it the ballast would fit into the very space that it
/// gave up, and a full disk would be called well for one commit a second, each time with a new connection to the hub.
const ROOM_BYTES: usize = 1024 * 1024;

/// Work for the writer.
pub(super) enum Ask {
    /// A read, or a write with its caller waiting.
    Job(Box<dyn Job>),
    /// Nothing to do: commits the notes that wait, and sees whether a full disk has space again.
    Tick,
    /// Finish and close.
    Stop(oneshot::Sender<()>),
}

/// One statement or a few, run in the writer's transaction.
pub(super) trait Job: Send {
    /// Whether it can wait for other work to share a commit with.
    fn is_note(&self) -> bool;
    /// Whether it only reads.
    fn is_read(&self) -> bool;
    /// Runs it. May be called again after a rollback.
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()>;
    /// Tells the caller, after the transaction has ended.
    fn settle(self: Box<Self>, committed: Result<(), LedgerError>);
}

/// What is done once a job is committed, before its caller is told.
pub(super) type Then<T> = Option<Box<dyn FnOnce(&T) + Send>>;

/// A closure as a [`Job`].
pub(super) struct Task<T, F> {
    pub(super) work: F,
    pub(super) kind: Kind,
    pub(super) value: Option<T>,
    /// What is to be known before the caller is told of the commit.
    pub(super) then: Then<T>,
    pub(super) reply: Option<oneshot::Sender<Result<T, LedgerError>>>,
}

/// What kind of [`Task`] it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Note,
}

impl<T: Send, F: FnMut(&Connection) -> rusqlite::Result<T> + Send> Job for Task<T, F> {
    fn is_note(&self) -> bool {
        self.kind == Kind::Note
    }

    fn is_read(&self) -> bool {
        self.kind == Kind::Read
    }

    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.value = Some((self.work)(db)?);
        Ok(())
    }

    fn settle(self: Box<Self>, committed: Result<(), LedgerError>) {
        let Task { value, then, reply, .. } = *self;
        let result = committed.map(|()| value.expect("a job that was committed has run"));
        if let (Ok(value), Some(then)) = (&result, then) {
            then(value);
        }
        // A caller that is gone learns nothing; what it asked for is on disk all the same.
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
    }
}

/// What follows on a round of work.
enum After {
    Next,
    /// The connection is not to be used again.
    Failed,
    Stop(oneshot::Sender<()>),
}

/// What serves the ledger, and the queues of it.
pub struct Writing {
    pub(super) writer: Writer,
    pub(super) queue: mpsc::Receiver<Ask>,
    pub(super) reading: Reading,
    pub(super) proving: Proving,
}

impl Writing {
    /// Serves on threads of its own until it is told to stop, every handle is gone, or the file can't be trusted any
    /// more.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self) -> std::io::Result<()> {
        let Writing { writer, queue, reading, proving } = self;
        let spawn = |name: &str| std::thread::Builder::new().name(name.into());
        spawn("ledger").spawn(move || serve(writer, queue))?;
        spawn("ledger-reader").spawn(move || reading.run())?;
        spawn("ledger-proof").spawn(move || proving.run())?;
        Ok(())
    }

    /// The same among the other tasks of a simulation, whose disk takes `latency` for each round.
    #[cfg(feature = "proof")]
    pub async fn run_among_tasks(self, latency: impl FnMut() -> Duration) {
        let Writing { mut writer, mut queue, reading, proving } = self;
        let latency = std::sync::Mutex::new(latency);
        let latency = || latency.lock().expect("nobody panics in it")();
        let writes = async {
            while let Some(first) = queue.recv().await {
                tokio::time::sleep(latency()).await;
                let Some(goes_on) = writer.round(first, &mut queue) else { return };
                writer = goes_on;
            }
        };
        let others = async {
            tokio::join!(reading.run_among_tasks(latency), proving.run_among_tasks(latency));
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = writes => {}
            () = others => {}
        }
    }
}

fn serve(mut writer: Writer, mut queue: mpsc::Receiver<Ask>) {
    while let Some(first) = queue.blocking_recv() {
        let Some(goes_on) = writer.round(first, &mut queue) else { return };
        writer = goes_on;
    }
}

/// The writer's side of the ledger.
pub(super) struct Writer {
    db: Connection,
    disk: Arc<dyn Disk>,
    standing: Standing,
    ballast: PathBuf,
    condition: Condition,
    notes: Vec<Box<dyn Job>>,
    /// Told when a note waits and none did.
    notes_wait: Arc<Notify>,
    /// How long commits took.
    commits: Arc<Histogram>,
    _lock: schema::Lock,
}

impl Writer {
    pub(super) fn new(
        db: Connection,
        disk: Arc<dyn Disk>,
        path: &Path,
        lock: schema::Lock,
        condition: Condition,
        notes_wait: Arc<Notify>,
        commits: Arc<Histogram>,
    ) -> Self {
        let (standing, ballast) = (Standing::of(disk.clone(), path), beside(path, ".ballast"));
        let notes = Vec::new();
        let writer = Writer { db, disk, standing, ballast, condition, notes, notes_wait, commits, _lock: lock };
        if let Err(error) = writer.lay_ballast() {
            writer.set_unwell(&format!("the disk has no room for the ledger's ballast ({error}); free some space"));
        }
        writer
    }

    /// Serves `first` and whatever else waits. It goes on, or ends as it must.
    fn round(mut self, first: Ask, asks: &mut mpsc::Receiver<Ask>) -> Option<Writer> {
        match self.serve_all(first, asks) {
            After::Next if self.move_log(asks.is_empty()).is_ok() => return Some(self),
            After::Next => self.abandon(),
            // Closing would let SQLite write the log into the file. The next process does that, after it has proven
            // both.
            After::Failed => self.abandon(),
            After::Stop(done) => {
                self.close();
                let _ = done.send(());
            }
        }
        None
    }

    fn serve_all(&mut self, first: Ask, asks: &mut mpsc::Receiver<Ask>) -> After {
        let mut batch = Vec::new();
        let mut tick = false;
        let mut stop = None;
        let mut ask = Some(first);
        while let Some(next) = ask.take() {
            match next {
                Ask::Job(job) if job.is_note() => self.let_wait(job),
                Ask::Job(job) => batch.push(job),
                Ask::Tick => tick = true,
                Ask::Stop(done) => {
                    self.put_notes_before(&mut batch);
                    stop = Some(done);
                    break;
                }
            }
            if batch.len() < BATCH_MAX {
                ask = asks.try_recv().ok();
            }
        }
        // A note that waits is committed; a ledger that can't be written is tried again after what others wait for.
        if (tick || self.notes.len() >= BATCH_MAX) && self.condition.is_well() {
            self.put_notes_before(&mut batch);
        }
        let (reads, writes): (Vec<_>, Vec<_>) = batch.into_iter().partition(|job| job.is_read());
        if !writes.is_empty() {
            crash::stick_thread(Part::Ledger);
        }
        if self.serve(reads).and_then(|()| self.serve(writes)).is_err() {
            return After::Failed;
        }
        if tick && !self.condition.is_well() && self.try_again().is_err() {
            return After::Failed;
        }
        stop.map_or(After::Next, After::Stop)
    }

    fn abandon(self) {
        // A simulation goes on after the end of the process.
        #[cfg(feature = "proof")]
        let Some(this) = crate::time::simulated::bury(self) else {
            return;
        };
        #[cfg(not(feature = "proof"))]
        let this = self;
        std::mem::forget(this);
    }

    /// Tries whether the ledger can be written again. An error means that the connection is not to be used again.
    fn try_again(&mut self) -> Result<(), ()> {
        // The log holds what the ballast took in; emptied into the file it gives that space back.
        let emptied = self.empty_log();
        let tried = match emptied {
            Ok(()) if self.lay_ballast().is_err() => return Ok(()),
            Ok(()) => {
                crash::point(Point::BallastRegained);
                self.commit(&mut [])
            }
            failed => failed,
        };
        match tried {
            Ok(()) => {
                tracing::info!(name: events::LEDGER_WELL, "the ledger can be written again; intake goes on");
                self.set_patience(schema::BUSY_TIMEOUT);
                self.condition.set_well();
                if !self.notes.is_empty() {
                    self.notes_wait.notify_one();
                }
                Ok(())
            }
            Err(LedgerError::Full(_) | LedgerError::Locked(_)) => Ok(()),
            Err(error) => {
                self.condition.give_up(&error);
                Err(())
            }
        }
    }

    /// Moves the log into the file when it has grown. Nobody's commit waits for it unless it has grown much. An error
    /// means that the connection is not to be used again.
    fn move_log(&mut self, is_idle: bool) -> Result<(), ()> {
        let limit = if is_idle { LOG_PAGES.0 } else { LOG_PAGES.1 };
        let moved = schema::log_pages(&self.db).and_then(|waiting| match waiting < limit {
            true => Ok(()),
            false => self.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())),
        });
        let Err(error) = moved else { return Ok(()) };
        match classify("writing", &error) {
            LedgerError::Full(why) => self.set_unwell(&why),
            LedgerError::Locked(_) => {}
            failed => {
                self.condition.give_up(&failed);
                return Err(());
            }
        }
        Ok(())
    }

    /// How long a write waits for another program's lock. Reads wait behind it.
    fn set_patience(&self, patience: Duration) {
        if let Err(error) = self.db.busy_timeout(patience) {
            tracing::warn!(%error, "the ledger's patience with locks can't be set");
        }
    }

    /// Runs a batch and tells its callers. An error means that the connection is not to be used again.
    fn serve(&mut self, mut batch: Vec<Box<dyn Job>>) -> Result<(), ()> {
        if batch.iter().any(|job| !job.is_read()) && self.condition.is_well() {
            self.put_notes_before(&mut batch);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut result = self.commit(&mut batch);
        if matches!(result, Err(LedgerError::Full(_))) && self.disk.remove(&self.ballast).is_ok() {
            crash::point(Point::BallastGivenUp);
            result = self.commit(&mut batch);
            let why = "the disk is full; nothing more is taken from the hub until there is space";
            self.set_unwell(why);
        }
        match &result {
            Ok(()) => {}
            Err(LedgerError::Full(why) | LedgerError::Locked(why)) => self.set_unwell(why),
            Err(error) => self.condition.give_up(error),
        }
        let failed = matches!(result, Err(LedgerError::Failed(_)));
        for job in batch {
            // A note that was not committed is tried again with the next commit.
            if job.is_note() && result.is_err() && self.notes.len() < BATCH_MAX {
                self.let_wait(job);
            } else {
                job.settle(result.clone());
            }
        }
        if failed {
            Err(())
        } else {
            Ok(())
        }
    }

    /// Keeps a note until something else is committed, or it has waited long enough.
    fn let_wait(&mut self, note: Box<dyn Job>) {
        if self.notes.is_empty() {
            self.notes_wait.notify_one();
        }
        self.notes.push(note);
    }

    /// Before, because a row must not be pruned by a transaction that then notes that it was delivered again.
    fn put_notes_before(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        batch.splice(..0, self.notes.drain(..));
    }

    fn set_unwell(&self, why: &str) {
        // Whatever is tried from now on shows at once whether it works again.
        self.set_patience(Duration::ZERO);
        self.condition.set_unwell(why);
    }

    fn commit(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), LedgerError> {
        let writes = batch.is_empty() || batch.iter().any(|job| !job.is_read());
        let run = |db: &Connection, batch: &mut [Box<dyn Job>]| -> rusqlite::Result<()> {
            db.execute_batch(if writes { "BEGIN IMMEDIATE" } else { "BEGIN" })?;
            if batch.is_empty() {
                db.execute_batch("UPDATE ledger SET age = age")?;
            }
            batch.iter_mut().try_for_each(|job| job.run(db))?;
            db.execute_batch("COMMIT")?;
            crash::committed();
            Ok(())
        };
        let begun = Instant::now();
        run(&self.db, batch).map_err(|error| {
            crash::rolled_back();
            if !self.db.is_autocommit() {
                if let Err(error) = self.db.execute_batch("ROLLBACK") {
                    return LedgerError::Failed(format!("the ledger can't be rolled back: {error}"));
                }
            }
            classify("writing", &error)
        })?;
        if writes {
            self.commits.observe(begun.elapsed());
            self.standing.check()?;
        }
        Ok(())
    }

    /// Lays the ballast file, unless it lies there; an error means that the disk is full.
    fn lay_ballast(&self) -> std::io::Result<()> {
        if self.disk.look(&self.ballast).is_ok_and(|found| found.length == BALLAST_BYTES as u64) {
            return Ok(());
        }
        self.disk.lay(&self.ballast, BALLAST_BYTES, ROOM_BYTES).inspect_err(|_| {
            let _ = self.disk.remove(&self.ballast);
        })
    }

    /// Moves the log into the file. A reader, a lock or a full disk may prevent that, and nothing is lost by it.
    fn empty_log(&self) -> Result<(), LedgerError> {
        match self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            Ok(()) => Ok(()),
            Err(error) => match classify("writing", &error) {
                LedgerError::Full(_) | LedgerError::Locked(_) => Ok(()),
                failed => Err(failed),
            },
        }
    }

    fn close(self) {
        if let Err(error) = self.empty_log() {
            tracing::warn!(%error, "the ledger's log was not emptied; the next start proves both files");
        }
        crash::point(Point::LogEmptied);
        if let Err((_, error)) = self.db.close() {
            tracing::warn!(%error, "the ledger did not close cleanly; it will be checked at the next start");
        }
    }
}

/// Where the ledger's two files stood when they were opened. SQLite goes on with files that were deleted or replaced,
/// and would not notice one that was cut short.
struct Standing {
    disk: Arc<dyn Disk>,
    file: PathBuf,
    log: PathBuf,
    opened: Option<[(u64, u64); 2]>,
    /// It only grows: nothing here vacuums.
    length: u64,
}

impl Standing {
    fn of(disk: Arc<dyn Disk>, path: &Path) -> Standing {
        let log = beside(path, "-wal");
        let mut standing = Standing { disk, file: path.to_owned(), log, opened: None, length: 0 };
        // A log that is made by the first commit only is known from then on.
        standing.opened = standing.look().ok().map(|(found, _)| found);
        standing
    }

    fn look(&self) -> std::io::Result<([(u64, u64); 2], u64)> {
        let (file, log) = (self.disk.look(&self.file)?, self.disk.look(&self.log)?);
        Ok(([file.file, log.file], file.length))
    }

    fn check(&mut self) -> Result<(), LedgerError> {
        let failed = |what: String| {
            LedgerError::Failed(format!("the ledger {} {what} while the daemon used it", self.file.display()))
        };
        let (found, length) = self.look().map_err(|error| failed(format!("was moved or deleted ({error})")))?;
        if *self.opened.get_or_insert(found) != found {
            return Err(failed("was replaced".into()));
        }
        if length < self.length {
            return Err(failed("was cut short".into()));
        }
        self.length = length;
        Ok(())
    }
}
