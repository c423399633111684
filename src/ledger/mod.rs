//! The ledger: what the gateway must not forget, in one SQLite file.
//!
//! The handle is cheap to clone. Each connection is owned by one thread: what writes (module `writer`), what only reads
//! (`reader`), what proves the file (`integrity`). Each function says what is on the disk when it returns.
//!
//! On the disk, beside SQLite's own `-wal` and `-shm`:
//! - `ledger.db`: `application_id` 0x66627231, `user_version` the number of migrations applied; its tables stand at the
//!   head of `schema`.
//! - `ledger.db.lock`: locked by the running daemon, so that a second one refuses to start.
//! - `ledger.db.ballast`: 4 MiB that are given back when the disk is full.
//! - `ledger.db.sound`: the process before had no I/O error; without it the whole file is proven first.
//!
//! Invariants
//! - A [`Receipt`] exists only for a row that is committed with `synchronous=FULL`; completing a message takes one
//!   (G1).
//! - What is asked here costs the same whatever the number of rows (G16).

pub mod backup;
mod condition;
pub mod disk;
pub mod doubt;
mod error;
pub mod explanation;
mod filter;
mod integrity;
mod keeper;
mod listing;
mod lives;
mod lookup;
mod mark;
mod offline;
mod progress;
mod reader;
mod replacement;
pub mod row;
mod schema;
mod shown;
mod store;
mod tails;
mod trust;
mod writer;

pub use error::LedgerError;
pub use listing::{Listed, Wanted};
pub use offline::Reader;
pub use store::{Legacy, Life, Locked, CHANGING};
pub use writer::Writing;

use rusqlite::Connection;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch, Notify};
use tokio::time::Instant;

use crate::command::decide::Known;
use crate::command::message::Digest;
use crate::command::outcome::{Outcome, State};
use crate::command::Envelope;
use crate::complaint::Complaint;
use crate::health::meters::{Distribution, Histogram};
use crate::proof::crash::{self, Point};
use crate::time::trust::WallClock;
use crate::time::Timestamp;
use condition::Condition;
use disk::{Disk, SystemDisk};
use filter::{Filter, Writes};
use integrity::{ProofTask, Proving};
use lookup::Asked;
use mark::Mark;
use reader::{Look, Reading};
use row::{Event, Record, RowId, Source, Unfinished};
use tails::Tails;
use trust::Trust;
use writer::{Ask, Kind, Task, Then, Writer};

/// Work that may wait for the writer. Callers wait for their answers, so this is never reached by a well-behaved
/// gateway.
const QUEUE_MAX: usize = 1024;
/// Tasks that may wait for the prover. It does all that is due at the first.
const PROOF_TASKS_MAX: usize = 4;

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
pub struct Receipt(RowId);

impl Receipt {
    /// The row that it is of.
    pub fn row(&self) -> RowId {
        self.0
    }
}

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
    /// What the message says of itself.
    pub envelope: Envelope,
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
    /// When its first byte left the gateway, if that is known: not where an earlier life has sent it.
    pub sent_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// The ledger of a running daemon.
#[derive(Clone)]
pub struct Ledger {
    asks: mpsc::Sender<Ask>,
    health: watch::Receiver<Health>,
    /// Told when a note waits and none did.
    notes: Arc<Notify>,
    uuid: String,
    age_at_start: i64,
    ended_well: bool,
    late_window_at_start: Duration,
    locked: Locked,
    last_row_at_start: i64,
    ways_at_start: Option<Vec<u8>>,
    started: Instant,
    wall_clock: Arc<WallClock>,
    trust: Arc<Trust>,
    looks: mpsc::Sender<Look>,
    proof_tasks: mpsc::Sender<ProofTask>,
    stop_proof: Arc<AtomicBool>,
    filter: Arc<Filter>,
    tails: Arc<Tails>,
    /// Events that the hub has acknowledged and whose removal is not committed.
    acknowledged: Arc<Mutex<BTreeSet<i64>>>,
    commits: Arc<Histogram>,
}

