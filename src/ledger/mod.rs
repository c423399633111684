//! The ledger: what the gateway must not forget, in one SQLite file.
//!
//! The handle is cheap to clone; the connection is owned by one thread (module `writer`). Each function says what is
//! on the disk when it returns.
//!
//! Invariants
//! - A [`Receipt`] exists only for a row that is committed with `synchronous=FULL`; completing a message takes one
//!   (G1).

pub mod disk;
pub mod row;
mod schema;
mod store;
mod trust;
mod writer;

pub use writer::Writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value as Json;
use tokio::sync::{mpsc, oneshot, watch, Notify};
use tokio::time::Instant;

use crate::belief::Belief;
use crate::clock::Timestamp;
use crate::command::decide::Known;
use crate::command::message::Digest;
use crate::command::outcome::{Outcome, State};
use crate::crash::{self, Point};
use disk::{Disk, SystemDisk};
use row::{Event, Record, RowId, Source, Unfinished};
use trust::Trust;
use writer::{Ask, Kind, Task, Writer};

/// Work that may wait for the writer. Callers wait for their answers, so this is never reached by a well-behaved
/// gateway.
const QUEUE_MAX: usize = 1024;
/// How long a note waits for other work to share a commit with.
const NOTE_PATIENCE: Duration = Duration::from_millis(250);
/// How often a ledger that could not be written is tried again.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// How often old rows are looked for. The ledger's age is saved at the same time.
const PRUNE_PERIOD: Duration = Duration::from_secs(3600);

/// Why the ledger did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// Not committed, nothing changed; it may work again later.
    #[error("{0}")]
    Full(String),
    /// Not committed, nothing changed: another program holds the ledger; it may work again later.
    #[error("{0}")]
    Locked(String),
    /// Not committed, and the ledger must not be used again by this process.
    #[error("{0}")]
    Failed(String),
    /// The file can't be used.
    #[error("the ledger {} {why}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// There is no ledger yet.
    #[error("there is no ledger at {}; the daemon makes it when it first starts", .0.display())]
    Missing(PathBuf),
    /// The writer has ended.
    #[error("the ledger is closed")]
    Closed,
}

/// Whether the ledger can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// It can.
    pub ok: bool,
    /// Why it can't.
    pub last_error: Option<String>,
    /// The connection is not to be trusted any more: the process must end.
    pub failed: Option<String>,
}

/// Proof that the row a completion stands on is durable. Only this module makes one.
#[derive(Debug)]
pub struct Receipt(());

/// What the ledger knows of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// What it knows.
    pub known: Known,
    /// The message's row, if it has one.
    pub row: Option<RowId>,
    /// It is new at this hub, and the same message stands in a row of another hub's, in this state, where one hub may
    /// have two names: a redelivery can't be excluded. If there are several, one that may have been on the wire.
    pub elsewhere: Option<State>,
}

/// A message as it enters the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRow {
    /// Host name of the hub, lower case. Of a local operator's, the hub that is configured.
    pub hub: String,
    /// Who asked for it. A local operator's has no message id, and no result event.
    pub source: Source,
    /// Device id at the hub.
    pub device: String,
    /// The message's id.
    pub message_id: Option<String>,
    /// Of what it asks for.
    pub digest: Digest,
    /// The command's name.
    pub command: Option<String>,
    /// The command's value. The row keeps it.
    pub value: Option<Json>,
    /// When it came. [`Timestamp::UNKNOWN`]: the clock is not believed.
    pub received_at: Timestamp,
    /// `$.exp`.
    pub expires_at: Option<Timestamp>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Its row, if it has one already.
    pub row: Option<RowId>,
    /// The message.
    pub new: NewRow,
    /// The outcome.
    pub outcome: Outcome,
    /// Attempts on the wire that were begun.
    pub attempts: u32,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// The ledger of a running daemon.
#[derive(Clone)]
pub struct Ledger {
    asks: mpsc::Sender<Ask>,
    health: watch::Receiver<Health>,
    notes: std::sync::Arc<Notify>,
    uuid: String,
    age_at_start: i64,
    ended_well: bool,
    started: Instant,
    belief: Arc<Belief>,
    trust: Arc<Trust>,
}