/// What a ledger is known by and whom it trusts, and the beginning of another life in it.
fn begin_life(db: &Connection, home: &str, life: Life<'_>) -> rusqlite::Result<(store::Identity, store::Standing)> {
    let identity = store::identity(db)?;
    let standing = store::standing(db)?;
    crash::point(Point::LedgerProven);
    let begin = db.unchecked_transaction()?;
    store::begin_life(&begin, life)?;
    store::set_home(&begin, home, identity.age)?;
    begin.commit()?;
    crash::point(Point::LifeBegun);
    Ok((identity, standing))
}

#[expect(clippy::missing_errors_doc, reason = "each error is a LedgerError, whose variants say what was committed")]
impl Ledger {
    /// Locks, proves and opens the ledger, making it if there is none. `home` is the host name of the hub that is
    /// configured, `ways` a digest of the transports by which its devices are reached. The writer's thread ends by
    /// [`Ledger::close`].
    ///
    /// # Errors
    /// [`LedgerError::Untrusted`], with what to do.
    pub fn open(path: &Path, home: &str, ways: &[u8]) -> Result<Ledger, LedgerError> {
        Ledger::open_for(path, home, Life { ways, late_window: Duration::ZERO })
    }

    /// The same for a daemon whose peripherals may owe it answers.
    ///
    /// # Errors
    /// [`LedgerError::Untrusted`], with what to do.
    pub fn open_for(path: &Path, home: &str, life: Life<'_>) -> Result<Ledger, LedgerError> {
        let (ledger, writing) = Ledger::open_on(Arc::new(SystemDisk), path, home, life)?;
        writing.start().map_err(|error| LedgerError::Untrusted {
            path: path.to_owned(),
            why: Complaint::bare(format!("got no thread: {error}")),
        })?;
        Ok(ledger)
    }