impl Ledger {
    /// Locks, proves and opens the ledger, making it if there is none. `home` is the host name of the hub that is
    /// configured. The writer's thread ends by [`Ledger::close`].
    ///
    /// # Errors
    /// [`LedgerError::Untrusted`], with what to do.
    pub fn open(path: &Path, home: &str) -> Result<Ledger, LedgerError> {
        let (ledger, writing) = Ledger::open_on(Arc::new(SystemDisk), path, home)?;
        std::thread::Builder::new().name("ledger".into()).spawn(move || writing.run()).map_err(|error| {
            LedgerError::Untrusted { path: path.to_owned(), why: format!("got no thread: {error}") }
        })?;
        Ok(ledger)
    }

    /// Locks, proves and opens the ledger on a disk. Where its writer runs is left to the caller.
    ///
    /// # Errors
    /// [`LedgerError::Untrusted`], with what to do.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path, home: &str) -> Result<(Ledger, Writing), LedgerError> {
        let (path, lock) = schema::lock(&*disk, path, home)?;
        let path = path.as_path();
        let db = schema::open(&*disk, path, home)?;
        let begin = || {
            let identity = store::identity(&db)?;
            let standing = store::standing(&db)?;
            crash::point(Point::LedgerProven);
            let begin = db.unchecked_transaction()?;
            store::set_ended_well(&begin, false)?;
            store::set_home(&begin, home, identity.age)?;
            begin.commit()?;
            crash::point(Point::LifeBegun);
            Ok((identity, standing))
        };
        let (identity, standing) = begin().map_err(|error: rusqlite::Error| LedgerError::Untrusted {
            path: path.to_owned(),
            why: format!("can't be used: {error}"),
        })?;
        let (health, health_seen) = watch::channel(Health { ok: true, last_error: None, failed: None });
        let (asks, queue) = mpsc::channel(QUEUE_MAX);
        let writer = Writer::new(db, disk, path, lock, health);
        crash::point(Point::BallastLaid);
        let ledger = Ledger {
            asks,
            health: health_seen,
            notes: std::sync::Arc::default(),
            uuid: identity.uuid,
            age_at_start: identity.age,
            ended_well: identity.ended_well,
            started: Instant::now(),
            belief: Arc::new(Belief::new(identity.wall)),
            trust: Arc::new(Trust::new(standing)),
        };
        Ok((ledger, Writing { writer, queue }))
    }

    /// What to think of the wall clock: the ledger remembers the latest time that was believed.
    pub fn belief(&self) -> &Belief {
        &self.belief
    }

    /// Whether the ledger can be written, and every change of that.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Whether the ledger can be written, as far as is known.
    pub fn is_well(&self) -> bool {
        self.health.borrow().ok
    }

    /// Waits until the ledger can be written.
    pub async fn well(&self) {
        // An error means that the writer has ended: the process is about to, and the caller waits for that.
        if self.health.clone().wait_for(|health| health.ok).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What is known of a message that a hub, by its host name in lower case, has delivered. Writes nothing.
    pub async fn lookup(
        &self,
        hub: &str,
        device: &str,
        message_id: Option<&str>,
        digest: Digest,
    ) -> Result<Lookup, LedgerError> {
        let (hub, device, message_id) = (hub.to_owned(), device.to_owned(), message_id.map(str::to_owned));
        let age = self.age();
        self.ask(Kind::Read, move |db| store::lookup(db, &hub, &device, message_id.as_deref(), &digest, age)).await
    }

    /// Whether an earlier ledger may know of commands of this device that this one does not know (G15).
    pub fn distrusts(&self, hub: &str, device: &str) -> bool {
        self.epoch();
        self.trust.distrusts(hub, device, self.age())
    }

    /// The first believable time after the ledger was made or restored: what was sent clearly later, no earlier ledger
    /// has seen. `None`: there was none yet, or the ledger is trusted anyway.
    pub fn epoch(&self) -> Option<Timestamp> {
        let (now, age) = (|| self.belief.now().ok(), self.age());
        let (epoch, is_new) = self.trust.epoch(now, age)?;
        // One that finds the queue full is saved with the age.
        if is_new && self.asks.try_send(note(move |db| store::set_epoch(db, epoch, age))).is_ok() {
            self.notes.notify_one();
        }
        Some(epoch)
    }

    /// Nothing of before is left of a device at a hub: on return that is durable, and the device trusted.
    pub async fn trust_device(&self, hub: &str, device: &str) -> Result<(), LedgerError> {
        if !self.trust.distrusts(hub, device, self.age()) {
            return Ok(());
        }
        let (key, age) = ((hub.to_owned(), device.to_owned()), self.age());
        let (host, id) = key.clone();
        self.ask(Kind::Write, move |db| store::trust_device(db, &host, &id, age)).await?;
        self.trust.add(key);
        Ok(())
    }

    /// The configuration names another hub. That is durable with a later commit; if it is lost, the next start says it
    /// again.
    pub fn moved_to(&self, home: &str) {
        let (home, age) = (home.to_owned(), self.age());
        if self.asks.try_send(note(move |db| store::set_home(db, &home, age))).is_ok() {
            self.notes.notify_one();
        }
    }

    /// On return the message stands as `accepted`.
    pub async fn accept(&self, new: NewRow) -> Result<(RowId, Receipt), LedgerError> {
        let age = self.age();
        let row =
            self.ask(Kind::Write, move |db| store::insert(db, &new, State::Accepted, 0, Timestamp::now(), age)).await?;
        Ok((row, Receipt(())))
    }

    /// On return the command stands as `executing`: the next step may put it on the wire.
    pub async fn begin(&self, row: Option<RowId>, new: NewRow) -> Result<RowId, LedgerError> {
        let age = self.age();
        self.ask(Kind::Write, move |db| match row {
            Some(row) => store::begin(db, row, Timestamp::now()).map(|()| row),
            None => store::insert(db, &new, State::Executing, 1, Timestamp::now(), age),
        })
        .await
    }

    /// On return the outcome and its result event are both on the disk.
    pub async fn finish(&self, finish: Finish) -> Result<Receipt, LedgerError> {
        let age = self.age();
        self.ask(Kind::Write, move |db| store::finish(db, &finish, age)).await?;
        Ok(Receipt(()))
    }

    /// A message whose row is durable was delivered again. The count follows with a later commit.
    pub fn delivered_again(&self, row: RowId) -> Receipt {
        let (age, now) = (self.age(), Timestamp::now());
        // One that finds the queue full is not counted. The row is known for the retention time all the same.
        if self.asks.try_send(note(move |db| store::count_delivery(db, row, now, age))).is_ok() {
            self.notes.notify_one();
        }
        Receipt(())
    }

    /// The hub has acknowledged an event. It is removed with a later commit; until then a crash publishes it again.
    /// Waits for a place in the writer's queue: an event that stayed would be published again by every connection.
    pub async fn event_acknowledged(&self, seq: i64) {
        // A closed queue means that the process is about to end.
        if let Ok(place) = self.asks.reserve().await {
            place.send(note(move |db| store::remove_event(db, seq)));
            self.notes.notify_one();
        }
    }

    /// Events of a device that the hub has not acknowledged, after number `after`, oldest first.
    pub async fn events(&self, device: &str, after: i64, limit: usize) -> Result<Vec<Event>, LedgerError> {
        let (device, uuid) = (device.to_owned(), self.uuid.clone());
        self.ask(Kind::Read, move |db| store::events(db, &uuid, &device, after, limit)).await
    }

    /// Every command that is not final, of one device or of all, in the order of receipt.
    pub async fn unfinished(&self, device: Option<&str>) -> Result<Vec<Unfinished>, LedgerError> {
        let device = device.map(str::to_owned);
        self.ask(Kind::Read, move |db| store::unfinished(db, device.as_deref())).await
    }

    /// Number of rows, and of events in the outbox.
    pub async fn counts(&self) -> Result<(i64, i64), LedgerError> {
        self.ask(Kind::Read, store::counts).await
    }

    /// Whether the writer answers.
    pub async fn is_alive(&self) -> bool {
        self.ask(Kind::Read, |_| Ok(())).await.is_ok()
    }

    /// Commits notes that wait, tries a full disk again, prunes. Runs as long as the daemon does.
    pub async fn keep(&self, retention: watch::Receiver<Duration>) {
        let mut prune = tokio::time::interval(PRUNE_PERIOD);
        let mut health = self.health.clone();
        loop {
            let unwell = !health.borrow_and_update().ok;
            tokio::select! {
                biased;
                _ = prune.tick() => {
                    let retention = *retention.borrow();
                    self.prune(retention).await;
                }
                () = tokio::time::sleep(PROBE_PERIOD), if unwell => self.tick().await,
                _ = health.changed() => {}
                () = self.notes.notified() => {
                    tokio::time::sleep(NOTE_PATIENCE).await;
                    self.tick().await;
                }
            }
            if self.asks.is_closed() {
                return std::future::pending().await;
            }
        }
    }

    /// Deletes rows that are older than `retention`, a few a commit, and saves the ledger's age and the latest time that
    /// was believed.
    pub async fn prune(&self, retention: Duration) {
        loop {
            let (age, wall, epoch) = (self.age(), self.latest_believed(), self.trust.known_epoch());
            let pruned = self
                .ask(Kind::Write, move |db| {
                    store::save_age(db, age, wall)?;
                    if let Some((epoch, age)) = epoch {
                        store::set_epoch(db, epoch, age)?;
                    }
                    store::prune(db, age, retention)
                })
                .await;
            match pruned {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return tracing::warn!(%error, "old rows could not be pruned"),
            }
        }
    }

    /// Whether the last daemon on this ledger stopped in order: then nothing of it is on a bus any more, and nothing that
    /// it has asked there can be answered.
    pub fn ended_well(&self) -> bool {
        self.ended_well
    }

    /// Closes the ledger after everything has stopped in order.
    pub async fn close(&self) {
        // If this is not recorded, the next daemon is more careful than it need be.
        let _ = self.ask(Kind::Write, |db| store::set_ended_well(db, true)).await;
        self.close_after_a_fault().await;
    }

    /// Commits what waits, empties the log and closes the file.
    pub async fn close_after_a_fault(&self) {
        let (age, wall) = (self.age(), self.latest_believed());
        let _ = self.ask(Kind::Write, move |db| store::save_age(db, age, wall)).await;
        let (done, closed) = oneshot::channel();
        if self.asks.send(Ask::Stop(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Seconds that daemons have run on this ledger. Grows with the monotonic clock only: no jump of the wall clock
    /// can make a row look older than it is (G10). While the gateway is off it stands still.
    fn age(&self) -> i64 {
        self.age_at_start + i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX / 2)
    }

    fn latest_believed(&self) -> Timestamp {
        // A clock that can't be believed now adds nothing to it.
        let _ = self.belief.now();
        self.belief.seen()
    }

    async fn tick(&self) {
        // A closed queue means that the process is about to end.
        let _ = self.asks.send(Ask::Tick).await;
    }

    async fn ask<T, F>(&self, kind: Kind, work: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Task { work, kind, value: None, reply: Some(reply) };
        self.asks.send(Ask::Job(Box::new(task))).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

/// Work that nobody waits for.
fn note<F>(work: F) -> Ask
where
    F: FnMut(&Connection) -> rusqlite::Result<()> + Send + 'static,
{
    Ask::Job(Box::new(Task { work, kind: Kind::Note, value: None::<()>, reply: None }))
}

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
    pub fn list(&self, device: Option<&str>, state: Option<State>, limit: u32) -> Result<Vec<Record>, LedgerError> {
        store::list(&self.0, device, state, limit).map_err(read_failed)
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
    LedgerError::Failed(format!("reading the ledger failed: {error}"))
}