    /// Locks, proves and opens the ledger on a disk. Where its writer runs is left to the caller.
    ///
    /// # Errors
    /// [`LedgerError::Untrusted`], with what to do.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        home: &str,
        life: Life<'_>,
    ) -> Result<(Ledger, Writing), LedgerError> {
        let (path, lock) = schema::lock(&*disk, path, home)?;
        let path = path.as_path();
        let mark = Mark::of(disk.clone(), path);
        let is_sound = mark.is_there();
        let db = schema::open(&*disk, path, home, is_sound).inspect_err(|_| mark.take_away())?;
        let untrusted = |why: String| LedgerError::Untrusted { path: path.to_owned(), why: Complaint::bare(why) };
        let begun = begin_life(&db, home, life);
        let (identity, standing) = begun.map_err(|error| untrusted(format!("can't be used: {error}")))?;
        if !is_sound {
            mark.set();
        }
        let (condition, health) = Condition::new(mark);
        let (asks, queue) = mpsc::channel(QUEUE_MAX);
        let (looks, questions) = mpsc::channel(QUEUE_MAX);
        let (proof_tasks, to_do) = mpsc::channel(PROOF_TASKS_MAX);
        let (filter, stop_proof) = (Arc::new(Filter::default()), Arc::new(AtomicBool::new(false)));
        let beside = schema::open_beside(&*disk, path);
        let beside = beside.map_err(|error| untrusted(format!("can't be read: {error}")))?;
        let reading = Reading { db: beside, queue: questions, condition: condition.clone() };
        let proving = Proving {
            disk: disk.clone(),
            path: path.to_owned(),
            proof_tasks: to_do,
            condition: condition.clone(),
            filter: filter.clone(),
            stop: stop_proof.clone(),
            is_due: is_sound,
        };
        let notes = Arc::<Notify>::default();
        let commits = Arc::<Histogram>::default();
        let writer = Writer::new(db, disk, path, lock, condition, notes.clone(), commits.clone());
        crash::point(Point::BallastLaid);
        let _ = proof_tasks.try_send(ProofTask::Look);
        let ledger = Ledger {
            asks,
            health,
            notes,
            uuid: identity.uuid,
            age_at_start: identity.age,
            ended_well: identity.ended_well,
            late_window_at_start: identity.late_window,
            locked: identity.locked,
            last_row_at_start: identity.last_row,
            ways_at_start: identity.ways,
            started: Instant::now(),
            wall_clock: Arc::new(WallClock::new(identity.wall)),
            trust: Arc::new(Trust::new(standing)),
            looks,
            proof_tasks,
            stop_proof,
            filter,
            tails: Arc::default(),
            acknowledged: Arc::default(),
            commits,
        };
        Ok((ledger, Writing { writer, queue, reading, proving }))
    }

    /// What to think of the wall clock: the ledger remembers the latest time that was witnessed.
    pub fn wall_clock(&self) -> &WallClock {
        &self.wall_clock
    }

    /// Whether the ledger can be written, and every change of that.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Whether the ledger can be written, as far as is known.
    pub fn is_well(&self) -> bool {
        self.health.borrow().ok
    }

    /// How long commits took since the start, each with its flush.
    pub fn commits(&self) -> Distribution {
        self.commits.reading()
    }

    /// Waits until the ledger can be written.
    pub async fn well(&self) {
        // An error means that the writer has ended: the process is about to, and the caller waits for that.
        if self.health.clone().wait_for(|health| health.ok).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What is known of a message that a hub, by its host name in lower case, has delivered, whatever it asks for.
    /// Writes nothing.
    pub async fn lookup(
        &self,
        hub: &str,
        device: &str,
        message_id: Option<&str>,
        digest: Digest,
    ) -> Result<Lookup, LedgerError> {
        self.look_up((hub, device), (message_id, digest), Some(Asked::default())).await
    }

    /// What is known of a message or a call. Both share their ids: the same command with the same value as JSON is the
    /// same under one id, whichever came first. Writes nothing.
    pub async fn find(&self, new: &NewRow) -> Result<Lookup, LedgerError> {
        crash::point(Point::BeforeLookup);
        let (is_call, command, value) = (new.source == Source::Method, new.command.clone(), new.value.clone());
        // What is desired is told apart by its digest alone: its id is of its own making.
        let asked = (new.source != Source::Twin).then_some(Asked { is_call, command, value });
        let found = self.look_up((&new.hub, &new.device), (new.message_id.as_deref(), new.digest), asked).await?;
        crash::point(Point::LookedUp);
        Ok(found)
    }

    async fn look_up(
        &self,
        (hub, device): (&str, &str),
        (message_id, digest): (Option<&str>, Digest),
        asked: Option<Asked>,
    ) -> Result<Lookup, LedgerError> {
        // Most messages are new, and nobody need look for them.
        let unseen = message_id.is_none_or(|id| self.filter.is_new(device, id));
        let Some(message_id) = message_id.filter(|_| !unseen).map(str::to_owned) else {
            return Ok(Lookup { known: Known::New, row: None, elsewhere: None });
        };
        let (hub, device, age) = (hub.to_owned(), device.to_owned(), self.age());
        self.look(move |db| lookup::lookup(db, (&hub, &device), (&message_id, &digest), asked.as_ref(), age)).await
    }

    /// A row, whatever its state. `None`: there is none of this number.
    pub async fn record(&self, row: RowId) -> Result<Option<Record>, LedgerError> {
        self.look(move |db| store::show_row(db, row.0)).await
    }

    /// Whether an earlier ledger may know of commands of this device that this one does not know (G15).
    pub fn distrusts(&self, hub: &str, device: &str) -> bool {
        self.epoch();
        self.trust.distrusts(hub, device, self.age())
    }

    /// The first believable time after the ledger was made or restored for which a synchronised clock or a hub speaks:
    /// what was sent clearly later, no earlier ledger has seen. `None`: there was none yet, or the ledger is trusted
    /// anyway.
    pub fn epoch(&self) -> Option<Timestamp> {
        let (now, age) = (|| self.wall_clock.confirmed_now(), self.age());
        let (epoch, is_new) = self.trust.epoch(now, age)?;
        // One that finds the queue full is saved with the age.
        if is_new {
            let _ = self.asks.try_send(note(move |db| store::set_epoch(db, epoch, age)));
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
        let _ = self.asks.try_send(note(move |db| store::set_home(db, &home, age)));
    }

    /// On return the message stands as `accepted`.
    pub async fn accept(&self, new: NewRow) -> Result<(RowId, Receipt), LedgerError> {
        let age = self.age();
        let writes = self.writes(&new);
        let insert = move |db: &Connection| {
            let _ = &writes;
            store::insert(db, &new, State::Accepted, 0, Timestamp::now(), age)
        };
        crash::point(Point::BeforeAccept);
        let row = self.ask(Kind::Write, insert).await?;
        crash::point(Point::AcceptKnown);
        Ok((row, Receipt(row)))
    }

    /// On return the command stands as `executing`: the next step may put it on the wire.
    pub async fn begin(&self, row: Option<RowId>, new: NewRow) -> Result<RowId, LedgerError> {
        let age = self.age();
        let writes = self.writes(&new);
        let begin = move |db: &Connection| match (row, &writes) {
            (Some(row), _) => store::begin(db, row, Timestamp::now()).map(|()| row),
            (None, _) => store::insert(db, &new, State::Executing, 1, Timestamp::now(), age),
        };
        crash::point(Point::BeforeExecuting);
        let row = self.ask(Kind::Write, begin).await?;
        crash::point(Point::ExecutingKnown);
        Ok(row)
    }

    /// On return the outcome and its result event are both on the disk.
    pub async fn finish(&self, finish: Finish) -> Result<Receipt, LedgerError> {
        let (age, uuid, tails) = (self.age(), self.uuid.clone(), self.tails.clone());
        let writes = self.writes(&finish.new);
        let device = finish.new.device.clone();
        let hand_over = move |(_, event): &(RowId, Option<Event>)| {
            if let Some(event) = event {
                tails.add(&device, event.clone());
            }
        };
        let write = move |db: &Connection| {
            let _ = &writes;
            store::finish(db, &finish, &uuid, age)
        };
        crash::point(Point::BeforeOutcome);
        let (row, _) = self.ask_then(Kind::Write, write, Some(Box::new(hand_over))).await?;
        crash::point(Point::OutcomeKnown);
        Ok(Receipt(row))
    }

    /// A message whose row is durable was delivered again. The count follows with a later commit.
    pub fn delivered_again(&self, row: RowId) -> Receipt {
        let (age, now) = (self.age(), Timestamp::now());
        // One that finds the queue full is not counted. The row is known for the retention time all the same.
        let _ = self.asks.try_send(note(move |db| store::count_delivery(db, row, now, age)));
        Receipt(row)
    }

    /// The hub was told what became of a message, in these words. That is noted with a later commit, such as the one
    /// that removes its event: it costs none of its own.
    pub fn settled(&self, row: RowId, how: String) {
        let now = Timestamp::now();
        // One that finds the queue full is not noted: then it is not known when the hub was told.
        let _ = self.asks.try_send(note(move |db| store::note_settled(db, row, now, &how)));
    }

    /// The hub has acknowledged an event. It is removed with a later commit; until then a crash publishes it again.
    /// Waits for a place in the writer's queue: an event that stayed would be published again by every connection.
    pub async fn event_acknowledged(&self, seq: i64) {
        self.tails.forget(seq);
        // A closed queue means that the process is about to end.
        if let Ok(place) = self.asks.reserve().await {
            let acknowledged = self.acknowledged.clone();
            acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(seq);
            let removed = move |(): &()| {
                acknowledged.lock().unwrap_or_else(PoisonError::into_inner).remove(&seq);
            };
            place.send(note_then(move |db| store::remove_event(db, seq), Some(Box::new(removed))));
        }
    }

    /// Events of a device that the hub has not acknowledged, after number `after`, oldest first.
    pub async fn events(&self, device: &str, after: i64, limit: usize) -> Result<Vec<Event>, LedgerError> {
        if let Some(events) = self.tails.after(device, after, limit) {
            return Ok(events);
        }
        let (id, uuid) = (device.to_owned(), self.uuid.clone());
        let events = self.look(move |db| store::events(db, &uuid, &id, after, limit)).await?;
        if events.len() < limit {
            self.tails.end_of_file(device, events.last().map_or(after, |event| event.seq));
        }
        Ok(events)
    }

    /// Every command that is not final, of one device or of all, in the order of receipt.
    pub async fn unfinished(&self, device: Option<&str>) -> Result<Vec<Unfinished>, LedgerError> {
        let device = device.map(str::to_owned);
        self.look(move |db| store::unfinished(db, device.as_deref())).await
    }

    /// Whether a row was made by this process, and not by an earlier one.
    pub fn is_of_this_life(&self, row: RowId) -> bool {
        row.0 > self.last_row_at_start
    }

    /// Number of rows, and of events that the hub has not acknowledged.
    pub async fn counts(&self) -> Result<(i64, i64), LedgerError> {
        let acknowledged = self.acknowledged.clone();
        self.look(move |db| {
            let (rows, events) = store::counts(db)?;
            // A copy: a commit may be told of meanwhile.
            let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut there = db.prepare_cached("SELECT 1 FROM outbox WHERE seq = ?1")?;
            let gone = acknowledged.iter().filter(|seq| there.exists([seq]).unwrap_or(false)).count();
            Ok((rows, events - gone as i64))
        })
        .await
    }

    /// Number of events that nobody publishes, for their devices are none of these.
    pub async fn events_of_others(&self, mut devices: Vec<String>) -> Result<i64, LedgerError> {
        devices.sort_unstable();
        self.look(move |db| store::events_of_others(db, &devices)).await
    }

    /// Whether the threads answer.
    pub async fn is_alive(&self) -> bool {
        self.ask(Kind::Read, |_| Ok(())).await.is_ok() && self.look(|_| Ok(())).await.is_ok()
    }

    /// Memory that the knowledge of which ids are new takes, bytes; 0 while it is being gathered.
    pub fn filter_bytes(&self) -> usize {
        self.filter.bytes()
    }

    /// A row with this id is being written for as long as the answer is kept, which is what writes it.
    fn writes(&self, new: &NewRow) -> Option<Writes> {
        new.message_id.as_ref().map(|id| self.filter.writes(&new.device, id))
    }

    /// Asks the reader.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (look, answer) = Look::new(work);
        self.looks.send(look).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// Seconds that daemons have run on this ledger. Grows with the monotonic clock only: no jump of the wall clock
    /// can make a row look older than it is (G10). While the gateway is off it stands still.
    fn age(&self) -> i64 {
        self.age_at_start + i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX / 2)
    }

    async fn ask<T, F>(&self, kind: Kind, work: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.ask_then(kind, work, None).await
    }

    /// Asks the writer; `then` is called with the answer before the caller is told.
    async fn ask_then<T, F>(&self, kind: Kind, work: F, then: Then<T>) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Task { work, kind, value: None, then, reply: Some(reply) };
        self.asks.send(Ask::Job(Box::new(task))).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

/// Work that nobody waits for.
fn note<F>(work: F) -> Ask
where
    F: FnMut(&Connection) -> rusqlite::Result<()> + Send + 'static,
{
    note_then(work, None)
}

/// The same, with something to be done once it is committed.
fn note_then<F>(work: F, then: Then<()>) -> Ask
where
    F: FnMut(&Connection) -> rusqlite::Result<()> + Send + 'static,
{
    Ask::Job(Box::new(Task { work, kind: Kind::Note, value: None, then, reply: None }))
}
